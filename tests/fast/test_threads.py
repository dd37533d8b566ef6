"""Threads: each begins, or whoever wanted it is told so, and hangs never."""

from __future__ import annotations

import _thread
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, List, Tuple
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import wait_until

from cron_trigger.registry import threads
from cron_trigger.registry.threads import begin

#: What `_thread.start_new_thread` takes.
Started = Tuple[Callable[[], None], Tuple[()]]


class BeginTest(unittest.TestCase):
    def test_work_is_done_in_another_thread_and_can_be_waited_for(self) -> None:
        told: List[int] = []
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
        told: List[int] = []
        late: List[Started] = []
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

    def test_one_that_fails_is_over(self) -> None:
        with mock.patch("sys.unraisablehook") as hook:
            thread = begin("worker", lambda: [][0])
            began_s = time.monotonic()
            thread.join(10)
            self.assertLess(time.monotonic() - began_s, 5)
            wait_until(lambda: hook.called)
