"""What a client can send, how much and how slowly; and that no more than that happens.

Each raw request of these tests is followed by a second one that would start a cron:
whoever reads the first one in another way than the server would see it run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import support
from support import (
    REPOSITORY,
    Reply,
    Server,
    Wire,
    limited,
    need_command,
    need_full,
    slow,
    wait_until,
)

from cron_trigger import SERVICE
from cron_trigger.host.rates import Rates
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.limits import Limit, Limits
from cron_trigger.runs.logs import Logs, ServerLog
from cron_trigger.runs.schedule import SCHEDULED_LIMIT, SCHEDULED_SHARE
from cron_trigger.web.access import RefusalLog
from cron_trigger.web.events import Broadcaster, Stream
from cron_trigger.web.places import KEPT_DESCRIPTORS, Places, limits_for
from cron_trigger.web.reader import (
    HEADER_COUNT,
    REQUEST_LINE_BYTES,
    SINGLE_HEADERS,
    Reader,
)
from cron_trigger.web.routes import ROUTES
from cron_trigger.web.wire import BODY_BYTES

REGISTRY = {
    "hello": {"description": "Say hello", "command": ["/bin/echo", "hello"]},
    "nap": {"description": "Sleep", "command": ["/bin/sleep", "60"]},
    "flood": {
        "description": "Print 12 MB",
        "command": ["/bin/sh", "-c", "head -c 12000000 /dev/zero | tr '\\0' x"],
    },
}
HEAD = b"Host: localhost\r\n"
JSON = HEAD + b"Content-Type: application/json\r\n"
HELLO = b'{"cronName": "hello"}'
SECOND = (
    b"POST /trigger HTTP/1.1\r\n"
    + JSON
    + b"Content-Length: %d\r\n\r\n%b" % (len(HELLO), HELLO)
)
HEALTH = b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n"


def patched(code: str) -> dict[str, Any]:
    """Return how to start the server with other constants, by `python3 -c`."""
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(REPOSITORY / 'tests')!r})",
        "from flat import m as cts",
        code,
        "sys.exit(cts.main())",
    )
    return {"python": [sys.executable, "-c", "\n".join(lines)], "program": []}


def post(body: bytes, *headers: bytes) -> bytes:
    """Return a trigger request with its own headers after the usual ones."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST /trigger HTTP/1.1\r\n" + JSON + lines + b"\r\n" + body


