"""Pruning: what is older than the history's days goes, and its space comes back."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, List

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import FULL

from cron_trigger.history.store import Store
from cron_trigger.registry.records import (
    COMPLETED,
    FIRED,
    PENDING,
    RUNNING,
    Run,
    Scheduled,
    replace,
)
from cron_trigger.registry.times import now_text

DAY_S = 86400.0


class StorePruningTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "history.db"
        self.store = Store(self.path, lambda *_: None)
        self.addCleanup(self.store.close)

    def begin(self, days: float, cron: str = "c") -> Run:
        at = now_text(time.time() - days * DAY_S)
        run = self.store.begin(Run(0, cron, RUNNING, started_at=at))
        self.store.started(replace(run, pid=1))
        return run

    def ended(self, days: float) -> Run:
        run = self.begin(days)
        at, what = run.started_at, "x" * 500
        self.store.end(replace(run, status=COMPLETED, completed_at=at, error=what))
        return run

    def prune(self, days: int = 90, **how: Any) -> int:
        return self.store.prune(now_text(time.time() - days * DAY_S), **how)

    def kept(self) -> List[int]:
        return [run.id for run in reversed(self.store.runs(limit=10000))]

    def test_by_age_and_only_what_has_ended(self) -> None:
        old = [self.ended(91).id for _ in range(3)]
        running = self.begin(92).id
        young = [self.ended(days).id for days in (89.9, 1, 0)]
        self.assertEqual(self.prune(), len(old))
        self.assertEqual(self.kept(), [running, *young])
        self.assertEqual(self.prune(), 0)
        # Numbers are not given again.
        self.prune(days=0)
        self.assertGreater(self.ended(0).id, young[-1])

    def test_events_go_with_their_time(self) -> None:
        self.ended(91)
        self.store.tell("registry.reloaded", {"crons": 1})
        young = self.ended(1)
        self.store.tell("registry.reloaded", {"crons": 2})
        last = self.store.last_event_id()
        self.prune(batch=2)
        told = [event.name for event in self.store.events_after(0)]
        self.assertEqual(told, ["run.started", "run.finished", "registry.reloaded"])
        self.assertEqual(self.store.events_after(0)[-1].id, last)
        self.assertEqual(self.kept(), [young.id])
        self.prune(days=0)
        self.assertGreater(self.begin(0).id, young.id)
        self.assertGreater(self.store.last_event_id(), last)

    def test_planned_triggers_go_once_they_ended(self) -> None:
        def planned(created_days: float, due_days: float, status: str) -> int:
            times = (
                now_text(time.time() - d * DAY_S) for d in (created_days, due_days)
            )
            created_at, run_at = times
            entry = Scheduled(0, "c", run_at, status, created_at=created_at)
            return self.store.schedule(entry).id

        gone = planned(92, 91, FIRED)
        pending = planned(92, -10, PENDING)
        lately = planned(92, 1, FIRED)
        self.prune()
        self.assertIsNone(self.store.scheduled(gone))
        self.assertIsNotNone(self.store.scheduled(pending))
        self.assertIsNotNone(self.store.scheduled(lately))

    def test_the_space_comes_back(self) -> None:
        count = 3000 if FULL else 600
        for _ in range(count):
            self.ended(91)
        self.ended(1)
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
        before = self.path.stat().st_size
        pauses: List[None] = []
        self.assertEqual(self.prune(pause=lambda: pauses.append(None)), count)
        after = sum(
            path.stat().st_size for path in self.path.parent.glob("history.db*")
        )
        self.assertGreater(before, 600 * count)
        self.assertLess(after, before / 4)
        # In small steps, with room for others between them.
        self.assertGreater(len(pauses), count // 200)


if __name__ == "__main__":
    unittest.main()
