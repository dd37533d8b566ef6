"""Messages that help: what an administrator does by mistake, and the one sentence told.

Each sentence has the rule, the value and the remedy.  What is tried here is one example
of a kind; the tests of each part have the others.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, NamedTuple, Union

from command import CommandCase
from support import PROGRAM, Server, need, need_command, slow

from cron_trigger.registry.errors import EX_CONFIG

HOME = os.path.expanduser("~")
ENTRY = '"description": "A", "command"'


class Told(NamedTuple):
    """A registry with a mistake, the files beside it, and what `check` says."""

    registry: Union[str, dict[str, Any]]
    sentence: str
    files: dict[str, str] = {}


def entry(command: Any, **more: Any) -> dict[str, Any]:
    return {"a": {"description": "A", "command": command, **more}}


MISTAKES = {
    "a comma before the end": Told(
        '{"a": {' + ENTRY + ': ["true"],\n}}',
        "crons.json: this is not JSON: take away the comma before the } (line 1, "
        "column 47)",
    ),
    "a comment": Told(
        '{"a": {\n  // every night\n' + ENTRY + ': ["true"]}}',
        "crons.json: this is not JSON: JSON has no comments; take it away (line 2, "
        "column 3)",
    ),
    "a byte order mark": Told('\ufeff{"a": {' + ENTRY + ': ["true"]}}', ""),
    "the end is missing": Told(
        '{"a": {' + ENTRY + ': ["true"]}',
        "crons.json: this is not JSON: it ends too early (line 1, column 47)",
    ),
    "a word without quotes": Told(
        '{"a": {' + ENTRY + ": /opt/a.sh}}",
        'crons.json: this is not JSON: write a text in double quotes, as "x" (line 1, '
        "column 39)",
    ),
    "a name twice": Told(
        '{"a": {"description": "A"},\n "a": {' + ENTRY + ': ["true"]}}',
        'crons.json: "a": is given twice (lines 1 and 2); keep one of them\n'
        'crons.json: "a" (line 1): command: is required',
    ),
    "a key misspelt": Told(
        entry(["true"], killafter="5s"),
        'crons.json: "a": killafter: expected one of description, command, logFile, '
        "estimatedDuration, timeout, killAfter, user, notify, schedule, late, "
        "workingDirectory, environment, parameters; did you mean killAfter?",
    ),
    "a ~": Told(
        entry(["~/a.sh"]),
        f'crons.json: "a": command: ~ stands for no folder here: write {HOME}/a.sh in '
        'full, got "~/a.sh"',
    ),
    "a program that is not installed": Told(
        entry(["rsink", "-a", "/home", "/backup"]),
        'warning: crons.json: "a": its program "rsink" is not installed: it is neither '
        "on PATH (PATHS) nor in FOLDER; install it, or give its whole path",
    ),
    "a script that is not there": Told(
        entry("a.sh"),
        'warning: crons.json: "a": its script FOLDER/a.sh is missing: put it there or '
        "correct the command in the registry",
    ),
    "an interpreter that is not installed": Told(
        entry("a.sh"),
        'warning: crons.json: "a": its script FOLDER/a.sh asks for the interpreter '
        '"rubby", which is not installed: install it or correct the script\'s first '
        "line",
        {"a.sh": "#!/usr/bin/env rubby\n"},
    ),
    "lines that end as Windows has it": Told(
        entry("a.sh"),
        'warning: crons.json: "a": the first line of its script FOLDER/a.sh ends as '
        "Windows has it (CR LF): sed -i 's/\\r$//' FOLDER/a.sh",
        {"a.sh": "#!/bin/sh\r\ntrue\r\n"},
    ),
    "a folder that is not there": Told(
        entry(["true"], workingDirectory="/nowhere/a"),
        'warning: crons.json: "a": its folder /nowhere/a is missing: create it',
    ),
}


class MistakeTest(CommandCase):
    """Each mistake of the table, as `check` tells it."""

    @slow
    def test_each_is_told_with_rule_value_and_remedy(self) -> None:
        for mistake, told in MISTAKES.items():
            with self.subTest(mistake):
                self.check(told)

    def check(self, told: Told) -> None:
        registry = self.server.registry
        text = told.registry
        registry.write_text(text if isinstance(text, str) else json.dumps(text))
        for name, content in told.files.items():
            self.server.script(name, content)
        shown = self.call("check").stdout.replace(str(registry.parent), "FOLDER")
        shown = re.sub(r"PATH \([^)]*\)", "PATH (PATHS)", shown)
        lines = [li for li in shown.splitlines() if not li.endswith("well formed")]
        self.assertEqual("\n".join(lines), told.sentence)
        for name in told.files:
            (registry.parent / name).unlink()


NOEXEC = """
mount -t tmpfs -o noexec,mode=755 tmpfs "$1"
printf '#!/bin/sh\\n' >"$1/backup"
chmod +x "$1/backup"
shift
exec "$@"
"""


class MountTest(CommandCase):
    registry = entry("mount/backup")

    @slow
    def test_a_script_on_a_file_system_that_runs_none(self) -> None:
        need(os.geteuid() == 0, "mounting needs root")
        unshare = need_command("unshare")
        place = self.server.folder / "mount"
        place.mkdir()
        words = [sys.executable, str(PROGRAM), "check", *self.server.folder_flags()]
        done = subprocess.run(
            [unshare, "--mount", "sh", "-ec", NOEXEC, "sh", str(place), *words],
            env=self.server.clean_environ(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertIn(
            f'warning: crons.json: "a": its script {place}/backup is executable, but '
            "lies on a file system that is mounted noexec or without permission for "
            "this user: move it, or name its interpreter in the command, such as "
            f'["sh", "{place}/backup"]\n',
            done.stdout,
            done.stderr,
        )


class SettingTest(unittest.TestCase):
    """A server's start, and what its first lines say."""

    def start(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with Server(start=False) as made:
            return subprocess.run(
                [*words, sys.executable, str(PROGRAM), *made.folder_flags()],
                env={**made.clean_environ(), **environ},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

    def test_a_port_that_only_root_may_have(self) -> None:
        need(os.geteuid() == 0, "needs root, to take the right away")
        first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        need(int(first) > 81, "every port is everybody's here")
        setpriv = need_command("setpriv")
        done = self.start(
            setpriv,
            "--bounding-set=-net_bind_service",
            CRON_TRIGGER_PORT="81",
            CRON_TRIGGER_HOST="127.0.0.1",
        )
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertEqual(
            done.stderr,
            "cron-trigger-server: Only root may listen on a port as low as 81: use "
            "sudo, or choose a --port from 1024 on.\n",
        )

    def test_a_proc_that_does_not_tell_of_its_processes(self) -> None:
        need(os.geteuid() == 0, "mounting needs root")
        unshare = need_command("unshare")
        subset = 'mount -t proc -o subset=pid proc /proc || exit 42\nexec "$@"'
        lacks = "lacks /proc/sys/kernel/random/boot_id (No such file or directory)"
        for words, fault in (
            (["--mount", "sh", "-c", subset, "sh"], lacks),
            (["--pid", "--fork"], "is another PID namespace's"),
        ):
            done = self.start(unshare, *words)
            need(done.returncode in (0, EX_CONFIG), "a container, or Linux before 5.8")
            self.assertEqual(
                done.stderr,
                "cron-trigger-server: The server needs the whole of its own /proc, but "
                f"this one {fault}: remove ProcSubset=pid from its unit, or mount it "
                "anew: mount -t proc proc /proc.\n",
            )

    def test_a_dev_without_null(self) -> None:
        need(os.geteuid() == 0, "mounting needs root")
        mount = 'mount -t tmpfs none /dev || exit 42\nexec "$@"'
        unshare = need_command("unshare")
        done = self.start(unshare, "--mount", "sh", "-c", mount, "sh")
        need(done.returncode != 42, "a container, which may not mount")
        self.assertEqual(
            (done.returncode, done.stderr),
            (
                1,
                "cron-trigger-server: [Errno 2] No such file or directory: "
                "'/dev/null'\n",
            ),
        )

    @slow
    def test_a_setting_that_is_misspelt(self) -> None:
        sentence = "CRON_TRIGGER_ALLOWED_HOST is no setting: did you mean "
        sentence += "CRON_TRIGGER_ALLOWED_HOSTS?"
        with Server({}, {"CRON_TRIGGER_ALLOWED_HOST": "x"}) as made:
            self.assertRegex(
                made.stderr(), rf" warning +{sentence}".replace("?", r"\?")
            )
            done = made.command("check")
            self.assertIn(f"warning: {sentence}\n", done.stdout)


def sentences() -> list[str]:
    return [told.sentence for told in MISTAKES.values()]


class StyleTest(unittest.TestCase):
    """A sentence is read once."""

    def test_none_of_them_is_a_machines(self) -> None:
        for sentence in sentences():
            self.assertNotRegex(sentence, r"Errno|Traceback|\(char \d|None|Expecting")


if __name__ == "__main__":
    unittest.main()