class RawTest(unittest.TestCase):
    """A server that is sent raw bytes, and must never be taken in."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY).start()
        cls.addClassCleanup(cls.server.__exit__)

    def tearDown(self) -> None:
        text = self.server.stderr()
        for word in ("Traceback", "internal error"):
            self.assertNotIn(word, text)

    def runs(self) -> int:
        return int(self.server.rows("select count(*) from cron_executions")[0][0])

    def assert_refused(self, data: bytes, status: int, code: str) -> None:
        """Assert one refusal, then the end of the connection, and nothing started."""
        before = self.runs()
        with Wire(self.server.port) as wire:
            reply = wire.send(data + SECOND).answer()
            self.assertEqual((reply.status, reply.json["code"]), (status, code))
            self.assertEqual(reply.headers.get("connection"), "close")
            self.assertTrue(wire.closed(), "it reads on after an error")
        self.assertEqual(self.runs(), before)


class SmugglingTest(RawTest):
    """One request has one reading (RFC 9112, section 11)."""

    def test_chunks_are_said_in_one_way_and_alone(self) -> None:
        chunks = b"5\r\nhello\r\n0\r\n\r\n"
        for header in (
            (b"transfer-encoding:chunked", b"Content-Length: 4"),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: chunked;q=1",),
            (b"Transfer-Encoding: \tchunked\x0b".replace(b"\x0b", b" x"),),
            (b"Content-Length: 4", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: identity",),
            (b"Transfer-Encoding:",),
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding: gzip, chunked",),
        ):
            with self.subTest(header):
                self.assert_refused(post(chunks, *header), 411, "length_required")
                get = b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n".join(header)
                self.assert_refused(get + b"\r\n\r\n", 411, "length_required")

    def test_http_1_0_has_no_chunks(self) -> None:
        data = post(b"0\r\n\r\n", b"Transfer-Encoding: chunked")
        old = data.replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assert_refused(old, 411, "length_required")

    def test_the_chunks_of_a_get_are_no_request(self) -> None:
        before = self.runs()
        head = b"GET /health HTTP/1.1\r\n" + HEAD
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        with Wire(self.server.port) as wire:
            wire.send(head + chunks % (len(SECOND), SECOND) + HEALTH)
            answers = [wire.answer().json for _ in range(2)]
        self.assertEqual([a["service"] for a in answers], [SERVICE] * 2)
        self.assertEqual(self.runs(), before)

    def test_a_length_is_one_decimal_number(self) -> None:
        for value in (
            b"", b"+5", b"-5", b"5 ", b"5, 5", b"5,6", b"0x5", b"5.0", b"5e0", b"1_0",
            b"\xd9\xa5", b"\xb2", b"five", b"5 5", b"\xa05", b"9" * 20, b"0" * 20,
            b"5;", b'"5"',
        ):  # fmt: skip
            # Blanks around a value are none of it (RFC 9110, 5.5).
            if value.strip(b" ") == b"5":
                continue
            with self.subTest(value):
                data = post(b"hello", b"Content-Length: " + value)
                self.assert_refused(data, 400, "invalid_request")

    def test_deciding_headers_come_once(self) -> None:
        for name in sorted(SINGLE_HEADERS):
            twice = b"GET /crons HTTP/1.1\r\n" + (f"{name}: 1\r\n".encode() * 2)
            if name != "host":
                twice += HEAD
            with self.subTest(name):
                self.assert_refused(twice + b"\r\n", 400, "invalid_request")
        for two in ((b"5", b"5"), (b"5", b"6"), (b"0", b"5")):
            lengths = [b"Content-Length: " + value for value in two]
            self.assert_refused(post(b"hello", *lengths), 400, "invalid_request")

    def test_a_header_has_one_form(self) -> None:
        for line in (
            b"Content-Length : 5",
            b" Content-Length: 5",
            b"X: 1\r\n folded: 2",
            b"X: 1\r\n\tContent-Length: 5",
            b"X: a\nContent-Length: 5",
            b"X: a\rContent-Length: 5",
            b"X: a\0b",
            b"X: a\x0bb",
            b"X: a\x7fb",
            b"X: \x1b[31m",
            b"no colon",
            b": no name",
            b"Na me: x",
            b"N\xc3\xa9: x",
            b"\0: x",
            b'"X": x',
            b"X\n: 1",
        ):
            with self.subTest(line):
                get = b"GET /health HTTP/1.1\r\n" + HEAD + line + b"\r\n\r\n"
                self.assert_refused(get, 400, "invalid_request")

    def test_a_request_line_has_one_form(self) -> None:
        for line in (
            b"",
            b"GET /health",
            b"GET /health HTTP/1.2",
            b"GET /health HTTP/2.0",
            b"GET /health HTTP/0.9",
            b"GET /health HTTP/1.1 ",
            b" GET /health HTTP/1.1",
            b"GET  /health HTTP/1.1",
            b"GET\t/health\tHTTP/1.1",
            b"GET /he alth HTTP/1.1",
            b"GET /health http/1.1",
            b"GET /health HTTP/1.1\rX: 1",
            b"GET /health HTTP/1.1\nX: 1",
            b"G\0T /health HTTP/1.1",
            b"G\xc9T /health HTTP/1.1",
            b"GET\xa0/health HTTP/1.1",
            b"METHOD-WITH-A-VERY-LONG-NAME / HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ):
            with self.subTest(line):
                data = line + b"\r\n" + HEAD + b"\r\n"
                self.assert_refused(data, 400, "invalid_request")

    def test_bare_line_feeds_end_nothing(self) -> None:
        data = b"GET /health HTTP/1.1\nHost: localhost\n\n"
        self.assert_refused(data, 400, "invalid_request")

    def test_an_absolute_target_names_the_host(self) -> None:
        for authority, status in (
            (b"localhost", 200),
            (b"127.0.0.1:9998", 200),
            (b"evil.example", 421),
            (b"localhost@evil.example", 421),
            (b"evil.example#@localhost", 421),
            (b"evil.example?@localhost", 421),
            (b"localhost\\@evil.example", 421),
            (b"", 421),
        ):
            with self.subTest(authority), Wire(self.server.port) as wire:
                target = b"http://" + authority + b"/health"
                wire.send(b"GET " + target + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
                self.assertEqual(wire.answer().status, status)

    def test_an_error_whose_body_was_read_ends_nothing(self) -> None:
        with Wire(self.server.port) as wire:
            wire.send(post(b"not JSON", b"Content-Length: 8") + HEALTH)
            self.assertEqual(wire.answer().status, 400)
            self.assertEqual(wire.answer().status, 200)

    def test_an_error_before_the_body_ends_the_connection(self) -> None:
        body = b"x" * 100
        length = b"Content-Length: 100"
        plain = b"POST /trigger HTTP/1.1\r\n" + HEAD + b"Content-Type: text/plain\r\n"
        self.assert_refused(plain + length + b"\r\n\r\n" + body, 415,
                            "unsupported_media_type")  # fmt: skip
        lost = post(body, length).replace(b"/trigger", b"/nowhere")
        self.assert_refused(lost, 404, "not_found")
        foreign = post(body, length, b"Origin: null")
        self.assert_refused(foreign, 403, "forbidden")

    def test_the_body_of_a_get_is_no_request(self) -> None:
        before = self.runs()
        head = b"GET /health HTTP/1.1\r\n" + HEAD
        length = b"Content-Length: %d\r\n\r\n" % len(SECOND)
        with Wire(self.server.port) as wire:
            wire.send(head + length + SECOND + HEALTH)
            answers = [wire.answer().json for _ in range(2)]
        self.assertEqual([a["service"] for a in answers], [SERVICE] * 2)
        self.assertEqual(self.runs(), before)


class BoundsTest(RawTest):
    """How much of everything."""

    def status_of(self, data: bytes) -> int:
        with Wire(self.server.port) as wire:
            return wire.send(data).answer().status

    def test_the_limits_are_those_of_the_contract(self) -> None:
        limits = Limits()
        self.assertEqual((limits.request_s, limits.idle_s), (10.0, 60.0))
        self.assertEqual((limits.work, limits.connections), ((64, 96), (256, 384)))
        self.assertEqual((limits.streams, limits.followers), ((32, 64), (32, 64)))
        self.assertEqual((SCHEDULED_SHARE, SCHEDULED_LIMIT), (500, 1000))
        self.assertEqual((BODY_BYTES, REQUEST_LINE_BYTES), (65536, 8192))
        self.assertEqual(HEADER_COUNT, 100)
        self.assertEqual(limits.wrong_secrets, (10, 6.0, 10))

    def test_a_hundred_headers(self) -> None:
        for count, status in ((100, 200), (101, 400)):
            more = b"".join(b"X-%d: 1\r\n" % n for n in range(count - 1))
            data = b"GET /health HTTP/1.1\r\n" + HEAD + more + b"\r\n"
            self.assertEqual(self.status_of(data), status)

    @slow
    def test_empty_lines_before_a_request_count_to_its_head(self) -> None:
        get = b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n"
        for lines, status in ((3, 200), (40_000, 400)):
            self.assertEqual(self.status_of(b"\r\n" * lines + get), status)

    def test_a_request_line_of_8_kib(self) -> None:
        for size, status in ((8192, 404), (8193, 400), (60000, 400)):
            frame = len("GET / HTTP/1.1")
            line = b"GET /" + b"a" * (size - frame) + b" HTTP/1.1"
            self.assertEqual(self.status_of(line + b"\r\n" + HEAD + b"\r\n"), status)

    def test_a_line_without_end_is_cut_off(self) -> None:
        for data in (b"A" * 9000, b"GET / HTTP/1.1\r\nX: " + b"a" * 70000):
            self.assertEqual(self.status_of(data), 400)

    def test_a_header_of_blanks_takes_no_time(self) -> None:
        for value in (b" " * 60000 + b"x", b" " * 60000 + b"\n", b"\t " * 30000):
            since_s = time.monotonic()
            data = b"GET /health HTTP/1.1\r\n" + HEAD + b"X: x" + value + b"\r\n\r\n"
            self.assertIn(self.status_of(data), (200, 400))
            self.assertLess(time.monotonic() - since_s, 10)

    def test_a_body_of_64_kib(self) -> None:
        body = b'{"cronName": "%b"}' % (b"a" * 70000)
        whole = body[: 65536 - 2] + b'"}'
        self.assertEqual(self.status_of(post(whole, b"Content-Length: 65536")), 404)
        for length in (b"65537", b"1000000000000", b"9" * 19):
            # Answered though not a byte of the body was sent.
            self.assertEqual(
                self.status_of(post(b"", b"Content-Length: " + length)), 413
            )
        self.assertEqual(self.status_of(post(b"")), 411)

    def test_every_check_comes_before_the_body(self) -> None:
        for data, status in (
            (post(b"", b"Content-Length: 9", b"Expect: 100-continue"), 100),
            (post(b"", b"Content-Length: 70000", b"Expect: 100-continue"), 413),
            (post(b"", b"Content-Length: 9", b"Origin: null"), 403),
            (post(b"", b"Content-Length: 9", b"Sec-Fetch-Site: cross-site"), 403),
            (post(b"", b"Content-Length: 9").replace(b"localhost", b"evil"), 421),
            (post(b"", b"Content-Length: 9").replace(b"/json", b"/xml"), 415),
            (
                post(b"", b"Content-Length: 9").replace(b"/trigger", b"/trigger?a=b"),
                400,
            ),
            (post(b"", b"Content-Length: 9").replace(b"POST", b"PUT"), 405),
        ):
            with self.subTest(status):
                self.assertEqual(self.status_of(data), status)

    def test_queries_are_strict(self) -> None:
        for query in ("limit=0", "limit=501", "limit=1&limit=1", "limit=%31%30x", "a",
                      "limit=\xb2", "limit=1_0", "status=bogus", "cron=%2e%2e%2f",
                      "limit=+1", "before=0", "before=99999999999999999999", "=", "&&",
                      "limit=%ff", "unknown=1", "tail=1", "&".join(["limit=1"] * 30),
                      ):  # fmt: skip
            with self.subTest(query):
                line = f"GET /runs?{query} HTTP/1.1\r\n".encode("latin-1")
                self.assertEqual(self.status_of(line + HEAD + b"\r\n"), 400)


class JsonTest(RawTest):
    """What is JSON, and what only looks like it."""

    def reply(self, body: bytes) -> Reply:
        with Wire(self.server.port) as wire:
            length = b"Content-Length: %d" % len(body)
            return wire.send(post(body, length)).answer()

    def test_what_is_not_json_is_refused(self) -> None:
        for body in (
            b"{", b"[]", b"null", b"7", b'"hello"', b"cronName=hello",
            b'{"cronName": "hello"} x', b"{'cronName': 'hello'}",
            b"\xef\xbb\xbf" * 2 + HELLO, b" \xef\xbb\xbf" + HELLO,
            HELLO.decode().encode("utf-16"),
            b'{"cronName": "\xff"}',
            b'{"cronName": "\xed\xa0\x80"}', b'{"cronName": "\\ud800"}',
            b'{"cronName": "hello", "params": {"a": NaN}}',
            b'{"cronName": "hello", "params": {"a": -Infinity}}',
            b'{"cronName": "hello", "params": {"a": 1e999}}',
            b'{"cronName": "hello", "cronName": "nap"}',
            b'{"cronName": "hello", "params": {"a": 1, "a": 2}}',
            b'{"cronName": "hello", "params": {}, "params": {}}',
            b'{"cronName": "hello", "extra": 1}', b'{"cronname": "hello"}', b"{}",
            b'{"cronName": null}', b'{"cronName": ["hello"]}', b'{"cronName": ""}',
            b'{"cronName": "hello", "params": []}',
            b'{"cronName": "hello", "requestedBy": 7}',
            b'{"cronName": "hello", "requestedBy": "a\\nrun 1 completed"}',
            b'{"cronName": "hello", "requestedBy": "\\u001b[2J"}',
            b'{"cronName": "hello", "requestedBy": "\\u202etxt"}',
            b'{"cronName": "hello", "requestedBy": "%b\x9b"}' % (b"a" * 201),
            b'{"cronName": "hello", "runAt": "tomorrow"}',
            b'{"cronName": "hello", "runAt": 99999999999}',
            b'{"cronName": "hello", "runAt": "0001-01-01T00:00:00+23:59"}',
            b'{"cronName": "hello", "runAt": "9999-12-31T23:59:60Z"}',
            b"[" * 60000, b'{"a":' * 12000, b"[" * 30000 + b"]" * 30000,
            b'{"cronName": "hello", "params": ' + b'{"a":' * 9000 + b"1" + b"}" * 9001,
            b'{"cronName": "hello", "params": {"a": %b}}' % (b"1" * 5000),
        ):  # fmt: skip
            with self.subTest(body[:60]):
                reply = self.reply(body)
                self.assertEqual(reply.status, 400, reply.text)
                self.assertIn(reply.json["code"], ("invalid_request", "invalid_params"))
        self.assertEqual(self.runs(), 0)

    def test_a_name_is_looked_up_and_nothing_else(self) -> None:
        for name in (
            "../hello", "hello/../hello", "/bin/sh", "hello\0", "hello ", "Hello",
            "hello.pid", "$(hello)", "`hello`", "{hello}", "hello;id", "ﬁle", "..",
        ):  # fmt: skip
            body = json.dumps({"cronName": name}).encode()
            reply = self.reply(body)
            self.assertEqual((reply.status, reply.json["code"]), (404, "unknown_cron"))
        made = {p.stem for p in self.server.run_dir.glob("*.pid")}
        self.assertLessEqual(made, {*REGISTRY, SERVICE})

    def test_thousands_of_unknown_parameters_are_one_refusal(self) -> None:
        params = {f"p{number}": 1 for number in range(4000)}
        body = json.dumps({"cronName": "hello", "params": params}).encode()
        reply = self.reply(body)
        self.assertEqual(reply.json["code"], "invalid_params")


class AnswerTest(RawTest):
    """What stands on every answer."""

    def answers(self) -> list[tuple[str, Reply]]:
        found = []
        for route in ROUTES:
            if route.action == "events":
                continue
            path = route.path.replace("ID", "1")
            found.append((path, self.server.request(route.method, path)))
        raw = (
            b"nonsense\r\n\r\n",
            HEALTH.replace(b"localhost", b"evil"),
            HEALTH.replace(b"GET", b"PUT"),
            HEALTH.replace(b"/health", b"/nowhere"),
            post(b"", b"Content-Length: 70000"),
            post(b"", b"Transfer-Encoding: gzip"),
            post(b"{}", b"Content-Length: 2", b"Origin: null"),
            b"GET /events HTTP/1.1\r\n" + HEAD + b"\r\n",
            b"HEAD /health HTTP/1.0\r\n\r\n",
        )
        for data in raw:
            with Wire(self.server.port) as wire:
                wire.send(data)
                found.append((data.decode()[:40], wire.answer(data[:4] != b"HEAD")))
        return found

    def test_every_answer_has_the_safe_headers(self) -> None:
        answers = self.answers()
        statuses = {reply.status for _, reply in answers}
        self.assertGreaterEqual(statuses, {200, 400, 403, 404, 405, 411, 413, 421})
        for what, reply in answers:
            with self.subTest(what):
                heads = reply.headers
                self.assertEqual(heads["server"], SERVICE)
                self.assertEqual(heads["x-content-type-options"], "nosniff")
                # The page is asked for again by its tag.
                asked = heads["cache-control"] == "no-cache"
                self.assertTrue(heads["cache-control"] == "no-store" or asked)
                self.assertEqual(asked, "etag" in heads)
                self.assertEqual(heads["referrer-policy"], "no-referrer")
                self.assertEqual(heads["x-frame-options"], "DENY")
                policy = heads["content-security-policy"]
                self.assertIn("default-src 'none'", policy)
                self.assertIn("frame-ancestors 'none'", policy)
                self.assertNotIn("unsafe", policy)
                self.assertNotIn("python", str(heads).lower())
                self.assertNotIn("set-cookie", heads)

    def test_the_output_of_a_run_is_plain_text(self) -> None:
        with Server(
            {
                "page": {
                    "description": "Print a page",
                    "command": ["/bin/echo", "<script>alert(1)</script>"],
                }
            }
        ) as server:
            run = server.completed("page")
            reply = server.get(f"/runs/{run['id']}/log")
            self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(reply.text, "<script>alert(1)</script>\n")

    def test_a_log_that_is_cut_meanwhile_ends_the_connection(self) -> None:
        need_full()
        with Server(REGISTRY) as server:
            run_id = server.completed("flood")["id"]
            with Wire(server.port) as wire:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                log = f"GET /runs/{run_id}/log HTTP/1.1\r\n".encode()
                wire.send(log + HEAD + b"\r\n" + HEALTH)
                wire.socket.recv(1)
                os.truncate(server.log_dir / "flood.log", 1000)
                received = [wire.socket.recv(65536)]
                while received[-1]:
                    received.append(wire.socket.recv(65536))
            text = b"".join(received)
            self.assertLess(len(text), 12000000)
            self.assertNotIn(b"HTTP/1.1 200", text)

    def test_a_trace_echoes_nothing(self) -> None:
        headers = {"X-Trigger-Secret": "echo-me"}
        reply = self.server.request("TRACE", "/health", headers=headers)
        self.assertEqual(reply.status, 405)
        self.assertNotIn("echo-me", reply.text)


class LogTest(RawTest):
    """Log lines are one line each, of characters that a terminal only shows."""

    def test_control_characters_of_requests_do_not_reach_the_log(self) -> None:
        for path in (
            b"/\x1b[2J\x1b]0;owned\x07", b"/\x9b31m", b"/\x00\x01\x7f",
            b"/%0a2026-01-01T00:00:00.000+00:00 info run 1 completed",
            "/\u2028\u202e\u200b".encode(), b"/" + b"\x1b" * 5000,
        ):  # fmt: skip
            with Wire(self.server.port) as wire:
                line = b"GET " + path.replace(b" ", b"\xa0") + b" HTTP/1.1\r\n"
                self.assertEqual(wire.send(line + HEAD + b"\r\n").answer().status, 404)
        for host in (b"evil\x9b2J", "é\u202e".encode()):
            with Wire(self.server.port) as wire:
                wire.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                self.assertEqual(wire.answer().status, 421)
        for text in (self.server.log_text(), self.server.stderr()):
            for shown in text.splitlines():
                self.assertTrue(shown.isprintable(), ascii(shown))
                self.assertRegex(shown, r"^20\d\d-\d\d-\d\dT[\d:.]+\+00:00 \w+ +\S")
                self.assertLess(len(shown), 2100)
            self.assertEqual(text.count("\n"), len(text.splitlines()))

    def test_whatever_is_said_is_one_printable_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = ServerLog(Logs(Path(folder)), "log", to_stderr=False)
            log.say("info", "a\nb\r\x1b[2J\x9b\u2028\u202e" + "c" * 5000)
            (line,) = (Path(folder) / "log").read_text("utf-8").splitlines()
        self.assertTrue(line.isprintable())
        self.assertLess(len(line), 2200)

    def test_a_flood_of_refusals_is_counted_and_not_written(self) -> None:
        need_full()
        program = limited("refusals_logged=(5, 2.0, 2)")
        with Server(REGISTRY, program=program) as server:
            for _ in range(40):
                self.assertEqual(server.get("/nowhere").status, 404)
            refused = server.log_text().count("refused GET /nowhere")
            self.assertIn(refused, range(5, 20))
            wait_until(
                lambda: (
                    server.get("/nowhere").status == 404
                    and "more requests were refused" in server.log_text()
                )
            )

    def test_a_crowd_of_addresses_writes_no_more_than_two_of_them(self) -> None:
        lines: list[str] = []
        clock = [0.0]
        rates = Rates(100, 1.0, monotonic=lambda: clock[0])
        log = RefusalLog(lambda level, text: lines.append(text), rates)
        refusal = Refusal("forbidden", "No.")
        for number in range(5000):
            client = f"2001:db8:0:{number % 2500:x}::/64"
            log.add(f"address {number}", client, "x" * 9000, refusal)
        self.assertEqual(len(lines), 200)
        self.assertLess(max(map(len, lines)), 700)
        self.assertLessEqual(len(rates), Rates.CLIENTS)
        clock[0] = 10.0
        log.add("address", "another", "x", refusal)
        self.assertIn("4800 more requests were refused", lines[-2])


class TimeTest(unittest.TestCase):
    """Slow clients, with clocks that tick twenty times as fast."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        program = limited("request_s=0.5, idle_s=1.0, send_s=0.5")
        cls.server = Server(REGISTRY, program=program).start()
        cls.addClassCleanup(cls.server.__exit__)

    def drip(self, data: bytes, limit_s: float) -> tuple[float, Reply]:
        """Send a byte now and then until an answer comes; return when it came."""
        since_s = time.monotonic()
        with Wire(self.server.port) as wire:
            for byte in data:
                wire.send(bytes([byte]))
                wire.socket.settimeout(0.05)
                with contextlib.suppress(socket.timeout):
                    reply = wire.answer()
                    wire.socket.settimeout(15)
                    self.assertTrue(wire.closed())
                    return time.monotonic() - since_s, reply
                self.assertLess(time.monotonic() - since_s, limit_s)
        raise AssertionError("no answer came")

    def assert_cut_off(self, data: bytes) -> None:
        took_s, reply = self.drip(data, 15)
        self.assertEqual((reply.status, reply.json["code"]), (408, "request_timeout"))
        self.assertGreater(took_s, 0.4)

    @slow
    def test_a_dripping_head_is_cut_off(self) -> None:
        self.assert_cut_off(b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * 500)

    def test_who_always_has_a_byte_ready_is_cut_off(self) -> None:
        connection = mock.Mock()
        connection.recv.return_value = b"x"
        reader = Reader(connection, request_s=0.0)
        self.assertTrue(reader.wait(1.0))
        with self.assertRaises(Refusal) as raised:
            reader.head()
        self.assertEqual(raised.exception.code, "request_timeout")

    def test_a_dripping_body_is_cut_off(self) -> None:
        need_full()
        body = b'{"cronName": "hello"' + b" " * 500
        self.assert_cut_off(post(body, b"Content-Length: 500")[-520:] + b" " * 100)
        with Wire(self.server.port) as wire:
            reply = wire.send(post(b"{", b"Content-Length: 500")).answer()
            self.assertEqual(reply.status, 408)
            self.assertTrue(wire.closed())

    @slow
    def test_who_says_nothing_is_hung_up_on(self) -> None:
        since_s = time.monotonic()
        with Wire(self.server.port) as wire:
            self.assertTrue(wire.closed())
            self.assertIn(time.monotonic() - since_s, Between(0.4, 9))

    def test_a_kept_connection_may_idle_longer(self) -> None:
        need_full()
        with Wire(self.server.port) as wire:
            since_s = time.monotonic()
            self.assertEqual(wire.send(HEALTH).answer().status, 200)
            self.assertTrue(wire.closed())
            self.assertIn(time.monotonic() - since_s, Between(0.9, 14))

    def test_ten_seconds_in_earnest(self) -> None:
        need_full()
        with Server(REGISTRY) as server:
            since_s = time.monotonic()
            with Wire(server.port, timeout_s=30) as wire:
                reply = wire.send(b"GET /health HTTP/1.1\r\nHost:").answer()
                self.assertEqual(reply.status, 408)
            self.assertIn(time.monotonic() - since_s, Between(9.9, 20))


