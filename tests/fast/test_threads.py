"""Threads: each begins, or whoever wanted it is told so, and hangs never."""

from __future__ import annotations

import _thread
import collections
import sys
import threading
import time
import unittest
import weakref
from pathlib import Path
from typing import Any, Callable
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import wait_until

from cron_trigger.registry import threads
from cron_trigger.registry.threads import begin

#: What `_thread.start_new_thread` takes.
Started = tuple[Callable[[], None], tuple[()]]


class Noting:
    """Notes which thread does it."""

    def __init__(self, told: list[int]) -> None:
        self._told = told

    def __call__(self) -> None:
        self._told.append(threading.get_ident())


class BeginTest(unittest.TestCase):
    def setUp(self) -> None:
        # Those of earlier tests would do what is to be born here.
        nobody: Any = mock.patch.object(threads, "_idle", collections.deque())
        patient: Any = mock.patch.object(threads, "BIRTH_S", 30.0)
        for patch in (nobody, patient):
            patch.start()
            self.addCleanup(patch.stop)

    def test_work_is_done_in_another_thread_and_can_be_waited_for(self) -> None:
        told: list[int] = []
        gate = threading.Event()

        def work() -> None:
            gate.wait()
            told.append(threading.get_ident())

        thread = begin("worker", work)
        thread.join(0)
        self.assertEqual(told, [])
        gate.set()
        for _ in range(2):  # by more than one
            thread.join(10)
        self.assertNotIn(threading.get_ident(), told)
        self.assertEqual(len(told), 1)

    def test_one_that_dies_at_its_birth_is_told_of_and_never_begins(self) -> None:
        told: list[int] = []
        late: list[Started] = []
        start, here = _thread.start_new_thread, threading.get_ident()

        def stillborn(*given: Any) -> int:
            if threading.get_ident() != here:  # what an earlier test has left
                return start(*given)
            late.append(given)
            return 0

        never = mock.patch.object(_thread, "start_new_thread", stillborn)
        soon = mock.patch.object(threads, "BIRTH_S", 0.02)
        with never, soon, self.assertRaisesRegex(RuntimeError, "worker"):
            begin("worker", lambda: told.append(1))
        ((work, given),) = late
        work(*given)
        self.assertEqual(told, [])

    def test_one_without_memory_is_told_of(self) -> None:
        none = mock.patch.object(_thread, "start_new_thread", side_effect=MemoryError)
        with none, self.assertRaisesRegex(RuntimeError, "worker"):
            begin("worker", lambda: None)

    def test_one_that_is_done_does_the_next_and_keeps_nothing_of_it(self) -> None:
        told: list[int] = []
        for _ in range(3):
            work = Noting(told)
            known = weakref.ref(work)
            begin("worker", work).join(10)
            del work
            wait_until(lambda: threads._idle)
            self.assertIsNone(known())
        self.assertEqual((len(told), len(set(told))), (3, 1))

    def test_each_has_a_thread_of_its_own_and_few_wait_afterwards(self) -> None:
        gate, told = threading.Event(), []

        def work() -> None:
            gate.wait()
            told.append(threading.get_ident())

        begun = [begin("worker", work) for _ in range(3 * threads.IDLE_LIMIT)]
        gate.set()
        for one in begun:
            one.join(10)
        self.assertEqual(len(set(told)), len(begun))
        wait_until(lambda: len(threads._idle) == threads.IDLE_LIMIT)

    def test_one_that_fails_is_over(self) -> None:
        with mock.patch("sys.unraisablehook") as hook:
            thread = begin("worker", lambda: [][0])
            began_s = time.monotonic()
            thread.join(60)
            self.assertLess(time.monotonic() - began_s, 30)
            wait_until(lambda: hook.called)
