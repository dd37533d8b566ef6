"""Notifications: the end of a run, told to one address, never in anybody's way."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support import Server, limited, need_full, patched, slow, wait_until

from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import read_settings

REGISTRY: dict[str, Any] = {
    "good": {"description": "Good", "command": ["true"]},
    "bad": {"description": "Bad", "command": ["sh", "-c", "exit 7"]},
    "failure-good": {"description": "D", "command": ["true"], "notify": "failure"},
    "failure-bad": {"description": "D", "command": ["false"], "notify": "failure"},
    "never-bad": {"description": "D", "command": ["false"], "notify": "never"},
    "always-good": {"description": "D", "command": ["true"], "notify": "always"},
    "missing": {"description": "D", "command": "missing.sh"},
    "quiet": {"description": "D", "command": ["sleep", "60"]},
    "secret": {
        "description": "D",
        "command": ["true"],
        "parameters": {"token": {"type": "string", "format": "password"}},
    },
}
#: Pauses of 1 s and 5 s, for tests.
PAUSES = "notify_pauses_s=(0.1, 0.25)"


class Receiver(ThreadingHTTPServer):
    """A local address that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: Each request: when, its path, its headers, its body.
        self.got: list[tuple[float, str, dict[str, str], Any]] = []
        self.statuses: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook?key=1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def bodies(self) -> list[Any]:
        return [body for _, _, _, body in self.got]

    def of(self, run_id: int) -> Any:
        """Return what was said of a run."""
        return wait_until(
            lambda: [b for b in self.bodies() if b["run"]["id"] == run_id],
            what=f"the notification of run {run_id}",
        )[0]

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        # First: once it is there, the next test may say what to answer.
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.got.append((time.monotonic(), self.path, headers, body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class NotifyTest(unittest.TestCase):
    receiver: Receiver
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.receiver = Receiver()
        cls.addClassCleanup(cls.receiver.end)
        cls.server = Server(
            REGISTRY,
            environ={
                "CRON_TRIGGER_NOTIFY_URL": cls.receiver.url.replace("//", "//a:b%2F@")
            },
            program=limited(PAUSES),
        )
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def setUp(self) -> None:
        self.receiver.got.clear()
        self.receiver.statuses.clear()

    def test_the_shape_of_a_notification(self) -> None:
        run = self.server.completed("bad")
        body = self.receiver.of(run["id"])
        self.assertEqual(set(body), {"event", "host", "run", "text"})
        self.assertEqual(body["host"], socket.gethostname())
        self.assertEqual((body["event"], body["run"]), ("run.finished", run))
        self.assertRegex(body["text"], r"^❌ bad failed: exit 7 after [\d.]+ m?s$")
        _, path, headers, _ = self.receiver.got[0]
        self.assertEqual(path, "/hook?key=1")
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["authorization"], "Basic YTpiLw==")

    def test_the_text_says_how_it_ended(self) -> None:
        good = self.server.completed("good")
        text = self.receiver.of(good["id"])["text"]
        self.assertRegex(text, r"^✅ good completed: exit 0 after [\d.]+ m?s$")
        run_id = self.server.trigger("missing").json["runId"]
        text = self.receiver.of(run_id)["text"]
        self.assertRegex(text, r"^❌ missing failed: Not started: .* is missing")
        run_id = self.server.trigger("quiet").json["runId"]
        self.server.request("POST", f"/runs/{run_id}/cancel")
        text = self.receiver.of(run_id)["text"]
        self.assertRegex(text, r"^❌ quiet cancelled: SIGTERM after [\d.]+ m?s$")

    def test_each_cron_says_when(self) -> None:
        wanted = []
        for cron in ("failure-good", "never-bad", "failure-bad", "always-good", "bad"):
            run_id = self.server.completed(cron)["id"]
            if cron not in ("failure-good", "never-bad"):
                wanted.append(run_id)
        self.receiver.of(wanted[-1])
        # In the order in which they ended, and nothing else.
        self.assertEqual([b["run"]["id"] for b in self.receiver.bodies()], wanted)

    def test_the_crontabs_runs_are_told_too(self) -> None:
        self.assertEqual(self.server.command("run", "bad").returncode, 7)
        body = wait_until(self.receiver.bodies)[0]
        self.assertEqual(body["run"]["trigger"], "cli")

    def test_no_password_is_told(self) -> None:
        run = self.server.completed("secret", params={"token": "hunter2"})
        self.assertNotIn("hunter2", json.dumps(self.receiver.of(run["id"])))

    @slow
    def test_three_tries_with_growing_pauses(self) -> None:
        self.receiver.statuses[:] = [500, 503, 200]
        run_id = self.server.completed("good")["id"]
        wait_until(lambda: len(self.receiver.got) == 3)
        self.assertEqual({b["run"]["id"] for b in self.receiver.bodies()}, {run_id})
        times = [when for when, *_ in self.receiver.got]
        first_s, second_s = times[1] - times[0], times[2] - times[1]
        self.assertGreaterEqual(first_s, 0.1)
        self.assertGreaterEqual(second_s, 0.25)
        self.assertNotIn(f"notification of run {run_id}", self.server.log_text())

    @slow
    def test_after_three_it_is_given_up_and_logged(self) -> None:
        self.receiver.statuses[:] = [500, 404, 302]
        run_id = self.server.completed("good")["id"]
        text = f"the notification of run {run_id} failed three times: it answered 302"
        wait_until(lambda: text in self.server.log_text())
        self.assertEqual(len(self.receiver.got), 3)
        # The next one has its own tries.
        self.receiver.of(self.server.completed("good")["id"])


@slow
class ThreadTest(unittest.TestCase):
    def test_a_thread_that_could_not_start_is_started_with_the_next_event(self) -> None:
        receiver = Receiver()
        self.addCleanup(receiver.end)
        program = patched(
            "fails = [0] * 1000 + [1] * 3",
            "from cron_trigger.web import notifier",
            "begin = notifier.begin",
            "def flaky(name, work):",
            '    if fails.pop(): raise RuntimeError("can\'t start new thread")',
            "    return begin(name, work)",
            "notifier.begin = flaky",
        )
        environ = {"CRON_TRIGGER_NOTIFY_URL": receiver.url}
        with Server(REGISTRY, environ=environ, program=program) as server:
            ids = [server.completed("good")["id"] for _ in range(4)]
            for run_id in ids:
                receiver.of(run_id)
            self.assertIn("notifications wait", server.log_text())

    def test_where_memory_runs_out_in_an_attempt_there_is_another(self) -> None:
        receiver = Receiver()
        self.addCleanup(receiver.end)
        program = patched(
            "post, fails = m.Notifier._post, [MemoryError()]",
            "def flaky(*arguments):",
            "    if fails: raise fails.pop()",
            "    return post(*arguments)",
            "m.Notifier._post = flaky",
        )
        environ = {"CRON_TRIGGER_NOTIFY_URL": receiver.url}
        with Server(REGISTRY, environ=environ, program=program) as server:
            for run_id in [server.completed("good")["id"] for _ in range(2)]:
                receiver.of(run_id)

    def test_an_end_that_a_stop_waits_for_is_told_or_said_to_be_not(self) -> None:
        deaf = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        program = patched(
            "import threading",
            "finish, aside = m.Ending._finish, m.Loop.finish_aside",
            "stopped = threading.Event()",
            "def finished(*arguments):",
            "    print('it has ended', file=sys.stderr, flush=True)",
            "    stopped.wait(30)",
            "    finish(*arguments)",
            "m.Ending._finish = finished",
            # What a stop does once the loop has stopped.
            "m.Loop.finish_aside = lambda *a: (aside(*a), stopped.set())[0]",
        )
        environ = {
            "CRON_TRIGGER_NOTIFY_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        }
        with Server(REGISTRY, environ=environ, program=program) as server:
            server.trigger("good")
            wait_until(lambda: "it has ended" in server.stderr())
            self.assertEqual(server.stop(), 0, server.stderr())
            rows = server.rows("select status from cron_executions")
            self.assertEqual(rows, [("completed",)])
            self.assertIn("1 notifications were not sent", server.log_text())


class NeverInTheWayTest(unittest.TestCase):
    """An address that is slow, or not there, costs a trigger nothing."""

    def server_for(self, url: str, limits: str = "") -> Server:
        server = Server(
            REGISTRY,
            environ={"CRON_TRIGGER_NOTIFY_URL": url},
            program=limited(f"{PAUSES}, {limits}"),
        )
        self.addCleanup(server.__exit__)
        return server.start()

    def test_an_address_that_never_answers(self) -> None:
        need_full()
        deaf = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        server = self.server_for(url, "notify_s=3")
        for _ in range(5):
            server.completed("good")
        # All have ended while it still waits for the first answer.
        self.assertNotIn("failed three times", server.log_text())
        late = "run 1 failed three times: (timed out|it did not answer within 3 s)"
        wait_until(lambda: re.search(late, server.log_text()), 30)

    def test_an_address_that_answers_a_byte_now_and_then(self) -> None:
        need_full()
        dripping = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(dripping.close)
        threading.Thread(target=drip, args=(dripping,), daemon=True).start()
        url = f"http://127.0.0.1:{dripping.getsockname()[1]}/"
        server = self.server_for(url, "notify_s=0.1")
        for _ in range(5):
            server.completed("good")
        # Of one whose bytes came too slowly this once, another thing is said.
        late = "failed three times: it did not answer within 0.1 s"
        wait_until(lambda: late in server.log_text())

    def test_an_address_where_nobody_listens(self) -> None:
        need_full()
        bound = socket.socket()  # so nobody else has its port
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        server = self.server_for(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        server.completed("good")
        wait_until(lambda: "run 1 failed three times" in server.log_text())
        self.assertIn("refused", server.log_text())

    @slow
    def test_more_than_can_wait_are_dropped_and_logged(self) -> None:
        deaf = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        server = self.server_for(url, "notifications=2, notify_s=60.0")
        for _ in range(5):
            server.completed("good")
        text = "was dropped: 2 are waiting"
        wait_until(lambda: text in server.log_text())
        # What waits when the server stops is not kept, but said; nor is the address
        # waited for, which would be longer than `stop` waits.
        self.assertEqual(server.stop(), 0, server.stderr())
        self.assertIn("3 notifications were not sent", server.log_text())

    def test_a_wrong_address_ends_the_start(self) -> None:
        for url in ("ftp://host/", "http://", "nonsense", "http://a b/", "http://h:x/"):
            with self.assertRaisesRegex(ConfigError, "CRON_TRIGGER_NOTIFY_URL"):
                read_settings({"notify_url": url}, {})


def drip(listener: socket.socket) -> None:
    """Answer each client with a line that has no end."""
    try:
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 O")
                try:
                    while True:
                        client.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    continue
    except OSError:
        return


class RemovedPythonTest(unittest.TestCase):
    """An upgrade of the host removes the Python that the server runs with."""

    def test_it_still_notifies_and_says_what_is_wrong_in_the_registry(self) -> None:
        receiver = Receiver()
        self.addCleanup(receiver.end)
        program = patched(
            "announce = m.Daemon._announce",
            "gone = lambda self: (sys.meta_path.pop(), announce(self))",
            "m.Daemon._announce = gone",
        )
        environ = {"CRON_TRIGGER_NOTIFY_URL": receiver.url}
        with Server(REGISTRY, environ=environ, program=program) as server:
            receiver.of(server.completed("good")["id"])
            server.write_registry({"good": {**REGISTRY["good"], "usr": "root"}})
            health = server.get("/health").json
            self.assertIn('"good": usr: expected one of', health["problems"][0])


if __name__ == "__main__":
    unittest.main()
