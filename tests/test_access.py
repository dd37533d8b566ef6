"""Who may do what: every route, address, Host, Origin and secret."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import unittest
from pathlib import Path
from typing import Iterator
from unittest import mock

from support import Reply, Server, Wire, need_full, slow, wait_until

from cron_trigger import SERVICE
from cron_trigger.host.rates import Rates
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import read_settings
from cron_trigger.web.access import same_secret
from cron_trigger.web.routes import ROUTES, Route

SECRET = "S3cret-of-this-test-0123456789"


REGISTRY = {
    "nap": {"description": "Sleep", "command": ["/bin/sleep", "60"]},
    "hello": {"description": "Say hello", "command": ["/bin/echo", "hello"]},
}


#: A body that each changing route would take, if its caller were let in.
BODIES = {"trigger": b'{"cronName": "hello"}'}


#: What stands for a part of a path.
PARTS = {"ID": "1", "NAME": "hello", "FILE": "main.js"}


def path_of(route: Route) -> str:
    return re.sub("|".join(PARTS), lambda match: PARTS[match[0]], route.path)


def calls() -> list[tuple[Route, str]]:
    """Return each route with each method that it answers."""
    found = []
    for route in ROUTES:
        found.append((route, route.method))
        if route.method == "GET":
            found.append((route, "HEAD"))
    return found


def request_bytes(route: Route, method: str, **headers: str) -> bytes:
    """Return a request that holds but for what `headers` say (None: left out)."""
    body = BODIES.get(route.action, b"")
    sent = {"Host": "localhost", "Connection": "close", **headers}
    if body:
        sent["Content-Type"] = "application/json"
        sent["Content-Length"] = str(len(body))
    lines = [f"{method} {path_of(route)} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RouteWalkTest(unittest.TestCase):
    """Each route of the table, met by each kind of stranger."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET}).start()
        cls.addClassCleanup(cls.server.__exit__)

    def call(self, route: Route, method: str, **headers: str) -> Reply:
        with Wire(self.server.port) as wire:
            wire.send(request_bytes(route, method, **headers))
            return wire.answer(has_body=method != "HEAD")

    def assert_all(self, status: int, code: str, **headers: str) -> None:
        for route, method in calls():
            with self.subTest(f"{method} {route.path}", **headers):
                reply = self.call(route, method, **headers)
                self.assertEqual(reply.status, status, reply.body)
                if method != "HEAD":
                    self.assertEqual(reply.json["code"], code)
        self.assertEqual(self.server.rows("select * from cron_executions"), [])

    def test_without_the_secret_only_health_and_the_page_answer(self) -> None:
        public = {"/", "/FILE", "/health", "/openapi.json"}
        for route, method in calls():
            with self.subTest(f"{method} {route.path}"):
                status = self.call(route, method).status
                # A file of the page may be there or not.
                wanted = (200, 404) if route.path in public else (401,)
                self.assertIn(status, wanted)
        self.assertEqual(self.server.rows("select * from cron_executions"), [])

    def test_a_foreign_host_gets_nowhere(self) -> None:
        for host in ("evil.example", "evil.example:9998", "127.0.0.1.evil.example"):
            self.assert_all(
                421, "misdirected_request", Host=host, X_Trigger_Secret=SECRET
            )

    def test_a_foreign_origin_gets_nowhere(self) -> None:
        for origin in ("https://evil.example", "null", "", "http://localhost:1"):
            self.assert_all(403, "forbidden", Origin=origin, X_Trigger_Secret=SECRET)

    def test_a_foreign_page_gets_nowhere(self) -> None:
        for site in ("cross-site", "same-site", "Cross-Site", "bogus", ""):
            self.assert_all(
                403, "forbidden", Sec_Fetch_Site=site, X_Trigger_Secret=SECRET
            )

    def test_only_the_page_may_be_reached_by_a_link(self) -> None:
        for route, method in calls():
            with self.subTest(f"{method} {route.path}"):
                reply = self.call(
                    route,
                    method,
                    Sec_Fetch_Site="cross-site",
                    Sec_Fetch_Mode="navigate",
                    X_Trigger_Secret=SECRET,
                )
                wanted = (200, 404) if route.path == "/" else (403,)
                self.assertIn(reply.status, wanted)

    def test_a_stranger_does_not_learn_what_exists(self) -> None:
        for method, path in (
            ("GET", "/nothing"),
            ("DELETE", "/trigger"),
            ("OPTIONS", "/trigger"),
            ("BREW", "/health"),
            ("TRACE", "/"),
            ("GET", "/%74rigger"),
            ("GET", "//health"),
            ("GET", "/health/"),
            ("GET", "/runs/1/../1"),
            ("GET", "/runs/%31"),
            ("GET", "/runs/-1"),
            ("GET", "/runs/99999999999999999999"),
            ("OPTIONS", "*"),
            ("CONNECT", "localhost:22"),
        ):
            route = Route(method, path, "none")
            with self.subTest(f"{method} {path}"):
                self.assertEqual(self.call(route, method).status, 401)
                reply = self.call(route, method, X_Trigger_Secret=SECRET)
                self.assertIn(reply.status, (404, 405))
                self.assertEqual("allow" in reply.headers, reply.status == 405)

    def test_the_owner_is_let_in_everywhere(self) -> None:
        for route, method in calls():
            # A run here would count in the tests beside this one.
            if route.action in ("trigger", "events"):
                continue
            for headers in (
                {"X_Trigger_Secret": SECRET},
                {"Authorization": f"Bearer {SECRET}"},
                {"Authorization": f"bearer {SECRET}", "Sec_Fetch_Site": "same-origin"},
                {"X_Trigger_Secret": SECRET, "Origin": "http://localhost"},
            ):
                with self.subTest(f"{method} {route.path}", **headers):
                    reply = self.call(route, method, **headers)
                    self.assertNotIn(reply.status, (401, 403, 421, 429))

    def test_forwarding_headers_mean_nothing(self) -> None:
        route = Route("GET", "/crons", "crons")
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"):
            reply = self.call(route, "GET", **{name: "127.0.0.1"})
            self.assertEqual(reply.status, 401)

    def test_no_cors_header_without_a_listed_origin(self) -> None:
        reply = self.call(ROUTES[1], "GET", Origin="http://localhost")
        self.assertEqual(reply.status, 200)
        self.assertFalse([n for n in reply.headers if n.startswith("access-control")])


