"""Places: how many connections, requests in work, streams and followed logs at once.

It knows who holds each place and promises that no client keeps the others out: one
has at most a share of all, and where all are taken, the greediest one's oldest goes.
Connections' threads, the accepting thread and the loop call; a lock of its own guards
each table, and whoever is pushed out is told after it was given back.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional

from cron_trigger.registry.errors import Refusal

#: Descriptors that are kept free: for so many launches, each of which has eight for a
#: moment, for the history's files, and for runs under way.
LAUNCHES, KEPT_DESCRIPTORS = 2, 28
#: Streams have their places so long for sure: a burst of one client is refused, and
#: does not push out what it has itself just opened.
STREAM_SAFE_S = 3.0


class Limit(NamedTuple):
    """How many places there are, and how many of them one client may have."""

    share: int
    total: int


class Limits(NamedTuple):
    """The limits of a server."""

    connections: Limit = Limit(256, 384)
    #: Requests in work, and triggers beside them: of a stampede, each gets its answer.
    #: Fewer than connections: one that waits must be left, to be pushed out.
    work: Limit = Limit(64, 96)
    triggers: Limit = Limit(208, 272)
    streams: Limit = Limit(32, 64)
    #: Logs that are followed, and runs whose end is waited for.
    followers: Limit = Limit(32, 64)


def limits_for(descriptors: Optional[int] = None, used: Optional[int] = None) -> Limits:
    """Return the limits that so many open files (default: the soft limit) leave room
    for, where so many are `used` anyway (default: those open now): getrlimit(2).
    """
    limits = Limits()
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if used is None:
        used = len(os.listdir("/proc/self/fd"))
    wanted = limits.connections.total + limits.streams.total + limits.followers.total
    room = descriptors - used - KEPT_DESCRIPTORS
    if descriptors == resource.RLIM_INFINITY or room >= wanted:
        return limits
    part = max(0, room) / wanted
    parts = [Limit(*(max(2, int(n * part)) for n in limit)) for limit in limits]
    return Limits(*parts)._replace(triggers=Limit(LAUNCHES, LAUNCHES))


class Place:
    """What one of those has.  `leave` is called when it is pushed out."""

    __slots__ = ("client", "leave", "lost", "since_s")

    def __init__(self, client: str, leave: Callable[[], None]) -> None:
        self.client = client
        self.leave = leave
        #: Since when it may be pushed out; None: not now.
        self.since_s: Optional[float] = None
        #: It was pushed out.
        self.lost = False


class Places:
    """The places of one kind."""

    def __init__(
        self,
        limit: Limit,
        safe_s: Optional[float] = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody is pushed out before `safe_s`; None: never."""
        self._limit = limit
        self._safe_s = safe_s
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards the table, and each place in it
        self._of: Dict[str, Dict[Place, None]] = {}  # by client, the oldest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(
        self,
        client: str,
        leave: Callable[[], None] = lambda: None,
    ) -> Optional[Place]:
        """Return a place, if need be another one's; None where there is none."""
        (share, total), pushed = self._limit, None
        with self._lock:
            mine = len(self._of.get(client, ()))
            if mine >= share or self._count >= total:
                # Of one client too many: its own oldest makes room.
                among = [client] if mine >= share else self._greedier(client, mine)
                pushed = self._oldest(among)
                if pushed is None:
                    return None
                self._remove(pushed)
                pushed.lost = True
            place = Place(client, leave)
            if self._safe_s is not None:
                place.since_s = self._monotonic()
            self._of.setdefault(client, {})[place] = None
            self._count += 1
        if pushed:
            pushed.leave()
        return place

    def _greedier(self, client: str, mine: int) -> List[str]:
        """Return who has more than a client, the greediest first, and it as the last.

        Who has no more than the one that comes is not pushed out for it.
        """
        more = [name for name, places in self._of.items() if len(places) > mine]
        return [*sorted(more, key=lambda name: -len(self._of[name])), client]

    def _oldest(self, clients: List[str]) -> Optional[Place]:
        """Return the longest waiting place of the first client that has any."""
        before_s = self._monotonic() - (self._safe_s or 0.0)
        for client in clients:
            found = [
                (place.since_s, number, place)
                for number, place in enumerate(self._of.get(client, ()))
                if place.since_s is not None and place.since_s <= before_s
            ]
            if found:
                return min(found, key=lambda item: item[:2])[2]
        return None

    def _remove(self, place: Place) -> bool:
        places = self._of.get(place.client, {})
        if place not in places:
            return False
        del places[place]
        self._count -= 1
        if not places:
            del self._of[place.client]
        return True

    def give(self, place: Place) -> None:
        """Give a place back; it may have been lost, or given back, before."""
        with self._lock:
            self._remove(place)

    def hold(self, place: Place) -> bool:
        """Keep a place from being pushed out; return False if it was already."""
        with self._lock:
            place.since_s = None
            return not place.lost

    def wait(self, place: Place) -> None:
        """Say that a place waits for its client from now on, and may be pushed out."""
        with self._lock:
            place.since_s = self._monotonic()

    def push_out(self) -> None:
        """Push out the oldest of the greediest: something else is short."""
        with self._lock:
            found = self._oldest(self._greedier("", 0))
            if found is None:
                return
            self._remove(found)
            found.lost = True
        found.leave()

    def since(self) -> List[Optional[float]]:
        """Return since when each may be pushed out; None: not now."""
        with self._lock:
            return [p.since_s for places in self._of.values() for p in places]


def overloaded(what: str, retry_after_s: int) -> Refusal:
    """Return the refusal for one who finds no place."""
    return Refusal(
        "overloaded",
        f"{what}; try again in {retry_after_s} s.",
        {"Retry-After": str(retry_after_s)},
    )
