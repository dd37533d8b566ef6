"""Answers about runs: one, a page of them, what runs now, a cron's figures and totals.

Nothing is changed here.  The answers have both histories in them, and ask nobody but
`database`.  Any thread may call.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence, Union

from cron_trigger.history.database import Database
from cron_trigger.history.schema import RUN_JSON, RUN_ROW, run_of
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import CANCELLED, COMPLETED, Run
from cron_trigger.registry.strict_json import json_text

RECENT_RUNS = 30
RUNS_PAGE, RUNS_PAGE_LIMIT = 50, 500


class Selection(NamedTuple):
    """Which runs are asked for: of all that fit, the newest `limit`, the newest first.

    `status` may be one or several; of `since` (inclusive) and `until` (exclusive),
    which bound `started_at`, the texts are as `now_text` writes them.
    """

    cron_name: Optional[str] = None
    status: Union[str, Sequence[str], None] = None
    before: Optional[int] = None
    limit: int = RUNS_PAGE
    since: Optional[str] = None
    until: Optional[str] = None

    def query(self, columns: str) -> tuple[str, list[Any]]:
        """Return the question in SQL, and its values."""
        status = self.status or ()
        statuses = [status] if isinstance(status, str) else status
        # `+status`: the index of the cron is the better one where both are given, and
        # the order by id is the better one where several are.
        plus = "+" if self.cron_name or len(statuses) > 1 else ""
        among = f"{plus}status in ({', '.join('?' * len(statuses))})"
        older = None if self.before is None else min(self.before, INTEGER_LIMIT - 1)
        given: dict[str, Sequence[Any]] = {
            "cron_name = ?": [self.cron_name or None],
            among: statuses,
            "started_at >= ?": [self.since or None],
            "started_at < ?": [self.until or None],
            "id < ?": [older],
        }
        asked = {test: v for test, v in given.items() if v and v[0] is not None}
        where = f"where {' and '.join(asked)} " if asked else ""
        values = [value for several in asked.values() for value in several]
        query = f"select {columns} from cron_executions {where}order by id desc limit ?"
        return query, [*values, self.limit]


NEWEST = Selection()


class Figures(NamedTuple):
    """What a cron's history says in numbers.  `recent` is oldest first."""

    runs: int
    completed: int
    recent: tuple[Run, ...]

    @property
    def success_rate(self) -> Optional[float]:
        return round(self.completed / self.runs, 4) if self.runs else None

    @property
    def median_duration_ms(self) -> Optional[int]:
        durations = sorted(
            run.duration_ms for run in self.recent if run.duration_ms is not None
        )
        if not durations:
            return None
        middle = len(durations) // 2
        if len(durations) % 2:
            return durations[middle]
        return (durations[middle - 1] + durations[middle]) // 2


class Answers:
    """What can be asked about the runs of a history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, run_id: int) -> Optional[Run]:
        """Return a run, or None where there is none of this id."""
        if not 0 < run_id < INTEGER_LIMIT:
            return None
        # As it stood at some moment of this call: who acts on a run that is running
        # here asks again under its lock or changes it by compare-and-set.
        query = f"select {RUN_ROW} from cron_executions where id = ?"
        rows = self._database.read(query, [run_id])
        return run_of(rows[0]) if rows else None

    def runs(self, wanted: Selection = NEWEST) -> list[Run]:
        """Return runs, newest first."""
        return [run_of(row) for row in self._database.read(*wanted.query(RUN_ROW))]

    def run_texts(self, wanted: Selection = NEWEST) -> list[tuple[int, str]]:
        """Return the same runs' ids and views, as JSON.

        Written by SQLite where it can: that takes a third of the time.
        """
        if self._database.writes_json():
            columns = f"id, json_object({RUN_JSON})"
            return self._database.read(*wanted.query(columns))
        return [(run.id, json_text(run.view())) for run in self.runs(wanted)]

    def running(self, cron_name: Optional[str] = None) -> list[Run]:
        """Return the runs that are recorded as running, the newest first."""
        # The literal lets SQLite use the partial index; the plus keeps it from the
        # index of all of a cron's runs.
        test = "and +cron_name = ? " if cron_name else ""
        rows = self._database.read(
            f"select {RUN_ROW} from cron_executions where status = 'running' {test}"
            "order by id desc",
            [cron_name] if cron_name else [],
        )
        return [run_of(row) for row in rows]

    def last_start(self, cron_name: str) -> Optional[str]:
        """Return when a cron last began a run, whoever asked for it."""
        query = "select started_at from cron_executions where cron_name = ? "
        rows = self._database.read(query + "order by id desc limit 1", [cron_name])
        return rows[0][0] if rows else None

    def starts_since(self, cron_name: str, since: str) -> list[str]:
        """Return when a cron's runs began, of those from a time on."""
        query = "select started_at from cron_executions where cron_name = ? "
        rows = self._database.read(query + "and started_at >= ?", [cron_name, since])
        return [row[0] for row in rows]

    def figures(self, cron_name: str) -> Figures:
        """Return a cron's figures: totals of all time, and its last ended runs."""
        rows = self._database.read(
            f"select {RUN_ROW} from cron_executions where cron_name = ? "
            "and status <> 'running' order by id desc limit ?",
            [cron_name, RECENT_RUNS],
        )
        # Another moment than the rows above: an end in between counts here already.
        totals = {status: runs for _, status, runs, _, _ in self.totals(cron_name)}
        return Figures(
            sum(totals.values()),
            totals.get(COMPLETED, 0),
            tuple(map(run_of, reversed(rows))),
        )

    def totals(
        self, cron_name: Optional[str] = None
    ) -> list[tuple[str, str, int, int, Optional[str]]]:
        """Return (cron, status, runs, summed ms, last end) rows, pruned runs included.

        Counters for Prometheus: they never fall, neither by a restart nor by pruning.
        The last success of a cron is the last end of its row `completed`.
        """
        return self._database.read(
            "select cron_name, status, runs, duration_ms, last_completed_at "
            f"from run_totals {'where cron_name = ?' if cron_name else ''}",
            [cron_name] if cron_name else [],
        )

    def failures_in_a_row(self) -> dict[str, int]:
        """Return how many runs of each cron have failed since it last completed.

        Also those that timed out or were interrupted; a cancelled one says nothing.
        """
        return dict(
            self._database.read(
                "select cron_name, sum(in_a_row) from run_totals where status <> ? "
                "group by cron_name",
                [CANCELLED],
            )
        )
