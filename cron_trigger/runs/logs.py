"""Logs."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, Optional, Union

from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.records import Run
from cron_trigger.registry.texts import printable
from cron_trigger.registry.times import now_text
from cron_trigger.registry.trust import folder_fault

#: Faults of a disk that must not keep a script from running.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
#: O_NONBLOCK: a named pipe in a log's place must not hang its opening.
APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
LOG_MODE, LOG_FOLDER_MODE = 0o644, 0o755
#: syslog(3), as systemd reads it from the start of a line: sd-daemon(3).
PRIORITIES = {"error": 3, "warning": 4, "notice": 5, "info": 6}


class ServerLog:
    """The server's own log: a file, and standard error.  Any thread may write."""

    def __init__(self, path: Path, to_stderr: bool = True) -> None:
        self._path = path
        self._to_stderr = to_stderr
        self._to_journal = to_stderr and stderr_is_journal()

    def say(self, level: str, text: str) -> None:
        """Write one line; a disk that takes none must not stop anything."""
        line = printable(text, 2000)
        stamped = f"{now_text()} {level:7} {line}\n"
        shown = f"<{PRIORITIES[level]}>{line}\n" if self._to_journal else stamped
        if self._to_stderr:
            with contextlib.suppress(OSError):
                os.write(2, shown.encode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            append(self._path, stamped)


def stderr_is_journal() -> bool:
    """Return True where standard error goes to the journal: systemd.exec(5)."""
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        name = f"{status.st_dev}:{status.st_ino}"
        return os.environ.get("JOURNAL_STREAM") == name
    return False


def open_log(path: Union[str, Path]) -> int:
    """Return a descriptor that appends to a log; raises OSError.

    A new one gets its mode whatever the umask, which is that of whoever started the
    server; one that is there keeps what logrotate, say, has given it.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, APPEND)
    try:
        descriptor = os.open(path, APPEND | os.O_CREAT | os.O_EXCL, LOG_MODE)
    except FileExistsError:  # another has made it just now
        return os.open(path, APPEND)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, LOG_MODE)
    return descriptor


def append(path: Path, text: str) -> None:
    """Append to a log in one write; raises OSError."""
    descriptor = open_log(path)
    try:
        os.write(descriptor, text.encode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def framing_line(text: str) -> str:
    """Return a line that stands before or after a run's output."""
    stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"[{stamp}] {text}\n"


def open_cron_log(path: str, user_id: int) -> int:
    """Return a descriptor that appends to a cron's log, created if need be.

    A disk that is full or read-only gives /dev/null: the run matters more than its
    output.  Raises LaunchError for a place where a log must not be written.
    """
    try:
        unsafe = folder_fault(os.path.dirname(path)) if user_id == 0 else None
        if unsafe:
            raise LaunchError(f"its log folder is not safe, because {unsafe}")
        descriptor = open_log(path)
    except OSError as error:
        if error.errno in DISK_FAULTS:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        raise LaunchError(log_fault(path, error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LaunchError(f"its log {path} is not a regular file: name another logFile")
    os.set_blocking(descriptor, True)
    return descriptor


def log_fault(path: str, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"its log {path} is a link, which is not followed: remove the link"
    if error.errno == errno.ENOENT:
        return f"the folder of its log is missing: mkdir -p {os.path.dirname(path)}"
    return f"its log {path} can't be written: {error.strerror}"


class RunLog:
    """One run's own bytes in its cron's log, which may have been rotated since.

    Found by the file's inode, and believed only if the run's first line stands at its
    place: an inode may be given to another file.
    """

    def __init__(self, run: Run) -> None:
        """Open the file; `descriptor` is None where the output is not kept."""
        self.run = run
        self.descriptor: Optional[int] = None
        self.start = 0
        if run.log_file and run.log_inode is not None and run.log_start is not None:
            self._find(run.log_file, run.log_start)

    def _find(self, path: str, log_start: int) -> None:
        for candidate in self._candidates(path):
            with contextlib.suppress(OSError):
                descriptor = os.open(
                    candidate,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                )
                head = self._head(descriptor, log_start)
                if head is not None:
                    self.descriptor, self.start = descriptor, log_start + head
                    return
                os.close(descriptor)

    def _candidates(self, path: str) -> Iterator[str]:
        """Yield the log, then its rotated names (`x.log.1`, `x.log-20261123`)."""
        yield path
        folder, name = os.path.split(path)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                rotated = entry.name.startswith(name) and entry.name != name
                if rotated and entry.inode() == self.run.log_inode:
                    yield entry.path

    def _head(self, descriptor: int, log_start: int) -> Optional[int]:
        """Return the length of the run's first line if it stands at `log_start`."""
        if os.fstat(descriptor).st_ino != self.run.log_inode:
            return None
        head = os.pread(descriptor, 4096, log_start)
        line, newline, _ = head.partition(b"\n")
        mark = f"] run {self.run.id} started (".encode()
        return len(line) + 1 if newline and mark in line[:60] else None

    def end(self) -> int:
        """Return where the run's output ends so far."""
        assert self.descriptor is not None
        size = os.fstat(self.descriptor).st_size
        return max(
            self.start,
            size if self.run.log_end is None else min(size, self.run.log_end),
        )

    def tail_start(self, end: int, lines: int) -> int:
        """Return where the last `lines` lines before `end` begin."""
        assert self.descriptor is not None
        position, missing = end, lines
        if (
            lines
            and end > self.start
            and os.pread(self.descriptor, 1, end - 1) == b"\n"
        ):
            missing += 1
        while missing > 0 and position > self.start:
            size = min(65536, position - self.start)
            block = os.pread(self.descriptor, size, position - size)
            found = block.count(b"\n")
            if found < missing:
                missing -= found
                position -= size
                continue
            cut = len(block)
            for _ in range(missing):
                cut = block.rindex(b"\n", 0, cut)
            return position - size + cut + 1
        return position if lines else end

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`."""
        assert self.descriptor is not None
        while start < end:
            block = os.pread(self.descriptor, min(65536, end - start), start)
            if not block:
                return
            start += len(block)
            yield block

    def write_line(self, text: str) -> None:
        """Append a framing line to the file that has the output, wherever it is now."""
        if self.descriptor is None:
            return
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{self.descriptor}"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                partial = size and os.pread(self.descriptor, 1, size - 1) != b"\n"
                line = ("\n" if partial else "") + framing_line(text)
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close the file; may be called again."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
