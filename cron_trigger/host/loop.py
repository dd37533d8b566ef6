"""The loop: a thread that waits for descriptors and moments, and never for a disk.

A server has two: that of its main thread accepts and hears signals, that of the waiter
has all else.  What may have to wait for a disk, or for a lock that is held meanwhile,
is done `aside`: by one thread more, in the order in which it was asked for.  Any thread
may ask for something; `Loop._lock` guards the timers and the birth of that thread.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import itertools
import os
import queue
import select
import signal
import threading
import time
from typing import Any, Callable, Iterator, Mapping, Optional

from cron_trigger.host.shortage import PAUSE_S, insist
from cron_trigger.registry.threads import Work, begin


class Timer:
    """A call at a moment of the monotonic clock.  `cancel` from any thread."""

    __slots__ = ("callback", "due_s")

    def __init__(self, due_s: float, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Waits for descriptors and moments, and calls back, one call after the other.

    `watch`, `call_soon` and `call_later` may be called from any thread; callbacks run
    in the thread that runs the loop.  A callback that fails is reported, and the loop
    goes on: one broken run must not leave the others unwatched.  One that memory ran
    out in is called again: what it saw to would be seen to by nobody.
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._monotonic = monotonic
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._soon: collections.deque[Callable[[], None]] = collections.deque()
        self._lock = threading.Lock()  # guards _timers and _beside
        self._aside: queue.SimpleQueue[Optional[Callable[[], None]]]
        self._aside = queue.SimpleQueue()
        self._beside: Optional[Work] = None
        self._wake_in, self._wake_out = os.pipe()
        # Neither end may block: a full pipe wakes as well.
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._woken = False
        self._answers: Mapping[int, Callable[[], None]] = {}
        self.watch(self._wake_in, self._drain)
        self._stopping = False
        self._thread_id = 0

    def watch(
        self,
        descriptor: int,
        callback: Callable[[int], None],
        events: int = select.EPOLLIN,
    ) -> None:
        """Call back with the ready events whenever a descriptor is ready."""
        self._callbacks[descriptor] = callback
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:
            self._epoll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._callbacks.pop(descriptor, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(descriptor)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the loop's thread, in the order of these calls."""
        self._soon.append(callback)
        self._wake()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back after a while."""
        timer = Timer(self._monotonic() + delay_s, callback)
        with self._lock:
            heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
            first = self._timers[0][2] is timer
        if first:
            self._wake()
        return timer

    def aside(self, work: Callable[[], None]) -> None:
        """Do something that may wait for a disk, after what was asked for before it."""
        self._aside.put(work)
        with self._lock:
            if self._beside is not None:
                return
            # Where there is no memory for it, the next one who asks finds some.
            with contextlib.suppress(RuntimeError):
                self._beside = begin("aside", self._do_aside)

    def _do_aside(self) -> None:
        while True:
            work = self._aside.get()
            if work is None:
                return
            insist(functools.partial(self._call, work, self._aside.put))

    def finish_aside(self, patience_s: float) -> None:
        """Wait until all is done that was asked for, unless a disk hangs."""
        done = threading.Event()
        self.aside(done.set)
        done.wait(patience_s)

    def step(self, limit_s: Optional[float] = None) -> None:
        """Wait for what comes first and do it: one round of `run`."""
        timeout_s = self._timeout_s()
        if limit_s is not None:
            timeout_s = limit_s if timeout_s is None else min(limit_s, timeout_s)
        for descriptor, events in self._epoll.poll(timeout_s):
            callback = self._callbacks.get(descriptor)
            if callback:
                self._call(functools.partial(callback, events), self._soon.append)
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft(), self._soon.append)
        self._call_due()

    def is_here(self) -> bool:
        """Return True in the thread that runs the loop, while it does."""
        return self._thread_id == threading.get_ident()

    def run(self) -> None:
        """Step until `stop`."""
        self._thread_id = threading.get_ident()
        while not self._stopping:
            insist(self.step)
        self._thread_id = 0

    def stop(self) -> None:
        """Have `run` return; from any thread."""
        self._stopping = True
        self._wake()

    @contextlib.contextmanager
    def on_signals(self, answers: Mapping[int, Callable[[], None]]) -> Iterator[None]:
        """Have the loop, run by the main thread, answer signals meanwhile.

        Python writes the number of each into the pipe that wakes the loop: none is lost
        between a look and a wait, and one that comes before `run` waits for it.
        """

        def noted(_number: int, _frame: Any) -> None:
            """Its number is in the pipe."""

        self._answers = answers
        earlier = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        before = {number: signal.signal(number, noted) for number in answers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(earlier)

    def _timeout_s(self) -> Optional[float]:
        if self._soon:
            return 0.0
        with self._lock:
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            if not self._timers:
                return None
            # Up to the next millisecond: epoll rounds down, and would spin.
            # At most a day: it takes no more than 24 of them.
            left_s = self._timers[0][0] - self._monotonic() + 0.001
            return min(max(0.0, left_s), 86400.0)

    def _call_due(self) -> None:
        now_s = self._monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now_s:
                    return
                timer = heapq.heappop(self._timers)[2]
            if timer.callback:
                self._call(timer.callback, self._soon.append)

    def _call(
        self, callback: Callable[[], None], again: Callable[[Callable[[], None]], None]
    ) -> None:
        """Call back; `again` has it called once more, where memory ran out in it."""
        try:
            callback()
        except MemoryError:
            time.sleep(PAUSE_S)  # the next moment may have some
            again(callback)
        except Exception as error:  # reported, never fatal: see the class
            self._say("error", f"internal error in the waiting thread: {error!r}")

    def _wake(self) -> None:
        # One byte is enough until the loop has seen it, maybe before `write` returns.
        if not self._woken:
            self._woken = True
            try:
                os.write(self._wake_out, b"\0")
            except (OSError, MemoryError) as error:  # OSError: it is closed
                self._woken = False  # or nobody would wake it any more
                if not isinstance(error, OSError):
                    raise

    def _drain(self, _events: int) -> None:
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self._wake_in, 4096)
        # Now, before anything is looked at: whoever asks for something from here on
        # wakes the loop again; what was asked for before is seen in this round.
        self._woken = False
        # A set: a signal that came ten times asks for one answer.
        for number in self._answers.keys() & numbers:
            self._call(self._answers[number], self._soon.append)

    def close(self) -> None:
        """Give the descriptors back; the loop must not run."""
        self._aside.put(None)
        self._epoll.close()
        os.close(self._wake_in)
        os.close(self._wake_out)


def is_ready(descriptor: int) -> bool:
    """Return True where a descriptor is ready to be read now."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class WallTimer:
    """Calls back at a moment of the wall clock, whatever is done to that clock.

    A timerfd with an absolute time follows every step of the clock by itself
    (timerfd_create(2)); the loop's own timers count from now and would not.  Its
    descriptor goes with the process.
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
            try:
                self._descriptor = self._created()
            except (OSError, ImportError):  # no descriptor: who is called arms it anew
                self._loop.call_later(1.0, self._callback)
                return
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
        # TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET: a clock that is set wakes us.
        if self._libc.timerfd_settime(descriptor, 1 | 2, value, None):
            # ECANCELED, armed all the same: timerfd_create(2), notes.
            self._loop.call_later(1.0, self._callback)

    def _fired(self, _events: int) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.read(self._descriptor, 8)
        self._callback()
