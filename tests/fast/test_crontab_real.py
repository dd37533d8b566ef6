"""Real crontabs: what packages and documents have, and this host."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import support
from crontab_documents import DOCUMENTS
from crontabs import PACKAGES, RUN, converted, hold_entry

from cron_trigger.crontab.conversion import convert
from cron_trigger.crontab.lines import read_sources
from cron_trigger.crontab.table import merged_registry


class RealCrontabsTest(unittest.TestCase):
    maxDiff = None

    def test_each_job_becomes_the_entry_that_a_person_would_write(self) -> None:
        jobs = 0
        for case in PACKAGES + DOCUMENTS:
            with self.subTest(case.title):
                entries = converted(case.text, case.user).entries
                for entry in entries.values():
                    self.assertTrue(entry.pop("description"))
                self.assertEqual(entries, case.entries)
                self.assertEqual(list(entries), list(case.entries))
                jobs += len(entries)
        self.assertGreater(jobs, 35)

    def test_each_entry_is_one_that_the_registry_takes(self) -> None:
        for case in PACKAGES + DOCUMENTS:
            for name, entry in converted(case.text, case.user).entries.items():
                with self.subTest(case.title, name=name):
                    hold_entry(self, name, entry)

    def test_the_new_line_has_the_same_schedule_and_calls_run_as_root(self) -> None:
        for case in PACKAGES + DOCUMENTS:
            result = converted(case.text, case.user)
            rows = case.text.split("\n")
            for line in result.lines:
                with self.subTest(case.title, line=line.line):
                    self.assertEqual(line.old, rows[line.line - 1])
                    assert line.new is not None
                    count = 1 if line.old.startswith("@") else 5
                    old, new = line.old.split(), line.new.split()
                    self.assertEqual(new[:count], old[:count])
                    column = [] if case.user else ["root"]
                    expected = [*column, *f"{RUN} {line.name}".split()]
                    self.assertEqual(new[count:], expected)

    def test_of_the_line_only_the_user_and_the_command_change(self) -> None:
        table = {
            "17 *\t* * *\troot\tcd / && x": f"17 *\t* * *\troot\t{RUN} x",
            " 2 * * * *   munin    /bin/x y": f" 2 * * * *   root    {RUN} x",
            "@reboot\tmunin\t/bin/x": f"@reboot\troot\t{RUN} x",
        }
        for old, new in table.items():
            with self.subTest(old):
                self.assertEqual([line.new for line in converted(old).lines], [new])


class HostTest(unittest.TestCase):
    """The crontabs of the machine that runs the tests."""

    def test_every_crontab_of_this_host_is_converted(self) -> None:
        sources, _ = read_sources()
        support.need(sources, "this host has no crontab that can be read")
        result = convert(sources)
        for name, entry in result.entries.items():
            with self.subTest(name):
                hold_entry(self, name, entry)
        merged_registry("{}", result.entries)


if __name__ == "__main__":
    unittest.main()
