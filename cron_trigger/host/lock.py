"""PID files: each cron's lock, and what its keeper wrote.

A PID file holds "PID\n" from the keeper's first step on, and "PID\nSTATUS\n" from the
script's end on.  It is never unlinked: a lock on a file that has lost its name would
keep nobody out.  Who may take the lock is decided by flock(2) alone, between threads as
between processes, since each attempt opens the file anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from pathlib import Path
from typing import NamedTuple, Optional, Union

from cron_trigger.host.shortage import is_shortage

PID_FILE_BYTES = 32
#: A file's time is no finer than the kernel's clock, whose tick is 10 ms at most: what
#: was looked at so soon after it may have changed since, and has the same time.
TICK_NS = 100_000_000
#: O_NOFOLLOW: a link in this place would have the server write into whatever it
#: points to.  O_NONBLOCK: a named pipe must not hang its opening.
FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def take_lock(path: Union[str, Path], flags: int = FLAGS) -> Optional[int]:
    """Return a descriptor that holds the lock of a PID file; None if another has it.

    Raises OSError where the file can't be opened.
    """
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def reserve(path: Union[str, Path]) -> None:
    """Make a PID file with room on the disk for what its keeper will write.

    Raises OSError where there is none.  Before anything runs: later the disk may be
    full, and a status that can't be written is lost with the server.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path, follow_symlinks=False).st_size >= PID_FILE_BYTES:
            return
    lock = take_lock(path)
    if lock is None:
        return  # whoever runs it has made room itself
    try:
        os.pwrite(lock, b" " * PID_FILE_BYTES, 0)
    finally:
        os.close(lock)


def empty_pid_file(lock: int) -> None:
    """Have a PID file say nothing, through its locked descriptor.

    Blanks keep the file's place on the disk.  They are no line, so nobody reads them.
    """
    blank = b" " * PID_FILE_BYTES
    with contextlib.suppress(OSError):
        if os.pwrite(lock, blank, 0) == len(blank):
            os.ftruncate(lock, len(blank))
            return
    os.ftruncate(lock, 0)


class PidFile(NamedTuple):
    """What a keeper wrote: its PID, then the script's exit status, and when."""

    pid: Optional[int] = None
    exit_code: Optional[int] = None
    written_s: float = 0.0


def read_lock(lock: int) -> PidFile:
    """Return what stands in the PID file of a descriptor; never raises."""
    try:
        lines = os.pread(lock, 64, 0).split(b"\n")[:-1]
        written_s = os.fstat(lock).st_mtime
    except OSError:
        return PidFile()
    numbers = [int(line) for line in lines if line.isdigit()]
    pid, exit_code = (*numbers, None, None)[:2]
    return PidFile(pid, exit_code, written_s)


def read_pid_file(path: Union[str, Path]) -> PidFile:
    """Return what stands in a PID file; an empty PidFile where there is nothing.

    Raises OSError where no descriptor is free: what can't be read may be there.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if is_shortage(error):
            raise
        return PidFile()
    try:
        return read_lock(descriptor)
    finally:
        os.close(descriptor)


def held_locks(run_dir: Path) -> dict[str, int]:
    """Return cron name to the holder's PID for each locked PID file of a folder.

    By /proc/locks: to take a lock to see if it is free would make a crontab's `flock
    -n` fail just then.  That table names files by device and inode; how it writes the
    device is learnt from a lock on the folder itself, which nobody else minds.
    """
    try:
        folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        # Whoever has it for himself stands in the table just the same.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file if " FLOCK " in line]
        locks = [
            (row[-4], int(row[-3].rpartition(":")[2]), row[-3].rpartition(":")[0])
            for row in rows
            if "->" not in row
        ]
        status = os.fstat(folder)
        # What is made within a tick of the kernel's clock leaves no other time there.
        aged = time.time_ns() - status.st_mtime_ns > TICK_NS
        stamp = status.st_mtime_ns if aged else time.monotonic_ns()
        names = _names_of(run_dir, (status.st_ino, stamp))
        device = next((d for _, inode, d in locks if inode == status.st_ino), None)
        return {names[i]: int(p) for p, i, d in locks if d == device and i in names}
    except OSError:
        return {}
    finally:
        os.close(folder)


@functools.lru_cache(maxsize=1)
def _names_of(run_dir: Path, _stamp: tuple[int, int]) -> dict[int, str]:
    """Return inode to cron name for each PID file, listed anew when the folder changes.

    By `stat`: FUSE may make up the numbers that a folder lists.
    """
    with os.scandir(run_dir) as entries:
        return {
            entry.stat(follow_symlinks=False).st_ino: entry.name[: -len(".pid")]
            for entry in entries
            if entry.name.endswith(".pid")
        }
