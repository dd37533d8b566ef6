"""A run that is ended early: by a person, by its time limit, whoever began it."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from cron_trigger.history.store import Store
from cron_trigger.registry.records import (
    CANCELLED,
    FAILED,
    RUNNING,
    TIMED_OUT,
    Run,
    replace,
)
from cron_trigger.registry.times import now_text


class EndReasonTest(unittest.TestCase):
    def test_the_first_reason_stays(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            store = Store(Path(folder) / "history.db", lambda *_: None)
            self.addCleanup(store.close)
            run = store.begin(Run(0, "c", RUNNING, started_at=now_text()))
            store.set_end_reason(run, CANCELLED, "person")
            # Another process, whose own clock says that time is up.
            store.set_end_reason(run, TIMED_OUT, None)
            ended = store.end(replace(run, status=FAILED, exit_code=143))
        assert ended
        self.assertEqual((ended.status, ended.cancelled_by), ("cancelled", "person"))


if __name__ == "__main__":
    unittest.main()
