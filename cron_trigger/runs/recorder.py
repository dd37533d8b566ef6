"""What is recorded of a run's end: the row, the line in its log, and the server's.

Knows how a keeper's words, the kernel's and the clocks become one record.  Promises
that of all who saw a run end, in whichever process, one records it, and that what only
a shortage of descriptors hides is waited for.  Called by threads that may wait for a
disk, a log's as the history's; never by the loop's.  No state, no lock.
"""

from __future__ import annotations

import functools
import os
import resource
from typing import NamedTuple, Optional

from cron_trigger.host.lock import PidFile
from cron_trigger.host.processes import boot_time_s, started_of
from cron_trigger.host.shortage import insist
from cron_trigger.registry.records import COMPLETED, FAILED, INTERRUPTED, Run, replace
from cron_trigger.registry.texts import signal_name
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.active import ActiveRun
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.notes import blank_note
from cron_trigger.runs.output import RunLog

KEEPER_KILLED = "The run's keeper was killed; what was left of the run was ended."
HOST_DOWN = "The host went down while it ran."
#: What a shell exits with that can make no process: dash and ash, bash.
NO_PROCESS_CODES = (2, 254)
NO_PROCESS = "Not started: the system could make no further process for it."


class Usage(NamedTuple):
    """What the kernel tells the parent of a keeper that has ended."""

    exit_code: Optional[int] = None
    exited: bool = False
    cpu_seconds: Optional[float] = None
    max_rss_bytes: Optional[int] = None


class Recorder:
    """Records ends."""

    #: An end seen later than this is dated by what the keeper wrote: whoever saw it was
    #: busy, or stopped.  Below, our own clock is the finer one.
    LAG_S = 0.05

    def __init__(self, ground: Ground) -> None:
        self._on = ground

    def end(self, active: ActiveRun) -> PidFile:
        """Record the end of a run whose keeper is gone; return what that wrote."""
        written = insist(active.written)
        self.record(self._ended(active, written, reap(active)))
        return written

    def _ended(self, active: ActiveRun, written: PidFile, usage: Usage) -> Run:
        run = active.run
        now_s, boot_s = self._on.clock(), boot_time_s()
        known, exit_code = written.exit_code is not None, written.exit_code
        if not known and usage.exited:
            # A full disk took no status, or there was no process for the script.
            no_process = written.pid is not None and usage.exit_code in NO_PROCESS_CODES
            exit_code = None if no_process else usage.exit_code
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
        log = insist(lambda: RunLog(run))
        try:
            if log.descriptor is not None:
                run = replace(run, log_end=log.end())
            run = replace(run, error=run.error or log.fault())
            # None where another process was first: it has written the line, too.
            ended = insist(functools.partial(self._on.history.end, run))
            blank_note(self._on.settings.pid_file(run.cron_name), run)
            if ended is None:
                return
            text = f"run {ended.id} {ended.status}: {ended.outcome()}"
            insist(lambda: log.write_line(text))
        finally:
            log.close()
        level = "info" if ended.status == COMPLETED else "warning"
        self._on.say(
            level,
            f"run {ended.id} of {ended.cron_name} {ended.status}: {ended.outcome()}",
        )


def reap(active: ActiveRun) -> Usage:
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
