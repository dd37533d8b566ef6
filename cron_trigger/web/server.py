"""The server: a connection's way from the accepting thread to its own, and to its end.

    accept: source, place -> thread: reader -> access -> fields -> work -> api -> sender

What is promised is that a stranger costs no thread, no place and no time, and that no
crowd keeps `/health` from its answer.  `HttpServer.accept` is called by one thread;
each `Handler` runs in its own.  `places.py` guards what they share; `closing` is set
once and only read by others.

`http.server` accepts, gives the order of setup, handle and finish, and closes sockets.
Its reading and writing of HTTP is replaced: see `reader.py`, `sender.py`.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import socket
import sys
import time
from collections import deque
from functools import partial
from socketserver import BaseServer
from typing import Any, Callable, Mapping, Optional

from cron_trigger.host.loop import Loop
from cron_trigger.host.networks import address_of, client_of
from cron_trigger.host.rates import Rates
from cron_trigger.host.shortage import SHORT, is_shortage
from cron_trigger.registry.errors import Refusal, overloaded
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.texts import printable
from cron_trigger.registry.threads import begin
from cron_trigger.web.access import Access, RefusalLog
from cron_trigger.web.api import Api
from cron_trigger.web.fields import read_body, read_query
from cron_trigger.web.places import Place, Places, Turns
from cron_trigger.web.reader import Reader, parse_head
from cron_trigger.web.routes import PREFLIGHT, ROUTES, Route, find_routes, methods_of
from cron_trigger.web.sender import Sender, short_answer
from cron_trigger.web.wire import UNREAD, Answer, Request, json_answer, refusal_answer

SEND_BUFFER_BYTES = 1 << 17
#: A refused connection is closed so long after its answer, which would be lost if it
#: were closed at once; of a flood, only so many are kept.
REFUSED_S, REFUSED_KEPT = 1.0, 16
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Headers": "Content-Type, X-Trigger-Secret, Authorization, "
    "Idempotency-Key, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection.  Runs in a thread of its own."""

    server: HttpServer
    #: The peer's, as a text, and the connection's place.
    client_address: Any

    def setup(self) -> None:
        self.connection = self.request
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address: str = self.client_address[0]
        self.place: Place = self.client_address[1]
        self.work: Optional[Place] = None
        self.has_turn = False
        self.limits = self.server.limits
        self.reader = Reader(self.connection, self.limits.request_s)
        self.sender = Sender(self.connection, self._wait, self.limits.send_s)

    def finish(self) -> None:
        """Nothing to flush: the base class would, on files that we do not make."""
        self._wait()  # it may have been pushed out in its turn

    def handle(self) -> None:
        """Serve requests until the connection is to be closed."""
        idle_s = self.limits.request_s
        # The client may go, or its connection be closed in its wait.
        with contextlib.suppress(OSError, ValueError):
            while self._serve_one(idle_s):
                idle_s = self.limits.idle_s

    def _serve_one(self, idle_s: float) -> bool:
        """Read and answer one request.  Return True if another may follow."""
        if not self.reader.wait(idle_s):
            return False
        request, unread = UNREAD, False
        try:
            head = self.reader.head()
            self._take_turn()
            request = parse_head(head, self.address)
            request.waits, request.stays = self._give_turn, self._stays
            answer = self._answer(request)
        except Refusal as refusal:
            answer = self._refused(request, refusal)
            unread = request is UNREAD or (request.has_body and not request.body)
        try:
            return self._send(request, answer, unread)
        finally:
            self._wait()
            if answer.release:
                answer.release()

    def _answer(self, request: Request) -> Answer:
        access, method = self.server.access, request.method
        routes, request.part = find_routes(request.path)
        route = routes.get("GET" if method == "HEAD" else method)
        if method == "OPTIONS" and access.origin_listed(request):
            route = PREFLIGHT
        access.check(request, route)
        if route is None:
            raise _no_route(request, routes)
        request.query = read_query(request, route)
        if request.has_body:
            self._give_turn()  # a body may be slow in coming
        request.body = read_body(request, route, self.reader, self.sender.go_on)
        self._take_turn()
        if route is PREFLIGHT:
            allowed = {"Access-Control-Allow-Methods": methods_of(routes)}
            return Answer(204, headers={**allowed, **PREFLIGHT_HEADERS})
        self._begin_work(route)
        return self._act(request, route)

    def _act(self, request: Request, route: Route) -> Answer:
        """Do what a route is for; a fault of our own is logged, not shown."""
        try:
            answer: Answer = getattr(self.server.api, route.action)(request)
            return answer
        except Refusal:
            raise
        except Exception as error:
            self.server.say("error", f"internal error: {error!r} at {_trace(error)}")
            if is_shortage(error):
                raise _out_of_room() from None
            return json_answer(
                500,
                {
                    "success": False,
                    "error": "The server met a fault of its own; its log says more.",
                    "code": "internal_error",
                },
            )

    def _refused(self, request: Request, refusal: Refusal) -> Answer:
        read = request is not UNREAD
        what = f"{request.method} {request.path}" if read else "a request"
        self.server.refusals.add(self.address, self.place.client, what, refusal)
        return refusal_answer(refusal)

    def _send(self, request: Request, answer: Answer, unread: bool) -> bool:
        """Send an answer; return True if another request may follow."""
        if answer.lasting:
            self._wait()
        close = unread or not request.keep_alive or self.server.closing
        origin = self.server.access.origin_listed(request)
        kept = self.sender.send(request, answer, close, origin)
        if answer.hand_over and request.method != "HEAD":
            self._hand_over(answer.hand_over)
        elif unread or (close and self.reader.has_more()):
            self._wait()
            self.sender.linger()
        return kept

    def _hand_over(self, take: Callable[[socket.socket], None]) -> None:
        """Give the connection away; nothing more is read from it here."""
        self.place.give()
        given = socket.socket(fileno=self.connection.detach())
        try:
            given.settimeout(self.limits.send_s)
            take(given)
        except BaseException:
            given.close()
            raise

    # ---- work

    def _begin_work(self, route: Route) -> None:
        """Take a place in work; else `overloaded`.  `/health` always has one."""
        if not self.place.hold():
            raise ConnectionError  # pushed out just now, before anything was done
        if route.action == "health":
            return
        # A stampede of triggers is counted by itself: it must not use up what the
        # requests of all others have.
        server = self.server
        places = server.triggers if route.action == "trigger" else server.work
        share, total = places.limit
        refused = (
            f"Too many requests in progress (at most {share} of one client and "
            f"{total} of all)"
        )
        self.work = places.claim(self.place.client, refused, 1)

    def _leave_work(self) -> None:
        """The request is worked on no more."""
        self._give_turn()
        if self.work:
            self.work.give()
            self.work = None

    def _wait(self) -> None:
        """Leave work; from here on, the connection waits for its client."""
        self._leave_work()
        self.place.wait()

    def _stays(self) -> bool:
        """Leave work, but not the connection: a stop lets it be answered.

        Return True where an answer may still be waited for.
        """
        self._leave_work()
        return not self.server.closing and self.sender.has_client()

    def _take_turn(self) -> None:
        """Wait until one more thread of this client may work, unless this one does."""
        if not self.has_turn:
            self.server.turns.take(self.place.client)
            self.has_turn = True

    def _give_turn(self) -> None:
        """Let another one of this client work: this one waits, or has done."""
        if self.has_turn:
            self.has_turn = False
            self.server.turns.give(self.place.client)


