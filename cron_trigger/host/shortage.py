"""Shortage: what the system refuses at this moment, and not a moment later.

Where no descriptor, process or memory is free, a question has no answer yet: a process
that can't be looked at has not ended, a file that can't be opened is not gone.  So
whoever must not lose what it does asks again: `insist`, in a thread that may wait.
"""

from __future__ import annotations

import errno
import time
from typing import Callable, TypeVar

T = TypeVar("T")
#: What the system says where it has no descriptor, process or memory left.
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
PAUSE_S = 0.1


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error is one that may be over in a moment."""
    short = isinstance(error, OSError) and error.errno in SHORT
    return short or isinstance(error, MemoryError)


def insist(work: Callable[[], T]) -> T:
    """Do something, again and again as long as only a shortage stands against it."""
    while True:
        try:
            return work()
        except (OSError, MemoryError) as error:
            if not is_shortage(error):
                raise
        time.sleep(PAUSE_S)
