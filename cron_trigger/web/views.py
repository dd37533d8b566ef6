"""Views."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from cron_trigger import SERVICE
from cron_trigger.history.answers import Figures
from cron_trigger.history.store import Store
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.file import Registry
from cron_trigger.registry.strict_json import Json, json_text
from cron_trigger.runs.runner import Runner


def cron_view(cron: Cron, figures: Figures, running: Json) -> Dict[str, Json]:
    """Return a cron as clients see it: its entry, what it does now, its figures."""
    return {
        "cronName": cron.name,
        "description": cron.description,
        "estimatedDuration": cron.estimated_duration,
        "parameters": {n: p.view() for n, p in cron.parameters.items()},
        "logFile": cron.log_path,
        "running": running,
        "lastRun": figures.recent[-1].view() if figures.recent else None,
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


#: What a cron does that somebody else has locked, as by `flock` in a crontab's line.
EXTERNAL: Json = {"id": None, "trigger": "external"}


class Views:
    """The answers that many ask for often, kept until something changes."""

    def __init__(self, registry: Registry, store: Store, runner: Runner) -> None:
        self._registry = registry
        self._store = store
        self._runner = runner
        self._texts: Dict[str, Tuple[Any, str]] = {}
        self._crons: Tuple[Any, Any, bytes] = (None, None, b"")
        #: By cron, an object that is another one after each change.
        self._marks: Dict[str, object] = {}
        #: And one for all of them.
        self._mark = object()
        self._health: Tuple[Tuple[Any, ...], bytes] = ((), b"")

    def forget(self, cron_name: str) -> None:
        """Drop what was kept of a cron; from any thread."""
        self._marks[cron_name] = self._mark = object()

    def health(self, port: int) -> bytes:
        """Return the body of `/health`."""
        crons = self._registry.crons()
        state = (
            self._registry.version,
            self._store.problem,
            len(crons),
            tuple(self._runner.problems()),
        )
        if self._health[0] != state:
            value: Dict[str, Json] = {
                "status": "healthy",
                "service": SERVICE,
                "port": port,
                "available_crons": len(crons),
            }
            problems = self.problems()
            if problems:
                value.update(status="degraded", problems=problems)
            self._health = (state, json_text(value).encode("utf-8", "replace"))
        return self._health[1]

    def problems(self) -> List[str]:
        """Return the faults that the server survives at present."""
        problems = list(self._registry.faults)
        problems += self._runner.problems()
        if self._store.problem:
            problems.append(self._store.problem)
        return problems

    def crons(self) -> bytes:
        """Return the body of `/crons`."""
        crons = self._registry.crons()
        external = self._runner.external()
        mark = (self._mark, *external)  # read before the state, as below
        kept = self._crons
        # Another registry file that was taken is another dictionary.
        if kept[0] is not crons or kept[1] != mark:
            texts = [self._cron_text(cron, external) for cron in crons.values()]
            body = '{"success": true, "crons": [' + ", ".join(texts) + "]}"
            self._crons = kept = (crons, mark, body.encode("utf-8", "replace"))
        return kept[2]

    def _cron_text(self, cron: Cron, external: Mapping[str, int]) -> str:
        if cron.name in external:
            return self._rendered(cron, EXTERNAL)
        # The mark is read before the state: a change meanwhile makes it another.
        # Not the registry's version: it may be that of a file read just now.
        mark = (cron, self._marks.get(cron.name))
        kept = self._texts.get(cron.name)
        if kept is None or kept[0] != mark:
            run = self._runner.run_of(cron.name)
            kept = (mark, self._rendered(cron, run.view() if run else None))
            self._texts[cron.name] = kept
        return kept[1]

    def _rendered(self, cron: Cron, running: Json) -> str:
        figures = self._store.figures(cron.name)
        return json_text(cron_view(cron, figures, running))
