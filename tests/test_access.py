"""Who may do what: every route, address, Host, Origin and secret."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple
from unittest import mock

from flat import m as cts
from support import Reply, Server, Wire, need, need_command, need_full, wait_until

SECRET = "S3cret-of-this-test-0123456789"
REGISTRY = {
    "nap": {"description": "Sleep", "command": ["/bin/sleep", "60"]},
    "hello": {"description": "Say hello", "command": ["/bin/echo", "hello"]},
}
#: A body that each changing route would take, if its caller were let in.
BODIES = {"trigger": b'{"cronName": "hello"}'}


def calls() -> List[Tuple[cts.Route, str]]:
    """Return each route with each method that it answers."""
    found = []
    for route in cts.ROUTES:
        found.append((route, route.method))
        if route.method == "GET":
            found.append((route, "HEAD"))
    return found


def request_bytes(route: cts.Route, method: str, **headers: str) -> bytes:
    """Return a request that holds but for what `headers` say (None: left out)."""
    body = BODIES.get(route.action, b"")
    sent = {"Host": "localhost", "Connection": "close", **headers}
    if body:
        sent["Content-Type"] = "application/json"
        sent["Content-Length"] = str(len(body))
    lines = [f"{method} {route.path.replace('ID', '1')} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RouteWalkTest(unittest.TestCase):
    """Each route of the table, met by each kind of stranger."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET}).start()
        cls.addClassCleanup(cls.server.__exit__)

    def call(self, route: cts.Route, method: str, **headers: str) -> Reply:
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
        public = {"/", "/health"}
        for route, method in calls():
            with self.subTest(f"{method} {route.path}"):
                status = self.call(route, method).status
                self.assertEqual(status, 200 if route.path in public else 401)
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
                self.assertEqual(reply.status, 200 if route.action == "page" else 403)

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
            route = cts.Route(method, path, "none")
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
        route = cts.Route("GET", "/crons", "crons")
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"):
            reply = self.call(route, "GET", **{name: "127.0.0.1"})
            self.assertEqual(reply.status, 401)

    def test_no_cors_header_without_a_listed_origin(self) -> None:
        reply = self.call(cts.ROUTES[1], "GET", Origin="http://localhost")
        self.assertEqual(reply.status, 200)
        self.assertFalse([n for n in reply.headers if n.startswith("access-control")])


class DefaultTest(unittest.TestCase):
    """What is not expressly open is shut."""

    def test_only_two_routes_and_the_preflight_are_public(self) -> None:
        public = [route.path for route in cts.ROUTES if route.public]
        self.assertEqual(public, ["/", "/health"])
        self.assertFalse(cts.Route("GET", "/new", "new").public)

    def test_a_path_without_a_route_needs_the_secret(self) -> None:
        access = cts.Access(cts.read_settings({"secret": "x" * 20}, {}), ())
        request = cts.Request("GET", "/", "", {"host": "localhost"}, "::1", True, False)
        with self.assertRaises(cts.Refusal) as caught:
            access.check(request, None)
        self.assertEqual(caught.exception.code, "unauthorized")


