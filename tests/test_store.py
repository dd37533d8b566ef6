"""The history: what it answers, and what it does when its disk does not take it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any, Iterator

from support import (
    FULL,
    Server,
    need,
    need_command,
    need_full,
    patched,
    slow,
    wait_until,
)
from test_schedule import plan_soon

from cron_trigger.history.schema import TABLES

STAY = """#!/bin/sh
echo "$CRON_RUN_ID" >>"$0.begun"
i=0
while [ ! -e "$0.go" ] && [ $i -lt 1500 ]; do sleep 0.02; i=$((i + 1)); done
exit 3
"""


class DiskCase(unittest.TestCase):
    """A real server, and what can be done to its disk."""

    def setUp(self) -> None:
        self.server = Server(
            {
                "stay": {"description": "Stays", "command": "stay.sh"},
                "brief": {"description": "Brief", "command": ["sh", "-c", "exit 3"]},
            },
            program=patched("m.Database.RETRY_S = 0.1"),
        )
        self.addCleanup(self.server.__exit__)
        self.server.script("stay.sh", STAY)

    def mount(self, name: str) -> Path:
        """Put a small disk under one of the server's folders."""
        need(os.geteuid() == 0, "mounting a small disk needs root")
        mount, umount = need_command("mount"), need_command("umount")
        folder = self.server.folder / name
        folder.mkdir(mode=0o755, exist_ok=True)
        options = ["-t", "tmpfs", "-o", "size=600k,mode=755", "tmpfs", str(folder)]
        done = subprocess.run([mount, *options], capture_output=True, check=False)
        need(done.returncode == 0, f"no disk can be mounted: {done.stderr!r}")
        self.addCleanup(subprocess.call, [umount, "-l", str(folder)])
        return folder

    def some_folders(self) -> list[str]:
        """Return all folders where there is time; else one, another each time."""
        names = ["state", "log", "run"]
        return names if FULL else random.sample(names, 1)

    def fill(self, folder: Path) -> Path:
        """Fill a disk to its last byte; return the file that does."""
        filler = folder / "filler"
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
                while True:
                    file.write(b"x" * size)
        return filler

    def degraded(self) -> bool:
        """Return True where something is wrong, but that so small a disk is low."""
        problems = self.server.get("/health").json.get("problems", ())
        return not all(text.startswith("The disk of the logs") for text in problems)

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    def let_go(self, run_id: int) -> Any:
        (self.server.folder / "stay.sh.go").touch()
        return self.server.ended(run_id)

    def once(self) -> None:
        """Let the cron run once, so that its PID file has its place on the disk."""
        self.let_go(self.server.trigger("stay").json["runId"])
        (self.server.folder / "stay.sh.go").unlink()

    def begun(self) -> list[str]:
        path = self.server.folder / "stay.sh.begun"
        return path.read_text().split() if path.exists() else []


