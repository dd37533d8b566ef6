"""Runner."""

from __future__ import annotations

import collections
import contextlib
import errno
import hmac
import os
import signal
import stat
import subprocess
import threading
import time
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from cron_trigger.history.store import Store
from cron_trigger.host.keeper import KEEPER, SHELL
from cron_trigger.host.lock import (
    LockTable,
    PidFile,
    empty_pid_file,
    read_pid_file,
    take_lock,
)
from cron_trigger.host.loop import Loop, Timer, is_ready
from cron_trigger.host.processes import (
    Process,
    is_in_exec,
    is_process_of,
    kill_leftovers,
    members_of_group,
    process_age_s,
    processes_of_run,
    run_of_process,
    script_began,
)
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError, Refusal
from cron_trigger.registry.file import Registry
from cron_trigger.registry.parameters import ParameterValue, value_text
from cron_trigger.registry.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TIMED_OUT,
    Key,
    Run,
    Trigger,
    replace,
)
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.texts import printable, signal_name
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.logs import RunLog, framing_line, open_cron_log
from cron_trigger.runs.scripts import (
    check_directory,
    script_arguments,
    script_environment,
)

CANCEL_GRACE_S = 10.0
TURN_S = 0.05
FIND_AGAIN_S = 0.05
#: No exec takes longer, however loaded the host is.
EXEC_S = 60.0


