"""Metrics."""

from __future__ import annotations

from typing import Iterable, Iterator, Optional, Sequence, Tuple

from cron_trigger import VERSION
from cron_trigger.history.store import Store
from cron_trigger.registry.file import Registry
from cron_trigger.registry.records import COMPLETED, ENDED_STATUSES
from cron_trigger.registry.times import epoch_of
from cron_trigger.runs.runner import Runner

#: A metric's suffix, labels and value.
Sample = Tuple[str, str, float]


class Metrics:
    """The figures in Prometheus' text format, version 0.0.4."""

    def __init__(self, registry: Registry, store: Store, runner: Runner) -> None:
        """Take the figures as they stand now."""
        self._crons = registry.crons()
        self._totals = {row[:2]: row[2:] for row in store.totals()}
        self._names = sorted({*self._crons, *(cron for cron, _ in self._totals)})
        self._busy = {*runner.running(), *runner.external()}

    def text(self) -> str:
        """Return all families."""
        families = (
            ("cron_trigger_build_info", "gauge", "The version that runs.", self._info),
            ("cron_trigger_runs_total", "counter", "Ended runs, by how.", self._runs),
            ("cron_trigger_running", "gauge", "1 while it runs.", self._running),
            (
                "cron_trigger_run_duration_seconds",
                "summary",
                "How long runs took.",
                self._durations,
            ),
            (
                "cron_trigger_last_run_timestamp_seconds",
                "gauge",
                "End of the last run.",
                lambda: self._ends(ENDED_STATUSES),
            ),
            (
                "cron_trigger_last_success_timestamp_seconds",
                "gauge",
                "End of the last run that completed.",
                lambda: self._ends((COMPLETED,)),
            ),
        )
        return "".join(
            _metric_family(name, kind, what, samples())
            for name, kind, what, samples in families
        )

    def _total(self, name: str, status: str) -> Tuple[int, int, Optional[str]]:
        """Return runs, summed milliseconds and the last end."""
        return self._totals.get((name, status), (0, 0, None))

    def _info(self) -> Iterator[Sample]:
        yield "", f'version="{VERSION}"', 1

    def _runs(self) -> Iterator[Sample]:
        for name in self._names:
            for status in ENDED_STATUSES:
                labels = f'cron="{name}",status="{status}"'
                yield "", labels, self._total(name, status)[0]

    def _running(self) -> Iterator[Sample]:
        for name in self._crons:
            yield "", f'cron="{name}"', int(name in self._busy)

    def _durations(self) -> Iterator[Sample]:
        for name in self._names:
            totals = [self._total(name, status) for status in ENDED_STATUSES]
            yield "_sum", f'cron="{name}"', sum(total[1] for total in totals) / 1000
            yield "_count", f'cron="{name}"', sum(total[0] for total in totals)

    def _ends(self, statuses: Sequence[str]) -> Iterator[Sample]:
        for name in self._names:
            texts = [self._total(name, status)[2] for status in statuses]
            ends = [epoch_of(text) for text in texts if text]
            if ends:
                yield "", f'cron="{name}"', max(ends)


def _metric_family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [
        f"{name}{suffix}{{{labels}}} {value:.15g}" for suffix, labels, value in samples
    ]
    return "\n".join(lines) + "\n"
