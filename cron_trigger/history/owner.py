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
    # Under the lock, and in one step for whoever reads: what stands behind the NUL is
    # an earlier owner's.
    said = os.fsencode(os.path.realpath(run_dir)) + b"\0"
    try:
        os.pwrite(lock, said, 0)
        os.ftruncate(lock, len(said))
    except OSError:  # a full disk, or one that is read-only
        with contextlib.suppress(OSError):
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
    theirs = _said(state_dir)
    if not theirs or theirs == os.path.realpath(run_dir):
        return
    with contextlib.suppress(OSError):
        lock = take_lock(state_dir / NAME)
        if lock is None:
            raise _refusal(state_dir)
        # At once: for this moment a server that starts would be refused, and it waits
        # longer than that.
        os.close(lock)


def _said(state_dir: Path) -> str:
    """Return which folder of PID files the owner has named, or ""."""
    with contextlib.suppress(OSError):
        said, _, _ = (state_dir / NAME).read_bytes().partition(b"\0")
        return os.fsdecode(said)
    return ""


def _refusal(state_dir: Path) -> Refusal:
    return Refusal(
        "already_running",
        f"A server has the state folder {state_dir} already, with its PID files in "
        f"{_said(state_dir) or 'another folder'}: end it, use the same --run-dir, or "
        f"give a second server another --state-dir, and all of its own: {OF_A_SERVER}.",
    )
