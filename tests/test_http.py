"""HTTP: the exact answers and errors that a dashboard or a script relies on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import re
import select
import socket
import sqlite3
import subprocess
import time
import unittest
from typing import Any, Mapping, Optional

from support import (
    PROGRAM,
    Reply,
    Server,
    Wire,
    limited,
    need_full,
    patched,
    slow,
    wait_until,
)

from cron_trigger.registry.times import now_text

REGISTRY: dict[str, Any] = {
    "hello": {"description": "Dire bonjour ✅", "command": ["echo", "hello"]},
    "lines": {
        "description": "Five lines",
        "command": ["printf", "1\\n2\\n3\\n4\\n5\\n"],
        "estimatedDuration": "2s",
    },
    "fails": {"description": "Fails", "command": ["sh", "-c", "exit 3"]},
    "sleeps": {"description": "Sleeps", "command": ["sleep", "60"]},
    "missing": {"description": "Is not there", "command": "nowhere.sh"},
    "too-much": {
        "description": "More than the system takes",
        "command": ["true"],
        "environment": {"X": "x" * 200_000},
    },
    "takes": {
        "description": "Takes parameters",
        "command": ["true"],
        "parameters": {
            "n": {"type": "integer", "default": 5, "minimum": 1},
            "word": {"type": "string"},
            "off": {"type": "boolean", "default": False},
        },
    },
}

RUN_KEYS = [
    *("id", "cronName", "status", "stopping", "exitCode", "signal", "startedAt"),
    *(
        "completedAt",
        "durationMs",
        "trigger",
        "requestedBy",
        "client",
        "pid",
        "params",
        "logFile",
    ),
    *("cpuSeconds", "maxRssBytes", "cancelledBy", "error"),
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
GET_PATHS = ("/health", "/crons", "/runs", "/scheduled", "/metrics")


def setUpModule() -> None:
    HttpCase.server = Server(REGISTRY)
    unittest.addModuleCleanup(HttpCase.server.__exit__)
    HttpCase.server.start()


class HttpCase(unittest.TestCase):
    """Tests that share one server."""

    server: Server
    environ: dict[str, str] = {}

    def count(self) -> int:
        """Return how many runs there were."""
        return int(self.server.rows("select count(*) from cron_executions")[0][0])

    def post(self, body: bytes, **headers: str) -> Reply:
        sent = {"Content-Type": "application/json"}
        sent.update({name.replace("_", "-"): v for name, v in headers.items()})
        return self.server.request("POST", "/trigger", body, sent)

    def raw(self, data: bytes, timeout_s: float = 15) -> bytes:
        """Send bytes on a connection of their own; return all that comes back.

        Nothing more is sent afterwards, so an answer that leaves the connection open
        ends with the server's seeing the end.
        """
        address = ("127.0.0.1", self.server.port)
        with socket.create_connection(address, timeout_s) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            blocks = []
            while block := connection.recv(65536):
                blocks.append(block)
        return b"".join(blocks)

    def assert_error(self, reply: Reply, status: int, code: str, *extra: str) -> Any:
        """Check that an answer is an error of the one shape; return its object."""
        self.assertEqual((reply.status, reply.json.get("code")), (status, code))
        value = reply.json
        self.assertEqual(list(value), ["success", "error", "code", *extra])
        self.assertIs(value["success"], False)
        self.assertRegex(value["error"], r'^["A-Z][^\x00-\x1f]*\.$')
        self.assertEqual(
            reply.headers["content-type"], "application/json; charset=utf-8"
        )
        self.assertEqual(int(reply.headers["content-length"]), len(reply.body))
        self.assertIn(f" {status} {code}: ", self.server.log_text())
        return value


class HealthTest(HttpCase):
    def test_it_is_exactly_the_four_keys_in_this_order(self) -> None:
        self.assertEqual(
            self.server.get("/health").text,
            '{"status": "healthy", "service": "cron-trigger-server", '
            f'"port": {self.server.port}, "available_crons": 7}}',
        )

    def test_every_answer_carries_the_same_protection(self) -> None:
        for path in (*GET_PATHS, "/nowhere"):
            with self.subTest(path):
                headers = self.server.get(path).headers
                self.assertEqual(headers["server"], "cron-trigger-server")
                self.assertEqual(headers["x-content-type-options"], "nosniff")
                self.assertEqual(headers["x-frame-options"], "DENY")
                self.assertEqual(headers["cache-control"], "no-store")
                self.assertEqual(headers["referrer-policy"], "no-referrer")
                self.assertIn("default-src 'none'", headers["content-security-policy"])
                self.assertNotIn("access-control-allow-origin", headers)
                self.assertRegex(headers["date"], r"^\w{3}, \d\d \w{3} \d{4} .* GMT$")


class TriggerTest(HttpCase):
    def test_the_answer_is_exactly_so(self) -> None:
        reply = self.server.trigger("hello")
        self.assertEqual(reply.status, 202)
        run = self.server.ended(reply.json["runId"])
        self.assertEqual(
            reply.text,
            '{"success": true, "cronName": "hello", "description": "Dire bonjour ✅", '
            '"message": "Cron execution started in background", '
            f'"logFile": "{self.server.log_dir}/hello.log", '
            f'"runId": {run["id"]}, "pid": {run["pid"]}, '
            f'"startedAt": "{run["startedAt"]}"}}',
        )

    def test_the_run_that_follows_has_every_key_and_its_figures(self) -> None:
        run = self.server.completed("hello", requestedBy="Zoë <z@example.org>")
        self.assertEqual(list(run), RUN_KEYS)
        self.assertEqual(run["requestedBy"], "Zoë <z@example.org>")
        self.assertEqual((run["trigger"], run["client"]), ("http", "127.0.0.1"))
        self.assertRegex(run["startedAt"], TIME)
        self.assertRegex(run["completedAt"], TIME)
        self.assertEqual((run["status"], run["exitCode"]), ("completed", 0))
        reply = self.server.get(f"/runs/{run['id']}")
        self.assertEqual(list(reply.json), ["success", "run"])

    def test_the_servers_log_has_a_line_for_the_trigger_and_one_for_the_end(
        self,
    ) -> None:
        run = self.server.completed("fails", requestedBy="me")
        log = self.server.log_text()
        number = run["id"]
        who = r"\(http 127\.0\.0\.1, requested by me\), pid \d+"
        self.assertRegex(log, rf"run {number} of fails started {who}\n")
        wait_until(
            lambda: f"run {number} of fails failed: exit 3" in self.server.stderr()
        )

    def test_no_field_but_the_name_is_needed_and_empty_ones_do_no_harm(self) -> None:
        fields: dict[str, Any]
        for fields in ({}, {"params": {}}, {"requestedBy": ""}):
            run = self.server.completed("hello", **fields)
            self.assertEqual((run["params"], run["requestedBy"]), ({}, None))

    def test_parameters_are_checked_kept_and_shown(self) -> None:
        run = self.server.completed("takes", params={"word": "é", "n": 7.0})
        self.assertEqual(run["params"], {"n": 7, "word": "é", "off": False})
        reply = self.server.trigger("takes", params={"n": 0, "word": 5, "x": 1})
        value = self.assert_error(reply, 400, "invalid_params", "errors")
        self.assertEqual(
            value["errors"],
            {
                "x": "is not a parameter of this cron",
                "n": "must be at least 1, got 0",
                "word": "expected a string, got 5",
            },
        )

    def test_what_runs_is_not_started_again(self) -> None:
        first = self.server.trigger("sleeps").json
        value = self.assert_error(
            self.server.trigger("sleeps"),
            *(409, "already_running", "runId", "pid", "startedAt"),
        )
        for key in ("runId", "pid", "startedAt"):
            self.assertEqual(value[key], first[key])
        crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
        self.assertEqual(crons["sleeps"]["running"]["id"], first["runId"])
        self.assertEqual(list(crons["sleeps"]["running"]), RUN_KEYS)
        reply = self.server.request("POST", f"/runs/{first['runId']}/cancel")
        self.assertEqual(reply.status, 202)
        self.assertEqual(self.server.ended(first["runId"])["status"], "cancelled")

    def test_what_somebody_else_runs_is_not_started_either(self) -> None:
        self.server.completed("lines")
        lock = self.server.run_dir / "lines.pid"
        holder = subprocess.Popen(
            ["flock", "-w", "15", str(lock), "sh", "-c", "echo held; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdin and holder.stdout
        try:
            self.assertEqual(holder.stdout.readline(), b"held\n")
            value = self.assert_error(
                self.server.trigger("lines"),
                *(409, "already_running", "runId", "pid", "startedAt"),
            )
            self.assertIsNone(value["runId"])
            crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
            self.assertEqual(
                crons["lines"]["running"], {"id": None, "trigger": "external"}
            )
        finally:
            holder.stdin.close()
            holder.wait(10)
            holder.stdout.close()
        self.assertEqual(self.server.completed("lines")["status"], "completed")


class RefusalTest(HttpCase):
    """Section 5's table, row by row."""

    def test_a_body_that_is_no_trigger(self) -> None:
        deep = b'{"cronName": "hello", "params": ' + b'{"a":' * 5000 + b"1"
        before = self.count()
        for body, words in (
            (b"", "must name a cron"),
            (b"{}", "must name a cron"),
            (b'{"cronName": ""}', "must name a cron"),
            (b'{"cronName": 5}', "must name a cron"),
            (b'{"cronName": null}', "must name a cron"),
            (b'{"cronName": ["hello"]}', "must name a cron"),
            (b"{", "is not JSON"),
            (b"hello", "is not JSON"),
            (b"cronName=hello", "is not JSON"),
            (b'{"cronName": "hello"} x', "is not JSON"),
            (b'{"cronName": NaN}', "NaN is not JSON"),
            (b'{"cronName": "\\ud800"}', "half of a surrogate pair"),
            (deep, "is not JSON"),
            (deep + b"}" * 5001, "nested too deeply"),
            (b'{"cronName": %b1%b}' % (b"[" * 980, b"]" * 980), "nested too deeply"),
            (b'{"cronName": "h\xe9llo"}', "is not UTF-8"),
            (b"[]", "must be a JSON object"),
            (b'"hello"', "must be a JSON object"),
            (b"null", "must be a JSON object"),
            (b'{"cronName": "hello", "cron": 1}', 'The field "cron" is not known'),
            (b'{"cronName": "hello", "CronName": 1}', "is not known"),
            (b'{"cronName": "a", "cronName": "b"}', "is given twice"),
            (b'{"cronName": "takes", "params": {"n": 1, "n": 2}}', "is given twice"),
            (b'{"cronName": "hello", "params": []}', '"params" must be an object'),
            (
                b'{"cronName": "hello", "requestedBy": 5}',
                '"requestedBy" must be a text',
            ),
            (b'{"cronName": "hello", "requestedBy": "a\\nb"}', '"requestedBy" must be'),
            (b'{"cronName": "hello", "runAt": 1795424400}', '"runAt" must be a time'),
            (
                b'{"cronName": "hello", "runAt": "2026-11-23T10:00:00"}',
                "with an offset",
            ),
            (b'{"cronName": "hello", "runAt": "2020-01-01T00:00Z"}', "in the future"),
        ):
            with self.subTest(body[:50]):
                value = self.assert_error(self.post(body), 400, "invalid_request")
                self.assertIn(words, value["error"])
        self.assertEqual(self.count(), before)

    def test_a_text_of_200_characters_is_kept_and_a_longer_one_is_cut(self) -> None:
        for length in (200, 201, 5000):
            run = self.server.completed("hello", requestedBy="é" * length)
            self.assertEqual(run["requestedBy"], "é" * 200)

    def test_who_asks_may_have_a_name_of_any_script(self) -> None:
        for name in ("Zoë\u00a0Ünal", "\U0001f468\u200d\U0001f4bb", "管理者"):
            run = self.server.completed("hello", requestedBy=name)
            self.assertEqual(run["requestedBy"], name)
        for name in ("a\u2028b", "a\u202eb", "a\x9bb", "\u2066"):
            reply = self.server.trigger("hello", requestedBy=name)
            self.assert_error(reply, 400, "invalid_request")

    def test_a_cron_that_is_unknown(self) -> None:
        for name in ("Hello", "hello ", "../hello", "x" * 5000, "\u202e", "hello\x00"):
            with self.subTest(name[:20]):
                value = self.assert_error(
                    self.server.trigger(name), 404, "unknown_cron", "availableCrons"
                )
                self.assertEqual(value["availableCrons"], list(REGISTRY))
                self.assertLess(len(value["error"]), 300)

    def test_an_address_that_is_unknown(self) -> None:
        for path in (
            *("/nowhere", "/health/", "//health", "/Health", "/trigger/", "/runs/"),
            *("/runs/abc", "/runs/-1", "/runs/1.0", "/runs/1/logs", "/runs/%31"),
            *("/runs/12345678901234567890", "/../etc/passwd", "/%2e%2e/etc", "/é"),
            "/crons.json",
        ):
            with self.subTest(path):
                path = path.encode().decode("latin-1")
                text = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                answer = self.raw(text.encode("latin-1"))
                self.assertTrue(answer.startswith(b"HTTP/1.1 404 Not Found\r\n"))
                self.assertIn(b'"code": "not_found"', answer)

    def test_a_run_that_is_unknown(self) -> None:
        for number in ("0", "999999", "9223372036854775807", "9999999999999999999"):
            for path in (f"/runs/{number}", f"/runs/{number}/log"):
                with self.subTest(path):
                    self.assert_error(self.server.get(path), 404, "not_found")
            path = f"/runs/{number}/cancel"
            self.assert_error(self.server.request("POST", path), 404, "not_found")

    def test_a_method_that_an_address_does_not_take_is_405_with_allow(self) -> None:
        allowed = {
            "/": "GET, HEAD",
            "/health": "GET, HEAD",
            "/trigger": "POST",
            "/crons": "GET, HEAD",
            "/crons/hello": "GET, HEAD",
            "/openapi.json": "GET, HEAD",
            "/main.js": "GET, HEAD",
            "/runs": "GET, HEAD",
            "/runs/1": "GET, HEAD",
            "/runs/1/log": "GET, HEAD",
            "/runs/1/cancel": "POST",
            "/scheduled": "GET, HEAD",
            "/scheduled/1": "DELETE",
            "/events": "GET, HEAD",
            "/metrics": "GET, HEAD",
        }
        for path, allow in allowed.items():
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                if method in allow:
                    continue
                with self.subTest(path=path, method=method):
                    reply = self.server.request(method, path)
                    value = self.assert_error(reply, 405, "method_not_allowed")
                    self.assertEqual(reply.headers["allow"], allow)
                    self.assertIn(f"takes {allow}, not {method}", value["error"])
        self.assertEqual(self.server.request("HEAD", "/trigger").status, 405)
        self.assertEqual(self.server.request("get", "/health").status, 405)

    def test_a_query_that_an_address_does_not_take(self) -> None:
        for path, words in (
            ("/crons?cron=hello", "takes: none"),
            ("/crons/hello?x=1", "takes: none"),
            ("/runs?x=1", "takes: cron, status, since, until, limit, before"),
            ("/runs?limit=1&limit=1", '"limit" is given twice'),
            ("/runs?limit", "not of the form"),
            ("/runs?&", "not of the form"),
            ("/runs?cron=%ff", "not of the form"),
            ("/runs?limit=0", "from 1 to 500"),
            ("/runs?limit=501", "from 1 to 500"),
            ("/runs?limit=", "from 1 to 500"),
            ("/runs?limit=%2B5", "from 1 to 500"),
            ("/runs?limit=1e2", "from 1 to 500"),
            ("/runs?before=0", "a whole number from 1"),
            ("/runs?before=-5", "a whole number from 1"),
            ("/runs?before=99999999999999999999", "a whole number from 1"),
            ("/runs?status=done", "must be one of running, completed, failed"),
            ("/runs?status=", "must be one of"),
            ("/runs?cron=", "must be a cron's name"),
            ("/runs?cron=a%00b", "must be a cron's name"),
            ("/runs/1/log?tail=-1", "a whole number from 0"),
            ("/runs/1/log?tail=x", "a whole number from 0"),
            ("/runs/1/log?follow=yes", "must be true or false"),
            ("/runs/1?tail=1", "takes: wait"),
            ("/runs/1?wait=61", "from 0 to 60"),
            ("/runs/1?wait=-1", "from 0 to 60"),
            ("/runs/1?wait=1.5", "from 0 to 60"),
            ("/runs/1?wait=", "from 0 to 60"),
            ("/runs/1/log?from=-1", "a whole number from 0"),
            ("/runs/1/log?from=1&tail=1", "exclude each other"),
            ("/runs?status=failed,done", "must be one of running, completed, failed"),
            ("/runs?status=failed,", "must be one of"),
            ("/runs?since=yesterday", '"since" must be a time with an offset'),
            ("/runs?until=2026-11-23T10:00:00", "with an offset"),
            ("/runs?until=0001-01-01T00:00:00%2B23:59", "with an offset"),
        ):
            with self.subTest(path):
                reply = self.server.get(path)
                value = self.assert_error(reply, 400, "invalid_request")
                self.assertIn(words, value["error"])
        reply = self.server.request("POST", "/trigger?x=1", {"cronName": "hello"})
        self.assert_error(reply, 400, "invalid_request")

    def test_a_body_that_is_not_json_by_its_type(self) -> None:
        body = b'{"cronName": "hello"}'
        for kind in (
            *("", "text/plain", "application/x-www-form-urlencoded", "text/json"),
            *("application/json; charset=latin-1", "application/jsonx", "json"),
            "multipart/form-data; boundary=x",
        ):
            with self.subTest(kind):
                reply = self.post(body, Content_Type=kind)
                self.assert_error(reply, 415, "unsupported_media_type")
        reply = self.server.request("POST", "/trigger", body)
        self.assert_error(reply, 415, "unsupported_media_type")

    def test_ways_to_write_the_json_type(self) -> None:
        for kind in (
            *("application/json", "Application/JSON", "application/json;charset=utf-8"),
            *('application/json; charset="UTF-8"', "application/json ;charset=utf-8"),
            *("application/json; charset=utf8", "application/json; charset=UTF_8"),
            *("application/json;", "application/json; charset=utf-8;"),
            "application/json; profile=x; charset=utf-8; q=1",
            "application/json; odata.metadata=minimal",
        ):
            with self.subTest(kind):
                reply = self.post(b"{}", Content_Type=kind)
                self.assertIn("must name a cron", reply.json["error"])

    def test_a_body_without_a_length_in_chunks_or_too_long(self) -> None:
        head = b"POST /trigger HTTP/1.1\r\nHost: localhost\r\n"
        kind = b"Content-Type: application/json\r\n"
        for more, status, code in (
            (b"\r\n", 411, "length_required"),
            (b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 411, "length_required"),
            (b"Content-Length: 65537\r\n\r\n", 413, "body_too_large"),
            (b"Content-Length: 9999999999999999999\r\n\r\n", 413, "body_too_large"),
            (b"Content-Length: x\r\n\r\n", 400, "invalid_request"),
            (b"Content-Length: -1\r\n\r\n", 400, "invalid_request"),
            (b"Content-Length: 2, 2\r\n\r\n{}", 400, "invalid_request"),
            (b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, "invalid_req"),
        ):
            with self.subTest(more):
                answer = self.raw(head + kind + more)
                self.assertTrue(answer.startswith(f"HTTP/1.1 {status} ".encode()))
                self.assertIn(f'"code": "{code}'.encode(), answer)
                closed = b"\r\nConnection: close\r\n" in answer
                self.assertEqual(closed, more != b"\r\n")  # there nothing is unread

    def test_a_body_of_64_kib_is_taken(self) -> None:
        body = b'{"cronName": "nobody"}'
        reply = self.post(body + b" " * (65536 - len(body)))
        self.assertEqual(reply.status, 404)
        self.assert_error(self.post(body + b" " * 65536), 413, "body_too_large")

    def test_a_host_or_origin_that_is_not_ours(self) -> None:
        reply = self.server.get("/health", Host="evil.example")
        self.assert_error(reply, 421, "misdirected_request")
        reply = self.server.get("/crons", Origin="https://evil.example")
        self.assert_error(reply, 403, "forbidden")

    def test_a_script_that_can_not_be_started(self) -> None:
        self.assert_error(self.server.trigger("missing"), 500, "launch_failed", "runId")

    def test_requests_that_are_none(self) -> None:
        for data in (
            *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n"),
            *(b"GET /health\r\n\r\n", b"GET /health HTTP/2.0\r\n\r\n", b" \r\n\r\n"),
            *(
                b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /he alth HTTP/1.1\r\n\r\n",
            ),
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n folded: y\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            b"GET /health HTTP/1.1\r\n\r\n",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n",
            b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
        ):
            with self.subTest(data[:40]):
                answer = self.raw(data)
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
                self.assertIn(b'"code": "invalid_request"', answer)
                self.assertIn(b"\r\nConnection: close\r\n", answer)

    def test_half_a_request_gets_no_answer_and_does_no_harm(self) -> None:
        for data in (b"", b"G", b"GET /health HTTP/1.1\r\nHost: loc", b"\r\n\r\n"):
            with self.subTest(data):
                self.assertEqual(self.raw(data), b"")
        self.assertNotIn("internal error", self.server.log_text())

    def test_a_refusal_is_one_line_in_the_log(self) -> None:
        self.raw(b"GET /x%0aforged\x1b[2J\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        lines = self.server.log_text().splitlines()
        self.assertTrue(all(line.isprintable() for line in lines))
        self.assertIn("warning refused GET /x%0aforged", "\n".join(lines))


class OrdinaryClientsTest(HttpCase):
    """What ordinary clients send, and is no reason to refuse them."""

    def test_null_in_an_optional_field_is_as_if_it_were_not_given(self) -> None:
        for more in (
            {"params": None},
            {"requestedBy": None},
            {"runAt": None},
            {"params": None, "requestedBy": None, "runAt": None},
        ):
            run = self.server.completed("hello", **more)
            self.assertEqual((run["params"], run["requestedBy"]), ({}, None))
        run = self.server.completed("takes", params={"n": None, "word": None})
        self.assertEqual(run["params"], {"n": 5, "off": False})

    def test_a_byte_order_mark_is_no_part_of_the_body(self) -> None:
        reply = self.post(b'\xef\xbb\xbf{"cronName": "hello"}')
        self.assertEqual(reply.status, 202)
        self.server.ended(reply.json["runId"])

    def test_the_query_of_the_page_and_of_health_is_ignored(self) -> None:
        for query in ("?1732550000", "?utm_source=mail", "?x=1&x=1", "?&&", "?%ff"):
            self.assertEqual(self.server.get(f"/health{query}").status, 200)
            self.assertNotEqual(self.server.get(f"/{query}").status, 400)

    def test_nothing_may_be_sent_with_any_type_where_nothing_is_needed(self) -> None:
        for headers in (
            {},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "text/plain", "Content-Length": "0"},
            {"Content-Type": "application/json"},
        ):
            run_id = self.server.trigger("sleeps").json["runId"]
            path = f"/runs/{run_id}/cancel"
            foreign = {**headers, "Origin": "https://evil.example"}
            reply = self.server.request("POST", path, headers=foreign)
            self.assert_error(reply, 403, "forbidden")
            reply = self.server.request("POST", path, headers=headers)
            self.assertEqual(reply.status, 202)
            self.server.ended(run_id)

    def chunked(self, chunks: bytes, path: bytes = b"/trigger") -> bytes:
        head = (
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        again = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        return self.raw(head + chunks + again)

    def test_a_body_in_chunks_is_taken_and_the_next_request_too(self) -> None:
        body = b'{"cronName": "nobody"}'
        for chunks in (
            b"16\r\n" + body + b"\r\n0\r\n\r\n",
            b"016 ;a=b\r\n" + body + b"\r\n00\r\n\r\n",
            b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
            b"16\r\n" + body + b"\r\nffe0\r\n" + b" " * 65504 + b"\r\n0\r\n\r\n",
        ):
            answer = self.chunked(chunks)
            self.assertIn(b'"code": "unknown_cron"', answer)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 2)

    def test_chunks_that_are_none_end_the_connection(self) -> None:
        for chunks, status in (
            (b"xx\r\n{}\r\n0\r\n\r\n", 400),
            (b"-1\r\n{}\r\n0\r\n\r\n", 400),
            (b"+2\r\n{}\r\n0\r\n\r\n", 400),
            (b"0x2\r\n{}\r\n0\r\n\r\n", 400),
            (b"2\n{}\r\n0\r\n\r\n" + b"x" * 300, 400),
            (b"1\r\n{}\r\n0\r\n\r\n", 400),
            (b"2;a=\x01\r\n{}\r\n0\r\n\r\n", 400),
            (b"2\r\n{}\r\n0\r\nTrailer: 1\r\n\r\n", 400),
            (b"10001\r\n", 413),
            (b"ffffffff\r\n", 413),
            (b"fffffffff\r\n", 400),
            (b"1\r\n \r\n" * 5000, 413),
        ):
            with self.subTest(chunks[:30]):
                answer = self.chunked(chunks)
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1, answer)
                self.assertIn(b"HTTP/1.1 %d " % status, answer)

    def test_a_second_connection_header_is_honoured(self) -> None:
        for lines in (
            b"Connection: keep-alive\r\nConnection: close\r\n",
            b"Connection: close\r\nConnection: keep-alive\r\n",
            b"Connection: x, Close ,y\r\n",
        ):
            one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n"
            answer = self.raw(one + one)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
        one = one.replace(b"Close", b"closed")
        self.assertEqual(self.raw(one + one).count(b"HTTP/1.1 "), 2)


