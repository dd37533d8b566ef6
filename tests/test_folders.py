"""The run folder, removed or full: what runs still runs once, and keeps its end."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any

from support import Server, need, need_command, slow, wait_until

#: It goes with its folder: without their PID files nobody would find what it left.
STAY = """#!/bin/sh
echo begun >>begun
until [ -e go ] || [ ! -e "$0" ]; do sleep 0.02; done
exit 5
"""
REGISTRY = {
    "stay": {"description": "Stays", "command": "stay.sh"},
    "brief": {"description": "Brief", "command": ["true"]},
}


class FolderCase(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server(REGISTRY, start=False)
        self.addCleanup(self.server.__exit__)
        self.server.script("stay.sh", STAY)

    def begun(self) -> Any:
        told = self.server.trigger("stay").json
        wait_until((self.server.folder / "begun").exists)
        return told

    def locked(self) -> bool:
        """Tell whether `flock -n` of a crontab's line is kept out."""
        path = self.server.run_dir / "stay.pid"
        command = ["flock", "-n", "-E", "7", str(path), "true"]
        # It says so where the folder is not there just now.
        return subprocess.call(command, stderr=subprocess.DEVNULL) == 7

    def remove(self) -> None:
        """Remove the run folder in one step: no file of the server comes in between."""
        shutil.rmtree(self.server.run_dir.rename(self.server.folder / "gone"))

    def assert_ends_once(self, run_id: int) -> None:
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 5), run)
        self.assertEqual((self.server.folder / "begun").read_text(), "begun\n")
        self.assertEqual(self.server.completed("brief")["exitCode"], 0)


@slow
class Removed(FolderCase):
    def setUp(self) -> None:
        super().setUp()
        need_command("flock")
        self.server.start()

    def test_the_folder_is_made_again_and_locked_at_once(self) -> None:
        told = self.begun()
        self.remove()
        wait_until(self.locked, what="the lock on the new PID file")
        self.assertEqual(self.server.run_dir.stat().st_mode & 0o777, 0o700)
        health = wait_until(
            lambda: (h := self.server.get("/health").json)["status"] == "degraded" and h
        )
        text = "removed while the server ran"
        self.assertIn(text, health["problems"][0])
        wait_until(lambda: text in self.server.log_text())
        refused = self.server.trigger("stay")
        self.assertEqual((refused.status, refused.json["runId"]), (409, told["runId"]))
        self.assertEqual(self.server.command("run", "stay").returncode, 75)
        self.assert_ends_once(told["runId"])
        wait_until(lambda: not self.locked())
        # Who holds a lock is still seen, in the new folder.
        holder = os.open(self.server.run_dir / "brief.pid", os.O_RDWR)
        self.addCleanup(os.close, holder)
        fcntl.flock(holder, fcntl.LOCK_EX)
        brief = self.server.get("/crons/brief").json["cron"]
        self.assertEqual((brief["running"] or {}).get("trigger"), "external")

    def test_its_files_alone_are_made_again_too(self) -> None:
        told = self.begun()
        for path in self.server.run_dir.iterdir():
            path.unlink()
        wait_until(self.locked, what="the lock on the new PID file")
        # A crontab's run tells of itself on the socket, which was removed as well.
        wait_until((self.server.run_dir / "events.sock").exists)
        wait_until((self.server.run_dir / "cron-trigger-server.pid").exists)
        self.assertEqual(self.server.command("run", "brief").returncode, 0)
        second = self.server.command("serve", "--port=0", "--host=127.0.0.1")
        self.assertEqual(second.returncode, 75)
        self.assert_ends_once(told["runId"])

    def test_a_restart_meanwhile_changes_nothing(self) -> None:
        told = self.begun()
        self.remove()
        wait_until(self.locked, what="the lock on the new PID file")
        self.server.kill()
        self.server.start()
        wait_until(lambda: self.server.trigger("stay").status == 409)
        self.assert_ends_once(told["runId"])

    def test_who_holds_the_new_file_for_a_moment_keeps_nobody_out(self) -> None:
        told = self.begun()
        fresh = self.server.run_dir / ".fresh"
        with open(fresh, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            fresh.replace(self.server.run_dir / "stay.pid")
            time.sleep(0.1)
        wait_until(self.locked, what="the lock on the new PID file")
        self.assert_ends_once(told["runId"])

    def test_removed_while_no_server_runs_the_run_is_found_again(self) -> None:
        told = self.begun()
        self.server.kill()
        shutil.rmtree(self.server.run_dir)
        self.server.start()
        self.assertEqual(self.server.trigger("stay").json["runId"], told["runId"])
        wait_until(self.locked, what="the lock on the new PID file")
        self.assert_ends_once(told["runId"])


@slow
class Full(FolderCase):
    def test_a_first_run_on_a_full_disk_keeps_its_status_through_a_kill(self) -> None:
        need(os.geteuid() == 0, "only root can mount")
        self.server.run_dir.mkdir()
        folder = self.server.run_dir
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)]
        need(subprocess.call(mount) == 0, "no tmpfs can be mounted here")
        self.addCleanup(subprocess.call, ["umount", "-l", str(folder)])
        self.server.start()
        filler = self.fill(folder)
        told = self.begun()
        self.server.kill()
        (self.server.folder / "go").touch()
        wait_until(lambda: not os.path.exists(f"/proc/{told['pid']}"))
        self.server.start()
        run = self.server.ended(told["runId"])
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 5), run)
        filler.unlink()

    def fill(self, folder: Path) -> Path:
        path = folder / "filler"
        with open(path, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return path


if __name__ == "__main__":
    unittest.main()
