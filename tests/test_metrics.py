"""Figures for Prometheus: well formed, and never falling."""

from __future__ import annotations

import base64
import fcntl
import re
import sqlite3
import subprocess
import time
import unittest
from typing import Any

from support import Server, need_command, need_full, slow, wait_until

from cron_trigger import VERSION
from cron_trigger.registry.records import ENDED_STATUSES
from cron_trigger.registry.times import epoch_of, now_text

REGISTRY: dict[str, Any] = {
    "good": {"description": "Good", "command": ["true"]},
    "bad": {"description": "Bad", "command": ["false"]},
    "quiet": {"description": "Sleeps", "command": ["sleep", "60"]},
    "never.run_x": {"description": "Never run", "command": ["true"]},
    "limited": {"description": "Limited", "command": ["sleep", "9"], "timeout": "1s"},
}
#: Exits with what stands in a file.
TURNS = {"description": "D", "command": ["sh", "-c", "exit $(cat status)"]}


def values(server: Server) -> dict[str, float]:
    """Return each sample of `/metrics` by its name and labels."""
    text = server.get("/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (ln.rsplit(" ", 1) for ln in lines)}


def runs(cron: str, status: str) -> str:
    return f'cron_trigger_runs_total{{cron="{cron}",status="{status}"}}'


class MetricsTest(unittest.TestCase):
    server: Server
    good: list[Any]
    bad: Any

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()
        cls.good = [cls.server.completed("good") for _ in range(3)]
        cls.bad = cls.server.completed("bad")

    def test_promtool_accepts_them(self) -> None:
        promtool = need_command("promtool")
        reply = self.server.get("/metrics")
        checked = subprocess.run(
            [promtool, "check", "metrics"],
            input=reply.body,
            capture_output=True,
            check=False,
        )
        said = (checked.stdout + checked.stderr).decode()
        self.assertEqual((checked.returncode, said), (0, ""))

    def test_the_type_is_that_of_the_format(self) -> None:
        kind = self.server.get("/metrics").headers["content-type"]
        self.assertEqual(kind, "text/plain; version=0.0.4; charset=utf-8")

    def test_every_metric_of_the_contract_is_there(self) -> None:
        found = {re.split("[{ ]", name)[0] for name in values(self.server)}
        self.assertEqual(
            found,
            {
                "cron_trigger_build_info",
                "cron_trigger_degraded",
                "cron_trigger_runs_total",
                "cron_trigger_running",
                "cron_trigger_late",
                "cron_trigger_consecutive_failures",
                "cron_trigger_scheduled_pending",
                "cron_trigger_run_duration_seconds_sum",
                "cron_trigger_run_duration_seconds_count",
                "cron_trigger_last_run_timestamp_seconds",
                "cron_trigger_last_success_timestamp_seconds",
            },
        )
        info = f'cron_trigger_build_info{{version="{VERSION}"}}'
        self.assertEqual(values(self.server)[info], 1)

    def test_runs_are_counted_by_how_they_ended(self) -> None:
        got = values(self.server)
        self.assertEqual(got[runs("good", "completed")], 3)
        self.assertEqual(got[runs("good", "failed")], 0)
        self.assertEqual(got[runs("bad", "failed")], 1)
        # Zero is said, too: else a first failure would be no increase.
        for status in ENDED_STATUSES:
            self.assertEqual(got[runs("never.run_x", status)], 0)

    def test_durations_and_times_are_those_of_the_runs(self) -> None:
        got = values(self.server)
        name = 'cron_trigger_run_duration_seconds_{}{{cron="good"}}'
        total_s = sum(run["durationMs"] for run in self.good) / 1000
        self.assertAlmostEqual(got[name.format("sum")], total_s, 6)
        self.assertEqual(got[name.format("count")], 3)
        ended_s = epoch_of(self.good[-1]["completedAt"])
        last = 'cron_trigger_last_{}_timestamp_seconds{{cron="{}"}}'
        self.assertAlmostEqual(got[last.format("run", "good")], ended_s, 3)
        self.assertAlmostEqual(got[last.format("success", "good")], ended_s, 3)
        self.assertIn(last.format("run", "bad"), got)
        # 0, so that an alert on its age fires for one that never succeeded.
        self.assertEqual(got[last.format("success", "bad")], 0)
        self.assertEqual(got[last.format("success", "never.run_x")], 0)
        self.assertNotIn(last.format("run", "never.run_x"), got)

    def test_what_runs_is_one_whoever_started_it(self) -> None:
        name = 'cron_trigger_running{cron="quiet"}'
        self.assertEqual(values(self.server)[name], 0)
        run_id = self.server.trigger("quiet").json["runId"]
        self.assertEqual(values(self.server)[name], 1)
        self.server.request("POST", f"/runs/{run_id}/cancel")
        self.server.ended(run_id)
        self.assertEqual(values(self.server)[name], 0)
        with open(self.server.run_dir / "quiet.pid") as crontab:
            fcntl.flock(crontab, fcntl.LOCK_EX)
            self.assertEqual(values(self.server)[name], 1)

    def test_failures_are_counted_until_one_completes(self) -> None:
        name = "cron_trigger_consecutive_failures"
        with Server({**REGISTRY, "turns": TURNS}) as server:
            self.assertEqual(values(server)[f'{name}{{cron="turns"}}'], 0)
            for count, exit_code in ((1, 1), (2, 3), (3, 2), (0, 0), (1, 1)):
                server.script("status", str(exit_code))
                server.completed("turns")
                self.assertEqual(values(server)[f'{name}{{cron="turns"}}'], count)
            self.assertEqual(values(server)[f'{name}{{cron="never.run_x"}}'], 0)

    def test_what_is_planned_is_counted_while_it_is_pending(self) -> None:
        name = "cron_trigger_scheduled_pending"
        self.assertEqual(values(self.server)[name], 0)
        reply = self.server.trigger("good", runAt="2099-01-01T00:00:00Z")
        self.assertEqual(values(self.server)[name], 1)
        path = f"/scheduled/{reply.json['scheduledId']}"
        self.server.request("DELETE", path)
        self.assertEqual(values(self.server)[name], 0)

    def test_a_broken_registry_is_degraded(self) -> None:
        with Server(REGISTRY) as server:
            self.assertEqual(values(server)["cron_trigger_degraded"], 0)
            server.registry.write_text("{")
            wait_until(lambda: values(server)["cron_trigger_degraded"] == 1)

    def test_a_scraper_may_use_basic_authentication_here_and_nowhere_else(self) -> None:
        secret = "0123456789-abcdef-secret"
        with Server(REGISTRY, {"CRON_TRIGGER_SECRET": secret}) as server:

            def ask(path: str, text: str) -> int:
                coded = base64.b64encode(text.encode()).decode()
                return server.get(path, Authorization=f"Basic {coded}").status

            self.assertEqual(ask("/metrics", f"prometheus:{secret}"), 200)
            self.assertEqual(ask("/metrics", f":{secret}"), 200)
            for text in (f"{secret}:", secret, f"{secret}:{secret}x", f"x:{secret}:"):
                self.assertEqual(ask("/metrics", text), 401)
            for path in ("/crons", "/runs", "/events", "/nowhere"):
                self.assertEqual(ask(path, f"prometheus:{secret}"), 401)
            broken = server.get("/metrics", Authorization="Basic !!!")
            self.assertEqual(broken.status, 401)
            self.assertIn("Basic realm", broken.headers["www-authenticate"])
            said = server.get("/crons").headers["www-authenticate"]
            self.assertEqual(said, "Bearer")

    def test_a_time_limit_is_counted(self) -> None:
        need_full()
        self.server.completed("limited")
        self.assertEqual(values(self.server)[runs("limited", "timed_out")], 1)


@slow
class MetricsNeverFallTest(unittest.TestCase):
    def counters(self, server: Server) -> dict[str, float]:
        return {n: v for n, v in values(server).items() if "_total" in n or "_s" in n}

    def test_a_restart_changes_nothing(self) -> None:
        with Server(REGISTRY) as server:
            for cron in ("good", "bad", "good"):
                server.completed(cron)
            before = values(server)
            server.kill()
            server.start()
            self.assertEqual(values(server), before)

    def test_pruning_changes_nothing_but_the_history(self) -> None:
        with Server(REGISTRY) as server:
            for cron in ("good", "bad", "good"):
                server.completed(cron)
            before = self.counters(server)
            server.stop()
            age(server, days=91)
            server.start()
            server.completed("good")  # the clock is right: it agrees with a young run
            server.stop()
            server.start()
            wait_until(
                lambda: len(server.get("/runs").json["runs"]) == 1, what="pruning"
            )
            after = self.counters(server)
            self.assertEqual(after.pop(runs("good", "completed")), 3)
            self.assertEqual(before.pop(runs("good", "completed")), 2)
            self.assertEqual(after.keys(), before.keys())
            self.assertEqual(server.get("/crons").json["crons"][0]["runs"], 3)

    def test_a_cron_that_left_the_registry_keeps_its_counts(self) -> None:
        with Server(REGISTRY) as server:
            server.completed("good")
            left = {name: cron for name, cron in REGISTRY.items() if name != "good"}
            server.write_registry(left)
            name = 'cron_trigger_running{cron="good"}'
            got = wait_until(lambda: name not in (v := values(server)) and v)
            self.assertEqual(got[runs("good", "completed")], 1)


def age(server: Server, days: int) -> None:
    """Have all that stands in the history have happened so long ago."""
    then = now_text(time.time() - days * 86400)
    db = sqlite3.connect(server.state_dir / "history.db")
    with db:
        db.execute(
            "update cron_executions set started_at = ?, completed_at = ?", [then] * 2
        )
    db.close()


if __name__ == "__main__":
    unittest.main()
