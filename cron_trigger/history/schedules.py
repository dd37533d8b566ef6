"""Schedules: up to when each cron's schedule was judged, and what was missed last.

So that a restart tells of what was missed while no server ran, once.  The loop's thread
writes; any may read.
"""

from __future__ import annotations

import sqlite3
from typing import Mapping, NamedTuple, Optional

from cron_trigger.history.database import Database
from cron_trigger.history.events import Events
from cron_trigger.history.schema import SCHEDULE_PUT, SCHEDULE_ROW
from cron_trigger.registry.strict_json import Json


class Judged(NamedTuple):
    """What is known of a cron's schedule, as it is written in the registry."""

    cron_name: str
    schedule: str
    #: POSIX times: up to when it was judged, and the last time missed, if that was
    #: the last one judged.
    judged_s: float
    missed_s: Optional[float] = None


class Schedules:
    """The judged schedules of a history."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events

    def judged(self) -> dict[str, Judged]:
        """Return what is known, by cron name."""
        # At a start, once; then the loop's thread knows it by itself.
        query = f"select {SCHEDULE_ROW} from schedules"
        return {row[0]: Judged(*row) for row in self._database.read(query)}

    def judge(self, judged: Judged, late: Optional[Mapping[str, Json]] = None) -> None:
        """Record a judgement and, where a time was missed, its event; both or none."""

        def change(db: sqlite3.Connection) -> None:
            # Both in one transaction: killed before it, a restart judges the time again
            # and tells it; killed after it, it was told.
            db.execute(SCHEDULE_PUT, judged)
            if late:
                self._events.put(db, "cron.late", {"cron": late})

        self._database.write(change)