def _no_route(request: Request, routes: Mapping[str, Route]) -> Refusal:
    if not routes:
        named = [r for r in ROUTES if r.action != "page_file"]
        listed = ", ".join(f"{r.method} {r.path}" for r in named)
        return Refusal(
            "not_found",
            f'There is no "{printable(request.path, 80)}" here; there are: {listed}.',
        )
    allowed = methods_of(routes)
    return Refusal(
        "method_not_allowed",
        f"This address takes {allowed}, not {printable(request.method, 20)}.",
        {"Allow": allowed},
    )


def _trace(error: Exception) -> str:
    """Return where an error was raised, on one line."""
    frames = []
    trace = error.__traceback__
    while trace:
        frames.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(frames)


def _out_of_room() -> Refusal:
    return overloaded("The system has no descriptor, thread or memory left", 1)


class HttpServer(http.server.ThreadingHTTPServer):
    """Accepts connections, each in a thread, within bounds."""

    request_queue_size = 1024

    def __init__(
        self,
        listener: socket.socket,
        api: Api,
        access: Access,
        loop: Loop,
        say: Callable[[str, str], None],
        limits: Limits,
    ) -> None:
        # Not the next class's, which makes a socket of its own.
        BaseServer.__init__(self, listener.getsockname(), Handler)
        # Each connection inherits it.  By itself it would grow to some megabytes, which
        # 256 clients that read nothing could make the kernel keep (tcp(7)).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.socket = listener
        self.api = api
        self.access = access
        self.say = say
        self.refusals = RefusalLog(say, Rates(*limits.refusals_logged))
        self.closing = False
        #: Open connections; those that wait for their client may be pushed out.
        self.connections = Places(limits.connections, safe_s=0.0)
        self.work, self.triggers = Places(limits.work), Places(limits.triggers)
        self.turns = Turns()
        self.limits = limits
        self._loop = loop
        #: Refused ones that are closed a moment later; the accepting thread adds, the
        #: loop's takes away, and an end of a deque is safe for both.
        self._refused: deque[socket.socket] = deque()

    # ---- the accepting thread

    def accept(self) -> None:
        self._handle_request_noblock()  # type: ignore[attr-defined]

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SHORT and error.errno != errno.EAGAIN:
                self.connections.push_out()
                time.sleep(0.05)  # let go of the listener until one was closed
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread, or refuse it here and now."""
        address = client = str(address_of(client_address[0]))
        place: Optional[Place] = None
        try:
            client = client_of(address)
            if not self.access.sources.allow(address):
                raise _stranger(address)
            refused = "Too many requests are in progress"
            leave = partial(_shut, request)
            place = self.connections.claim(client, refused, 1, leave)
            begin(f"client {address}", partial(self._serve, request, address, place))
        except Refusal as refusal:
            self._turn_away(request, address, client, refusal)
        except (OSError, RuntimeError, MemoryError):
            # No descriptor is free to look by, or no thread could be started.
            if place:
                place.give()
            self._turn_away(request, address, client, _out_of_room())

    def _turn_away(
        self, request: socket.socket, address: str, client: str, refusal: Refusal
    ) -> None:
        """Answer without a thread, without waiting, and close a moment later.

        At once, unread bytes would reset the connection and the answer be lost.
        """
        self.refusals.add(address, client, "a connection", refusal)
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(short_answer(refusal_answer(refusal)))
            request.shutdown(socket.SHUT_WR)
        self._refused.append(request)
        if len(self._refused) > REFUSED_KEPT:
            self._close_refused()
        else:
            self._loop.call_later(REFUSED_S, self._close_refused)

    def _close_refused(self) -> None:
        with contextlib.suppress(IndexError):
            self._refused.popleft().close()

    # ---- connections' threads

    def _serve(self, request: socket.socket, address: str, place: Place) -> None:
        """Serve a connection until its end."""
        try:
            Handler(request, (address, place), self)
        except Exception:
            self.handle_error(request, (address,))
        finally:
            place.give()  # before its client sees the end, and may come again
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        with contextlib.suppress(MemoryError):
            # Of these many come at a moment: they are counted as refusals are.
            if error and is_shortage(error):
                address = str(address_of(client_address[0]))
                self.refusals.add(address, address, "a connection", _out_of_room())
            else:
                self.say("error", f"internal error on a connection: {error!r}")

    # ---- the end

    def drain(self, timeout_s: float) -> None:
        """Wait until the requests in work, or on their way, are answered."""
        deadline_s = time.monotonic() + timeout_s
        while self._is_busy() and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _is_busy(self) -> bool:
        """Tell whether a request is in work, or a connection so fresh that its own
        request may still come: whoever was let in is served, not told to come again.
        """
        fresh_s = time.monotonic() - self.limits.arrival_s
        taken = self.connections.taken()
        return bool(self.turns.lines) or any(p.since_s > fresh_s for p in taken)

    def close_connections(self) -> None:
        for place in self.connections.taken():
            place.leave()
        while self._refused:
            self._close_refused()


def _shut(connection: socket.socket) -> None:
    """End a connection that another thread reads or writes; that thread closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _stranger(address: str) -> Refusal:
    return Refusal(
        "forbidden",
        f"The address {address} may not use this server; list its network in "
        "CRON_TRIGGER_ALLOW.",
    )
