"""What the crontab should have run: told once, whatever happens meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.registry.file import Registry
from cron_trigger.registry.records import Trigger
from cron_trigger.registry.settings import read_settings
from cron_trigger.runs.ground import Changes, Ground
from cron_trigger.runs.lateness import Lateness
from cron_trigger.runs.logs import Logs
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.scripts import Scripts

#: 2096-11-23T10:00:30Z: not due by the clock of the host, whose timer wakes Lateness.
BEGIN_S = 4004503230.0


ENTRY = {"description": "Each hour", "command": ["true"], "schedule": "0 * * * *"}


class Stage:
    """All below the web, with a clock that the test sets."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        self.folder = folder
        (folder / "crons.json").write_text(json.dumps({"c": entry}))
        flags = {"registry": folder / "crons.json", "run_dir": folder}
        flags = {**flags, "state_dir": folder, "log_dir": folder / "log"}
        self.settings = read_settings({k: str(v) for k, v in flags.items()}, {})
        self.now_s = BEGIN_S
        self.start()

    def start(self) -> None:
        self.loop, self.changes = Loop(lambda *_: None), Changes()
        self.store = Store(self.settings.history, lambda *_: None, self.folder)
        self.registry = Registry(self.settings.registry, self.settings.log_dir)
        ground = Ground(
            self.settings,
            self.registry,
            self.store,
            self.loop,
            lambda *_: None,
            self.changes,
            lambda: self.now_s,
        )
        self.runner = Runner(ground, Scripts({}), Logs(self.settings.log_dir))
        self.lateness = Lateness(ground, self.runner)
        self.lateness.start()

    def stop(self) -> None:
        self.runner.close()
        self.loop.finish_aside(10)
        self.store.close()
        self.loop.close()

    def at(self, after_s: float) -> None:
        self.now_s = BEGIN_S + after_s
        self.lateness.tick()

    def run(self) -> None:
        self.runner.trigger(Trigger("c", "cli"))
        while self.runner.running():
            self.loop.step(0.1)

    def late(self) -> bool:
        return self.lateness.late(self.registry.get("c"))

    def told(self) -> list[Any]:
        events = self.store.events_after(0)
        found = [json.loads(e.data)["cron"] for e in events if e.name == "cron.late"]
        return [(entry["dueAt"][11:16], entry["missed"]) for entry in found]


