"""Nothing lost: SIGKILL at each point of a run's life, and at any moment under load.

What clients were told is kept, what scripts did they write into a file themselves (the
canary), and both are held against the history afterwards.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from support import (
    FULL,
    PROGRAM,
    Server,
    need,
    need_command,
    need_full,
    patched,
    wait_until,
)

from cron_trigger.history.second import IS_EMPTY, Second

#: Writes its begin and end into the canary, one write each; says who it is.  It stays
#: as long as the file "wait" is there.
CANARY = """#!/bin/sh
echo "begin $CRON_NAME $CRON_RUN_ID" >>canary
echo "I am $CRON_RUN_ID"
sleep $1
while [ -e wait ]; do sleep 0.02; done
echo "end $CRON_NAME $CRON_RUN_ID" >>canary
exit $((CRON_RUN_ID % 7))
"""

#: Replaces a method by one that SIGKILLs its process, before or after the work.
CRASH = """
def crash(owner, name, when):
    inner = getattr(owner, name)
    def wrapped(*args, **named):
        if when == "before":
            m.os.kill(m.os.getpid(), 9)
        inner(*args, **named)
        m.os.kill(m.os.getpid(), 9)
    setattr(owner, name, wrapped)
"""
#: SIGKILL in the midst of a transaction: all was written, but not committed.
TORN = """
inner = m.Database._committed
def torn(self, db, change, last):
    def whole(db):
        change(db)
        m.os.kill(m.os.getpid(), 9)
    mine = change.__qualname__ == {0!r}
    return inner(self, db, whole if mine else change, last)
m.Database._committed = torn
"""


def some(points: Sequence[Any], count: int) -> Sequence[Any]:
    """Return all points where there is time; else some, others each time."""
    return points if FULL else random.sample(points, count)


def dying(owner: str, name: str, when: str) -> tuple[str, ...]:
    """Return a program that dies before, in or after a method's first call."""
    if when == "within":
        return patched(TORN.format(f"{owner}.{name}.<locals>.change"))
    return patched(CRASH, f"crash(m.{owner}, {name!r}, {when!r})")


def canary(server: Server) -> list[tuple[str, str, int]]:
    """Return (begin or end, cron, run id), in the order in which it happened."""
    path = server.folder / "canary"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(w[0], w[1], int(w[2])) for w in map(str.split, lines)]


def begins(server: Server) -> list[int]:
    return [run_id for what, _, run_id in canary(server) if what == "begin"]


def settled(server: Server) -> None:
    """Wait until no run is under way."""
    query = "select count(*) from cron_executions where status = 'running'"
    wait_until(lambda: server.rows(query) == [(0,)], what="the end of all runs")


def setUpModule() -> None:
    need_full()


