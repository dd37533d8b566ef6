"""What the crontab should have run: told once, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import unittest

from fast.test_lateness import ENTRY
from support import Server, slow, wait_until


class ServerTest(unittest.TestCase):
    def test_it_is_shown_by_crons_and_metrics(self) -> None:
        with Server({"c": ENTRY}) as server:
            (cron,) = server.get("/crons").json["crons"]
            self.assertEqual((cron["schedule"], cron["late"]), ("0 * * * *", False))
            self.assertIn(":00:00", cron["nextRunAt"])
            metrics = server.get("/metrics").text
            self.assertIn('cron_trigger_late{cron="c"} 0', metrics)

    @slow
    def test_a_host_that_was_down_tells_of_it_at_the_start(self) -> None:
        with Server({"c": ENTRY}) as server:
            rows = "select judged_s from schedules"
            wait_until(lambda: server.rows(rows))
            server.stop()
            self._shift(server)
            server.start()
            wait_until(lambda: server.get("/crons").json["crons"][0]["late"])
            query = "select data from events where event = 'cron.late'"
            ((data,),) = wait_until(lambda: server.rows(query))
            self.assertIn(json.loads(data)["cron"]["missed"], (1, 2))

    def _shift(self, server: Server) -> None:
        path = server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("update schedules set judged_s = judged_s - 7200")


if __name__ == "__main__":
    unittest.main()
