"""Pruning: what is older than a number of days goes, and its space comes back.

In small steps with a pause between them, so that a trigger never waits long for the
lock.  Nothing is deleted on the word of a clock that disagrees with the history.  One
thread calls it, the server's pruner.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Callable, Mapping, Optional, Tuple

from cron_trigger.history.database import Database
from cron_trigger.history.keys import IDEMPOTENCY_S
from cron_trigger.registry.records import RUNNING
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.times import epoch_of

EVENTS_KEPT = 20000
DAY_S = 86400.0


class Clock:
    """Tells whether the wall clock may be believed, by the newest record.

    A clock that agreed with it, within a day, when the history was opened is believed.
    One that did not (it is days ahead, or the host was off for as long) is believed
    after a day in which nobody has set it.
    """

    def __init__(
        self,
        newest_s: Optional[float],
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        # Used by the pruner's thread alone.
        self._wall, self._steady = wall, steady
        self._began_s, self._began_steady_s = wall(), steady()
        off_s = 0.0 if newest_s is None else abs(self._began_s - newest_s)
        self._agreed = off_s <= DAY_S

    def is_believed(self) -> bool:
        """Return True where what it says may delete something."""
        up_s = self._steady() - self._began_steady_s
        stepped_s = self._wall() - self._began_s - up_s
        if abs(stepped_s) > DAY_S:
            # Set since: what it was set to has to hold for a day from now on.
            self._began_s, self._began_steady_s = self._wall(), self._steady()
            self._agreed = False
            return False
        return self._agreed or up_s >= DAY_S


class Pruning:
    """Deletes what is old."""

    def __init__(self, database: Database, say: Callable[[str, str], None]) -> None:
        self._database = database
        self._say = say
        self.clock = Clock(self._newest_s())

    def _newest_s(self) -> Optional[float]:
        """Return when the newest run began; None where there is none."""
        query = "select started_at from cron_executions order by id desc limit 1"
        rows = self._database.read(query)
        try:
            return epoch_of(rows[0][0]) if rows else None
        except ValueError:  # somebody else's
            return None

    def prune(
        self, before: str, batch: int = 200, pause: Callable[[], Any] = lambda: None
    ) -> int:
        """Delete what ended before a time, batch by batch; return how many runs."""
        # Nothing is deleted in the second history: it has only what is to move.
        if self._database.fault is not None:
            return 0
        if not self.clock.is_believed():
            self._say(
                "warning",
                "nothing is pruned today: the clock is more than a day off the newest "
                "run of the history; check the host's date",
            )
            return 0
        deleted = self._prune_runs(before, batch, pause)
        self._database.write(lambda db: self._prune_others(db, before))
        # Each batch is a change of its own; requests take their turn in the pause.
        while self._database.write(lambda db: self._prune_events(db, before, batch)):
            pause()
        self._give_space_back(pause)
        return deleted

    def _prune_runs(self, before: str, batch: int, pause: Callable[[], Any]) -> int:
        cursor, deleted = 0, 0

        # Begins after `cursor`, so that a batch that is done once more finds less.
        def change(db: sqlite3.Connection) -> Tuple[int, int]:
            rows = db.execute(
                "select id, started_at, status from cron_executions where id > ? "
                "order by id limit ?",
                [cursor, batch],
            ).fetchall()
            # A run that has gone on for longer than that stays: its end needs its row.
            doomed = [(i,) for i, at, st in rows if at < before and st != RUNNING]
            db.executemany("delete from cron_executions where id = ?", doomed)
            # Ids grow with time: the first page that ends with a young run is the last.
            young = not rows or rows[-1][1] >= before
            return (0 if young else rows[-1][0]), len(doomed)

        while True:
            cursor, count = self._database.write(change)
            deleted += count
            if not cursor:
                return deleted
            pause()

    def _prune_others(self, db: sqlite3.Connection, before: str) -> None:
        day_ago_s = time.time() - IDEMPOTENCY_S
        db.execute("delete from idempotency_keys where created_s < ?", [day_ago_s])
        # A pending one stays, however old: after a long stop it is to be told as
        # missed.
        db.execute(
            "delete from scheduled_triggers "
            "where status <> 'pending' and created_at < ? and run_at < ?",
            [before, before],
        )
        db.execute(
            "delete from events where id <= (select max(id) from events) - ?",
            [EVENTS_KEPT],
        )

    def _prune_events(self, db: sqlite3.Connection, before: str, batch: int) -> bool:
        """Delete the oldest events up to a young one; return True if there are more.

        An event has the time of its run or scheduled trigger; one without a time, that
        of the next one.
        """
        query = "select id, data from events order by id limit ?"
        old = 0
        for number, data in db.execute(query, [batch]).fetchall():
            if before <= _time_of_event(json.loads(data)):
                # The events' ids grow with time as well, so the rest is young.
                break
            old = number
        count = db.execute("delete from events where id <= ?", [old]).rowcount
        return bool(count == batch)

    def _give_space_back(self, pause: Callable[[], Any], pages: int = 100) -> None:
        """Shrink the file, in steps, unless there is trouble with it."""
        read = self._database.read
        while self._database.fault is None:
            free = read("pragma freelist_count")
            if not free or not free[0][0]:
                break
            # Some pages at a time: meanwhile the lock of the history is held.
            read(f"pragma incremental_vacuum({pages})")
            left = read("pragma freelist_count")
            if not left or left[0][0] >= free[0][0]:
                break
            pause()
        if self._database.fault is None:
            # A reader that is at work keeps the -wal long; tomorrow is another day.
            read("pragma wal_checkpoint(truncate)")


def _time_of_event(data: Mapping[str, Json]) -> str:
    """Return when an event happened, at the earliest; "" where it does not say."""
    about = data.get("run") or data.get("scheduled") or {}
    times = (about.get(name) for name in ("completedAt", "startedAt", "createdAt"))
    return str(next(filter(None, times), ""))
