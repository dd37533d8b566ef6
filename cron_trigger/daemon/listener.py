"""The listening socket: kept over a restart, or bound anew.

Knows the address of the settings and why it can't be had.  Promises a socket that
listens and does not block (`::` takes both families), else ConfigError with the remedy
that fits: NotNow where the next try may have it.  Where the address is another than
before, the new socket listens before the old one is let go, and who waits at the old
one is served: no caller is refused.  Called once each, by the daemon's main thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import Any, Sequence

from cron_trigger.daemon.systemd import Systemd
from cron_trigger.registry.errors import ConfigError, NotNow
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.texts import printable
from cron_trigger.web.server import HttpServer

#: Who has begun a handshake at a socket that takes nobody new has so long to end it.
HANDSHAKE_S = 0.05
SO_BINDTOIFINDEX = 62  # <asm-generic/socket.h>; not in Python's module
NO_INTERFACE = (1 << 31) - 1


def listen(
    settings: Settings, systemd: Systemd
) -> tuple[socket.socket, list[socket.socket]]:
    """Return the listening socket, and those of an earlier address.

    Else ConfigError.
    """
    kept = systemd.kept_listeners()
    try:
        listener = _listener(settings, kept)
    except ConfigError:
        # Else callers of the earlier address would wait for a server that is not there.
        systemd.forget_listeners()
        raise
    earlier = [one for one in kept if one is not listener]
    if earlier:
        systemd.forget_listeners()
    # Given to systemd at once: from here on a SIGKILL refuses nobody who connects.
    if earlier or not kept:
        systemd.keep_listener(listener)
    return listener, earlier


def take_over(http: HttpServer, earlier: Sequence[socket.socket]) -> None:
    """Serve who waits at an earlier address, and let go of it."""
    listener = http.socket
    for one in earlier:
        http.socket = one
        _admit_nobody_new(one)
        # So often at most, lest a flood keep us here.
        for _ in range(2 * http.request_queue_size):
            if not select.select([one], [], [], HANDSHAKE_S)[0]:
                break
            http.accept()
        # Not `close` alone: systemd may still have it open, and it would listen on.
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RD)
        one.close()
    http.socket = listener


def _admit_nobody_new(listener: socket.socket) -> None:
    """Have the kernel give each new connection to the socket that comes after this one.

    Who came between the last `accept` and the end of the socket would be reset.  What
    is bound to an interface that does not exist gets nothing that has not begun.
    """
    with contextlib.suppress(OSError):  # before Linux 5.0
        listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def _listener(settings: Settings, kept: Sequence[socket.socket]) -> socket.socket:
    """Return a kept socket if it has the address, else a new one."""
    try:
        # In bytes: for a text Python would import what international names need.
        found = socket.getaddrinfo(
            os.fsencode(settings.host),
            settings.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise _no_host(settings.host, error) from None
    family, _, _, _, address = found[0]
    # One that systemd has kept has been listening all the time: binding anew would
    # refuse whoever connected while no server ran.
    for listener in kept:
        if listener.getsockname()[:2] == address[:2]:
            return listener
    try:
        return _bound(family, address, kept)
    except OSError as error:
        raise _refused(settings, error.errno or 0) from None


def _refused(settings: Settings, number: int) -> ConfigError:
    """Return why the kernel does not let this address and port be listened on."""
    port = settings.port
    if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return _no_host(settings.host, OSError(number, os.strerror(number)))
    if number == errno.EACCES:
        return ConfigError(
            f"Only root may listen on a port as low as {port}: use sudo, or choose a "
            "--port from 1024 on."
        )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if number == errno.EADDRINUSE:
        return NotNow(
            f"Another program listens on {host}:{port} already: end it (sudo ss -ltnp "
            "shows it), or choose another --port."
        )
    why = os.strerror(number)
    return ConfigError(f"The server can't listen on {host}:{port}: {why}.")


def _no_host(host: str, error: OSError) -> ConfigError:
    # The address of a VPN, or the name server, may come a moment after this start.
    later = error.errno in (errno.EADDRNOTAVAIL, socket.EAI_AGAIN)
    return (NotNow if later else ConfigError)(
        f'CRON_TRIGGER_HOST must be an address of this host, got "{printable(host)}" '
        f"({error.strerror}); leave it out to listen on all of them."
    )


def _bound(
    family: int, address: tuple[Any, ...], kept: Sequence[socket.socket]
) -> socket.socket:
    # Beside those of an earlier address (0.0.0.0, where this is ::), which have to
    # listen until this one does: there is no moment at which callers are refused.
    for one in kept:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    listener = socket.create_server(
        address,
        family=family,
        backlog=HttpServer.request_queue_size,
        reuse_port=bool(kept),
        # Whatever the host's net.ipv6.bindv6only says: `::` is for both families.
        dualstack_ipv6=family == socket.AF_INET6 and socket.has_dualstack_ipv6(),
    )
    # A client that hangs up between `select` and `accept` leaves nothing to accept:
    # the main thread would wait there, deaf to signals and the watchdog.
    listener.setblocking(False)
    return listener
