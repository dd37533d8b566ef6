"""Crontabs as Debian's cron reads them: variables, schedules, users, commands.

Knows crontab(5) and where cron looks, and nothing of an entry.  Promises to say which
file or line it leaves out, and why.  Called by the conversion; writes nothing.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from os.path import isdir
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

from cron_trigger.registry.strict_json import SURROGATE
from cron_trigger.registry.texts import printable

USERS_FOLDER = "/var/spool/cron/crontabs"
#: Other names in /etc/cron.d are not read by cron (run-parts(8)).
_FILE_NAME = re.compile("[A-Za-z0-9_-]+")
_VARIABLE = re.compile(
    r"""[ \t]*(?:"([^"=]*)"|'([^'=]*)'|([^\s="'][^\s=]*))\s*=\s*(.*)"""
)
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)*)\1\s*""")
_SCHEDULE = re.compile(r"[ \t]*(@[^ \t]+|(?:[^ \t]+[ \t]+){4}[^ \t]+)[ \t]+(?=[^ \t])")
_USER = re.compile(r"([^ \t/]+)[ \t]+(?=[^ \t])")
#: Lines of comments that say nothing about the job below, or are one of old.
_EMPTY_TALK = re.compile(
    r"m\s+h\s+dom\s+mon\s+dow\b.*|[|.\s*-]*|[|.].*|EOF|vim?:.*|-\*-.*"
    r"|(?:@[a-z]+|(?:[0-9*][0-9*/,-]*\s+){3,5})\s*\S.*",
    re.IGNORECASE,
)


class Source(NamedTuple):
    """A crontab: its text, and whose it is where it has no column of users."""

    file: str
    text: str
    user: Optional[str] = None


class Job(NamedTuple):
    """A line that cron would run, or one that it would not: then `why` says why."""

    file: str
    line: int
    #: The whole line, as it is.
    text: str
    variables: dict[str, str]
    comment: Optional[str]
    why: Optional[str] = None
    schedule: str = ""
    user: str = ""
    #: Where the user's name is in a line of a system crontab.
    user_span: Optional[tuple[int, int]] = None
    command_begin: int = 0
    command: str = ""
    #: What follows the first `%`: the standard input.
    input: Optional[str] = None


def read_sources(
    paths: Sequence[str] = (),
    user: Optional[str] = None,
    root: Path = Path("/"),
) -> tuple[list[Source], list[str]]:
    """Return those given (`-` is standard input), else the crontabs of this host.

    A file given has a column of users, unless `user` says whose it is or cron keeps it
    for one user; of a folder given, those files count that cron would read.  What can't
    be read, and what cron would not read, is in the second list, one sentence each.
    """
    notes: list[str] = []
    places = [] if paths else list(_places(root, notes))
    for path in paths:
        of_user = os.path.normpath(os.path.dirname(path)) == USERS_FOLDER
        owner = user or (os.path.basename(path) if of_user else None)
        files = _system_files(Path(path), notes) if isdir(path) else [path]
        places += [(file, owner) for file in files]
    sources = []
    for path, owner in places:
        try:
            piped = path == "-"
            content = sys.stdin.buffer.read() if piped else Path(path).read_bytes()
        except OSError as error:
            notes.append(f"{printable(path)} cannot be read: {error.strerror}.")
        else:
            text = content.decode("utf-8", "surrogateescape")
            sources.append(Source(path, text, owner))
    return sources, notes


def _places(root: Path, notes: list[str]) -> Iterator[tuple[str, Optional[str]]]:
    """Yield each crontab's path and, where it has no column of users, its user."""
    if (root / "etc/crontab").exists():
        yield str(root / "etc/crontab"), None
    for file in _system_files(root / "etc/cron.d", notes):
        yield file, None
    folder = root / USERS_FOLDER.lstrip("/")
    for name in _names(folder, notes):
        if home_of(name):
            yield str(folder / name), name
        else:
            shown = printable(str(folder / name))
            notes.append(f"{shown} is left out: no user has this name.")


