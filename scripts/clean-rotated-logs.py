#!/usr/bin/env python3
"""Delete old rotated logs.

Deletes a file below LOGS_DIR only if all of this holds:
  - it is a regular file, and no folder on the way to it is a symbolic link;
  - its name is one that log rotation gives: NAME.3, NAME.3.gz, NAME-20260131,
    NAME-20260131.gz, NAME-20260131.log (also .xz, .bz2, .zst);
  - it was last written more than LOGS_KEEP_DAYS days ago;
  - it is in no folder named journal (journald cleans its own), audit or installer.
On a full disk it deletes all the same, even where it can't say so.

Settings, by environment:
  LOGS_DIR             the folder (/var/log)
  LOGS_KEEP_DAYS       days to keep, 1 to 3650 (90)
  CRON_PARAM_DAYS      the number of days for this run only; wins over the setting
  CRON_PARAM_SIMULATE  true: only say what would be deleted (false)

Exit status: 0 done, 1 a file could not be deleted, 64 wrong call, 78 a setting that
does not hold.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import time
from typing import Any

EX_USAGE, EX_CONFIG = 64, 78

DEFAULT_FOLDER = "/var/log"
DEFAULT_DAYS, MAX_DAYS = 90, 3650
EXCLUDED = frozenset(["journal", "audit", "installer"])
ROTATED = re.compile(
    r"""
    .*[^.-]
    (?: \. [0-9]{1,3}                                                # .3
      | - (?:19|20)[0-9]{2} (?:0[1-9]|1[0-2]) (?:0[1-9]|[12][0-9]|3[01])  # -20260131
        (?: - [0-9]{1,10} )?                                         # -23, -1769817600
        (?: \.log )?
    )
    (?: \. (?:gz|xz|bz2|zst) )?
    """,
    re.VERBOSE | re.DOTALL,
)


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Cleaner:
    def __init__(self, folder: str, before: float, simulate: bool) -> None:
        self.folder = folder
        self.before = before
        self.simulate = simulate
        self.deleted = 0
        self.bytes = 0
        self.kept = 0  # should have been deleted, and could not
        self.unreadable = 0

    def run(self) -> None:
        # A service may own its log folder and swap it for a link while root is at
        # work. fwalk opens each folder without following links, and everything below
        # is named relative to that open folder.
        walk = os.fwalk(self.folder, onerror=self._note, follow_symlinks=False)
        for parent, folders, names, handle in walk:
            folders[:] = sorted(name for name in folders if name not in EXCLUDED)
            for name in sorted(filter(ROTATED.fullmatch, names)):
                self._consider(os.path.join(parent, name), name, handle)

    def _note(self, error: OSError) -> None:
        self.unreadable += 1

    def _consider(self, path: str, name: str, handle: int) -> None:
        try:
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_mtime >= self.before:
                return
            if not self.simulate:
                os.unlink(name, dir_fd=handle)
        except FileNotFoundError:
            return  # rotation was quicker
        except OSError as error:
            print(f"Gardé : {shown(path)} ({error.strerror})")
            self.kept += 1
            return
        word = "À supprimer" if self.simulate else "Supprimé"
        print(f"{word} : {shown(path)} ({size_text(status.st_size)})")
        self.deleted += 1
        self.bytes += status.st_blocks * 512 if status.st_nlink == 1 else 0


def size_text(count: float) -> str:
    for unit in ("octets", "Kio", "Mio"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} Gio"


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def log_folder() -> str:
    text = os.environ.get("LOGS_DIR") or DEFAULT_FOLDER
    folder = os.path.realpath(text)
    if not os.path.isabs(text) or not os.path.isdir(folder):
        raise wrong_folder(text, " : donnez le chemin absolu d'un dossier.")
    # A mistyped setting must not let root loose on a whole system.
    if folder.count("/") < 2:
        advice = "donnez un dossier de journaux, par exemple /var/log."
        raise wrong_folder(text, f", bien trop large : {advice}")
    try:
        os.listdir(folder)
    except OSError as error:
        advice = "relancez en root, ou donnez un autre dossier."
        raise wrong_folder(text, f", illisible ({error.strerror}) : {advice}") from None
    return folder


def wrong_folder(text: str, rest: str) -> Fault:
    return Fault(f"LOGS_DIR vaut « {shown(text)} »{rest}", EX_CONFIG)


def keep_days() -> int:
    name = "CRON_PARAM_DAYS" if os.environ.get("CRON_PARAM_DAYS") else "LOGS_KEEP_DAYS"
    text = os.environ.get(name) or str(DEFAULT_DAYS)
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_DAYS:
        raise Fault(
            f"{name} vaut « {shown(text)} » : donnez un nombre de jours de 1 à "
            f"{MAX_DAYS}.",
            EX_CONFIG,
        )
    return int(text)


def simulated() -> bool:
    text = os.environ.get("CRON_PARAM_SIMULATE") or "false"
    if text.lower() not in ("true", "false"):
        # Anything else, taken for false, would delete.
        raise Fault(
            f"CRON_PARAM_SIMULATE vaut « {shown(text)} » : donnez true ou false.",
            EX_CONFIG,
        )
    return text.lower() == "true"


def main(argv: list[str]) -> int:
    if argv:
        raise Fault("Ce script ne prend pas d'argument.", EX_USAGE)
    folder, days, simulate = log_folder(), keep_days(), simulated()
    print(f"Journaux archivés de plus de {days} jours sous {shown(folder)}")
    cleaner = Cleaner(folder, time.time() - days * 86_400, simulate)
    cleaner.run()
    word = "à supprimer (simulation)" if simulate else "supprimé(s)"
    print(f"{cleaner.deleted} fichier(s) {word}, {size_text(cleaner.bytes)} de place.")
    if cleaner.unreadable:
        print(f"{cleaner.unreadable} dossier(s) illisible(s) : relancez en root.")
    if cleaner.kept:
        print(f"{cleaner.kept} fichier(s) n'ont pu être supprimés : relancez en root.")
        return 1
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
        print(f"clean-rotated-logs : {fault}", file=sys.stderr)
        return fault.status
    except OSError as error:
        # What befalls a folder that fwalk has just opened is raised, not noted.
        print(f"clean-rotated-logs : interrompu ({error})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(cli())
