"""Two full disks, locks, histories that are cut, swapped or of another version."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import functools
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Iterator, Optional
from unittest import mock

from fast.test_store import Folder
from support import FULL, PROGRAM, Server, patched, slow, wait_until
from test_store import DiskCase

from cron_trigger.history.file import HistoryFile
from cron_trigger.history.ids import Ids
from cron_trigger.history.owner import check_run_dir, own_state, said_of
from cron_trigger.history.store import Store
from cron_trigger.host.lock import take_lock
from cron_trigger.registry.errors import ConfigError, Refusal
from cron_trigger.registry.records import COMPLETED, RUNNING, Run, replace
from cron_trigger.registry.times import now_text

SOON = "m.Database.RETRY_S = 0.1"
#: Holds a history as a program does that takes its time: until its input ends.
LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[2])
db.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: Path, readable: bool = True) -> Iterator[None]:
    """Have another process hold a history, for writing or for reading as well."""
    mode = "normal" if readable else "exclusive"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path), f"pragma locking_mode={mode}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


class FullDisks(DiskCase):
    """Both disks are full: room was taken before."""

    def setUp(self) -> None:
        super().setUp()
        folder = self.mount("disk")
        self.server.state_dir = folder / "state"
        self.server.run_dir = folder / "run"
        self.folder = folder

    def test_no_told_run_is_lost_and_no_key_starts_twice(self) -> None:
        self.server.start()
        self.once()
        filler = self.fill(self.folder)
        body, key = {"cronName": "stay"}, {"Idempotency-Key": "k"}
        told = [self.server.completed("brief")["id"] for _ in range(8)]
        stays = self.server.request("POST", "/trigger", body, key).json["runId"]
        wait_until(lambda: str(stays) in self.begun())
        self.assertTrue(self.degraded())
        self.restart()
        again = self.server.request("POST", "/trigger", body, key)
        self.assertEqual((again.status, again.json["runId"]), (202, stays))
        for run_id in told:
            self.assertEqual(self.server.run(run_id)["exitCode"], 3)
        self.assertEqual(self.let_go(stays)["exitCode"], 3)
        filler.unlink()
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, exit_code from cron_executions")
        self.assertLessEqual({(run_id, 3) for run_id in (*told, stays)}, set(rows))
        self.assertEqual(len(self.begun()), 2)

    @slow
    def test_a_server_starts_where_no_byte_is_left(self) -> None:
        self.server.run_dir.mkdir(mode=0o700)
        self.fill(self.folder)
        self.server.start()
        self.assertEqual(self.server.get("/health").json["status"], "degraded")

    @slow
    def test_a_planned_trigger_is_taken_and_survives(self) -> None:
        self.server.start()
        self.once()
        filler = self.fill(self.folder)
        self.server.completed("brief")
        moment = now_text(time.time() + 3600)
        planned = self.server.trigger("stay", runAt=moment)
        self.assertEqual(planned.status, 202, planned.text)
        self.restart()
        (entry,) = self.server.get("/scheduled").json["scheduled"]
        self.assertEqual(
            (entry["id"], entry["status"]), (planned.json["scheduledId"], "pending")
        )
        cancelled = self.server.request("DELETE", f"/scheduled/{entry['id']}")
        self.assertEqual(cancelled.status, 200)
        filler.unlink()
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select id, status from scheduled_triggers")
        self.assertEqual(rows, [(entry["id"], "cancelled")])

    @slow
    def test_where_no_room_can_be_taken_it_is_said_before_it_matters(self) -> None:
        self.server.run_dir.mkdir()
        filler = self.fill(self.folder)
        os.truncate(filler, filler.stat().st_size - 4 * 4096)
        self.server.state_dir = self.server.folder / "elsewhere"
        self.server.start()
        health = self.server.get("/health").json
        self.assertEqual(health["status"], "degraded")
        self.assertIn("No room", " ".join(health["problems"]))
        self.assertEqual(self.server.completed("brief")["exitCode"], 3)


@slow
class Locked(DiskCase):
    """Another program has the history for a while."""

    def events(self) -> list[tuple[int, str, int]]:
        rows = self.server.rows("select id, event, data from events order by id")
        return [
            (i, name, json.loads(data).get("run", {}).get("id"))
            for i, name, data in rows
        ]

    def test_an_end_that_no_server_saw_outlives_the_next_run(self) -> None:
        self.server.start()
        told = self.server.trigger("stay").json
        wait_until(lambda: str(told["runId"]) in self.begun())
        self.server.kill()
        (self.server.folder / "stay.sh.go").touch()
        # Its keeper has written the status and let go of the lock.
        wait_until(lambda: not os.path.exists(f"/proc/{told['pid']}"))
        with locked(self.server.state_dir / "history.db", readable=False):
            line = self.server.command("run", "stay")
            self.assertEqual(line.returncode, 3, line.stderr)
        self.server.start()
        wait_until(lambda: not self.degraded())
        rows = self.server.rows("select status, exit_code from cron_executions")
        self.assertEqual(rows, [("failed", 3), ("failed", 3)])

    def idle(self) -> bool:
        """Tell whether the server, too, has seen the end of a crontab's run."""
        return not self.server.get("/crons/brief").json["cron"]["running"]

    def test_each_event_once_though_server_and_crontab_both_wrote(self) -> None:
        self.server.start()
        first = self.server.completed("brief")["id"]
        seconds = 14 if FULL else 2
        told: list[int] = []
        lines = 0
        with locked(self.server.state_dir / "history.db"):
            deadline_s = time.monotonic() + seconds
            while time.monotonic() < deadline_s:
                if self.server.command("run", "brief").returncode == 3:
                    lines += 1
                wait_until(self.idle)
                told.append(self.server.completed("brief")["id"])
                if len(told) % 3 == 2:
                    self.restart()
        wait_until(lambda: not self.degraded())
        events = self.events()
        self.assertEqual(len({i for i, *_ in events}), len(events))
        kinds = collections.Counter(event[1:] for event in events)
        self.assertEqual(set(kinds.values()), {1}, kinds)
        rows = self.server.rows("select id from cron_executions")
        self.assertLessEqual({first, *told}, {row[0] for row in rows})
        self.assertEqual(len(rows), 1 + len(told) + lines)
        self.assertEqual(len(kinds), 2 * len(rows))

    def test_no_answer_waits_for_the_one_who_has_it_locked(self) -> None:
        """One wait at the start, one to read, and then nobody but `history` tries."""
        self.server.start()
        self.server.completed("brief")
        self.server.stop()
        tried = self.server.folder / "tried"
        self.server.program = list(
            patched(
                "import traceback",
                "def role():",
                "    names = [f.name for f in traceback.extract_stack()]",
                "    known = {'_retry_till_well': 'history', 'main': 'main'}",
                "    return [*filter(None, map(known.get, names)), 'another'][0]",
                "def told(owner, name):",
                "    inner = getattr(owner, name)",
                "    def wrapped(*given):",
                f"        with open({str(tried)!r}, 'a') as file:",
                "            print(role(), name, file=file)",
                "        return inner(*given)",
                "    setattr(owner, name, wrapped)",
                "told(m.HistoryFile, 'connected')",
                "told(m.Joined, '_joined')",
                SOON,
            )
        )
        with locked(self.server.state_dir / "history.db"):
            self.server.start()
            answers = [
                self.server.get(path).status
                for path in ("/crons", "/runs", "/health", "/scheduled", "/runs/1")
            ]
            answers += [self.server.trigger(name).status for name in ("brief", "stay")]
            self.assertTrue(self.degraded())
            self.assertEqual(answers, [200] * 5 + [202] * 2)
            lines = tried.read_text().splitlines()
        others = collections.Counter(
            line for line in lines if not line.startswith("history ")
        )
        self.assertEqual(others.pop("main connected"), 1, others)
        self.assertLessEqual(sum(others.values()), 2, others)

    def test_a_lock_of_another_on_the_numbers_delays_no_trigger(self) -> None:
        self.server.start()
        self.server.completed("brief")
        with contextlib.ExitStack() as stack:
            for path in self.server.run_dir.glob("last-*"):
                file = stack.enter_context(open(path, "rb"))
                fcntl.flock(file, fcntl.LOCK_EX)
            began_s = time.monotonic()
            ids = [self.server.completed("brief")["id"] for _ in range(4)]
            line = self.server.command("run", "brief")
            self.assertEqual(line.returncode, 3)
            self.assertLess(time.monotonic() - began_s, 20)
        self.assertEqual(ids, [2, 3, 4, 5])
        events = self.events()
        self.assertEqual(len({event[1:] for event in events}), 12)


