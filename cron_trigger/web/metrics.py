"""Metrics: the figures in Prometheus' text format, version 0.0.4.

Counters come from the history's totals, so they never fall, neither by a restart nor
by pruning.  Called by the thread that gives the answer, with the parts that know.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Optional, Sequence

from cron_trigger import VERSION
from cron_trigger.registry.records import COMPLETED, ENDED_STATUSES
from cron_trigger.registry.times import epoch_of
from cron_trigger.web.views import Known, Views

#: Name, type and meaning; `metrics` has the samples of each, in this order.
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
Sample = tuple[str, str, float]
#: By the status that runs ended with: how many, their milliseconds, the last end.
Totals = dict[str, tuple[int, int, Optional[str]]]
NONE = (0, 0, None)


def metrics(known: Known, views: Views) -> str:
    registry, store, runner, _, lateness = known
    crons = registry.crons()
    totals: dict[str, Totals] = {name: {} for name in crons}
    for name, status, count, duration_ms, ended_at in store.totals():
        totals.setdefault(name, {})[status] = count, duration_ms, ended_at
    totals = dict(sorted(totals.items()))
    busy = {*runner.running(), *runner.external()}
    failures = store.failures_in_a_row()
    samples: tuple[Iterable[Sample], ...] = (
        [("", f'{{version="{VERSION}"}}', 1)],
        [("", "", bool(views.problems()))],
        [
            ("", f'{{cron="{name}",status="{status}"}}', of.get(status, NONE)[0])
            for name, of in totals.items()
            for status in ENDED_STATUSES
        ],
        [("", _of(name), name in busy) for name in crons],
        [("", _of(cron.name), lateness.late(cron)) for cron in crons.values()],
        [("", _of(name), failures.get(name, 0)) for name in crons],
        _durations(totals),
        _ends(totals, ENDED_STATUSES),
        _ends(totals, (COMPLETED,), never=0),
        [("", "", len(store.pending()))],
    )
    return "".join(map(_family, FAMILIES, samples))


def _durations(totals: dict[str, Totals]) -> Iterator[Sample]:
    for name, of in totals.items():
        yield "_sum", _of(name), sum(total[1] for total in of.values()) / 1000
        yield "_count", _of(name), sum(total[0] for total in of.values())


def _ends(
    totals: dict[str, Totals], statuses: Sequence[str], never: Optional[float] = None
) -> Iterator[Sample]:
    for name, of in totals.items():
        texts = [of.get(status, NONE)[2] for status in statuses]
        ends = [epoch_of(text) for text in texts if text]
        if ends or never is not None:
            yield "", _of(name), max(ends, default=never or 0)


def _of(cron_name: str) -> str:
    return f'{{cron="{cron_name}"}}'


def _family(family: tuple[str, str, str], samples: Iterable[Sample]) -> str:
    name, kind, what = f"cron_trigger_{family[0]}", *family[1:]
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{suffix}{labels} {v:.15g}" for suffix, labels, v in samples]
    return "\n".join(lines) + "\n"
