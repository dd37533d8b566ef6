"""Disks that hang: nobody waits for them who does not need them.

A call that hangs as long as a file is there stands for a disk that does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import unittest
from pathlib import Path
from typing import Any

from support import Server, Wire, patched, slow, wait_until

REGISTRY: dict[str, Any] = {
    "far": {
        "description": "Logs to another disk",
        "command": ["sh", "-c", "touch ready; until [ -e go ]; do sleep 0.02; done"],
    },
    "brief": {"description": "Brief", "command": ["true"]},
    "limited": {"description": "L", "command": ["sleep", "60"], "timeout": "1s"},
}
HANG = """
import os, pathlib, time
def hangs(call, wanted=lambda *_: True):
    def hanging(*words):
        while os.path.exists(FROZEN) and wanted(*words):
            time.sleep(0.02)
        return call(*words)
    return hanging
"""


class FrozenCase(unittest.TestCase):
    def prepared(self, *statements: str, **options: Any) -> Server:
        self.server = server = Server(REGISTRY, start=False, **options)
        self.frozen = server.folder / "frozen"
        head = f"FROZEN = {str(self.frozen)!r}\n{HANG}"
        server.program = list(patched(head, *statements))
        (server.folder / "far").mkdir()
        entry = {**REGISTRY["far"], "logFile": f"{server.folder}/far/far.log"}
        server.write_registry({**REGISTRY, "far": entry})
        self.addCleanup(server.__exit__)
        # First, so that nothing hangs when the server is to end.
        self.addCleanup(lambda: self.frozen.unlink(missing_ok=True))
        return server.start()


class ForeignLog(FrozenCase):
    HANGS = (
        "far = lambda self, run: '/far/' in (run.log_file or '')",
        "m.RunLog.__init__ = hangs(m.RunLog.__init__, far)",
    )

    def ended_far(self) -> int:
        """Have a run end whose log's disk hangs from then on."""
        run_id: int = self.server.trigger("far").json["runId"]
        wait_until((self.server.folder / "ready").exists)
        self.frozen.touch()
        (self.server.folder / "go").touch()
        path = self.server.run_dir / "far.pid"
        wait_until(lambda: len(path.read_text().split()) == 2)
        return run_id

    @slow
    def test_the_end_of_a_run_with_another_log_does_not_wait_for_it(self) -> None:
        server = self.prepared(*self.HANGS)
        run_id = self.ended_far()
        for _ in range(3):
            self.assertEqual(server.completed("brief")["status"], "completed")
        self.assertEqual(server.run(run_id)["status"], "running")
        self.assertEqual(server.trigger("far").status, 409)
        self.frozen.unlink()
        self.assertEqual(server.ended(run_id)["status"], "completed")
        text = server.folder / "far" / "far.log"
        wait_until(lambda: f"run {run_id} completed" in text.read_text())

    @slow
    def test_a_start_does_not_wait_for_it_either(self) -> None:
        server = self.prepared(*self.HANGS)
        run_id = self.ended_far()
        server.kill()
        server.start()
        self.assertEqual(server.completed("brief")["status"], "completed")
        self.assertEqual(server.run(run_id)["status"], "running")
        self.frozen.unlink()
        self.assertEqual(server.ended(run_id)["status"], "completed")


@slow
class OwnDisks(FrozenCase):
    """The history's and the logs': nothing can be recorded, and nothing gives up."""

    HANGS = (
        "m.Logs.append = hangs(m.Logs.append)",
        "m.RunLog.__init__ = hangs(m.RunLog.__init__)",
        "m.Database.read = hangs(m.Database.read)",
        "m.Database.write = hangs(m.Database.write)",
        "pathlib.Path.stat = hangs(pathlib.Path.stat)",
    )

    def test_the_watchdog_is_answered_all_the_same(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            address = f"\0cron-trigger-test-{os.getpid()}"
            listener.bind(address)
            environ = {
                "NOTIFY_SOCKET": "@" + address[1:],
                "WATCHDOG_USEC": "300000",
                "CRON_TRIGGER_ALLOW": "127.0.0.1/32",
            }
            server = self.prepared(*self.HANGS, environ=environ)
            run_id = server.trigger("far").json["runId"]
            limited = server.trigger("limited").json["runId"]
            wait_until((server.folder / "ready").exists)
            with Wire(server.port) as stream:
                head = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                self.assertEqual(stream.send(head).answer(False).status, 200)
                self.frozen.touch()
                (server.folder / "go").touch()  # an end, ...
                assert server.process
                server.process.send_signal(signal.SIGHUP)  # ... a reading, ...
                self.bother(server)  # ... refusals by the accepting thread
                self.hear(listener, 5, 2.0)  # ... and a time limit.
            self.frozen.unlink()
            self.assertEqual(server.ended(run_id)["status"], "completed")
            self.assertEqual(server.ended(limited)["status"], "timed_out")

    def bother(self, server: Server) -> None:
        for path in ("x", "y"):
            (server.run_dir / path).touch()
            (server.run_dir / path).unlink()
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.send(b"x")

    def hear(self, listener: socket.socket, beats: int, for_s: float) -> None:
        """Hear more than so many beats, and as long; TimeoutError where none comes."""
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # those of before
                listener.recv(4096)
        listener.settimeout(10)
        end_s = time.monotonic() + for_s
        while beats >= 0 or time.monotonic() < end_s:
            beats -= listener.recv(4096) == b"WATCHDOG=1"


class OwnLogs(FrozenCase):
    def test_health_answers_while_a_log_is_being_opened(self) -> None:
        server = self.prepared("m.open_log = hangs(m.open_log)")
        # The thread that accepts writes this line itself.
        wait_until(lambda: "listens on" in server.log_text())
        self.frozen.touch()
        body = b'{"cronName": "brief"}'
        head = (
            "POST /trigger HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with Wire(server.port) as wire:
            wire.send(head.encode() + body)
            wait_until(lambda: server.get("/crons/brief").json["cron"]["running"])
            (problem,) = server.get("/health").json["problems"]
            self.assertIn("does not respond", problem)
            self.frozen.unlink()
            self.assertEqual(wire.answer().status, 202)
        self.assertEqual(server.get("/health").json["status"], "healthy")


class Held(FrozenCase):
    @slow
    def test_a_stop_leaves_no_script_standing_still(self) -> None:
        """A history that hangs while a time limit is recorded."""
        server = self.prepared("m.Runs.set_end_reason = hangs(m.Runs.set_end_reason)")
        self.frozen.touch()
        pid = server.trigger("limited").json["pid"]

        def state() -> str:
            words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not words:
                return ""  # the keeper is about to start it
            stat = Path(f"/proc/{words[0]}/stat").read_text()
            return stat.rpartition(")")[2].split()[0]

        wait_until(lambda: state() == "T")
        server.stop()
        wait_until(lambda: state() == "S")


if __name__ == "__main__":
    unittest.main()