@slow
class Lost(Folder):
    """What happens to the file while it is in use."""

    def ended_runs(self, count: int = 3) -> set[int]:
        ids = set()
        for _ in range(count):
            run = self.begun()
            self.ended(run, 3)
            ids.add(run.id)
        return ids

    def assert_known(self, ids: set[int], running: Run) -> None:
        rows = dict(self.rows("select id, exit_code from cron_executions"))
        self.assertLessEqual(ids | {running.id}, set(rows))
        self.assertEqual({rows[number] for number in ids}, {3})
        self.assertIsNone(self.store.problem)
        self.assertTrue(any(level == "error" for level, _ in self.said), self.said)
        events = self.rows("select event, json_extract(data, '$.run.id') from events")
        self.assertEqual(len(set(events)), len(events))

    def aside(self) -> list[Path]:
        return list(self.path.parent.glob("history.db.corrupt-2*"))

    def checkpoint(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute("pragma wal_checkpoint(truncate)")

    def damaged(self, damage: Callable[[], Any]) -> None:
        ids, running = self.ended_runs(), self.begun()
        damage()
        ids |= self.ended_runs()
        self.assert_known(ids, running)
        self.assertIsNotNone(self.ended(running, 4))

    def test_it_is_cut_to_nothing(self) -> None:
        self.damaged(lambda: os.truncate(self.path, 0))

    def test_it_is_cut_to_nothing_after_a_checkpoint(self) -> None:
        self.ended_runs(5)
        self.checkpoint()
        self.damaged(lambda: os.truncate(self.path, 0))

    def test_it_is_cut_in_the_middle(self) -> None:
        self.ended_runs(40)
        self.checkpoint()
        running = self.begun()
        os.truncate(self.path, 3 * 4096)
        ids = self.ended_runs()
        self.assert_known(ids, running)
        self.assertEqual(len(self.aside()), 1)

    def test_another_process_prunes_it_meanwhile(self) -> None:
        folder = self.path.parent.parent
        line = Store(self.path, lambda *said: self.said.append(said), folder)
        self.addCleanup(line.close)
        self.ended_runs(300)
        self.checkpoint()
        run = line.begin(Run(0, "a", RUNNING, started_at=now_text()))
        self.assertEqual(self.store.prune(-60), 300)
        size = self.path.stat().st_size
        self.ended_runs(50)
        (pages,) = self.rows("pragma page_count")[0]
        self.assertGreater(pages * 4096, size)
        done = replace(run, status=COMPLETED, completed_at=now_text(), exit_code=0)
        self.assertIsNotNone(line.end(done))
        self.assertEqual(self.said, [])

    def test_its_wal_is_removed(self) -> None:
        def damage() -> None:
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink()

        self.damaged(damage)

    def test_an_older_copy_is_put_in_its_place(self) -> None:
        self.ended_runs()
        self.checkpoint()
        copy = self.path.with_name("copy")
        copy.write_bytes(self.path.read_bytes())
        self.damaged(lambda: copy.replace(self.path))

    def test_an_older_copy_of_the_same_size_is_written_over_it(self) -> None:
        self.ended_runs(100)
        self.checkpoint()
        copy = self.path.read_bytes()
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute("delete from cron_executions where id <= 50")
            db.execute("delete from events where id <= 100")
        ids = self.ended_runs(40)
        self.checkpoint()
        self.assertEqual(self.path.stat().st_size, len(copy))
        running = self.begun()
        self.assertEqual(self.said, [])
        with open(self.path, "r+b", buffering=0) as file:
            file.write(copy)
        ids |= self.ended_runs(2)
        self.assert_known(ids, running)
        self.assertIsNotNone(self.ended(running, 3))
        self.assertIn("written over", self.said[0][1])
        self.assertEqual(self.rows("pragma integrity_check"), [("ok",)])

    def test_what_it_was_is_written_over_it(self) -> None:
        """A copy that lacks only what the -wal has: nothing is lost, nothing said."""
        ids = self.ended_runs(30)
        self.checkpoint()
        copy = self.path.read_bytes()
        ids |= self.ended_runs(1)
        with open(self.path, "r+b", buffering=0) as file:
            file.write(copy)
        ids |= self.ended_runs(1)
        self.assertEqual(self.said, [])
        rows = self.rows("select id from cron_executions where exit_code = 3")
        self.assertEqual({row[0] for row in rows}, ids)

    def test_something_else_is_written_over_a_part_of_it(self) -> None:
        self.ended_runs(30)
        self.checkpoint()
        ids, running = self.ended_runs(), self.begun()
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(4096)
            file.write(b"something else " * 2000)
        ids |= self.ended_runs(2)
        self.assert_known(ids, running)
        self.assertEqual(len(self.aside()), 1)

    # The other process holds the history for as long as its disk takes.
    @mock.patch.object(HistoryFile, "BUSY_S", 15.0)
    def test_what_other_processes_write_is_no_damage(self) -> None:
        self.store = self.opened()
        running = self.begun()
        text = (
            "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=10)\n"
            "db.execute('pragma wal_autocheckpoint = 5')\n"
            "for i in range(300):\n"
            '    with db: db.execute("insert into events (event, data) values '
            "('x', '{}')\")\n"
        )
        command = [sys.executable, "-c", text, str(self.path)]
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                self.ended_runs(1)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.said, [])
        self.assertIsNotNone(self.ended(running, 3))

    def test_the_wal_does_not_grow_for_good(self) -> None:
        wal = Path(f"{self.path}-wal")
        sizes: list[int] = []
        with mock.patch.multiple(HistoryFile, WAL_BYTES=64 << 10, WAL_KEPT=16 << 10):
            self.store = self.opened()
            for _ in range(60):
                self.ended_runs()
                sizes.append(wal.stat().st_size)
        self.assertLess(max(sizes), 256 << 10)
        self.assertEqual(self.said, [])

    def test_its_wal_is_cut(self) -> None:
        self.ended_runs()
        self.checkpoint()
        self.damaged(lambda: os.truncate(f"{self.path}-wal", 0))
        self.assertEqual(self.rows("pragma integrity_check"), [("ok",)])

    def test_a_column_is_renamed(self) -> None:
        def damage() -> None:
            with contextlib.closing(sqlite3.connect(self.path)) as db:
                db.execute("alter table cron_executions rename log_end to log_stop")

        ids, running = self.ended_runs(), self.begun()
        damage()
        after = self.ended_runs()
        self.assert_known(after, running)
        self.assertEqual(len(self.aside()), 1)
        with contextlib.closing(sqlite3.connect(self.aside()[0])) as db:
            kept = db.execute("select id from cron_executions").fetchall()
        self.assertLessEqual(ids, {row[0] for row in kept})

    def test_a_newer_version_is_refused_before_anything_is_changed(self) -> None:
        self.ended_runs()
        self.store.close()
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute("pragma user_version = 99")
        before = self.path.read_bytes()
        with self.assertRaisesRegex(ConfigError, "newer version"):
            self.opened()
        with self.assertRaisesRegex(ConfigError, "newer version"):
            Store(self.path, lambda *_: None, read_only=True)
        self.assertEqual(self.path.read_bytes(), before)

    def test_an_older_version_is_brought_up(self) -> None:
        ids = self.ended_runs()
        self.store.close()
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.executescript(
                "drop trigger count_ended_update; drop trigger count_ended_insert;"
                "alter table cron_executions drop column keeper_started;"
                "alter table run_totals drop column in_a_row; pragma user_version = 0;"
            )
        reader = Store(self.path, lambda *_: None, read_only=True)
        self.assertEqual({run.id for run in reader.runs()}, ids)
        self.assertEqual(reader.figures("a").runs, 3)
        reader.close()
        self.store = self.opened()
        self.assertEqual({run.id for run in self.store.runs()}, ids)
        self.assertEqual(self.store.failures_in_a_row(), {"a": 3})
        self.ended(self.begun(), 0)
        self.assertEqual(self.store.failures_in_a_row()["a"], 0)

    def test_the_advice_fits_the_fault(self) -> None:
        with locked(self.path):
            self.begun()
            problem = self.store.problem or ""
        self.assertIn("end the program", problem)
        self.assertNotIn("space", problem)


