"""Never twice: whoever asks, and however, a cron that runs is not started again."""

from __future__ import annotations

import concurrent.futures
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import unittest
from typing import Any

from support import (
    PROGRAM,
    Server,
    children,
    need_command,
    need_full,
    patched,
    slow,
    wait_until,
)

from cron_trigger.host import processes

#: Prints who it is, and stays until the test lets it go (or a minute has passed).
STAY = """#!/bin/sh
echo "$CRON_TRIGGER $CRON_RUN_ID" >>"$0.begun"
i=0
while [ ! -e "$0.go" ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i + 1)); done
exit 3
"""


REGISTRY: dict[str, Any] = {
    "stay": {"description": "Stays", "command": "stay.sh"},
    "brief": {"description": "Brief", "command": ["true"]},
    "short": {"description": "Short", "command": ["sleep", "0.2"]},
    "other": {"description": "Another", "command": ["true"]},
    "parent": {"description": "Leaves a child", "command": "parent.sh"},
    "victim": {"description": "Ends by a signal", "command": "victim.sh"},
}


#: It leaves a process that has the log open, but not the lock.
PARENT = '#!/bin/sh\nsleep 60 &\necho $! >"$0.child"\necho left\n'


VICTIM = "#!/bin/sh\nkill -$(cat victim.signal) $$\nsleep 60\n"


def prepared(**options: Any) -> Server:
    server = Server(REGISTRY, **options)
    server.script("stay.sh", STAY)
    server.script("parent.sh", PARENT)
    server.script("victim.sh", VICTIM)
    return server


def begun(server: Server) -> list[str]:
    """Return what each start of `stay` wrote."""
    path = server.folder / "stay.sh.begun"
    return path.read_text().splitlines() if path.exists() else []


def let_go(server: Server) -> None:
    (server.folder / "stay.sh.go").touch()


def running(server: Server, cron: str) -> Any:
    crons = server.get("/crons").json["crons"]
    return next(c["running"] for c in crons if c["cronName"] == cron)


class Http(unittest.TestCase):
    """Triggers over HTTP, among themselves."""

    def setUp(self) -> None:
        # On a slow host a launch takes longer than others wait to be told of its run.
        self.server = prepared(program=patched("m.Launch.PATIENCE_S = 15.0"))
        self.addCleanup(self.server.__exit__)
        self.server.start()

    def test_of_200_simultaneous_triggers_one_starts_and_199_are_told_of_it(
        self,
    ) -> None:
        together = threading.Barrier(200)

        def trigger(_: int) -> Any:
            together.wait()
            return self.server.trigger("stay")

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            replies = list(pool.map(trigger, range(200)))
        started = [r.json for r in replies if r.status == 202]
        refused = [r.json for r in replies if r.status == 409]
        self.assertEqual((len(started), len(refused)), (1, 199))
        for answer in refused:
            self.assertEqual(answer["code"], "already_running")
            for name in ("runId", "pid", "startedAt"):
                self.assertEqual(answer[name], started[0][name], answer)
        let_go(self.server)
        self.assertEqual(self.server.ended(started[0]["runId"])["exitCode"], 3)
        self.assertEqual(begun(self.server), [f"http {started[0]['runId']}"])
        self.assertEqual(self.server.rows("select id from cron_executions"), [(1,)])

    @slow
    def test_the_next_trigger_may_follow_at_once(self) -> None:
        """The lock is free as soon as the end can be known to anybody."""
        ids = [self.server.completed("brief")["id"] for _ in range(20)]
        self.assertEqual(ids, sorted(set(ids)))

    @slow
    def test_triggers_as_fast_as_the_lock_allows_record_each_end(self) -> None:
        """A trigger may find the lock free before the end before it was recorded."""
        told = {}
        for _ in range(80):
            reply = self.server.trigger("brief")
            if reply.status == 202:
                told[reply.json["runId"]] = reply.json["pid"]
        wait_until(lambda: running(self.server, "brief") is None)
        rows = self.server.rows(
            "select id, status, exit_code, pid from cron_executions"
        )
        self.assertEqual(rows, [(i, "completed", 0, told[i]) for i in sorted(told)])

    def test_a_process_left_in_the_background_does_not_hold_the_lock(self) -> None:
        first = self.server.completed("parent")
        child = int((self.server.folder / "parent.sh.child").read_text())
        try:
            os.kill(child, 0)  # it lives on
            second = self.server.completed("parent")
        finally:
            os.kill(child, signal.SIGKILL)
            os.kill(
                int((self.server.folder / "parent.sh.child").read_text()),
                signal.SIGKILL,
            )
        self.assertEqual((first["status"], second["status"]), ("completed",) * 2)

    def test_a_script_killed_by_a_signal_is_recorded_with_it(self) -> None:
        for name in ("KILL", "TERM", "SEGV", "ABRT"):
            with self.subTest(name):
                (self.server.folder / "victim.signal").write_text(name)
                run = self.server.completed("victim")
                number = signal.Signals["SIG" + name]
                self.assertEqual(run["status"], "failed")
                self.assertEqual(run["signal"], "SIG" + name)
                self.assertEqual(run["exitCode"], 128 + number)

    def test_looking_at_crons_never_takes_a_lock(self) -> None:
        """`flock -n` in a loop, as fast as it can, while all that reads is read."""
        flock = need_command("flock")
        pid_file = self.server.run_dir / "brief.pid"
        self.server.completed("brief")
        stop = threading.Event()
        faults: list[str] = []

        def look() -> None:
            while not stop.is_set():
                for path in ("/crons", "/runs", "/runs/1", "/metrics", "/health"):
                    reply = self.server.get(path)
                    if reply.status != 200:
                        faults.append(reply.text)

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(150):
                descriptor = os.open(pid_file, os.O_RDWR)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.close(descriptor)
            for _ in range(20):
                code = subprocess.call([flock, "-n", str(pid_file), "true"])
                self.assertEqual(code, 0)
        finally:
            stop.set()
            looker.join()
        self.assertEqual(faults, [])


