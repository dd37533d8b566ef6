"""Store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from cron_trigger.history.schema import (
    END_COLUMNS,
    RUN_END,
    RUN_JSON,
    RUN_ROW,
    RUN_UPSERT,
    RUN_VALUES,
    SCHEDULED_ROW,
    SCHEDULED_VALUES,
    SCHEMA,
    page_of,
    row_of,
    run_of,
    scheduled_of,
)
from cron_trigger.host.lock import take_lock
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import (
    COMPLETED,
    FIRED,
    RUNNING,
    Event,
    Key,
    Run,
    Scheduled,
    replace,
)
from cron_trigger.registry.strict_json import Json, json_text

SCHEDULED_ENDED_SHOWN = 50
IDEMPOTENCY_S = 86400.0
RECENT_RUNS = 30
RUNS_PAGE, RUNS_PAGE_LIMIT = 50, 500
EVENTS_KEPT = 20000
T = TypeVar("T")


class RunIds:
    """Gives each run its number, whichever process starts it.

    A file of its own beside the PID files, since runs start while the history can't be
    written, or not even be read, and two processes would then give the same number.
    """

    NAME = "last-run-id"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME

    def after(self, last: int) -> int:
        """Return a number above `last` and above each that was given before."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return last + 1
        number = last + 1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # for some microseconds
            text = os.pread(descriptor, 20, 0).strip()
            given = int(text) if text.isdigit() else 0
            number = max(last, given % INTEGER_LIMIT) + 1
            os.pwrite(descriptor, f"{number:019}\n".encode(), 0)
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return number


Record = Union[Run, Scheduled, Key, Event]


class Spool:
    """What a history could not take, in files that outlive their processes.

    Lines of JSON beside the PID files, so in memory in most places, and there when the
    history's disk is full.  Each process appends to a file of its own, whose lock it
    holds; one whose lock is free is of a process that is gone, and whoever takes the
    lock takes its lines over.
    """

    KINDS = {kind.__name__: kind for kind in (Run, Scheduled, Key, Event)}

    def __init__(self, folder: Optional[Path]) -> None:
        """Keep nothing where there is no folder."""
        self._folder = folder
        self._own: Optional[int] = None
        self._held: Dict[str, int] = {}  # path to descriptor: our file, and others'

    def add(self, record: Record) -> None:
        """Append a record; a disk that takes none must not stop anything."""
        # The line feed comes first: a line that was cut short spoils no other.
        line = "\n" + json_text([type(record).__name__, vars(record)])
        with contextlib.suppress(OSError):
            if self._own is None and self._folder is not None:
                self._own = self._created(self._folder)
            if self._own is not None:
                os.write(self._own, line.encode("utf-8", "replace"))

    def _created(self, folder: Path) -> Optional[int]:
        for number in range(100):
            # A dot, which no cron's name begins with.
            path = f"{folder}/.unwritten.{os.getpid()}-{number}"
            if self._locks(path):
                os.lseek(self._held[path], 0, os.SEEK_END)
                return self._held[path]
        return None

    def _locks(self, path: str) -> bool:
        """Lock a file, if it is nobody's; return False if it is, or was removed."""
        lock = take_lock(path)
        if lock is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                self._held[path] = lock
                return True
        os.close(lock)
        return False

    def take_over(self) -> Iterator[Record]:
        """Yield the records of processes that are gone, the oldest file's first."""
        for path in self._left():
            with contextlib.suppress(OSError):
                if self._locks(path):
                    with open(self._held[path], "rb", closefd=False) as file:
                        yield from filter(None, map(self._record, file))

    def _left(self) -> List[str]:
        """Return the files of others."""
        if self._folder is None:
            return []
        found = []
        for path in self._folder.glob(".unwritten.*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, str(path)))
        return [path for _, path in sorted(found) if path not in self._held]

    def _record(self, line: bytes) -> Optional[Record]:
        # A line may be half of one; an older version's may have other fields.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            kind, values = json.loads(line)
            record: Record = self.KINDS[kind](**values)
            return record
        return None

    def clear(self) -> None:
        """Remove the files: all that was in them is written."""
        for path, descriptor in self._held.items():
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)
        self._held = {}
        self._own = None

    def close(self) -> None:
        """Let go of the files, for others to take them over."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}
        self._own = None


class Unwritten:
    """What the history has not taken yet, by its key in there."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._empty()

    def _empty(self) -> None:
        self.runs: Dict[int, Run] = {}
        self.scheduled: Dict[int, Scheduled] = {}
        self.keys: Dict[Tuple[str, str], Key] = {}
        self.events: List[Event] = []

    def __bool__(self) -> bool:
        return bool(self.runs or self.scheduled or self.keys or self.events)

    def put(self, record: Record) -> None:
        """Keep a record, also for the case that this process is killed."""
        self._take(record)
        self._spool.add(record)

    def _take(self, record: Record) -> None:
        if isinstance(record, Run):
            self.runs[record.id] = record
        elif isinstance(record, Scheduled):
            self.scheduled[record.id] = record
        elif isinstance(record, Event):
            self.events.append(record)
        elif record.digest:
            self.keys[record.cron_name, record.key] = record
        else:  # given back
            self.keys.pop((record.cron_name, record.key), None)

    def take_over(self) -> bool:
        """Take up what others have left; return True if there was something."""
        records = list(self._spool.take_over())
        for record in records:
            self._take(record)
        if not self:
            self._spool.clear()
        return bool(records)

    def clear(self) -> None:
        """Forget all of it: it is written."""
        self._empty()
        self._spool.clear()

    def close(self) -> None:
        """Leave it to others."""
        self._spool.close()


