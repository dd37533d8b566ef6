"""The history's file: how it is opened, and what may have become of it in use.

Opened, it has this version's tables; a newer version's is refused untouched, a broken
one is moved aside under a dated name.  Before each use it looks whether the file of
that name is still the one that is open.  Only `database` calls it, under its lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import urllib.parse
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from cron_trigger.history.schema import (
    ALL_ROWS,
    EVENT_PUT,
    RUN_JSON,
    RUN_UPSERT,
    TABLES,
    VERSION,
    make_tables,
    roll_back,
)
from cron_trigger.history.second import COLUMNS, PUT, REPLACED, Rows
from cron_trigger.host.shortage import is_short
from cron_trigger.registry.errors import ConfigError

#: A history that is lost in use is read once more through what is still open: so many
#: of the newest rows of each table, some 10 MB at most.
KNOWN_ROWS = 5000
WRITTEN_OVER, CUT_SHORT = "written over", "cut short"
ORDER = {"idempotency_keys": "created_s", "schedules": "judged_s"}


class Look(NamedTuple):
    """What stands under the name of a history."""

    #: Device, inode, the -wal's inode: another one's file is not ours.
    identity: tuple[int, int, int] = (0, 0, 0)
    size: int = 0
    written_ns: int = 0
    wal_size: int = 0


class HistoryFile:
    """One SQLite file.  Raises what SQLite raises."""

    #: So long it waits for another program's lock, once per fault.
    BUSY_S = 0.5
    #: From so much on, the server has SQLite take the -wal into the file.
    WAL_BYTES, WAL_KEPT = 4 << 20, 1 << 20

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        on_open: Callable[[sqlite3.Connection], None],
        is_server: bool,
    ) -> None:
        """Call `on_open` with each file that is opened, before anything else is."""
        self._is_server = is_server
        self.path = path
        # All below is the caller's, under `Database._lock`: one connection, used by
        # whichever thread holds that.
        self._db: Optional[sqlite3.Connection] = None
        self._on_open = on_open
        self._wal = f"{path}-wal"
        self._say = say
        # What stood there when it was last looked at.
        self._seen = Look()
        #: False where SQLite was built without its JSON functions (before 3.38).
        self.writes_json = False

    def connected(self) -> sqlite3.Connection:
        """Return the history as it stands under its name."""
        if is_short(self.path.parent):
            raise sqlite3.OperationalError("database or disk is full")
        if self._db is None:
            self._take(self._begun())
        elif why := self._lost(self._db):
            # None first: where the new one can't be opened, the next use tries that
            # again, and never goes on with the lost one.
            lost, self._db = self._db, None
            self._take(self._reopened(lost, why))
        elif self._is_server and self._seen.wal_size > self.WAL_BYTES:
            self.take_pages(self._db, "passive")
        assert self._db is not None
        return self._db

    def take_pages(self, db: sqlite3.Connection, how: str) -> None:
        """Take the -wal into the file, which nothing else of ours writes to."""
        # On a full disk it stays in the -wal, which does as well.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute(f"pragma wal_checkpoint({how})").fetchone()
        self._seen = self._look()

    def shrink(self, pages: int) -> bool:
        """Cut some free pages off the file; return True where more can be."""
        db = self.connected()
        (before,) = db.execute("pragma freelist_count").fetchone()
        # All of its rows, or it stops after the first page.
        db.execute(f"pragma incremental_vacuum({pages})").fetchall()
        (after,) = db.execute("pragma freelist_count").fetchone()
        if 0 < after < before:
            return True
        # A reader that is at work keeps the -wal long; tomorrow is another day.
        self.take_pages(db, "truncate")
        return False

    def _take(self, db: sqlite3.Connection) -> None:
        self._db = db
        # Before anybody else asks it: the runs under way get their rows.
        self._on_open(db)

    def close(self) -> None:
        """Close it; the next use opens it again."""
        if self._db is not None:
            if is_short(self.path.parent):
                # Closed by its last user, the -wal is taken into the file.
                _leave_open(self._db)
            else:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            self._db = None

    def close_after(self, error: BaseException) -> None:
        """Close it after a fault, unless it can be read on, as on a full disk.

        Opened again it could not be: SQLite would make files beside it.
        """
        passing = any(word in str(error) for word in ("is full", "is locked"))
        if not passing or self._db is None or self._db.in_transaction:
            self.close()

    def mended(self, error: sqlite3.Error) -> bool:
        """Open a broken history again, or begin one with what can be read of it.

        Return False where the error is not of that kind.
        """
        if not is_broken(error) or self._db is None:
            return False
        # As above: a fault from here on leaves none open.
        broken, self._db = self._db, None
        self._take(self._reopened(broken, f"found broken ({error})"))
        return True

    def is_locked(self) -> bool:
        """Look whether another program has it locked; any thread, without a lock."""
        if is_short(self.path.parent):
            return False
        try:
            url = f"file:{urllib.parse.quote(os.fsencode(self.path))}?mode=rw"
            with contextlib.closing(sqlite3.connect(url, timeout=0.2, uri=True)) as db:
                # A lock that is free now may be taken in the next moment: the one who
                # asks then waits for BUSY_S, once.
                db.execute("begin immediate")
                db.execute("rollback")
        except sqlite3.Error as error:
            return "is locked" in str(error)
        return False

    def _begun(self) -> sqlite3.Connection:
        """Open it; one that is broken is moved aside, and a new one begun."""
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            # Whoever sees it first moves it; other processes then find another file
            # under the name, and go on with that (`_lost`).
            self._move_aside(error)
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._seen = Look()
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)  # should it turn out to be broken
            self._seen = Look((status.st_dev, status.st_ino, 0))
        # Threads share it under a lock; transactions are begun and ended here alone.
        db = sqlite3.connect(
            self.path,
            timeout=self.BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            version = version_of(db, self.path)
            with contextlib.suppress(OSError):
                # Parameters and names of people: nobody else's to read.
                os.chmod(self.path, 0o600)
            self._set_up(db, version)
            self.writes_json = _has_json(db)
            # After the first statement that needs the -wal, which is looked at, too.
            self._seen = self._look()
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, db: sqlite3.Connection, version: int) -> None:
        if version != VERSION:
            db.execute("pragma auto_vacuum = incremental")
        # Readers of other processes go on while one writes.
        db.execute("pragma journal_mode = wal")
        # Only the server takes the -wal into the file, and knows when it did: `_lost`.
        db.execute("pragma wal_autocheckpoint = 0")
        db.execute(f"pragma journal_size_limit = {self.WAL_KEPT}")
        # A killed process loses nothing by it; a power cut may lose the last moments.
        db.execute("pragma synchronous = normal")
        db.execute("pragma cache_size = -256")  # KiB; the kernel caches it all
        if version != VERSION:
            # Another process may make them at this moment: one transaction, "if not
            # exists".
            make_tables(db)
        for query in ALL_ROWS:
            db.execute(query)

    def _look(self) -> Look:
        # By name, not by descriptor: what stands there now is the question.
        file, wal = os.stat(self.path), os.stat(self._wal)
        identity = (file.st_dev, file.st_ino, wal.st_ino)
        return Look(identity, file.st_size, file.st_mtime_ns, wal.st_size)

    def _lost(self, db: sqlite3.Connection) -> str:
        """Return what has become of the open file; "" where it is what it was.

        SQLite goes on with a file that was removed, replaced or written over, whose
        -wal was removed, or that was cut short, and nobody would ever read what it
        writes.
        """
        try:
            seen, self._seen = self._seen, self._look()
        # Other errors are raised: the history has a fault then, and is not lost.
        except FileNotFoundError:
            return "removed"
        if self._seen.identity != seen.identity:
            return "removed or replaced"
        if self._seen.size < seen.size:  # by pruning, or cut short by somebody
            (pages,) = db.execute("pragma page_count").fetchone()
            (page,) = db.execute("pragma page_size").fetchone()
            # Also where another process has pruned, and its -wal has new pages since.
            if self._seen.size < pages * page:
                return CUT_SHORT if self._seen.size else "emptied"
        # SQLite itself cuts the -wal to no less than this, but for the server's wish.
        cut = self._seen.wal_size < min(seen.wal_size, self.WAL_KEPT)
        if self._is_server and (cut or self._seen.written_ns != seen.written_ns):
            return WRITTEN_OVER
        return ""

    def _reopened(self, lost: sqlite3.Connection, why: str) -> sqlite3.Connection:
        """Open what stands there now instead; write there what is known of before."""
        rows = _known_rows(lost)
        # Closed before the other is opened: of one file SQLite has one index in memory.
        # And before a file is moved: closing takes the -wal of that name away.
        with contextlib.suppress(sqlite3.Error):
            lost.close()
        db = self._begun()
        is_well = _is_well(db)
        if why in (WRITTEN_OVER, CUT_SHORT) and is_well and _has(db, rows):
            return db  # another process has only taken the -wal into it
        self._say("error", f"the history {self.path} was {why} in use")
        if not is_well:
            db.close()
            self._move_aside(sqlite3.DatabaseError("its pages contradict each other"))
            db = self._begun()
        _write_known(db, rows)
        return db

    def _move_aside(self, error: BaseException) -> None:
        """Give a broken history another, dated name, unless that has been done."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) != self._seen.identity[:2]:
                return  # another process has, and has begun a new one
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        while aside.exists():  # the second of this second
            aside = aside.with_name(f"{aside.name}-")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                # The file first: a -wal that a kill leaves behind SQLite deletes, since
                # the file begun beside it is empty.
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._say(
            "error",
            f"the history {self.path} is corrupt ({error}): it was moved to {aside} "
            "and a new one begun",
        )


