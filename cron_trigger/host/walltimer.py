"""Wall timer."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Optional

from cron_trigger.host.loop import Loop


class WallTimer:
    """Calls back at a moment of the wall clock, whatever is done to that clock.

    A timerfd with an absolute time follows every step of the clock by itself
    (timerfd_create(2)); the loop's own timers count from now and would not.
    """

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._descriptor: Optional[int] = None

    def arm(self, epoch_s: Optional[float]) -> None:
        """Call back once at `epoch_s`, at once if it has passed; None: not at all."""
        if self._descriptor is None:
            if epoch_s is None:
                return
            self._descriptor = self._created()
            self._loop.watch(self._descriptor, self._fired)
        # A value of zero would disarm it.
        moment_ns = 0 if epoch_s is None else max(1, int(epoch_s * 1e9))
        self._set(self._descriptor, moment_ns)

    def _created(self) -> int:
        import ctypes  # only here: most servers never plan anything

        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = int(self._libc.timerfd_create(time.CLOCK_REALTIME, flags))
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return descriptor

    def _set(self, descriptor: int, moment_ns: int) -> None:
        import ctypes

        # struct itimerspec: interval s and ns, value s and ns; all long.
        value = (ctypes.c_long * 4)(0, 0, *divmod(moment_ns, 1_000_000_000))
        absolute = 1  # TFD_TIMER_ABSTIME
        if self._libc.timerfd_settime(descriptor, absolute, value, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _fired(self, _events: int) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.read(self._descriptor, 8)
        self._callback()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
