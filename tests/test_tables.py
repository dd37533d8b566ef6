"""`list`, `history`, `check`: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest
from typing import Any, Mapping
from unittest import mock

from command import REGISTRY, USER, CommandCase
from support import PROGRAM, READERS, Server, need, need_command, slow

from cron_trigger.registry.errors import EX_USAGE


class TableTest(CommandCase):
    """Tables for people, JSON for programs."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name in ("hello", "three", "killed", "hello"):
            cls.call("run", name)

    def rows(self, text: str) -> list[list[str]]:
        return [re.split(r"  +", line) for line in text.splitlines()]

    def test_list(self) -> None:
        done = self.call("list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = self.rows(done.stdout)
        heads = ["CRON", "STATE", "LAST RUN", "RUNS", "OK", "MEDIAN", "DESCRIPTION"]
        self.assertEqual(rows[0], heads)
        self.assertEqual([row[0] for row in rows[1:]], list(REGISTRY))
        hello, three = rows[1], rows[2]
        self.assertEqual(hello[1], "completed")
        self.assertRegex(hello[2], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
        self.assertEqual(hello[3:5], ["2", "100 %"])
        self.assertEqual(hello[6], "Dire bonjour ✅")
        self.assertEqual((three[1], *three[3:5]), ("failed", "1", "0 %"))
        self.assertEqual(rows[4], ["sleeps", "-", "-", "0", "-", "-", "Sleeps"])

    def test_next_times_stand_in_a_column_where_there_are_schedules(self) -> None:
        entry = {"description": "A", "command": ["true"]}
        registry = {"a": entry, "b": {**entry, "schedule": "30 4 * * *"}}
        with Server(registry, start=False) as made:
            rows = self.rows(self.main("list", *made.folder_flags()).stdout)
        self.assertEqual(rows[0][2:5], ["LAST RUN", "NEXT", "RUNS"])
        self.assertEqual(rows[1][3], "-")
        self.assertRegex(rows[2][3], r"^\d{4}-\d\d-\d\d 04:30:00$")

    @slow
    def test_what_is_late_is_said(self) -> None:
        schedule = {"schedule": "* * * * *", "late": "1s"}
        entry = {"description": "A", "command": ["true"], **schedule}
        with Server({"a": entry}, start=False) as made:
            self.main("run", "a", *made.folder_flags())
            update = "insert into schedules values ('a', '* * * * *', ?, ?)"
            with contextlib.closing(
                sqlite3.connect(made.state_dir / "history.db")
            ) as db:
                db.execute(update, [time.time() + 99, time.time() + 99])
                db.commit()
            rows = self.rows(self.main("list", *made.folder_flags()).stdout)
        self.assertEqual(rows[1][:2], ["a", "late"])

    @slow
    def test_a_name_that_nobody_knows_has_no_history(self) -> None:
        done = self.call("history", "helo")
        self.assert_sentence(done, EX_USAGE, 'no cron "helo"')
        self.assertEqual(self.call("history", "sleeps").returncode, 0)

    def test_json_is_json_where_the_terminal_has_no_utf_8(self) -> None:
        self.server.environ["PYTHONIOENCODING"] = "ascii"
        self.addCleanup(self.server.environ.clear)
        told = json.loads(self.server.command("list", "--json").stdout)["crons"]
        self.assertEqual(told[0]["description"], "Dire bonjour ✅")

    @slow
    def test_who_only_reads_changes_nothing(self) -> None:
        def state() -> list[tuple[str, int, int]]:
            folders = (self.server.state_dir, self.server.run_dir)
            paths = sorted(path for folder in folders for path in folder.iterdir())
            stats = ((path, path.stat()) for path in paths)
            return [(p.name, s.st_mtime_ns, s.st_size) for p, s in stats]

        before = state()
        for command in ("history", "list"):
            self.assertEqual(self.call(command).returncode, 0)
            self.assertEqual(state(), before)

    @slow
    def test_another_user_sees_what_may_be_seen_and_changes_nothing(self) -> None:
        need(os.geteuid() == 0, "only root can be another user")
        setpriv = need_command("setpriv")
        with Server(REGISTRY, start=False) as made:
            made.folder.chmod(0o755)
            made.registry.chmod(0o644)
            nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
            made.python = [*nobody, *made.python]
            for made_by_root in (False, True):
                if made_by_root:
                    made.state_dir.mkdir(0o755)
                tree = sorted(made.folder.rglob("*"))
                for command in ("history", "list"):
                    self.assertEqual(made.command(command).returncode, 0)
                    self.assertEqual(sorted(made.folder.rglob("*")), tree)
            path = made.state_dir / "history.db"
            path.write_bytes(b"broken" * 1000)
            path.chmod(0o644)
            for mode in (0o644, 0o600):
                path.chmod(mode)
                done = made.command("history")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn("can't be read", done.stderr)
                self.assertEqual(list(made.state_dir.iterdir()), [path])

    @slow
    def test_nor_where_there_is_nothing_or_something_broken(self) -> None:
        with Server(REGISTRY, start=False) as made:
            for command in ("history", "list"):
                self.assertEqual(self.main(command, *made.folder_flags()).returncode, 0)
                self.assertFalse(made.state_dir.exists())
            made.state_dir.mkdir()
            path = made.state_dir / "history.db"
            path.write_bytes(b"broken" * 1000)
            for command in ("history", "list"):
                done = self.main(command, *made.folder_flags())
                self.assertEqual(done.returncode, 1)
                self.assertIn("can't be read", done.stderr)
                self.assertEqual(list(made.state_dir.iterdir()), [path])
                self.assertEqual(path.read_bytes(), b"broken" * 1000)

    @slow
    def test_what_somebody_else_has_locked_runs_as_on_the_page(self) -> None:
        with open(self.server.run_dir / "sleeps.pid", "w") as crontab:
            fcntl.flock(crontab, fcntl.LOCK_EX)
            rows = self.rows(self.call("list").stdout)
            self.assertEqual(rows[4][:2], ["sleeps", "running"])
            listed = json.loads(self.call("list", "--json").stdout)["crons"]
        running = {cron["cronName"]: cron["running"] for cron in listed}
        self.assertEqual(running.pop("sleeps"), {"id": None, "trigger": "external"})
        self.assertEqual(set(running.values()), {None})

    @slow
    def test_the_columns_of_a_table_are_aligned(self) -> None:
        for command in ("list", "history"):
            lines = self.call(command).stdout.splitlines()
            starts = [match.start() for match in re.finditer(r"(?<=  )\S", lines[0])]
            for line in lines[1:]:
                for start in starts:
                    self.assertEqual(line[start - 2 : start], "  ", line)
                    self.assertNotEqual(line[start], " ", line)
                self.assertEqual(line, line.rstrip())

    def test_history(self) -> None:
        done = self.call("history")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = self.rows(done.stdout)
        self.assertEqual(
            rows[0], ["RUN", "CRON", "STATUS", "STARTED", "TOOK", "EXIT", "BY"]
        )
        self.assertEqual([row[0] for row in rows[1:]], ["4", "3", "2", "1"])
        self.assertEqual([row[5] for row in rows[1:]], ["0", "SIGKILL", "3", "0"])
        self.assertEqual(rows[1][6], f"cli {USER}")
        named = self.rows(self.call("history", "hello", "--limit", "1").stdout)
        self.assertEqual([row[0] for row in named], ["RUN", "4"])

    @slow
    def test_json_is_what_the_server_answers(self) -> None:
        listed = json.loads(self.call("list", "--json").stdout)["crons"]
        runs = json.loads(self.call("history", "--json").stdout)["runs"]
        with Server(REGISTRY) as made:
            shutil.copyfile(self.server.state_dir / "history.db", made.folder / "copy")
            made.stop()
            (made.folder / "copy").replace(made.state_dir / "history.db")
            made.start()
            told = made.get("/crons").json["crons"]
            told_runs = made.get("/runs").json["runs"]
            for cron in told:
                cron["logFile"] = cron["logFile"].replace(
                    str(made.folder), str(self.server.folder)
                )
        self.assertEqual(listed, told)
        self.assertEqual(runs, told_runs)

    @slow
    def test_colours_are_for_terminals_that_want_them(self) -> None:
        self.assertNotIn("\x1b", self.call("history").stdout)
        self.assertIn("\x1b[31mfailed\x1b[0m", self.on_terminal({}))
        self.assertNotIn("\x1b", self.on_terminal({"NO_COLOR": "1"}))
        self.assertNotIn("\x1b", self.on_terminal({"TERM": "dumb"}))

    def on_terminal(self, environ: Mapping[str, str]) -> str:
        """Return what `history` shows on a terminal."""
        main, terminal = pty.openpty()
        subprocess.run(
            [sys.executable, str(PROGRAM), "history", *self.server.folder_flags()],
            stdout=terminal,
            env={**self.server.clean_environ(), **environ},
            timeout=30,
            check=True,
        )
        os.close(terminal)
        text = b""
        with contextlib.suppress(OSError):  # at its end; a read may give a part
            while True:
                text += os.read(main, 65536)
        os.close(main)
        return text.decode()

    def test_a_terminal_that_lacks_a_character_gets_its_number(self) -> None:
        with mock.patch.dict(self.server.environ, {"PYTHONIOENCODING": "ascii"}):
            done = self.server.command("list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Dire bonjour \\u2705\n", done.stdout)

    @slow
    def test_a_reader_that_has_seen_enough_changes_no_exit_status(self) -> None:
        # More than a pipe's buffer, so that it fails in the middle.
        faults: Mapping[str, Any] = {f"cron-{number}": {} for number in range(2000)}
        with Server(faults, start=False) as bad:
            for command, server, status in (
                ("history --json", self.server, 0),
                ("list", self.server, 0),
                ("--help", self.server, 0),
                ("nothing", self.server, 64),
                ("run nothing", self.server, 64),
                ("check", bad, 78),
                ("check --json", bad, 78),
                ("list", bad, 78),
                ("doctor", bad, 1),
            ):
                for reader in READERS[:2]:
                    with self.subTest(command, reader=reader, status=status):
                        self.assertEqual(server.read_by(reader, command), status)

    @slow
    def test_an_answer_that_can_not_be_written_is_no_success(self) -> None:
        for command in ("history --json", "list", "check"):
            with self.subTest(command):
                self.assertEqual(self.server.read_by("{} >/dev/full", command), 1)

    @slow
    def test_a_history_that_can_not_be_read_is_said(self) -> None:
        with Server(REGISTRY, start=False) as made:
            made.state_dir.mkdir()
            (made.state_dir / "history.db").mkdir()
            for command in ("history", "list"):
                done = self.main(command, *made.folder_flags())
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("history.db can't be read", done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)


class CheckTest(CommandCase):
    def test_a_registry_that_holds(self) -> None:
        with Server(
            {"a": {"description": "A", "command": ["true"]}}, start=False
        ) as made:
            done = self.main("check", *made.folder_flags())
            self.assertEqual(
                (done.returncode, done.stdout, done.stderr),
                (0, f"{made.registry}: 1 cron, well formed\n", ""),
            )
            value = json.loads(
                self.main("check", "--json", *made.folder_flags()).stdout
            )
            self.assertEqual(
                value,
                {
                    "registry": str(made.registry),
                    "crons": 1,
                    "faults": [],
                    "warnings": [],
                },
            )
            self.assertFalse(made.state_dir.exists(), "check makes nothing")

    def test_a_folder_that_would_keep_a_cron_from_starting_is_a_warning(self) -> None:
        entry = {"description": "A", "command": ["true"]}
        registry = {
            "a": {**entry, "workingDirectory": "/no/where"},
            "b": {**entry, "logFile": "/no/where/b.log"},
            "c": {**entry, "command": "no-where"},
        }
        with Server(registry, start=False) as made:
            done = self.main("check", "--json", *made.folder_flags())
        first, second, third = json.loads(done.stdout)["warnings"]
        self.assertIn("folder /no/where is missing: create it", first)
        self.assertIn("mkdir -p /no/where", second)
        self.assertIn('"no-where" is not installed', third)
        self.assertEqual(done.returncode, 0)

    @slow
    def test_every_fault_is_a_line_and_the_status_78(self) -> None:
        with Server(start=False) as made:
            made.registry.write_text(
                '{"index-kb": {"description": "d", "command": "c", "timeout": "12x"},'
                ' "b": {"command": 5}}'
            )
            done = self.main("check", *made.folder_flags())
            faults = [
                'crons.json: "index-kb": timeout: expected a duration such as "90s", '
                'got "12x"',
                'crons.json: "b": description: is required',
                'crons.json: "b": command: expected a script\'s path or an array of '
                "texts that begins with one, got 5",
            ]
            self.assertEqual(done.returncode, 78)
            self.assertEqual(done.stdout.splitlines(), faults)
            value = self.main("check", "--json", *made.folder_flags())
            self.assertEqual(value.returncode, 78)
            self.assertEqual(json.loads(value.stdout)["faults"], faults)
            listed = self.main("list", *made.folder_flags())
            self.assertEqual(listed.returncode, 78)
            self.assertEqual(listed.stderr.splitlines(), faults)

    def test_a_script_that_would_not_start_is_a_warning(self) -> None:
        done = self.call("check")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 2)
        self.assertTrue(
            lines[0].startswith('warning: crons.json: "missing": its script')
        )


if __name__ == "__main__":
    unittest.main()