class Between:
    """A range of floats, for assertIn."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high

    def __repr__(self) -> str:
        return f"{self.low} to {self.high}"


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(entry.path).startswith("socket:")
    return count


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@slow
class TurnsTest(unittest.TestCase):
    def test_who_is_pushed_out_in_its_line_of_turns_gives_its_turn_back(self) -> None:
        few = "fit(limits)._replace(connections=m.Limit(2, 4))"
        program = support.patched(
            "m.Turns.AT_ONCE, m.Turns.STUCK_S = 1, 3.0",
            "whole, fit = m.Views.crons, m.limits_for",
            "def crons(*a):",
            "    print('busy', file=sys.stderr, flush=True)",
            "    m.time.sleep(1)",
            "    return whole(*a)",
            "m.Views.crons = crons",
            f"m.limits_for = lambda limits: {few}",
        )
        with Server(REGISTRY, program=program) as server:
            with Wire(server.port) as busy, Wire(server.port) as waiting:
                busy.send(b"GET /crons HTTP/1.1\r\n" + HEAD + b"\r\n")
                wait_until(lambda: "busy" in server.stderr())
                waiting.send(b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n")
                with Wire(server.port):
                    self.assertEqual(busy.answer().status, 200)
            taken_s = []
            for _ in range(3):
                began_s = time.monotonic()
                server.get("/health")
                taken_s.append(time.monotonic() - began_s)
            self.assertLess(min(taken_s), 2)

    def test_a_stop_lets_those_who_wait_for_their_turn_be_answered(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = support.patched(
                "import tempfile, threading",
                "m.Turns.AT_ONCE, m.Turns.STUCK_S = 1, 60.0",
                "take, check = m.Turns.take, m.Access.check",
                "busy = m.HttpServer._is_busy",
                "looked, looks = threading.Event(), []",
                "def taken(*a):",
                f"    tempfile.mkstemp(dir={folder!r})",
                "    take(*a)",
                "m.Turns.take = taken",
                "m.Access.check = lambda *a: (looked.wait(20), check(*a))[1]",
                "def is_busy(self):",
                "    self.limits = self.limits._replace(arrival_s=0.0)",
                "    looks.append(1)",
                "    if len(looks) == 2: looked.set()",
                "    return busy(self)",
                "m.HttpServer._is_busy = is_busy",
            )
            with Server(REGISTRY, program=program) as server:
                wires = []
                for _ in range(3):
                    wires.append(Wire(server.port).send(HEALTH))
                    self.addCleanup(wires[-1].socket.close)
                wait_until(lambda: len(os.listdir(folder)) == 3)
                self.assertEqual(server.stop(), 0)
                self.assertEqual([wire.answer().status for wire in wires], [200] * 3)

    def test_a_refused_client_that_stays_has_no_turn(self) -> None:
        program = support.patched(
            "m.Turns.AT_ONCE, m.Turns.STUCK_S = 1, 60.0",
            "m.Sender.linger = lambda self: m.time.sleep(60)",
        )
        refused = post(b"", b"Content-Length: 9", b"Origin: null")
        with Server(REGISTRY, program=program) as server, Wire(server.port) as wire:
            self.assertEqual(wire.send(refused).answer().status, 403)
            self.assertEqual(server.get("/health").status, 200)


class PlacesTest(unittest.TestCase):
    """How many at once; and that no crowd keeps the others out."""

    def start(self, patch: str = "", limits: str = "") -> Server:
        options = patched(patch) if patch else {"program": limited(limits)}
        server = Server(REGISTRY, **options).start()
        self.addCleanup(server.__exit__)
        return server

    def wires(self, server: Server, count: int, data: bytes = b"") -> list[Wire]:
        made = []
        for _ in range(count):
            wire = Wire(server.port)
            self.addCleanup(wire.socket.close)
            made.append(wire.send(data) if data else wire)
        return made

    def pid(self, server: Server) -> int:
        assert server.process
        return server.process.pid

    @slow
    def test_64_in_work_and_health_beside_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "open"
            server = self.start(
                "import os, tempfile, time\n"
                "metrics = cts.Api.metrics\n"
                "def slow(*arguments):\n"
                f"    tempfile.mkstemp(dir={folder!r})\n"
                f"    while not os.path.exists({str(gate)!r}): time.sleep(0.05)\n"
                "    return metrics(*arguments)\n"
                "cts.Api.metrics = slow"
            )
            data = b"GET /metrics HTTP/1.1\r\n" + HEAD + b"\r\n"
            busy = self.wires(server, 64, data)
            wait_until(lambda: len(os.listdir(folder)) == 64, what="64 in work")
            crowded = server.get("/crons")
            self.assertEqual(
                (crowded.status, crowded.json["code"]), (503, "overloaded")
            )
            self.assertEqual(crowded.headers["retry-after"], "1")
            self.assertEqual(server.get("/health").status, 200)
            gate.touch()
            self.assertEqual([wire.answer().status for wire in busy], [200] * 64)
            self.assertEqual(server.get("/crons").status, 200)

    @slow
    def test_256_connections_and_health_gets_a_place(self) -> None:
        server = self.start(limits="request_s=60.0")  # nobody is hung up on
        pid = self.pid(server)
        before = sockets_of(pid)
        silent = self.wires(server, 300)
        self.assertEqual(server.get("/health").status, 200)
        self.assertEqual(server.trigger("hello").status, 202)
        wait_until(lambda: sockets_of(pid) <= before + 256, what="256 connections")
        # The ones that came first were pushed out, the last ones stay.
        self.assertTrue(silent[0].closed())
        self.assertEqual(silent[-1].send(HEALTH).answer().status, 200)
        for wire in silent:
            wire.socket.close()
        wait_until(lambda: sockets_of(pid) <= before + 1, what="closed sockets")
        wait_until(lambda: threads_of(pid) < 8, what="ended threads")

    def test_32_event_streams(self) -> None:
        server = self.start(limits="safe_s=60.0")
        data = b"GET /events HTTP/1.1\r\n" + HEAD + b"\r\n"
        streams = self.wires(server, 32, data)
        for wire in streams:
            self.assertEqual(wire.answer().status, 200)
        reply = server.get("/events")
        self.assertEqual((reply.status, reply.json["code"]), (503, "overloaded"))
        self.assertEqual(server.get("/crons").status, 200)
        streams[0].socket.close()

        def admitted() -> bool:
            with Wire(server.port) as wire:
                return wire.send(data).answer().status == 200

        wait_until(admitted, what="the place of a stream that was closed")

    def test_a_stream_that_has_joined_is_counted_once(self) -> None:
        store, loop = mock.Mock(), mock.Mock()
        store.last_event_id.return_value, store.events_after.return_value = 0, []
        places = Places(Limit(2, 2), 9.0)
        broadcaster = Broadcaster(store, loop, mock.Mock(), 15.0, mock.Mock())
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        place = places.claim("a", "Full", 1)
        broadcaster.join(Stream(ours, place, chunked=True), 0)
        broadcaster.release(places.claim("a", "Full", 1))
        broadcaster.release(place)
        places.claim("a", "Full", 1)
        with self.assertRaises(Refusal):
            places.claim("a", "Full", 1)

    def test_an_event_stream_that_talks_is_dropped(self) -> None:
        server = self.start()
        data = b"GET /events HTTP/1.1\r\n" + HEAD + b"\r\n"
        (wire,) = self.wires(server, 1, data)
        self.assertEqual(wire.answer().status, 200)
        wire.send(HEALTH)
        with contextlib.suppress(ConnectionError):
            while wire.socket.recv(4096):
                pass
        self.assertEqual(server.get("/health").status, 200)

    def test_32_followers_of_logs(self) -> None:
        server = self.start(limits="safe_s=60.0")
        run_id = server.trigger("nap").json["runId"]
        follow = f"GET /runs/{run_id}/log?follow=true HTTP/1.1\r\n".encode()
        followers = self.wires(server, 32, follow + HEAD + b"\r\n")
        for wire in followers:
            self.assertEqual(wire.answer().status, 200)
        reply = server.get(f"/runs/{run_id}/log?follow=true")
        self.assertEqual(reply.status, 503)
        self.assertEqual(server.get(f"/runs/{run_id}/log").status, 200)

    @slow
    def test_who_reads_slowly_keeps_nobody_out(self) -> None:
        server = self.start()
        run_id = server.completed("flood")["id"]
        log = f"GET /runs/{run_id}/log HTTP/1.1\r\n".encode() + HEAD + b"\r\n"
        for _ in range(70):
            wire = socket.socket()
            self.addCleanup(wire.close)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", server.port))
            wire.sendall(log)
        self.assertEqual(server.trigger("hello").status, 202)
        for _ in range(20):
            self.assertEqual(server.get("/crons").status, 200)


class NoThreadTest(unittest.TestCase):
    """A host that gives no thread more, as where memory or a limit is reached."""

    def test_who_gets_no_thread_is_told_so(self) -> None:
        patch = (
            "from cron_trigger.web import server\n"
            "begin, fails = server.begin, [1, 1, 1]\n"
            "def flaky(name, work):\n"
            "    if fails and fails.pop():\n"
            '        raise RuntimeError("can\'t start new thread")\n'
            "    return begin(name, work)\n"
            "server.begin = flaky"
        )
        with Server(REGISTRY, **patched(patch)) as server:
            for _ in range(3):
                reply = server.get("/health")
                self.assertEqual(
                    (reply.status, reply.json["code"]), (503, "overloaded")
                )
                self.assertEqual(reply.headers["retry-after"], "1")
            self.assertEqual(server.get("/health").status, 200)
            # The accepting thread has its lines written by another one.
            told = "no descriptor, thread or memory left"
            wait_until(lambda: told in server.log_text(), what=told)


@slow
class FewDescriptorsTest(unittest.TestCase):
    """A host that gives a process 64 open files, and clients that take them."""

    def test_what_can_not_be_served_is_told_to_come_again(self) -> None:
        prlimit = need_command("prlimit")
        registry = {
            f"c{n}": {"description": "D", "command": ["true"]} for n in range(8)
        }
        python = [prlimit, "--nofile=64:64", sys.executable]
        with Server(registry, python=python) as server:
            for _ in range(60):
                wire = Wire(server.port)
                self.addCleanup(wire.socket.close)
            codes: dict[str, int] = {}
            until_s = time.monotonic() + 60

            def trigger(name: str) -> None:
                left = 3  # whoever is told to come again does
                while left and time.monotonic() < until_s:
                    with contextlib.suppress(OSError):
                        reply = server.trigger(name)
                        code = reply.json.get("code", "started")
                        codes[code] = codes.get(code, 0) + 1
                        left -= code == "started"

            threads = [threading.Thread(target=trigger, args=(n,)) for n in registry]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertLessEqual(
                set(codes), {"started", "already_running", "overloaded"}
            )
            self.assertGreater(codes["started"], 20, codes)
            self.assertEqual(server.get("/health").json["status"], "healthy")
            self.assertNotIn("internal error", server.log_text())
            self.assertNotIn("Too many open files", server.log_text())

    def test_the_limits_leave_room_for_launches(self) -> None:
        for descriptors in (20, 64, 256, 512, 1024, 1 << 20):
            limits = limits_for(Limits(), descriptors, used=20)
            held = (limits.connections, limits.streams, limits.followers)
            if descriptors >= 64:
                room = descriptors - 20 - KEPT_DESCRIPTORS
                self.assertLessEqual(sum(limit.total for limit in held), room)
            for limit in (*held, limits.work, limits.triggers):
                self.assertLessEqual(2, limit.share)
                self.assertLessEqual(limit.share, limit.total)
        self.assertEqual(limits_for(Limits(), 1024, 20), Limits())
        self.assertEqual(limits_for(Limits(), -1, 20), Limits())


#: Takes all memory but a thread's stack and some KiB, and begins a thread.
STILLBORN = """
import contextlib, mmap, os, resource, sys
from cron_trigger.registry.threads import begin
limit = 200 << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
stack = mmap.mmap(-1, (8 << 20) + (int(sys.argv[1]) << 10))
held, size = [], 16 << 20
while size >= 4096:
    try:
        held.append(mmap.mmap(-1, size))
    except OSError:
        size //= 2
