"""The folders, and the one of the PID files above all, whatever happens to it.

The run folder is looked at when the server starts and whenever the kernel tells that a
file in it was removed: it is made again at once, and each run that goes on locks its
PID file anew, so that it still counts as running for everybody who comes.  Whoever
holds a lock on a removed file (`flock` in a crontab) can't be told.

`check` and `reserve` may be called from any thread; `RunFolder._lock` makes one wait
for the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import Iterable, Optional

from cron_trigger.host.lock import reserve, take_lock
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.trust import folder_fault
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.logs import DISK_FAULTS, LOG_FOLDER_MODE

RUN_FOLDER_MODE = 0o700


def make_folders(settings: Settings) -> None:
    """Make the folders, and see that only this user may write them; else ConfigError.

    A state or log folder that can't be made is survived, and told by `/health`; without
    the run folder there is no lock, so nothing may run.
    """
    for path, mode, needed in (
        (settings.run_dir, RUN_FOLDER_MODE, True),
        (settings.state_dir, 0o700, False),
        (settings.log_dir, LOG_FOLDER_MODE, False),
    ):
        try:
            if not path.is_dir():
                path.mkdir(mode=mode, parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # vfat, CIFS: looked at below
                    path.chmod(mode)  # whatever the umask
        except OSError as error:
            if needed or error.errno not in DISK_FAULTS:
                raise ConfigError(
                    f"The folder {path} cannot be made ({error.strerror}); make it, or "
                    "name another (--run-dir, --state-dir, --log-dir)."
                ) from None
            continue
        of_logs = path == settings.log_dir
        unsafe = folder_fault(str(path), of_logs) if os.geteuid() == 0 else None
        if unsafe:
            raise ConfigError(
                f"The folder {path} is refused, where others could put links, because "
                f"{unsafe}."
            )


class RunFolder:
    """The folder of the PID files: there, with room in it, and locked by what runs."""

    #: A folder that was made again is told of for so long, and while runs go on that
    #: began before.
    TOLD_S = 600.0

    def __init__(self, ground: Ground, running: Running) -> None:
        self._path = ground.settings.run_dir
        self._pid_file = ground.settings.pid_file
        self._say = ground.say
        self._running = running
        self._lock = threading.Lock()  # guards all below; `problems` only looks
        self._open: Optional[int] = None
        self._names: list[str] = []
        #: Why a run's status might get lost, in one sentence.
        self._no_room: Optional[str] = None
        self._removed: Optional[str] = None
        self._removed_s = 0.0
        self._touched: list[ActiveRun] = []

    def problems(self) -> list[str]:
        """Return what is wrong, or was a short while ago."""
        # Without the lock, which may be held for as long as a disk takes.
        going_on = any(not active.done.is_set() for active in self._touched)
        recent = time.monotonic() - self._removed_s < self.TOLD_S
        removed = self._removed if going_on or recent else None
        return [text for text in (self._no_room, removed) if text]

    def reserve(self, cron_names: Iterable[str]) -> None:
        """Take room for what the keepers of some crons will write."""
        with self._lock:
            # Kept for `check`, in a folder that was made again.
            self._names = list(cron_names)
            self._reserve()

    def _reserve(self) -> None:
        problem = None
        for name in self._names:
            path = self._pid_file(name)
            try:
                # Skips one that is locked: its keeper may write into it just now.
                reserve(path)
            except OSError as error:
                problem = (
                    f"There is no room for the PID file {path} ({error.strerror}): the "
                    "status of a run could be lost if the server is killed; free some "
                    f"space in {self._path}."
                )
        if problem and problem != self._no_room:
            self._say("error", problem)
        self._no_room = problem

    def check(self) -> bool:
        """See that the folder and the PID files of all runs are there.

        Return True where the folder itself had to be made again.
        """
        with self._lock:
            # The folder first: runs are locked anew in the one that everybody will
            # find.
            made = self._made_again()
            lost = [a for a in self._running.by_cron().values() if self._lock_anew(a)]
            if made or lost:
                self._tell(made, lost)
                self._reserve()
            return made

    def _made_again(self) -> bool:
        """Open and watch the folder, made again if it is not the one that is open."""
        with contextlib.suppress(OSError):
            now = os.stat(self._path)
            # It keeps the removed folder's inode, so that no new one has that.
            if self._open is not None and os.path.samestat(now, os.fstat(self._open)):
                return False
        first = self._open is None
        if self._open is not None:
            # With it goes the kernel's watch on the old folder.
            os.close(self._open)
            self._open = None
        try:
            os.makedirs(self._path, mode=RUN_FOLDER_MODE, exist_ok=True)
            # Whatever the umask: who may open a PID file may hold its lock.
            os.chmod(self._path, RUN_FOLDER_MODE)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._open = os.open(self._path, flags)
            # SIGIO then tells of each file that is removed (fcntl(2), dnotify).
            events = fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT
            fcntl.fcntl(self._open, fcntl.F_NOTIFY, events)
        except OSError as error:
            self._say("error", f"{self._path} cannot be watched: {error.strerror}")
        return not first

    def _lock_anew(self, active: ActiveRun) -> bool:
        """Lock a run's PID file once more where it is another file by now."""
        path = self._pid_file(active.run.cron_name)
        with contextlib.suppress(OSError):
            # Also where another thread has locked the new file for this run already.
            if active.holds(os.stat(path, follow_symlinks=False)):
                return False
        with contextlib.suppress(OSError):
            # Who only looks (`flock -n`) lets go; who runs it as well can't be told.
            for _ in range(50):
                lock = None if active.closed else take_lock(path)
                if lock is not None:
                    active.add_lock(lock)
                    return True
                time.sleep(0.01)
        return False

    def _tell(self, made: bool, lost: list[ActiveRun]) -> None:
        what = f"The folder {self._path} was" if made else "PID files were"
        names = ", ".join(active.run.cron_name for active in lost)
        running = f"; running crons ({names}) were locked again" if lost else ""
        self._removed = (
            f"{what} removed while the server ran, and made again{running}; exclude "
            f"{self._path} from whatever cleans up (systemd-tmpfiles, for example)."
        )
        self._removed_s = time.monotonic()
        self._touched = lost
        self._say("error", self._removed)

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            if self._open is not None:
                os.close(self._open)
                self._open = None