@slow
class AtTheEnd(unittest.TestCase):
    """Whoever has seen a run's end may start the cron again at once."""

    def setUp(self) -> None:
        self.server = prepared(start=False)
        self.addCleanup(self.server.__exit__)

    def begin(self, *statements: str) -> None:
        """Start the server, with a step of its own held up."""
        self.server.program = list(patched("import time", *statements))
        self.server.start()

    def end_seen(self) -> bool:
        return not self.server.get("/runs?status=running").json["runs"]

    def test_though_the_end_is_not_told_to_all_threads_yet(self) -> None:
        slow_step = "lambda *a: (time.sleep(0.1), whole(*a), time.sleep(0.1))[1]"
        for name in ("Running.remove", "ActiveRun.close"):
            with self.subTest(name):
                self.begin(f"whole = m.{name}", f"m.{name} = {slow_step}")
                for _ in range(3):
                    self.server.completed("brief")
                self.server.stop()

    def test_though_it_ends_while_its_lock_is_tried(self) -> None:
        self.begin(
            *("take, remove = m.take_lock, m.Running.remove",),
            "m.take_lock = lambda path: (take(path), time.sleep(0.3))[0]",
            "m.Running.remove = lambda *a: (time.sleep(0.1), remove(*a))[1]",
        )
        for _ in range(3):
            self.assertEqual(self.server.trigger("brief").status, 202)
            wait_until(self.end_seen)

    def test_though_a_server_has_not_seen_what_a_crontab_line_has(self) -> None:
        self.begin(
            "whole = m.Ending.keeper_gone",
            "m.Ending.keeper_gone = lambda *a: (time.sleep(1), whole(*a))[1]",
        )
        self.server.program = [str(PROGRAM)]
        for again in (self.trigger, self.run_again):
            with self.subTest(again.__name__), self.server.spawn("run", "stay") as line:
                wait_until(lambda: running(self.server, "stay"))
                let_go(self.server)
                line.communicate(timeout=30)
                again()
                wait_until(self.end_seen)
                (self.server.folder / "stay.sh.go").unlink()

    def trigger(self) -> None:
        self.assertEqual(self.server.trigger("stay").status, 202)

    def run_again(self) -> None:
        self.assertEqual(self.server.command("run", "stay").returncode, 3)

    def test_though_it_was_looked_at_while_it_began(self) -> None:
        """Or a second one would watch it, and one of the two would never end."""
        self.begin(
            "watch, end = m.Ending.watch, m.Recorder.end",
            "m.Ending.watch = lambda *a: (time.sleep(0.5), watch(*a))[1]",
            "m.Recorder.end = lambda *a: (time.sleep(1), end(*a))[1]",
        )
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.server.trigger, "short")
            while not asked.done():
                running(self.server, "short")
            self.server.ended(asked.result().json["runId"])
        self.assertIsNone(running(self.server, "short"))
        self.server.completed("short")

    def test_nobody_takes_it_for_a_strangers(self) -> None:
        """Who runs is asked before the kernel's locks and after them."""
        self.begin(
            "look = m.held_locks",
            "m.held_locks = lambda *a: (look(*a), time.sleep(1))[0]",
        )
        self.server.trigger("stay")
        wait_until(lambda: begun(self.server))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(running, self.server, "stay")
            let_go(self.server)
            self.assertNotEqual((asked.result() or {}).get("trigger"), "external")


