"""Logs, whatever becomes of their folder: nothing stops, and nothing goes unsaid."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import stat
import subprocess
import unittest
from pathlib import Path
from typing import Iterator

from support import Server, need, need_command, patched, slow, wait_until

REGISTRY = {
    "brief": {"description": "Brief", "command": ["echo", "said"]},
    "stay": {"description": "Stays", "command": "stay.sh"},
    "fails": {"description": "Fails", "command": ["sh", "-c", "echo out; exit 7"]},
    "much": {"description": "Much", "command": ["head", "-c", "40000000", "/dev/zero"]},
}
STAY = "#!/bin/sh\necho one\nuntil [ -e go ]; do sleep 0.02; done\necho two\n"


class LogCase(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server(REGISTRY, start=False)
        self.addCleanup(self.server.__exit__)
        self.server.script("stay.sh", STAY)

    def problems(self) -> list[str]:
        return list(self.server.get("/health").json.get("problems", []))

    def mount(self, options: str) -> Path:
        """Put a file system of its own in the log folder's place."""
        need(os.geteuid() == 0, "only root can mount")
        need_command("mount")
        folder = self.server.log_dir
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False
        )
        need(done.returncode == 0, "no tmpfs can be mounted here")

        def unmount() -> None:
            subprocess.run(["umount", "-l", str(folder)], check=False)

        self.addCleanup(unmount)
        return folder


class Removed(LogCase):
    def test_it_is_made_again_and_a_run_under_way_says_what_it_lost(self) -> None:
        self.server.start()
        run_id = self.server.trigger("stay").json["runId"]
        wait_until(lambda: "one\n" in self.server.log_text("stay"))
        shutil.rmtree(self.server.log_dir)
        run = self.server.completed("brief")
        self.assertEqual((run["status"], run["error"]), ("completed", None))
        self.assertEqual(self.server.get(f"/runs/{run['id']}/log").text, "said\n")
        self.assertEqual(stat.S_IMODE(self.server.log_dir.stat().st_mode), 0o755)
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("completed", 0))
        self.assertIn("its log was removed", run["error"])

    @slow
    def test_one_whose_path_is_not_utf_8_works_like_any_other(self) -> None:
        self.server.log_dir = Path(
            os.fsdecode(bytes(self.server.folder) + b"/\xe9t\xe9")
        )
        self.server.start()
        run = self.server.completed("brief")
        self.assertEqual((run["status"], run["error"]), ("completed", None))
        self.assertEqual(
            run["logFile"], f"file://{self.server.folder}/%E9t%E9/brief.log"
        )
        (cron,) = (c for c in self.server.get("/crons").json["crons"] if c["runs"])
        self.assertEqual(cron["logFile"], run["logFile"])
        self.assertEqual(self.server.get(f"/runs/{run['id']}/log").text, "said\n")
        wait_until(
            lambda: f"run {run['id']} completed" in self.server.log_text("brief")
        )
        done = self.server.command("run", "brief", "--output")
        self.assertEqual((done.returncode, done.stdout), (0, "said\n"), done.stderr)
        shown = self.server.command(
            "log", "2", f"--url=http://127.0.0.1:{self.server.port}"
        )
        self.assertEqual(shown.stdout, "said\n", shown.stderr)

    def test_what_keeps_a_log_from_being_read_is_said_as_it_is(self) -> None:
        self.server.start()
        run_id = self.server.trigger("stay").json["runId"]
        wait_until(lambda: "one\n" in self.server.log_text("stay"))
        log = self.server.log_dir / "stay.log"
        log.rename(self.server.folder / "away.log")
        log.symlink_to(self.server.folder / "away.log")
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        self.assertEqual(run["status"], "completed")
        self.assertIn("cannot be read: Too many levels of symbolic", run["error"])

    def test_a_link_in_its_place_is_not_written_through(self) -> None:
        need(os.geteuid() == 0, "only root is led astray")
        above = self.server.folder / "above"
        above.mkdir()
        above.chmod(0o775)  # as Ubuntu's /var/log is its group's
        self.server.log_dir = above / "log"
        target = self.server.folder / "target"
        target.mkdir()
        self.server.start()
        self.server.completed("brief")
        os.rename(above / "log", above / "moved")
        (above / "log").symlink_to(target)
        os.lchown(above / "log", 65534, 65534)
        self.server.trigger("brief")
        self.assertEqual(os.listdir(target), [])

    def test_a_folder_that_is_ones_own_link_serves_as_well(self) -> None:
        """As where logs were moved to a larger disk."""
        target = self.server.folder / "large"
        target.mkdir(0o755)
        self.server.log_dir.symlink_to("large")
        self.server.start()
        self.assertIsNone(self.server.completed("brief")["error"])
        self.assertIn("said", (target / "brief.log").read_text())

    def test_a_folder_that_is_a_link_in_a_place_of_others_is_refused(self) -> None:
        need(os.geteuid() == 0, "only root is led astray")
        above = self.server.folder / "above"
        above.mkdir()
        self.server.log_dir = above / "log"
        (self.server.folder / "large").mkdir(0o755)
        self.server.log_dir.symlink_to("../large")
        above.chmod(0o775)
        refused = self.server.command("serve", "--port=0", "--host=127.0.0.1")
        self.assertEqual(refused.returncode, 78)
        self.assertIn(f"its group may write {above}", refused.stderr)

    def test_a_stricter_mode_is_kept(self) -> None:
        self.server.log_dir.mkdir()
        self.server.log_dir.chmod(0o750)
        self.server.start()
        self.server.completed("brief")
        self.assertEqual(stat.S_IMODE(self.server.log_dir.stat().st_mode), 0o750)


