"""What of the page has no DOM, under Node's own test runner: tests/page/*.test.mjs."""

from __future__ import annotations

import re
import subprocess
import unittest

from beside import beside
from support import REPOSITORY, need, need_command, slow


def node_version(node: str) -> tuple[int, int]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True)
    match = re.match(r"v(\d+)\.(\d+)", said.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def module_flags(version: tuple[int, int]) -> list[str]:
    """Return what has Node take a .js file for a module; newer ones look into it."""
    if version >= (22, 7) or (20, 19) <= version < (21, 0):
        return []
    need(version >= (20, 10), "Node 20.10 or later is needed")
    return ["--experimental-default-type=module"]


@slow
class Units(unittest.TestCase):
    def test_the_modules_without_a_dom_do_what_they_say(self) -> None:
        node = need_command("node")
        flags = module_flags(node_version(node))
        files = sorted((REPOSITORY / "tests" / "page").glob("*.test.mjs"))
        done = subprocess.run(
            [node, *flags, "--test", *map(str, files)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
        passed = re.search(r"^\S+ pass (\d+)$", done.stdout, re.MULTILINE)
        self.assertGreater(int(passed[1]) if passed else 0, 40, done.stdout[-500:])


load_tests = beside


if __name__ == "__main__":
    unittest.main()
