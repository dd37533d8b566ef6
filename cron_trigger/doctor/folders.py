"""Checks of folders: those that the server writes, and logs that grow for ever."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shlex
from pathlib import Path
from typing import Iterator

from cron_trigger import SERVICE
from cron_trigger.doctor.findings import Finding, Host, wrong
from cron_trigger.registry.trust import folder_fault

FREE_BYTES = 50 << 20
#: Where logrotate has its rules: logrotate(8).
ROTATION = (Path("/etc/logrotate.conf"), Path("/etc/logrotate.d"))


def folders(host: Host) -> Iterator[Finding]:
    if host.guest:
        return
    yield look_at_folder("logs", host.settings.log_dir)
    yield look_at_folder("history", host.settings.state_dir)
    yield look_at_folder("locks", host.settings.run_dir)


def look_at_folder(name: str, folder: Path) -> Finding:
    """Tell whether the server can write a folder, or make it."""
    there = folder
    try:
        while not _is_there(there):
            there = there.parent
        disk = os.statvfs(there)
    except OSError as error:
        return wrong(
            name,
            f"{there} cannot be used ({error.strerror}).",
            "Fix its permissions, or name another folder.",
        )
    of_logs = name == "logs"
    unsafe = folder_fault(str(folder), of_logs) if os.geteuid() == 0 else None
    if unsafe:
        reason, _, remedy = unsafe.partition(": ")
        return wrong(name, f"{reason}, who could put links there.", remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        # Root may write wherever the disk lets anybody.
        remedy = "Use sudo"
        if os.geteuid() == 0:
            remedy = "Mount its disk writable (mount -o remount,rw)"
        remedy += ", or name another folder."
        return wrong(name, f"{there} cannot be written.", remedy)
    free = disk.f_bavail * disk.f_frsize
    if free < min(FREE_BYTES, disk.f_blocks * disk.f_frsize // 20):
        text = f"The disk of {folder} has {free >> 20} MB left."
        return wrong(name, text, "Free some space: history and logs need it.")
    if disk.f_files and not disk.f_favail:
        text = f"The disk of {folder} has no inode left."
        return wrong(name, text, "Remove some files: df -i shows how many there are.")
    return Finding(name, "ok", str(folder))


def _is_there(path: Path) -> bool:
    """Tell whether something has this name; raises OSError where nobody can tell."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path)
        return True
    return False


def rotation(host: Host) -> Iterator[Finding]:
    """Logs outside the log folder, which the installer's rule does not rotate."""
    if host.guest:
        return
    patterns = list(_rotated())
    for cron in host.registry[0].values():
        path = cron.log_path
        own = os.path.isabs(cron.log_file or "") and not path.startswith("/dev/")
        if not own or not os.path.isdir(os.path.dirname(path)):
            continue
        if any(fnmatch.fnmatch(path, pattern) for pattern in patterns):
            continue
        rule = f"{shlex.quote(path)} {{ weekly rotate 8 maxsize 100M missingok }}"
        yield wrong(
            "rotation",
            f"Nobody rotates the log of {cron.name}, {path}: it grows for ever.",
            f"Put into /etc/logrotate.d/{SERVICE}-{cron.name}: {rule}",
        )


def _rotated() -> Iterator[str]:
    """Yield the paths and patterns that logrotate has rules for."""
    files: list[Path] = []
    for place in ROTATION:
        with contextlib.suppress(OSError):
            files += sorted(place.iterdir()) if place.is_dir() else [place]
    for file in files:
        with contextlib.suppress(OSError):
            text = re.sub(r"(?m)^\s*#.*", "", file.read_text("utf-8", "replace"))
            # A rule's head is what stands before its brace.
            for head in re.findall(r"(?:^|\})([^{}]*)\{", text):
                with contextlib.suppress(ValueError):
                    yield from (w for w in shlex.split(head) if w.startswith("/"))
