"""Whose state a command works with, on a host that has root's service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Sequence

from support import REPOSITORY, need, patched, slow

NOBODY = 65534


class PlaceCase(unittest.TestCase):
    """A host with a service, as `/etc` tells it, and an ordinary user on it."""

    def setUp(self) -> None:
        need(os.geteuid() == 0, "only root can become another user")
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.etc = self.folder / "etc"
        self.etc.mkdir()
        self.registry = self.etc / "crons.json"
        self.registry.write_text('{"ok": {"description": "O", "command": ["true"]}}')
        self.home = self.folder / "home"
        self.home.mkdir()
        os.chown(self.home, NOBODY, NOBODY)
        self.default = self.folder / "default"
        program = self.folder / "program"
        program.mkdir()
        (program / "crons.json").write_text("{}")
        for name in ("cron_trigger", "tests", "cron_trigger_server.py"):
            source = REPOSITORY / name
            if source.is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, program / name, ignore=skip)
            else:
                shutil.copy(source, program / name)
        self.program = program

    def call(
        self, *words: str, user: int = NOBODY, environ: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        statements = (
            f"m.SERVICE_FOLDER = m.Path({str(self.etc)!r})",
            f"m.environment_file.__defaults__ = (m.Path({str(self.default)!r}),)",
        )
        option, code = patched(*statements)
        code = code.replace(str(REPOSITORY), str(self.program))
        variables: dict[str, str] = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            **dict(pair.split("=", 1) for pair in environ),
        }
        return subprocess.run(
            [shutil.which("python3", path="/usr/bin") or sys.executable, option, code]
            + list(words),
            cwd="/",
            env=variables,
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@slow
class GuestTest(PlaceCase):
    def test_run_refuses_and_says_how(self) -> None:
        done = self.call("run", "ok")
        self.assertEqual((done.returncode, done.stdout), (78, ""), done.stderr)
        for words in ("sudo cron-trigger run ok", "root's crontab", "--state-dir"):
            self.assertIn(words, done.stderr)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_who_names_a_registry_or_a_folder_has_crons_of_their_own(self) -> None:
        own = self.home / "crons.json"
        own.write_text('{"mine": {"description": "M", "command": ["true"]}}')
        for flags, environ in (
            ((f"--registry={own}",), ()),
            ((), (f"CRON_TRIGGER_REGISTRY={own}",)),
            ((f"--registry={own}", f"--state-dir={self.home}/s"), ()),
        ):
            done = self.call("run", "mine", *flags, environ=environ)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            done = self.call("list", *flags, environ=environ)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_history_and_list_say_whose_they_show(self) -> None:
        for command in ("list", "history"):
            done = self.call(command)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("this is your own history (", done.stderr)
            self.assertIn(f"sudo cron-trigger {command}", done.stderr)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_check_leaves_the_scripts_to_root(self) -> None:
        self.registry.write_text('{"ok": {"description": "O", "command": "gone.sh"}}')
        done = self.call("check")
        self.assertEqual((done.returncode, done.stdout.count("warning")), (0, 0))
        self.assertIn("sudo cron-trigger check", done.stderr)

    def test_doctor_says_what_it_cannot_see_and_proposes_nothing(self) -> None:
        done = self.call("doctor", "--port=1")
        self.assertIn("note   view        The service is root's: ", done.stdout)
        self.assertIn("-> sudo cron-trigger doctor", done.stdout)
        for words in ("restart", "install.sh --secret", "wrong  port", "history "):
            self.assertNotIn(words, done.stdout)

    def test_the_services_settings_are_not_those_of_another_user(self) -> None:
        self.default.write_text(f"CRON_TRIGGER_STATE_DIR={self.folder}/service\n")
        done = self.call("list")
        self.assertIn(f"({self.home}/.local/state/", done.stderr)

    def test_on_a_host_without_the_service_all_is_ones_own(self) -> None:
        shutil.rmtree(self.etc)
        done = self.call("list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))


@slow
class RootTest(PlaceCase):
    def test_root_has_the_services_settings(self) -> None:
        state = self.folder / "service"
        self.default.write_text(
            f"CRON_TRIGGER_STATE_DIR={state}\nCRON_TRIGGER_RUN_DIR={state}/run\n"
            f"CRON_TRIGGER_LOG_DIR={state}/log\nCRON_TRIGGER_REGISTRY={self.registry}\n"
            "CRON_TRIGGER_ALLOWED_HOST=x\n"
        )
        self.assertEqual(self.call("run", "ok", user=0).returncode, 0)
        self.assertTrue((state / "history.db").exists())
        done = self.call("check", user=0)
        self.assertIn(f"{self.registry}: 1 cron,", done.stdout)
        self.assertIn(
            "warning: CRON_TRIGGER_ALLOWED_HOST is no setting: did you mean "
            "CRON_TRIGGER_ALLOWED_HOSTS?",
            done.stdout,
        )
        done = self.call("doctor", "--port=1", user=0)
        self.assertIn("CRON_TRIGGER_ALLOWED_HOST is no setting", done.stdout)
        self.assertIn("rename it to CRON_TRIGGER_ALLOWED_HOSTS", done.stdout)


if __name__ == "__main__":
    unittest.main()