for size in (3000, 100, 10):
    with contextlib.suppress(MemoryError):
        while True:
            held.append(bytes(size))
stack.close()
try:
    begin("worker", lambda: None)
    told = b"begun"
except RuntimeError as error:
    told = str(error).encode()
os.write(1, told)
os._exit(0)
"""


@slow
class LittleMemoryTest(unittest.TestCase):
    """A host that gives a process but so many addresses: `ulimit -v`, LimitAS=."""

    def test_a_thread_that_dies_at_its_birth_hangs_nobody(self) -> None:
        """Room for the stack of one, and for little that it does first."""
        told = set()
        for spare_kib in range(4, 32, 4):
            python = [sys.executable, "-c", STILLBORN, str(spare_kib)]
            output = subprocess.DEVNULL
            told.add(
                subprocess.check_output(
                    python, cwd=REPOSITORY, stderr=output, timeout=60, text=True
                )
            )
        self.assertIn("the thread worker had no memory to begin", told)

    def test_what_can_not_be_served_is_told_and_nothing_told_is_lost(self) -> None:
        codes = self.crowd(mebibytes=56)
        self.assertGreater(codes["503 overloaded"], 5, "there was enough")

    def test_200_mebibytes_are_enough_for_a_crowd(self) -> None:
        """With what glibc takes by itself they are for some five threads."""
        self.assertNotIn("503 overloaded", self.crowd(mebibytes=200))

    def crowd(self, mebibytes: int) -> dict[str, int]:
        """Have many come at once, twice; return how often each answer was given."""
        prlimit = need_command("prlimit")
        registry = {
            f"c{n}": {"description": "D", "command": ["true"]} for n in range(8)
        }
        python = [prlimit, f"--as={mebibytes << 20}", sys.executable]
        told: list[int] = []
        codes: dict[str, int] = {}
        running = "select id from cron_executions where status = 'running'"

        def trigger(name: str) -> None:
            for _ in range(15):
                with contextlib.suppress(OSError):  # closed before the request came
                    reply = server.trigger(name)
                    code = f"{reply.status} {reply.json.get('code')}"
                    codes[code] = codes.get(code, 0) + 1
                    told.extend([reply.json["runId"]] if reply.status == 202 else [])

        with Server(registry, python=python) as server:
            for idle in (0, 40):
                wires = [Wire(server.port) for _ in range(idle)]
                threads = [
                    threading.Thread(target=trigger, args=(name,)) for name in registry
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                for wire in wires:
                    wire.socket.close()
                health = wait_until(
                    lambda: (r := server.get("/health")).status == 200 and r.json
                )
                self.assertEqual(health["status"], "healthy")
                # Of a run whose answer could not be sent nobody was told.
                wait_until(lambda: not server.rows(running))
                # Whoever is told to come again does.
                told.append(
                    wait_until(
                        lambda: (
                            (r := server.trigger("c0")).status == 202
                            and r.json["runId"]
                        )
                    )
                )
                wait_until(lambda: not server.rows(running))
            known = {"202 None", "409 already_running", "503 overloaded"}
            self.assertLessEqual(set(codes), known)
            rows = dict(server.rows("select id, status from cron_executions"))
            self.assertLessEqual(set(told), set(rows))
            self.assertEqual(len(set(told)), len(told))
            self.assertEqual(set(rows.values()), {"completed"})
            self.assertNotIn("internal error", server.log_text())
        return codes


class SharesTest(unittest.TestCase):
    """Places that several clients want."""

    def setUp(self) -> None:
        self.now_s = 0.0
        self.left: list[str] = []

    def places(self, share: int, total: int, safe_s: Any = 0.0) -> Places:
        return Places(Limit(share, total), safe_s, lambda: self.now_s)

    def take(self, places: Places, client: str, name: str = "") -> Any:
        self.now_s += 1.0
        with contextlib.suppress(Refusal):
            leave = partial(self.left.append, name or client)
            return places.claim(client, "Full", 1, leave)
        return None

    def test_a_flood_pushes_out_its_own(self) -> None:
        places = self.places(3, 5)
        honest = self.take(places, "honest")
        for number in range(9):
            self.take(places, "flood", f"flood {number}")
        self.assertEqual(self.left, [f"flood {number}" for number in range(6)])
        self.assertFalse(honest.lost)
        self.assertEqual(len(places.taken()), 4)

    def test_where_all_are_taken_the_greediest_one_s_oldest_goes(self) -> None:
        places = self.places(4, 6)
        for name in ("a1", "b1", "b2", "b3", "a2", "b4"):
            self.take(places, name[0], name)
        self.assertTrue(self.take(places, "c", "c1"))
        self.assertTrue(self.take(places, "c", "c2"))
        self.assertEqual(self.left, ["b1", "b2"])
        # Each has two now, and nobody loses one to who has as many.
        self.assertTrue(self.take(places, "c", "c3"))
        self.assertEqual(self.left, ["b1", "b2", "c1"])
        self.assertTrue(self.take(places, "d", "d1"))
        self.assertEqual(len(places.taken()), 6)

    def test_who_is_at_work_or_safe_is_not_pushed_out(self) -> None:
        places = self.places(2, 4)
        one, two = (self.take(places, "a", name) for name in ("one", "two"))
        self.assertTrue(one.hold())
        self.take(places, "a", "three")
        self.assertEqual(self.left, ["two"])
        self.assertFalse(two.hold())
        places = self.places(2, 4, safe_s=10.0)
        self.take(places, "a", "first")
        self.take(places, "a", "second")
        self.assertIsNone(self.take(places, "a"))
        self.now_s += 10.0
        self.assertTrue(self.take(places, "a"))
        self.assertEqual(self.left, ["two", "first"])

    def test_a_place_is_given_back_once(self) -> None:
        places = self.places(2, 2, math.inf)
        one = self.take(places, "a")
        self.take(places, "a")
        self.assertIsNone(self.take(places, "a"))
        one.give()
        one.give()
        self.assertEqual(len(places.taken()), 1)
        self.assertTrue(self.take(places, "b"))
        self.assertIsNone(self.take(places, "b"))

    @slow
    def test_a_reader_gets_in_where_32_streams_read_nothing(self) -> None:
        program = limited("safe_s=0.2")
        with Server(REGISTRY, program=program) as server:
            data = b"GET /events HTTP/1.1\r\n" + HEAD + b"\r\n"
            silent = []
            for _ in range(32):
                wire = Wire(server.port)
                self.addCleanup(wire.socket.close)
                # One after the other: which is the oldest is known then.
                self.assertEqual(wire.send(data).answer().status, 200)
                silent.append(wire)

            def admitted() -> Any:
                wire = Wire(server.port).send(data)
                self.addCleanup(wire.socket.close)
                return wire.answer().status == 200 and wire

            reader = wait_until(admitted)
            run_id = server.trigger("hello").json["runId"]
            received = b""
            while b"event: run.finished" not in received:
                received += reader.socket.recv(65536)
            self.assertIn(f'"id": {run_id}'.encode(), received)
            # The oldest one has gone for it, and no other.
            while data := silent[0].socket.recv(65536):
                self.assertNotIn(b"run.finished", data)


class SlowHttpTest(unittest.TestCase):
    """slowhttptest's attacks, while `/health` is asked again and again."""

    MODES: dict[str, list[str]] = {
        "slow headers": ["-H"],
        "slow body": ["-B", "-s", "8192", "-t", "POST", "-f", "application/json"],
        "slow read": ["-X", "-k", "3", "-w", "1", "-y", "8", "-n", "5", "-z", "1"],
    }
    PATHS = {
        "slow headers": "/health",
        "slow body": "/trigger",
        "slow read": "/runs/1/log",
    }

    def test_health_answers_throughout(self) -> None:
        """All at once, for longer than a request may take to come."""
        need_full()
        program = need_command("slowhttptest")
        with Server(REGISTRY) as server:
            self.assertEqual(server.completed("flood")["id"], 1)
            attacks = []
            for mode, flags in self.MODES.items():
                url = f"http://127.0.0.1:{server.port}{self.PATHS[mode]}"
                attack = subprocess.Popen(
                    [program, *flags, "-c", "200", "-r", "100", "-i", "1",
                     "-l", "14", "-u", url],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )  # fmt: skip
                attacks.append(attack)
            took_s: list[float] = []
            for attack in attacks:
                while attack.poll() is None:
                    since_s = time.monotonic()
                    self.assertEqual(server.get("/health").status, 200)
                    took_s.append(time.monotonic() - since_s)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        attack.wait(0.1)
            self.assertGreater(len(took_s), 50)
            # But for a moment or two in which the host itself stood still.
            self.assertLess(sorted(took_s)[-3], 2.0)
            text = server.stderr()
            self.assertIsNone(re.search("Traceback|internal error", text))
            self.assertEqual(server.trigger("hello").status, 202)


if __name__ == "__main__":
    unittest.main()
