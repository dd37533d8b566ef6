"""Which of the two histories is asked: the one place that knows.

All goes to the history's file.  At the first fault, after that one attempt, changes go
to the second history, beside the PID files, until a thread of this module succeeds with
the first and moves them over; reads show both as one.  Nothing here raises for a fault
of a disk.  Any thread calls it: `_lock` guards everything (under it only the log's own
lock is taken, by `say`, so nobody waits in a circle); between processes SQLite's locks
do, and the lock of `Ids`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Optional, Sequence, TypeVar, Union

from cron_trigger.history.file import HistoryFile, remedy_of, version_of
from cron_trigger.history.ids import TABLE_OF_KIND, Ids
from cron_trigger.history.joined import Joined
from cron_trigger.history.schema import RUN_UPSERT, roll_back, row_of
from cron_trigger.history.second import COLUMNS, PUT, Row, Second
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.records import Run, Scheduled
from cron_trigger.registry.threads import begin

T = TypeVar("T")
# A change may be called more than once, each time in another transaction: only the last
# call is committed.  So it changes nothing but rows, and returns what it found.
Change = Callable[[sqlite3.Connection], T]
#: A row that a change works on: table, column and value; and the record as it was
#: before, should the history not be readable.
Needed = tuple[str, str, Any, Optional[Callable[[], Union[Run, Scheduled]]]]
FAULTS = (sqlite3.Error, OSError, ConfigError)


class Overtaken(Exception):
    """Another process has drawn an event since this one drew that of its change."""


def _in_order(attempt: Callable[[bool], T]) -> T:
    """Make a change; from its beginning again where its events came out of order.

    That is where this process was stopped in the midst of it, and others, who had
    waited, went on: their events may have been read, with higher numbers, and may tell
    the very end that this change is about to record.
    """
    # Not for ever: a host so busy is answered out of order at the worst.
    for _ in range(3):
        with contextlib.suppress(Overtaken):
            return attempt(False)
    return attempt(True)


class Database:
    """Both histories, as one."""

    #: How often the first history is tried again while it has a fault.
    RETRY_S = 1.0

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        run_dir: Optional[Path],
        on_heal: Optional[Callable[[], None]],
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._say = say
        # The server's.  Called without `_lock`, in the thread `history`.
        self._on_heal = on_heal
        self._read_only = read_only
        # Under `_lock` these four, and all that they open.
        self._first = HistoryFile(path, say, self._carry_over, on_heal is not None)
        self._second = Second(run_dir)
        self._joined = Joined(path, self._second)
        self.ids = Ids(run_dir)
        # Reentrant, for `close` and the thread below, which try again under it.
        self._lock = threading.RLock()
        #: What is wrong with the first history now; None if all is well.
        #: Set under `_lock`; a single look at it needs none.
        self.fault: Optional[str] = None
        # The same rule.
        self._no_room: Optional[str] = None
        #: Runs that have begun and not ended: a new history begins with them, should
        #: this one be lost.
        #: Each run's own threads set and take its key, without `_lock`.
        self.under_way: dict[int, Run] = {}
        # True while there is the thread `history`; under `_lock`.
        self._retrying = False
        # Set under `_lock`; waited for without it.
        self._closed = threading.Event()
        # From here on a thread may have been started.
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        if self._read_only:
            self._check_readable()
            return
        # While there is room: when it is needed the disk is full.
        self._take_room()
        try:
            self._write_first(lambda db: None)
        except (sqlite3.Error, OSError) as error:
            self._note_fault(error)
            for kind, table in TABLE_OF_KIND.items():  # it may be readable
                rows = self._joined.read(f"select max(id) from {table}")
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
        try:
            if not self.path.exists():
                return
            place = f"file:{urllib.parse.quote(os.fsencode(self.path))}?immutable=1"
            with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
                version_of(db, self.path)
                db.execute("select 1 from sqlite_master limit 1").fetchone()
        except (sqlite3.Error, OSError) as error:
            self.fault = f"The history {self.path} can't be read ({error})."
            self._say("error", self.fault)

    def problem(self) -> Optional[str]:
        """Return what is wrong now, and what it may cost; None if all is well."""
        # Any thread, without the lock: three looks, of which `/health` makes a
        # sentence.
        if self.fault and self._second.in_memory and self._second.path:
            return (
                f"{self.fault[:-1]}; {self._second.path} can't be written either, so "
                "what happens meanwhile is lost if this process is killed."
            )
        return self.fault or self._no_room

    def _carry_over(self, db: sqlite3.Connection) -> None:
        """Give a history that does not know of the runs under way their rows."""
        self._joined.drop()
        for kind in TABLE_OF_KIND:
            self.ids.learn_from(db, kind)
        # With the first history just opened, under `_lock`, before any other change of
        # it: an end that comes next must find its row.
        for run in list(self.under_way.values()):  # others add and take out
            query = "select 1 from cron_executions where id = ?"
            if not db.execute(query, [run.id]).fetchall():
                db.execute(RUN_UPSERT, row_of(run))

    def _note_fault(self, error: BaseException) -> None:
        """Note a fault; from here on, the second history takes what this one can't."""
        # It has a connection to the file that is about to be closed or replaced.
        self._joined.drop()
        self._first.close_after(error)
        fault = (
            f"The history {self.path} can't be written ({error}): what happens is "
            f"stored separately and written later; {remedy_of(error)}."
        )
        if self.fault != fault:
            self._say("error", fault)
        self.fault = fault
        self._start_retrying()

    # ---- change

    def write(self, change: Change[T], *needed: Needed) -> T:
        """Make one change in a transaction of its own, in one history or the other.

        `needed`: the rows that it works on, which the second history may not have yet.
        """
        # One change at a time in this process; the thread that waits may find another
        # answer to `fault` than before.
        with self._lock:
            if self.fault is None:
                try:
                    return self._on_first(lambda: self._write_first(change))
                except FAULTS as error:
                    self._note_fault(error)
            # Also where the thread could not be started at the fault.
            self._start_retrying()
            return self._write_second(change, needed)

    def _on_first(self, work: Callable[[], T]) -> T:
        """Work on the first history; once more on a new one where that is broken."""
        try:
            return work()
        except sqlite3.Error as error:
            if not self._first.mended(error):
                raise
            return work()

    def _write_first(self, change: Change[T]) -> T:
        db = self._first.connected()

        def attempt(last: bool) -> T:
            # Waits for writers of other processes (BUSY_S at most); readers go on.
            db.execute("begin immediate")
            try:
                # After SQLite's lock, held until the commit.  In `_write_second` it
                # comes first; no circle, since every one of these waits ends by itself.
                with self.ids:
                    # What another process has put aside comes first: it may be about
                    # the same run, and of two ends the first one counts.
                    if not self._second.is_empty():
                        # Commits; the change has a transaction of its own.
                        self._second.move_to(db, self.ids)
                        db.execute("begin immediate")
                    # Killed up to its commit: nothing of it is there.  After it: all.
                    result = self._committed(db, change, last)
            except BaseException:
                roll_back(db)
                raise
            # The first read after a commit is marked in the index of the -wal.  Now:
            # later there may be no room for that (`is_short`).
            db.execute("select 1 from events limit 1").fetchone()
            return result

        return _in_order(attempt)

    def _committed(self, db: sqlite3.Connection, change: Change[T], last: bool) -> T:
        """Make a change and commit it; raise Overtaken where others went before."""
        result = change(db)
        if not last and self.ids.overtaken():
            raise Overtaken
        db.execute("commit")
        return result

    def _write_second(self, change: Change[T], needed: Sequence[Needed]) -> T:
        def attempt(last: bool) -> T:
            with self.ids:
                # Before the transaction: they are read through another connection.
                # Anew in each attempt: who overtook may have changed just these.
                rows = [(need[0], self._old_rows(need)) for need in needed]

                def whole(db: sqlite3.Connection) -> T:
                    db.execute("begin immediate")
                    try:
                        for table, known in rows:
                            self._bring(db, table, known)
                        return self._committed(db, change, last)
                    except BaseException:
                        roll_back(db)
                        raise

                return self._second.change(whole)

        return _in_order(attempt)

    def _old_rows(self, need: Needed) -> list[Row]:
        table, column, value, record = need
        query = f"select {COLUMNS[table]} from {table} where {column} = ?"
        found = self._joined.read(query, [value])
        return found or ([row_of(record())] if record else [])

    def _bring(self, db: sqlite3.Connection, table: str, rows: list[Row]) -> None:
        """Have the second history know what a change works on."""
        # What it has already is the newer.
        db.executemany(PUT[table].replace("or replace", "or ignore"), rows)

    # ---- read

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return rows of the one history, or of both; none where none can be read."""
        with self._lock:
            if self.fault is None and not self._read_only:
                try:
                    # Asked before: what is there by now may move over at any moment,
                    # and what comes later came after this question.
                    if self._second.is_empty():
                        return self._on_first(
                            lambda: (
                                self._first.connected()
                                .execute(query, values)
                                .fetchall()
                            )
                        )
                    self._start_retrying()
                # A read does not wait for the next write to find a fault.
                except FAULTS as error:
                    self._note_fault(error)
            return self._joined.read(query, values)

    def shrink(self, pages: int) -> bool:
        """Give the disk some pages back, or, where none is free, the -wal's place.

        Return True where there is more to give.  For the pruner: its lock is held.
        """
        with self._lock:
            if self.fault is not None:
                return False
            try:
                return self._on_first(lambda: self._first.shrink(pages))
            except FAULTS as error:
                self._note_fault(error)
                return False

    def writes_json(self) -> bool:
        """Return True where SQLite can write JSON itself."""
        return self._first.writes_json

    # ---- heal

    def retry(self) -> bool:
        """Try once to write the first history; return True if all is well again.

        It may wait for half a second: for a thread that nobody waits for.
        """
        # Looked at without `_lock`: under it a trigger would wait for another's lock.
        return not self._first.is_locked() and self._try_first()

    def _try_first(self) -> bool:
        with self._lock:
            self._joined.drop()
            try:
                self._write_first(lambda db: None)
            except FAULTS as error:
                self._note_fault(error)
                return False
            # What was in memory is in the first by now.
            self._second.to_file()
            # Before the lock is let go: the next change goes to the first again.
            healed, self.fault = self.fault is not None, None
            self._take_room()
        if healed:
            self._say("notice", f"the history {self.path} can be written again")
        return True

    def _start_retrying(self) -> None:
        """Have a thread try again and again; the next fault does, where none starts."""
        if self._retrying or self._read_only or self._closed.is_set():
            return
        # Under `_lock`: there is at most one, and it can't end before the line below.
        with contextlib.suppress(RuntimeError):
            begin("history", self._retry_till_well)
            self._retrying = True

    def _retry_till_well(self) -> None:
        wait_s = 0.0 if self.fault is None else self.RETRY_S
        while not self._closed.wait(wait_s):
            wait_s = self.RETRY_S
            # Without `_lock`, as in `retry`.
            if self._first.is_locked():
                continue
            with self._lock:  # a fault from here on has another thread started
                # Or it would open again what `close` has closed while this waited.
                if self._closed.is_set():
                    return
                if self._try_first() and self.problem() is None:
                    self._retrying = False
                    break
        if self._on_heal is not None and not self._closed.is_set():
            # Without `_lock`: who listens asks the history, and may hold locks of its
            # own.
            self._on_heal()

    def close(self) -> None:
        """Write what is left, if that can be done at once, and close the files."""
        with self._lock:
            if not self._read_only and not self._second.is_empty():
                self.retry()
            # Under `_lock`: the thread that tries again is either through or will see
            # it.
            self._closed.set()
            self._joined.drop()
            self._first.close()
            self._second.close()
            self.ids.close()
