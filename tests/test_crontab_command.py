"""`crontab`: what cron runs, shown as crons, and added to the registry."""

from __future__ import annotations

import json
import os
import subprocess
import unittest

from command import CommandCase
from support import Server, need, slow

TABLE = """\
MAILTO=root
# Saves the database
0 3 * * *   root  /usr/bin/true --all >> /var/log/save.log 2>&1
@reboot     root  /usr/bin/true
0 4 31 2 *  root  /usr/bin/false
"""


class CrontabCommandTest(CommandCase):
    registry = {"true": {"description": "Is there", "command": ["/bin/echo", "x"]}}

    def setUp(self) -> None:
        self.table = self.server.folder / "table"
        self.table.write_text(TABLE)

    def test_entry_and_new_line_are_shown_and_nothing_is_written(self) -> None:
        before = self.server.registry.read_text()
        done = self.call("crontab", str(self.table))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("run true-2\n", done.stdout)
        self.assertIn('"description": "Saves the database"', done.stdout)
        self.assertIn("Invalid schedule", done.stdout)
        self.assertEqual(self.server.registry.read_text(), before)
        self.assertEqual(self.table.read_text(), TABLE)

    def test_json_is_for_programs(self) -> None:
        told = json.loads(self.call("crontab", "--json", str(self.table)).stdout)
        self.assertEqual(list(told["entries"]), ["true-2", "true-3"])
        self.assertEqual([line["line"] for line in told["lines"]], [3, 4, 5])

    def test_standard_input_and_the_user_whose_it_is(self) -> None:
        done = subprocess.run(
            [*self.server.python, *self.server.program, "crontab", "-", "--json"]
            + ["--user=root", *self.server.folder_flags()],
            input="@daily /usr/bin/true x\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        (entry,) = json.loads(done.stdout)["entries"].values()
        self.assertEqual(entry["command"], ["/usr/bin/true", "x"])

    def test_what_cannot_be_read_is_said(self) -> None:
        done = self.call("crontab", "/no/where")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertIn("/no/where cannot be read", done.stderr)

    @slow
    def test_with_write_the_entries_are_added_but_what_the_checker_refuses(
        self,
    ) -> None:
        need(os.geteuid() == 0, "the users of a crontab of root's need root")
        with Server(self.registry, start=False) as made:
            self.table.write_text(f"{TABLE}0 5 * * * nobody-here /usr/bin/false\n")
            done = self.main(
                "crontab", "--write", str(self.table), *made.folder_flags()
            )
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn('left out: crons.json: "false": ', done.stderr)
            self.assertIn(f"2 crons were added to {made.registry}", done.stderr)
            document = json.loads(made.registry.read_text())
            self.assertEqual(list(document), ["true", "true-2", "true-3"])
            self.assertEqual(made.command("check").returncode, 0)

    def test_a_registry_with_a_fault_is_78_and_stays(self) -> None:
        with Server(start=False) as made:
            for text in ('{"a": 1,}', "[1]", "5"):
                made.registry.write_text(text)
                done = self.main(
                    "crontab", "--write", str(self.table), *made.folder_flags()
                )
                self.assertEqual(done.returncode, 78)
                self.assertIn(f"{made.registry} is invalid: ", done.stderr)
                self.assertEqual(made.registry.read_text(), text)


if __name__ == "__main__":
    unittest.main()
