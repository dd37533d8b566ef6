"""Trust."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Collection, Iterator, Optional, Tuple


def writable_by_others(path: str, trusted: Collection[int]) -> Optional[str]:
    """Return who else may replace the file `path`, and the remedy; or None.

    Looks at the file, and at every folder and link on the way to it: whoever may
    write one of them may put another file in this place.
    A sticky folder (/tmp) is held to be safe for what trusted users own in it.
    """
    faults = (_place_fault(*place, trusted) for place in places_of(path))
    return next(filter(None, faults), None)


def folder_fault(folder: str) -> Optional[str]:
    """Return who else may put links into a folder of root's, and the remedy; or None.

    A folder above it may be its group's: Ubuntu's /var/log is that of syslog.
    """
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        if status.st_uid != 0 or status.st_mode & 0o022:
            remedy = f"chown root {folder}; chmod go-w {folder}"
            return f"others may write {folder}: {remedy}"
    faults = (_place_fault(*place, {0}, group=False) for place in places_of(folder))
    return next(filter(None, faults), None)


def places_of(path: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Yield all that leads to a file: folders, links and their targets, itself.

    Each link by itself, as the kernel goes: of a chain of links, the one in the middle
    lies neither on the first path nor on the last.  It ends where nothing is there:
    that is somebody else's message.
    """
    left = os.path.join(os.getcwd(), path).split("/")[::-1]
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
    place: str, status: os.stat_result, trusted: Collection[int], group: bool = True
) -> Optional[str]:
    if status.st_uid not in trusted:
        # It may be somebody's home.
        better = " (better: a folder of root's)" if stat.S_ISDIR(status.st_mode) else ""
        return f"{place} belongs to user {status.st_uid}{better}: chown root {place}"
    if stat.S_ISLNK(status.st_mode):
        return None
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not sticky:
        return f"others may write {place}: chmod o-w {place}"
    if group and status.st_mode & stat.S_IWGRP and not sticky:
        return f"its group may write {place}: chmod g-w {place}"
    return None
