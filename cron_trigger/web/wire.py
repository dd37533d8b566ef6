"""What crosses the wire: a request as it was read, an answer as it will be sent.

Values only, made by one thread for one connection; nothing here reads or sends.  What
is promised is that a body is compressed at most once, however often it is sent.
"""

from __future__ import annotations

import functools
import re
import socket
import zlib
from typing import Callable, Iterator, Mapping, NamedTuple, Optional

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.strict_json import Json, json_text

BODY_BYTES = 65536
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
#: Shorter bodies fit into a packet as they are.
PACKED_BYTES = 1400
#: A proxy must pass a stream on as it comes (nginx keeps it back by default).
UNBUFFERED = {"X-Accel-Buffering": "no"}


class Request:
    """A request as it was read.  Header names are lower case, values as latin-1."""

    #: What its route makes of the path and of the query.
    part = ""
    query: Mapping[str, str] = {}

    def __init__(
        self,
        method: str,
        path: str,
        query_text: str,
        headers: dict[str, str],
        address: str,
        client: str,
        keep_alive: bool = True,
        old: bool = False,
        body: bytes = b"",
    ) -> None:
        """`address` is the peer's, `client` whom it counts as; `old` is HTTP/1.0."""
        self.method = method
        self.path = path
        self.query_text = query_text
        self.headers = headers
        self.address = address
        self.client = client
        self.keep_alive = keep_alive
        self.old = old
        self.body = body
        #: To be called before what may wait for a process or a disk: its turn is over.
        self.waits: Callable[[], None] = lambda: None
        #: Asked again and again where an answer may take as long as a run: tells
        #: whether its client is there, and there is time; its work is over meanwhile.
        self.stays: Callable[[], bool] = lambda: True

    @property
    def chunked(self) -> bool:
        return "transfer-encoding" in self.headers

    @property
    def has_body(self) -> bool:
        text = self.headers.get("content-length", "0")
        return self.chunked or not re.fullmatch(r"0{1,19}", text)

    @property
    def id(self) -> int:
        return int(self.part)


#: What stands for a request that could not be read.
UNREAD = Request("", "", "", {}, "", "", keep_alive=False)


class Body:
    """Bytes to send, as they are or compressed."""

    def __init__(self, plain: bytes = b"") -> None:
        self.plain = plain

    @functools.cached_property
    def packed(self) -> bytes:
        packer = zlib.compressobj(5, zlib.DEFLATED, 31)  # with the head of gzip
        return packer.compress(self.plain) + packer.flush()

    def __len__(self) -> int:
        return len(self.plain)


def chunk(data: bytes) -> bytes:
    """Return a part of a body whose length nobody knows yet (RFC 9112, 7.1).

    Without anything in it, it is the last.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answer(NamedTuple):
    """What goes back.  `stream` instead of `body`, with `length` where it is known."""

    status: int
    body: Body = Body()
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = {}
    stream: Optional[Iterator[bytes]] = None
    length: Optional[int] = None
    #: Takes the connection over after the head was sent; the body goes on.
    hand_over: Optional[Callable[[socket.socket], None]] = None
    #: Called when the answer was sent, or could not be.
    release: Optional[Callable[[], None]] = None
    policy: str = API_POLICY
    cache: str = "no-store"

    @property
    def lasting(self) -> bool:
        """Nobody knows its length: it may take as long as a run."""
        return self.length is None and bool(self.stream or self.hand_over)


def json_body(text: str) -> Body:
    """Return JSON that is written already as it is sent."""
    return Body(text.encode("utf-8", "replace"))


def json_answer(status: int, value: Json, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(status, json_body(json_text(value)), headers=headers)


def refusal_answer(refusal: Refusal) -> Answer:
    """Return the one shape that all errors have."""
    return json_answer(refusal.status, refusal.answer(), refusal.headers)


def invalid(message: str) -> Refusal:
    return Refusal("invalid_request", message)