class HostTest(unittest.TestCase):
    """Host against DNS rebinding: addresses and our own names, nothing else."""

    def allowed(self, host: str, listed: str = "") -> bool:
        settings = cts.read_settings({"allowed_hosts": listed}, {})
        access = cts.Access(settings, ["mine.example", "mine"])
        request = cts.Request("GET", "/", "", {"host": host}, "::1", True, False)
        try:
            access.check(request, cts.ROUTES[1])
        except cts.Refusal as refusal:
            self.assertEqual(refusal.code, "misdirected_request")
            return False
        return True

    def test_our_names_and_addresses_are_admitted(self) -> None:
        for host in (
            "localhost", "LOCALHOST:9998", "localhost.", "127.0.0.1", "127.0.0.1:1",
            "[::1]", "[::1]:9998", "mine", "Mine.Example:80", "host.docker.internal",
            "172.17.0.1:9998", "192.168.1.7",
        ):  # fmt: skip
            with self.subTest(host):
                self.assertTrue(self.allowed(host))

    def test_all_else_is_refused(self) -> None:
        for host in (
            "", ".", ":", ":80", "evil.example", "localhost.evil.example",
            "evil.example.", "user@localhost", "localhost@evil.example",
            "localhost,evil.example", "localhost evil.example", "localhost/",
            "localhost#", "localhost?", "localhost:http", "localhost:123456",
            "localhost:", "localhost:80:80", "[::1", "::1", "[::1]x", "[fe80::1%25lo]",
            "[fe80::1%lo]", "[evil.example]", "2130706433", "0x7f000001", "0177.0.0.1",
            "127.1", "127.0.0.1.nip.io", "127.0.0.\xb9", "l\xf3calhost", "xn--loclhost",
            "localhost\xa0", "a" * 5000, "127.0.0.1" + "." * 5000,
        ):  # fmt: skip
            with self.subTest(host[:40]):
                self.assertFalse(self.allowed(host))

    def test_a_listed_name_is_admitted(self) -> None:
        self.assertTrue(self.allowed("cron.example.org:9998", "cron.example.org"))
        self.assertFalse(self.allowed("example.org", "cron.example.org"))

    def test_the_caches_of_hosts_and_addresses_are_bounded(self) -> None:
        for function in (cts.Access._host_allowed, cts.Access.source_allowed):
            self.assertLessEqual(function.cache_info().maxsize or 10**9, 1024)


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
        self.assertEqual(called.headers["vary"], "Origin")

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
        for path in ("/runs/1/cancel", "/trigger"):
            form = {"Content-Type": "text/plain", "Content-Length": "0"}
            reply = self.server.request("POST", path, headers=form)
            self.assertEqual(reply.status, 415)

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
            self.assertEqual(wire.answer().json["service"], cts.SERVICE)


class SecretTest(unittest.TestCase):
    """Where the secret comes from, and what happens to what is none."""

    @contextlib.contextmanager
    def server_with(self, **environ: str) -> Iterator[Server]:
        with Server(REGISTRY, environ) as server:
            yield server

    def assert_secret(self, server: Server, secret: bytes) -> None:
        for header in (b"X-Trigger-Secret: ", b"Authorization: Bearer  "):
            for given, status in ((secret, 200), (secret + b"x", 401), (b"", 401)):
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
            path.touch(0o640)
            path.write_bytes(f"{SECRET}\r\n".encode())
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
                with self.assertRaises(cts.ConfigError):
                    cts.read_settings({"secret_file": str(path)}, {})
        for secret in ("", "change-me", f" {SECRET} ", "line\nbreak", "tab\there"):
            with self.assertRaises(cts.ConfigError) as caught:
                cts.read_settings({}, {"CRON_TRIGGER_SECRET": secret})
            if secret not in ("", "change-me"):
                self.assertNotIn(secret.strip(), str(caught.exception))

    def test_the_comparison_takes_as_long_for_every_guess(self) -> None:
        seen = []

        def compare(one: bytes, other: bytes) -> bool:
            seen.append((len(one), len(other)))
            return one == other

        with mock.patch("hmac.compare_digest", compare):
            for given in (b"", b"a", b"secret", b"x" * 5000, "é".encode()):
                self.assertEqual(cts.same_secret(given, b"secret"), given == b"secret")
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
            self.assertIn("refused GET /crons of 127.0.0.1: 401 unauthorized", line)


class WrongSecretsTest(unittest.TestCase):
    """Ten wrong secrets within a minute."""

    def test_the_eleventh_is_answered_429_to_that_address_only(self) -> None:
        with Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET}) as server:

            def call(source: str, secret: str, path: str = "/crons") -> Reply:
                with Wire(server.port, source) as wire:
                    wire.send(
                        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                        f"X-Trigger-Secret: {secret}\r\n\r\n".encode()
                    )
                    return wire.answer()

            for _ in range(10):
                self.assertEqual(call("127.0.0.2", "wrong").status, 401)
            for secret in ("wrong", SECRET):
                reply = call("127.0.0.2", secret)
                self.assertEqual(reply.json["code"], "too_many_attempts")
                self.assertIn(int(reply.headers["retry-after"]), range(1, 61))
                self.assertEqual(reply.status, 429)
            self.assertEqual(call("127.0.0.2", "wrong", "/health").status, 200)
            self.assertEqual(call("127.0.0.3", SECRET).status, 200)
            self.assertNotIn("wrong\n", server.log_text())

    def test_a_minute_later_it_may_try_again(self) -> None:
        clock = [1000.0]
        wrong = cts.WrongSecrets(lambda: clock[0])
        for second in range(cts.WRONG_SECRETS):
            clock[0] = 1000.0 + second
            self.assertEqual(wrong.blocked_s("a"), 0)
            wrong.add("a")
        self.assertEqual(wrong.blocked_s("a"), 51.0)
        self.assertEqual(wrong.blocked_s("b"), 0)
        clock[0] = 1060.0
        self.assertEqual(wrong.blocked_s("a"), 0)
        wrong.add("a")
        self.assertEqual(wrong.blocked_s("a"), 1.0)

    def test_the_table_of_addresses_is_bounded(self) -> None:
        wrong = cts.WrongSecrets(lambda: 0.0)
        for number in range(3 * cts.WRONG_SECRETS_ADDRESSES):
            for _ in range(20):
                wrong.add(f"address {number}")
        self.assertEqual(len(wrong._times), cts.WRONG_SECRETS_ADDRESSES)
        kept = collections.Counter(len(times) for times in wrong._times.values())
        self.assertEqual(kept, {cts.WRONG_SECRETS: cts.WRONG_SECRETS_ADDRESSES})