@dataclass(frozen=True)
class Figures:
    """What a cron's history says in numbers.  `recent` is oldest first."""

    runs: int
    completed: int
    recent: Tuple[Run, ...]

    @property
    def success_rate(self) -> Optional[float]:
        return round(self.completed / self.runs, 4) if self.runs else None

    @property
    def median_duration_ms(self) -> Optional[int]:
        durations = sorted(
            run.duration_ms for run in self.recent if run.duration_ms is not None
        )
        if not durations:
            return None
        middle = len(durations) // 2
        if len(durations) % 2:
            return durations[middle]
        return (durations[middle - 1] + durations[middle]) // 2


class Store:
    """The history.  Any thread may call any method; none raises for a disk fault."""

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        run_dir: Optional[Path] = None,
    ) -> None:
        """Open a history; one that is to be changed needs the folder of PID files."""
        self.path = path
        self._run_ids = RunIds(run_dir) if run_dir else None
        #: What is wrong with the history now, in one sentence; None if all is well.
        self.problem: Optional[str] = None
        #: Called, under the lock, when a fault was met: to have `retry` called.
        self.on_fault: Callable[[], None] = lambda: None
        self._say = say
        self._lock = threading.RLock()
        self._db: Optional[sqlite3.Connection] = None
        self._unwritten = Unwritten(Spool(run_dir))
        #: The first event whose id another process had given as well, if any.
        self.renumbered: Optional[int] = None
        #: Runs that have begun and not ended: a new history begins with them, should
        #: this one turn out to be corrupt, or be moved or removed.
        self._under_way: Dict[int, Run] = {}
        self._caught_up = False
        #: False where SQLite was built without its JSON functions (before 3.38).
        self._writes_json = False
        self._file = (0, 0)  # device and inode of what _db has open
        self._last_ids = {"cron_executions": 0, "scheduled_triggers": 0, "events": 0}
        self._write(lambda db: None, lambda: None)
        if self.problem is None:
            self.take_over()

    # ---- connection, faults, recovery

    def _connect(self) -> sqlite3.Connection:
        if self._db is not None and not self._in_place():
            self._say("error", f"the history {self.path} was moved or removed in use")
            self._disconnect()
        if self._db is None:
            try:
                self._db = self._opened()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._move_aside(error)
                self._db = self._opened()
            if self._under_way:  # they may be asked for before the next change
                with contextlib.suppress(sqlite3.Error):
                    self._transaction(lambda db: None)
        return self._db

    def _in_place(self) -> bool:
        """Return False where the open file is not the one of that name any more.

        SQLite goes on writing a file that was removed, or that the command line has
        moved aside as corrupt, and nobody would ever read that.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(
            self.path, timeout=0.5, isolation_level=None, check_same_thread=False
        )
        try:
            with contextlib.suppress(OSError):
                os.chmod(self.path, 0o600)
            db.execute("pragma auto_vacuum = incremental")
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            db.execute("pragma cache_size = -256")  # KiB; the kernel caches it all
            db.executescript(SCHEMA)
            for table, last in self._last_ids.items():
                self._last_ids[table] = max(last, self._last_id(db, table))
            self._caught_up = False
            self._writes_json = _has_json(db)
            status = os.stat(self.path)
            self._file = (status.st_dev, status.st_ino)
        except BaseException:
            db.close()
            raise
        return db

    def _last_id(self, db: sqlite3.Connection, table: str) -> int:
        query = "select seq from sqlite_sequence where name = ?"
        rows = db.execute(query, [table]).fetchall()
        return int(rows[0][0]) if rows else 0

    def _catch_up(self, db: sqlite3.Connection) -> None:
        """Tell a history what it missed while it was away.

        Ids that were given meanwhile, which are not given again, and runs under way.
        With the first change, not when it is opened: it may be readable only.
        """
        for table, last in self._last_ids.items():
            if self._last_id(db, table) < last:
                db.execute("delete from sqlite_sequence where name = ?", [table])
                db.execute("insert into sqlite_sequence values (?, ?)", [table, last])
        self._carry_over(db)

    def _carry_over(self, db: sqlite3.Connection) -> None:
        """Give a history that does not know of the runs under way their rows."""
        for run in self._under_way.values():
            query = "select 1 from cron_executions where id = ?"
            if not db.execute(query, [run.id]).fetchall():
                db.execute(RUN_UPSERT, row_of(run))

    def _move_aside(self, error: Exception) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._say(
            "error",
            f"the history {self.path} is corrupt ({error}): it was moved to {aside} "
            "and a new one begun",
        )

    def _fault(self, error: Exception) -> None:
        """Note a fault; from here on, memory takes what the history can't."""
        if not self._is_readable(error):
            self._disconnect()
        if _is_corrupt(error):
            with contextlib.suppress(OSError):
                self._move_aside(error)
        problem = (
            f"The history {self.path} can't be written ({error}): what happens is "
            "kept aside until it can; free some space or mend its folder's permissions."
        )
        if self.problem != problem:
            self._say("error", problem)
        self.problem = problem
        self.on_fault()

    def _is_readable(self, error: Exception) -> bool:
        """Return True where the history can be read on, as on a full disk.

        Opened again it could not be: SQLite would make files beside it.
        """
        passing = any(word in str(error) for word in ("is full", "is locked"))
        return passing and self._db is not None and not self._db.in_transaction

    def _write(
        self, change: Callable[[sqlite3.Connection], T], otherwise: Callable[[], T]
    ) -> T:
        """Make one change in a transaction of its own; else do it in memory."""
        with self._lock:
            if self.problem is None:
                try:
                    return self._transaction(change)
                except (sqlite3.Error, OSError) as error:
                    self._fault(error)
            return otherwise()

    def _transaction(self, change: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connect()
        db.execute("begin immediate")
        try:
            if not self._caught_up:
                self._catch_up(db)
            result = change(db)
            db.execute("commit")
            self._caught_up = True
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("rollback")
            raise
        return result

    def _read(self, query: str, values: Sequence[Any] = ()) -> List[Tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connect().execute(query, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                self._fault(error)
                return self._read_only(query, values)

    def _read_only(self, query: str, values: Sequence[Any]) -> List[Tuple[Any, ...]]:
        """Read a history that can't be opened for writing; nothing if there is none.

        `immutable` reads the file alone: where no other can be made beside it, as on a
        full disk, SQLite opens it in no other way.
        """
        place = f"file:{urllib.parse.quote(str(self.path))}"
        for mode in ("mode=ro", "immutable=1"):
            with contextlib.suppress(sqlite3.Error):
                db = sqlite3.connect(f"{place}?{mode}", uri=True)
                with contextlib.closing(db):
                    return db.execute(query, values).fetchall()
        return []

    def take_over(self) -> None:
        """Take up what a process that is gone could not write, and write it.

        While there is a problem that is for the server alone: a command line would
        keep it from the server for as long as its script runs.
        """
        with self._lock:
            if not self._unwritten.take_over():
                return
            last = self._last_ids
            ids = {
                "cron_executions": self._unwritten.runs,
                "events": (event.id for event in self._unwritten.events),
            }
            last.update((t, max(last[t], *given, 0)) for t, given in ids.items())
            if self.problem is None and self._flush():
                self.renumbered = None  # nobody was sent what is new here

    def retry(self) -> bool:
        """Try to write what is in memory.  Return True if all is well again."""
        with self._lock:
            if self.problem is None:
                return True
            if not self._flush():
                return False
            self.problem = None
            self.take_over()
        self._say("notice", f"the history {self.path} can be written again")
        return True

    def _flush(self) -> bool:
        try:
            self._transaction(self._write_unwritten)
        except (sqlite3.Error, OSError) as error:
            self._fault(error)
            return False
        self._unwritten.clear()
        return True

    def _write_unwritten(self, db: sqlite3.Connection) -> None:
        left = self._unwritten
        known = {number: self._known(db, run) for number, run in left.runs.items()}
        for run in left.runs.values():
            if not db.execute(RUN_UPSERT, row_of(run)).rowcount:
                # Its number is another run's, which is never overwritten.
                self._insert_run(db, replace(run, id=self._next_run_id(db)))
        for scheduled in left.scheduled.values():
            self._replace_scheduled(db, scheduled)
        for key in left.keys.values():
            self._put_key(db, key)
        for event in left.events:
            if not _is_told(event, known):
                self._write_event(db, event)

    def _known(self, db: sqlite3.Connection, run: Run) -> Tuple[Any, ...]:
        """Return status and PID of a run as the history has them, if it does."""
        query = (
            "select status, pid from cron_executions where id = ? and cron_name = ? "
            "and (started_at = ? or pid = ?)"
        )
        values = [run.id, run.cron_name, run.started_at, run.pid]
        rows = db.execute(query, values).fetchall()
        return rows[0] if rows else (RUNNING, None)

    def _write_event(self, db: sqlite3.Connection, event: Event) -> None:
        """Write an event that was told already, with its id if that is still free."""
        row = (event.id, event.name, event.data)
        query = "insert or ignore into events values (?, ?, ?)"
        if db.execute(query, row).rowcount:
            return
        same = "select 1 from events where id = ? and event = ? and data = ?"
        if db.execute(same, row).fetchall():
            return  # this process, or one before it, was killed just after it wrote
        db.execute(query, (None, *row[1:]))
        self.renumbered = min(event.id, self.renumbered or event.id)

    def _next_run_id(self, db: Optional[sqlite3.Connection] = None) -> int:
        last = self._last_ids["cron_executions"]
        if db is not None:
            last = max(last, self._last_id(db, "cron_executions"))
        elif self._file == (0, 0):  # it could never be opened
            query = "select seq from sqlite_sequence where name = 'cron_executions'"
            last = max(last, *(row[0] for row in self._read_only(query, [])), 0)
        number = self._run_ids.after(last) if self._run_ids else last + 1
        self._last_ids["cron_executions"] = number
        return number

    def seed_ids(self, run_id: int) -> None:
        """Learn that a run of this id exists, though the history does not know it."""
        with self._lock:
            self._last_ids["cron_executions"] = max(
                run_id, self._last_ids["cron_executions"]
            )

    # ---- runs

    def begin(
        self,
        run: Run,
        key: Optional[Key] = None,
        scheduled: Optional[Scheduled] = None,
    ) -> Run:
        """Record a run that is about to start; return it with its id.

        In the same transaction, its idempotency key is bound to it and its scheduled
        trigger marked fired: after a crash, either all of it is there or nothing.
        """

        def change(db: sqlite3.Connection) -> Run:
            begun = replace(run, id=run.id or self._next_run_id(db))
            if run.id:
                db.execute(RUN_UPSERT, row_of(run))
            else:
                self._insert_run(db, begun)
            if key:
                self._put_key(db, replace(key, run_id=begun.id))
            if scheduled:
                self._fire(db, scheduled, begun)
            self.seed_ids(begun.id)
            return begun

        def remember() -> Run:
            begun = replace(run, id=run.id or self._next_run_id())
            self._unwritten.put(begun)
            if key:
                self._unwritten.put(replace(key, run_id=begun.id))
            if scheduled:
                fired = replace(scheduled, status=FIRED, run_id=begun.id)
                self._unwritten.put(fired)
                self._remember_event("schedule.fired", {"scheduled": fired.view()})
            return begun

        begun = self._write(change, remember)
        self.note_under_way(begun)
        return begun

    def note_under_way(self, run: Run) -> None:
        """Keep what is known of a running run, should the history be lost."""
        with self._lock:
            self._under_way[run.id] = run

    def _fire(self, db: sqlite3.Connection, entry: Scheduled, begun: Run) -> None:
        cursor = db.execute(
            "update scheduled_triggers set status = 'fired', run_id = ? "
            "where id = ? and status = 'pending'",
            [begun.id, entry.id],
        )
        if not cursor.rowcount:
            raise Refusal("not_pending", "It was cancelled just before its time.")
        fired = replace(entry, status=FIRED, run_id=begun.id)
        self._put_event(db, "schedule.fired", {"scheduled": fired.view()})

    def _insert_run(self, db: sqlite3.Connection, run: Run) -> None:
        query = f"insert into cron_executions ({RUN_ROW}) values ({RUN_VALUES})"
        db.execute(query, row_of(run))

    def launched(self, run: Run) -> None:
        """Record that a run's keeper was started, and tell it, once.

        A server that looks just now may see a keeper before the command line that
        started it comes to record it.
        """

        def change(db: sqlite3.Connection) -> None:
            cursor = db.execute(
                "update cron_executions set pid = ?, keeper_started = ?, "
                "log_inode = ?, log_start = ? where id = ? and pid is null",
                [run.pid, run.keeper_started, run.log_inode, run.log_start, run.id],
            )
            if cursor.rowcount:
                self._put_event(db, "run.started", {"run": run.view()})

        def remember() -> None:
            self._unwritten.put(run)
            self._remember_event("run.started", {"run": run.view()})

        self.note_under_way(run)
        self._write(change, remember)

    def set_end_reason(self, run: Run, reason: str, by: Optional[str]) -> Run:
        """Record what a running run will have ended for; return it so.

        Written before the signal is sent: whoever records the end, the server, its
        successor or the command line, finds it there.  The first reason stays.
        """
        marked = replace(run, end_reason=reason, cancelled_by=by)

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "update cron_executions set end_reason = ?, cancelled_by = ? "
                "where id = ? and status = 'running' and end_reason is null",
                [reason, by, run.id],
            )

        def remember() -> None:
            self._unwritten.put(marked)

        self.note_under_way(marked)
        self._write(change, remember)
        return marked

    def end(self, run: Run) -> Optional[Run]:
        """Record a run's end, once.  Return it as recorded, or None if it was already.

        Compare and set: of the server, its successor and the command line, which may
        all see a keeper go, one records the end.  The loser adds what only the
        keeper's parent knows.
        """

        def change(db: sqlite3.Connection) -> Optional[Run]:
            values = [getattr(run, column) for column in END_COLUMNS]
            cursor = db.execute(RUN_END, [run.status, *values, run.id])
            if not cursor.rowcount:
                self._add_usage(db, run)
                return None
            return self._ended(db, run)

        def remember() -> Optional[Run]:
            known = self.run(run.id)  # the history may be readable all the same
            if known and not known.running:
                return None
            ended = replace(run, status=run.end_reason or run.status)
            self._unwritten.put(ended)
            self._remember_event("run.finished", {"run": ended.view()})
            return ended

        try:
            return self._write(change, remember)
        finally:
            self._under_way.pop(run.id, None)

    def _ended(self, db: sqlite3.Connection, run: Run) -> Run:
        query = f"select {RUN_ROW} from cron_executions where id = ?"
        ended = run_of(db.execute(query, [run.id]).fetchone())
        self._put_event(db, "run.finished", {"run": ended.view()})
        return ended

    def _add_usage(self, db: sqlite3.Connection, run: Run) -> None:
        db.execute(
            "update cron_executions set cpu_seconds = ?, max_rss_bytes = ? "
            "where id = ? and cpu_seconds is null",
            [run.cpu_seconds, run.max_rss_bytes, run.id],
        )

    def release(self, run: Run, began: bool) -> None:
        """Give back what a run took that was recorded but whose script never began.

        Its idempotency key, so that a retry starts it; and, unless it `began` to be
        launched in vain, its scheduled trigger, which is pending again.
        """

        def change(db: sqlite3.Connection) -> None:
            db.execute("delete from idempotency_keys where run_id = ?", [run.id])
            if not began:
                db.execute(
                    "update scheduled_triggers set status = 'pending', run_id = null "
                    "where run_id = ?",
                    [run.id],
                )

        def remember() -> None:
            for key in list(self._unwritten.keys.values()):
                if key.run_id == run.id:
                    self._unwritten.put(replace(key, digest=""))

        self._write(change, remember)

    def run(self, run_id: int) -> Optional[Run]:
        """Return a run, or None where there is none of this id."""
        with self._lock:
            if run_id in self._unwritten.runs:
                return self._unwritten.runs[run_id]
            if not 0 < run_id < INTEGER_LIMIT:
                return None
            query = f"select {RUN_ROW} from cron_executions where id = ?"
            rows = self._read(query, [run_id])
            return run_of(rows[0]) if rows else None

    def runs(
        self,
        cron_name: Optional[str] = None,
        status: Optional[str] = None,
        before: Optional[int] = None,
        limit: int = RUNS_PAGE,
    ) -> List[Run]:
        """Return runs, newest first, those not written yet included."""
        wanted = {"cron_name": cron_name, "status": status}
        given = {column: value for column, value in wanted.items() if value}
        with self._lock:
            rows = self._read(*page_of(RUN_ROW, given, before, limit))
            return self._merged([run_of(row) for row in rows], given, before, limit)

    def run_texts(
        self,
        cron_name: Optional[str] = None,
        status: Optional[str] = None,
        before: Optional[int] = None,
        limit: int = RUNS_PAGE,
    ) -> List[Tuple[int, str]]:
        """Return the same runs' ids and views, as JSON.

        Written by SQLite where it can: that takes a third of the time.
        """
        wanted = {"cron_name": cron_name, "status": status}
        given = {column: value for column, value in wanted.items() if value}
        with self._lock:
            if self._writes_json and not self._unwritten.runs:
                columns = f"id, json_object({RUN_JSON})"
                return self._read(*page_of(columns, given, before, limit))
        runs = self.runs(cron_name, status, before, limit)
        return [(run.id, json_text(run.view())) for run in runs]

    def _merged(
        self,
        written: List[Run],
        given: Mapping[str, str],
        before: Optional[int],
        limit: int,
    ) -> List[Run]:
        if not self._unwritten.runs:
            return written
        left = self._unwritten.runs
        found = {run.id: run for run in written if run.id not in left}
        for run in left.values():
            held = all(getattr(run, name) == value for name, value in given.items())
            if held and (before is None or run.id < before):
                found[run.id] = run
        return sorted(found.values(), key=lambda run: -run.id)[:limit]

    def running(self, cron_name: Optional[str] = None) -> List[Run]:
        """Return the runs that are recorded as running, the newest first."""
        # The literal lets SQLite use the partial index.
        test = "and cron_name = ? " if cron_name else ""
        wanted = {"status": RUNNING, **({"cron_name": cron_name} if cron_name else {})}
        with self._lock:
            rows = self._read(
                f"select {RUN_ROW} from cron_executions indexed by "
                f"cron_executions_running where status = 'running' {test}"
                "order by id desc",
                [cron_name] if cron_name else [],
            )
            return self._merged([run_of(r) for r in rows], wanted, None, sys.maxsize)

    def figures(self, cron_name: str) -> Figures:
        """Return a cron's figures: totals of all time, and its last ended runs."""
        with self._lock:
            rows = self._read(
                f"select {RUN_ROW} from cron_executions where cron_name = ? "
                "and status <> 'running' order by id desc limit ?",
                [cron_name, RECENT_RUNS],
            )
            runs = self._merged(
                [run_of(row) for row in rows],
                {"cron_name": cron_name},
                None,
                RECENT_RUNS + 1,
            )
            recent = [run for run in runs if not run.running][:RECENT_RUNS]
            totals = {s: r for c, s, r, _, _ in self.totals(cron_name)}
        return Figures(
            sum(totals.values()), totals.get(COMPLETED, 0), tuple(reversed(recent))
        )

    def totals(
        self, cron_name: Optional[str] = None
    ) -> List[Tuple[str, str, int, int, Optional[str]]]:
        """Return (cron, status, runs, summed ms, last end) rows, pruned runs included.

        Counters for Prometheus: they never fall, neither by a restart nor by pruning.
        """
        where = "where cron_name = ?" if cron_name else ""
        with self._lock:
            rows = self._read(
                "select cron_name, status, runs, duration_ms, last_completed_at "
                f"from run_totals {where}",
                [cron_name] if cron_name else [],
            )
            sums = {(row[0], row[1]): list(row[2:]) for row in rows}
            for run in self._unwritten.runs.values():
                if run.running or cron_name not in (None, run.cron_name):
                    continue
                if self._has_ended(run.id):  # and is among the rows
                    continue
                entry = sums.setdefault((run.cron_name, run.status), [0, 0, None])
                entry[0] += 1
                entry[1] += run.duration_ms or 0
                entry[2] = run.completed_at
        return [(*names, *values) for names, values in sums.items()]

    def _has_ended(self, run_id: int) -> bool:
        """Tell whether another process has recorded a run's end by now."""
        query = "select status <> 'running' from cron_executions where id = ?"
        return self._read(query, [run_id]) == [(1,)]

    # ---- idempotency keys

    def _put_key(self, db: sqlite3.Connection, key: Key) -> None:
        db.execute(
            "insert or replace into idempotency_keys "
            "(cron_name, key, digest, created_s, run_id, scheduled_id) "
            "values (?, ?, ?, ?, ?, ?)",
            [
                key.cron_name,
                key.key,
                key.digest,
                key.created_s,
                key.run_id,
                key.scheduled_id,
            ],
        )

    def key(self, cron_name: str, key: str, now_s: float) -> Optional[Key]:
        """Return what a key stands for, if it was used within the last day."""
        with self._lock:
            found = self._unwritten.keys.get((cron_name, key))
            if found is None:
                rows = self._read(
                    "select cron_name, key, digest, created_s, run_id, scheduled_id "
                    "from idempotency_keys where cron_name = ? and key = ?",
                    [cron_name, key],
                )
                found = Key(*rows[0]) if rows else None
        return found if found and found.created_s > now_s - IDEMPOTENCY_S else None

    # ---- scheduled triggers

    def schedule(self, scheduled: Scheduled, key: Optional[Key] = None) -> Scheduled:
        """Record a scheduled trigger; return it with its id.

        Raises Refusal `history_unavailable`: what is planned must survive a restart,
        so memory will not do here.
        """

        def change(db: sqlite3.Connection) -> Scheduled:
            row = (None, *row_of(scheduled)[1:])
            cursor = db.execute(
                f"insert into scheduled_triggers ({SCHEDULED_ROW}) "
                f"values ({SCHEDULED_VALUES})",
                row,
            )
            created = replace(scheduled, id=int(cursor.lastrowid or 0))
            if key:
                self._put_key(db, replace(key, scheduled_id=created.id))
            self._put_event(db, "schedule.created", {"scheduled": created.view()})
            return created

        return self._write(change, self._unavailable)

    def _unavailable(self) -> NoReturn:
        raise Refusal(
            "history_unavailable",
            "Planned triggers can't be changed while the history can't be written; "
            "free some disk space, then try again.",
            {"Retry-After": "10"},
        )

    def _replace_scheduled(self, db: sqlite3.Connection, changed: Scheduled) -> None:
        db.execute(
            f"insert or replace into scheduled_triggers ({SCHEDULED_ROW}) "
            f"values ({SCHEDULED_VALUES})",
            row_of(changed),
        )

    def end_scheduled(self, scheduled: Scheduled, must: bool = False) -> bool:
        """Record the end of a pending trigger.  Return False if it has ended already.

        With `must`, a history that can't be written is refused instead of kept in
        memory: a person who cancels wants to be sure.
        """

        def change(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "update scheduled_triggers set status = ?, reason = ? "
                "where id = ? and status = 'pending'",
                [scheduled.status, scheduled.reason, scheduled.id],
            )
            if cursor.rowcount:
                self._put_event(db, *told)
            return bool(cursor.rowcount)

        def remember() -> bool:
            self._unwritten.put(scheduled)
            self._remember_event(*told)
            return True

        told = f"schedule.{scheduled.status}", {"scheduled": scheduled.view()}

        otherwise: Callable[[], bool] = self._unavailable if must else remember
        return self._write(change, otherwise)

    def scheduled(self, scheduled_id: int) -> Optional[Scheduled]:
        """Return a scheduled trigger, or None where there is none of this id."""
        with self._lock:
            if scheduled_id in self._unwritten.scheduled:
                return self._unwritten.scheduled[scheduled_id]
            if not 0 < scheduled_id < INTEGER_LIMIT:
                return None
            rows = self._read(
                f"select {SCHEDULED_ROW} from scheduled_triggers where id = ?",
                [scheduled_id],
            )
        return scheduled_of(rows[0]) if rows else None

    def pending(self) -> List[Scheduled]:
        """Return the pending scheduled triggers, the next one first."""
        with self._lock:
            written = self._scheduled_where("= 'pending'")
            left = self._unwritten.scheduled
        entries = (entry for entry in written if entry.id not in left)
        return sorted(entries, key=lambda entry: (entry.due_s, entry.id))

    def ended_scheduled(self) -> List[Scheduled]:
        """Return the last ended scheduled triggers, the newest first."""
        limit = SCHEDULED_ENDED_SHOWN
        with self._lock:
            rows = self._scheduled_where(f"<> 'pending' order by id desc limit {limit}")
            found = {entry.id: entry for entry in rows}
            found.update(self._unwritten.scheduled)
        return sorted(found.values(), key=lambda entry: -entry.id)[:limit]

    def _scheduled_where(self, test: str) -> List[Scheduled]:
        query = f"select {SCHEDULED_ROW} from scheduled_triggers where status {test}"
        return [scheduled_of(row) for row in self._read(query)]

    # ---- events

    def _put_event(
        self, db: sqlite3.Connection, name: str, data: Mapping[str, Json]
    ) -> None:
        text = json_text(data)
        cursor = db.execute("insert into events values (null, ?, ?)", [name, text])
        self._last_ids["events"] = int(cursor.lastrowid or 0)

    def _remember_event(self, name: str, data: Mapping[str, Json]) -> None:
        text = json_text(data)
        self._last_ids["events"] += 1
        self._unwritten.put(Event(self._last_ids["events"], name, text))

    def tell(self, name: str, data: Mapping[str, Json]) -> None:
        """Record an event that belongs to no row."""
        self._write(
            lambda db: self._put_event(db, name, data),
            lambda: self._remember_event(name, data),
        )

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 where there is none."""
        with self._lock:
            rows = self._read("select max(id) from events")
            written = (rows and rows[0][0]) or 0
            left = self._unwritten.events
            return int(max(written, left[-1].id if left else 0))

    def events_after(self, event_id: int, limit: int = 500) -> List[Event]:
        """Return the events after one, oldest first."""
        with self._lock:
            rows = self._read(
                "select id, event, data from events where id > ? order by id limit ?",
                [min(event_id, INTEGER_LIMIT - 1), limit],
            )
            events = [Event(*row) for row in rows]
            if len(events) < limit:
                known = {event.id for event in events}
                events += [
                    e
                    for e in self._unwritten.events
                    if e.id > event_id and e.id not in known
                ]
        return events[:limit]

    # ---- pruning

    def prune(
        self, before: str, batch: int = 200, pause: Callable[[], Any] = lambda: None
    ) -> int:
        """Delete what ended before a time, batch by batch; return how many runs.

        Small batches with a pause between them, so that a trigger never waits long
        for the lock; the freed pages are given back to the file system likewise.
        """
        cursor, deleted = 0, 0

        def change(db: sqlite3.Connection) -> Tuple[int, int]:
            rows = db.execute(
                "select id, started_at, status from cron_executions where id > ? "
                "order by id limit ?",
                [cursor, batch],
            ).fetchall()
            doomed = [(i,) for i, at, st in rows if at < before and st != RUNNING]
            db.executemany("delete from cron_executions where id = ?", doomed)
            # Ids grow with time: the first page that ends with a young run is the last.
            young = not rows or rows[-1][1] >= before
            return (0 if young else rows[-1][0]), len(doomed)

        while True:
            cursor, count = self._write(change, lambda: (0, 0))
            deleted += count
            if not cursor:
                break
            pause()
        self._write(lambda db: self._prune_others(db, before), lambda: None)
        while self._write(lambda db: self._prune_events(db, before, batch), bool):
            pause()
        self._give_back(pause)
        return deleted

    def _prune_others(self, db: sqlite3.Connection, before: str) -> None:
        day_ago_s = time.time() - IDEMPOTENCY_S
        db.execute("delete from idempotency_keys where created_s < ?", [day_ago_s])
        db.execute(
            "delete from scheduled_triggers "
            "where status <> 'pending' and created_at < ? and run_at < ?",
            [before, before],
        )
        db.execute(
            "delete from events where id <= (select max(id) from events) - ?",
            [EVENTS_KEPT],
        )

    def _prune_events(self, db: sqlite3.Connection, before: str, batch: int) -> bool:
        """Delete the oldest events up to a young one; return True if there are more.

        An event has the time of its run or scheduled trigger; one without a time, that
        of the next one.
        """
        query = "select id, data from events order by id limit ?"
        old = 0
        for number, data in db.execute(query, [batch]).fetchall():
            if before <= _time_of_event(json.loads(data)):
                break
            old = number
        count = db.execute("delete from events where id <= ?", [old]).rowcount
        return bool(count == batch)

    def _give_back(self, pause: Callable[[], Any], pages: int = 100) -> None:
        while self.problem is None:
            free = self._read("pragma freelist_count")
            if not free or not free[0][0]:
                break
            self._read(f"pragma incremental_vacuum({pages})")
            left = self._read("pragma freelist_count")
            if not left or left[0][0] >= free[0][0]:
                break
            pause()
        with self._lock:
            self._read("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        """Write what is left and close the file."""
        with self._lock:
            if self._unwritten:
                self.retry()
            self._unwritten.close()
            self._disconnect()


def _time_of_event(data: Mapping[str, Json]) -> str:
    """Return when an event happened, at the earliest; "" where it does not say."""
    about = data.get("run") or data.get("scheduled") or {}
    times = (about.get(name) for name in ("completedAt", "startedAt", "createdAt"))
    return str(next(filter(None, times), ""))


def _is_told(event: Event, known: Mapping[int, Tuple[Any, ...]]) -> bool:
    """Tell whether another process has told the same of a run.

    The server and a command line may both see its keeper go, one of them while it
    could not write.  `known` is what the history had before.
    """
    about = json.loads(event.data).get("run") or {}
    status, pid = known.get(about.get("id", 0), (RUNNING, None))
    if event.name == "run.started":
        return pid is not None
    return event.name == "run.finished" and status != RUNNING


def _has_json(db: sqlite3.Connection) -> bool:
    try:
        db.execute(f"select json_object({RUN_JSON}) from cron_executions where 0")
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
        return False
    return True


def _is_corrupt(error: Exception) -> bool:
    """Return True for what SQLite says of a file that is broken or none of its own.

    SQLITE_CORRUPT and SQLITE_NOTADB; Python names the codes only from 3.11 on.
    """
    words = ("malformed", "not a database")
    return isinstance(error, sqlite3.DatabaseError) and any(
        word in str(error) for word in words
    )