#: Standard error is a pipe that is full, and that nobody reads.
FULL = patched(
    "import contextlib, os",
    "kept, full = os.pipe()",
    "os.set_blocking(full, False)",
    "with contextlib.suppress(BlockingIOError):",
    "    while os.write(full, b'x'): pass",
    "os.set_blocking(full, True)",
    "os.dup2(full, 2)",
    "sys.stderr = open(2, 'w', closefd=False)",
)


class StandardError(LogCase):
    def test_whoever_does_not_read_it_holds_up_nothing(self) -> None:
        # As a terminal after Ctrl-S, or the log driver of a container.
        self.server.program = [*FULL]
        self.server.start()
        self.addCleanup(self.server.kill)  # one that is held up does not stop
        for _ in range(10):
            self.assertEqual(self.server.get("/nowhere").status, 404)
        self.assertEqual(self.server.completed("brief")["status"], "completed")
        wait_until(lambda: "run 1 of brief completed" in self.server.log_text())


@slow
class Named(LogCase):
    def test_folders_whose_names_are_not_utf_8_serve_as_well(self) -> None:
        def odd(name: str) -> Path:
            return self.server.folder / os.fsdecode(name.encode() + b"-\xff\xe9")

        self.server.log_dir, self.server.state_dir = odd("log"), odd("state")
        self.server.run_dir = odd("run")
        self.server.start()
        run = self.server.completed("brief")
        self.assertEqual((run["status"], run["error"]), ("completed", None))
        shown = f"file://{self.server.folder}/log-%FF%E9/brief.log"
        self.assertEqual(run["logFile"], shown)
        for path in (f"/runs/{run['id']}/log", "/crons", "/runs", "/events"):
            with self.subTest(path), self.stream(path) as text:
                self.assertIn("said" if path.endswith("log") else "log-", text)
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.get(f"/runs/{run['id']}/log").text, "said\n")
        self.assertEqual(self.server.command("run", "brief").returncode, 0)
        for words in (["list"], ["history", "--json"], ["log", "1"]):
            done = self.server.command(*words)
            # `log` is a client of port 9998, where nobody is.
            self.assertIn(done.returncode, (0, 1), done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn("internal error", self.server.log_text())

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[str]:
        """Give what an address sends at once."""
        headers = {"Last-Event-ID": "0"} if path == "/events" else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, 10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        text = ""
        while "log-" not in text and "said" not in text:
            text += answer.read1(4096).decode()
        yield text
        connection.close()


@slow
class Disk(LogCase):
    def test_read_only_it_is_told_by_the_run_and_by_health(self) -> None:
        folder = self.mount("size=8m,mode=755")
        self.server.start()
        # A disk is busy while a line is being written there.
        wait_until(lambda: "listens on" in self.server.log_text())
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        run = self.server.completed("brief")
        self.assertEqual((run["status"], run["exitCode"]), ("completed", 0))
        self.assertIn("output was not kept", run["error"])
        self.assertIn("Read-only file system", run["error"])
        self.assertTrue([p for p in self.problems() if "Read-only" in p])
        doctor = self.server.command("doctor").stdout
        self.assertIn(f"{folder} cannot be written", doctor)
        self.assertIn("remount,rw", doctor)
        self.assertNotIn("Use sudo", doctor)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        wait_until(lambda: not [p for p in self.problems() if "Read-only" in p])
        self.assertIsNone(self.server.completed("brief")["error"])

    def fill(self) -> None:
        """Leave no room for another byte of a log."""
        folder = self.mount("size=64k,mode=755")
        self.server.start()
        for name in ("brief", "fails"):
            (folder / f"{name}.log").write_bytes(b"x" * 4096)
        with contextlib.suppress(OSError), open(folder / "filler", "wb", 0) as filler:
            while filler.write(b"x" * 4096):
                pass

    def test_a_run_whose_first_line_found_it_full_says_that_nothing_was_kept(
        self,
    ) -> None:
        self.fill()
        run = self.server.completed("brief")
        self.assertEqual(run["error"], "Its output was not kept: its log took none.")

    def test_an_output_that_is_not_kept_changes_nothing_of_the_exit_status(
        self,
    ) -> None:
        self.fill()
        url = f"--url=http://127.0.0.1:{self.server.port}"
        done = self.server.command("trigger", "fails", "--follow", url)
        self.assertEqual(done.returncode, 7, done.stderr)

    def test_a_disk_that_is_nearly_full_degrades_health_before_output_is_lost(
        self,
    ) -> None:
        folder = self.mount("size=8m,mode=755")
        (folder / "filler").write_bytes(b"x" * (7900 << 10))
        self.server.start()
        (problem,) = self.problems()
        self.assertIn("KiB left", problem)
        self.assertIsNone(self.server.completed("brief")["error"])
        run = self.server.completed("much")
        self.assertEqual(run["status"], "failed")  # head says so itself
        self.assertIn("may not be whole", run["error"])
        with contextlib.suppress(OSError):
            self.assertLess((self.server.log_dir / "much.log").stat().st_size, 40000000)


if __name__ == "__main__":
    unittest.main()
