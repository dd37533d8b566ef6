#!/usr/bin/env python3
"""Back up databases: SQLite files, and PostgreSQL if asked.

An SQLite database is copied while it is in use (SQLite's backup interface), the copy
is checked, compressed, and only then given its name. Without any setting, the history
of cron-trigger-server and the index of index-kb-progressive are backed up.

Settings, by environment:
  BACKUP_SQLITE        SQLite files, separated by ":" (those two)
  BACKUP_PG_DATABASES  PostgreSQL databases, separated by spaces, given to pg_dump
                       with its own PGHOST, PGUSER, PGPASSFILE... (none)
  BACKUP_PG_RUN_AS     as root, the user that runs pg_dump; "root" to stay root
                       (postgres)
  BACKUP_DIR           where to (/var/backups/cron-trigger-server as root, else
                       $XDG_STATE_HOME/cron-trigger-server/backup); made if missing,
                       with mode 0700; no one else may write to it
  BACKUP_KEEP          backups to keep of each database, 1 to 1000 (7)

Deletes only in BACKUP_DIR, only files named DATABASE.YYYYMMDDTHHMMSSZ.gz (or .pgdump)
of a database that this run has just backed up, beyond BACKUP_KEEP, and its own
unfinished work in BACKUP_DIR/.unfinished.

Exit status: 0 done, 1 a database could not be backed up or none was found, 64 wrong
call, 78 a setting that does not hold.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

EX_USAGE, EX_CONFIG = 64, 78

DEFAULT_KEEP, MAX_KEEP = 7, 1000
SQLITE_MAGIC = b"SQLite format 3\0"
UNFINISHED = ".unfinished"
STAMP = "[0-9]{8}T[0-9]{6}Z"
#: Never a connection string ("host=..."), never an option of pg_dump.
PG_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
PG_DUMP_TIMEOUT_S = 3600
#: What is no fault of the setting that names the place.
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Job(NamedTuple):
    label: str
    name: str  # of its backups, without date and ending
    ending: str
    save: Callable[[Path], None]


# --- settings ---------------------------------------------------------------------


def state_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/cron-trigger-server")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(os.path.abspath(state)) / "cron-trigger-server"


def sqlite_files() -> list[Path]:
    text = os.environ.get("BACKUP_SQLITE")
    if text:
        return [Path(os.path.abspath(item)) for item in text.split(":") if item]
    ours = [state_folder() / "history.db", state_folder() / "kb-index.db"]
    return [file for file in ours if file.exists()]


def pg_databases() -> list[str]:
    names = os.environ.get("BACKUP_PG_DATABASES", "").split()
    for name in names:
        if not PG_NAME.fullmatch(name):
            raise Fault(
                f"BACKUP_PG_DATABASES contient « {shown(name)} » : donnez des noms de "
                "bases séparés par des espaces.",
                EX_CONFIG,
            )
    return names


def keep_count() -> int:
    text = os.environ.get("BACKUP_KEEP") or str(DEFAULT_KEEP)
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_KEEP:
        raise Fault(
            f"BACKUP_KEEP vaut « {shown(text)} » : donnez un nombre entier de 1 à "
            f"{MAX_KEEP}.",
            EX_CONFIG,
        )
    return int(text)


def backup_folder() -> Path:
    """Return the folder, made if needed; raises Fault where others could tamper."""
    default = "/var/backups/cron-trigger-server"
    if os.geteuid() != 0:
        default = str(state_folder() / "backup")
    folder = Path(os.path.abspath(os.environ.get("BACKUP_DIR") or default))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        # For root too on a disk mounted read-only.
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise wrong_folder(folder, error) from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Fault(
            f"BACKUP_DIR : d'autres peuvent écrire dans {folder} ; faites chmod 700 et "
            "chown, ou donnez un autre dossier.",
            EX_CONFIG,
        )
    return folder


def wrong_folder(folder: Path, error: OSError) -> Fault:
    return Fault(
        f"BACKUP_DIR vaut « {shown(str(folder))} », où rien ne peut être écrit "
        f"({error.strerror}) : donnez un dossier à vous, ou à créer.",
        1 if error.errno in DISK_TROUBLE else EX_CONFIG,
    )


def lock(folder: Path) -> None:
    """Keep every other run away from the folder until this process ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Fault(
            f"Une autre sauvegarde vers {folder} est en cours : attendez sa fin."
        ) from None


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


# --- one backup -------------------------------------------------------------------


def save_sqlite(source: Path, target: Path) -> None:
    """Write a checked, compressed copy of the database to target."""
    if not stat.S_ISREG(source.stat().st_mode):
        raise Fault("ce n'est pas un fichier ordinaire")
    with open(source, "rb") as file:
        if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
            raise Fault("ce n'est pas une base SQLite")
    copy = target.with_suffix(".copy")
    try:
        copy_sqlite(source, copy)
        with open(copy, "rb") as plain, gzip.open(target, "wb") as zipped:
            shutil.copyfileobj(plain, zipped)
    finally:
        copy.unlink(missing_ok=True)


