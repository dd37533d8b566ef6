"""Settings: by flag, by variable, by the file of the service."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from command import CommandCase
from support import REPOSITORY

from cron_trigger import cli
from cron_trigger.registry.errors import EX_CONFIG, ConfigError
from cron_trigger.registry.secret import read_secret
from cron_trigger.registry.settings import (
    SETTINGS,
    environment_file,
    read_settings,
    unknown_settings,
    variable_of,
)

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
            "log-dir": ("~/log",),
            "state-dir": ("~", "~me/state"),
            "run-dir": ("~/run",),
        }.items():
            variable = "CRON_TRIGGER_" + name.upper().replace("-", "_")
            for value in values:
                with self.subTest(name=name, value=value):
                    with self.assertRaises(ConfigError) as by_variable:
                        read_settings({}, {variable: value})
                    flag = {name.replace("-", "_"): value}
                    with self.assertRaises(ConfigError) as by_flag:
                        read_settings(flag, {})
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
                with self.assertRaises(ConfigError) as caught:
                    read_settings({}, {"CRON_TRIGGER_SECRET": secret})
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
            settings = read_settings({"secret_file": str(path)}, {})
            self.assertEqual(settings.secret, GOOD_SECRET.encode())
        for data in (b"", b"\n", b"change-me\n", b"short\n", b"\xff" * 20):
            path.write_bytes(data)
            with self.assertRaises(ConfigError) as caught:
                read_settings({"secret_file": str(path)}, {})
            self.assertIn("CRON_TRIGGER_SECRET_FILE must not", str(caught.exception))

    def test_a_secret_file_is_its_owner_s_and_its_group_s_alone(self) -> None:
        path = self.server.folder / "a secret"
        path.write_text(GOOD_SECRET)
        for mode in (0o600, 0o640, 0o660, 0o400):
            path.chmod(mode)
            settings = read_settings({"secret_file": str(path)}, {})
            self.assertEqual(settings.secret, GOOD_SECRET.encode())
        for mode in (0o644, 0o604, 0o602, 0o601):
            path.chmod(mode)
            with self.assertRaises(ConfigError) as caught:
                read_settings({"secret_file": str(path)}, {})
            self.assertIn(f"others may: chmod 600 '{path}'.", str(caught.exception))

    def test_a_file_that_somebody_else_could_exchange_is_refused(self) -> None:
        folder = self.server.folder / "kept"
        folder.mkdir()
        path = folder / "secret"
        path.write_text(GOOD_SECRET)
        path.chmod(0o600)
        flags = {"secret_file": str(path)}
        self.assertEqual(read_settings(flags, {}).secret, GOOD_SECRET.encode())
        folder.chmod(0o777)
        with self.assertRaises(ConfigError) as caught:
            read_settings(flags, {})
        self.assertIn(f"chmod o-w {folder}", str(caught.exception))
        # A client may send what it can read, wherever that is kept.
        self.assertEqual(
            read_secret(None, str(path), {}, serves=False), GOOD_SECRET.encode()
        )
        folder.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
            with self.assertRaises(ConfigError) as caught:
                read_settings(flags, {})
            self.assertIn("install -D -m 600", str(caught.exception))

    def test_a_named_pipe_that_nobody_writes_ends_the_start(self) -> None:
        path = self.server.folder / "pipe"
        os.mkfifo(path)
        with self.assertRaises(ConfigError):
            read_settings({"secret_file": str(path)}, {})

    def test_a_credential_of_systemd_may_have_any_mode(self) -> None:
        path = self.server.folder / "secret"
        path.write_text(GOOD_SECRET + "\n")
        path.chmod(0o444)
        environ = {"CREDENTIALS_DIRECTORY": str(path.parent)}
        settings = read_settings({}, environ)
        self.assertEqual(settings.secret, GOOD_SECRET.encode())

    def test_hosts_and_origins_are_kept_as_clients_send_them(self) -> None:
        settings = read_settings(
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
        settings = read_settings(
            {"port": "1", "log_dir": "/flag"},
            {"CRON_TRIGGER_PORT": "2", "CRON_TRIGGER_HISTORY_DAYS": "3"},
        )
        self.assertEqual((settings.port, settings.history_days), (1, 3))
        self.assertEqual(settings.log_dir, Path("/flag"))

    def test_flags_stand_before_or_after_the_command(self) -> None:
        parser = cli.parser()
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
        self.assertEqual(read_settings({}, empty), read_settings({}, {}))

    def test_the_defaults(self) -> None:
        settings = read_settings({}, {})
        everywhere = "::" if os.path.exists("/proc/net/if_inet6") else "0.0.0.0"
        self.assertEqual((settings.host, settings.port), (everywhere, 9998))
        self.assertEqual(settings.history_days, 90)
        self.assertIsNone(settings.allow, "the default rule")
        self.assertIsNone(settings.secret)

    def test_loopback_always_stays(self) -> None:
        settings = read_settings({"allow": "10.1.0.0/16 fd00::/8"}, {})
        networks = ["127.0.0.0/8", "::1/128", "10.1.0.0/16", "fd00::/8"]
        self.assertEqual(list(map(str, settings.allow or ())), networks)

    def test_a_misspelt_variable_is_found_with_what_it_means(self) -> None:
        names = map(variable_of, SETTINGS)
        known = {**dict.fromkeys(names, "x"), "CRON_TRIGGER_URL": "x", "PATH": "x"}
        self.assertEqual(unknown_settings(known), [])
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
                    unknown_settings({**known, name: "x"}), [(name, meant)]
                )
        others = {"CRON_SECRET": "x", "CRON_TZ": "x", "TRIGGER_PORT": "x"}
        self.assertEqual(unknown_settings(others), [])

    def test_where_files_are_as_root(self) -> None:
        with mock.patch("os.geteuid", return_value=0):
            settings = read_settings({}, {"XDG_STATE_HOME": "/ignored"})
        self.assertEqual(str(settings.log_dir), "/var/log/qadhya")
        self.assertEqual(
            str(settings.history), "/var/lib/cron-trigger-server/history.db"
        )
        self.assertEqual(str(settings.pid_file("a")), "/run/cron-trigger-server/a.pid")

    def test_where_files_are_for_another_user(self) -> None:
        with mock.patch("os.geteuid", return_value=1000):
            both = {"XDG_STATE_HOME": "/state", "XDG_RUNTIME_DIR": "/run/user/1000"}
            settings = read_settings({}, both)
            plain = read_settings({}, {})
        self.assertEqual(str(settings.log_dir), "/state/cron-trigger-server/log")
        self.assertEqual(str(settings.history), "/state/cron-trigger-server/history.db")
        self.assertEqual(str(settings.run_dir), "/run/user/1000/cron-trigger-server")
        home = os.path.expanduser("~/.local/state/cron-trigger-server")
        self.assertEqual(str(plain.run_dir), f"{home}/run")

    def test_without_a_home_there_is_none_in_the_current_folder(self) -> None:
        unknown = mock.patch("pwd.getpwuid", side_effect=KeyError)
        no_home = mock.patch.dict(os.environ, clear=True)
        with mock.patch("os.geteuid", return_value=12345), unknown, no_home:
            with self.assertRaisesRegex(ConfigError, "STATE_DIR must name a folder"):
                read_settings({}, {})
            named = {f"{name}_dir": f"/srv/{name}" for name in ("log", "state", "run")}
            self.assertEqual(str(read_settings(named, {}).run_dir), "/srv/run")

    def test_a_relative_folder_is_made_absolute(self) -> None:
        settings = read_settings({"log_dir": "logs"}, {})
        self.assertEqual(settings.log_dir, Path.cwd() / "logs")

    def test_the_registry_beside_the_module_is_the_default(self) -> None:
        if not Path("/etc/cron-trigger-server/crons.json").exists():
            settings = read_settings({}, {})
            self.assertEqual(settings.registry, REPOSITORY / "crons.json")

    def test_the_program_says_it_in_one_line_with_78(self) -> None:
        with mock.patch.dict(self.server.environ, {"CRON_TRIGGER_PORT": "x"}):
            done = self.call("serve")
        self.assert_sentence(
            done, EX_CONFIG, "CRON_TRIGGER_PORT must be a whole number", '"x"'
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
                environment_file(path),
                {
                    "CRON_TRIGGER_PORT": "9100",
                    "CRON_TRIGGER_ALLOW": "10.0.0.0/8 ::1",
                    "CRON_TRIGGER_SECRET": "a=b",
                    "OPENAI_ADMIN_KEY": "key",
                },
            )
            self.assertEqual(environment_file(Path(folder, "none")), {})

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
                self.assertEqual(environment_file(Path(file.name)), variables)


if __name__ == "__main__":
    unittest.main()
