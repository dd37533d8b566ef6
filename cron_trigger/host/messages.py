"""Messages."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from cron_trigger.registry.crons import CRON_NAME


class MessageSocket:
    """The socket on which `run NAME` tells a running server of what it did.

    Addressed through a descriptor of its folder: a path in a unix socket's address
    has at most 107 bytes (unix(7)), a folder may have more.
    """

    NAME = "events.sock"

    def __init__(self, run_dir: Path) -> None:
        self._folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._folder}/{self.NAME}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def bind(self) -> None:
        """Receive, in the place of any server before."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        try:
            self._socket.bind(self._path)
        except OSError as error:  # which does not say where
            place = os.readlink(f"/proc/self/fd/{self._folder}")
            what = f"{error.strerror}, for a socket"
            raise OSError(error.errno, what, place) from None
        os.chmod(self._path, 0o600)
        self._inode = os.stat(self._path).st_ino

    def is_bound(self) -> bool:
        """Tell whether the address still has the file that was bound."""
        with contextlib.suppress(OSError):
            return os.stat(self._path).st_ino == self._inode
        return False

    def receive(self) -> list[str]:
        """Return the cron names that have been sent."""
        names = []
        with contextlib.suppress(BlockingIOError):
            while True:
                names.append(self._socket.recv(256).decode("utf-8", "replace"))
        return [name for name in names if CRON_NAME.fullmatch(name)]

    def send(self, cron_name: str) -> None:
        """Tell that a run began or ended; nobody may be there to hear it."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.5)
            self._socket.sendto(cron_name.encode(), self._path)

    def close(self, unlink: bool = False) -> None:
        if unlink:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._socket.close()
        os.close(self._folder)
