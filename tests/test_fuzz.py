"""Requests that nobody would send, by the thousand, and what must hold of each answer.

The oracle does not ask the server's own parser.  `Reading` reads the same bytes by the
letter of RFC 9112, and every answer has to fit that reading: as many answers as
requests, a refusal where a request is malformed, and then nothing more.  A failing
seed is printed; `CRON_TRIGGER_TEST_SEED` repeats it.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

from support import FULL, Server, limited, need, need_full

from cron_trigger.history.answers import Figures
from cron_trigger.registry.checker import Checker
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import STATUS_OF_CODE, Refusal
from cron_trigger.registry.parameters import DEFINITION_KEYS, TYPES
from cron_trigger.registry.records import Trigger
from cron_trigger.registry.texts import printable
from cron_trigger.web.fields import read_trigger
from cron_trigger.web.reader import SINGLE_HEADERS, parse_head
from cron_trigger.web.views import cron_view
from cron_trigger.web.wire import Request

SEED = int(os.environ.get("CRON_TRIGGER_TEST_SEED", "20261123"))
SAMPLES = 5000 if FULL else 400
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


@dataclass
class Reading:
    """One request of a stream of bytes, as the RFC has it."""

    malformed: bool = False
    #: The stream ends before the request does: no answer can be due.
    cut: bool = False
    method: bytes = b""
    target: bytes = b""
    body: bytes = b""


def readings(data: bytes) -> Iterator[Reading]:
    """Read a stream of bytes as requests, up to the first that is none."""
    while True:
        while data.startswith(b"\r\n"):  # RFC 9112, 2.2
            data = data[2:]
        if not data:
            return
        reading, data = first_reading(data)
        yield reading
        if reading.malformed or reading.cut:
            return


def first_reading(data: bytes) -> tuple[Reading, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    if len(line) > 8192 or (not end and len(data) > 65536):
        return Reading(malformed=True), b""
    if not end:
        return Reading(cut=True), b""
    parts = re.fullmatch(rb"(%b) ([^ \t\r\n\f\v]+) HTTP/1\.[01]" % TOKEN, line)
    fields = [
        re.fullmatch(rb"(%b):([^\0-\x08\x0a-\x1f\x7f]*)" % TOKEN, x) for x in lines
    ]
    if not parts or len(parts[1]) > 20 or len(lines) > 100 or None in fields:
        return Reading(malformed=True), b""
    pairs = [(f[1].lower(), f[2].strip(b" \t")) for f in fields if f]
    values = dict(pairs)
    names = [name for name, _ in pairs if name.decode() in SINGLE_HEADERS]
    if len(names) > len(set(names)) or (
        b"host" not in values and not line.endswith(b"1.0")
    ):
        return Reading(malformed=True), b""
    length = values.get(b"content-length", b"0")
    readable = re.fullmatch(rb"[0-9]{1,19}", length) and int(length) <= 65536
    if b"transfer-encoding" in values:
        chunked = values[b"transfer-encoding"].lower() == b"chunked"
        if not chunked or b"content-length" in values or line.endswith(b"1.0"):
            return Reading(malformed=True, method=parts[1]), b""
        return in_chunks(Reading(False, False, parts[1], parts[2]), rest)
    if not readable:
        return Reading(malformed=True, method=parts[1]), b""
    body, rest = rest[: int(length)], rest[int(length) :]
    cut = len(body) < int(length)
    return Reading(False, cut, parts[1], parts[2], body), rest


def in_chunks(reading: Reading, rest: bytes) -> tuple[Reading, bytes]:
    """Read a body in chunks without trailers: RFC 9112, 7.1."""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,8})[ \t]*(;.*)?", line)
        if end and not size:
            reading.malformed = True
            return reading, b""
        if not end or not size or len(rest) < int(size[1], 16) + 2:
            reading.cut = True
            return reading, b""
        length = int(size[1], 16)
        reading.body += rest[:length]
        if rest[length : length + 2] != b"\r\n":
            reading.malformed = True
            return reading, b""
        rest = rest[length + 2 :]
        if length == 0:
            return reading, rest


@dataclass
class Answer:
    """One answer of the server's."""

    status: int
    closes: bool
    body: bytes


def answers(data: bytes, methods: list[bytes]) -> list[Answer]:
    """Read the server's bytes, strictly; raises ValueError where they are none."""
    found: list[Answer] = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        status = re.fullmatch(r"HTTP/1\.1 ([1-5]\d\d) [A-Za-z ]+", lines[0])
        if not end or not status:
            raise ValueError(f"not an answer: {head[:200]!r}")
        if status[1] == "100":
            continue
        headers = dict(line.split(": ", 1) for line in lines[1:])
        if len(headers) != len(lines) - 1:
            raise ValueError(f"a header is given twice: {lines}")
        method = methods[len(found)] if len(found) < len(methods) else b""
        length = 0 if method == b"HEAD" else int(headers.get("Content-Length", "0"))
        if len(data) < length:
            raise ValueError("the body is cut")
        closes = headers.get("Connection") == "close"
        found.append(Answer(int(status[1]), closes, data[:length]))
        data = data[length:]
    return found


