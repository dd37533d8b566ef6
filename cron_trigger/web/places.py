"""Places and turns: how much of everything at once, and how much of a client's.

It knows who holds each place and promises that no client keeps the others out: one
has at most a share of all, and where all are taken, the greediest one's oldest goes.
Connections' threads, the accepting thread and the loop call; a lock of its own guards
each table, and whoever is pushed out is told after it was given back.
"""

from __future__ import annotations

import collections
import math
import os
import resource
import threading
import time
from typing import Any, Callable, Optional

from cron_trigger.registry.errors import overloaded
from cron_trigger.registry.limits import Limit, Limits

#: Descriptors that are kept free: for so many launches, each of which has eight for a
#: moment, for the history's files, and for runs under way.
LAUNCHES, KEPT_DESCRIPTORS = 2, 28


def limits_for(
    limits: Limits, descriptors: Optional[int] = None, used: Optional[int] = None
) -> Limits:
    """Return of these limits what so many open files (default: the soft limit) leave
    room for, where so many are `used` anyway (default: those open now): getrlimit(2).
    """
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if used is None:
        used = len(os.listdir("/proc/self/fd"))
    wanted = limits.connections.total + limits.streams.total + limits.followers.total
    room = descriptors - used - KEPT_DESCRIPTORS
    if descriptors == resource.RLIM_INFINITY or room >= wanted:
        return limits
    part = max(0, room) / wanted
    fewer: dict[str, Any] = {
        name: Limit(*(max(2, int(number * part)) for number in limit))
        for name, limit in limits._asdict().items()
        if isinstance(limit, Limit)
    }
    fewer["triggers"] = Limit(LAUNCHES, LAUNCHES)
    return limits._replace(**fewer)


class Place:
    """What one of those has.  `leave` is called when it is pushed out."""

    __slots__ = ("client", "kind", "leave", "lost", "since_s")

    def __init__(self, kind: Places, client: str, leave: Callable[[], None]) -> None:
        self.kind = kind
        self.client = client
        self.leave = leave
        #: Since when it has waited for its client; who is at work does so never.
        self.since_s = kind.monotonic()
        #: It was pushed out.
        self.lost = False

    def give(self) -> None:
        """Give it back; it may have been lost, or given back, before."""
        with self.kind.lock:
            self.kind.remove(self)

    def hold(self) -> bool:
        """Keep it from being pushed out; return False if it was already."""
        with self.kind.lock:
            self.since_s = math.inf
            return not self.lost

    def wait(self) -> None:
        """Say that it waits for its client from now on, and may be pushed out."""
        with self.kind.lock:
            self.since_s = self.kind.monotonic()


class Places:
    """The places of one kind."""

    def __init__(
        self,
        limit: Limit,
        safe_s: float = math.inf,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody is pushed out before `safe_s`."""
        self.limit = limit
        self._safe_s = safe_s
        self.monotonic = monotonic
        self.lock = threading.Lock()  # guards the table, and each place in it
        self._taken: dict[Place, None] = {}  # the oldest first
        self._counts: collections.Counter[str] = collections.Counter()  # by client

    def claim(
        self,
        client: str,
        refused: str,
        again_s: int,
        leave: Callable[[], None] = lambda: None,
    ) -> Place:
        """Return a place, if need be another one's; else `overloaded`."""
        (share, total), pushed = self.limit, None
        with self.lock:
            mine = self._counts[client]
            if mine >= share or len(self._taken) >= total:
                # Of one client too many: its own oldest makes room.
                pushed = self._push(client, total if mine >= share else mine)
                if pushed is None:
                    raise overloaded(refused, again_s)
            place = Place(self, client, leave)
            self._taken[place] = None
            self._counts[client] += 1
        if pushed:
            pushed.leave()
        return place

    def _push(self, client: str, mine: int) -> Optional[Place]:
        """Push out the oldest of the greediest with more than `mine`, or the client's.

        Who has no more than the one that comes is not pushed out for it.
        """
        before_s, counts = self.monotonic() - self._safe_s, self._counts
        waiting = [
            place
            for place in self._taken
            if place.since_s <= before_s
            and (counts[place.client] > mine or place.client == client)
        ]
        found = min(waiting, key=lambda p: (-counts[p.client], p.since_s), default=None)
        if found:
            self.remove(found)
            found.lost = True
        return found

    def remove(self, place: Place) -> None:
        """Count a place no more; by who holds `lock`."""
        if place in self._taken:
            del self._taken[place]
            self._counts[place.client] -= 1
            if not self._counts[place.client]:
                del self._counts[place.client]

    def push_out(self) -> None:
        """Push out the oldest of the greediest: something else is short."""
        with self.lock:
            found = self._push("", 0)
        if found:
            found.leave()

    def taken(self) -> list[Place]:
        """Return the places that somebody has."""
        with self.lock:
            return list(self._taken)


class _Line:
    """The threads of one client: how many more may work, and who waits for that."""

    def __init__(self, free: int, moved_s: float) -> None:
        self.free = free
        #: When a turn was given back.
        self.moved_s = moved_s
        self.waiting: collections.deque[threading.Lock] = collections.deque()


class Turns:
    """Lets a few threads of each client work at once; its others sleep, in their order.

    Python runs one thread at a time, for 5 ms each: two hundred busy ones of one client
    would let another's request wait a second at each of its steps.
    """

    AT_ONCE = 2
    #: Where none was given back for so long, those at work wait for a disk or a lock,
    #: not for the interpreter: then nobody waits for them.
    STUCK_S = 0.25

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards the lines
        self.lines: dict[str, _Line] = {}

    def take(self, client: str) -> None:
        """Return when one more thread of a client may work."""
        with self._lock:
            new = _Line(self.AT_ONCE, self._monotonic())
            line = self.lines.setdefault(client, new)
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
            line = self.lines[client]
            line.moved_s = self._monotonic()
            if line.waiting and line.free >= 0:
                line.waiting.popleft().release()
                return
            line.free += 1
            if line.free == self.AT_ONCE:
                del self.lines[client]
