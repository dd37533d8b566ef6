"""`crontab`: commands in the registry's words, held against a real shell."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional

sys.path.append(str(Path(__file__).resolve().parent.parent))

from crontabs import HOMES, by_shell, converted, hold_entry, plain
from support import FULL, slow

from cron_trigger.crontab.conversion import convert
from cron_trigger.crontab.entries import Host
from cron_trigger.crontab.lines import Source
from cron_trigger.crontab.words import tokens_of


class CommandTest(unittest.TestCase):
    """Commands of one line of root's, each with what it becomes."""

    def entry(self, command: str, before: str = "") -> dict[str, Any]:
        entries = converted(f"{before}0 1 * * * {command}", "root").entries
        (entry,) = entries.values()
        return {
            key: entry[key] for key in entry if key not in ("description", "schedule")
        }

    def test_flock_goes_only_where_it_was_this_jobs_own_lock(self) -> None:
        gone = plain("/bin/a", "-v")
        for options in (
            *("-n", "-xn", "-n -x", "--nonblock --exclusive", "-w 5", "--wait=5 -E 1"),
            *("", "-o -n", "-n -E 99"),
        ):
            with self.subTest(options):
                command = f"flock {options} /run/lock/a /bin/a -v"
                self.assertEqual(self.entry(command), gone)
        for command in (
            *("flock -s /l /bin/a", "flock -n 9", "flock -u 9", "flock /l"),
            "flock -n $LOCK /bin/a",
        ):
            with self.subTest(command):
                words = self.entry(command)["command"]
                self.assertIn("flock", " ".join(words))

    def test_a_lock_that_several_lines_take_stays(self) -> None:
        result = converted(
            "0 1 * * * flock /l /bin/a\n0 2 * * * flock -n /l /bin/b\n"
            "0 3 * * * flock -n /m /bin/c\n",
            "root",
        )
        commands = [entry["command"] for entry in result.entries.values()]
        self.assertEqual(list(result.entries), ["a", "b", "c"])
        self.assertEqual(
            commands,
            [["flock", "/l", "/bin/a"], ["flock", "-n", "/l", "/bin/b"], ["/bin/c"]],
        )
        self.assertEqual(result.lines[0].note, "flock stays: other lines take /l, too.")

    def test_timeout_becomes_the_entrys_in_its_words(self) -> None:
        table = {
            "30m": "30m",
            "90": "1m30s",
            "90s": "1m30s",
            "45s": "45s",
            "2h": "2h",
            "1d": "24h",
            "1.5h": "1h30m",
            "3600": "1h",
        }
        for text, timeout in table.items():
            with self.subTest(text):
                entry = self.entry(f"timeout {text} /bin/a")
                self.assertEqual(entry, plain("/bin/a", timeout=timeout))
        with_kill = plain("/bin/a", timeout="5m", killAfter="10s")
        for options in ("-k 10", "--kill-after=10s", "-k10 --preserve-status"):
            with self.subTest(options):
                entry = self.entry(f"/usr/bin/timeout {options} 5m /bin/a")
                self.assertEqual(entry, with_kill)
        for text in (
            *("-s KILL 5m", "--signal=INT 5m", "0", "soon", "0.1", "1.2345s"),
            "-k 0.5 5m",
        ):
            with self.subTest(text):
                entry = self.entry(f"timeout {text} /bin/a")
                self.assertNotIn("timeout", entry)
                self.assertEqual(entry["command"][0], "timeout")

    def test_redirections_become_the_log_where_all_goes_to_one_file(self) -> None:
        to_log = plain("/bin/a", "-v", logFile="/var/log/a.log")
        nowhere = plain("/bin/a", "-v")
        table = {
            ">> /var/log/a.log 2>&1": to_log,
            ">>/var/log/a.log 2>>/var/log/a.log": to_log,
            ">>/var/log/a.log": to_log,
            "2>> /var/log/a.log": to_log,
            "1>>/var/log/a.log 2>/dev/null </dev/null": to_log,
            ">> ../var/log/a.log 2>&1": to_log,
            ">> /srv/a.txt 2>&1": plain("/bin/a", "-v", logFile="/srv/a.txt"),
            "> /dev/null": nowhere,
            "2>&1 > /dev/null": nowhere,
            "2>&1": nowhere,
            "</dev/null >/dev/null 2>&1": nowhere,
        }
        for tail, entry in table.items():
            with self.subTest(tail):
                self.assertEqual(self.entry(f"/bin/a -v {tail}"), entry)
        for tail in (
            *(">> /l/a 2>> /l/b", "> /l/$(date).log", "< /etc/motd", "3> /l/x"),
            *("&> /l/x", ">> /dev/tty1 2>&1", ">&- 2>&1", "<<< x", ">> /l/x.log -w"),
        ):
            with self.subTest(tail):
                entry = self.entry(f"/bin/a -v {tail}")
                self.assertEqual(entry, by_shell(f"/bin/a -v {tail}"))

    def test_a_file_that_is_no_log_is_written_as_before(self) -> None:
        """The two lines around each run have no place in a dump."""
        for command in (
            *("mysqldump shop > /backup/shop.sql", "date >> /srv/days.csv"),
            *(
                "pg_dump x 2>&1 > /backup/x",
                "> /var/log/app.log",
                "/bin/a > /var/log/a",
            ),
            *("cat /dev/null > /var/log/app.log", "/bin/a > /srv/x 2>&1"),
            "> /var/log/app.log 2>&1",
            *("tar cf - /srv > /dev/null", "echo '' > /var/log/app.log"),
        ):
            with self.subTest(command):
                self.assertEqual(self.entry(command), by_shell(command))

    def test_a_log_goes_with_a_command_that_needs_a_shell_too(self) -> None:
        self.assertEqual(
            self.entry('/bin/a "$(date)" >> /l/a.log 2>&1'),
            by_shell('/bin/a "$(date)"', logFile="/l/a.log"),
        )
        self.assertEqual(
            self.entry("/bin/a; /bin/b >> /l/a.log"),
            by_shell("/bin/a; /bin/b >> /l/a.log"),
        )

    def test_a_log_that_another_cron_has_is_left_to_it(self) -> None:
        text = "0 1 * * * /bin/a >> /l/x.log\n0 2 * * * /bin/b >> /l/x.log\n"
        result = converted(text, "root")
        self.assertEqual(result.entries["a"]["logFile"], "/l/x.log")
        self.assertNotIn("logFile", result.entries["b"])
        self.assertEqual(
            result.lines[1].note,
            "Another cron logs to /l/x.log: this one has its own log.",
        )

    def test_cd_becomes_the_folder_where_the_rest_needs_it(self) -> None:
        table = {
            "cd /srv && /bin/a": {**plain("/bin/a"), "workingDirectory": "/srv"},
            "cd srv && ./a.sh": {
                **plain("/root/srv/a.sh"),
                "workingDirectory": "/root/srv",
            },
            "cd /srv && cd app && bin/a": {
                **plain("/srv/app/bin/a"),
                "workingDirectory": "/srv/app",
            },
            "cd ~/x && /bin/a": {**plain("/bin/a"), "workingDirectory": "/root/x"},
            "cd /srv && /bin/a | /bin/b": {
                **by_shell("/bin/a | /bin/b"),
                "workingDirectory": "/srv",
            },
            "cd /srv && flock -n l timeout 5m ./a >> log 2>&1": {
                **plain("/srv/a", timeout="5m", logFile="/srv/log"),
                "workingDirectory": "/srv",
            },
            "cd /srv && /bin/a || /bin/b": by_shell("cd /srv && /bin/a || /bin/b"),
            "cd /srv; /bin/a": by_shell("cd /srv; /bin/a"),
            "cd $X && /bin/a": by_shell("cd $X && /bin/a"),
            "cd - && /bin/a": by_shell("cd - && /bin/a"),
        }
        for command, entry in table.items():
            with self.subTest(command):
                self.assertEqual(self.entry(command), entry)

    def test_variables_of_the_line_go_over_those_of_the_crontab(self) -> None:
        before = "A=1\nB=2\nHOME=/srv\n"
        self.assertEqual(
            self.entry("A=3 C='x y' env D=4 bin/a $HOME ~", before),
            {
                "command": ["/srv/bin/a", "/srv", "/srv"],
                "workingDirectory": "/srv",
                "environment": {
                    "A": "3",
                    "B": "2",
                    "HOME": "/srv",
                    "C": "x y",
                    "D": "4",
                },
            },
        )

    def test_a_variable_that_the_line_itself_would_not_see_stays_in_it(self) -> None:
        for command in ('A=1 /bin/a "$A"', "A=$B /bin/a", "A=1 /bin/a; /bin/b"):
            with self.subTest(command):
                self.assertEqual(self.entry(command), by_shell(command))

    def test_a_variable_counts_for_the_lines_below_it(self) -> None:
        entries = converted(
            "0 1 * * * /bin/a\nX=1\n0 2 * * * /bin/b\nX=2\n0 3 * * * /bin/c\n", "root"
        ).entries
        values = [entry.get("environment") for entry in entries.values()]
        self.assertEqual(values, [None, {"X": "1"}, {"X": "2"}])

    def test_a_program_of_the_crontabs_own_path_is_named_in_full(self) -> None:
        found = {"/opt/bin:/usr/bin": "/opt/bin/php"}
        host = Host(HOMES.get, lambda name, path: found.get(path, "/usr/bin/php"))
        for path, program in (("/opt/bin:/usr/bin", "/opt/bin/php"), ("/bin", "php")):
            text = f"PATH={path}\n0 1 * * * php x.php\n"
            entries = convert([Source("-", text, "root")], host=host).entries
            with self.subTest(path):
                self.assertEqual(entries["x"]["command"], [program, "x.php"])


