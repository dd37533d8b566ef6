"""Both histories read as one: what the second has, over what the first has.

Views with the names of the tables stand before them, so every query works on one
history or on both.  Nothing is made or changed, so it is also how a history is read
that may not be written.  Only `database` calls it, under its own lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from pathlib import Path
from typing import Any, Optional, Sequence

from cron_trigger.history.schema import columns_of, roll_back
from cron_trigger.history.second import Row, Second
from cron_trigger.host.shortage import is_short


class Joined:
    """A connection to both, kept until `drop`."""

    def __init__(self, history: Path, second: Second) -> None:
        self._history = history
        self._second = second
        # Both under `Database._lock`.  Not the connection that writes: a fault of that
        # one must not take the answers with it.
        self._db: Optional[sqlite3.Connection] = None
        # False after the first could not be read, until `drop`: one wait for another's
        # lock, not one for each question.
        self._readable = True

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return rows; of the second alone where the first can't be read."""
        for _ in range(2):
            try:
                return self._within_moment(self._opened(), query, values)
            except sqlite3.Error:
                # Locked even for reading, or gone: without it, till the next try.
                self._close()
                self._readable = False
        return []

    def _within_moment(
        self, db: sqlite3.Connection, query: str, values: Sequence[Any]
    ) -> list[Row]:
        # One moment for both files: between two statements another process may move a
        # row, which would then be seen twice or not at all.
        db.execute("begin")
        try:
            # The second first, and held: what it gives away from here on is found in
            # the first, which is looked at later.
            db.execute("select 1 from main.events limit 1").fetchone()
            return db.execute(query, values).fetchall()
        finally:
            # Nothing was changed; an open read would hold up the next writer.
            roll_back(db)

    def _opened(self) -> sqlite3.Connection:
        if self._db is not None and not self._second.is_file():
            self._close()  # a copy, which is not the newest
        if self._db is None:
            self._db = self._joined()
        return self._db

    def drop(self) -> None:
        """Open the first anew for the next question: it may be another file by then."""
        self._close()
        self._readable = True

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _joined(self) -> sqlite3.Connection:
        readable = self._readable and os.path.exists(self._history)
        for place in _places(self._history) if readable else ():
            db = self._second_opened()
            with contextlib.suppress(sqlite3.Error):
                db.execute("attach ? as old", [place])
                _join(db)
                return db
            db.close()
        return self._second_opened()

    def _second_opened(self) -> sqlite3.Connection:
        path = self._second.path
        if path is not None and self._second.is_file():
            db = _connected(f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro")
            try:
                # SQLite opens nothing before the first question.
                db.execute("select 1 from events limit 1")
                return db
            except sqlite3.Error:  # somebody else's, whom only reading does not concern
                db.close()
        db = _connected("file::memory:")
        # In memory others can't attach it; a copy is small, and as old as this
        # question.
        self._second.copy_into(db)
        return db


def _connected(place: str) -> sqlite3.Connection:
    # 0.2 s: a reader waits no longer for another's lock, and goes on without.
    return sqlite3.connect(
        place, timeout=0.2, isolation_level=None, check_same_thread=False, uri=True
    )


def _places(history: Path) -> list[str]:
    """Return how a history may be opened for reading.

    `immutable` reads the file alone: nothing is made beside it, which could not be on
    a full disk and must not be by who only reads.  It would not see what is in a -wal.
    """
    place = f"file:{urllib.parse.quote(os.fsencode(history))}"
    has_wal = False
    with contextlib.suppress(OSError):
        has_wal = os.stat(f"{history}-wal").st_size > 0
    shm = "&readonly_shm=1" if is_short(history.parent) else ""
    return [f"{place}?mode=ro{shm}", f"{place}?immutable=1"][0 if has_wal else 1 :]


def _join(db: sqlite3.Connection) -> None:
    """Put views over the tables of both.  A column that the old one lacks is null."""
    for table, same in (
        ("cron_executions", "new.id = o.id"),
        ("scheduled_triggers", "new.id = o.id"),
        ("events", "new.id = o.id"),
        ("schedules", "new.cron_name = o.cron_name"),
        ("idempotency_keys", "new.cron_name = o.cron_name and new.key = o.key"),
    ):
        shared = columns_of(db, "old", table)
        if not shared:
            continue  # a history that was never begun
        columns = columns_of(db, "main", table)
        taken = ", ".join(c if c in shared else f"null as {c}" for c in columns)
        db.execute(
            f"create temp view {table} as select {', '.join(columns)} "
            f"from main.{table} union all select {taken} from old.{table} as o "
            f"where not exists (select 1 from main.{table} as new where {same})"
        )
    _join_totals(db)


def _join_totals(db: sqlite3.Connection) -> None:
    """Count to the old totals what has ended here and not there."""
    shared = columns_of(db, "old", "run_totals")
    if not shared:
        return
    in_a_row = "in_a_row" if "in_a_row" in shared else "0"
    db.execute(
        f"""
create temp view run_totals as
with ended as (
  select * from main.cron_executions as n where status <> 'running' and not exists
    (select 1 from old.cron_executions as o where o.id = n.id and o.status <> 'running')
), completed as (
  select cron_name, max(id) as id from ended where status = 'completed' group by 1
), parts as (
  select cron_name, status, runs, duration_ms, last_completed_at,
    {in_a_row} * (cron_name not in (select cron_name from completed)) as in_a_row
    from old.run_totals
  union all
  select cron_name, status, 1, coalesce(duration_ms, 0), completed_at,
    id > coalesce((select c.id from completed as c where c.cron_name = e.cron_name), 0)
    from ended as e
)
select cron_name, status, sum(runs) as runs, sum(duration_ms) as duration_ms,
  max(last_completed_at) as last_completed_at, sum(in_a_row) as in_a_row
  from parts group by cron_name, status"""
    )
