"""Pruning: what is older than a number of days goes, and its space comes back.

In small steps with a pause between them, so that a trigger never waits long for the
lock.  Nothing is deleted on the word of a clock that was set ahead: `clock` tells up to
when something is old.  One thread calls it, the server's pruner.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any, Callable

from cron_trigger.history.clock import Clock
from cron_trigger.history.database import Database
from cron_trigger.history.events import IDEMPOTENCY_S
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import RUNNING
from cron_trigger.registry.times import now_text

EVENTS_KEPT = 20000


class Pruning:
    """Deletes what is old."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def prune(
        self, age_s: float, batch: int = 200, pause: Callable[[], Any] = lambda: None
    ) -> int:
        """Delete what is so old, batch by batch; return how many runs."""
        # Nothing is deleted in the second history: it has only what is to move.
        if self._database.fault is not None:
            return 0
        before = now_text(self._clock.ago(age_s, keep=True))
        deleted = self._prune_runs(before, batch, pause)
        self._database.write(lambda db: self._prune_others(db, before))
        # Each batch is a change of its own; requests take their turn in the pause.
        while self._database.write(lambda db: self._prune_events(db, before, batch)):
            pause()
        # Some pages at a time: meanwhile the lock of the history is held.
        while self._database.shrink(pages=100):
            pause()
        return deleted

    def _prune_runs(self, before: str, batch: int, pause: Callable[[], Any]) -> int:
        """Delete the oldest runs, up to the first that is young.

        Ids grow with time.  So what is dated before that one and has a higher id was
        recorded while the clock was behind, and is younger than it says.
        """
        cursor, deleted = 0, 0
        now = now_text()

        # Begins after `cursor`, so that a batch that is done once more finds less.
        def change(db: sqlite3.Connection) -> tuple[int, int]:
            rows = db.execute(
                "select id, started_at, status from cron_executions where id > ? "
                "order by id limit ?",
                [cursor, batch],
            ).fetchall()
            # The clock was ahead for one that is not to begin yet: that says nothing of
            # those behind it.
            young = [i for i, at, _ in rows if before <= at <= now]
            end = young[0] if young else INTEGER_LIMIT
            # A run that has gone on for longer than that stays: its end needs its row.
            doomed = [
                (i,) for i, at, st in rows if i < end and at < before and st != RUNNING
            ]
            db.executemany("delete from cron_executions where id = ?", doomed)
            return (0 if young or not rows else rows[-1][0]), len(doomed)

        while True:
            cursor, count = self._database.write(change)
            deleted += count
            if not cursor:
                return deleted
            pause()

    def _prune_others(self, db: sqlite3.Connection, before: str) -> None:
        day_ago_s = self._clock.ago(IDEMPOTENCY_S)
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
            at = _time_of_event(data)
            if before <= at:  # ids grow with time as well, so the rest is young
                break
            old = number if at else old
        count = db.execute("delete from events where id <= ?", [old]).rowcount
        return bool(count)


def _time_of_event(text: str) -> str:
    """Return when an event happened, at the earliest; "" where it does not say."""
    # What somebody else has put there may be anything.
    with contextlib.suppress(ValueError, AttributeError):
        data = json.loads(text)
        about = data.get("run") or data.get("scheduled") or {}
        times = (about.get(name) for name in ("completedAt", "startedAt", "createdAt"))
        return next((time for time in times if time and isinstance(time, str)), "")
    return ""
