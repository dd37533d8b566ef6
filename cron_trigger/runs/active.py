"""What runs now: the runs that this process watches.

Whoever started or found a run puts it here, whoever records its end takes it out.  Any
thread may ask.  `Running._lock` guards the two tables and is never held while anything
is waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Optional

from cron_trigger.host.lock import PidFile, read_lock, read_pid_file
from cron_trigger.host.loop import Timer
from cron_trigger.host.processes import (
    TICKS,
    Family,
    Process,
    boot_id,
    process,
    started_of,
)
from cron_trigger.registry.records import Run


class ActiveRun:
    """A run that this process watches.

    `done` is set once its end is recorded and its lock let go: who has waited for it
    may take that.

    `mutex` is held while a cancel, a time limit or the end decides what becomes of the
    run, so that the first of them wins.  It is never held while a disk, another
    process or a family is waited for, but for the history: one question, one write.
    """

    #: True from `close` on.
    closed = False

    def __init__(
        self,
        run: Run,
        pid_file: str,
        kill_after_s: float,
        timeout_s: Optional[float] = None,
        lock: Optional[int] = None,
        child: Optional[subprocess.Popen[bytes]] = None,
        began_s: Optional[float] = None,
    ) -> None:
        # Replaced as a whole, under `mutex`; to read it is one look at one value.
        self.run = run
        self.pid_file = pid_file
        self.kill_after_s = kill_after_s
        self.timeout_s = timeout_s
        #: Our copy of the keeper's lock: the cron stays locked until it is closed.
        self.lock = lock
        #: The keeper, where it is this process's child; kept until it is reaped, or
        #: subprocess would reap it by itself and with it the resource usage.
        self.child = child
        self.started = started = started_of(run.keeper_started)
        #: On the boot clock; None where it began before this boot, or nobody knows.
        self.began_s = started / TICKS if began_s is None and started else began_s
        self.family = Family(run.pid or 0, started)
        self._noted = (0, 0)
        #: Further locks, on files that took the place of a removed PID file.
        self.more_locks: list[int] = []
        self._begin()
        if run.end_reason is not None:
            self.recall_family()

    def _begin(self) -> None:
        self.mutex = threading.Lock()
        self.done = threading.Event()
        #: True once somebody records the end; it is not asked for twice.
        self.ending = False
        #: The script, while it stands still for a decision.
        self.held: Optional[Process] = None
        self.pidfd: Optional[int] = None
        self.timeout: Optional[Timer] = None
        #: Who has got SIGTERM (number and start), and when on the boot clock the first
        #: did.  One thread at a time: who decided the end, then the one that ends them.
        self.told: set[tuple[int, int]] = set()
        self.told_s: Optional[float] = None
        #: True where another process decided the end: it tells the family and notes it.
        self.learned = False

    def note(self, kind: str) -> Path:
        """Return a place beside the PID file, where a note of this run may stand."""
        # A dot, which no cron's name begins with.
        return Path(self.pid_file).with_name(f".{self.run.cron_name}.{kind}")

    def note_family(self) -> None:
        """Keep whom we saw, for a successor: one that has lost its parent and has a
        session of its own can't be found a second time.  And whom we told: a clean-up
        that is told twice may end in its midst.
        """
        known, told = list(self.family.known.items()), self.told.copy()
        size = len(known), len(told)
        if size != self._noted and not self.learned:
            rows = [(*one, self.told_s if one in told else None) for one in known]
            with contextlib.suppress(OSError):
                fresh = self.note("family.new")
                fresh.write_text(json.dumps([self.run.id, boot_id(), rows]))
                fresh.replace(self.note("family"))  # a kill leaves the old one, whole
                self._noted = size

    def recall_family(self) -> None:
        """Learn whom another process saw, and told, that had decided this run's end."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            run_id, boot, rows = json.loads(self.note("family").read_text())
            if (run_id, boot) != (self.run.id, boot_id()):
                return
            for pid, started, *told_s in rows:
                self.family.known[int(pid)] = int(started)
                if any(told_s):  # none in an older program's note
                    self.told.add((int(pid), int(started)))
                    self.told_s = float(told_s[0])

    def alive(self) -> bool:
        """Return True while the keeper lives.  Raises OSError where none can look."""
        # Its descriptors are closed, and its number may be another's.
        if self.done.is_set():
            return False
        now = process(self.run.pid or 0)
        # The number and its start: a number alone comes round again.
        return now is not None and now.alive and now.started == self.started

    def is_over(self, patience_s: float) -> bool:
        """Wait for the record of an end; False where the run goes on."""
        # One that is being ended may take as long as its entry says.
        gone = self.run.end_reason is None and not self.alive()
        return (self.ending or gone) and self.done.wait(max(0.0, patience_s))

    def written(self) -> PidFile:
        """Return what the keeper wrote, in the file that it has open, whatever its
        name is by now; nothing where another keeper wrote it.  Raises OSError where no
        descriptor is free to look.
        """
        # First our own descriptor: the name may have another file by now.
        found = read_lock(self.lock) if self.lock is not None else PidFile()
        if found.pid is None:
            found = read_pid_file(self.pid_file)
        # The lock may be a later run's by now, or our descriptor's number another
        # file's.
        return found if found.pid == self.run.pid else PidFile()

    def holds(self, file: os.stat_result) -> bool:
        """Tell whether one of our locks is one on this very file."""
        for lock in (self.lock, *self.more_locks):
            with contextlib.suppress(OSError, TypeError):
                # May have been closed a moment ago by who recorded the end.
                held = os.fstat(lock)  # type: ignore[arg-type]
                if (held.st_dev, held.st_ino) == (file.st_dev, file.st_ino):
                    return True
        return False

    def take_over(self, lock: Optional[int]) -> None:
        """Hold the keeper's lock as well, until the end is recorded."""
        self.lock = lock
        if self.closed:  # it has ended meanwhile
            self.close()

    def add_lock(self, lock: int) -> None:
        """Hold one more lock until the end is recorded; from any thread."""
        self.more_locks.append(lock)
        # It may have been, a moment ago: nobody else would ever let go of this one.
        if self.closed:
            self.close()

    def close(self) -> None:
        """Let go of the keeper and of the lock; may be called again."""
        self.closed = True
        # The keeper's copy is closed by its end: with these the lock is free for all.
        pidfd, lock, self.pidfd, self.lock = self.pidfd, self.lock, None, None
        for descriptor in (pidfd, lock):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        while self.more_locks:
            with contextlib.suppress(OSError):
                os.close(self.more_locks.pop())


