"""Disks that are not as ext4 is: gone, without numbers that last, written anew."""

from __future__ import annotations

import contextlib
import os
import subprocess
import unittest
from pathlib import Path

from support import Server, need, need_command, patched, slow, wait_until
from test_logs import LogCase

REGISTRY = {"brief": {"description": "Brief", "command": ["sh", "-c", "exit 3"]}}
#: A disk whose FUSE or NFS server is gone answers each question so.
GONE = """
import errno
def stat(path, whole=os.stat, **how):
    if "/state" in str(path) and os.access({at!r}, os.F_OK):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
    return whole(path, **how)
os.stat = stat
"""


class Gone(unittest.TestCase):
    def test_the_historys_stops_no_run_and_no_start(self) -> None:
        with Server(REGISTRY, start=False) as server:
            at = server.folder / "gone"
            server.program = list(patched("import os", GONE.format(at=str(at))))
            server.start()
            before = server.completed("brief")
            at.touch()
            ids = [server.completed("brief")["id"]]
            server.kill()
            server.start()
            ids.append(server.completed("brief")["id"])
            (problem,) = server.get("/health").json["problems"]
            self.assertIn("not connected", problem)
            at.unlink()
            for run_id in ids:
                self.assertEqual(server.ended(run_id)["exitCode"], 3)
            self.assertGreater(ids[0], before["id"])


class Counts(LogCase):
    """What `df` says of some disks is no number, or not the one that counts."""

    def doctor_on_logs(self) -> str:
        lines = self.server.command("doctor").stdout.splitlines()
        return next(line for line in lines if " logs " in line)

    def test_a_disk_without_inodes_is_told_for_as_long_as_it_lasts(self) -> None:
        folder = self.mount("size=80m,mode=755,nr_inodes=4")
        self.server.start()
        wait_until(lambda: "listens on" in self.server.log_text())
        for number in range(2):
            (folder / str(number)).touch()
        self.assertIn("No space", self.server.completed("brief")["error"])
        self.assertIn("The output of runs is lost", str(self.problems()))
        self.assertIn("no inode left", self.doctor_on_logs())
        (folder / "0").unlink()
        self.assertNotIn("The output of runs is lost", str(self.problems()))
        self.assertIsNone(self.server.completed("brief")["error"])

    def test_a_disk_that_counts_nothing_is_not_full(self) -> None:
        folder = self.mount("size=8m,mode=755")
        done = subprocess.call(["mount", "-t", "ramfs", "ramfs", str(folder)])
        need(done == 0, "no ramfs can be mounted here")
        self.addCleanup(subprocess.call, ["umount", "-l", str(folder)])
        self.server.start()
        self.assertIsNone(self.server.completed("brief")["error"])
        self.assertEqual(self.problems(), [])
        self.assertTrue(self.doctor_on_logs().startswith("ok"))


@slow
class WrittenAnew(unittest.TestCase):
    def test_a_full_btrfs_ends_neither_server_nor_command(self) -> None:
        need(os.geteuid() == 0, "only root can mount")
        with Server(REGISTRY, start=False) as server:
            folder = server.state_dir = server.folder / "state"
            folder.mkdir(0o700)
            self.mount(server.folder / "image", folder)
            server.start()
            server.completed("brief")
            fill(folder)
            for _ in range(3):
                # What is written by now is copied at the next change.
                os.sync()
                self.assertEqual(server.completed("brief")["exitCode"], 3)
            self.assertIn("is full", str(server.get("/health").json["problems"]))
            self.assertEqual(server.command("run", "brief").returncode, 3)
            self.assertEqual(server.command("list").returncode, 0)
            self.assertEqual(server.stop(), 0)
            server.start()
            self.assertEqual(server.completed("brief")["id"], 6)
            (folder / "filler").unlink()
            os.sync()
            wait_until(lambda: server.get("/health").json["status"] == "healthy")
            self.assertEqual(len(server.get("/runs").json["runs"]), 6)

    def mount(self, image: Path, folder: Path) -> None:
        make = need_command("mkfs.btrfs")
        with open(image, "wb") as file:
            file.truncate(128 << 20)
        subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
        done = subprocess.call(["mount", "-o", "loop", str(image), str(folder)])
        if done:
            self.skipTest("this kernel mounts no btrfs")
        self.addCleanup(subprocess.call, ["umount", "-l", str(folder)])
        folder.chmod(0o700)


def fill(folder: Path) -> None:
    """Leave no room on a disk, whatever of it is free only after a while."""
    for size in (1 << 16, *[1 << 12] * 4):
        with contextlib.suppress(OSError), open(folder / "filler", "ab", 0) as filler:
            while True:
                filler.write(os.urandom(size))
        os.sync()


if __name__ == "__main__":
    unittest.main()
