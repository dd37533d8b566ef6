"""Events: what happened, in the order in which it happened, for `/events`.

An event is written in the transaction of what it tells; its number is drawn there, and
no event with a higher number can be read before it is committed.  Any thread may call.
"""

from __future__ import annotations

import sqlite3
from typing import Mapping

from cron_trigger.history.database import Database
from cron_trigger.history.schema import EVENT_PUT, EVENT_ROW
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import Event
from cron_trigger.registry.strict_json import Json, json_text


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
