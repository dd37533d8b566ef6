"""A run is its family: what belongs to a run ends with it, and nothing else does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import http.client
import json
import os
import platform
import pwd
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any

from support import (
    FULL,
    Server,
    children,
    need,
    need_command,
    need_full,
    patched,
    slow,
    wait_until,
)

from cron_trigger.host import processes

#: Marks each of its lives in a file of its own, by the boot clock, then sleeps.
WORK = """#!/usr/bin/env python3
import os, signal, sys, time
took = float(sys.argv[1])
name = f"work.{os.getpid()}"
with open(name + ".new", "w") as file:
    file.write(f"{os.environ['CRON_RUN_ID']} {time.clock_gettime(7)}\\n")
os.rename(name + ".new", name)
end = time.clock_gettime(7) + took
while time.clock_gettime(7) < end:
    time.sleep(0.01)
    with open(name + ".last", "w") as file:
        file.write(str(time.clock_gettime(7)))
"""
#: Ways in which scripts start what they do.
SHAPES: dict[str, list[str]] = {
    "plain": ["./work.py", "60"],
    "timeout": ["bash", "-c", "timeout 60 ./work.py 60"],
    "monitor": ["bash", "-c", "set -m; ./work.py 60 & wait"],
    "xargs": ["bash", "-c", "printf '60\\n60\\n' | xargs -n 1 -P 2 ./work.py"],
    "setsid": ["bash", "-c", "setsid -w ./work.py 60"],
    "pipe": ["bash", "-c", "./work.py 60 | cat"],
    "background": ["bash", "-c", "./work.py 60 & sleep 60"],
    "runuser": ["runuser", "-u", "nobody", "-m", "--", "./work.py", "60"],
}
STAYING = ["bash", "-c", "trap '' TERM; setsid -w ./counter.py; exit 9"]
REGISTRY: dict[str, Any] = {
    **{
        name: {"description": name, "command": command, "killAfter": "2s"}
        for name, command in SHAPES.items()
    },
    "limited": {
        "description": "Limited",
        "command": ["bash", "-c", "timeout 60 ./work.py 60"],
        "timeout": "5s",
    },
    "cleans-up": {
        "description": "Its shell ends at once, its worker later",
        "command": ["bash", "-c", "./cleaner.sh & wait"],
        "killAfter": "60s",
    },
    "cleans-up-alone": {
        "description": "Its worker has a session of its own",
        "command": ["bash", "-c", "setsid -w ./cleaner.sh; true"],
        "killAfter": "60s",
    },
    "counts": {
        "description": "Counts how often it is told to end",
        "command": ["bash", "-c", "setsid -w ./counter.py; true"],
        "killAfter": "60s",
    },
    "counts-limited": {
        "description": "The same at a time limit, with a shell that stays",
        "command": STAYING,
        "killAfter": "60s",
        "timeout": "5s",
    },
    "counts-long": {"description": "Long", "command": STAYING, "killAfter": "60s"},
    "cleans-up-by-a-child": {
        "description": "What it starts at SIGTERM is not to be told to end",
        "command": [
            "bash",
            "-c",
            "trap 'sleep .2; ./counter.py; exit 9' TERM; ./waits.sh",
        ],
        "killAfter": "60s",
    },
    "patient": {
        "description": "Needs longer than most to clean up",
        "command": "cleaner.sh",
        "killAfter": "30s",
    },
    "half": {"description": "Half", "command": "half.py", "killAfter": "1s"},
    "half-long": {"description": "Half", "command": "half.py", "killAfter": "6s"},
    "relay": {
        "description": "Is faster than a look",
        "command": ["sh", "-c", "trap '' TERM; ./relay.py; while :; do sleep 1; done"],
        "killAfter": "1s",
    },
    "sends": {"description": "Sends signals", "command": "sender.sh"},
    "exact": {"description": "Ends at its limit", "command": ["sleep", "1"]},
    "prints": {"description": "Prints", "command": ["python3", "prints.py"]},
    "git": {"description": "129", "command": ["sh", "-c", "exit 129"]},
    "brief": {"description": "Brief", "command": ["true"]},
}
#: Its first thread ends, another goes on; SIGTERM is ignored.
HALF = """#!/usr/bin/env python3
import ctypes, os, platform, signal, threading, time
file = os.open("half", os.O_WRONLY | os.O_CREAT, 0o644)
def work():
    while True:
        time.sleep(0.02)
        os.pwrite(file, b"%20.6f" % time.clock_gettime(7), 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""
#: Each life ends as soon as the next one has begun; SIGTERM is ignored.
RELAY = """#!/usr/bin/env -S python3 -IS
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
file = os.open("relay", os.O_WRONLY | os.O_CREAT, 0o644)
end = time.clock_gettime(7) + 20
while time.clock_gettime(7) < end:
    os.pwrite(file, b"%20.6f" % time.clock_gettime(7), 0)
    if os.fork():
        os._exit(0)
"""
#: Sends what would end the keeper, which is of its process group.
SENDER = """#!/bin/sh
grep SigIgn /proc/self/status
for name in HUP INT QUIT USR1 USR2 PIPE ALRM TERM VTALRM PROF XCPU XFSZ; do
    trap : $name
    kill -$name 0
done
exit 7
"""
CLEANER = """#!/bin/sh
trap 'until [ -e go ]; do sleep 0.02; done; echo cleaned; exit 0' TERM
touch ready
while :; do sleep 0.02; done
"""
#: It notes each SIGTERM, and stays until it is let go.
COUNTER = """#!/usr/bin/env python3
import os, signal, time
file = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
signal.signal(signal.SIGTERM, lambda *_: os.write(file, b"told\\n"))
open("ready", "w").close()
while os.path.exists("counter.py") and not os.path.exists("go"):
    time.sleep(0.02)
"""


def needs_root() -> None:
    need(os.geteuid() == 0, "another user's processes need root")


def prepared(**options: Any) -> Server:
    server = Server(REGISTRY, start=False, **options)
    server.script("work.py", WORK)
    server.script("cleaner.sh", CLEANER)
    server.script("counter.py", COUNTER)
    server.script("waits.sh", "#!/bin/sh\ntouch waits\nexec sleep 60\n")
    server.script("half.py", HALF)
    server.script("relay.py", RELAY)
    server.script("sender.sh", SENDER)
    server.script(
        "prints.py", "import time\nfor i in range(50):\n print(i); time.sleep(.1)"
    )
    server.folder.chmod(0o777 | 0o1000)
    return server


def workers(server: Server) -> list[int]:
    """Return the PIDs of workers that are alive."""
    marks = (path.name.split(".")[1:] for path in server.folder.glob("work.*"))
    pids = {int(parts[0]) for parts in marks if parts[0].isdigit()}
    found = ((pid, processes.process(pid)) for pid in pids)
    return [pid for pid, one in found if one and one.alive]


def working(server: Server, count: int = 1) -> list[int]:
    return list(wait_until(lambda: len(found := workers(server)) >= count and found))


class FamilyCase(unittest.TestCase):
    def setUp(self) -> None:
        self.server = prepared()
        self.addCleanup(self.server.__exit__)
        self.addCleanup(self.end_workers)
        self.server.start()

    def end_workers(self) -> None:
        for pid in workers(self.server):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def cancel(self, run_id: int) -> Any:
        return self.server.request("POST", f"/runs/{run_id}/cancel")


class Cancel(FamilyCase):
    def test_whatever_a_script_started_ends_with_it(self) -> None:
        shapes = list(SHAPES) if FULL else ["timeout", "setsid", "monitor"]
        for name in shapes:
            if name == "runuser":
                needs_root()
            with self.subTest(name):
                run_id = self.server.trigger(name).json["runId"]
                working(self.server, 2 if name == "xargs" else 1)
                self.assertEqual(self.cancel(run_id).status, 202)
                run = self.server.ended(run_id)
                self.assertEqual(run["status"], "cancelled")
                self.assertEqual(workers(self.server), [])

    @slow
    def test_a_time_limit_ends_the_family_too(self) -> None:
        run_id = self.server.trigger("limited").json["runId"]
        working(self.server)
        self.assertEqual(self.server.ended(run_id)["status"], "timed_out")
        self.assertEqual(workers(self.server), [])

    def test_until_the_last_process_is_gone_it_runs_and_is_stopping(self) -> None:
        run_id = self.server.trigger("cleans-up").json["runId"]
        wait_until((self.server.folder / "ready").exists)
        answer = self.cancel(run_id).json["run"]
        self.assertEqual((answer["status"], answer["stopping"]), ("running", True))
        pid = answer["pid"]
        # The shell, and with it the keeper, is gone; its worker cleans up.
        wait_until(lambda: not (one := processes.process(pid)) or not one.alive)
        run = self.server.run(run_id)
        self.assertEqual((run["status"], run["stopping"]), ("running", True))
        refused = self.server.trigger("cleans-up")
        self.assertEqual((refused.status, refused.json["runId"]), (409, run_id))
        self.assertEqual(self.server.command("run", "cleans-up").returncode, 75)
        flock = need_command("flock")
        path = str(self.server.run_dir / "cleans-up.pid")
        self.assertEqual(subprocess.call([flock, "-n", "-E", "7", path, "true"]), 7)
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["stopping"]), ("cancelled", False))
        self.assertEqual(self.server.get(f"/runs/{run_id}/log").text[-8:], "cleaned\n")

    def mark(self, name: str) -> float:
        """Return when somebody said last that he lives, on the boot clock."""
        path = self.server.folder / name
        return float(wait_until(lambda: path.exists() and path.read_text()))

    def assert_gone(self, name: str, run_id: int) -> None:
        self.assertEqual(self.cancel(run_id).status, 202)
        run = self.server.ended(run_id)
        ended_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.assertEqual((run["status"], run["exitCode"]), ("cancelled", 137))
        time.sleep(0.3)
        self.assertLess(self.mark(name), ended_s)

    @slow
    def test_one_whose_first_thread_has_ended_lives(self) -> None:
        need(platform.machine() in ("x86_64", "aarch64"), "another machine's exit(2)")
        run_id = self.server.trigger("half").json["runId"]
        self.mark("half")
        self.assert_gone("half", run_id)

    @slow
    def test_those_who_take_turns_faster_than_a_look_are_found(self) -> None:
        run_id = self.server.trigger("relay").json["runId"]
        first = self.mark("relay")
        wait_until(lambda: self.mark("relay") > first + 0.2)
        self.assert_gone("relay", run_id)

    @slow
    def test_whom_a_killed_server_had_seen_its_successor_knows(self) -> None:
        run_id = self.server.trigger("cleans-up-alone").json["runId"]
        wait_until((self.server.folder / "ready").exists)
        pid = self.cancel(run_id).json["run"]["pid"]
        # Shell and keeper are gone; the worker has lost its parent.
        wait_until(lambda: not (one := processes.process(pid)) or not one.alive)
        self.server.kill()
        self.server.start()
        refused = self.server.trigger("cleans-up-alone")
        self.assertEqual((refused.status, refused.json["runId"]), (409, run_id))
        (self.server.folder / "go").touch()
        self.assertEqual(self.server.ended(run_id)["status"], "cancelled")
        self.assertEqual(self.server.get(f"/runs/{run_id}/log").text[-8:], "cleaned\n")

    @slow
    def test_whom_a_killed_server_had_told_its_successor_tells_no_more(self) -> None:
        run_id = self.server.trigger("counts-long").json["runId"]
        wait_until((self.server.folder / "ready").exists)
        self.cancel(run_id)
        note = self.server.run_dir / ".counts-long.family"
        wait_until(lambda: any(row[2] for row in json.loads(note.read_text())[2]))
        inode = note.stat().st_ino
        self.server.kill()
        self.server.start()
        wait_until(lambda: note.stat().st_ino != inode)  # it has looked
        (self.server.folder / "go").touch()
        self.assertEqual(self.server.ended(run_id)["status"], "cancelled")
        self.assertEqual((self.server.folder / "told").read_text(), "told\n")

    def test_a_clean_up_has_as_long_as_its_entry_says(self) -> None:
        need_full()
        run_id = self.server.trigger("patient").json["runId"]
        wait_until((self.server.folder / "ready").exists)
        self.cancel(run_id)
        time.sleep(11)  # longer than the default
        self.assertTrue(self.server.run(run_id)["stopping"])
        (self.server.folder / "go").touch()
        self.assertEqual(self.server.ended(run_id)["exitCode"], 0)

    def test_a_script_that_ended_by_itself_is_not_cancelled(self) -> None:
        for _ in range(300 if FULL else 15):
            run_id = self.server.trigger("brief").json["runId"]
            reply = self.cancel(run_id)
            run = self.server.ended(run_id)
            with self.subTest(run=run, reply=reply.text):
                if run["exitCode"] == 0:
                    self.assertEqual((run["status"], reply.status), ("completed", 409))
                else:
                    self.assertEqual(
                        (run["status"], run["exitCode"]), ("cancelled", 143)
                    )

    def test_a_limit_as_long_as_the_script_takes_calls_no_success_a_failure(
        self,
    ) -> None:
        need_full()
        entries = {f"e{i}": {**REGISTRY["exact"], "timeout": "1s"} for i in range(300)}
        self.server.write_registry(entries)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ids = list(
                pool.map(lambda n: self.server.trigger(n).json["runId"], entries)
            )
        for run_id in ids:
            run = self.server.ended(run_id, 60)
            wanted = "completed" if run["exitCode"] == 0 else "timed_out"
            self.assertEqual(run["status"], wanted, run)

    @slow
    def test_what_is_printed_is_seen_as_it_comes(self) -> None:
        run_id = self.server.trigger("prints").json["runId"]
        path = f"/runs/{run_id}/log"
        wait_until(lambda: self.server.get(path).text.startswith("0\n1\n"))
        self.cancel(run_id)
        self.server.ended(run_id)
        self.assertTrue(self.server.get(path).text.startswith("0\n1\n"))

    @slow
    def test_a_signal_that_a_script_sends_to_its_group_leaves_the_keeper(self) -> None:
        for shell in ("sh", need_command("bash")):
            with self.subTest(shell):
                self.server.stop()
                self.server.program = list(patched(f"m.SHELL = {shell!r}"))
                self.server.start()
                run = self.server.completed("sends")
                self.assertEqual((run["status"], run["exitCode"]), ("failed", 7), run)
                text = self.server.get(f"/runs/{run['id']}/log").text
                # 32 and 33 are glibc's own, which its posix_spawn(3) leaves ignored.
                self.assertRegex(text, r"SigIgn:\t0{7}[01][08]0{7}\n")

    def test_an_option_of_bash_for_the_script_does_not_end_the_keeper(self) -> None:
        three = {
            "description": "Exits with 3",
            "command": ["sh", "-c", "exit 3"],
            "environment": {"SHELLOPTS": "errexit"},
        }
        bash = patched(f"m.SHELL = {need_command('bash')!r}")
        with Server({"three": three}, program=bash) as server:
            self.assertEqual(server.completed("three")["exitCode"], 3)

    def test_a_signal_is_claimed_only_where_it_is_sure(self) -> None:
        run = self.server.completed("git")
        self.assertEqual((run["exitCode"], run["signal"]), (129, None))