class SourceTest(unittest.TestCase):
    """Whose address may connect at all."""

    def allowed(self, address: str, allow: Any = None) -> bool:
        access = cts.Access(cts.read_settings({"allow": allow}, {}), ())
        return access.source_allowed(address)

    def test_the_default_is_loopback_and_docker(self) -> None:
        for address in ("127.0.0.1", "127.9.9.9", "::1", "172.16.0.1", "172.31.255.9"):
            self.assertTrue(self.allowed(address), address)
        for address in (
            "172.15.0.1", "172.32.0.1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "::",
            "fe80::1%eth0", "fd00::1", "::127.0.0.1", "64:ff9b::7f00:1",
            "2002:7f00:1::1", "0.0.0.0",
        ):  # fmt: skip
            self.assertFalse(self.allowed(address), address)

    def test_mapped_addresses_count_as_ipv4(self) -> None:
        self.assertTrue(self.allowed("::ffff:127.0.0.1"))
        self.assertFalse(self.allowed("::ffff:10.0.0.1"))

    def test_a_list_replaces_the_default(self) -> None:
        self.assertTrue(self.allowed("10.1.2.3", "10.0.0.0/8, fd00::/8"))
        self.assertTrue(self.allowed("fd00::7", "10.0.0.0/8 fd00::/8"))
        self.assertTrue(self.allowed("127.0.0.1", "10.0.0.0/8"))
        for text in ("10.0.0.1/8", "everyone", "", "127.0.0.0/8 10.0.0.0/33"):
            with self.assertRaises(cts.ConfigError):
                cts.read_settings({"allow": text}, {})

    def test_a_foreign_address_is_refused_before_it_says_anything(self) -> None:
        with Server(REGISTRY, {"CRON_TRIGGER_ALLOW": "127.0.0.1/32"}) as server:
            with Wire(server.port, "127.0.0.2") as wire:
                reply = wire.answer()
                self.assertEqual((reply.status, reply.json["code"]), (403, "forbidden"))
            for route, method in calls():
                with Wire(server.port, "127.0.0.2") as wire:
                    wire.send(request_bytes(route, method))
                    self.assertEqual(wire.answer().status, 403)
                    self.assertTrue(wire.closed())
            self.assertEqual(server.get("/health").status, 200)
            self.assertIn("of 127.0.0.2: 403 forbidden", server.log_text())


ASK = """
import http.client, json, sys
for source, target in json.load(sys.stdin):
    connection = http.client.HTTPConnection(
        target, int(sys.argv[1]), timeout=5, source_address=(source, 0)
    )
    connection.request("GET", "/crons")
    print(connection.getresponse().status)
"""


