"""What became of runs that this process did not start, or started in an earlier life.

A keeper is known again by its number *and* its start, which the history has; where its
starter was killed before it could record them, by the locked PID file that it has open
as its standard input.  What is left of a family whose keeper is gone is ended before
anybody else gets the lock.

Called at a server's start, at a message of `run NAME`, before runs are shown, and by a
launch that found the lock free.  Any thread may call but the loop's: the history is
asked.  What takes longer, a run's log too, goes to a thread of `Ending`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from typing import Optional

from cron_trigger.host.keeper import keeps
from cron_trigger.host.lock import PidFile, read_lock, read_pid_file, take_lock
from cron_trigger.host.processes import (
    TICKS,
    Process,
    boot_time_s,
    lost_leader,
    process,
    send,
    started_of,
)
from cron_trigger.host.shortage import insist
from cron_trigger.registry.records import INTERRUPTED, Run, replace
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ending import Ending
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.notes import read_note
from cron_trigger.runs.recorder import Recorder, with_outcome

NEVER_BEGAN = "The server was killed before the script began."


class Recovery:
    """Settles what is recorded as running and is not watched here."""

    #: A run whose starter is at work is looked at again after so long, and later ever
    #: more seldom; one that nobody has settled after the second time is settled here.
    AGAIN_S = 0.05
    AGAIN_LIMIT_S = 5.0
    LEFT_ALONE_S = 3.0
    KILL_AFTER_S = 10.0
    #: A start waits so long for the records of what ended before it.
    START_S = 2.0

    def __init__(
        self, ground: Ground, running: Running, ending: Ending, recorder: Recorder
    ) -> None:
        self._on = ground
        self._running = running
        self._ending = ending
        self._recorder = recorder
        # One look at a time: two threads would each adopt the same run.
        # Reentrant: `_find` settles under it.
        self._lock = threading.RLock()
        self._looking: set[int] = set()  # runs that are looked at again; under _lock

    def settle_all(self) -> None:
        """Find what became of the runs that an earlier server left.  At start, once."""
        # Before the loop runs: what is to be looked at again waits in its timers.
        for run in self._on.history.running():
            self._find(run)
        self._adopt_unrecorded()
        # Who asks at once finds what had ended recorded, unless a log's disk hangs.
        deadline_s = time.monotonic() + self.START_S
        for active in self._running.by_cron().values():
            if active.ending:
                active.done.wait(max(0.0, deadline_s - time.monotonic()))

    def sync(self) -> None:
        """Learn of runs that a command line has begun or ended."""
        for run in self._on.history.running():
            # Without the lock, for speed: `_find` asks again under it.
            active = self._running.get(run.id)
            if active is None:
                self._find(run)
                self._on.changed(run.cron_name)
            elif run.end_reason is not None and active.run.end_reason is None:
                with contextlib.suppress(OSError):  # no descriptor: at the next look
                    self._ending.learn(active, run)

    def _find(self, found: Run) -> None:
        """Watch a run that is recorded as running again, or have its end recorded."""
        path = self._on.settings.pid_file(found.cron_name)
        with self._lock:
            # Another thread may have adopted it while this one waited, or be starting
            # it: asked first, since what was started is in the table before.
            launching = found.cron_name in self._running.launching
            if launching or self._running.get(found.id):
                return
            # For a moment we hold it ourselves: who comes just now with `flock -n` is
            # refused, though the cron does not run.
            lock = _try_lock(path)
            try:
                # Asked under the lock: its end may have been recorded meanwhile.
                run = self._on.history.run(found.id)
                if run is None or not run.running:
                    return
                if lock is None:
                    self._find_held(run, path)
                else:
                    self.settle(run, lock, at_once=False)
            finally:
                if lock is not None:
                    os.close(lock)

    # ---- somebody holds the lock

    def _find_held(self, run: Run, path: str) -> None:
        written = read_pid_file(path)
        # The number in the history is compared with a start; the one in the file, with
        # the open file itself.
        keeper = self._keeper(run, written, path)
        if keeper and keeper.alive:
            # The end of a keeper that goes between this look and the watch is seen by
            # its pidfd, or by there being none.
            self._adopt(run, keeper, path)
            return
        # Whoever started it is about to record its start or its end, or was killed,
        # and somebody else's `flock` has the lock since.
        known = run.pid is not None and keeper is None
        if known and self._on.clock() - self._gone_s(run, written) > self.LEFT_ALONE_S:
            self.settle(run, None, at_once=False)
        else:
            # Nothing is decided while a starter may be between the lock and its record.
            self._find_again(run)

    def _gone_s(self, run: Run, written: PidFile) -> float:
        """Return since when a keeper may be gone: its status, or its start."""
        ours = written.pid == run.pid and written.exit_code is not None
        return written.written_s if ours else epoch_of(run.started_at)

    def _keeper(self, run: Run, written: PidFile, path: str) -> Optional[Process]:
        """Return a run's keeper, where it is still there."""
        pid = run.pid or written.pid
        found = process(pid) if pid else None
        if found is None:
            return None
        if run.keeper_started is not None:
            return found if found.mark == run.keeper_started else None
        return found if keeps(found.pid, path) else None

    def _adopt(
        self, run: Run, keeper: Process, path: str, more_lock: Optional[int] = None
    ) -> None:
        """Watch a keeper that another process started."""
        known = replace(run, pid=keeper.pid, keeper_started=keeper.mark)
        if run.pid is None or run.keeper_started is None:
            self._on.history.started(known)
        active = self._active(known, None)
        if more_lock is not None:
            active.add_lock(os.dup(more_lock))
        # Before it is watched: its end forgets it.
        self._on.history.note_under_way(known)
        # Its pidfd is opened here, and the lock's copy comes through that.
        self._ending.watch(active)
        self._let_go(active, keeper)
        if known.end_reason:
            # A server before us had decided the end, and was killed before it came.
            self._ending.go_on(active)
        self._on.changed(run.cron_name)

    def _let_go(self, active: ActiveRun, keeper: Process) -> None:
        """Have go on what a server held still when it was killed."""
        if keeper.state in "Tt":
            insist(lambda: send(keeper, signal.SIGCONT))
        note = active.note("held")
        # Taken from the kernel, not from the note: a number may be another's by now.
        script = insist(active.family.script) if note.exists() else None
        if script:
            insist(lambda: send(script, signal.SIGCONT))
            note.unlink(missing_ok=True)

    def _active(self, run: Run, lock: Optional[int]) -> ActiveRun:
        cron = self._on.registry.crons().get(run.cron_name)
        return ActiveRun(
            run,
            self._on.settings.pid_file(run.cron_name),
            cron.kill_after_s if cron else self.KILL_AFTER_S,
            cron.timeout_s if cron else None,
            lock,
        )

    def _find_again(self, run: Run) -> None:
        """Look for a run a little later, at longer intervals the older it is."""
        # The caller holds `_lock`.
        if run.id in self._looking:
            return
        self._looking.add(run.id)

        # Beside the loop, with no lock.
        def look() -> None:
            with self._lock:
                self._looking.discard(run.id)
            try:
                self._find(run)
            except OSError:  # no descriptor is free
                with self._lock:
                    self._find_again(run)

        age_s = self._on.clock() - epoch_of(run.started_at)
        delay_s = min(max(self.AGAIN_S, age_s / 10), self.AGAIN_LIMIT_S)
        self._on.loop.call_later(delay_s, lambda: self._on.loop.aside(look))

    # ---- nobody holds the lock but we

    def unseen(self, cron_name: str) -> list[Run]:
        """Return the run that nobody recorded the end of, as far as can be read now.

        Where the history can't be read, its note alone tells what the PID file speaks
        of, and that is about to be emptied.
        """
        noted = read_note(self._on.settings.pid_file(cron_name))
        return [noted] if noted and self._on.history.run(noted.id) is None else []

    def settle(self, run: Run, lock: Optional[int], at_once: bool = True) -> bool:
        """Record a run whose keeper let go of the lock.  Return True if all is over.

        `lock` is ours (or nobody's to have, None): the caller closes it.  Where the
        run goes on without it, or its end takes its time, a copy of it stays taken.
        `at_once`: this thread may look at all processes, and wait for the run's log.
        """
        path = self._on.settings.pid_file(run.cron_name)
        with self._lock:
            # Read again under `_lock`: the caller's row may be older than its end.
            known = self._on.history.run(run.id)
            if known is not None and not known.running:
                return True
            # Adopted by another thread since: it goes on, and so does its lock.
            if self._running.get(run.id):
                return False
            written = read_lock(lock) if lock is not None else read_pid_file(path)
            keeper = self._keeper(run, written, path)
            if keeper and keeper.alive:  # its PID file was removed
                self._adopt(run, keeper, path, lock)
                return False
            # The file may speak of a later run, whose keeper is not this one's.
            ours = run.pid is None or written.pid == run.pid
            written = written if ours else PidFile()
            run = self._with_keeper(run, written)
            left = self._may_be_left(run, written, at_once)
            if left or not at_once:
                self._settle_later(run, lock, None if left else written)
                return False
        # Without `_lock`: of two who come here, the history lets one record.
        self._record(run, written)
        return True

    def _with_keeper(self, run: Run, written: PidFile) -> Run:
        """Return a run with its keeper, where both were killed before it was recorded.

        Else nobody could tell whom it has left.
        """
        if run.pid is not None or written.pid is None or written.exit_code is not None:
            return run
        ago_s = self._on.clock() - written.written_s
        keeper = lost_leader(written.pid, boot_time_s() - ago_s)
        if keeper is None:
            return run
        run = replace(run, pid=keeper.pid, keeper_started=keeper.mark)
        self._on.history.started(run)
        return run

    def _settle_later(
        self, run: Run, lock: Optional[int], written: Optional[PidFile]
    ) -> None:
        """Have a thread record a run; without `written`, end what is left of it."""
        # The lock's copy first, then the table: from here on others wait for this end.
        active = self._active(run, os.dup(lock) if lock is not None else None)
        active.ending = written is not None
        self._running.add(active)
        work = functools.partial(self._record, run, written) if written else None
        self._ending.go_on(active, work)

    def _may_be_left(self, run: Run, written: PidFile, at_once: bool) -> bool:
        """Tell whether processes of a run must be ended before it is recorded.

        Not where its script ended by itself: what it left stays alone.
        """
        started = started_of(run.keeper_started)
        by_itself = written.exit_code is not None and run.end_reason is None
        if by_itself or run.pid is None or started is None:
            return False
        return not at_once or not self._active(run, None).family.is_empty()

    def _record(self, run: Run, written: PidFile) -> None:
        """Record the end of a run by what its PID file said."""
        if run.pid is None and written.pid:
            run = replace(run, pid=written.pid)
            # Its starter was killed between the keeper's start and this record.
            self._on.history.started(run)
        if written.pid and written.exit_code is not None:
            run = replace(
                with_outcome(run, written.exit_code),
                completed_at=now_text(written.written_s),
                duration_ms=round(self._took_s(run, written.written_s) * 1000),
            )
        else:
            run = self._without_status(run)
        self._recorder.record(run)
        self._on.changed(run.cron_name)

    def _without_status(self, run: Run) -> Run:
        run = replace(run, completed_at=now_text(self._on.clock()))
        if run.pid is None:
            # Before the end is recorded: a kill in between does it once more.
            self._on.history.release(run, began=False)
            self._on.changed("")  # its planned trigger is pending again
            return replace(run, status=INTERRUPTED, error=NEVER_BEGAN)
        return with_outcome(run, None)

    def _took_s(self, run: Run, written_s: float) -> float:
        """Return how long a run took that ended while nobody looked.

        By the boot clock, from which its end is as far away as the file's time is from
        now.  Where that can't be (the clock was set since), by the wall clock.
        """
        by_wall_s = max(0.0, written_s - epoch_of(run.started_at))
        started = started_of(run.keeper_started)
        if started is None:
            return by_wall_s
        since_s = boot_time_s() - started / TICKS
        ago_s = self._on.clock() - written_s
        return since_s - ago_s if 0 <= ago_s <= since_s else by_wall_s

    # ---- nobody knows of it

    def _adopt_unrecorded(self) -> None:
        """Record runs that are under way but not in the history, which was lost."""
        # Not by the table of locks: in a container it has none of a dead server.
        # At the start, in one thread, before this server may start anything.
        for path in self._on.settings.run_dir.glob("*.pid"):
            written = read_pid_file(path)
            known = self._running.of_cron(path.stem)
            if written.pid is None or written.exit_code is not None or known:
                continue
            keeper = process(written.pid)
            if keeper is None or not keeper.alive or not keeps(keeper.pid, str(path)):
                continue
            noted = read_note(str(path))
            # An end that is recorded stays: the keeper is then about to go.
            known_run = self._on.history.run(noted.id) if noted else None
            if noted is None or (known_run and not known_run.running):
                continue
            self._adopt(self._on.history.begin(noted), keeper, str(path))


def _try_lock(path: str) -> Optional[int]:
    try:
        return take_lock(path)
    except OSError:
        return None
