"""The log files: each cron's, and the server's own.

The log folder is checked once and held open: it must belong to root (or to the server's
user) and be no link of others', and files in it are opened through that descriptor:
whoever may write a folder above it (Ubuntu's /var/log is that of syslog) can put
nothing in its place.  Logs may be rotated by rename at any time, so no file is kept
open for longer than a run or a line.  A disk that takes no output keeps no script from
running: the run says so, and `problems` as long as it lasts.  Any thread may call;
`Logs._lock` guards the open folder and the faults.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
from pathlib import Path
from typing import Optional

from cron_trigger.host.shortage import is_shortage
from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.texts import printable
from cron_trigger.registry.times import now_text
from cron_trigger.registry.trust import folder_fault, writable_by_others

#: Faults of a disk or folder that must not keep a script from running; the last ones
#: of a disk that is gone: FUSE, NFS, a broken file system, CIFS.
DISK_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    *(errno.ENOTCONN, errno.ESTALE, errno.EUCLEAN, errno.EHOSTDOWN, errno.ETIMEDOUT),
)
#: What no other disk would mend: a link, a folder, a pipe, somebody else's folder.
WRONG_PLACES = (
    *(errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EPERM, errno.ENAMETOOLONG),
)
#: O_NONBLOCK: a named pipe in a log's place must not hang its opening.
APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOG_MODE, LOG_FOLDER_MODE = 0o644, 0o755
#: Below this, or a twentieth of a small disk, `/health` tells of it, before an output
#: is lost.
FREE_BYTES = 20 << 20
#: syslog(3), as systemd reads it from the start of a line: sd-daemon(3).
PRIORITIES = {"error": 3, "warning": 4, "notice": 5, "info": 6}


def open_folder(path: str) -> int:
    """Return a descriptor of a folder that no other user can write; raises OSError.

    Step by step, and by no link: what was a folder when it was checked must still be
    one when it is opened.  A link that nobody else could have put there is one's own.
    """
    folder = os.open("/", FOLDER)
    try:
        above, last = os.path.split(os.path.abspath(path))
        if os.path.islink(path):
            if writable_by_others(path, os.geteuid()):
                why = "its folder is a link that others may exchange"
                raise NotADirectoryError(errno.ENOTDIR, why, path)
            above, last = os.path.split(os.path.realpath(path))
        for name in (*os.path.realpath(above).split("/"), last):
            if name:
                below = os.open(name, FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
        status = os.fstat(folder)
        if os.geteuid() == 0 and (status.st_uid != 0 or status.st_mode & 0o022):
            raise PermissionError(errno.EPERM, "others may write it", path)
    except BaseException:
        os.close(folder)
        raise
    return folder


def open_log(folder: int, name: str) -> int:
    """Return a descriptor that appends to a log in a folder; raises OSError.

    A new one gets its mode whatever the umask; one that is there keeps what logrotate,
    say, has given it.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, APPEND, dir_fd=folder)
    flags = APPEND | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(name, flags, LOG_MODE, dir_fd=folder)
    except FileExistsError:  # another has made it just now
        return os.open(name, APPEND, dir_fd=folder)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, LOG_MODE)
    return descriptor


class Logs:
    """Opens logs, and knows what is wrong with their folders."""

    #: `/health` waits so long for a log that is being opened.
    PATIENCE_S = 0.5

    def __init__(self, folder: Path) -> None:
        self._path = str(folder)
        self._lock = threading.Lock()  # guards all below
        self._folder: Optional[int] = None
        #: Folder to a log and why it took no output, of those that took none lately.
        self._faults: dict[str, tuple[str, str]] = {}

    def open_for(self, path: str) -> tuple[int, Optional[str]]:
        """Return a descriptor that appends to a cron's log, and why it keeps nothing.

        Where a disk takes no output it is that of /dev/null: the run matters more.
        Raises LaunchError for a place where a log must not be written, and OSError
        where no descriptor is free: the log is well.
        """
        folder, name = os.path.split(path)
        try:
            descriptor = self._opened(folder, name)
        except OSError as error:
            if is_shortage(error):
                raise
            own = folder == self._path and error.errno not in WRONG_PLACES
            if error.errno not in DISK_FAULTS and not own:
                raise LaunchError(log_fault(path, error)) from None
            why = f"{path} cannot be written ({error.strerror})"
            with self._lock:
                self._faults[folder] = path, why
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), why
        with self._lock:
            # Whoever wrote last knows best.
            self._faults.pop(folder, None)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise LaunchError(
                f"its log {path} is not a regular file: name another logFile"
            )
        # The open file is shared with the script, which must not meet EAGAIN.
        os.set_blocking(descriptor, True)
        return descriptor, None

    def append(self, name: str, text: str) -> None:
        """Append to a file of the log folder in one write; raises OSError."""
        with open(self._opened(self._path, name), "wb", 0) as file:
            # One write, with O_APPEND: lines of threads and processes don't mix.
            file.write(text.encode("utf-8", "replace"))

    def _opened(self, folder: str, name: str) -> int:
        if folder == self._path:
            with self._lock:
                # Under the lock: another thread may close this folder for one that was
                # made anew.
                return open_log(self._own_folder(), name)
        unsafe = folder_fault(folder, True) if os.geteuid() == 0 else None
        if unsafe:
            raise LaunchError(f"its log folder is not safe, because {unsafe}")
        descriptor = open_folder(folder)
        try:
            return open_log(descriptor, name)
        finally:
            os.close(descriptor)

    def _own_folder(self) -> int:
        """Return the log folder, made again if somebody has removed it.

        What others have put in its place is not taken: the one that is open stays.
        """
        known = self._folder
        if known is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self._path), os.fstat(known)):
                    return known
        try:
            os.makedirs(self._path, mode=LOG_FOLDER_MODE, exist_ok=True)
            self._folder = open_folder(self._path)
        except OSError:
            if known is None:
                raise
            return known
        if known is not None:
            # Nobody opens by it now: all do so under the lock.
            os.close(known)
        return self._folder

    def problems(self) -> list[str]:
        """Return what is wrong with the folders of logs now, in sentences."""
        # Whoever looks at or opens a log on a disk that hangs has the lock for as long.
        if not self._lock.acquire(timeout=self.PATIENCE_S):
            return [f"The log folder {self._path} does not respond: check its disk."]
        try:
            low = _low(self._path)
            for folder, (path, _) in list(self._faults.items()):
                if _takes(path):
                    del self._faults[folder]
            lost = [
                f"The output of runs is lost, because {why}: {REMEDY}"
                for _, why in self._faults.values()
            ]
            return [low, *lost] if low else lost
        finally:
            self._lock.release()