@slow
class KeeperKilled(FamilyCase):
    """An OOM killer may take the keeper alone: nobody else gets in meanwhile."""

    def started(self) -> Any:
        told = self.server.trigger("timeout").json
        working(self.server)
        return told

    def assert_no_overlap(self, told: Any, path: Path) -> None:
        """While the family lives, the lock is not free."""
        while workers(self.server):
            held = subprocess.run(["flock", "-n", str(path), "true"], check=False)
            if held.returncode == 0:
                self.assertEqual(workers(self.server), [])
                return
        self.assertEqual(self.server.ended(told["runId"])["status"], "interrupted")

    def test_under_the_server_that_started_it(self) -> None:
        need_command("flock")
        told = self.started()
        os.kill(told["pid"], signal.SIGKILL)
        self.assert_no_overlap(told, self.server.run_dir / "timeout.pid")
        run = self.server.ended(told["runId"])
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))
        self.assertIn("keeper was killed", run["error"])

    def test_under_a_server_that_found_it(self) -> None:
        need_command("flock")
        told = self.started()
        self.server.kill()
        self.server.start()
        wait_until(lambda: self.server.run(told["runId"])["status"] == "running")
        os.kill(told["pid"], signal.SIGKILL)
        self.assert_no_overlap(told, self.server.run_dir / "timeout.pid")

    def test_under_run_alone(self) -> None:
        need_command("flock")
        self.server.stop()
        line = self.server.spawn("run", "timeout")
        pids = working(self.server)
        path = self.server.run_dir / "timeout.pid"
        os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
        while workers(self.server):
            held = subprocess.run(["flock", "-n", str(path), "true"], check=False)
            self.assertTrue(held.returncode or not workers(self.server), pids)
        line.communicate(timeout=20)
        self.assertNotEqual(line.returncode, 0)

    def test_with_nobody_up_the_next_start_ends_what_is_left_first(self) -> None:
        # In the keeper's session: a session of its own can't be found without it.
        told = self.server.trigger("background").json
        working(self.server)
        self.server.kill()
        os.kill(told["pid"], signal.SIGKILL)
        self.assert_ended_before_the_next(told["runId"])

    def test_before_its_start_was_recorded(self) -> None:
        # The server dies between the keeper's start and its record, the keeper next.
        program = list(self.server.program)
        self.server.stop()
        crash = "m.Runs.started = lambda *_: m.os.kill(m.os.getpid(), 9)"
        self.server.program = list(patched(crash))
        self.server.start()
        with self.assertRaises((OSError, http.client.HTTPException)):
            self.server.trigger("background")
        working(self.server)
        self.server.kill()
        path = self.server.run_dir / "background.pid"
        os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
        self.server.program = program
        self.assert_ended_before_the_next(1)

    def assert_ended_before_the_next(self, run_id: int) -> None:
        """With a new server the next start succeeds, and nobody of this run lives."""
        self.server.start()
        reply = wait_until(
            lambda: (r := self.server.trigger("background")).status == 202 and r
        )
        self.assertEqual(self.server.run(run_id)["status"], "interrupted")
        # A worker shows itself by another name before it has written this one.
        paths = [self.server.folder / f"work.{pid}" for pid in working(self.server)]
        wait_until(lambda: all(path.exists() for path in paths))
        ids = {path.read_text().split()[0] for path in paths}
        self.assertEqual(ids, {str(reply.json["runId"])})


