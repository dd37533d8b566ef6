"""install.sh, unit and logrotate entry, as far as no booted systemd is needed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import REPOSITORY, need

INSTALL = REPOSITORY / "install.sh"
UNIT = REPOSITORY / "cron-trigger-server.service"


class Installation(unittest.TestCase):
    """A packager's installation, below a folder instead of into the host."""

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
        copy.mkdir()
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
