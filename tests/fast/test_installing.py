"""What install.sh asks of a host that a shell cannot tell."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import need

from cron_trigger.commands import installing
from cron_trigger.commands.installing import main


class AskedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.one, self.other = self.folder / "one", self.folder / "other"
        for place in (self.one, self.other):
            (place / "inner").mkdir(parents=True)
            (place / "inner/file").write_text("text")

    def ask(self, question: str, *arguments: object) -> list[str]:
        return list(getattr(installing, question)(*map(str, arguments)))

    def test_a_port_is_used_by_whom_it_is(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            (fault,) = self.ask("port_fault", port)
            self.assertIn(f"Port {port} is used by ", fault)
            self.assertIn(f"(process {os.getpid()}): stop that, or", fault)
            self.assertEqual(self.ask("port_fault", port, os.getpid()), [])
            # As a child of the server has everything, between its birth and its exec.
            with subprocess.Popen(
                ["cat"], stdin=subprocess.PIPE, pass_fds=[taken.fileno()]
            ):
                self.assertEqual(self.ask("port_fault", port, os.getpid(), 1), [])
                self.assertNotEqual(self.ask("port_fault", port, "0", 1), [])
        self.assertEqual(self.ask("port_fault", port), [])

    def test_whoever_uses_a_port_can_not_write_to_the_terminal_by_its_name(
        self,
    ) -> None:
        own = Path("/proc/self/comm")
        before = own.read_bytes().strip()
        self.addCleanup(own.write_bytes, before)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            own.write_bytes(b"\x1b[2Jx\xff")
            (fault,) = self.ask("port_fault", taken.getsockname()[1])
        self.assertTrue(fault.isprintable(), ascii(fault))

    def test_two_programs_differ_in_contents_names_modes_and_links(self) -> None:
        def differ() -> bool:
            return self.ask("other_program", self.one, self.other) == ["other"]

        self.assertFalse(differ())
        file = self.other / "inner/file"
        file.write_text("test")
        self.assertTrue(differ())
        file.write_text("text")
        self.assertFalse(differ())
        file.chmod(0o755)
        self.assertTrue(differ())
        file.chmod(0o644)
        (self.other / "__pycache__").mkdir()
        self.assertFalse(differ())
        (self.other / "more").symlink_to("inner")
        self.assertTrue(differ())
        (self.one / "more").symlink_to("other")
        self.assertTrue(differ())
        self.assertEqual(
            self.ask("other_program", self.one, self.folder / "no"), ["other"]
        )

    def test_two_folders_change_places(self) -> None:
        (self.one / "mine").touch()
        self.ask("exchange", self.one, self.other)
        self.assertTrue((self.other / "mine").exists())
        self.assertFalse((self.one / "mine").exists())

    def test_a_process_is_older_than_a_file_that_came_later(self) -> None:
        self.assertEqual(self.ask("older", os.getpid(), self.one), ["older"])
        self.assertEqual(self.ask("older", os.getpid(), "/bin/sh"), [])

    def test_a_folder_is_safe_where_root_alone_may_write(self) -> None:
        need(os.geteuid() == 0, "the folders have to be root's")
        self.assertEqual(self.ask("folder_fault", "go", self.one), [])
        self.one.chmod(0o775)
        (fault,) = self.ask("folder_fault", "go", self.one)
        self.assertIn(f"sudo chmod go-w {self.one}.", fault)
        self.assertEqual(self.ask("folder_fault", "o", self.one), [])
        os.chown(self.one, 65534, -1)
        (fault,) = self.ask("folder_fault", "o", self.one / "inner")
        self.assertIn(f"{self.one} belongs to nobody, who could put links", fault)

    def test_logs_are_those_of_the_crons_in_the_folder(self) -> None:
        registry = self.folder / "crons.json"
        registry.write_text('{"a": {"logFile": "b.log"}, "c": {}, "d": []}')
        for name in ("b.log", "b.log.1", "b.log.2.gz", "c.log", "e.log", "c.log.old"):
            (self.one / name).touch()
        found = self.ask("logs", self.one, registry)
        names = sorted(os.path.basename(path) for path in found)
        self.assertEqual(names, ["b.log", "b.log.1", "b.log.2.gz", "c.log"])

    def test_what_cannot_be_told_is_a_status(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as told:
            self.assertEqual(main("exchange", "/nowhere/a", "/nowhere/b"), 1)
        self.assertIn("/nowhere/a", told.getvalue())


if __name__ == "__main__":
    unittest.main()