class AnswerTest(HttpCase):
    """What answers say beside their contents."""

    def test_a_trigger_says_where_its_run_is(self) -> None:
        reply = self.server.trigger("hello")
        self.assertEqual(reply.headers["location"], f"runs/{reply.json['runId']}")
        self.assertNotIn("idempotent-replay", reply.headers)
        self.server.ended(reply.json["runId"])

    def test_one_cron_is_what_the_list_has_of_it(self) -> None:
        listed = self.server.get("/crons").json
        reply = self.server.get("/crons/takes").json
        self.assertEqual(list(reply), ["success", "host", "cron"])
        self.assertIn(reply["cron"], listed["crons"])
        self.assertEqual(reply["host"], listed["host"])
        reply = self.server.get("/crons/Takes")
        self.assert_error(reply, 404, "unknown_cron", "availableCrons")

    def test_large_answers_are_compressed_where_the_client_takes_it(self) -> None:
        for _ in range(3):
            self.server.completed("hello")
        for path in ("/crons", "/runs", "/metrics"):
            plain = self.server.get(path)
            self.assertEqual(plain.headers["vary"], "Accept-Encoding")
            self.assertNotIn("content-encoding", plain.headers)
            for wish in ("gzip", "br, GZIP;q=0.5", "deflate, x-gzip"):
                packed = self.server.get(path, **{"Accept-Encoding": wish})
                self.assertEqual(packed.headers["content-encoding"], "gzip")
                self.assertLess(len(packed.body), len(plain.body) / 2)
                self.assertEqual(gzip.decompress(packed.body), plain.body)
            for wish in ("identity", "gzip;q=0", "gzip;q=0.00, br", "gzipped"):
                reply = self.server.get(path, **{"Accept-Encoding": wish})
                self.assertEqual(reply.body, plain.body)
        small = self.server.get("/health", **{"Accept-Encoding": "gzip"})
        self.assertNotIn("content-encoding", small.headers)

    def test_streams_are_not_kept_back_by_a_proxy(self) -> None:
        run_id = self.server.trigger("sleeps").json["runId"]
        for path in ("/events", f"/runs/{run_id}/log?follow=true"):
            reply = self.server.request("HEAD", path)
            self.assertEqual(reply.headers["x-accel-buffering"], "no")
        self.server.request("POST", f"/runs/{run_id}/cancel")
        self.server.ended(run_id)


