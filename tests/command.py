"""What the tests of the command line share: calls of `main` in folders of their own."""

from __future__ import annotations

import gc
import io
import json
import os
import pwd
import subprocess
import unittest
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Mapping
from unittest import mock

from support import Server

from cron_trigger.cli import main

REGISTRY: dict[str, Any] = {
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
    registry: Mapping[str, Any] = REGISTRY

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(cls.registry, start=False)
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
                status = main(arguments)
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