class Disk(DiskCase):
    """A disk that is full, read-only, or gone."""

    @slow
    def test_a_full_disk_stops_no_trigger_and_loses_no_status(self) -> None:
        for name in self.some_folders():
            with self.subTest(name):
                folder = self.mount(name)
                self.server.start()
                first = self.server.completed("brief")["id"]
                filler = self.fill(folder)
                run = self.server.completed("brief")
                self.assertEqual((run["status"], run["exitCode"]), ("failed", 3))
                self.assertGreater(run["id"], first)
                under_way = self.server.trigger("stay").json["runId"]
                if name == "state":
                    self.assertTrue(self.degraded())
                filler.unlink()
                wait_until(lambda: not self.degraded())
                self.assertEqual(self.let_go(under_way)["exitCode"], 3)
                rows = self.server.rows("select status, exit_code from cron_executions")
                self.assertEqual(rows[-3:], [("failed", 3)] * 3)
                self.server.stop()
                (self.server.folder / "stay.sh.go").unlink()

    @slow
    def test_a_run_begun_before_the_disk_was_full_is_recorded_after(self) -> None:
        folder = self.mount("state")
        self.server.start()
        run_id = self.server.trigger("stay").json["runId"]
        filler = self.fill(folder)
        self.assertEqual(self.let_go(run_id)["exitCode"], 3)
        self.assertTrue(self.degraded())
        filler.unlink()
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, status, exit_code from cron_executions")
        self.assertEqual(rows, [(run_id, "failed", 3)])

    def test_a_server_killed_on_a_full_disk_finds_its_run_again(self) -> None:
        need_full()
        for name in self.some_folders():
            with self.subTest(name):
                folder = self.mount(name)
                self.server.start()
                self.once()
                filler = self.fill(folder)
                told = self.server.trigger("stay", requestedBy="me").json
                wait_until(lambda told=told: str(told["runId"]) in self.begun())  # type: ignore[misc]
                self.restart()
                refused = self.server.trigger("stay")
                self.assertEqual(refused.status, 409)
                self.assertEqual(refused.json["runId"], told["runId"])
                self.assertEqual(refused.json["pid"], told["pid"])
                self.assertEqual(self.let_go(told["runId"])["exitCode"], 3)
                filler.unlink()
                wait_until(lambda: not self.degraded())
                query = "select exit_code, trigger from cron_executions where id = ?"
                rows = self.server.rows(query, [told["runId"]])
                self.assertEqual(rows, [(3, "http")])
                self.assertEqual(len(self.begun()), len(set(self.begun())))
                self.server.stop()
                (self.server.folder / "stay.sh.go").unlink()

    def test_an_end_on_a_full_disk_without_a_server_is_recorded_later(self) -> None:
        need_full()
        folder = self.mount("run")
        self.server.start()
        self.once()
        filler = self.fill(folder)
        told = self.server.trigger("stay").json
        wait_until(lambda: str(told["runId"]) in self.begun())
        self.server.kill()
        (self.server.folder / "stay.sh.go").touch()
        wait_until(lambda: not os.path.exists(f"/proc/{told['pid']}/environ"))
        self.server.start()
        self.assertEqual(self.server.ended(told["runId"])["exitCode"], 3)
        filler.unlink()

    def test_a_server_started_on_a_full_disk_overwrites_no_old_run(self) -> None:
        need_full()
        folder = self.mount("state")
        self.server.start()
        for _ in range(3):
            self.server.completed("brief")
        for path in self.server.run_dir.iterdir():
            path.unlink()  # as the host was started again
        before = self.server.rows("select * from cron_executions")
        self.server.stop()
        filler = self.fill(folder)
        self.server.start()
        run = self.server.completed("brief")
        self.assertEqual(run["exitCode"], 3)
        self.assertTrue(self.degraded())
        filler.unlink()
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select * from cron_executions")
        self.assertEqual(rows[:3], before)
        self.assertEqual((len(rows), rows[3][0]), (4, run["id"]))

    def test_a_read_only_history_stops_no_trigger(self) -> None:
        need_full()
        folder = self.mount("state")
        self.server.start()
        self.server.completed("brief")
        mount = ["mount", "-o", "remount,ro", str(folder)]
        self.server.stop()
        subprocess.check_call(mount)
        self.server.start()
        run = self.server.completed("brief")
        self.assertEqual((run["exitCode"], self.degraded()), (3, True))
        subprocess.check_call([*mount[:2], "remount,rw", mount[-1]])
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertEqual(rows, [(1, 3), (2, 3)])

    def test_a_history_that_another_process_locks_delays_nothing_for_long(self) -> None:
        need_full()
        self.server.start()
        self.server.completed("brief")
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("begin immediate")
            started_s = time.monotonic()
            run = self.server.completed("brief")
            self.assertLess(time.monotonic() - started_s, 10)
            self.assertTrue(self.degraded())
            line = self.server.command("run", "brief")
            self.assertEqual(line.returncode, 3)
            db.execute("rollback")
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertIn((run["id"], 3), rows)
        self.assertEqual(self.server.completed("brief")["exitCode"], 3)

    @slow
    def test_a_history_that_is_corrupt_at_the_start_is_moved_aside(self) -> None:
        self.server.start()
        told = self.server.trigger("stay").json
        wait_until(self.begun)
        self.server.kill()
        for suffix in ("-wal", "-shm"):
            (self.server.state_dir / f"history.db{suffix}").unlink()
        (self.server.state_dir / "history.db").write_bytes(b"broken" * 1000)
        self.server.start()
        self.assertEqual(self.server.trigger("stay").json["runId"], told["runId"])
        self.assertEqual(self.let_go(told["runId"])["exitCode"], 3)
        self.assertGreater(self.server.completed("brief")["id"], told["runId"])
        moved = list(self.server.state_dir.glob("history.db.corrupt-2*"))
        self.assertEqual(len(moved), 1)
        self.assertIn("corrupt", self.server.log_text())

    @slow
    def test_a_history_removed_under_the_server_is_begun_again(self) -> None:
        self.server.start()
        told = self.server.trigger("stay").json
        # In one step: a server that writes just then would put a file in between.
        shutil.rmtree(self.server.state_dir.rename(self.server.folder / "gone"))
        self.assertEqual(self.let_go(told["runId"])["exitCode"], 3)
        self.restart()
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertEqual(rows, [(told["runId"], 3)])