@slow
class Strangers(FamilyCase):
    """Another user's process is neither believed nor waited for."""

    def setUp(self) -> None:
        needs_root()
        super().setUp()

    def nobody(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        entry = pwd.getpwnam("nobody")
        process = subprocess.Popen(
            command, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], **options
        )

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def test_a_forged_environment_makes_no_member(self) -> None:
        told = self.server.trigger("plain").json
        working(self.server)
        forged = {"CRON_NAME": "plain", "CRON_RUN_ID": str(told["runId"])}
        stranger = self.nobody("sleep", "60", env={**os.environ, **forged})
        self.cancel(told["runId"])
        self.server.ended(told["runId"])
        self.assertIsNone(stranger.poll())
        self.assertNotIn(str(stranger.pid), self.server.log_text())

    def test_a_pid_that_is_anothers_by_now_is_not_adopted(self) -> None:
        told = self.server.trigger("plain").json
        pids = working(self.server)
        self.server.kill()
        for pid in (told["pid"], *pids):
            os.kill(pid, signal.SIGKILL)
        env = {"CRON_NAME": "plain", "CRON_RUN_ID": str(told["runId"])}
        stranger = self.nobody("sleep", "60", env=env)
        path = self.server.run_dir / "plain.pid"
        path.write_text(f"{stranger.pid}\n")
        self.server.start()
        self.assertEqual(self.server.ended(told["runId"])["status"], "interrupted")
        self.assertEqual(self.server.trigger("plain").status, 202)
        self.assertIsNone(stranger.poll())

    def test_a_huge_environment_costs_nothing(self) -> None:
        """Many processes of 5 MiB each, which somebody would have to read."""
        need(Path("/usr/bin/python3").exists(), "/usr/bin/python3 is not there")
        hog = "import os,time;[os.fork() for _ in range(5)];time.sleep(60)"
        env = {f"V{i}": "x" * 131_000 for i in range(12)}
        self.nobody("/usr/bin/python3", "-c", hog, env=env, start_new_session=True)
        told = self.server.trigger("plain").json
        working(self.server)
        self.cancel(told["runId"])
        run = self.server.ended(told["runId"], 10)
        self.assertEqual(run["status"], "cancelled")
        self.assertEqual(self.server.completed("brief")["status"], "completed")


