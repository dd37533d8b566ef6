"""Disks that are not as ext4 is: gone, without numbers that last, written anew."""

from __future__ import annotations

import subprocess
import unittest

from support import Server, need, patched, wait_until
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


if __name__ == "__main__":
    unittest.main()