class OriginTest(unittest.TestCase):
    """CORS only for listed origins; CSRF for none."""

    server: Server
    origin: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.origin = "https://admin.example.org"
        environ = {"CRON_TRIGGER_ALLOWED_ORIGINS": cls.origin}
        cls.server = Server(REGISTRY, environ).start()
        cls.addClassCleanup(cls.server.__exit__)

    def preflight(self, origin: str) -> Reply:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return self.server.request("OPTIONS", "/trigger", headers=headers)

    def test_a_listed_origin_may_ask_and_call(self) -> None:
        reply = self.preflight(self.origin)
        self.assertEqual(reply.status, 204)
        self.assertEqual(reply.headers["access-control-allow-origin"], self.origin)
        self.assertEqual(reply.headers["access-control-allow-methods"], "POST")
        self.assertNotIn("access-control-allow-credentials", reply.headers)
        called = self.server.get("/crons", Origin=self.origin)
        self.assertEqual(called.headers["access-control-allow-origin"], self.origin)
        self.assertIn("Origin", called.headers["vary"])

    def test_another_origin_may_not_even_ask(self) -> None:
        for origin in (
            self.origin + ".evil.example",
            self.origin.upper(),
            "http://admin.example.org",
            "null",
        ):
            self.assertEqual(self.preflight(origin).status, 403)

    def test_what_a_foreign_form_can_send_starts_nothing(self) -> None:
        for kind in (
            "application/x-www-form-urlencoded",
            "text/plain",
            "multipart/form-data; boundary=x",
            "text/plain; application/json",
            "application/json-seq",
            "application/json; charset=utf-16",
            "",
        ):
            headers = {"Content-Type": kind}
            body = b'{"cronName": "hello"}'
            reply = self.server.request("POST", "/trigger", body, headers)
            self.assertEqual(reply.status, 415, kind)
        form = {"Content-Type": "text/plain", "Content-Length": "0"}
        reply = self.server.request("POST", "/trigger", headers=form)
        self.assertEqual(reply.status, 415)
        # Where nothing need be sent, its Origin tells a foreign form.
        form["Origin"] = "https://evil.example"
        reply = self.server.request("POST", "/runs/1/cancel", headers=form)
        self.assertEqual(reply.status, 403)

    def test_a_get_never_starts_anything(self) -> None:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            for path in ("/trigger", "/trigger?cronName=hello", "/runs/1/cancel"):
                self.assertEqual(self.server.request(method, path).status, 405)
        self.assertEqual(self.server.rows("select * from cron_executions"), [])

    def test_the_body_of_a_preflight_is_no_second_request(self) -> None:
        hidden = b"GET /crons HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with Wire(self.server.port) as wire:
            wire.send(
                b"OPTIONS /trigger HTTP/1.1\r\nHost: localhost\r\n"
                + f"Origin: {self.origin}\r\nContent-Length: {len(hidden)}\r\n".encode()
                + b"\r\n"
                + hidden
                + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            self.assertEqual(wire.answer().status, 204)
            self.assertEqual(wire.answer().json["service"], SERVICE)


class SecretTest(unittest.TestCase):
    """Where the secret comes from, and what happens to what is none."""

    @contextlib.contextmanager
    def server_with(self, **environ: str) -> Iterator[Server]:
        with Server(REGISTRY, environ) as server:
            yield server

    def assert_secret(self, server: Server, secret: bytes) -> None:
        # Bytes that are no ASCII: only compared, never decoded.
        other = "clé d'été à 🔑".encode()
        guesses = ((secret, 200), (secret + b"x", 401), (b"", 401), (other, 401))
        for header in (b"X-Trigger-Secret: ", b"Authorization: Bearer  "):
            for given, status in guesses:
                with Wire(server.port) as wire:
                    wire.send(
                        b"GET /crons HTTP/1.1\r\nHost: localhost\r\n"
                        + header
                        + given
                        + b"\r\n\r\n"
                    )
                    self.assertEqual(wire.answer().status, status, (header, given))

    def test_a_secret_of_the_environment(self) -> None:
        with self.server_with(CRON_TRIGGER_SECRET=SECRET) as server:
            self.assert_secret(server, SECRET.encode())

    def test_a_secret_of_a_file_whose_line_ends(self) -> None:
        with Server(REGISTRY, start=False) as server:
            path = server.folder / "secret"
            path.write_bytes(SECRET.encode() + b"\r\n")
            path.chmod(0o600)
            server.start(f"--secret-file={path}")
            self.assert_secret(server, SECRET.encode())

    def test_a_secret_of_systemd_s_credentials(self) -> None:
        need_full()
        with Server(REGISTRY, start=False) as server:
            (server.folder / "secret").write_text(SECRET)
            server.environ["CREDENTIALS_DIRECTORY"] = str(server.folder)
            server.start()
            self.assert_secret(server, SECRET.encode())

    def test_a_secret_that_is_none_ends_the_start(self) -> None:
        with Server(REGISTRY, start=False) as server:
            server.environ["CRON_TRIGGER_SECRET"] = "change-me"
            ended = server.command("serve", "--port=0")
            self.assertEqual((ended.returncode, ended.stdout), (78, ""))
            self.assertIn("CRON_TRIGGER_SECRET must not be empty", ended.stderr)
            empty = server.folder / "empty"
            empty.write_bytes(b"\n")
            for path in (empty, server.folder / "missing"):
                with self.assertRaises(ConfigError):
                    read_settings({"secret_file": str(path)}, {})
        for secret in ("", "change-me", f" {SECRET} ", "line\nbreak", "tab\there"):
            with self.assertRaises(ConfigError) as caught:
                read_settings({}, {"CRON_TRIGGER_SECRET": secret})
            if secret not in ("", "change-me"):
                self.assertNotIn(secret.strip(), str(caught.exception))

    def test_the_comparison_takes_as_long_for_every_guess(self) -> None:
        seen = []

        def compare(one: bytes, other: bytes) -> bool:
            seen.append((len(one), len(other)))
            return one == other

        with mock.patch("hmac.compare_digest", compare):
            for given in (b"", b"a", b"secret", b"x" * 5000, "é".encode()):
                self.assertEqual(same_secret(given, b"secret"), given == b"secret")
        self.assertEqual(seen, [(32, 32)] * 5)

    def test_a_refusal_says_nothing_and_the_log_neither(self) -> None:
        guess = "Guess-that-must-not-be-logged"
        with self.server_with(CRON_TRIGGER_SECRET=SECRET) as server:
            replies = [
                server.get("/crons"),
                server.get("/crons", **{"X-Trigger-Secret": guess}),
                server.get("/crons", **{"X-Trigger-Secret": SECRET[:-1]}),
                server.get("/crons", Authorization=f"Bearer {guess}"),
                server.get("/crons", Authorization=f"Basic {guess}"),
                server.get("/crons", **{"X-Trigger-Secret": SECRET + guess}),
                server.get(f"/crons?secret={guess}"),
            ]
            self.assertEqual({reply.status for reply in replies}, {401})
            self.assertEqual(len({reply.body for reply in replies}), 1)
            for text in (replies[0].text, server.log_text(), server.stderr()):
                self.assertNotIn(guess, text)
                self.assertNotIn(SECRET[:-1], text)
            line = server.log_text().splitlines()[-1]
            self.assertIn("refused GET /crons from 127.0.0.1: 401 unauthorized", line)


class WrongSecretsTest(unittest.TestCase):
    """Wrong secrets are slowed down, the right one never."""

    def call(self, server: Server, source: str, secret: str, path: str) -> Reply:
        with Wire(server.port, source) as wire:
            wire.send(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                f"X-Trigger-Secret: {secret}\r\n\r\n".encode()
            )
            return wire.answer()

    def test_the_eleventh_is_answered_429_and_the_right_one_is_let_in(self) -> None:
        with Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET}) as server:
            # Each from another address: a machine has all of 127.0.0.0/8.
            for number in range(10):
                reply = self.call(server, f"127.0.0.{number + 2}", "wrong", "/crons")
                self.assertEqual(reply.status, 401)
            for source in ("127.0.0.1", "127.9.9.9"):
                reply = self.call(server, source, "wrong", "/crons")
                self.assertEqual(reply.json["code"], "too_many_attempts")
                self.assertIn(int(reply.headers["retry-after"]), range(1, 61))
                self.assertEqual(reply.status, 429)
                self.assertEqual(
                    self.call(server, source, SECRET, "/crons").status, 200
                )
                self.assertEqual(self.call(server, source, "x", "/health").status, 200)
            # Without any it is told to send one, as before.
            self.assertEqual(server.get("/crons").status, 401)
            self.assertNotIn("wrong\n", server.log_text())

    def test_one_may_be_tried_now_and_then(self) -> None:
        clock = [1000.0]
        wrong = Rates(10, 6.0, monotonic=lambda: clock[0])
        for _ in range(10):
            self.assertEqual(wrong.take("a"), 0)
        self.assertEqual(wrong.take("a"), 6.0)
        self.assertEqual(wrong.take("b"), 0)
        clock[0] += 6.0
        self.assertEqual(wrong.take("a"), 0)
        self.assertEqual(wrong.take("a"), 6.0)
        clock[0] += 6000.0
        self.assertEqual([wrong.take("a") for _ in range(11)], [0] * 10 + [6.0])

    def test_a_crowd_of_clients_is_bounded_together_and_so_is_their_table(self) -> None:
        wrong = Rates(10, 6.0, 5, monotonic=lambda: 0.0)
        taken = sum(
            wrong.take(f"client {number}") == 0 for number in range(3 * Rates.CLIENTS)
        )
        self.assertEqual(taken, 50)
        many = Rates(10, 6.0, 10**6, monotonic=lambda: 0.0)
        for number in range(3 * Rates.CLIENTS):
            many.take(f"client {number}")
        self.assertLessEqual(len(many), Rates.CLIENTS)


