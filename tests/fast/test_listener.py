"""The listening socket: kept, bound anew, or taken over from an earlier address."""

from __future__ import annotations

import http.client
import http.server
import select
import socket
import sys
import unittest
from pathlib import Path
from typing import Any, cast

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import need

from cron_trigger.daemon.listener import listen, take_over
from cron_trigger.daemon.systemd import Systemd
from cron_trigger.registry.errors import NotNow
from cron_trigger.registry.settings import Settings


class Keeper(Systemd):
    """A systemd that has kept some sockets, and is told things."""

    def __init__(self, kept: list[socket.socket]) -> None:
        super().__init__({})
        self._kept = kept
        self.told: list[str] = []

    def kept_listeners(self) -> list[socket.socket]:
        return self._kept

    def notify(self, *lines: str, descriptor: Any = None) -> None:
        self.told.append(lines[0])


class Answering(http.server.HTTPServer):
    """A server that answers in the thread that accepts."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), Empty, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def accept(self) -> None:
        self._handle_request_noblock()  # type: ignore[attr-defined]


class Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep standard error clean."""


class Disturbed(socket.socket):
    """Somebody connects in the last moment before it ends."""

    late: socket.socket

    def shutdown(self, how: int) -> None:
        self.late = socket.socket()
        self.late.setblocking(False)
        self.late.connect_ex(self.getsockname())
        super().shutdown(how)


class ListenerTest(unittest.TestCase):
    def setUp(self) -> None:
        # Free on every address: another's connection may have the number on one.
        either = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if either else socket.AF_INET
        with socket.create_server(("", 0), family=family, dualstack_ipv6=either) as one:
            port = one.getsockname()[1]
        self.kept = socket.create_server(("127.0.0.1", port))
        self.kept.setblocking(False)
        self.addCleanup(self.kept.close)
        self.port = port

    def settings(self, host: str) -> Settings:
        nowhere = Path("/nowhere")
        return Settings(nowhere, nowhere, nowhere, nowhere, host=host, port=self.port)

    def call(self) -> http.client.HTTPConnection:
        call = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.addCleanup(call.close)
        call.request("GET", "/")
        return call

    def test_the_same_address_is_the_kept_socket(self) -> None:
        keeper = Keeper([self.kept])
        found = listen(self.settings("127.0.0.1"), keeper)
        self.assertEqual((found, keeper.told), ((self.kept, []), []))

    def test_who_waits_at_an_earlier_address_is_served(self) -> None:
        need(socket.has_dualstack_ipv6(), "this kernel has no IPv6")
        keeper = Keeper([self.kept])
        early = self.call()
        listener, earlier = listen(self.settings("::"), keeper)
        self.addCleanup(listener.close)
        self.assertEqual(keeper.told, ["FDSTOREREMOVE=1", "FDSTORE=1"])
        server = Answering(listener)
        late = self.call()
        take_over(cast(Any, server), earlier)
        self.assertIs(server.socket, listener)
        new = self.call()
        select.select([listener], [], [], 10)
        server.accept()
        for call in (early, late, new):
            self.assertEqual(call.getresponse().status, 204)

    def test_who_comes_in_its_last_moment_is_served(self) -> None:
        need(socket.has_dualstack_ipv6(), "this kernel has no IPv6")
        listener, _ = listen(self.settings("::"), Keeper([self.kept]))
        self.addCleanup(listener.close)
        earlier = Disturbed(fileno=self.kept.detach())
        server = Answering(listener)
        take_over(cast(Any, server), [earlier])
        with earlier.late as late:
            late.settimeout(10)
            select.select([], [late], [], 10)
            select.select([listener], [], [], 10)
            late.sendall(b"GET / HTTP/1.0\r\n\r\n")
            server.accept()
            self.assertIn(b" 204 ", late.recv(100))

    def test_no_other_program_gets_in_beside_it(self) -> None:
        listener, _ = listen(self.settings("127.0.0.2"), Keeper([self.kept]))
        self.addCleanup(listener.close)
        with self.assertRaisesRegex(OSError, "already in use"):
            socket.create_server(listener.getsockname())

    def test_where_none_can_be_had_none_is_kept(self) -> None:
        keeper = Keeper([])
        with self.assertRaisesRegex(NotNow, "Another program listens on 127.0.0.1:"):
            listen(self.settings("127.0.0.1"), keeper)
        self.assertEqual(keeper.told, ["FDSTOREREMOVE=1"])


if __name__ == "__main__":
    unittest.main()
