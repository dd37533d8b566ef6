"""`list`, `history`, `check`: what is, as tables for people or as JSON.

They read and change nothing.  A history that can't be read is said on standard error,
and by the exit status.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from typing import Mapping, Sequence

from cron_trigger.commands.place import (
    environment,
    is_guest,
    registry_of,
    say_whose,
    settings_of,
)
from cron_trigger.commands.terminal import (
    LATE,
    print_json,
    print_lines,
    print_table,
    say,
    tell,
)
from cron_trigger.history.answers import Selection
from cron_trigger.history.store import Store
from cron_trigger.host.lock import held_locks
from cron_trigger.registry.errors import EX_CONFIG
from cron_trigger.registry.file import load_registry
from cron_trigger.registry.records import RUNNING, Run
from cron_trigger.registry.settings import misspelt, service_variables
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.times import duration_text, epoch_of
from cron_trigger.runs.lateness import is_late, next_time
from cron_trigger.runs.scripts import Scripts
from cron_trigger.web.views import EXTERNAL, cron_view


def _complain(level: str, text: str) -> None:
    if level == "error":
        say(text)


def list_crons(options: argparse.Namespace) -> int:
    """List the crons as the page shows them."""
    settings = settings_of(options)
    say_whose(options, settings)
    registry = registry_of(settings)
    store = Store(settings.history, _complain, settings.run_dir, read_only=True)
    running: dict[str, Json] = dict.fromkeys(held_locks(settings.run_dir), EXTERNAL)
    running.update((run.cron_name, run.view()) for run in store.running())
    now_s, judged = time.time(), store.judged()
    views = [
        cron_view(
            cron,
            store.figures(cron.name),
            running.get(cron.name),
            next_time(cron.schedule, now_s)[1] if cron.schedule else None,
            is_late(cron, judged, store),
        )
        for cron in registry.crons().values()
    ]
    store.close()
    if options.json:
        print_json({"crons": views})
    else:
        _print_crons(views)
    for fault in registry.faults:
        tell(f"{fault}\n")
    return EX_CONFIG if registry.faults else int(store.problem is not None)


def _print_crons(views: Sequence[Mapping[str, Json]]) -> None:
    """Print a table, with a column of next times where there are any."""
    scheduled = any(view["schedule"] for view in views)
    heads = ("CRON", "STATE", "LAST RUN", *(("NEXT",) if scheduled else ()))
    print_table(
        (*heads, "RUNS", "OK", "MEDIAN", "DESCRIPTION"),
        [_cron_row(view, scheduled) for view in views],
    )


def _cron_row(view: Mapping[str, Json], scheduled: bool) -> tuple[str, ...]:
    last, rate, due = view["lastRun"], view["successRate"], view["nextRunAt"]
    state = last["status"] if last else "-"
    state = RUNNING if view["running"] else LATE if view["late"] else state
    return (
        view["cronName"],
        state,
        _local_time(last["startedAt"]) if last else "-",
        *((_local_time(due) if due else "-",) if scheduled else ()),
        str(view["runs"]),
        "-" if rate is None else f"{100 * rate:.0f} %",
        duration_text(view["medianDurationMs"]),
        view["description"],
    )


def _local_time(text: str) -> str:
    moment = datetime.fromtimestamp(epoch_of(text))
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def history(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    say_whose(options, settings)
    store = Store(settings.history, _complain, settings.run_dir, read_only=True)
    runs = store.runs(Selection(options.name, limit=options.limit))
    store.close()
    if options.name and not runs:
        registry_of(settings).get(options.name)
    if options.json:
        print_json({"runs": [run.view() for run in runs]})
    else:
        print_table(
            ("RUN", "CRON", "STATUS", "STARTED", "TOOK", "EXIT", "BY"),
            map(_run_row, runs),
        )
    return int(store.problem is not None)


def _run_row(run: Run) -> tuple[str, ...]:
    return (
        str(run.id),
        run.cron_name,
        run.status,
        _local_time(run.started_at),
        duration_text(run.duration_ms),
        run.signal or ("-" if run.exit_code is None else str(run.exit_code)),
        run.asked_by(),
    )


def check(options: argparse.Namespace) -> int:
    """Check the registry: every fault that it has, then what would fail to start."""
    settings = settings_of(options)
    crons, faults = load_registry(settings.registry, settings.log_dir)
    scripts = Scripts(service_variables())
    # As another user, root's scripts would look as if they could not be started.
    looked_at = [] if is_guest(options) else list(crons.values())
    unfit = {cron.name: scripts.fault(cron) for cron in looked_at}
    warnings = misspelt(environment()) + [
        f'{settings.registry.name}: "{name}": {fault}'
        for name, fault in unfit.items()
        if fault
    ]
    if options.json:
        answer = {"registry": str(settings.registry), "crons": len(crons)}
        print_json({**answer, "faults": faults, "warnings": warnings})
        return EX_CONFIG if faults else 0
    lines = faults + [f"warning: {warning}" for warning in warnings]
    if faults:
        say(f"{settings.registry} is invalid; a server keeps the last valid one")
    else:
        number = "1 cron" if len(crons) == 1 else f"{len(crons)} crons"
        lines.append(f"{settings.registry}: {number}, well formed")
    print_lines(lines)
    if is_guest(options):
        say("whether the scripts can start is for root to see: sudo cron-trigger check")
    return EX_CONFIG if faults else 0
