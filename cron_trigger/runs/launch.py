"""From a trigger to a script that runs.

    registry.get -> prepare (all checks, no lock yet) -> lock -> history.begin
        -> keeper.start -> history.started -> answer

Any thread may trigger, but the loop's.  Between processes, and between threads, flock
on the PID file decides who runs a cron.  A cron's mutex in here only lets the losers of
a stampede be told of the run that won; whatever hangs in a launch (a dead mount) holds
up no other cron, no end and no event.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hmac
import os
import stat
import subprocess
import threading
import time
from typing import Iterator, Mapping, NamedTuple, Optional

from cron_trigger.host import keeper
from cron_trigger.host.lock import (
    empty_pid_file,
    held_locks,
    read_lock,
    read_pid_file,
    take_lock,
)
from cron_trigger.host.processes import boot_time_s, mark_of_child
from cron_trigger.host.shortage import insist, is_shortage
from cron_trigger.host.users import User
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError, Refusal, overloaded
from cron_trigger.registry.parameters import ParameterValue, value_text
from cron_trigger.registry.records import FAILED, RUNNING, Key, Run, Trigger, replace
from cron_trigger.registry.texts import path_text, printable
from cron_trigger.registry.times import now_text
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ending import Ending
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.logs import Logs
from cron_trigger.runs.notes import blank_note, write_note
from cron_trigger.runs.output import RunLog, framing_line, inode_of
from cron_trigger.runs.recovery import Recovery
from cron_trigger.runs.scripts import Scripts


class Prepared(NamedTuple):
    """All that a launch needs of the registry and the host, checked."""

    cron: Cron
    arguments: list[str]
    environment: Mapping[str, str]
    user: Optional[User]


class Launch:
    """Starts runs, each cron once at a time."""

    #: Launches wait so long for one another: a fifth more of them get through when
    #: threads don't contend at each system call.  For speed alone.
    TURN_S = 0.05
    #: A trigger waits so long for one of the same cron that came just before it, and
    #: for the record of an end that it comes right after.
    PATIENCE_S, LOOK_S = 2.0, 0.01

    def __init__(
        self,
        ground: Ground,
        running: Running,
        ending: Ending,
        recovery: Recovery,
        scripts: Scripts,
        logs: Logs,
    ) -> None:
        self._on = ground
        self._scripts = scripts
        self._logs = logs
        self._running = running
        self._ending = ending
        self._recovery = recovery
        # Whoever has waited TURN_S goes on without it.
        self._turn = threading.Lock()  # taken after a cron's mutex; guards nothing
        # One for each name that was ever triggered and is in the registry.  Were two
        # made for one at the same moment, flock would still let one start.
        self._mutexes: collections.defaultdict[str, threading.Lock] = (
            collections.defaultdict(threading.Lock)
        )

    def trigger(self, request: Trigger) -> Run:
        """Start a cron; return its run.  Refusals say why not.

        `already_running`, `unknown_cron`, `invalid_params`, `launch_failed`,
        `idempotency_mismatch`, `overloaded`.
        """
        try:
            return self._triggered(request)
        except (OSError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise out_of_room(request.cron_name) from None

    def _triggered(self, request: Trigger) -> Run:
        try:
            # Before any lock: it may wait for the registry's file.
            cron = self._on.registry.get(request.cron_name)
            values = cron.resolve(request.params)
        except Refusal:
            known = self._replayed_run(request)
            if known:  # a retry gets its answer, whatever the registry has by now
                return known
            raise
        with self._one_at_a_time(cron.name):
            # Asked under the mutex: of two equal requests the second finds the first's
            # key.
            return self._replayed_run(request) or self._start(cron, values, request)

    def _start(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Run:
        asked = self._asked_run(cron, values, request)
        why: Optional[str] = None
        try:
            prepared = self._prepare(cron, values)
        except LaunchError as error:
            # Told under the lock: who asks for a cron that runs hears that first.
            why = str(error)
        # From here on no other process starts this cron.
        lock = self._take_lock(asked, request)
        self._running.launching.add(cron.name)
        try:
            if why is not None:
                raise self._not_started(asked, request, why)
            return self._launch(prepared, asked, request, lock)
        except BaseException:
            # Nothing was started, or the keeper has its copy.
            os.close(lock)
            raise
        finally:
            self._running.launching.discard(cron.name)

    @contextlib.contextmanager
    def _one_at_a_time(self, cron_name: str) -> Iterator[None]:
        # Held over the whole launch.  A dead mount holds up this cron only: who waits
        # for it is refused after PATIENCE_S.
        mutex = self._mutexes[cron_name]
        if not mutex.acquire(timeout=self.PATIENCE_S):
            raise self._busy(cron_name)
        mine = self._turn.acquire(timeout=self.TURN_S)
        try:
            yield
        finally:
            if mine:
                self._turn.release()
            mutex.release()

    # ---- idempotency

    def replay(self, request: Trigger) -> Optional[Key]:
        """Return what the request's idempotency key stands for already, if it does."""
        if request.idempotency_key is None:
            return None
        name, key = request.cron_name, request.idempotency_key
        found = self._on.history.key(name, key)
        if found and not hmac.compare_digest(found.digest, request.digest()):
            raise Refusal(
                "idempotency_mismatch",
                f'The Idempotency-Key was used for another request for "{name}" within '
                "the last day; use a new key for a new request.",
            )
        return found

    def _replayed_run(self, request: Trigger) -> Optional[Run]:
        found = self.replay(request)
        return self._on.history.run(found.run_id) if found and found.run_id else None

    def key_for(self, request: Trigger) -> Optional[Key]:
        """Return the idempotency key to record with what the request leads to."""
        if request.idempotency_key is None:
            return None
        return Key(
            request.cron_name,
            request.idempotency_key,
            request.digest(),
            self._on.clock(),
        )

    # ---- the lock

    def _take_lock(self, asked: Run, request: Trigger) -> int:
        """Return the cron's lock, with its earlier runs settled; else a Refusal."""
        name = asked.cron_name
        path = self._on.settings.pid_file(name)
        deadline_s = time.monotonic() + self.PATIENCE_S
        while True:
            # Before the lock is tried: what has it may end in between.
            active = self._running.of_cron(name)
            try:
                # Tried, never waited for: a holder may run for hours.
                lock = take_lock(path)
            except OSError as error:
                if is_shortage(error):
                    raise
                why = f"its PID file {path} cannot be opened ({error.strerror})"
                if error.errno == errno.ELOOP:
                    why += ": it is a link, which is not followed; remove it"
                raise self._not_started(asked, request, why) from None
            if lock is not None:
                # It is free, but the end of the run before may not be recorded yet.
                if self._settled(name, lock):
                    return lock
                # Before the wait below: a run that goes on has had its copy.
                os.close(lock)
            left_s = deadline_s - time.monotonic()
            active = active or self._running.of_cron(name)
            # Who has seen the end of a run may come before its lock is free.
            if not (active.is_over(left_s) if active else self._is_over(path, left_s)):
                raise self._busy(name)

    def _is_over(self, path: str, left_s: float) -> bool:
        """Tell whether another process records an end, as of a command line's run."""
        written = read_pid_file(path)
        ago_s = self._on.clock() - written.written_s
        over = written.exit_code is not None and abs(ago_s) < self.PATIENCE_S
        time.sleep(self.LOOK_S if over else 0)
        return over and left_s > 0

    def _settled(self, cron_name: str, lock: int) -> bool:
        """Record what ran before, by what the PID file says that is soon emptied.

        Return False where something of it goes on though the lock was free, as after
        its PID file was removed: it has a copy of this lock then.
        """
        active = self._running.of_cron(cron_name)
        if active:
            # Its own lock is on a removed file, this one is where others will look.
            if not active.ending:
                active.add_lock(os.dup(lock))
            return False
        # Whoever ran the cron since then has written something else there.
        if read_lock(lock) == self._running.recorded.get(cron_name):
            return True
        # Nobody watches these here: of a killed starter, or of a line that let go now.
        runs = self._on.history.running(cron_name)
        if self._on.history.problem:
            runs = [*runs, *self._recovery.unseen(cron_name)]
        return all(self._recovery.settle(run, lock) for run in runs)

    def _busy(self, cron_name: str) -> Refusal:
        active = self._running.of_cron(cron_name)
        run = active.run if active else None
        if run is None:
            # A command line's run: recorded, but not watched here yet.
            run = next(iter(self._on.history.running(cron_name)), None)
        # Somebody else's `flock`: the kernel knows who.
        holders = held_locks(self._on.settings.run_dir)
        pid = run.pid if run and run.pid else holders.get(cron_name)
        return Refusal(
            "already_running",
            f'"{cron_name}" is running already and is never started twice; '
            "wait for its end.",
            runId=run.id if run else None,
            pid=pid,
            startedAt=run.started_at if run else None,
        )

    # ---- the launch

    def _prepare(self, cron: Cron, values: Mapping[str, ParameterValue]) -> Prepared:
        """Check all that a launch needs; else LaunchError.  No lock is held yet."""
        user = self._scripts.user_of(cron)
        environment = self._scripts.environment(cron, user)
        for name, value in values.items():
            environment[cron.parameters[name].variable] = value_text(value)
        arguments = self._scripts.arguments(cron, values, user, environment["PATH"])
        self._scripts.check_directory(cron)
        other = user if user.uid != os.geteuid() else None
        return Prepared(cron, arguments, environment, other)

    def _asked_run(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Run:
        """Return the run that a request asks for; it has no id yet."""
        return Run(
            id=0,
            cron_name=cron.name,
            status=RUNNING,
            started_at=now_text(self._on.clock()),
            trigger=request.source,
            requested_by=request.requested_by,
            client=request.client,
            params=cron.shown(values),
            log_file=path_text(cron.log_path),
        )

    def _launch(self, prepared: Prepared, run: Run, request: Trigger, lock: int) -> Run:
        """Start the keeper, which gets a copy of the lock; ours goes to the ActiveRun.

        A kill before `begin` leaves nothing, one after it a row that the next start
        settles, by what the keeper wrote into the PID file.
        """
        try:
            # Before the row: a log that must not be written refuses the launch.
            log, not_kept = self._logs.open_for(prepared.cron.log_path)
        except LaunchError as error:
            raise self._not_started(run, request, str(error)) from None
        if not_kept:
            run = replace(run, error=f"Its output was not kept: {printable(not_kept)}.")
        try:
            # From here on the PID file speaks of this run, or says nothing.
            empty_pid_file(lock)
            # Killed after this: a row without a PID, a free lock and an empty PID file,
            # by which the next start knows that the script never began.
            run = self._begin(run, request, log)
            began_s = boot_time_s()
            # Killed after this: the keeper holds the lock, and writes its PID there
            # before the script begins.
            child = self._start_keeper(prepared, run, lock, log)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            short = is_shortage(error)
            if short and not run.id:
                raise
            why = f"the system refused to start it ({error})"
            refusal = self._not_started(run, request, why)
            full = out_of_room(run.cron_name, runId=run.id)
            raise (full if short else refusal) from None
        finally:
            # The keeper has its own copy.
            os.close(log)
        return self._started(prepared.cron, run, lock, child, began_s)

    def _started(
        self,
        cron: Cron,
        run: Run,
        lock: int,
        child: subprocess.Popen[bytes],
        began_s: float,
    ) -> Run:
        # A zombie at the worst: it is not reaped yet.  Without its start nobody could
        # tell its family.
        mark = insist(lambda: mark_of_child(child.pid, began_s))
        run = replace(run, pid=child.pid, keeper_started=mark)
        active = ActiveRun(
            run,
            self._on.settings.pid_file(cron.name),
            cron.kill_after_s,
            cron.timeout_s,
            lock,
            child,
            began_s,
        )
        # Recorded first: the loop may see the keeper go the moment it is watched.
        # A fault of the disk raises nothing: the script runs, whatever is recorded.
        self._on.history.started(run)
        # Its end may be recorded by now: `run` is what was begun.
        self._ending.watch(active)
        self._on.say(
            "info",
            f"run {run.id} of {run.cron_name} started "
            f"({run.asked_by()}), pid {run.pid}",
        )
        self._on.changed(run.cron_name)
        return run

    def _begin(self, run: Run, request: Trigger, log: int) -> Run:
        """Record the run, and write its first line into its log."""
        # A look at the size, for a row that is complete at once; corrected below.
        status = os.fstat(log)
        if stat.S_ISREG(status.st_mode):
            inode = inode_of(status.st_ino)
            run = replace(run, log_inode=inode, log_start=status.st_size)
        run = self._on.history.begin(run, self.key_for(request), request.scheduled)
        # Before the keeper: should the history be lost while no server runs, the next
        # one knows the run from here.
        write_note(self._on.settings.pid_file(run.cron_name), run)
        line = framing_line(f"run {run.id} started ({run.asked_by()})").encode()
        with contextlib.suppress(OSError):
            # O_APPEND: one write, after which the position is the end of this line,
            # whoever writes next.
            if os.write(log, line) == len(line):
                # What another left running may have written to the log since the look.
                end = os.lseek(log, 0, os.SEEK_CUR)
                return replace(run, log_start=end - len(line))
        return replace(run, log_inode=None)  # without its head it can't be found

    def _start_keeper(
        self, prepared: Prepared, run: Run, lock: int, log: int
    ) -> subprocess.Popen[bytes]:
        cron = prepared.cron
        own: dict[str, str] = {
            "CRON_NAME": cron.name,
            "CRON_RUN_ID": str(run.id),
            "CRON_TRIGGER": run.trigger,
        }
        return keeper.start(
            cron.name,
            prepared.arguments,
            cron.directory,
            {**prepared.environment, **own},
            prepared.user,
            lock,
            log,
        )

    def _not_started(self, run: Run, request: Trigger, why: str) -> Refusal:
        """Record a run that failed to start; return what to tell the client."""
        why = printable(why, 2000)  # a path in it may not be UTF-8
        if not run.id:
            # Without its key: a retry is to try again.
            run = self._on.history.begin(run, None, request.scheduled)
        self._on.history.release(run, began=True)
        ended = replace(
            run,
            status=FAILED,
            completed_at=now_text(self._on.clock()),
            duration_ms=0,
            error=f"Not started: {why}.",
        )
        # There if the launch came as far as its first line.
        log = insist(lambda: RunLog(ended))
        if log.descriptor is not None:
            ended = replace(ended, log_end=log.end())
        # The lock is still ours: nobody starts the cron between its end and this
        # record.
        self._on.history.end(ended)
        blank_note(self._on.settings.pid_file(run.cron_name), ended)
        insist(lambda: log.write_line(f"run {run.id} failed: {ended.error}"))
        log.close()
        self._on.say(
            "error",
            f"run {run.id} of {run.cron_name} failed to start "
            f"({run.asked_by()}): {why}",
        )
        self._on.changed(run.cron_name)
        return Refusal(
            "launch_failed", f'"{run.cron_name}" was not started: {why}.', runId=run.id
        )


def out_of_room(cron_name: str, **extra: int) -> Refusal:
    """Return what to say where the system has nothing left for one more process."""
    short = "the system has no descriptor, process or memory left just now"
    return overloaded(f'"{cron_name}" was not started: {short}', 1, **extra)
