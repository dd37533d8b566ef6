"""A crontab's command in the registry's words.

Knows which commands need no shell, and what `cd`, variables, `flock`, `timeout` and
redirections are called in an entry.  Promises that a cron does what the line did: what
it cannot say otherwise stays with the shell, and every difference is noted in a
sentence.  Called by crontab.py, with lines that it has read; runs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from typing import AbstractSet, Callable, Dict, Optional, Sequence, Tuple

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

_POSIX_SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "ash")
_BASHES = ("bash", "zsh")
_NULL = "/dev/null"
#: Where the server looks for programs by itself.
_OUR_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Programs whose output is large, and no message.
_MAKES_DATA = re.compile(
    "cat|dd|tar|zcat|gzip|xz|zstd|mysqldump|mariadb-dump|pg_dump|pg_dumpall|btrfs|zfs"
    "|openssl|cpio"
)
_LOG = re.compile(r"/logs?/|\.(?:log|out|err)$")
#: Options that change nothing but what is said of them, or take a value as next word.
_FLOCK = (
    re.compile(
        r"-[neoxF]+|--(?:nb|nonblock|nonblocking|exclusive|close|no-fork)"
        r"|--(?:wait|timeout|conflict-exit-code)=.*|-[wE]\d.*"
    ),
    ("-w", "--wait", "--timeout", "-E", "--conflict-exit-code"),
)
_FLOCK_NO_WAIT = re.compile(r"-[eoxF]*n.*|--(?:nb|nonblock|nonblocking)")
_TIMEOUT = (
    re.compile(r"-v|--(?:verbose|foreground|preserve-status)|(?:-k|--kill-after=).+"),
    ("-k", "--kill-after"),
)


@dataclass(frozen=True)
class Host:
    """What the conversion asks this host; tests answer themselves."""

    home_of: Callable[[str], Optional[str]] = home_of
    which: Callable[[str, str], Optional[str]] = lambda name, path: shutil.which(
        name, path=path
    )


@dataclass(frozen=True)
class Proposal:
    """A command on its way into the registry; `tokens` is what is left to say."""

    text: str
    tokens: Tuple[Token, ...]
    directory: str
    command: Tuple[str, ...] = ()
    environment: Dict[str, str] = field(default_factory=dict)
    timeout: Optional[str] = None
    kill_after: Optional[str] = None
    log_file: Optional[str] = None
    lock_file: Optional[str] = None
    comment: Optional[str] = None
    notes: Tuple[str, ...] = ()

    @property
    def is_simple(self) -> bool:
        """Whether what is left is one command, without a list or a pipe."""
        return all(token.kind != OPERATOR for token in self.tokens)

    def noted(self, note: str) -> Proposal:
        return replace(self, notes=(*self.notes, note))

    def without(self, count: int) -> Proposal:
        return replace(self, tokens=self.tokens[count:])

    def path(self, name: str) -> str:
        """Return a path as it is seen from the job's folder."""
        return os.path.normpath(os.path.join(self.directory, name))

    def value(self, place: int) -> Optional[str]:
        """Return the word there, if it is one that needs no shell."""
        return self.tokens[place].value if place < len(self.tokens) else None


def propose(
    job: Job, host: Host, kept_locks: AbstractSet[str] = frozenset()
) -> Proposal:
    """Return what a job's command is in the registry.

    `kept_locks` are the lock files that flock must go on taking, because other lines
    take them, too.
    """
    home = job.variables.get("HOME") or host.home_of(job.user) or "/"
    shell = job.variables.get("SHELL") or "/bin/sh"
    name = os.path.basename(shell)
    whole = Proposal(job.command, (), home)
    if name not in _POSIX_SHELLS:
        return _by_shell(whole, shell, f"SHELL is {shell}")
    try:
        tokens = tokens_of(job.command, home, name in _BASHES)
    except ValueError:
        return _by_shell(whole, shell, "a quote or a bracket is not closed")
    proposal = _without_comment(replace(whole, tokens=tokens))
    if job.input:
        return _with_input(proposal, shell, job.input)
    proposal = _unwrapped(_without_cd(proposal), kept_locks, name in _BASHES)
    return _settled(proposal, job, shell, host)


def _without_comment(proposal: Proposal) -> Proposal:
    *tokens, last = proposal.tokens or (Token(WORD, "", 0, 0),)
    if last.kind != COMMENT or not tokens:
        return proposal
    comment = last.text.lstrip("#").strip()
    return replace(proposal, tokens=tuple(tokens), comment=comment)


def _with_input(proposal: Proposal, shell: str, given: str) -> Proposal:
    """Put the standard input into the command: a cron's own is empty."""
    mark = "END_OF_INPUT"
    while mark in given.split("\n"):
        mark += "_"
    text = f"{{ {_rest(proposal)}\n}} <<'{mark}'\n{given}{mark}\n"
    noted = proposal.noted(
        'What follows "%" was its standard input, and is now part of the command.'
    )
    return replace(noted, command=(shell, "-c", text))