def _leave_open(db: sqlite3.Connection) -> None:
    """Have nobody close it, not even the end of the program."""
    import ctypes  # only here: see keeper

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def _is_well(db: sqlite3.Connection) -> bool:
    """Look through all of a file that somebody may have copied while it was written."""
    try:
        return bool(db.execute("pragma integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        return False


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of a history's tables; else ConfigError for a newer one."""
    version = int(db.execute("pragma user_version").fetchone()[0])
    if version > VERSION:
        raise ConfigError(
            f"The history {path} was written by a newer version of this program "
            f"(version {version} of its tables, at most {VERSION} is understood); "
            "install that version, or name another folder with --state-dir."
        )
    return version


def _has(db: sqlite3.Connection, known: Rows) -> bool:
    """Return True where all rows are in there still; others may have come since."""
    found = _known_rows(db, 2 * KNOWN_ROWS)
    return all(set(known[table]) <= set(found[table]) for table in TABLES)


def _known_rows(db: sqlite3.Connection, limit: int = KNOWN_ROWS) -> Rows:
    """Return what can still be read, the newest rows of each table first."""
    rows: Rows = {}
    for table in TABLES:
        order = ORDER.get(table, "id")
        query = f"select {COLUMNS[table]} from {table} order by {order} desc limit ?"
        rows[table] = []
        with contextlib.suppress(sqlite3.Error):
            # One by one: those before the first that is broken are known.
            rows[table].extend(db.execute(query, [limit]))
    return rows


def _write_known(db: sqlite3.Connection, rows: Rows) -> None:
    """Write rows that may be there already; what is there and newer stays."""
    # All of it or nothing: a kill leaves the file as it was found.
    db.execute("begin immediate")
    try:
        db.executemany(RUN_UPSERT, reversed(rows["cron_executions"]))
        for table in REPLACED:
            db.executemany(PUT[table].replace("or replace", "or ignore"), rows[table])
        db.executemany(EVENT_PUT, reversed(rows["events"]))
        db.execute("commit")
    except BaseException:
        roll_back(db)
        raise


def _has_json(db: sqlite3.Connection) -> bool:
    try:
        db.execute(f"select json_object({RUN_JSON}) from cron_executions where 0")
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
        return False
    return True


def is_corrupt(error: BaseException) -> bool:
    """Return True for what SQLite says of a file that is broken or none of its own.

    SQLITE_CORRUPT and SQLITE_NOTADB; Python names the codes only from 3.11 on.
    """
    words = ("malformed", "not a database")
    return isinstance(error, sqlite3.DatabaseError) and any(
        word in str(error) for word in words
    )


def is_broken(error: BaseException) -> bool:
    """Return True also where a table or a column is not there."""
    words = ("no such table", "no such column", "has no column")
    return is_corrupt(error) or (
        isinstance(error, sqlite3.Error) and any(word in str(error) for word in words)
    )


def remedy_of(error: Optional[BaseException]) -> str:
    """Return what a person can do about a fault."""
    text = str(error)
    for words, remedy in (
        ("is full", "free some disk space"),
        ("No space", "free some disk space"),
        ("is locked", "end the program that has it locked"),
        ("readonly", "make its folder writable again (a read-only mount, or its mode)"),
        ("Read-only", "make its folder writable again"),
        (
            "unable to open",
            "make its folder writable (its mode, or a read-only mount), or remove some "
            "files if its disk has no inode left (df -i)",
        ),
        ("newer version", "install that version"),
        # What SQLite says, too, where a file can't be shared memory: mmap(2), ENODEV.
        (
            "I/O error",
            "check its disk, and whether a quota is used up; one of a network or of "
            "FUSE may not do: name a local folder with --state-dir",
        ),
    ):
        if words in text:
            return remedy
    return "check its disk and its folder"
