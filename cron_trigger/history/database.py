"""Which of the two histories is asked: the one place that knows.

All goes to the history's file.  At the first fault, after that one attempt, changes go
to the second history, beside the PID files, until a thread of this module succeeds with
the first and moves them over; reads show both as one.  Nothing here raises for a fault
of a disk.  Any thread calls it: `_lock` (taken last of all locks, so nothing that is
called under it takes another) guards everything; between processes SQLite's own locks
do, and `Ids.in_order`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar, Union

from cron_trigger.history.file import (
    HistoryFile,
    Rows,
    is_broken,
    remedy_of,
    version_of,
)
from cron_trigger.history.ids import Ids
from cron_trigger.history.schema import (
    EVENT_PUT,
    KEY_PUT,
    RUN_INSERT,
    RUN_UPSERT,
    SCHEDULED_PUT,
    roll_back,
    row_of,
)
from cron_trigger.history.second import COLUMNS, Row, Second
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.records import Run, Scheduled

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
#: A row that a change works on: table, column and value; and the record as it was
#: before, should the history not be readable.
Needed = Tuple[str, str, Any, Optional[Callable[[], Union[Run, Scheduled]]]]
FAULTS = (sqlite3.Error, OSError, ConfigError)
#: `sqlite_sequence` has the last number, also of rows that were pruned.
TABLE_OF_KIND = {
    "run": "cron_executions",
    "event": "events",
    "scheduled": "scheduled_triggers",
}
PUT = {
    "cron_executions": RUN_UPSERT,
    "scheduled_triggers": SCHEDULED_PUT,
    "idempotency_keys": KEY_PUT,
    "events": EVENT_PUT,
}


class Database:
    """Both histories, as one."""

    #: How often the first history is tried again while it has a fault.
    RETRY_S = 1.0

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        run_dir: Optional[Path],
        on_heal: Callable[[], None],
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._say = say
        self._on_heal = on_heal
        self._read_only = read_only
        self._file = HistoryFile(path, say)
        self._first: Optional[sqlite3.Connection] = None
        self._second = Second(run_dir)
        self._joined: Optional[sqlite3.Connection] = None
        self._first_readable = True
        self.ids = Ids(run_dir)
        self._lock = threading.RLock()
        #: What is wrong with the first history now; None if all is well.
        self.fault: Optional[str] = None
        self._no_room: Optional[str] = None
        #: Runs that have begun and not ended: a new history begins with them, should
        #: this one be lost.
        self.under_way: Dict[int, Run] = {}
        self._retrying = False
        self._closed = threading.Event()
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        if self._read_only:
            self._check_readable()
            return
        self._take_room()
        try:
            self._write_first(lambda db: None)
        except (sqlite3.Error, OSError) as error:
            self._note_fault(error)
            for kind, table in TABLE_OF_KIND.items():  # it may be readable
                rows = self._read_joined(f"select max(id) from {table}", [])
                self.ids.learn(kind, rows[0][0] or 0 if rows else 0)

    def _take_room(self) -> None:
        """Have room for what happens while the history can't be written."""
        taken = self._second.take_room()
        if not taken and self._no_room is None:
            self._no_room = (
                f"No room could be taken at {self._second.path} for what happens while "
                "the history can't be written; free some space there."
            )
            self._say("error", self._no_room)
            self._start_retrying()
        elif taken:
            self._no_room = None

    def _check_readable(self) -> None:
        """Note where a history that is there can't be read."""
        if not self.path.exists():
            return
        try:
            place = f"file:{urllib.parse.quote(str(self.path))}?immutable=1"
            with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
                version_of(db, self.path)
            self._join().execute("select 1 from cron_executions limit 1").fetchone()
        except (sqlite3.Error, OSError) as error:
            self.fault = f"The history {self.path} can't be read ({error})."
            self._say("error", self.fault)

    def problem(self) -> Optional[str]:
        """Return what is wrong now, and what it may cost; None if all is well."""
        if self.fault and self._second.in_memory and self._second.path:
            return (
                f"{self.fault[:-1]}; {self._second.path} can't be written either, so "
                "what happens meanwhile is lost if this process is killed."
            )
        return self.fault or self._no_room

    # ---- the first history

    def _connect(self) -> sqlite3.Connection:
        """Return the first history, as it stands under its name."""
        if self._first is not None and not self._file.whole(self._first):
            lost, self._first = self._first, None
            self._drop_joined()
            self._first = self._file.reopened(lost)
            self._carry_over(self._first)
        elif self._first is None:
            self._first = self._file.opened()
            self._carry_over(self._first)
        return self._first

    def _carry_over(self, db: sqlite3.Connection) -> None:
        """Give a history that does not know of the runs under way their rows."""
        for kind in self.ids.KINDS:
            self.ids.learn(kind, self._last_in(db, kind))
        for run in self.under_way.values():
            query = "select 1 from cron_executions where id = ?"
            if not db.execute(query, [run.id]).fetchall():
                db.execute(RUN_UPSERT, row_of(run))

    def _disconnect(self) -> None:
        if self._first is not None:
            with contextlib.suppress(sqlite3.Error):
                self._first.close()
            self._first = None

    def _note_fault(self, error: BaseException) -> None:
        """Note a fault; from here on, the second history takes what this one can't."""
        self._drop_joined()
        if not self._may_stay_open(error):
            self._disconnect()
        fault = (
            f"The history {self.path} can't be written ({error}): what happens is "
            f"stored separately and written later; {remedy_of(error)}."
        )
        if self.fault != fault:
            self._say("error", fault)
        self.fault = fault
        self._start_retrying()

    def _may_stay_open(self, error: BaseException) -> bool:
        """Return True where the open history can be read on, as on a full disk.

        Opened again it could not be: SQLite would make files beside it.
        """
        passing = any(word in str(error) for word in ("is full", "is locked"))
        return passing and self._first is not None and not self._first.in_transaction

    # ---- change

    def write(self, change: Change[T], *needed: Needed) -> T:
        """Make one change in a transaction of its own, in one history or the other.

        `needed`: the rows that it works on, which the second history may not have yet.
        """
        with self._lock:
            if self.fault is None:
                try:
                    return self._on_first(lambda: self._write_first(change))
                except FAULTS as error:
                    self._note_fault(error)
            self._start_retrying()
            return self._write_second(change, needed)

    def _on_first(self, work: Callable[[], T]) -> T:
        """Work on the first history; once more on a new one where that is broken."""
        try:
            return work()
        except sqlite3.Error as error:
            if not is_broken(error) or self._first is None:
                raise
            broken, self._first = self._first, None
            self._drop_joined()
            self._first = self._file.rebuilt(broken, error)
            self._carry_over(self._first)
            return work()

    def _write_first(self, change: Change[T]) -> T:
        db = self._connect()
        db.execute("begin immediate")
        try:
            with self.ids:
                # What another process has put aside comes first: it may be about the
                # same run, and of two ends the first one counts.
                if not self._second.is_empty():
                    self._move(db)
                    db.execute("begin immediate")
                return self._committed(db, change)
        except BaseException:
            roll_back(db)
            raise

    def _committed(self, db: sqlite3.Connection, change: Change[T]) -> T:
        """Make a change and commit it; again where its events came out of order.

        That is where this process was stopped in the midst of it, and others, who had
        waited, went on: their events may have been read, with higher numbers.
        """
        result = change(db)
        for _ in range(3):
            if not self.ids.overtaken():
                break
            db.execute("rollback")
            db.execute("begin immediate")
            result = change(db)
        db.execute("commit")
        return result

    def _write_second(self, change: Change[T], needed: Sequence[Needed]) -> T:
        with self.ids:
            rows = [(need[0], self._old_rows(need)) for need in needed]

            def whole(db: sqlite3.Connection) -> T:
                db.execute("begin immediate")
                try:
                    for table, known in rows:
                        self._bring(db, table, known)
                    return self._committed(db, change)
                except BaseException:
                    roll_back(db)
                    raise

            return self._second.change(whole)

    def _old_rows(self, need: Needed) -> List[Row]:
        table, column, value, record = need
        query = f"select {COLUMNS[table]} from {table} where {column} = ?"
        found = self._read_joined(query, [value])
        return found or ([row_of(record())] if record else [])

    def _bring(self, db: sqlite3.Connection, table: str, rows: List[Row]) -> None:
        """Have the second history know what a change works on."""
        db.executemany(PUT[table].replace("or replace", "or ignore"), rows)

    # ---- numbers

    def insert(
        self, db: sqlite3.Connection, kind: str, query: str, values: Sequence[Any]
    ) -> int:
        """Insert a row under a new number, within a change; return that.

        A number that is taken was given by a program of before these files; it is not
        given twice, since the row is not put over the other.
        """
        while True:
            number = self.ids.draw(kind)
            if db.execute(query, (number, *values)).rowcount:
                return number
            self.ids.learn(kind, self._last_in(db, kind))

    def _last_in(self, db: sqlite3.Connection, kind: str) -> int:
        query = "select seq from sqlite_sequence where name = ?"
        found = db.execute(query, [TABLE_OF_KIND[kind]]).fetchone()
        return int(found[0]) if found else 0

    # ---- read

    def read(self, query: str, values: Sequence[Any] = ()) -> List[Row]:
        """Return rows of the one history, or of both; none where none can be read."""
        with self._lock:
            if self.fault is None and not self._read_only:
                try:
                    rows = self._on_first(
                        lambda: self._connect().execute(query, values).fetchall()
                    )
                    # Asked after it was read: what moves over in between is on the one
                    # side or the other, and what comes later is not missed.
                    if self._second.is_empty():
                        return rows
                    self._start_retrying()
                except FAULTS as error:
                    self._note_fault(error)
            return self._read_joined(query, values)

    def writes_json(self) -> bool:
        """Return True where SQLite can write JSON itself."""
        return self._file.writes_json

    def _read_joined(self, query: str, values: Sequence[Any]) -> List[Row]:
        for _ in range(2):
            try:
                return self._within_moment(self._join(), query, values)
            except sqlite3.Error:
                # Locked even for reading, or gone: the second alone, till the next try.
                self._drop_joined()
                self._first_readable = False
        return []

    def _within_moment(
        self, db: sqlite3.Connection, query: str, values: Sequence[Any]
    ) -> List[Row]:
        db.execute("begin")
        try:
            # The second first, and held: what it gives away from here on is found in
            # the first, which is looked at later.
            db.execute("select 1 from main.events limit 1").fetchone()
            return db.execute(query, values).fetchall()
        finally:
            roll_back(db)

    def _join(self) -> sqlite3.Connection:
        if self._joined is None:
            self._joined = self._second.joined(self.path, self._first_readable)
        if self._second.in_memory and not self._read_only:
            joined, self._joined = self._joined, None  # a copy, for this time alone
            return joined
        return self._joined

    def _drop_joined(self) -> None:
        if self._joined is not None:
            self._joined.close()
            self._joined = None

    # ---- heal

    def retry(self) -> bool:
        """Try once to write the first history; return True if all is well again.

        It may wait for half a second: for a thread that nobody waits for.
        """
        return not self._is_locked() and self._try_first()

    def _try_first(self) -> bool:
        with self._lock:
            self._drop_joined()
            self._first_readable = True
            try:
                self._write_first(lambda db: None)
            except FAULTS as error:
                self._note_fault(error)
                return False
            self._second.to_file()
            healed, self.fault = self.fault is not None, None
            self._take_room()
        if healed:
            self._say("notice", f"the history {self.path} can be written again")
        return True

    def _is_locked(self) -> bool:
        """Look whether another program has it locked, while others may go on here."""
        try:
            place = f"file:{urllib.parse.quote(str(self.path))}?mode=rw"
            with contextlib.closing(sqlite3.connect(place, 0.2, uri=True)) as db:
                db.execute("begin immediate")
                db.execute("rollback")
        except sqlite3.Error as error:
            return "is locked" in str(error)
        return False

    def _start_retrying(self) -> None:
        """Have a thread try again and again; the next fault does, where none starts."""
        if self._retrying or self._read_only or self._closed.is_set():
            return
        thread = threading.Thread(target=self._retry_till_well, name="history")
        thread.daemon = True
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._retrying = True

    def _retry_till_well(self) -> None:
        wait_s = 0.0 if self.fault is None else self.RETRY_S
        while not self._closed.wait(wait_s):
            wait_s = self.RETRY_S
            if self._is_locked():
                continue
            with self._lock:  # a fault from here on has another thread started
                if self._closed.is_set():
                    return
                if self._try_first() and self.problem() is None:
                    self._retrying = False
                    break
        if not self._closed.is_set():
            self._on_heal()

    def _move(self, db: sqlite3.Connection) -> None:
        """Move all rows from the second to the first, within its transaction.

        Committed there before it is deleted here: after a kill in between, the same
        rows come once more and change nothing, since every writer moves them first.
        """
        with self._second.emptied() as rows:
            self._write_over(db, rows)
            db.execute("commit")

    def _write_over(self, db: sqlite3.Connection, rows: Rows) -> None:
        for row in rows["cron_executions"]:
            if not db.execute(RUN_UPSERT, row).rowcount:
                # Its number is another run's, which is never overwritten.
                self.insert(db, "run", RUN_INSERT, row[1:])
        for table in ("scheduled_triggers", "idempotency_keys"):
            db.executemany(PUT[table], rows[table])
        for event in rows["events"]:
            if not db.execute(EVENT_PUT, event).rowcount:
                self._write_again(db, event)

    def _write_again(self, db: sqlite3.Connection, event: Row) -> None:
        """Give an event another number, unless it is there already."""
        same = "select 1 from events where id = ? and event = ? and data = ?"
        if not db.execute(same, event).fetchall():
            self.insert(db, "event", EVENT_PUT, event[1:])

    def close(self) -> None:
        """Write what is left, if that can be done at once, and close the files."""
        with self._lock:
            if not self._read_only and not self._second.is_empty():
                self.retry()
            self._closed.set()
            self._drop_joined()
            self._disconnect()
            self._second.close()
            self.ids.close()