def _without_cd(proposal: Proposal) -> Proposal:
    """Take `cd FOLDER &&` as the working directory, where no `||` or `;` follows."""
    head = [token.text for token in proposal.tokens[:3:2]]
    rest = {token.text for token in proposal.tokens[3:] if token.kind == OPERATOR}
    folder = proposal.value(1)
    if head != ["cd", "&&"] or folder is None or not rest <= {"&&", "|"}:
        return proposal
    if folder.startswith("-") or len(proposal.tokens) < 4:
        return proposal
    directory = proposal.path(folder)
    return _without_cd(replace(proposal, directory=directory).without(3))


def _unwrapped(
    proposal: Proposal, kept_locks: AbstractSet[str], bash: bool
) -> Proposal:
    """Take off redirections, `exec`, `env`, `flock` and `timeout`, where they are."""
    if not proposal.is_simple:
        return proposal
    proposal = _without_redirections(proposal)
    while True:
        before = proposal.tokens
        program = os.path.basename(proposal.value(0) or "")
        if all(token.known for token in before):
            proposal = _without_variables(proposal)
        if program in ("exec", "env"):
            proposal = _without_prefix(proposal, program)
        elif program == "timeout":
            proposal = _without_timeout(proposal)
        elif program == "flock":
            proposal = _without_flock(proposal, kept_locks, bash)
        if proposal.tokens == before or not proposal.is_simple:
            return proposal


def _without_variables(proposal: Proposal) -> Proposal:
    """Take `NAME=value` before the program into the entry's environment.

    Only where no word needs a shell, which would not see the new value in it.
    """
    environment = dict(proposal.environment)
    while proposal.tokens and proposal.tokens[0].is_assignment:
        name, _, value = (proposal.value(0) or "").partition("=")
        environment[name] = value
        proposal = proposal.without(1)
    return replace(proposal, environment=environment)


def _without_prefix(proposal: Proposal, program: str) -> Proposal:
    """Leave out `exec` or `env` where what follows means the same without it."""
    place = 1
    while program == "env" and proposal.tokens[place : place + 1]:
        if not proposal.tokens[place].is_assignment:
            break
        place += 1
    return proposal.without(1) if _is_program(proposal, place) else proposal


def _is_program(proposal: Proposal, place: int) -> bool:
    """Return whether the word there is a program to a shell, too."""
    word = proposal.tokens[place : place + 1]
    if not word or word[0].kind != WORD or word[0].is_assignment:
        return False
    value = proposal.value(place) or ""
    return not (value.startswith("-") or "=" in value or value in SHELL_ONLY)


def _options(
    proposal: Proposal, known: Tuple[re.Pattern[str], Sequence[str]]
) -> Tuple[int, Dict[str, Optional[str]]]:
    """Return where a program's options end, and each with its value; 0 if unknown."""
    place, found = 1, {}
    while (option := proposal.value(place) or "").startswith("-"):
        has_value = option in known[1]
        if not has_value and not known[0].fullmatch(option):
            return 0, {}
        found[option] = proposal.value(place + 1) if has_value else None
        place += 1 + has_value
    return place, found


def _without_timeout(proposal: Proposal) -> Proposal:
    place, options = _options(proposal, _TIMEOUT)
    timeout = _duration(proposal.value(place)) if place else None
    if timeout is None or proposal.timeout or not _is_program(proposal, place + 1):
        return proposal  # another signal, say: ours is SIGTERM
    kills = [value or option for option, value in options.items() if "k" in option[:4]]
    kill_after = _duration(re.sub("-k|--kill-after=", "", kills[0])) if kills else None
    done = replace(proposal, timeout=timeout, kill_after=kill_after)
    return done.without(place + 1).noted('timeout is now "timeout" of the entry.')


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


def _without_flock(
    proposal: Proposal, kept_locks: AbstractSet[str], bash: bool
) -> Proposal:
    """Leave out a lock of this line alone: a cron never runs twice at once."""
    place, options = _options(proposal, _FLOCK)
    lock_file = proposal.value(place) if place else None
    by_shell = proposal.value(place + 1) in ("-c", "--command")
    has_command = by_shell and bool(proposal.value(place + 2))
    if not lock_file or not (has_command or _is_program(proposal, place + 1)):
        return proposal
    lock_file = proposal.path(lock_file)
    proposal = replace(proposal, lock_file=lock_file)
    if lock_file in kept_locks:
        return proposal.noted(f"flock stays: other lines take {lock_file}, too.")
    waits = not any(map(_FLOCK_NO_WAIT.fullmatch, options))
    note = "flock is left out: a cron never runs twice at once"
    note += "; it waited for the lock, a second start is refused." if waits else "."
    proposal = proposal.without(place + 1).noted(note)
    if not by_shell:
        return proposal
    text = proposal.value(1) or ""  # the command line that it has as a word
    try:
        return replace(proposal, text=text, tokens=tokens_of(text, None, bash))
    except ValueError:
        return replace(proposal, text=text, tokens=())


