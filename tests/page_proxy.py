"""A reverse proxy of the tests: under a path, and as bad as real ones are.

It takes the prefix /crons/ off, refuses what a test names, counts what is asked for
and how many event streams are open (a followed log is one, too), and cuts them.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Iterator

PREFIX = "/crons/"


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards to a port of this host; `refused` maps a path to a status."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.refused: dict[str, int] = {}
        self.asked: list[str] = []
        self.passing: set[socket.socket] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{PREFIX}"

    @property
    def streams(self) -> list[socket.socket]:
        """The streams that their clients have not closed."""
        return [stream for stream in list(self.passing) if not _closed(stream)]

    def cut(self) -> None:
        """Close every stream, as a proxy does that has waited long enough."""
        for stream in list(self.passing):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


def _closed(stream: socket.socket) -> bool:
    try:
        return not stream.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def forward(self) -> None:
        if not self.path.startswith(PREFIX):
            self.send_error(404)
            return
        path = self.path[len(PREFIX) - 1 :]
        self.server.asked.append(path)
        if path in self.server.refused:
            self.send_error(self.server.refused[path])
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(
            "127.0.0.1", self.server.upstream, timeout=30
        )
        skipped = ("connection", "accept-encoding")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
        ended = (OSError, http.client.IncompleteRead)
        with contextlib.closing(upstream), contextlib.suppress(*ended):
            upstream.request(self.command, path, body or None, headers)
            self.pass_on(upstream.getresponse(), path)

    def pass_on(self, answer: http.client.HTTPResponse, path: str) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "keep-alive"):
                self.send_header(name, value)
        self.end_headers()
        if path == "/events" or "follow=" in path:
            self.server.passing.add(self.connection)
        try:
            while True:
                some = answer.read1(65536)
                if not some:
                    return
                self.wfile.write(some)
        finally:
            self.server.passing.discard(self.connection)

    do_GET = do_POST = do_DELETE = forward


@contextlib.contextmanager
def proxy(upstream: int) -> Iterator[Proxy]:
    with Proxy(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, name="proxy")
        thread.start()
        try:
            yield server
        finally:
            server.cut()
            server.shutdown()
            thread.join()
