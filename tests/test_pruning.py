"""Pruning: what is older than the history's days goes, and its space comes back."""

from __future__ import annotations

import unittest

from support import Server, limited, need_full, wait_until
from test_metrics import age

from cron_trigger.history.clock import DAY_S
from cron_trigger.registry.limits import Limits

REGISTRY = {
    "brief": {"description": "Brief", "command": ["true"]},
    "quiet": {"description": "Sleeps", "command": ["sleep", "60"]},
}


class ServerPruningTest(unittest.TestCase):
    def test_once_a_day_also_without_a_restart(self) -> None:
        need_full()
        program = limited("prune_every_s=0.2")
        with Server(
            REGISTRY, program=program, arguments=["--history-days=7"]
        ) as server:
            server.completed("brief")
            running = server.trigger("quiet").json["runId"]
            age(server, days=8)
            young = server.completed("brief")["id"]
            wait_until(lambda: len(server.get("/runs").json["runs"]) == 2)
            left = [run["id"] for run in server.get("/runs").json["runs"]]
            self.assertEqual(left, [young, running])
            self.assertEqual(server.run(running)["status"], "running")
            text = "1 runs older than 7 days were pruned"
            wait_until(lambda: text in server.log_text())

    def test_a_day_is_a_day(self) -> None:
        self.assertEqual(Limits().prune_every_s, DAY_S)


if __name__ == "__main__":
    unittest.main()
