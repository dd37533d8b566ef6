"""Threads: one begins, or `begin` says that it could not.

`threading.Thread.start` waits for a sign of life, for ever where memory runs out
between the birth of a thread and its first line (python/cpython issue 140746): whoever
started it hangs, and whoever needs a lock that it holds.
"""

from __future__ import annotations

import _thread
import resource
import threading
from typing import Callable

#: A thread that shows no sign of life for so long is given up, and does nothing.
BIRTH_S = 1.0
#: A thread's stack where addresses are few; else it is 8 MiB.  In one of 1 MiB, the
#: brackets of a hostile body crash Python 3.13.
STACK_BYTES = 2 << 20
#: malloc.h of glibc.
M_ARENA_MAX = -8


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


def spare_addresses() -> None:
    """Where the process may have but so many addresses, take few for each thread.

    glibc gives a thread 8 MiB for its stack and 64 MiB for what it allocates, and keeps
    them for the next: under an RLIMIT_AS of 200 MiB, Python itself finds none after the
    first threads, for ever.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    import ctypes  # only here: few hosts set that limit

    _thread.stack_size(STACK_BYTES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # musl has none, and no such arenas
        mallopt(M_ARENA_MAX, 1)
