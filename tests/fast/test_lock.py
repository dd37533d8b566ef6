"""Never twice: whoever asks, and however, a cron that runs is not started again."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from cron_trigger.host.lock import PidFile, read_pid_file, take_lock


class Lock(unittest.TestCase):
    """`take_lock` and `read_pid_file`, by themselves."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "a.pid"

    def test_the_lock_excludes_within_one_process_too(self) -> None:
        lock = take_lock(self.path)
        assert lock is not None
        self.assertIsNone(take_lock(self.path))
        os.close(lock)
        again = take_lock(self.path)
        assert again is not None
        os.close(again)

    def test_what_a_keeper_has_not_finished_writing_is_not_read(self) -> None:
        for text, pid, exit_code in (
            ("", None, None),
            ("12", None, None),
            ("123\n", 123, None),
            ("123\n1", 123, None),
            ("123\n14\n", 123, 14),
        ):
            self.path.write_text(text)
            written = read_pid_file(self.path)
            self.assertEqual((written.pid, written.exit_code), (pid, exit_code), text)

    def test_no_file_says_nothing(self) -> None:
        self.assertEqual(read_pid_file(self.path), PidFile())


if __name__ == "__main__":
    unittest.main()
