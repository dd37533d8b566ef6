"""The history: what it answers, and what it does when its disk does not take it."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from support import FULL, Server, need, need_command, need_full, patched, wait_until

from cron_trigger.history.schema import TABLES
from cron_trigger.history.store import Store
from cron_trigger.registry.records import CANCELLED, COMPLETED, FAILED, RUNNING, Run
from cron_trigger.registry.times import now_text

Said = List[Tuple[str, str]]


class Folder(unittest.TestCase):
    """A folder with a history, without a server."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "state" / "history.db"
        self.said: Said = []
        self.store = self.opened()

    def opened(self) -> Store:
        folder = self.path.parent.parent
        say = lambda level, text: self.said.append((level, text))  # noqa: E731
        store = Store(self.path, say, folder)
        self.addCleanup(store.close)
        return store

    def begun(self, cron: str = "a", **values: Any) -> Run:
        run = Run(0, cron, RUNNING, started_at=now_text(), **values)
        run = replace(self.store.begin(run), pid=4711)
        self.store.started(run)
        return run

    def ended(self, run: Run, exit_code: int = 0) -> Optional[Run]:
        status = FAILED if exit_code else COMPLETED
        done = replace(run, status=status, completed_at=now_text(), duration_ms=7)
        return self.store.end(replace(done, exit_code=exit_code))

    def rows(self, query: str) -> List[Tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute(query).fetchall()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the history as another process does that writes and takes its time."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("begin immediate")
            yield
            db.execute("rollback")


class Answers(Folder):
    def test_the_contract_s_own_query_answers(self) -> None:
        for exit_code in (0, 3, 0, 0):
            run = self.ended(self.begun("monitor-openai"), exit_code)
            assert run
            wait_until(functools.partial(self.later_than, run.started_at))
        rows = self.rows(
            "SELECT cron_name, status, duration_ms, started_at FROM cron_executions "
            "WHERE cron_name = 'monitor-openai' ORDER BY started_at DESC LIMIT 3"
        )
        self.assertEqual(
            [row[:3] for row in rows[:2]], [("monitor-openai", "completed", 7)] * 2
        )
        self.assertEqual(len(rows), 3)

    def later_than(self, moment: str) -> bool:
        return now_text() > moment

    def test_sqlite_writes_the_same_views_as_python(self) -> None:
        odd = "é \"'\\/\t\n\x7f\u2028 𝄞 {} %s"
        params = {"text": odd, "n": -7, "x": 1.5e-7, "yes": True, "": ""}
        self.begun("a", requested_by=odd, client="::1", params=params)
        self.ended(self.begun("a", log_file="/x/é.log"), 137)
        ended = self.ended(replace(self.begun("b"), cpu_seconds=0.000123, signal="X"))
        assert ended
        pages: List[Dict[str, Any]] = [
            {},
            {"cron_name": "a"},
            {"status": "failed"},
            {"before": ended.id},
            {"cron_name": "a", "status": "running", "limit": 1},
        ]
        for given in pages:
            with self.subTest(given):
                views = [run.view() for run in self.store.runs(**given)]
                texts = self.store.run_texts(**given)
                self.assertTrue(texts)
                self.assertEqual([json.loads(text) for _, text in texts], views)
                self.assertEqual([i for i, _ in texts], [v["id"] for v in views])

    def test_without_sqlite_s_json_functions_python_writes_them(self) -> None:
        self.begun("a")
        ((number, text),) = self.store.run_texts()
        self.store._database._first.writes_json = False
        ((also_number, other),) = self.store.run_texts()
        self.assertEqual((number, json.loads(text)), (also_number, json.loads(other)))

    def test_parameters_that_somebody_broke_are_shown_as_none(self) -> None:
        self.begun("a", params={"n": 1})
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute("update cron_executions set params = '{broken'")
        self.assertEqual(json.loads(self.store.run_texts()[0][1])["params"], {})
        self.assertIsNone(self.store.problem)

    def test_an_end_is_recorded_once(self) -> None:
        run = self.begun()
        first, second = self.ended(run, 0), self.ended(run, 5)
        assert first
        self.assertEqual((first.status, second), ("completed", None))
        known = self.store.run(run.id)
        assert known
        self.assertEqual(known.exit_code, 0)

    def test_of_two_processes_that_see_an_end_one_records_it(self) -> None:
        other = self.opened()
        run = self.begun()
        done = replace(run, status=COMPLETED, exit_code=0, completed_at=now_text())
        self.assertIsNotNone(other.end(done))
        self.assertIsNone(self.store.end(replace(done, cpu_seconds=1.5)))
        known = other.run(run.id)
        assert known
        self.assertEqual(known.cpu_seconds, 1.5)
        self.assertEqual(self.rows("select sum(runs) from run_totals"), [(1,)])

    def test_totals_count_each_end_once_and_outlive_pruning(self) -> None:
        for exit_code in (0, 0, 1):
            self.ended(self.begun(), exit_code)
        running = self.begun()
        totals = {(c, s): runs for c, s, runs, _, _ in self.store.totals()}
        self.assertEqual(totals, {("a", "completed"): 2, ("a", "failed"): 1})
        pruned = self.store.prune(now_text(time.time() + 60))
        self.assertEqual(pruned, 3)
        self.assertEqual([run.id for run in self.store.runs()], [running.id])
        again = {(c, s): runs for c, s, runs, _, _ in self.store.totals()}
        self.assertEqual(again, totals)

    def test_pruning_takes_what_is_old_only_and_gives_space_back(self) -> None:
        for _ in range(300):
            self.ended(self.begun(requested_by="x" * 200))
        before = now_text(time.time() + 0.002)
        wait_until(lambda: now_text() > before)
        young = self.begun()
        self.store.close()
        size = self.path.stat().st_size
        self.store = self.opened()
        self.assertEqual(self.store.prune(before), 300)
        self.assertEqual([run.id for run in self.store.runs()], [young.id])
        self.store.close()
        self.assertLess(self.path.stat().st_size, size)

    def test_ids_of_pruned_runs_are_not_given_again(self) -> None:
        last = self.begun()
        self.ended(last)
        self.store.prune(now_text(time.time() + 60))
        self.store.close()
        self.store = self.opened()
        self.assertEqual(self.begun().id, last.id + 1)

    def test_pages_are_merged_with_what_is_not_written_yet(self) -> None:
        for _ in range(5):
            self.ended(self.begun())
        with self.locked():
            for _ in range(3):
                self.ended(self.begun())
            ids = [run.id for run in self.store.runs(limit=4)]
            self.assertEqual(ids, [8, 7, 6, 5])
            page = self.store.runs(before=7, limit=3, status=COMPLETED)
            self.assertEqual([run.id for run in page], [6, 5, 4])
            self.assertEqual(self.store.figures("a").runs, 8)
        self.assertTrue(self.store.retry())
        self.assertEqual(self.rows("select count(*) from cron_executions"), [(8,)])
        self.assertEqual(self.store.figures("a").runs, 8)

    def test_only_its_user_may_read_it(self) -> None:
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)


