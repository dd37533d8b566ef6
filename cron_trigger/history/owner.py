"""Whose a state folder is: one server's, whatever the folder of its PID files.

Two servers of one history would have two sets of locks, and start a cron twice.  The
server holds a lock in the state folder for its life, and says in there which folder of
PID files it has, so that `run NAME` with another one is refused, too.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Optional

from cron_trigger.host.lock import take_lock
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.settings import OF_A_SERVER

NAME = "server.lock"
#: What is said fills PATH_MAX, so that the end of the file never moves under a reader.
SAID_BYTES = 4096


def own_state(state_dir: Path, run_dir: Path, wait_s: float = 1.0) -> Optional[int]:
    """Return a descriptor that holds a state folder; else Refusal `already_running`.

    None where the folder takes no lock at all.  Waits a moment: a server that was
    killed while it started a keeper holds it until that has begun.
    """
    deadline_s = time.monotonic() + wait_s
    try:
        while (lock := _take(state_dir)) is None:
            if time.monotonic() > deadline_s:
                raise _refusal(state_dir)
            time.sleep(0.05)
    except OSError:
        return None
    # Under the lock; who reads without it is `said_of`.
    said = os.fsencode(os.path.realpath(run_dir)).ljust(SAID_BYTES, b"\0")
    with contextlib.suppress(OSError):
        if os.pwrite(lock, said, 0) == SAID_BYTES:
            return lock
    with contextlib.suppress(OSError):  # a full disk, or one that is read-only
        os.ftruncate(lock, 0)
    return lock


def _take(state_dir: Path) -> Optional[int]:
    """Lock the file, or the folder itself where no file can be made; None if taken."""
    try:
        # Never unlinked: a lock on a file without a name keeps nobody out.
        return take_lock(state_dir / NAME)
    except OSError:
        return take_lock(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def check_run_dir(state_dir: Path, run_dir: Path) -> None:
    """Refuse where a server has this state folder with other PID files than these.

    Where the lock is free nobody minds what the file says.
    """
    # Read without the lock; what is left by a server that is gone is found out below,
    # by the lock that nobody holds.
    theirs = said_of(state_dir)
    if not theirs or theirs == os.path.realpath(run_dir):
        return
    with contextlib.suppress(OSError):
        lock = take_lock(state_dir / NAME)
        if lock is None:
            raise _refusal(state_dir)
        # At once: for this moment a server that starts would be refused, and it waits
        # longer than that.
        os.close(lock)


def said_of(state_dir: Path) -> str:
    """Return which folder of PID files the owner has named, or ""."""
    with contextlib.suppress(OSError):
        file = os.open(state_dir / NAME, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before, said = None, os.pread(file, SAID_BYTES, 0)
            # Of what is written just then the kernel may give a part: what it gives
            # twice is whole.
            while said != before:
                before, said = said, os.pread(file, SAID_BYTES, 0)
        finally:
            os.close(file)
        text, end, _ = said.partition(b"\0")
        return os.fsdecode(text) if end else ""
    return ""


def _refusal(state_dir: Path) -> Refusal:
    return Refusal(
        "already_running",
        f"A server has the state folder {state_dir} already, with its PID files in "
        f"{said_of(state_dir) or 'another folder'}: end it, use the same --run-dir, or "
        f"give a second server another --state-dir, and all of its own: {OF_A_SERVER}.",
    )
