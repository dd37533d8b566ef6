"""Threads: one begins, or `begin` says that it could not.

Births are dear, so one that is done waits for more.  And they fail in a bad way:
`threading.Thread.start` waits for a sign of life, for ever where memory runs out
between the birth of a thread and its first line (python/cpython issue 140746): whoever
started it hangs, and whoever needs a lock that it holds.
"""

from __future__ import annotations

import _thread
import collections
import resource
import threading
from typing import Callable, Optional

#: A thread that shows no sign of life for so long is given up, and does nothing.
BIRTH_S = 1.0
#: So many wait for more to do; whoever finds as many waiting ends.
IDLE_LIMIT = 4
#: A thread's stack where addresses are few; else it is 8 MiB.  In one of 1 MiB, the
#: brackets of a hostile body crash Python 3.13.
STACK_BYTES = 2 << 20
#: malloc.h of glibc.
M_ARENA_MAX = -8


class Work:
    """What a thread does.  It ends with the process at the latest."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._over = threading.Lock()
        self._over.acquire()

    def do(self) -> None:
        try:
            self._call()
        finally:
            self._over.release()

    def join(self, patience_s: float) -> None:
        """Wait until it is done, as long as that."""
        if self._over.acquire(timeout=patience_s):
            self._over.release()


class Worker:
    """A thread, with what it is to do next."""

    def __init__(self, name: str) -> None:
        self._next: Optional[Work] = None
        self._chance = threading.Lock()  # whoever takes it decides whether it begins
        self._begun, self._given = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._given.acquire()
        _thread.start_new_thread(self._live, ())
        if not self._begun.acquire(timeout=BIRTH_S) and self._chance.acquire(False):
            raise RuntimeError(f"the thread {name} had no memory to begin")

    def give(self, work: Work) -> None:
        """Have it do something; by whoever made it or took it from those that wait."""
        self._next = work
        self._given.release()

    def _live(self) -> None:
        if not self._chance.acquire(False):
            return
        self._begun.release()
        while True:
            self._given.acquire()
            work, self._next = self._next, None
            if work:
                work.do()
            del work  # it may have a connection, or a run
            with _lock:
                if len(_idle) >= IDLE_LIMIT:
                    return
                _idle.append(self)


#: Those that wait.  `_lock` keeps them few; to take one needs none, with a deque.
_lock = threading.Lock()
_idle: collections.deque[Worker] = collections.deque()


def begin(name: str, call: Callable[[], None]) -> Work:
    """Do something in a thread that does nothing else meanwhile.

    Raises RuntimeError where the system has no room for a thread: nothing was begun.
    """
    try:
        work = Work(call)
        try:
            worker = _idle.pop()
        except IndexError:
            worker = Worker(name)
        worker.give(work)
        return work
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