class Faults(Folder):
    """A history that can't be written, for a while or for good."""

    def test_what_a_lock_of_another_process_kept_out_is_written_afterwards(
        self,
    ) -> None:
        before = self.begun()
        with self.locked():
            within = self.begun()
            self.ended(before, 3)
            self.assertIn("locked", self.store.problem or "")
            self.ended(within, 4)
            self.assertFalse(self.store.retry())
            self.assertEqual([r.exit_code for r in self.store.runs()], [4, 3])
        self.assertTrue(self.store.retry())
        self.assertIsNone(self.store.problem)
        rows = self.rows("select id, status, exit_code, pid from cron_executions")
        expected = [(before.id, "failed", 3, 4711), (within.id, "failed", 4, 4711)]
        self.assertEqual(rows, expected)
        self.assertEqual(self.rows("select sum(runs) from run_totals"), [(2,)])
        names = [row[0] for row in self.rows("select event from events order by id")]
        self.assertEqual(sorted(names), ["run.finished"] * 2 + ["run.started"] * 2)

    def test_a_run_of_another_process_is_never_overwritten(self) -> None:
        """Both give ids while one of them can't reach the history."""
        other = self.opened()
        with self.locked():
            mine = self.begun("a", requested_by="me")
        theirs = other.begin(Run(0, "b", RUNNING, started_at=now_text()))
        self.assertTrue(self.store.retry())
        self.ended(mine, 3)
        rows = self.rows("select id, cron_name from cron_executions order by cron_name")
        self.assertEqual(rows, [(mine.id, "a"), (theirs.id, "b")])

    def test_a_history_that_could_not_be_opened_at_first_is_not_overwritten(
        self,
    ) -> None:
        for _ in range(3):
            self.ended(self.begun("old"))
        self.store.close()
        with self.unreadable():
            self.store = self.opened()
            self.assertIsNotNone(self.store.problem)
            run = self.begun("new")
        self.assertTrue(self.store.retry())
        self.ended(run)
        rows = self.rows("select cron_name, count(*) from cron_executions group by 1")
        self.assertEqual(rows, [("new", 1), ("old", 3)])

    @contextlib.contextmanager
    def unreadable(self) -> Iterator[None]:
        """A folder in the place of SQLite's -shm file: not even root can open it."""
        shm = Path(f"{self.path}-shm")
        shm.mkdir()
        yield
        shm.rmdir()

    def test_a_corrupt_history_is_moved_aside_at_the_start(self) -> None:
        self.ended(self.begun())
        self.store.close()
        self.path.write_bytes(b"no database at all" * 100)
        self.store = self.opened()
        self.assertIsNone(self.store.problem)
        run = self.begun()
        self.assertIsNotNone(self.ended(run))
        moved = list(self.path.parent.glob("history.db.corrupt-2*"))
        self.assertEqual(len(moved), 1)
        self.assertEqual(moved[0].read_bytes()[:18], b"no database at all")
        self.assertIn("corrupt", " ".join(text for _, text in self.said))

    def test_one_that_becomes_corrupt_loses_no_run_under_way_and_no_id(self) -> None:
        self.ended(self.begun())
        running = self.begun(requested_by="somebody")
        self.store.close()
        self.scribble()
        self.store.running()
        wait_until(self.store.retry)
        found = self.store.run(running.id)
        assert found
        self.assertEqual((found.status, found.requested_by), ("running", "somebody"))
        ended = self.ended(running, 4)
        assert ended
        self.assertEqual((ended.id, ended.exit_code), (running.id, 4))
        self.assertEqual(self.begun().id, running.id + 1)
        self.assertEqual(len(list(self.path.parent.glob("*.corrupt-2*"))), 1)

    def scribble(self) -> None:
        with open(self.path, "r+b") as file:
            file.write(os.urandom(file.seek(0, os.SEEK_END) or 1))
            file.seek(0)
            file.write(b"scribbled" * 2000)

    def test_one_that_is_removed_while_in_use_is_begun_again(self) -> None:
        running = self.begun()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink()
        self.assertIsNotNone(self.ended(running, 3))
        after = self.begun()
        rows = self.rows("select id, status from cron_executions")
        self.assertEqual(rows, [(running.id, "failed"), (after.id, "running")])

    def test_one_that_another_process_moves_aside_is_followed(self) -> None:
        running = self.begun()
        self.path.rename(self.path.with_name("moved"))
        other = self.opened()
        self.assertIsNotNone(self.ended(running, 3))
        known = other.run(running.id)
        assert known
        self.assertEqual(known.exit_code, 3)

    def test_an_error_of_the_disk_raises_nowhere(self) -> None:
        faults = (
            sqlite3.OperationalError("database or disk is full"),
            sqlite3.OperationalError("disk I/O error"),
            sqlite3.OperationalError("attempt to write a readonly database"),
            OSError(errno.EIO, "Input/output error"),
        )
        for fault in faults:
            with self.subTest(str(fault)):

                def fail(_change: Any, fault: Exception = fault) -> Any:
                    raise fault

                database: Any = self.store._database
                whole = database._write_first
                running = self.begun()
                database._write_first = fail
                self.assertIsNotNone(self.ended(running, 3))
                run = self.begun()
                self.store.set_end_reason(run, CANCELLED, "me")
                self.assertFalse(self.store.retry())
                self.assertIsNotNone(self.store.problem)
                self.store.tell("registry.reloaded", {"crons": 1})
                self.store.prune(now_text())
                database._write_first = whole
                self.assertTrue(self.store.retry())
                known = self.store.run(running.id)
                assert known
                self.assertEqual((known.status, known.exit_code), ("failed", 3))
                self.ended(run, 143)

    def test_threads_that_write_at_once_get_an_id_each(self) -> None:
        ids: List[int] = []

        def work() -> None:
            for _ in range(20):
                run = self.begun()
                self.ended(run)
                ids.append(run.id)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(ids), list(range(1, 161)))


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

    def some_folders(self) -> List[str]:
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

    def begun(self) -> List[str]:
        path = self.server.folder / "stay.sh.begun"
        return path.read_text().split() if path.exists() else []


class Disk(DiskCase):
    """A disk that is full, read-only, or gone."""

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
        self.assertEqual(self.server.run(told["runId"])["exitCode"], 3)
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
            self.assertLess(time.monotonic() - started_s, 5)
            self.assertTrue(self.degraded())
            line = self.server.command("run", "brief")
            self.assertEqual(line.returncode, 3)
            db.execute("rollback")
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertIn((run["id"], 3), rows)
        self.assertEqual(self.server.completed("brief")["exitCode"], 3)

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

    def test_a_history_removed_under_the_server_is_begun_again(self) -> None:
        self.server.start()
        told = self.server.trigger("stay").json
        shutil.rmtree(self.server.state_dir)
        self.assertEqual(self.let_go(told["runId"])["exitCode"], 3)
        self.restart()
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertEqual(rows, [(told["runId"], 3)])


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
        moment = now_text(time.time() + 0.3)
        planned = self.server.trigger("stay", runAt=moment).json["scheduledId"]

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
