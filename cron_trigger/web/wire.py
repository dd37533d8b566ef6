"""Wire."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from cron_trigger import SERVICE
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.strict_json import Json, json_text

REQUEST_LINE_BYTES = 8192
HEADER_COUNT = 100
HEAD_BYTES = 65536
BODY_BYTES = 65536
REQUEST_S = 10.0
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}) (\S+) HTTP/1\.([01])")
HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What no header's value may hold: control characters but the tab.
HEADER_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Headers whose second copy would leave it open which one counts (RFC 9112, 3.2, 6.3).
SINGLE_HEADERS = {
    "host", "content-length", "content-type", "transfer-encoding", "origin",
    "authorization", "x-trigger-secret", "idempotency-key", "last-event-id",
    "sec-fetch-site",
}  # fmt: skip
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
COMMON_HEADERS = (
    f"Server: {SERVICE}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Cache-Control: no-store\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
)
JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass
class Request:
    """A request as it was read.  Header names are lower case, values as latin-1."""

    method: str
    path: str
    query: str
    headers: Dict[str, str]
    address: str
    keep_alive: bool
    old: bool  # HTTP/1.0
    body: bytes = b""

    @property
    def has_body(self) -> bool:
        text = self.headers.get("content-length", "0")
        return not re.fullmatch(r"0{1,19}", text)


@dataclass
class Answer:
    """What goes back.  `stream` instead of `body`, with `length` where it is known."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Optional[Iterator[bytes]] = None
    length: Optional[int] = None
    #: Takes the connection over after the head was sent.
    hand_over: Optional[Callable[[socket.socket], None]] = None
    #: Called when the answer was sent, or could not be.
    release: Optional[Callable[[], None]] = None
    #: The answer may take as long as a run; it has a limit of its own.
    lasting: bool = False
    policy: str = API_POLICY


def json_answer(status: int, value: Json, **headers: str) -> Answer:
    """Return an answer that carries JSON."""
    return Answer(status, json_text(value).encode("utf-8", "replace"), headers=headers)


class Reader:
    """Reads requests from a connection, each of them within 10 s as a whole.

    A limit for each `recv` alone would let a client send a byte now and then for
    ever (slowloris).
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._deadline_s = 0.0

    def wait(self, timeout_s: float) -> bool:
        """Wait for a request's first byte.  Return False if none comes."""
        if not self._buffer:
            self._connection.settimeout(timeout_s)
            self._buffer += self._connection.recv(HEAD_BYTES)
        self._deadline_s = time.monotonic() + REQUEST_S
        return bool(self._buffer)

    def has_more(self) -> bool:
        """Return True if bytes of a next request are here already."""
        return bool(self._buffer)

    def _receive(self) -> None:
        """Add to the buffer; raises ConnectionError at the end, `request_timeout`."""
        left_s = self._deadline_s - time.monotonic()
        try:
            self._connection.settimeout(max(left_s, 0.001))
            data = self._connection.recv(HEAD_BYTES)
        except socket.timeout:
            raise Refusal(
                "request_timeout",
                f"The request did not arrive whole within {REQUEST_S:g} s; send it "
                "again.",
            ) from None
        if not data:
            raise ConnectionError
        self._buffer += data

    def head(self) -> List[bytes]:
        """Return the request line and the header lines; else `invalid_request`."""
        searched = 0
        while True:
            # Some clients send an empty line after a body (RFC 9112, 2.2).
            while not searched and self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
            end = self._buffer.find(b"\r\n\r\n", searched)
            if 0 <= end <= HEAD_BYTES:
                break
            searched = max(0, len(self._buffer) - 3)
            line = self._buffer.find(b"\r\n")
            if (
                len(self._buffer if line < 0 else self._buffer[:line])
                > REQUEST_LINE_BYTES
            ):
                raise self._too_long()
            if len(self._buffer) > HEAD_BYTES:
                raise Refusal(
                    "invalid_request",
                    f"The head of a request has at most {HEAD_BYTES >> 10} KiB.",
                )
            self._receive()
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        if len(lines[0]) > REQUEST_LINE_BYTES:
            raise self._too_long()
        return lines

    def _too_long(self) -> Refusal:
        limit = REQUEST_LINE_BYTES >> 10
        return Refusal("invalid_request", f"A request line has at most {limit} KiB.")

    def body(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        while len(self._buffer) < length:
            self._receive()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data


def parse_head(lines: Sequence[bytes], address: str) -> Request:
    """Return the request of a head's lines; else `invalid_request`.

    Strict, where leniency would leave two readings of one request: no bare CR or LF,
    no folded lines, no space before a colon, none of the deciding headers twice
    (request smuggling, RFC 9112, section 11).
    """
    match = REQUEST_LINE.fullmatch(lines[0])
    if not match:
        raise Refusal(
            "invalid_request",
            "The request line must be of the form: GET /health HTTP/1.1.",
        )
    if len(lines) - 1 > HEADER_COUNT:
        raise Refusal(
            "invalid_request", f"A request has at most {HEADER_COUNT} headers."
        )
    headers: Dict[str, str] = {}
    for line in lines[1:]:
        name, value = _parse_header(line)
        if name in headers and name in SINGLE_HEADERS:
            raise Refusal("invalid_request", f'The header "{name}" is given twice.')
        headers[name] = value
    old = match[3] == b"0"
    connection = headers.get("connection", "").lower()
    path, query, authority = _parse_target(match[2].decode("latin-1"))
    if "host" not in headers and not old:
        raise Refusal("invalid_request", "An HTTP/1.1 request must have a Host.")
    if authority is not None:
        headers["host"] = authority
    keep_alive = "close" not in connection and not old
    method = match[1].decode()
    return Request(method, path, query, headers, address, keep_alive, old)


def _parse_header(line: bytes) -> Tuple[str, str]:
    # Split by hand: a pattern with two blanks runs around `.*?` takes hours for a
    # header of 60000 blanks, and nothing else runs meanwhile (ReDoS, CWE-1333).
    name, colon, value = line.partition(b":")
    if not colon or not HEADER_NAME.fullmatch(name) or HEADER_CONTROL.search(value):
        raise Refusal(
            "invalid_request",
            "A header must be of the form Name: value, without control characters.",
        )
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")


def _parse_target(target: str) -> Tuple[str, str, Optional[str]]:
    """Return path, query and, of an absolute target, the authority."""
    authority = None
    if target.lower().startswith(("http://", "https://")):
        authority, slash, rest = target.partition("://")[2].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    return path, query, authority
