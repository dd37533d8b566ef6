"""A storm of triggers, cancels, limits and kills: no two families of a cron at once.

The scripts themselves keep the record: each worker writes when it began and, again and
again, that it lives, by the boot clock.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest
from collections import defaultdict
from pathlib import Path
from typing import Any

from support import FULL, Server, need_command, need_full, wait_until

from cron_trigger.host import processes

#: Some heed SIGTERM a little later, as a clean-up does.
WORK = """#!/usr/bin/python3 -IS
import os, signal, sys, time
def later(*_):
    global end
    end = min(end, now() + 0.3)
now = lambda: time.clock_gettime(7)
end = now() + float(sys.argv[1])
if os.getpid() % 3 == 0:
    signal.signal(signal.SIGTERM, later)
name = os.environ["CRON_NAME"] + "." + os.environ["CRON_RUN_ID"]
file = os.open("marks/%s.%d" % (name, os.getpid()), os.O_WRONLY | os.O_CREAT, 0o644)
os.pwrite(file, b"%20.6f" % now(), 0)
while now() < end:
    os.pwrite(file, b"%20.6f" % now(), 20)
    time.sleep(0.005)
"""
SHAPES: dict[str, list[str]] = {
    "plain": ["./work.py", "0.4"],
    "timeout": ["bash", "-c", "timeout 5 ./work.py 0.6"],
    "monitor": ["bash", "-c", "set -m; ./work.py 0.5 & wait"],
    "xargs": ["bash", "-c", "printf '0.4\\n0.6\\n' | xargs -n 1 -P 2 ./work.py"],
    "setsid": ["bash", "-c", "setsid -w ./work.py 0.5; true"],
    "pipe": ["bash", "-c", "./work.py 0.5 | cat"],
}
#: What is itself a session of its own can't be found without its keeper.
LOST_WITHOUT_KEEPER = {"setsid"}


def setUpModule() -> None:
    need_full()


class FamilyStorm(unittest.TestCase):
    def setUp(self) -> None:
        self.seed = int(
            os.environ.get("CRON_TRIGGER_TEST_SEED", time.time_ns() % 10**6)
        )
        self.dice = random.Random(self.seed)
        registry = {
            name: {
                "description": name,
                "command": command,
                "killAfter": "1s",
                "timeout": "1s",
            }
            for name, command in SHAPES.items()
        }
        self.server = Server(registry)
        self.addCleanup(self.server.__exit__)
        self.server.script("work.py", WORK)
        (self.server.folder / "marks").mkdir()
        self.stop = threading.Event()
        self.counts: dict[str, int] = defaultdict(int)

    def client(self, number: int) -> None:
        dice = random.Random(self.seed * 10 + number)
        told: list[int] = []
        while not self.stop.wait(dice.random() * 0.1):
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
                reply = self.server.trigger(dice.choice(list(SHAPES)))
                self.counts[f"trigger {reply.status}"] += 1
                told += [reply.json["runId"]] if reply.status == 202 else []
                if told and dice.random() < 0.4:
                    run_id = dice.choice(told[-3:])
                    reply = self.server.request("POST", f"/runs/{run_id}/cancel")
                    self.counts[f"cancel {reply.status}"] += 1

    def crontab(self) -> None:
        dice = random.Random(self.seed * 10 + 9)
        while not self.stop.wait(dice.random() * 0.3):
            if dice.random() < 0.5:
                self.flock(dice) if self.server_stays else self.kill_keeper(dice)
                continue
            line = self.server.spawn("run", dice.choice(list(SHAPES)))
            if dice.random() < 0.3:
                self.stop.wait(dice.random() * 0.8)
                line.kill()
            line.communicate()

    def flock(self, dice: random.Random) -> None:
        """A line of a crontab that knows nothing of us but the PID file."""
        self.counts["flock"] += 1
        name = dice.choice(list(SHAPES))
        own = {"CRON_NAME": name, "CRON_RUN_ID": str(10**6 + self.counts["flock"])}
        path = self.server.run_dir / f"{name}.pid"
        command = ["flock", "-w", "1", str(path), "./work.py", "0.1"]
        env = {**os.environ, **own}
        subprocess.run(command, env=env, cwd=self.server.folder, check=False)

    def kill_keeper(self, dice: random.Random) -> None:
        names = [name for name in SHAPES if name not in LOST_WITHOUT_KEEPER]
        for name in dice.sample(names, len(names)):
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = (self.server.run_dir / f"{name}.pid").read_text().split()
                keeper = processes.process(int(words[0]))
                if keeper and len(words) == 1 and keeper.session == keeper.pid:
                    processes.send(keeper, signal.SIGKILL)
                    self.counts["keepers killed"] += 1
                    return

    server_stays = False

    def test_what_can_be_killed_is_killed(self) -> None:
        self.storm()

    def test_flock_lines_beside_cancels_and_limits(self) -> None:
        # With the server killed as well, nobody is there to hold a lock for a family
        # whose keeper is gone: then `flock` can't be kept out.
        need_command("flock")
        self.server_stays = True
        self.storm()

    def storm(self) -> None:
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(4)]
        threads.append(threading.Thread(target=self.crontab))
        self.server.start()
        port = self.server.port
        for thread in threads:
            thread.start()
        deadline_s = time.monotonic() + (8 if FULL else 5)
        try:
            # Longer where a slow host has not come to each of the shapes yet.
            while time.monotonic() < deadline_s + 30 * (self.seen() < set(SHAPES)):
                self.stop.wait(self.dice.random() * 1.5)
                if self.server_stays:
                    continue
                self.server.kill()
                self.counts["servers killed"] += 1
                self.server.start(port=port)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        self.server.get("/crons")
        query = "select count(*) from cron_executions where status = 'running'"
        wait_until(lambda: self.server.rows(query) == [(0,)], 30, "all ends")
        sys.stderr.write(f"family storm, seed {self.seed}: {dict(self.counts)}\n")
        with self.subTest(seed=self.seed):
            self.check()

    def seen(self) -> set[str]:
        """Return of which crons somebody has lived."""
        marks = (self.server.folder / "marks").iterdir()
        return {path.name.split(".")[0] for path in marks if path.stat().st_size}

    def check(self) -> None:
        lives: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        for path in (self.server.folder / "marks").iterdir():
            if not path.stat().st_size:
                continue  # killed before it had written anything
            cron, run_id, _ = path.name.split(".")
            begin, last = self.life(path)
            known = lives[cron].get(int(run_id), (begin, last))
            lives[cron][int(run_id)] = min(begin, known[0]), max(last, known[1])
        self.assertEqual(set(lives), set(SHAPES))
        for cron, runs in lives.items():
            order = sorted((*life, run_id) for run_id, life in runs.items())
            for (_, ended, first), (began, _, second) in zip(order, order[1:]):
                text = f"{cron}: run {first} lived when run {second} began"
                if ended >= began:
                    self.fail(f"{text}, {ended} >= {began}: {self.known_of(first)}")

    def known_of(self, run_id: int) -> str:
        """Return what the history and the server's log have of a run."""
        query = f"select * from cron_executions where id = {run_id}"
        log = self.server.log_dir / "cron-trigger-server.log"
        lines = log.read_text().splitlines()
        about = [line for line in lines if f"run {run_id} " in line]
        return f"{self.server.rows(query)} {about}"

    def life(self, path: Path) -> tuple[float, float]:
        words: list[Any] = path.read_text().split()
        return float(words[0]), float(words[-1])


if __name__ == "__main__":
    unittest.main()
