"""Limits: how much at once, how long and how often, in the one place for a server's.

Knows the figures that the contract names, and promises never to change them.  `main`
takes others, which only tests have; the composition hands them to the parts.
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """How many places there are, and how many of them one client may have."""

    share: int
    total: int


class Limits(NamedTuple):
    """The limits of a server."""

    connections: Limit = Limit(256, 384)
    #: Requests in work, and triggers beside them: of a stampede of these, each is to be
    #: told of the one run.  Not all connections, or none were left that waits, and
    #: could be pushed out.
    work: Limit = Limit(64, 96)
    triggers: Limit = Limit(208, 272)
    streams: Limit = Limit(32, 64)
    #: Logs that are followed, and runs whose end is waited for.
    followers: Limit = Limit(32, 64)
    #: Streams and followers have their places so long for sure: a burst of one client
    #: is refused, and does not push out what it has itself just opened.
    safe_s: float = 3.0
    #: A request must be here as a whole, and an answer be taken, within so long.
    request_s: float = 10.0
    send_s: float = 10.0
    #: Between two requests of a connection.
    idle_s: float = 60.0
    #: A stop waits this long for the request of a connection that was just let in.
    arrival_s: float = 0.3
    #: Between two comments in a stream of events.
    comment_s: float = 15.0
    #: Of one client, so many at once, then one in so many seconds; of all, that often.
    wrong_secrets: tuple[int, float, int] = (10, 6.0, 10)
    refusals_logged: tuple[int, float, int] = (1000, 1.0, 2)
    #: An attempt to notify, the pauses between attempts, and how many may wait.
    notify_s: float = 10.0
    notify_pauses_s: tuple[float, ...] = (1.0, 5.0)
    notifications: int = 1000
    prune_every_s: float = 86400.0
