"""install.sh, unit and logrotate entry, as far as no booted systemd is needed."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import threading
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

from fast.test_install import UNIT
from support import REPOSITORY, need, need_full, slow

INSTALL = REPOSITORY / "install.sh"


#: What install.sh copies.
PROGRAM = (
    "cron_trigger_server.py",
    "cron_trigger",
    "scripts",
    "crons.json",
    "crons.schema.json",
    "docs",
)


no_caches = shutil.ignore_patterns("__pycache__")


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
        for path in (INSTALL, UNIT, *map(REPOSITORY.joinpath, PROGRAM)):
            if path.is_dir():
                shutil.copytree(path, copy / path.name, ignore=no_caches)
            elif path.exists():
                shutil.copy(path, copy)
        return copy

    def mode(self, path: str) -> int:
        return stat.S_IMODE((self.root / path).stat().st_mode)

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if not path.is_dir()
        }


@slow
class Installation(BelowAFolder):
    """A packager's installation, below a folder instead of into the host."""

    def test_without_python_it_says_so_and_installs_nothing(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-bin-")
        self.addCleanup(folder.cleanup)
        for path in (*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()):
            link = Path(folder.name) / path.name
            if not path.name.startswith("python") and not link.is_symlink():
                link.symlink_to(path)
        with mock.patch.dict(os.environ, {"PATH": folder.name}):
            done = self.install(status=1)
        self.assertIn("python3 is missing: install", done.stderr)
        self.assertEqual(self.files(), set())

    def test_everything_gets_its_place_and_mode(self) -> None:
        self.install()
        self.assertLessEqual(
            {
                "opt/cron-trigger-server/cron_trigger_server.py",
                "opt/cron-trigger-server/cron_trigger/__init__.py",
                "opt/cron-trigger-server/crons.schema.json",
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

    def test_upgrade_leaves_nothing_of_an_earlier_program(self) -> None:
        self.install()
        program = self.root / "opt/cron-trigger-server"
        before = self.files()
        (program / "dashboard.html").touch()
        (program / "cron_trigger/old.py").touch()
        (program / "cron_trigger/gone").mkdir()
        (program / "cron_trigger/gone/module.py").touch()
        self.install()
        self.assertEqual(self.files(), before)

    def test_upgrade_keeps_scripts_that_it_does_not_bring(self) -> None:
        self.install()
        old = self.root / "opt/cron-trigger-server/scripts/backup-databases.py"
        old.write_text("of version 1.0.0")
        self.assertIn(f"kept {old}, which", self.install().stdout)
        self.assertEqual(old.read_text(), "of version 1.0.0")
        self.assertNotIn("wrote", self.install().stdout)

    def test_command_is_a_link_to_the_entry(self) -> None:
        self.install()
        link = self.root / "usr/local/bin/cron-trigger"
        entry = "/opt/cron-trigger-server/cron_trigger_server.py"
        self.assertEqual(os.readlink(link), entry)
        link.unlink()
        link.write_text("another program's")
        self.assertIn("was left alone", self.install().stdout)
        self.assertEqual(link.read_text(), "another program's")

    def test_a_reader_that_goes_does_not_stop_it(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            ["sh", str(INSTALL)],
            env={**os.environ, "DESTDIR": str(self.root)},
            stdout=writing,
            stderr=writing,
            timeout=60,
            check=False,
        )
        os.close(writing)
        self.assertEqual(done.returncode, 0)
        before = self.files()
        self.assertNotIn("wrote", self.install().stdout)
        self.assertEqual(self.files(), before)

    def test_links_that_others_planted_are_not_followed(self) -> None:
        self.install()
        treasure = self.root / "treasure"
        treasure.write_text("not yours")
        for path in self.files() - {"treasure"}:
            if (self.root / path).is_symlink():
                continue
            (self.root / path).write_text("older")
            for suffix in (".new", ".tmp", "~"):
                with contextlib.suppress(FileExistsError):
                    (self.root / (path + suffix)).symlink_to(treasure)
        self.install("--port", "9100")
        self.assertEqual(treasure.read_text(), "not yours")

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


ASKED = REPOSITORY / "cron_trigger/commands/installing.py"
#: A program that says of a host what the test wants it to, and starts at once.
STUB = {
    "cron_trigger_server.py": "#!/usr/bin/python3\nimport sys\nsys.exit({answer})\n",
    "cron_trigger/__init__.py": 'SERVICE = "cron-trigger-server"',
    "cron_trigger/commands/__init__.py": "",
    "cron_trigger/commands/installing.py": ASKED.read_text(),
    "cron_trigger/host/__init__.py": "",
    "cron_trigger/host/networks.py": """
import ipaddress
from types import SimpleNamespace

address_of = ipaddress.ip_address

def container_bridges():
    return [("docker0", SimpleNamespace(network=ipaddress.ip_network("172.17.0.0/16")))]
""",
}


#: Kills the whole installation, as a power cut does, before its Nth command of a kind.
KILLER = """#!/bin/sh
read -r count <{count}
read -r last <{last}
count=$((count + 1))
echo $count >{count}
[ $count != $last ] || kill -9 0
exec {program} "$@"
"""


#: What changes a host.
CHANGING = ("mv", "cp", "rm", "ln", "mkdir", "mktemp", "chmod")


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
        self.move("etc", "opt", "run", "var", "usr/local")
        self.systemd = self.root / "run/systemd/system"
        self.systemd.mkdir(parents=True)
        self.unit = self.root / "unit"
        self.unit.write_text("[Service]\n")
        systemctl = self.root / "bin/systemctl"
        systemctl.parent.mkdir()
        self.calls = self.root / "calls"
        self.main_pid = self.root / "main-pid"
        systemctl.write_text(
            f"""#!/bin/sh
case $1 in
    --quiet) shift ;;
esac
case $1 in
    cat) cat {self.unit} ;;
    show) cat {self.main_pid} 2>/dev/null ;;
    is-active) ;;
    *) echo "$*" >>{self.calls} ;;
esac
"""
        )
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
            start_new_session=True,
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

    def test_settings_are_read_as_systemd_reads_them(self) -> None:
        for line in (
            "CRON_TRIGGER_PORT=9100\r",
            " CRON_TRIGGER_PORT = 9101 ",
            "CRON_TRIGGER_PORT='9102' ",
            'CRON_TRIGGER_PORT="9103"\nX_CRON_TRIGGER_PORT=1\n#CRON_TRIGGER_PORT=2',
        ):
            self.set(line)
            port = re.search("91..", line)
            printed = self.call_only("prepare", "port_in_force")
            self.assertEqual(printed, f"{port and port[0]}\n")

    def test_a_setting_is_added_to_a_file_whose_last_line_has_no_end(self) -> None:
        settings = self.root / self.SETTINGS
        settings.write_text("CRON_TRIGGER_ALLOW=10.1.0.0/16")
        self.call_only("wanted_port=9100", "prepare", "install_settings")
        text = "CRON_TRIGGER_ALLOW=10.1.0.0/16\nCRON_TRIGGER_PORT=9100\n"
        self.assertEqual(settings.read_text(), text)

    def test_a_port_that_is_none_is_refused_with_a_sentence(self) -> None:
        self.set("CRON_TRIGGER_PORT=9100 # for us")
        self.assertIn("CRON_TRIGGER_PORT must be a number from 1", self.refused())

    def header(self) -> Path:
        return self.root / "etc/cron-trigger-server/secret.header"

    def test_next_command_has_the_header_that_the_installer_wrote(self) -> None:
        secret = self.root / "secret"
        secret.write_text("s3cret-s3cret-s3cret\n")
        self.set(f"CRON_TRIGGER_SECRET_FILE={secret}")
        self.call_only("prepare", "install_settings")
        self.assertEqual(
            self.header().read_text(), "X-Trigger-Secret: s3cret-s3cret-s3cret\n"
        )
        self.assertEqual(stat.S_IMODE(self.header().stat().st_mode), 0o600)
        self.assertEqual(
            self.next_command(),
            f"sudo curl -s -H @{self.header()} http://127.0.0.1:9998/crons",
        )

    def test_header_goes_with_the_secret(self) -> None:
        self.set("CRON_TRIGGER_SECRET='s3cret-s3cret-s3cret'")
        self.call_only("prepare", "install_settings")
        self.assertIn("s3cret-s3cret-s3cret\n", self.header().read_text())
        (self.root / self.SETTINGS).write_text("")
        self.call_only("prepare", "install_settings")
        self.assertFalse(self.header().exists())

    def test_a_secret_that_is_made_is_long_and_in_its_header(self) -> None:
        self.call_only(
            "wanted_secret=yes", "prepare", "find_python", "install_settings"
        )
        secret = (self.root / "etc/cron-trigger-server/secret").read_text().strip()
        self.assertRegex(secret, "^[0-9a-f]{32,}$")
        self.assertEqual(self.header().read_text(), f"X-Trigger-Secret: {secret}\n")

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
            '-H "X-Trigger-Secret: [the secret in /root/secret]" ', self.next_command()
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
            ("Python 3.10.12", "(sqlite3, hmac or another)", "apt install python3."),
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

    # ---- places

    def test_the_folder_that_it_runs_from_is_never_its_target(self) -> None:
        place = self.root / "usr/local/src/cron-trigger-server"
        program = self.root / "opt/cron-trigger-server"
        text = self.script.read_text()
        shutil.rmtree(program)
        self.script.parent.rename(program)
        link = self.root / "link"
        link.symlink_to(program)
        for folder in (program, link):
            self.script = folder / "install.sh"
            self.assertEqual(self.script.read_text(), text)
            for mode in ("", "--uninstall", "--purge"):
                refusal = self.refused(*mode.split())
                self.assertIn(f"sudo mv {program} {place} && ", refusal)

    def test_another_checkout_is_never_replaced(self) -> None:
        program = self.root / "opt/cron-trigger-server"
        (program / ".git").mkdir()
        for mode in ("", "--uninstall", "--purge"):
            self.assertIn("is a git checkout", self.refused(*mode.split()))

    def test_a_program_folder_that_is_not_roots_is_refused_with_its_owner(self) -> None:
        program = self.root / "opt/cron-trigger-server"
        os.chown(program, 0, 65534)
        self.assertEqual(self.call("--dry-run", *self.free_port()).stderr, "")
        os.chown(program, 65534, 65534)
        refusal = self.refused(*self.free_port())
        self.assertIn(f"{program} belongs to nobody, who could change", refusal)
        self.assertIn(f"sudo mv {program} {program}.old", refusal)
        program.rename(self.root / "elsewhere")
        program.symlink_to(self.root / "elsewhere")
        os.chown(program, 65534, 65534, follow_symlinks=False)
        refusal = self.refused(*self.free_port())
        self.assertIn(f"{program} is a link of nobody to {self.root}/else", refusal)

    def test_what_is_not_installed_is_not_uninstalled(self) -> None:
        self.call("--uninstall")
        self.calls.unlink()
        done = self.call("--uninstall")
        self.assertEqual(
            done.stdout,
            "cron-trigger-server is not installed: there is nothing to remove.\n",
        )
        self.assertFalse(self.calls.exists())

    # ---- asking first

    def stub(self, answer: str = "0") -> None:
        """Have install.sh bring a program that answers `check` so."""
        shutil.rmtree(self.script.parent / "cron_trigger")
        for name, text in STUB.items():
            path = self.script.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{answer}", answer))

    def test_settings_that_the_new_program_refuses_stop_it(self) -> None:
        self.stub("'cron-trigger-server: CRON_TRIGGER_X is wrong: set it to 1.'")
        refusal = self.refused(*self.free_port())
        self.assertIn(
            "nothing was changed: CRON_TRIGGER_X is wrong: set it to", refusal
        )

    def test_a_cron_that_the_new_program_would_not_start_stops_it(self) -> None:
        self.stub("""print('warning: crons.json: "a": its group may write it')""")
        program = self.root / "opt/cron-trigger-server"
        entry = program / "cron_trigger_server.py"
        entry.write_text("print('well')")
        refusal = self.refused(*self.free_port())
        self.assertIn('crons.json: "a": its group may write it', refusal)
        # It did not start before, either.
        entry.write_text("""print('warning: crons.json: "a": others may write it')""")
        self.assertEqual(self.dry_run().stderr, "")

    def dry_run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.call("--dry-run", *options, *self.free_port())

    def test_callers_that_would_be_locked_out_are_named(self) -> None:
        self.stub()
        shutil.rmtree(self.root / "opt/cron-trigger-server/cron_trigger")
        state = self.root / "var/lib/cron-trigger-server"
        state.mkdir(parents=True)
        days_ago = {"127.0.0.1": 1, "172.17.0.5": 1, "root": 1, "::1": 1}
        self.called(state / "history.db", {**days_ago, "10.9.8.7": 30})
        self.assertEqual(self.dry_run().stderr, "")
        self.called(state / "history.db", {"172.31.10.99": 3, "172.31.10.7": 0})
        refusal = self.refused(*self.free_port())
        self.assertIn(": 172.31.10.7, 172.31.10.99; to let them in", refusal)
        self.assertIn("CRON_TRIGGER_ALLOW=172.31.10.0/24,172.17.0.0/16 ", refusal)
        self.assertEqual(self.dry_run("--force").stderr, "")
        self.set("CRON_TRIGGER_ALLOW=172.31.10.0/24")
        self.assertEqual(self.dry_run().stderr, "")

    def called(self, history: Path, days_ago: dict[str, int]) -> None:
        now = datetime.now(timezone.utc)
        with contextlib.closing(sqlite3.connect(history)) as db, db:
            db.execute(
                "create table if not exists cron_executions (client, started_at)"
            )
            for client, days in days_ago.items():
                began = now - timedelta(days=days, hours=1)
                values = client, began.isoformat(timespec="milliseconds")
                db.execute("insert into cron_executions values (?, ?)", values)

    # ---- interruptions

    def test_killed_at_any_command_it_can_be_run_again(self) -> None:
        """Each time the host is whole: the old program or the new one, all of it."""
        need(os.geteuid() == 0, "needs root")
        self.stub()
        options = self.answering()
        count, last = self.root / "count", self.root / "last"
        for name in CHANGING:
            self.wrap(
                name, KILLER.format(count=count, last=last, program=f"/bin/{name}")
            )
        last.write_text("0\n")
        before = self.backup()
        count.write_text("0\n")
        self.call(*options)
        wanted, commands = self.snapshot(), int(count.read_text())
        self.assertGreater(commands, 25)
        programs = [program_of(before), program_of(wanted)]
        self.assertNotEqual(*programs)
        # Every sixth one, beginning at any: some runs of this test try all.
        for number in range(random.randint(1, 6), commands + 1, 6):
            self.restore()
            count.write_text("0\n")
            last.write_text(f"{number}\n")
            others = scratches()
            self.call(*options, status=-signal.SIGKILL)
            for left in scratches() - others:  # a killed one can't take it away
                shutil.rmtree(left)
            self.assertIn(program_of(self.snapshot()), programs, number)
            last.write_text("0\n")
            self.calls.unlink(missing_ok=True)
            self.call(*options)
            self.assertEqual(self.snapshot(), wanted, number)
            self.assertIn("restart cron-trigger-server", self.calls.read_text())

    def answering(self) -> tuple[str, str]:
        """Have a service that answers at the port that the returned options name."""
        server = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
        thread = threading.Thread(target=server.serve_forever, name="service")
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.main_pid.write_text(f"{os.getpid()}\n")
        return "--port", str(server.server_port)

    def wrap(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    HOST = ("etc", "opt", "usr", "var")

    def backup(self) -> dict[str, str]:
        for folder in self.HOST:
            shutil.copytree(
                self.root / folder, self.root / f"{folder}.0", symlinks=True
            )
        return self.snapshot()

    def restore(self) -> None:
        for folder in self.HOST:
            shutil.rmtree(self.root / folder)
            shutil.copytree(
                self.root / f"{folder}.0", self.root / folder, symlinks=True
            )

    def snapshot(self) -> dict[str, str]:
        """All that the host has, but compiled modules: path to a digest of contents."""
        return {
            path: hashlib.sha256((self.root / path).read_bytes()).hexdigest()[:12]
            for path in self.files()
            if path.split("/")[0] in self.HOST and "__pycache__" not in path
            if not (self.root / path).is_symlink()
        }

    def test_a_program_that_an_interruption_left_without_its_place_comes_back(
        self,
    ) -> None:
        """Where a file system can't exchange two folders, there is such a moment."""
        program = self.root / "opt/cron-trigger-server"
        (program / "scripts/own.sh").write_text("the administrator's")
        before = self.snapshot()
        program.rename(program.parent / ".cron-trigger-server.abcdefghij.old")
        (program.parent / ".cron-trigger-server.abcdefghij").mkdir()
        self.call_only("prepare", "forget_stages")
        self.assertEqual(self.snapshot(), before)


class Healthy(http.server.BaseHTTPRequestHandler):
    """A service that is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"healthy")

    def log_message(self, *_: object) -> None:
        """Keep standard error clean."""


def scratches() -> set[Path]:
    """What installers that run, or were killed, have for themselves."""
    return set(Path("/tmp").glob("cron-trigger-install.*"))


def program_of(files: dict[str, str]) -> dict[str, str]:
    place = "opt/cron-trigger-server/"
    return {path: files[path] for path in files if path.startswith(place)}


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
        options = "--port --secret --uninstall --purge --force --dry-run --help DESTDIR"
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

    @slow
    def test_shellcheck_finds_nothing(self) -> None:
        need(shutil.which("shellcheck"), "shellcheck is not installed")
        done = subprocess.run(
            ["shellcheck", str(INSTALL)], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (0, ""))


def no_git(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in (".git", "tests", ".ci")]


if __name__ == "__main__":
    unittest.main()
