"""The history as the rest of the program has it: every question and every change.

Each is a method of the part that knows it, put here under its own name; nothing else
happens here.  Any thread may call any of them, and none raises for a fault of a disk:
`problem` then says what is wrong.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Optional

from cron_trigger.history.answers import Answers, Selection
from cron_trigger.history.clock import Clock
from cron_trigger.history.database import Database
from cron_trigger.history.events import Events, Keys
from cron_trigger.history.plans import Plans
from cron_trigger.history.pruning import Pruning
from cron_trigger.history.runs import Runs
from cron_trigger.history.schedules import Schedules
from cron_trigger.registry.times import epoch_of


class Store:
    """The history: composes its parts."""

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        run_dir: Optional[Path] = None,
        on_heal: Optional[Callable[[], None]] = None,
        read_only: bool = False,
    ) -> None:
        """Open a history; one that is to be changed needs the folder of PID files.

        `on_heal`, the server's, is called, in a thread of its own, after the history
        could be written again.  With `read_only` nothing is made, moved or changed.
        Raises ConfigError for a history of a newer version.
        """
        # The one `Database` of a process: its lock is what makes all of these safe.
        database = Database(path, say, run_dir, on_heal, read_only)
        self._database = database
        self.path = path
        self.retry = database.retry
        self._put_answers(Answers(database))
        self._clock = Clock(path.with_name(Clock.NAME), self._newest_s, say)

        events = Events(database)
        self.tell = events.tell
        self.last_event_id = events.last_event_id
        self.events_after = events.events_after

        self.key = Keys(database, self._clock).key

        plans = Plans(database, events)
        self.schedule, self.end_scheduled = plans.schedule, plans.end_scheduled
        self.scheduled, self.pending = plans.scheduled, plans.pending
        self.ended_scheduled = plans.ended_scheduled

        schedules = Schedules(database, events)
        self.judged, self.judge = schedules.judged, schedules.judge
        self._put_runs(Runs(database, events, plans))
        self.prune = Pruning(database, self._clock).prune

    def _newest_s(self) -> Optional[float]:
        """Return when the newest run began; None where there is none."""
        newest = self.runs(Selection(limit=1))
        with contextlib.suppress(ValueError):  # somebody else's
            return epoch_of(newest[0].started_at) if newest else None
        return None

    def close(self) -> None:
        """Write what is left, if that can be done at once, and close the files."""
        self._clock.close()
        self._database.close()

    def _put_runs(self, runs: Runs) -> None:
        self.begin, self.started, self.end = runs.begin, runs.started, runs.end
        self.set_end_reason, self.release = runs.set_end_reason, runs.release
        self.note_under_way = runs.note_under_way

    def _put_answers(self, answers: Answers) -> None:
        self.run, self.running = answers.run, answers.running
        self.runs, self.run_texts = answers.runs, answers.run_texts
        self.last_start = answers.last_start
        self.starts_since = answers.starts_since
        self.figures, self.totals = answers.figures, answers.totals
        self.failures_in_a_row = answers.failures_in_a_row

    @property
    def problem(self) -> Optional[str]:
        """What is wrong with the history now, in one sentence; None if all is well."""
        return self._database.problem()
