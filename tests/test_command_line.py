"""The command line: what a person or a crontab line types, and the exit status."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

from command import REGISTRY, CommandCase
from support import PROGRAM, Server, need, need_command, need_full, slow, wait_until

from cron_trigger import VERSION
from cron_trigger.cli import COMMANDS
from cron_trigger.registry.errors import EX_CONFIG, EX_TEMPFAIL, EX_USAGE
from cron_trigger.registry.settings import SETTINGS


class HelpTest(CommandCase):
    @slow
    def test_the_program_itself(self) -> None:
        for argument, status, out in (
            ("--version", 0, f"cron-trigger-server {VERSION}\n"),
            ("-V", 0, f"cron-trigger-server {VERSION}\n"),
            ("frobnicate", 64, ""),
        ):
            done = subprocess.run(
                [sys.executable, str(PROGRAM), argument],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            self.assertEqual((done.returncode, done.stdout), (status, out))
            self.assertEqual(done.stderr.count("\n"), int(status > 0))

    def test_the_help_names_every_command_and_setting(self) -> None:
        done = self.main("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in filter(None, COMMANDS):
            self.assertRegex(done.stdout, rf"(?m)^    {name} ")
        for name in SETTINGS:
            self.assertIn(f"--{name} ", done.stdout)

    @slow
    def test_help_is_a_command_too(self) -> None:
        self.assertEqual(self.main("help").stdout, self.main("--help").stdout)
        for name in COMMANDS:
            shown = self.main("help", name)
            self.assertEqual((shown.returncode, shown.stderr), (0, ""))
            self.assertEqual(shown.stdout, self.main(name, "--help").stdout)
        self.assert_sentence(self.main("help", "frobnicate"), 64, "frobnicate")

    @slow
    def test_the_help_of_a_command_lists_what_it_takes(self) -> None:
        folders = {"registry", "log-dir", "state-dir", "run-dir"}
        client = {"url", "port", "secret-file"}
        for name, flags in {
            "serve": set(SETTINGS),
            "run": {*folders, "param", "output"},
            "list": {*folders, "json"},
            "history": {*folders, "json", "limit"},
            "crontab": {"registry", "json", "user", "write"},
            "trigger": {*client, "json", "param", "at", "wait", "follow"},
            "log": {*client, "follow", "tail"},
            "cancel": {*client, "json"},
            "events": {*client, "json"},
            "completion": set(),
        }.items():
            shown = self.main(name, "--help").stdout
            found = set(re.findall(r"(?m)^  (?:-\w, )?--([a-z-]+)", shown))
            self.assertEqual(found - {"help"}, flags, name)

    @slow
    def test_bash_and_zsh_complete_commands_flags_and_crons(self) -> None:
        for shell in filter(shutil.which, ("bash", "zsh")):
            for words, found in (
                (("d",), ["doctor"]),
                (("run", "h"), ["hello"]),
                (("history", "--li"), ["--limit"]),
                (("completion", "z"), ["zsh"]),
            ):
                with self.subTest(words, shell=shell):
                    self.assertEqual(self.completed(shell, *words), found)

    def completed(self, shell: str, *words: str) -> list[str]:
        """Return what a shell offers for the last of some words."""
        typed = shlex.join(["cron-trigger", *words])
        command = shlex.join([sys.executable, str(PROGRAM)])
        flags = shlex.join(self.server.folder_flags())
        begin = "autoload -Uz compinit && compinit -u -D" if shell == "zsh" else ":"
        script = f"""
            cron-trigger() {{
                case $1 in list) {command} "$@" {flags} ;; *) {command} "$@" ;; esac
            }}
            {begin}; eval "$(cron-trigger completion {shell})"
            [ {shell} = bash ] || emulate sh
            COMP_WORDS=({typed}) COMP_CWORD={len(words)}
            _cron_trigger
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            [shell, "-c", script],
            capture_output=True,
            text=True,
            env=self.server.clean_environ(),
            timeout=60,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        # zsh sorts out by itself what does not begin so.
        return [word for word in done.stdout.split() if word.startswith(words[-1])]

    @slow
    def test_wrong_calls_are_64(self) -> None:
        for arguments in (
            ("frobnicate",),
            ("run",),
            ("run", "a", "b"),
            ("history", "--limit", "x"),
            ("history", "--limit", "0"),
            ("history", "--limit=-1"),
            ("list", "--surprise"),
            ("check", "--port"),
            ("serve", "now"),
            ("--json",),
        ):
            with self.subTest(arguments):
                done = self.main(*arguments)
                self.assert_sentence(done, EX_USAGE, "see --help")


GOOD_SECRET = "S3cret-of-this-test-0123456789"