class ShellTest(unittest.TestCase):
    """The words that need no shell, held against a real one."""

    def words_of_shell(self, shell: str, text: str) -> Optional[list[str]]:
        done = subprocess.run(
            [shell, "-c", f"show() {{ printf '%s\\0' \"$@\"; }}; show {text}"],
            cwd=self.folder,
            env={"HOME": "/h/x", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            return None
        return done.stdout.decode("utf-8").split("\0")[:-1]

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    @slow
    def test_words_that_are_known_are_those_that_the_shell_makes(self) -> None:
        chance = random.Random(5)
        pieces = (
            *("a", "b-c", "1", " ", " ", "'", '"', "\\", "$HOME", "${HOME}", "~", "/"),
            *("$", "=", ":", "é", "''", "'x y'", '"x  y"', "\\ ", "\\'", '\\"', "%"),
            *("{", "}", ",", "!", "^", "@", '"$HOME/a"', "'$HOME'", "://", "?", "#"),
        )
        compared = 0
        for shell in filter(shutil.which, ("sh", "bash")):
            for _ in range(400):
                text = "".join(chance.choices(pieces, k=chance.randint(1, 7)))
                try:
                    tokens = tokens_of(text, "/h/x", shell == "bash")
                except ValueError:
                    continue
                words = [token for token in tokens if token.kind == "word"]
                if all(token.known for token in words) and len(words) > 0:
                    compared += 1
                    with self.subTest(text, shell=shell):
                        expected = [token.value for token in words]
                        self.assertEqual(self.words_of_shell(shell, text), expected)
        self.assertGreater(compared, 200)

    def test_the_input_reaches_the_command_as_cron_gives_it(self) -> None:
        table = {
            "cat%a%b": "a\nb\n",
            "cat%a%b%": "a\nb\n",
            "cat%%": "\n",
            "cat%$HOME `id` 'x' \\%5 \\n": "$HOME `id` 'x' %5 \\n\n",
            "cat; echo and%x": "x\nand\n",
            "cat | tr a-z A-Z # loud%x": "X\n",
            "sed s/x/\\%/%x": "%\n",
            "cat%END_OF_INPUT%x": "END_OF_INPUT\nx\n",
            "echo 50\\%": "50%\n",
            "cat%": "",
        }
        for command, output in table.items():
            (entry,) = converted(f"0 1 * * * {command}", "root").entries.values()
            with self.subTest(command):
                done = subprocess.run(
                    entry["command"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                self.assertEqual((done.stdout, done.stderr), (output, ""))

    def test_no_line_makes_it_fail(self) -> None:
        chance = random.Random(6)
        pieces = (
            *("0 1 * * * ", "@daily ", "root ", "A=1", "\n", "#", "%", "\\", "'", '"'),
            *("flock ", "-n ", "/l ", "timeout ", "5m ", "cd ", "&&", "||", ">", ">>"),
            *("2>&1", "/dev/null ", "$(", ")", "`", "${", "}", " ", "-c ", "env ", "<"),
        )
        for _ in range(3000 if FULL else 300):
            text = "".join(chance.choices(pieces, k=chance.randint(1, 14)))
            with self.subTest(text):
                for user in (None, "root"):
                    for name, entry in converted(text, user).entries.items():
                        hold_entry(self, name, entry)


if __name__ == "__main__":
    unittest.main()
