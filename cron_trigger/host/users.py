"""Users, and what a script finds around itself.

A script finds the same surroundings whichever side starts it: the button, a plan, a
crontab's `run`, a terminal, sudo.  So they are made here from the user database and the
service's settings, and nothing of the caller's is passed on.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
from typing import Any, Mapping, NamedTuple

#: systemd's default path: systemd.exec(5).
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_LANG = "C.UTF-8"
#: What no script ever sees, wherever it comes from: settings, the secret above all,
#: and what systemd gives to a service alone.
PRIVATE_VARIABLES = re.compile(
    r"CRON_TRIGGER(_.*)?|CRON_NAME|CRON_RUN_ID|CRON_PARAM_.*|NOTIFY_SOCKET|WATCHDOG_.*"
    r"|LISTEN_.*|CREDENTIALS_DIRECTORY|FDSTORE|INVOCATION_ID|JOURNAL_STREAM"
    r"|(RUNTIME|STATE|CACHE|LOGS|CONFIGURATION)_DIRECTORY|SYSTEMD_EXEC_PID|MAINPID"
    r"|MEMORY_PRESSURE_.*"
)
#: What an ordinary user's server passes on of its own.
OWN_VARIABLES = ("PATH", "LANG", "TZ")


class User(NamedTuple):
    """A user of this host, with what the user database says."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(os.getgrouplist(self.name, self.gid))


def _user_of(entry: pwd.struct_passwd) -> User:
    shell = entry.pw_shell or "/bin/sh"
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, shell)


def user_named(name: str) -> User:
    """Return a user by name; raises KeyError where there is none."""
    os.close(os.open("/", os.O_PATH))  # without a descriptor it would know of nobody
    return _user_of(pwd.getpwnam(name))


def own_user() -> User:
    """Return the user that this process is, whether or not the database knows it."""
    uid = os.geteuid()
    try:
        return _user_of(pwd.getpwuid(uid))
    except KeyError:  # as in some containers
        home = os.environ.get("HOME", "/")
        return User(str(uid), uid, os.getegid(), home, "/bin/sh")


def surroundings(user: User, service: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a user's scripts.

    `service` holds the variables of /etc/default/cron-trigger-server.
    """
    own = OWN_VARIABLES if os.geteuid() != 0 else ()
    return {
        "PATH": DEFAULT_PATH,
        "LANG": DEFAULT_LANG,
        **{name: os.environ[name] for name in own if name in os.environ},
        "HOME": user.home,
        "LOGNAME": user.name,
        "USER": user.name,
        "SHELL": user.shell,
        # Else a Python script's output is seen late, and lost on a cancel.
        "PYTHONUNBUFFERED": "1",
        **{n: v for n, v in service.items() if not PRIVATE_VARIABLES.fullmatch(n)},
    }


def unheard(_number: int, _frame: Any) -> None:
    """Ignore a signal here, but not in a script: that does not inherit a handler."""


def be_plain() -> None:
    """Give this process the umask, groups and signals that its scripts are to have.

    Once, at the start: each script then inherits them at no cost.  Where SIGCHLD is
    ignored, as behind some inits, nobody would ever learn how a keeper ended.
    """
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Of these two Python does it itself at each start.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, unheard)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups(own_user().groups)
