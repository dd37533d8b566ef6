"""`crontab`: what is shown, and how a registry is written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from crontabs import RUN, converted

from cron_trigger.crontab.table import (
    merged_registry,
    table_lines,
    to_json,
    write_registry,
)


class OutputTest(unittest.TestCase):
    def test_json_has_the_entries_and_the_lines(self) -> None:
        result = converted("# A\n0 1 * * * root /bin/a\n", file="/etc/crontab")
        self.assertEqual(
            json.loads(json.dumps(to_json(result))),
            {
                "entries": {
                    "a": {
                        "description": "A",
                        "command": ["/bin/a"],
                        "workingDirectory": "/root",
                        "schedule": "0 1 * * *",
                    }
                },
                "lines": [
                    {
                        "file": "/etc/crontab",
                        "line": 2,
                        "name": "a",
                        "old": "0 1 * * * root /bin/a",
                        "new": f"0 1 * * * root {RUN} a",
                        "note": "",
                    }
                ],
            },
        )

    def table(self, text: str, user: str = "root", width: int = 100) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            print("\n".join(table_lines(converted(text, user), width)))
        return output.getvalue()

    def test_entry_and_new_line_stand_side_by_side(self) -> None:
        rows = self.table("0 1 * * *\t/bin/a >/dev/null\n").split("\n")
        pairs = (
            (
                '"description": "a, from the crontab of root"',
                "old:",
                "/bin/a >/dev/null",
            ),
            ('"command": ["/bin/a"]', "new:", f"{RUN} a"),
        )
        self.assertEqual(rows[0], "tab, line 1: a")
        for row, (key, word, command) in zip(rows[1:], pairs):
            self.assertEqual(row, f"  {key:48}  {word}  0 1 * * * {command}")
        self.assertIn("note: What went to /dev/null goes", rows[3])

    def test_nothing_reaches_the_terminal_but_what_can_be_seen(self) -> None:
        shown = self.table("# \x1b]0;x\x07\n0 1 * * * /bin/a '\x1b[2J\x9b\u202e'\n")
        self.assertTrue(shown.replace("\n", "").isprintable())
        self.assertIn("\\x1b[2J", shown)

    def test_the_new_line_is_never_broken(self) -> None:
        name = "long-" * 10 + "name"
        for width in (40, 80, 200):
            shown = self.table(f"0 1 * * * /bin/{name}\n", width=width)
            self.assertRegex(shown, f"new:  0 1 \\* \\* \\* {RUN} {name}\n")


class WriteTest(unittest.TestCase):
    ENTRIES: dict[str, dict[str, Any]] = {
        "a": {"description": "é", "command": ["/bin/a"]},
        "b": {"description": "B", "command": ["/bin/b", "{x}"]},
    }

    def test_what_is_there_stays_as_it_was_written(self) -> None:
        before = (
            '{\n  "$schema": "crons.schema.json",\n'
            '    "z": {"description": "}", "command": ["x",  "y"]}\n}\n'
        )
        after = merged_registry(before, self.ENTRIES)
        self.assertTrue(after.startswith(before.rstrip("}\n")))
        self.assertEqual(json.loads(after), {**json.loads(before), **self.ENTRIES})
        self.assertEqual(list(json.loads(after)), ["$schema", "z", "a", "b"])
        self.assertIn('\n  },\n  "b": {\n    "description": "B",\n', after)
        self.assertIn("é", after)

    def test_every_form_of_an_object_can_be_added_to(self) -> None:
        for before in ("{}", "{ }\n", '{"x": {}}', '{"x": {}}\n\n', "\ufeff{\n}\n"):
            with self.subTest(before):
                after = merged_registry(before, self.ENTRIES)
                document = json.loads(before.lstrip("\ufeff"))
                self.assertEqual(
                    json.loads(after.lstrip("\ufeff")), {**document, **self.ENTRIES}
                )
                self.assertEqual(after.startswith("\ufeff"), before[0] == "\ufeff")

    def test_nothing_to_add_changes_nothing(self) -> None:
        self.assertEqual(merged_registry(' {"x":1} ', {}), ' {"x":1} ')

    def test_a_registry_with_a_fault_is_not_touched(self) -> None:
        table = {
            "[]": "expected an object",
            '{"x": 1,\n"x": 2}': '"x" is given twice \\(lines 1 and 2\\); keep one',
            '{"a": {}}': '"a" is in the registry already',
            '{"x": }': "expecting value",
            "": "it is empty; write at least {}",
        }
        for text, why in table.items():
            with self.subTest(text), self.assertRaisesRegex(ValueError, why):
                merged_registry(text, self.ENTRIES)

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def test_the_file_is_replaced_at_once_and_keeps_mode_and_owner(self) -> None:
        path = self.folder / "crons.json"
        path.write_text("old")
        path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(path, 12, 34)
        before = path.stat()
        reader = path.open()
        self.addCleanup(reader.close)
        write_registry(path, "new é")
        after = path.stat()
        self.assertEqual(path.read_text("utf-8"), "new é")
        self.assertEqual(reader.read(), "old")
        self.assertEqual(
            (after.st_mode, after.st_uid, after.st_gid),
            (before.st_mode, before.st_uid, before.st_gid),
        )
        self.assertEqual(os.listdir(self.folder), ["crons.json"])

    def test_a_link_stays_and_what_it_leads_to_is_written(self) -> None:
        (self.folder / "link").symlink_to("real")
        write_registry(self.folder / "link", "x")
        self.assertTrue((self.folder / "link").is_symlink())
        self.assertEqual((self.folder / "real").read_text(), "x")
        self.assertEqual(stat.S_IMODE((self.folder / "real").stat().st_mode), 0o644)

    def test_where_it_cannot_be_written_the_old_one_stays(self) -> None:
        target = self.folder / "crons.json"
        target.mkdir()
        (target / "x").touch()
        with self.assertRaises(OSError):
            write_registry(target, "x")
        self.assertEqual(os.listdir(self.folder), ["crons.json"])


if __name__ == "__main__":
    unittest.main()
