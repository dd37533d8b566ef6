"""A crontab's command in the registry's words.

Knows which commands need no shell, and what `cd`, variables, `flock`, `timeout` and
redirections are called in an entry.  Promises that a cron does what the line did: what
it cannot say otherwise stays with the shell, and every difference is noted in a
sentence.  Called by the conversion, with lines that it has read; runs nothing.
"""

from __future__ import annotations

import contextlib
import getopt
import os
import re
import shutil
from typing import AbstractSet, Callable, NamedTuple, Optional, Sequence

from cron_trigger.crontab.lines import Job, home_of
from cron_trigger.crontab.words import (
    COMMENT,
    OPERATOR,
    REDIRECT,
    SHELL_ONLY,
    WORD,
    Token,
    tokens_of,
)
from cron_trigger.host.users import DEFAULT_PATH

_POSIX_SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "ash")
_BASHES = ("bash", "zsh")
_NULL = "/dev/null"
#: Programs whose output is large, and no message.
_MAKES_DATA = re.compile(
    "cat|dd|tar|zcat|gzip|xz|zstd|mysqldump|mariadb-dump|pg_dump|pg_dumpall|btrfs|zfs"
    "|openssl|cpio"
)
_LOG = re.compile(r"/logs?/|\.(?:log|out|err)$")
#: For getopt: the options that change nothing but what is said of them.
_FLOCK = (
    "neoxFw:E:",
    ["nb", "nonblock", "nonblocking", "exclusive", "close", "no-fork"]
    + ["wait=", "timeout=", "conflict-exit-code="],
)
_TIMEOUT = ("vk:", ["verbose", "foreground", "preserve-status", "kill-after="])


class Host(NamedTuple):
    """What the conversion asks this host; tests answer themselves."""

    home_of: Callable[[str], Optional[str]] = home_of
    which: Callable[..., Optional[str]] = shutil.which


THIS_HOST = Host()