class FolderTest(unittest.TestCase):
    def start_fails(self, *arguments: str, status: int = EX_CONFIG) -> str:
        """Start a server that must not come up; return its one line."""
        with Server(REGISTRY, start=False) as made:
            call = [sys.executable, str(PROGRAM), "--host=127.0.0.1"]
            done = subprocess.run(
                [*call, "--port=0", *made.folder_flags(), *arguments],
                capture_output=True,
                text=True,
                env=made.clean_environ(),
                timeout=30,
                check=False,
            )
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        lines = [li for li in done.stderr.splitlines() if " info " not in li]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return lines[0]

    def test_a_port_that_is_taken_may_be_free_later(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            line = self.start_fails(f"--port={port}", status=EX_TEMPFAIL)
        self.assertIn(f"Another program listens on 127.0.0.1:{port} already", line)
        self.assertIn("ss -ltnp", line)

    @slow
    def test_a_folder_that_can_not_be_made(self) -> None:
        for flag in ("run-dir", "state-dir", "log-dir"):
            with self.subTest(flag):
                line = self.start_fails(f"--{flag}={PROGRAM}/below-a-file")
                self.assertIn("cannot be made (Not a directory)", line)

    @slow
    def test_a_host_that_is_none_of_ours(self) -> None:
        # A VPN's, for instance, may come later than the server.
        line = self.start_fails("--host=192.0.2.1", status=EX_TEMPFAIL)
        self.assertIn('CRON_TRIGGER_HOST must be an address of this host, got "1', line)
        self.assertIn("leave it out to listen on all of them", line)
        line = self.start_fails("--host=no host")
        self.assertIn("CRON_TRIGGER_HOST must be an address of this host", line)

    def test_a_low_port_without_the_right_to_it(self) -> None:
        need(os.geteuid() == 0, "needs root, to take the right away")
        first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        need(int(first) > 81, "every port is everybody's here")
        setpriv = need_command("setpriv")
        with Server(REGISTRY, start=False) as made:
            done = subprocess.run(
                [setpriv, "--bounding-set=-net_bind_service", *made.python]
                + [*made.program, "--host=127.0.0.1", "--port=81"]
                + made.folder_flags(),
                capture_output=True,
                text=True,
                env=made.clean_environ(),
                timeout=30,
                check=False,
            )
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn(
            "Only root may listen on a port as low as 81: use sudo, or choose a --port "
            "from 1024 on.\n",
            done.stderr,
        )


class ServeTest(unittest.TestCase):
    def test_on_all_interfaces_it_answers_in_both_families(self) -> None:
        need(os.path.exists("/proc/net/if_inet6"), "this kernel has no IPv6")
        with Server(REGISTRY, arguments=["--host="]) as made:
            for address in ("127.0.0.1", "::1"):
                with socket.create_connection((address, made.port), 10) as client:
                    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    answer = client.recv(15)
                self.assertEqual(answer, b"HTTP/1.1 200 OK", address)
            self.assertEqual(made.get("/health").json["port"], made.port)

    @slow
    def test_the_first_line_says_where_and_a_signal_ends_it_well(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(REGISTRY) as made:
                self.assertEqual(made.get("/health").status, 200)
                self.assertEqual(made._end(number), 0)
                self.assertIn("stopping; 0 running crons continue", made.stderr())

    def test_serve_may_be_said_and_flags_stand_anywhere(self) -> None:
        with Server(REGISTRY, arguments=["serve", "--history-days=5"]) as made:
            self.assertEqual(made.get("/health").status, 200)

    @slow
    def test_without_standard_streams_no_log_line_lands_in_another_file(self) -> None:
        """As `<&- >&- 2>&-` has it: the next files get the numbers 0, 1 and 2."""
        with Server(REGISTRY, start=False) as made:
            words = [sys.executable, str(PROGRAM), "--host=127.0.0.1", "--port=0"]
            call = shlex.join([*words, *made.folder_flags()])
            process = subprocess.Popen(
                ["sh", "-c", f"exec {call} <&- >&- 2>&-"], env=made.clean_environ()
            )
            try:
                listens = wait_until(
                    lambda: re.search(r"listens on \S+:(\d+), ", made.log_text()),
                    what="the server",
                )
                made.port = int(listens[1])
                self.assertEqual(made.completed("hello")["status"], "completed")
                pid_file = made.run_dir / "cron-trigger-server.pid"
                self.assertEqual(pid_file.read_text(), f"{process.pid}\n")
                for number in (0, 1, 2):
                    path = os.readlink(f"/proc/{process.pid}/fd/{number}")
                    self.assertEqual(path, "/dev/null")
            finally:
                process.terminate()
                self.assertEqual(process.wait(20), 0)

    def test_without_standard_streams_the_exit_status_is_the_same(self) -> None:
        need_full()
        with Server(REGISTRY, start=False) as made:
            flags = shlex.join(made.folder_flags())
            for words, status in (
                ("list", 0),
                ("check --json", 0),
                ("run three", 3),
                ("run helo", EX_USAGE),
                ("list --port=x", EX_CONFIG),
                ("nothing", EX_USAGE),
                ("--version", 0),
            ):
                call = f"exec {sys.executable} {PROGRAM} {words}"
                if words != "--version":
                    call += f" {flags}"
                with self.subTest(words):
                    done = subprocess.run(
                        ["sh", "-c", f"{call} <&- >&- 2>&-"],
                        env=made.clean_environ(),
                        timeout=30,
                        check=False,
                    )
                    self.assertEqual(done.returncode, status)

    def test_a_second_server_on_the_same_folders_is_75(self) -> None:
        need_full()
        with Server(REGISTRY) as made:
            assert made.process
            done = made.command("serve", "--port=0")
            self.assertEqual((done.returncode, done.stdout), (75, ""))
            self.assertIn(f"(PID {made.process.pid})", done.stderr)
            self.assertIn("--run-dir", done.stderr)
            for name in ("RUN_DIR", "STATE_DIR", "LOG_DIR", "PORT", "REGISTRY"):
                self.assertIn(f"CRON_TRIGGER_{name}", done.stderr)
            self.assertEqual(made.get("/health").status, 200)


if __name__ == "__main__":
    unittest.main()
