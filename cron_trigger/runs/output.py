"""One run's own bytes in its cron's log, while it runs and after.

Whoever shows or follows a run's output reads it here, and the lines that stand around
it are written here.  A log may be rotated by rename at any time, so a run's part is
found by the file's inode, and believed only if the run's first line stands at its
place: an inode may be given to another file.  A copy (copytruncate, a backup) and a
disk that numbers anew at each mount are found by that line and its time alone.  A
`RunLog` is used by one thread.
"""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timezone
from typing import Iterator, Optional

from cron_trigger.host.shortage import is_shortage
from cron_trigger.registry.records import Run
from cron_trigger.registry.texts import path_of
from cron_trigger.registry.times import epoch_of


def framing_line(text: str) -> str:
    """Return a line that stands before or after a run's output."""
    stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"[{stamp}] {text}\n"


def inode_of(number: int) -> int:
    """Return an inode's number as SQLite takes it, whose integers are signed.

    File systems that make it from a hash (mergerfs) use all of its 64 bits.
    """
    return number if number < 1 << 63 else number - (1 << 64)


class RunLog:
    """One run's part of a log."""

    #: A run's first line is written so soon after its start.
    COPY_S = 60.0

    def __init__(self, run: Run) -> None:
        """Open the file; `descriptor` is None where the output is not kept.

        Raises OSError where only a free descriptor is missing.
        """
        self.run = run
        self.descriptor: Optional[int] = None
        #: Why a file that is there can't be read.
        self._error: Optional[OSError] = None
        self._is_copy = False
        self.start = 0
        if run.log_file and run.log_inode is not None and run.log_start is not None:
            self._find(path_of(run.log_file), run.log_start)

    def _find(self, path: str, log_start: int) -> None:
        # A rotation may come between the name and the opening: the inode decides,
        # below.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        for candidate, may_be_copy in self._candidates(path):
            try:
                # Looked at through the descriptor: what stands under the name may
                # change.
                self.descriptor = descriptor = os.open(candidate, flags)
                head = self._head(descriptor, log_start, may_be_copy)
                if head:
                    self.start = log_start + head
                    return
            except (OSError, ValueError) as error:  # ValueError: no time stands there
                self._note(error)
            self.close()

    def _note(self, error: Exception) -> None:
        """Keep an error that is more than a file which is not there."""
        if is_shortage(error):
            raise error
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            self._error = error

    def _candidates(self, path: str) -> Iterator[tuple[str, bool]]:
        """Yield the log, then its rotated names (`x.log.1`, `x.log-20261123`).

        Last, with True, those that may be copies: the folder says another inode.
        """
        yield path, False
        folder, name = os.path.split(path)
        try:
            with os.scandir(folder) as entries:
                named = [e for e in entries if e.name.startswith(name)]
                found = [e for e in named if e.is_file(follow_symlinks=False)]
        except OSError as error:
            return self._note(error)
        others = [e for e in found if inode_of(e.inode()) != self.run.log_inode]
        yield from ((e.path, False) for e in found if e not in others)
        yield from ((e.path, True) for e in sorted(others, key=lambda e: e.name))

    def _head(self, descriptor: int, log_start: int, may_be_copy: bool) -> int:
        """Return the length of the run's first line if it stands at `log_start`, or 0.

        In a copy it must have the run's time as well.
        """
        is_copy = inode_of(os.fstat(descriptor).st_ino) != self.run.log_inode
        if is_copy and not may_be_copy:
            return 0
        head = os.pread(descriptor, 4096, log_start)
        line, newline, _ = head.partition(b"\n")
        stamp, mark, _ = line[:60].partition(f"] run {self.run.id} started (".encode())
        if not newline or not mark:
            return 0
        if is_copy:
            began_s = epoch_of(stamp[1:].decode("ascii"))
            if abs(began_s - epoch_of(self.run.started_at)) > self.COPY_S:
                return 0
        self._is_copy = is_copy
        return len(line) + 1

    def end(self) -> int:
        """Return where the run's output ends so far."""
        assert self.descriptor is not None
        # What a script has left running may still write there: `log_end` ends our part.
        size = os.fstat(self.descriptor).st_size
        return max(
            self.start,
            size if self.run.log_end is None else min(size, self.run.log_end),
        )

    def tail_start(self, end: int, lines: int) -> int:
        """Return where the last `lines` lines before `end` begin."""
        assert self.descriptor is not None
        # A newline in the last byte ends the last line, and begins none.
        position = max(self.start, end - 1) if lines else end
        while lines and position > self.start:
            size = min(65536, position - self.start)
            position -= size
            block = os.pread(self.descriptor, size, position)
            found = block.count(b"\n")
            if found >= lines:
                return position + len(block.rsplit(b"\n", lines)[0]) + 1
            lines -= found
        return position

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`."""
        assert self.descriptor is not None
        while start < end:
            block = os.pread(self.descriptor, min(65536, end - start), start)
            # Cut short by somebody (copytruncate) since its size was asked.
            if not block:
                return
            start += len(block)
            yield block

    def fault(self) -> Optional[str]:
        """Return why the output of a run that ends now may not be whole, or None."""
        if self.run.log_inode is None:
            short = self.run.log_start is not None  # of its own first line
            return "Its output was not kept: its log took none." if short else None
        if self.descriptor is None:
            if self._error is not None:
                return f"Its output cannot be read: {self._error.strerror}."
            return "Its output is gone: its log was removed or moved while it ran."
        if self._is_copy:
            return "Its output may not be whole: its log was rotated by copytruncate."
        try:
            disk = os.fstatvfs(self.descriptor)
            if disk.f_blocks and not disk.f_bavail:  # ramfs counts none
                return "Its output may not be whole: the disk of its log is full."
            os.close(self._appending())
        except OSError as error:  # read-only since a fault, or gone
            if not is_shortage(error):
                why = f"its log takes no more ({error.strerror})"
                return f"Its output may not be whole: {why}."
        return None

    def _appending(self) -> int:
        """Return a descriptor that appends to the file, whatever its name is by now."""
        path = f"/proc/self/fd/{self.descriptor}"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write_line(self, text: str) -> None:
        """Append a framing line to the file that has the output, wherever it is now.

        Raises OSError where only a free descriptor is missing.
        """
        if self.descriptor is None:
            return
        try:
            # The file, not its name: a rotation takes the last line with the output.
            descriptor = self._appending()
        except OSError as error:
            return self._note(error)
        with contextlib.suppress(OSError), open(descriptor, "wb", 0) as file:
            size = os.fstat(descriptor).st_size
            # What is left of the script may write in between: then a line too many
            # ends.
            partial = size and os.pread(self.descriptor, 1, size - 1) != b"\n"
            line = ("\n" if partial else "") + framing_line(text)
            file.write(line.encode())

    def close(self) -> None:
        """Close the file; may be called again."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
