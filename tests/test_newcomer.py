"""The seventh client: written in Perl from docs/http.md alone, at a real server."""

from __future__ import annotations

import os
import subprocess
import unittest

from support import REPOSITORY, Server, need, need_command, slow

CLIENT = REPOSITORY / "tests" / "seventh_client.pl"
SECRET = "right-right-right-right"
REGISTRY = {
    "import-day": {
        "description": "Import of one day",
        "command": ["./import.sh", "{mode}"],
        "parameters": {
            "day": {"type": "string", "format": "date", "required": True},
            "mode": {"type": "string", "enum": ["fast", "full"], "default": "fast"},
        },
    },
    "reindex": {"description": "Rebuild of the index", "command": ["sleep", "600"]},
}
SCRIPT = """#!/bin/sh
echo "importing $CRON_PARAM_DAY, mode $1: été"
until [ -e go ]; do sleep 0.05; done
exit 3
"""


@slow
class SeventhClient(unittest.TestCase):
    def setUp(self) -> None:
        perl = need_command("perl")
        modules = ("-MHTTP::Tiny", "-MJSON::PP", "-e1")
        has_them = subprocess.run([perl, *modules], capture_output=True, check=False)
        need(has_them.returncode == 0, "perl has no HTTP::Tiny or JSON::PP")
        self.server = Server(REGISTRY, {"CRON_TRIGGER_SECRET": SECRET}, start=False)
        self.addCleanup(self.server.__exit__)
        self.server.script("import.sh", SCRIPT)
        self.server.start()

    def begin(self, *arguments: str, secret: str = SECRET) -> subprocess.Popen[str]:
        address = f"http://127.0.0.1:{self.server.port}"
        return subprocess.Popen(
            ["perl", str(CLIENT), address, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SECRET": secret},
        )

    def ask(self, *arguments: str, secret: str = SECRET) -> list[str]:
        """Return what the client says, line by line."""
        out, err = self.begin(*arguments, secret=secret).communicate(timeout=60)
        return (out + err).splitlines()

    def test_it_lists_starts_once_waits_by_events_and_reads_the_log(self) -> None:
        self.assertEqual(
            self.ask("list"),
            [
                "import-day idle last=never parameters=day,mode",
                "reindex idle last=never parameters=",
            ],
        )
        start = ("start", "import-day", "key-1", "day=2026-11-22", "mode=full")
        self.assertEqual(self.ask(*start), ["started 1"])
        self.assertEqual(self.ask(*start), ["started 1 (again)"])
        waiting = self.begin("wait", "1")
        assert waiting.stderr
        self.assertEqual(waiting.stderr.readline(), "listening\n")
        (self.server.folder / "go").touch()
        out, err = waiting.communicate(timeout=30)
        self.assertEqual((out, err), ("run 1 failed exit=3\n", ""))
        ended = ["run 1 failed exit=3", "listening"]
        self.assertEqual(self.ask("wait", "1"), ended)
        log = ["importing 2026-11-22, mode full: été"]
        self.assertEqual(self.ask("log", "1"), log)

    def test_it_cancels_and_plans(self) -> None:
        self.assertEqual(self.ask("start", "reindex", "key-2"), ["started 1"])
        self.assertEqual(self.ask("cancel", "1"), ["run 1 is being ended"])
        ended = ["run 1 cancelled exit=143", "listening"]
        self.assertEqual(self.ask("wait", "1"), ended)
        when = "2099-11-25T02:00:00+01:00"
        self.assertEqual(
            self.ask("plan", "import-day", when, "day=2026-11-24"),
            [f"planned 1 for {when}", "plan 1 import-day pending"],
        )
        self.assertEqual(self.ask("unplan", "1"), ["plan 1 cancelled"])

    def test_it_says_what_was_refused(self) -> None:
        (first, *others) = self.ask("start", "import-day", "key-3", "day=yesterday")
        self.assertTrue(first.startswith("invalid_params: "), first)
        self.assertEqual(others, ["  day: expected a date such as 2026-11-23"])
        (said,) = self.ask("list", secret="wrong-wrong-wrong-wrong")
        self.assertTrue(said.startswith("unauthorized: "), said)


if __name__ == "__main__":
    unittest.main()
