"""The history: what it answers, and what it does when its disk does not take it."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Iterator, Optional
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import slow, wait_until

from cron_trigger.history import schema
from cron_trigger.history.answers import Selection
from cron_trigger.history.file import HistoryFile
from cron_trigger.history.schedules import Judged
from cron_trigger.history.second import Second
from cron_trigger.history.store import Store
from cron_trigger.registry.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    Key,
    Run,
    Scheduled,
    replace,
)
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.output import inode_of

Said = list[tuple[str, str]]


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
        store = Store(self.path, say, folder, lambda: None)
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

    def rows(self, query: str) -> list[tuple[Any, ...]]:
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
        for page in (
            Selection(),
            Selection("a"),
            Selection(status="failed"),
            Selection(status=["failed", "running"], since="2000", until="3000"),
            Selection(before=ended.id),
            Selection("a", "running", limit=1),
        ):
            with self.subTest(page):
                views = [run.view() for run in self.store.runs(page)]
                texts = self.store.run_texts(page)
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
        pruned = self.store.prune(-60)
        self.assertEqual(pruned, 3)
        self.assertEqual([run.id for run in self.store.runs()], [running.id])
        again = {(c, s): runs for c, s, runs, _, _ in self.store.totals()}
        self.assertEqual(again, totals)

    @slow
    def test_pruning_takes_what_is_old_only_and_gives_space_back(self) -> None:
        for _ in range(120):
            self.ended(self.begun(requested_by="x" * 200))
        before = now_text(time.time() + 0.002)
        wait_until(lambda: now_text() > before)
        young = self.begun()
        self.store.close()
        size = self.path.stat().st_size
        self.store = self.opened()
        self.assertEqual(self.store.prune(time.time() - epoch_of(before)), 120)
        self.assertEqual([run.id for run in self.store.runs()], [young.id])
        self.store.close()
        self.assertLess(self.path.stat().st_size, size)

    def test_ids_of_pruned_runs_are_not_given_again(self) -> None:
        last = self.begun()
        self.ended(last)
        self.store.prune(-60)
        self.store.close()
        self.store = self.opened()
        self.assertEqual(self.begun().id, last.id + 1)

    @slow
    def test_pages_are_merged_with_what_is_not_written_yet(self) -> None:
        for _ in range(5):
            self.ended(self.begun())
        with self.locked():
            for _ in range(3):
                self.ended(self.begun())
            ids = [run.id for run in self.store.runs(Selection(limit=4))]
            self.assertEqual(ids, [8, 7, 6, 5])
            page = self.store.runs(Selection(None, COMPLETED, 7, 3))
            self.assertEqual([run.id for run in page], [6, 5, 4])
            self.assertEqual(self.store.figures("a").runs, 8)
        wait_until(self.store.retry)
        self.assertEqual(self.rows("select count(*) from cron_executions"), [(8,)])
        self.assertEqual(self.store.figures("a").runs, 8)

    @slow
    def test_what_moves_over_while_somebody_reads_is_read(self) -> None:
        reader = self.opened()
        with self.locked():
            run = self.begun()
        real = Second.is_empty

        def moved_first(second: Second) -> bool:
            with mock.patch.object(Second, "is_empty", real):
                self.store.retry()
            return real(second)

        with mock.patch.object(Second, "is_empty", moved_first):
            self.assertEqual(reader.run(run.id), run)

    def test_only_its_user_may_read_it(self) -> None:
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)

    def test_an_inode_may_use_all_of_its_bits(self) -> None:
        for number in (1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            run = self.begun(log_inode=inode_of(number), log_start=0)
            found = self.store.run(run.id)
            self.assertEqual(found and found.log_inode, inode_of(number))
        self.assertEqual(len(set(map(inode_of, (5, 1 << 63, (1 << 64) - 5)))), 3)


class Faults(Folder):
    """A history that can't be written, for a while or for good."""

    @slow
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
        wait_until(self.store.retry)
        self.assertIsNone(self.store.problem)
        rows = self.rows("select id, status, exit_code, pid from cron_executions")
        expected = [(before.id, "failed", 3, 4711), (within.id, "failed", 4, 4711)]
        self.assertEqual(rows, expected)
        self.assertEqual(self.rows("select sum(runs) from run_totals"), [(2,)])
        names = [row[0] for row in self.rows("select event from events order by id")]
        self.assertEqual(sorted(names), ["run.finished"] * 2 + ["run.started"] * 2)

    @slow
    def test_a_run_of_another_process_is_never_overwritten(self) -> None:
        """Both give ids while one of them can't reach the history."""
        other = self.opened()
        with self.locked():
            mine = self.begun("a", requested_by="me")
        theirs = other.begin(Run(0, "b", RUNNING, started_at=now_text()))
        wait_until(self.store.retry)
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
        wait_until(self.store.retry)
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

    def test_each_broken_one_is_kept_under_a_name_of_its_own(self) -> None:
        for number in range(4):
            self.store.close()
            self.path.write_bytes(b"broken %d " % number * 1000)
            self.store = self.opened()
        moved = self.path.parent.glob("history.db.corrupt-2*")
        texts = {path.read_bytes()[:8] for path in moved}
        self.assertEqual(texts, {b"broken %d" % number for number in range(4)})

    def test_of_two_processes_that_see_it_broken_one_moves_it(self) -> None:
        self.store.close()
        self.path.write_bytes(b"broken" * 1000)
        inner = HistoryFile._move_aside
        others: list[Store] = []

        def overtaken(file: HistoryFile, error: BaseException) -> None:
            if not others:
                others.append(self.store)
                self.store = self.opened()
                self.ended(self.begun("theirs"))
            inner(file, error)

        with mock.patch.object(HistoryFile, "_move_aside", overtaken):
            mine = self.opened()
        self.assertEqual([run.cron_name for run in mine.runs()], ["theirs"])
        self.assertEqual(len(list(self.path.parent.glob("*.corrupt-2*"))), 1)

    def test_two_processes_bring_an_old_one_up_at_once(self) -> None:
        self.ended(self.begun())
        self.store.close()
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.executescript(
                "alter table cron_executions rename column keeper_started to gone;"
                "pragma user_version = 0;"
            )
        inner = schema.columns_of
        others: list[threading.Thread] = []

        def overtaken(*given: Any) -> list[str]:
            columns = inner(*given)
            if not others:
                others.append(threading.Thread(target=self.opened))
                others[0].start()
                others[0].join(0.1)  # it waits for us, or has come first
            return columns

        patient = mock.patch.object(HistoryFile, "BUSY_S", 30.0)
        with patient, mock.patch.object(schema, "columns_of", overtaken):
            store = self.opened()
            others[0].join()
        self.assertIsNone(store.problem)
        self.assertEqual(store.figures("a").runs, 1)
        self.assertEqual([level for level, _ in self.said if level == "error"], [])

    def test_parameters_that_somebody_broke_stop_nothing(self) -> None:
        run = self.begun()
        planned = self.store.schedule(
            Scheduled(0, "a", now_text(), "pending", created_at=now_text())
        )
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            for table in ("cron_executions", "scheduled_triggers"):
                db.execute(f"update {table} set params = '{{broken'")
        self.assertEqual([r.params for r in self.store.running()], [{}])
        self.assertEqual([s.params for s in self.store.pending()], [{}])
        self.assertIsNotNone(self.ended(run, 3))
        self.assertTrue(self.store.end_scheduled(replace(planned, status=CANCELLED)))

    @slow
    def test_what_ended_while_neither_could_be_written_stays_ended(self) -> None:
        """The second's file has the rows as they were before it was locked, too."""
        key = Key("a", "k", "digest", time.time())
        second = self.path.parent.parent / "unwritten.db"
        with self.locked():
            entry = Scheduled(0, "a", now_text(), "pending", created_at=now_text())
            planned = self.store.schedule(entry)
            run = Run(0, "a", RUNNING, started_at=now_text())
            run = self.store.begin(run, key)
            self.store.judge(Judged("a", "@daily", 1.0))
            with contextlib.closing(sqlite3.connect(second, isolation_level=None)) as b:
                b.execute("begin immediate")
                ended = replace(planned, status=CANCELLED)
                self.assertTrue(self.store.end_scheduled(ended))
                self.assertIn("can't be written either", self.store.problem or "")
                self.store.release(run, began=False)
                self.store.judge(Judged("a", "@daily", 2.0))
                b.execute("rollback")
        wait_until(lambda: self.store.retry() and self.store.problem is None)
        self.ended(self.begun())
        self.assertEqual(
            self.rows("select status from scheduled_triggers"), [("cancelled",)]
        )
        self.assertEqual(self.store.pending(), [])
        self.assertIsNone(self.store.key("a", "k"))
        self.assertEqual(self.store.judged()["a"].judged_s, 2.0)
        self.store.close()
        with contextlib.closing(sqlite3.connect(second)) as b:
            for table in schema.TABLES:
                self.assertEqual(b.execute(f"select * from {table}").fetchall(), [])

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
                self.store.prune(0)
                database._write_first = whole
                wait_until(self.store.retry)
                known = self.store.run(running.id)
                assert known
                self.assertEqual((known.status, known.exit_code), ("failed", 3))
                self.ended(run, 143)

    @slow
    def test_threads_that_write_at_once_get_an_id_each(self) -> None:
        ids: list[int] = []

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


if __name__ == "__main__":
    unittest.main()
