"""No descriptor is free for a while: what was to be done then is done afterwards."""

from __future__ import annotations

import contextlib
import json
import resource
import time
import unittest
from typing import Any, Iterator

from support import Server, Wire, patched, slow, wait_until

from cron_trigger.host.shortage import is_shortage
from cron_trigger.host.users import user_named

#: Descriptors that are open stay so; no further one is given.
NONE_FREE = 3
REGISTRY: dict[str, Any] = {
    "stubborn": {
        "description": "Ignores SIGTERM",
        "command": ["sh", "-c", "trap '' TERM; touch ready; sleep 60 & wait; wait"],
        "killAfter": "1s",
    },
    "limited": {
        "description": "Has a limit",
        "command": ["sleep", "60"],
        "timeout": "1s",
    },
    "waits": {
        "description": "Ends when it is told",
        "command": ["sh", "-c", "touch ready; until [ -e go ]; do sleep 0.02; done"],
    },
    "brief": {"description": "Brief", "command": ["true"]},
}


class ShortageCase(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server(REGISTRY)
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)
        # Made before: an open connection needs no further descriptor.
        self.wire = Wire(self.server.port)
        self.addCleanup(self.wire.__exit__)

    @contextlib.contextmanager
    def shortage(self) -> Iterator[None]:
        assert self.server.process
        pid, kind = self.server.process.pid, resource.RLIMIT_NOFILE
        before = resource.prlimit(pid, kind)
        # The connection has its place once it was answered.
        self.ask("GET", "/health")
        resource.prlimit(pid, kind, (NONE_FREE, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, kind, before)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return self.wire.send(head.encode() + data).answer()

    def started(self, name: str) -> int:
        run_id: int = self.server.trigger(name).json["runId"]
        if name in ("stubborn", "waits"):
            wait_until((self.server.folder / "ready").exists)
        return run_id


class UserTest(unittest.TestCase):
    def test_one_that_can_not_be_looked_up_is_not_one_that_is_not_there(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (NONE_FREE, hard))
        try:
            with self.assertRaises(OSError) as caught:
                user_named("root")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertTrue(is_shortage(caught.exception))
        self.assertEqual(user_named("root").uid, 0)
        self.assertRaises(KeyError, user_named, "nobody-of-this-name")


@slow
class Shortage(ShortageCase):
    def test_a_trigger_is_refused_as_overloaded_and_started_afterwards(self) -> None:
        with self.shortage():
            reply = self.ask("POST", "/trigger", {"cronName": "brief"})
        self.assertEqual((reply.status, reply.json["code"]), (503, "overloaded"))
        self.assertIn("no descriptor", reply.json["error"])
        self.assertGreater(int(reply.headers["retry-after"]), 0)
        self.assertNotIn("internal error", self.server.log_text())
        self.assertEqual(self.server.completed("brief")["status"], "completed")

    def test_a_cancel_is_refused_as_overloaded_and_holds_afterwards(self) -> None:
        run_id = self.started("waits")
        with self.shortage():
            reply = self.ask("POST", f"/runs/{run_id}/cancel", {})
        self.assertEqual((reply.status, reply.json["code"]), (503, "overloaded"))
        self.assertEqual(self.ask("POST", f"/runs/{run_id}/cancel", {}).status, 202)
        self.assertEqual(self.server.ended(run_id)["status"], "cancelled")

    def test_an_end_is_recorded_with_its_output_once_there_is_one(self) -> None:
        run_id = self.started("waits")
        with self.shortage():
            (self.server.folder / "go").touch()
            pid = self.server.rows("select pid from cron_executions")[0][0]
            path = self.server.run_dir / "waits.pid"
            wait_until(lambda: path.read_text().split() == [str(pid), "0"])
            time.sleep(0.3)  # the end is seen, and can't be recorded
            self.assertEqual(
                self.server.rows("select status from cron_executions"), [("running",)]
            )
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["error"]), ("completed", None))
        ((log_end,),) = self.server.rows("select log_end from cron_executions")
        self.assertIsNotNone(log_end)
        wait_until(lambda: f"run {run_id} completed" in self.server.log_text("waits"))

    @slow
    def test_a_time_limit_that_falls_into_it_holds(self) -> None:
        run_id = self.started("limited")
        with self.shortage():
            time.sleep(1.5)
        self.assertEqual(self.server.ended(run_id)["status"], "timed_out")

    @slow
    def test_a_family_that_is_to_be_killed_meanwhile_is_killed(self) -> None:
        run_id = self.started("stubborn")
        self.assertEqual(self.ask("POST", f"/runs/{run_id}/cancel", {}).status, 202)
        with self.shortage():
            time.sleep(1.5)
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("cancelled", 137))

    @slow
    def test_a_keeper_that_can_not_be_watched_yet_loses_no_end(self) -> None:
        """A shortage at pidfd_open(2) alone; another trigger comes meanwhile."""
        self.server.stop()
        short = self.server.folder / "short"
        self.server.program = list(
            patched(
                "import os",
                "real = os.pidfd_open",
                "def opened(pid):",
                f"    if os.path.exists({str(short)!r}): raise OSError(24, 'none')",
                "    return real(pid)",
                "os.pidfd_open = opened",
            )
        )
        self.server.start()
        short.touch()
        run_id = self.server.trigger("brief").json["runId"]
        path = self.server.run_dir / "brief.pid"
        wait_until(lambda: len(path.read_text().split()) == 2)
        second = self.server.trigger("brief")
        self.assertEqual((second.status, second.json["runId"]), (409, run_id))
        short.unlink()
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("completed", 0))
        again = self.server.completed("brief")
        self.assertEqual((again["id"], again["status"]), (run_id + 1, "completed"))


if __name__ == "__main__":
    unittest.main()
