"""A run that is ended early: by a person, by its time limit, whoever began it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
import unittest
from pathlib import Path
from typing import Any, Iterator

from support import FULL, Server, need_full, patched, slow, wait_until

#: The 10 s between SIGTERM and SIGKILL, for tests.
GRACE_S = 0.24


#: And a second of a registry's time limit.
SECOND_S = 0.12


SHORT = patched(
    "whole = m.duration_s",
    f"m.duration_s = lambda text: whole(text) * {SECOND_S}",
)


SCRIPTS = {
    # Ends by SIGTERM, as most do.
    "soft.sh": "#!/bin/sh\necho $$ >soft.pid\nexec sleep 60\n",
    # Ends when it is told to, in order.
    "tidy.sh": "#!/bin/sh\ntrap 'echo tidied up; exit 3' TERM\n"
    "echo $$ >tidy.pid\nwhile :; do sleep 0.01; done\n",
    # Tidies up until the file "go" is there.
    "slow.sh": "#!/bin/sh\ntrap 'until [ -e go ]; do sleep 0.02; done; exit 4' TERM\n"
    "echo $$ >slow.pid\nwhile :; do sleep 0.01; done\n",
    # Does not care, nor do its children.
    "deaf.sh": "#!/bin/sh\ntrap '' TERM\nsleep 61 &\necho $! >child.pid\n"
    "echo $$ >deaf.pid\nwhile :; do sleep 0.05; done\n",
    # Ends at once, and leaves a deaf child in its group.
    "parent.sh": "#!/bin/sh\n(trap '' TERM; exec sleep 62) &\n"
    "echo $! >child.pid\nexec sleep 62\n",
    # As before, with a child that does not know whose it is.
    "stranger.sh": "#!/bin/sh\n(trap '' TERM; exec env -i /bin/sleep 63) &\n"
    "echo $! >child.pid\nexec sleep 63\n",
    # Leaves a process outside of its group.
    "leaver.sh": "#!/bin/sh\nsetsid sh -c 'echo $$ >left.pid; exec sleep 64' &\n"
    "echo before\nexec sleep 64\n",
}


#: Where SIGKILL is to come soon; the others have time enough to end by SIGTERM.
KILL_AFTER = {"deaf": "2s", "parent": "20s", "stranger": "20s"}


REGISTRY = {
    **{
        name[:-3]: {
            "description": name,
            "command": name,
            "killAfter": KILL_AFTER.get(name[:-3], "1h"),
        }
        for name in SCRIPTS
    },
    "again": {"description": "Soft", "command": "soft.sh", "killAfter": "2s"},
    "stubborn": {"description": "Deaf", "command": "deaf.sh", "killAfter": "1h"},
    "limited": {"description": "Limited", "command": ["sleep", "65"], "timeout": "2s"},
    "patient": {"description": "Long", "command": ["sleep", "65"], "timeout": "1h"},
    "limited-deaf": {
        "description": "Both",
        "command": "deaf.sh",
        "timeout": "40s",
        "killAfter": "2s",
    },
    "limited-slow": {
        "description": "Both",
        "command": "slow.sh",
        "timeout": "40s",
        "killAfter": "1h",
    },
    "brief": {"description": "Brief", "command": ["true"]},
    "nothing": {"description": "Sleeps", "command": ["sleep", "66"]},
}


def alive(pid: int) -> bool:
    """Return True for a process that is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def members(group: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            stat = Path(f"/proc/{int(entry)}/stat").read_text().rpartition(")")[2]
            state, _, owner = stat.split()[:3]
            if int(owner) == group and state != "Z":
                found.append(int(entry))
    return found


def with_scripts(server: Server) -> Server:
    for name, text in SCRIPTS.items():
        server.script(name, text)
    return server


def started(server: Server, cron: str, mark: str) -> Any:
    """Trigger a cron; return the answer once its script has written its PID."""
    for path in server.folder.glob("*.pid"):
        path.unlink()
    reply = server.trigger(cron)
    assert reply.status == 202, reply.text
    pid_of(server, mark)
    return reply.json


def pid_of(server: Server, mark: str) -> int:
    path = server.folder / f"{mark}.pid"
    return int(wait_until(lambda: path.exists() and path.read_text().strip()))


def cancel(server: Server, run_id: int, **body: Any) -> Any:
    return server.request("POST", f"/runs/{run_id}/cancel", body or None)


@contextlib.contextmanager
def from_the_crontab(server: Server, cron: str, mark: str) -> Iterator[Any]:
    """A run that the crontab's `run NAME` began; yields its process and its row."""
    for path in server.folder.glob("*.pid"):
        path.unlink()
    caller = server.spawn("run", cron)
    try:
        pid_of(server, mark)
        rows = (
            "select id, pid from cron_executions where status = 'running' and pid > 0"
        )
        yield caller, wait_until(lambda: server.rows(rows))[0]
    finally:
        caller.kill()
        caller.communicate(timeout=20)


class CancelTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = with_scripts(Server(REGISTRY, program=SHORT))
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def let_go(self) -> None:
        """Have `slow.sh` end; the next one waits again."""
        go = self.server.folder / "go"
        go.touch()
        self.addCleanup(go.unlink)

    def test_a_cancelled_run_ends_by_term_and_says_by_whom(self) -> None:
        run = started(self.server, "soft", "soft")
        reply = cancel(self.server, run["runId"], requestedBy="admin@example.org")
        self.assertEqual(reply.status, 202)
        self.assertTrue(reply.json["success"])
        self.assertEqual(reply.json["run"]["id"], run["runId"])
        ended = self.server.ended(run["runId"])
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual(ended["cancelledBy"], "admin@example.org")
        self.assertEqual((ended["exitCode"], ended["signal"]), (143, "SIGTERM"))
        self.assertEqual(members(run["pid"]), [])
        self.assertIn("cancelled by admin@example.org", self.server.log_text())

    def test_a_cancel_that_comes_at_once_is_not_lost_on_the_keeper(self) -> None:
        # The keeper minds no signal; a script that it has not begun yet gets none.
        for _ in range(15):
            run_id = self.server.trigger("nothing").json["runId"]
            cancel(self.server, run_id)
            self.assertEqual(self.server.ended(run_id)["signal"], "SIGTERM")

    def test_without_a_name_the_address_is_recorded(self) -> None:
        run = started(self.server, "soft", "soft")
        self.assertEqual(cancel(self.server, run["runId"]).status, 202)
        self.assertEqual(self.server.ended(run["runId"])["cancelledBy"], "127.0.0.1")

    def test_a_script_may_tidy_up(self) -> None:
        run = started(self.server, "tidy", "tidy")
        cancel(self.server, run["runId"])
        ended = self.server.ended(run["runId"])
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 3))
        log = self.server.get(f"/runs/{run['runId']}/log").text
        self.assertTrue(log.endswith("tidied up\n"), log)

    def test_a_deaf_script_is_killed_with_its_children(self) -> None:
        run = started(self.server, "deaf", "deaf")
        begun_s = time.monotonic()
        cancel(self.server, run["runId"])
        ended = self.server.ended(run["runId"])
        self.assertGreaterEqual(time.monotonic() - begun_s, GRACE_S)
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual((ended["exitCode"], ended["signal"]), (137, "SIGKILL"))
        wait_until(lambda: not members(run["pid"]), 2, "the group's end")

    @slow
    def test_a_deaf_child_in_the_group_is_killed_after_its_parent(self) -> None:
        self.cancel_with_deaf_child("parent")

    @slow
    def test_a_deaf_child_of_another_environment_is_killed_too(self) -> None:
        self.cancel_with_deaf_child("stranger")

    def cancel_with_deaf_child(self, cron: str) -> None:
        run = started(self.server, cron, "child")
        child = pid_of(self.server, "child")
        cancel(self.server, run["runId"])
        self.assertEqual(self.server.ended(run["runId"])["exitCode"], 143)
        wait_until(lambda: not alive(child), 3, "the child's end")
        self.assertEqual(members(run["pid"]), [])

    def test_what_left_the_group_ends_with_its_run(self) -> None:
        run = started(self.server, "leaver", "left")
        left = pid_of(self.server, "left")
        cancel(self.server, run["runId"])
        self.server.ended(run["runId"])
        self.assertFalse(alive(left))

    def test_a_run_whose_keeper_is_killed_leaves_nothing_behind(self) -> None:
        # Our copy of its lock keeps everybody out until its script is gone, too.
        for cron in ("slow", "deaf"):
            run = started(self.server, cron, cron)
            os.kill(run["pid"], signal.SIGKILL)
            if cron == "slow":
                self.assertEqual(self.server.trigger(cron).status, 409)
                self.let_go()
            ended = self.server.ended(run["runId"])
            result = ended["status"], ended["exitCode"]
            self.assertEqual(result, ("interrupted", None))
            self.assertEqual(members(run["pid"]), [])

    def test_a_second_cancel_changes_nothing(self) -> None:
        run = started(self.server, "slow", "slow")
        cancel(self.server, run["runId"], requestedBy="first")
        self.assertEqual(
            cancel(self.server, run["runId"], requestedBy="second").status, 202
        )
        self.let_go()
        self.assertEqual(self.server.ended(run["runId"])["cancelledBy"], "first")

    def test_what_can_not_be_cancelled_is_refused(self) -> None:
        run = self.server.completed("brief")
        reply = cancel(self.server, run["id"])
        self.assertEqual((reply.status, reply.json["code"]), (409, "not_running"))
        reply = cancel(self.server, 999999)
        self.assertEqual((reply.status, reply.json["code"]), (404, "not_found"))
        reply = cancel(self.server, run["id"], because="x")
        self.assertEqual((reply.status, reply.json["code"]), (400, "invalid_request"))
        self.assertEqual(self.server.run(run["id"])["status"], "completed")

    @slow
    def test_the_cron_may_be_triggered_again_at_once(self) -> None:
        run = started(self.server, "again", "soft")
        cancel(self.server, run["runId"])
        self.server.ended(run["runId"])
        again = started(self.server, "again", "soft")
        # The rest of the first one's 10 s is not the second one's.
        time.sleep(2 * GRACE_S)
        self.assertEqual(self.server.run(again["runId"])["status"], "running")
        cancel(self.server, again["runId"])
        self.server.ended(again["runId"])

    def test_a_time_limit_ends_a_run(self) -> None:
        run_id = self.server.trigger("limited").json["runId"]
        ended = self.server.ended(run_id)
        self.assertEqual((ended["status"], ended["exitCode"]), ("timed_out", 143))
        self.assertIsNone(ended["cancelledBy"])
        self.assertGreaterEqual(ended["durationMs"], 2000 * SECOND_S)
        self.assertIn(f"run {run_id} timed_out", self.server.log_text("limited"))

    @slow
    def test_a_time_limit_kills_a_deaf_run(self) -> None:
        run = started(self.server, "limited-deaf", "deaf")
        ended = self.server.ended(run["runId"])
        self.assertEqual((ended["status"], ended["exitCode"]), ("timed_out", 137))
        wait_until(lambda: not members(run["pid"]), 2, "the group's end")

    def test_the_first_reason_stays_also_between_processes(self) -> None:
        # The server cancels, and within the grace the crontab's `run` times out.
        need_full()
        with from_the_crontab(self.server, "limited-slow", "slow") as (caller, row):
            cancel(self.server, row[0], requestedBy="person")
            # Both have the limit.
            line = f"run {row[0]} of limited-slow has reached its time limit"
            wait_until(lambda: self.server.log_text().count(line) == 2)
            self.let_go()
            caller.wait(20)
            ended = self.server.ended(row[0])
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual(ended["cancelledBy"], "person")

    @slow
    def test_the_crontabs_run_is_cancelled_too(self) -> None:
        with from_the_crontab(self.server, "soft", "soft") as (caller, (run_id, pid)):
            self.assertEqual(cancel(self.server, run_id, requestedBy="me").status, 202)
            self.assertEqual(caller.wait(20), 143)
            ended = self.server.ended(run_id)
            self.assertEqual(ended["status"], "cancelled")
            self.assertEqual(ended["cancelledBy"], "me")
            self.assertEqual(members(pid), [])

    @slow
    def test_the_crontabs_deaf_run_is_killed_too(self) -> None:
        with from_the_crontab(self.server, "deaf", "deaf") as (caller, (run_id, pid)):
            self.assertEqual(cancel(self.server, run_id).status, 202)
            self.assertEqual(caller.wait(20), 137)
            self.assertEqual(self.server.ended(run_id)["status"], "cancelled")
            wait_until(lambda: not members(pid), 2, "the group's end")

    @slow
    def test_a_signal_to_run_cancels_its_run(self) -> None:
        others = (signal.SIGINT, signal.SIGHUP) if FULL else ()
        for number in (signal.SIGTERM, *others):
            with from_the_crontab(self.server, "soft", "soft") as (caller, row):
                caller.send_signal(number)
                self.assertEqual(caller.wait(20), 143)
                ended = self.server.ended(row[0])
                self.assertEqual(ended["status"], "cancelled")
                self.assertIn("(signal)", ended["cancelledBy"])


class CancelAcrossRestartTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = with_scripts(Server(REGISTRY, program=SHORT))
        self.addCleanup(self.server.__exit__)
        self.server.start()

    @slow
    def test_a_run_that_was_found_again_is_cancelled(self) -> None:
        run = started(self.server, "deaf", "deaf")
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.run(run["runId"])["status"], "running")
        cancel(self.server, run["runId"], requestedBy="later")
        ended = self.server.ended(run["runId"])
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual((ended["exitCode"], ended["signal"]), (137, "SIGKILL"))
        self.assertEqual(ended["cancelledBy"], "later")
        wait_until(lambda: not members(run["pid"]), 2, "the group's end")

    def test_the_crontabs_run_is_cancelled_by_a_later_server(self) -> None:
        need_full()
        with from_the_crontab(self.server, "soft", "soft") as (caller, (run_id, pid)):
            self.server.kill()
            self.server.start()
            self.assertEqual(cancel(self.server, run_id, requestedBy="me").status, 202)
            self.assertEqual(caller.wait(20), 143)
            self.assertEqual(self.server.ended(run_id)["cancelledBy"], "me")
            self.assertEqual(members(pid), [])

    def test_a_kill_within_the_grace_does_not_save_a_run(self) -> None:
        need_full()
        run = started(self.server, "stubborn", "deaf")
        cancel(self.server, run["runId"], requestedBy="before")
        self.server.kill()
        self.assertTrue(members(run["pid"]))
        self.server.write_registry({**REGISTRY, "stubborn": REGISTRY["deaf"]})
        self.server.start()
        ended = self.server.ended(run["runId"])
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual(ended["cancelledBy"], "before")
        wait_until(lambda: not members(run["pid"]), 2, "the group's end")

    @slow
    def test_a_cancelled_run_that_ends_while_no_server_runs_is_cancelled(self) -> None:
        run = started(self.server, "slow", "slow")
        cancel(self.server, run["runId"])
        self.server.kill()
        (self.server.folder / "go").touch()
        wait_until(lambda: not members(run["pid"]), 5, "its end")
        self.server.start()
        ended = self.server.ended(run["runId"])
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 4))

    @slow
    def test_an_orderly_stop_finishes_what_no_keeper_keeps_others_from(self) -> None:
        run = started(self.server, "parent", "child")
        child = pid_of(self.server, "child")
        cancel(self.server, run["runId"])
        wait_until(lambda: not alive(run["pid"]), 5, "the keeper's end")
        self.assertEqual(self.server.stop(), 0)
        self.assertFalse(alive(child))
        self.server.start()
        self.assertEqual(self.server.run(run["runId"])["status"], "cancelled")

    def test_the_time_limit_goes_on_after_a_restart(self) -> None:
        need_full()
        run_id = self.server.trigger("limited").json["runId"]
        self.server.kill()
        self.server.start()
        ended = self.server.ended(run_id)
        self.assertEqual(ended["status"], "timed_out")
        self.assertLess(ended["durationMs"], 15000)

    @slow
    def test_a_clock_that_was_set_does_not_end_a_run(self) -> None:
        run_id = self.server.trigger("patient").json["runId"]
        self.server.kill()
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("update cron_executions set started_at = '2001-01-01T00:00:00Z'")
        self.server.start()
        wait_until(lambda: self.server.get("/runs?status=running").json["runs"])
        cancel(self.server, run_id)
        self.assertEqual(self.server.ended(run_id)["status"], "cancelled")

    @slow
    def test_a_time_limit_that_passed_without_a_server_ends_the_run(self) -> None:
        run_id = self.server.trigger("limited").json["runId"]
        self.server.kill()
        time.sleep(2 * SECOND_S)
        self.server.start()
        self.assertEqual(self.server.ended(run_id)["status"], "timed_out")


class WholeGraceTest(unittest.TestCase):
    def test_kill_comes_after_ten_seconds(self) -> None:
        need_full()
        entry = {"description": "Deaf", "command": "deaf.sh"}
        with with_scripts(Server({"deaf": entry})) as server:
            run = started(server, "deaf", "deaf")
            begun_s = time.monotonic()
            cancel(server, run["runId"])
            server.ended(run["runId"])
            took_s = time.monotonic() - begun_s
            self.assertGreaterEqual(took_s, 10)
            self.assertLess(took_s, 15)


if __name__ == "__main__":
    unittest.main()
