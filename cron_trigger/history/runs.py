"""Runs: begun, started, ended, each recorded once by whichever process comes first.

A run's life in here: `begin` (its number and row, before anything starts), `started`
(its keeper's PID), perhaps `set_end_reason`, `end`.  Every step is a compare-and-set in
SQL, in one transaction with its event.  Any thread may call.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Optional

from cron_trigger.history.database import Database, Needed
from cron_trigger.history.events import Events, give_back_keys, put_key
from cron_trigger.history.plans import Plans, needed_plan
from cron_trigger.history.schema import (
    END_COLUMNS,
    RUN_END,
    RUN_INSERT,
    RUN_ROW,
    RUN_UPSERT,
    row_of,
    run_of,
    storable,
)
from cron_trigger.registry.records import RUNNING, Key, Run, Scheduled, replace


class Runs:
    """The runs of a history, as they are recorded."""

    def __init__(self, database: Database, events: Events, plans: Plans) -> None:
        self._database = database
        self._events = events
        self._plans = plans

    def begin(
        self, run: Run, key: Optional[Key] = None, scheduled: Optional[Scheduled] = None
    ) -> Run:
        """Record a run that is about to start; return it with its id.

        In the same transaction, its idempotency key is bound to it and its scheduled
        trigger marked fired: after a crash, either all of it is there or nothing.  A
        run with an id is one that was found under way and that nobody may know of.
        """

        # May be called again, in another transaction or history (see `Database.write`):
        # it gives another number then, and only the last one is ever told.
        def change(db: sqlite3.Connection) -> Run:
            if run.id:
                self._database.ids.learn("run", run.id)
                db.execute(RUN_UPSERT, row_of(run))
                return run
            values = row_of(run)[1:]
            number = self._database.ids.insert(db, "run", RUN_INSERT, values)
            begun = replace(run, id=number)
            if key:
                put_key(db, replace(key, run_id=begun.id))
            # Raises `not_pending` where a cancel came first: nothing is begun then.
            if scheduled:
                self._plans.fire(db, scheduled, begun)
            return begun

        needed = [needed_plan(scheduled)] if scheduled else []
        begun = self._database.write(change, *needed)
        # After the commit: a run that was never recorded must not be carried over.
        self.note_under_way(begun)
        return begun

    def note_under_way(self, run: Run) -> None:
        """Keep what is known of a running run, should the history be lost."""
        # One key, set in one step; only the threads of this run do so, one after the
        # other.
        self._database.under_way[run.id] = run

    def started(self, run: Run) -> None:
        """Record that a run's keeper was started, and tell it, once.

        A server that looks just now may see a keeper before the command line that
        started it comes to record it.
        """

        def change(db: sqlite3.Connection) -> None:
            # `pid is null`: the command line that started it and the server that found
            # it may both come here; one tells it.
            cursor = db.execute(
                "update cron_executions set pid = ?, keeper_started = ?, "
                "log_inode = ?, log_start = ? where id = ? and pid is null",
                [run.pid, run.keeper_started, run.log_inode, run.log_start, run.id],
            )
            if cursor.rowcount:
                self._events.put(db, "run.started", {"run": run.view()})

        # Before the write: a history that turns out to be lost in it begins with this.
        self.note_under_way(run)
        self._database.write(change, needed_run(run, pid=None))

    def set_end_reason(self, run: Run, reason: str, by: Optional[str]) -> bool:
        """Record what a running run will have ended for; False where it has a reason.

        Written before the signal is sent: whoever records the end, the server, its
        successor or the command line, finds it there.  The first reason stays.
        """

        def change(db: sqlite3.Connection) -> bool:
            # The caller holds the run's mutex, so of the threads here one comes; of two
            # processes the row tells which was first, and RUN_END takes the row's
            # reason.
            cursor = db.execute(
                "update cron_executions set end_reason = ?, cancelled_by = ? "
                "where id = ? and status = 'running' and end_reason is null",
                [reason, by, run.id],
            )
            return bool(cursor.rowcount)

        self.note_under_way(replace(run, end_reason=reason, cancelled_by=by))
        return self._database.write(change, needed_run(run))

    def end(self, run: Run) -> Optional[Run]:
        """Record a run's end, once.  Return it as recorded, or None if it was already.

        Compare and set: of the server, its successor and the command line, which may
        all see a keeper go, one records the end.  The loser adds what only the
        keeper's parent knows.
        """

        def change(db: sqlite3.Connection) -> Optional[Run]:
            values = [storable(getattr(run, column)) for column in END_COLUMNS]
            # Also where another process ended it a moment ago: then no row is changed.
            cursor = db.execute(RUN_END, [run.status, *values, run.id])
            if not cursor.rowcount:
                self._add_usage(db, run)
                return None
            query = f"select {RUN_ROW} from cron_executions where id = ?"
            # Read again, in the transaction: the reason in the row may be another
            # process's.
            ended = run_of(db.execute(query, [run.id]).fetchone())
            self._events.put(db, "run.finished", {"run": ended.view()})
            return ended

        try:
            return self._database.write(change, needed_run(run))
        finally:
            # Whoever recorded it; and after a failure too, or a new history would begin
            # with a run that nobody ends.
            self._database.under_way.pop(run.id, None)

    def _add_usage(self, db: sqlite3.Connection, run: Run) -> None:
        db.execute(
            "update cron_executions set cpu_seconds = ?, max_rss_bytes = ? "
            "where id = ? and cpu_seconds is null",
            [run.cpu_seconds, run.max_rss_bytes, run.id],
        )

    def release(self, run: Run, began: bool) -> None:
        """Give back what a run took that was recorded but whose script never began.

        Its idempotency key, so that a retry starts it; and, unless it `began` to be
        launched in vain, its scheduled trigger, which is pending again.
        """

        def change(db: sqlite3.Connection) -> None:
            # Before the end is recorded: a client that has seen the end may retry at
            # once.
            give_back_keys(db, run.id)
            if not began:
                db.execute(
                    "update scheduled_triggers set status = 'pending', run_id = null "
                    "where run_id = ?",
                    [run.id],
                )

        self._database.write(
            change,
            ("idempotency_keys", "run_id", run.id, None),
            ("scheduled_triggers", "run_id", run.id, None),
        )


def needed_run(run: Run, **before: Any) -> Needed:
    """Return the row that a change of a run works on."""

    def under_way() -> Run:
        return replace(
            run, status=RUNNING, completed_at=None, duration_ms=None, **before
        )

    return ("cron_executions", "id", run.id, under_way)
