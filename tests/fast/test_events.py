"""Server-sent events: what happened, in the order in which it did, nothing twice."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from cron_trigger.history.store import Store
from cron_trigger.registry.records import COMPLETED, RUNNING, Run, replace
from cron_trigger.registry.times import now_text


class StartIsToldOnceTest(unittest.TestCase):
    def test_the_command_line_and_the_server_may_both_come_to_tell_it(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            store = Store(Path(folder) / "history.db", lambda *_: None)
            self.addCleanup(store.close)
            begun = store.begin(Run(0, "c", RUNNING, started_at=now_text()))
            run = replace(begun, pid=1)
            store.started(run)
            store.end(replace(run, status=COMPLETED, completed_at=now_text()))
            store.started(run)
            told = [event.name for event in store.events_after(0)]
        self.assertEqual(told, ["run.started", "run.finished"])


if __name__ == "__main__":
    unittest.main()