class LatenessTest(unittest.TestCase):
    def stage(self, **entry: Any) -> Stage:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        before = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()

        def put_back() -> None:
            os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
            time.tzset()

        self.addCleanup(put_back)
        stage = Stage(Path(folder.name), {**ENTRY, **entry})
        self.addCleanup(lambda: stage.stop())
        return stage

    def test_the_next_time_is_said_with_the_hosts_offset(self) -> None:
        stage = self.stage()
        cron = stage.registry.get("c")
        self.assertEqual(stage.lateness.next_run_at(cron), "2096-11-23T11:00:00+00:00")
        stage.at(3600)
        self.assertEqual(stage.lateness.next_run_at(cron), "2096-11-23T12:00:00+00:00")

    def test_a_clock_that_was_ahead_leaves_no_next_time_behind(self) -> None:
        stage = self.stage()
        cron = stage.registry.get("c")
        stage.at(365 * 86400)
        self.assertEqual(stage.lateness.next_run_at(cron), "2097-11-23T11:00:00+00:00")
        stage.now_s = BEGIN_S
        self.assertEqual(stage.lateness.next_run_at(cron), "2096-11-23T11:00:00+00:00")

    def test_another_time_zone_of_the_host_shows_at_the_next_tick(self) -> None:
        stage = self.stage(schedule="0 3 * * *")
        time.sleep(0.15)  # until then the registry counts as written just now
        cron = stage.registry.get("c")
        self.assertEqual(stage.lateness.next_run_at(cron), "2096-11-24T03:00:00+00:00")
        os.environ["TZ"] = "JST-9"
        stage.lateness.tick()
        self.assertEqual(stage.lateness.next_run_at(cron), "2096-11-24T03:00:00+09:00")

    def test_what_was_due_before_the_schedule_was_known_is_not_late(self) -> None:
        stage = self.stage()
        stage.at(60)
        self.assertEqual((stage.late(), stage.told()), (False, []))

    def test_a_time_at_which_nothing_began_is_late_after_its_patience_once(
        self,
    ) -> None:
        stage = self.stage(late="10m")
        stage.at(3600 + 540)
        self.assertFalse(stage.late())
        stage.at(3600 + 600)
        stage.at(3600 + 700)
        self.assertEqual((stage.late(), stage.told()), (True, [("11:00", 1)]))
        stage.at(2 * 3600 + 600)
        self.assertEqual(stage.told(), [("11:00", 1), ("12:00", 1)])

    def test_a_run_by_whichever_way_is_in_time(self) -> None:
        stage = self.stage()
        stage.now_s = BEGIN_S + 3580  # 11:00:10
        stage.run()
        stage.at(3600 + 600)
        self.assertEqual((stage.late(), stage.told()), (False, []))

    def test_a_run_makes_it_late_no_more(self) -> None:
        stage = self.stage()
        stage.at(3600 + 600)
        self.assertTrue(stage.late())
        stage.run()
        self.assertFalse(stage.late())

    def test_a_run_that_was_pruned_counts_still(self) -> None:
        stage = self.stage(schedule="0 11 23 11 *")
        stage.at(5400)
        stage.run()
        stage.at(100 * 86400)
        self.assertEqual(stage.store.prune(-100 * 365 * 86400), 1)
        self.assertFalse(stage.late())

    def test_a_lock_that_is_held_when_it_is_judged_counts(self) -> None:
        stage = self.stage()
        lock = os.open(stage.folder / "c.pid", os.O_RDWR | os.O_CREAT, 0o600)
        self.addCleanup(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage.at(3600 + 600)
        self.assertEqual((stage.late(), stage.told()), (False, []))

    def test_a_time_without_a_server_is_told_of_once_with_its_count(self) -> None:
        stage = self.stage()
        stage.stop()
        stage.now_s = BEGIN_S + 5 * 3600 + 600
        stage.start()
        self.assertEqual((stage.late(), stage.told()), (True, [("15:00", 5)]))
        stage.stop()
        stage.start()
        self.assertEqual(stage.told(), [("15:00", 5)])

    def test_a_kill_between_two_missed_times_loses_neither(self) -> None:
        stage = self.stage()
        judge = stage.store.judge

        def judge_and_die(*words: Any) -> None:
            judge(*words)
            raise SystemExit

        dying = mock.patch.object(stage.store, "judge", judge_and_die)
        with dying, self.assertRaises(SystemExit):
            stage.at(2 * 3600 + 600)
        stage.stop()
        stage.start()
        self.assertEqual(stage.told(), [("11:00", 1), ("12:00", 1)])

    def test_a_host_that_slept_for_years_tells_of_the_last_one_once(self) -> None:
        stage = self.stage(schedule="* * * * *")
        stage.at(50 * 365 * 86400)
        (told,) = stage.told()
        self.assertEqual(told, ("09:55", 366 * 1440))

    def test_what_is_too_old_to_be_judged_wakes_nobody_again(self) -> None:
        stage = self.stage(schedule="0 0 29 2 *")
        with mock.patch.object(stage.lateness._timer, "arm") as armed:
            stage.at(10 * 365 * 86400)  # in 2106; the last one was in 2104
        self.assertEqual(stage.told(), [])
        self.assertGreater(armed.call_args[0][0], stage.now_s)

    def test_another_schedule_begins_anew(self) -> None:
        stage = self.stage()
        stage.at(3600 + 600)
        (stage.folder / "crons.json").write_text(
            json.dumps({"c": {**ENTRY, "schedule": "30 * * * *"}})
        )
        stage.registry.reload()
        stage.at(3600 + 601)
        self.assertEqual((stage.late(), stage.told()), (False, [("11:00", 1)]))

    def test_one_that_comes_back_is_not_late_for_the_time_it_was_away(self) -> None:
        stage = self.stage()
        stage.at(3600 + 600)
        for after_s, entries in ((4300, {}), (4300 + 3 * 86400, {"c": ENTRY})):
            (stage.folder / "crons.json").write_text(json.dumps(entries))
            stage.registry.reload()
            stage.at(after_s)
        self.assertEqual((stage.late(), stage.told()), (False, [("11:00", 1)]))


if __name__ == "__main__":
    unittest.main()
