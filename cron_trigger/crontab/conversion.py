"""`cron-trigger crontab`: a crontab's lines as entries of the registry.

Knows, for each line that cron would run, the entry and the line with `run NAME` that
takes its place.  Promises that each name is used once, that a cron which the registry
has is not added again, and never to write a crontab.  Called by the command line, which
checks a registry's new text before it has it written.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import AbstractSet, Iterator, Mapping, NamedTuple, Optional, Sequence

from cron_trigger import SERVICE
from cron_trigger.crontab.entries import THIS_HOST, Host, Proposal
from cron_trigger.crontab.lines import Job, Source, jobs_of
from cron_trigger.crontab.names import name_of
from cron_trigger.registry.crons import VARIABLE_NAME
from cron_trigger.registry.schedules import parse_schedule
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable

PROGRAM = "/usr/local/bin/cron-trigger"
Entry = dict[str, Json]
#: cron's own, or of no use to the script.
_CRON_VARIABLES = frozenset(
    ("SHELL", "LOGNAME", "MAILTO", "MAILFROM", "CONTENT_TYPE", "CRON_TZ")
    + ("CONTENT_TRANSFER_ENCODING", "RANDOM_DELAY")
)
_OURS = re.compile(
    r"(?:^|[\s/])(?:cron-trigger|cron_trigger_server\.py)\s+(?:\S+\s+)*run\s"
)
_DESCRIPTION = 120


class Line(NamedTuple):
    """A crontab's line, the cron that it becomes, and the line in its place.

    `name` and `new` are None where nothing takes its place: `note` says why.
    """

    file: str
    line: int
    name: Optional[str]
    old: str
    new: Optional[str]
    note: str


class Conversion(NamedTuple):
    """New entries of the registry, and what happens to each line."""

    entries: dict[str, Entry]
    lines: list[Line]


def convert(
    sources: Sequence[Source],
    existing: Mapping[str, Json] = {},
    program: str = PROGRAM,
    own_user: str = "root",
    host: Host = THIS_HOST,
) -> Conversion:
    """Return entries and new lines for all jobs of these crontabs.

    `existing` is the registry so far: its names are not used again, and a job that it
    has is not added again.  `own_user` is whom the server runs as, and so whose crontab
    calls `run`.
    """
    found = [job for source in sources for job in jobs_of(source)]
    locks = Counter(Proposal(job, host).lock_file for job in found if not job.why)
    kept = {lock for lock, count in locks.items() if lock and count > 1}
    converter = _Converter(existing, program, own_user, host)
    return Conversion(converter.entries, [converter.line(job, kept) for job in found])


@dataclass
class _Converter:
    """Remembers what the names and logs of other crons are."""

    existing: Mapping[str, Json]
    program: str
    own_user: str
    host: Host
    #: The new crons.
    entries: dict[str, Entry] = field(default_factory=dict)

    def line(self, job: Job, kept_locks: AbstractSet[str]) -> Line:
        """Return what becomes of a line, whose entry is added where it is a new one."""
        try:
            schedule = _schedule(job)
        except ValueError as error:
            return Line(job.file, job.line, None, job.text, None, str(error))
        proposal = Proposal(job, self.host, kept_locks)
        entry = self._entry(job, proposal, schedule)
        notes = [*proposal.notes, *self._notes(job, entry, proposal)]
        name = self._known(entry)
        if name:
            notes.append(f'The registry has it already, as "{name}".')
        else:
            name = self._free_name(name_of(proposal.tokens))
            self.entries[name] = entry
        new = self._new(job, name)
        return Line(job.file, job.line, name, job.text, new, " ".join(notes))

    def _entry(self, job: Job, proposal: Proposal, schedule: Optional[str]) -> Entry:
        # Not the command: its arguments may hold a password, and everybody sees this.
        whose = job.file if job.user_span else f"the crontab of {job.user}"
        origin = f"{name_of(proposal.tokens)}, from {whose}"
        about = job.comment or proposal.comment or origin
        given = {n: v for n, v in job.variables.items() if n not in _CRON_VARIABLES}
        given.update(proposal.environment)
        environment = {n: v for n, v in given.items() if not _is_refused(n)}
        entry: Entry = {
            "description": _cut(printable(about)),
            "command": proposal.command,
            "user": job.user if job.user != self.own_user else None,
            "workingDirectory": proposal.directory,
            "environment": environment or None,
            "timeout": proposal.timeout,
            "killAfter": proposal.kill_after,
            "logFile": self._log_file(proposal),
            "schedule": schedule,
        }
        return {key: value for key, value in entry.items() if value is not None}

    def _log_file(self, proposal: Proposal) -> Optional[str]:
        """Return the file of the line's redirection, if no other cron has it."""
        crons = (*self.existing.values(), *self.entries.values())
        taken = [cron.get("logFile") for cron in crons if isinstance(cron, dict)]
        return None if proposal.log_file in taken else proposal.log_file

    def _notes(self, job: Job, entry: Entry, proposal: Proposal) -> Iterator[str]:
        if "schedule" not in entry:
            yield "No schedule: @reboot has no time, so it cannot be late."
        own, user = self.own_user, printable(job.user, 40)
        if self.host.home_of(job.user) is None:
            yield f"This host has no user {user}."
        elif "user" in entry and job.user_span:
            yield f"{own} calls it, and the script runs as {user}."
        elif "user" in entry:
            yield (
                f"The new line belongs into {own}'s crontab, instead of this one: the "
                f"script runs as {user}."
            )
        if proposal.log_file and "logFile" not in entry:
            yield f"Another cron logs to {proposal.log_file}: this one has its own log."
        for name in {**job.variables, **proposal.environment}:
            if name in ("CRON_TZ", "RANDOM_DELAY") or _is_refused(name):
                yield f"The variable {printable(name, 40)} is left out."

    def _known(self, entry: Entry) -> Optional[str]:
        """Return the name of the cron that is this one already, if there is one."""
        keys = ("command", "user", "schedule", "workingDirectory", "environment")
        for name, cron in self.existing.items():
            if isinstance(cron, dict) and all(
                cron.get(key) == entry.get(key) for key in keys
            ):
                return name
        return None

    def _free_name(self, base: str) -> str:
        name, number = base, 1
        while name in {*self.existing, *self.entries, SERVICE}:
            number += 1
            name = f"{base}-{number}"
        return name

    def _new(self, job: Job, name: str) -> str:
        """Return the line with the same schedule that calls `run`."""
        head = job.text[: job.command_begin]
        if job.user_span:
            begin, end = job.user_span
            head = f"{head[:begin]}{self.own_user}{head[end:]}"
        return f"{head}{self.program} run {name}"


def _schedule(job: Job) -> Optional[str]:
    """Return the schedule in the registry's words, None for `@reboot`.

    Raises ValueError where the line becomes no cron.
    """
    if job.why:
        raise ValueError(job.why)
    if _OURS.search(f" {job.command} "):
        raise ValueError("This line calls cron-trigger already.")
    if job.schedule == "@reboot":
        return None
    try:
        return parse_schedule(job.schedule).text
    except ValueError as error:
        raise ValueError(f"Invalid schedule: {error}.") from None


def _is_refused(name: str) -> bool:
    """Return whether the registry refuses a variable of this name."""
    own = ("CRON_TRIGGER", "CRON_PARAM_", "CRON_NAME", "CRON_RUN_ID")
    return name.startswith(own) or not VARIABLE_NAME.fullmatch(name)


def _cut(text: str) -> str:
    """Return a description that fits, cut after a sentence or a word."""
    if len(text) <= _DESCRIPTION:
        return text
    sentences = re.match(rf"(.{{1,{_DESCRIPTION - 1}}}\.)(?= [A-Z])", text)
    if sentences:
        return sentences[1]
    return textwrap.shorten(text, _DESCRIPTION, placeholder="…")
