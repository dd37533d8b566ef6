"""install.sh, unit and logrotate entry, as far as no booted systemd is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import REPOSITORY, need

UNIT = REPOSITORY / "cron-trigger-server.service"


class Unit(unittest.TestCase):
    """The systemd unit, as text."""

    def test_systemd_finds_nothing_to_say(self) -> None:
        need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
        # Its exit status is 0 for a misspelt key, too: what it prints counts.
        done = subprocess.run(
            ["systemd-analyze", "verify", str(UNIT)],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_what_the_runs_survival_rests_on_is_there(self) -> None:
        lines = UNIT.read_text().splitlines()
        for line in (
            "Type=notify",
            "Restart=always",
            "RestartSec=10s",
            "RestartPreventExitStatus=78",
            "StartLimitIntervalSec=0",
            "KillMode=process",
            "OOMPolicy=continue",
            "RuntimeDirectoryPreserve=yes",
            "EnvironmentFile=-/etc/default/cron-trigger-server",
        ):
            self.assertIn(line, lines)

    def test_line_length(self) -> None:
        for line in UNIT.read_text().splitlines():
            self.assertTrue(len(line) <= 88 or line.startswith("Exec"), line)


if __name__ == "__main__":
    unittest.main()
