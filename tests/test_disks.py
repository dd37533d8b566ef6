"""Disks that are not as ext4 is: gone, without numbers that last, written anew."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from support import Server, need, need_command, patched, slow, wait_until
from test_logs import LogCase

from cron_trigger.registry.trust import writable_by_others

REGISTRY = {"brief": {"description": "Brief", "command": ["sh", "-c", "exit 3"]}}
#: A disk whose FUSE or NFS server is gone answers each question so.
GONE = """
import errno
def stat(path, whole=os.stat, **how):
    if {where!r} in str(path) and os.access({at!r}, os.F_OK):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
    return whole(path, **how)
os.stat = stat
"""
#: A folder whose entries have other numbers than the files.
MADE_UP = """
import contextlib, os
class Entry:
    def __init__(self, entry): self.entry = entry
    def __getattr__(self, name): return getattr(self.entry, name)
    def inode(self): return 7
@contextlib.contextmanager
def scandir(path, whole=os.scandir):
    with whole(path) as entries:
        yield map(Entry, entries)
os.scandir = scandir
"""


class Gone(unittest.TestCase):
    def test_the_historys_stops_no_run_and_no_start(self) -> None:
        with Server(REGISTRY, start=False) as server:
            at = server.folder / "gone"
            server.program = list(
                patched("import os", GONE.format(at=str(at), where="/state"))
            )
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

    def test_the_registrys_leaves_the_last_good_one_in_force(self) -> None:
        with Server(REGISTRY, start=False) as server:
            at = server.folder / "gone"
            gone = GONE.format(at=str(at), where="crons.json")
            server.program = list(patched("import os", gone))
            server.start()
            at.touch()
            server.kill()
            server.start()
            self.assertEqual(server.completed("brief")["exitCode"], 3)


class WithoutModes(unittest.TestCase):
    def test_a_folder_whose_mode_cannot_be_set_is_made_all_the_same(self) -> None:
        """vfat and CIFS take no other than the mount's."""
        refuse = """
import os
def chmod(path, mode, whole=os.chmod, **how):
    if str(path).endswith("/state"):
        raise PermissionError(1, "Operation not permitted", path)
    return whole(path, mode, **how)
os.chmod = chmod
"""
        with Server(REGISTRY, program=patched(refuse)) as server:
            self.assertEqual(server.completed("brief")["exitCode"], 3)


class Unwritten(unittest.TestCase):
    def test_a_status_that_the_run_folder_did_not_take_is_the_keepers_own(self) -> None:
        """As on a full btrfs, where also what is there is written anew."""
        program = patched("m.KEEPER = m.KEEPER.replace('echo $s>&0;', '')")
        with Server(REGISTRY, program=program) as server:
            run = server.completed("brief")
            self.assertEqual((run["exitCode"], run["error"]), (3, None))


#: What ext4 does at a fault (errors=remount-ro); access(2) goes on saying yes.
READ_ONLY = """
import errno, os
def open_(path, flags, *words, whole=os.open, **how):
    if str(path).startswith({start!r}) and flags & os.O_APPEND and {when}:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return whole(path, flags, *words, **how)
os.open = open_
"""


class ReadOnly(unittest.TestCase):
    def test_it_degrades_health_for_as_long_as_it_lasts(self) -> None:
        with Server(REGISTRY, start=False) as server:
            well = server.folder / "well"
            when = f"not os.access({str(well)!r}, os.F_OK)"
            refuse = READ_ONLY.format(start="brief.log", when=when)
            server.program = list(patched(refuse))
            server.start()
            self.assertIn("Read-only", server.completed("brief")["error"])
            for _ in range(2):
                (problem,) = server.get("/health").json["problems"]
                self.assertIn("The output of runs is lost", problem)
            well.touch()
            self.assertEqual(server.get("/health").json["status"], "healthy")

    def test_a_log_that_its_disk_takes_no_more_of_is_told_at_the_end(self) -> None:
        refuse = READ_ONLY.format(start="/proc/self/fd/", when="True")
        with Server(REGISTRY, program=patched(refuse)) as server:
            run = server.completed("brief")
            self.assertEqual(run["exitCode"], 3)
            self.assertIn("takes no more (Read-only file system)", run["error"])


class Acl(unittest.TestCase):
    def test_others_whom_an_acl_lets_write_are_none_of_a_private_group(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = Path(folder.name) / "script"
        script.touch()
        script.chmod(0o664)
        with mock.patch("os.geteuid", return_value=1000):
            need(not writable_by_others(str(script), os.getuid()), "no private group")
            script.chmod(0o644)
            # user::rw-, user:65534:rw-, group::r--, mask::rw-, other::r--
            entries = ((1, 6, -1), (2, 6, 65534), (4, 4, -1), (16, 6, -1), (32, 4, -1))
            acl = b"".join(struct.pack("<HHi", *entry) for entry in entries)
            try:
                header = struct.pack("<I", 2)
                os.setxattr(script, "system.posix_acl_access", header + acl)
            except OSError as error:
                self.skipTest(f"no ACL here: {error}")
            fault = writable_by_others(str(script), os.getuid())
        self.assertIn(f"chmod g-w {script}", str(fault))


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


class Copied(LogCase):
    """A log that is another file by now, as on a disk that numbers anew."""

    def log_of(self, run_id: int) -> str:
        return self.server.get(f"/runs/{run_id}/log").text

    def test_a_restored_log_is_found_by_what_stands_there(self) -> None:
        self.server.start()
        ids = [self.server.completed("fails")["id"] for _ in range(2)]
        log = self.server.log_dir / "fails.log"
        whole = log.read_bytes()
        for name in ("fails.log", "fails.log.1"):
            log.rename(self.server.folder / f"kept-{name}")
            log = self.server.log_dir / name
            log.write_bytes(whole)
            self.assertEqual([self.log_of(i) for i in ids], ["out\n", "out\n"])
        log.write_bytes(whole.replace(b"[20", b"[19"))
        self.assertIn("no longer there", self.log_of(ids[0]))

    def test_what_copytruncate_left_of_an_output_is_shown(self) -> None:
        self.server.start()
        run_id = self.server.trigger("stay").json["runId"]
        log = self.server.log_dir / "stay.log"
        wait_until(lambda: "one\n" in self.server.log_text("stay"))
        shutil.copy(log, f"{log}.1")
        os.truncate(log, 0)
        (self.server.folder / "go").touch()
        self.assertIn("copytruncate", self.server.ended(run_id)["error"])
        self.assertEqual(self.log_of(run_id), "one\n")

    def test_numbers_that_only_the_folder_gives_mean_nothing(self) -> None:
        """FUSE without `use_ino`."""
        self.server.program = list(patched(MADE_UP))
        self.server.start()
        run = self.server.completed("fails")
        log = self.server.log_dir / "fails.log"
        log.rename(f"{log}.1")
        self.assertEqual(self.log_of(run["id"]), "out\n")
        with open(self.server.run_dir / "fails.pid") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cron = self.server.get("/crons/fails").json["cron"]
            self.assertEqual((cron["running"] or {}).get("trigger"), "external")


@slow
class WrittenAnew(unittest.TestCase):
    def test_a_full_btrfs_ends_neither_server_nor_command(self) -> None:
        need(os.geteuid() == 0, "only root can mount")
        server = Server(REGISTRY, start=False)
        # Behind the unmounting: its folder could not be removed before.
        self.addCleanup(server.__exit__)
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