REMEDY = "free some space, mount it writable, or name another folder."


def _low(folder: str) -> Optional[str]:
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return f"The log folder {folder} cannot be used ({error.strerror}): {REMEDY}"
    if disk.f_files and not disk.f_favail:
        return f"The disk of the logs ({folder}) has no inode left: remove some files."
    free = disk.f_bavail * disk.f_frsize
    if free >= min(FREE_BYTES, disk.f_blocks * disk.f_frsize // 20):
        return None
    return (
        f"The disk of the logs ({folder}) has {free >> 10} KiB left: free some space, "
        "or have logs rotated sooner (maxsize in /etc/logrotate.d), or output is lost."
    )


def _takes(path: str) -> bool:
    """Tell whether a log can be written again, as a run finds out.

    Not by access(2): a disk that is read-only since a fault says yes there.
    """
    folder, name = os.path.split(path)
    try:
        descriptor = open_folder(folder)
        try:
            os.close(open_log(descriptor, name))
            disk = os.fstatvfs(descriptor)
            return disk.f_bavail > 0 or not disk.f_blocks  # ramfs counts none
        finally:
            os.close(descriptor)
    except OSError:
        return False


class ServerLog:
    """The server's own log: a file, and standard error.  Any thread may write."""

    #: How long a line waits for a standard error that is full: once, until it no
    #: longer is.
    FULL_S = 1.0

    def __init__(self, logs: Logs, name: str, to_stderr: bool = True) -> None:
        self._logs = logs
        self._name = name
        self._to_stderr = to_stderr
        self._to_journal = to_stderr and stderr_is_journal()
        self._patience_s = self.FULL_S

    def say(self, level: str, text: str) -> None:
        """Write one line; a disk that takes none must not stop anything."""
        line = printable(text, 2000)
        stamped = f"{now_text()} {level:7} {line}\n"
        shown = f"<{PRIORITIES[level]}>{line}\n" if self._to_journal else stamped
        with contextlib.suppress(OSError):
            self._logs.append(self._name, stamped)
        if self._to_stderr:
            with contextlib.suppress(OSError):
                self._show(shown.encode("utf-8", "replace"))

    def _show(self, line: bytes) -> None:
        # Nothing waits for a reader that stands still: a terminal after Ctrl-S, a log
        # driver of Docker, a journal that is frozen.  The file has the line.
        _, is_ready, _ = select.select([], [2], [], self._patience_s)
        self._patience_s = self.FULL_S if is_ready else 0.0
        if is_ready:
            # Straight to the descriptor: a buffer would have a lock, and mix lines.
            os.write(2, line)


def stderr_is_journal() -> bool:
    """Return True where standard error goes to the journal: systemd.exec(5)."""
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        name = f"{status.st_dev}:{status.st_ino}"
        return os.environ.get("JOURNAL_STREAM") == name
    return False


def log_fault(path: str, error: OSError) -> str:
    """Return why a log is none that a launch may write, with the remedy."""
    if error.errno == errno.ELOOP:
        return f"its log {path} is a link, which is not followed: remove the link"
    if error.errno == errno.ENOENT:
        return f"the folder of its log is missing: mkdir -p {os.path.dirname(path)}"
    return f"its log {path} cannot be written: {error.strerror}"