class Points(unittest.TestCase):
    """One server dies at a named point; its successor puts everything right."""

    def setUp(self) -> None:
        command = ["./canary.sh", "0.1"]
        self.server = Server({"a": {"description": "A", "command": command}})
        self.addCleanup(self.server.__exit__)
        self.server.script("canary.sh", CANARY)

    def start_dying(self, owner: str, name: str, when: str) -> None:
        self.server.program = list(dying(owner, name, when))
        self.server.start()

    def restart(self) -> None:
        """Wait for the death, and start the server as it is."""
        assert self.server.process
        self.assertEqual(self.server.process.wait(15), -signal.SIGKILL)
        self.server.kill()
        self.server.program = [str(PROGRAM)]
        self.server.start()

    def trigger(self, key: str = "k", **fields: Any) -> Any:
        """Return the answer; None where the server died before it answered."""
        body = {"cronName": "a", **fields}
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.server.request(
                "POST", "/trigger", body, {"Idempotency-Key": key}
            )
        return None

    def assert_all_recorded(self) -> None:
        """Each script that began has one row with its true exit status."""
        settled(self.server)
        began = begins(self.server)
        self.assertEqual(len(began), len(set(began)), "begun twice")
        rows = self.server.rows("select id, status, exit_code from cron_executions")
        for run_id, status, exit_code in rows:
            if run_id in began:
                self.assertEqual(exit_code, run_id % 7)
                self.assertEqual(status, "failed" if exit_code else "completed")
            else:
                self.assertEqual((status, exit_code), ("interrupted", None))
        self.assertLessEqual(set(began), {row[0] for row in rows})
        log = self.server.log_text("a")
        for run_id in began:
            self.assertEqual(log.count(f"I am {run_id}\n"), 1)
            text = self.server.get(f"/runs/{run_id}/log").text
            self.assertEqual(text, f"I am {run_id}\n")

    def test_a_trigger_with_a_key_starts_once_wherever_the_server_dies(self) -> None:
        points = (
            ("Launch", "_take_lock", "before"),
            ("Launch", "_take_lock", "after"),
            ("Runs", "begin", "before"),
            ("Runs", "begin", "within"),
            ("Runs", "begin", "after"),
            ("keeper", "start", "before"),
            ("keeper", "start", "after"),
            ("Runs", "started", "before"),
            ("Runs", "started", "within"),
            ("Runs", "started", "after"),
            ("Launch", "_launch", "after"),
            ("Launch", "trigger", "after"),
        )
        for owner, name, when in some(points, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                before = len(begins(self.server))
                key = f"{when}-{owner}-{name}"
                self.start_dying(owner, name, when)
                self.assertIsNone(self.trigger(key))
                self.restart()
                told = wait_until(
                    lambda key=key: (  # type: ignore[misc]
                        (reply := self.trigger(key)) and reply.status == 202 and reply
                    )
                ).json
                self.server.ended(told["runId"])
                again = self.trigger(key).json
                self.assertEqual(again["runId"], told["runId"])
                self.assertEqual(begins(self.server)[before:], [told["runId"]])
                self.assertEqual(again["pid"], self.server.run(told["runId"])["pid"])
                self.assert_all_recorded()
                self.server.stop()

    def test_an_end_is_recorded_once_wherever_the_server_dies(self) -> None:
        need_full()
        points = (
            ("Ending", "keeper_gone", "before"),
            ("Recorder", "_ended", "before"),
            ("Recorder", "_ended", "after"),
            ("Runs", "end", "before"),
            ("Runs", "end", "within"),
            ("Runs", "end", "after"),
            ("RunLog", "write_line", "before"),
            ("RunLog", "write_line", "after"),
            ("Recorder", "record", "after"),
        )
        for owner, name, when in some(points, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                self.start_dying(owner, name, when)
                wait = self.server.folder / "wait"
                wait.touch()  # or the server may die before it has answered
                told = self.trigger(f"{when}-{owner}-{name}").json
                wait.unlink()
                self.restart()
                self.assertEqual(begins(self.server)[-1], told["runId"])
                self.assert_all_recorded()
                events = self.server.rows(
                    "select count(*) from events where event = 'run.finished' "
                    f"and data like '%\"id\": {told['runId']},%'"
                )
                self.assertEqual(events, [(1,)])
                totals = self.server.rows("select sum(runs) from run_totals")
                rows = self.server.rows("select count(*) from cron_executions")
                self.assertEqual(totals, rows)
                self.server.stop()

    def test_a_planned_trigger_fires_once_wherever_the_server_dies(self) -> None:
        need_full()
        points = (
            ("Schedule", "_fire", "before"),
            ("Runs", "begin", "within"),
            ("Runs", "begin", "after"),
            ("keeper", "start", "before"),
            ("keeper", "start", "after"),
            ("Launch", "trigger", "after"),
        )
        for owner, name, when in some(points, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                before = len(begins(self.server))
                self.start_dying(owner, name, when)
                moment = datetime.now(timezone.utc) + timedelta(seconds=4)
                told = self.trigger(f"{when}-{owner}-{name}", runAt=moment.isoformat())
                self.restart()
                planned = told.json["scheduledId"]

                def fired(planned: int = planned) -> Any:
                    entries = self.server.get("/scheduled").json["scheduled"]
                    entry = next(e for e in entries if e["id"] == planned)
                    return entry if entry["status"] != "pending" else None

                entry = wait_until(fired)
                self.assertEqual(entry["status"], "fired", entry)
                self.server.ended(entry["runId"])
                self.assertEqual(begins(self.server)[before:], [entry["runId"]])
                self.assert_all_recorded()
                self.server.stop()

    def test_what_was_planned_is_all_there_or_not_at_all(self) -> None:
        moment = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
        for when in some(("before", "within", "after"), 1):
            with self.subTest(when):
                self.start_dying("Plans", "schedule", when)
                self.assertIsNone(self.trigger(when, runAt=moment))
                self.restart()
                first = self.trigger(when, runAt=moment).json["scheduledId"]
                again = self.trigger(when, runAt=moment).json["scheduledId"]
                self.assertEqual(first, again)
                self.server.stop()
        query = "select count(*) from scheduled_triggers"
        self.assertEqual(self.server.rows(query), [(3 if FULL else 1,)])

    def test_a_cancel_that_was_asked_for_is_carried_out_by_the_next(self) -> None:
        need_full()
        command = ["./canary.sh", "60"]
        self.server.write_registry({"a": {"description": "A", "command": command}})
        points = (
            ("Runs", "set_end_reason", "before", False),
            ("Runs", "set_end_reason", "within", False),
            ("Runs", "set_end_reason", "after", True),
            ("Ending", "_terminate", "before", True),
            ("Ending", "_terminate", "after", True),
        )
        for owner, name, when, cancelled in some(points, 2):
            with self.subTest(f"{when} {owner}.{name}"):
                self.start_dying(owner, name, when)
                told = self.trigger(f"{when}-{owner}-{name}").json
                wait_until(
                    lambda told=told: told["runId"] in begins(self.server)  # type: ignore[misc]
                )
                with self.assertRaises((OSError, http.client.HTTPException)):
                    self.server.request("POST", f"/runs/{told['runId']}/cancel")
                self.restart()
                if not cancelled:
                    self.assertEqual(
                        self.server.run(told["runId"])["status"], "running"
                    )
                    self.server.request("POST", f"/runs/{told['runId']}/cancel")
                run = self.server.ended(told["runId"])
                self.assertEqual((run["status"], run["exitCode"]), ("cancelled", 143))
                self.server.stop()

    def test_a_run_of_the_command_line_is_found_wherever_that_dies(self) -> None:
        need_full()
        turns = itertools.cycle((True, False))
        points = (
            ("Launch", "_take_lock", "after"),
            ("Runs", "begin", "within"),
            ("Runs", "begin", "after"),
            ("keeper", "start", "after"),
            ("Runs", "started", "after"),
            ("Launch", "trigger", "after"),
            ("Runs", "end", "before"),
            ("Runs", "end", "after"),
        )
        for owner, name, when in some(points, 2):
            # Each with a server and without, in turns; both where there is time.
            for up in (True, False) if FULL else (next(turns),):
                with self.subTest(f"{when} {owner}.{name}, server is up: {up}"):
                    if up:
                        self.server.program = [str(PROGRAM)]
                        self.server.start()
                    self.server.program = list(dying(owner, name, when))
                    done = self.server.command("run", "a")
                    self.assertEqual(done.returncode, -signal.SIGKILL)
                    self.server.program = [str(PROGRAM)]
                    if not up:
                        self.server.start()
                    self.server.get("/crons")
                    self.assert_all_recorded()
                    self.server.stop()


class Storm(unittest.TestCase):
    """SIGKILLs at random moments, under load; then everything is held together."""

    CRONS = ("a", "b", "c", "short")

    def setUp(self) -> None:
        self.seed = int(
            os.environ.get("CRON_TRIGGER_TEST_SEED", time.time_ns() % 10**6)
        )
        self.random = random.Random(self.seed)
        registry = {
            name: {"description": name, "command": ["./canary.sh", took]}
            for name, took in zip(self.CRONS, ("0.3", "0.1", "0.7", "0"))
        }
        self.server = Server(registry)
        self.addCleanup(self.server.__exit__)
        self.server.script("canary.sh", CANARY)
        #: What clients were told.
        self.told: dict[int, str] = {}
        self.by_key: dict[str, set[int]] = collections.defaultdict(set)
        self.cancelled: set[int] = set()
        self.keepers_killed: set[int] = set()
        self.refused = self.times_full = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def client(self, number: int) -> None:
        """Trigger and cancel; repeat what got no answer, as a client with a key may."""
        dice = random.Random(self.seed * 100 + number)
        count = 0
        while not self.stop.is_set():
            count += 1
            cron, key = dice.choice(self.CRONS), f"{number}-{count}"
            for _ in range(dice.choice((1, 1, 2, 30))):
                if self.trigger(cron, key) or self.stop.is_set():
                    break
                self.stop.wait(0.05)
            if self.told and dice.random() < 0.1:
                self.cancel(dice.choice(sorted(self.told)[-4:]))
            self.stop.wait(dice.random() * 0.1)

    def trigger(self, cron: str, key: str) -> bool:
        """Return True where there was an answer."""
        headers = {"Idempotency-Key": key}
        try:
            reply = self.server.request("POST", "/trigger", {"cronName": cron}, headers)
        except (OSError, http.client.HTTPException):
            return False
        with self.lock:
            if reply.status == 202:
                self.told[reply.json["runId"]] = cron
                self.by_key[key].add(reply.json["runId"])
            else:
                self.assertEqual(reply.status, 409, reply.text)
                self.refused += 1
        return True

    def cancel(self, run_id: int) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self.server.request("POST", f"/runs/{run_id}/cancel").status == 202:
                with self.lock:
                    self.cancelled.add(run_id)

    def crontab(self) -> None:
        """`run NAME`, now and then SIGKILLed; a keeper SIGKILLed now and then."""
        dice = random.Random(self.seed * 100 + 99)
        while not self.stop.wait(dice.random() * 0.5):
            if dice.random() < 0.3:
                self.kill_keeper(dice)
                continue
            line = self.server.spawn("run", dice.choice(self.CRONS))
            if dice.random() < 0.4:
                self.stop.wait(dice.random() * 0.6)
                line.kill()
            line.communicate()

    def lock_history(self) -> None:
        """Keep everybody from writing the history, now and then."""
        dice = random.Random(self.seed * 100 + 98)
        path = self.server.state_dir / "history.db"
        while not self.stop.wait(dice.random() * 2):
            db = sqlite3.connect(path, isolation_level=None)
            with contextlib.suppress(sqlite3.OperationalError):
                db.execute("begin immediate")
                self.stop.wait(dice.random() * 1.5)
                db.execute("rollback")
            db.close()

    def small_disk(self) -> Path:
        """Put both histories on one small disk."""
        need(os.geteuid() == 0, "mounting a small disk needs root")
        mount, umount = need_command("mount"), need_command("umount")
        disk = self.server.folder / "disk"
        disk.mkdir()
        options = ["-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(disk)]
        done = subprocess.run([mount, *options], capture_output=True, check=False)
        need(done.returncode == 0, f"no disk can be mounted: {done.stderr!r}")
        self.addCleanup(subprocess.call, [umount, "-l", str(disk)])
        self.server.state_dir, self.server.run_dir = disk / "state", disk / "run"
        return disk

    def fill_disk(self, disk: Path) -> None:
        """Leave no byte on the disk of the histories, now and then."""
        dice = random.Random(self.seed * 100 + 97)
        filler = disk / "filler"
        while not self.stop.wait(dice.random() * 2):
            until_s = time.monotonic() + dice.random()
            # What others give back in the meantime is taken, too.
            with open(filler, "ab", buffering=0) as file:
                while time.monotonic() < until_s and not self.stop.is_set():
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * 65536)
                    with contextlib.suppress(OSError):
                        file.write(b"x" * 4096)
                    self.stop.wait(0.005)
            filler.unlink()
            self.times_full += 1

    def kill_keeper(self, dice: random.Random) -> None:
        """SIGKILL a keeper through a pidfd, which can't hit another process."""
        path = self.server.run_dir / f"{dice.choice(self.CRONS)}.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(path.read_text().split()[0])
            descriptor = os.pidfd_open(pid)
            with open(f"/proc/{pid}/environ", "rb") as file:
                pairs = dict(p.split(b"=", 1) for p in file.read().split(b"\0") if p)
            if b"CRON_RUN_ID" in pairs:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                self.keepers_killed.add(int(pairs[b"CRON_RUN_ID"]))
            os.close(descriptor)

    def rage(self, duration_s: float) -> int:
        """Start and kill servers, at any moment of their lives; return how many."""
        kills, deadline_s = 0, time.monotonic() + duration_s
        self.server.start()
        port = self.server.port
        while time.monotonic() < deadline_s:
            # Some die while they start, before they say that they listen.
            self.stop.wait(
                self.random.choice((0.02, 0.1, 0.4, 1.0)) * self.random.random()
            )
            self.server.kill()
            kills += 1
            early = self.spawn_early(port)
            if early is not None:
                self.stop.wait(self.random.random() * 0.4)
                early.kill()
                early.communicate()
                kills += 1
            try:
                self.server.start(port=port)
            except AssertionError:  # its message is the log of the whole storm
                assert self.server.process
                code, last = self.server.process.poll(), self.server.stderr()[-500:]
                self.fail(f"the server did not start: exit {code}, {last}")
        return kills

    def spawn_early(self, port: int) -> Optional[subprocess.Popen[str]]:
        if self.random.random() < 0.6:
            return None
        return self.server.spawn("serve", "--host=127.0.0.1", f"--port={port}")

    def test_storm(self) -> None:
        """Kills, and locks on the history."""
        self.storm(self.lock_history)

    def test_storm_on_a_disk_that_is_full_now_and_then(self) -> None:
        """All three at once, and both histories on that disk."""
        need_full()
        disk = self.small_disk()
        self.storm(self.lock_history, lambda: self.fill_disk(disk))
        self.assertGreater(self.times_full, 2)

    def storm(self, *faults: Callable[[], None]) -> None:
        threads = [
            threading.Thread(target=self.client, args=(number,)) for number in range(3)
        ]
        threads.append(threading.Thread(target=self.crontab))
        threads += [threading.Thread(target=fault) for fault in faults]
        self.server.start()
        self.server.stop()
        for thread in threads:
            thread.start()
        try:
            kills = self.rage(12 if FULL else 4)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        wait_until(lambda: "problems" not in self.server.get("/health").json)
        self.server.get("/crons")  # what a killed process has left there is moved
        wait_until(lambda: self.unwritten() == (1,), what="an empty second history")
        settled(self.server)
        with self.subTest(seed=self.seed, kills=kills, told=len(self.told)):
            self.check_history()
            self.check_events()
            self.check_order()
            self.check_logs()
        if FULL:
            rows = self.server.rows(
                "select status, count(*) from cron_executions group by 1"
            )
            sys.stderr.write(
                f"storm, seed {self.seed}: {kills} kills of the server, "
                f"{len(self.told)} runs told, {self.refused} refused, "
                f"{len(self.cancelled)} cancelled, {len(self.keepers_killed)} keepers "
                f"killed; {self.times_full} times full; history {rows}\n"
            )

    def unwritten(self) -> Any:
        """Tell whether the second history is empty."""
        place = f"file:{self.server.run_dir / Second.NAME}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, timeout=10, uri=True)) as db:
            return db.execute(f"select {IS_EMPTY}").fetchone()

    def check_history(self) -> None:
        """What was told, and what the scripts did, stands in the history."""
        rows = {
            row[0]: row[1:]
            for row in self.server.rows(
                "select id, cron_name, status, exit_code from cron_executions"
            )
        }
        began, ended = begins(self.server), self.ends()
        self.assertEqual(len(began), len(set(began)), "begun twice")
        self.assertLessEqual(set(self.told), set(rows))
        self.assertLessEqual(set(began), set(rows))
        for key, runs in self.by_key.items():
            self.assertEqual(len(runs), 1, f"{key} started {runs}")
        for run_id, (cron, status, exit_code) in rows.items():
            with self.subTest(run=run_id, cron=cron, status=status, exit=exit_code):
                self.check_row(run_id, status, exit_code, run_id in ended)
                self.assertEqual(self.told.get(run_id, cron), cron)
        totals = self.server.rows("select sum(runs) from run_totals")
        self.assertEqual(totals, [(len(rows),)])

    def check_events(self) -> None:
        """Each run's end was told once, and its start at most once."""
        told = self.server.rows(
            "select event, json_extract(data, '$.run.id') from events"
        )
        twice = {one: n for one, n in collections.Counter(told).items() if n > 1}
        self.assertEqual(twice, {})
        ended = {run_id for event, run_id in told if event == "run.finished"}
        rows = self.server.rows("select id from cron_executions")
        self.assertEqual(ended, {row[0] for row in rows})

    def check_row(
        self, run_id: int, status: str, exit_code: Optional[int], whole: bool
    ) -> None:
        if run_id in self.cancelled:
            self.assertEqual(status, "cancelled")
        if whole and run_id not in self.keepers_killed:
            # SIGTERM may come between a script's last line and its end.
            late = (143,) if status == "cancelled" else ()
            self.assertIn(exit_code, (run_id % 7, *late))
            if status != "cancelled":
                self.assertEqual(status, "failed" if exit_code else "completed")
        elif whole:
            self.assertIn(exit_code, (run_id % 7, 137, None))
        elif run_id in self.keepers_killed:
            self.assertIn(status, ("failed", "interrupted", "cancelled"))
        elif status == "interrupted":
            self.assertNotIn(run_id, begins(self.server))
            self.assertNotIn(run_id, self.told)
        else:
            self.assertEqual((status, exit_code), ("cancelled", 143))

    def ends(self) -> set[int]:
        return {run_id for what, _, run_id in canary(self.server) if what == "end"}

    def check_order(self) -> None:
        """No two runs of one cron overlapped."""
        now: dict[str, int] = {}
        for what, cron, run_id in canary(self.server):
            if what == "begin":
                now[cron] = run_id
            else:
                self.assertEqual(now[cron], run_id, f"{cron}: overlapped")

    def check_logs(self) -> None:
        """The output of each run is there, once, and is given as its own."""
        for cron in self.CRONS:
            log = self.server.log_text(cron)
            for run_id in (
                i for w, c, i in canary(self.server) if (w, c) == ("end", cron)
            ):
                self.assertEqual(log.count(f"I am {run_id}\n"), 1)
        for run_id in self.sample(sorted(self.ends() & set(self.told))):
            text = self.server.get(f"/runs/{run_id}/log").text
            self.assertEqual(text, f"I am {run_id}\n")

    def sample(self, ids: Sequence[int]) -> Sequence[int]:
        return self.random.sample(ids, min(len(ids), 40))


if __name__ == "__main__":
    unittest.main()
