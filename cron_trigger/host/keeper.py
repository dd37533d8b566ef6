"""The keeper: a small `sh` between this program and a script, which outlives us.

    descriptor   of the keeper             of the script
    0            NAME.pid, locked          /dev/null
    1            the cron's log            the cron's log
    2            /dev/null                 the cron's log

What the keeper says itself ("Terminated") is no part of the script's output.  The lock
belongs to the open file, not to a process: it is free when the keeper *and* whoever
started it have closed their copies.  So it stays taken from before the script's start
until its end is recorded, whoever of the two is killed meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path
from typing import Mapping, Optional, Sequence

from cron_trigger.host.shortage import SHORT, is_shortage
from cron_trigger.host.users import User

SHELL = "/bin/sh"
#: `trap :` sets a handler that does nothing: the keeper outlives the signal that
#: ends the script, while the script, unlike with `trap ''`, does not inherit it
#: (POSIX, Shell Command Language, 2.11).  All that a script's `kill -USR1 0` or the
#: like may send to its process group, the keeper's too, and that would end that.
TRAPPED = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM VTALRM PROF XCPU XFSZ"
#: `exec` in a subshell: dash applies a command's redirections to itself meanwhile,
#: and would say "Terminated" into the log.
KEEPER = (
    f'trap : {TRAPPED};echo $$>&0;(exec "$@" </dev/null 2>&1);s=$?;echo $s>&0;exit $s'
)


def start(
    cron_name: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    user: Optional[User],
    lock: int,
    log: int,
) -> subprocess.Popen[bytes]:
    """Start a keeper with a copy of the lock; raises OSError or ValueError.

    `user` is given only where it is not the server's own: only then must the process
    change who it is, and can't be made by the faster vfork.
    """
    vector: list[str] = [SHELL, "-c", KEEPER, f"cron {cron_name}", *arguments]
    try:
        return subprocess.Popen(
            vector,
            stdin=lock,
            stdout=log,
            stderr=subprocess.DEVNULL,
            cwd=os.fspath(directory),
            env=environment,
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
        )
    except PermissionError as error:
        if user is None or error.errno != errno.EPERM:
            raise
        # Before 3.12, Python blames the folder.
        why = f"this process may not become user {user.name}"
        raise OSError(
            errno.EPERM, f"{why}: let it have CAP_SETUID and CAP_SETGID"
        ) from None


def copy_of_lock(pidfd: int, path: str) -> Optional[int]:
    """Return a copy of a keeper's descriptor 0, which is the lock; None without.

    For a run that another process started: this one then holds the lock as well, should
    the keeper alone be killed.  pidfd_getfd(2), Linux 5.6; refused where ptrace is.
    What the keeper's own user may have put in its place is not taken.  Raises OSError
    where it can be had, but no descriptor is free.
    """
    try:
        import ctypes  # only here: most servers never find a run again

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = int(libc.syscall(438, pidfd, 0, 0))
        number = ctypes.get_errno()
    except (ImportError, AttributeError, OSError) as error:
        if is_shortage(error):
            raise
        return None
    if descriptor < 0:
        if number in SHORT:
            raise OSError(number, os.strerror(number))
        return None
    try:
        status, folder = os.fstat(descriptor), os.stat(os.path.dirname(path))
        mine = status.st_uid == os.geteuid() and status.st_dev == folder.st_dev
        if stat.S_ISREG(status.st_mode) and mine:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def keeps(pid: int, path: str) -> bool:
    """Tell whether a process has this PID file as its descriptor 0: so it is a keeper.

    Nobody else may open that file (0600, in a folder 0700).
    """
    try:
        held, file = os.stat(f"/proc/{pid}/fd/0"), os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (held.st_dev, held.st_ino) == (file.st_dev, file.st_ino)