class Crontab(unittest.TestCase):
    """A crontab line, `flock -n PIDFILE script` or `run NAME`, and the server."""

    def setUp(self) -> None:
        self.server = prepared()
        self.addCleanup(self.server.__exit__)
        self.server.start()
        self.pid_file = self.server.run_dir / "stay.pid"

    def flock(self, *command: str) -> subprocess.Popen[bytes]:
        flock = need_command("flock")
        return subprocess.Popen([flock, "-n", "-E", "7", str(self.pid_file), *command])

    def test_flock_is_kept_out_by_a_run(self) -> None:
        run_id = self.server.trigger("stay").json["runId"]
        self.assertEqual(self.flock("true").wait(), 7)
        let_go(self.server)
        self.server.ended(run_id)
        self.assertEqual(self.flock("true").wait(), 0)

    def test_a_trigger_is_kept_out_by_flock_also_where_no_run_was_before(self) -> None:
        holder = self.flock("sleep", "60")
        try:
            external = {"id": None, "trigger": "external"}
            wait_until(lambda: running(self.server, "stay") == external)
            reply = self.server.trigger("stay")
            self.assertEqual(
                (reply.status, reply.json["code"]), (409, "already_running")
            )
            self.assertEqual(reply.json["runId"], None)
            self.assertEqual(reply.json["pid"], holder.pid)
            self.assertIn('running{cron="stay"} 1', self.server.get("/metrics").text)
            self.assertEqual(self.server.command("run", "stay").returncode, 75)
            self.assertEqual(begun(self.server), [])
        finally:
            for pid in [*children(holder.pid), holder.pid]:
                os.kill(pid, signal.SIGKILL)
            holder.wait()
        wait_until(lambda: running(self.server, "stay") is None)
        let_go(self.server)
        self.assertEqual(self.server.completed("stay")["exitCode"], 3)

    @slow
    def test_an_ended_run_is_not_shown_in_the_place_of_an_external_one(self) -> None:
        """The PID file still says the last run's PID and status; another holds it."""
        let_go(self.server)
        last = self.server.completed("stay")
        holder = self.flock("sleep", "60")
        try:
            wait_until(lambda: running(self.server, "stay"))
            self.assertEqual(running(self.server, "stay")["id"], None)
            self.server.kill()
            self.server.start()
            self.assertEqual(running(self.server, "stay")["id"], None)
            self.assertEqual(self.server.run(last["id"]), last)
        finally:
            for pid in [*children(holder.pid), holder.pid]:
                os.kill(pid, signal.SIGKILL)
            holder.wait()

    @slow
    def test_run_is_kept_out_by_a_run_of_the_server(self) -> None:
        run_id = self.server.trigger("stay").json["runId"]
        done = self.server.command("run", "stay")
        self.assertEqual(done.returncode, 75)
        self.assertIn("running already", done.stderr)
        let_go(self.server)
        self.server.ended(run_id)
        self.assertEqual(self.server.command("run", "stay").returncode, 3)
        self.assertEqual(begun(self.server), [f"http {run_id}", f"cli {run_id + 1}"])

    def test_a_trigger_is_kept_out_by_run_and_the_server_shows_it(self) -> None:
        line = self.server.spawn("run", "stay")
        run = wait_until(lambda: (running(self.server, "stay") or {}).get("id"))
        refused = self.server.trigger("stay")
        self.assertEqual((refused.status, refused.json["runId"]), (409, run))
        self.assertEqual(self.server.run(run)["trigger"], "cli")
        let_go(self.server)
        self.assertEqual(line.wait(20), 3)
        assert line.stdout
        line.stdout.close()
        ended = self.server.ended(run)
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 3))
        self.assertEqual(
            self.server.rows("select count(*) from cron_executions"), [(1,)]
        )

    @slow
    def test_run_killed_leaves_its_run_to_the_server(self) -> None:
        line = self.server.spawn("run", "stay")
        run = wait_until(lambda: (running(self.server, "stay") or {}).get("id"))
        line.kill()
        line.wait()
        assert line.stdout
        line.stdout.close()
        self.assertEqual(self.server.trigger("stay").status, 409)
        let_go(self.server)
        self.assertEqual(self.server.ended(run)["exitCode"], 3)

    def test_a_restart_while_run_is_under_way_changes_nothing(self) -> None:
        need_full()
        for end in (self.server.kill, self.server.stop):
            with self.subTest(end.__name__):
                (self.server.folder / "stay.sh.go").unlink() if begun(
                    self.server
                ) else None
                line = self.server.spawn("run", "stay")
                run = wait_until(lambda: (running(self.server, "stay") or {}).get("id"))
                end()
                self.server.start()
                self.assertEqual(running(self.server, "stay")["id"], run)
                self.assertEqual(self.server.trigger("stay").json["runId"], run)
                let_go(self.server)
                self.assertEqual(line.wait(20), 3)
                assert line.stdout
                line.stdout.close()
                self.assertEqual(self.server.ended(run)["exitCode"], 3)