class Generator:
    """Makes requests: mostly well formed, then bent here and there."""

    METHODS = (b"GET", b"POST", b"HEAD", b"DELETE", b"PUT", b"OPTIONS", b"get", b"X")
    TARGETS = (
        b"/", b"/health", b"/trigger", b"/crons", b"/runs", b"/runs/1", b"/runs/1/log",
        b"/runs/1/cancel", b"/scheduled", b"/scheduled/1", b"/metrics",
        b"/runs?limit=2", b"/runs?cron=fuzz&status=failed", b"/runs/1/log?tail=3",
        b"*", b"/nowhere", b"http://localhost/health", b"/runs/9999999999999999999",
        b"/%2e%2e/etc/passwd", b"/runs?limit=%00", b"//", b"/health?", b"/health#x",
        b"/\xff\xfe", b"/runs/\xb2",
    )  # fmt: skip
    HEADERS = (
        b"Host: localhost", b"Host: 127.0.0.1:9998", b"Host: evil.example", b"Host:",
        b"Origin: http://localhost", b"Origin: null", b"Origin: http://evil.example",
        b"Content-Type: application/json", b"Content-Type: text/plain",
        b"Content-Length: 0", b"Content-Length: +1", b"Content-Length: 5, 5",
        b"Content-Length: 99999999999999999999", b"Content-Length: 70000",
        b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive",
        b"Expect: 100-continue", b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-origin", b"Idempotency-Key: k", b"Idempotency-Key: \xe9",
        b"X-Trigger-Secret: \xff\xfe", b"Authorization: Bearer", b"Accept: */*",
        b"X-Blank:" + b" " * 3000, b"Last-Event-ID: 18446744073709551616",
        b"Content-Length : 3", b" folded: 1", b"Cookie: a=b; c=d", b"Upgrade: h2c",
        b"X: " + b"a" * 9000,
    )  # fmt: skip
    VALUES: tuple[Any, ...] = (
        "fuzz", "", "../x", None, True, 0, -1, 1e308, 2**70, [], {}, [[]], {"a": {}},
        "\0", "é🔑", "\u202e", "2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z",
        "-x", "a" * 300,
    )  # fmt: skip
    FIELDS = ("cronName", "params", "requestedBy", "runAt", "x", "")
    BYTES = b'\0\x01\t\n\r\x1b "%,:;{}[]\x7f\x80\xff0a/'

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def stream(self) -> bytes:
        """Return one to three requests, perhaps bent."""
        count = self.random.choice((1, 1, 1, 2, 3))
        data = b"".join(self.request() for _ in range(count))
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2, 8))):
            data = self.bent(data)
        return data

    def request(self) -> bytes:
        pick = self.random.choice
        method, target = pick(self.METHODS[:4] + self.METHODS), pick(self.TARGETS)
        if self.random.random() < 0.15:
            method, target = b"POST", b"/trigger"
        version = pick((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2", b"http/1.1"))
        body = self.body() if method == b"POST" or self.random.random() < 0.1 else b""
        lines = [b" ".join((method, target, version))]
        if self.random.random() < 0.95:
            lines.append(b"Host: localhost")
        if body and self.random.random() < 0.9:
            lines.append(b"Content-Length: %d" % len(body))
            lines.append(b"Content-Type: application/json")
        for _ in range(pick((0, 0, 0, 1, 2, 110)) if self.random.random() < 0.4 else 0):
            lines.append(pick(self.HEADERS))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def body(self) -> bytes:
        pick = self.random.choice
        if self.random.random() < 0.2:
            return self.random.randbytes(self.random.randrange(80))
        count = pick((0, 0, 1, 2, 3))
        value = {pick(self.FIELDS): pick(self.VALUES) for _ in range(count)}
        if self.random.random() < 0.5:
            value["cronName"] = "fuzz"
        text = json.dumps(value)
        if self.random.random() < 0.1:
            text = text.replace("{", "[" * 2000, 1)
        return text.encode()

    def bent(self, data: bytes) -> bytes:
        place = self.random.randrange(len(data) + 1)
        byte = bytes([self.random.choice(self.BYTES)])
        return self.random.choice(
            (
                lambda: data[:place] + byte + data[place + 1 :],
                lambda: data[:place] + byte + data[place:],
                lambda: data[:place] + data[place + 1 :],
                lambda: data[:place],
                lambda: data[:place] + data[place : place + 40] * 3 + data[place:],
                lambda: data.replace(b"\r\n", b"\n", 1),
                lambda: data.replace(b": ", b" : ", 1),
                lambda: data.replace(b"\r\n\r\n", b"\r\n", 1),
                lambda: data[:place] + b"\r\n" + data[place:],
            )
        )()


class RequestFuzzTest(unittest.TestCase):
    """Raw bytes against the live server."""

    SLOWEST_S = 30.0

    def setUp(self) -> None:
        registry = {
            "fuzz": {
                "description": "Does nothing",
                "command": ["/bin/true", "{a}"],
                "parameters": {"a": {"type": "string"}},
            }
        }
        # One that waits for more than came waits for longer than the slowest.
        self.server = Server(registry, program=limited("request_s=90.0")).start()
        self.addCleanup(self.server.__exit__)

    def exchange(self, data: bytes) -> bytes:
        """Send bytes and the end of them; return all that comes back."""
        address = ("127.0.0.1", self.server.port)
        with socket.create_connection(address, self.SLOWEST_S) as connection:
            received: list[bytes] = []
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while True:
                    block = connection.recv(65536)
                    if not block:
                        return b"".join(received)
                    received.append(block)
            except socket.timeout:
                raise
            except OSError:  # closed with bytes of ours unread
                return b"".join(received)

    def check(self, data: bytes) -> int:
        """Hold the answers against the reading; return how many triggers were taken."""
        due = list(readings(data))
        given = answers(self.exchange(data), [reading.method for reading in due])
        taken = 0
        for reading, answer in zip(due, given):
            self.check_one(reading, answer)
            taken += answer.status == 202 and reading.target == b"/trigger"
        complete = [reading for reading in due if not reading.cut]
        if given and given[-1].closes:
            self.assertLessEqual(len(given), len(due))
        else:
            self.assertEqual(len(given), len(complete))
        self.assertFalse([answer for answer in given[:-1] if answer.closes])
        return taken

    def check_one(self, reading: Reading, answer: Answer) -> None:
        if reading.malformed:
            self.assertIn(answer.status, range(400, 500))
            self.assertTrue(answer.closes, "a malformed request leaves it open")
        if reading.cut:
            # Refused by its head alone.
            self.assertIn(answer.status, range(400, 500))
            self.assertTrue(answer.closes)
        if answer.status >= 400 and reading.method != b"HEAD":
            value = json.loads(answer.body)
            self.assertIs(value["success"], False)
            self.assertEqual(STATUS_OF_CODE[value["code"]], answer.status)
        if answer.status == 202:
            self.assertEqual(reading.method, b"POST")
        if answer.status == 202 and reading.target == b"/trigger":
            self.assertEqual(json.loads(reading.body)["cronName"], "fuzz")

    def test_no_bytes_make_it_fail_hang_or_run_what_was_not_asked(self) -> None:
        generator, taken = Generator(SEED), 0
        for number in range(SAMPLES):
            data = generator.stream()
            since_s = time.monotonic()
            try:
                taken += self.check(data)
            except Exception as error:
                raise AssertionError(f"sample {number}: {data[:3000]!r}") from error
            self.assertLess(time.monotonic() - since_s, self.SLOWEST_S, data[:3000])
        self.assert_sound(taken)

    def assert_sound(self, taken: int) -> None:
        """Assert that it lives, met no fault of its own, and ran what it said."""
        health = self.server.get("/health").json
        self.assertEqual(health["status"], "healthy")
        text = self.server.stderr() + self.server.log_text()
        self.assertIsNone(re.search("Traceback|internal error", text))
        for line in text.splitlines():
            self.assertTrue(line.isprintable(), ascii(line))
        runs = self.server.rows("select count(*) from cron_executions")[0][0]
        planned = self.server.rows("select count(*) from scheduled_triggers")[0][0]
        # A key used again is answered, but runs nothing.
        keys = self.server.rows("select count(*) from idempotency_keys")[0][0]
        self.assertLessEqual(runs + planned, taken)
        if not keys:
            self.assertEqual(runs + planned, taken)
        self.assertGreater(taken, 0, "the generator makes no request that holds")


class ParserFuzzTest(unittest.TestCase):
    """hypothesis over what reads the registry and a body."""

    def setUp(self) -> None:
        need_full()
        try:
            import hypothesis
            from hypothesis import strategies
        except ImportError:
            hypothesis = None  # type: ignore[assignment]
        need(hypothesis, "hypothesis is not installed")
        self.hypothesis: Any = hypothesis
        self.given: Any = strategies

    def run_property(self, check: Any, *strategies: Any, examples: int = 600) -> None:
        settings = self.hypothesis.settings(
            max_examples=examples, deadline=None, database=None, derandomize=True
        )
        settings(self.hypothesis.given(*strategies)(check))()

    def json_values(self) -> Any:
        st = self.given
        words = st.sampled_from(
            [
                "-x",
                "s",
                "1s",
                "/bin/true",
                "{p}",
                "date",
                "password",
                "[a-z]+",
                "(",
                "\0",
            ]
        )
        atoms = (
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | words
        )
        return st.recursive(
            atoms,
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(max_size=5), inner, max_size=4)
            ),
            max_leaves=8,
        )

    def registries(self) -> Any:
        """Return registries of entries whose keys mostly exist."""
        st = self.given
        any_json = self.json_values()
        texts = st.text(max_size=8)
        kinds = st.sampled_from(TYPES)
        fields = dict.fromkeys(DEFINITION_KEYS, any_json)
        del fields["type"]
        definition = st.fixed_dictionaries({"type": kinds}, optional=fields)
        loose = st.sampled_from(["notify", "timeout", "estimatedDuration", "x"])
        entry = st.fixed_dictionaries(
            {
                "description": st.just("x") | any_json,
                "command": st.just(["/bin/true", "{p}"]) | any_json,
            },
            optional={
                "parameters": st.dictionaries(
                    st.just("p") | texts, definition, max_size=2
                ),
                "environment": st.dictionaries(st.just("E") | texts, texts, max_size=2),
                "logFile": texts | any_json,
                "workingDirectory": texts,
            },
        )
        loosened = st.tuples(entry, st.dictionaries(loose, any_json, max_size=2))
        names = st.sampled_from(["a", "b.c", "../x", "cron-trigger-server"]) | texts
        whole = loosened.map(lambda pair: {**pair[0], **pair[1]})
        return st.dictionaries(names, whole | any_json, max_size=3)

    def test_every_registry_holds_or_is_refused_with_its_faults(self) -> None:
        def check(registry: Any, params: Any) -> None:
            checker = Checker(Path("/x/crons.json"), Path("/x/log"))
            crons = checker.crons(json.dumps(registry))
            for fault in checker.faults:
                self.assertTrue(fault.startswith("crons.json: "), fault)
            if not checker.faults:
                self.assertEqual(set(crons), set(registry))
            for cron in crons.values():
                self.check_cron(cron, params)

        params = self.given.dictionaries(
            self.given.just("p"), self.json_values(), max_size=1
        )
        self.run_property(check, self.registries(), params)

    def check_cron(self, cron: Cron, params: Any) -> None:
        """A cron that was taken can be shown, resolved and filled in."""
        figures = Figures(0, 0, ())
        view = cron_view(cron, figures, None)
        json.dumps(view, allow_nan=False).encode()
        try:
            values = cron.resolve(json.loads(json.dumps(params)))
        except Refusal as refusal:
            json.dumps(refusal.answer(), ensure_ascii=False).encode("utf-8", "replace")
            return
        for argument in cron.arguments(values):
            self.assertNotIn("\0", argument)
            os.fsencode(argument)
        json.dumps(cron.shown(values), allow_nan=False)

    def request(self, body: bytes) -> Request:
        headers = {"host": "localhost"}
        return Request("POST", "/trigger", "", headers, "::1", "::1", body=body)

    def test_every_body_is_a_trigger_or_a_refusal(self) -> None:
        st = self.given

        def check(body: bytes) -> None:
            try:
                trigger: Optional[Trigger] = read_trigger(self.request(body))
            except Refusal as refusal:
                self.assertEqual(refusal.status, 400)
                return
            assert trigger is not None
            self.assertEqual(json.loads(body)["cronName"], trigger.cron_name)
            trigger.digest()

        fields = {
            name: self.json_values() for name in ("params", "requestedBy", "runAt")
        }
        objects = st.fixed_dictionaries({"cronName": st.text()}, optional=fields)
        encoded = objects.map(lambda value: json.dumps(value).encode())
        self.run_property(check, encoded | self.json_values().map(
            lambda value: json.dumps(value).encode()) | st.binary())  # fmt: skip

    def test_every_head_is_a_request_or_a_refusal(self) -> None:
        def check(lines: list[bytes]) -> None:
            try:
                request = parse_head(lines, "::1")
            except Refusal as refusal:
                self.assertEqual(refusal.code, "invalid_request")
                return
            for text in (request.method, *request.headers, *request.headers.values()):
                self.assertNotRegex(text, r"[\0\r\n]")
            self.assertNotIn(" ", request.path)

        st = self.given
        line = st.sampled_from(
            [b"GET / HTTP/1.1", b"Host: localhost", b"A: b", b"Content-Length: 1"]
        )
        self.run_property(check, st.lists(line | st.binary(), min_size=1, max_size=8))

    def test_what_is_printable_is_one_line_of_visible_characters(self) -> None:
        def check(text: str) -> None:
            shown = printable(text, 50)
            self.assertTrue(shown.isprintable())

        self.run_property(check, self.given.text())


if __name__ == "__main__":
    unittest.main()
