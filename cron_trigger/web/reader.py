"""Reading: bytes of a connection become requests, each within a time as a whole.

Python's own `BaseHTTPRequestHandler.parse_request` is not used: it takes bare line
feeds, folded lines, spaces before a colon and the last of two lengths, any of which
lets two programs read one request in two ways, and it has a time limit for each read
only.  It is slower as well (it makes an e-mail message of each head).  One thread
reads one connection; nothing is shared.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Optional, Sequence

from cron_trigger.host.networks import client_of
from cron_trigger.registry.errors import Refusal
from cron_trigger.web.wire import BODY_BYTES, Request, invalid

REQUEST_LINE_BYTES = 8192
HEADER_COUNT = 100
HEAD_BYTES = 65536
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
#: A chunk's length, and extensions that nobody uses (RFC 9112, 7.1).
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e]*)?")
CHUNK_LINE_BYTES = 256
#: Chunks of a byte each would keep the interpreter busy for half a second.
CHUNK_COUNT = 4096


class Reader:
    """Reads requests from a connection.

    A limit for each `recv` alone would let a client send a byte now and then for
    ever (slowloris).
    """

    def __init__(self, connection: socket.socket, request_s: float) -> None:
        self._connection = connection
        self._request_s = request_s
        self._buffer = bytearray()
        self._deadline_s = 0.0

    def wait(self, timeout_s: float) -> bool:
        """Wait for a request's first byte.  Return False if none comes."""
        if not self._buffer:
            self._connection.settimeout(timeout_s)
            self._buffer += self._connection.recv(HEAD_BYTES)
        self._deadline_s = time.monotonic() + self._request_s
        return bool(self._buffer)

    def has_more(self) -> bool:
        return bool(self._buffer)

    def _receive(self) -> None:
        """Add to the buffer; raises ConnectionError at the end, `request_timeout`."""
        left_s = self._deadline_s - time.monotonic()
        try:
            if left_s <= 0:  # also of one who always has a byte ready
                raise socket.timeout
            self._connection.settimeout(left_s)
            data = self._connection.recv(HEAD_BYTES)
        except socket.timeout:
            raise Refusal(
                "request_timeout",
                "The request did not arrive completely within "
                f"{self._request_s:g} s; send it again.",
            ) from None
        if not data:
            raise ConnectionError
        self._buffer += data

    def _taken(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def head(self) -> list[bytes]:
        """Return the request line and the header lines; else `invalid_request`."""
        begin = searched = 0
        while True:
            # Some clients send empty lines after a body (RFC 9112, 2.2): they count.
            while self._buffer.startswith(b"\r\n", begin):
                begin += 2
            line = self._buffer.find(b"\r\n", begin)
            if (len(self._buffer) if line < 0 else line) - begin > REQUEST_LINE_BYTES:
                limit = REQUEST_LINE_BYTES >> 10
                raise invalid(f"A request line must have at most {limit} KiB.")
            end = self._buffer.find(b"\r\n\r\n", max(begin, searched))
            if 0 <= end <= HEAD_BYTES:
                return self._taken(end + 4)[begin:-4].split(b"\r\n")
            if len(self._buffer) > HEAD_BYTES:
                limit = HEAD_BYTES >> 10
                raise invalid(f"The head of a request must have at most {limit} KiB.")
            searched = max(0, len(self._buffer) - 3)
            self._receive()

    def body(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive()
        return self._taken(length)

    def chunks(self) -> bytes:
        """Return a body that comes in chunks; else `body_too_large`."""
        body = bytearray()
        for _ in range(CHUNK_COUNT):
            length = self._chunk_length()
            if len(body) + length > BODY_BYTES:
                raise body_too_large("more")
            chunk = self.body(length + 2)
            if chunk[length:] != b"\r\n":
                raise _bad_chunk()  # no end, or a trailer, which nobody needs
            if not length:
                return bytes(body)
            body += chunk[:length]
        raise body_too_large(f"more than {CHUNK_COUNT} chunks")

    def _chunk_length(self) -> int:
        while b"\r\n" not in self._buffer[:CHUNK_LINE_BYTES]:
            if len(self._buffer) >= CHUNK_LINE_BYTES:
                raise _bad_chunk()
            self._receive()
        line = self._taken(self._buffer.index(b"\r\n") + 2)
        match = CHUNK_LINE.fullmatch(line[:-2])
        if not match:
            raise _bad_chunk()
        return int(match[1], 16)


def _bad_chunk() -> Refusal:
    return invalid(
        "A body in chunks must be of the form of RFC 9112, section 7.1, without "
        "trailers; or send it with a Content-Length."
    )


def body_too_large(got: str) -> Refusal:
    """Return the refusal of a body that is over the limit, or will be."""
    return Refusal(
        "body_too_large", f"A body must have at most {BODY_BYTES >> 10} KiB, got {got}."
    )


def parse_head(lines: Sequence[bytes], address: str) -> Request:
    """Return the request of a head's lines; else `invalid_request`.

    Strict, where leniency would leave two readings of one request: no bare CR or LF,
    no folded lines, no space before a colon, none of the deciding headers twice
    (request smuggling, RFC 9112, section 11).
    """
    match = REQUEST_LINE.fullmatch(lines[0])
    if not match:
        raise invalid("The request line must be of the form: GET /health HTTP/1.1.")
    headers = _parse_headers(lines[1:])
    old = match[3] == b"0"
    path, query, authority = _parse_target(match[2].decode("latin-1"))
    if "host" not in headers and not old:
        raise invalid("An HTTP/1.1 request must have a Host.")
    if authority is not None:
        headers["host"] = authority
    wishes = headers.get("connection", "").lower().split(",")
    keep_alive = not old and "close" not in (wish.strip(" \t") for wish in wishes)
    method, client = match[1].decode(), client_of(address)
    return Request(method, path, query, headers, address, client, keep_alive, old)


def _parse_headers(lines: Sequence[bytes]) -> dict[str, str]:
    if len(lines) > HEADER_COUNT:
        raise invalid(f"A request must have at most {HEADER_COUNT} headers.")
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _parse_header(line)
        if name not in headers:
            headers[name] = value
        elif name in SINGLE_HEADERS:
            raise invalid(f'The header "{name}" is given twice.')
        else:  # one list in two lines (RFC 9110, 5.3), such as Connection
            headers[name] += f", {value}"
    return headers


def _parse_header(line: bytes) -> tuple[str, str]:
    # Split by hand: a pattern with two blanks runs around `.*?` takes hours for a
    # header of 60000 blanks, and nothing else runs meanwhile (ReDoS, CWE-1333).
    name, colon, value = line.partition(b":")
    if not colon or not HEADER_NAME.fullmatch(name) or HEADER_CONTROL.search(value):
        raise invalid(
            "A header must be of the form Name: value, without control characters."
        )
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")


def _parse_target(target: str) -> tuple[str, str, Optional[str]]:
    """Return path, query and, of an absolute target, the authority."""
    authority = None
    if target.lower().startswith(("http://", "https://")):
        authority, slash, rest = target.partition("://")[2].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    return path, query, authority