@slow
class KilledMeanwhile(DiskCase):
    """What was not written is there after a SIGKILL, and is written once."""

    def setUp(self) -> None:
        super().setUp()
        self.server.start()
        self.server.completed("brief")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the history from being written, as a full disk does."""
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("begin immediate")
            yield
            db.execute("rollback")

    def tearDown(self) -> None:
        """Whatever happened, each event stands there once, and nothing is left."""
        wait_until(lambda: not self.degraded())
        told = self.server.rows(
            "select event, json_extract(data, '$.run.id') from events"
        )
        self.assertEqual(sorted(set(told)), sorted(told))
        path = self.server.run_dir / "unwritten.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
            counts = [db.execute(f"select count(*) from {t}") for t in TABLES]
            self.assertEqual({row.fetchone() for row in counts}, {(0,)})

    def totals(self) -> int:
        text = self.server.get("/metrics").text
        return sum(map(int, re.findall(r"(?m)^cron_trigger_runs_total.* (\d+)$", text)))

    def test_a_run_and_its_key(self) -> None:
        need_full()
        body = {"cronName": "stay", "requestedBy": "me"}
        key = {"Idempotency-Key": "k"}
        with self.locked():
            told = self.server.request("POST", "/trigger", body, key)
            wait_until(self.begun)
            self.restart()
            self.assertEqual(
                self.server.request("POST", "/trigger", body, key).text, told.text
            )
            self.restart()
            run_id = told.json["runId"]
            self.assertEqual(self.let_go(run_id)["exitCode"], 3)
            self.restart()
        wait_until(lambda: not self.degraded())
        run = self.server.run(run_id)
        self.assertEqual((run["exitCode"], run["requestedBy"]), (3, "me"))
        self.assertEqual(self.server.get(f"/runs/{run_id}/log").status, 200)
        again = self.server.request("POST", "/trigger", body, key)
        self.assertEqual(again.json["runId"], run_id)
        self.assertEqual(self.begun(), [str(run_id)])
        self.assertEqual(self.totals(), 2)

    def test_a_planned_trigger_that_fired(self) -> None:
        need_full()
        planned = plan_soon(self.server, "stay", 0.3)

        def entry() -> Any:
            (found,) = self.server.get("/scheduled").json["scheduled"]
            self.assertEqual(found["id"], planned)
            return found

        with self.locked():
            wait_until(self.begun)
            self.restart()
            self.assertEqual(entry()["status"], "fired")
        wait_until(lambda: not self.degraded())
        self.restart()
        self.assertEqual(entry()["status"], "fired")
        self.let_go(entry()["runId"])
        self.assertEqual(self.begun(), [str(entry()["runId"])])

    def test_the_crontabs_run_beside_a_server_and_without_one(self) -> None:
        need_full()
        for alone in (False, True):
            with self.subTest(alone=alone):
                if alone:
                    self.server.stop()
                with self.locked():
                    done = self.server.command("run", "brief")
                self.assertEqual(done.returncode, 3)
                self.assertIn("is recorded later", done.stderr)
                if alone:
                    self.server.start()
                runs = wait_until(
                    lambda: (
                        (r := self.server.get("/runs").json["runs"])
                        and r[0]["trigger"] == "cli"
                        and r
                    )
                )
                self.assertEqual(runs[0]["exitCode"], 3)
                self.assertEqual(self.totals(), len(runs))

    def test_an_end_that_two_processes_saw(self) -> None:
        need_full()
        self.server.stop()
        self.server.program = list(patched("m.Database.RETRY_S = 1.0"))
        self.server.start()
        totals = [self.totals()]
        with self.locked():
            self.server.completed("brief")
        for _ in range(3):
            self.server.command("run", "brief")
            totals.append(self.totals())
        wait_until(lambda: not self.degraded())
        totals.append(self.totals())
        self.assertEqual(totals, sorted(totals))
        self.assertEqual(totals[-1], 5)


if __name__ == "__main__":
    unittest.main()
