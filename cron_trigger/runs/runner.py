"""The runs, for all who ask from above: trigger, cancel, what runs, the stop.

It makes the four that do the work, and holds nothing itself: `Launch` starts,
`Running` knows what runs, `Ending` ends, `Recovery` finds what others began.  Any
thread may call.
"""

from __future__ import annotations

from typing import Optional

from cron_trigger.host.lock import held_locks
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import Key, Run, Trigger
from cron_trigger.registry.texts import printable
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ending import Ending
from cron_trigger.runs.folders import RunFolder
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.launch import Launch
from cron_trigger.runs.logs import Logs
from cron_trigger.runs.recorder import Recorder
from cron_trigger.runs.recovery import Recovery
from cron_trigger.runs.scripts import Scripts


class Runner:
    """Starts crons, watches their runs, ends them, and finds them again."""

    def __init__(self, ground: Ground, scripts: Scripts, logs: Logs) -> None:
        self._on = ground
        self._logs = logs
        #: True from a stop on: nothing is started any more.
        #: Set by the main thread, once; a trigger that has passed the question is in
        #: work, and the stop waits for that.
        self.closing = False
        self._running = running = Running()
        self._folder = RunFolder(ground, running)
        recorder = Recorder(ground)
        self._ending = ending = Ending(ground, running, recorder)
        self._recovery = Recovery(ground, running, ending, recorder)
        self._launch = Launch(ground, running, ending, self._recovery, scripts, logs)

    # ---- what runs

    def active(self, run_id: int) -> Optional[ActiveRun]:
        """Return a run that is watched, or None."""
        return self._running.get(run_id)

    def run_of(self, cron_name: str) -> Optional[Run]:
        """Return a cron's running run, or None."""
        # One look: between two the run might end.
        active = self._running.of_cron(cron_name)
        return active.run if active else None

    def running(self) -> dict[str, Run]:
        """Return cron name to its running run, of those that this process watches."""
        return {n: active.run for n, active in self._running.by_cron().items()}

    def count(self) -> int:
        """Return how many runs this process watches."""
        return len(self._running.by_cron())

    def keepers(self) -> set[int]:
        """Return the PIDs of the keepers that are watched."""
        return {a.run.pid for a in self._running.by_cron().values() if a.run.pid}

    def external(self) -> dict[str, int]:
        """Return cron name to PID where somebody else holds a cron's lock."""
        # Ours before the kernel's table and after it: a run that ends or begins in
        # between is not taken for a stranger's.
        ours = self._running.by_cron()
        holders = held_locks(self._on.settings.run_dir)
        self.sync()
        ours.update(self._running.by_cron())
        return {n: p for n, p in holders.items() if n not in ours}

    # ---- what is asked for

    def trigger(self, request: Trigger) -> Run:
        """Start a cron; return its run.  Refusals say why not (see `Launch`)."""
        self.refuse_if_closing()
        return self._launch.trigger(request)

    def refuse_if_closing(self) -> None:
        if self.closing:
            raise Refusal(
                "shutting_down",
                "The server is shutting down; try again in a few seconds.",
                {"Retry-After": "5"},
            )

    def replay(self, request: Trigger) -> Optional[Key]:
        """Return what the request's idempotency key stands for already, if it does."""
        return self._launch.replay(request)

    def key_for(self, request: Trigger) -> Optional[Key]:
        """Return the idempotency key to record with what the request leads to."""
        return self._launch.key_for(request)

    def cancel(self, run_id: int, by: Optional[str]) -> Run:
        """Ask a run to end, by force after a while; else `not_found`, `not_running`."""
        # A run that ends from here on is told so by `Ending.cancel`, under its mutex.
        active = self.active(run_id)
        if active is None:
            self.sync()
            active = self.active(run_id)
        run = active.run if active else self._on.history.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        # Of several cancels one is logged, but for two at the same moment.
        begun = run.end_reason is None
        if active is None or not self._ending.cancel(active, by):
            raise Refusal(
                "not_running",
                f"Run {run_id} is not running any more; only a running run can be "
                "cancelled.",
            )
        if begun:
            who = printable(by or "a client")
            text = f"run {run_id} of {run.cron_name} is cancelled by {who}"
            self._on.say("notice", text)
        return active.run

    # ---- the run folder

    def reserve(self) -> None:
        """Take room in the run folder for each cron; at start, and when they change."""
        self._folder.reserve(self._on.registry.crons())

    def check_folder(self) -> bool:
        """See that the run folder is there; True where it was made again."""
        return self._folder.check()

    def problems(self) -> list[str]:
        """Return the faults of run and log folders that are survived at present."""
        return [*self._folder.problems(), *self._logs.problems()]

    # ---- what others began; the stop

    def settle(self) -> None:
        """Find what became of the runs that an earlier server left.  At start, once."""
        self._recovery.settle_all()

    def sync(self) -> None:
        """Learn of runs that a command line has begun or ended."""
        self._recovery.sync()

    def close(self) -> None:
        """Stop triggering.  Running crons go on; see `Ending.close`."""
        self.closing = True
        self._ending.close()
        self._folder.close()
