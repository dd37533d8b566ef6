"""How a run ends: by itself, by a cancel or its time limit, with its keeper killed.

    pidfd -> read what the keeper wrote, once -> history.end -> log line -> events

A script that ended by itself is recorded by the loop's thread, in `keeper_gone`,
without a look at any other process.  A run that is to be ended gets a thread of its
own, which sends SIGTERM to the whole family, SIGKILL after the cron's `killAfter`, and
records the end when nobody is left; until then the run counts as running, and its lock
is held.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import select
import signal
import threading
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from cron_trigger.host.lock import PidFile
from cron_trigger.host.processes import (
    TICKS,
    Process,
    boot_time_s,
    held_still,
    process,
    send,
    started_of,
)
from cron_trigger.registry.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    TIMED_OUT,
    Run,
    replace,
)
from cron_trigger.registry.texts import signal_name
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.output import RunLog

KEEPER_KILLED = "The run's keeper was killed; what was left of the run was ended."
HOST_DOWN = "The host went down while it ran."
NO_PROCESS = "Not started: the system could make no further process for it."


class Usage(NamedTuple):
    """What the kernel tells the parent of a keeper that has ended."""

    exit_code: Optional[int] = None
    exited: bool = False
    cpu_seconds: Optional[float] = None
    max_rss_bytes: Optional[int] = None


class Ending:
    """Ends runs and records their ends, each once."""

    #: A family that is being ended is looked at again after so long, at least.
    LOOK_S = 0.02
    LOOK_LIMIT_S = 0.5
    #: A keeper without a script has so long to write the status and go.
    KEEPER_S = 5.0
    #: An end seen later than this is dated by what the keeper wrote: the loop was busy,
    #: or stopped.  Below, our own clock is the finer one.
    LAG_S = 0.05

    def __init__(
        self,
        ground: Ground,
        running: Running,
    ) -> None:
        self._on = ground
        self._running = running
        self._lock = threading.Lock()  # guards the table below
        self._threads: Dict[int, threading.Thread] = {}
        # Set at a stop; the threads that end families look at it.
        self._hurry = threading.Event()

    # ---- a keeper goes

    def keeper_gone(self, active: ActiveRun) -> None:
        """Record the end of a run whose keeper is gone; in the loop's thread.

        Where the run is being ended, or its keeper was killed, a thread sees to what
        is left of it first.
        """
        if active.alive():
            # A descriptor's number may be another's by now: the loop was told of it
            # before a thread closed it, and had it given anew for this run.
            return
        with active.mutex:
            if active.pidfd is not None:
                self._on.loop.unwatch(active.pidfd)
            if active.run.end_reason is not None or active.ending:
                return
            # Under the mutex: of a cancel that comes now and this end one is first.
            if not self._was_killed(active):
                active.ending = True
        if active.ending:
            self._finish(active)
        else:
            self.interrupt(active)

    def _was_killed(self, active: ActiveRun) -> bool:
        """Return True where a keeper that is gone went before its script."""
        if active.written().exit_code is not None:
            return False
        if active.child is None:
            return True
        # It went by itself, but wrote nothing: it could start nothing.
        options = os.WEXITED | os.WNOWAIT
        peeked = os.waitid(os.P_PID, active.child.pid, options)
        return peeked is None or peeked.si_code != os.CLD_EXITED

    # ---- a run is to be ended

    def cancel(self, active: ActiveRun, by: Optional[str]) -> bool:
        """Have a run end.  Return False where its script has ended by itself."""
        return self._stop(active, CANCELLED, by)

    def _reach_limit(self, active: ActiveRun) -> None:
        """End a run that has reached its time limit."""
        if self._stop(active, TIMED_OUT, None):
            run = active.run
            self._on.say(
                "warning",
                f"run {run.id} of {run.cron_name} has reached its time limit and is "
                "being ended",
            )

    def interrupt(self, active: ActiveRun) -> None:
        """End what a killed keeper has left, then record the run."""
        with active.mutex:
            if active.run.end_reason is None:
                reason = INTERRUPTED
                active.run = self._on.history.set_end_reason(active.run, reason, None)
        self.go_on(active)

    def _stop(self, active: ActiveRun, reason: str, by: Optional[str]) -> bool:
        """Decide a run's end, and send SIGTERM; False where the script ended before."""
        # Read without the mutex, and again below under it: this saves the stop.
        if active.run.end_reason is not None:
            return not active.done.is_set()
        with self._held_script(active) as living:
            if not living:
                return False
            # The script stands still, but another cancel or the limit may have come
            # first.
            with active.mutex:
                if active.run.end_reason is not None or active.ending:
                    return not active.ending
                # Before the signal is sent: whoever records the end, this process or
                # its successor, finds the reason there.
                active.run = self._on.history.set_end_reason(active.run, reason, by)
            left = active.family.look()
            active.note_family()  # first: we may be killed between the two
            self._terminate(active, left)
        self._on.changed(active.run.cron_name)
        self.go_on(active)
        return True

    @contextlib.contextmanager
    def _held_script(self, active: ActiveRun) -> Iterator[bool]:
        """Hold the script still meanwhile; yield False where it has ended by itself.

        A keeper that has just been started may have no script yet.
        """
        deadline_s = time.monotonic() + self.KEEPER_S
        script = active.family.script()
        while script is None and time.monotonic() < deadline_s:
            if not active.alive() or active.written().exit_code is not None:
                break
            time.sleep(0.001)
            script = active.family.script()
        if script is None or not script.alive:
            yield False
            return
        # A server that is killed just now would leave it stopped for ever: its
        # successor finds this note, and has it go on.
        note = active.note("held")
        try:
            note.write_text(str(script.pid))
        except OSError:  # no room
            yield True
            return
        try:
            with held_still(script) as living:
                yield living
        finally:
            note.unlink(missing_ok=True)

    def go_on(self, active: ActiveRun) -> None:
        """End a run whose end was decided, by this process or one before it."""
        with self._lock:
            if active.run.id in self._threads:
                return
            # In the table before `_end` can take it out: that waits for `_lock`.
            name, work = f"ending {active.run.id}", functools.partial(self._end, active)
            thread = threading.Thread(target=work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no memory, say: the next moment may have some
                self._on.loop.call_later(1.0, lambda: self.go_on(active))
                return
            self._threads[active.run.id] = thread

    def _end(self, active: ActiveRun) -> None:
        """End a family, and record its run when nobody of it is left.

        What came after the first SIGTERM is somebody's clean-up: it has until the
        SIGKILL.
        """
        try:
            self._empty(active)
            with active.mutex:
                # The keeper's end, seen by the loop, may have been recorded already.
                first, active.ending = not active.ending, True
            if first:
                self._finish(active)
        finally:
            with self._lock:
                self._threads.pop(active.run.id, None)

    def _empty(self, active: ActiveRun) -> None:
        """Return when the family is gone, and its keeper."""
        deadline_s = time.monotonic() + active.kill_after_s
        pause_s = self.LOOK_S
        lonely_s: Optional[float] = None
        noted = 0
        while True:
            left, kept = active.family.look(), active.alive()
            if len(active.family.known()) > noted:
                noted = len(active.family.known())
                active.note_family()
            now_s = time.monotonic()
            if not left and not kept:
                return
            # At a stop the lock goes with us, where no keeper holds it.
            if now_s >= deadline_s or (self._hurry.is_set() and not kept):
                for one in left:
                    send(one, signal.SIGKILL)
            else:
                self._terminate(active, left)
            lonely_s = (lonely_s or now_s) if not left else None
            if lonely_s is not None and now_s - lonely_s > self.KEEPER_S:
                self._kill_keeper(active)
            until_kill_s = deadline_s - now_s
            limit_s = until_kill_s if until_kill_s > 0 else self.LOOK_LIMIT_S
            keeper = [active.run.pid] if kept and active.run.pid else []
            pids = [*keeper, *(one.pid for one in left[:16])]
            wait_for_any(pids, min(pause_s, limit_s))
            pause_s = min(pause_s * 1.5, self.LOOK_LIMIT_S)

    def _terminate(self, active: ActiveRun, left: Sequence[Process]) -> None:
        """SIGTERM whoever has not got it and was there when the first one did."""
        first = active.told_s is None
        if active.told_s is None:
            active.told_s = boot_time_s()
        for one in left:
            # A start is known to a tick: one in that of the first SIGTERM may be the
            # clean-up's, which that signal has begun.
            before = first or one.began_s + 1 / TICKS <= active.told_s
            if before and one not in active.told:
                active.told.add(one)
                send(one, signal.SIGTERM)
                # What somebody has stopped would take notice of it never.
                one.state in "Tt" and send(one, signal.SIGCONT)

    def _kill_keeper(self, active: ActiveRun) -> None:
        keeper = process(active.run.pid or 0)
        if keeper and keeper.started == active.started:
            send(keeper, signal.SIGKILL)

    # ---- the record

    def _finish(self, active: ActiveRun) -> None:
        """Record an end, and let go of the lock.  Called once for each run."""
        try:
            self.record(self._ended(active, active.written(), self._reap(active)))
        finally:
            if active.timeout:
                active.timeout.cancel()
            if active.pidfd is not None:
                self._on.loop.unwatch(active.pidfd)
            # Recorded, then out of the table, unlocked, and told: whoever finds the
            # lock free finds the end in the history.
            self._running.remove(active)
            active.close()
            active.done.set()
            self._on.changed(active.run.cron_name)
            self._on.loop.call_soon(lambda: None)  # `run` looks at `done` in there

    def _reap(self, active: ActiveRun) -> Usage:
        """Return what the kernel tells of a keeper, where this is its parent."""
        if active.child is None:
            return Usage()
        try:
            # It is gone: no wait; and nobody else reaps a keeper in the table.
            _, status, usage = os.wait4(active.child.pid, 0)
        except ChildProcessError:
            return Usage()
        active.child.returncode = os.waitstatus_to_exitcode(status)
        # A process begins with the mark of the one that it was made from (execve(2)
        # keeps it): a small script's own peak can't be told from the server's.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Usage(
            active.child.returncode,
            os.WIFEXITED(status),
            round(usage.ru_utime + usage.ru_stime, 6),
            usage.ru_maxrss * 1024 if usage.ru_maxrss > own else None,
        )

    def _ended(self, active: ActiveRun, written: PidFile, usage: Usage) -> Run:
        run = active.run
        now_s, boot_s = self._on.clock(), boot_time_s()
        known, exit_code = written.exit_code is not None, written.exit_code
        if written.pid is None and usage.exited:
            exit_code = usage.exit_code  # a full disk took neither number nor status
        lag_s = now_s - written.written_s if known else 0.0
        if active.began_s is None:
            took_s = now_s - lag_s - epoch_of(run.started_at)
        else:
            took_s = boot_s - active.began_s
            # Taken off only where it can be true: the wall clock may have been set.
            lag_s = lag_s if self.LAG_S < lag_s < took_s else 0.0
            took_s -= lag_s
        return replace(
            with_outcome(run, exit_code, usage.exited),
            completed_at=now_text(now_s - lag_s),
            duration_ms=max(0, round(took_s * 1000)),
            cpu_seconds=usage.cpu_seconds,
            max_rss_bytes=usage.max_rss_bytes,
        )

    def record(self, run: Run) -> None:
        """Record, log and tell a run's end, unless somebody did so before."""
        if run.error == NO_PROCESS:  # a retry with its key starts it
            self._on.history.release(run, began=True)
        log = RunLog(run)
        try:
            if log.descriptor is not None:
                run = replace(run, log_end=log.end())
            run = replace(run, error=run.error or log.fault())
            # None where another process was first: it has written the line, too.
            ended = self._on.history.end(run)
            if ended is None:
                return
            text = f"run {ended.id} {ended.status}: {ended.outcome()}"
            log.write_line(text)
        finally:
            log.close()
        level = "info" if ended.status == COMPLETED else "warning"
        self._on.say(
            level,
            f"run {ended.id} of {ended.cron_name} {ended.status}: {ended.outcome()}",
        )

    # ---- watching

    def watch(self, active: ActiveRun) -> None:
        """Count a run as running, and have the loop tell when its keeper goes.

        Also where no descriptor is free for that: it is tried again, and the lock that
        we hold keeps every other run of the cron out meanwhile.
        """
        # In the table before it is watched: its end takes it out.
        self._running.add(active)
        self._limit(active)
        self._open(active)

    def _open(self, active: ActiveRun) -> None:
        if active.done.is_set():
            return
        try:
            active.pidfd = os.pidfd_open(active.run.pid or 0)
        except ProcessLookupError:
            self._on.loop.call_soon(lambda: self.keeper_gone(active))
        except OSError:
            self._on.loop.call_later(1.0, lambda: self._open(active))
        else:
            self._on.loop.watch(active.pidfd, lambda _events: self.keeper_gone(active))

    def _limit(self, active: ActiveRun) -> None:
        """Arrange for the end of a run that takes too long, by the boot clock."""
        if active.timeout_s is None:
            return
        used_s = boot_time_s() - active.began_s if active.began_s is not None else 0.0

        def reached() -> None:
            work = functools.partial(self._reach_limit, active)
            name = f"limit {active.run.id}"
            try:
                threading.Thread(target=work, name=name, daemon=True).start()
            except RuntimeError:
                active.timeout = self._on.loop.call_later(1.0, reached)

        left_s = max(0.0, active.timeout_s - used_s)
        active.timeout = self._on.loop.call_later(left_s, reached)

    def close(self, patience_s: float = 3.0) -> None:
        """At a stop: end at once what only our own copy of a lock keeps others from."""
        self._hurry.set()
        deadline_s = time.monotonic() + patience_s
        with self._lock:
            threads = list(self._threads.items())
        for run_id, thread in threads:
            active = self._running.get(run_id)
            if active and not active.alive():
                thread.join(max(0.0, deadline_s - time.monotonic()))


def with_outcome(run: Run, exit_code: Optional[int], exited: bool = False) -> Run:
    """Return a run as its exit status says; without one, with the reason.

    `exited`: the keeper was not killed, but wrote nothing, since it had no script.
    """
    if exit_code is not None:
        status = COMPLETED if exit_code == 0 else FAILED
        name = signal_name(exit_code)
        return replace(run, status=status, exit_code=exit_code, signal=name)
    if exited and run.end_reason is None:
        return replace(run, status=FAILED, error=NO_PROCESS)
    down = run.keeper_started is not None and started_of(run.keeper_started) is None
    return replace(run, status=INTERRUPTED, error=HOST_DOWN if down else KEEPER_KILLED)


def wait_for_any(pids: Sequence[int], timeout_s: float) -> None:
    """Wait until one of some processes has ended, or the time is over."""
    poll = select.poll()
    descriptors: List[int] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            descriptors.append(os.pidfd_open(pid))
            poll.register(descriptors[-1], select.POLLIN)
    try:
        poll.poll(max(1, round(timeout_s * 1000)))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