class Keeper(unittest.TestCase):
    """The keeper holds the lock: without it, its script does not go on."""

    def setUp(self) -> None:
        self.server = prepared()
        self.addCleanup(self.server.__exit__)
        self.server.start()

    def group(self, pid: int) -> list[int]:
        sessions = processes.sessions_now()
        found = (processes.process(n) for n in sessions if sessions[n] == pid)
        return [one.pid for one in found if one and one.alive]

    def test_killed_under_a_server_it_takes_its_script_along(self) -> None:
        told = self.server.trigger("stay").json
        wait_until(lambda: begun(self.server))
        os.kill(told["pid"], signal.SIGKILL)
        run = self.server.ended(told["runId"])
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))
        self.assertIn("keeper was killed", run["error"])
        self.assertEqual(self.group(told["pid"]), [])

    @slow
    def test_killed_while_no_server_runs_its_script_is_ended_at_the_next_start(
        self,
    ) -> None:
        told = self.server.trigger("stay").json
        wait_until(lambda: begun(self.server))
        self.server.kill()
        os.kill(told["pid"], signal.SIGKILL)
        self.assertTrue(self.group(told["pid"]))
        self.server.start()
        run = self.server.ended(told["runId"])
        self.assertEqual(self.group(told["pid"]), [])
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))
        let_go(self.server)
        self.assertEqual(self.server.completed("stay")["exitCode"], 3)

    @slow
    def test_of_an_adopted_run_killed_it_takes_its_script_along(self) -> None:
        told = self.server.trigger("stay").json
        wait_until(lambda: begun(self.server))
        self.server.kill()
        self.server.start()
        os.kill(told["pid"], signal.SIGKILL)
        run = self.server.ended(told["runId"])
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))
        wait_until(lambda: not self.group(told["pid"]), what="an empty group")

    @slow
    def test_a_number_given_to_another_process_is_left_alone(self) -> None:
        """PID reuse: the PID file names a process that is of no run."""
        told = self.server.trigger("stay").json
        wait_until(lambda: begun(self.server))
        self.server.kill()
        keeper = processes.process(told["pid"])
        assert keeper
        os.killpg(told["pid"], signal.SIGKILL)
        # In the kernel's next tick: no number comes round any sooner.
        wait_until(lambda: processes.boot_time_s() > keeper.began_s + 0.02)
        bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            (self.server.run_dir / "stay.pid").write_text(f"{bystander.pid}\n")
            path = self.server.state_dir / "history.db"
            self.server.rows("select 1")
            subprocess.run(
                [sys.executable, "-c", SET_PID, str(path), str(bystander.pid)],
                check=True,
            )
            self.server.start()
            run = self.server.ended(told["runId"])
            self.assertEqual(run["status"], "interrupted")
            self.assertIsNone(bystander.poll())
        finally:
            bystander.kill()
            bystander.wait()


