"""The wall clock is set while the server runs, by days; time itself goes on."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sqlite3
import time
import unittest
from pathlib import Path
from typing import Any

from support import Server, limited, need, slow, wait_until
from wall_clock import WallClock

from cron_trigger.registry.times import epoch_of, now_text

STAY = "#!/bin/sh\nuntil [ -e go ]; do sleep 0.02; done\nexit 5\n"
REGISTRY = {
    "stay": {"description": "Stays", "command": "stay.sh"},
    "brief": {"description": "Brief", "command": ["sh", "-c", "exit 3"]},
    "limited": {"description": "?", "command": ["sleep", "60"], "timeout": "1s"},
}
DAY_S = 86400.0
#: Prunes all the time.
PRUNING = limited("prune_every_s=0.1")


@slow
class SetClock(unittest.TestCase):
    """Whatever is done to the clock: no run is lost, none is long, no key forgotten."""

    def setUp(self) -> None:
        self.server = Server(REGISTRY, program=PRUNING, start=False)
        self.addCleanup(self.server.__exit__)
        self.server.script("stay.sh", STAY)
        self.clock = WallClock(self.server.folder)
        self.server.environ.update(self.clock.environ)
        self.server.start()
        now = self.server.completed("brief")["startedAt"]
        self.assertLess(abs(epoch_of(now) - time.time()), 60, "the library moves it")

    def ids(self) -> list[int]:
        return [run["id"] for run in self.server.get("/runs").json["runs"]]

    def old_runs(self, *days: float) -> None:
        """Have runs in the history that began so many days ago, then one of today."""
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as db, db:
            for age in days:
                at = now_text(time.time() - age * DAY_S)
                db.execute(
                    "insert into cron_executions (cron_name, status, started_at, "
                    "completed_at, trigger) values ('old', 'completed', ?, ?, 'cli')",
                    [at, at],
                )

    def pruned_again(self) -> None:
        """Wait until the pruner has gone through it once more, twice."""
        path = self.server.state_dir / "clock.json"

        def written() -> int:
            return path.stat().st_mtime_ns if path.exists() else 0

        for _ in range(3):
            before = written()
            wait_until(functools.partial(lambda was: written() != was, before))

    def test_a_step_ahead_prunes_nothing_though_runs_and_restarts_follow(self) -> None:
        self.old_runs(80, 60, 1)
        kept = self.ids()
        self.pruned_again()
        for end in (self.server.stop, self.server.kill):
            with self.subTest(end.__name__):
                self.clock.set(100)
                kept.insert(0, self.server.completed("brief")["id"])
                self.pruned_again()
                self.assertEqual(sorted(self.ids()), sorted(kept))
                end()
                self.server.start()
                kept.insert(0, self.server.completed("brief")["id"])
                self.pruned_again()
                self.assertEqual(sorted(self.ids()), sorted(kept))
                self.assertIn("jumped by 100 days", self.server.log_text())
                self.clock.set(0)
                self.pruned_again()
                self.assertEqual(sorted(self.ids()), sorted(kept))
        self.old_runs(1)  # who comes behind it in the table is no obstacle
        events = self.server.rows("select count(*) from events")
        self.pruned_again()
        self.assertEqual(self.server.rows("select count(*) from events"), events)

    def test_it_is_set_while_no_server_runs(self) -> None:
        self.old_runs(80, 60, 1)
        kept = [*self.ids()]
        self.pruned_again()
        self.server.kill()
        self.clock.set(100)
        # The crontab's run is the newest record, and agrees with the wrong clock.
        self.assertEqual(self.server.command("run", "brief").returncode, 3)
        self.server.start()
        self.pruned_again()
        self.assertEqual(sorted(self.ids())[:-1], sorted(kept))
        self.assertEqual(len(self.ids()), len(kept) + 1)

    def test_what_is_old_goes_all_the_same(self) -> None:
        self.old_runs(80)
        self.server.stop()
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            at = now_text(time.time() - 91 * DAY_S)
            db.execute("update cron_executions set started_at = ? where id = 1", [at])
        self.clock.set(100)
        self.server.start()
        wait_until(lambda: 1 not in self.ids())
        self.assertEqual(self.ids(), [2])

    def test_a_duration_is_how_long_it_took(self) -> None:
        for days in (100, -100, 0.125):
            with self.subTest(days=days):
                began_s = time.monotonic()
                run_id = self.server.trigger("stay").json["runId"]
                self.clock.set(days)
                (self.server.folder / "go").touch()
                run = self.server.ended(run_id)
                took_ms = (time.monotonic() - began_s) * 1000
                self.assertEqual((run["status"], run["exitCode"]), ("failed", 5))
                self.assertTrue(0 < run["durationMs"] <= took_ms, run["durationMs"])
                (self.server.folder / "go").unlink()
                self.clock.set(0)

    def test_of_a_run_that_was_found_again_too(self) -> None:
        began_s = time.monotonic()
        run_id = self.server.trigger("stay").json["runId"]
        self.server.kill()
        self.clock.set(0.125)
        self.server.start()
        self.clock.set(100)
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        # The kernel tells when a keeper began to the 1/100 s.
        took_ms = (time.monotonic() - began_s) * 1000 + 10
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 5))
        self.assertTrue(0 < run["durationMs"] <= took_ms, run["durationMs"])

    def test_a_limit_comes_when_it_is_due(self) -> None:
        for days in (-100, 100):
            with self.subTest(days=days):
                began_s = time.monotonic()
                run_id = self.server.trigger("limited").json["runId"]
                self.clock.set(days)
                run = self.server.ended(run_id, 15)
                took_ms = (time.monotonic() - began_s) * 1000
                self.assertEqual(run["status"], "timed_out", run)
                self.assertTrue(1000 <= run["durationMs"] <= took_ms, run)

    def test_a_key_holds_through_a_step_and_a_restart(self) -> None:
        body, key = {"cronName": "brief"}, {"Idempotency-Key": "k"}

        def told() -> Any:
            reply = self.server.request("POST", "/trigger", body, key)
            self.assertEqual(reply.status, 202, reply.text)
            return reply.json["runId"]

        first = told()
        self.server.ended(first)
        for days in (100, 0, -100, 300):
            with self.subTest(days=days):
                self.clock.set(days)
                self.assertEqual(told(), first)
                self.pruned_again()
                self.assertEqual(told(), first)
                self.server.kill()
                self.server.start()
                self.assertEqual(told(), first)
        self.assertEqual(len(self.ids()), 2)

    def test_a_plan_fires_by_the_clock_that_is(self) -> None:
        self.clock.set(100)
        soon = now_text(time.time() + 100 * DAY_S + 5)
        planned = self.server.trigger("brief", runAt=soon).json["scheduledId"]

        def entry() -> Any:
            found = self.server.get("/scheduled").json["scheduled"]
            return next(e for e in found if e["id"] == planned)

        fired = wait_until(lambda: (e := entry())["status"] != "pending" and e)
        self.assertEqual(fired["status"], "fired")
        self.assertEqual(self.server.ended(fired["runId"])["exitCode"], 3)
        later = now_text(time.time() + 100 * DAY_S + 3600)
        planned = self.server.trigger("brief", runAt=later).json["scheduledId"]
        self.clock.set(0)
        self.server.kill()
        self.server.start()
        self.pruned_again()
        self.assertEqual(entry()["status"], "pending")
        self.assertEqual(len(self.ids()), 2)


@slow
class Stopped(unittest.TestCase):
    """SIGSTOP of the server: who is not at work records no longer durations."""

    def test_a_run_is_as_long_as_it_was(self) -> None:
        need(os.path.exists("/proc/self/stat"), "no /proc")
        with Server(REGISTRY) as server:
            server.script("stay.sh", STAY)
            began_s = time.monotonic()
            told = server.trigger("stay").json
            assert server.process
            server.process.send_signal(signal.SIGSTOP)
            (server.folder / "go").touch()
            keeper = f"/proc/{told['pid']}/cmdline"
            # A zombie has none any more.
            wait_until(lambda: not Path(keeper).read_bytes())
            ended_s = time.monotonic()
            wait_until(lambda: time.monotonic() - ended_s > 2.5)
            server.process.send_signal(signal.SIGCONT)
            run = server.ended(told["runId"])
            self.assertEqual(run["exitCode"], 5)
            self.assertLess(run["durationMs"], (ended_s - began_s) * 1000, run)


if __name__ == "__main__":
    unittest.main()