def _system_files(folder: Path, notes: list[str]) -> Iterator[str]:
    """Yield the files of a folder such as /etc/cron.d that cron reads."""
    for name in _names(folder, notes):
        if _FILE_NAME.fullmatch(name):
            yield str(folder / name)
        else:
            rule = "cron reads only names of letters, digits, _ and -"
            notes.append(f"{printable(str(folder / name))} is left out: {rule}.")


def _names(folder: Path, notes: list[str]) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        return [name for name in names if not name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        notes.append(f"{printable(str(folder))} cannot be read: {error.strerror}.")
        return []


def home_of(user: str) -> Optional[str]:
    """Return a user's home, None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_dir or "/"
    except (KeyError, ValueError):
        return None


def jobs_of(source: Source) -> Iterator[Job]:
    """Yield what a crontab runs, in order, and the lines that no cron would run."""
    variables: dict[str, str] = {}
    comments: list[str] = []
    for number, raw in enumerate(source.text.split("\n"), 1):
        line = raw.rstrip("\r")
        bare = line.strip(" \t")
        if bare.startswith("#"):
            comments.append(bare.lstrip("#").strip())
            if _EMPTY_TALK.fullmatch(comments[-1]):
                comments = []
            continue
        variable = _variable(line)
        if variable:
            variables[variable[0]] = variable[1]
        elif bare:
            about = " ".join(comments) or None
            job = Job(source.file, number, line, dict(variables), about)
            try:
                yield _parsed(job, source.user)
            except ValueError as error:
                yield job._replace(why=str(error))
        comments = []


def _variable(line: str) -> Optional[tuple[str, str]]:
    """Return a variable's name and value as cron's load_env() reads them."""
    match = _VARIABLE.fullmatch(line)
    if not match:
        return None
    *names, value = match.groups()
    name = next(name for name in names if name is not None)
    if value[:1] in ("'", '"'):
        quoted = _QUOTED.fullmatch(value)
        return (name, quoted[2]) if quoted else None
    return name, value.rstrip()


def _parsed(job: Job, user: Optional[str]) -> Job:
    """Return a line with its schedule, user and command; ValueError says what lacks."""
    if SURROGATE.search(job.text):
        raise ValueError("This line is not UTF-8.")
    match = _SCHEDULE.match(job.text)
    if not match:
        raise ValueError(
            "This is no line of a crontab: expected a schedule and a command."
        )
    begin, span = match.end(), None
    if user is None:
        column = _USER.match(job.text, begin)
        if not column:
            raise ValueError("Expected a user's name before the command (see --user).")
        user, begin, span = column[1], column.end(), column.span(1)
    command, given = _split_input(job.text[begin:])
    if not command.strip():
        raise ValueError("This line has no command.")
    if SURROGATE.search("".join(map("".join, job.variables.items()))):
        raise ValueError("A variable above this line is not UTF-8.")
    return job._replace(
        schedule=match[1],
        user=user,
        user_span=span,
        command_begin=begin,
        command=command.strip(),
        input=given,
    )


def _split_input(text: str) -> tuple[str, Optional[str]]:
    r"""Return the command and its standard input, as cron's do_command.c parts them.

    Before the first bare `%`, `\%` and `\\` lose their backslash; behind it, a bare `%`
    is a line's end and `\%` a `%`.
    """
    parts = re.split(r"(\\.|%)", text, flags=re.DOTALL)
    end = parts.index("%") if "%" in parts else len(parts)
    command = "".join(p[1:] if p in ("\\%", "\\\\") else p for p in parts[:end])
    rest = "".join(parts[end + 1 :])
    lines = re.sub(r"\\%|%", lambda m: "\n" if m[0] == "%" else "%", rest)
    return command, (lines if lines.endswith("\n") else lines + "\n") if lines else None
