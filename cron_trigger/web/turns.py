"""Turns: whose requests are worked on now, so that one client's flood is its own.

Python runs one thread at a time, for 5 ms each: two hundred busy ones of one client
would let another's request wait a second at each of its steps.  So of each client only
a few work at once; its others sleep, in their order.  Connections' threads call.
"""

from __future__ import annotations

import collections
import threading
import time
from typing import Callable


class _Line:
    """The threads of one client: how many more may work, and who waits for that."""

    def __init__(self, free: int, moved_s: float) -> None:
        self.free = free
        #: When a turn was given back.
        self.moved_s = moved_s
        self.waiting: collections.deque[threading.Lock] = collections.deque()


class Turns:
    """Lets a few threads of each client work at once."""

    AT_ONCE = 2
    #: Where none was given back for so long, those at work wait for a disk or a lock,
    #: not for the interpreter: then nobody waits for them.
    STUCK_S = 0.25

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards the lines
        self._lines: dict[str, _Line] = {}

    def take(self, client: str) -> None:
        """Return when one more thread of a client may work."""
        with self._lock:
            new = _Line(self.AT_ONCE, self._monotonic())
            line = self._lines.setdefault(client, new)
            if line.free > 0:
                line.free -= 1
                return
            gate = threading.Lock()
            gate.acquire()
            line.waiting.append(gate)
        while not gate.acquire(timeout=self.STUCK_S):
            with self._lock:
                if gate not in line.waiting:
                    return  # it was given a turn just now
                if self._monotonic() - line.moved_s >= self.STUCK_S:
                    line.waiting.remove(gate)
                    line.free -= 1  # below 0: one more than there are
                    return

    def give(self, client: str) -> None:
        """Give a turn back, to the one who has waited for longest."""
        with self._lock:
            line = self._lines[client]
            line.moved_s = self._monotonic()
            if line.waiting and line.free >= 0:
                line.waiting.popleft().release()
                return
            line.free += 1
            if line.free == self.AT_ONCE:
                del self._lines[client]