SET_PID = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("update cron_executions set pid = ?", [int(sys.argv[2])])
"""


@slow
class PidFiles(unittest.TestCase):
    """The files themselves."""

    def setUp(self) -> None:
        self.server = prepared()
        self.addCleanup(self.server.__exit__)
        self.server.start()
        self.path = self.server.run_dir / "brief.pid"

    def test_only_its_user_may_open_it_and_it_keeps_its_inode(self) -> None:
        self.server.completed("brief")
        before = self.path.stat()
        self.assertEqual(stat.S_IMODE(before.st_mode), 0o600)
        self.server.completed("brief")
        self.server.kill()
        self.server.start()
        self.server.completed("brief")
        self.server.stop()
        self.assertEqual(self.path.stat().st_ino, before.st_ino)
        self.server.start()

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        precious = self.server.folder / "precious"
        precious.write_text("precious")
        self.path.unlink()
        self.path.symlink_to(precious)
        self.addCleanup(self.path.unlink)
        reply = self.server.trigger("brief")
        self.assertEqual((reply.status, reply.json["code"]), (500, "launch_failed"))
        self.assertIn("PID file", reply.json["error"])
        self.assertEqual(precious.read_text(), "precious")

    def test_what_is_no_regular_file_does_not_hang_the_server(self) -> None:
        self.path.unlink()
        os.mkfifo(self.path)
        self.addCleanup(self.path.unlink)
        reply = self.server.trigger("brief")
        self.assertIn(reply.status, (202, 500))
        self.assertEqual(self.server.get("/crons").status, 200)
        self.assertEqual(self.server.completed("other")["exitCode"], 0)

    def test_garbage_in_it_is_no_status(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        for garbage in (
            b"\0" * 200,
            b"x\ny\n",
            b"99999999999999999999\n0\n",
            b"-1\n1\n",
        ):
            with self.subTest(garbage[:20]):
                self.path.write_bytes(garbage)
                self.assertEqual(self.server.completed("brief")["exitCode"], 0)


@slow
class Removed(unittest.TestCase):
    """PID files removed under a run: a lock on a new file is no leave to start."""

    def setUp(self) -> None:
        self.server = prepared()
        self.addCleanup(self.server.__exit__)
        self.server.start()
        self.told = self.server.trigger("stay").json
        wait_until(lambda: begun(self.server))
        (self.server.run_dir / "stay.pid").unlink()

    def assert_goes_on(self) -> None:
        """The run goes on, alone, to its true end."""
        refused = self.server.trigger("stay")
        self.assertEqual((refused.status, refused.json["runId"]), (409, 1))
        self.assertEqual(self.server.command("run", "stay").returncode, 75)
        self.assertEqual(self.server.run(1)["status"], "running")
        self.assertEqual(begun(self.server), ["http 1"])
        let_go(self.server)
        self.assertNotEqual(self.server.ended(1)["status"], "running")
        self.assertEqual(self.server.completed("stay")["exitCode"], 3)

    def test_under_the_server_that_started_it(self) -> None:
        self.assert_goes_on()

    def test_before_the_server_is_started_again(self) -> None:
        need_full()
        self.server.kill()
        self.server.start()
        self.assert_goes_on()


class OneServer(unittest.TestCase):
    def test_a_second_server_of_the_same_folders_is_refused(self) -> None:
        need_full()
        with prepared() as server:
            second = server.command("--port=0", "--host=127.0.0.1", "serve")
            self.assertEqual(second.returncode, 75, second.stderr)
            self.assertIn("A server runs already", second.stderr)
            self.assertEqual(server.completed("brief")["exitCode"], 0)


@slow
class Launch(unittest.TestCase):
    def test_an_end_that_is_told_of_a_living_keeper_is_not_believed(self) -> None:
        """A pidfd's number may be given anew between epoll's answer and the call."""
        need_full()
        told_at_once = patched(
            "watch = m.Ending.watch",
            "def early(self, active):",
            "    watch(self, active)",
            "    self._on.loop.call_soon(lambda: self.keeper_gone(active))",
            "m.Ending.watch = early",
        )
        with prepared(program=told_at_once) as server:
            for _ in range(2):
                reply = server.trigger("stay")
                self.assertEqual(reply.status, 202, (reply.text, server.log_text()))
                run_id = reply.json["runId"]
                self.assertEqual(server.completed("brief")["exitCode"], 0)
                self.assertEqual(server.run(run_id)["status"], "running")
                server.kill()
                server.start()  # now it is one that was found
                self.assertEqual(server.completed("brief")["exitCode"], 0)
                self.assertEqual(server.run(run_id)["status"], "running")
                let_go(server)
                self.assertEqual(server.ended(run_id)["exitCode"], 3)
                (server.folder / "stay.sh.go").unlink()

    def test_a_trigger_that_comes_before_an_end_is_recorded_loses_no_status(
        self,
    ) -> None:
        """The waiting thread is slow; the lock stays taken until it has recorded."""
        slow = patched(
            "import time",
            "gone = m.Ending.keeper_gone",
            "m.Ending.keeper_gone = lambda *a: (time.sleep(0.3), gone(*a))",
        )
        with prepared(program=slow) as server:
            (server.folder / "victim.signal").write_text("SEGV")
            ids: list[int] = []
            while len(ids) < 2:
                reply = server.trigger("victim")
                self.assertIn(reply.status, (202, 409))
                ids += [reply.json["runId"]] if reply.status == 202 else []
            for run_id in ids:
                self.assertEqual(server.ended(run_id)["signal"], "SIGSEGV")
                self.assertIsNotNone(server.run(run_id)["cpuSeconds"])


if __name__ == "__main__":
    unittest.main()