@slow
class Numbers(unittest.TestCase):
    """Numbers are given once, whoever dies or is stopped when."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext_())

    def enterContext_(self) -> str:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        return folder.name

    def test_of_many_processes_none_gets_another_s(self) -> None:
        text = (
            "import sys\nfrom pathlib import Path\nfrom flat import m\n"
            "ids = m.Ids(Path(sys.argv[1]))\nids.learn('run', 5)\n"
            "print([ids.draw('run') for _ in range(500)])"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", text, str(self.folder)],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parent,
            )
            for _ in range(4)
        ]
        given = [n for p in processes for n in json.loads(p.communicate()[0])]
        self.assertEqual(sorted(given), list(range(6, 2006)))

    def test_a_removed_file_is_made_again_above_what_was_given(self) -> None:
        ids = Ids(self.folder)
        last = [ids.draw("run") for _ in range(3)][-1]
        (self.folder / "last-run").unlink()
        self.assertEqual(ids.draw("run"), last + 1)
        ids.close()

    def test_letting_go_unlocks_nobody_else_s_file(self) -> None:
        ids = Ids(self.folder / "run")
        self.addCleanup(ids.close)
        ids._folder.mkdir()  # type: ignore[union-attr]
        with ids:
            ids.draw("event")
            (self.folder / "run").rename(self.folder / "moved")
            (self.folder / "moved" / "last-event").unlink()
            ids.draw("event")
            # As a thread does that starts a cron just then: it gets the freed number.
            lock = take_lock(self.folder / "a.pid")
            assert lock is not None
            self.addCleanup(os.close, lock)
        self.assertIsNone(take_lock(self.folder / "a.pid"))

    def test_events_are_drawn_again_where_another_went_before(self) -> None:
        ids, other = Ids(self.folder), Ids(self.folder)
        with ids:
            ids.draw("event")
            self.assertFalse(ids.overtaken())
            other.draw("event")
            self.assertTrue(ids.overtaken())
        ids.close()
        other.close()


class SameEnd(Folder):
    """Two processes saw one end; the one is held still in the midst of recording it."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.opened()
        self.run_begun = self.begun()
        database = self.other._database
        database._first.BUSY_S = database.ids.ORDER_WAIT_S = 0.01

    def end_in_the_midst(self, looked_before: bool) -> None:
        """End it in both, the other where this one looks whether it was overtaken."""
        ids = self.store._database.ids
        look, looks = ids.overtaken, itertools.count()

        def overtaken() -> bool:
            before = looked_before and look()
            if not next(looks):
                self.assertIsNotNone(self.ended_by(self.other))
                self.assertTrue(self.other.problem)
            return before if looked_before else look()

        ids.overtaken = overtaken  # type: ignore[method-assign]
        self.ended(self.run_begun)

    def ended_by(self, store: Store) -> Optional[Run]:
        self.store, own = store, self.store
        try:
            return self.ended(self.run_begun)
        finally:
            self.store = own

    def assert_told_once(self) -> None:
        wait_until(self.other.retry)
        self.store.tell("registry.reloaded", {"crons": 1})
        names = [row[0] for row in self.rows("select event from events order by id")]
        self.assertEqual(names, ["run.started", "run.finished", "registry.reloaded"])
        self.assertEqual(self.rows("select sum(runs) from run_totals"), [(1,)])

    @slow
    def test_it_is_told_once_where_it_was_overtaken(self) -> None:
        self.end_in_the_midst(looked_before=False)
        events = self.store.events_after(0)
        self.assertEqual(
            [event.name for event in events], ["run.started", "run.finished"]
        )
        self.assert_told_once()

    @slow
    def test_it_is_told_once_where_that_came_too_late_to_be_noticed(self) -> None:
        self.end_in_the_midst(looked_before=True)
        self.assert_told_once()

    @slow
    def test_what_a_change_in_the_second_works_on_is_there_again(self) -> None:
        with locked(self.path):
            ids = self.other._database.ids
            looks = itertools.count()
            ids.overtaken = lambda: not next(looks)  # type: ignore[method-assign]
            self.assertIsNotNone(self.ended_by(self.other))
        self.assert_told_once()