class ActiveRun:
    """A run that this process watches.  `done` is set once its end is recorded."""

    def __init__(
        self,
        run: Run,
        pidfd: int,
        process: Optional[subprocess.Popen[bytes]],
        started_s: Optional[float],
    ) -> None:
        self.run = run
        self.pidfd = pidfd
        #: The keeper, where it is this process's child; kept until it is reaped, or
        #: subprocess would reap it by itself and with it the resource usage.
        self.process = process
        #: On the monotonic clock; None for a run that was found, not started.
        self.started_s = started_s
        self.done = threading.Event()
        self.killed = False
        #: What was left of its group when its keeper went, looked up if needed.
        self.left: List[Process] = []
        self.timeout: Optional[Timer] = None
        self.kill: Optional[Timer] = None

    def alive(self) -> bool:
        """Return True while the keeper lives, its PID so still its own."""
        if self.done.is_set() or is_ready(self.pidfd):
            return False
        try:
            os.kill(self.run.pid or 0, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Runner:
    """Starts crons, watches their runs, records their ends.

    Any thread may trigger and cancel; ends are recorded in the loop's thread, or in
    the one that finds the lock free before the loop came to it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        loop: Loop,
        say: Callable[[str, str], None],
        on_change: Callable[[str], None] = lambda _cron_name: None,
        lock_table: Optional[LockTable] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._loop = loop
        self._say = say
        self._on_change = on_change
        self._lock_table = lock_table
        self._clock = clock
        self._user_id = os.geteuid()
        self._environment = script_environment(os.environ)
        self._mutexes: Dict[str, threading.Lock] = collections.defaultdict(
            threading.Lock
        )
        self._lock = threading.Lock()  # guards the two tables below
        self._by_id: Dict[int, ActiveRun] = {}
        self._by_cron: Dict[str, ActiveRun] = {}
        self._kills: Dict[int, ActiveRun] = {}  # the loop's thread only, and close()
        self.closing = False
        self._turn = threading.Lock()  # taken after a cron's mutex; guards nothing
        self._looking: Set[int] = set()  # runs that are looked for again

    # ---- what runs

    def active(self, run_id: int) -> Optional[ActiveRun]:
        """Return a run that is watched, or None."""
        with self._lock:
            return self._by_id.get(run_id)

    def run_of(self, cron_name: str) -> Optional[Run]:
        """Return a cron's running run, or None."""
        with self._lock:
            active = self._by_cron.get(cron_name)
        return active.run if active else None

    def running(self) -> Dict[str, Run]:
        """Return cron name to its running run, of those that this process watches."""
        with self._lock:
            return {name: active.run for name, active in self._by_cron.items()}

    def count(self) -> int:
        """Return how many runs this process watches."""
        return len(self._by_cron)

    def external(self) -> Dict[str, int]:
        """Return cron name to PID where somebody else holds a cron's lock."""
        holders = self._lock_table.holders() if self._lock_table else {}
        self.sync()
        with self._lock:
            return {n: p for n, p in holders.items() if n not in self._by_cron}

    # ---- trigger

    def trigger(self, request: Trigger) -> Run:
        """Start a cron; return its run.  Refusals say why not.

        `already_running`, `unknown_cron`, `invalid_params`, `launch_failed`,
        `idempotency_mismatch`, `shutting_down`.
        """
        self.refuse_if_closing()
        try:
            cron = self._registry.get(request.cron_name)
            values = cron.resolve(request.params)
        except Refusal:
            known = self._replayed_run(request)
            if known:  # a retry gets its answer, whatever the registry has by now
                return known
            raise
        with self._mutexes[cron.name], self._in_turn():
            known = self._replayed_run(request)
            if known:
                return known
            lock = self._take_lock(cron, values, request)
            try:
                self._settle_cron(cron.name)
                return self._launch(cron, values, request, lock)
            finally:
                os.close(lock)

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait a moment until other launches are through.

        For speed alone: threads that contend for the interpreter at each system call
        start a fifth fewer scripts than one after the other.  So nobody waits for long:
        a launch that hangs, on a dead disk, must not hold up the others.
        """
        mine = self._turn.acquire(timeout=TURN_S)
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    def refuse_if_closing(self) -> None:
        if self.closing:
            raise Refusal(
                "shutting_down",
                "The server is shutting down; try again in a few seconds.",
                {"Retry-After": "5"},
            )

    def replay(self, request: Trigger) -> Optional[Key]:
        """Return what the request's idempotency key stands for already, if it does."""
        if request.idempotency_key is None:
            return None
        name, key = request.cron_name, request.idempotency_key
        found = self._store.key(name, key, self._clock())
        if found and not hmac.compare_digest(found.digest, request.digest()):
            raise Refusal(
                "idempotency_mismatch",
                f'The Idempotency-Key was used for another request for "{name}" within '
                "the last day; use a new key for a new request.",
            )
        return found

    def _replayed_run(self, request: Trigger) -> Optional[Run]:
        found = self.replay(request)
        return self._store.run(found.run_id) if found and found.run_id else None

    def key_for(self, request: Trigger) -> Optional[Key]:
        """Return the idempotency key to record with what the request leads to."""
        if request.idempotency_key is None:
            return None
        return Key(
            request.cron_name, request.idempotency_key, request.digest(), self._clock()
        )

    def _take_lock(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> int:
        path = self._settings.pid_file(cron.name)
        try:
            lock = take_lock(path)
        except OSError as error:
            why = f"its PID file {path} can't be opened ({error.strerror}): mend it"
            if error.errno == errno.ELOOP:
                why = f"its PID file {path} is a link, which is not followed: remove it"
            run = self._asked_run(cron, values, request)
            raise self._not_launched(run, request, why) from None
        if lock is None:
            raise self._busy(cron.name)
        return lock

    def _busy(self, cron_name: str) -> Refusal:
        with self._lock:
            active = self._by_cron.get(cron_name)
        run = active.run if active else None
        if run is None:
            run = next(iter(self._store.running(cron_name)), None)
        # Not `external`, which may take other crons' mutexes: we hold this one's.
        holders = self._lock_table.holders() if self._lock_table else {}
        pid = run.pid if run and run.pid else holders.get(cron_name)
        return Refusal(
            "already_running",
            f'"{cron_name}" is running already and is never started twice; '
            "wait for its end.",
            runId=run.id if run else None,
            pid=pid,
            startedAt=run.started_at if run else None,
        )

    def _launch(
        self,
        cron: Cron,
        values: Mapping[str, ParameterValue],
        request: Trigger,
        lock: int,
    ) -> Run:
        """Start the keeper, which inherits the lock.  The caller holds the mutex.

        A kill before `begin` leaves nothing, one after it a row that the next start
        settles, by what the keeper wrote into the PID file.
        """
        run = self._asked_run(cron, values, request)
        try:
            arguments = script_arguments(cron, values, self._user_id)
            check_directory(cron)
            log = open_cron_log(cron.log_path, self._user_id)
        except LaunchError as error:
            raise self._not_launched(run, request, str(error)) from None
        try:
            # From here on the PID file speaks of this run, or says nothing.
            empty_pid_file(lock)
            run = self._begin(run, request, log)
            process = self._popen(cron, values, run, arguments, lock, log)
        except (OSError, ValueError) as error:
            why = f"the system refused to start it ({error})"
            raise self._not_launched(run, request, why) from None
        finally:
            os.close(log)
        run = replace(run, pid=process.pid)
        self._watch_child(run, process)
        self._store.started(run)
        self._say(
            "info",
            f"run {run.id} of {run.cron_name} started "
            f"({run.asked_by()}), pid {run.pid}",
        )
        self.changed(run.cron_name)
        return run

    def _asked_run(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Run:
        """Return the run that a request asks for; it has no id yet."""
        return Run(
            id=0,
            cron_name=cron.name,
            status=RUNNING,
            started_at=now_text(self._clock()),
            trigger=request.source,
            requested_by=request.requested_by,
            client=request.client,
            params=cron.shown(values),
            log_file=cron.log_path,
        )

    def _begin(self, run: Run, request: Trigger, log: int) -> Run:
        """Record the run and write its first line into its log."""
        status = os.fstat(log)
        if stat.S_ISREG(status.st_mode):
            run = replace(run, log_inode=status.st_ino, log_start=status.st_size)
        run = self._store.begin(run, self.key_for(request), request.scheduled)
        line = framing_line(f"run {run.id} started ({run.asked_by()})").encode()
        with contextlib.suppress(OSError):
            if os.write(log, line) == len(line):
                # What another left running may have written to the log since the look.
                end = os.lseek(log, 0, os.SEEK_CUR)
                return replace(run, log_start=end - len(line))
        return replace(run, log_inode=None)  # without its head it can't be found

    def _popen(
        self,
        cron: Cron,
        values: Mapping[str, ParameterValue],
        run: Run,
        arguments: Sequence[str],
        lock: int,
        log: int,
    ) -> subprocess.Popen[bytes]:
        parameters = {
            cron.parameters[name].variable: value_text(value)
            for name, value in values.items()
        }
        own = {
            "CRON_NAME": cron.name,
            "CRON_RUN_ID": str(run.id),
            "CRON_TRIGGER": run.trigger,
        }
        return subprocess.Popen(
            [SHELL, "-c", KEEPER, f"cron {cron.name}", *arguments],
            stdin=lock,
            stdout=log,
            stderr=subprocess.DEVNULL,
            cwd=cron.directory,
            env={**self._environment, **cron.environment, **parameters, **own},
            start_new_session=True,
        )

    def _not_launched(self, run: Run, request: Trigger, why: str) -> Refusal:
        """Record a run that failed to start; return what to tell the client."""
        if not run.id:
            run = self._store.begin(run, None, request.scheduled)
        self._store.release(run, began=True)
        ended = replace(
            run,
            status=FAILED,
            completed_at=now_text(self._clock()),
            duration_ms=0,
            error=f"Not started: {why}.",
        )
        log = RunLog(ended)  # there if the launch came as far as its first line
        if log.descriptor is not None:
            ended = replace(ended, log_end=log.end())
        self._store.end(ended)
        self._write_framing(log, f"run {run.id} failed: {ended.error}")
        log.close()
        self._say(
            "error",
            f"run {run.id} of {run.cron_name} failed to start "
            f"({run.asked_by()}): {why}",
        )
        self.changed(run.cron_name)
        return Refusal(
            "launch_failed", f'"{run.cron_name}" was not started: {why}.', runId=run.id
        )

    # ---- watch and record

    def _watch(
        self, run: Run, process: Optional[subprocess.Popen[bytes]] = None
    ) -> ActiveRun:
        """Have the loop tell when the keeper goes; raises ProcessLookupError."""
        assert run.pid is not None
        started_s = time.monotonic() if process else None
        active = ActiveRun(run, os.pidfd_open(run.pid), process, started_s)
        with self._lock:
            self._by_id[run.id] = active
            self._by_cron[run.cron_name] = active
        self._limit(active)
        self._loop.watch(active.pidfd, lambda _events: self._on_keeper_end(active))
        return active

    def _watch_child(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        """Watch a keeper just started; again later where no descriptor is free."""
        try:
            self._watch(run, process)
        except OSError:
            self._loop.call_later(1.0, lambda: self._watch_child(run, process))

    def _limit(self, active: ActiveRun) -> None:
        """Arrange for the end of a run that takes too long."""
        cron = self._registry.crons().get(active.run.cron_name)
        if cron is None or cron.timeout_s is None:
            return
        # Not by the time in the record: the clock may have been set since.
        used_s = 0.0 if active.process else process_age_s(active.run.pid or 0) or 0.0
        active.timeout = self._loop.call_later(
            max(0.0, cron.timeout_s - used_s), lambda: self._time_out(active)
        )

    def _on_keeper_end(self, active: ActiveRun) -> None:
        with self._mutexes[active.run.cron_name]:
            # Asked again: between the loop's look and this call, another thread may
            # have closed a descriptor and been given its number for this run.
            if not active.done.is_set() and is_ready(active.pidfd):
                self._finish(active)

    def _finish(self, active: ActiveRun) -> None:
        """Record the end of a run whose keeper is gone.  The caller holds the mutex."""
        if active.done.is_set():
            return
        now_s = self._clock()
        self._loop.unwatch(active.pidfd)
        os.close(active.pidfd)
        if active.timeout:
            active.timeout.cancel()
        killed = self._keeper_killed(active)
        cut_short = killed or active.run.end_reason is not None
        if cut_short:
            # Before the keeper is reaped: the group's number is still its own.
            active.left = members_of_group(active.run.pid or 0)
        ended = self._ended_run(active, now_s)
        strays = self._clear_group(active, killed) if cut_short else []
        try:
            self._record_end(ended)
            self._name_strays(active.run, strays)
        finally:
            with self._lock:
                self._by_id.pop(active.run.id, None)
                if self._by_cron.get(active.run.cron_name) is active:
                    del self._by_cron[active.run.cron_name]
            active.done.set()
            self.changed(active.run.cron_name)

    def _keeper_killed(self, active: ActiveRun) -> bool:
        """Return True where the keeper went before its script: it wrote no status."""
        written = read_pid_file(self._settings.pid_file(active.run.cron_name))
        if written.pid == active.run.pid and written.exit_code is not None:
            return False
        if active.process is None:
            # Where it was emptied for another run, the start of that has recorded this.
            known = self._store.run(active.run.id)
            return written.pid in (None, active.run.pid) and (
                known is None or known.running
            )
        # A disk that took no status is no reason to kill what a script left running.
        options = os.WEXITED | os.WNOWAIT
        peeked = os.waitid(os.P_PID, active.process.pid, options)
        return peeked is None or peeked.si_code != os.CLD_EXITED

    def _ended_run(self, active: ActiveRun, now_s: float) -> Run:
        run = active.run
        waited, cpu_seconds, max_rss_bytes = self._reap(active)
        written = read_pid_file(self._settings.pid_file(run.cron_name))
        exit_code = written.exit_code if written.pid == run.pid else None
        if exit_code is None:
            # Nothing was written: the keeper itself was killed, or the disk is full.
            exit_code = 128 + signal.SIGKILL if active.killed else waited
        if active.started_s is not None:
            took_s = time.monotonic() - active.started_s
        else:
            took_s = max(0.0, now_s - epoch_of(run.started_at))
        return replace(
            self._with_exit_code(run, exit_code),
            completed_at=now_text(now_s),
            duration_ms=round(took_s * 1000),
            cpu_seconds=cpu_seconds,
            max_rss_bytes=max_rss_bytes,
        )

    def _reap(
        self, active: ActiveRun
    ) -> Tuple[Optional[int], Optional[float], Optional[int]]:
        """Return exit status, CPU seconds and peak bytes where this is the parent."""
        if active.process is None:
            return None, None, None
        _, status, usage = os.wait4(active.process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        active.process.returncode = code
        cpu_seconds = round(usage.ru_utime + usage.ru_stime, 6)
        return (128 - code if code < 0 else code), cpu_seconds, usage.ru_maxrss * 1024

    def _with_exit_code(self, run: Run, exit_code: Optional[int]) -> Run:
        if exit_code is None:
            why = "The exit status is not known: the run's keeper was killed."
            return replace(run, status=INTERRUPTED, error=why)
        status = COMPLETED if exit_code == 0 else FAILED
        return replace(
            run, status=status, exit_code=exit_code, signal=signal_name(exit_code)
        )

    def _record_end(self, run: Run) -> None:
        """Record, log and tell a run's end, unless somebody did so before."""
        log = RunLog(run)
        try:
            if log.descriptor is not None:
                run = replace(run, log_end=log.end())
            ended = self._store.end(run)
            if ended is None:
                return
            text = f"run {ended.id} {ended.status}: {ended.outcome()}"
            self._write_framing(log, text)
        finally:
            log.close()
        level = "info" if ended.status == COMPLETED else "warning"
        self._say(
            level,
            f"run {ended.id} of {ended.cron_name} {ended.status}: {ended.outcome()}",
        )

    def _write_framing(self, log: RunLog, text: str) -> None:
        """Append a line to the file that has the run's output, wherever it is now."""
        if log.descriptor is None:
            return
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{log.descriptor}"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                partial = size and os.pread(log.descriptor, 1, size - 1) != b"\n"
                line = ("\n" if partial else "") + framing_line(text)
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def changed(self, cron_name: str) -> None:
        """Tell that something about a cron is different now."""
        self._on_change(cron_name)

    # ---- cancel and time limit

    def cancel(self, run_id: int, by: Optional[str]) -> Run:
        """Ask a run to end, in 10 s by force; else `not_found` or `not_running`."""
        active = self.active(run_id)
        if active is None:
            self.sync()
            active = self.active(run_id)
        run = active.run if active else self._store.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        if active is None or not self._end_early(active, CANCELLED, by):
            raise Refusal(
                "not_running",
                f"Run {run_id} is not running any more; only a running run can be "
                "cancelled.",
            )
        self._say(
            "notice",
            f"run {run_id} of {run.cron_name} is cancelled by "
            f"{printable(by or 'a client')}",
        )
        return active.run

    def _time_out(self, active: ActiveRun) -> None:
        if self._end_early(active, TIMED_OUT, None):
            run = active.run
            self._say(
                "warning",
                f"run {run.id} of {run.cron_name} has reached its "
                "time limit and is ended",
            )

    def _end_early(self, active: ActiveRun, reason: str, by: Optional[str]) -> bool:
        """SIGTERM the process group, later SIGKILL.  Return False if it has ended.

        The mutex keeps the keeper from being reaped meanwhile, so that its number
        can't have become another's process group.
        """
        with self._mutexes[active.run.cron_name]:
            if not active.alive():
                return False
            if active.run.end_reason is None:
                active.run = self._store.set_end_reason(active.run, reason, by)
                self._terminate(active)
        return True

    def _terminate(self, active: ActiveRun) -> None:
        self._kills[active.run.id] = active
        active.kill = self._loop.call_later(
            CANCEL_GRACE_S, lambda: self._kill_group(active)
        )
        self._send_term(active)

    def _send_term(self, active: ActiveRun, tries: int = 100) -> None:
        """SIGTERM the process group.  The caller holds the mutex.

        Not before the keeper has begun the script: the keeper minds no signal, and
        would keep to itself one that comes a moment too early.
        """
        assert active.run.pid is not None
        if tries and not script_began(active.run.pid):

            def again() -> None:
                with self._mutexes[active.run.cron_name]:
                    if active.alive():
                        self._send_term(active, tries - 1)

            self._loop.call_later(0.01, again)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(active.run.pid, signal.SIGTERM)

    def _kill_group(self, active: ActiveRun) -> None:
        """SIGKILL what SIGTERM did not end."""
        self._kills.pop(active.run.id, None)
        with self._mutexes[active.run.cron_name]:
            pid = active.run.pid
            if active.alive() and pid:
                active.killed = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            elif pid:
                run = active.run
                kill_leftovers(run.cron_name, run.id, pid, active.left)

    def _clear_group(self, active: ActiveRun, killed: bool) -> List[Process]:
        """See to what is left of a run that did not end by itself.

        Its group gets the rest of its 10 s, but nothing where the keeper was killed:
        the lock is free then, and a script that goes on would not be alone.  Return
        what has left the group.
        """
        run = active.run
        assert run.pid is not None
        if not killed:
            found = processes_of_run(run.cron_name, run.id)
            return [process for process in found if process.group != run.pid]
        return kill_leftovers(run.cron_name, run.id, run.pid, active.left)

    def _name_strays(self, run: Run, strays: Sequence[Process]) -> None:
        """Name what has left a run's group in both logs, after the run's output."""
        if not strays:
            return
        log = RunLog(run)
        for stray in strays:
            text = (
                f"run {run.id} left process {stray.pid} "
                f"({printable(stray.name)}) outside its process group"
            )
            self._say("warning", f"{run.cron_name}: {text}")
            self._write_framing(log, text)
        log.close()

    # ---- settle

    def settle(self) -> None:
        """Find what became of the runs that an earlier server left.  At start, once."""
        for run in self._store.running():
            self._find(run)
        self._adopt_unrecorded()
        self._clear_cancelled()

    def sync(self) -> None:
        """Learn of runs that a command line has begun or ended.

        Also asked before runs are shown: one that was killed could not tell of it.
        """
        for run in self._store.running():
            if self.active(run.id) is None:
                self._find(run)
                self._on_change(run.cron_name)

    def _find(self, found: Run) -> None:
        """Watch a run that is recorded as running again, or record its end."""
        path = self._settings.pid_file(found.cron_name)
        with self._mutexes[found.cron_name]:
            if self.active(found.id):
                return
            lock = self._try_lock(path)
            try:
                # Asked under the lock: its end may have been recorded meanwhile.
                run = self._store.run(found.id)
                if run is not None and run.running:
                    self._find_locked(run, path, lock is not None)
            finally:
                if lock is not None:
                    os.close(lock)

    def _find_locked(self, run: Run, path: str, free: bool) -> None:
        written = read_pid_file(path)
        pid = written.pid or run.pid  # not written where the disk of PID files is full
        if pid is None and not free:
            # Whoever holds the lock is just about to start it.
            self._find_again(run)
            return
        if written.exit_code is None or not free:
            # It may go on though the lock is free: after its PID file was removed.
            try:
                adopted = self._adopt(run, pid)
            except OSError:  # no descriptor is free: no reason to think it has ended
                self._find_again(run)
                return
            if adopted:
                return
            lives = pid is not None and self._may_live(run, pid)
            # If the keeper went between the two looks, it has written since.
            written = read_pid_file(path)
            if lives and written.exit_code is None:
                self._find_again(run)
                return
        self._record_found(run, written)

    def _may_live(self, run: Run, pid: int) -> bool:
        """Return False only where a process is gone, or is none of a run's."""
        young = self._clock() - epoch_of(run.started_at) < EXEC_S
        # In this order: an exec may end between the two looks, but not begin.
        return (young and is_in_exec(pid)) or is_process_of(run, pid)

    def _find_again(self, run: Run) -> None:
        """Look for a run a little later, at longer intervals the older it is."""
        if run.id in self._looking:
            return
        self._looking.add(run.id)

        def look() -> None:
            self._looking.discard(run.id)
            self._find(run)

        age_s = self._clock() - epoch_of(run.started_at)
        self._loop.call_later(min(max(FIND_AGAIN_S, age_s / 10), 5.0), look)

    def _try_lock(self, path: str) -> Optional[int]:
        try:
            return take_lock(path)
        except OSError:
            return None

    def _adopt(self, run: Run, pid: Optional[int]) -> bool:
        """Watch a keeper that another process started.  Return False if it is gone.

        Raises OSError where that can't be told.
        """
        if pid is None:
            return False
        try:
            active = self._watch(replace(run, pid=pid))
        except ProcessLookupError:
            return False
        # Asked after the pidfd was opened: the number can't change hands any more.
        if not is_process_of(run, pid):
            self._unwatch(active)
            return False
        self._store.note_under_way(active.run)
        if run.pid is None:
            self._store.started(active.run)
        if run.end_reason:
            self._terminate(active)
        self._on_change(run.cron_name)
        return True

    def _unwatch(self, active: ActiveRun) -> None:
        self._loop.unwatch(active.pidfd)
        os.close(active.pidfd)
        if active.timeout:
            active.timeout.cancel()
        with self._lock:
            self._by_id.pop(active.run.id, None)
            self._by_cron.pop(active.run.cron_name, None)
        active.done.set()

    def _settle_cron(self, cron_name: str) -> None:
        """Record the run before this one, if it is not yet.  The caller has the lock.

        Its status stands in the PID file, which the caller is about to empty.  Refuses
        where it goes on though the lock is free, as after its PID file was removed.
        """
        with self._lock:
            active = self._by_cron.get(cron_name)
        if active:  # also where the history can't be read
            self._refuse_while_alive(active.run)
            self._finish(active)
        for run in self._store.running(cron_name):
            self._refuse_while_alive(run)
            path = self._settings.pid_file(cron_name)
            self._record_found(run, read_pid_file(path))

    def _refuse_while_alive(self, run: Run) -> None:
        # A process gives back its memory, and with it its environment, before its
        # descriptors (do_exit in Linux): who let go of the lock by ending has none.
        if run.pid and is_process_of(run, run.pid):
            raise self._busy(run.cron_name)

    def _record_found(self, run: Run, written: PidFile) -> None:
        """Record the end of a run by what its PID file said."""
        # Asked after that was read: who empties a PID file has recorded its run before.
        known = self._store.run(run.id)
        if known and not known.running:
            return
        ours = run.pid is None or written.pid == run.pid
        if run.pid is None and written.pid:
            self._store.started(replace(run, pid=written.pid))
        if ours and written.pid and written.exit_code is not None:
            took_s = max(0.0, written.written_s - epoch_of(run.started_at))
            run = replace(
                self._with_exit_code(run, written.exit_code),
                pid=written.pid,
                completed_at=now_text(written.written_s),
                duration_ms=round(took_s * 1000),
            )
        else:
            run = self._interrupted(run, written.pid if ours else run.pid)
        self._record_end(run)
        self.changed(run.cron_name)

    def _interrupted(self, run: Run, pid: Optional[int]) -> Run:
        ended = replace(run, status=INTERRUPTED, completed_at=now_text(self._clock()))
        if pid is None:
            self._store.release(run, began=False)
            why = "The server was killed before the script began."
            return replace(ended, error=why)
        kill_leftovers(run.cron_name, run.id, pid)
        why = "The host went down, or the run's keeper was killed."
        return replace(ended, pid=pid, error=why)

    def _adopt_unrecorded(self) -> None:
        """Record runs that are under way but not in the history.

        The history was lost, or the server killed while it could not be written; what
        a keeper's environment says is enough to go on.
        """
        # Not by the table of locks: in a container it has none of a dead server.
        for path in self._settings.run_dir.glob("*.pid"):
            cron_name, pid = path.stem, read_pid_file(path).pid
            owner = run_of_process(pid) if pid else None
            if not pid or not owner or owner[0] != cron_name or self.active(owner[1]):
                continue
            cron = self._registry.crons().get(cron_name)
            known = self._store.run(owner[1])
            if known and not known.running:
                continue
            started_s = self._clock() - (process_age_s(pid) or 0.0)
            run = self._store.begin(
                Run(
                    owner[1],
                    cron_name,
                    RUNNING,
                    started_at=now_text(started_s),
                    trigger=owner[2],
                    log_file=cron.log_path if cron else None,
                )
            )
            with contextlib.suppress(OSError):
                self._adopt(run, pid)

    def _clear_cancelled(self) -> None:
        """Finish the 10 s of runs whose server was killed within them."""
        since = now_text(self._clock() - 6 * CANCEL_GRACE_S)
        for status in (CANCELLED, TIMED_OUT):
            for run in self._store.runs(status=status, limit=20):
                if run.pid and (run.completed_at or "") > since:
                    kill_leftovers(run.cron_name, run.id, run.pid)

    def close(self) -> None:
        """Stop triggering, and finish what was cancelled.  Running crons go on."""
        self.closing = True
        for active in list(self._kills.values()):
            if active.done.is_set():
                self._kill_group(active)
