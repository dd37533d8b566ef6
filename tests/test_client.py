"""`trigger`, `log`, `cancel`, `events`: the command line as a client of a server."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from support import PROGRAM, READERS, Server, need, need_command, slow, wait_until

from cron_trigger import client
from cron_trigger.commands import remote

SECRET = "S3cret-of-this-test-0123456789"
REGISTRY: dict[str, Any] = {
    "ok": {
        "description": "Is well",
        "command": ["echo", "{n}", "{word}"],
        "parameters": {"n": {"type": "integer"}, "word": {"type": "string"}},
    },
    "fails": {"description": "Fails", "command": ["sh", "-c", "seq 1 30; exit 3"]},
    "sleeps": {"description": "Sleeps", "command": ["sleep", "60"]},
    "counts": {
        "description": "Counts until a file is there",
        "command": [
            *("sh", "-c"),
            "i=0; while [ ! -e go ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 4",
        ],
    },
    "much": {
        "description": "Says more than a connection holds",
        "command": ["sh", "-c", "yes | head -c 30000000"],
    },
    "missing": {"description": "Is not there", "command": "nowhere.sh"},
}


JSON = ("--json",)
#: What urllib, http.client and the codec of names have each its own error for.
ODD = ("http://[::1", "http://a b/", f"http://{'a' * 70}.example/")


class Unheard(http.server.BaseHTTPRequestHandler):
    """A server that knows no method."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class CallCase(unittest.TestCase):
    """Tests that call the command line as a client."""

    server: Server

    def call(
        self, *words: str, url: Optional[str] = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), *words, f"--url={url or self.url()}"],
            capture_output=True,
            text=True,
            env={**self.server.clean_environ(), **environ},
            timeout=60,
            check=False,
        )

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *words, f"--url={self.url()}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.server.clean_environ(),
        )
        self.addCleanup(process.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(process.stderr.close)  # type: ignore[union-attr]
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.kill)
        return process

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def assert_sentence(
        self, done: subprocess.CompletedProcess[str], status: int, *words: str
    ) -> None:
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class ClientCase(CallCase):
    """Tests that share a server."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()


class TriggerTest(ClientCase):
    @slow
    def test_it_says_which_run_it_is_and_who_asked(self) -> None:
        done = self.call("trigger", "ok")
        self.assertRegex(done.stdout, r"^run \d+ of ok started: cron-trigger log \d")
        run = self.server.ended(int(done.stdout.split()[1]))
        self.assertRegex(run["requestedBy"], r"^\S+@\S+$")
        told = json.loads(self.call("trigger", "ok", "--json").stdout)
        self.assertEqual(told["cronName"], "ok")
        self.server.ended(told["runId"])

    @slow
    def test_with_wait_the_exit_status_is_the_runs(self) -> None:
        for name, status in (("ok", 0), ("fails", 3)):
            done = self.call("trigger", name, "--wait")
            self.assertEqual((done.returncode, done.stdout), (status, ""))
            self.assertIn(f": exit {status} after ", done.stderr)

    @slow
    def test_whoever_reads_it_or_not_the_status_is_the_runs(self) -> None:
        for how in ("--wait", "--follow", "--wait --json"):
            for reader in READERS:
                with self.subTest(how, reader=reader):
                    call = f"trigger fails {how} --url={self.url()}"
                    self.assertEqual(self.server.read_by(reader, call), 3)

    def test_with_follow_its_output_is_shown_meanwhile(self) -> None:
        done = self.call("trigger", "fails", "--follow")
        numbers = "".join(f"{number}\n" for number in range(1, 31))
        self.assertEqual((done.returncode, done.stdout), (3, numbers))

    @slow
    def test_parameters_have_their_type(self) -> None:
        done = self.call("trigger", "ok", "--follow", "--param=n=7", "--param=word=8")
        self.assertEqual((done.returncode, done.stdout), (0, "7 8\n"))
        for parameter, why in (("n=x", "n expected an integer"), ("n", "KEY=VALUE")):
            done = self.call("trigger", "ok", f"--param={parameter}")
            self.assert_sentence(done, 64, why)

    @slow
    def test_what_is_refused_has_its_exit_status(self) -> None:
        run_id = self.server.trigger("sleeps").json["runId"]
        self.assert_sentence(self.call("trigger", "sleeps"), 75, "is running already")
        self.assertEqual(self.call("cancel", str(run_id)).returncode, 0)
        self.server.ended(run_id)
        self.assert_sentence(self.call("trigger", "nix"), 64, 'no cron "nix"')
        self.assert_sentence(self.call("trigger", "missing"), 126, "is missing")
        self.assert_sentence(self.call("trigger", "ok", "--at=soon"), 64, "--at takes")
        together = self.call("trigger", "ok", "--at=2100-01-01T00:00", "--wait")
        self.assert_sentence(together, 64, "--at cannot go with")

    def test_a_time_without_an_offset_is_this_hosts(self) -> None:
        done = self.call("trigger", "ok", "--at=2100-01-01T10:00", TZ="Asia/Tokyo")
        self.assertRegex(done.stdout, r"^planned trigger 1: 2100-01-01T10:00:00\+09:00")

    @slow
    def test_a_run_is_cancelled_in_the_name_of_who_asks(self) -> None:
        process = self.spawn("trigger", "sleeps", "--wait")
        run = wait_until(
            lambda: self.server.get("/runs?cron=sleeps&status=running").json["runs"],
            what="the run",
        )[0]
        self.assertIn("is being cancelled", self.call("cancel", f"{run['id']}").stdout)
        self.assertEqual(process.wait(20), 143)
        self.assertIn("@", self.server.run(run["id"])["cancelledBy"])
        again = self.call("cancel", f"{run['id']}")
        self.assert_sentence(again, 1, "is not running any more")


class LogTest(ClientCase):
    @slow
    def test_the_whole_output_or_its_end(self) -> None:
        run_id = str(self.server.completed("fails")["id"])
        self.assertEqual(self.call("log", run_id).stdout.split()[-1], "30")
        for more in ((), ("--follow",)):
            done = self.call("log", run_id, "--tail=2", *more)
            self.assertEqual((done.returncode, done.stdout), (0, "29\n30\n"))
        self.assert_sentence(self.call("log", "999"), 1, "no run 999")
        self.assertEqual(self.call("log", "x").returncode, 64)

    @slow
    def test_control_c_ends_it_quietly(self) -> None:
        run_id = self.server.trigger("sleeps").json["runId"]
        for words in (("log", str(run_id), "--follow"), ("events",)):
            process = self.spawn(*words)
            wait_until(functools.partial(is_connected, process), what="a connection")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(20), 130)
            assert process.stderr
            self.assertEqual(process.stderr.read(), "")
        self.call("cancel", str(run_id))


def is_connected(process: subprocess.Popen[str]) -> bool:
    """Tell whether a process has a socket."""
    folder = Path(f"/proc/{process.pid}/fd")
    with contextlib.suppress(OSError):  # one was closed meanwhile
        return any(os.readlink(fd).startswith("socket:") for fd in folder.iterdir())
    return False


@slow
class RestartTest(CallCase):
    """A server that restarts meanwhile is waited for."""

    def setUp(self) -> None:
        self.server = Server(REGISTRY)
        self.addCleanup(self.server.__exit__)
        self.server.start()

    def restart(self) -> None:
        port = self.server.port
        self.server.kill()
        self.server.start(port=port)

    def test_an_output_is_followed_without_a_gap_or_a_repetition(self) -> None:
        process = self.spawn("trigger", "counts", "--follow")
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(5)]
        self.restart()
        lines += [process.stdout.readline() for _ in range(50)]
        self.server.stop()
        (self.server.folder / "go").touch()
        self.server.start(port=self.server.port)
        lines += process.stdout.readlines()
        self.assertEqual(process.wait(30), 4)
        self.assertEqual(lines, [f"{n}\n" for n in range(1, len(lines) + 1)])

    def test_an_output_that_was_cut_off_is_asked_for_to_its_end(self) -> None:
        run = self.server.completed("much")
        for more in ((), ("--follow",)):
            process = self.spawn("log", str(run["id"]), *more)
            assert process.stdout
            begin = process.stdout.read(1000)
            self.restart()
            self.assertEqual(len(begin + process.stdout.read()), 30000000)
            self.assertEqual(process.wait(20), 0)

    def test_each_event_comes_once(self) -> None:
        process = self.spawn("events", "--json")
        assert process.stdout
        stdout = process.stdout
        told = map(json.loads, stdout)
        runs = (event for event in told if "run" in event["data"])

        def tells() -> bool:
            self.server.trigger("ok", runAt="2099-01-01T00:00:00Z")
            return bool(select.select([stdout], [], [], 0)[0])

        wait_until(tells)
        self.server.completed("ok")
        events = [next(runs), next(runs)]
        self.restart()
        self.server.completed("fails")
        events += [next(runs), next(runs)]
        self.assertEqual(
            [(one["event"], one["data"]["run"]["cronName"]) for one in events],
            [
                ("run.started", "ok"),
                ("run.finished", "ok"),
                ("run.started", "fails"),
                ("run.finished", "fails"),
            ],
        )
        process.terminate()


@slow
class AddressTest(ClientCase):
    def test_an_address_that_ends_in_trigger_is_taken_too(self) -> None:
        for end in ("/", "/trigger", "/trigger/"):
            done = self.call("trigger", "ok", "--wait", url=self.url() + end)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_path_of_a_proxy_is_kept(self) -> None:
        asked = []

        class Proxy(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                self.send_error(502)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
            threading.Thread(target=proxy.handle_request, name="proxy").start()
            url = f"http://127.0.0.1:{proxy.server_address[1]}/crons/trigger"
            done = self.call("cancel", "5", url=url)
        self.assertEqual(asked, ["/crons/runs/5/cancel"])
        self.assert_sentence(done, 1, "answers 502 Bad Gateway", "start the server")

    def test_a_proxy_gets_the_login_and_the_path_of_the_address(self) -> None:
        class Proxy(Unheard):
            def do_POST(self) -> None:
                asked.append((self.path, self.headers["Authorization"]))
                self.send_error(401)

        asked: list[Any] = []
        with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
            threading.Thread(target=proxy.handle_request, name="proxy").start()
            place = f"127.0.0.1:{proxy.server_address[1]}"
            done = self.call("cancel", "5", url=f"http://me:p%40ss@{place}/été 1/")
        login = "Basic " + base64.b64encode(b"me:p@ss").decode()
        self.assertEqual(asked, [("/%C3%A9t%C3%A9%201/runs/5/cancel", login)])
        self.assert_sentence(done, 1, f"http://{place}/%C3%A9t%C3%A9%201 answers 401")

    def test_whoever_listens_there_sends_nothing_to_the_terminal(self) -> None:
        # Any user's program may have the port while the service is stopped.
        bad = "\x1b]0;owned\x07\x9b31m\u202e"
        told = {"success": True, "runId": bad, "scheduledId": bad, "runAt": bad}
        bodies = [json.dumps(told, ensure_ascii=False).encode(), b"[" * 200000]

        class Impostor(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(202)
                self.end_headers()
                self.wfile.write(bodies[0])

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Impostor) as impostor:
            thread = threading.Thread(target=impostor.serve_forever, name="impostor")
            thread.start()
            url = f"http://127.0.0.1:{impostor.server_address[1]}"
            done = [self.call("trigger", "ok", *more, url=url) for more in ((), JSON)]
            bodies.pop(0)
            deep = self.call("trigger", "ok", url=url)
            impostor.shutdown()
            thread.join()
        for one in done:
            self.assertTrue(one.stdout.replace("\n", "").isprintable(), one.stdout)
        self.assertEqual(json.loads(done[1].stdout), told)
        self.assert_sentence(deep, 1, "correct --url")

    def test_an_end_of_an_output_that_was_cut_off_is_a_sentence(self) -> None:
        class Cuts(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "2000")
                self.end_headers()
                self.wfile.write(b"line\n")

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Cuts) as cuts:
            thread = threading.Thread(target=cuts.serve_forever, args=(0.01,))
            thread.start()
            url = f"http://127.0.0.1:{cuts.server_address[1]}"
            done = self.call("log", "5", "--follow", "--tail=3", url=url)
            part = self.call("log", "5", "--tail=3", url=url)
            cuts.shutdown()
            thread.join()
        self.assert_sentence(done, 1, "IncompleteRead", "--url")
        self.assertEqual((part.returncode, part.stdout), (1, "line\n"))
        self.assertIn("cut off: 1995 bytes are missing", part.stderr)

    def test_an_answer_that_lacks_what_ours_have_is_a_sentence(self) -> None:
        class Foreign(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = b'{"success": true, "run": 5}'
                self.send_response(200)
                self.end_headers()
                of_events = self.path == "/events"
                self.wfile.write(b"data: %b\n\n" % told if of_events else told)

            do_POST = do_GET

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Foreign) as foreign:
            thread = threading.Thread(target=foreign.serve_forever, name="foreign")
            thread.start()
            url = f"http://127.0.0.1:{foreign.server_address[1]}"
            for words in (
                ("trigger", "ok"),
                ("trigger", "ok", "--param=n=1"),
                ("log", "5", "--follow"),
                ("events",),
            ):
                with self.subTest(words):
                    done = self.call(*words, url=url)
                    self.assert_sentence(done, 1, "correct --url")
            foreign.shutdown()
            thread.join()

    def test_a_trigger_whose_answer_was_lost_is_sent_again_with_its_key(self) -> None:
        keys = []

        class Loses(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keys.append(self.headers["Idempotency-Key"])
                if len(keys) > 1:
                    body = b'{"success": true, "runId": 7}'
                    self.send_response(202)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Loses) as loses:
            thread = threading.Thread(target=loses.serve_forever, name="loses")
            thread.start()
            url = f"http://127.0.0.1:{loses.server_address[1]}"
            done = self.call("trigger", "ok", url=url)
            loses.shutdown()
            thread.join()
        self.assertEqual(done.stdout, "run 7 of ok started: cron-trigger log 7\n")
        self.assertEqual(len(keys), 2)
        self.assertEqual(len(set(keys)), 1)

    def test_a_wait_is_shorter_than_the_time_limits_of_proxies(self) -> None:
        self.assertLess(remote.WAIT_S, 10)

    def test_a_certificate_that_is_not_trusted_is_no_server_that_is_down(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            key, certificate = f"{folder}/key", f"{folder}/certificate"
            subprocess.run(
                [
                    *(need_command("openssl"), "req", "-x509", "-nodes", "-newkey"),
                    *("rsa:2048", "-keyout", key, "-out", certificate),
                    *("-subj", "/CN=localhost"),
                    *("-addext", "subjectAltName=DNS:localhost"),
                ],
                check=True,
                capture_output=True,
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            with http.server.HTTPServer(("127.0.0.1", 0), Unheard) as other:
                other.socket = context.wrap_socket(other.socket, server_side=True)
                thread = threading.Thread(target=other.serve_forever, args=(0.01,))
                thread.start()
                url = f"https://localhost:{other.server_address[1]}"
                strange = self.call("cancel", "5", url=url)
                trusted = self.call("cancel", "5", url=url, SSL_CERT_FILE=certificate)
                other.shutdown()
                thread.join()
        self.assert_sentence(strange, 1, "No secure connection", "SSL_CERT_FILE")
        self.assert_sentence(trusted, 1, "answers 501")

    def test_what_is_no_address_is_78_and_nobody_there_is_1(self) -> None:
        for url in ("ftp://x", "x", "http://", "http://a:b", *ODD):
            done = self.call("trigger", "ok", url=url)
            self.assert_sentence(done, 78, "must be an address")
        done = self.call("events", url="http://127.0.0.1:1")
        self.assert_sentence(
            done, 1, "No server answers at http://127.0.0.1:1", "--url"
        )

    def test_the_address_may_be_a_variable_or_a_port(self) -> None:
        port = str(self.server.port)
        for words, environ in (
            (("trigger", "ok", "--wait"), {"CRON_TRIGGER_URL": self.url()}),
            (("trigger", "ok", "--wait"), {"CRON_TRIGGER_PORT": port}),
            (("trigger", "ok", "--wait", "--port", port), {}),
        ):
            done = subprocess.run(
                [sys.executable, str(PROGRAM), *words],
                env={**self.server.clean_environ(), **environ},
                capture_output=True,
                timeout=30,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stderr)


@slow
class SecretTest(ClientCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET})
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()
        cls.server.environ.clear()

    def test_it_comes_from_a_variable_or_a_file(self) -> None:
        file = self.server.folder / "secret"
        file.write_text(f"{SECRET}\n")
        file.chmod(0o600)
        for environ in (
            {"CRON_TRIGGER_SECRET": SECRET},
            {"CRON_TRIGGER_SECRET_FILE": str(file)},
        ):
            done = self.call("trigger", "ok", "--wait", **environ)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_without_a_right_one_it_is_78_with_the_remedy(self) -> None:
        for environ in ({}, {"CRON_TRIGGER_SECRET": "wrong-but-long-enough"}):
            done = self.call("trigger", "ok", **environ)
            self.assert_sentence(done, 78, "Set CRON_TRIGGER_SECRET")

    def test_the_installed_one_is_taken_for_this_host_alone(self) -> None:
        need(not client.SECRET_HEADER.exists(), "a service is installed here")
        header = self.server.folder / "secret.header"
        header.write_text(f"X-Trigger-Secret: {SECRET}\n")
        before, client.SECRET_HEADER = client.SECRET_HEADER, header
        self.addCleanup(setattr, client, "SECRET_HEADER", before)
        here = client.client_of({"url": self.url()}, {})
        self.assertEqual(here.ask("GET", "scheduled")["scheduled"], [])
        for url in ("http://192.0.2.1:9998", "https://crons.example.org/"):
            self.assertIsNone(client.client_of({"url": url}, {})._secret)


class HereTest(unittest.TestCase):
    """The service of this host, as its settings have it."""

    def client(self, header: Path = Path("/nowhere"), **known: str) -> client.Client:
        values = {f"CRON_TRIGGER_{name.upper()}": text for name, text in known.items()}
        with mock.patch.multiple(
            client, environment_file=lambda: values, SECRET_HEADER=header
        ):
            return client.client_of({}, {})

    def test_it_is_asked_with_its_secret_where_it_listens_and_nowhere_else(
        self,
    ) -> None:
        for host, url in (
            ("127.0.0.2", "http://127.0.0.2:9777"),
            ("192.0.2.1", "http://192.0.2.1:9777"),
            ("2001:db8::a", "http://[2001:db8::a]:9777"),
            ("0.0.0.0", "http://127.0.0.1:9777"),
            ("::", "http://127.0.0.1:9777"),
        ):
            with self.subTest(host):
                here = self.client(host=host, port="9777", secret=SECRET)
                self.assertEqual(here.url, url)
                self.assertEqual(here._secret, SECRET.encode())

    def test_its_secret_is_the_settings_where_the_header_is_an_older_one(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        header, file = Path(folder.name) / "header", Path(folder.name) / "secret"
        header.write_text("X-Trigger-Secret: the-older-secret-0123456789\n")
        file.write_text(f"{SECRET}\n")
        file.chmod(0o600)
        for known in ({"secret": SECRET}, {"secret_file": str(file)}):
            here = self.client(header, **known)
            self.assertEqual(here._secret, SECRET.encode())
        self.assertEqual(self.client(header)._secret, b"the-older-secret-0123456789")

    def test_events_are_asked_for_from_where_a_stream_without_any_began(self) -> None:
        asked = []

        class Restarts(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.headers["Last-Event-ID"])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"retry: 2000\n\nid: 7\n: joined\n\n")
                if len(asked) > 1:
                    self.wfile.write(b"id: 8\nevent: run.finished\ndata: {}\n\n")

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Restarts) as restarts:
            thread = threading.Thread(target=restarts.serve_forever, args=(0.01,))
            thread.start()
            url = f"http://127.0.0.1:{restarts.server_address[1]}"
            told = client.Client(url).events()
            self.assertEqual(next(told), ("8", "run.finished", "{}"))
            restarts.shutdown()
            thread.join()
        self.assertEqual(asked, [None, "7"])


if __name__ == "__main__":
    unittest.main()
