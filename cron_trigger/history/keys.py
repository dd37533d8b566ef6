"""Idempotency keys: what the first request with one led to, for a day.

A key is written in the transaction of what it led to, so both are there or neither.
One that is given back stays, without its digest, so that the second history can say so
of a key of the first.  Any thread may call.
"""

from __future__ import annotations

import sqlite3
from typing import Optional

from cron_trigger.history.clock import Clock
from cron_trigger.history.database import Database
from cron_trigger.history.schema import KEY_PUT, KEY_ROW
from cron_trigger.registry.records import Key

IDEMPOTENCY_S = 86400.0


class Keys:
    """The keys of a history."""

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
