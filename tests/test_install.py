"""install.sh, unit and logrotate entry, as far as no booted systemd is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import REPOSITORY, need, need_full

INSTALL = REPOSITORY / "install.sh"
UNIT = REPOSITORY / "cron-trigger-server.service"


class BelowAFolder(unittest.TestCase):
    """An installation below a folder of the test's, and what the tests ask of it."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="cron-trigger-install-"))
        self.addCleanup(shutil.rmtree, self.root)

    def install(
        self, *options: str, source: Path = REPOSITORY, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["sh", str(source / "install.sh"), *options],
            env={**os.environ, "DESTDIR": str(self.root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def copy_of_checkout(self) -> Path:
        copy = self.root / "checkout"
        copy.mkdir(mode=0o755)
        for name in ("cron_trigger_server.py", "crons.json", "dashboard.html"):
            shutil.copy(REPOSITORY / name, copy)
        shutil.copy(INSTALL, copy)
        shutil.copy(UNIT, copy)
        shutil.copytree(REPOSITORY / "scripts", copy / "scripts")
        return copy

    def mode(self, path: str) -> int:
        return stat.S_IMODE((self.root / path).stat().st_mode)

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if not path.is_dir()
        }


class Installation(BelowAFolder):
    """A packager's installation, below a folder instead of into the host."""

    def test_everything_gets_its_place_and_mode(self) -> None:
        self.install()
        self.assertLessEqual(
            {
                "opt/cron-trigger-server/cron_trigger_server.py",
                "opt/cron-trigger-server/dashboard.html",
                "etc/cron-trigger-server/crons.json",
                "etc/default/cron-trigger-server",
                "etc/logrotate.d/cron-trigger-server",
                "etc/systemd/system/cron-trigger-server.service",
                "var/log/qadhya/cron-trigger-server.log",
            },
            self.files(),
        )
        self.assertEqual(self.mode("etc/default/cron-trigger-server"), 0o600)
        self.assertEqual(self.mode("var/log/qadhya/cron-trigger-server.log"), 0o644)
        self.assertEqual(self.mode("opt/cron-trigger-server/scripts"), 0o755)
        for script in (self.root / "opt/cron-trigger-server/scripts").iterdir():
            runs = script.read_bytes().startswith(b"#!")
            self.assertEqual(self.mode(str(script)), 0o755 if runs else 0o644, script)

    def test_relative_commands_of_the_registry_lead_to_the_scripts(self) -> None:
        self.install()
        link = self.root / "etc/cron-trigger-server/scripts"
        self.assertEqual(os.readlink(link), "/opt/cron-trigger-server/scripts")

    def test_modes_of_the_checkout_do_not_matter(self) -> None:
        checkout = self.copy_of_checkout()
        for path in checkout.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        self.install(source=checkout)
        installed = self.root / "opt"
        for path in (installed, *installed.rglob("*")):
            self.assertEqual(path.stat().st_mode & 0o022, 0, path)
        self.assertEqual(
            self.mode("opt/cron-trigger-server/cron_trigger_server.py"), 0o755
        )

    def test_upgrade_replaces_the_program_and_keeps_what_is_the_administrators(
        self,
    ) -> None:
        self.install()
        registry = self.root / "etc/cron-trigger-server/crons.json"
        settings = self.root / "etc/default/cron-trigger-server"
        registry.write_text("{}")
        settings.write_text("CRON_TRIGGER_PORT=9100 # mine\n")
        module = self.root / "opt/cron-trigger-server/cron_trigger_server.py"
        module.write_text("# an older one\n")
        self.install()
        self.assertEqual(registry.read_text(), "{}")
        self.assertEqual(settings.read_text(), "CRON_TRIGGER_PORT=9100 # mine\n")
        self.assertEqual(
            module.read_bytes(), (REPOSITORY / "cron_trigger_server.py").read_bytes()
        )

    def test_a_script_that_runs_keeps_its_file_through_an_upgrade(self) -> None:
        self.install()
        module = self.root / "opt/cron-trigger-server/cron_trigger_server.py"
        module.write_text("the older one\n")
        with module.open() as running:
            self.install()
            self.assertEqual(running.read(), "the older one\n")

    def test_second_installation_writes_nothing(self) -> None:
        self.install()
        self.assertNotIn("wrote", self.install().stdout)

    def test_port_goes_into_the_settings_and_leaves_the_others(self) -> None:
        self.install()
        settings = self.root / "etc/default/cron-trigger-server"
        before = settings.read_text()
        self.install("--port", "9100")
        after = settings.read_text()
        self.assertEqual(
            after, before.replace("#CRON_TRIGGER_PORT=9998", "CRON_TRIGGER_PORT=9100")
        )
        self.install("--port=9200")
        self.assertEqual(settings.read_text(), after.replace("9100", "9200"))

    def test_dry_run_names_each_step_and_takes_none(self) -> None:
        output = self.install("--dry-run", "--port", "9100").stdout
        self.assertIn("would write: ", output)
        self.assertIn("opt/cron-trigger-server/cron_trigger_server.py", output)
        self.assertEqual(list(self.root.iterdir()), [])
        self.assertEqual(
            output.splitlines()[-2:],
            [
                "That is all. To do it:",
                f"DESTDIR={self.root} {REPOSITORY}/install.sh --port 9100",
            ],
        )

    def test_another_entry_for_the_same_logs_is_left_alone(self) -> None:
        other = self.root / "etc/logrotate.d/qadhya"
        other.parent.mkdir(parents=True)
        other.write_text("/var/log/qadhya/*.log {\n    daily\n}\n")
        self.assertIn("logrotate.d/qadhya rotates", self.install().stdout)
        self.assertNotIn("etc/logrotate.d/cron-trigger-server", self.files())

    def test_logrotate_understands_the_entry(self) -> None:
        need(Path("/usr/sbin/logrotate").exists(), "logrotate is not installed")
        self.install()
        entry = self.root / "etc/logrotate.d/cron-trigger-server"
        done = subprocess.run(
            ["/usr/sbin/logrotate", "--debug", str(entry)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("error", done.stdout)

    def test_half_a_script_does_nothing(self) -> None:
        lines = INSTALL.read_text().splitlines(keepends=True)
        self.assertEqual(lines[-1], 'main "$@"\n')
        half = self.copy_of_checkout() / "install.sh"
        shutil.rmtree(half.parent / "scripts")
        before = self.files()
        for kept in range(0, len(lines), 25):
            half.write_text("".join(lines[:kept]))
            done = subprocess.run(
                ["sh", str(half)],
                env={**os.environ, "DESTDIR": str(self.root)},
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.stdout, "", f"the first {kept} lines")
            self.assertEqual(self.files(), before, f"the first {kept} lines")


class Host(BelowAFolder):
    """install.sh on a host whose /etc, /opt, /run and /var are folders of the test's.

    Its systemctl does nothing, and shows the unit that `self.unit` holds.
    """

    REGISTRY = "etc/cron-trigger-server/crons.json"
    SETTINGS = "etc/default/cron-trigger-server"
    LOGS = "var/log/qadhya"

    def setUp(self) -> None:
        need_full()
        super().setUp()
        self.root.chmod(0o755)
        self.install()
        self.script = self.copy_of_checkout() / "install.sh"
        self.move("etc", "opt", "run", "var")
        self.systemd = self.root / "run/systemd/system"
        self.systemd.mkdir(parents=True)
        self.unit = self.root / "unit"
        self.unit.write_text("[Service]\n")
        systemctl = self.root / "bin/systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(f'#!/bin/sh\n[ "$1" != cat ] || cat {self.unit}\n')
        systemctl.chmod(0o755)

    def move(self, *folders: str) -> None:
        """Let install.sh look for these folders of the host below the test's."""
        paths = rf"(?<![\w.$}}])/({'|'.join(folders)})/"
        moved = re.sub(paths, rf"{self.root}/\1/", self.script.read_text())
        self.script.write_text(moved)

    def call(
        self, *options: str, user: int | None = None, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        if user is not None:
            need(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv")
        done = subprocess.run(
            [*(become if user is not None else ()), "sh", str(self.script), *options],
            env={"PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def refused(self, *options: str) -> str:
        """The one sentence with which it refuses, before it does anything."""
        need(os.geteuid() == 0, "needs root")
        before = self.files()
        done = self.call(*options, status=1)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertEqual(self.files(), before)
        return done.stderr

    def call_only(self, *functions: str) -> str:
        """What some functions of install.sh print."""
        whole = self.script.read_text()
        without_main = whole.splitlines()[:-1]
        self.script.write_text("\n".join([*without_main, *functions, ""]))
        try:
            return self.call().stdout
        finally:
            self.script.write_text(whole)

    def set(self, line: str) -> None:
        with (self.root / self.SETTINGS).open("a") as settings:
            settings.write(line + "\n")

    def test_purge_removes_the_logs_of_the_crons_and_no_others(self) -> None:
        need(os.geteuid() == 0, "needs root")
        logs = self.root / self.LOGS
        registry = json.loads((self.root / self.REGISTRY).read_text())
        for name, log_file in (
            ("plain", None),
            ("own-name", "own name*"),
            ("by-path", f"{logs}/by-path.txt"),
            ("elsewhere", f"{self.root}/elsewhere.log"),
            ("above", "../above.log"),
            ("folder", ".."),
        ):
            entry = {"description": name, "command": "/bin/true", "logFile": log_file}
            registry[name] = {key: entry[key] for key in entry if entry[key]}
        (self.root / self.REGISTRY).write_text(json.dumps(registry))
        names = "index-kb.log check-alerts.log plain.log plain.log.1 plain.log.12.gz"
        for log in [*names.split(), "own name*", "own name*.1", "by-path.txt"]:
            (logs / log).touch()
        others = [logs / "backup.log", logs / "own name", logs / "plain.log.backup"]
        others += [logs.parent / "above.log", self.root / "elsewhere.log"]
        for path in others:
            path.touch()
        self.call("--purge")
        self.assertEqual(set(logs.iterdir()), set(others[:3]))
        self.assertEqual([path for path in others if not path.exists()], [])

    def test_purge_goes_on_where_the_registry_is_broken(self) -> None:
        need(os.geteuid() == 0, "needs root")
        (self.root / self.REGISTRY).write_text("{")
        self.assertEqual(self.call("--purge").stderr, "")
        self.assertFalse((self.root / self.LOGS).exists())

    def test_dry_run_ends_with_the_command_that_does_it(self) -> None:
        before = self.files()
        for mode in ("", "--uninstall", "--purge", "--port 9100", "--secret"):
            options = [*mode.split(), "--dry-run"]
            output = self.call(*options).stdout
            self.assertEqual(
                output.splitlines()[-2:],
                ["That is all. To do it:", f"sudo {self.script} {mode}".strip()],
            )
            self.assertNotIn("Removed", output)
        self.assertEqual(self.files(), before)

    def test_dry_run_of_an_ordinary_user_says_what_only_root_can_tell(self) -> None:
        self.set("CRON_TRIGGER_PORT=9100")
        (self.root / self.REGISTRY).chmod(0o600)
        settings = self.root / self.SETTINGS
        for mode in ("", "--port 9100", "--secret", "--uninstall", "--purge"):
            done = self.call(*mode.split(), "--dry-run", user=65534)
            self.assertEqual(done.stderr, "", mode)
            self.assertIn("That is all. To do it:", done.stdout)
            self.assertIn(f"Only root can read {settings}: ", done.stdout)
            unknown = f"can't tell whether {settings} changes" in done.stdout
            self.assertEqual(unknown, mode in ("--port 9100", "--secret"), mode)
        self.assertIn("can't tell the crons' logs", done.stdout)

    def test_dry_run_of_an_ordinary_user_blames_no_one_for_a_used_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            done = self.call("--port", port, "--dry-run", user=65534)
        self.assertEqual(done.stderr, "")
        self.assertIn(f"can't tell who uses port {port}", done.stdout)

    def next_command(self) -> str:
        """The last line of an installation, once it said that there is a secret."""
        output = self.call_only("show_secret", "show_next_command")
        self.assertNotIn("s3cret", output)
        self.assertIn("Every request needs the header X-Trigger-Secret", output)
        return output.splitlines()[-1]

    def test_next_command_has_the_secret_of_a_file(self) -> None:
        self.set("CRON_TRIGGER_SECRET_FILE=/root/secret")
        self.assertIn(
            '-H "X-Trigger-Secret: $(sudo cat /root/secret)" ', self.next_command()
        )

    def test_next_command_says_that_the_secret_is_in_the_settings(self) -> None:
        self.set("CRON_TRIGGER_SECRET_FILE=/root/secret")
        self.set("CRON_TRIGGER_SECRET='s3cret'")
        place = self.root / self.SETTINGS
        self.assertIn(
            f'-H "X-Trigger-Secret: [the secret in {place}]" ', self.next_command()
        )

    def test_next_command_has_the_secret_of_a_credential(self) -> None:
        self.unit.write_text(
            "[Service]\nLoadCredential=other:/root/other\n"
            "LoadCredential=secret:/root/secret\n"
        )
        self.assertIn(
            '-H "X-Trigger-Secret: $(sudo cat /root/secret)" ', self.next_command()
        )

    def test_next_command_says_that_the_secret_is_a_credential(self) -> None:
        for key in "SetCredential", "LoadCredentialEncrypted", "SetCredentialEncrypted":
            self.unit.write_text(f"[Service]\n{key}=secret:s3cret\n")
            self.assertIn(
                '-H "X-Trigger-Secret: [the secret in the credential of its unit]" ',
                self.next_command(),
            )

    def test_next_command_without_a_secret_has_no_header(self) -> None:
        self.unit.write_text("[Service]\nLoadCredential=secretary:/root/other\n")
        self.assertEqual(
            self.call_only("show_secret", "show_next_command").splitlines()[-1],
            "curl -s http://127.0.0.1:9998/crons",
        )

    def test_a_credential_is_kept_where_a_secret_is_asked_for(self) -> None:
        self.unit.write_text("[Service]\nLoadCredential=secret:/root/secret\n")
        output = self.call("--secret", "--dry-run").stdout
        self.assertIn("kept the secret in /root/secret", output)
        self.assertIn(f"kept {self.root / self.SETTINGS}", output)

    def test_log_folder_that_others_may_write_is_refused(self) -> None:
        logs = self.root / self.LOGS
        for mode in (0o775, 0o757, 0o1777):
            logs.chmod(mode)
            self.assertIn(f"sudo chmod go-w {logs}.", self.refused(*self.free_port()))
        logs.chmod(0o755)
        logs.parent.chmod(0o777)
        above = f"sudo chmod o-w {logs.parent}."
        self.assertIn(above, self.refused(*self.free_port()))

    def test_log_folder_below_one_of_a_group_is_accepted(self) -> None:
        need(os.geteuid() == 0, "needs root")
        logs = self.root / self.LOGS
        for mode in (0o775, 0o1777):
            logs.parent.chmod(mode)
            self.assertEqual(self.call("--dry-run", *self.free_port()).stderr, "")

    def test_log_folder_may_be_a_link_to_a_safe_one(self) -> None:
        need(os.geteuid() == 0, "needs root")
        logs = self.root / self.LOGS
        logs.rename(self.root / "logs")
        logs.symlink_to(self.root / "logs")
        self.assertEqual(self.call("--dry-run", *self.free_port()).stderr, "")
        (self.root / "logs").chmod(0o775)
        self.assertIn(f"go-w {self.root}/logs.", self.refused(*self.free_port()))

    def free_port(self) -> tuple[str, str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return "--port", str(server.getsockname()[1])

    def test_removal_without_systemd_is_not_told_to_start_the_server(self) -> None:
        self.systemd.rmdir()
        for mode in ("--uninstall", "--purge"):
            refusal = self.refused(mode)
            self.assertIn("run this where systemd runs", refusal)
            self.assertNotIn("start the server", refusal)
            self.assertEqual(self.call(mode, "--dry-run").stderr, refusal)

    def test_python_that_does_not_do_is_refused_with_the_remedy(self) -> None:
        self.move("usr")
        python = self.root / "usr/bin/python3"
        python.parent.mkdir(parents=True)
        for version, found, remedy in (
            ("", "there is no", "apt install python3."),
            ("Python 2.7.18", "is Python 2.7.18", "apt install python3.9)"),
            ("Python 3.8.20", "is Python 3.8.20", "apt install python3.9)"),
            ("Python 3.8", "is Python 3.8:", "apt install python3.9)"),
            ("Python 3.10.12", "sqlite3 module", "apt install python3."),
        ):
            if version:
                python.write_text(
                    f'#!/bin/sh\n[ "$1" = --version ] && echo {version}\n'
                )
                python.chmod(0o755)
            refusal = self.refused()
            self.assertIn("Python 3.9 or newer is needed, ", refusal)
            self.assertIn(found, refusal)
            self.assertIn(remedy, refusal)


class Call(unittest.TestCase):
    """How install.sh is called, and what it refuses in one sentence."""

    def call(self, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {key: os.environ[key] for key in os.environ if key != "DESTDIR"}
        return subprocess.run(
            ["sh", str(INSTALL), *options],
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def assert_refused(
        self, done: subprocess.CompletedProcess[str], status: int, word: str
    ) -> None:
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(word, done.stderr)

    def test_help_names_every_option(self) -> None:
        done = self.call("--help")
        self.assertEqual(done.returncode, 0)
        options = "--port --secret --uninstall --purge --dry-run --help DESTDIR"
        for option in options.split():
            self.assertIn(option, done.stdout)

    def test_wrong_calls_are_told_so(self) -> None:
        self.assert_refused(self.call("--prot", "1"), 64, "--prot")
        self.assert_refused(self.call("--port"), 64, "--port")
        for port in ("0", "65536", "http", "-1", "", "99999999999999999999"):
            self.assert_refused(self.call("--port", port), 64, f"not '{port}'")
        self.assert_refused(self.call("--purge", "--secret"), 64, "--secret")
        self.assert_refused(self.call("--uninstall", DESTDIR="/x"), 64, "DESTDIR")
        self.assert_refused(self.call("--secret", DESTDIR="/x"), 64, "--secret")

    def test_who_is_not_root_is_told_to_use_sudo(self) -> None:
        need(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            # The repository may be where only root can read.
            copy = Path(shutil.copytree(REPOSITORY, f"{folder}/src", ignore=no_git))
            done = subprocess.run(
                [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "sh",
                    str(copy / "install.sh"),
                ],
                env={"PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=False,
            )
        self.assert_refused(done, 1, "sudo ")

    def test_host_without_systemd_is_told_what_to_do_instead(self) -> None:
        need(os.geteuid() == 0, "needs root")
        if Path("/run/systemd/system").exists():
            self.skipTest("this host runs systemd: it would be installed into")
        self.assert_refused(self.call(), 1, "cron_trigger_server.py serve")

    def test_shellcheck_finds_nothing(self) -> None:
        need(shutil.which("shellcheck"), "shellcheck is not installed")
        done = subprocess.run(
            ["shellcheck", str(INSTALL)], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (0, ""))


def no_git(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in (".git", "tests", ".ci")]


class Unit(unittest.TestCase):
    """The systemd unit, as text."""

    def test_systemd_finds_nothing_to_say(self) -> None:
        need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
        # Its exit status is 0 for a misspelt key, too: what it prints counts.
        done = subprocess.run(
            ["systemd-analyze", "verify", str(UNIT)],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_what_the_runs_survival_rests_on_is_there(self) -> None:
        lines = UNIT.read_text().splitlines()
        for line in (
            "Type=notify",
            "Restart=always",
            "RestartSec=10s",
            "StartLimitIntervalSec=0",
            "KillMode=process",
            "OOMPolicy=continue",
            "RuntimeDirectoryPreserve=yes",
            "EnvironmentFile=-/etc/default/cron-trigger-server",
        ):
            self.assertIn(line, lines)

    def test_line_length(self) -> None:
        for line in UNIT.read_text().splitlines():
            self.assertTrue(len(line) <= 88 or line.startswith("Exec"), line)


if __name__ == "__main__":
    unittest.main()
