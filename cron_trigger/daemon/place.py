"""A server's place in the run folder: its lock there, and the socket of messages.

Both are files with a name, which somebody may remove: `check` makes them again.  It is
called beside the loop, `listen` and `close` by the main thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time

from cron_trigger import SERVICE
from cron_trigger.daemon.parts import Parts
from cron_trigger.host.lock import read_pid_file, take_lock
from cron_trigger.host.messages import MessageSocket
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.settings import OF_A_SERVER, Settings


class Place:
    """Made before anything else: of two servers of one folder the second is refused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lock = self._taken()

    def _taken(self) -> int:
        path = self._settings.pid_file(SERVICE)
        lock = take_lock(path)
        deadline_s = time.monotonic() + 1
        while lock is None and time.monotonic() < deadline_s:
            # A server killed while it started a keeper: that has it until its exec.
            time.sleep(0.05)
            lock = take_lock(path)
        if lock is None:
            pid = read_pid_file(path).pid
            raise Refusal(
                "already_running",
                f"A server runs already with the folder {self._settings.run_dir} "
                f"(PID {pid}): end it, or give a second one another --run-dir, and "
                f"all of its own: {OF_A_SERVER}.",
            )
        # Under the lock, so no other server's number is overwritten.  Written over what
        # is there, whose place on the disk is had already: on a full one the lock is
        # what counts.
        number = f"{os.getpid()}\n".encode()
        with contextlib.suppress(OSError):
            os.pwrite(lock, number, 0)
            os.ftruncate(lock, len(number))
        return lock

    def listen(self, parts: Parts) -> None:
        """Have the loop hear of what `run NAME` does, from now on."""
        self._parts = parts
        self._messages = MessageSocket(self._settings.run_dir)
        self._messages.bind()
        parts.loop.watch(self._messages.fileno(), self._on_messages)

    def _on_messages(self, _events: int) -> None:
        """The command line has begun or ended a run."""
        # Taken first, then the history is asked: a record is written before its message
        # is sent.
        names = set(self._messages.receive())
        self._parts.loop.aside(functools.partial(self._learn, names))

    def _learn(self, names: set[str]) -> None:
        self._parts.runner.sync()
        for name in names:
            self._parts.changes(name)

    def check(self) -> None:
        """A file of the run folder was removed: what is needed is made again."""
        made = self._parts.runner.check_folder()
        if made or not self._messages.is_bound():
            fresh = MessageSocket(self._settings.run_dir)
            fresh.bind()
            self._parts.loop.call_soon(functools.partial(self._hear, fresh))
        if not self._holds_lock():
            # It keeps nobody out any more: the file that it is on has lost its name.
            lost, self.lock = self.lock, self._taken()
            os.close(lost)

    def _hear(self, fresh: MessageSocket) -> None:
        # In the loop's thread, which alone reads.  Forgotten before it is closed: the
        # next file opened gets its number.
        self._parts.loop.unwatch(self._messages.fileno())
        self._messages.close()
        self._messages = fresh
        self._parts.loop.watch(fresh.fileno(), self._on_messages)

    def _holds_lock(self) -> bool:
        with contextlib.suppress(OSError):
            there = os.stat(self._settings.pid_file(SERVICE))
            return os.path.samestat(there, os.fstat(self.lock))
        return False

    def close(self) -> None:
        """Hear nothing more; the lock goes with the process."""
        # Unlinked while we still have the lock: the next server can't have bound the
        # same name yet.
        self._messages.close(unlink=True)
