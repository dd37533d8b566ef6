"""Scheduled triggers: planned, then fired, cancelled, missed or skipped, once.

Every change of one is a compare-and-set in SQL, so of a cancel and its time one wins,
and it survives a restart, planned while the history could not be written, too.  Any
thread may call.
"""

from __future__ import annotations

import sqlite3
from typing import Optional

from cron_trigger.history.database import Database, Needed
from cron_trigger.history.events import Events, put_key
from cron_trigger.history.schema import (
    SCHEDULED_INSERT,
    SCHEDULED_ROW,
    row_of,
    scheduled_of,
)
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import FIRED, PENDING, Key, Run, Scheduled, replace

SCHEDULED_ENDED_SHOWN = 50


class Plans:
    """The scheduled triggers of a history."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events

    def schedule(self, scheduled: Scheduled, key: Optional[Key] = None) -> Scheduled:
        """Record a scheduled trigger; return it with its id."""

        def change(db: sqlite3.Connection) -> Scheduled:
            values = row_of(scheduled)[1:]
            # A killed server leaves all three of these, or none: row, key, event.
            number = self._database.ids.insert(
                db, "scheduled", SCHEDULED_INSERT, values
            )
            created = replace(scheduled, id=number)
            if key:
                put_key(db, replace(key, scheduled_id=created.id))
            self._events.put(db, "schedule.created", {"scheduled": created.view()})
            return created

        return self._database.write(change)

    def end_scheduled(self, scheduled: Scheduled) -> bool:
        """Record the end of a pending trigger.  Return False if it has ended."""

        def change(db: sqlite3.Connection) -> bool:
            # Only a pending one: it may have been fired or cancelled since it was read.
            cursor = db.execute(
                "update scheduled_triggers set status = ?, reason = ? "
                "where id = ? and status = 'pending'",
                [scheduled.status, scheduled.reason, scheduled.id],
            )
            if cursor.rowcount:
                name = f"schedule.{scheduled.status}"
                self._events.put(db, name, {"scheduled": scheduled.view()})
            return bool(cursor.rowcount)

        # Where the first history can't be written, the row is brought into the second:
        # a cancel there counts for the trigger's thread and for a restart.
        return self._database.write(change, needed_plan(scheduled))

    def fire(self, db: sqlite3.Connection, entry: Scheduled, run: Run) -> None:
        """Mark a pending trigger fired, within a change; else Refusal `not_pending`."""
        # In the transaction that begins its run: were it fired before, a kill in
        # between would lose it; were it fired after, a restart would start it twice.
        cursor = db.execute(
            "update scheduled_triggers set status = 'fired', run_id = ? "
            "where id = ? and status = 'pending'",
            [run.id, entry.id],
        )
        # The cancel won.  The refusal rolls the run's row back, too.
        if not cursor.rowcount:
            raise Refusal("not_pending", "It was cancelled just before its time.")
        fired = replace(entry, status=FIRED, run_id=run.id)
        self._events.put(db, "schedule.fired", {"scheduled": fired.view()})

    def scheduled(self, scheduled_id: int) -> Optional[Scheduled]:
        """Return a scheduled trigger, or None where there is none of this id."""
        if not 0 < scheduled_id < INTEGER_LIMIT:
            return None
        found = self._where("id = ?", scheduled_id)
        return found[0] if found else None

    def pending(self) -> list[Scheduled]:
        """Return the pending scheduled triggers, the next one first."""
        # As they stood at the question: who acts on one has to win in SQL.
        entries = self._where("status = ?", "pending")
        return sorted(entries, key=lambda entry: (entry.due_s, entry.id))

    def ended_scheduled(self) -> list[Scheduled]:
        """Return the last ended scheduled triggers, the newest first."""
        limit = SCHEDULED_ENDED_SHOWN
        return self._where(f"status <> ? order by id desc limit {limit}", "pending")

    def _where(self, test: str, value: object) -> list[Scheduled]:
        query = f"select {SCHEDULED_ROW} from scheduled_triggers where {test}"
        return [scheduled_of(row) for row in self._database.read(query, [value])]


def needed_plan(scheduled: Scheduled) -> Needed:
    """Return the row that an end or a start of a scheduled trigger works on."""

    def pending() -> Scheduled:
        return replace(scheduled, status=PENDING, reason=None, run_id=None)

    return ("scheduled_triggers", "id", scheduled.id, pending)
