#!/usr/bin/env python3
"""Look at disk, memory, load and systemd units, and say what passes its threshold.

Settings, by environment (a threshold is reached from its value on):
  ALERT_DISK_PERCENT    used space of a file system (90)
  ALERT_INODE_PERCENT   used inodes of a file system (90)
  ALERT_MEMORY_PERCENT  memory that is not available (90)
  ALERT_LOAD_PER_CORE   load average over 5 minutes, per core (2)
  ALERT_PROC_DIR        where the kernel's figures are (/proc)

Exit status: 0 all well, 1 at least one alert, 64 wrong call, 78 a setting that does
not hold.
"""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

EX_USAGE, EX_CONFIG = 64, 78

#: Local file systems that fill up. Not: images, always full (squashfs, iso9660), and
#: network ones, on which a dead server would hang this script (nfs, cifs).
FILE_SYSTEMS = (
    *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs"),
    *("ntfs3", "overlay", "reiserfs", "tmpfs", "vfat", "xfs", "zfs"),
)
SYSTEMCTL = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend"]
SYSTEMCTL_TIMEOUT_S = 10


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Check(NamedTuple):
    alert: bool
    text: str


def threshold(name: str, default: float, maximum: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= maximum:
        raise Fault(
            f"{name} vaut « {shown(text)} » : donnez un nombre de 0 à {maximum:g}.",
            EX_CONFIG,
        )
    return value


def proc_file(name: str) -> str:
    folder = Path(os.environ.get("ALERT_PROC_DIR") or "/proc")
    try:
        return (folder / name).read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise Fault(
            f"{shown(str(folder / name))} n'est pas lisible ({error.strerror}) : "
            "vérifiez ALERT_PROC_DIR.",
            EX_CONFIG,
        ) from None


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def disk_checks(space_limit: float, inode_limit: float) -> list[Check]:
    checks = []
    for folder in mounted_folders():
        try:
            figures = os.statvfs(folder)
        except OSError:
            continue  # unmounted meanwhile, or not ours to see
        used = figures.f_blocks - figures.f_bfree
        label = f"Disque {shown(folder)} :"
        # As df counts: what is reserved for root is not available.
        if used + figures.f_bavail > 0:
            percent = 100 * used / (used + figures.f_bavail)
            free_gib = figures.f_bavail * figures.f_frsize / 2**30
            text = f"{label} {percent:.0f} % occupés, {free_gib:.1f} Gio libres"
            checks.append(Check(percent >= space_limit, text))
        if figures.f_files > 0:
            percent = 100 * (figures.f_files - figures.f_ffree) / figures.f_files
            text = f"{label} {percent:.0f} % des inodes occupés"
            checks.append(Check(percent >= inode_limit, text))
    return checks


def mounted_folders() -> list[str]:
    """Return one folder per local file system, the shortest where it has several."""
    folders = []
    for line in proc_file("self/mounts").splitlines():
        # device, folder, type, options, ...
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        # What is mounted read-only can't fill up.
        if fields[2] in FILE_SYSTEMS and "ro" not in fields[3].split(","):
            # proc(5): space, tab, newline and backslash stand as octal numbers
            folder = re.sub(
                r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1]
            )
            folders.append(folder)
    by_device: dict[int, str] = {}
    for folder in sorted(folders, key=len):
        try:
            by_device.setdefault(os.stat(folder).st_dev, folder)
        except OSError:
            continue
    return sorted(by_device.values())


def memory_check(limit: float) -> Check:
    figures = dict(
        re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", proc_file("meminfo"), re.M)
    )
    if len(figures) < 2 or not int(figures["MemTotal"]):
        raise Fault(
            "meminfo ne donne ni MemTotal ni MemAvailable : vérifiez ALERT_PROC_DIR.",
            EX_CONFIG,
        )
    total_kib, available_kib = int(figures["MemTotal"]), int(figures["MemAvailable"])
    percent = 100 * (total_kib - available_kib) / total_kib
    text = f"Mémoire : {percent:.0f} % occupés, {available_kib / 2**20:.1f} Gio libres"
    return Check(percent >= limit, text)


def load_check(limit: float) -> Check:
    try:
        load = float(proc_file("loadavg").split()[1])
    except (IndexError, ValueError):
        raise Fault(
            "loadavg n'a pas la forme attendue : vérifiez ALERT_PROC_DIR.", EX_CONFIG
        ) from None
    cores = os.cpu_count() or 1
    text = f"Charge (5 min) : {load / cores:.2f} par cœur, {cores} cœur(s)"
    return Check(load / cores >= limit, text)


def unit_check() -> Check:
    try:
        answer = subprocess.run(
            SYSTEMCTL,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SYSTEMCTL_TIMEOUT_S,
            text=True,
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        text = "Unités systemd : non vérifiées, systemctl ne répond pas ici"
        return Check(False, text)
    units = [line.split()[0] for line in answer.stdout.splitlines() if line.strip()]
    if not units:
        return Check(False, "Unités systemd : aucune en échec")
    names = shown(", ".join(units))
    text = f"Unités systemd : {len(units)} en échec ({names}) ; voir systemctl status"
    return Check(True, text)


def main(argv: list[str]) -> int:
    if argv:
        raise Fault("Ce script ne prend pas d'argument.", EX_USAGE)
    checks = disk_checks(
        threshold("ALERT_DISK_PERCENT", 90, 100),
        threshold("ALERT_INODE_PERCENT", 90, 100),
    )
    checks.append(memory_check(threshold("ALERT_MEMORY_PERCENT", 90, 100)))
    checks.append(load_check(threshold("ALERT_LOAD_PER_CORE", 2, 1000)))
    checks.append(unit_check())
    for check in checks:
        print(f"{'ALERTE' if check.alert else 'OK':6}  {check.text}")
    alerts = sum(check.alert for check in checks)
    if alerts:
        print(f"{alerts} alerte(s) sur {len(checks)} contrôles.")
        return 1
    print(f"Tout va bien : {len(checks)} contrôles, aucune alerte.")
    return 0


class Output(io.FileIO):
    """A stream that drops what it can't write: on a full disk, or once the reader of a
    pipe has left, the work goes on and the exit status tells how it ended."""

    def write(self, data: Any) -> int:
        try:
            # None: its pipe is full, and whoever made it wanted no waiting
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def output(number: int) -> io.TextIOWrapper:
    """Return the standard stream of this number, for any text, in UTF-8."""
    file = io.BufferedWriter(Output(number, "wb", closefd=False))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def open_outputs() -> None:
    # Closed ones first lead nowhere, or the next file opened would take their place.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    sys.stdout, sys.stderr = output(1), output(2)


def cli() -> int:
    open_outputs()
    try:
        return main(sys.argv[1:])
    except Fault as fault:
        print(f"check-alerts : {fault}", file=sys.stderr)
        return fault.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(cli())
