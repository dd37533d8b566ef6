"""Numbers of runs, events and scheduled triggers, given once by whichever process.

Each kind has a small file beside the PID files whose size is the last number given: to
append a byte is one atomic step of the kernel, which no lock of anybody can delay and
no kill leave half done.  And the lock that orders writers of the two histories.  Only
`database` calls it, under its own lock, so threads of a process come one by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from cron_trigger.registry.parameters import INTEGER_LIMIT

#: `sqlite_sequence` has the last number, also of rows that were pruned.
TABLE_OF_KIND = {
    "run": "cron_executions",
    "event": "events",
    "scheduled": "scheduled_triggers",
}


class Ids:
    """Gives numbers; without a folder, for this process alone.

    Used with `with`, it holds the lock that orders writers.
    """

    #: How long a writer waits for another one that is between its number and its
    #: commit.  Longer than any commit takes, short beside a second.
    ORDER_WAIT_S = 0.25

    def __init__(self, folder: Optional[Path]) -> None:
        self._folder = folder
        # Kind to descriptor; all below under `Database._lock`.
        self._files: dict[str, int] = {}
        # The last number that this process gave or learnt of: no file, however short
        # somebody has made it, brings one below it back.
        self._last = dict.fromkeys(TABLE_OF_KIND, 0)
        self._ordered: Optional[int] = None  # what holds the lock
        # False once a wait was in vain, until the lock is had again.
        self._patient = True
        self._drawn_in_order = 0  # the last event's number since then

    def draw(self, kind: str) -> int:
        """Return a number above each that was given before."""
        try:
            number = self._appended(kind)
        except OSError:  # its disk is full at just this byte, or gone
            number = self._last[kind] + 1
        self._last[kind] = number
        if kind == "event":
            self._drawn_in_order = number
        return number

    def _appended(self, kind: str) -> int:
        file, status = self._file(kind)
        # Two processes may both find it short: each only raises it.
        if status.st_size < self._last[kind]:
            self._raise(file, self._last[kind])
        os.write(file, b".")
        # After a write with O_APPEND this is the end of what it wrote, not the file's
        # (the kernel sets both under the inode's lock): nobody else's number.
        return os.lseek(file, 0, os.SEEK_CUR)

    def _raise(self, file: int, size: int) -> None:
        """Have a file grow to a size; it never shrinks, whoever else does so.

        By a write at a place, and past O_APPEND, which would write at the end.
        """
        with open(f"/proc/self/fd/{file}", "r+b", buffering=0) as other:
            os.pwrite(other.fileno(), b".", min(size, INTEGER_LIMIT) - 1)

    def _file(self, kind: str) -> tuple[int, os.stat_result]:
        """Return the file of a kind, made again where somebody has removed it."""
        if self._folder is None:
            raise FileNotFoundError
        file = self._files.get(kind)
        if file is not None:
            status = os.fstat(file)
            # Removed by name, it would be counted on by this process alone, and a new
            # one by the others: the same numbers twice.
            if status.st_nlink:
                return file, status
            # This also lets go of a lock on it, which keeps nobody in order any more;
            # its number may be another file's in the next moment.
            if file == self._ordered:
                self._ordered = None
            os.close(self._files.pop(kind))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._folder / f"last-{kind}", flags, 0o600)
        self._files[kind] = file
        return file, os.fstat(file)

    def learn(self, kind: str, number: int) -> None:
        """Learn of a number that was given, so that it is not given again."""
        self._last[kind] = max(number, self._last[kind])

    def learn_from(self, db: sqlite3.Connection, kind: str) -> None:
        """Learn of the last number of a kind in a history."""
        query = "select seq from sqlite_sequence where name = ?"
        found = db.execute(query, [TABLE_OF_KIND[kind]]).fetchone()
        self.learn(kind, int(found[0]) if found else 0)

    def insert(
        self, db: sqlite3.Connection, kind: str, query: str, values: Sequence[Any]
    ) -> int:
        """Insert a row under a new number, within a change; return that.

        A number that is taken was given by a program of before these files; it is not
        given twice, since the query puts no row over another.
        """
        while True:
            # A number whose transaction is rolled back is not given again: gaps are
            # harmless, and nobody can have seen it.
            number = self.draw(kind)
            if db.execute(query, (number, *values)).rowcount:
                return number
            self.learn_from(db, kind)

    # ---- order

    def __enter__(self) -> None:
        """Keep other processes from drawing while one writes what it drew.

        Otherwise a reader could have seen event 6 before another process commits 5.
        A process that is stopped in there must not hold up the rest: after a short
        wait they go on, and it draws again (`overtaken`).
        """
        # Only what is drawn from here on, under the lock, can be overtaken.
        self._drawn_in_order = 0
        pause_s, waited_s = 0.0005, 0.0
        try:
            # flock on the counter itself: it is there for every process that draws.
            self._ordered = self._file("event")[0]
            while not _try_flock(self._ordered):
                # Who has waited in vain once does not wait each time.
                if not self._patient or waited_s > self.ORDER_WAIT_S:
                    self._patient, self._ordered = False, None
                    return
                # With `Database._lock` held, so for ORDER_WAIT_S at most and not each
                # time.
                time.sleep(pause_s)
                waited_s += pause_s
                pause_s = min(2 * pause_s, 0.01)
            self._patient = True
        except OSError:
            self._ordered = None

    def __exit__(self, *_: object) -> None:
        if self._ordered is not None:
            with contextlib.suppress(OSError):
                # A killed holder lets go without this: the kernel closes its
                # descriptor.
                fcntl.flock(self._ordered, fcntl.LOCK_UN)
            self._ordered = None

    def overtaken(self) -> bool:
        """Tell whether another process has drawn an event since this one did."""
        if not self._drawn_in_order:
            return False
        try:
            # The size is the last number of anybody.
            return self._file("event")[1].st_size > self._drawn_in_order
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            os.close(file)
        self._files = {}


def _try_flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
