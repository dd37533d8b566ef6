"""The order of the module: what a reader may rely on when reading it from the top."""

from __future__ import annotations

import ast
import bisect
import re
import subprocess
import sys
import tempfile
import unittest
from typing import Dict, Iterator, List, Tuple

from support import PROGRAM

TEXT = PROGRAM.read_text(encoding="utf-8")
TREE = ast.parse(TEXT)
LONGEST_FUNCTION = 40


def banners() -> List[Tuple[int, str]]:
    """Return the line and the name of each section."""
    found = re.finditer(r"^# =+ (.+)$", TEXT, re.MULTILINE)
    return [(TEXT.count("\n", 0, match.start()) + 1, match[1]) for match in found]


FIRST_LINES = [line for line, _ in banners()]


def section_of(line: int) -> int:
    """Return the number of the section in which a line stands; 0 before the first."""
    return bisect.bisect(FIRST_LINES, line)


def defined() -> Dict[str, int]:
    """Return each name of the module and the line that defines it."""
    names: Dict[str, int] = {}
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = node.lineno
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (n for target in targets for n in ast.walk(target)):
                if isinstance(name, ast.Name):
                    names[name.id] = node.lineno
    return names


def functions() -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef))


class OrderTest(unittest.TestCase):
    def test_the_map_in_the_docstring_names_the_sections_in_their_order(self) -> None:
        words = (ast.get_docstring(TREE) or "").split("This file, from top to bottom")
        listed = re.findall(r"^    (\w[\w ]*?)  ", words[1], re.MULTILINE)
        sections = [name for _, name in banners()]
        self.assertEqual(listed[: len(sections)], sections)

    def test_each_section_says_below_its_banner_what_is_inside(self) -> None:
        lines = TEXT.splitlines()
        for line, name in banners():
            with self.subTest(name):
                self.assertTrue(lines[line].startswith("# "), lines[line])

    def test_a_section_uses_only_sections_above_it(self) -> None:
        names = defined()
        for node in TREE.body:
            own = section_of(node.lineno)
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and name.id in names:
                    used = section_of(names[name.id])
                    self.assertLessEqual(used, own, f"{name.id} in line {name.lineno}")

    def test_no_function_is_longer_than_40_lines(self) -> None:
        for function in functions():
            lines = (function.end_lineno or 0) - function.lineno + 1
            with self.subTest(function.name):
                self.assertLessEqual(lines, LONGEST_FUNCTION)

    def test_most_functions_are_short(self) -> None:
        sizes = sorted((f.end_lineno or 0) - f.lineno + 1 for f in functions())
        self.assertLessEqual(sizes[len(sizes) // 2], 10)
        self.assertLessEqual(sizes[len(sizes) * 9 // 10], 26)

    def test_every_class_says_what_it_is_for(self) -> None:
        for node in TREE.body:
            if isinstance(node, ast.ClassDef):
                with self.subTest(node.name):
                    self.assertTrue(ast.get_docstring(node))

    def test_all_is_annotated(self) -> None:
        for function in functions():
            with self.subTest(function.name):
                self.assertIsNotNone(function.returns)


class SelfContainedTest(unittest.TestCase):
    def test_nothing_is_imported_from_outside_the_standard_library(self) -> None:
        own = getattr(sys, "stdlib_module_names", None)
        if own is None:  # Python 3.9 has no list of its own modules
            return
        for node in ast.walk(TREE):
            names: List[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                self.assertEqual(node.level, 0)
                names = [str(node.module)]
            for name in names:
                self.assertIn(name.partition(".")[0], own)

    def test_an_import_does_and_leaves_nothing(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            done = subprocess.run(
                [
                    *(sys.executable, "-B", "-W", "error", "-c"),
                    "import sys, threading; sys.path.insert(0, sys.argv[1]); "
                    "import cron_trigger_server; print(threading.active_count())",
                    str(PROGRAM.parent),
                ],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        self.assertEqual((done.stdout, done.stderr), ("1\n", ""))


if __name__ == "__main__":
    unittest.main()
