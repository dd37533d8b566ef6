"""The second history: a small SQLite file beside the PID files, of the same tables.

It takes what the history can't be given, and keeps it through a kill; room for it is
taken before it is needed, so that it holds where that disk is full by then, too.  Where
nothing can be written there, memory takes its place, and whoever is killed then loses
that.  Only `database` calls it, under its own lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, TypeVar

from cron_trigger.history.schema import (
    EVENT_ROW,
    KEY_ROW,
    RUN_ROW,
    SCHEDULED_ROW,
    TABLES,
    VERSION,
    columns_of,
    make_tables,
    roll_back,
)

Row = Tuple[Any, ...]
T = TypeVar("T")
COLUMNS = dict(zip(TABLES, (RUN_ROW, SCHEDULED_ROW, KEY_ROW, EVENT_ROW)))
IS_EMPTY = " and ".join(f"not exists (select 1 from {table})" for table in TABLES)
#: A write marks the file with a time no finer than the kernel's clock tick, which is
#: 10 ms at most: a file that was empty so soon after it may have been written since.
TICK_NS = 100_000_000


class Second:
    """What the history has not taken yet."""

    NAME = "unwritten.db"
    #: Some 200 runs with their events, keys and indexes; less on a small disk.
    ROOM_BYTES, LEAST_BYTES = 512 << 10, 32 << 10
    #: What is changed is saved there first, so that a kill leaves no half.
    JOURNAL_BYTES = 32 << 10
    BUSY_S = 0.3

    def __init__(self, folder: Optional[Path]) -> None:
        """Use memory where there is no folder."""
        self.path = folder / self.NAME if folder else None
        self._db: Optional[sqlite3.Connection] = None
        self._in_memory = folder is None
        self._seen_empty: Tuple[int, int] = (0, 0)  # inode and time of its last write

    @property
    def in_memory(self) -> bool:
        """True where a kill would lose what it has."""
        return self._in_memory

    # ---- open

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            place = ":memory:" if self._in_memory else str(self.path)
            db = sqlite3.connect(
                place, self.BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._set_up(db)
            except BaseException as error:
                db.close()
                if type(error) is sqlite3.DatabaseError and self.path:  # broken
                    os.replace(self.path, f"{self.path}.corrupt")
                raise
            self._db = db
        return self._db

    def _set_up(self, db: sqlite3.Connection) -> None:
        """Make the tables.  A kill of processes spoils nothing without a sync."""
        if self.path and not self._in_memory:
            with contextlib.suppress(OSError):
                os.chmod(self.path, 0o600)
        db.execute("pragma page_size = 1024")  # small rows, little room
        db.execute("pragma journal_mode = persist")
        db.execute("pragma synchronous = off")
        db.execute("pragma secure_delete = off")  # or each deletion is journalled
        db.execute("pragma cache_size = -64")
        (version,) = db.execute("pragma user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError("it was written by a newer version")
        if version != VERSION:
            make_tables(db)

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def close(self) -> None:
        """Leave the file to others."""
        self._close()

    # ---- room

    def take_room(self) -> bool:
        """Grow the file and its journal while there is room.  Return False if none is.

        What is deleted leaves free pages in the file, which the next rows take.
        """
        if self.path is None:
            return True
        if not self._in_place():
            self._close()
        with contextlib.suppress(sqlite3.Error, OSError):
            disk = os.statvfs(self.path.parent)
            room = min(self.ROOM_BYTES, disk.f_bavail * disk.f_frsize // 8)
            room = max(self.LEAST_BYTES, room)
            return self._has_room(room) or self._take(room)
        return False

    def _in_place(self) -> bool:
        return self.path is not None and self.path.exists()

    def _has_room(self, room: int) -> bool:
        (free,) = self._opened().execute("pragma freelist_count").fetchone()
        (size,) = self._opened().execute("pragma page_size").fetchone()
        with contextlib.suppress(FileNotFoundError):
            journal = os.stat(f"{self.path}-journal").st_size
            return free * size >= room and journal >= self.JOURNAL_BYTES
        return False

    def _take(self, room: int) -> bool:
        db = self._opened()
        try:
            db.execute("begin immediate")
            db.execute("create table room (filler blob)")
            db.execute("insert into room values (zeroblob(?))", [self.JOURNAL_BYTES])
            db.execute("insert into room values (zeroblob(?))", [room])
            db.execute("commit")
            # Journalled, since it changes pages that are there.
            changed = [b"x" * self.JOURNAL_BYTES, self.JOURNAL_BYTES]
            db.execute("update room set filler = ? where length(filler) = ?", changed)
        except sqlite3.OperationalError:
            roll_back(db)
            return False
        finally:
            with contextlib.suppress(sqlite3.Error):
                db.execute("drop table if exists room")
        return True

    # ---- ask and change

    def is_empty(self) -> bool:
        """Return True where nothing waits in it; at the cost of one look at the file.

        Said at a moment: another process may write just afterwards.
        """
        if self._in_memory:
            return self._db is None or self._is_empty()
        try:
            status = os.stat(str(self.path))
        except OSError:
            return self._after_removal()
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp == self._seen_empty:
            return True
        try:
            empty = self._is_empty()
        except sqlite3.Error:
            return True  # who can't read it can't do more than go on without
        if empty and time.time_ns() - status.st_mtime_ns > TICK_NS:
            self._seen_empty = stamp
        return empty

    def _is_empty(self) -> bool:
        return bool(self._opened().execute(f"select {IS_EMPTY}").fetchone()[0])

    def _after_removal(self) -> bool:
        """Keep in memory what was in a file that somebody has removed."""
        if self._db is None:
            return True
        self._to_memory()
        if not self._is_empty():
            return False
        self.to_file()
        return True

    def change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change; in memory, with all that is there, where it takes none."""
        if not self._in_memory and not self._in_place():
            self._after_removal()  # or SQLite would go on with that file
        try:
            return change(self._opened())
        except (sqlite3.Error, OSError):
            if self._in_memory:
                raise
            self._to_memory()
            return change(self._opened())

    def _to_memory(self) -> None:
        before, self._db, self._in_memory = self._db, None, True
        memory = self._opened()
        if before is not None:
            with contextlib.suppress(sqlite3.Error):
                roll_back(before)
                before.backup(memory)
            before.close()

    def to_file(self) -> None:
        """Use the file again; the caller has written what was in memory."""
        if self._in_memory and self.path is not None:
            self._close()
            self._in_memory = False

    @contextlib.contextmanager
    def emptied(self) -> Iterator[Dict[str, List[Row]]]:
        """Give what it has, and delete that at the end, unless that is by an error.

        No other process changes it meanwhile.  A kill leaves it as it was.
        """
        db = self._opened()
        db.execute("begin immediate")
        try:
            yield {
                table: db.execute(f"select {columns} from {table}").fetchall()
                for table, columns in COLUMNS.items()
            }
            self.clear(db)
        except BaseException:
            roll_back(db)
            raise

    def clear(self, db: sqlite3.Connection) -> None:
        """Delete all rows.  Their place in the file stays theirs."""
        for table in (*TABLES, "run_totals"):
            db.execute(f"delete from {table}")
        db.execute("commit")

    # ---- both as one

    def joined(self, history: Path, readable: bool = True) -> sqlite3.Connection:
        """Return a connection that reads both histories as one.

        Views with the names of the tables stand before them, so that every query works
        on one history or on both.  What this one has of a run or a key is the newer.
        """
        for place in _places(history) if readable and history.exists() else ():
            db = self._copy()
            with contextlib.suppress(sqlite3.Error):
                db.execute("attach ? as old", [place])
                _join(db)
                return db
            db.close()
        return self._copy()

    def _copy(self) -> sqlite3.Connection:
        """Return a connection to what this has, for reading alone."""
        if not self._in_memory and self._in_place():
            db = _connected(f"file:{urllib.parse.quote(str(self.path))}?mode=ro")
            try:
                db.execute("select 1 from events limit 1")
                return db
            except sqlite3.Error:  # somebody else's, whom only reading does not concern
                db.close()
        db = _connected("file::memory:")
        make_tables(db)
        if self._db is not None:
            self._db.backup(db)
        return db


def _connected(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, 0.2, isolation_level=None, check_same_thread=False, uri=True
    )


def _places(history: Path) -> List[str]:
    """Return how a history may be opened for reading.

    `immutable` reads the file alone: nothing is made beside it, which could not be on
    a full disk and must not be by who only reads.  It would not see what is in a -wal.
    """
    place = f"file:{urllib.parse.quote(str(history))}"
    has_wal = False
    with contextlib.suppress(OSError):
        has_wal = os.stat(f"{history}-wal").st_size > 0
    return [f"{place}?mode=ro", f"{place}?immutable=1"][0 if has_wal else 1 :]


def _join(db: sqlite3.Connection) -> None:
    """Put views over the tables of both.  A column that the old one lacks is null."""
    for table, same in (
        ("cron_executions", "new.id = o.id"),
        ("scheduled_triggers", "new.id = o.id"),
        ("events", "new.id = o.id"),
        ("idempotency_keys", "new.cron_name = o.cron_name and new.key = o.key"),
        ("schedules", "new.cron_name = o.cron_name"),
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
