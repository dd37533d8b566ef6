"""Patterns: ordinary ones are admitted, and whatever is admitted is fast."""

from __future__ import annotations

import re
import unittest

from cron_trigger.registry.patterns import slow_fault

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


if __name__ == "__main__":
    unittest.main()