@slow
class Owner(unittest.TestCase):
    def test_who_reads_whose_it_is_never_finds_it_half_written(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as name:
            folders = [Path(name) / "short", Path(name) / ("long" * 40)]
            state = Path(name)
            read: set[str] = set()
            stop = threading.Event()

            def reader() -> None:
                while not stop.is_set():
                    with contextlib.suppress(Refusal):
                        # Says nothing of a folder that nobody has named.
                        check_run_dir(state, folders[0])
                    read.add(said_of(state))

            lock = own_state(state, folders[0])
            assert lock is not None
            thread = threading.Thread(target=reader)
            thread.start()
            for turn in range(3000):
                os.close(lock)
                lock = own_state(state, folders[turn % 2], 5)
                assert lock is not None
            stop.set()
            thread.join()
            os.close(lock)
            self.assertLessEqual(read, set(map(os.path.realpath, folders)))

    def test_a_second_server_of_a_state_folder_is_refused(self) -> None:
        registry = {"brief": {"description": "B", "command": ["true"]}}
        with Server(registry) as one, Server(registry, start=False) as two:
            two.state_dir = one.state_dir
            second = two.command("serve", "--host=127.0.0.1", "--port=0")
            self.assertEqual(second.returncode, 75, second.stderr)
            self.assertIn(str(one.run_dir), second.stderr)
            line = two.command("run", "brief")
            self.assertEqual(line.returncode, 75, line.stderr)
            self.assertEqual(two.command("history").returncode, 0)
            self.assertEqual(one.command("run", "brief").returncode, 0)
            one.kill()
            self.assertEqual(two.command("run", "brief").returncode, 0)


@slow
class Moved(DiskCase):
    """SIGKILL around each step with the second history; then each thing once."""

    POINTS = (
        ("Second", "to_file", "before"),
        ("Second", "to_file", "after"),
        ("Second", "move_to", "before"),
        ("Second", "_write_over", "after"),
        ("Second", "clear", "before"),
        ("Second", "clear", "after"),
        ("Database", "_write_second", "before"),
        ("Database", "_write_second", "after"),
        ("Ids", "draw", "before"),
        ("Ids", "draw", "after"),
    )

    def test_each_thing_is_there_once_wherever_the_server_dies(self) -> None:
        from test_crash import dying, some

        self.server.start()
        self.server.stop()
        for owner, name, when in some(self.POINTS, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                self.die_within_a_lock(list(dying(owner, name, when)))
                self.server.program = [str(PROGRAM)]
                self.server.start()
                self.assert_whole()
                self.server.stop()

    def die_within_a_lock(self, program: list[str]) -> None:
        self.server.program = [str(PROGRAM)]
        self.server.start()
        with locked(self.server.state_dir / "history.db"):
            self.server.completed("brief")
            self.server.kill()
            self.server.program = program
            with contextlib.suppress(AssertionError, OSError):
                self.server.start()
                self.server.trigger("brief")
        assert self.server.process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.process.wait(20)
        died = self.server.process.poll()
        self.server.kill()
        self.assertEqual(died, -signal.SIGKILL)

    def assert_whole(self) -> None:
        query = "select count(*) from cron_executions where status = 'running'"
        wait_until(lambda: not self.degraded() and self.server.rows(query) == [(0,)])
        told = self.server.rows(
            "select event, json_extract(data, '$.run.id') from events"
        )
        self.assertEqual(sorted(set(told)), sorted(told))
        totals = self.server.rows("select sum(runs) from run_totals")
        rows = self.server.rows("select count(*) from cron_executions")
        self.assertEqual(totals, rows)
        finished = {run for event, run in told if event == "run.finished"}
        ids = {row[0] for row in self.server.rows("select id from cron_executions")}
        self.assertEqual(finished, ids)


@slow
class Began(DiskCase):
    """SIGKILL around each step of a start: what is old goes, what is young stays."""

    POINTS = (
        ("Clock", "_look", "after"),
        ("Clock", "_save", "before"),
        ("Clock", "_save", "after"),
        ("Pruning", "_prune_runs", "before"),
        ("Pruning", "_prune_runs", "after"),
        ("Pruning", "_prune_others", "after"),
        ("HistoryFile", "shrink", "before"),
        ("HistoryFile", "take_pages", "before"),
        ("HistoryFile", "take_pages", "after"),
        ("HistoryFile", "_set_up", "after"),
        ("Database", "_take_room", "before"),
        ("Database", "_take_room", "after"),
    )

    def setUp(self) -> None:
        super().setUp()
        self.path = self.server.state_dir / "history.db"

    def test_a_start_that_dies_is_gone_on_with(self) -> None:
        from test_crash import dying, some

        self.server.start()
        self.server.completed("brief")
        self.server.stop()
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            # There is room before it, for what is older.
            db.execute("update cron_executions set id = 100")
            db.execute("update sqlite_sequence set seq = 100")
        self.server.start()
        for owner, name, when in some(self.POINTS, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                young = self.server.completed("brief")["id"]
                self.server.stop()
                self.old_runs()
                self.server.program = list(dying(owner, name, when))
                # It may die before it says that it listens.
                with contextlib.suppress(AssertionError):
                    self.server.start()
                assert self.server.process
                self.assertEqual(self.server.process.wait(15), -signal.SIGKILL)
                self.server.kill()
                self.server.program = [str(PROGRAM)]
                self.server.start()
                query = "select id from cron_executions where cron_name = 'old'"
                wait_until(functools.partial(self.none_of, query))
                self.assertEqual(self.server.run(young)["exitCode"], 3)
                self.assertFalse(self.degraded())
                self.assertEqual(self.server.rows("pragma integrity_check"), [("ok",)])
        runs = self.server.rows("select sum(runs) from run_totals where runs > 0")
        self.assertGreater(runs[0][0], 0)
        self.assertNotIn("jumped", self.server.log_text())

    def none_of(self, query: str) -> bool:
        return self.server.rows(query) == []

    def old_runs(self) -> None:
        at = now_text(time.time() - 91 * 86400)
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            # Before the first that is young, as its id is.
            (first,) = db.execute("select min(id) from cron_executions").fetchone()
            db.execute(
                "insert into cron_executions (id, cron_name, status, started_at, "
                "completed_at, trigger) values (?, 'old', 'completed', ?, ?, 'cli')",
                [first - 1, at, at],
            )


if __name__ == "__main__":
    unittest.main()