@slow
class Start(unittest.TestCase):
    def test_a_script_that_no_process_could_be_made_for_did_not_start(self) -> None:
        needs_root()
        entry = pwd.getpwnam("nobody")
        registry = {
            "crowded": {"description": "A", "command": ["true"], "user": "nobody"}
        }
        # One process is the keeper; the script would be one too many for this user.
        others = _others_of(entry.pw_uid)
        python = ["prlimit", f"--nproc={others + 1}", sys.executable]
        need_command("prlimit")
        with Server(registry, python=python) as server:
            run = server.completed("crowded")
            self.assertEqual((run["status"], run["exitCode"]), ("failed", None))
            self.assertIn("could make no further process", run["error"])

    def test_without_pidfd_open_there_is_no_start(self) -> None:
        code = (
            "import os, sys; sys.path.insert(0, sys.argv.pop(1)); "
            "os.pidfd_open = lambda *a: (_ for _ in ()).throw(OSError(38, 'no')); "
            "from cron_trigger.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        path = str(Path(__file__).resolve().parent.parent)
        server = Server(program=("-c", code, path), start=False)
        with server:
            done = server.command("serve", "--port=0")
            self.assertEqual(done.returncode, 78, done.stderr)
            self.assertIn("pidfd_open", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_as_the_first_process_of_a_container_it_reaps_what_is_left(self) -> None:
        needs_root()
        unshare = need_command("unshare")
        leaver = ["sh", "-c", "for i in 1 2 3 4 5; do sleep 0.1 & done"]
        registry = {"leaver": {"description": "A", "command": leaver}}
        python = [unshare, "-pf", "--mount-proc", "--kill-child", sys.executable]
        with Server(registry, python=python) as server:
            assert server.process
            for _ in range(3):
                server.completed("leaver")
            (child,) = children(server.process.pid)
            left = children(child)
            wait_until(lambda: not set(left) & set(children(child)))
            self.assertEqual(server.completed("leaver")["exitCode"], 0)


def _others_of(uid: int) -> int:
    """Return how many threads a user has."""
    count = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == uid:
                count += len(list((path / "task").iterdir()))
    return count


@slow
class Surroundings(unittest.TestCase):
    """The same from the button, a plan, `run` in a crontab's line, sudo."""

    SHOW = """#!/bin/sh
env | grep -v '^CRON_RUN_ID=\\|^CRON_TRIGGER=\\|^PWD=\\|^SHLVL=\\|^_=\\|^OLDPWD=' | sort
umask; id -G; tty; ulimit -n; ulimit -c
"""

    def test_a_script_finds_the_same_from_every_side(self) -> None:
        registry = {"show": {"description": "Shows", "command": "show.sh"}}
        environ = {"SECRET_OF_A_SHELL": "x", "INVOCATION_ID": "y", "HOME": "/nowhere"}
        with Server(registry, environ) as server:
            server.script("show.sh", self.SHOW)
            run = server.completed("show")
            button = server.get(f"/runs/{run['id']}/log").text
            server.environ = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/false"}
            os.umask(0o077)
            self.addCleanup(os.umask, 0o022)
            self.assertEqual(server.command("run", "show").returncode, 0)
            (newest,) = server.get("/runs?limit=1").json["runs"]
            line = server.get(f"/runs/{newest['id']}/log").text
        mine = pwd.getpwuid(os.geteuid())
        for text in (button, line):
            self.assertIn(f"HOME={mine.pw_dir}\n", text)
            self.assertIn("PYTHONUNBUFFERED=1\n", text)
            self.assertIn("\n0022\n", text)
            self.assertNotIn("SECRET_OF_A_SHELL", text)
        if os.geteuid() == 0:  # an ordinary user's server passes on its own PATH
            self.assertEqual(button, line)

    def test_a_cron_runs_as_the_user_of_its_entry(self) -> None:
        needs_root()
        entry = {
            "description": "Who",
            "command": ["sh", "-c", "id -un; echo $HOME; id -G; env"],
            "user": "nobody",
            "parameters": {"word": {"type": "string", "format": "password"}},
        }
        with Server({"who": entry}) as server:
            run = server.completed("who", params={"word": "hidden"})
            lines = server.get(f"/runs/{run['id']}/log").text.splitlines()
            nobody = pwd.getpwnam("nobody")
            groups = os.getgrouplist("nobody", nobody.pw_gid)
            self.assertEqual(lines[:2], ["nobody", nobody.pw_dir])
            self.assertEqual(sorted(map(int, lines[2].split())), sorted(groups))
            self.assertIn("CRON_PARAM_WORD=hidden", lines)

    def test_a_server_that_may_not_become_another_user_says_so(self) -> None:
        needs_root()
        setpriv = need_command("setpriv")
        python = (setpriv, "--bounding-set=-setuid,-setgid", sys.executable)
        entry = {"description": "Who", "command": ["id"], "user": "nobody"}
        with Server({"who": entry}, python=python) as server:
            reply = server.trigger("who")
            self.assertEqual((reply.status, reply.json["code"]), (500, "launch_failed"))
            self.assertIn(
                'the server may not become user "nobody" (Operation not permitted): '
                "give it CAP_SETUID and CAP_SETGID",
                reply.json["error"],
            )

    def test_what_cannot_be_killed_is_told(self) -> None:
        needs_root()
        setpriv = need_command("setpriv")
        python = (setpriv, "--bounding-set=-kill", sys.executable)
        entry = {
            "description": "Its own",
            "command": ["sleep", "60"],
            "user": "nobody",
            "killAfter": "1s",
        }
        with Server({"own": entry}, python=python) as server:
            told = server.trigger("own").json
            server.request("POST", f"/runs/{told['runId']}/cancel")
            words = "run 1 of own goes on: SIGKILL does not end its process "
            wait_until(lambda: words in server.log_text(), what="the warning")
            self.assertEqual(server.trigger("own").status, 409)
            os.killpg(told["pid"], signal.SIGKILL)
            self.assertEqual(server.ended(told["runId"])["status"], "cancelled")
            self.assertEqual(server.log_text().count(words), 1)

    def test_a_folder_that_root_may_not_look_into_is_not_called_missing(self) -> None:
        needs_root()
        setpriv = need_command("setpriv")
        no_right = (
            "--bounding-set=-dac_override,-dac_read_search"  # as in a home of NFS
        )
        python = (setpriv, no_right, sys.executable)
        with Server(start=False, python=python) as server:
            home = server.folder / "home"
            (home / "work").mkdir(parents=True)
            home.chmod(0o700)
            os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
            entry = {
                "description": "There",
                "command": ["pwd"],
                "workingDirectory": str(home / "work"),
            }
            server.write_registry({"there": entry})
            server.start()
            error = server.trigger("there").json["error"]
            self.assertIn("home/work cannot be reached (Permission denied)", error)

    def test_the_script_may_belong_to_its_user_and_is_cancelled_like_others(
        self,
    ) -> None:
        needs_root()
        entry = {"description": "Own", "command": "own.sh", "user": "nobody"}
        with Server({"own": entry, "root": {**entry, "user": "root"}}) as server:
            server.script("own.sh", "#!/bin/sh\nexec sleep 60\n")
            nobody = pwd.getpwnam("nobody")
            os.chown(server.folder / "own.sh", nobody.pw_uid, -1)
            self.assertEqual(server.trigger("root").status, 500)
            server.folder.chmod(0o755)
            run_id = server.trigger("own").json["runId"]
            self.assertEqual(server.trigger("own").status, 409)
            server.request("POST", f"/runs/{run_id}/cancel")
            self.assertEqual(server.ended(run_id)["status"], "cancelled")


@slow
class HungLaunch(unittest.TestCase):
    def test_a_plan_whose_launch_hangs_delays_nobody_else(self) -> None:
        """A `node --version` that takes seconds stands for a dead mount."""
        registry: dict[str, Any] = {
            "hung": {
                "description": "Hangs",
                "command": "x.ts",
                "environment": {"PATH": "/nowhere"},
            },
            "brief": {"description": "Brief", "command": ["sleep", "0.2"]},
        }
        with Server(registry) as server:
            server.script("x.ts", "", 0o644)
            (server.folder / "bin").mkdir()
            server.script("bin/node", '#!/bin/sh\n: >"$0.hangs"\nexec sleep 60\n')
            registry["hung"]["environment"] = {"PATH": f"{server.folder}/bin"}
            server.write_registry(registry)
            moment = time.time() + 4
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
            run_at = f"{text}.{int(moment * 1000) % 1000:03}Z"
            self.assertEqual(server.trigger("hung", runAt=run_at).status, 202)
            wait_until((server.folder / "bin/node.hangs").exists)
            for _ in range(2):
                server.completed("brief")
            (plan,) = server.get("/scheduled").json["scheduled"]
            self.assertEqual(plan["status"], "pending", "it hangs no more")


#: Takes in the orphans of its descendants; one comes from a session that ends at once.
SUBREAPER = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execvp("sleep", ["sleep", "65"])
    os._exit(0)
os.wait()
print(flush=True)
signal.pause()
"""


def line_of(one: processes.Process) -> str:
    """Return a process's command line; "" where it has ended since."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{one.pid}/cmdline").read_text()
        return line.replace("\0", " ").strip()
    return ""


@slow
class OfACrontab(FamilyCase):
    """A run of `run NAME`, which a server watches, too: whoever decides its end."""

    def begun(self, name: str) -> tuple[subprocess.Popen[str], int]:
        line = self.server.spawn("run", name)
        self.addCleanup(line.communicate)
        self.addCleanup(line.kill)
        path = "/runs?status=running"
        [run] = wait_until(lambda: self.server.get(path).json["runs"])
        return line, run["id"]

    def assert_ends_when_all_have(
        self, line: subprocess.Popen[str], run_id: int
    ) -> None:
        """The shell, and with it the keeper, goes at once, its worker later."""
        pid = self.server.run(run_id)["pid"]
        wait_until(lambda: not (one := processes.process(pid)) or not one.alive)
        wait_until(lambda: self.server.run(run_id)["stopping"])
        refused = self.server.trigger("counts")
        self.assertEqual((refused.status, refused.json["runId"]), (409, run_id))
        query = "select status from cron_executions"
        self.assertEqual(self.server.rows(query), [("running",)])
        self.assertIsNone(line.poll())
        (self.server.folder / "go").touch()
        self.assertEqual(line.wait(20), 143)
        self.assertEqual(self.server.ended(run_id)["status"], "cancelled")
        self.assertEqual((self.server.folder / "told").read_text(), "told\n")

    def test_one_that_the_server_cancels_ends_when_all_have(self) -> None:
        line, run_id = self.begun("counts")
        wait_until((self.server.folder / "ready").exists)
        self.assertEqual(self.cancel(run_id).status, 202)
        self.assert_ends_when_all_have(line, run_id)

    @slow
    def test_one_whose_line_is_told_to_end_does_so_too(self) -> None:
        line, run_id = self.begun("counts")
        wait_until((self.server.folder / "ready").exists)
        line.terminate()
        self.assert_ends_when_all_have(line, run_id)

    @slow
    def test_a_time_limit_that_both_know_is_told_once(self) -> None:
        line, run_id = self.begun("counts-limited")
        # Each logs it.
        wait_until(lambda: self.server.log_text().count("its time limit") == 2)
        (self.server.folder / "go").touch()
        self.assertEqual(line.wait(20), 9)
        self.assertEqual(self.server.ended(run_id)["status"], "timed_out")
        self.assertEqual((self.server.folder / "told").read_text(), "told\n")

    def patched(self, *statements: str) -> None:
        self.server.stop()
        self.server.program = [*patched(*statements)]
        self.server.start()

    @slow
    def test_where_the_keeper_is_killed_one_tells_the_rest(self) -> None:
        # Both have found no reason in the history before either writes one.
        late = "lambda *a: (m.time.sleep(0.3 + sys.argv.count('run')), whole(*a))[1]"
        self.patched("whole = m.Runs.set_end_reason", f"m.Runs.set_end_reason = {late}")
        line, run_id = self.begun("counts-long")
        wait_until((self.server.folder / "ready").exists)
        os.kill(self.server.run(run_id)["pid"], signal.SIGKILL)
        wait_until((self.server.folder / "told").read_text)
        time.sleep(1.5)  # the line's first look
        (self.server.folder / "go").touch()
        self.assertEqual(self.server.ended(run_id)["status"], "interrupted")
        line.communicate(timeout=20)
        self.assertEqual((self.server.folder / "told").read_text(), "told\n")

    @slow
    def test_what_a_clean_up_starts_is_not_told_by_the_other_one(self) -> None:
        late = "lambda *a: (whole(*a), m.time.sleep(0.5))[0]"
        self.patched("whole = m.Family.look", f"m.Family.look = {late}")
        line, run_id = self.begun("cleans-up-by-a-child")
        wait_until((self.server.folder / "waits").exists)
        line.terminate()
        wait_until((self.server.folder / "ready").exists)
        wait_until(lambda: self.server.run(run_id)["stopping"])
        time.sleep(1)  # two more looks
        (self.server.folder / "go").touch()
        self.assertEqual(line.wait(20), 9)
        self.assertEqual((self.server.folder / "told").read_text(), "")

    @slow
    def test_where_the_line_is_killed_then_the_server_ends_the_rest(self) -> None:
        line, run_id = self.begun("half-long")
        wait_until((self.server.folder / "half").exists)
        line.terminate()
        wait_until(lambda: self.server.run(run_id)["stopping"])
        line.kill()
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("cancelled", 137))


class Look(unittest.TestCase):
    def test_a_name_with_blanks_and_parentheses_is_read(self) -> None:
        libc = ctypes.CDLL(None)
        before = Path("/proc/self/comm").read_bytes().strip()
        libc.prctl(15, b"a) S 1 (b", 0, 0, 0)  # PR_SET_NAME
        try:
            one = processes.process(os.getpid())
        finally:
            libc.prctl(15, before, 0, 0, 0)
        assert one
        self.assertEqual((one.parent, one.session), (os.getppid(), os.getsid(0)))

    def test_the_mark_of_a_child_is_the_kernels_looked_at_or_not(self) -> None:
        for pause_s in (0.0, 0.0, 0.003, 0.006, 0.011) * 6:
            since_s = processes.boot_time_s()
            time.sleep(pause_s)
            with subprocess.Popen(["sleep", "20"]) as child:
                mark = processes.mark_of_child(child.pid, since_s)
                found = processes.process(child.pid)
                child.kill()
            self.assertEqual(mark, found and found.mark)

    def test_sessions_within_sessions_are_of_the_family_and_no_others(self) -> None:
        setsid = need_command("setsid")
        inner = f"{setsid} -w sh -c 'sleep 61 & {setsid} -w sleep 62'"
        keeper = subprocess.Popen(
            ["sh", "-c", f"{inner}; true"], start_new_session=True
        )
        stranger = subprocess.Popen(["sleep", "63"], start_new_session=True)
        leader = processes.process(keeper.pid)
        assert leader
        family = processes.Family(keeper.pid, leader.started)

        def sleeping() -> set[str]:
            return {line_of(one) for one in family.look()}

        left = {"sleep 61", "sleep 62"}
        try:
            wait_until(lambda: left <= sleeping())
            self.assertNotIn("sleep 63", sleeping())
            keeper.kill()
            keeper.wait()
            # Without its first session it is known by whom it has had.
            for one in family.look():
                if one.session == keeper.pid:
                    processes.send(one, signal.SIGKILL)
            wait_until(lambda: left <= sleeping())
        finally:
            for one in family.look():
                processes.send(one, signal.SIGKILL)
            stranger.kill()
            stranger.wait()
            keeper.kill()
            keeper.wait()

    def test_whom_a_subreaper_has_taken_in_is_of_its_family(self) -> None:
        # Its session's leader is gone, and its own parent is not the one that begot it.
        keeper = subprocess.Popen(
            [sys.executable, "-IS", "-c", SUBREAPER],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert keeper.stdout
        keeper.stdout.readline()  # the session's leader is gone before the first look
        leader = processes.process(keeper.pid)
        assert leader
        family = processes.Family(keeper.pid, leader.started)
        try:
            known = wait_until(
                lambda: [o.pid for o in family.look() if line_of(o) == "sleep 65"]
            )
            self.assertEqual(known, children(keeper.pid))
        finally:
            for pid in children(keeper.pid):
                os.kill(pid, signal.SIGKILL)
            keeper.kill()
            keeper.communicate()

    def test_a_leader_that_is_gone_is_known_by_its_session(self) -> None:
        command = ["sh", "-c", "sleep 0.1; sleep 64 & wait"]
        keeper = subprocess.Popen(command, start_new_session=True)
        leader = processes.process(keeper.pid)
        assert leader
        family = processes.Family(keeper.pid, leader.started)
        try:
            child = wait_until(
                lambda: next((o for o in family.look() if line_of(o) == "sleep 64"), 0)
            )
            keeper.kill()
            wait_until(lambda: (p := processes.process(keeper.pid)) and not p.alive)
            known = processes.lost_leader(keeper.pid, leader.began_s)
            self.assertEqual(known, leader)  # it is not reaped yet
            keeper.wait()
            # Of a shell that was slow to begin no member is as old as itself.
            began_s = max(leader.began_s, child.began_s - 1)
            known = processes.lost_leader(keeper.pid, began_s)
            assert known
            self.assertEqual((known.pid, known.started), (keeper.pid, child.started))
            for began_s in (leader.began_s - 10, leader.began_s + 10):
                self.assertIsNone(processes.lost_leader(keeper.pid, began_s))
        finally:
            keeper.kill()
            keeper.wait()
            for one in family.look():
                processes.send(one, signal.SIGKILL)

    def test_a_number_that_is_anothers_by_now_gets_no_signal(self) -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        try:
            one = processes.process(sleeper.pid)
            assert one
            earlier = processes.Process(
                one.pid, one.started - 1, one.parent, one.session, "S", 0
            )
            self.assertFalse(processes.send(earlier, signal.SIGKILL))
            self.assertIsNone(sleeper.poll())
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_what_has_ended_can_not_be_held_still(self) -> None:
        ended = subprocess.Popen(["true"])
        one = wait_until(
            lambda: (p := processes.process(ended.pid)) and not p.alive and p
        )
        with processes.held_still(one) as living:
            self.assertFalse(living)
        ended.wait()


if __name__ == "__main__":
    unittest.main()