def copy_sqlite(source: Path, copy: Path) -> None:
    # mode=ro: never creates a missing database, never changes one
    address = f"file:{urllib.parse.quote(os.fsencode(source))}?mode=ro"
    origin = sqlite3.connect(address, uri=True, timeout=30)
    try:
        result = sqlite3.connect(copy)
        try:
            origin.backup(result)
            # Kept as a single file: a copy in WAL mode would need its companions.
            result.execute("pragma journal_mode = delete")
            verdict = result.execute("pragma quick_check").fetchone()[0]
        finally:
            result.close()
    finally:
        origin.close()
    if verdict != "ok":
        raise Fault(f"la base est abîmée ({shown(str(verdict))[:200]})")


def save_postgres(database: str, target: Path) -> None:
    """Write pg_dump's own compressed format to target."""
    command = ["pg_dump", "--format=custom", "--no-password", f"--dbname={database}"]
    user = os.environ.get("BACKUP_PG_RUN_AS") or "postgres"
    if os.geteuid() == 0 and user != "root":
        command = ["runuser", "-u", user, "--", *command]
    try:
        with open(target, "wb") as file:
            # To our open file: the user postgres needs no right on the folder.
            answer = subprocess.run(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                timeout=PG_DUMP_TIMEOUT_S,
                check=False,
            )
    except FileNotFoundError:
        raise Fault(f"{command[0]} n'est pas installé") from None
    except subprocess.TimeoutExpired:
        raise Fault(f"pg_dump n'a pas fini en {PG_DUMP_TIMEOUT_S} s") from None
    if answer.returncode != 0:
        lines = answer.stderr.decode(errors="replace").strip().splitlines()
        reason = shown(lines[-1]) if lines else f"statut {answer.returncode}"
        raise Fault(f"pg_dump a échoué : {reason}")


def back_up(save: Callable[[Path], None], folder: Path, name: str, ending: str) -> Path:
    """Save under a temporary name, and rename once it is whole and on the disk."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    final = folder / f"{name}.{stamp}.{ending}"
    work = folder / UNFINISHED
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(mode=0o700)
    try:
        part = work / "backup.part"
        save(part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def drop_old(folder: Path, name: str, ending: str, keep: int) -> int:
    """Delete the oldest backups of this database; return how many."""
    pattern = re.compile(rf"{re.escape(name)}\.{STAMP}\.{re.escape(ending)}")
    backups = sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))
    for file in backups[:-keep]:
        file.unlink()
    return len(backups[:-keep])


# --- the run ----------------------------------------------------------------------


def jobs() -> list[Job]:
    found = []
    for file in dict.fromkeys(sqlite_files()):
        name = re.sub(r"[^A-Za-z0-9._-]", "-", str(file).strip("/"))
        found.append(Job(str(file), name, "gz", partial(save_sqlite, file)))
    for base in dict.fromkeys(pg_databases()):
        save = partial(save_postgres, base)
        found.append(Job(f"PostgreSQL {base}", f"postgresql-{base}", "pgdump", save))
    names = [(name, ending) for _, name, ending, _ in found]
    if len(set(names)) < len(names):
        raise Fault(
            "BACKUP_SQLITE : deux chemins donnent le même nom de sauvegarde ; "
            "renommez-en un.",
            EX_CONFIG,
        )
    return found


def main(argv: list[str]) -> int:
    if argv:
        raise Fault("Ce script ne prend pas d'argument.", EX_USAGE)
    os.umask(0o077)
    keep, todo = keep_count(), jobs()
    if not todo:
        # The server may keep its history elsewhere: success would be a lie.
        raise Fault(
            f"Rien n'a été sauvegardé : ni historique ni index dans {state_folder()}, "
            "par exemple parce que CRON_TRIGGER_STATE_DIR a changé ; nommez vos bases "
            "dans BACKUP_SQLITE ou BACKUP_PG_DATABASES."
        )
    folder = backup_folder()
    lock(folder)
    print(f"Sauvegarde vers {folder}, {keep} par base")
    failed = 0
    for label, name, ending, save in todo:
        try:
            file = back_up(save, folder, name, ending)
            old = drop_old(folder, name, ending, keep)
        except (Fault, sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"ÉCHEC   {shown(label)} : {reason}")
            failed += 1
            continue
        size_kib = file.stat().st_size / 1024
        print(f"OK      {shown(label)} -> {file.name} ({size_kib:.0f} Kio)")
        if old:
            print(f"        {old} ancienne(s) sauvegarde(s) retirée(s)")
    if failed:
        print(f"{failed} base(s) sur {len(todo)} sans sauvegarde.")
        return 1
    print(f"{len(todo)} base(s) sauvegardée(s).")
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
    # Ended by a signal, it still removes its unfinished copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return main(sys.argv[1:])
    except Fault as fault:
        sentence, status = str(fault), fault.status
    except OSError as error:
        place = f" : {shown(str(error.filename))}" if error.filename else ""
        sentence, status = f"{error.strerror or error}{place}", 1
    except KeyboardInterrupt:
        return 130
    print(f"backup-databases : {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(cli())