class WaitTest(HttpCase):
    """GET /runs/ID?wait=: one question instead of many."""

    def cancelled(self, run_id: int) -> None:
        self.server.request("POST", f"/runs/{run_id}/cancel")
        self.server.ended(run_id)

    def waiting(self, server: Server, run_id: int) -> Wire:
        """Ask for the end of a run, and return once the server has accepted that."""
        wire = Wire(server.port)
        self.addCleanup(wire.socket.close)
        head = f"GET /runs/{run_id}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        wire.send(head.encode())
        self.assertEqual(server.get("/health").status, 200)  # accepted after it
        return wire

    def test_it_answers_as_soon_as_the_run_has_ended(self) -> None:
        run_id = self.server.trigger("sleeps").json["runId"]
        wire = self.waiting(self.server, run_id)
        self.assertEqual(select.select([wire.socket], [], [], 0.1)[0], [])
        self.cancelled(run_id)
        reply = wire.answer()
        self.assertEqual(list(reply.json), ["success", "run"])
        self.assertEqual(reply.json["run"]["status"], "cancelled")

    @slow
    def test_it_answers_when_the_time_is_over(self) -> None:
        run_id = self.server.trigger("sleeps").json["runId"]
        since_s = time.monotonic()
        for wait in (0, 1):
            reply = self.server.get(f"/runs/{run_id}?wait={wait}")
            self.assertEqual(reply.json["run"]["status"], "running")
        self.assertGreaterEqual(time.monotonic() - since_s, 1)
        self.cancelled(run_id)
        reply = self.server.get(f"/runs/{run_id}?wait=60")
        self.assertEqual(reply.json["run"]["status"], "cancelled")

    def test_many_that_wait_keep_nobody_from_work(self) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(40)
        with Server(REGISTRY, program=limited("safe_s=60.0")) as own, pool:
            run_id = own.trigger("sleeps").json["runId"]
            path = f"/runs/{run_id}?wait=60"
            asked = [
                pool.submit(own.request, "GET", path, timeout_s=60) for _ in range(40)
            ]
            wait_until(lambda: sum(one.done() for one in asked) == 8)
            self.assertEqual(own.get("/crons").status, 200)
            own.request("POST", f"/runs/{run_id}/cancel")
            replies = [one.result(20) for one in asked]
        statuses = sorted(reply.status for reply in replies)
        self.assertEqual(statuses, [200] * 32 + [503] * 8)

    def test_a_server_that_stops_answers_first(self) -> None:
        # So long for the request of a connection that was accepted.
        with Server(REGISTRY, program=limited("arrival_s=10.0")) as own:
            run_id = own.trigger("sleeps").json["runId"]
            wire = self.waiting(own, run_id)
            own.stop()
            self.assertEqual(wire.answer().json["run"]["status"], "running")