class Namespaces:
    """Two network namespaces with a wire between; nothing leaves them."""

    def __init__(self) -> None:
        self.holders = [
            subprocess.Popen(["unshare", "-n", "sleep", "300"]) for _ in range(2)
        ]
        here = os.readlink("/proc/self/ns/net")
        for holder in self.holders:
            wait_until(functools.partial(self._has_left, holder.pid, here))
        self.server, self.client = (holder.pid for holder in self.holders)
        self._wire()

    def _has_left(self, pid: int, namespace: str) -> bool:
        return os.readlink(f"/proc/{pid}/ns/net") != namespace

    def _wire(self) -> None:
        self.run(self.server, "ip link add veth0 type veth peer name veth1")
        self.run(self.server, f"ip link set veth1 netns {self.client}")
        for pid, device, host in (
            (self.server, "veth0", 1),
            (self.client, "veth1", 5),
        ):
            for address in (f"172.18.0.{host}/16", f"10.99.0.{host}/24"):
                self.run(pid, f"ip address add {address} dev {device}")
            self.run(pid, f"ip address add fd00:99::{host}/64 dev {device} nodad")
            self.run(pid, f"ip link set {device} up")
            self.run(pid, "ip link set lo up")

    def run(self, pid: int, command: str) -> None:
        words = ["nsenter", "-t", str(pid), "-n", *command.split()]
        subprocess.run(words, check=True, capture_output=True)

    def ask(self, pid: int, port: int, pairs: List[Tuple[str, str]]) -> List[int]:
        """Return what a caller at each source address is answered at each target."""
        command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", ASK]
        asked = subprocess.run(
            [*command, str(port)],
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return [int(line) for line in asked.stdout.split()]

    def close(self) -> None:
        for holder in self.holders:
            holder.kill()
            holder.wait()


class NamespaceTest(unittest.TestCase):
    """Real packets from real addresses, in namespaces of the test's own."""

    namespaces: Namespaces

    @classmethod
    def setUpClass(cls) -> None:
        need(os.geteuid() == 0, "only root makes network namespaces")
        for name in ("ip", "unshare", "nsenter"):
            need_command(name)
        able = subprocess.run(["unshare", "-n", "true"], capture_output=True)
        need(able.returncode == 0, "this kernel gives no network namespace")
        cls.namespaces = Namespaces()
        cls.addClassCleanup(cls.namespaces.close)

    def server_at(self, host: str, **environ: str) -> Server:
        enter = ["nsenter", "-t", str(self.namespaces.server), "-n", sys.executable]
        server = Server(REGISTRY, environ, [f"--host={host}"], python=enter).start()
        self.addCleanup(server.__exit__)
        return server

    def test_docker_s_network_is_let_in_and_another_is_not(self) -> None:
        server = self.server_at("0.0.0.0")
        pairs = [("172.18.0.5", "172.18.0.1"), ("10.99.0.5", "10.99.0.1")]
        ask = self.namespaces.ask
        self.assertEqual(ask(self.namespaces.client, server.port, pairs), [200, 403])
        # The address that is called does not matter, only the caller's.
        crossed = [("172.18.0.5", "10.99.0.1"), ("10.99.0.5", "172.18.0.1")]
        self.assertEqual(ask(self.namespaces.client, server.port, crossed), [200, 403])
        self.assertIn("of 10.99.0.5: 403", server.log_text())

    def test_both_families_on_one_socket(self) -> None:
        need_full()
        server = self.server_at("::")
        client, own = self.namespaces.client, self.namespaces.server
        pairs = [
            ("172.18.0.5", "172.18.0.1"),
            ("10.99.0.5", "10.99.0.1"),
            ("fd00:99::5", "fd00:99::1"),
        ]
        ask = self.namespaces.ask
        self.assertEqual(ask(client, server.port, pairs), [200, 403, 403])
        self.assertEqual(
            ask(own, server.port, [("::1", "::1"), ("127.0.0.1", "127.0.0.1")]),
            [200, 200],
        )
        # Counted and shown as the IPv4 address that it is.
        self.assertIn("of 10.99.0.5: 403", server.log_text())

    def test_a_listed_network_is_let_in(self) -> None:
        need_full()
        allow = {"CRON_TRIGGER_ALLOW": "10.99.0.0/24 fd00:99::/64"}
        server = self.server_at("::", **allow)
        pairs = [
            ("10.99.0.5", "10.99.0.1"),
            ("fd00:99::5", "fd00:99::1"),
            ("172.18.0.5", "172.18.0.1"),
        ]
        statuses = self.namespaces.ask(self.namespaces.client, server.port, pairs)
        self.assertEqual(statuses, [200, 200, 403])


def environ_of(pid: int) -> Dict[bytes, bytes]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {name: value for name, _, value in (p.partition(b"=") for p in pairs)}


class ScriptsSecretTest(unittest.TestCase):
    """The scripts never see the secret."""

    def test_neither_environment_nor_arguments_of_a_script_hold_it(self) -> None:
        environ = {
            "CRON_TRIGGER_SECRET": SECRET,
            "CRON_TRIGGER_NOTIFY_URL": "",
            "CREDENTIALS_DIRECTORY": "/nonexistent",
            "NOTIFY_SOCKET": "",
            "KEPT": "yes",
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
                self.assertEqual(variables[b"KEPT"], b"yes")
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
