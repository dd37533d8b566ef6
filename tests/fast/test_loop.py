"""The one background thread: descriptors, moments, calls from other threads."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Callable
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import slow, wait_until

from cron_trigger.host.loop import Loop, Timer, WallTimer


class Clock:
    """A monotonic clock that the test advances by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Stepped(unittest.TestCase):
    """A loop whose steps and whose time the test makes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, str]] = []
        self.loop = Loop(lambda *words: self.said.append(words), self.clock)
        self.addCleanup(self.loop.close)
        self.done: list[str] = []

    def note(self, what: str) -> Callable[..., None]:
        return lambda *_: self.done.append(what)

    def test_what_may_wait_is_done_aside_in_order_and_reported(self) -> None:
        go = threading.Event()

        def hang() -> None:
            go.wait(10)

        self.loop.aside(hang)
        self.loop.aside(self.note("second"))
        self.loop.aside(lambda: 1 // 0)  # type: ignore[arg-type]
        self.loop.call_soon(self.note("meanwhile"))
        self.loop.step(0)
        self.assertEqual(self.done, ["meanwhile"])
        self.loop.finish_aside(0.01)  # a disk that hangs holds nobody for longer
        go.set()
        self.loop.finish_aside(10)
        self.assertEqual(self.done, ["meanwhile", "second"])
        self.assertIn("ZeroDivisionError", self.said[0][1])

    def test_where_memory_runs_out_in_a_report_the_others_are_done(self) -> None:
        errors = [MemoryError()]

        def say(*words: str) -> None:
            if errors:
                raise errors.pop()
            self.said.append((words[0], words[1]))

        with mock.patch.object(self.loop, "_say", say):
            self.loop.aside(lambda: 1 // 0)  # type: ignore[arg-type]
            self.loop.aside(self.note("after"))
            self.loop.finish_aside(10)
        self.assertEqual(self.done, ["after"])
        self.assertIn("ZeroDivisionError", self.said[0][1])

    def advance(self, by_s: float) -> list[str]:
        """Let time pass, and return what was done in the step that follows."""
        self.done.clear()
        self.clock.now_s += by_s
        self.loop.step(0)
        return list(self.done)

    def test_timers_come_at_their_time_the_earliest_first(self) -> None:
        self.loop.call_later(3, self.note("third"))
        self.loop.call_later(1, self.note("first"))
        self.loop.call_later(2, self.note("second"))
        self.assertEqual(self.advance(0.999), [])
        self.assertEqual(self.advance(0.001), ["first"])
        self.assertEqual(self.advance(5), ["second", "third"])
        self.assertEqual(self.advance(5), [])

    def test_timers_of_one_moment_keep_their_order(self) -> None:
        for name in "abc":
            self.loop.call_later(1, self.note(name))
        self.assertEqual(self.advance(1), ["a", "b", "c"])

    def test_a_cancelled_timer_does_not_come(self) -> None:
        timer = self.loop.call_later(1, self.note("cancelled"))
        self.loop.call_later(1, self.note("kept"))
        timer.cancel()
        self.assertEqual(self.advance(2), ["kept"])

    def test_a_timer_may_cancel_another_of_the_same_moment(self) -> None:
        timers: list[Timer] = []
        self.loop.call_later(1, lambda: timers[0].cancel())
        timers.append(self.loop.call_later(1, self.note("cancelled")))
        self.assertEqual(self.advance(2), [])

    def test_calls_from_elsewhere_come_in_their_order(self) -> None:
        for name in "abc":
            self.loop.call_soon(self.note(name))
        self.assertEqual(self.advance(0), ["a", "b", "c"])

    def test_a_signal_is_answered_once_however_often_it_came(self) -> None:
        before = signal.getsignal(signal.SIGUSR1)
        with self.loop.on_signals({signal.SIGUSR1: self.note("answered")}):
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGUSR1)
            self.assertEqual(self.done, [])
            self.assertEqual(self.advance(0), ["answered"])
            self.assertEqual(self.advance(0), [])
        self.assertIs(signal.getsignal(signal.SIGUSR1), before)

    def test_a_call_that_calls_again_does_not_starve_the_rest(self) -> None:
        def again() -> None:
            self.done.append("again")
            self.loop.call_soon(again)

        self.loop.call_soon(again)
        self.loop.call_later(0, self.note("timer"))
        self.assertEqual(self.advance(0), ["again", "timer"])

    def test_a_callback_that_fails_is_told_and_the_others_are_called(self) -> None:
        self.loop.call_soon(lambda: 1 // 0)  # type: ignore[arg-type]
        self.loop.call_soon(self.note("after"))
        self.assertEqual(self.advance(0), ["after"])
        self.assertEqual(self.said[0][0], "error")
        self.assertIn("ZeroDivisionError", self.said[0][1])

    @slow
    def test_one_that_memory_ran_out_in_is_called_again(self) -> None:
        errors: list[MemoryError] = []

        def hungry() -> None:
            if errors:
                raise errors.pop()
            self.done.append("fed")

        def starve() -> None:
            errors[:] = [MemoryError()]

        starve()
        self.loop.call_soon(hungry)
        for _ in range(3):
            self.loop.step(0)
        starve()
        self.loop.call_later(0, hungry)
        for _ in range(3):
            self.loop.step(0)
        starve()
        self.loop.aside(hungry)
        wait_until(lambda: len(self.done) == 3)
        self.assertEqual((self.done, self.said), (["fed"] * 3, []))

    def test_a_watched_descriptor_calls_until_it_is_unwatched(self) -> None:
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        self.loop.watch(ours, self.note("ready"))
        self.assertEqual(self.advance(0), [])
        os.write(theirs, b"x")
        self.assertEqual(self.advance(0), ["ready"])
        self.loop.unwatch(ours)
        self.assertEqual(self.advance(0), [])
        self.loop.unwatch(ours)  # again: harmless

    def test_a_descriptor_unwatched_by_a_callback_of_the_same_round_is_left_alone(
        self,
    ) -> None:
        pipes = [os.pipe() for _ in range(2)]
        for number, (ours, theirs) in enumerate(pipes):
            other = pipes[1 - number][0]

            def first_only(_events: int, other: int = other) -> None:
                self.done.append("one")
                self.loop.unwatch(other)

            self.loop.watch(ours, first_only)
            os.write(theirs, b"x")
        self.assertEqual(self.advance(0), ["one"])
        for ours, theirs in pipes:
            os.close(ours)
            os.close(theirs)

    def test_it_sleeps_until_the_next_timer_and_a_day_at_most(self) -> None:
        self.assertIsNone(self.loop._timeout_s())
        timer = self.loop.call_later(10, self.note("x"))
        self.loop._drain(1)
        self.assertAlmostEqual(self.loop._timeout_s() or 0, 10.001)
        timer.cancel()
        self.assertIsNone(self.loop._timeout_s())
        self.loop.call_later(10**9, self.note("x"))
        self.assertEqual(self.loop._timeout_s(), 86400.0)


class Threaded(unittest.TestCase):
    """A loop that runs in a thread of its own, by the true clock."""

    def setUp(self) -> None:
        self.loop = Loop(lambda *_: None)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()
        self.addCleanup(self.loop.close)
        self.addCleanup(self.thread.join)
        self.addCleanup(self.loop.stop)

    def test_a_wake_up_that_failed_keeps_no_later_one_from_coming(self) -> None:
        done = threading.Event()
        short = mock.patch("os.write", side_effect=MemoryError)
        with short, self.assertRaises(MemoryError):
            self.loop.call_soon(lambda: None)
        self.loop.call_soon(done.set)
        self.assertTrue(done.wait(10))

    def test_an_earlier_timer_wakes_it_from_a_longer_sleep(self) -> None:
        came = threading.Event()
        self.loop.call_later(3600, lambda: None)
        started_s = time.monotonic()
        self.loop.call_later(0.05, came.set)
        self.assertTrue(came.wait(15))
        self.assertGreaterEqual(time.monotonic() - started_s, 0.049)

    def test_calls_of_many_threads_are_all_made_in_its_own(self) -> None:
        made: list[int] = []

        def call() -> None:
            for _ in range(500):
                self.loop.call_soon(lambda: made.append(threading.get_ident()))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(made) == 2000)
        self.assertEqual(set(made), {self.thread.ident})

    @slow
    def test_an_idle_loop_does_not_spin(self) -> None:
        self.loop.call_later(3600, lambda: None)
        before_s = time.process_time()
        threading.Event().wait(0.2)
        self.assertLess(time.process_time() - before_s, 0.1)


class WallTimers(unittest.TestCase):
    """A timer that follows the clock on the wall."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.loop = Loop(lambda *_: None, self.clock)
        self.addCleanup(self.loop.close)
        self.fired: list[float] = []
        self.timer = WallTimer(self.loop, lambda: self.fired.append(time.time()))

    def step_until_fired(self, times: int = 1) -> None:
        def fired() -> bool:
            self.loop.step(0.01)
            return len(self.fired) >= times

        wait_until(fired)

    def test_it_fires_once_at_its_moment_never_before(self) -> None:
        moment_s = time.time() + 0.05
        self.timer.arm(moment_s)
        self.step_until_fired()
        self.assertGreaterEqual(self.fired[0], moment_s)
        self.loop.step(0.05)
        self.assertEqual(len(self.fired), 1)

    def test_a_moment_that_has_passed_fires_at_once(self) -> None:
        for moment_s in (time.time() - 60, 0.0, -5.0):
            self.fired.clear()
            self.timer.arm(moment_s)
            self.step_until_fired()

    def test_it_may_be_armed_anew_and_disarmed(self) -> None:
        self.timer.arm(time.time() + 3600)
        self.timer.arm(time.time() + 0.02)
        self.step_until_fired()
        self.timer.arm(time.time() + 0.02)
        self.timer.arm(None)
        self.loop.step(0.1)
        self.assertEqual(len(self.fired), 1)

    def test_a_timer_that_was_never_armed_costs_no_descriptor(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        idle = WallTimer(self.loop, lambda: None)
        idle.arm(None)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_where_there_was_no_descriptor_it_calls_a_moment_later(self) -> None:
        short = OSError(errno.EMFILE, "timerfd_create")
        with mock.patch.object(self.timer, "_created", side_effect=short):
            self.timer.arm(time.time() + 3600)
        self.loop.step(0)
        self.assertEqual(self.fired, [])
        self.clock.now_s += 1
        self.step_until_fired()

    def test_where_the_clock_was_set_before_it_is_armed_anew_it_calls(self) -> None:
        # timerfd_create(2), NOTES: it is armed, and the call fails all the same.
        self.timer.arm(time.time() + 3600)

        def canceled(*_: object) -> int:
            ctypes.set_errno(errno.ECANCELED)
            return -1

        with mock.patch.object(self.timer, "_libc") as libc:
            libc.timerfd_settime = canceled
            self.timer.arm(time.time() + 3600)
        self.clock.now_s += 1
        self.step_until_fired()

    def test_a_moment_in_the_far_future_is_kept(self) -> None:
        self.timer.arm(time.time() + 100 * 365 * 86400)
        self.loop.step(0.02)
        self.assertEqual(self.fired, [])


if __name__ == "__main__":
    unittest.main()
