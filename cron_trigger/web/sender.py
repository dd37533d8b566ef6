"""Sending: an answer becomes bytes on a connection, and never the wrong number of them.

`BaseHTTPRequestHandler.send_response` and its kin are not used: head and body would go
out in two writes, each with its delay, and there is no limit for a client that does
not read.  One thread uses one Sender; nothing is shared.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http
import re
import socket
import time
from typing import Callable, Iterator, Optional

from cron_trigger import SERVICE
from cron_trigger.host.loop import is_ready
from cron_trigger.web.wire import BODY_BYTES, PACKED_BYTES, Answer, Request, chunk

COMMON_HEADERS = (
    f"Server: {SERVICE}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
)
#: What another origin's page may read besides the body.
EXPOSED = (
    "Access-Control-Expose-Headers: Location, Idempotent-Replay, Retry-After\r\n"
    "Vary: Origin\r\n"
)
#: Statuses that never have a body (RFC 9110, 6.4.1).
BODILESS = (204, 304)


def takes_gzip(request: Request) -> bool:
    """Return True if a client takes compressed bodies (RFC 9110, 12.5.3)."""
    for item in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False


def head_of(answer: Answer, more: list[str]) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
        f"{COMMON_HEADERS}Cache-Control: {answer.cache}\r\n"
        f"Date: {_date_of(int(time.time()))}\r\n"
        f"Content-Security-Policy: {answer.policy}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
    ]
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
    return "".join([*lines, *more, "\r\n"]).encode("latin-1", "replace")


@functools.lru_cache(maxsize=2)
def _date_of(epoch_s: int) -> str:
    """Return a time as HTTP writes it; kept, since it is the same for a second."""
    return email.utils.formatdate(epoch_s, usegmt=True)


def short_answer(answer: Answer) -> bytes:
    """Return all bytes of an answer after which the connection is closed."""
    length = f"Content-Length: {len(answer.body)}\r\n"
    return head_of(answer, [length, "Connection: close\r\n"]) + answer.body.plain


def _encoded(request: Request, answer: Answer) -> tuple[bytes, list[str]]:
    if len(answer.body) < PACKED_BYTES:
        return answer.body.plain, []
    vary = "Vary: Accept-Encoding\r\n"
    if answer.status in BODILESS or not takes_gzip(request):
        return answer.body.plain, [vary]
    return answer.body.packed, [vary, "Content-Encoding: gzip\r\n"]


class Sender:
    """Sends answers on a connection.

    `on_wait` is called before it waits for a client that does not take all at once.
    """

    def __init__(
        self, connection: socket.socket, on_wait: Callable[[], None], send_s: float
    ) -> None:
        self._connection = connection
        self._on_wait = on_wait
        self._send_s = send_s

    def go_on(self) -> None:
        """Tell a client that asked first to send its body."""
        self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send(
        self, request: Request, answer: Answer, close: bool, origin: Optional[str]
    ) -> bool:
        """Send an answer.  Return False where the connection must be closed after it.

        Head and body go in one piece where there is no stream.  `origin` is the listed
        one that may read it.
        """
        body, more = _encoded(request, answer)
        lasting = answer.lasting
        chunked = lasting and not request.old
        close = close or bool(answer.hand_over) or (lasting and not chunked)
        if chunked:
            more.append("Transfer-Encoding: chunked\r\n")
        elif not lasting and answer.status not in BODILESS:
            length = len(body) if answer.length is None else answer.length
            more.append(f"Content-Length: {length}\r\n")
        if origin:
            more.append(f"Access-Control-Allow-Origin: {origin}\r\n{EXPOSED}")
        if close:
            more.append("Connection: close\r\n")
        head = head_of(answer, more)
        bodiless = answer.status in BODILESS or request.method == "HEAD"
        body = chunk(body) if chunked and body else body
        self._push(head, b"" if bodiless else body)
        if answer.stream is not None and not bodiless:
            self._send_stream(answer.stream, chunked, answer.length)
        return not close

    def _push(self, *parts: bytes) -> None:
        """Send; raises OSError where the client does not take it in time.

        Who reads slowly has no place in work any more, or 64 of them would keep all
        others out.  The connection waits for its client, so it may be pushed out.
        """
        self._connection.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self._connection.sendmsg(parts)
        if sent < sum(map(len, parts)):
            self._on_wait()
            self._connection.settimeout(self._send_s)
        for part in parts:
            # Without a copy: hundreds may wait here, each with all of its answer.
            if sent < len(part):
                self._connection.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def _send_stream(
        self, stream: Iterator[bytes], chunked: bool, length: Optional[int]
    ) -> None:
        sent = 0
        for block in stream:
            self._push(chunk(block) if chunked else block)
            sent += len(block)
        if length not in (None, sent):
            # The script has cut its log meanwhile.  The next answer on this connection
            # would be read as the rest of this one.
            raise ConnectionError
        if chunked:
            self._push(chunk(b""))

    def has_client(self) -> bool:
        """Tell whether the client is there, as far as one knows."""
        with contextlib.suppress(OSError):
            ready = is_ready(self._connection.fileno())
            return not ready or bool(self._connection.recv(1, socket.MSG_PEEK))
        return False

    def linger(self) -> None:
        """Take in what the client still sends, for a moment.

        Closing with bytes unread resets the connection, and the client might never
        see why it was refused (RFC 9112, 9.6).
        """
        deadline_s = time.monotonic() + 1.0
        taken = 0
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while taken < 4 * BODY_BYTES:
                self._connection.settimeout(max(0.001, deadline_s - time.monotonic()))
                data = self._connection.recv(65536)
                if not data:
                    return
                taken += len(data)
