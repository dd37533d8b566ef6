"""`crontab`: what is said of a line, its name and description, and where it is."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Optional

sys.path.append(str(Path(__file__).resolve().parent.parent))

from crontabs import HOST, RUN, converted

from cron_trigger.crontab.conversion import convert
from cron_trigger.crontab.lines import Source, read_sources
from cron_trigger.registry.crons import CRON_NAME


class NoteTest(unittest.TestCase):
    def note(self, line: str, user: Optional[str] = "root") -> str:
        return " ".join(line.note for line in converted(line, user).lines)

    def test_what_became_different_is_said_in_a_sentence_each(self) -> None:
        table = {
            "0 1 * * * /bin/a": "",
            "0 1 * * * /bin/a; /bin/b": (
                'Runs by /bin/sh -c, because of shell syntax: ";".'
            ),
            "0 1 * * * /bin/a *.txt": (
                'Runs by /bin/sh -c, because of shell syntax: "*.txt".'
            ),
            "0 1 * * * umask 077": (
                'Runs by /bin/sh -c, because of shell syntax: "umask".'
            ),
            "0 1 * * * /bin/a 'b": (
                "Runs by /bin/sh -c, because of shell syntax: a quote or a bracket is "
                "not closed."
            ),
            "0 1 * * * flock -n /l /bin/a": (
                "flock is left out: a cron never runs twice at once."
            ),
            "0 1 * * * flock /l /bin/a": (
                "flock is left out: a cron never runs twice at once; it waited for the "
                "lock, a second start is refused."
            ),
            "0 1 * * * timeout 90 /bin/a": 'timeout is now "timeout" of the entry.',
            "0 1 * * * /bin/a > /var/log/a.log 2>&1": (
                "Its log was begun anew each time, and is appended to now."
            ),
            "0 1 * * * /bin/a >> /var/log/a.log 2>&1": "",
            "0 1 * * * /bin/a >/dev/null 2>&1": (
                "What went to /dev/null goes to the cron's log."
            ),
            "0 1 * * * /bin/a%in": (
                'What follows "%" was its standard input, and is now part of the '
                "command."
            ),
            "@reboot /bin/a": "No schedule: @reboot has no time, so it cannot be late.",
            "SHELL=/bin/csh\n0 1 * * * /bin/a": (
                "Runs by /bin/csh -c, because of shell syntax: SHELL is /bin/csh."
            ),
            "CRON_TZ=Asia/Tokyo\n0 1 * * * /bin/a": (
                "The variable CRON_TZ is left out."
            ),
            "0 1 * * * CRON_NAME=x /bin/a": "The variable CRON_NAME is left out.",
            "CRON_TRIGGER_PORT=1\n0 1 * * * /bin/a": (
                "The variable CRON_TRIGGER_PORT is left out."
            ),
        }
        for line, note in table.items():
            with self.subTest(line):
                self.assertEqual(self.note(line), note)

    def test_another_user_is_said_and_where_the_new_line_belongs(self) -> None:
        self.assertEqual(
            self.note("0 1 * * * munin /bin/a", None),
            "root calls it, and the script runs as munin.",
        )
        self.assertEqual(
            self.note("0 1 * * * /bin/a", "anna"),
            "The new line belongs into root's crontab, instead of this one: the script "
            "runs as anna.",
        )
        self.assertEqual(
            self.note("0 1 * * * nobody-here /bin/a", None),
            "This host has no user nobody-here.",
        )

    def test_a_server_of_ones_own_needs_no_other_user(self) -> None:
        sources = [Source("-", "0 1 * * * /bin/a", "anna")]
        result = convert(sources, own_user="anna", program="/p", host=HOST)
        self.assertNotIn("user", result.entries["a"])
        self.assertEqual(result.lines[0].new, "0 1 * * * /p run a")
        self.assertEqual(result.lines[0].note, "")

    def test_what_is_left_out_says_why_and_has_no_new_line(self) -> None:
        table = {
            "0 4 * * * /usr/local/bin/cron-trigger run backup": (
                "This line calls cron-trigger already."
            ),
            "0 4 * * * python3 /opt/x/cron_trigger_server.py --port 1 run b --output": (
                "This line calls cron-trigger already."
            ),
            "61 * * * * /bin/a": (
                "Invalid schedule: minute: expected 0 to 59, got 61."
            ),
            "0 0 31 2 * /bin/a": (
                "Invalid schedule: schedule: expected a day that comes in some "
                'year, got "0 0 31 2 *".'
            ),
            "hello world": (
                "This is no line of a crontab: expected a schedule and a command."
            ),
            "* * * * *": (
                "This is no line of a crontab: expected a schedule and a command."
            ),
            "0 4 * * * echo \udcff": "This line is not UTF-8.",
            "X=\udcff\n0 4 * * * echo": "A variable above this line is not UTF-8.",
            "0 4 * * * %input": "This line has no command.",
        }
        for text, note in table.items():
            with self.subTest(text):
                (line,) = converted(text, "root").lines
                self.assertEqual((line.name, line.new, line.note), (None, None, note))
                self.assertEqual(converted(text, "root").entries, {})

    def test_a_system_crontab_without_the_user_is_refused(self) -> None:
        (line,) = converted("0 4 * * * /usr/bin/backup --all").lines
        self.assertEqual(
            line.note, "Expected a user's name before the command (see --user)."
        )


class NameTest(unittest.TestCase):
    def test_a_name_is_the_scripts(self) -> None:
        table = {
            "/opt/backup.sh": "backup",
            "/opt/app/run.sh": "app-run",
            "nice -n 19 ionice -c 3 /opt/index.py -x": "opt-index",
            "sudo -u anna /opt/mail-report": "mail-report",
            "bash -x /opt/a.b.sh": "a.b",
            "sh -c 'cd /x; /opt/in.sh'": "in",
            "bash -lc '/opt/deep.sh'": "deep",
            "flock -s /l /opt/kept.sh": "kept",
            "[ -x /a ] && /opt/if.sh": "if",
            "/opt/_odd name.sh": "odd",
            "'/opt/with space ü!.sh'": "with-space",
            "/opt/...": "job",
            "true": "job",
            "perl -e 1": "job",
            "/opt/cron-trigger-server": "cron-trigger-server-2",
            "/opt/" + "x" * 99: "x" * 56,
            "docker exec -t app php occ": "docker-exec",
        }
        for command, name in table.items():
            with self.subTest(command):
                names = list(converted(f"0 1 * * * {command}", "root").entries)
                self.assertEqual(names, [name])
                self.assertTrue(CRON_NAME.fullmatch(name))

    def test_a_name_is_used_once_over_all_files_and_the_registry(self) -> None:
        sources = [
            Source("a", "0 1 * * * /x/job-a\n0 2 * * * /y/job-a\n", "root"),
            Source("b", "0 3 * * * /z/job-a\n", "root"),
        ]
        existing = {"$schema": "crons.schema.json", "job-a": {"command": "job-a"}}
        names = list(convert(sources, existing, host=HOST).entries)
        self.assertEqual(names, ["job-a-2", "job-a-3", "job-a-4"])

    def test_what_the_registry_has_already_is_not_added_again(self) -> None:
        sources = [Source("a", "0 1 * * * /x/a\n0 2 * * * /x/a\n", "anna")]
        first = convert(sources, host=HOST)
        again = convert(sources, {"x": {}, **first.entries}, host=HOST)
        self.assertEqual(again.entries, {})
        self.assertEqual([line.name for line in again.lines], ["a", "a-2"])
        self.assertEqual(
            [line.new for line in again.lines], [line.new for line in first.lines]
        )
        self.assertIn('The registry has it already, as "a".', again.lines[0].note)


class DescriptionTest(unittest.TestCase):
    def description(self, text: str, user: Optional[str] = "root") -> str:
        (entry,) = converted(text, user, "/etc/cron.d/x").entries.values()
        return str(entry["description"])

    def test_it_is_the_comment_just_above_or_at_the_end(self) -> None:
        table = {
            "# Saves all\n0 1 * * * /bin/a": "Saves all",
            "# Head\n#\n# Saves all,\n#  twice\n0 1 * * * /bin/a": "Saves all, twice",
            "## Saves ##\n0 1 * * * /bin/a # other": "Saves ##",
            "0 1 * * * /bin/a   # at night": "at night",
            "# Old\n\n0 1 * * * /bin/a": "a, from the crontab of root",
            "# m h  dom mon dow   command\n0 1 * * * /bin/a": (
                "a, from the crontab of root"
            ),
            "# 0 2 * * * /bin/old\n0 1 * * * /bin/a": "a, from the crontab of root",
            "#0 2 * * * /bin/old\n# New\n0 1 * * * /bin/a": "New",
            "# A\x1b[2J\n0 1 * * * /bin/a": "A\\x1b[2J",
            f"# {'word ' * 60}\n0 1 * * * /bin/a": "word " * 23 + "word…",
            f"# Saves approx. all. Then {'more ' * 60}\n0 1 * * * /bin/a": (
                "Saves approx. all."
            ),
        }
        for text, description in table.items():
            with self.subTest(text):
                self.assertEqual(self.description(text), description)
        self.assertEqual(
            self.description("0 1 * * * root /bin/a", None), "a, from /etc/cron.d/x"
        )

    def test_no_argument_stands_in_it_that_may_be_a_password(self) -> None:
        line = "0 1 * * * mysqldump -phunter2 shop > /x"
        self.assertNotIn("hunter2", self.description(line))


class SourcesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def put(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def test_what_cron_reads_is_read_and_what_it_ignores_is_said(self) -> None:
        user = pwd.getpwuid(os.getuid()).pw_name
        names = ("munin", "e2scrub_all", "A-b", "x.dpkg-old", "x~", ".placeholder")
        for name in (*names, "#x#", "php.bak"):
            self.put(f"etc/cron.d/{name}")
        self.put("etc/crontab", "text")
        self.put("etc/cron.d/folder/x")
        self.put(f"var/spool/cron/crontabs/{user}")
        self.put("var/spool/cron/crontabs/tmp.Xy12")
        sources, notes = read_sources(root=self.root)
        found = [(os.path.relpath(s.file, self.root), s.user) for s in sources]
        self.assertEqual(
            found,
            [
                ("etc/crontab", None),
                ("etc/cron.d/A-b", None),
                ("etc/cron.d/e2scrub_all", None),
                ("etc/cron.d/munin", None),
                (f"var/spool/cron/crontabs/{user}", user),
            ],
        )
        self.assertEqual(sources[0].text, "text")
        left = [note.split(" is ")[0].rpartition("/")[2] for note in notes]
        self.assertEqual(left, ["#x#", "php.bak", "x.dpkg-old", "x~", "tmp.Xy12"])

    def test_an_empty_host_has_none(self) -> None:
        self.assertEqual(read_sources(root=self.root), ([], []))

    def test_a_file_given_has_a_column_of_users_unless_it_is_said(self) -> None:
        path = str(self.put("mine", "A=1\r\n\r\n0 1 * * * /bin/a\r\n"))
        self.assertEqual(read_sources([path])[0][0].user, None)
        (source,), _ = read_sources([path], user="anna")
        self.assertEqual(source.user, "anna")
        result = convert([source], host=HOST)
        self.assertEqual(result.entries["a"]["command"], ["/bin/a"])
        self.assertEqual([line.new for line in result.lines], [f"0 1 * * * {RUN} a"])

    def test_of_a_folder_given_those_files_are_read_that_cron_would_read(self) -> None:
        for name in ("cron.d/b", "cron.d/a", "cron.d/a.bak"):
            self.put(name)
        sources, notes = read_sources([str(self.root / "cron.d")])
        self.assertEqual([Path(source.file).name for source in sources], ["a", "b"])
        self.assertEqual(len(notes), 1)

    def test_a_file_that_cannot_be_read_is_said_and_the_others_are_read(self) -> None:
        path = str(self.put("mine"))
        sources, notes = read_sources([str(self.root / "missing"), path])
        self.assertEqual([source.file for source in sources], [path])
        self.assertEqual(
            notes,
            [f"{self.root}/missing cannot be read: No such file or directory."],
        )


if __name__ == "__main__":
    unittest.main()
