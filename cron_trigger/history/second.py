"""The second history: a small SQLite file beside the PID files, of the same tables.

It takes what the history can't be given, and keeps it through a kill; room for it is
taken before it is needed, so that it holds where that disk is full by then, too.  Where
nothing can be written there, memory takes its place, and whoever is killed then loses
that.  Only `database` calls it, under its own lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, TypeVar

from cron_trigger.history.ids import Ids
from cron_trigger.history.schema import (
    EVENT_PUT,
    EVENT_ROW,
    KEY_PUT,
    KEY_ROW,
    RUN_INSERT,
    RUN_ROW,
    RUN_UPSERT,
    SCHEDULE_PUT,
    SCHEDULE_ROW,
    SCHEDULED_PUT,
    SCHEDULED_ROW,
    TABLES,
    VERSION,
    make_tables,
    roll_back,
)
from cron_trigger.host.lock import TICK_NS

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]
T = TypeVar("T")
ROWS = (RUN_ROW, SCHEDULED_ROW, KEY_ROW, EVENT_ROW, SCHEDULE_ROW)
COLUMNS = dict(zip(TABLES, ROWS))
PUT = {
    "cron_executions": RUN_UPSERT,
    "scheduled_triggers": SCHEDULED_PUT,
    "idempotency_keys": KEY_PUT,
    "events": EVENT_PUT,
    "schedules": SCHEDULE_PUT,
}
#: The keys of what replaces another row when it moves.
REPLACED = {
    "scheduled_triggers": ("id",),
    "idempotency_keys": ("cron_name", "key"),
    "schedules": ("cron_name",),
}
IS_EMPTY = " and ".join(f"not exists (select 1 from {table})" for table in TABLES)
#: The same told twice is told within moments: among so many numbers.
NEIGHBOURS = 1000
STEPS = ("started", "finished")


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
        # These three under `Database._lock`; between processes SQLite's locks guard the
        # file.
        self._db: Optional[sqlite3.Connection] = None
        self.in_memory = folder is None  # a kill would lose what it has
        # What has moved out of memory: the file may have it as it was before.
        self._outdated: list[tuple[str, Row]] = []
        self._seen_empty: tuple[int, int] = (0, 0)  # inode and time of its last write

    # ---- open

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            place = ":memory:" if self.in_memory else str(self.path)
            db = sqlite3.connect(
                place,
                timeout=self.BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._set_up(db)
            except BaseException as error:
                db.close()
                # Put away, or it would fail again each time that it is needed.
                if type(error) is sqlite3.DatabaseError and self.path:  # broken
                    os.replace(self.path, f"{self.path}.corrupt")
                raise
            self._db = db
        return self._db

    def _set_up(self, db: sqlite3.Connection) -> None:
        """Make the tables.  A kill of processes spoils nothing without a sync."""
        if self.path and not self.in_memory:
            with contextlib.suppress(OSError):
                os.chmod(self.path, 0o600)
        db.execute("pragma page_size = 1024")  # small rows, little room
        # The journal keeps its place on the disk, too: see JOURNAL_BYTES.
        db.execute("pragma journal_mode = persist")
        db.execute("pragma synchronous = off")
        db.execute("pragma secure_delete = off")  # or each deletion is journalled
        db.execute("pragma cache_size = -64")
        (version,) = db.execute("pragma user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError("it was written by a newer version")
        if version != VERSION:
            # Another process may do so at this moment, too: "if not exists".
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
        if self.in_memory:  # the file has rows that can't be deleted: see `to_file`
            return False
        # Somebody has removed it: a new one is begun, under the same name.
        if not self._in_place():
            self._close()
        with contextlib.suppress(sqlite3.Error, OSError):
            disk = os.statvfs(self.path.parent)
            room = min(self.ROOM_BYTES, disk.f_bavail * disk.f_frsize // 8)
            room = max(self.LEAST_BYTES, room)
            return self._has_room(room) or self._take(room)
        return False

    def _in_place(self) -> bool:
        return self.path is not None and os.path.exists(self.path)

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
            # Other processes wait with their changes; a kill gives the room back.
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
                # Its pages stay in the file, free: whoever writes next, of any process,
                # has them.
                db.execute("drop table if exists room")
        return True

    # ---- ask and change

    def is_empty(self) -> bool:
        """Return True where nothing waits in it; at the cost of one look at the file.

        Said at a moment: another process may write just afterwards.
        """
        if self.in_memory:
            return self._db is None or self._is_empty()
        try:
            # Each change of the first history comes through here: one stat, not a
            # question to SQLite.
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
        # The stamp was taken before the question, so a write that came in between has a
        # later time, unless it came within the same tick.
        if empty and time.time_ns() - status.st_mtime_ns > TICK_NS:
            self._seen_empty = stamp
        return empty

    def _is_empty(self) -> bool:
        return bool(self._opened().execute(f"select {IS_EMPTY}").fetchone()[0])

    def _after_removal(self) -> bool:
        """Keep in memory what was in a file that somebody has removed."""
        if self._db is None:
            return True
        # The connection still has the removed file, which nobody else can find.
        self._to_memory()
        if not self._is_empty():
            return False
        self.to_file()
        return True

    def change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change; in memory, with all that is there, where it takes none."""
        if not self.in_memory and not self._in_place():
            # Nobody else would ever find what we write there.
            self._after_removal()  # or SQLite would go on with that file
        try:
            return change(self._opened())
        except (sqlite3.Error, OSError):
            if self.in_memory:
                raise
            # Full, locked or broken: a killed process loses what comes from here on.
            self._to_memory()
            return change(self._opened())

    def _to_memory(self) -> None:
        # In memory first, so that a fault on the way leaves us there.
        before, self._db, self.in_memory = self._db, None, True
        memory = self._opened()
        if before is not None:
            with contextlib.suppress(sqlite3.Error):
                roll_back(before)
                before.backup(memory)
            # What is in the file stays there, too, and moves after memory's rows.
            before.close()

    def to_file(self) -> None:
        """Use the file again; the caller has written what was in memory.

        Not where the file has rows that are older than those and can't be deleted: they
        would move next, over the newer ones.
        """
        if not self.in_memory or self.path is None:
            return
        memory, self._db, self.in_memory = self._db, None, False
        try:
            for query, keys in self._outdated:
                self._opened().execute(query, keys)
        except (sqlite3.Error, OSError):
            self._close()
            self._db, self.in_memory = memory, True
            return
        self._outdated = []
        if memory is not None:
            memory.close()

    def copy_into(self, db: sqlite3.Connection) -> None:
        """Copy all of it into an empty database."""
        db.execute("pragma page_size = 1024")  # a copy in memory can't change its own
        make_tables(db)
        if self._db is not None:
            self._db.backup(db)

    def is_file(self) -> bool:
        """Return True where others can open it under its name."""
        return not self.in_memory and self._in_place()

    @contextlib.contextmanager
    def _emptied(self) -> Iterator[Rows]:
        """Give what it has, and delete that at the end, unless that is by an error.

        No other process changes it meanwhile.  A kill leaves it as it was.
        """
        db = self._opened()
        # Taken before the rows are read: what another process writes from here on
        # waits, and is not deleted with them.
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

    def move_to(self, db: sqlite3.Connection, ids: Ids) -> None:
        """Move all rows to the history, and commit the transaction that it is in.

        Committed there before it is deleted here: after a kill in between, the same
        rows come once more and change nothing, since every writer moves them first.
        """
        with self._emptied() as rows:
            self._write_over(db, ids, rows)
            # Killed here: the rows are in both, and the next writer of any process
            # moves them again before it does anything else.
            db.execute("commit")
        if self.in_memory and self.path is not None:
            for table, columns in REPLACED.items():
                where = " and ".join(f"{column} = ?" for column in columns)
                query = f"delete from {table} where {where}"
                self._outdated += [(query, r[: len(columns)]) for r in rows[table]]
            # Before another process moves what the file has: the caller keeps it out.
            self.to_file()

    def _write_over(self, db: sqlite3.Connection, ids: Ids, rows: Rows) -> None:
        told = _told_of_ended(db, rows["cron_executions"])
        for row in rows["cron_executions"]:
            if not db.execute(RUN_UPSERT, row).rowcount:
                # Its number is another run's, which is never overwritten.
                ids.insert(db, "run", RUN_INSERT, row[1:])
        for table in REPLACED:
            db.executemany(PUT[table], rows[table])
        told |= _told_of_runs(_events_about(db, rows["events"]))
        for event in rows["events"]:
            # Two processes saw the same run begin or end, and each wrote it in another
            # history, since neither could wait for the other: one of the two counts.
            if not told.isdisjoint(_told_of_runs([event])):
                continue
            # Its number may be another event's where the counters were lost.
            if not db.execute(EVENT_PUT, event).rowcount:
                self._write_again(db, ids, event)

    def _write_again(self, db: sqlite3.Connection, ids: Ids, event: Row) -> None:
        """Give an event another number, unless it is there already."""
        same = "select 1 from events where id = ? and event = ? and data = ?"
        if not db.execute(same, event).fetchall():
            ids.insert(db, "event", EVENT_PUT, event[1:])

    def clear(self, db: sqlite3.Connection) -> None:
        """Delete all rows.  Their place in the file stays theirs."""
        for table in (*TABLES, "run_totals"):
            db.execute(f"delete from {table}")
        db.execute("commit")


def _events_about(db: sqlite3.Connection, events: list[Row]) -> list[Row]:
    """Return what a history has told at about the time of some events."""
    first = min((event[0] for event in events), default=0) - NEIGHBOURS
    query = f"select {EVENT_ROW} from events where id > ? and event like 'run.%'"
    return db.execute(query, [first]).fetchall() if events else []


def _told_of_ended(db: sqlite3.Connection, rows: list[Row]) -> set[tuple[str, int]]:
    """Return what was told of those of these runs that a history has ended already."""
    query = (
        "select id from cron_executions "
        "where id = ? and cron_name = ? and status <> 'running'"
    )
    found = [run_id for row in rows for (run_id,) in db.execute(query, row[:2])]
    return {(f"run.{step}", run_id) for run_id in found for step in STEPS}


def _told_of_runs(events: list[Row]) -> set[tuple[str, int]]:
    """Return which events tell of which runs."""
    told = set()
    for _, name, data in events:
        # Nor is it ours where somebody else has written there what is no JSON.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            told.add((name, json.loads(data)["run"]["id"]))
    return told
