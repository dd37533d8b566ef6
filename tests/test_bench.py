"""The benchmark still runs: it prints every row, of every group."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
from pathlib import Path

import support


class BenchTest(unittest.TestCase):
    def test_its_quick_mode_prints_a_row_of_every_group(self) -> None:
        support.need_full()
        bench = Path(__file__).with_name("bench.py")
        done = subprocess.run(
            [sys.executable, str(bench), "--quick", "--json"],
            stdout=subprocess.PIPE,
            check=True,
            timeout=900,
        )
        whats = [row["what"] for row in json.loads(done.stdout)["rows"]]
        for word in ("/trigger", "/health", "/crons", "/runs", "completed", "start"):
            self.assertTrue([what for what in whats if word in what], word)
        for word in (
            "memory",
            "streams",
            "crons running",
            "event",
            "idle",
            "pruned",
            "family",
        ):
            self.assertTrue([what for what in whats if word in what], word)


if __name__ == "__main__":
    unittest.main()
