"""Turns: of each client a few threads work at once, the others sleep in their order."""

from __future__ import annotations

import sys
import threading
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import slow, wait_until

from cron_trigger.web.places import Turns


class TurnsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now_s = 0.0
        self.turns = Turns(lambda: self.now_s)
        self.took: list[str] = []

    def take_later(self, name: str, client: str = "one") -> threading.Thread:
        """Take a turn in a thread; return when it works, or sleeps."""

        def take() -> None:
            self.turns.take(client)
            self.took.append(name)

        before = self.waiting(client)
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        wait_until(lambda: name in self.took or self.waiting(client) > before)
        return thread

    def waiting(self, client: str) -> int:
        line = self.turns.lines.get(client)
        return len(line.waiting) if line else 0

    def test_two_of_a_client_work_and_the_others_wait_in_their_order(self) -> None:
        threads = [self.take_later(name) for name in "abcd"]
        self.assertEqual(self.took, ["a", "b"])
        self.turns.give("one")
        wait_until(lambda: self.took == ["a", "b", "c"])
        self.turns.give("one")
        wait_until(lambda: self.took == ["a", "b", "c", "d"])
        for _ in "cd":
            self.turns.give("one")
        for thread in threads:
            thread.join(10)

    def test_a_client_s_crowd_keeps_no_other_client_waiting(self) -> None:
        for name in "abcde":
            self.take_later(name)
        self.take_later("other", "two")
        self.assertEqual(self.took, ["a", "b", "other"])
        for _ in "abcde":
            self.turns.give("one")
        self.turns.give("two")
        wait_until(lambda: sorted(self.took) == ["a", "b", "c", "d", "e", "other"])
        self.assertFalse(self.turns.lines)

    @slow
    def test_nobody_waits_for_those_who_wait_for_a_disk(self) -> None:
        for name in "abc":
            self.take_later(name)
        self.assertEqual(self.took, ["a", "b"])
        self.now_s = self.turns.STUCK_S
        wait_until(lambda: self.took == ["a", "b", "c"])
        self.take_later("d")  # none was given back meanwhile
        wait_until(lambda: self.took == ["a", "b", "c", "d"])
        for _ in "abcd":
            self.turns.give("one")
        self.assertFalse(self.turns.lines)


if __name__ == "__main__":
    unittest.main()