class Proposal:
    """What a job's command is in the registry.  Each step takes something off it."""

    def __init__(
        self, job: Job, host: Host, kept_locks: AbstractSet[str] = frozenset()
    ) -> None:
        """Take all steps.

        `kept_locks` are the lock files that flock must go on taking, because other
        lines take them, too.
        """
        self._job = job
        self._host = host
        self._kept_locks = kept_locks
        self._shell = job.variables.get("SHELL") or "/bin/sh"
        self._bash = os.path.basename(self._shell) in _BASHES
        self._text = job.command
        #: What is left to say.
        self.tokens: tuple[Token, ...] = ()
        self.directory = job.variables.get("HOME") or host.home_of(job.user) or "/"
        self.environment: dict[str, str] = {}
        self.timeout: Optional[str] = None
        self.kill_after: Optional[str] = None
        self.log_file: Optional[str] = None
        self.lock_file: Optional[str] = None
        self.comment: Optional[str] = None
        self.notes: list[str] = []
        self.command = self._command()

    def _command(self) -> list[str]:
        """Return what is left when all steps are taken."""
        if os.path.basename(self._shell) not in _POSIX_SHELLS:
            return self._by_shell(f"SHELL is {self._shell}")
        try:
            self.tokens = tokens_of(self._text, self.directory, self._bash)
        except ValueError as error:
            return self._by_shell(str(error))
        if len(self.tokens) > 1 and self.tokens[-1].kind == COMMENT:
            self.comment = self.tokens[-1].text.lstrip("#").strip()
            self.tokens = self.tokens[:-1]
        if self._job.input:
            return self._with_input(self._job.input)
        self._take_folder()
        if self._is_simple():
            self._take_redirections()
            self._unwrap()
        why = self._needs_shell()
        if why:
            return self._by_shell(why)
        program, *words = [token.value or "" for token in self.tokens]
        return [self._program(program), *words]

    def _is_simple(self) -> bool:
        """Tell whether what is left is one command, without a list or a pipe."""
        return all(token.kind != OPERATOR for token in self.tokens)

    def _take(self, count: int) -> None:
        self.tokens = self.tokens[count:]

    def _path(self, name: str) -> str:
        """Return a path as it is seen from the job's folder."""
        return os.path.normpath(os.path.join(self.directory, name))

    def _value(self, place: int) -> Optional[str]:
        """Return the word there, if it is one that needs no shell."""
        return self.tokens[place].value if place < len(self.tokens) else None

    def _with_input(self, given: str) -> list[str]:
        """Put the standard input into the command: a cron's own is empty."""
        mark = "END_OF_INPUT"
        while mark in given.split("\n"):
            mark += "_"
        text = f"{{ {self._rest()}\n}} <<'{mark}'\n{given}{mark}\n"
        self.notes.append(
            'What follows "%" was its standard input, and is now part of the command.'
        )
        return [self._shell, "-c", text]

    def _take_folder(self) -> None:
        """Take `cd FOLDER &&` as the working directory, if no `||` or `;` follows."""
        rest = {token.text for token in self.tokens[3:] if token.kind == OPERATOR}
        while [token.text for token in self.tokens[:3:2]] == ["cd", "&&"]:
            folder = self._value(1)
            if folder is None or folder.startswith("-") or not rest <= {"&&", "|"}:
                return
            if len(self.tokens) < 4:
                return
            self.directory = self._path(folder)
            self._take(3)

    def _unwrap(self) -> None:
        """Take off variables, `exec`, `env`, `flock` and `timeout`, while there are."""
        steps = {
            "exec": self._take_prefix,
            "env": self._take_prefix,
            "timeout": self._take_timeout,
            "flock": self._take_flock,
        }
        before = None
        while self.tokens != before and self._is_simple():
            before = self.tokens
            program = os.path.basename(self._value(0) or "")
            if all(token.known for token in before):
                self._take_variables()
            steps.get(program, lambda: None)()

    def _take_variables(self) -> None:
        """Take `NAME=value` before the program into the entry's environment.

        Only where no word needs a shell, which would not see the new value in it.
        """
        while self.tokens and self.tokens[0].is_assignment:
            name, _, value = (self._value(0) or "").partition("=")
            self.environment[name] = value
            self._take(1)

    def _take_prefix(self) -> None:
        """Leave out `exec` or `env` where what follows means the same without it."""
        place = 1
        while self._value(0) != "exec" and self._is_assignment(place):
            place += 1
        if self._is_program(place):
            self._take(1)

    def _is_assignment(self, place: int) -> bool:
        return place < len(self.tokens) and self.tokens[place].is_assignment

    def _is_program(self, place: int) -> bool:
        """Tell whether the word there is a program to a shell, too."""
        if place >= len(self.tokens) or self.tokens[place].kind != WORD:
            return False
        value = self._value(place) or ""
        odd = value.startswith("-") or "=" in value or value in SHELL_ONLY
        return not odd and not self._is_assignment(place)

    def _options(self, known: tuple[str, list[str]]) -> tuple[int, dict[str, str]]:
        """Return where options end, and each with its value; 0 if one is unknown."""
        # What only a shell knows is no option, but may be the value of one.
        words = ["?" if one.value is None else one.value for one in self.tokens[1:]]
        try:
            found, rest = getopt.getopt(words, *known)
        except getopt.GetoptError:
            return 0, {}
        return len(self.tokens) - len(rest), dict(found)

    def _take_timeout(self) -> None:
        place, options = self._options(_TIMEOUT)
        timeout = _duration(self._value(place)) if place else None
        kills = [_duration(value) for value in options.values() if value]
        if self.timeout or None in (timeout, *kills) or not self._is_program(place + 1):
            return  # another signal, say: ours is SIGTERM
        self.kill_after = kills[-1] if kills else None
        self.timeout = timeout
        self._take(place + 1)
        self.notes.append('timeout is now "timeout" of the entry.')

    def _take_flock(self) -> None:
        """Leave out a lock of this line alone: a cron never runs twice at once."""
        place, options = self._options(_FLOCK)
        lock_file = self._value(place) if place else None
        by_shell = self._value(place + 1) in ("-c", "--command")
        has_command = by_shell and bool(self._value(place + 2))
        if not lock_file or not (has_command or self._is_program(place + 1)):
            return
        self.lock_file = self._path(lock_file)
        if self.lock_file in self._kept_locks:
            self.notes.append(f"flock stays: other lines take {self.lock_file}, too.")
            return
        waits = options.keys().isdisjoint(("-n", "--nb", "--nonblock", "--nonblocking"))
        note = "flock is left out: a cron never runs twice at once"
        note += "; it waited for the lock, a second start is refused." if waits else "."
        self.notes.append(note)
        self._take(place + 1)
        if by_shell:  # the command line that it has as a word
            self._text, self.tokens = self._value(1) or "", ()
            with contextlib.suppress(ValueError):
                self.tokens = tokens_of(self._text, None, self._bash)

    def _take_redirections(self) -> None:
        """Take what the end of a command does with its output as the log's file.

        A dump that is written by `>` is no log, and stays with the shell.
        """
        begin = len(self.tokens)
        while begin > 1 and self.tokens[begin - 2].kind == REDIRECT:
            begin -= 2
        head, tail = self.tokens[:begin], self.tokens[begin:]
        pairs = [(_sign(one), to) for one, to in zip(tail[::2], tail[1::2])]
        targets = self._targets(pairs) if head and pairs else None
        if targets is None or any(token.kind == REDIRECT for token in head):
            return
        note = None
        if not targets <= {"", _NULL}:
            signs = {sign for (_, sign), to in pairs if to.value != _NULL}
            self.log_file = _log_of(targets, not signs & {">", ">|"})
            if self.log_file is None:
                return
            if signs & {">", ">|"}:
                note = "Its log was begun anew each time, and is appended to now."
        elif _NULL in targets:
            if _MAKES_DATA.fullmatch(os.path.basename(self._value(0) or "")):
                return
            note = f"What went to {_NULL} goes to the cron's log."
        self.tokens = head
        self.notes += [note] if note else []

    def _targets(
        self, pairs: Sequence[tuple[tuple[str, str], Token]]
    ) -> Optional[AbstractSet[str]]:
        """Return where output and errors go; "" is cron's mail, None unknown."""
        goes = {"1": "", "2": ""}
        for (number, sign), word in pairs:
            if sign == "<" and word.value == _NULL:
                continue
            duplicates = sign == ">&" and word.value in goes
            if word.value is None or not (duplicates or sign in (">", ">>", ">|")):
                return None
            if number not in ("1", "2", "&"):
                return None
            target = goes[word.value] if duplicates else self._path(word.value)
            goes.update(dict.fromkeys(goes if number == "&" else [number], target))
        return set(goes.values())

    def _needs_shell(self) -> Optional[str]:
        """Return what only a shell understands, None if there is nothing of it."""
        tokens = self.tokens
        odd = [token.text for token in tokens if token.kind == OPERATOR]
        odd += [one.text for one in tokens if one.kind == WORD and not one.known]
        odd += [one.text for one in tokens if one.kind not in (OPERATOR, WORD)]
        if odd:
            return f'"{odd[0]}"' if len(odd[0]) < 30 else "an expansion"
        program = self._value(0)
        if program is None:
            return "there is no program"
        return f'"{program}"' if program in SHELL_ONLY else None

    def _by_shell(self, why: str) -> list[str]:
        self.notes.append(f"Runs by {self._shell} -c, because of shell syntax: {why}.")
        return [self._shell, "-c", self._rest()]

    def _rest(self) -> str:
        """Return the text of what is left."""
        if not self.tokens:
            return self._text
        return self._text[self.tokens[0].begin : self.tokens[-1].end]

    def _program(self, name: str) -> str:
        """Return a program's path, or its name where the server finds the same."""
        if "/" in name:
            return self._path(name)
        path = self._job.variables.get("PATH")
        found = self._host.which(name, path=path) if path else None
        ours = self._host.which(name, path=DEFAULT_PATH)
        same = found and ours and os.path.realpath(ours) == os.path.realpath(found)
        return name if found is None or same else found


def _duration(text: Optional[str]) -> Optional[str]:
    """Return a duration of timeout(1) in the registry's words, None if it has none."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd]?)", text or "", re.ASCII)
    if not match:
        return None
    seconds = float(match[1]) * {"m": 60, "h": 3600, "d": 86400}.get(match[2], 1)
    if seconds != int(seconds) or not 0 < seconds < 999_999 * 3600:
        return None
    if "." not in match[1] and match[2] in ("m", "h"):
        return text
    minutes, rest = divmod(int(seconds), 60)
    parts = ((minutes // 60, "h"), (minutes % 60, "m"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def _sign(redirect: Token) -> tuple[str, str]:
    """Return a redirection's number, 1 if it has none, and its sign."""
    sign = redirect.text.lstrip("0123456789&")
    return redirect.text[: -len(sign)] or "1", sign


def _log_of(targets: AbstractSet[str], append: bool) -> Optional[str]:
    """Return the file that is a log, for output and errors; None if there is none."""
    files = targets - {"", _NULL}
    if len(files) != 1:
        return None
    (file,) = files
    signs_of_a_log = (append, len(targets) == 1, bool(_LOG.search(file)))
    return file if sum(signs_of_a_log) >= 2 and file[:5] != "/dev/" else None
