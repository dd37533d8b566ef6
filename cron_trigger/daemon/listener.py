"""The listening socket: kept over a restart, or bound anew.

Knows the address of the settings and why it can't be had.  Promises a socket that
listens and does not block (`::` takes both families), else ConfigError with the remedy
that fits.  Called once, by the daemon's start.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any, Callable, Optional, Tuple

from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.texts import printable
from cron_trigger.web.server import HttpServer


def listen(
    settings: Settings,
    kept: Callable[..., Optional[socket.socket]],
    patience_s: float,
) -> Tuple[socket.socket, bool]:
    """Return the listening socket, and whether it was kept; else ConfigError."""
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
    listener = kept(address)
    if listener:
        listener.setblocking(False)
        return listener, True
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return _bound(family, address), False
        except OSError as error:
            # The socket of another address may be dropped a moment from now.
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline_s:
                time.sleep(0.1)
                continue
            raise _refused(settings, error) from None


def _refused(settings: Settings, error: OSError) -> ConfigError:
    """Return why the kernel does not let this address and port be listened on."""
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return _no_host(settings.host, error)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    remedy = "end the program that does (ss -ltnp shows it), or choose another --port"
    if error.errno == errno.EACCES:
        remedy = "only root may use a low port: choose a --port from 1024 on"
    return ConfigError(
        f"The server can't listen on {host}:{settings.port} ({error.strerror}): "
        f"{remedy}."
    )


def _no_host(host: str, error: OSError) -> ConfigError:
    return ConfigError(
        f'CRON_TRIGGER_HOST must be an address of this host, got "{printable(host)}" '
        f"({error.strerror}); leave it out to listen on all of them."
    )


def _bound(family: int, address: Tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier server linger in TIME_WAIT, and would keep us from
        # its port; a server that listens still does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Whatever the host's net.ipv6.bindv6only says: `::` is for both families.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(HttpServer.request_queue_size)
        # A client that hangs up between `select` and `accept` leaves nothing to accept:
        # the main thread would wait there, deaf to signals and the watchdog.
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