class Running:
    """The table of active runs, by id and by cron."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._by_id: dict[int, ActiveRun] = {}
        self._by_cron: dict[str, ActiveRun] = {}
        #: By cron, what its PID file said of the last run whose end was recorded here.
        #: Each entry is one value, set before the lock of that run is let go.
        self.recorded: dict[str, PidFile] = {}
        #: Crons that this process is just starting: their rows are ahead of the tables.
        self.launching: set[str] = set()

    def add(self, active: ActiveRun) -> None:
        with self._lock:
            self._by_id[active.run.id] = active
            self._by_cron[active.run.cron_name] = active

    def remove(self, active: ActiveRun) -> None:
        with self._lock:
            self._by_id.pop(active.run.id, None)
            # A later run of the cron may stand there already.
            if self._by_cron.get(active.run.cron_name) is active:
                del self._by_cron[active.run.cron_name]

    def get(self, run_id: int) -> Optional[ActiveRun]:
        with self._lock:
            return self._by_id.get(run_id)

    def of_cron(self, cron_name: str) -> Optional[ActiveRun]:
        with self._lock:
            return self._by_cron.get(cron_name)

    def by_cron(self) -> dict[str, ActiveRun]:
        """Return a copy of the table: cron name to its active run."""
        with self._lock:
            # A copy: the caller goes through it while runs begin and end.
            return dict(self._by_cron)
