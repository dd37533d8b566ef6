"""Tests that run beside the others count as if they ran among them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import REPOSITORY, slow

BESIDE = """
import os, unittest
from beside import beside
load_tests = beside
def note():
    with open(os.environ["NOTES"], "a") as notes: print(os.getpid(), file=notes)

class Sound(unittest.TestCase):
    def test_a_holds(self): note()
    def test_b_fails(self): self.fail("by itself")
    def test_c_is_skipped(self): self.skipTest("not today")
    def test_d_holds_in_part(self):
        with self.subTest("one"): self.fail("in part")
        with self.subTest("two"): pass

class NotSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("no set-up")
    def test_e_never_runs(self): pass

class NotTakenDown(unittest.TestCase):
    @classmethod
    def tearDownClass(cls): raise OSError("left behind")
    def test_f_holds(self): pass
    def test_g_holds_but_its_class_is_not_taken_down(self): pass
"""
DIES = """
import os, unittest
from beside import beside
load_tests = beside

class Dies(unittest.TestCase):
    def test_h_ends_the_process(self): os._exit(0)
    def test_i_never_runs(self): pass
"""
HERE = """
import os, unittest
from test_beside_x import note
class Here(unittest.TestCase):
    def test_j_holds(self): note()
"""


@slow
class BesideTest(unittest.TestCase):
    def test_each_is_told_as_it_went(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        for name, text in {"beside": BESIDE, "dies": DIES, "here": HERE}.items():
            Path(folder.name, f"test_{name}_x.py").write_text(text)
        path, notes = f"{REPOSITORY}/tests:{folder.name}", Path(folder.name, "notes")
        done = subprocess.run(
            [sys.executable, "-m", "unittest", "discover", "-v", "-s", folder.name],
            # TMPDIR: one that is ended leaves what it has there.
            env={
                **os.environ,
                "PYTHONPATH": path,
                "NOTES": str(notes),
                "TMPDIR": folder.name,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = re.findall(r"^test_(\w)_.*\) \.\.\. (\w+)", done.stdout, re.M)
        fails, holds = ["b", "d", "e", "g", "h", "i"], ["a", "f", "j"]
        wanted = dict.fromkeys(fails, "FAIL") | dict.fromkeys(holds, "ok")
        self.assertEqual(dict(told), {**wanted, "c": "skipped"}, done.stdout)
        self.assertEqual(done.returncode, 1)
        for said in ("by itself", "in part", "no set-up", "left behind", "not today"):
            self.assertIn(said, done.stdout)
        self.assertEqual(done.stdout.count("the process beside this one has ended"), 2)
        self.assertEqual(len(set(notes.read_text().split())), 2)


if __name__ == "__main__":
    unittest.main()
