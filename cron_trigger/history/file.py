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
from typing import Callable, Optional, Tuple

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
from cron_trigger.history.second import COLUMNS, PUT, Rows
from cron_trigger.registry.errors import ConfigError

#: A history that is lost in use is read once more through what is still open: so many
#: of the newest rows of each table, some 10 MB at most.
KNOWN_ROWS = 5000
ORDER = {"idempotency_keys": "created_s", "schedules": "judged_s"}


class HistoryFile:
    """One SQLite file.  Raises what SQLite raises."""

    #: So long it waits for another program's lock, once per fault.
    BUSY_S = 0.5

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        on_open: Callable[[sqlite3.Connection], None],
    ) -> None:
        """Call `on_open` with each file that is opened, before anything else is."""
        self.path = path
        # All below is the caller's, under `Database._lock`: one connection, used by
        # whichever thread holds that.
        self._db: Optional[sqlite3.Connection] = None
        self._on_open = on_open
        self._wal = f"{path}-wal"
        self._say = say
        # What was opened: another file of that name, or another -wal, is not ours.
        self._identity: Tuple[int, int, int] = (0, 0, 0)  # device, inode, -wal's inode
        # The size when it was last looked at; less than that may be cut short.
        self._size = 0
        #: False where SQLite was built without its JSON functions (before 3.38).
        self.writes_json = False

    def connected(self) -> sqlite3.Connection:
        """Return the history as it stands under its name."""
        if self._db is not None and not self._whole(self._db):
            # None first: where the new one can't be opened, the next use tries that
            # again, and never goes on with the lost one.
            lost, self._db = self._db, None
            self._take(self._reopened(lost))
        elif self._db is None:
            self._take(self._begun())
        assert self._db is not None
        return self._db

    def _take(self, db: sqlite3.Connection) -> None:
        self._db = db
        # Before anybody else asks it: the runs under way get their rows.
        self._on_open(db)

    def close(self) -> None:
        """Close it; the next use opens it again."""
        if self._db is not None:
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
        """Begin a new history with what can still be read of a broken one.

        Return False where the error is not of that kind.  One whose columns somebody
        has changed is found so when it is opened.
        """
        if not is_broken(error) or self._db is None:
            return False
        # As above: a fault from here on leaves none open.
        broken, self._db = self._db, None
        rows = _known_rows(broken)
        # Before the file is moved: closing takes the -wal of that name away.
        broken.close()
        if is_corrupt(error):
            self._move_aside(error)
        db = self._begun()
        _write_known(db, rows)
        self._take(db)
        return True

    def is_locked(self) -> bool:
        """Look whether another program has it locked; any thread, without a lock."""
        try:
            place = f"file:{urllib.parse.quote(str(self.path))}?mode=rw"
            with contextlib.closing(sqlite3.connect(place, 0.2, uri=True)) as db:
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
            # under the name, and go on with that (`_whole`).
            self._move_aside(error)
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identity = (0, 0, 0)
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)  # should it turn out to be broken
            self._identity = (status.st_dev, status.st_ino, 0)
        # Threads share it under a lock; transactions are begun and ended here alone.
        db = sqlite3.connect(
            self.path, self.BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            version = version_of(db, self.path)
            with contextlib.suppress(OSError):
                # Parameters and names of people: nobody else's to read.
                os.chmod(self.path, 0o600)
            self._set_up(db, version)
            self.writes_json = _has_json(db)
            # After the first statement that needs the -wal, which is in the identity.
            self._identity, self._size = self._look()
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, db: sqlite3.Connection, version: int) -> None:
        if version != VERSION:
            db.execute("pragma auto_vacuum = incremental")
        # Readers of other processes go on while one writes.
        db.execute("pragma journal_mode = wal")
        # A killed process loses nothing by it; a power cut may lose the last moments.
        db.execute("pragma synchronous = normal")
        db.execute("pragma cache_size = -256")  # KiB; the kernel caches it all
        if version != VERSION:
            # Another process may make them at this moment: one transaction, "if not
            # exists".
            make_tables(db)
        for query in ALL_ROWS:
            db.execute(query)

    def _look(self) -> Tuple[Tuple[int, int, int], int]:
        # By name, not by descriptor: what stands there now is the question.
        status = os.stat(self.path)
        wal = os.stat(self._wal).st_ino
        return (status.st_dev, status.st_ino, wal), status.st_size

    def _whole(self, db: sqlite3.Connection) -> bool:
        """Return False where the open file is not the one of that name any more.

        SQLite goes on with a file that was removed or replaced, whose -wal was removed,
        or that was cut short, and nobody would ever read what it writes.
        """
        try:
            identity, size = self._look()
        # Other errors are raised: the history has a fault then, and is not lost.
        except FileNotFoundError:
            return False
        if identity != self._identity:
            return False
        if size < self._size:  # by pruning, or cut short by somebody
            (pages,) = db.execute("pragma page_count").fetchone()
            (page,) = db.execute("pragma page_size").fetchone()
            if size < pages * page:
                return False
        # It grows by what other processes write as well.
        self._size = size
        return True

    def _reopened(self, lost: sqlite3.Connection) -> sqlite3.Connection:
        """Open what stands there now instead; write there what is known of before."""
        self._say(
            "error",
            f"the history {self.path} was removed, replaced or cut short in use",
        )
        rows = _known_rows(lost)
        # Closed before the other is opened: of one file SQLite has one index in memory.
        with contextlib.suppress(sqlite3.Error):
            lost.close()
        db = self._begun()
        try:
            # Whoever put it there may have copied it while it was written.
            (found,) = db.execute("pragma quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(f"malformed: {found}")
        except sqlite3.DatabaseError as error:
            db.close()
            self._move_aside(error)
            db = self._begun()
        _write_known(db, rows)
        return db

    def _move_aside(self, error: BaseException) -> None:
        """Give a broken history another, dated name, unless that has been done."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) != self._identity[:2]:
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


def _known_rows(db: sqlite3.Connection) -> Rows:
    """Return what can still be read, the newest rows of each table first."""
    rows: Rows = {}
    for table in TABLES:
        order = ORDER.get(table, "id")
        query = f"select {COLUMNS[table]} from {table} order by {order} desc limit ?"
        rows[table] = []
        with contextlib.suppress(sqlite3.Error):
            # One by one: those before the first that is broken are known.
            rows[table].extend(db.execute(query, [KNOWN_ROWS]))
    return rows


def _write_known(db: sqlite3.Connection, rows: Rows) -> None:
    """Write rows that may be there already; what is there and newer stays."""
    # All of it or nothing: a kill leaves the file as it was found.
    db.execute("begin immediate")
    try:
        db.executemany(RUN_UPSERT, reversed(rows["cron_executions"]))
        for table in ("scheduled_triggers", "idempotency_keys", "schedules"):
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
        ("unable to open", "fix the permissions of its folder"),
        ("newer version", "install that version"),
    ):
        if words in text:
            return remedy
    return "check its disk and its folder"