class OwnServerCase(HttpCase):
    """Tests that share one server with nobody else's."""

    program: tuple[str, ...] = (str(PROGRAM),)

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY, cls.environ, program=cls.program)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()


class SecretTest(OwnServerCase):
    environ = {"CRON_TRIGGER_SECRET": "correct-horse-~!0"}

    def test_without_the_secret_only_health_answers(self) -> None:
        self.assertEqual(self.server.get("/health").status, 200)
        for path in (
            "/crons",
            "/runs",
            "/runs/1",
            "/runs/1/log",
            "/nowhere",
            "/events",
        ):
            with self.subTest(path):
                reply = self.server.get(path)
                self.assert_error(reply, 401, "unauthorized")
        self.assert_error(self.server.trigger("hello"), 401, "unauthorized")

    def test_either_header_opens(self) -> None:
        secret = self.environ["CRON_TRIGGER_SECRET"]
        for headers in (
            {"X-Trigger-Secret": secret},
            {"Authorization": f"Bearer {secret}"},
            {"Authorization": f"bearer {secret}"},
        ):
            with self.subTest(list(headers)):
                reply = self.server.request("GET", "/crons", headers=headers)
                self.assertEqual(reply.status, 200)


class LimitTest(unittest.TestCase):
    def test_a_request_that_dawdles_is_408_and_a_full_house_503(self) -> None:
        need_full()
        program = limited("request_s=5.0, work=Limit(0, 0)")
        with Server(REGISTRY, program=program) as made:
            address = ("127.0.0.1", made.port)
            with socket.create_connection(address, 20) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: local")
                answer = connection.recv(65536)
                self.assertTrue(answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n"))
                self.assertIn(b'"code": "request_timeout"', answer)
                self.assertEqual(connection.recv(1), b"")
            reply = made.get("/crons")
            self.assertEqual((reply.status, reply.json["code"]), (503, "overloaded"))
            self.assertEqual(reply.headers["retry-after"], "1")
            self.assertEqual(made.get("/health").status, 200)


class HeadTest(HttpCase):
    def test_a_head_is_its_get_without_the_body(self) -> None:
        run = self.server.completed("lines")
        log = f"/runs/{run['id']}/log"
        for path in (
            *GET_PATHS,
            f"/runs/{run['id']}",
            log,
            f"{log}?tail=2",
            "/nowhere",
        ):
            with self.subTest(path):
                get = self.server.get(path)
                head = self.server.request("HEAD", path)
                self.assertEqual((head.status, head.body), (get.status, b""))
                for headers in (get.headers, head.headers):
                    headers.pop("date")
                self.assertEqual(head.headers, get.headers)

    def test_nothing_follows_the_head(self) -> None:
        for path in (b"/health", b"/runs", b"/events", b"/nowhere", b"/trigger"):
            text = b"HEAD %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path
            self.assertTrue(self.raw(text).endswith(b"\r\n\r\n"), path)


class ConnectionTest(HttpCase):
    def connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        self.addCleanup(made.close)
        made.connect()
        return made

    def test_one_connection_carries_many_requests_also_refused_ones(self) -> None:
        connection = self.connection()
        first = connection.sock
        for _ in range(3):
            for method, path, body, status in (
                ("GET", "/health", None, 200),
                ("POST", "/trigger", b'{"cronName": "nobody"}', 404),
                ("GET", "/nowhere", None, 404),
                ("POST", "/trigger", b"{", 400),
                ("HEAD", "/runs", None, 200),
                ("PUT", "/health", None, 405),
                ("GET", "/runs?limit=0", None, 400),
            ):
                headers = {"Content-Type": "application/json"}
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                self.assertEqual(answer.status, status, path)
                self.assertIs(connection.sock, first, path)

    def test_requests_sent_at_once_are_answered_in_their_order(self) -> None:
        one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        other = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
        body = b'{"cronName": "nobody"}'
        post = (
            b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/"
            b"json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = self.raw(one + post + other + one)
        codes = re.findall(rb'HTTP/1\.1 (\d+) |"code": "(\w+)"', answer)
        self.assertEqual(
            [code or name for code, name in codes],
            [b"200", b"404", b"unknown_cron", b"404", b"not_found", b"200"],
        )

    def test_an_empty_line_before_a_request_is_passed_over(self) -> None:
        one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = self.raw(b"\r\n" + one + b"\r\n" + one)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 2)

    def test_after_an_unread_body_nothing_more_is_read(self) -> None:
        """Or the body would be taken for a request: smuggling."""
        smuggled = b"GET /crons HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for header in (b"Transfer-Encoding: chunked", b"Content-Length: 99999999"):
            head = b"POST /trigger HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % header
            self.assertEqual(self.raw(head + smuggled).count(b"HTTP/1.1 "), 1)

    def test_the_client_decides_when_to_close(self) -> None:
        for head in (
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /health HTTP/1.0\r\n\r\n",
            b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ):
            with self.subTest(head):
                again = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                answer = self.raw(head + again)
                self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 1)
                self.assertIn(b"\r\nConnection: close\r\n", answer)

    def test_a_client_that_asks_first_is_told_to_go_on(self) -> None:
        head = (
            b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.server.port), 10) as client:
            client.sendall(head)
            self.assertEqual(client.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            client.sendall(b"{}")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 400 "))

    def test_a_request_in_single_bytes_is_a_request(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port), 10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n":
                client.sendall(bytes([byte]))
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n"))


class HistoryTest(OwnServerCase):
    """GET /runs, over a history that was written for it."""

    environ = {"CRON_TRIGGER_HISTORY_DAYS": "36500"}  # none of it is ever pruned

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        statuses = ("completed", "failed", "cancelled", "timed_out", "interrupted")
        rows = [
            (
                number,
                "hello" if number % 3 else "lines",
                statuses[number % 5],
                now_text(1_795_000_000 + number),
                now_text(1_795_000_001 + number),
                number,
                number % 5,
                "http",
            )
            for number in range(1, 601)
        ]
        db = sqlite3.connect(cls.server.state_dir / "history.db", timeout=10)
        db.executemany(
            "insert into cron_executions (id, cron_name, status, started_at, "
            "completed_at, duration_ms, exit_code, trigger) values (?,?,?,?,?,?,?,?)",
            rows,
        )
        db.commit()
        db.close()

    def page(self, query: str = "") -> tuple[list[int], Optional[int]]:
        reply = self.server.get(f"/runs{query}")
        self.assertEqual(list(reply.json), ["success", "runs", "next"])
        for run in reply.json["runs"]:
            self.assertEqual(list(run), RUN_KEYS)
        return [run["id"] for run in reply.json["runs"]], reply.json["next"]

    def walk(self, query: str) -> list[int]:
        """Follow `next` to the last page; return every id in order."""
        found, following = self.page(f"?{query}")
        while following is not None:
            self.assertEqual(following, found[-1])
            ids, following = self.page(f"?{query}&before={following}")
            self.assertTrue(ids)
            found += ids
        return found

    def test_the_newest_50_come_first(self) -> None:
        self.assertEqual(self.page(), (list(range(600, 550, -1)), 551))

    def test_every_run_is_on_exactly_one_page(self) -> None:
        everything = list(range(600, 0, -1))
        for limit in (7, 100, 200, 500):
            self.assertEqual(self.walk(f"limit={limit}"), everything)

    def test_a_page_of_long_runs_ends_earlier_and_the_next_goes_on(self) -> None:
        # 250 clients that ask for such pages and read nothing must not fill the memory.
        everything = list(range(600, 0, -1))
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as db, db:
            columns = "rowid, params"
            before = db.execute(f"select {columns} from cron_executions").fetchall()
            long = json.dumps({"text": "x" * 40000})
            query = "update cron_executions set params = ? where id > 560 or id <= 40"
            db.execute(query, (long,))
        try:
            ids, _ = self.page("?limit=500")
            self.assertEqual(ids, everything[:12])
            self.assertEqual(self.walk("limit=500"), everything)
        finally:
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as db, db:
                back = [(params, rowid) for rowid, params in before]
                query = "update cron_executions set params = ? where rowid = ?"
                db.executemany(query, back)

    def test_the_last_page_has_no_next_even_where_it_is_full(self) -> None:
        self.assertEqual(self.page("?limit=2&before=3"), ([2, 1], None))
        self.assertEqual(self.page("?limit=2&before=4"), ([3, 2], 2))
        self.assertEqual(self.page("?before=1"), ([], None))
        self.assertEqual(self.page("?before=9223372036854775807&limit=1"), ([600], 600))

    def test_filters_alone_and_together(self) -> None:
        lines = [n for n in range(600, 0, -1) if n % 3 == 0]
        self.assertEqual(self.walk("cron=lines&limit=30"), lines)
        failed = [n for n in range(600, 0, -1) if n % 5 == 1]
        self.assertEqual(self.walk("status=failed&limit=50"), failed)
        both = [n for n in lines if n % 5 == 1]
        self.assertEqual(self.walk("cron=lines&status=failed&limit=11"), both)
        self.assertEqual(self.page("?cron=never-heard-of"), ([], None))
        self.assertEqual(self.page("?status=running"), ([], None))

    def test_several_statuses_are_asked_for_with_commas(self) -> None:
        wanted = [n for n in range(600, 0, -1) if n % 5 in (1, 2)]
        self.assertEqual(self.walk("status=failed,cancelled&limit=50"), wanted)
        both = [n for n in wanted if n % 3 == 0]
        query = "cron=lines&status=cancelled%2Cfailed,failed&limit=50"
        self.assertEqual(self.walk(query), both)

    def test_runs_of_a_time_since_is_in_it_until_is_not(self) -> None:
        def at(number: int, offset: str = "+00:00", shift_s: int = 0) -> str:
            text = now_text(1_795_000_000 + number + shift_s)
            return text.replace("+00:00", offset).replace("+", "%2B")

        since, until = at(100), at(200)
        ids = list(range(199, 99, -1))
        self.assertEqual(self.walk(f"since={since}&until={until}&limit=30"), ids)
        self.assertEqual(self.page(f"?until={at(3)}"), ([2, 1], None))
        self.assertEqual(self.page(f"?since={at(599)}"), ([600, 599], None))
        # The same moment as another country writes it.
        since = at(100, "+01:00", 3600)
        self.assertEqual(self.walk(f"since={since}&until={until}&limit=30"), ids)
        self.assertEqual(self.page(f"?since={until}&until={since}"), ([], None))
        # A plus sign that nobody escaped.
        plain = now_text(1_795_000_599)
        self.assertEqual(self.page(f"?since={plain}"), ([600, 599], None))

    def test_the_list_of_crons_has_their_figures(self) -> None:
        reply = self.server.get("/crons")
        self.assertEqual(list(reply.json), ["success", "host", "crons"])
        self.assertEqual(reply.json["host"], socket.gethostname())
        crons = {cron["cronName"]: cron for cron in reply.json["crons"]}
        self.assertEqual(list(crons), list(REGISTRY))
        lines = crons["lines"]
        self.assertEqual(
            list(lines),
            [
                *("cronName", "description", "estimatedDuration", "parameters"),
                *("logFile", "user", "running", "lastRun", "schedule", "nextRunAt"),
                *("late", "runs", "successRate", "medianDurationMs", "recentRuns"),
            ],
        )
        self.assertEqual((lines["runs"], lines["successRate"]), (200, 0.2))
        recent = list(range(513, 601, 3))
        self.assertEqual([run["id"] for run in lines["recentRuns"]], recent)
        self.assertEqual(
            lines["recentRuns"][-1],
            {
                "id": 600,
                "status": "completed",
                "durationMs": 600,
                "startedAt": now_text(1_795_000_600),
            },
        )
        self.assertEqual(lines["medianDurationMs"], (recent[14] + recent[15]) // 2)
        self.assertEqual(lines["lastRun"]["id"], 600)
        self.assertIsNone(lines["running"])

    def test_a_cron_that_never_ran_has_no_figures(self) -> None:
        crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
        self.assertEqual(
            crons["takes"],
            {
                "cronName": "takes",
                "description": "Takes parameters",
                "estimatedDuration": None,
                "parameters": REGISTRY["takes"]["parameters"],
                "logFile": f"{self.server.log_dir}/takes.log",
                "user": None,
                "running": None,
                "lastRun": None,
                "schedule": None,
                "nextRunAt": None,
                "late": False,
                "runs": 0,
                "successRate": None,
                "medianDurationMs": None,
                "recentRuns": [],
            },
        )


class LogTest(HttpCase):
    def test_the_last_lines(self) -> None:
        run = self.server.completed("lines")
        path = f"/runs/{run['id']}/log"
        reply = self.server.get(path)
        self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(reply.headers["content-length"], "10")
        for query, text in {
            "": "1\n2\n3\n4\n5\n",
            "?tail=2": "4\n5\n",
            "?tail=5": "1\n2\n3\n4\n5\n",
            "?tail=1000000000": "1\n2\n3\n4\n5\n",
            "?tail=0": "",
            "?follow=false": "1\n2\n3\n4\n5\n",
            "?tail=1&follow=false": "5\n",
        }.items():
            with self.subTest(query):
                self.assertEqual(self.server.get(path + query).text, text)

    def test_it_is_this_runs_output_and_nobody_elses(self) -> None:
        runs = [self.server.completed("hello") for _ in range(3)]
        for run in runs:
            self.assertEqual(self.server.get(f"/runs/{run['id']}/log").text, "hello\n")


class IdempotencyTest(OwnServerCase):
    """An Idempotency-Key makes a retry safe: one run, the same answer."""

    # For a changed registry, and for the launch of which an equal request waits.
    program = patched("m.Registry.PATIENCE_S = m.Launch.PATIENCE_S = 15.0")

    def tearDown(self) -> None:
        def running() -> Any:
            return self.server.get("/runs?status=running").json["runs"]

        wait_until(lambda: not running(), what="the end of every run")

    def send(self, key: str, body: Mapping[str, Any]) -> Reply:
        return self.server.request(
            "POST", "/trigger", dict(body), {"Idempotency-Key": key}
        )

    def test_a_retry_gets_the_first_answer_and_starts_nothing(self) -> None:
        before = self.count()
        first = self.send("k1", {"cronName": "hello"})
        self.server.ended(first.json["runId"])
        self.assertNotIn("idempotent-replay", first.headers)
        for _ in range(3):
            again = self.send("k1", {"cronName": "hello"})
            self.assertEqual((again.status, again.text), (202, first.text))
            self.assertEqual(again.headers["idempotent-replay"], "true")
            self.assertEqual(again.headers["location"], first.headers["location"])
        self.assertEqual(self.count(), before + 1)

    def test_a_retry_while_it_runs_is_no_conflict(self) -> None:
        first = self.send("k2", {"cronName": "sleeps"})
        self.assertEqual(self.send("k2", {"cronName": "sleeps"}).text, first.text)
        self.assertEqual(self.send("other", {"cronName": "sleeps"}).status, 409)
        self.assertEqual(self.server.trigger("sleeps").status, 409)
        self.server.request("POST", f"/runs/{first.json['runId']}/cancel")
        self.server.ended(first.json["runId"])
        # A key that was refused is free: its next use is a new trigger.
        second = self.send("other", {"cronName": "sleeps"})
        self.assertEqual(second.status, 202)
        self.server.request("POST", f"/runs/{second.json['runId']}/cancel")
        self.server.ended(second.json["runId"])

    def test_other_contents_are_422_and_start_nothing(self) -> None:
        body = {"cronName": "takes", "params": {"n": 2, "word": "x"}}
        first = self.send("k3", body)
        before = self.count()
        for other in (
            {"cronName": "takes"},
            {"cronName": "takes", "params": {"n": 3, "word": "x"}},
            {**body, "requestedBy": "me"},
            {**body, "runAt": "2100-01-01T00:00:00Z"},
        ):
            with self.subTest(other):
                self.assert_error(self.send("k3", other), 422, "idempotency_mismatch")
        turned = {"params": {"word": "x", "n": 2}, "cronName": "takes"}
        self.assertEqual(self.send("k3", turned).text, first.text)
        self.assertEqual(self.count(), before)

    def test_the_key_belongs_to_one_cron(self) -> None:
        first = self.send("k4", {"cronName": "hello"})
        second = self.send("k4", {"cronName": "lines"})
        self.assertEqual((first.status, second.status), (202, 202))
        self.assertNotEqual(first.json["runId"], second.json["runId"])

    def test_across_a_restart_and_a_sigkill_it_is_the_same_run(self) -> None:
        first = self.send("k5", {"cronName": "takes", "params": {"word": "é"}})
        self.server.ended(first.json["runId"])
        before = self.count()
        for end in (self.server.stop, self.server.kill):
            end()
            self.server.start()
            again = self.send("k5", {"cronName": "takes", "params": {"word": "é"}})
            self.assertEqual((again.status, again.text), (202, first.text))
            self.assert_error(
                self.send("k5", {"cronName": "takes"}), 422, "idempotency_mismatch"
            )
        self.assertEqual(self.count(), before)

    def test_many_at_once_are_one_run(self) -> None:
        before = self.count()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            body = {"cronName": "fails"}
            replies = list(pool.map(lambda _: self.send("k6", body), range(20)))
        self.assertEqual({reply.text for reply in replies}, {replies[0].text})
        self.assertEqual(self.count(), before + 1)

    def test_a_trigger_that_failed_to_start_may_be_tried_again(self) -> None:
        for name in ("missing", "too-much"):
            with self.subTest(name):
                first, second = (self.send("k7", {"cronName": name}) for _ in range(2))
                self.assertEqual((first.status, second.status), (500, 500))
                self.assertNotEqual(first.json["runId"], second.json["runId"])

    def test_after_a_day_the_key_is_free(self) -> None:
        first = self.send("k8", {"cronName": "hello"})
        self.server.ended(first.json["runId"])
        db = sqlite3.connect(self.server.state_dir / "history.db", timeout=10)
        db.execute("update idempotency_keys set created_s = created_s - 86401")
        db.commit()
        db.close()
        second = self.send("k8", {"cronName": "hello"})
        self.assertNotEqual(first.json["runId"], second.json["runId"])

    def test_a_retry_is_answered_whatever_the_registry_has_by_now(self) -> None:
        body = {"cronName": "takes", "params": {"n": 2}}
        planned = {**body, "runAt": "2100-01-01T00:00:00Z"}
        first, second = self.send("k10", body), self.send("k11", planned)
        self.server.ended(first.json["runId"])
        whole = json.loads(self.server.registry.read_text())
        self.addCleanup(self.server.write_registry, whole)
        without = {"description": whole["takes"]["description"], "command": "x"}
        self.server.write_registry({**whole, "takes": without})
        self.assertEqual(self.send("k10", body).text, first.text)
        self.assertEqual(self.send("k11", planned).text, second.text)
        self.assertEqual(self.send("k12", body).json["code"], "invalid_params")
        self.server.write_registry({"hello": whole["hello"]})
        again = self.send("k10", body).json
        self.assertEqual(again, {**first.json, "description": None})
        again = self.send("k11", planned).json
        self.assertEqual(again["scheduledId"], second.json["scheduledId"])
        self.assertEqual(self.send("k12", body).json["code"], "unknown_cron")
        self.server.request("DELETE", f"/scheduled/{second.json['scheduledId']}")

    def test_keys_that_hold_and_keys_that_do_not(self) -> None:
        for key in ("x" * 65, "a b", "é", "a\tb"):
            with self.subTest(key):
                reply = self.send(key, {"cronName": "hello"})
                self.assert_error(reply, 400, "invalid_request")
        body = b'{"cronName": "hello"}'
        answer = self.raw(
            b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key:\r\n"
            b"Content-Type: application/json\r\nContent-Length: 21\r\n\r\n" + body
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
        for key in ("!", "~" * 64, '"quoted"', "a/b;c=d,{}"):
            with self.subTest(key):
                reply = self.send(key, {"cronName": "hello"})
                self.assertEqual(reply.status, 202)
                self.server.ended(reply.json["runId"])

    def test_the_history_keeps_no_contents_of_a_request(self) -> None:
        self.send("k9", {"cronName": "takes", "params": {"word": "only here"}})
        rows = self.server.rows("select * from idempotency_keys where key = 'k9'")
        self.assertNotIn("only here", json.dumps(rows))


if __name__ == "__main__":
    unittest.main()