def _without_redirections(proposal: Proposal) -> Proposal:
    """Take what the end of a command does with its output as the log's file.

    A dump that is written by `>` is no log, and stays with the shell.
    """
    begin = len(proposal.tokens)
    while begin > 1 and proposal.tokens[begin - 2].kind == REDIRECT:
        begin -= 2
    head, tail = proposal.tokens[:begin], proposal.tokens[begin:]
    pairs = [(_sign(one), to) for one, to in zip(tail[::2], tail[1::2])]
    targets = _targets(pairs, proposal) if head and pairs else None
    if targets is None or any(token.kind == REDIRECT for token in head):
        return proposal
    short = replace(proposal, tokens=head)
    if set(targets) <= {"", _NULL}:
        if set(targets) == {""}:
            return short
        makes_data = _MAKES_DATA.fullmatch(os.path.basename(proposal.value(0) or ""))
        note = f"What went to {_NULL} goes to the cron's log."
        return proposal if makes_data else short.noted(note)
    append = not any(s[1] in (">", ">|") and to.value != _NULL for s, to in pairs)
    log_file = _log_of(targets, append)
    if log_file is None:
        return proposal
    short = replace(short, log_file=log_file)
    note = "Its log was begun anew each time, and is appended to now."
    return short if append else short.noted(note)


def _sign(redirect: Token) -> Tuple[str, str]:
    """Return a redirection's number, 1 if it has none, and its sign."""
    sign = redirect.text.lstrip("0123456789&")
    return redirect.text[: -len(sign)] or "1", sign


def _log_of(targets: Sequence[str], append: bool) -> Optional[str]:
    """Return the file that is a log, for output and errors; None if there is none."""
    files = set(targets) - {"", _NULL}
    if len(files) != 1:
        return None
    (file,) = files
    signs_of_a_log = (append, len(set(targets)) == 1, bool(_LOG.search(file)))
    return file if sum(signs_of_a_log) >= 2 and file[:5] != "/dev/" else None


def _targets(
    pairs: Sequence[Tuple[Tuple[str, str], Token]], proposal: Proposal
) -> Optional[Sequence[str]]:
    """Return where standard output and error go; "" is cron's mail, None unknown."""
    goes = {"1": "", "2": ""}
    for (number, sign), word in pairs:
        if word.value is None:
            return None
        if sign == "<" and word.value == _NULL:
            continue
        target = proposal.path(word.value)
        if sign == ">&" and word.value in goes:
            target = goes[word.value]
        elif sign not in (">", ">>", ">|"):
            return None
        if number == "&":
            goes = {"1": target, "2": target}
        elif number in goes:
            goes[number] = target
        else:
            return None
    return list(goes.values())


def _settled(proposal: Proposal, job: Job, shell: str, host: Host) -> Proposal:
    """Return the proposal with its command, as a vector if no shell is needed."""
    why = _needs_shell(proposal)
    if why:
        return _by_shell(proposal, shell, why)
    program, *words = [token.value or "" for token in proposal.tokens]
    return replace(proposal, command=(_program(program, proposal, job, host), *words))


def _needs_shell(proposal: Proposal) -> Optional[str]:
    """Return what only a shell understands, None if there is nothing of it."""
    tokens = proposal.tokens
    odd = [token.text for token in tokens if token.kind == OPERATOR]
    odd += [token.text for token in tokens if token.kind == WORD and not token.known]
    odd += [token.text for token in tokens if token.kind not in (OPERATOR, WORD)]
    if odd:
        return f'"{odd[0]}"' if len(odd[0]) < 30 else "an expansion"
    program = proposal.value(0)
    if program is None:
        return "there is no program"
    return f'"{program}"' if program in SHELL_ONLY else None


def _by_shell(proposal: Proposal, shell: str, why: str) -> Proposal:
    noted = proposal.noted(f"Runs by {shell} -c, because of shell syntax: {why}.")
    return replace(noted, command=(shell, "-c", _rest(proposal)))


def _rest(proposal: Proposal) -> str:
    """Return the text of what is left."""
    if not proposal.tokens:
        return proposal.text
    return proposal.text[proposal.tokens[0].begin : proposal.tokens[-1].end]


def _program(name: str, proposal: Proposal, job: Job, host: Host) -> str:
    """Return a program's absolute path, or its name where the server finds the same."""
    if "/" in name:
        return proposal.path(name)
    path = job.variables.get("PATH")
    found = host.which(name, path) if path else None
    ours = host.which(name, _OUR_PATH)
    if found is None or (ours and os.path.realpath(ours) == os.path.realpath(found)):
        return name
    return found
