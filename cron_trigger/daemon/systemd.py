"""Systemd."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Mapping, Optional


class Systemd:
    """The protocol of sd_notify(3) and of the descriptor store; nothing without it."""

    FD_NAME = "http"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET")
        self._environ = environ
        #: How long it waits for a sign of life; 0 where it does not.
        self.watchdog_s = 0.0
        usec = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and ours and usec.isdigit():
            self.watchdog_s = int(usec) / 1e6

    # Any thread, the loop's and requests' too: each message has a socket of its own, so
    # there is nothing to share and nothing to lock.
    def notify(self, *lines: str, descriptor: Optional[int] = None) -> None:
        """Send assignments, with a descriptor if given; never raises."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        descriptors = [] if descriptor is None else [descriptor]
        kind = socket.AF_UNIX, socket.SOCK_DGRAM
        with contextlib.suppress(OSError), socket.socket(*kind) as sender:
            sender.connect(address)
            socket.send_fds(sender, ["\n".join(lines).encode()], descriptors)

    def keep_listener(self, listener: socket.socket) -> None:
        """Have the listening socket kept over a restart: nobody is refused then."""
        self.notify("FDSTORE=1", f"FDNAME={self.FD_NAME}", descriptor=listener.fileno())

    def forget_listeners(self) -> None:
        """Have no socket kept: where no server listens, callers are to be refused."""
        self.notify("FDSTOREREMOVE=1", f"FDNAME={self.FD_NAME}")

    def kept_listeners(self) -> list[socket.socket]:
        """Return the sockets that were kept; once, since they are the caller's then."""
        # The variables are inherited: in a child of the service they would speak of
        # descriptors that are something else there.
        if self._environ.get("LISTEN_PID") != str(os.getpid()):
            return []
        count = int(self._environ.get("LISTEN_FDS", "0"))
        # SD_LISTEN_FDS_START is 3: sd_listen_fds(3).
        kept = [socket.socket(fileno=number) for number in range(3, 3 + count)]
        for listener in kept:
            # Else a program that outlives us would keep the port.
            listener.set_inheritable(False)
            listener.setblocking(False)
        return kept
