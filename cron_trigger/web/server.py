"""Server."""

from __future__ import annotations

import contextlib
import errno
import functools
import http
import http.client
import http.server
import re
import select
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import replace
from cron_trigger.registry.texts import printable
from cron_trigger.web.access import WRONG_SECRETS_ADDRESSES, Access
from cron_trigger.web.api import Api
from cron_trigger.web.fields import check_content_type, content_length, read_query
from cron_trigger.web.routes import PREFLIGHT, ROUTES, Route, find_routes
from cron_trigger.web.wire import (
    BODY_BYTES,
    COMMON_HEADERS,
    REQUEST_S,
    Answer,
    Reader,
    Request,
    json_answer,
    parse_head,
)

IDLE_S = 60.0
#: A stop waits this long for the request of a connection that was just let in.
ARRIVAL_S = 0.3
SEND_S = 10.0
SEND_BUFFER_BYTES = 1 << 17
CONNECTION_LIMIT = 256
WORK_LIMIT, TRIGGER_LIMIT = 64, 208
REFUSALS_LOGGED, REFUSALS_LOGGED_S = 1000, 60.0


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection.  Runs in a thread of its own."""

    server: HttpServer

    def setup(self) -> None:
        self.connection = self.request
        self.reader = Reader(self.connection)
        # IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) is shown and counted as IPv4.
        self.address = re.sub(r"^::ffff:(?=\d+\.)", "", str(self.client_address[0]))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        """Nothing to flush: the base class would, on files that we do not make."""

    def handle(self) -> None:
        """Serve requests until the connection is to be closed."""
        try:
            if not self.server.access.source_allowed(self.address):
                return self._refuse_source()
            idle_s = REQUEST_S
            while self._serve_one(idle_s):
                idle_s = IDLE_S
        except (OSError, ValueError):
            return  # the client has gone, or its connection was closed in its wait

    def _refuse_source(self) -> None:
        refusal = Refusal(
            "forbidden",
            f"The address {self.address} may not use this server; list its network in "
            "CRON_TRIGGER_ALLOW.",
        )
        self.server.log_refusal(self.address, "a connection", refusal)
        self._send(None, self._refusal_answer(refusal), close=True)
        self._linger()

    def _serve_one(self, idle_s: float) -> bool:
        """Read and answer one request.  Return True if another may follow."""
        self.server.waits(self.connection)
        if not self.reader.wait(idle_s):
            return False
        request: Optional[Request] = None
        answer: Optional[Answer] = None
        try:
            try:
                request = parse_head(self.reader.head(), self.address)
                route, query, number = self._admit(request)
                self.server.begin_work(self.connection, route)
                self._at_work = True
                answer = self._act(request, route, query, number)
                unread = False
            except Refusal as refusal:
                answer = self._refused(request, refusal)
                unread = request is None or self._has_unread(request)
            if answer.lasting:
                self._leave_work()
            close = (
                unread or not request or not request.keep_alive or self.server.closing
            )
            self._send(request, answer, close)
            if answer.hand_over and request and request.method != "HEAD":
                self._hand_over(answer.hand_over)
                return False
        finally:
            self._leave_work()
            if answer and answer.release:
                answer.release()
        if unread or (close and self.reader.has_more()):
            self._linger()
        return not close and not answer.hand_over

    _at_work = False

    def _leave_work(self) -> None:
        if self._at_work:
            self._at_work = False
            self.server.end_work()

    def _admit(self, request: Request) -> Tuple[Route, Dict[str, str], Optional[int]]:
        """Check a request and read its body; return what to do with it."""
        routes, number = find_routes(request.path)
        method = "GET" if request.method == "HEAD" else request.method
        route = routes.get(method)
        if method == "OPTIONS" and self.server.access.origin_listed(request):
            route = replace(PREFLIGHT, path=self._allowed(routes))
        self.server.access.check(request, route)
        if route is None:
            raise self._no_route(request, routes)
        length = content_length(request, route)
        if route.action == PREFLIGHT.action:
            length and self.reader.body(length)  # or it were read as a request
            return route, {}, None
        check_content_type(request, route)
        query = read_query(request, route)
        if length:
            self._continue(request)
            request.body = self.reader.body(length)
        return route, query, number

    def _act(
        self,
        request: Request,
        route: Route,
        query: Mapping[str, str],
        number: Optional[int],
    ) -> Answer:
        """Do what a route is for; a fault of our own is logged, not shown."""
        if route.action == PREFLIGHT.action:
            return Answer(204, headers=self._preflight(route.path))
        try:
            answer: Answer = getattr(self.server.api, route.action)(
                request, query, number
            )
            return answer
        except Refusal:
            raise
        except Exception as error:
            return self._internal_error(error)

    def _no_route(self, request: Request, routes: Mapping[str, Route]) -> Refusal:
        if not routes:
            listed = ", ".join(f"{r.method} {r.path}" for r in ROUTES)
            return Refusal(
                "not_found",
                f'There is no "{printable(request.path, 80)}" here; there are: '
                f"{listed}.",
            )
        allowed = self._allowed(routes)
        return Refusal(
            "method_not_allowed",
            f"This address takes {allowed}, not {printable(request.method, 20)}.",
            {"Allow": allowed},
        )

    def _allowed(self, routes: Mapping[str, Route]) -> str:
        return ", ".join(
            m
            for method in routes
            for m in ((method, "HEAD") if method == "GET" else (method,))
        )

    def _preflight(self, allowed: str) -> Dict[str, str]:
        return {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": "Content-Type, X-Trigger-Secret, "
            "Authorization, Idempotency-Key, Last-Event-ID",
            "Access-Control-Max-Age": "600",
        }

    def _continue(self, request: Request) -> None:
        expected = request.headers.get("expect", "").lower()
        if expected == "100-continue" and not request.old:
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _has_unread(self, request: Request) -> bool:
        """Return True if bytes of a body are, or may be, still to come."""
        chunked = "transfer-encoding" in request.headers
        return chunked or (request.has_body and not request.body)

    def _refused(self, request: Optional[Request], refusal: Refusal) -> Answer:
        what = f"{request.method} {request.path}" if request else "a request"
        self.server.log_refusal(self.address, what, refusal)
        return self._refusal_answer(refusal)

    def _refusal_answer(self, refusal: Refusal) -> Answer:
        return json_answer(refusal.status, refusal.answer(), **refusal.headers)

    def _internal_error(self, error: Exception) -> Answer:
        frames = []
        trace = error.__traceback__
        while trace:
            frames.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.server.say("error", f"internal error: {error!r} at {' > '.join(frames)}")
        return json_answer(
            500,
            {
                "success": False,
                "code": "internal_error",
                "error": "The server met a fault of its own; its log says more.",
            },
        )

    def _send(self, request: Optional[Request], answer: Answer, close: bool) -> None:
        """Send an answer: its head and body in one piece where there is no stream."""
        length = len(answer.body) if answer.stream is None else answer.length
        chunked = length is None and not (request and request.old)
        lines = [
            f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
            f"{COMMON_HEADERS}Date: {http_date(int(time.time()))}\r\n"
            f"Content-Security-Policy: {answer.policy}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
        ]
        lines += [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
        if answer.hand_over:
            close = True
        elif length is None:
            lines.append("Transfer-Encoding: chunked\r\n" if chunked else "")
            close = close or not chunked
        elif answer.status != 204:
            lines.append(f"Content-Length: {length}\r\n")
        origin = request and self.server.access.origin_listed(request)
        if origin:
            lines.append(f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n")
        lines.append("Connection: close\r\n\r\n" if close else "\r\n")
        head = "".join(lines).encode("latin-1", "replace")
        only_head = request is not None and request.method == "HEAD"
        if answer.stream is not None:
            self._push(head)
            if not only_head:
                self._send_stream(answer.stream, chunked, length)
            return
        self._push(head if only_head else head + answer.body)

    def _push(self, data: bytes) -> None:
        """Send; raises OSError where the client does not take it within 10 s.

        Who reads slowly has no place in work any more, or 64 of them would keep all
        others out.  The connection waits for its client, so it may be pushed out.
        """
        self.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            data = data[self.connection.send(data) :]
        if not data:
            return
        if self._at_work:
            self._leave_work()
            self.server.waits(self.connection)
        self.connection.settimeout(SEND_S)
        self.connection.sendall(data)

    def _send_stream(
        self, stream: Iterator[bytes], chunked: bool, length: Optional[int]
    ) -> None:
        sent = 0
        for block in stream:
            if not block:
                self._check_client()
            else:
                self._push(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
        if length not in (None, sent):
            # The script has cut its log meanwhile.  The next answer on this connection
            # would be read as the rest of this one.
            raise ConnectionError
        if chunked:
            self._push(b"0\r\n\r\n")

    def _check_client(self) -> None:
        """Raise ConnectionError if the client has gone or the server is to stop."""
        if self.server.closing:
            raise ConnectionError
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if poll.poll(0) and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError

    def _hand_over(self, take: Callable[[socket.socket], None]) -> None:
        """Give the connection away; nothing more is read from it here."""
        descriptor = self.connection.fileno()
        self.server.forget(self.connection)
        given = socket.socket(fileno=descriptor)
        self.connection.detach()
        try:
            given.settimeout(SEND_S)
            take(given)
        except BaseException:
            given.close()
            raise

    def _linger(self) -> None:
        """Take in what the client still sends, for a moment.

        Closing with bytes unread resets the connection, and the client might never
        see why it was refused (RFC 9112, 9.6).
        """
        deadline_s = time.monotonic() + 1.0
        taken = 0
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while taken < 4 * BODY_BYTES:
                self.connection.settimeout(max(0.001, deadline_s - time.monotonic()))
                data = self.connection.recv(65536)
                if not data:
                    return
                taken += len(data)


@functools.lru_cache(maxsize=2)
def http_date(epoch_s: int) -> str:
    """Return a time as HTTP writes it (RFC 9110, 5.6.7)."""
    moment = time.gmtime(epoch_s)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
    month = (
        "Jan",
        "Feb",
        "Mar",
        "Apr",
        "May",
        "Jun",
        "Jul",
        "Aug",
        "Sep",
        "Oct",
        "Nov",
        "Dec",
    )[moment.tm_mon - 1]
    return time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", moment)


class HttpServer(http.server.ThreadingHTTPServer):
    """Accepts connections, each in a thread, within bounds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self,
        listener: socket.socket,
        api: Api,
        access: Access,
        say: Callable[[str, str], None],
    ) -> None:
        self.address_family = listener.family
        address = listener.getsockname()
        super().__init__(address, Handler, bind_and_activate=False)
        self.socket.close()
        # Each connection inherits it.  By itself it would grow to some megabytes, which
        # 256 clients that read nothing could make the kernel keep (tcp(7)).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.socket = listener
        self.server_address = address
        self.api = api
        self.access = access
        self.say = say
        self.closing = False
        self._lock = threading.Lock()  # guards the two below
        self._working = 0
        #: Each open connection, and since when it waits for its client.
        self._connections: Dict[socket.socket, Optional[float]] = {}
        self._refusals: Dict[str, Tuple[float, int]] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread; make room for it first."""
        with self._lock:
            full = len(self._connections) >= CONNECTION_LIMIT
            self._connections[request] = time.monotonic()
        if full:
            self._evict()
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # no thread could be started
            self.say("error", f"a connection was dropped: {error}")
            self.shutdown_request(request)

    def _evict(self) -> None:
        """Close the connection that has been waiting for its client the longest.

        A flood of connections that send nothing pushes itself out, not `/health`.
        """
        with self._lock:
            waiting = [
                (since, connection)
                for connection, since in self._connections.items()
                if since is not None
            ]
            if not waiting:
                return
            oldest = min(waiting, key=lambda pair: pair[0])[1]
            del self._connections[oldest]
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        self.forget(request)
        super().shutdown_request(request)

    def get_request(self) -> Tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                self._evict()
                time.sleep(0.05)  # let go of the listener until one was closed
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        self.say("error", f"internal error on a connection: {error!r}")

    def accept(self) -> None:
        """Take the next connection, if there still is one."""
        self._handle_request_noblock()  # type: ignore[attr-defined]

    def waits(self, connection: socket.socket) -> None:
        """Note that a connection waits for its client from now on."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = time.monotonic()

    def forget(self, connection: socket.socket) -> None:
        """Count a connection no more: it is closed, or somebody else's."""
        with self._lock:
            self._connections.pop(connection, None)

    def begin_work(self, connection: socket.socket, route: Route) -> None:
        """Count a request in work; else `overloaded`.

        `/health` always has a place, and so have many triggers: of a stampede, each is
        to be told of the one run.  Not all of them, or no connection were left that
        waits, and could be pushed out for a new one.
        """
        limits = {"health": sys.maxsize, "trigger": TRIGGER_LIMIT}
        with self._lock:
            if self._working >= limits.get(route.action, WORK_LIMIT):
                raise Refusal(
                    "overloaded",
                    f"{WORK_LIMIT} requests are in work, which is the most; try again "
                    "in a moment.",
                    {"Retry-After": "1"},
                )
            self._working += 1
            if connection in self._connections:
                self._connections[connection] = None

    def end_work(self) -> None:
        """Count it no more: its answer was sent, lasts, or waits for its client."""
        with self._lock:
            self._working -= 1

    def log_refusal(self, address: str, what: str, refusal: Refusal) -> None:
        """Log a refusal; of a flood from one address, its number a minute later."""
        now_s = time.monotonic()
        with self._lock:
            since, count = self._refusals.get(address, (now_s, 0))
            if now_s - since > REFUSALS_LOGGED_S:
                if count > REFUSALS_LOGGED:
                    self.say(
                        "warning",
                        f"{count - REFUSALS_LOGGED} more requests of "
                        f"{address} were refused",
                    )
                since, count = now_s, 0
            self._refusals[address] = (since, count + 1)
            if len(self._refusals) > WRONG_SECRETS_ADDRESSES:
                self._refusals.pop(next(iter(self._refusals)))
        if count < REFUSALS_LOGGED:
            self.say(
                "warning",
                f"refused {printable(what, 200)} of {address}: "
                f"{refusal.status} {refusal.code}: {refusal.message}",
            )

    def drain(self, timeout_s: float) -> None:
        """Wait until the requests in work, or on their way, are answered."""
        deadline_s = time.monotonic() + timeout_s
        while self._is_awaited() and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _is_awaited(self) -> bool:
        """Tell whether a request is in work, or a connection so fresh that its own
        request may still come: whoever was let in is served, not told to come again.
        """
        fresh_s = time.monotonic() - ARRIVAL_S
        with self._lock:
            waiting = self._connections.values()
            return self._working > 0 or any(s and s > fresh_s for s in waiting)

    def close_connections(self) -> None:
        """Close what is still open."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
