#!/usr/bin/env python3
"""Delete old rotated logs, even where the disk is so full that it cannot say so.

Deletes only regular files with a name that log rotation gives (NAME.3, NAME.3.gz,
NAME-20260131, NAME-20260131.gz, NAME-20260131.log; also .xz, .bz2, .zst), last written
before the days to keep, and in no folder named journal, audit or installer.

Settings, by environment:
  LOGS_DIR             the folder (/var/log)
  LOGS_KEEP_DAYS       days to keep, 1 to 3650 (90)
  CRON_PARAM_DAYS      the number of days for this run only; wins over the setting
  CRON_PARAM_SIMULATE  true: only say what would be deleted (false)

Exit status: 0 done, 1 not all read or deleted, 78 an invalid setting.
"""

import contextlib
import os
import re
import stat
import sys
import time
from typing import NoReturn

EXCLUDED = ("journal", "audit", "installer")
DATE = "(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(-[0-9]{1,10})?([.]log)?"
ROTATED = re.compile(rf"(?s).*[^.-]([.][0-9]{{1,3}}|-{DATE})([.](gz|xz|bz2|zst))?")


def say(text: str, output: int = 1) -> None:
    """Print a line that cannot drive a terminal. A full disk does not stop the work."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    with contextlib.suppress(OSError):
        os.write(output, f"{line}\n".encode())


def fail(status: int, sentence: str) -> NoReturn:
    say(f"clean-rotated-logs : {sentence}", output=2)
    sys.exit(status)


def clean(top: str, before: float, simulate: bool) -> int:
    """Delete what is older; return 1 where not all could be read or deleted."""
    deleted: list[int] = []
    faults: list[OSError] = []
    # A service may own its log folder, and put a link in its place while root is at
    # work: fwalk opens folders without following links, and names are relative to them.
    for path, folders, names, folder in os.fwalk(top, onerror=faults.append):
        folders[:] = [name for name in folders if name not in EXCLUDED]
        for name in filter(ROTATED.fullmatch, names):
            try:
                file = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(file.st_mode) or file.st_mtime >= before:
                    continue
                if not simulate:
                    os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue  # rotation was quicker
            except OSError as error:
                faults.append(OSError(error.errno, error.strerror, f"{path}/{name}"))
                continue
            say(f"{'À supprimer' if simulate else 'Supprimé'} : {path}/{name}")
            deleted.append(file.st_blocks * 512)
    for fault in faults:
        say(f"Gardé, ou illisible : {fault.filename} ({fault.strerror})")
    word = "à supprimer (simulation)" if simulate else "supprimé(s)"
    say(f"{len(deleted)} fichier(s) {word}, {sum(deleted) / 2**20:.1f} Mio de place.")
    return 1 if faults else 0


def main() -> int:
    given = os.environ.get("LOGS_DIR") or "/var/log"
    top = os.path.realpath(given)
    readable = os.access(f"{top}/", os.R_OK | os.X_OK)
    # A mistyped setting must not let root loose on a whole system: not /, not /etc.
    if given[0] != "/" or top.count("/") < 2 or not readable:
        fail(78, f"LOGS_DIR vaut « {given} » : donnez un dossier lisible de journaux.")
    name = "CRON_PARAM_DAYS" if os.environ.get("CRON_PARAM_DAYS") else "LOGS_KEEP_DAYS"
    days = os.environ.get(name) or "90"
    if not re.fullmatch("[0-9]{1,4}", days) or not 1 <= int(days) <= 3650:
        fail(78, f"{name} vaut « {days} » : donnez un nombre de jours de 1 à 3650.")
    simulate = (os.environ.get("CRON_PARAM_SIMULATE") or "false").lower()
    if simulate not in ("true", "false"):  # whatever else, taken for false, deletes
        fail(78, f"CRON_PARAM_SIMULATE vaut « {simulate} » : donnez true ou false.")
    say(f"Journaux archivés de plus de {days} jours sous {top}")
    return clean(top, time.time() - int(days) * 86_400, simulate == "true")


if __name__ == "__main__":
    sys.tracebacklimit = 0  # what nobody foresaw is one line, and exit status 1
    sys.exit(main())
