"""Shortage: what the system refuses at this moment, and not a moment later.

Where no descriptor, process or memory is free, a question has no answer yet: a process
that can't be looked at has not ended, a file that can't be opened is not gone.  So
whoever must not lose what it does asks again: `insist`, in a thread that may wait.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Callable, TypeVar

T = TypeVar("T")
#: What the system says where it has no descriptor, process or memory left.
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
PAUSE_S = 0.1
#: A disk with less may be full at the next page.
ROOM_BYTES = 1 << 20


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error is one that may be over in a moment."""
    short = isinstance(error, OSError) and error.errno in SHORT
    return short or isinstance(error, MemoryError)


def is_short(folder: Path) -> bool:
    """Tell whether to change a mapped file there could end this process, by SIGBUS.

    SQLite maps the index of its -wal, and changes it where it only reads, too.  btrfs
    writes each page anew, and has no room for that on a full disk.  It is told by
    counting no inodes, as vfat, which loses nothing by it.
    """
    with contextlib.suppress(OSError):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        return bool(disk.f_blocks and not disk.f_files and free < ROOM_BYTES)
    return False


def insist(work: Callable[[], T]) -> T:
    """Do something, again and again as long as only a shortage stands against it."""
    while True:
        try:
            return work()
        except (OSError, MemoryError) as error:
            if not is_shortage(error):
                raise
        time.sleep(PAUSE_S)