def environ_of(pid: int) -> dict[bytes, bytes]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {name: value for name, _, value in (p.partition(b"=") for p in pairs)}


@slow
class ScriptsSecretTest(unittest.TestCase):
    """The scripts never see the secret."""

    def test_neither_environment_nor_arguments_of_a_script_hold_it(self) -> None:
        environ = {
            "CRON_TRIGGER_SECRET": SECRET,
            "CRON_TRIGGER_NOTIFY_URL": "",
            "CREDENTIALS_DIRECTORY": "/nonexistent",
            "NOTIFY_SOCKET": "",
        }
        with Server(REGISTRY, environ) as server:
            headers = {"X-Trigger-Secret": SECRET}
            reply = server.request("POST", "/trigger", {"cronName": "nap"}, headers)
            keeper = reply.json["pid"]
            children = Path(f"/proc/{keeper}/task/{keeper}/children")
            script = int(wait_until(lambda: children.read_text().split())[0])
            wait_until(lambda: b"sleep" in Path(f"/proc/{script}/cmdline").read_bytes())
            for pid in (keeper, script):
                for name in ("environ", "cmdline"):
                    text = Path(f"/proc/{pid}/{name}").read_bytes()
                    self.assertNotIn(SECRET.encode(), text)
                variables = environ_of(pid)
                ours = {n for n in variables if n.startswith(b"CRON_")}
                self.assertEqual(ours, {b"CRON_NAME", b"CRON_RUN_ID", b"CRON_TRIGGER"})
                self.assertNotIn(b"CREDENTIALS_DIRECTORY", variables)
                self.assertNotIn(b"NOTIFY_SOCKET", variables)
            os.killpg(keeper, signal.SIGKILL)

    def test_the_secret_stands_in_no_file(self) -> None:
        environ = {"CRON_TRIGGER_SECRET": SECRET}
        with Server(REGISTRY, environ) as server:
            headers = {"X-Trigger-Secret": SECRET}
            server.request("POST", "/trigger", {"cronName": "hello"}, headers)
            wait_until(lambda: "completed" in server.log_text())
            server.stop()
            for path in server.folder.rglob("*"):
                if path.is_file():
                    self.assertNotIn(SECRET.encode(), path.read_bytes(), path)


if __name__ == "__main__":
    unittest.main()
