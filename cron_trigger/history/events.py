"""Events, in the order in which they happened; and idempotency keys, kept for a day.

An event, and a key, is written in the transaction of what it tells or led to, so both
are there or neither.  An event's number is drawn there, and none with a higher number
can be read before it is committed.  Any thread may call.
"""

from __future__ import annotations

import sqlite3
from typing import Mapping, Optional

from cron_trigger.history.clock import Clock
from cron_trigger.history.database import Database
from cron_trigger.history.schema import EVENT_PUT, EVENT_ROW, KEY_PUT, KEY_ROW
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import Event, Key
from cron_trigger.registry.strict_json import Json, json_text

IDEMPOTENCY_S = 86400.0


class Events:
    """The events of a history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, db: sqlite3.Connection, name: str, data: Mapping[str, Json]) -> None:
        """Write an event, within a change."""
        # Drawn in the transaction, under the lock of `Ids`: whoever has read this
        # number has missed none below it.
        self._database.ids.insert(db, "event", EVENT_PUT, (name, json_text(data)))

    def tell(self, name: str, data: Mapping[str, Json]) -> None:
        """Record an event that belongs to no row."""
        self._database.write(lambda db: self.put(db, name, data))

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 where there is none."""
        # A stream begins here: what is committed later has a higher number.
        rows = self._database.read("select max(id) from events")
        return int((rows and rows[0][0]) or 0)

    def events_after(self, event_id: int, limit: int = 500) -> list[Event]:
        """Return the events after one, oldest first."""
        # Committed ones only; a client that asks again from its last id gets each once.
        rows = self._database.read(
            f"select {EVENT_ROW} from events where id > ? order by id limit ?",
            [min(event_id, INTEGER_LIMIT - 1), limit],
        )
        return [Event(*row) for row in rows]


class Keys:
    """The keys of a history: what the first request with one led to.

    One that is given back stays, without its digest, so that the second history can say
    so of a key of the first.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def key(self, cron_name: str, key: str) -> Optional[Key]:
        """Return what a key stands for, if it was used within the last day."""
        # Who acts on the answer asks under a lock of his own: the cron's mutex for a
        # run, `Schedule._lock` for a plan.  So of two equal requests one finds the key.
        rows = self._database.read(
            f"select {KEY_ROW} from idempotency_keys "
            "where cron_name = ? and key = ? and created_s > ? and digest <> ''",
            [cron_name, key, self._clock.ago(IDEMPOTENCY_S)],
        )
        return Key(*rows[0]) if rows else None


def put_key(db: sqlite3.Connection, key: Key) -> None:
    """Write a key, within a change."""
    row = (key.cron_name, key.key, key.digest, key.created_s)
    db.execute(KEY_PUT, (*row, key.run_id, key.scheduled_id))


def give_back_keys(db: sqlite3.Connection, run_id: int) -> None:
    """Have a run's key stand for nothing, within a change."""
    # Not deleted: a row that is missing in the second history would leave the one of
    # the first in force.
    db.execute("update idempotency_keys set digest = '' where run_id = ?", [run_id])
