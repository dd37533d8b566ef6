"""The house: floors, one above the other, small modules, nothing from outside."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Iterator

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import PROGRAM, REPOSITORY, slow

FLOORS = ("registry", "host", "history", "runs", "web", "daemon")
PACKAGE = REPOSITORY / "cron_trigger"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in (*MODULES, PROGRAM)}
#: All that is in them, gone through once.
NODES = {path: list(ast.walk(tree)) for path, tree in TREES.items()}
LONGEST_MODULE, LONGEST_FUNCTION, MOST_METHODS = 450, 40, 25


def dotted(path: Path) -> str:
    """Return a module's name, such as `cron_trigger.host.lock`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int:
    """Return on which floor a module of ours stands; -1: what all may use."""
    parts = name.split(".")
    if len(parts) == 1:
        return -1
    return FLOORS.index(parts[1]) if parts[1] in FLOORS else len(FLOORS)


def imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each module that a module imports, with the names taken from it."""
    for node in NODES[path]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            yield node.module, tuple(alias.name for alias in node.names)


def own_imports(path: Path) -> list[str]:
    """Return the modules of ours that a module imports."""
    return [n for n, _ in imports(path) if n.split(".")[0] == "cron_trigger"]


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path, nodes in NODES.items():
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                yield path, node


class FloorTest(unittest.TestCase):
    def test_a_module_imports_only_from_its_own_floor_or_from_below(self) -> None:
        for path in MODULES:
            for name in own_imports(path):
                with self.subTest(f"{dotted(path)} imports {name}"):
                    self.assertLessEqual(floor(name), floor(dotted(path)))

    def test_there_is_no_circle(self) -> None:
        needs: dict[str, list[str]] = {dotted(p): own_imports(p) for p in MODULES}
        done: list[str] = []

        def visit(name: str, trail: tuple[str, ...]) -> None:
            self.assertNotIn(name, trail, "a circle")
            if name not in done:
                for needed in needs.get(name, []):
                    visit(needed, (*trail, name))
                done.append(name)

        for name in needs:
            visit(name, ())

    def test_no_private_name_crosses(self) -> None:
        for path in MODULES:
            for module, names in imports(path):
                for name in names:
                    self.assertFalse(
                        name.startswith("_"), f"{dotted(path)}: {module}.{name}"
                    )

    def test_each_room_and_each_module_says_what_it_is_for(self) -> None:
        for path, tree in TREES.items():
            with self.subTest(dotted(path)):
                self.assertTrue(ast.get_docstring(tree))

    def test_each_room_lists_its_modules(self) -> None:
        for room in FLOORS:
            text = ast.get_docstring(TREES[PACKAGE / room / "__init__.py"]) or ""
            for path in (PACKAGE / room).glob("[a-z]*.py"):
                with self.subTest(dotted(path)):
                    self.assertRegex(text, rf"(?m)^ +{path.stem} ")


#: A part of install.sh, which is no part of what runs.
INSTALLING = REPOSITORY / "cron_trigger/commands/installing.py"


def lines_of(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


class SizeTest(unittest.TestCase):
    def test_no_module_is_long(self) -> None:
        for path in MODULES:
            with self.subTest(dotted(path)):
                lines = path.read_text(encoding="utf-8").count("\n")
                self.assertLessEqual(lines, LONGEST_MODULE)

    def test_no_class_has_many_methods(self) -> None:
        for path, nodes in NODES.items():
            for node in nodes:
                if isinstance(node, ast.ClassDef):
                    count = sum(isinstance(n, ast.FunctionDef) for n in node.body)
                    with self.subTest(f"{dotted(path)}.{node.name}"):
                        self.assertLessEqual(count, MOST_METHODS)

    def test_no_function_is_long_and_most_are_short(self) -> None:
        sizes = []
        for path, function in functions():
            sizes.append((function.end_lineno or 0) - function.lineno + 1)
            with self.subTest(f"{dotted(path)}.{function.name}"):
                self.assertLessEqual(sizes[-1], LONGEST_FUNCTION)
        sizes.sort()
        self.assertLessEqual(sizes[len(sizes) // 2], 10)
        self.assertLessEqual(sizes[len(sizes) * 9 // 10], 26)

    def test_the_program_is_small(self) -> None:
        files = {*MODULES, PROGRAM} - {INSTALLING}
        self.assertLess(sum(map(lines_of, files)), 17800)

    def test_the_installer_is_small(self) -> None:
        install = lines_of(REPOSITORY / "install.sh")
        self.assertLess(install, 900)
        self.assertLess(install + lines_of(INSTALLING), 1200)


class SelfContainedTest(unittest.TestCase):
    def test_nothing_is_imported_from_outside_the_standard_library(self) -> None:
        own = getattr(sys, "stdlib_module_names", None)
        if own is None:  # Python 3.9 has no list of its own modules
            return
        for path in TREES:
            for name, _ in imports(path):
                with self.subTest(str(path)):
                    self.assertIn(name.partition(".")[0], {*own, "cron_trigger"})

    def test_a_server_needs_no_dataclasses(self) -> None:
        """They import `inspect` and compile each class: 1 MiB, and 15 ms of a start."""
        for path in MODULES:
            if floor(dotted(path)) < len(FLOORS):
                with self.subTest(dotted(path)):
                    self.assertNotIn("dataclasses", [name for name, _ in imports(path)])

    @slow
    def test_an_import_does_and_leaves_nothing(self) -> None:
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            names = ", ".join(map(dotted, MODULES))
            done = subprocess.run(
                [
                    *(sys.executable, "-W", "error", "-c"),
                    "import os, sys; sys.path.insert(0, sys.argv[1]); "
                    f"import {names}; print(len(os.listdir('/proc/self/task')))",
                    str(REPOSITORY),
                ],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(done.stdout, "1\n", done.stderr)
            self.assertEqual(done.stderr, "")
            self.assertEqual(list(Path(folder).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
