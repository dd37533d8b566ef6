"""Patterns: ordinary ones are admitted, and whatever is admitted is fast."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import unittest
from typing import Iterator

from fast.test_patterns import ORDINARY
from support import REPOSITORY, slow

from cron_trigger.registry.patterns import PARAMETER_CHARS, slow_fault


class Patterns:
    """Makes random patterns of few characters, so that their parts get in each
    other's way, and texts that keep them busy."""

    ATOMS = ("a", "b", "-", ".", "[ab]", "[a-c]", "[^-]", "[^a]", r"\w", r"\.", "ab")
    REPEATS = ("*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "{0,61}")

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def pattern(self, depth: int) -> str:
        parts = range(self._chance.randint(1, 4))
        return "".join(self._part(depth) for _ in parts)

    def _part(self, depth: int) -> str:
        kind = self._chance.random()
        if depth == 0 or kind < 0.6:
            return self._chance.choice(self.ATOMS) + self._repeat()
        if kind > 0.95:
            return f"(?{self._chance.choice('=!')}{self.pattern(depth - 1)})"
        choices = range(self._chance.choice((1, 1, 1, 2, 3)))
        inner = "|".join(self.pattern(depth - 1) for _ in choices)
        return f"({inner}){self._repeat()}"

    def _repeat(self) -> str:
        often = self._chance.random() < 0.5
        return self._chance.choice(self.REPEATS) if often else ""

    def texts(self) -> Iterator[str]:
        """Yield long texts that nearly match."""
        words = ["a", "b", "-", ".", "c", "ab", "aab", "a-", "a.", "ba", "a-b"]
        letters = self._chance.choices("ab-.c", k=5)
        for word in (*words, "".join(letters)):
            for end in ("!", "a", "-"):
                yield (word * PARAMETER_CHARS)[: PARAMETER_CHARS - 1] + end


def slowest_s(seed: int, count: int) -> tuple[float, str, int]:
    """Return the longest comparison, its pattern, and how many were admitted."""
    import time

    made = Patterns(seed)
    slowest, admitted = (0.0, ""), 0
    for number in range(count):
        pattern = made.pattern(number % 4)
        if slow_fault(pattern):
            continue
        admitted += 1
        compiled = re.compile(pattern)
        for text in made.texts():
            # Processor time, and the better of two: the machine has other work.
            took = []
            for _ in range(2):
                before = time.process_time()
                compiled.fullmatch(text)
                took.append(time.process_time() - before)
                if took[-1] < 0.01:
                    break
            slowest = max(slowest, (min(took), pattern))
    return (*slowest, admitted)


@slow
class SpeedTest(unittest.TestCase):
    """In a process that can be ended: a comparison that hangs can't be."""

    def test_whatever_is_admitted_compares_a_thousand_characters_at_once(self) -> None:
        code = (
            f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, "
            f"{str(REPOSITORY / 'tests')!r}]\n"
            "import test_patterns\n"
            "print(*test_patterns.slowest_s(7, 1200), sep='\\n')"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        slowest, pattern, admitted = done.stdout.splitlines()
        # 50 ms on a machine of its own; the point is that none takes seconds.
        self.assertLess(float(slowest), 0.25, pattern)
        self.assertGreater(int(admitted), 400)

    def test_so_do_the_ordinary_ones(self) -> None:
        made = Patterns(1)
        for pattern in ORDINARY:
            for text in made.texts():
                re.fullmatch(pattern, text)


if __name__ == "__main__":
    unittest.main()
