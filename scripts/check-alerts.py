#!/usr/bin/env python3
"""Look at disks, memory, load and systemd units; say what reaches its threshold.

Settings, by environment:
  ALERT_DISK_PERCENT    used space of a file system (90)
  ALERT_INODE_PERCENT   used inodes of a file system (90)
  ALERT_MEMORY_PERCENT  memory that is not available (90)
  ALERT_LOAD_PER_CORE   load average over 5 minutes, per core (2)
  ALERT_PROC_DIR        where the kernel tells of memory and load (/proc)

Exit status: 0 all well, 1 an alert, 78 invalid setting or no GNU df.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

#: Only local file systems, since a dead file server would block df; none that is
#: always full, or that nobody can empty.
DF = "df --local --output=pcent,ipcent,target -xsquashfs -xiso9660 -xefivarfs"


def fail(status: int, sentence: str) -> NoReturn:
    print(f"check-alerts : {sentence}", file=sys.stderr)
    sys.exit(status)


def limit(name: str, default: int = 90, maximum: int = 100) -> float:
    text = os.environ.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,4}([.][0-9]+)?", text) or float(text) > maximum:
        fail(78, f"{name} vaut {text!r} : donnez un nombre de 0 à {maximum}.")
    return float(text)


def run(command: str) -> tuple[int, str]:
    """Return a tool's exit status and output, with its errors where it failed."""
    words = command.split()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(words, capture_output=True, timeout=20, check=False)
        printed = done.stdout + (done.stderr if done.returncode else b"")
        return done.returncode, printed.decode(errors="replace").strip()
    return 127, f"{words[0]} manque ou ne répond pas"


def kernel(name: str, pattern: str) -> tuple[str, ...]:
    path = os.path.join(os.environ.get("ALERT_PROC_DIR") or "/proc", name)
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if found := re.search(pattern, file.read(), re.DOTALL):
            return found.groups()
    fail(78, f"{path!r} manque ou n'a pas la forme attendue : vérifiez ALERT_PROC_DIR.")


def checks() -> Iterator[tuple[float, float, str]]:
    """Yield a value, the limit from which on it is an alert, and a text."""
    _, table = run(DF)
    if not (rows := re.findall(r"^ *(\d+)% +(\d*)[%-] (.*)", table, re.MULTILINE)):
        fail(78, f"Il faut df, de GNU coreutils : {table}.")
    for space, inodes, folder in rows:
        yield int(space), limit("ALERT_DISK_PERCENT"), f"Disque {folder} : {space} %"
        text = f"Inodes {folder} : {inodes or 0} %"
        yield int(inodes or 0), limit("ALERT_INODE_PERCENT"), text
    yield from ((1, 1, wrong) for wrong in re.findall("^df: .*", table, re.MULTILINE))
    total, free = kernel("meminfo", r"MemTotal: +([1-9]\d*) .*MemAvailable: +(\d+) ")
    used = 100 - 100 * int(free) / int(total)
    yield used, limit("ALERT_MEMORY_PERCENT"), f"Mémoire : {used:.0f} %"
    load = float(kernel("loadavg", r"^\S+ (\d+[.]\d+) ")[0]) / (os.cpu_count() or 1)
    yield load, limit("ALERT_LOAD_PER_CORE", 2, 1000), f"Charge par cœur : {load:.2f}"
    status, listed = run("systemctl --failed --plain --no-legend")
    names = " ".join(line.split()[0] for line in listed.splitlines())
    if status == 0:
        yield bool(names), 1, f"Unités systemd en échec : {names or 'aucune'}"
    else:  # an alert where systemd runs, see sd_booted(3)
        text = f"Unités systemd : {' '.join(listed.split())}"
        yield os.path.isdir("/run/systemd/system"), 1, text


def main() -> int:
    found = [(value >= least, text) for value, least, text in checks()]
    for alert, text in found:
        print(f"{'ALERTE' if alert else 'OK':6}  {text}")
    return 1 if any(alert for alert, _ in found) else 0


if __name__ == "__main__":
    sys.tracebacklimit = 0  # what nobody foresaw is one line, and exit status 1
    sys.exit(main())
