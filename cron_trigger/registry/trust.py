"""Trust: who else could change what root is about to run, read or write.

Knows every folder, link and file on the way to a path, and what a safe one looks like.
Promises to say who may change it and a remedy that takes nothing from a user or a
group: what is theirs stays theirs, and root uses a copy.  Pure looks at the file
system, called by registry/file.py and runs/; any thread may.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
from typing import Iterable, Iterator, Optional

#: Places that many use: nothing in them is taken from others by a chmod.  The first
#: are meant with all that is below.
SHARED_BELOW = ("/home/", "/srv/", "/mnt/", "/media/", "/export/")
SHARED = ("/home", "/srv", "/mnt", "/media", "/export", "/tmp", "/var/tmp", "/dev/shm")


def writable_by_others(path: str, *trusted: int, what: str = "script") -> Optional[str]:
    """Return who else may replace the file `path`, and the remedy; or None.

    Looks at the file, and at every folder and link on the way to it: whoever may
    write one of them may put another file in this place.
    A sticky folder (/tmp) is held to be safe for what trusted users own in it.
    `trusted` are user ids beside root's; `what` is script, registry, interpreter or
    secret.
    """
    ids = {0, *trusted}
    for place, status in places_of(path):
        # Who may read a secret's file knows it, and gains nothing by writing it.
        group = what != "secret" or not stat.S_ISREG(status.st_mode)
        fault = _place_fault(place, status, ids, group)
        if fault:
            remedy = _chmod(place, status, ids) or _elsewhere(what, path, status.st_uid)
            return f"{fault}: {remedy}"
    return None


def folder_fault(folder: str, of_logs: bool = False) -> Optional[str]:
    """Return who else may put links into a folder of root's, and the remedy; or None.

    Above a folder of logs one may be its group's (Ubuntu's /var/log is that of syslog):
    logs are opened by a descriptor, so that no link is met there.  Not where the folder
    itself is a link: that is followed if nobody else can have put it there.
    """
    other = "name another folder, one that root alone may write"
    is_link = os.path.islink(folder)
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        if status.st_uid == 0 and status.st_mode & 0o022:
            chmod = f"chmod go-w {shlex.quote(folder)}"
            remedy = other if is_shared(folder, status) else chmod
            return f"others may write {folder}: {remedy}"
        if status.st_uid != 0:
            return f"{folder} belongs to {_user(status.st_uid)}: {other}"
    for place, status in places_of(folder):
        fault = _place_fault(place, status, {0}, group=not of_logs or is_link)
        if fault:
            return f"{fault}: {_chmod(place, status, {0}) or other}"
    return None


def places_of(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all that leads to a file: folders, links and their targets, itself.

    Each link by itself, as the kernel goes: of a chain of links, the one in the middle
    lies neither on the first path nor on the last.  It ends where nothing is there:
    that is somebody else's message.
    """
    # Where somebody has removed the current folder, a whole path needs none.
    whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    left = whole.split("/")[::-1]
    folder, links = "", 0  # without the slash at its end
    with contextlib.suppress(OSError):
        yield "/", os.lstat("/")
        while left and links <= 40:  # path_resolution(7)
            name = left.pop()
            if name == "..":
                folder = folder.rpartition("/")[0]
            if name in ("", ".", ".."):
                continue
            place = f"{folder}/{name}"
            status = os.lstat(place)
            yield place, status
            if not stat.S_ISLNK(status.st_mode):
                folder = place
                continue
            target = os.readlink(place)
            left += target.split("/")[::-1]
            folder, links = "" if target.startswith("/") else folder, links + 1


def _place_fault(
    place: str, status: os.stat_result, trusted: Iterable[int], group: bool = True
) -> Optional[str]:
    """Return who may change a place beside those who are trusted, or None."""
    if status.st_uid not in trusted:
        return f"{place} belongs to {_user(status.st_uid)}"
    mode = status.st_mode
    sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    if stat.S_ISLNK(mode) or sticky:
        return None
    if mode & stat.S_IWOTH:
        return f"others may write {place}"
    private = _is_private(status.st_gid, trusted) and not _has_acl(place)
    if group and mode & stat.S_IWGRP and not private:
        return f"its group may write {place}"
    return None


def _has_acl(place: str) -> bool:
    """Tell whether a place's bits of its group say what others may: acl(5)."""
    with contextlib.suppress(OSError):
        return bool(os.getxattr(place, "system.posix_acl_access"))
    return False


def _is_private(group_id: int, trusted: Iterable[int]) -> bool:
    """Tell whether a group is an ordinary user's own and has nobody else in it.

    Many hosts give each user such a group, and new files its permissions (umask 002).
    """
    if os.geteuid() == 0:
        return False
    try:
        group = grp.getgrgid(group_id)
    except KeyError:
        return False
    names = {_name(user_id) for user_id in trusted}
    return group.gr_name in names and names.issuperset(group.gr_mem)


def _chmod(place: str, status: os.stat_result, trusted: Iterable[int]) -> Optional[str]:
    """Return the chmod that makes a place safe; None where it would take it away."""
    if status.st_uid not in trusted or is_shared(place, status):
        return None
    letter = "o" if status.st_mode & stat.S_IWOTH else "g"
    return f"chmod {letter}-w {shlex.quote(place)}"


def is_shared(place: str, status: os.stat_result) -> bool:
    """Tell whether others were given a place of root's on purpose."""
    for_a_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    known = place in SHARED or place.startswith(SHARED_BELOW)
    return status.st_uid == 0 and bool(for_a_group or known)


def _elsewhere(what: str, path: str, owner: int) -> str:
    """Return how to have a safe copy of what lies in somebody else's place."""
    if what == "interpreter":
        return "use one that is installed for the whole host"
    mode = {"script": 755, "registry": 644, "secret": 600}[what]
    folder = "/usr/local/sbin/" if what == "script" else "/etc/cron-trigger-server/"
    copy = f"sudo install -D -m {mode} -t {folder} {shlex.quote(path)}"
    if what != "script":
        return f"keep a copy that is root's ({copy})"
    name = _name(owner)
    setting = f'"user": "{name}"' if owner and name else "another user"
    return f"use a copy that is root's ({copy}), or set {setting} in the entry"


def _user(user_id: int) -> str:
    name = _name(user_id)
    return f"user {user_id} ({name})" if name else f"user {user_id}"


def _name(user_id: int) -> Optional[str]:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return None
