"""Threads: one begins, or `begin` says that it could not.

`threading.Thread.start` waits for a sign of life, for ever where memory runs out
between the birth of a thread and its first line (python/cpython issue 140746): whoever
started it hangs, and whoever needs a lock that it holds.
"""

from __future__ import annotations

import _thread
import threading
from typing import Callable

#: A thread that shows no sign of life for so long is given up, and does nothing.
BIRTH_S = 1.0


class Thread:
    """A thread that has begun.  It ends with the process at the latest."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self._chance = threading.Lock()  # whoever takes it decides whether it begins
        self._begun, self._over = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._over.acquire()
        _thread.start_new_thread(self._live, ())
        if not self._begun.acquire(timeout=BIRTH_S) and self._chance.acquire(False):
            raise RuntimeError(f"the thread {name} had no memory to begin")

    def _live(self) -> None:
        if self._chance.acquire(False):
            try:
                self._begun.release()
                self._work()
            finally:
                self._over.release()

    def join(self, patience_s: float) -> None:
        """Wait until its work is done, as long as that."""
        if self._over.acquire(timeout=patience_s):
            self._over.release()


def begin(name: str, work: Callable[[], None]) -> Thread:
    """Do something in a thread of its own.

    Raises RuntimeError where the system has no room for a thread: nothing was begun.
    """
    try:
        return Thread(name, work)
    except MemoryError:
        raise RuntimeError(f"no memory is left for the thread {name}") from None
