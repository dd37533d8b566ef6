"""Metrics: the figures in Prometheus' text format, version 0.0.4.

Counters come from the history's totals, so they never fall, neither by a restart nor
by pruning.  A `Metrics` is made for one answer, by the thread that gives it.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Optional, Sequence, Tuple

from cron_trigger import VERSION
from cron_trigger.history.store import Store
from cron_trigger.registry.file import Registry
from cron_trigger.registry.records import COMPLETED, ENDED_STATUSES
from cron_trigger.registry.times import epoch_of
from cron_trigger.runs.lateness import Lateness
from cron_trigger.runs.runner import Runner
from cron_trigger.web.views import Views

#: Name, type and meaning; a method of Metrics has the samples of each.
FAMILIES = (
    ("build_info", "gauge", "The version that runs."),
    ("degraded", "gauge", "1 while /health is degraded."),
    ("runs_total", "counter", "Ended runs, by how."),
    ("running", "gauge", "1 while it runs."),
    ("late", "gauge", "1 while a scheduled run is missed."),
    ("consecutive_failures", "gauge", "Failed runs since the last that completed."),
    ("run_duration_seconds", "summary", "How long runs took."),
    ("last_run_timestamp_seconds", "gauge", "End of the last run."),
    (
        "last_success_timestamp_seconds",
        "gauge",
        "End of the last run that completed, 0 if none did.",
    ),
    ("scheduled_pending", "gauge", "Planned triggers that are pending."),
)
#: A metric's suffix, labels and value.
Sample = Tuple[str, str, float]


class Metrics:
    """All families, as they stand when it is made."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        runner: Runner,
        views: Views,
        lateness: Lateness,
    ) -> None:
        self._crons = registry.crons()
        self._store = store
        self._lateness = lateness
        self._totals = {row[:2]: row[2:] for row in store.totals()}
        self._names = sorted({*self._crons, *(cron for cron, _ in self._totals)})
        self._busy = {*runner.running(), *runner.external()}
        self._views = views

    def text(self) -> str:
        """Return all families."""
        return "".join(
            _family(f"cron_trigger_{name}", kind, what, getattr(self, f"_{name}")())
            for name, kind, what in FAMILIES
        )

    def _total(self, name: str, status: str) -> Tuple[int, int, Optional[str]]:
        """Return runs, summed milliseconds and the last end."""
        return self._totals.get((name, status), (0, 0, None))

    def _build_info(self) -> Iterator[Sample]:
        yield "", f'{{version="{VERSION}"}}', 1

    def _degraded(self) -> Iterator[Sample]:
        yield "", "", int(bool(self._views.problems()))

    def _scheduled_pending(self) -> Iterator[Sample]:
        yield "", "", len(self._store.pending())

    def _runs_total(self) -> Iterator[Sample]:
        for name in self._names:
            for status in ENDED_STATUSES:
                labels = f'{{cron="{name}",status="{status}"}}'
                yield "", labels, self._total(name, status)[0]

    def _running(self) -> Iterator[Sample]:
        for name in self._crons:
            yield "", _of(name), int(name in self._busy)

    def _late(self) -> Iterator[Sample]:
        for cron in self._crons.values():
            yield "", _of(cron.name), int(self._lateness.late(cron))

    def _consecutive_failures(self) -> Iterator[Sample]:
        failures = self._store.failures_in_a_row()
        for name in self._crons:
            yield "", _of(name), failures.get(name, 0)

    def _run_duration_seconds(self) -> Iterator[Sample]:
        for name in self._names:
            totals = [self._total(name, status) for status in ENDED_STATUSES]
            yield "_sum", _of(name), sum(total[1] for total in totals) / 1000
            yield "_count", _of(name), sum(total[0] for total in totals)

    def _last_run_timestamp_seconds(self) -> Iterator[Sample]:
        return self._ends(ENDED_STATUSES)

    def _last_success_timestamp_seconds(self) -> Iterator[Sample]:
        return self._ends((COMPLETED,), never=0)

    def _ends(
        self, statuses: Sequence[str], never: Optional[float] = None
    ) -> Iterator[Sample]:
        for name in self._names:
            texts = [self._total(name, status)[2] for status in statuses]
            ends = [epoch_of(text) for text in texts if text]
            if ends or never is not None:
                yield "", _of(name), max(ends, default=never or 0)


def _of(cron_name: str) -> str:
    return f'{{cron="{cron_name}"}}'


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{suffix}{labels} {v:.15g}" for suffix, labels, v in samples]
    return "\n".join(lines) + "\n"
