"""Views: the crons as clients see them, kept until something about them changes.

It knows each cron's entry of `/crons` as written JSON and promises that a change that
was told by `forget` is in every answer that begins after it.  Any thread may call.
There are no locks: a mark is read before the state that it stands for, and what was
kept under an older mark is made again; the worst of a race is that it is made twice.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

from cron_trigger import SERVICE
from cron_trigger.history.answers import Figures
from cron_trigger.history.store import Store
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.file import Registry
from cron_trigger.registry.strict_json import Json, json_text
from cron_trigger.registry.texts import path_text
from cron_trigger.runs.lateness import Lateness
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.schedule import Schedule
from cron_trigger.web.wire import Answer, Body, Request, json_answer, json_body

#: What a cron does that somebody else has locked, as by `flock` in a crontab's line.
EXTERNAL: Json = {"id": None, "trigger": "external"}


def cron_view(
    cron: Cron,
    figures: Figures,
    running: Json,
    next_run_at: Optional[str] = None,
    late: bool = False,
) -> dict[str, Json]:
    """Return a cron as clients see it: its entry, what it does now, its figures."""
    return {
        "cronName": cron.name,
        "description": cron.description,
        "estimatedDuration": cron.estimated_duration,
        "parameters": {n: p.view() for n, p in cron.parameters.items()},
        "logFile": path_text(cron.log_path),
        "user": cron.user,
        "running": running,
        "lastRun": figures.recent[-1].view() if figures.recent else None,
        "schedule": cron.schedule.text if cron.schedule else None,
        "nextRunAt": next_run_at,
        "late": late,
        "runs": figures.runs,
        "successRate": figures.success_rate,
        "medianDurationMs": figures.median_duration_ms,
        "recentRuns": [
            {
                "id": r.id,
                "status": r.status,
                "durationMs": r.duration_ms,
                "startedAt": r.started_at,
            }
            for r in figures.recent
        ],
    }


class Known(NamedTuple):
    """The parts below whom answers are asked of; each guards itself."""

    registry: Registry
    store: Store
    runner: Runner
    schedule: Schedule
    lateness: Lateness


class Views:
    """The answers that many ask for often."""

    def __init__(self, host: str, known: Known) -> None:
        #: Where the server listens; the daemon sets it once it does.
        self.port = 0
        #: This machine's name, as JSON.
        self.host = json_text(host)
        self._registry, self._store, self._runner, _, self._lateness = known
        #: By cron, an object that is another one after each change; "": of any.
        self._marks: dict[str, object] = {}
        #: By cron, its mark and entry; and the body of `/crons` likewise.
        self._entries: dict[str, tuple[Any, str]] = {}
        self._body: tuple[Any, Body] = ((None, None), Body())

    def forget(self, cron_name: str) -> None:
        """Drop what was kept of a cron; from any thread."""
        self._marks[cron_name] = self._marks[""] = object()

    # ---- health

    def health(self, request: Request) -> Answer:
        value: dict[str, Json] = {
            "status": "healthy",
            "service": SERVICE,
            "port": self.port,
            "available_crons": len(self._registry.crons()),
        }
        problems = self.problems()
        if problems:
            value.update(status="degraded", problems=problems)
        return json_answer(200, value)

    def problems(self) -> list[str]:
        """Return the faults that the server survives at present."""
        problems = [*self._registry.faults, *self._runner.problems()]
        if self._store.problem:
            problems.append(self._store.problem)
        return problems

    # ---- crons

    def crons(self, request: Request) -> Answer:
        crons = self._registry.crons()
        external = self._runner.external()
        times = [self._times(cron) for cron in crons.values() if cron.schedule]
        # Read before the state, see above.  Another registry is another dictionary.
        runs = {run.id for run in self._runner.running().values()}
        mark = (self._marks.get(""), runs, *external, *times)
        kept = self._body
        if kept[0][0] is not crons or kept[0][1] != mark:
            texts = ", ".join(self._text(cron, external) for cron in crons.values())
            self._body = kept = ((crons, mark), self._body_of(f'"crons": [{texts}]'))
        return Answer(200, kept[1])

    def cron(self, request: Request) -> Answer:
        """Return one cron; else `unknown_cron`."""
        cron = self._registry.get(request.part)
        text = self._text(cron, self._runner.external())
        return Answer(200, self._body_of(f'"cron": {text}'))

    def _body_of(self, member: str) -> Body:
        return json_body(f'{{"success": true, "host": {self.host}, {member}}}')

    def ended(self, name: str, run_id: int) -> Optional[str]:
        """Return a cron's entry once a run of it has ended, None where it is gone.

        The end is told a moment before the run is taken from what runs, and before what
        was kept of its cron is dropped.
        """
        cron = self._registry.crons().get(name)
        if cron is None:
            return None
        run = self._runner.run_of(name)
        running = run.view() if run and run.id != run_id else None
        return self._made(cron, running, self._times(cron))

    def _times(self, cron: Cron) -> tuple[Optional[str], bool]:
        return self._lateness.next_run_at(cron), self._lateness.late(cron)

    def _text(self, cron: Cron, external: Mapping[str, int]) -> str:
        held, times = cron.name in external, self._times(cron)
        seen = self._marks.get(cron.name)
        run = self._runner.run_of(cron.name)
        # Not the registry's version: it may be that of a file read just now.
        mark = (cron, seen, run and run.id, held, times)
        kept = self._entries.get(cron.name)
        if kept is None or kept[0] != mark:
            running = EXTERNAL if held else run.view() if run else None
            kept = (mark, self._made(cron, running, times))
            self._entries[cron.name] = kept
        return kept[1]

    def _made(
        self, cron: Cron, running: Json, times: tuple[Optional[str], bool]
    ) -> str:
        figures = self._store.figures(cron.name)
        return json_text(cron_view(cron, figures, running, *times))
