"""The command line: what a person or a crontab line types, and the exit status."""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import pty
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple
from unittest import mock

from flat import m as server
from support import (
    PROGRAM,
    REPOSITORY,
    Server,
    need,
    need_command,
    need_full,
    patched,
    wait_until,
)

REGISTRY: Dict[str, Any] = {
    "hello": {
        "description": "Dire bonjour ✅",
        "command": ["echo", "hello {word}", "{n}"],
        "parameters": {
            "n": {"type": "integer", "maximum": 9},
            "word": {"type": "string", "default": "world"},
            "flag": {"type": "boolean"},
        },
    },
    "three": {"description": "Exits with 3", "command": ["sh", "-c", "exit 3"]},
    "killed": {"description": "Dies", "command": ["sh", "-c", "kill -9 $$"]},
    "sleeps": {"description": "Sleeps", "command": ["sleep", "60"]},
    "missing": {"description": "Is not there", "command": "nowhere.sh"},
    "long-limit": {"description": "?", "command": ["true"], "timeout": "9000h"},
}
USER = pwd.getpwuid(os.getuid()).pw_name


class CommandCase(unittest.TestCase):
    """Tests that share folders, without a server."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY, start=False)
        cls.addClassCleanup(cls.server.__exit__)

    @classmethod
    def call(cls, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call `main` in this process, which saves the start of another."""
        return cls.main(*arguments, *cls.server.folder_flags())

    @classmethod
    def main(cls, *arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        environ = mock.patch.dict(os.environ, cls.server.clean_environ(), clear=True)
        quiet = warnings.catch_warnings()  # of what the end of a process would close
        with quiet, environ, redirect_stdout(out), redirect_stderr(err):
            warnings.simplefilter("ignore")
            try:
                status = server.main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
            gc.collect()
        return subprocess.CompletedProcess(
            arguments, status, out.getvalue(), err.getvalue()
        )

    def assert_sentence(
        self, done: subprocess.CompletedProcess[str], status: int, *words: str
    ) -> None:
        """Check that a call ended with one line on standard error and nothing else."""
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertTrue(done.stderr.startswith("cron-trigger-server: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def last_run(self) -> Any:
        done = self.call("history", "--json", "--limit=1")
        return json.loads(done.stdout)["runs"][0]


class HelpTest(CommandCase):
    def test_the_program_itself(self) -> None:
        for argument, status, out in (
            ("--version", 0, f"cron-trigger-server {server.VERSION}\n"),
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
        for name in filter(None, server.COMMANDS):
            self.assertRegex(done.stdout, rf"(?m)^    {name} ")
        for name in server.SETTINGS:
            self.assertIn(f"--{name} ", done.stdout)

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
                self.assert_sentence(done, server.EX_USAGE, "see --help")


GOOD_SECRET = "S3cret-of-this-test-0123456789"


class SettingsTest(CommandCase):
    """A bad setting ends the start with one clear line and exit status 78."""

    def test_bad_values_by_environment_and_by_flag(self) -> None:
        for name, values in {
            "port": ("x", "-1", "65536", "80.5", "９"),
            "history-days": ("x", "0", "-5", "36501"),
            "allow": ("localhost", "10.0.0.1/8", "1.2.3.4/33", ",", "::1/129"),
            "allowed-hosts": ("a:x", "http://a/", "*", "a b*", "[::1]", "a:808080"),
            "allowed-origins": (
                *("admin.example.org", "https://a/b", "https://a/", "ftp://a", "*"),
                "https://user@a",
            ),
            "notify-url": (
                "example.org",
                "file:///etc/passwd",
                "http://",
                "http://a:x",
            ),
            "registry": ("/nowhere/crons.json", "/"),
            "secret-file": ("/nowhere/secret", "/", ""),
        }.items():
            variable = "CRON_TRIGGER_" + name.upper().replace("-", "_")
            for value in values:
                with self.subTest(name=name, value=value):
                    with self.assertRaises(server.ConfigError) as by_variable:
                        server.read_settings({}, {variable: value})
                    flag = {name.replace("-", "_"): value}
                    with self.assertRaises(server.ConfigError) as by_flag:
                        server.read_settings(flag, {})
                    text = str(by_variable.exception)
                    self.assertEqual(text, str(by_flag.exception))
                    self.assertIn(variable, text)
                    self.assertTrue(text.isprintable() and text.endswith("."), text)

    def test_a_secret_that_does_not_hold_is_refused_and_not_repeated(self) -> None:
        for secret, fault in {
            "": "must not be empty or change-me",
            "change-me": "must not be empty or change-me",
            f" {GOOD_SECRET}": "must not hold a blank",
            f"{GOOD_SECRET} ": "must not hold a blank",
            f"{GOOD_SECRET} xyzzy": "must not hold a blank",
            f"{GOOD_SECRET}é": "must not hold a blank or what is no visible ASCII",
            f"{GOOD_SECRET}\n": "must not hold",
            f"\x7fxyzzy{GOOD_SECRET}": "must not hold",
            "\udcff" * 20: "must not hold",
            "xyzzy": "must not be shorter than 16 characters, got 5",
            GOOD_SECRET[:15]: "must not be shorter than 16 characters, got 15",
        }.items():
            with self.subTest(ascii(secret)):
                with self.assertRaises(server.ConfigError) as caught:
                    server.read_settings({}, {"CRON_TRIGGER_SECRET": secret})
                text = str(caught.exception)
                self.assertTrue(text.startswith(f"CRON_TRIGGER_SECRET {fault}"), text)
                self.assertIn("openssl rand -hex 32", text)
                self.assertNotIn("xyzzy", text)

    def test_a_secret_out_of_a_file(self) -> None:
        path = self.server.folder / "secret"
        path.touch()
        path.chmod(0o600)
        for end in (b"", b"\n", b"\r\n"):
            path.write_bytes(GOOD_SECRET.encode() + end)
            settings = server.read_settings({"secret_file": str(path)}, {})
            self.assertEqual(settings.secret, GOOD_SECRET.encode())
        for data in (b"", b"\n", b"change-me\n", b"short\n", b"\xff" * 20):
            path.write_bytes(data)
            with self.assertRaises(server.ConfigError) as caught:
                server.read_settings({"secret_file": str(path)}, {})
            self.assertIn("CRON_TRIGGER_SECRET_FILE must not", str(caught.exception))

    def test_a_secret_file_is_its_owner_s_and_its_group_s_alone(self) -> None:
        path = self.server.folder / "a secret"
        path.write_text(GOOD_SECRET)
        for mode in (0o600, 0o640, 0o660, 0o400):
            path.chmod(mode)
            settings = server.read_settings({"secret_file": str(path)}, {})
            self.assertEqual(settings.secret, GOOD_SECRET.encode())
        for mode in (0o644, 0o604, 0o602, 0o601):
            path.chmod(mode)
            with self.assertRaises(server.ConfigError) as caught:
                server.read_settings({"secret_file": str(path)}, {})
            self.assertIn(f"others may: chmod 600 '{path}'.", str(caught.exception))

    def test_a_credential_of_systemd_may_have_any_mode(self) -> None:
        path = self.server.folder / "secret"
        path.write_text(GOOD_SECRET + "\n")
        path.chmod(0o444)
        environ = {"CREDENTIALS_DIRECTORY": str(path.parent)}
        settings = server.read_settings({}, environ)
        self.assertEqual(settings.secret, GOOD_SECRET.encode())

    def test_hosts_and_origins_are_kept_as_clients_send_them(self) -> None:
        settings = server.read_settings(
            {
                "allowed_hosts": "Crons.example.org:8443, b.example.org. 192.0.2.1",
                "allowed_origins": "https://Admin.example.org:443 http://a:80 "
                "https://b:8443 http://[::1]:3000 HTTP://c",
            },
            {},
        )
        hosts = ("crons.example.org", "b.example.org", "192.0.2.1")
        self.assertEqual(settings.allowed_hosts, hosts)
        self.assertEqual(
            settings.allowed_origins,
            (
                *("https://admin.example.org", "http://a", "https://b:8443"),
                *("http://[::1]:3000", "http://c"),
            ),
        )

    def test_the_flag_wins_over_the_environment(self) -> None:
        settings = server.read_settings(
            {"port": "1", "log_dir": "/flag"},
            {"CRON_TRIGGER_PORT": "2", "CRON_TRIGGER_HISTORY_DAYS": "3"},
        )
        self.assertEqual((settings.port, settings.history_days), (1, 3))
        self.assertEqual(settings.log_dir, Path("/flag"))

    def test_flags_stand_before_or_after_the_command(self) -> None:
        parser = server._parser()
        for arguments in (
            ["--port=5", "serve"],
            ["serve", "--port=5"],
            ["--port=4", "serve", "--port=5"],
            ["--port=5"],
        ):
            with self.subTest(arguments):
                self.assertEqual(parser.parse_args(arguments).port, "5")

    def test_an_empty_variable_is_as_good_as_none(self) -> None:
        """EnvironmentFile lines such as `CRON_TRIGGER_PORT=`."""
        names = ("HOST", "PORT", "HISTORY_DAYS", "REGISTRY", "LOG_DIR", "NOTIFY_URL")
        empty = {f"CRON_TRIGGER_{name}": "" for name in names}
        self.assertEqual(server.read_settings({}, empty), server.read_settings({}, {}))

    def test_the_defaults(self) -> None:
        settings = server.read_settings({}, {})
        everywhere = "::" if os.path.exists("/proc/net/if_inet6") else "0.0.0.0"
        self.assertEqual((settings.host, settings.port), (everywhere, 9998))
        self.assertEqual(settings.history_days, 90)
        self.assertIsNone(settings.allow, "the default rule")
        self.assertIsNone(settings.secret)

    def test_loopback_always_stays(self) -> None:
        settings = server.read_settings({"allow": "10.1.0.0/16 fd00::/8"}, {})
        networks = ["127.0.0.0/8", "::1/128", "10.1.0.0/16", "fd00::/8"]
        self.assertEqual(list(map(str, settings.allow)), networks)

    def test_a_misspelt_variable_is_found_with_what_it_means(self) -> None:
        names = map(server.variable_of, server.SETTINGS)
        known = {**dict.fromkeys(names, "x"), "CRON_TRIGGER_URL": "x", "PATH": "x"}
        self.assertEqual(server.unknown_settings(known), [])
        for name, meant in {
            "CRON_TRIGGER_ALLOWED_HOST": "CRON_TRIGGER_ALLOWED_HOSTS",
            "CRON_TRIGER_PORT": "CRON_TRIGGER_PORT",
            "CRONTRIGGER_SECRET": "CRON_TRIGGER_SECRET",
            "cron_trigger_port": "CRON_TRIGGER_PORT",
            "CRON_TRIGGER_LOGDIR": "CRON_TRIGGER_LOG_DIR",
            "CRON_TRIGGER_XYZ": None,
        }.items():
            with self.subTest(name):
                self.assertEqual(
                    server.unknown_settings({**known, name: "x"}), [(name, meant)]
                )
        others = {"CRON_SECRET": "x", "CRON_TZ": "x", "TRIGGER_PORT": "x"}
        self.assertEqual(server.unknown_settings(others), [])

    def test_where_files_are_as_root(self) -> None:
        with mock.patch("os.geteuid", return_value=0):
            settings = server.read_settings({}, {"XDG_STATE_HOME": "/ignored"})
        self.assertEqual(str(settings.log_dir), "/var/log/qadhya")
        self.assertEqual(
            str(settings.history), "/var/lib/cron-trigger-server/history.db"
        )
        self.assertEqual(str(settings.pid_file("a")), "/run/cron-trigger-server/a.pid")

    def test_where_files_are_for_another_user(self) -> None:
        with mock.patch("os.geteuid", return_value=1000):
            both = {"XDG_STATE_HOME": "/state", "XDG_RUNTIME_DIR": "/run/user/1000"}
            settings = server.read_settings({}, both)
            plain = server.read_settings({}, {})
        self.assertEqual(str(settings.log_dir), "/state/cron-trigger-server/log")
        self.assertEqual(str(settings.history), "/state/cron-trigger-server/history.db")
        self.assertEqual(str(settings.run_dir), "/run/user/1000/cron-trigger-server")
        home = os.path.expanduser("~/.local/state/cron-trigger-server")
        self.assertEqual(str(plain.run_dir), f"{home}/run")

    def test_a_relative_folder_is_made_absolute(self) -> None:
        settings = server.read_settings({"log_dir": "logs"}, {})
        self.assertEqual(settings.log_dir, Path.cwd() / "logs")

    def test_the_registry_beside_the_module_is_the_default(self) -> None:
        if not Path("/etc/cron-trigger-server/crons.json").exists():
            settings = server.read_settings({}, {})
            self.assertEqual(settings.registry, REPOSITORY / "crons.json")

    def test_the_program_says_it_in_one_line_with_78(self) -> None:
        with mock.patch.dict(self.server.environ, {"CRON_TRIGGER_PORT": "x"}):
            done = self.call("serve")
        self.assert_sentence(
            done, server.EX_CONFIG, "CRON_TRIGGER_PORT must be a whole number", '"x"'
        )


class EnvironmentFile(unittest.TestCase):
    """How the service's settings are read by who is not the service."""

    def test_settings_without_their_quotes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "cron-trigger-server")
            path.write_text(
                "# a comment = nothing\n"
                "CRON_TRIGGER_PORT=9100\n"
                'CRON_TRIGGER_ALLOW="10.0.0.0/8 ::1"\n'
                "CRON_TRIGGER_SECRET=a=b\n"
                "#CRON_TRIGGER_HOST=0.0.0.0\n"
                "OPENAI_ADMIN_KEY=key\n"
                "; another comment = nothing\n"
            )
            self.assertEqual(
                server.environment_file(path),
                {
                    "CRON_TRIGGER_PORT": "9100",
                    "CRON_TRIGGER_ALLOW": "10.0.0.0/8 ::1",
                    "CRON_TRIGGER_SECRET": "a=b",
                    "OPENAI_ADMIN_KEY": "key",
                },
            )
            self.assertEqual(server.environment_file(Path(folder, "none")), {})

    def test_it_is_read_as_systemd_does(self) -> None:
        """Each case by src/basic/env-file.c of systemd, and by systemd.exec(5)."""
        for text, variables in {
            "A=b": {"A": "b"},
            "A=": {"A": ""},
            "  A = b  \n": {"A": "b"},
            "A=b # no comment\n": {"A": "b # no comment"},
            " # A=b\n;A=c\n": {},
            "A=1\nA=2\n": {"A": "2"},
            "A=b\r\nB=c\r\n": {"A": "b", "B": "c"},
            "no assignment\nA=b": {"A": "b"},
            "export A=b\n1A=b\nA-B=c\n": {},
            "A='a b' \nB=\"c d\"": {"A": "a b", "B": "c d"},
            "A='a'b\nB=\"a\"'b'": {"A": "ab", "B": "ab"},
            "A=a'b'": {"A": "a'b'"},
            "A=it's": {"A": "it's"},
            "A='a\nb'\nB=c": {"A": "a\nb", "B": "c"},
            'A="a\nb"\nB=c': {"A": "a\nb", "B": "c"},
            "A=a\\\nb\nB=c": {"A": "ab", "B": "c"},
            'A="a\\\nb"': {"A": "ab"},
            "A=a\\b\\\\c": {"A": "ab\\c"},
            "A=a\\ \nB=c": {"A": "a ", "B": "c"},
            "A='a\\b'": {"A": "a\\b"},
            'A="a\\"b\\\\c\\$d\\`e\\nf"': {"A": 'a"b\\c$d`e\\nf'},
            "A=$HOME/`id`": {"A": "$HOME/`id`"},
            "A=a=b": {"A": "a=b"},
        }.items():
            with (
                self.subTest(text),
                tempfile.NamedTemporaryFile("w", newline="") as file,
            ):
                file.write(text)
                file.flush()
                self.assertEqual(server.environment_file(Path(file.name)), variables)


class FolderTest(unittest.TestCase):
    def start_fails(self, *arguments: str, program: Tuple[str, ...] = ()) -> str:
        """Start a server that must not come up; return its one line."""
        with Server(REGISTRY, start=False) as made:
            call = [sys.executable, *(program or (str(PROGRAM),)), "--host=127.0.0.1"]
            done = subprocess.run(
                [*call, "--port=0", *made.folder_flags(), *arguments],
                capture_output=True,
                text=True,
                env=made.clean_environ(),
                timeout=30,
                check=False,
            )
        self.assertEqual((done.returncode, done.stdout), (78, ""), done.stderr)
        lines = [li for li in done.stderr.splitlines() if " info " not in li]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return lines[0]

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            line = self.start_fails(
                f"--port={port}", program=patched("m.listen.__defaults__ = (0.1,)")
            )
        self.assertIn(
            f"can't listen on 127.0.0.1:{port} (Address already in use)", line
        )
        self.assertIn("ss -ltnp", line)

    def test_a_folder_that_can_not_be_made(self) -> None:
        for flag in ("run-dir", "state-dir", "log-dir"):
            with self.subTest(flag):
                line = self.start_fails(f"--{flag}={PROGRAM}/below-a-file")
                self.assertIn("cannot be made (Not a directory)", line)

    def test_a_host_that_is_none_of_ours(self) -> None:
        line = self.start_fails("--host=192.0.2.1")
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
            "can't listen on 127.0.0.1:81 (Permission denied): only root may use a low "
            "port: choose a --port from 1024 on.",
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

    def test_the_first_line_says_where_and_a_signal_ends_it_well(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(REGISTRY) as made:
                self.assertEqual(made.get("/health").status, 200)
                self.assertEqual(made._end(number), 0)
                self.assertIn("stopping; 0 running crons continue", made.stderr())

    def test_serve_may_be_said_and_flags_stand_anywhere(self) -> None:
        with Server(REGISTRY, arguments=["serve", "--history-days=5"]) as made:
            self.assertEqual(made.get("/health").status, 200)

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
                ("run helo", server.EX_USAGE),
                ("list --port=x", server.EX_CONFIG),
                ("nothing", server.EX_USAGE),
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
            self.assertEqual(made.get("/health").status, 200)


class RunTest(CommandCase):
    """`run NAME`, without a server: in the foreground, with the script's status."""

    def test_the_exit_status_is_the_scripts(self) -> None:
        for name, status in {"hello": 0, "three": 3, "killed": 137}.items():
            with self.subTest(name):
                done = self.call("run", name)
                self.assertEqual(
                    (done.returncode, done.stdout, done.stderr), (status, "", "")
                )
                self.assertEqual(self.last_run()["exitCode"], status)

    def test_the_output_goes_to_the_log_and_the_run_is_recorded(self) -> None:
        self.call("run", "hello")
        run = self.last_run()
        self.assertEqual((run["status"], run["trigger"]), ("completed", "cli"))
        self.assertEqual(run["client"], USER)
        self.assertIsNotNone(run["cpuSeconds"])
        self.assertRegex(
            self.server.log_text("hello"),
            rf"\] run {run['id']} started \(cli {USER}\)\nhello world\n\[[^]]+\] "
            rf"run {run['id']} completed: exit 0 after ",
        )
        self.assertIn(f"run {run['id']} of hello completed", self.server.log_text())

    def test_the_services_variables_are_the_scripts_too(self) -> None:
        file = self.server.folder / "default"
        file.write_text("A_KEY='of the file'\nPATH=/nowhere\nCRON_TRIGGER_PORT=x\n")
        entry = {
            "description": "Shows",
            "command": ["/bin/sh", "-c", 'echo "$A_KEY $B"'],
        }
        path = f"m.environment_file.__defaults__ = (m.Path({str(file)!r}),)"
        with Server({"show": entry}, program=patched(path), start=False) as made:
            self.assertEqual(made.command("run", "show", "--port=1").returncode, 0)
            self.assertIn("\nof the file \n", made.log_text("show"))
            made.environ.update(A_KEY="of the crontab", B="of the crontab")
            made.command("run", "show", "--port=1")
            self.assertEqual(made.log_text("show").count("\nof the file \n"), 2)
            self.assertEqual(made.command("run", "show").returncode, server.EX_CONFIG)

    def test_parameters_become_values_of_their_type(self) -> None:
        arguments = ("--param=n=7", "--param", "word=a=b c", "--param=flag=true")
        self.assertEqual(self.call("run", "hello", *arguments).returncode, 0)
        self.assertEqual(
            self.last_run()["params"], {"n": 7, "word": "a=b c", "flag": True}
        )
        self.assertIn("\nhello a=b c 7\n", self.server.log_text("hello"))

    def test_parameters_that_do_not_hold_are_64(self) -> None:
        for arguments, words in (
            (("--param=n=10",), "n must be at most 9, got 10"),
            (("--param=n=x",), 'n expected an integer, got "x"'),
            (("--param=flag=yes",), "flag expected a boolean"),
            (("--param=word=-rf",), 'word must not begin with "-"'),
            (("--param=other=1",), "other is not a parameter of this cron"),
            (("--param=n",), "--param takes KEY=VALUE"),
            (("--param=n=1", "--param=n=2"), "each key once"),
            (("--param==1",), "is not a parameter of this cron"),
        ):
            with self.subTest(arguments):
                done = self.call("run", "hello", *arguments)
                self.assert_sentence(done, server.EX_USAGE, words)

    def test_an_unknown_cron_is_64_and_a_broken_script_126(self) -> None:
        done = self.call("run", "helo")
        self.assert_sentence(done, server.EX_USAGE, 'no cron "helo"', "hello, three")
        done = self.call("run", "missing")
        self.assert_sentence(done, 126, '"missing" was not started', "is missing")

    def test_what_runs_already_is_75_whoever_runs_it(self) -> None:
        self.call("run", "hello")
        flock = need_command("flock")
        lock = str(self.server.run_dir / "hello.pid")
        done = subprocess.run(
            [
                *(flock, "-n", lock, sys.executable, str(PROGRAM), "run", "hello"),
                *self.server.folder_flags(),
            ],
            capture_output=True,
            text=True,
            env=self.server.clean_environ(),
            timeout=30,
            check=False,
        )
        self.assert_sentence(done, server.EX_TEMPFAIL, '"hello" is running already')

    def test_a_signal_cancels_the_run_and_the_record_says_so(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                self.assertEqual(self.signalled(number), (143, ""))
                run = self.last_run()
                self.assertEqual(
                    (run["status"], run["signal"]), ("cancelled", "SIGTERM")
                )
                self.assertEqual(run["cancelledBy"], f"{USER} (signal)")

    def signalled(self, number: int) -> Tuple[int, str]:
        """Send a signal to `run sleeps`; return its exit status and output."""
        lock = self.server.run_dir / "sleeps.pid"
        if lock.exists():
            lock.write_text("")
        process = self.server.spawn("run", "sleeps")
        assert process.stdout
        # Before the PID stands there, the signal would come before its handler.
        wait_until(lambda: lock.exists() and lock.read_text().strip(), what="the run")
        process.send_signal(number)
        status = process.wait(15)
        output = process.stdout.read()
        process.stdout.close()
        return status, output

    def test_a_limit_of_months_is_no_trouble(self) -> None:
        self.assertEqual(self.call("run", "long-limit").returncode, 0)

    def test_a_registry_that_does_not_hold_is_78(self) -> None:
        with Server(start=False) as made:
            made.registry.write_text('{"a": {}}')
            done = self.main("run", "a", *made.folder_flags())
            self.assert_sentence(done, 78, 'crons.json: "a": description: is required')


class RunBesideServerTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)

        cls.server.start()

    def running(self) -> Any:
        crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
        return crons["sleeps"]["running"]

    def test_the_server_knows_of_it_and_refuses_a_second_one(self) -> None:
        process = self.server.spawn("run", "sleeps")
        assert process.stdout
        run = wait_until(
            lambda: (r := self.running()) and r["id"] and r, what="the run"
        )
        self.assertEqual((run["trigger"], run["client"]), ("cli", USER))
        reply = self.server.trigger("sleeps")
        self.assertEqual((reply.status, reply.json["runId"]), (409, run["id"]))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 143)
        process.stdout.close()
        self.assertEqual(self.server.ended(run["id"])["status"], "cancelled")

    def test_what_a_run_used_is_known_whoever_records_its_end(self) -> None:
        for _ in range(3):
            self.assertEqual(self.server.command("run", "hello").returncode, 0)
            (run,) = self.server.get("/runs?limit=1").json["runs"]
            self.assertEqual((run["cronName"], run["status"]), ("hello", "completed"))
            self.assertIsNotNone(run["cpuSeconds"])

    def test_the_servers_run_keeps_the_command_out_with_75(self) -> None:
        first = self.server.trigger("sleeps").json
        done = self.server.command("run", "sleeps")
        self.assertEqual(done.returncode, 75, done.stderr)
        listed = json.loads(self.server.command("list", "--json").stdout)["crons"]
        states = {cron["cronName"]: cron["running"] for cron in listed}
        self.assertEqual(states["sleeps"]["id"], first["runId"])
        self.assertIsNone(states["hello"])
        table = self.server.command("list").stdout
        self.assertRegex(table, r"(?m)^sleeps +running ")
        self.server.request("POST", f"/runs/{first['runId']}/cancel")
        self.server.ended(first["runId"])


class TableTest(CommandCase):
    """Tables for people, JSON for programs."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name in ("hello", "three", "killed", "hello"):
            cls.call("run", name)

    def rows(self, text: str) -> List[List[str]]:
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

    def test_a_name_that_nobody_knows_has_no_history(self) -> None:
        done = self.call("history", "helo")
        self.assert_sentence(done, server.EX_USAGE, 'no cron "helo"')
        self.assertEqual(self.call("history", "sleeps").returncode, 0)

    def test_json_is_json_where_the_terminal_has_no_utf_8(self) -> None:
        self.server.environ["PYTHONIOENCODING"] = "ascii"
        self.addCleanup(self.server.environ.clear)
        told = json.loads(self.server.command("list", "--json").stdout)["crons"]
        self.assertEqual(told[0]["description"], "Dire bonjour ✅")

    def test_who_only_reads_changes_nothing(self) -> None:
        def state() -> List[Tuple[str, int, int]]:
            folders = (self.server.state_dir, self.server.run_dir)
            paths = sorted(path for folder in folders for path in folder.iterdir())
            stats = ((path, path.stat()) for path in paths)
            return [(p.name, s.st_mtime_ns, s.st_size) for p, s in stats]

        before = state()
        for command in ("history", "list"):
            self.assertEqual(self.call(command).returncode, 0)
            self.assertEqual(state(), before)

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

    def test_what_somebody_else_has_locked_runs_as_on_the_page(self) -> None:
        with open(self.server.run_dir / "sleeps.pid", "w") as crontab:
            fcntl.flock(crontab, fcntl.LOCK_EX)
            rows = self.rows(self.call("list").stdout)
            self.assertEqual(rows[4][:2], ["sleeps", "running"])
            listed = json.loads(self.call("list", "--json").stdout)["crons"]
        running = {cron["cronName"]: cron["running"] for cron in listed}
        self.assertEqual(running.pop("sleeps"), {"id": None, "trigger": "external"})
        self.assertEqual(set(running.values()), {None})

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

    def test_colours_are_for_terminals_that_want_them(self) -> None:
        self.assertNotIn("\x1b", self.call("history").stdout)
        self.assertIn("\x1b[31mfailed\x1b[0m", self.on_terminal({}))
        self.assertNotIn("\x1b", self.on_terminal({"NO_COLOR": "1"}))

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
        text = os.read(main, 65536).decode()
        os.close(main)
        return text

    def test_a_terminal_that_lacks_a_character_gets_its_number(self) -> None:
        with mock.patch.dict(self.server.environ, {"PYTHONIOENCODING": "ascii"}):
            done = self.server.command("list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Dire bonjour \\u2705\n", done.stdout)

    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        program = f"{sys.executable} {PROGRAM} history --json"
        flags = " ".join(self.server.folder_flags())
        done = subprocess.run(
            ["bash", "-c", f"{program} {flags} | true; echo ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            env=self.server.clean_environ(),
            timeout=30,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("0\n", ""))

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
                (0, f"{made.registry}: 1 crons, well formed\n", ""),
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
