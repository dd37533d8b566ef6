"""Pruning: what is older than the history's days goes, and its space comes back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Optional

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import slow

from cron_trigger.history.answers import Selection
from cron_trigger.history.clock import DAY_S, Clock
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
        return self.store.prune(days * DAY_S, **how)

    def kept(self) -> list[int]:
        return [run.id for run in reversed(self.store.runs(Selection(limit=10000)))]

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
        reloaded = "registry.reloaded"  # has no time: it goes with what came next
        self.assertEqual(told, [reloaded, "run.started", "run.finished", reloaded])
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

    def test_an_event_that_somebody_broke_stops_nothing(self) -> None:
        old = self.ended(91)
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            for data in ("no JSON", "[1]", '{"run": 5}', '{"run": {"completedAt": 5}}'):
                db.execute("insert into events (event, data) values ('x', ?)", [data])
        self.ended(91)
        young = self.ended(1)
        self.assertEqual(self.prune(), 2)
        self.assertEqual(self.kept(), [young.id])
        self.assertGreater(self.store.events_after(0)[0].id, old.id + 5)

    def test_a_run_dated_wrong_goes_by_its_neighbours(self) -> None:
        """The clock of a host without a battery begins in 1970, and is set later."""
        old = self.ended(91)
        ahead = self.ended(-1000).id
        self.ended(91)
        young = self.ended(1).id
        behind = self.ended(18000).id
        self.assertEqual(self.prune(batch=2), 2)
        self.assertEqual(self.kept(), [ahead, young, behind])
        self.assertIsNone(self.store.run(old.id))

    @slow
    def test_the_space_comes_back(self) -> None:
        count = 3000
        for _ in range(count):
            self.ended(91)
        self.ended(1)
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
        before = self.path.stat().st_size
        pauses: list[None] = []
        self.assertEqual(self.prune(pause=lambda: pauses.append(None)), count)
        after = sum(
            path.stat().st_size for path in self.path.parent.glob("history.db*")
        )
        self.assertGreater(before, 600 * count)
        self.assertLess(after, before / 4)
        # In small steps, with room for others between them.
        self.assertGreater(len(pauses), count // 200)


class ClockTest(unittest.TestCase):
    """A clock that was set, or a host that was off, makes nothing old by itself."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "clock.json"
        self.now_s, self.boot, self.up_s = 20000 * DAY_S, "one", 50.0
        self.newest_s: Optional[float] = self.now_s
        self.said: list[str] = []
        self.clock = self.restarted()

    def restarted(self) -> Clock:
        clock = Clock(
            self.path,
            lambda: self.newest_s,
            lambda _level, text: self.said.append(text),
            lambda: self.now_s,
            lambda: (self.boot, self.up_s),
        )
        clock.ago(0, keep=True)
        return clock

    def pass_days(self, days: float) -> None:
        self.now_s += days * DAY_S
        self.up_s += days * DAY_S

    def set_clock(self, days: float) -> None:
        self.now_s += days * DAY_S

    def age_days(self, then_s: float, clock: Optional[Clock] = None) -> int:
        """Return how many days old something is, rounded."""
        clock = clock or self.clock
        clock.ago(0, keep=True)
        days = (d for d in range(1000) if then_s < clock.ago((d + 0.5) * DAY_S))
        return max(days, default=-1) + 1

    def test_time_that_was_seen_counts_also_while_no_server_ran(self) -> None:
        then_s = self.now_s
        self.pass_days(40)
        self.assertEqual(self.age_days(then_s), 40)
        self.pass_days(30)
        self.assertEqual(self.age_days(then_s, self.restarted()), 70)
        self.assertEqual(self.said, [])

    def test_a_step_makes_nothing_older_whoever_restarts(self) -> None:
        then_s = self.now_s
        self.pass_days(10)
        self.set_clock(100)
        self.newest_s = self.now_s  # one run with the wrong clock
        self.assertEqual(self.age_days(then_s), 10)
        self.pass_days(5)
        self.assertEqual(self.age_days(then_s, self.restarted()), 15)
        self.assertIn("jumped by 100 days", self.said[0])
        self.boot, self.up_s = "two", 9.0
        self.clock = self.restarted()
        self.assertEqual(self.age_days(then_s), 15)
        self.assertEqual(len(self.said), 1)
        # What came after it ages as ever, and what came before goes on with it.
        after_s = self.now_s
        self.pass_days(90)
        self.assertEqual(self.age_days(after_s), 90)
        self.assertEqual(self.age_days(then_s), 105)

    def test_a_step_that_only_a_restart_sees(self) -> None:
        then_s = self.now_s
        self.set_clock(100)
        self.newest_s = self.now_s
        self.assertEqual(self.age_days(then_s, self.restarted()), 0)

    @slow
    def test_one_that_is_set_back_is_right_again(self) -> None:
        for days in (100, -100, -15000, 300):
            then_s = self.now_s
            self.pass_days(3)
            self.set_clock(days)
            self.assertLessEqual(self.age_days(then_s), 3)
            self.pass_days(3)
            self.set_clock(-days)
            self.assertEqual(self.age_days(then_s), 6)
            for day in range(60):
                self.pass_days(1)
                self.assertEqual(self.age_days(then_s), 7 + day)

    def test_a_host_that_was_off_prunes_that_much_later(self) -> None:
        then_s = self.now_s
        for boot in "abcd":  # a host that is off from Friday to Monday
            self.pass_days(5)
            self.clock.close()
            self.set_clock(3)
            self.boot, self.up_s = boot, 9.0
            self.clock = self.restarted()
        self.assertEqual(self.age_days(then_s), 20)

    def test_less_than_a_day_does_not_count(self) -> None:
        then_s = self.now_s
        for boot in "abcdefgh":  # started again each night
            self.pass_days(0.6)
            self.clock.close()
            self.set_clock(0.4)
            self.boot, self.up_s = boot, 9.0
            self.clock = self.restarted()
        self.assertEqual(self.age_days(then_s), 8)

    def test_without_its_file_the_newest_record_tells(self) -> None:
        for spoil in (self.path.unlink, lambda: self.path.write_text('{"seen": [1]}')):
            spoil()
            self.newest_s = self.now_s
            self.set_clock(100)
            self.assertEqual(self.age_days(self.newest_s, self.restarted()), 0)
        self.path.unlink()
        self.newest_s = None
        self.restarted()
        self.assertEqual(json.loads(self.path.read_text())["jumps"], [])

    def test_who_only_looks_writes_nothing(self) -> None:
        self.path.unlink()
        clock = Clock(self.path, lambda: None, lambda *_: None)
        clock.ago(0)
        clock.close()
        self.assertFalse(self.path.exists())


if __name__ == "__main__":
    unittest.main()
