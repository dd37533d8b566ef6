"""Patterns: ordinary ones are admitted, and whatever is admitted is fast."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import unittest
from typing import Iterator, Tuple

from support import REPOSITORY

from cron_trigger.registry.patterns import PARAMETER_CHARS, slow_fault

WEEK_DAYS = "(mon|tue|wed|thu|fri|sat|sun)"
LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
OCTET = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
ORDINARY = (
    "",
    "yes|no",
    r"^[a-z0-9-]+$",
    r"[A-Z]{3}-\d{4}",
    r"[^@\s]+@[^@\s]+\.[a-z]+",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r".+@.+",
    r"\d{4}-\d{2}-\d{2}",
    r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?$",
    r"([01]?\d|2[0-3]):[0-5]\d",
    "daily|weekly|monthly",
    f"{WEEK_DAYS}(,{WEEK_DAYS})*",
    "(jan|january)(,(jan|january))*",
    rf"{OCTET}(\.{OCTET}){{3}}",
    rf"({LABEL}\.)+[A-Za-z]{{2,}}",
    r"^\/.*$",
    "(/[^/]+)+",
    "[^/]+(/[^/]+)*/?",
    r"https?://[^\s/]+(/[^\s]*)?",
    r"[a-z]+(-[a-z0-9]+)*",
    r"[A-Z][a-z]+(?: [A-Z][a-z]+)*",
    r"(\d{1,3},)*\d{1,3}",
    r"-?\d+(\.\d+)?([eE][+-]?\d+)?",
    r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?",
    "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    r".*\.(csv|txt|gz)",
    r"(?=.*\d)(?=.*[a-z]).{8,}",
    r"(?:(?!\.\.)[a-z.])+",
    r"(?i)[a-z]+-[a-z]+",
    "(?P<host>[a-z]+):(?P<port>[0-9]+)",
    "[А-Яа-я ]+",
    r"\S+\s+\S+",
    r"\w+ \w+ \w+",
    "(foo|bar|baz)+",
    r"\+?[0-9 ]{6,20}",
    "[a-z][a-z0-9-]*[a-z0-9]",
)
SLOW = (
    "(a+)+",
    "(a*)*",
    "(a|a)*",
    "(a|aa)+",
    "(a|ab|b)*",
    "(a?b?)*",
    "(x+x+)+y",
    "([a-z]+-?)+",
    r"(\w+\s?)*",
    "(a{1,9}){1,9}",
    "(?:a?){50}a{50}",
    "a?" * 30 + "a" * 30,
    "a*a*a*b",
    ".*.*.*=.*",
    "(.*a){20}",
    r"\((a+)+\)",
    "[]](a+)+[]]",
    "(?i)(ab|AB)*",
    "(?=(a+)+b)a",
    "(?=a+)+",
    r"([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*@",
    "[a-z]*(?!.*[0-9].*x)[a-z]*",
)
REFERENCES = (r"(.)\1", "(?P<x>a)(?P=x)", "(a)?(?(1)b|c)")


class JudgementTest(unittest.TestCase):
    def test_ordinary_patterns_are_admitted(self) -> None:
        for pattern in ORDINARY:
            with self.subTest(pattern):
                self.assertIsNone(slow_fault(pattern))

    def test_patterns_that_may_take_for_ever_are_refused_with_a_better_one(
        self,
    ) -> None:
        for pattern in SLOW:
            with self.subTest(pattern):
                fault = str(slow_fault(pattern))
                self.assertIn("too long", fault)
                self.assertIn("as in [a-z]+(-[a-z]+)*", fault)
        self.assertIsNone(slow_fault("[a-z]+(-[a-z]+)*"))

    def test_references_to_groups_are_refused(self) -> None:
        for pattern in REFERENCES:
            with self.subTest(pattern):
                self.assertIn("write out what is to match", str(slow_fault(pattern)))

    def test_what_is_nested_without_end_is_refused_at_once(self) -> None:
        deep = "(" * 60 + "a" + ")*" * 60
        self.assertIn("flatter", str(slow_fault(deep)))

    def test_what_is_no_regular_expression_raises(self) -> None:
        for pattern in ("(", "[", "a**", "\\"):
            with self.subTest(pattern), self.assertRaises(re.error):
                slow_fault(pattern)


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


def slowest_s(seed: int, count: int) -> Tuple[float, str, int]:
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
