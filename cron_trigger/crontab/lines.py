"""Crontabs as Debian's cron reads them: variables, schedules, users, commands.

Knows crontab(5) and where cron looks, and nothing of an entry.  Promises to say which
file or line it leaves out, and why.  Called by crontab.py; reads files, writes none.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from cron_trigger.registry.texts import SURROGATE, printable

SYSTEM_CRONTAB = Path("/etc/crontab")
SYSTEM_FOLDER = Path("/etc/cron.d")
USERS_FOLDER = Path("/var/spool/cron/crontabs")
#: Other names in /etc/cron.d are not read by cron (run-parts(8)).
_FILE_NAME = re.compile("[A-Za-z0-9_-]+")
_VARIABLE = re.compile(
    r"""[ \t]*(?:"([^"=]*)"|'([^'=]*)'|([^\s="'][^\s=]*))\s*=\s*(.*)"""
)
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)*)\1\s*""")
_SCHEDULE = re.compile(r"[ \t]*(@[^ \t]+|(?:[^ \t]+[ \t]+){4}[^ \t]+)[ \t]+(?=[^ \t])")
_USER = re.compile(r"([^ \t]+)[ \t]+(?=[^ \t])")
#: Lines of comments that say nothing about the job below.
_EMPTY_TALK = re.compile(
    r"m\s+h\s+dom\s+mon\s+dow\b.*|[|.\s*-]*|[|.].*|EOF|vim?:.*|-\*-.*", re.IGNORECASE
)
#: A job that was commented out.
_OLD_JOB = re.compile(r"(?:@[a-z]+|(?:[0-9*][0-9*/,-]*\s+){3,5})\s*\S")


class Source(NamedTuple):
    """A crontab: its text, and whose it is where it has no column of users."""

    file: str
    text: str
    user: Optional[str] = None


@dataclass(frozen=True)
class Job:
    """A line that cron would run."""

    file: str
    line: int
    #: The whole line, as it is.
    text: str
    schedule: str
    user: str
    #: Where the user's name is in a line of a system crontab.
    user_span: Optional[Tuple[int, int]]
    command_begin: int
    command: str
    #: What follows the first `%`: the standard input.
    input: Optional[str]
    variables: Dict[str, str]
    comment: Optional[str]


class NoJob(NamedTuple):
    """A line that cron would not run, and why."""

    file: str
    line: int
    text: str
    why: str


def read_sources(
    paths: Optional[Sequence[str]] = None,
    user: Optional[str] = None,
    root: Path = Path("/"),
) -> Tuple[List[Source], List[str]]:
    """Return the crontabs of this host, or those given (`-` is standard input).

    A file given has a column of users, unless `user` says whose it is or cron keeps it
    for one user; of a folder given, those files count that cron would read.  What can't
    be read, and what cron would not read, is in the second list, one sentence each.
    """
    notes: List[str] = []
    if paths is None:
        places = list(_places(root, notes))
    else:
        places = [
            (file, user or _owner(Path(file)))
            for path in paths
            for file in (_system_files(Path(path), notes) if isdir(path) else [path])
        ]
    sources = []
    for path, owner in places:
        try:
            sources.append(Source(path, _read(path), owner))
        except OSError as error:
            notes.append(f"{printable(path)} cannot be read: {error.strerror}.")
    return sources, notes


def _read(path: str) -> str:
    content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    return content.decode("utf-8", "surrogateescape")


def _owner(path: Path) -> Optional[str]:
    """Return whose crontab a file is by its place; None for a system crontab."""
    of_user = os.path.normpath(path.parent) == str(USERS_FOLDER)
    return path.name if of_user else None


def _places(root: Path, notes: List[str]) -> Iterator[Tuple[str, Optional[str]]]:
    """Yield each crontab's path and, where it has no column of users, its user."""

    def below(place: Path) -> Path:
        return root / place.relative_to("/")

    if below(SYSTEM_CRONTAB).exists():
        yield str(below(SYSTEM_CRONTAB)), None
    for file in _system_files(below(SYSTEM_FOLDER), notes):
        yield file, None
    for name in _names(below(USERS_FOLDER), notes):
        path = below(USERS_FOLDER) / name
        if home_of(name):
            yield str(path), name
        elif not name.startswith("."):
            notes.append(f"{printable(str(path))} is left out: no user has this name.")


def _system_files(folder: Path, notes: List[str]) -> Iterator[str]:
    """Yield the files of a folder such as /etc/cron.d that cron reads."""
    for name in _names(folder, notes):
        path = str(folder / name)
        if _FILE_NAME.fullmatch(name):
            yield path
        elif not name.startswith("."):
            rule = "cron reads only names of letters, digits, _ and -"
            notes.append(f"{printable(path)} is left out: {rule}.")


def _names(folder: Path, notes: List[str]) -> List[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
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


def jobs_of(source: Source) -> Iterator[Union[Job, NoJob]]:
    """Yield what a crontab runs, in order, and the lines that no cron would run."""
    variables: Dict[str, str] = {}
    comments: List[str] = []
    for number, raw in enumerate(source.text.split("\n"), 1):
        line = raw.rstrip("\r")
        bare = line.strip(" \t")
        if bare.startswith("#"):
            comments.append(bare.lstrip("#").strip())
            continue
        variable = _variable(line)
        if variable:
            variables[variable[0]] = variable[1]
        elif bare:
            about = _about(comments)
            yield _job(source, number, line, dict(variables), about)
        comments = []


def _variable(line: str) -> Optional[Tuple[str, str]]:
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


def _about(comments: Sequence[str]) -> Optional[str]:
    """Return the last paragraph of the comment just above a job."""
    paragraph: List[str] = []
    for comment in comments:
        if _EMPTY_TALK.fullmatch(comment) or _OLD_JOB.match(comment):
            paragraph = []
        else:
            paragraph.append(comment)
    return " ".join(paragraph) or None


def _job(
    source: Source,
    number: int,
    line: str,
    variables: Dict[str, str],
    comment: Optional[str],
) -> Union[Job, NoJob]:
    def no_job(why: str) -> NoJob:
        return NoJob(source.file, number, line, why)

    if SURROGATE.search(line):
        return no_job("This line is not UTF-8.")
    match = _SCHEDULE.match(line)
    if not match:
        return no_job(
            "This is no line of a crontab: expected a schedule and a command."
        )
    user, begin, span = source.user, match.end(), None
    if user is None:
        column = _USER.match(line, begin)
        if not column or "/" in column[1]:
            return no_job("Expected a user's name before the command (see --user).")
        user, begin, span = column[1], column.end(), column.span(1)
    command, given = _split_input(line[begin:])
    if not command.strip():
        return no_job("This line has no command.")
    return Job(
        file=source.file,
        line=number,
        text=line,
        schedule=match[1],
        user=user,
        user_span=span,
        command_begin=begin,
        command=command.strip(),
        input=given,
        variables=variables,
        comment=comment,
    )


def _split_input(text: str) -> Tuple[str, Optional[str]]:
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
