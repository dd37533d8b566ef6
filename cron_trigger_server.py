#!/usr/bin/env python3
"""Start the scripts of a host's crontab on request, once at a time, and record it.

One ``http.server`` process looks a cron up in a JSON registry, takes its lock, starts
its script under a small ``sh`` keeper, and answers at once.  The keeper, not this
server, holds the lock and writes the exit status, so a server that is killed at any
moment loses no run.  Everything that was asked for and everything that ended stands
in one SQLite file.

A run's life::

    trigger -> flock NAME.pid -> row "running" -> keeper (sh) -> script ... exit
                  |                                   |                      |
                  | held: 409                         | PID into NAME.pid    | status
                  v                                                          v
               refused            row "completed|failed|..." <- pidfd <- NAME.pid

This file, from top to bottom (a section uses only those above it):

    Constants       limits and texts
    Errors          Refusal (an answer to a client), ConfigError (ends the start)
    Values          settings, crons and their parameters, runs
    Registry        crons.json, validated whole, read again when it changes
    Lock            PID files, keepers and the processes of a run
    Store           the history, in SQLite, or in memory while it can't be written
    Logs            the log of each cron, the server's own
    Loop            the one background thread: pidfds, timers, sockets
    Runner          trigger, watch, cancel, settle, scheduled triggers
    Events          server-sent events and notifications
    HTTP            connections, access, routes
    Daemon          a server's life, systemd
    Doctor          what goes wrong in practice, and its remedies
    Command line    serve, run, list, history, check, doctor

Threads: *main* accepts connections and handles signals; *waiter* runs the loop; one
thread for each open connection; a *pruner* and a *notifier* while they have work.

Locks, in the order in which they may be taken:

    a cron's mutex (Runner)   one launch or end of that cron at a time in this process
    Runner._turn              launches one after the other: for speed, not for safety
    Store._lock               the SQLite connection and what is not written yet
    Runner._lock              the tables of active runs, never held while waiting

Between processes, ``flock`` on the PID file decides who runs a cron, and an SQL
``update ... where status = 'running'`` decides who records its end.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import errno
import fcntl
import functools
import hashlib
import heapq
import hmac
import http
import http.client
import http.server
import ipaddress
import itertools
import json
import math
import os
import queue
import re
import select
import selectors
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timezone
from pathlib import Path
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

if sys.version_info < (3, 9):  # noqa: UP036 - below, there would be a traceback
    sys.exit("cron-trigger-server needs Python 3.9 or newer: install a newer python3.")

# ======================================================================= Constants
# Limits of the service.  A limit that a client can meet is named in its refusal.

VERSION = "1.0.0"
SERVICE = "cron-trigger-server"

#: sysexits.h: a wrong call, a temporary failure, a wrong configuration.
EX_USAGE, EX_TEMPFAIL, EX_CONFIG = 64, 75, 78

CRON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
#: What ends a line, or turns the order of what follows, in some programs' eyes.
LINE_CONTROL = re.compile("[\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: What Python makes of bytes of a command line that are not UTF-8 (PEP 383).
SURROGATE = re.compile("[\ud800-\udfff]")

REGISTRY_BYTES = 16 << 20
#: Levels of JSON: a registry has five, a request three.
NESTING = 20
#: A change within this time of the last read may not show in the file's times.
REGISTRY_RACY_S = 0.1

#: The longest value of a string parameter: bounds the work of a `pattern` as well.
PARAMETER_CHARS = 1000
PATTERN_S = 1.0
REQUESTED_BY_CHARS = 200
INTEGER_LIMIT = 2**63

CANCEL_GRACE_S = 10.0
#: A scheduled trigger that came due while the server was down still runs this late.
SCHEDULE_LATE_S = 3600.0
SCHEDULED_LIMIT = 1000
SCHEDULED_ENDED_SHOWN = 50
IDEMPOTENCY_S = 86400.0
RECENT_RUNS = 30
RUNS_PAGE, RUNS_PAGE_LIMIT = 50, 500
EVENTS_KEPT = 20000
PRUNE_EVERY_S = 86400.0
STORE_RETRY_S = 1.0
FOLLOW_POLL_S = 0.02
TURN_S = 0.05
FIND_AGAIN_S = 0.05
#: No exec takes longer, however loaded the host is.
EXEC_S = 60.0

#: Interpreters by a script's ending; `.ts` is looked up when it is needed.
INTERPRETERS = {".sh": "bash", ".py": "python3", ".js": "node"}
NODE_STRIPS_TYPES = (22, 18)
INTERPRETER_NAME = re.compile(
    r"(?:ba|da|z|k)?sh|python[\d.]*|node|tsx|perl|ruby|php[\d.]*"
)

RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
TIMED_OUT = "timed_out"
INTERRUPTED = "interrupted"
ENDED_STATUSES = (COMPLETED, FAILED, CANCELLED, TIMED_OUT, INTERRUPTED)
RUN_STATUSES = (RUNNING, *ENDED_STATUSES)

PENDING = "pending"
FIRED = "fired"
MISSED = "missed"
SKIPPED = "skipped"

# ========================================================================== Errors
# Raised early, caught once: a Refusal by the HTTP handler or the command line,
# a ConfigError by `main`.

#: Every code that an answer may carry, and its HTTP status.
STATUS_OF_CODE = {
    "invalid_request": 400,
    "invalid_params": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_cron": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "already_running": 409,
    "not_running": 409,
    "not_pending": 409,
    "too_many_scheduled": 409,
    "length_required": 411,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected_request": 421,
    "idempotency_mismatch": 422,
    "too_many_attempts": 429,
    "launch_failed": 500,
    "overloaded": 503,
    "shutting_down": 503,
    "history_unavailable": 503,
}


class Refusal(Exception):
    """A request that is not carried out: one sentence, a code, and what belongs to it.

    `extra` goes into the JSON answer as it is; `headers` into its head.
    """

    def __init__(
        self,
        code: str,
        message: str,
        headers: Optional[Mapping[str, str]] = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF_CODE[code]
        self.headers = dict(headers or {})
        self.extra = extra

    def answer(self) -> Dict[str, Any]:
        """Return the JSON object that every error has."""
        head = {"success": False, "error": self.message, "code": self.code}
        return {**head, **self.extra}


class ConfigError(Exception):
    """A setting that does not hold; its text names the setting, value and remedy."""


class LaunchError(Exception):
    """A script that can't be started; its text says which, why, and the remedy."""


# ========================================================================== Values
# Frozen: settings, crons and their parameters, runs, scheduled triggers.


def now_text(epoch_s: Optional[float] = None) -> str:
    """Return a time (default: now) as ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(
        time.time() if epoch_s is None else epoch_s, timezone.utc
    )
    return moment.isoformat(timespec="milliseconds")


def epoch_of(text: str) -> float:
    """Return the POSIX time of an ISO 8601 text with an offset; else ValueError.

    `datetime.fromisoformat` takes neither `Z` nor one digit of a fraction before
    Python 3.11, and much more than RFC 3339 since: the form is checked here.
    """
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?"
        r"(Z|z|[+-]\d\d:?\d\d)",
        text,
        re.ASCII,
    )
    if not match:
        raise ValueError("not an ISO 8601 time with an offset")
    day, minutes, seconds, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset
    offset = offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    moment = datetime.fromisoformat(f"{day}T{minutes}{seconds or ':00'}{offset}")
    return moment.timestamp() + float(fraction or 0)


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as `1m30s`; else ValueError."""
    match = DURATION.fullmatch(text)
    hours, minutes, seconds = (
        (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    )
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise ValueError("not a duration")
    return float(total)


def duration_text(duration_ms: Optional[int]) -> str:
    """Return a duration for people: `85 ms`, `2.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if duration_ms is None:
        return "-"
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    seconds = duration_ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def signal_name(exit_code: Optional[int]) -> Optional[str]:
    """Return the signal that a shell's exit status (128 + number) stands for."""
    if exit_code is None or exit_code <= 128:
        return None
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return None


def printable(text: str, limit: int = 500) -> str:
    """Return `text` on one line, safe for a log or terminal: CWE-117, CWE-150."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut
    )


R = TypeVar("R")


def replace(record: R, **changes: Any) -> R:
    """Do as `dataclasses.replace`, which sets each field by a call of its own.

    Each run is changed some eight times, four of them before its script starts.
    """
    changed = object.__new__(type(record))
    vars(changed).update(vars(record), **changes)
    return changed


@dataclass(frozen=True)
class Settings:
    """All that the environment and the flags decide.  Paths are absolute."""

    registry: Path
    log_dir: Path
    state_dir: Path
    run_dir: Path
    host: str = "0.0.0.0"
    port: int = 9998
    secret: Optional[bytes] = None
    allow: Tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...] = ()
    allowed_hosts: Tuple[str, ...] = ()
    allowed_origins: Tuple[str, ...] = ()
    history_days: int = 90
    notify_url: Optional[str] = None

    @property
    def history(self) -> Path:
        return self.state_dir / "history.db"

    def pid_file(self, cron_name: str) -> str:
        return f"{self.run_dir}/{cron_name}.pid"


Json = Any
ParameterValue = Union[str, int, float, bool]

#: Made once: `json.dumps` makes an encoder for each call with options.
json_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Parameter:
    """One parameter of a cron, defined in JSON Schema's words."""

    name: str
    type: str
    title: Optional[str] = None
    description: Optional[str] = None
    default: Optional[ParameterValue] = None
    enum: Optional[Tuple[ParameterValue, ...]] = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    min_length: Optional[int] = None
    max_length: Optional[int] = None
    pattern: Optional[str] = None
    format: Optional[str] = None
    required: bool = False

    @property
    def secret(self) -> bool:
        return self.format == "password"

    @property
    def variable(self) -> str:
        """The environment variable that carries the value."""
        return "CRON_PARAM_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    def view(self) -> Dict[str, Json]:
        """Return the definition for clients, without a password's default."""
        hidden = {"name"} | ({"default", "enum"} if self.secret else set())
        words = {"min_length": "minLength", "max_length": "maxLength"}
        unasked = ("required", False)
        return {
            words.get(key, key): list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key not in hidden and value is not None and (key, value) != unasked
        }

    def fault_of(self, value: Json) -> Optional[str]:
        """Return why `value` is not admitted, in words, or None where it is."""
        checks = (
            self._type_fault,
            self._enum_fault,
            self._bounds_fault,
            self._text_fault,
        )
        return next(filter(None, (check(value) for check in checks)), None)

    def _type_fault(self, value: Json) -> Optional[str]:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = number and float(value).is_integer() if _finite(value) else False
        admitted = {
            "string": isinstance(value, str),
            "integer": whole and abs(value) < INTEGER_LIMIT,
            "number": number and _finite(value),
            "boolean": isinstance(value, bool),
        }[self.type]
        if admitted:
            return None
        return f"expected {_article(self.type)}, got {_shown(value, self.secret)}"

    def _enum_fault(self, value: Json) -> Optional[str]:
        if self.enum is None or value in self.enum:
            return None
        choices = ", ".join(json.dumps(v, ensure_ascii=False) for v in self.enum)
        if self.secret:
            return "expected one of the listed values"
        return f"expected one of {choices}, got {_shown(value, self.secret)}"

    def _bounds_fault(self, value: Json) -> Optional[str]:
        if isinstance(value, (str, bool)):
            return None
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {value_text(self.minimum)}, got {_shown(value)}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {value_text(self.maximum)}, got {_shown(value)}"
        return None

    def _text_fault(self, value: Json) -> Optional[str]:
        if not isinstance(value, str):
            return None
        longest = min(self.max_length or PARAMETER_CHARS, PARAMETER_CHARS)
        if self.max_length == 0:
            longest = 0
        if len(value) > longest:
            return f"must have at most {longest} characters, got {len(value)}"
        if len(value) < (self.min_length or 0):
            return f"must have at least {self.min_length} characters, got {len(value)}"
        if CONTROL_CHARACTER.search(value):
            return "must not hold control characters"
        if SURROGATE.search(value):
            return "must be text in UTF-8"
        fault = pattern_fault(self.pattern, value)
        if fault:
            return fault
        if self._looks_like_option(value):
            return 'must not begin with "-": it could be taken for an option'
        return _format_fault(self.format, value)

    def _looks_like_option(self, value: str) -> bool:
        admitted = self.pattern is not None or self.enum is not None
        return value.startswith("-") and not admitted

    def from_text(self, text: str) -> Json:
        """Return the value that `text` from a command line stands for.

        A text that is none of this type's comes back as it is, for `fault_of`.
        """
        if self.type == "boolean":
            return {"true": True, "false": False}.get(text.lower(), text)
        numeric = self.type in ("integer", "number")
        if numeric and re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
            return int(text)
        # Not all that `float` takes: "nan", "1_0" and " 1" are no numbers here.
        decimal = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
        if self.type == "number" and re.fullmatch(decimal, text, re.ASCII):
            return float(text)
        return text


def pattern_fault(pattern: Optional[str], value: str) -> Optional[str]:
    """Return why a text does not match a registry's pattern, or None where it does.

    Python's `re` may take for ever, and no other thread runs meanwhile (ReDoS,
    CWE-1333): `([a-z]+-?)+` does on thirty letters and a dot.  A pattern that is not
    fast at first sight is tried in a process of its own, which has a second.
    """
    if pattern is None:
        return None
    try:
        slow = not _fast(pattern)
        held = _matches_apart(pattern, value) if slow else re.fullmatch(pattern, value)
    except (subprocess.TimeoutExpired, OSError):
        return f"can't be compared with the pattern {pattern} within {PATTERN_S:g} s"
    return None if held else f"must match the pattern {pattern}"


def _fast(pattern: str) -> bool:
    """Tell whether matching at most 1000 characters surely takes milliseconds.

    So it is with at most two quantifiers, none of them on a group, and three groups.
    """
    text = re.sub(r"\\[^1-9]|\[\^?\]?[^]]*\]", "x", pattern)
    quantifiers = re.findall(r"[*+]|\{\d*,|(?<!\()\?", text)
    hard = re.search(r"\)[*+?{]|\\[1-9]|\(\?[^:]", text)
    return not hard and len(quantifiers) <= 2 and text.count("(") <= 3


#: How many patterns are tried at once: a crowd of them must not fill the machine.
PATTERN_PLACES = threading.BoundedSemaphore(2)


def _matches_apart(pattern: str, value: str) -> bool:
    """Match in a process that is killed after a second; raises TimeoutExpired.

    And Refusal `overloaded`, where others are being tried: that says nothing of the
    value.
    """
    # By standard input: everybody may see a process's arguments, passwords among them.
    code = (
        "import re, sys\n"
        "value, pattern = sys.stdin.buffer.read().decode().split('\\0', 1)\n"
        "sys.exit(not re.fullmatch(pattern, value))"
    )
    if not PATTERN_PLACES.acquire(timeout=PATTERN_S):
        raise Refusal(
            "overloaded",
            "Other parameters are being compared with slow patterns; try again in a "
            "moment.",
            {"Retry-After": "1"},
        )
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            input=f"{value}\0{pattern}".encode(),
            # Some Pythons do not even start without it.
            env={n: v for n, v in os.environ.items() if n == "LD_LIBRARY_PATH"},
            stderr=subprocess.DEVNULL,
            timeout=PATTERN_S,
            check=False,
        )
    finally:
        PATTERN_PLACES.release()
    if ended.returncode not in (0, 1):
        raise OSError(f"it ended with {ended.returncode}")
    return ended.returncode == 0


def _finite(value: Json) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _shown(value: Json, secret: bool = False) -> str:
    """Return a refused value for a message, short, and never a password."""
    if secret:
        return "another value"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _format_fault(name: Optional[str], value: str) -> Optional[str]:
    """Return why a text is no `date` or `date-time` (RFC 3339), or None."""
    try:
        if name == "date":
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
                raise ValueError
            date.fromisoformat(value)
        if name == "date-time":
            epoch_of(value)
    except (ValueError, OverflowError):
        example = "2026-11-23" if name == "date" else "2026-11-23T10:00:00+01:00"
        return f"expected a {name} such as {example}"
    return None


def value_text(value: ParameterValue) -> str:
    """Return a parameter's value as a script gets it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Cron:
    """An entry of the registry that holds."""

    name: str
    description: str
    command: Tuple[str, ...]
    folder: Path
    log_dir: Path = Path()
    log_file: Optional[str] = None
    estimated_duration: Optional[str] = None
    timeout_s: Optional[float] = None
    working_directory: Optional[str] = None
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    notify: str = "always"

    @functools.cached_property
    def log_path(self) -> str:
        """Where this cron logs; an absolute `logFile` stays as it is."""
        return str(self.log_dir / (self.log_file or f"{self.name}.log"))

    @functools.cached_property
    def directory(self) -> Path:
        """Return the working directory of the script."""
        return self.folder / (self.working_directory or "")

    def resolve(self, given: Mapping[str, Json]) -> Dict[str, ParameterValue]:
        """Return the parameters of a run, defaults filled in; else `invalid_params`."""
        errors = {
            printable(name, 80): "is not a parameter of this cron"
            for name in given
            if name not in self.parameters
        }
        values: Dict[str, ParameterValue] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name, parameter.default)
            if value is None and name not in given:
                if parameter.required:
                    errors[name] = "is required"
                continue
            fault = parameter.fault_of(value)
            if fault:
                errors[name] = fault
            else:
                values[name] = int(value) if parameter.type == "integer" else value
        if errors:
            listed = "; ".join(f"{name} {why}" for name, why in errors.items())
            raise Refusal(
                "invalid_params",
                f'The parameters of "{self.name}" do not hold: {listed}.',
                errors=errors,
            )
        return values

    def shown(self, values: Mapping[str, ParameterValue]) -> Dict[str, ParameterValue]:
        """Return the values that may be kept and shown: all but passwords."""
        return {n: v for n, v in values.items() if not self.parameters[n].secret}

    def arguments(self, values: Mapping[str, ParameterValue]) -> List[str]:
        """Return the command's elements after the first, placeholders filled in."""
        texts = {n: value_text(v) for n, v in values.items()}
        absent = {f"{{{name}}}" for name in self.parameters if name not in texts}
        return [
            self._filled(element, texts)
            for element in self.command[1:]
            if element not in absent
        ]

    def _filled(self, element: str, texts: Mapping[str, str]) -> str:
        # One pass: a value that holds "{other}" is not looked at again.
        return re.sub(
            r"\{([A-Za-z0-9_-]+)\}",
            lambda match: (
                texts.get(match[1], "") if match[1] in self.parameters else match[0]
            ),
            element,
        )


@dataclass(frozen=True)
class Run:
    """One execution of a cron: a row of `cron_executions`.  Times are ISO 8601, UTC."""

    id: int
    cron_name: str
    status: str
    exit_code: Optional[int] = None
    signal: Optional[str] = None
    started_at: str = ""
    completed_at: Optional[str] = None
    duration_ms: Optional[int] = None
    trigger: str = "http"
    requested_by: Optional[str] = None
    client: Optional[str] = None
    pid: Optional[int] = None
    params: Mapping[str, ParameterValue] = field(default_factory=dict)
    log_file: Optional[str] = None
    cpu_seconds: Optional[float] = None
    max_rss_bytes: Optional[int] = None
    cancelled_by: Optional[str] = None
    error: Optional[str] = None
    #: What a cancel or a time limit decided before the script ended.
    end_reason: Optional[str] = None
    #: Where this run's part of its log begins and ends, and in which file.
    log_inode: Optional[int] = None
    log_start: Optional[int] = None
    log_end: Optional[int] = None

    @property
    def running(self) -> bool:
        return self.status == RUNNING

    def view(self) -> Dict[str, Json]:
        """Return the run as clients see it."""
        # A dataclass keeps its values in the order of its fields.
        return dict(zip(RUN_SHOWN, vars(self).values()))

    def outcome(self) -> str:
        """Return how the run ended, for people: `exit 0 after 2.1 s`."""
        how = self.signal and f"killed by {self.signal}"
        if how is None and self.exit_code is not None:
            how = f"exit {self.exit_code}"
        how = how or self.error or "exit status unknown"
        if self.duration_ms is None:
            return how
        return f"{how} after {duration_text(self.duration_ms)}"

    def asked_by(self) -> str:
        """Return who asked, for people: `http 172.18.0.5, requested by admin`."""
        source = f"{self.trigger} {self.client}" if self.client else self.trigger
        if not self.requested_by:
            return source
        return f"{source}, requested by {printable(self.requested_by)}"


@functools.cache
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


RUN_COLUMNS = tuple(f.name for f in fields(Run))
#: What a client sees of these, the first ones, as it sees them named.
RUN_SHOWN = tuple(map(_camel, RUN_COLUMNS[: RUN_COLUMNS.index("end_reason")]))


@dataclass(frozen=True)
class Scheduled:
    """A scheduled trigger: a row of `scheduled_triggers`."""

    id: int
    cron_name: str
    run_at: str
    status: str = PENDING
    params: Mapping[str, ParameterValue] = field(default_factory=dict)
    requested_by: Optional[str] = None
    run_id: Optional[int] = None
    reason: Optional[str] = None
    created_at: str = ""
    client: Optional[str] = None

    @property
    def due_s(self) -> float:
        return epoch_of(self.run_at)

    def view(self) -> Dict[str, Json]:
        """Return the scheduled trigger as clients see it."""
        shown = SCHEDULED_COLUMNS[: SCHEDULED_COLUMNS.index("client")]
        return {_camel(name): getattr(self, name) for name in shown}


SCHEDULED_COLUMNS = tuple(f.name for f in fields(Scheduled))


@dataclass(frozen=True)
class Trigger:
    """A request for a run, from whichever side."""

    cron_name: str
    source: str
    params: Mapping[str, Json] = field(default_factory=dict)
    requested_by: Optional[str] = None
    client: Optional[str] = None
    idempotency_key: Optional[str] = None
    scheduled: Optional[Scheduled] = None
    run_at: Optional[str] = None

    def digest(self) -> str:
        """Return a hash of the contents, salted with the key.

        The key as salt, because a password may be among the contents and the hash
        outlives the request.
        """
        contents = [self.cron_name, dict(self.params), self.requested_by, self.run_at]
        text = json.dumps([self.idempotency_key, contents], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# ======================================================================== Registry
# crons.json.  A file is taken whole or not at all; every fault is named with its
# place.  Nothing that a request holds becomes a path or a program: those come from
# here.


class _Object(Dict[str, Json]):
    """A JSON object that remembers the keys it was given twice."""

    def __init__(self, pairs: Sequence[Tuple[str, Json]]) -> None:
        super().__init__(pairs)
        self.twice: List[str] = []
        if len(self) < len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            self.twice = [key for key, count in counts.items() if count > 1]


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999
        raise ValueError(f"{text[:40]} is too large a number")
    return number


#: Made once: `json.loads` makes a decoder for each call with options.
STRICT_READER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_finite_number, parse_constant=_no_json
)


def parse_json(text: str) -> Json:
    """Return what strict JSON says: no NaN, no endless nesting; else ValueError.

    Objects come back as `_Object`, so that a key given twice can be refused.
    """
    try:
        value = STRICT_READER.decode(text)
        _check_depth(value)
        # A lone surrogate ("\ud800") parses, and fails wherever it is written.
        if "\\" in text:
            json_text(value).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _check_depth(value: Json) -> None:
    """Refuse what is nested so deeply that it could not be written again."""
    level = [value]
    for _ in range(NESTING):
        objects = [inner.values() for inner in level if isinstance(inner, dict)]
        arrays = [inner for inner in level if isinstance(inner, list)]
        level = list(itertools.chain(*objects, *arrays))
        if not level:
            return
    raise ValueError("it is nested too deeply")


class Checker:
    """Checks a registry and collects its faults, each with its place."""

    def __init__(self, path: Path, log_dir: Path) -> None:
        self.path = path
        self.faults: List[str] = []
        self._log_dir = log_dir
        own = str(log_dir / f"{SERVICE}.log")
        self._log_owners = {os.path.normpath(own): SERVICE}

    def fault(self, place: Sequence[str], what: str) -> None:
        """Note a fault: `crons.json: "index-kb": timeout: expected ...`."""
        head = [self.path.name, *place]
        self.faults.append(": ".join([*head, what]))

    def crons(self, text: str) -> Dict[str, Cron]:
        """Return the crons that hold; `faults` says what is wrong with the others."""
        try:
            document = parse_json(text)
        except ValueError as error:
            self.fault([], f"this is not JSON: {error}")
            return {}
        if not isinstance(document, dict):
            self.fault([], f"expected an object, got {_shown(document)}")
            return {}
        self._twice([], document)
        crons = {}
        for name, entry in document.items():
            cron = self._cron(name, entry)
            if cron:
                crons[name] = cron
        return crons

    def _twice(self, place: Sequence[str], value: Json) -> None:
        for key in getattr(value, "twice", ()):
            shown = printable(key, 80)
            self.fault([*place, shown if place else f'"{shown}"'], "is given twice")

    def _cron(self, name: str, entry: Json) -> Optional[Cron]:
        place = [f'"{printable(name, 80)}"']
        before = len(self.faults)
        if not CRON_NAME.fullmatch(name):
            rule = "a letter or digit, then up to 63 letters, digits, dots, _ or -"
            self.fault(place, f"a cron's name is {rule}")
        if name == SERVICE:
            self.fault(place, "this name is reserved for the server itself")
        if not isinstance(entry, dict):
            self.fault(place, f"expected an object, got {_shown(entry)}")
            return None
        self._twice(place, entry)
        self._keys(place, entry)
        values = {
            attribute: self._value(place, key, reader, entry[key])
            for key, (attribute, reader) in self._entry_keys().items()
            if key in entry
        }
        values["parameters"] = values.get("parameters") or {}
        self._placeholders(place, values)
        self._shared_log(name, values.get("log_file"))
        if len(self.faults) > before:
            return None
        return Cron(
            name=name, folder=self.path.parent, log_dir=self._log_dir, **values
        )

    def _keys(self, place: Sequence[str], entry: Mapping[str, Json]) -> None:
        known = self._entry_keys()
        for key in entry:
            if key not in known:
                names = ", ".join(known)
                self.fault([*place, printable(key, 80)], f"expected one of {names}")
        for key in ("description", "command"):
            if key not in entry:
                self.fault([*place, key], "is required")

    def _entry_keys(self) -> Dict[str, Tuple[str, Callable[[List[str], Json], Any]]]:
        """Return each key of an entry with its attribute and its reader."""
        return {
            "description": ("description", self._text),
            "command": ("command", self._command),
            "logFile": ("log_file", self._log_file),
            "estimatedDuration": ("estimated_duration", self._duration_text),
            "timeout": ("timeout_s", self._duration),
            "workingDirectory": ("working_directory", self._text),
            "environment": ("environment", self._environment),
            "parameters": ("parameters", self._parameters),
            "notify": ("notify", self._notify),
        }

    def _value(
        self, place: List[str], key: str, reader: Callable[..., Any], value: Json
    ) -> Any:
        return reader([*place, key], value)

    def _text(self, place: List[str], value: Json) -> Optional[str]:
        if not isinstance(value, str) or not value.strip():
            self.fault(place, f"expected a text, got {_shown(value)}")
            return None
        if "\x00" in value:
            self.fault(place, "must not hold a NUL character")
        return value

    def _command(self, place: List[str], value: Json) -> Tuple[str, ...]:
        elements = [value] if isinstance(value, str) else value
        held = (
            isinstance(elements, list)
            and elements
            and all(isinstance(e, str) and "\x00" not in e for e in elements)
        )
        if not held or not elements[0].strip():
            self.fault(
                place,
                "expected a script's path or an array of texts that begins with "
                f"one, got {_shown(value)}",
            )
            return ()
        return tuple(elements)

    def _log_file(self, place: List[str], value: Json) -> Optional[str]:
        text = self._text(place, value)
        if text is None or os.path.isabs(text):
            return text
        if "/" in text or text in (".", ".."):
            self.fault(
                place,
                "expected a file name in the log folder or an absolute path, "
                f"got {_shown(value)}",
            )
        return text

    def _duration(self, place: List[str], value: Json) -> Optional[float]:
        try:
            return duration_s(value)
        except (TypeError, ValueError):
            self.fault(place, f'expected a duration such as "90s", got {_shown(value)}')
            return None

    def _duration_text(self, place: List[str], value: Json) -> Optional[str]:
        return value if self._duration(place, value) else None

    def _notify(self, place: List[str], value: Json) -> str:
        if value not in ("always", "failure", "never"):
            choices = '"always", "failure" or "never"'
            self.fault(place, f"expected {choices}, got {_shown(value)}")
        return str(value)

    def _environment(self, place: List[str], value: Json) -> Dict[str, str]:
        if not isinstance(value, dict):
            # Not shown, here and below: everybody may ask /health for the faults.
            self.fault(place, f"expected an object of texts, got {_shown(value, True)}")
            return {}
        self._twice(place, value)
        for name, text in value.items():
            here = [*place, printable(name, 80)]
            if not VARIABLE_NAME.fullmatch(name):
                self.fault(here, "a variable's name is letters, digits and _")
            if name in ("CRON_NAME", "CRON_RUN_ID") or name.startswith(
                ("CRON_TRIGGER", "CRON_PARAM_")
            ):
                self.fault(here, "this variable is the server's own")
            if not isinstance(text, str) or "\x00" in text:
                self.fault(here, f"expected a text, got {_shown(text, True)}")
        return dict(value)

    def _parameters(self, place: List[str], value: Json) -> Dict[str, Parameter]:
        if not isinstance(value, dict):
            self.fault(place, f"expected an object, got {_shown(value)}")
            return {}
        self._twice(place, value)
        parameters: Dict[str, Parameter] = {}
        variables: Dict[str, str] = {}
        for name, definition in value.items():
            here = [*place, printable(name, 80)]
            parameter = ParameterChecker(self, here).parameter(name, definition)
            if parameter is None:
                continue
            other = variables.setdefault(parameter.variable, name)
            if other != name:
                self.fault(here, f'has the same variable as "{other}"')
            parameters[name] = parameter
        return parameters

    def _placeholders(self, place: List[str], values: Mapping[str, Any]) -> None:
        command = values.get("command") or ()
        for name, parameter in values["parameters"].items():
            holder = f"{{{name}}}"
            if any(holder in element for element in command[:1]):
                self.fault([*place, "command"], f"the program can't hold {holder}")
            if parameter.secret and any(holder in element for element in command):
                why = "a password goes by environment only"
                self.fault([*place, "command"], f"can't hold {holder}: {why}")

    def _shared_log(self, name: str, log_file: Optional[str]) -> None:
        # In a shared log, one run's output could not be told from another's.
        path = os.path.normpath(self._log_dir / (log_file or f"{name}.log"))
        owner = self._log_owners.setdefault(path, name)
        if owner != name:
            self.fault(
                [f'"{printable(name, 80)}"', "logFile"],
                f'"{printable(path)}" is the log of "{printable(owner, 80)}": give '
                "each cron its own",
            )


class ParameterChecker:
    """Checks one parameter's definition."""

    KEYS: Dict[str, Tuple[str, Any]] = {
        "type": ("type", str),
        "title": ("title", str),
        "description": ("description", str),
        "default": ("default", object),
        "enum": ("enum", list),
        "minimum": ("minimum", (int, float)),
        "maximum": ("maximum", (int, float)),
        "minLength": ("min_length", int),
        "maxLength": ("max_length", int),
        "pattern": ("pattern", str),
        "format": ("format", str),
        "required": ("required", bool),
    }
    TYPES = ("string", "integer", "number", "boolean")
    FORMATS = ("date", "date-time", "password")
    OF_TYPE = {
        "minimum": ("integer", "number"),
        "maximum": ("integer", "number"),
        "minLength": ("string",),
        "maxLength": ("string",),
        "pattern": ("string",),
        "format": ("string",),
    }
    WORDS: Dict[Any, str] = {
        str: "a text",
        list: "an array",
        int: "a whole number",
        bool: "a boolean",
    }

    def __init__(self, checker: Checker, place: List[str]) -> None:
        self._checker = checker
        self._place = place

    def parameter(self, name: str, definition: Json) -> Optional[Parameter]:
        """Return the parameter, or None where a fault was noted."""
        before = len(self._checker.faults)
        if not PARAMETER_NAME.fullmatch(name):
            self._fault([], "a parameter's name is letters, digits, _ and -")
        if not isinstance(definition, dict):
            self._fault([], f"expected an object, got {_shown(definition)}")
            return None
        self._checker._twice(self._place, definition)
        of_type = definition.get("type")
        sound = {k: v for k, v in definition.items() if self._holds(k, v, of_type)}
        if "type" not in definition:
            self._fault(["type"], "is required")
        elif isinstance(definition["type"], str) and of_type not in self.TYPES:
            choices = ", ".join(f'"{t}"' for t in self.TYPES)
            self._fault(["type"], f"expected one of {choices}, got {_shown(of_type)}")
        if of_type not in self.TYPES:
            return None
        parameter = self._built(name, sound)
        self._own_values(parameter)
        return parameter if len(self._checker.faults) == before else None

    def _holds(self, key: str, value: Json, of_type: Json) -> bool:
        """Check a key by itself; return False where a fault was noted."""
        before = len(self._checker.faults)
        self._key(key, value, of_type)
        return len(self._checker.faults) == before

    def _fault(self, place: List[str], what: str) -> None:
        self._checker.fault([*self._place, *place], what)

    def _key(self, key: str, value: Json, of_type: Json) -> None:
        if key not in self.KEYS:
            names = ", ".join(self.KEYS)
            self._fault([printable(key, 80)], f"expected one of {names}")
            return
        kind = self.KEYS[key][1]
        stray_boolean = isinstance(value, bool) and kind not in (bool, object)
        if not isinstance(value, kind) or stray_boolean:
            word = self.WORDS.get(kind, "a number")
            self._fault([key], f"expected {word}, got {_shown(value)}")
        elif of_type in self.TYPES and of_type not in self.OF_TYPE.get(key, (of_type,)):
            self._fault([key], f"does not go with the type {of_type}")
        elif key in ("minLength", "maxLength") and value < 0:
            self._fault([key], f"must not be negative, got {value}")
        elif key == "pattern":
            self._pattern(value)
        elif key == "format" and value not in self.FORMATS:
            choices = ", ".join(f'"{f}"' for f in self.FORMATS)
            self._fault([key], f"expected one of {choices}, got {_shown(value)}")

    def _pattern(self, value: str) -> None:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            self._fault(["pattern"], f"is not a regular expression: {error}")

    def _built(self, name: str, definition: Mapping[str, Json]) -> Parameter:
        values = {self.KEYS[key][0]: value for key, value in definition.items()}
        if "enum" in values:
            values["enum"] = tuple(values["enum"])
        return Parameter(name=name, **values)

    def _own_values(self, parameter: Parameter) -> None:
        """Check the definition's own values against its own rules."""
        if parameter.enum is not None and not parameter.enum:
            self._fault(["enum"], "must list at least one value")
        for value in parameter.enum or ():
            self._own_value(parameter, "enum", value)
        if parameter.default is not None:
            self._own_value(parameter, "default", parameter.default)
        for low, high in (("minimum", "maximum"), ("min_length", "max_length")):
            pair = getattr(parameter, low), getattr(parameter, high)
            if None not in pair and pair[0] > pair[1]:
                self._fault([_camel(low)], f"{pair[0]} is above {_camel(high)}")

    def _own_value(self, parameter: Parameter, key: str, value: Json) -> None:
        try:
            fault = parameter.fault_of(value)
        except Refusal as refusal:  # other slow patterns are being tried
            fault = refusal.message
        if fault:
            self._fault([key], fault)


def writable_by_others(path: str, user_id: int) -> Optional[str]:
    """Return who else may replace the file `path`, and the remedy; or None.

    Looks at the file, and at every folder and link on the way to it: whoever may
    write one of them may put another file in this place.
    A sticky folder (/tmp) is held to be safe for what trusted users own in it.
    """
    faults = (_place_fault(*place, user_id) for place in places_of(path))
    return next(filter(None, faults), None)


def folder_fault(folder: str) -> Optional[str]:
    """Return who else may put links into a folder of root's, and the remedy; or None.

    A folder above it may be its group's: Ubuntu's /var/log is that of syslog.
    """
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        if status.st_uid != 0 or status.st_mode & 0o022:
            remedy = f"chown root {folder}; chmod go-w {folder}"
            return f"others may write {folder}: {remedy}"
    faults = (_place_fault(*place, 0, group=False) for place in places_of(folder))
    return next(filter(None, faults), None)


def places_of(path: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Yield all that leads to a file: folders, links and their targets, itself.

    Each link by itself, as the kernel goes: of a chain of links, the one in the middle
    lies neither on the first path nor on the last.  It ends where nothing is there:
    that is somebody else's message.
    """
    left = os.path.join(os.getcwd(), path).split("/")[::-1]
    folder, links = "", 0  # without the slash at its end
    with contextlib.suppress(OSError):
        yield "/", os.lstat("/")
        while left and links <= 40:  # path_resolution(7)
            name = left.pop()
            if name == "..":
                folder = folder.rpartition("/")[0]
            if name in ("", ".", ".."):
                continue
            place = f"{folder}/{name}"
            status = os.lstat(place)
            yield place, status
            if not stat.S_ISLNK(status.st_mode):
                folder = place
                continue
            target = os.readlink(place)
            left += target.split("/")[::-1]
            folder, links = "" if target.startswith("/") else folder, links + 1


def _place_fault(
    place: str, status: os.stat_result, user_id: int, group: bool = True
) -> Optional[str]:
    if status.st_uid not in (0, user_id):
        # It may be somebody's home.
        better = " (better: a folder of root's)" if stat.S_ISDIR(status.st_mode) else ""
        return f"{place} belongs to user {status.st_uid}{better}: chown root {place}"
    if stat.S_ISLNK(status.st_mode):
        return None
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not sticky:
        return f"others may write {place}: chmod o-w {place}"
    if group and status.st_mode & stat.S_IWGRP and not sticky:
        return f"its group may write {place}: chmod g-w {place}"
    return None


def load_registry(path: Path, log_dir: Path) -> Tuple[Dict[str, Cron], List[str]]:
    """Return the crons of a registry file and every fault that it has.

    Where there is a fault, the crons are those that hold; nobody may run them.
    """
    checker = Checker(path, log_dir)
    try:
        unsafe = writable_by_others(str(path), 0) if os.geteuid() == 0 else None
        if unsafe:
            checker.fault([], f"refused, because {unsafe}")
            return {}, checker.faults
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            checker.fault([], f"this is not a file ({path})")
            return {}, checker.faults
        if status.st_size > REGISTRY_BYTES:
            checker.fault([], f"must be at most {REGISTRY_BYTES >> 20} MiB")
            return {}, checker.faults
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        checker.fault([], f"this is not UTF-8: byte {error.start}")
        return {}, checker.faults
    except OSError as error:
        checker.fault([], f"can't be read: {error.strerror} ({path})")
        return {}, checker.faults
    return checker.crons(text), checker.faults


class Registry:
    """The crons in force: the last registry file that held.  Any thread may ask."""

    def __init__(
        self,
        path: Path,
        log_dir: Path,
        on_change: Callable[[Registry], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._log_dir = log_dir
        self.faults: List[str] = []
        #: Goes up with each file that was taken, for caches.
        self.version = 0
        self._crons: Dict[str, Cron] = {}
        self._signature: Optional[Tuple[int, ...]] = None
        self._lock = threading.Lock()
        self._on_change = on_change
        self.reload()

    def crons(self) -> Dict[str, Cron]:
        """Return the crons in force, read again if the file has changed."""
        if self._read_signature() != self._signature:
            self.reload()
        return self._crons

    def get(self, name: str) -> Cron:
        """Return a cron; else `unknown_cron`."""
        crons = self.crons()
        if name in crons:
            return crons[name]
        known = ", ".join(crons) or "none"
        raise Refusal(
            "unknown_cron",
            f'There is no cron "{printable(name, 80)}"; the registry has: '
            f"{printable(known, 400)}.",
            availableCrons=list(crons),
        )

    def reload(self) -> None:
        """Read the file; take it if it holds, else keep the last good one."""
        with self._lock:
            signature = self._read_signature()
            crons, faults = load_registry(self.path, self._log_dir)
            changed = (faults or crons) != (self.faults or self._crons)
            self.faults = faults
            self._signature = signature
            if not faults:
                self._crons = crons
            self.version += changed
        if changed:
            self._on_change(self)

    def _read_signature(self) -> Optional[Tuple[int, ...]]:
        """Return what tells a changed file, or None while that can't be told.

        A file written twice within a tick of the kernel's clock keeps its times, so
        a file that changed just now is read again at the next look.  One with a fault
        is, each second: the remedy may be a chmod of a folder, which it doesn't show.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return (0,)
        age_s = time.time() - status.st_ctime
        mark = int(time.monotonic() * 1e6) if 0 <= age_s < REGISTRY_RACY_S else 0
        if self.faults:
            mark = mark or int(time.monotonic())
        return (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size,
            status.st_mode,
            status.st_uid,
            mark,
        )


# ============================================================================ Lock
# PID files, keepers, processes.
#
#   descriptor   of the keeper             of the script
#   0            NAME.pid, locked          /dev/null
#   1            the cron's log            the cron's log
#   2            /dev/null                 the cron's log
#
# What the keeper says itself ("Terminated") is no part of the script's output.
#
# The lock belongs to the open file, not to a process: it is free when the keeper,
# which alone holds it, is gone.  A PID file holds "PID\n" from the keeper's first
# step on, and "PID\nSTATUS\n" from the script's end on.  It is never unlinked:
# a lock on a file that has lost its name would keep nobody out.

#: `trap :` sets a handler that does nothing: the keeper outlives the signal that
#: ends the script, while the script, unlike with `trap ''`, does not inherit it
#: (POSIX, Shell Command Language, 2.11).
#: `exec` in a subshell: dash applies a command's redirections to itself meanwhile,
#: and would say "Terminated" into the log.
KEEPER = (
    'trap : HUP INT TERM;echo $$>&0;(exec "$@" </dev/null 2>&1);s=$?;echo $s>&0;exit $s'
)
SHELL = "/bin/sh"
PID_FILE_BYTES = 32


def take_lock(path: Union[str, Path]) -> Optional[int]:
    """Return a descriptor that holds the lock of a PID file; None if another has it.

    Raises OSError where the file can't be opened.  O_NOFOLLOW: a link in this place
    would have the server truncate whatever it points to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def empty_pid_file(lock: int) -> None:
    """Have a PID file say nothing, through its locked descriptor.

    Blanks keep the file's place on the disk: a keeper can write its PID and status even
    where the disk is full by now.  They are no line, so nobody reads them.
    """
    blank = b" " * PID_FILE_BYTES
    with contextlib.suppress(OSError):
        if os.pwrite(lock, blank, 0) == len(blank):
            os.ftruncate(lock, len(blank))
            return
    os.ftruncate(lock, 0)


@dataclass(frozen=True)
class PidFile:
    """What a keeper wrote: its PID, then the script's exit status."""

    pid: Optional[int] = None
    exit_code: Optional[int] = None
    written_s: float = 0.0


def read_pid_file(path: Union[str, Path]) -> PidFile:
    """Return what stands in a PID file; an empty PidFile where there is nothing."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except OSError:
        return PidFile()
    with open(descriptor, "rb") as file:
        lines = file.read(64).split(b"\n")[:-1]
        written_s = os.fstat(descriptor).st_mtime
    numbers = [int(line) for line in lines if line.isdigit()]
    pid, exit_code = (*numbers, None, None)[:2]
    return PidFile(pid, exit_code, written_s)


@dataclass(frozen=True)
class Process:
    """A process.  Equal are those of one PID and one start, whatever they run now."""

    pid: int
    group: int
    started: int
    name: str = field(compare=False)


def run_of_process(pid: int) -> Optional[Tuple[str, int, str]]:
    """Return cron name, run id and trigger from a process's environment, or None."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (part.partition(b"=") for part in file.read().split(b"\0"))
            variables = {
                name: value.decode()
                for name, _, value in pairs
                if name in (b"CRON_NAME", b"CRON_RUN_ID", b"CRON_TRIGGER")
            }
        return (
            variables[b"CRON_NAME"],
            int(variables[b"CRON_RUN_ID"]),
            variables.get(b"CRON_TRIGGER", "http"),
        )
    except (OSError, KeyError, ValueError):
        return None


def is_process_of(run: Run, pid: int) -> bool:
    """Return True where a process lives that belongs to a run."""
    owner = run_of_process(pid)
    return owner is not None and owner[:2] == (run.cron_name, run.id)


def is_in_exec(pid: int) -> bool:
    """Return True for a process without an environment, so of nobody can tell whom.

    The kernel tells its parent that the exec went well (it closes the descriptors)
    before it sets up the new environment, and drops that before the exit is told.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return not file.read(1) and bool(_process(pid))
    except OSError:
        return False


def processes_of_run(cron_name: str, run_id: int) -> List[Process]:
    """Return the living processes that the environment tells to be of a run."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        owner = run_of_process(int(entry))
        if owner and owner[:2] == (cron_name, run_id):
            found.extend(_process(int(entry)))
    return found


def _process(pid: int) -> List[Process]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    # The name stands in parentheses and may itself hold parentheses: proc(5).
    name, _, rest = text.partition("(")[2].rpartition(")")
    values = rest.split()
    group, started = int(values[2]), int(values[19])
    return [] if values[0] == "Z" else [Process(pid, group, started, name)]


def script_began(keeper: int) -> bool:
    """Return True once a keeper's child has become the script.

    Until then it is a copy of the keeper, or not there; where /proc does not tell, it
    has begun.
    """

    def arguments(pid: str) -> bytes:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()

    try:
        with open(f"/proc/{keeper}/task/{keeper}/children", "rb") as file:
            children = file.read().decode().split()
        own = arguments(str(keeper))
        return any(arguments(child) != own for child in children)
    except OSError:
        return True


def members_of_group(group: int) -> List[Process]:
    """Return the living processes of a process group."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [p for pid in pids for p in _process(pid) if p.group == group]


def process_age_s(pid: int) -> Optional[float]:
    """Return how long ago a process began, whatever the wall clock did meanwhile.

    None if it is gone.
    """
    found = _process(pid)
    if not found:
        return None
    began_s = found[0].started / os.sysconf("SC_CLK_TCK")  # since the boot: proc(5)
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)


def kill_leftovers(
    cron_name: str, run_id: int, group: int, known: Iterable[Process] = ()
) -> List[Process]:
    """SIGKILL what is left of a run's process group; return what left the group.

    Only for a keeper that is gone.  Its number may have been given to others since,
    so the group is killed only where a process in it is of this run: as its
    environment says, or because it is `known` to have been in it all the time.
    """
    found = processes_of_run(cron_name, run_id)
    left = [process for process in known if process in _process(process.pid)]
    if any(process.group == group for process in (*found, *left)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    return [process for process in found if process.group != group]


class LockTable:
    """Who holds which PID file's lock, read from /proc/locks without taking any.

    Taking a lock to see if it is free would make a crontab's `flock -n` fail just
    then.  The table names files by device and inode; how it writes the device is
    learnt from a lock that this process itself holds in the same folder.
    """

    def __init__(self, run_dir: Path, own_lock: int) -> None:
        self._run_dir = run_dir
        self._own_inode = os.fstat(own_lock).st_ino
        self._names: Dict[int, str] = {}

    def holders(self) -> Dict[str, int]:
        """Return cron name to the holder's PID for each locked PID file."""
        try:
            with open("/proc/locks", encoding="ascii", errors="replace") as file:
                rows = [line.split() for line in file if " FLOCK " in line]
        except OSError:
            return {}
        locks = [
            (row[-4], int(row[-3].rpartition(":")[2]), row[-3].rpartition(":")[0])
            for row in rows
            if "->" not in row
        ]
        device = next((d for _, inode, d in locks if inode == self._own_inode), None)
        held = {inode: int(pid) for pid, inode, d in locks if d == device}
        held.pop(self._own_inode, None)
        if not held.keys() <= self._names.keys():
            self._read_names()
        return {self._names[i]: pid for i, pid in held.items() if i in self._names}

    def _read_names(self) -> None:
        with contextlib.suppress(OSError), os.scandir(self._run_dir) as entries:
            self._names = {
                entry.inode(): entry.name[: -len(".pid")]
                for entry in entries
                if entry.name.endswith(".pid")
            }


def held_locks(run_dir: Path) -> Dict[str, int]:
    """Return cron name to PID for each lock in a folder, without a server's help.

    The lock by which the table's devices are learnt is that of the folder itself.
    """
    try:
        folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return LockTable(run_dir, folder).holders()
    except OSError:
        return {}
    finally:
        os.close(folder)


# =========================================================================== Store
# The history.  One connection, one lock.  A disk that is full, read-only or broken
# never raises from here: what can't be written stays in memory, is shown from there,
# and is written by `retry`, which the loop calls while there is a problem.  Should the
# process be killed before, the next one finds it in its spool.

SCHEMA = """
create table if not exists cron_executions (
  id integer primary key autoincrement,
  cron_name text not null,
  status text not null,
  started_at text not null,
  completed_at text,
  duration_ms integer,
  exit_code integer,
  signal text,
  trigger text not null,
  requested_by text,
  client text,
  pid integer,
  params text not null default '{}',
  log_file text,
  cpu_seconds real,
  max_rss_bytes integer,
  cancelled_by text,
  error text,
  end_reason text,
  log_inode integer,
  log_start integer,
  log_end integer
);
create index if not exists cron_executions_cron on cron_executions (cron_name);
create index if not exists cron_executions_status on cron_executions (status);
create index if not exists cron_executions_running on cron_executions (cron_name)
  where status = 'running';
create table if not exists scheduled_triggers (
  id integer primary key autoincrement,
  cron_name text not null,
  run_at text not null,
  status text not null,
  params text not null default '{}',
  requested_by text,
  run_id integer,
  reason text,
  created_at text not null,
  client text
);
create index if not exists scheduled_triggers_status on scheduled_triggers (status);
create table if not exists idempotency_keys (
  cron_name text not null,
  key text not null,
  digest text not null,
  run_id integer,
  scheduled_id integer,
  created_s real not null,
  primary key (cron_name, key)
) without rowid;
create table if not exists events (
  id integer primary key autoincrement,
  event text not null,
  data text not null
);
create table if not exists run_totals (
  cron_name text not null,
  status text not null,
  runs integer not null,
  duration_ms integer not null,
  last_completed_at text,
  primary key (cron_name, status)
) without rowid;
"""

#: Totals are counted by SQLite itself, in the transaction that records an end.
COUNT_ENDED = """
begin
  insert into run_totals
    values (new.cron_name, new.status, 1, coalesce(new.duration_ms, 0),
            new.completed_at)
    on conflict (cron_name, status) do update set
      runs = runs + 1,
      duration_ms = duration_ms + excluded.duration_ms,
      last_completed_at = max(coalesce(last_completed_at, ''),
                              coalesce(excluded.last_completed_at, ''));
end;
"""
SCHEMA += f"""
create trigger if not exists count_ended_update after update of status
  on cron_executions when old.status = 'running' and new.status <> 'running'
{COUNT_ENDED}
create trigger if not exists count_ended_insert after insert
  on cron_executions when new.status <> 'running'
{COUNT_ENDED}
"""

RUN_ROW = ", ".join(RUN_COLUMNS)
RUN_VALUES = ", ".join("?" * len(RUN_COLUMNS))
#: What the row knows and the run does not stays: a run that was found under way, while
#: the history could not be read, does not know who asked for it.  And an end that was
#: recorded stays as it is: another process may have come first.
RUN_UPSERT = (
    f"insert into cron_executions ({RUN_ROW}) values ({RUN_VALUES}) "
    "on conflict (id) do update set "
    + ", ".join(
        f"{c} = case when cron_executions.status = 'running' "
        f"then coalesce(excluded.{c}, {c}) else coalesce({c}, excluded.{c}) end"
        for c in RUN_COLUMNS
        if c not in ("id", "started_at", "params")
    )
    + " where cron_executions.cron_name = excluded.cron_name and "
    "(cron_executions.started_at = excluded.started_at "
    "or cron_executions.pid = excluded.pid or cron_executions.status = 'running')"
)
END_COLUMNS = (
    *("completed_at", "duration_ms", "exit_code", "signal", "error", "pid"),
    *("cpu_seconds", "max_rss_bytes", "log_end"),
)
RUN_END = (
    "update cron_executions set status = coalesce(end_reason, ?), "
    + ", ".join(f"{c} = ?" for c in END_COLUMNS)
    + " where id = ? and status = 'running'"
)
#: A run as `Run.view` has it, written by SQLite.  `json` alone would fail for a text
#: that somebody else has put into the history.
RUN_JSON = ", ".join(
    f"'{shown}', "
    + ("json(iif(json_valid(params), params, '{}'))" if column == "params" else column)
    for shown, column in zip(RUN_SHOWN, RUN_COLUMNS)
)
SCHEDULED_ROW = ", ".join(SCHEDULED_COLUMNS)
SCHEDULED_VALUES = ", ".join("?" * len(SCHEDULED_COLUMNS))

T = TypeVar("T")


def _row_of(record: Union[Run, Scheduled]) -> Tuple[Any, ...]:
    # A dataclass keeps its values in the order of its fields.
    return (*{**vars(record), "params": json_text(record.params)}.values(),)


def _run_of(row: Sequence[Any]) -> Run:
    # Past `__init__`, which would set each of the fields by a call of its own.
    run = Run.__new__(Run)
    values = vars(run)
    values.update(zip(RUN_COLUMNS, row))
    text = values["params"]
    values["params"] = json.loads(text) if text != "{}" else {}
    return run


def _scheduled_of(row: Sequence[Any]) -> Scheduled:
    values = dict(zip(SCHEDULED_COLUMNS, row))
    return Scheduled(**{**values, "params": json.loads(values["params"])})


def _page_of(
    columns: str, given: Mapping[str, str], before: Optional[int], limit: int
) -> Tuple[str, List[Any]]:
    """Return the query, and its values, for a page of runs, the newest first."""
    # `+status`: the index of the cron is the better one where both are given.
    plus = "+" if "cron_name" in given else ""
    tests = [f"{plus if c == 'status' else ''}{c} = ?" for c in given]
    values: List[Any] = list(given.values())
    if before is not None:
        tests.append("id < ?")
        values.append(min(before, INTEGER_LIMIT - 1))
    where = f"where {' and '.join(tests)} " if tests else ""
    query = f"select {columns} from cron_executions {where}order by id desc limit ?"
    return query, [*values, limit]


@dataclass(frozen=True)
class Event:
    """Something that happened, as `/events` tells it.  `data` is JSON."""

    id: int
    name: str
    data: str


@dataclass(frozen=True)
class Key:
    """An idempotency key and what its first request led to."""

    cron_name: str
    key: str
    digest: str
    created_s: float
    run_id: Optional[int] = None
    scheduled_id: Optional[int] = None


class RunIds:
    """Gives each run its number, whichever process starts it.

    A file of its own beside the PID files, since runs start while the history can't be
    written, or not even be read, and two processes would then give the same number.
    """

    NAME = "last-run-id"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME

    def after(self, last: int) -> int:
        """Return a number above `last` and above each that was given before."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return last + 1
        number = last + 1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # for some microseconds
            text = os.pread(descriptor, 20, 0).strip()
            given = int(text) if text.isdigit() else 0
            number = max(last, given % INTEGER_LIMIT) + 1
            os.pwrite(descriptor, f"{number:019}\n".encode(), 0)
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return number


Record = Union[Run, Scheduled, Key, Event]


class Spool:
    """What a history could not take, in files that outlive their processes.

    Lines of JSON beside the PID files, so in memory in most places, and there when the
    history's disk is full.  Each process appends to a file of its own, whose lock it
    holds; one whose lock is free is of a process that is gone, and whoever takes the
    lock takes its lines over.
    """

    KINDS = {kind.__name__: kind for kind in (Run, Scheduled, Key, Event)}

    def __init__(self, folder: Optional[Path]) -> None:
        """Keep nothing where there is no folder."""
        self._folder = folder
        self._own: Optional[int] = None
        self._held: Dict[str, int] = {}  # path to descriptor: our file, and others'

    def add(self, record: Record) -> None:
        """Append a record; a disk that takes none must not stop anything."""
        # The line feed comes first: a line that was cut short spoils no other.
        line = "\n" + json_text([type(record).__name__, vars(record)])
        with contextlib.suppress(OSError):
            if self._own is None and self._folder is not None:
                self._own = self._created(self._folder)
            if self._own is not None:
                os.write(self._own, line.encode("utf-8", "replace"))

    def _created(self, folder: Path) -> Optional[int]:
        for number in range(100):
            # A dot, which no cron's name begins with.
            path = f"{folder}/.unwritten.{os.getpid()}-{number}"
            if self._locks(path):
                os.lseek(self._held[path], 0, os.SEEK_END)
                return self._held[path]
        return None

    def _locks(self, path: str) -> bool:
        """Lock a file, if it is nobody's; return False if it is, or was removed."""
        lock = take_lock(path)
        if lock is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                self._held[path] = lock
                return True
        os.close(lock)
        return False

    def take_over(self) -> Iterator[Record]:
        """Yield the records of processes that are gone, the oldest file's first."""
        for path in self._left():
            with contextlib.suppress(OSError):
                if self._locks(path):
                    with open(self._held[path], "rb", closefd=False) as file:
                        yield from filter(None, map(self._record, file))

    def _left(self) -> List[str]:
        """Return the files of others."""
        if self._folder is None:
            return []
        found = []
        for path in self._folder.glob(".unwritten.*"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, str(path)))
        return [path for _, path in sorted(found) if path not in self._held]

    def _record(self, line: bytes) -> Optional[Record]:
        # A line may be half of one; an older version's may have other fields.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            kind, values = json.loads(line)
            record: Record = self.KINDS[kind](**values)
            return record
        return None

    def clear(self) -> None:
        """Remove the files: all that was in them is written."""
        for path, descriptor in self._held.items():
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)
        self._held = {}
        self._own = None

    def close(self) -> None:
        """Let go of the files, for others to take them over."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}
        self._own = None


class Unwritten:
    """What the history has not taken yet, by its key in there."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._empty()

    def _empty(self) -> None:
        self.runs: Dict[int, Run] = {}
        self.scheduled: Dict[int, Scheduled] = {}
        self.keys: Dict[Tuple[str, str], Key] = {}
        self.events: List[Event] = []

    def __bool__(self) -> bool:
        return bool(self.runs or self.scheduled or self.keys or self.events)

    def put(self, record: Record) -> None:
        """Keep a record, also for the case that this process is killed."""
        self._take(record)
        self._spool.add(record)

    def _take(self, record: Record) -> None:
        if isinstance(record, Run):
            self.runs[record.id] = record
        elif isinstance(record, Scheduled):
            self.scheduled[record.id] = record
        elif isinstance(record, Event):
            self.events.append(record)
        elif record.digest:
            self.keys[record.cron_name, record.key] = record
        else:  # given back
            self.keys.pop((record.cron_name, record.key), None)

    def take_over(self) -> bool:
        """Take up what others have left; return True if there was something."""
        records = list(self._spool.take_over())
        for record in records:
            self._take(record)
        if not self:
            self._spool.clear()
        return bool(records)

    def clear(self) -> None:
        """Forget all of it: it is written."""
        self._empty()
        self._spool.clear()

    def close(self) -> None:
        """Leave it to others."""
        self._spool.close()


@dataclass(frozen=True)
class Figures:
    """What a cron's history says in numbers.  `recent` is oldest first."""

    runs: int
    completed: int
    recent: Tuple[Run, ...]

    @property
    def success_rate(self) -> Optional[float]:
        return round(self.completed / self.runs, 4) if self.runs else None

    @property
    def median_duration_ms(self) -> Optional[int]:
        durations = sorted(
            run.duration_ms for run in self.recent if run.duration_ms is not None
        )
        if not durations:
            return None
        middle = len(durations) // 2
        if len(durations) % 2:
            return durations[middle]
        return (durations[middle - 1] + durations[middle]) // 2


class Store:
    """The history.  Any thread may call any method; none raises for a disk fault."""

    def __init__(
        self,
        path: Path,
        say: Callable[[str, str], None],
        run_dir: Optional[Path] = None,
    ) -> None:
        """Open a history; one that is to be changed needs the folder of PID files."""
        self.path = path
        self._run_ids = RunIds(run_dir) if run_dir else None
        #: What is wrong with the history now, in one sentence; None if all is well.
        self.problem: Optional[str] = None
        #: Called, under the lock, when a fault was met: to have `retry` called.
        self.on_fault: Callable[[], None] = lambda: None
        self._say = say
        self._lock = threading.RLock()
        self._db: Optional[sqlite3.Connection] = None
        self._unwritten = Unwritten(Spool(run_dir))
        #: The first event whose id another process had given as well, if any.
        self.renumbered: Optional[int] = None
        #: Runs that have begun and not ended: a new history begins with them, should
        #: this one turn out to be corrupt, or be moved or removed.
        self._under_way: Dict[int, Run] = {}
        self._caught_up = False
        #: False where SQLite was built without its JSON functions (before 3.38).
        self._writes_json = False
        self._file = (0, 0)  # device and inode of what _db has open
        self._last_ids = {"cron_executions": 0, "scheduled_triggers": 0, "events": 0}
        self._write(lambda db: None, lambda: None)
        if self.problem is None:
            self.take_over()

    # ---- connection, faults, recovery

    def _connect(self) -> sqlite3.Connection:
        if self._db is not None and not self._in_place():
            self._say("error", f"the history {self.path} was moved or removed in use")
            self._disconnect()
        if self._db is None:
            try:
                self._db = self._opened()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._move_aside(error)
                self._db = self._opened()
            if self._under_way:  # they may be asked for before the next change
                with contextlib.suppress(sqlite3.Error):
                    self._transaction(lambda db: None)
        return self._db

    def _in_place(self) -> bool:
        """Return False where the open file is not the one of that name any more.

        SQLite goes on writing a file that was removed, or that the command line has
        moved aside as corrupt, and nobody would ever read that.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(
            self.path, timeout=0.5, isolation_level=None, check_same_thread=False
        )
        try:
            with contextlib.suppress(OSError):
                os.chmod(self.path, 0o600)
            db.execute("pragma auto_vacuum = incremental")
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            db.execute("pragma cache_size = -256")  # KiB; the kernel caches it all
            db.executescript(SCHEMA)
            for table, last in self._last_ids.items():
                self._last_ids[table] = max(last, self._last_id(db, table))
            self._caught_up = False
            self._writes_json = _has_json(db)
            status = os.stat(self.path)
            self._file = (status.st_dev, status.st_ino)
        except BaseException:
            db.close()
            raise
        return db

    def _last_id(self, db: sqlite3.Connection, table: str) -> int:
        query = "select seq from sqlite_sequence where name = ?"
        rows = db.execute(query, [table]).fetchall()
        return int(rows[0][0]) if rows else 0

    def _catch_up(self, db: sqlite3.Connection) -> None:
        """Tell a history what it missed while it was away.

        Ids that were given meanwhile, which are not given again, and runs under way.
        With the first change, not when it is opened: it may be readable only.
        """
        for table, last in self._last_ids.items():
            if self._last_id(db, table) < last:
                db.execute("delete from sqlite_sequence where name = ?", [table])
                db.execute("insert into sqlite_sequence values (?, ?)", [table, last])
        self._carry_over(db)

    def _carry_over(self, db: sqlite3.Connection) -> None:
        """Give a history that does not know of the runs under way their rows."""
        for run in self._under_way.values():
            query = "select 1 from cron_executions where id = ?"
            if not db.execute(query, [run.id]).fetchall():
                db.execute(RUN_UPSERT, _row_of(run))

    def _move_aside(self, error: Exception) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._say(
            "error",
            f"the history {self.path} is corrupt ({error}): it was moved to {aside} "
            "and a new one begun",
        )

    def _fault(self, error: Exception) -> None:
        """Note a fault; from here on, memory takes what the history can't."""
        if not self._is_readable(error):
            self._disconnect()
        if _is_corrupt(error):
            with contextlib.suppress(OSError):
                self._move_aside(error)
        problem = (
            f"The history {self.path} can't be written ({error}): what happens is "
            "kept aside until it can; free some space or mend its folder's permissions."
        )
        if self.problem != problem:
            self._say("error", problem)
        self.problem = problem
        self.on_fault()

    def _is_readable(self, error: Exception) -> bool:
        """Return True where the history can be read on, as on a full disk.

        Opened again it could not be: SQLite would make files beside it.
        """
        passing = any(word in str(error) for word in ("is full", "is locked"))
        return passing and self._db is not None and not self._db.in_transaction

    def _write(
        self, change: Callable[[sqlite3.Connection], T], otherwise: Callable[[], T]
    ) -> T:
        """Make one change in a transaction of its own; else do it in memory."""
        with self._lock:
            if self.problem is None:
                try:
                    return self._transaction(change)
                except (sqlite3.Error, OSError) as error:
                    self._fault(error)
            return otherwise()

    def _transaction(self, change: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connect()
        db.execute("begin immediate")
        try:
            if not self._caught_up:
                self._catch_up(db)
            result = change(db)
            db.execute("commit")
            self._caught_up = True
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("rollback")
            raise
        return result

    def _read(self, query: str, values: Sequence[Any] = ()) -> List[Tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connect().execute(query, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                self._fault(error)
                return self._read_only(query, values)

    def _read_only(self, query: str, values: Sequence[Any]) -> List[Tuple[Any, ...]]:
        """Read a history that can't be opened for writing; nothing if there is none.

        `immutable` reads the file alone: where no other can be made beside it, as on a
        full disk, SQLite opens it in no other way.
        """
        place = f"file:{urllib.parse.quote(str(self.path))}"
        for mode in ("mode=ro", "immutable=1"):
            with contextlib.suppress(sqlite3.Error):
                db = sqlite3.connect(f"{place}?{mode}", uri=True)
                with contextlib.closing(db):
                    return db.execute(query, values).fetchall()
        return []

    def take_over(self) -> None:
        """Take up what a process that is gone could not write, and write it.

        While there is a problem that is for the server alone: a command line would
        keep it from the server for as long as its script runs.
        """
        with self._lock:
            if not self._unwritten.take_over():
                return
            last = self._last_ids
            ids = {
                "cron_executions": self._unwritten.runs,
                "events": (event.id for event in self._unwritten.events),
            }
            last.update((t, max(last[t], *given, 0)) for t, given in ids.items())
            if self.problem is None and self._flush():
                self.renumbered = None  # nobody was sent what is new here

    def retry(self) -> bool:
        """Try to write what is in memory.  Return True if all is well again."""
        with self._lock:
            if self.problem is None:
                return True
            if not self._flush():
                return False
            self.problem = None
            self.take_over()
        self._say("notice", f"the history {self.path} can be written again")
        return True

    def _flush(self) -> bool:
        try:
            self._transaction(self._write_unwritten)
        except (sqlite3.Error, OSError) as error:
            self._fault(error)
            return False
        self._unwritten.clear()
        return True

    def _write_unwritten(self, db: sqlite3.Connection) -> None:
        left = self._unwritten
        known = {number: self._known(db, run) for number, run in left.runs.items()}
        for run in left.runs.values():
            if not db.execute(RUN_UPSERT, _row_of(run)).rowcount:
                # Its number is another run's, which is never overwritten.
                self._insert_run(db, replace(run, id=self._next_run_id(db)))
        for scheduled in left.scheduled.values():
            self._replace_scheduled(db, scheduled)
        for key in left.keys.values():
            self._put_key(db, key)
        for event in left.events:
            if not _is_told(event, known):
                self._write_event(db, event)

    def _known(self, db: sqlite3.Connection, run: Run) -> Tuple[Any, ...]:
        """Return status and PID of a run as the history has them, if it does."""
        query = (
            "select status, pid from cron_executions where id = ? and cron_name = ? "
            "and (started_at = ? or pid = ?)"
        )
        values = [run.id, run.cron_name, run.started_at, run.pid]
        rows = db.execute(query, values).fetchall()
        return rows[0] if rows else (RUNNING, None)

    def _write_event(self, db: sqlite3.Connection, event: Event) -> None:
        """Write an event that was told already, with its id if that is still free."""
        row = (event.id, event.name, event.data)
        query = "insert or ignore into events values (?, ?, ?)"
        if db.execute(query, row).rowcount:
            return
        same = "select 1 from events where id = ? and event = ? and data = ?"
        if db.execute(same, row).fetchall():
            return  # this process, or one before it, was killed just after it wrote
        db.execute(query, (None, *row[1:]))
        self.renumbered = min(event.id, self.renumbered or event.id)

    def _next_run_id(self, db: Optional[sqlite3.Connection] = None) -> int:
        last = self._last_ids["cron_executions"]
        if db is not None:
            last = max(last, self._last_id(db, "cron_executions"))
        elif self._file == (0, 0):  # it could never be opened
            query = "select seq from sqlite_sequence where name = 'cron_executions'"
            last = max(last, *(row[0] for row in self._read_only(query, [])), 0)
        number = self._run_ids.after(last) if self._run_ids else last + 1
        self._last_ids["cron_executions"] = number
        return number

    def seed_ids(self, run_id: int) -> None:
        """Learn that a run of this id exists, though the history does not know it."""
        with self._lock:
            self._last_ids["cron_executions"] = max(
                run_id, self._last_ids["cron_executions"]
            )

    # ---- runs

    def begin(
        self,
        run: Run,
        key: Optional[Key] = None,
        scheduled: Optional[Scheduled] = None,
    ) -> Run:
        """Record a run that is about to start; return it with its id.

        In the same transaction, its idempotency key is bound to it and its scheduled
        trigger marked fired: after a crash, either all of it is there or nothing.
        """

        def change(db: sqlite3.Connection) -> Run:
            begun = replace(run, id=run.id or self._next_run_id(db))
            if run.id:
                db.execute(RUN_UPSERT, _row_of(run))
            else:
                self._insert_run(db, begun)
            if key:
                self._put_key(db, replace(key, run_id=begun.id))
            if scheduled:
                self._fire(db, scheduled, begun)
            self.seed_ids(begun.id)
            return begun

        def remember() -> Run:
            begun = replace(run, id=run.id or self._next_run_id())
            self._unwritten.put(begun)
            if key:
                self._unwritten.put(replace(key, run_id=begun.id))
            if scheduled:
                fired = replace(scheduled, status=FIRED, run_id=begun.id)
                self._unwritten.put(fired)
                self._remember_event("schedule.fired", {"scheduled": fired.view()})
            return begun

        begun = self._write(change, remember)
        self.note_under_way(begun)
        return begun

    def note_under_way(self, run: Run) -> None:
        """Keep what is known of a running run, should the history be lost."""
        with self._lock:
            self._under_way[run.id] = run

    def _fire(self, db: sqlite3.Connection, entry: Scheduled, begun: Run) -> None:
        cursor = db.execute(
            "update scheduled_triggers set status = 'fired', run_id = ? "
            "where id = ? and status = 'pending'",
            [begun.id, entry.id],
        )
        if not cursor.rowcount:
            raise Refusal("not_pending", "It was cancelled just before its time.")
        fired = replace(entry, status=FIRED, run_id=begun.id)
        self._put_event(db, "schedule.fired", {"scheduled": fired.view()})

    def _insert_run(self, db: sqlite3.Connection, run: Run) -> None:
        query = f"insert into cron_executions ({RUN_ROW}) values ({RUN_VALUES})"
        db.execute(query, _row_of(run))

    def launched(self, run: Run) -> None:
        """Record that a run's keeper was started, and tell it, once.

        A server that looks just now may see a keeper before the command line that
        started it comes to record it.
        """

        def change(db: sqlite3.Connection) -> None:
            cursor = db.execute(
                "update cron_executions set pid = ?, log_inode = ?, log_start = ? "
                "where id = ? and pid is null",
                [run.pid, run.log_inode, run.log_start, run.id],
            )
            if cursor.rowcount:
                self._put_event(db, "run.started", {"run": run.view()})

        def remember() -> None:
            self._unwritten.put(run)
            self._remember_event("run.started", {"run": run.view()})

        self.note_under_way(run)
        self._write(change, remember)

    def set_end_reason(self, run: Run, reason: str, by: Optional[str]) -> Run:
        """Record what a running run will have ended for; return it so.

        Written before the signal is sent: whoever records the end, the server, its
        successor or the command line, finds it there.  The first reason stays.
        """
        marked = replace(run, end_reason=reason, cancelled_by=by)

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "update cron_executions set end_reason = ?, cancelled_by = ? "
                "where id = ? and status = 'running' and end_reason is null",
                [reason, by, run.id],
            )

        def remember() -> None:
            self._unwritten.put(marked)

        self.note_under_way(marked)
        self._write(change, remember)
        return marked

    def end(self, run: Run) -> Optional[Run]:
        """Record a run's end, once.  Return it as recorded, or None if it was already.

        Compare and set: of the server, its successor and the command line, which may
        all see a keeper go, one records the end.  The loser adds what only the
        keeper's parent knows.
        """

        def change(db: sqlite3.Connection) -> Optional[Run]:
            values = [getattr(run, column) for column in END_COLUMNS]
            cursor = db.execute(RUN_END, [run.status, *values, run.id])
            if not cursor.rowcount:
                self._add_usage(db, run)
                return None
            return self._ended(db, run)

        def remember() -> Optional[Run]:
            known = self.run(run.id)  # the history may be readable all the same
            if known and not known.running:
                return None
            ended = replace(run, status=run.end_reason or run.status)
            self._unwritten.put(ended)
            self._remember_event("run.finished", {"run": ended.view()})
            return ended

        try:
            return self._write(change, remember)
        finally:
            self._under_way.pop(run.id, None)

    def _ended(self, db: sqlite3.Connection, run: Run) -> Run:
        query = f"select {RUN_ROW} from cron_executions where id = ?"
        ended = _run_of(db.execute(query, [run.id]).fetchone())
        self._put_event(db, "run.finished", {"run": ended.view()})
        return ended

    def _add_usage(self, db: sqlite3.Connection, run: Run) -> None:
        db.execute(
            "update cron_executions set cpu_seconds = ?, max_rss_bytes = ? "
            "where id = ? and cpu_seconds is null",
            [run.cpu_seconds, run.max_rss_bytes, run.id],
        )

    def release(self, run: Run, began: bool) -> None:
        """Give back what a run took that was recorded but whose script never began.

        Its idempotency key, so that a retry starts it; and, unless it `began` to be
        launched in vain, its scheduled trigger, which is pending again.
        """

        def change(db: sqlite3.Connection) -> None:
            db.execute("delete from idempotency_keys where run_id = ?", [run.id])
            if not began:
                db.execute(
                    "update scheduled_triggers set status = 'pending', run_id = null "
                    "where run_id = ?",
                    [run.id],
                )

        def remember() -> None:
            for key in list(self._unwritten.keys.values()):
                if key.run_id == run.id:
                    self._unwritten.put(replace(key, digest=""))

        self._write(change, remember)

    def run(self, run_id: int) -> Optional[Run]:
        """Return a run, or None where there is none of this id."""
        with self._lock:
            if run_id in self._unwritten.runs:
                return self._unwritten.runs[run_id]
            if not 0 < run_id < INTEGER_LIMIT:
                return None
            query = f"select {RUN_ROW} from cron_executions where id = ?"
            rows = self._read(query, [run_id])
            return _run_of(rows[0]) if rows else None

    def runs(
        self,
        cron_name: Optional[str] = None,
        status: Optional[str] = None,
        before: Optional[int] = None,
        limit: int = RUNS_PAGE,
    ) -> List[Run]:
        """Return runs, newest first, those not written yet included."""
        wanted = {"cron_name": cron_name, "status": status}
        given = {column: value for column, value in wanted.items() if value}
        with self._lock:
            rows = self._read(*_page_of(RUN_ROW, given, before, limit))
            return self._merged([_run_of(row) for row in rows], given, before, limit)

    def run_texts(
        self,
        cron_name: Optional[str] = None,
        status: Optional[str] = None,
        before: Optional[int] = None,
        limit: int = RUNS_PAGE,
    ) -> List[Tuple[int, str]]:
        """Return the same runs' ids and views, as JSON.

        Written by SQLite where it can: that takes a third of the time.
        """
        wanted = {"cron_name": cron_name, "status": status}
        given = {column: value for column, value in wanted.items() if value}
        with self._lock:
            if self._writes_json and not self._unwritten.runs:
                columns = f"id, json_object({RUN_JSON})"
                return self._read(*_page_of(columns, given, before, limit))
        runs = self.runs(cron_name, status, before, limit)
        return [(run.id, json_text(run.view())) for run in runs]

    def _merged(
        self,
        written: List[Run],
        given: Mapping[str, str],
        before: Optional[int],
        limit: int,
    ) -> List[Run]:
        if not self._unwritten.runs:
            return written
        left = self._unwritten.runs
        found = {run.id: run for run in written if run.id not in left}
        for run in left.values():
            held = all(getattr(run, name) == value for name, value in given.items())
            if held and (before is None or run.id < before):
                found[run.id] = run
        return sorted(found.values(), key=lambda run: -run.id)[:limit]

    def running(self, cron_name: Optional[str] = None) -> List[Run]:
        """Return the runs that are recorded as running, the newest first."""
        # The literal lets SQLite use the partial index.
        test = "and cron_name = ? " if cron_name else ""
        wanted = {"status": RUNNING, **({"cron_name": cron_name} if cron_name else {})}
        with self._lock:
            rows = self._read(
                f"select {RUN_ROW} from cron_executions indexed by "
                f"cron_executions_running where status = 'running' {test}"
                "order by id desc",
                [cron_name] if cron_name else [],
            )
            return self._merged([_run_of(r) for r in rows], wanted, None, sys.maxsize)

    def figures(self, cron_name: str) -> Figures:
        """Return a cron's figures: totals of all time, and its last ended runs."""
        with self._lock:
            rows = self._read(
                f"select {RUN_ROW} from cron_executions where cron_name = ? "
                "and status <> 'running' order by id desc limit ?",
                [cron_name, RECENT_RUNS],
            )
            runs = self._merged(
                [_run_of(row) for row in rows],
                {"cron_name": cron_name},
                None,
                RECENT_RUNS + 1,
            )
            recent = [run for run in runs if not run.running][:RECENT_RUNS]
            totals = {s: r for c, s, r, _, _ in self.totals(cron_name)}
        return Figures(
            sum(totals.values()), totals.get(COMPLETED, 0), tuple(reversed(recent))
        )

    def totals(
        self, cron_name: Optional[str] = None
    ) -> List[Tuple[str, str, int, int, Optional[str]]]:
        """Return (cron, status, runs, summed ms, last end) rows, pruned runs included.

        Counters for Prometheus: they never fall, neither by a restart nor by pruning.
        """
        where = "where cron_name = ?" if cron_name else ""
        with self._lock:
            rows = self._read(
                "select cron_name, status, runs, duration_ms, last_completed_at "
                f"from run_totals {where}",
                [cron_name] if cron_name else [],
            )
            sums = {(row[0], row[1]): list(row[2:]) for row in rows}
            for run in self._unwritten.runs.values():
                if run.running or cron_name not in (None, run.cron_name):
                    continue
                if self._has_ended(run.id):  # and is among the rows
                    continue
                entry = sums.setdefault((run.cron_name, run.status), [0, 0, None])
                entry[0] += 1
                entry[1] += run.duration_ms or 0
                entry[2] = run.completed_at
        return [(*names, *values) for names, values in sums.items()]

    def _has_ended(self, run_id: int) -> bool:
        """Tell whether another process has recorded a run's end by now."""
        query = "select status <> 'running' from cron_executions where id = ?"
        return self._read(query, [run_id]) == [(1,)]

    # ---- idempotency keys

    def _put_key(self, db: sqlite3.Connection, key: Key) -> None:
        db.execute(
            "insert or replace into idempotency_keys "
            "(cron_name, key, digest, created_s, run_id, scheduled_id) "
            "values (?, ?, ?, ?, ?, ?)",
            [
                key.cron_name,
                key.key,
                key.digest,
                key.created_s,
                key.run_id,
                key.scheduled_id,
            ],
        )

    def key(self, cron_name: str, key: str, now_s: float) -> Optional[Key]:
        """Return what a key stands for, if it was used within the last day."""
        with self._lock:
            found = self._unwritten.keys.get((cron_name, key))
            if found is None:
                rows = self._read(
                    "select cron_name, key, digest, created_s, run_id, scheduled_id "
                    "from idempotency_keys where cron_name = ? and key = ?",
                    [cron_name, key],
                )
                found = Key(*rows[0]) if rows else None
        return found if found and found.created_s > now_s - IDEMPOTENCY_S else None

    # ---- scheduled triggers

    def schedule(self, scheduled: Scheduled, key: Optional[Key] = None) -> Scheduled:
        """Record a scheduled trigger; return it with its id.

        Raises Refusal `history_unavailable`: what is planned must survive a restart,
        so memory will not do here.
        """

        def change(db: sqlite3.Connection) -> Scheduled:
            row = (None, *_row_of(scheduled)[1:])
            cursor = db.execute(
                f"insert into scheduled_triggers ({SCHEDULED_ROW}) "
                f"values ({SCHEDULED_VALUES})",
                row,
            )
            created = replace(scheduled, id=int(cursor.lastrowid or 0))
            if key:
                self._put_key(db, replace(key, scheduled_id=created.id))
            self._put_event(db, "schedule.created", {"scheduled": created.view()})
            return created

        return self._write(change, self._unavailable)

    def _unavailable(self) -> NoReturn:
        raise Refusal(
            "history_unavailable",
            "Planned triggers can't be changed while the history can't be written; "
            "free some disk space, then try again.",
            {"Retry-After": "10"},
        )

    def _replace_scheduled(self, db: sqlite3.Connection, changed: Scheduled) -> None:
        db.execute(
            f"insert or replace into scheduled_triggers ({SCHEDULED_ROW}) "
            f"values ({SCHEDULED_VALUES})",
            _row_of(changed),
        )

    def end_scheduled(self, scheduled: Scheduled, must: bool = False) -> bool:
        """Record the end of a pending trigger.  Return False if it has ended already.

        With `must`, a history that can't be written is refused instead of kept in
        memory: a person who cancels wants to be sure.
        """

        def change(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "update scheduled_triggers set status = ?, reason = ? "
                "where id = ? and status = 'pending'",
                [scheduled.status, scheduled.reason, scheduled.id],
            )
            if cursor.rowcount:
                self._put_event(db, *told)
            return bool(cursor.rowcount)

        def remember() -> bool:
            self._unwritten.put(scheduled)
            self._remember_event(*told)
            return True

        told = f"schedule.{scheduled.status}", {"scheduled": scheduled.view()}

        otherwise: Callable[[], bool] = self._unavailable if must else remember
        return self._write(change, otherwise)

    def scheduled(self, scheduled_id: int) -> Optional[Scheduled]:
        """Return a scheduled trigger, or None where there is none of this id."""
        with self._lock:
            if scheduled_id in self._unwritten.scheduled:
                return self._unwritten.scheduled[scheduled_id]
            if not 0 < scheduled_id < INTEGER_LIMIT:
                return None
            rows = self._read(
                f"select {SCHEDULED_ROW} from scheduled_triggers where id = ?",
                [scheduled_id],
            )
        return _scheduled_of(rows[0]) if rows else None

    def pending(self) -> List[Scheduled]:
        """Return the pending scheduled triggers, the next one first."""
        with self._lock:
            written = self._scheduled_where("= 'pending'")
            left = self._unwritten.scheduled
        entries = (entry for entry in written if entry.id not in left)
        return sorted(entries, key=lambda entry: (entry.due_s, entry.id))

    def ended_scheduled(self) -> List[Scheduled]:
        """Return the last ended scheduled triggers, the newest first."""
        limit = SCHEDULED_ENDED_SHOWN
        with self._lock:
            rows = self._scheduled_where(f"<> 'pending' order by id desc limit {limit}")
            found = {entry.id: entry for entry in rows}
            found.update(self._unwritten.scheduled)
        return sorted(found.values(), key=lambda entry: -entry.id)[:limit]

    def _scheduled_where(self, test: str) -> List[Scheduled]:
        query = f"select {SCHEDULED_ROW} from scheduled_triggers where status {test}"
        return [_scheduled_of(row) for row in self._read(query)]

    # ---- events

    def _put_event(
        self, db: sqlite3.Connection, name: str, data: Mapping[str, Json]
    ) -> None:
        text = json_text(data)
        cursor = db.execute("insert into events values (null, ?, ?)", [name, text])
        self._last_ids["events"] = int(cursor.lastrowid or 0)

    def _remember_event(self, name: str, data: Mapping[str, Json]) -> None:
        text = json_text(data)
        self._last_ids["events"] += 1
        self._unwritten.put(Event(self._last_ids["events"], name, text))

    def tell(self, name: str, data: Mapping[str, Json]) -> None:
        """Record an event that belongs to no row."""
        self._write(
            lambda db: self._put_event(db, name, data),
            lambda: self._remember_event(name, data),
        )

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 where there is none."""
        with self._lock:
            rows = self._read("select max(id) from events")
            written = (rows and rows[0][0]) or 0
            left = self._unwritten.events
            return int(max(written, left[-1].id if left else 0))

    def events_after(self, event_id: int, limit: int = 500) -> List[Event]:
        """Return the events after one, oldest first."""
        with self._lock:
            rows = self._read(
                "select id, event, data from events where id > ? order by id limit ?",
                [min(event_id, INTEGER_LIMIT - 1), limit],
            )
            events = [Event(*row) for row in rows]
            if len(events) < limit:
                known = {event.id for event in events}
                events += [
                    e
                    for e in self._unwritten.events
                    if e.id > event_id and e.id not in known
                ]
        return events[:limit]

    # ---- pruning

    def prune(
        self, before: str, batch: int = 200, pause: Callable[[], Any] = lambda: None
    ) -> int:
        """Delete what ended before a time, batch by batch; return how many runs.

        Small batches with a pause between them, so that a trigger never waits long
        for the lock; the freed pages are given back to the file system likewise.
        """
        cursor, deleted = 0, 0

        def change(db: sqlite3.Connection) -> Tuple[int, int]:
            rows = db.execute(
                "select id, started_at, status from cron_executions where id > ? "
                "order by id limit ?",
                [cursor, batch],
            ).fetchall()
            doomed = [(i,) for i, at, st in rows if at < before and st != RUNNING]
            db.executemany("delete from cron_executions where id = ?", doomed)
            # Ids grow with time: the first page that ends with a young run is the last.
            young = not rows or rows[-1][1] >= before
            return (0 if young else rows[-1][0]), len(doomed)

        while True:
            cursor, count = self._write(change, lambda: (0, 0))
            deleted += count
            if not cursor:
                break
            pause()
        self._write(lambda db: self._prune_others(db, before), lambda: None)
        while self._write(lambda db: self._prune_events(db, before, batch), bool):
            pause()
        self._give_back(pause)
        return deleted

    def _prune_others(self, db: sqlite3.Connection, before: str) -> None:
        day_ago_s = time.time() - IDEMPOTENCY_S
        db.execute("delete from idempotency_keys where created_s < ?", [day_ago_s])
        db.execute(
            "delete from scheduled_triggers "
            "where status <> 'pending' and created_at < ? and run_at < ?",
            [before, before],
        )
        db.execute(
            "delete from events where id <= (select max(id) from events) - ?",
            [EVENTS_KEPT],
        )

    def _prune_events(self, db: sqlite3.Connection, before: str, batch: int) -> bool:
        """Delete the oldest events up to a young one; return True if there are more.

        An event has the time of its run or scheduled trigger; one without a time, that
        of the next one.
        """
        query = "select id, data from events order by id limit ?"
        old = 0
        for number, data in db.execute(query, [batch]).fetchall():
            if before <= _time_of_event(json.loads(data)):
                break
            old = number
        count = db.execute("delete from events where id <= ?", [old]).rowcount
        return bool(count == batch)

    def _give_back(self, pause: Callable[[], Any], pages: int = 100) -> None:
        while self.problem is None:
            free = self._read("pragma freelist_count")
            if not free or not free[0][0]:
                break
            self._read(f"pragma incremental_vacuum({pages})")
            left = self._read("pragma freelist_count")
            if not left or left[0][0] >= free[0][0]:
                break
            pause()
        with self._lock:
            self._read("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        """Write what is left and close the file."""
        with self._lock:
            if self._unwritten:
                self.retry()
            self._unwritten.close()
            self._disconnect()


def _time_of_event(data: Mapping[str, Json]) -> str:
    """Return when an event happened, at the earliest; "" where it does not say."""
    about = data.get("run") or data.get("scheduled") or {}
    times = (about.get(name) for name in ("completedAt", "startedAt", "createdAt"))
    return str(next(filter(None, times), ""))


def _is_told(event: Event, known: Mapping[int, Tuple[Any, ...]]) -> bool:
    """Tell whether another process has told the same of a run.

    The server and a command line may both see its keeper go, one of them while it
    could not write.  `known` is what the history had before.
    """
    about = json.loads(event.data).get("run") or {}
    status, pid = known.get(about.get("id", 0), (RUNNING, None))
    if event.name == "run.started":
        return pid is not None
    return event.name == "run.finished" and status != RUNNING


def _has_json(db: sqlite3.Connection) -> bool:
    try:
        db.execute(f"select json_object({RUN_JSON}) from cron_executions where 0")
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
        return False
    return True


def _is_corrupt(error: Exception) -> bool:
    """Return True for what SQLite says of a file that is broken or none of its own.

    SQLITE_CORRUPT and SQLITE_NOTADB; Python names the codes only from 3.11 on.
    """
    words = ("malformed", "not a database")
    return isinstance(error, sqlite3.DatabaseError) and any(
        word in str(error) for word in words
    )


# ============================================================================ Logs
# A cron's log, appended by its runs; the server's own log.  Both may be rotated by
# rename at any time, so nobody keeps them open for longer than a run or a line.

#: Faults of a disk that must not keep a script from running.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
#: O_NONBLOCK: a named pipe in a log's place must not hang its opening.
APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
LOG_MODE, LOG_FOLDER_MODE = 0o644, 0o755
#: syslog(3), as systemd reads it from the start of a line: sd-daemon(3).
PRIORITIES = {"error": 3, "warning": 4, "notice": 5, "info": 6}


class ServerLog:
    """The server's own log: a file, and standard error.  Any thread may write."""

    def __init__(self, path: Path, to_stderr: bool = True) -> None:
        self._path = path
        self._to_stderr = to_stderr
        self._to_journal = to_stderr and _stderr_is_journal()

    def say(self, level: str, text: str) -> None:
        """Write one line; a disk that takes none must not stop anything."""
        line = printable(text, 2000)
        stamped = f"{now_text()} {level:7} {line}\n"
        shown = f"<{PRIORITIES[level]}>{line}\n" if self._to_journal else stamped
        if self._to_stderr:
            with contextlib.suppress(OSError):
                os.write(2, shown.encode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            append(self._path, stamped)


def _stderr_is_journal() -> bool:
    """Return True where standard error goes to the journal: systemd.exec(5)."""
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        name = f"{status.st_dev}:{status.st_ino}"
        return os.environ.get("JOURNAL_STREAM") == name
    return False


def open_log(path: Union[str, Path]) -> int:
    """Return a descriptor that appends to a log; raises OSError.

    A new one gets its mode whatever the umask, which is that of whoever started the
    server; one that is there keeps what logrotate, say, has given it.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, APPEND)
    try:
        descriptor = os.open(path, APPEND | os.O_CREAT | os.O_EXCL, LOG_MODE)
    except FileExistsError:  # another has made it just now
        return os.open(path, APPEND)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, LOG_MODE)
    return descriptor


def append(path: Path, text: str) -> None:
    """Append to a log in one write; raises OSError."""
    descriptor = open_log(path)
    try:
        os.write(descriptor, text.encode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def framing_line(text: str) -> str:
    """Return a line that stands before or after a run's output."""
    stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"[{stamp}] {text}\n"


def open_cron_log(path: str, user_id: int) -> int:
    """Return a descriptor that appends to a cron's log, created if need be.

    A disk that is full or read-only gives /dev/null: the run matters more than its
    output.  Raises LaunchError for a place where a log must not be written.
    """
    try:
        unsafe = folder_fault(os.path.dirname(path)) if user_id == 0 else None
        if unsafe:
            raise LaunchError(f"its log folder is not safe, because {unsafe}")
        descriptor = open_log(path)
    except OSError as error:
        if error.errno in DISK_FAULTS:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        raise LaunchError(_log_fault(path, error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LaunchError(f"its log {path} is not a regular file: name another logFile")
    os.set_blocking(descriptor, True)
    return descriptor


def _log_fault(path: str, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"its log {path} is a link, which is not followed: remove the link"
    if error.errno == errno.ENOENT:
        return f"the folder of its log is missing: mkdir -p {os.path.dirname(path)}"
    return f"its log {path} can't be written: {error.strerror}"


class RunLog:
    """One run's own bytes in its cron's log, which may have been rotated since.

    Found by the file's inode, and believed only if the run's first line stands at its
    place: an inode may be given to another file.
    """

    def __init__(self, run: Run) -> None:
        """Open the file; `descriptor` is None where the output is not kept."""
        self.run = run
        self.descriptor: Optional[int] = None
        self.start = 0
        if run.log_file and run.log_inode is not None and run.log_start is not None:
            self._find(run.log_file, run.log_start)

    def _find(self, path: str, log_start: int) -> None:
        for candidate in self._candidates(path):
            with contextlib.suppress(OSError):
                descriptor = os.open(
                    candidate,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                )
                head = self._head(descriptor, log_start)
                if head is not None:
                    self.descriptor, self.start = descriptor, log_start + head
                    return
                os.close(descriptor)

    def _candidates(self, path: str) -> Iterator[str]:
        """Yield the log, then its rotated names (`x.log.1`, `x.log-20261123`)."""
        yield path
        folder, name = os.path.split(path)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                rotated = entry.name.startswith(name) and entry.name != name
                if rotated and entry.inode() == self.run.log_inode:
                    yield entry.path

    def _head(self, descriptor: int, log_start: int) -> Optional[int]:
        """Return the length of the run's first line if it stands at `log_start`."""
        if os.fstat(descriptor).st_ino != self.run.log_inode:
            return None
        head = os.pread(descriptor, 4096, log_start)
        line, newline, _ = head.partition(b"\n")
        mark = f"] run {self.run.id} started (".encode()
        return len(line) + 1 if newline and mark in line[:60] else None

    def end(self) -> int:
        """Return where the run's output ends so far."""
        assert self.descriptor is not None
        size = os.fstat(self.descriptor).st_size
        return max(
            self.start,
            size if self.run.log_end is None else min(size, self.run.log_end),
        )

    def tail_start(self, end: int, lines: int) -> int:
        """Return where the last `lines` lines before `end` begin."""
        assert self.descriptor is not None
        position, missing = end, lines
        if (
            lines
            and end > self.start
            and os.pread(self.descriptor, 1, end - 1) == b"\n"
        ):
            missing += 1
        while missing > 0 and position > self.start:
            size = min(65536, position - self.start)
            block = os.pread(self.descriptor, size, position - size)
            found = block.count(b"\n")
            if found < missing:
                missing -= found
                position -= size
                continue
            cut = len(block)
            for _ in range(missing):
                cut = block.rindex(b"\n", 0, cut)
            return position - size + cut + 1
        return position if lines else end

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`."""
        assert self.descriptor is not None
        while start < end:
            block = os.pread(self.descriptor, min(65536, end - start), start)
            if not block:
                return
            start += len(block)
            yield block

    def close(self) -> None:
        """Close the file; may be called again."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


# ============================================================================ Loop
# One thread waits for everything: a keeper's end (pidfd), a moment, a message, a
# browser that has gone.  It sleeps in epoll, and an idle server does not wake.


class Timer:
    """A call at a moment of the monotonic clock.  `cancel` from any thread."""

    __slots__ = ("callback", "due_s")

    def __init__(self, due_s: float, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Waits for descriptors and moments, and calls back, one call after the other.

    `watch`, `call_soon` and `call_later` may be called from any thread; callbacks run
    in the thread that runs the loop.  A callback that fails is reported, and the loop
    goes on: one broken run must not leave the others unwatched.
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._monotonic = monotonic
        self._epoll = select.epoll()
        self._callbacks: Dict[int, Callable[[int], None]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._soon: Deque[Callable[[], None]] = collections.deque()
        self._lock = threading.Lock()  # guards _timers
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self.watch(self._wake_in, self._drain)
        self._stopping = False
        self._thread_id = 0

    def watch(
        self,
        descriptor: int,
        callback: Callable[[int], None],
        events: int = select.EPOLLIN,
    ) -> None:
        """Call back with the ready events whenever a descriptor is ready."""
        self._callbacks[descriptor] = callback
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:
            self._epoll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._callbacks.pop(descriptor, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(descriptor)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the loop's thread, in the order of these calls."""
        self._soon.append(callback)
        self._wake()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back after a while."""
        timer = Timer(self._monotonic() + delay_s, callback)
        with self._lock:
            heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
            first = self._timers[0][2] is timer
        if first:
            self._wake()
        return timer

    def step(self, limit_s: Optional[float] = None) -> None:
        """Wait for what comes first and do it: one round of `run`."""
        timeout_s = self._timeout_s()
        if limit_s is not None:
            timeout_s = limit_s if timeout_s is None else min(limit_s, timeout_s)
        for descriptor, events in self._epoll.poll(timeout_s):
            callback = self._callbacks.get(descriptor)
            if callback:
                self._call(functools.partial(callback, events))
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())
        self._call_due()

    def is_here(self) -> bool:
        """Return True in the thread that runs the loop."""
        return self._thread_id == threading.get_ident()

    def run(self) -> None:
        """Step until `stop`."""
        self._thread_id = threading.get_ident()
        while not self._stopping:
            self.step()

    def stop(self) -> None:
        """Have `run` return; from any thread."""
        self._stopping = True
        self._wake()

    def _timeout_s(self) -> Optional[float]:
        if self._soon:
            return 0.0
        with self._lock:
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            if not self._timers:
                return None
            # Up to the next millisecond: epoll rounds down, and would spin.
            # At most a day: it takes no more than 24 of them.
            left_s = self._timers[0][0] - self._monotonic() + 0.001
            return min(max(0.0, left_s), 86400.0)

    def _call_due(self) -> None:
        now_s = self._monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now_s:
                    return
                timer = heapq.heappop(self._timers)[2]
            if timer.callback:
                self._call(timer.callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # reported, never fatal: see the class
            self._say("error", f"internal error in the waiting thread: {error!r}")

    def _wake(self) -> None:
        # A pipe that is full has a wake-up in it already.
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_out, b"\0")

    def _drain(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_in, 65536)

    def close(self) -> None:
        """Give the descriptors back; the loop must not run."""
        self._epoll.close()
        os.close(self._wake_in)
        os.close(self._wake_out)


def is_ready(descriptor: int) -> bool:
    """Return True where a descriptor is ready to be read now."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class WallTimer:
    """Calls back at a moment of the wall clock, whatever is done to that clock.

    A timerfd with an absolute time follows every step of the clock by itself
    (timerfd_create(2)); the loop's own timers count from now and would not.
    """

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._descriptor: Optional[int] = None

    def arm(self, epoch_s: Optional[float]) -> None:
        """Call back once at `epoch_s`, at once if it has passed; None: not at all."""
        if self._descriptor is None:
            if epoch_s is None:
                return
            self._descriptor = self._created()
            self._loop.watch(self._descriptor, self._fired)
        # A value of zero would disarm it.
        moment_ns = 0 if epoch_s is None else max(1, int(epoch_s * 1e9))
        self._set(self._descriptor, moment_ns)

    def _created(self) -> int:
        import ctypes  # only here: most servers never plan anything

        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = int(self._libc.timerfd_create(time.CLOCK_REALTIME, flags))
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return descriptor

    def _set(self, descriptor: int, moment_ns: int) -> None:
        import ctypes

        # struct itimerspec: interval s and ns, value s and ns; all long.
        value = (ctypes.c_long * 4)(0, 0, *divmod(moment_ns, 1_000_000_000))
        absolute = 1  # TFD_TIMER_ABSTIME
        if self._libc.timerfd_settime(descriptor, absolute, value, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _fired(self, _events: int) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.read(self._descriptor, 8)
        self._callback()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


# ========================================================================== Runner
# From a trigger to a keeper, and from a keeper's end to the record.


def script_arguments(
    cron: Cron, values: Mapping[str, ParameterValue], user_id: int
) -> List[str]:
    """Return the argument vector that runs a cron's script; else LaunchError."""
    program = _program(cron)
    arguments = cron.arguments(values)
    if user_id == 0:
        for path in (program, *_programs(cron, program, arguments)):
            _refuse_unsafe("script", path)
    if os.access(program, os.X_OK):
        interpreter = _first_line(program)
        vector = [program, *arguments]
    else:
        vector = [*_interpreter(program), program, *arguments]
        interpreter = vector[0]
    if user_id == 0 and interpreter:
        _refuse_unsafe("interpreter", interpreter)
    return vector


def _refuse_unsafe(what: str, path: str) -> None:
    unsafe = writable_by_others(path, 0)
    if unsafe:
        raise LaunchError(f"its {what} {path} is not safe, because {unsafe}")


def _program(cron: Cron) -> str:
    """Return the path of the program; a name without a slash may be one of PATH's."""
    first = cron.command[0]
    path = str(cron.folder / first)
    if "/" not in first and not os.path.exists(path):
        found = shutil.which(first)
        if found:
            return found
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        remedy = "put it there or correct the command in the registry"
        if " " in first:
            remedy += ', where program and arguments are an array: ["program", "-x"]'
        raise LaunchError(f"its script {path} is missing: {remedy}") from None
    except OSError as error:
        shown = printable(path, 300)
        raise LaunchError(
            f"its script {shown} can't be reached ({error.strerror}): correct the "
            "command in the registry, or the permissions of its folders"
        ) from None
    if not stat.S_ISREG(mode):
        raise LaunchError(f"its script {path} is not a file: name a file")
    return path


def _programs(cron: Cron, program: str, arguments: Sequence[str]) -> List[str]:
    """Return the programs among the arguments, as in `bash x.sh` or `nice ./x`."""
    paths = (str(cron.directory / argument) for argument in arguments)
    files = [path for path in paths if os.path.isfile(path)]
    interpreted = INTERPRETER_NAME.fullmatch(os.path.basename(program))
    return [
        path
        for place, path in enumerate(files)
        if (interpreted and place == 0)
        or os.access(path, os.X_OK)
        or os.path.splitext(path)[1] in (*INTERPRETERS, ".ts")
    ]


def _first_line(program: str) -> Optional[str]:
    """Return the interpreter that a script's `#!` line names, None without one.

    Refuses a line that names no program: sh would only say 126.
    """
    try:
        descriptor = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            line = os.read(descriptor, 256).partition(b"\n")[0]
        finally:
            os.close(descriptor)
    except OSError:
        return None  # execute permission alone is enough for a binary
    if not line.startswith(b"#!"):
        return None
    words = line[2:].strip(b" \t").split(None if b"\r" not in line else b" ")
    interpreter = os.fsdecode(words[0]) if words else ""
    if words and words[-1].endswith(b"\r"):
        # The kernel, and env, would look for a program whose name ends in "\r".
        raise LaunchError(
            f"the first line of its script {program} ends as Windows has it (CR LF): "
            f"sed -i 's/\\r$//' {program}"
        )
    if not os.access(interpreter, os.X_OK):
        raise LaunchError(
            f"its script {program} asks for the interpreter "
            f'"{printable(interpreter)}", which is not there: correct its first line'
        )
    return interpreter


def _interpreter(program: str) -> List[str]:
    ending = os.path.splitext(program)[1]
    if ending == ".ts":
        return [_typescript_runner()]
    name = INTERPRETERS.get(ending)
    if name is None:
        raise LaunchError(f"its script {program} is not executable: chmod +x {program}")
    found = shutil.which(name)
    if found is None:
        raise LaunchError(f"{name}, which runs {program}, is not on PATH: install it")
    return [found]


def _typescript_runner() -> str:
    tsx, node = shutil.which("tsx"), shutil.which("node")
    if tsx:
        return tsx
    if node and _node_version(node, os.stat(node).st_mtime_ns) >= NODE_STRIPS_TYPES:
        return node
    needed = ".".join(map(str, NODE_STRIPS_TYPES))
    raise LaunchError(
        f"a .ts script needs tsx, or node {needed} or later, on PATH: "
        "npm install -g tsx"
    )


@functools.lru_cache(maxsize=8)
def _node_version(node: str, _changed_ns: int) -> Tuple[int, ...]:
    """Return the version of a `node`, asked once until that file changes."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        asked = subprocess.run(
            [node, "--version"],
            env=script_environment(os.environ),
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return tuple(int(part) for part in asked.stdout.strip()[1:].split(".")[:2])
    return (0, 0)


#: What a script does not inherit: settings, the secret above all, and what systemd
#: gave to this server alone.
PRIVATE_VARIABLES = re.compile(
    r"CRON_TRIGGER(_.*)?|CRON_NAME|CRON_RUN_ID|CRON_PARAM_.*|NOTIFY_SOCKET|WATCHDOG_.*"
    r"|LISTEN_.*|CREDENTIALS_DIRECTORY|FDSTORE"
)


def script_environment(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the part of this server's environment that its scripts may see."""
    return {n: v for n, v in environ.items() if not PRIVATE_VARIABLES.fullmatch(n)}


def check_directory(cron: Cron) -> None:
    """Refuse a working directory that is not there; raises LaunchError."""
    if not os.path.isdir(cron.directory):
        raise LaunchError(f"its folder {cron.directory} is missing: create it")


def start_fault(cron: Cron, user_id: int) -> Optional[str]:
    """Return why a cron would not start, as far as one can tell without a start."""
    try:
        script_arguments(cron, {}, user_id)
        check_directory(cron)
        # The server makes its own log folder, but no other.
        if os.path.isabs(cron.log_file or ""):
            os.stat(os.path.dirname(cron.log_path))
    except LaunchError as error:
        return str(error)
    except OSError as error:
        return _log_fault(cron.log_path, error)
    return None


class ActiveRun:
    """A run that this process watches.  `done` is set once its end is recorded."""

    def __init__(
        self,
        run: Run,
        pidfd: int,
        process: Optional[subprocess.Popen[bytes]],
        started_s: Optional[float],
    ) -> None:
        self.run = run
        self.pidfd = pidfd
        #: The keeper, where it is this process's child; kept until it is reaped, or
        #: subprocess would reap it by itself and with it the resource usage.
        self.process = process
        #: On the monotonic clock; None for a run that was found, not started.
        self.started_s = started_s
        self.done = threading.Event()
        self.killed = False
        #: What was left of its group when its keeper went, looked up if needed.
        self.left: List[Process] = []
        self.timeout: Optional[Timer] = None
        self.kill: Optional[Timer] = None

    def alive(self) -> bool:
        """Return True while the keeper lives, its PID so still its own."""
        if self.done.is_set() or is_ready(self.pidfd):
            return False
        try:
            os.kill(self.run.pid or 0, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Runner:
    """Starts crons, watches their runs, records their ends.

    Any thread may trigger and cancel; ends are recorded in the loop's thread, or in
    the one that finds the lock free before the loop came to it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        loop: Loop,
        say: Callable[[str, str], None],
        on_change: Callable[[str], None] = lambda _cron_name: None,
        lock_table: Optional[LockTable] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._loop = loop
        self._say = say
        self._on_change = on_change
        self._lock_table = lock_table
        self._clock = clock
        self._user_id = os.geteuid()
        self._environment = script_environment(os.environ)
        self._mutexes: Dict[str, threading.Lock] = collections.defaultdict(
            threading.Lock
        )
        self._lock = threading.Lock()  # guards the two tables below
        self._by_id: Dict[int, ActiveRun] = {}
        self._by_cron: Dict[str, ActiveRun] = {}
        self._kills: Dict[int, ActiveRun] = {}  # the loop's thread only, and close()
        self.closing = False
        #: Called in the loop's thread when the history can be written again.
        self.on_heal: Callable[[], None] = lambda: None
        self._retrying = False
        self._turn = threading.Lock()  # taken after a cron's mutex; guards nothing
        self._looking: Set[int] = set()  # runs that are looked for again
        store.on_fault = self.heal

    # ---- what runs

    def active(self, run_id: int) -> Optional[ActiveRun]:
        """Return a run that is watched, or None."""
        with self._lock:
            return self._by_id.get(run_id)

    def run_of(self, cron_name: str) -> Optional[Run]:
        """Return a cron's running run, or None."""
        with self._lock:
            active = self._by_cron.get(cron_name)
        return active.run if active else None

    def running(self) -> Dict[str, Run]:
        """Return cron name to its running run, of those that this process watches."""
        with self._lock:
            return {name: active.run for name, active in self._by_cron.items()}

    def count(self) -> int:
        """Return how many runs this process watches."""
        return len(self._by_cron)

    def external(self) -> Dict[str, int]:
        """Return cron name to PID where somebody else holds a cron's lock."""
        holders = self._lock_table.holders() if self._lock_table else {}
        self.sync()
        with self._lock:
            return {n: p for n, p in holders.items() if n not in self._by_cron}

    # ---- trigger

    def trigger(self, request: Trigger) -> Run:
        """Start a cron; return its run.  Refusals say why not.

        `already_running`, `unknown_cron`, `invalid_params`, `launch_failed`,
        `idempotency_mismatch`, `shutting_down`.
        """
        self.refuse_if_closing()
        try:
            cron = self._registry.get(request.cron_name)
            values = cron.resolve(request.params)
        except Refusal:
            known = self._replayed_run(request)
            if known:  # a retry gets its answer, whatever the registry has by now
                return known
            raise
        with self._mutexes[cron.name], self._in_turn():
            known = self._replayed_run(request)
            if known:
                return known
            lock = self._take_lock(cron, values, request)
            try:
                self._settle_cron(cron.name)
                return self._launch(cron, values, request, lock)
            finally:
                os.close(lock)

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait a moment until other launches are through.

        For speed alone: threads that contend for the interpreter at each system call
        start a fifth fewer scripts than one after the other.  So nobody waits for long:
        a launch that hangs, on a dead disk, must not hold up the others.
        """
        mine = self._turn.acquire(timeout=TURN_S)
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    def refuse_if_closing(self) -> None:
        if self.closing:
            raise Refusal(
                "shutting_down",
                "The server is shutting down; try again in a few seconds.",
                {"Retry-After": "5"},
            )

    def replay(self, request: Trigger) -> Optional[Key]:
        """Return what the request's idempotency key stands for already, if it does."""
        if request.idempotency_key is None:
            return None
        name, key = request.cron_name, request.idempotency_key
        found = self._store.key(name, key, self._clock())
        if found and not hmac.compare_digest(found.digest, request.digest()):
            raise Refusal(
                "idempotency_mismatch",
                f'The Idempotency-Key was used for another request for "{name}" within '
                "the last day; use a new key for a new request.",
            )
        return found

    def _replayed_run(self, request: Trigger) -> Optional[Run]:
        found = self.replay(request)
        return self._store.run(found.run_id) if found and found.run_id else None

    def key_for(self, request: Trigger) -> Optional[Key]:
        """Return the idempotency key to record with what the request leads to."""
        if request.idempotency_key is None:
            return None
        return Key(
            request.cron_name, request.idempotency_key, request.digest(), self._clock()
        )

    def _take_lock(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> int:
        path = self._settings.pid_file(cron.name)
        try:
            lock = take_lock(path)
        except OSError as error:
            why = f"its PID file {path} can't be opened ({error.strerror}): mend it"
            if error.errno == errno.ELOOP:
                why = f"its PID file {path} is a link, which is not followed: remove it"
            run = self._asked_run(cron, values, request)
            raise self._not_launched(run, request, why) from None
        if lock is None:
            raise self._busy(cron.name)
        return lock

    def _busy(self, cron_name: str) -> Refusal:
        with self._lock:
            active = self._by_cron.get(cron_name)
        run = active.run if active else None
        if run is None:
            run = next(iter(self._store.running(cron_name)), None)
        # Not `external`, which may take other crons' mutexes: we hold this one's.
        holders = self._lock_table.holders() if self._lock_table else {}
        pid = run.pid if run and run.pid else holders.get(cron_name)
        return Refusal(
            "already_running",
            f'"{cron_name}" is running already and is never started twice; '
            "wait for its end.",
            runId=run.id if run else None,
            pid=pid,
            startedAt=run.started_at if run else None,
        )

    def _launch(
        self,
        cron: Cron,
        values: Mapping[str, ParameterValue],
        request: Trigger,
        lock: int,
    ) -> Run:
        """Start the keeper, which inherits the lock.  The caller holds the mutex.

        A kill before `begin` leaves nothing, one after it a row that the next start
        settles, by what the keeper wrote into the PID file.
        """
        run = self._asked_run(cron, values, request)
        try:
            arguments = script_arguments(cron, values, self._user_id)
            check_directory(cron)
            log = open_cron_log(cron.log_path, self._user_id)
        except LaunchError as error:
            raise self._not_launched(run, request, str(error)) from None
        try:
            # From here on the PID file speaks of this run, or says nothing.
            empty_pid_file(lock)
            run = self._begin(run, request, log)
            process = self._popen(cron, values, run, arguments, lock, log)
        except (OSError, ValueError) as error:
            why = f"the system refused to start it ({error})"
            raise self._not_launched(run, request, why) from None
        finally:
            os.close(log)
        run = replace(run, pid=process.pid)
        self._watch_child(run, process)
        self._store.launched(run)
        self._say(
            "info",
            f"run {run.id} of {run.cron_name} started "
            f"({run.asked_by()}), pid {run.pid}",
        )
        self.changed(run.cron_name)
        return run

    def _asked_run(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Run:
        """Return the run that a request asks for; it has no id yet."""
        return Run(
            id=0,
            cron_name=cron.name,
            status=RUNNING,
            started_at=now_text(self._clock()),
            trigger=request.source,
            requested_by=request.requested_by,
            client=request.client,
            params=cron.shown(values),
            log_file=cron.log_path,
        )

    def _begin(self, run: Run, request: Trigger, log: int) -> Run:
        """Record the run and write its first line into its log."""
        status = os.fstat(log)
        if stat.S_ISREG(status.st_mode):
            run = replace(run, log_inode=status.st_ino, log_start=status.st_size)
        run = self._store.begin(run, self.key_for(request), request.scheduled)
        line = framing_line(f"run {run.id} started ({run.asked_by()})").encode()
        with contextlib.suppress(OSError):
            if os.write(log, line) == len(line):
                # What another left running may have written to the log since the look.
                end = os.lseek(log, 0, os.SEEK_CUR)
                return replace(run, log_start=end - len(line))
        return replace(run, log_inode=None)  # without its head it can't be found

    def _popen(
        self,
        cron: Cron,
        values: Mapping[str, ParameterValue],
        run: Run,
        arguments: Sequence[str],
        lock: int,
        log: int,
    ) -> subprocess.Popen[bytes]:
        parameters = {
            cron.parameters[name].variable: value_text(value)
            for name, value in values.items()
        }
        own = {
            "CRON_NAME": cron.name,
            "CRON_RUN_ID": str(run.id),
            "CRON_TRIGGER": run.trigger,
        }
        return subprocess.Popen(
            [SHELL, "-c", KEEPER, f"cron {cron.name}", *arguments],
            stdin=lock,
            stdout=log,
            stderr=subprocess.DEVNULL,
            cwd=cron.directory,
            env={**self._environment, **cron.environment, **parameters, **own},
            start_new_session=True,
        )

    def _not_launched(self, run: Run, request: Trigger, why: str) -> Refusal:
        """Record a run that failed to start; return what to tell the client."""
        if not run.id:
            run = self._store.begin(run, None, request.scheduled)
        self._store.release(run, began=True)
        ended = replace(
            run,
            status=FAILED,
            completed_at=now_text(self._clock()),
            duration_ms=0,
            error=f"Not started: {why}.",
        )
        log = RunLog(ended)  # there if the launch came as far as its first line
        if log.descriptor is not None:
            ended = replace(ended, log_end=log.end())
        self._store.end(ended)
        self._write_framing(log, f"run {run.id} failed: {ended.error}")
        log.close()
        self._say(
            "error",
            f"run {run.id} of {run.cron_name} failed to start "
            f"({run.asked_by()}): {why}",
        )
        self.changed(run.cron_name)
        return Refusal(
            "launch_failed", f'"{run.cron_name}" was not started: {why}.', runId=run.id
        )

    # ---- watch and record

    def _watch(
        self, run: Run, process: Optional[subprocess.Popen[bytes]] = None
    ) -> ActiveRun:
        """Have the loop tell when the keeper goes; raises ProcessLookupError."""
        assert run.pid is not None
        started_s = time.monotonic() if process else None
        active = ActiveRun(run, os.pidfd_open(run.pid), process, started_s)
        with self._lock:
            self._by_id[run.id] = active
            self._by_cron[run.cron_name] = active
        self._limit(active)
        self._loop.watch(active.pidfd, lambda _events: self._on_keeper_end(active))
        return active

    def _watch_child(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        """Watch a keeper just started; again later where no descriptor is free."""
        try:
            self._watch(run, process)
        except OSError:
            self._loop.call_later(1.0, lambda: self._watch_child(run, process))

    def _limit(self, active: ActiveRun) -> None:
        """Arrange for the end of a run that takes too long."""
        cron = self._registry.crons().get(active.run.cron_name)
        if cron is None or cron.timeout_s is None:
            return
        # Not by the time in the record: the clock may have been set since.
        used_s = 0.0 if active.process else process_age_s(active.run.pid or 0) or 0.0
        active.timeout = self._loop.call_later(
            max(0.0, cron.timeout_s - used_s), lambda: self._time_out(active)
        )

    def _on_keeper_end(self, active: ActiveRun) -> None:
        with self._mutexes[active.run.cron_name]:
            # Asked again: between the loop's look and this call, another thread may
            # have closed a descriptor and been given its number for this run.
            if not active.done.is_set() and is_ready(active.pidfd):
                self._finish(active)

    def _finish(self, active: ActiveRun) -> None:
        """Record the end of a run whose keeper is gone.  The caller holds the mutex."""
        if active.done.is_set():
            return
        now_s = self._clock()
        self._loop.unwatch(active.pidfd)
        os.close(active.pidfd)
        if active.timeout:
            active.timeout.cancel()
        killed = self._keeper_killed(active)
        cut_short = killed or active.run.end_reason is not None
        if cut_short:
            # Before the keeper is reaped: the group's number is still its own.
            active.left = members_of_group(active.run.pid or 0)
        ended = self._ended_run(active, now_s)
        strays = self._clear_group(active, killed) if cut_short else []
        try:
            self._record_end(ended)
            self._name_strays(active.run, strays)
        finally:
            with self._lock:
                self._by_id.pop(active.run.id, None)
                if self._by_cron.get(active.run.cron_name) is active:
                    del self._by_cron[active.run.cron_name]
            active.done.set()
            self.changed(active.run.cron_name)

    def _keeper_killed(self, active: ActiveRun) -> bool:
        """Return True where the keeper went before its script: it wrote no status."""
        written = read_pid_file(self._settings.pid_file(active.run.cron_name))
        if written.pid == active.run.pid and written.exit_code is not None:
            return False
        if active.process is None:
            # Where it was emptied for another run, the start of that has recorded this.
            known = self._store.run(active.run.id)
            return written.pid in (None, active.run.pid) and (
                known is None or known.running
            )
        # A disk that took no status is no reason to kill what a script left running.
        options = os.WEXITED | os.WNOWAIT
        peeked = os.waitid(os.P_PID, active.process.pid, options)
        return peeked is None or peeked.si_code != os.CLD_EXITED

    def _ended_run(self, active: ActiveRun, now_s: float) -> Run:
        run = active.run
        waited, cpu_seconds, max_rss_bytes = self._reap(active)
        written = read_pid_file(self._settings.pid_file(run.cron_name))
        exit_code = written.exit_code if written.pid == run.pid else None
        if exit_code is None:
            # Nothing was written: the keeper itself was killed, or the disk is full.
            exit_code = 128 + signal.SIGKILL if active.killed else waited
        if active.started_s is not None:
            took_s = time.monotonic() - active.started_s
        else:
            took_s = max(0.0, now_s - epoch_of(run.started_at))
        return replace(
            self._with_exit_code(run, exit_code),
            completed_at=now_text(now_s),
            duration_ms=round(took_s * 1000),
            cpu_seconds=cpu_seconds,
            max_rss_bytes=max_rss_bytes,
        )

    def _reap(
        self, active: ActiveRun
    ) -> Tuple[Optional[int], Optional[float], Optional[int]]:
        """Return exit status, CPU seconds and peak bytes where this is the parent."""
        if active.process is None:
            return None, None, None
        _, status, usage = os.wait4(active.process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        active.process.returncode = code
        cpu_seconds = round(usage.ru_utime + usage.ru_stime, 6)
        return (128 - code if code < 0 else code), cpu_seconds, usage.ru_maxrss * 1024

    def _with_exit_code(self, run: Run, exit_code: Optional[int]) -> Run:
        if exit_code is None:
            why = "The exit status is not known: the run's keeper was killed."
            return replace(run, status=INTERRUPTED, error=why)
        status = COMPLETED if exit_code == 0 else FAILED
        return replace(
            run, status=status, exit_code=exit_code, signal=signal_name(exit_code)
        )

    def _record_end(self, run: Run) -> None:
        """Record, log and tell a run's end, unless somebody did so before."""
        log = RunLog(run)
        try:
            if log.descriptor is not None:
                run = replace(run, log_end=log.end())
            ended = self._store.end(run)
            if ended is None:
                return
            text = f"run {ended.id} {ended.status}: {ended.outcome()}"
            self._write_framing(log, text)
        finally:
            log.close()
        level = "info" if ended.status == COMPLETED else "warning"
        self._say(
            level,
            f"run {ended.id} of {ended.cron_name} {ended.status}: {ended.outcome()}",
        )

    def _write_framing(self, log: RunLog, text: str) -> None:
        """Append a line to the file that has the run's output, wherever it is now."""
        if log.descriptor is None:
            return
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{log.descriptor}"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                partial = size and os.pread(log.descriptor, 1, size - 1) != b"\n"
                line = ("\n" if partial else "") + framing_line(text)
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def changed(self, cron_name: str) -> None:
        """Tell that something about a cron is different now."""
        self.heal()
        self._on_change(cron_name)

    def heal(self) -> None:
        """Have the history written again, as soon as that is possible."""
        if self._store.problem is not None:
            self._loop.call_soon(self._retry_store)

    def _retry_store(self) -> None:
        """Try again and again to write the history, while it has a problem."""
        if self._retrying:
            return
        self._retrying = True

        def attempt() -> None:
            if self._store.retry():
                self._retrying = False
                self.on_heal()
            else:
                self._loop.call_later(STORE_RETRY_S, attempt)

        self._loop.call_later(STORE_RETRY_S, attempt)

    # ---- cancel and time limit

    def cancel(self, run_id: int, by: Optional[str]) -> Run:
        """Ask a run to end, in 10 s by force; else `not_found` or `not_running`."""
        active = self.active(run_id)
        if active is None:
            self.sync()
            active = self.active(run_id)
        run = active.run if active else self._store.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        if active is None or not self._end_early(active, CANCELLED, by):
            raise Refusal(
                "not_running",
                f"Run {run_id} is not running any more; only a running run can be "
                "cancelled.",
            )
        self._say(
            "notice",
            f"run {run_id} of {run.cron_name} is cancelled by "
            f"{printable(by or 'a client')}",
        )
        return active.run

    def _time_out(self, active: ActiveRun) -> None:
        if self._end_early(active, TIMED_OUT, None):
            run = active.run
            self._say(
                "warning",
                f"run {run.id} of {run.cron_name} has reached its "
                "time limit and is ended",
            )

    def _end_early(self, active: ActiveRun, reason: str, by: Optional[str]) -> bool:
        """SIGTERM the process group, later SIGKILL.  Return False if it has ended.

        The mutex keeps the keeper from being reaped meanwhile, so that its number
        can't have become another's process group.
        """
        with self._mutexes[active.run.cron_name]:
            if not active.alive():
                return False
            if active.run.end_reason is None:
                active.run = self._store.set_end_reason(active.run, reason, by)
                self._terminate(active)
        return True

    def _terminate(self, active: ActiveRun) -> None:
        self._kills[active.run.id] = active
        active.kill = self._loop.call_later(
            CANCEL_GRACE_S, lambda: self._kill_group(active)
        )
        self._send_term(active)

    def _send_term(self, active: ActiveRun, tries: int = 100) -> None:
        """SIGTERM the process group.  The caller holds the mutex.

        Not before the keeper has begun the script: the keeper minds no signal, and
        would keep to itself one that comes a moment too early.
        """
        assert active.run.pid is not None
        if tries and not script_began(active.run.pid):

            def again() -> None:
                with self._mutexes[active.run.cron_name]:
                    if active.alive():
                        self._send_term(active, tries - 1)

            self._loop.call_later(0.01, again)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(active.run.pid, signal.SIGTERM)

    def _kill_group(self, active: ActiveRun) -> None:
        """SIGKILL what SIGTERM did not end."""
        self._kills.pop(active.run.id, None)
        with self._mutexes[active.run.cron_name]:
            pid = active.run.pid
            if active.alive() and pid:
                active.killed = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            elif pid:
                run = active.run
                kill_leftovers(run.cron_name, run.id, pid, active.left)

    def _clear_group(self, active: ActiveRun, killed: bool) -> List[Process]:
        """See to what is left of a run that did not end by itself.

        Its group gets the rest of its 10 s, but nothing where the keeper was killed:
        the lock is free then, and a script that goes on would not be alone.  Return
        what has left the group.
        """
        run = active.run
        assert run.pid is not None
        if not killed:
            found = processes_of_run(run.cron_name, run.id)
            return [process for process in found if process.group != run.pid]
        return kill_leftovers(run.cron_name, run.id, run.pid, active.left)

    def _name_strays(self, run: Run, strays: Sequence[Process]) -> None:
        """Name what has left a run's group in both logs, after the run's output."""
        if not strays:
            return
        log = RunLog(run)
        for stray in strays:
            text = (
                f"run {run.id} left process {stray.pid} "
                f"({printable(stray.name)}) outside its process group"
            )
            self._say("warning", f"{run.cron_name}: {text}")
            self._write_framing(log, text)
        log.close()

    # ---- settle

    def settle(self) -> None:
        """Find what became of the runs that an earlier server left.  At start, once."""
        for run in self._store.running():
            self._find(run)
        self._adopt_unrecorded()
        self._clear_cancelled()

    def sync(self) -> None:
        """Learn of runs that a command line has begun or ended.

        Also asked before runs are shown: one that was killed could not tell of it.
        """
        for run in self._store.running():
            if self.active(run.id) is None:
                self._find(run)
                self._on_change(run.cron_name)

    def _find(self, found: Run) -> None:
        """Watch a run that is recorded as running again, or record its end."""
        path = self._settings.pid_file(found.cron_name)
        with self._mutexes[found.cron_name]:
            if self.active(found.id):
                return
            lock = self._try_lock(path)
            try:
                # Asked under the lock: its end may have been recorded meanwhile.
                run = self._store.run(found.id)
                if run is not None and run.running:
                    self._find_locked(run, path, lock is not None)
            finally:
                if lock is not None:
                    os.close(lock)

    def _find_locked(self, run: Run, path: str, free: bool) -> None:
        written = read_pid_file(path)
        pid = written.pid or run.pid  # not written where the disk of PID files is full
        if pid is None and not free:
            # Whoever holds the lock is just about to start it.
            self._find_again(run)
            return
        if written.exit_code is None or not free:
            # It may go on though the lock is free: after its PID file was removed.
            try:
                adopted = self._adopt(run, pid)
            except OSError:  # no descriptor is free: no reason to think it has ended
                self._find_again(run)
                return
            if adopted:
                return
            lives = pid is not None and self._may_live(run, pid)
            # If the keeper went between the two looks, it has written since.
            written = read_pid_file(path)
            if lives and written.exit_code is None:
                self._find_again(run)
                return
        self._record_found(run, written)

    def _may_live(self, run: Run, pid: int) -> bool:
        """Return False only where a process is gone, or is none of a run's."""
        young = self._clock() - epoch_of(run.started_at) < EXEC_S
        # In this order: an exec may end between the two looks, but not begin.
        return (young and is_in_exec(pid)) or is_process_of(run, pid)

    def _find_again(self, run: Run) -> None:
        """Look for a run a little later, at longer intervals the older it is."""
        if run.id in self._looking:
            return
        self._looking.add(run.id)

        def look() -> None:
            self._looking.discard(run.id)
            self._find(run)

        age_s = self._clock() - epoch_of(run.started_at)
        self._loop.call_later(min(max(FIND_AGAIN_S, age_s / 10), 5.0), look)

    def _try_lock(self, path: str) -> Optional[int]:
        try:
            return take_lock(path)
        except OSError:
            return None

    def _adopt(self, run: Run, pid: Optional[int]) -> bool:
        """Watch a keeper that another process started.  Return False if it is gone.

        Raises OSError where that can't be told.
        """
        if pid is None:
            return False
        try:
            active = self._watch(replace(run, pid=pid))
        except ProcessLookupError:
            return False
        # Asked after the pidfd was opened: the number can't change hands any more.
        if not is_process_of(run, pid):
            self._unwatch(active)
            return False
        self._store.note_under_way(active.run)
        if run.pid is None:
            self._store.launched(active.run)
        if run.end_reason:
            self._terminate(active)
        self._on_change(run.cron_name)
        return True

    def _unwatch(self, active: ActiveRun) -> None:
        self._loop.unwatch(active.pidfd)
        os.close(active.pidfd)
        if active.timeout:
            active.timeout.cancel()
        with self._lock:
            self._by_id.pop(active.run.id, None)
            self._by_cron.pop(active.run.cron_name, None)
        active.done.set()

    def _settle_cron(self, cron_name: str) -> None:
        """Record the run before this one, if it is not yet.  The caller has the lock.

        Its status stands in the PID file, which the caller is about to empty.  Refuses
        where it goes on though the lock is free, as after its PID file was removed.
        """
        with self._lock:
            active = self._by_cron.get(cron_name)
        if active:  # also where the history can't be read
            self._refuse_while_alive(active.run)
            self._finish(active)
        for run in self._store.running(cron_name):
            self._refuse_while_alive(run)
            path = self._settings.pid_file(cron_name)
            self._record_found(run, read_pid_file(path))

    def _refuse_while_alive(self, run: Run) -> None:
        # A process gives back its memory, and with it its environment, before its
        # descriptors (do_exit in Linux): who let go of the lock by ending has none.
        if run.pid and is_process_of(run, run.pid):
            raise self._busy(run.cron_name)

    def _record_found(self, run: Run, written: PidFile) -> None:
        """Record the end of a run by what its PID file said."""
        # Asked after that was read: who empties a PID file has recorded its run before.
        known = self._store.run(run.id)
        if known and not known.running:
            return
        ours = run.pid is None or written.pid == run.pid
        if run.pid is None and written.pid:
            self._store.launched(replace(run, pid=written.pid))
        if ours and written.pid and written.exit_code is not None:
            took_s = max(0.0, written.written_s - epoch_of(run.started_at))
            run = replace(
                self._with_exit_code(run, written.exit_code),
                pid=written.pid,
                completed_at=now_text(written.written_s),
                duration_ms=round(took_s * 1000),
            )
        else:
            run = self._interrupted(run, written.pid if ours else run.pid)
        self._record_end(run)
        self.changed(run.cron_name)

    def _interrupted(self, run: Run, pid: Optional[int]) -> Run:
        ended = replace(run, status=INTERRUPTED, completed_at=now_text(self._clock()))
        if pid is None:
            self._store.release(run, began=False)
            why = "The server was killed before the script began."
            return replace(ended, error=why)
        kill_leftovers(run.cron_name, run.id, pid)
        why = "The host went down, or the run's keeper was killed."
        return replace(ended, pid=pid, error=why)

    def _adopt_unrecorded(self) -> None:
        """Record runs that are under way but not in the history.

        The history was lost, or the server killed while it could not be written; what
        a keeper's environment says is enough to go on.
        """
        # Not by the table of locks: in a container it has none of a dead server.
        for path in self._settings.run_dir.glob("*.pid"):
            cron_name, pid = path.stem, read_pid_file(path).pid
            owner = run_of_process(pid) if pid else None
            if not pid or not owner or owner[0] != cron_name or self.active(owner[1]):
                continue
            cron = self._registry.crons().get(cron_name)
            known = self._store.run(owner[1])
            if known and not known.running:
                continue
            started_s = self._clock() - (process_age_s(pid) or 0.0)
            self._store.seed_ids(owner[1])
            run = self._store.begin(
                Run(
                    owner[1],
                    cron_name,
                    RUNNING,
                    started_at=now_text(started_s),
                    trigger=owner[2],
                    log_file=cron.log_path if cron else None,
                )
            )
            with contextlib.suppress(OSError):
                self._adopt(run, pid)

    def _clear_cancelled(self) -> None:
        """Finish the 10 s of runs whose server was killed within them."""
        since = now_text(self._clock() - 6 * CANCEL_GRACE_S)
        for status in (CANCELLED, TIMED_OUT):
            for run in self._store.runs(status=status, limit=20):
                if run.pid and (run.completed_at or "") > since:
                    kill_leftovers(run.cron_name, run.id, run.pid)

    def close(self) -> None:
        """Stop triggering, and finish what was cancelled.  Running crons go on."""
        self.closing = True
        for active in list(self._kills.values()):
            if active.done.is_set():
                self._kill_group(active)


class Schedule:
    """The scheduled triggers: fires each at its time.

    Pending ones stand in the history, and here for the timer's sake.  What fires
    one is an SQL `update ... where status = 'pending'` in the same transaction as the
    run's row, so that no restart fires it twice, no kill loses it, and a cancel that
    comes first wins.
    """

    def __init__(
        self,
        runner: Runner,
        store: Store,
        registry: Registry,
        loop: Loop,
        say: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runner = runner
        self._store = store
        self._registry = registry
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()  # guards _pending and the timer
        self._pending: Dict[int, Scheduled] = {}
        self._timer = WallTimer(loop, self.tick)

    def start(self) -> None:
        """Take up what is pending; give up what came due over an hour ago.

        At start, and whenever the history can be read again.
        """
        now_s = self._clock()
        for entry in self._store.pending():
            if entry.due_s < now_s - SCHEDULE_LATE_S:
                late = duration_text(round((now_s - entry.due_s) * 1000))
                why = f"The server was not running at that time; it is {late} late."
                self._end(replace(entry, status=MISSED, reason=why))
            else:
                with self._lock:
                    self._pending[entry.id] = entry
        self.tick()

    def tick(self) -> None:
        """Fire what is due, the earliest first, and arm the timer for the next."""
        now_s = self._clock()
        with self._lock:
            due = [e for e in self._pending.values() if e.due_s <= now_s]
        for entry in sorted(due, key=lambda e: (e.due_s, e.id)):
            self._fire(entry)
        self._arm()

    def _arm(self) -> None:
        with self._lock:
            times = [entry.due_s for entry in self._pending.values()]
            self._timer.arm(min(times) if times and not self._runner.closing else None)

    def _fire(self, entry: Scheduled) -> None:
        request = Trigger(
            entry.cron_name,
            "schedule",
            entry.params,
            entry.requested_by,
            entry.client,
            scheduled=entry,
        )
        try:
            self._runner.trigger(request)
        except Refusal as refusal:
            if refusal.code == "shutting_down":
                return
            recorded = refusal.extra.get("runId") is not None
            if refusal.code != "launch_failed" or not recorded:
                return self._end(replace(entry, status=SKIPPED, reason=refusal.message))
        except Exception as error:  # one that fails must not keep the others waiting
            why = f"The server met a fault of its own: {error!r}."
            return self._end(replace(entry, status=SKIPPED, reason=why))
        with self._lock:
            self._pending.pop(entry.id, None)
        self._runner.changed(entry.cron_name)

    def _end(self, entry: Scheduled) -> None:
        with self._lock:
            self._pending.pop(entry.id, None)
        if self._store.end_scheduled(entry):
            self._say(
                "warning",
                f"scheduled trigger {entry.id} of {entry.cron_name} "
                f"{entry.status}: {entry.reason}",
            )
        self._runner.changed(entry.cron_name)

    def create(self, request: Trigger) -> Scheduled:
        """Plan a trigger; refusals as for a trigger, and `too_many_scheduled`."""
        self._runner.refuse_if_closing()
        try:
            cron = self._registry.get(request.cron_name)
            values = cron.resolve(request.params)
        except Refusal:
            known = self._replayed(request)
            if known:  # a retry gets its answer, whatever the registry has by now
                return known
            raise
        with self._lock:
            known = self._replayed(request)
            if known:
                return known
            self._check(cron, request)
            key = self._runner.key_for(request)
            created = self._store.schedule(self._asked(cron, values, request), key)
            self._pending[created.id] = created
        self._arm()
        self._say(
            "info",
            f"scheduled trigger {created.id} of {cron.name} for "
            f"{created.run_at} (http {request.client})",
        )
        self._runner.changed(cron.name)
        return created

    def _asked(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Scheduled:
        """Return the scheduled trigger that a request asks for; it has no id yet."""
        return Scheduled(
            0,
            cron.name,
            str(request.run_at),
            PENDING,
            cron.shown(values),
            request.requested_by,
            created_at=now_text(self._clock()),
            client=request.client,
        )

    def _replayed(self, request: Trigger) -> Optional[Scheduled]:
        found = self._runner.replay(request)
        return self._store.scheduled(found.scheduled_id or 0) if found else None

    def _check(self, cron: Cron, request: Trigger) -> None:
        if epoch_of(str(request.run_at)) <= self._clock():
            raise Refusal(
                "invalid_request",
                f'"runAt" must be in the future, got {request.run_at}.',
            )
        secret = next((n for n in request.params if cron.parameters[n].secret), None)
        if secret:
            raise Refusal(
                "invalid_params",
                f'"{secret}" is a password, which is never stored: a planned trigger '
                "can't have one.",
                errors={secret: "can't be kept for a planned trigger"},
            )
        if len(self._pending) >= SCHEDULED_LIMIT:
            raise Refusal(
                "too_many_scheduled",
                f"{SCHEDULED_LIMIT} planned triggers are pending, which is the most; "
                "cancel some or wait.",
            )

    def cancel(self, scheduled_id: int, by: str) -> Scheduled:
        """Cancel a pending trigger; else `not_found` or `not_pending`."""
        entry = self._store.scheduled(scheduled_id)
        if entry is None:
            raise Refusal("not_found", f"There is no planned trigger {scheduled_id}.")
        cancelled = replace(entry, status=CANCELLED, reason=f"Cancelled by {by}.")
        ended = entry.status != PENDING
        if ended or not self._store.end_scheduled(cancelled, must=True):
            raise Refusal(
                "not_pending",
                f"Planned trigger {scheduled_id} has ended already; only a pending one "
                "can be cancelled.",
            )
        with self._lock:
            self._pending.pop(scheduled_id, None)
        self._arm()
        self._say(
            "notice",
            f"scheduled trigger {scheduled_id} of {entry.cron_name} is cancelled by "
            f"{printable(by)}",
        )
        self._runner.changed(entry.cron_name)
        return cancelled

    def close(self) -> None:
        """Fire nothing more."""
        with self._lock:
            self._timer.close()


# ========================================================================== Events
# What happened, told to browsers (server-sent events) and to one URL.  The order is
# that of the history, which is where both read it from.

STREAM_BACKLOG_BYTES = 1 << 20
STREAM_COMMENT_S = 15.0


class Stream:
    """A client of `/events`: its socket, and what it did not take yet."""

    def __init__(self, connection: socket.socket, position: int) -> None:
        self.connection = connection
        self.descriptor = connection.fileno()
        #: The id of the last event that was sent or queued.
        self.position = position
        self.backlog = bytearray()
        #: What the loop watches it for.
        self.watched = 0

    def send(self, data: bytes) -> bool:
        """Send or queue; never wait.  Return False where it is to be dropped."""
        if not self.backlog:
            try:
                data = data[self.connection.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return False
        self.backlog += data
        return len(self.backlog) <= STREAM_BACKLOG_BYTES

    def flush(self) -> bool:
        """Send what is queued, as far as it goes; return False as `send`."""
        queued, self.backlog = bytes(self.backlog), bytearray()
        return self.send(queued)

    def gone(self) -> bool:
        """Return True if the client has closed, or sent what nobody asked for.

        The answer said that the connection closes after it, so no request may follow;
        one who sends without end would keep the loop, and so all runs' ends, busy.
        """
        try:
            self.connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class Broadcaster:
    """Sends each event to every stream, from the loop's thread, without waiting.

    One thread serves all streams: a hundred of them cost a hundred sockets, and a
    reader that is slow fills its own backlog until it is dropped.
    """

    LIMIT = 32
    #: How often it is looked whether the registry has changed, while there are streams.
    LOOK_S = 1.0
    #: After a trigger, streams wait so long: its answer goes out before a hundred of
    #: them are written to.
    PAUSE_S = 0.002

    def __init__(self, store: Store, loop: Loop) -> None:
        self._store = store
        self._loop = loop
        self._lock = threading.Lock()  # guards all below
        self._streams: Dict[int, Stream] = {}
        self._joining: List[object] = []  # a token for each place that is reserved
        self._listeners: List[Callable[[Event], None]] = []
        self._cursor = store.last_event_id()
        self._pumping = False
        self._commenting = False
        self._looking = False
        #: Called in the loop's thread now and then, while there are streams.
        self.look: Callable[[], Any] = lambda: None

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call with each event, in the loop's thread."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Have new events sent; from any thread, as often as one likes."""
        # Seen without the lock: who joins wakes by itself, after it was added.
        if self._pumping or not (self._streams or self._listeners):
            return
        self._pumping = True
        if self._loop.is_here():
            self._loop.call_soon(self._pump)
        else:
            self._loop.call_later(self.PAUSE_S, self._pump)

    def rewind(self) -> None:
        """Send again what has another id now than it was sent with.

        While this process could not write the history, another one wrote events of the
        same ids, which nobody here was sent: better twice than not at all.
        """
        with self._lock:
            first, self._store.renumbered = self._store.renumbered, None
            if first is None:
                return
            self._cursor = min(self._cursor, first - 1)
            for stream in self._streams.values():
                stream.position = min(stream.position, first - 1)
        self.wake()

    def _pump(self) -> None:
        self._pumping = False
        if not self._streams and not self._listeners:
            return
        with self._lock:
            while True:
                events = self._store.events_after(self._cursor)
                for event in events:
                    self._cursor = event.id
                    self._send(event)
                if not events:
                    return

    def _send(self, event: Event) -> None:
        data = sse(event)
        for stream in list(self._streams.values()):
            if stream.position < event.id:
                stream.position = event.id
                self._keep(stream, stream.send(data))
        for listener in self._listeners:
            listener(event)

    def _keep(self, stream: Stream, well: bool) -> None:
        """Drop a stream that is not well; wait for room where it has a backlog."""
        if not well:
            self._streams.pop(stream.descriptor, None)
            self._loop.unwatch(stream.descriptor)
            stream.connection.close()
            return
        events = select.EPOLLIN | (select.EPOLLOUT if stream.backlog else 0)
        if events != stream.watched:
            stream.watched = events
            self._loop.watch(
                stream.descriptor, lambda ready: self._ready(stream, ready), events
            )

    def _ready(self, stream: Stream, ready: int) -> None:
        with self._lock:
            if self._streams.get(stream.descriptor) is not stream:
                return
            well = not (ready & ~select.EPOLLOUT and stream.gone())
            self._keep(stream, well and stream.flush())

    def reserve(self) -> object:
        """Take a place for one more stream, until `release`; else `overloaded`."""
        with self._lock:
            if len(self._streams) + len(self._joining) >= self.LIMIT:
                raise Refusal(
                    "overloaded",
                    f"{self.LIMIT} event streams are open, which is the most; close "
                    "one or try again later.",
                    {"Retry-After": "15"},
                )
            place = object()
            self._joining.append(place)
            return place

    def release(self, place: object) -> None:
        """Give a place back, unless its stream has joined and counts by itself."""
        with self._lock:
            if place in self._joining:
                self._joining.remove(place)

    def join(
        self, connection: socket.socket, last_event_id: Optional[int], place: object
    ) -> None:
        """Send what a client missed, then take its socket over.

        Called in the connection's thread, which may wait for the client; only the
        last look, under the lock, makes sure that nothing falls in between.
        """
        position = last_event_id
        while position is not None:
            events = self._store.events_after(position)
            if not events:
                break
            connection.sendall(b"".join(map(sse, events)))
            position = events[-1].id
        with self._lock:
            newest = self._store.last_event_id()
            position = newest if position is None else min(position, newest)
            missed = self._store.events_after(position)
            stream = Stream(connection, missed[-1].id if missed else position)
            connection.setblocking(False)
            if not self._streams and not self._listeners:
                self._cursor = stream.position
            self._streams[stream.descriptor] = stream
            self._joining.remove(place)
            self._keep(
                stream, stream.send(b": joined\n\n" + b"".join(map(sse, missed)))
            )
            self._start_comments()
            self._start_looks()
        self.wake()

    def _start_comments(self) -> None:
        if not self._commenting:
            self._commenting = True
            self._loop.call_later(STREAM_COMMENT_S, self._comment)

    def _comment(self) -> None:
        with self._lock:
            for stream in list(self._streams.values()):
                self._keep(stream, stream.send(b":\n\n"))
            self._commenting = False
            if self._streams:
                self._start_comments()

    def _start_looks(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(self.LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._streams:
            self.look()
            self._start_looks()

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            for stream in list(self._streams.values()):
                self._keep(stream, False)


def sse(event: Event) -> bytes:
    """Return an event as the HTML standard has it (9.2.6).  JSON has no newline."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n".encode()


class Notifier:
    """POSTs the end of each run to one URL, from a thread of its own."""

    TIMEOUT_S = 10.0
    PAUSES_S = (1.0, 5.0)
    QUEUE = 1000
    #: RuntimeError: no thread could be started.
    FAULTS = (OSError, http.client.HTTPException, ValueError, RuntimeError)

    def __init__(
        self, url: str, registry: Registry, say: Callable[[str, str], None]
    ) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._registry = registry
        self._say = say
        self._queue: queue.Queue[Dict[str, Json]] = queue.Queue(self.QUEUE)
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()

    def __call__(self, event: Event) -> None:
        """Take an event; called by the loop, so it never waits."""
        if event.name != "run.finished":
            return
        run = json.loads(event.data)["run"]
        cron = self._registry.crons().get(run["cronName"])
        wanted = cron.notify if cron else "always"
        if wanted == "never" or (wanted == "failure" and run["status"] == COMPLETED):
            return
        body = {"event": event.name, "run": run, "text": self._text(run)}
        try:
            self._queue.put_nowait(body)
        except queue.Full:
            self._say(
                "error",
                f"the notification of run {run['id']} was dropped: "
                f"{self.QUEUE} are waiting",
            )
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="notifier", daemon=True
            )
            self._thread.start()

    def _text(self, run: Mapping[str, Json]) -> str:
        mark = "✅" if run["status"] == COMPLETED else "❌"
        how = run["signal"] or f"exit {run['exitCode']}"
        if run["exitCode"] is None:
            how = run["error"] or "exit status unknown"
        elif run["durationMs"] is not None:
            how += f" after {duration_text(run['durationMs'])}"
        return f"{mark} {run['cronName']} {run['status']}: {how}"

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._deliver(self._queue.get())
            self._queue.task_done()

    def _deliver(self, body: Mapping[str, Json]) -> None:
        for pause_s in (*self.PAUSES_S, None):
            try:
                return self._post(json.dumps(body).encode())
            except self.FAULTS as error:
                why = str(error) or type(error).__name__
            if pause_s is None:
                self._say(
                    "error",
                    f"the notification of run {body['run']['id']} "
                    f"failed three times: {why}",
                )
            elif self._stopping.wait(pause_s):
                return

    def _post(self, body: bytes) -> None:
        """POST once; raises OSError, HTTPException or ValueError."""
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(
            self._url.hostname or "", self._url.port, timeout=self.TIMEOUT_S
        )
        target = urllib.parse.urlunsplit(
            ("", "", self._url.path or "/", self._url.query, "")
        )
        # The timeout above is one of each step: a byte now and then would prolong it.
        late = threading.Event()
        limit = threading.Timer(self.TIMEOUT_S, self._break_off, [connection, late])
        limit.daemon = True
        limit.start()
        try:
            connection.request(
                "POST", target, body, {"Content-Type": "application/json"}
            )
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            if not late.is_set():
                raise
        finally:
            limit.cancel()
            connection.close()
        if late.is_set():
            raise ValueError(f"it did not answer within {self.TIMEOUT_S:g} s")
        if not 200 <= status < 300:
            raise ValueError(f"it answered {status}")

    def _break_off(
        self, connection: http.client.HTTPConnection, late: threading.Event
    ) -> None:
        late.set()
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give up what waits."""
        self._stopping.set()
        waiting = self._queue.unfinished_tasks
        if waiting:
            self._say("error", f"{waiting} notifications were not sent before the stop")


# ============================================================================ HTTP
# A connection's life: accepted -> source checked -> request read within 10 s ->
# access checked -> body read -> routed -> answered -> next request, or closed.

REQUEST_LINE_BYTES = 8192
HEADER_COUNT = 100
HEAD_BYTES = 65536
BODY_BYTES = 65536
REQUEST_S = 10.0
IDLE_S = 60.0
#: A stop waits this long for the request of a connection that was just let in.
ARRIVAL_S = 0.3
SEND_S = 10.0
SEND_BUFFER_BYTES = 1 << 17
CONNECTION_LIMIT = 256
WORK_LIMIT, TRIGGER_LIMIT = 64, 208
FOLLOW_LIMIT = 32
WRONG_SECRETS, WRONG_SECRETS_S, WRONG_SECRETS_ADDRESSES = 10, 60.0, 1024
REFUSALS_LOGGED, REFUSALS_LOGGED_S = 1000, 60.0

REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}) (\S+) HTTP/1\.([01])")
HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What no header's value may hold: control characters but the tab.
HEADER_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Headers whose second copy would leave it open which one counts (RFC 9112, 3.2, 6.3).
SINGLE_HEADERS = {
    "host", "content-length", "content-type", "transfer-encoding", "origin",
    "authorization", "x-trigger-secret", "idempotency-key", "last-event-id",
    "sec-fetch-site",
}  # fmt: skip
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,64}")
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
COMMON_HEADERS = (
    f"Server: {SERVICE}\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Cache-Control: no-store\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
)
JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass
class Request:
    """A request as it was read.  Header names are lower case, values as latin-1."""

    method: str
    path: str
    query: str
    headers: Dict[str, str]
    address: str
    keep_alive: bool
    old: bool  # HTTP/1.0
    body: bytes = b""

    @property
    def has_body(self) -> bool:
        text = self.headers.get("content-length", "0")
        return not re.fullmatch(r"0{1,19}", text)


@dataclass
class Answer:
    """What goes back.  `stream` instead of `body`, with `length` where it is known."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Optional[Iterator[bytes]] = None
    length: Optional[int] = None
    #: Takes the connection over after the head was sent.
    hand_over: Optional[Callable[[socket.socket], None]] = None
    #: Called when the answer was sent, or could not be.
    release: Optional[Callable[[], None]] = None
    #: The answer may take as long as a run; it has a limit of its own.
    lasting: bool = False
    policy: str = API_POLICY


def json_answer(status: int, value: Json, **headers: str) -> Answer:
    """Return an answer that carries JSON."""
    return Answer(status, json_text(value).encode("utf-8", "replace"), headers=headers)


@dataclass(frozen=True)
class Route:
    """A method and a path, and what they need.  Only what is listed here exists."""

    method: str
    path: str
    action: str
    #: Answered without the secret; everything else needs it.
    public: bool = False
    query: Tuple[str, ...] = ()
    #: A body must come; a changing route without it takes one, or none.
    body: bool = False

    @property
    def changes(self) -> bool:
        return self.method not in ("GET", "HEAD")


ROUTES = (
    Route("GET", "/", "page", public=True),
    Route("GET", "/health", "health", public=True),
    Route("POST", "/trigger", "trigger", body=True),
    Route("GET", "/crons", "crons"),
    Route("GET", "/runs", "runs", query=("cron", "status", "limit", "before")),
    Route("GET", "/runs/ID", "run"),
    Route("GET", "/runs/ID/log", "run_log", query=("tail", "follow")),
    Route("POST", "/runs/ID/cancel", "cancel_run"),
    Route("GET", "/scheduled", "scheduled"),
    Route("DELETE", "/scheduled/ID", "cancel_scheduled"),
    Route("GET", "/events", "events"),
    Route("GET", "/metrics", "metrics"),
)

#: A browser's question (CORS) before a request of a listed origin.
PREFLIGHT = Route("OPTIONS", "", "preflight", public=True)


def _route_tables() -> Tuple[
    Dict[str, Dict[str, Route]], List[Tuple[re.Pattern[str], Dict[str, Route]]]
]:
    """Return the routes by exact path, and those with an ID by pattern."""
    by_path: Dict[str, Dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    patterns = [
        (re.compile(path.replace("ID", r"(\d{1,19})"), re.ASCII), by_path.pop(path))
        for path in list(by_path)
        if "ID" in path
    ]
    return by_path, patterns


EXACT_ROUTES, PATTERN_ROUTES = _route_tables()


def find_routes(path: str) -> Tuple[Dict[str, Route], Optional[int]]:
    """Return a path's routes by method, none if it is unknown, and the id in it."""
    exact = EXACT_ROUTES.get(path)
    if exact:
        return exact, None
    for pattern, routes in PATTERN_ROUTES:
        match = pattern.fullmatch(path)
        if match:
            return routes, int(match[1])
    return {}, None


def same_secret(given: bytes, secret: bytes) -> bool:
    """Compare in constant time; hashed, so that the length does not show either."""
    digests = (hashlib.sha256(text).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


class WrongSecrets:
    """Counts wrong secrets by address, in a table that can't grow without bound."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._times: collections.OrderedDict[str, Deque[float]] = (
            collections.OrderedDict()
        )

    def blocked_s(self, address: str) -> float:
        """Return for how many seconds an address is refused, 0 if it is not."""
        with self._lock:
            times = self._times.get(address)
            if times is None or len(times) < WRONG_SECRETS:
                return 0.0
            return max(0.0, times[0] + WRONG_SECRETS_S - self._monotonic())

    def add(self, address: str) -> None:
        """Count one more."""
        with self._lock:
            times = self._times.setdefault(
                address, collections.deque(maxlen=WRONG_SECRETS)
            )
            self._times.move_to_end(address)
            times.append(self._monotonic())
            if len(self._times) > WRONG_SECRETS_ADDRESSES:
                self._times.popitem(last=False)


class Access:
    """Decides who may do what.  Every request passes `check`, and the default is no."""

    def __init__(self, settings: Settings, host_names: Iterable[str]) -> None:
        self._settings = settings
        listed = (*host_names, *settings.allowed_hosts, "localhost")
        self._hosts = {"host.docker.internal", *(name.lower() for name in listed)}
        self._origins = frozenset(settings.allowed_origins)
        self._wrong = WrongSecrets()

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - one Access lives as long as its server
    def source_allowed(self, address: str) -> bool:
        """Return True where a peer's address is in an allowed network."""
        peer = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        peer = mapped or peer
        return any(peer in network for network in self._settings.allow)

    def check(self, request: Request, route: Optional[Route]) -> None:
        """Return where a request may go on; else a Refusal.

        `route` is None for a path or method that does not exist: a stranger learns
        not even that.
        """
        self._check_host(request)
        self._check_origin(request, route)
        if route is None or not route.public:
            self._check_secret(request)

    def _check_host(self, request: Request) -> None:
        # DNS rebinding: a foreign page's own name is made to point here, and its
        # browser believes it speaks to that page's server.  The name gives it away.
        host = request.headers.get("host")
        if host is None and request.old:
            return
        if host is None or len(host) > 300 or not self._host_allowed(host):
            raise Refusal(
                "misdirected_request",
                f'The Host "{printable(host or "", 80)}" is not one of ours; use '
                "an IP address or localhost, or list it in CRON_TRIGGER_ALLOWED_HOSTS.",
            )

    @functools.lru_cache(maxsize=256)  # noqa: B019 - as above
    def _host_allowed(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::\d{1,5})?", host)
        if not match:
            return False
        name = match[1].rstrip(".").lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def origin_listed(self, request: Request) -> Optional[str]:
        """Return the request's Origin if it is one of CRON_TRIGGER_ALLOWED_ORIGINS."""
        origin = request.headers.get("origin")
        return origin if origin in self._origins else None

    def _check_origin(self, request: Request, route: Optional[Route]) -> None:
        # CSRF: a foreign page has its visitor's browser send a request here.  The
        # browser says whose idea that was: Origin, or Sec-Fetch-Site where a GET
        # has none.  Following a link to the page is a person's own idea.
        if self.origin_listed(request):
            return
        origin = request.headers.get("origin")
        host = request.headers.get("host")
        ours = (f"http://{host}", f"https://{host}") if host else ()
        if origin is not None and origin not in ours:
            raise self._foreign("Origin", origin)
        site = request.headers.get("sec-fetch-site", "none")
        if site in ("none", "same-origin"):
            return
        followed = request.headers.get("sec-fetch-mode") == "navigate"
        if not (followed and route and route.action == "page"):
            raise self._foreign("Sec-Fetch-Site", site)

    def _foreign(self, header: str, value: str) -> Refusal:
        return Refusal(
            "forbidden",
            f'Requests from other sites are refused ({header} "{printable(value, 80)}"'
            "); list the site in CRON_TRIGGER_ALLOWED_ORIGINS if it is yours.",
        )

    def _check_secret(self, request: Request) -> None:
        secret = self._settings.secret
        if secret is None:
            return
        blocked_s = self._wrong.blocked_s(request.address)
        if blocked_s:
            raise Refusal(
                "too_many_attempts",
                f"{WRONG_SECRETS} wrong secrets came from this address within a "
                f"minute; try again in {math.ceil(blocked_s)} s.",
                {"Retry-After": str(math.ceil(blocked_s))},
            )
        given = self._given_secret(request)
        if given is not None and same_secret(given, secret):
            return
        if given is not None:
            self._wrong.add(request.address)
        raise Refusal(
            "unauthorized",
            "This request needs the server's secret, in the header X-Trigger-Secret "
            "or as Authorization: Bearer.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _given_secret(self, request: Request) -> Optional[bytes]:
        """Return the request's secret as the bytes that were sent."""
        given = request.headers.get("x-trigger-secret")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if given is None and scheme.lower() == "bearer":
            # Only blanks: a UTF-8 secret may end in a byte that latin-1 calls a space.
            given = token.strip(" \t")
        return given.encode("latin-1") if given is not None else None


def read_query(request: Request, route: Route) -> Dict[str, str]:
    """Return the query's parameters; else `invalid_request`."""
    if not request.query:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(
            request.query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=20,
        )
    except ValueError:
        raise Refusal(
            "invalid_request", "The query is not of the form name=value&name=value."
        ) from None
    given: Dict[str, str] = {}
    for name, value in pairs:
        shown = printable(name, 80)
        if name not in route.query:
            takes = ", ".join(route.query) or "none"
            raise Refusal(
                "invalid_request",
                f'The query parameter "{shown}" is not known; this address takes: '
                f"{takes}.",
            )
        if name in given:
            raise Refusal(
                "invalid_request", f'The query parameter "{shown}" is given twice.'
            )
        given[name] = value
    return given


def query_number(
    query: Mapping[str, str],
    name: str,
    low: int,
    high: int,
    default: Optional[int] = None,
) -> Optional[int]:
    """Return a whole number out of a query; else `invalid_request`."""
    if name not in query:
        return default
    text = query[name]
    if re.fullmatch(r"\d{1,19}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise Refusal(
        "invalid_request",
        f'"{name}" must be a whole number from {low} to {high}, got '
        f'"{printable(text, 40)}".',
    )


def read_body(request: Request, known: Sequence[str]) -> Dict[str, Json]:
    """Return the fields of a request's JSON object; else `invalid_request`."""
    if not request.body:
        return {}
    try:
        value = parse_json(request.body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refusal("invalid_request", "The body is not UTF-8.") from None
    except ValueError as error:
        raise Refusal(
            "invalid_request",
            f"The body is not JSON: {printable(str(error), 200)}.",
        ) from None
    if not isinstance(value, dict):
        raise Refusal("invalid_request", "The body must be a JSON object.")
    twice = [
        *getattr(value, "twice", ()),
        *(key for v in value.values() for key in getattr(v, "twice", ())),
    ]
    if twice:
        raise Refusal(
            "invalid_request", f'The field "{printable(twice[0], 80)}" is given twice.'
        )
    for name in value:
        if name not in known:
            raise Refusal(
                "invalid_request",
                f'The field "{printable(name, 80)}" is not known; this address takes: '
                f"{', '.join(known)}.",
            )
    return value


def read_requested_by(body: Mapping[str, Json]) -> Optional[str]:
    """Return the field `requestedBy`; else `invalid_request`."""
    value = body.get("requestedBy")
    if value is None and "requestedBy" not in body:
        return None
    if (
        not isinstance(value, str)
        or len(value) > REQUESTED_BY_CHARS
        or any(p.search(value) for p in (CONTROL_CHARACTER, LINE_CONTROL, SURROGATE))
    ):
        raise Refusal(
            "invalid_request",
            f'"requestedBy" must be a text of up to {REQUESTED_BY_CHARS} '
            f"characters, none of them a control character, got {_shown(value)}.",
        )
    return value or None


def read_trigger(request: Request) -> Trigger:
    """Return the trigger that a request's body asks for; else `invalid_request`."""
    body = read_body(request, ("cronName", "params", "requestedBy", "runAt"))
    name = body.get("cronName")
    if not isinstance(name, str) or not name:
        raise Refusal(
            "invalid_request",
            'The body must name a cron, such as {"cronName": "check-alerts"}.',
        )
    params = body.get("params", {})
    if not isinstance(params, dict):
        raise Refusal(
            "invalid_request",
            f'"params" must be an object of parameters, got {_shown(params)}.',
        )
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise Refusal(
            "invalid_request",
            "An Idempotency-Key has 1 to 64 visible ASCII characters.",
        )
    return Trigger(
        name,
        "http",
        params,
        read_requested_by(body),
        request.address,
        key,
        run_at=_read_run_at(body),
    )


def _read_run_at(body: Mapping[str, Json]) -> Optional[str]:
    if "runAt" not in body:
        return None
    value = body["runAt"]
    try:
        epoch_of(value)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(
            "invalid_request",
            '"runAt" must be a time with an offset, such as '
            f'"2026-11-23T10:00:00+01:00", got {_shown(value)}.',
        ) from None
    return str(value)


def cron_view(cron: Cron, figures: Figures, running: Json) -> Dict[str, Json]:
    """Return a cron as clients see it: its entry, what it does now, its figures."""
    return {
        "cronName": cron.name,
        "description": cron.description,
        "estimatedDuration": cron.estimated_duration,
        "parameters": {n: p.view() for n, p in cron.parameters.items()},
        "logFile": cron.log_path,
        "running": running,
        "lastRun": figures.recent[-1].view() if figures.recent else None,
        "runs": figures.runs,
        "successRate": figures.success_rate,
        "medianDurationMs": figures.median_duration_ms,
        "recentRuns": [
            {
                "id": r.id,
                "status": r.status,
                "durationMs": r.duration_ms,
                "startedAt": r.started_at,
            }
            for r in figures.recent
        ],
    }


#: What a cron does that somebody else has locked, as by `flock` in a crontab's line.
EXTERNAL: Json = {"id": None, "trigger": "external"}


class Views:
    """The answers that many ask for often, kept until something changes."""

    def __init__(self, registry: Registry, store: Store, runner: Runner) -> None:
        self._registry = registry
        self._store = store
        self._runner = runner
        self._texts: Dict[str, Tuple[Any, str]] = {}
        self._crons: Tuple[Any, Any, bytes] = (None, None, b"")
        #: By cron, an object that is another one after each change.
        self._marks: Dict[str, object] = {}
        #: And one for all of them.
        self._mark = object()
        self._health: Tuple[Tuple[Any, ...], bytes] = ((), b"")

    def forget(self, cron_name: str) -> None:
        """Drop what was kept of a cron; from any thread."""
        self._marks[cron_name] = self._mark = object()

    def health(self, port: int) -> bytes:
        """Return the body of `/health`."""
        crons = self._registry.crons()
        state = (self._registry.version, self._store.problem, len(crons))
        if self._health[0] != state:
            value: Dict[str, Json] = {
                "status": "healthy",
                "service": SERVICE,
                "port": port,
                "available_crons": len(crons),
            }
            problems = self.problems()
            if problems:
                value.update(status="degraded", problems=problems)
            self._health = (state, json_text(value).encode("utf-8", "replace"))
        return self._health[1]

    def problems(self) -> List[str]:
        """Return the faults that the server survives at present."""
        problems = list(self._registry.faults)
        if self._store.problem:
            problems.append(self._store.problem)
            self._runner.heal()
        return problems

    def crons(self) -> bytes:
        """Return the body of `/crons`."""
        crons = self._registry.crons()
        external = self._runner.external()
        mark = (self._mark, *external)  # read before the state, as below
        kept = self._crons
        # Another registry file that was taken is another dictionary.
        if kept[0] is not crons or kept[1] != mark:
            texts = [self._cron_text(cron, external) for cron in crons.values()]
            body = '{"success": true, "crons": [' + ", ".join(texts) + "]}"
            self._crons = kept = (crons, mark, body.encode("utf-8", "replace"))
        return kept[2]

    def _cron_text(self, cron: Cron, external: Mapping[str, int]) -> str:
        if cron.name in external:
            return self._rendered(cron, EXTERNAL)
        # The mark is read before the state: a change meanwhile makes it another.
        # Not the registry's version: it may be that of a file read just now.
        mark = (cron, self._marks.get(cron.name))
        kept = self._texts.get(cron.name)
        if kept is None or kept[0] != mark:
            run = self._runner.run_of(cron.name)
            kept = (mark, self._rendered(cron, run.view() if run else None))
            self._texts[cron.name] = kept
        return kept[1]

    def _rendered(self, cron: Cron, running: Json) -> str:
        figures = self._store.figures(cron.name)
        return json_text(cron_view(cron, figures, running))


#: A metric's suffix, labels and value.
Sample = Tuple[str, str, float]


class Metrics:
    """The figures in Prometheus' text format, version 0.0.4."""

    def __init__(self, registry: Registry, store: Store, runner: Runner) -> None:
        """Take the figures as they stand now."""
        self._crons = registry.crons()
        self._totals = {row[:2]: row[2:] for row in store.totals()}
        self._names = sorted({*self._crons, *(cron for cron, _ in self._totals)})
        self._busy = {*runner.running(), *runner.external()}

    def text(self) -> str:
        """Return all families."""
        families = (
            ("cron_trigger_build_info", "gauge", "The version that runs.", self._info),
            ("cron_trigger_runs_total", "counter", "Ended runs, by how.", self._runs),
            ("cron_trigger_running", "gauge", "1 while it runs.", self._running),
            (
                "cron_trigger_run_duration_seconds",
                "summary",
                "How long runs took.",
                self._durations,
            ),
            (
                "cron_trigger_last_run_timestamp_seconds",
                "gauge",
                "End of the last run.",
                lambda: self._ends(ENDED_STATUSES),
            ),
            (
                "cron_trigger_last_success_timestamp_seconds",
                "gauge",
                "End of the last run that completed.",
                lambda: self._ends((COMPLETED,)),
            ),
        )
        return "".join(
            _metric_family(name, kind, what, samples())
            for name, kind, what, samples in families
        )

    def _total(self, name: str, status: str) -> Tuple[int, int, Optional[str]]:
        """Return runs, summed milliseconds and the last end."""
        return self._totals.get((name, status), (0, 0, None))

    def _info(self) -> Iterator[Sample]:
        yield "", f'version="{VERSION}"', 1

    def _runs(self) -> Iterator[Sample]:
        for name in self._names:
            for status in ENDED_STATUSES:
                labels = f'cron="{name}",status="{status}"'
                yield "", labels, self._total(name, status)[0]

    def _running(self) -> Iterator[Sample]:
        for name in self._crons:
            yield "", f'cron="{name}"', int(name in self._busy)

    def _durations(self) -> Iterator[Sample]:
        for name in self._names:
            totals = [self._total(name, status) for status in ENDED_STATUSES]
            yield "_sum", f'cron="{name}"', sum(total[1] for total in totals) / 1000
            yield "_count", f'cron="{name}"', sum(total[0] for total in totals)

    def _ends(self, statuses: Sequence[str]) -> Iterator[Sample]:
        for name in self._names:
            texts = [self._total(name, status)[2] for status in statuses]
            ends = [epoch_of(text) for text in texts if text]
            if ends:
                yield "", f'cron="{name}"', max(ends)


def _metric_family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [
        f"{name}{suffix}{{{labels}}} {value:.15g}" for suffix, labels, value in samples
    ]
    return "\n".join(lines) + "\n"


class Page:
    """The built-in page, and the policy that lets only its own script and style run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: Tuple[Any, bytes, str] = (None, b"", "")

    def answer(self) -> Answer:
        """Return the page as it stands in its file."""
        try:
            status = os.stat(self._path)
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._kept[0] != signature:
                text = self._path.read_bytes()
                self._kept = (signature, text, self._policy(text))
        except OSError:
            raise Refusal(
                "not_found",
                f"The page {self._path} is missing; install it beside the server.",
            ) from None
        return Answer(
            200, self._kept[1], "text/html; charset=utf-8", policy=self._kept[2]
        )

    def _policy(self, text: bytes) -> str:
        import base64

        def hashes(tag: bytes) -> str:
            bodies = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), text, re.DOTALL)
            digests = (hashlib.sha256(body).digest() for body in bodies)
            listed = (f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
            return " ".join(listed) or "'none'"

        return (
            f"default-src 'none'; script-src {hashes(b'script')}; "
            f"style-src {hashes(b'style')}; img-src data:; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )


class Api:
    """What each route does.  A method's name is its route's action."""

    def __init__(
        self,
        port: int,
        registry: Registry,
        store: Store,
        runner: Runner,
        schedule: Schedule,
        broadcaster: Broadcaster,
        views: Views,
        page: Page,
    ) -> None:
        self.port = port
        self._registry = registry
        self._store = store
        self._runner = runner
        self._schedule = schedule
        self._broadcaster = broadcaster
        self._views = views
        self._page = page
        self._followers = threading.BoundedSemaphore(FOLLOW_LIMIT)

    def page(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return self._page.answer()

    def health(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return Answer(200, self._views.health(self.port))

    def trigger(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        trigger = read_trigger(request)
        if trigger.run_at is not None:
            planned = self._schedule.create(trigger)
            head = self._accepted(trigger, "Cron execution scheduled", None)
            more = {"scheduledId": planned.id, "runAt": planned.run_at}
            return json_answer(202, {**head, **more})
        run = self._runner.trigger(trigger)
        message = "Cron execution started in background"
        head = self._accepted(trigger, message, run.log_file)
        more = {"runId": run.id, "pid": run.pid, "startedAt": run.started_at}
        return json_answer(202, {**head, **more})

    def _accepted(
        self, trigger: Trigger, message: str, log_file: Optional[str]
    ) -> Dict[str, Json]:
        """Return what answers to a trigger begin with.

        A retry is answered although its cron has left the registry: then without words.
        """
        cron = self._registry.crons().get(trigger.cron_name)
        return {
            "success": True,
            "cronName": trigger.cron_name,
            "description": cron.description if cron else None,
            "message": message,
            "logFile": log_file or (cron.log_path if cron else None),
        }

    def crons(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return Answer(200, self._views.crons())

    def runs(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        limit = query_number(query, "limit", 1, RUNS_PAGE_LIMIT, RUNS_PAGE) or 1
        before = query_number(query, "before", 1, INTEGER_LIMIT - 1)
        status, cron_name = query.get("status"), query.get("cron")
        if status is not None and status not in RUN_STATUSES:
            raise Refusal(
                "invalid_request",
                f'"status" must be one of {", ".join(RUN_STATUSES)}, got '
                f'"{printable(status, 40)}".',
            )
        if cron_name is not None and not CRON_NAME.fullmatch(cron_name):
            raise Refusal(
                "invalid_request",
                f'"cron" must be a cron\'s name, got "{printable(cron_name, 80)}".',
            )
        self._runner.sync()
        # One more than asked for tells if there is a following page.
        found = self._store.run_texts(cron_name, status, before, limit + 1)
        page = found[:limit]
        following = json_text(page[-1][0] if len(found) > limit else None)
        listed = ", ".join(text for _, text in page)
        body = f'{{"success": true, "runs": [{listed}], "next": {following}}}'
        return Answer(200, body.encode("utf-8", "replace"))

    def _run(self, run_id: int) -> Run:
        active = self._runner.active(run_id)
        run = active.run if active else self._store.run(run_id)
        if run and run.running and active is None:
            self._runner.sync()  # the crontab began it, and its message is on the way
            run = self._store.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        return run

    def run(self, request: Request, query: Mapping[str, str], run_id: int) -> Answer:
        return json_answer(200, {"success": True, "run": self._run(run_id).view()})

    def run_log(
        self, request: Request, query: Mapping[str, str], run_id: int
    ) -> Answer:
        lines = query_number(query, "tail", 0, 10**9)
        follow = query.get("follow", "false")
        if follow not in ("true", "false"):
            raise Refusal(
                "invalid_request",
                f'"follow" must be true or false, got "{printable(follow, 40)}".',
            )
        run = self._run(run_id)
        if run.log_inode is None and run.pid is None:
            return Answer(200, b"", TEXT_TYPE)
        log = RunLog(run)
        if log.descriptor is None:
            raise Refusal(
                "not_found",
                f"The output of run {run_id} is no longer there: its log was rotated "
                "away, or could not be written.",
            )
        return self._log_answer(log, lines, follow == "true" and run.running)

    def _measured(self, log: RunLog, lines: Optional[int]) -> Tuple[int, int]:
        """Return where a run's output, or its last lines, begin and end so far."""
        end = log.end()
        # The line after the output is written once the end is recorded: where it is
        # recorded by now, that line may have been in what was measured.
        log.run = self._store.run(log.run.id) or log.run
        end = min(end, log.end())
        return (log.start if lines is None else log.tail_start(end, lines)), end

    def _log_answer(self, log: RunLog, lines: Optional[int], follow: bool) -> Answer:
        try:
            start, end = self._measured(log, lines)
        except BaseException:
            log.close()
            raise
        if not follow:
            return Answer(
                200,
                b"",
                TEXT_TYPE,
                length=end - start,
                stream=log.blocks(start, end),
                release=log.close,
            )
        if not self._followers.acquire(blocking=False):
            log.close()
            raise Refusal(
                "overloaded",
                f"{FOLLOW_LIMIT} logs are being followed, which is the most; close one "
                "or try again later.",
                {"Retry-After": "15"},
            )

        def release() -> None:
            log.close()
            self._followers.release()

        return Answer(
            200,
            b"",
            TEXT_TYPE,
            stream=self._followed(log, start),
            release=release,
            lasting=True,
        )

    def _followed(self, log: RunLog, start: int) -> Iterator[bytes]:
        """Yield a run's output as it comes, b"" while there is none.

        The line that follows the output is written after the keeper was reaped; so
        what is in the file while the keeper is seen after is the run's own.
        """
        while True:
            active = self._runner.active(log.run.id)
            end = log.end()
            if active is None:
                log.run = self._run(log.run.id)
                end = log.end()
            elif not active.alive():
                end = start
            for block in log.blocks(start, end):
                start += len(block)
                yield block
            if active is None:
                return
            active.done.wait(FOLLOW_POLL_S)
            yield b""

    def cancel_run(
        self, request: Request, query: Mapping[str, str], run_id: int
    ) -> Answer:
        by = read_requested_by(read_body(request, ("requestedBy",)))
        run = self._runner.cancel(run_id, by or request.address)
        return json_answer(202, {"success": True, "run": run.view()})

    def scheduled(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        entries = [*self._store.pending(), *self._store.ended_scheduled()]
        views = [entry.view() for entry in entries]
        return json_answer(200, {"success": True, "scheduled": views})

    def cancel_scheduled(
        self, request: Request, query: Mapping[str, str], scheduled_id: int
    ) -> Answer:
        by = read_requested_by(read_body(request, ("requestedBy",)))
        entry = self._schedule.cancel(scheduled_id, by or request.address)
        return json_answer(200, {"success": True, "scheduled": entry.view()})

    def events(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        self._runner.refuse_if_closing()
        text = request.headers.get("last-event-id")
        if text is not None and not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise Refusal("invalid_request", "Last-Event-ID must be a whole number.")
        last = int(text) if text is not None else None

        place = self._broadcaster.reserve()

        def hand_over(connection: socket.socket) -> None:
            self._broadcaster.join(connection, last, place)

        return Answer(
            200,
            b"retry: 2000\n\n",
            "text/event-stream; charset=utf-8",
            hand_over=hand_over,
            release=functools.partial(self._broadcaster.release, place),
            lasting=True,
        )

    def metrics(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        text = Metrics(self._registry, self._store, self._runner).text()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Answer(200, text.encode(), kind)


class Reader:
    """Reads requests from a connection, each of them within 10 s as a whole.

    A limit for each `recv` alone would let a client send a byte now and then for
    ever (slowloris).
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._deadline_s = 0.0

    def wait(self, timeout_s: float) -> bool:
        """Wait for a request's first byte.  Return False if none comes."""
        if not self._buffer:
            self._connection.settimeout(timeout_s)
            self._buffer += self._connection.recv(HEAD_BYTES)
        self._deadline_s = time.monotonic() + REQUEST_S
        return bool(self._buffer)

    def has_more(self) -> bool:
        """Return True if bytes of a next request are here already."""
        return bool(self._buffer)

    def _receive(self) -> None:
        """Add to the buffer; raises ConnectionError at the end, `request_timeout`."""
        left_s = self._deadline_s - time.monotonic()
        try:
            self._connection.settimeout(max(left_s, 0.001))
            data = self._connection.recv(HEAD_BYTES)
        except socket.timeout:
            raise Refusal(
                "request_timeout",
                f"The request did not arrive whole within {REQUEST_S:g} s; send it "
                "again.",
            ) from None
        if not data:
            raise ConnectionError
        self._buffer += data

    def head(self) -> List[bytes]:
        """Return the request line and the header lines; else `invalid_request`."""
        searched = 0
        while True:
            # Some clients send an empty line after a body (RFC 9112, 2.2).
            while not searched and self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
            end = self._buffer.find(b"\r\n\r\n", searched)
            if 0 <= end <= HEAD_BYTES:
                break
            searched = max(0, len(self._buffer) - 3)
            line = self._buffer.find(b"\r\n")
            if (
                len(self._buffer if line < 0 else self._buffer[:line])
                > REQUEST_LINE_BYTES
            ):
                raise self._too_long()
            if len(self._buffer) > HEAD_BYTES:
                raise Refusal(
                    "invalid_request",
                    f"The head of a request has at most {HEAD_BYTES >> 10} KiB.",
                )
            self._receive()
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        if len(lines[0]) > REQUEST_LINE_BYTES:
            raise self._too_long()
        return lines

    def _too_long(self) -> Refusal:
        limit = REQUEST_LINE_BYTES >> 10
        return Refusal("invalid_request", f"A request line has at most {limit} KiB.")

    def body(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        while len(self._buffer) < length:
            self._receive()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data


def parse_head(lines: Sequence[bytes], address: str) -> Request:
    """Return the request of a head's lines; else `invalid_request`.

    Strict, where leniency would leave two readings of one request: no bare CR or LF,
    no folded lines, no space before a colon, none of the deciding headers twice
    (request smuggling, RFC 9112, section 11).
    """
    match = REQUEST_LINE.fullmatch(lines[0])
    if not match:
        raise Refusal(
            "invalid_request",
            "The request line must be of the form: GET /health HTTP/1.1.",
        )
    if len(lines) - 1 > HEADER_COUNT:
        raise Refusal(
            "invalid_request", f"A request has at most {HEADER_COUNT} headers."
        )
    headers: Dict[str, str] = {}
    for line in lines[1:]:
        name, value = _parse_header(line)
        if name in headers and name in SINGLE_HEADERS:
            raise Refusal("invalid_request", f'The header "{name}" is given twice.')
        headers[name] = value
    old = match[3] == b"0"
    connection = headers.get("connection", "").lower()
    path, query, authority = _parse_target(match[2].decode("latin-1"))
    if "host" not in headers and not old:
        raise Refusal("invalid_request", "An HTTP/1.1 request must have a Host.")
    if authority is not None:
        headers["host"] = authority
    keep_alive = "close" not in connection and not old
    method = match[1].decode()
    return Request(method, path, query, headers, address, keep_alive, old)


def _parse_header(line: bytes) -> Tuple[str, str]:
    # Split by hand: a pattern with two blanks runs around `.*?` takes hours for a
    # header of 60000 blanks, and nothing else runs meanwhile (ReDoS, CWE-1333).
    name, colon, value = line.partition(b":")
    if not colon or not HEADER_NAME.fullmatch(name) or HEADER_CONTROL.search(value):
        raise Refusal(
            "invalid_request",
            "A header must be of the form Name: value, without control characters.",
        )
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")


def _parse_target(target: str) -> Tuple[str, str, Optional[str]]:
    """Return path, query and, of an absolute target, the authority."""
    authority = None
    if target.lower().startswith(("http://", "https://")):
        authority, slash, rest = target.partition("://")[2].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    return path, query, authority


def content_length(request: Request, route: Route) -> int:
    """Return the length of the body to read; else a Refusal, before any of it is read.

    A chunked body is refused: its length would be known only after it was read.
    """
    if "transfer-encoding" in request.headers:
        raise Refusal(
            "length_required",
            "A body must come with a Content-Length, not in chunks.",
        )
    text = request.headers.get("content-length")
    if text is None:
        if route.body:
            raise Refusal("length_required", "This request needs a Content-Length.")
        return 0
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise Refusal("invalid_request", "Content-Length must be a decimal number.")
    if int(text) > BODY_BYTES:
        raise Refusal(
            "body_too_large", f"A body has at most {BODY_BYTES >> 10} KiB, got {text}."
        )
    return int(text)


def check_content_type(request: Request, route: Route) -> None:
    """Refuse a changing request that is not JSON: what a foreign form can send."""
    given = request.headers.get("content-type")
    if not route.changes or (given is None and not request.has_body and not route.body):
        return
    kind, _, rest = (given or "").partition(";")
    charset = rest.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in (
        "",
        "charset=utf-8",
    ):
        raise Refusal(
            "unsupported_media_type",
            "The body must be JSON in UTF-8, with Content-Type: application/json.",
        )


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection.  Runs in a thread of its own."""

    server: HttpServer

    def setup(self) -> None:
        self.connection = self.request
        self.reader = Reader(self.connection)
        # IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) is shown and counted as IPv4.
        self.address = re.sub(r"^::ffff:(?=\d+\.)", "", str(self.client_address[0]))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        """Nothing to flush: the base class would, on files that we do not make."""

    def handle(self) -> None:
        """Serve requests until the connection is to be closed."""
        try:
            if not self.server.access.source_allowed(self.address):
                return self._refuse_source()
            idle_s = REQUEST_S
            while self._serve_one(idle_s):
                idle_s = IDLE_S
        except (OSError, ValueError):
            return  # the client has gone, or its connection was closed in its wait

    def _refuse_source(self) -> None:
        refusal = Refusal(
            "forbidden",
            f"The address {self.address} may not use this server; list its network in "
            "CRON_TRIGGER_ALLOW.",
        )
        self.server.log_refusal(self.address, "a connection", refusal)
        self._send(None, self._refusal_answer(refusal), close=True)
        self._linger()

    def _serve_one(self, idle_s: float) -> bool:
        """Read and answer one request.  Return True if another may follow."""
        self.server.waits(self.connection)
        if not self.reader.wait(idle_s):
            return False
        request: Optional[Request] = None
        answer: Optional[Answer] = None
        try:
            try:
                request = parse_head(self.reader.head(), self.address)
                route, query, number = self._admit(request)
                self.server.begin_work(self.connection, route)
                self._at_work = True
                answer = self._act(request, route, query, number)
                unread = False
            except Refusal as refusal:
                answer = self._refused(request, refusal)
                unread = request is None or self._has_unread(request)
            if answer.lasting:
                self._leave_work()
            close = (
                unread or not request or not request.keep_alive or self.server.closing
            )
            self._send(request, answer, close)
            if answer.hand_over and request and request.method != "HEAD":
                self._hand_over(answer.hand_over)
                return False
        finally:
            self._leave_work()
            if answer and answer.release:
                answer.release()
        if unread or (close and self.reader.has_more()):
            self._linger()
        return not close and not answer.hand_over

    _at_work = False

    def _leave_work(self) -> None:
        if self._at_work:
            self._at_work = False
            self.server.end_work()

    def _admit(self, request: Request) -> Tuple[Route, Dict[str, str], Optional[int]]:
        """Check a request and read its body; return what to do with it."""
        routes, number = find_routes(request.path)
        method = "GET" if request.method == "HEAD" else request.method
        route = routes.get(method)
        if method == "OPTIONS" and self.server.access.origin_listed(request):
            route = replace(PREFLIGHT, path=self._allowed(routes))
        self.server.access.check(request, route)
        if route is None:
            raise self._no_route(request, routes)
        length = content_length(request, route)
        if route.action == PREFLIGHT.action:
            length and self.reader.body(length)  # or it were read as a request
            return route, {}, None
        check_content_type(request, route)
        query = read_query(request, route)
        if length:
            self._continue(request)
            request.body = self.reader.body(length)
        return route, query, number

    def _act(
        self,
        request: Request,
        route: Route,
        query: Mapping[str, str],
        number: Optional[int],
    ) -> Answer:
        """Do what a route is for; a fault of our own is logged, not shown."""
        if route.action == PREFLIGHT.action:
            return Answer(204, headers=self._preflight(route.path))
        try:
            answer: Answer = getattr(self.server.api, route.action)(
                request, query, number
            )
            return answer
        except Refusal:
            raise
        except Exception as error:
            return self._internal_error(error)

    def _no_route(self, request: Request, routes: Mapping[str, Route]) -> Refusal:
        if not routes:
            listed = ", ".join(f"{r.method} {r.path}" for r in ROUTES)
            return Refusal(
                "not_found",
                f'There is no "{printable(request.path, 80)}" here; there are: '
                f"{listed}.",
            )
        allowed = self._allowed(routes)
        return Refusal(
            "method_not_allowed",
            f"This address takes {allowed}, not {printable(request.method, 20)}.",
            {"Allow": allowed},
        )

    def _allowed(self, routes: Mapping[str, Route]) -> str:
        return ", ".join(
            m
            for method in routes
            for m in ((method, "HEAD") if method == "GET" else (method,))
        )

    def _preflight(self, allowed: str) -> Dict[str, str]:
        return {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": "Content-Type, X-Trigger-Secret, "
            "Authorization, Idempotency-Key, Last-Event-ID",
            "Access-Control-Max-Age": "600",
        }

    def _continue(self, request: Request) -> None:
        expected = request.headers.get("expect", "").lower()
        if expected == "100-continue" and not request.old:
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _has_unread(self, request: Request) -> bool:
        """Return True if bytes of a body are, or may be, still to come."""
        chunked = "transfer-encoding" in request.headers
        return chunked or (request.has_body and not request.body)

    def _refused(self, request: Optional[Request], refusal: Refusal) -> Answer:
        what = f"{request.method} {request.path}" if request else "a request"
        self.server.log_refusal(self.address, what, refusal)
        return self._refusal_answer(refusal)

    def _refusal_answer(self, refusal: Refusal) -> Answer:
        return json_answer(refusal.status, refusal.answer(), **refusal.headers)

    def _internal_error(self, error: Exception) -> Answer:
        frames = []
        trace = error.__traceback__
        while trace:
            frames.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.server.say("error", f"internal error: {error!r} at {' > '.join(frames)}")
        return json_answer(
            500,
            {
                "success": False,
                "code": "internal_error",
                "error": "The server met a fault of its own; its log says more.",
            },
        )

    def _send(self, request: Optional[Request], answer: Answer, close: bool) -> None:
        """Send an answer: its head and body in one piece where there is no stream."""
        length = len(answer.body) if answer.stream is None else answer.length
        chunked = length is None and not (request and request.old)
        lines = [
            f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
            f"{COMMON_HEADERS}Date: {http_date(int(time.time()))}\r\n"
            f"Content-Security-Policy: {answer.policy}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
        ]
        lines += [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
        if answer.hand_over:
            close = True
        elif length is None:
            lines.append("Transfer-Encoding: chunked\r\n" if chunked else "")
            close = close or not chunked
        elif answer.status != 204:
            lines.append(f"Content-Length: {length}\r\n")
        origin = request and self.server.access.origin_listed(request)
        if origin:
            lines.append(f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n")
        lines.append("Connection: close\r\n\r\n" if close else "\r\n")
        head = "".join(lines).encode("latin-1", "replace")
        only_head = request is not None and request.method == "HEAD"
        if answer.stream is not None:
            self._push(head)
            if not only_head:
                self._send_stream(answer.stream, chunked, length)
            return
        self._push(head if only_head else head + answer.body)

    def _push(self, data: bytes) -> None:
        """Send; raises OSError where the client does not take it within 10 s.

        Who reads slowly has no place in work any more, or 64 of them would keep all
        others out.  The connection waits for its client, so it may be pushed out.
        """
        self.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            data = data[self.connection.send(data) :]
        if not data:
            return
        if self._at_work:
            self._leave_work()
            self.server.waits(self.connection)
        self.connection.settimeout(SEND_S)
        self.connection.sendall(data)

    def _send_stream(
        self, stream: Iterator[bytes], chunked: bool, length: Optional[int]
    ) -> None:
        sent = 0
        for block in stream:
            if not block:
                self._check_client()
            else:
                self._push(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
        if length not in (None, sent):
            # The script has cut its log meanwhile.  The next answer on this connection
            # would be read as the rest of this one.
            raise ConnectionError
        if chunked:
            self._push(b"0\r\n\r\n")

    def _check_client(self) -> None:
        """Raise ConnectionError if the client has gone or the server is to stop."""
        if self.server.closing:
            raise ConnectionError
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if poll.poll(0) and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError

    def _hand_over(self, take: Callable[[socket.socket], None]) -> None:
        """Give the connection away; nothing more is read from it here."""
        descriptor = self.connection.fileno()
        self.server.forget(self.connection)
        given = socket.socket(fileno=descriptor)
        self.connection.detach()
        try:
            given.settimeout(SEND_S)
            take(given)
        except BaseException:
            given.close()
            raise

    def _linger(self) -> None:
        """Take in what the client still sends, for a moment.

        Closing with bytes unread resets the connection, and the client might never
        see why it was refused (RFC 9112, 9.6).
        """
        deadline_s = time.monotonic() + 1.0
        taken = 0
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while taken < 4 * BODY_BYTES:
                self.connection.settimeout(max(0.001, deadline_s - time.monotonic()))
                data = self.connection.recv(65536)
                if not data:
                    return
                taken += len(data)


@functools.lru_cache(maxsize=2)
def http_date(epoch_s: int) -> str:
    """Return a time as HTTP writes it (RFC 9110, 5.6.7)."""
    moment = time.gmtime(epoch_s)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
    month = (
        "Jan",
        "Feb",
        "Mar",
        "Apr",
        "May",
        "Jun",
        "Jul",
        "Aug",
        "Sep",
        "Oct",
        "Nov",
        "Dec",
    )[moment.tm_mon - 1]
    return time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", moment)


class HttpServer(http.server.ThreadingHTTPServer):
    """Accepts connections, each in a thread, within bounds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self,
        listener: socket.socket,
        api: Api,
        access: Access,
        say: Callable[[str, str], None],
    ) -> None:
        self.address_family = listener.family
        address = listener.getsockname()
        super().__init__(address, Handler, bind_and_activate=False)
        self.socket.close()
        # Each connection inherits it.  By itself it would grow to some megabytes, which
        # 256 clients that read nothing could make the kernel keep (tcp(7)).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.socket = listener
        self.server_address = address
        self.api = api
        self.access = access
        self.say = say
        self.closing = False
        self._lock = threading.Lock()  # guards the two below
        self._working = 0
        #: Each open connection, and since when it waits for its client.
        self._connections: Dict[socket.socket, Optional[float]] = {}
        self._refusals: Dict[str, Tuple[float, int]] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread; make room for it first."""
        with self._lock:
            full = len(self._connections) >= CONNECTION_LIMIT
            self._connections[request] = time.monotonic()
        if full:
            self._evict()
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # no thread could be started
            self.say("error", f"a connection was dropped: {error}")
            self.shutdown_request(request)

    def _evict(self) -> None:
        """Close the connection that has been waiting for its client the longest.

        A flood of connections that send nothing pushes itself out, not `/health`.
        """
        with self._lock:
            waiting = [
                (since, connection)
                for connection, since in self._connections.items()
                if since is not None
            ]
            if not waiting:
                return
            oldest = min(waiting, key=lambda pair: pair[0])[1]
            del self._connections[oldest]
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        self.forget(request)
        super().shutdown_request(request)

    def get_request(self) -> Tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                self._evict()
                time.sleep(0.05)  # let go of the listener until one was closed
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        self.say("error", f"internal error on a connection: {error!r}")

    def accept(self) -> None:
        """Take the next connection, if there still is one."""
        self._handle_request_noblock()  # type: ignore[attr-defined]

    def waits(self, connection: socket.socket) -> None:
        """Note that a connection waits for its client from now on."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = time.monotonic()

    def forget(self, connection: socket.socket) -> None:
        """Count a connection no more: it is closed, or somebody else's."""
        with self._lock:
            self._connections.pop(connection, None)

    def begin_work(self, connection: socket.socket, route: Route) -> None:
        """Count a request in work; else `overloaded`.

        `/health` always has a place, and so have many triggers: of a stampede, each is
        to be told of the one run.  Not all of them, or no connection were left that
        waits, and could be pushed out for a new one.
        """
        limits = {"health": sys.maxsize, "trigger": TRIGGER_LIMIT}
        with self._lock:
            if self._working >= limits.get(route.action, WORK_LIMIT):
                raise Refusal(
                    "overloaded",
                    f"{WORK_LIMIT} requests are in work, which is the most; try again "
                    "in a moment.",
                    {"Retry-After": "1"},
                )
            self._working += 1
            if connection in self._connections:
                self._connections[connection] = None

    def end_work(self) -> None:
        """Count it no more: its answer was sent, lasts, or waits for its client."""
        with self._lock:
            self._working -= 1

    def log_refusal(self, address: str, what: str, refusal: Refusal) -> None:
        """Log a refusal; of a flood from one address, its number a minute later."""
        now_s = time.monotonic()
        with self._lock:
            since, count = self._refusals.get(address, (now_s, 0))
            if now_s - since > REFUSALS_LOGGED_S:
                if count > REFUSALS_LOGGED:
                    self.say(
                        "warning",
                        f"{count - REFUSALS_LOGGED} more requests of "
                        f"{address} were refused",
                    )
                since, count = now_s, 0
            self._refusals[address] = (since, count + 1)
            if len(self._refusals) > WRONG_SECRETS_ADDRESSES:
                self._refusals.pop(next(iter(self._refusals)))
        if count < REFUSALS_LOGGED:
            self.say(
                "warning",
                f"refused {printable(what, 200)} of {address}: "
                f"{refusal.status} {refusal.code}: {refusal.message}",
            )

    def drain(self, timeout_s: float) -> None:
        """Wait until the requests in work, or on their way, are answered."""
        deadline_s = time.monotonic() + timeout_s
        while self._is_awaited() and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _is_awaited(self) -> bool:
        """Tell whether a request is in work, or a connection so fresh that its own
        request may still come: whoever was let in is served, not told to come again.
        """
        fresh_s = time.monotonic() - ARRIVAL_S
        with self._lock:
            waiting = self._connections.values()
            return self._working > 0 or any(s and s > fresh_s for s in waiting)

    def close_connections(self) -> None:
        """Close what is still open."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


# ========================================================================== Daemon
# A server's life: folders and lock, history, what an earlier server left, socket,
# service, orderly end.  And what systemd wants to hear.


class Systemd:
    """The protocol of sd_notify(3) and of the descriptor store; nothing without it."""

    FD_NAME = "http"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET")
        self._environ = environ
        self.watchdog_s: Optional[float] = None
        usec = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and ours and usec.isdigit():
            self.watchdog_s = int(usec) / 1e6

    def notify(self, *lines: str, descriptor: Optional[int] = None) -> None:
        """Send assignments, with a descriptor if given; never raises."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        rights = []
        if descriptor is not None:
            packed = descriptor.to_bytes(4, sys.byteorder)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
        with contextlib.suppress(OSError):
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with sender:
                sender.sendmsg(["\n".join(lines).encode()], rights, 0, address)

    def keep_listener(self, listener: socket.socket) -> None:
        """Have the listening socket kept over a restart: nobody is refused then."""
        self.notify("FDSTORE=1", f"FDNAME={self.FD_NAME}", descriptor=listener.fileno())

    def kept_listener(self, address: Tuple[Any, ...]) -> Optional[socket.socket]:
        """Return the kept socket if it listens on `address`; drop any other."""
        if self._environ.get("LISTEN_PID") != str(os.getpid()):
            return None
        count = int(self._environ.get("LISTEN_FDS", "0"))
        names = self._environ.get("LISTEN_FDNAMES", "").split(":")
        found = None
        for descriptor, name in zip(range(3, 3 + count), names):
            kept = socket.socket(fileno=descriptor)
            kept.set_inheritable(False)
            if found is None and kept.getsockname()[:2] == address[:2]:
                found = kept
                continue
            if name == self.FD_NAME:
                self.notify("FDSTOREREMOVE=1", f"FDNAME={name}")
            kept.close()
        return found


def listen(
    settings: Settings,
    kept: Callable[..., Optional[socket.socket]],
    patience_s: float = 3.0,
) -> Tuple[socket.socket, bool]:
    """Return the listening socket, and whether it was kept; else ConfigError."""
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host,
            settings.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise _no_host(settings.host, error) from None
    family, _, _, _, address = found[0]
    listener = kept(address)
    if listener:
        listener.setblocking(False)
        return listener, True
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return _bound(family, address), False
        except OSError as error:
            # The socket of another address may be dropped a moment from now.
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline_s:
                time.sleep(0.1)
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise _no_host(settings.host, error) from None
            raise ConfigError(
                f"The server can't listen on {where} ({error.strerror}): end the "
                "program that does (ss -ltnp shows it), or choose another --port."
            ) from None


def _no_host(host: str, error: OSError) -> ConfigError:
    return ConfigError(
        f'CRON_TRIGGER_HOST must be an address of this host, got "{printable(host)}" '
        f"({error.strerror}); use 0.0.0.0 for all of them."
    )


def _bound(family: int, address: Tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(HttpServer.request_queue_size)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def make_folders(settings: Settings) -> None:
    """Make the folders, and see that only this user may write them; else ConfigError.

    A state or log folder that can't be made is survived, and told by `/health`; without
    the run folder there is no lock, so nothing may run.
    """
    for path, mode, needed in (
        (settings.run_dir, 0o700, True),
        (settings.state_dir, 0o700, False),
        (settings.log_dir, LOG_FOLDER_MODE, False),
    ):
        try:
            if not path.is_dir():
                path.mkdir(mode=mode, parents=True, exist_ok=True)
                path.chmod(mode)  # whatever the umask
        except OSError as error:
            if needed or error.errno not in DISK_FAULTS:
                raise ConfigError(
                    f"The folder {path} can't be made ({error.strerror}); make it, or "
                    "name another (--run-dir, --state-dir, --log-dir)."
                ) from None
            continue
        unsafe = folder_fault(str(path)) if os.geteuid() == 0 else None
        if unsafe:
            raise ConfigError(
                f"The folder {path} is refused, where others could put links, because "
                f"{unsafe}."
            )


class MessageSocket:
    """The socket on which `run NAME` tells a running server of what it did.

    Addressed through a descriptor of its folder: a path in a unix socket's address
    has at most 107 bytes (unix(7)), a folder may have more.
    """

    NAME = "events.sock"

    def __init__(self, run_dir: Path) -> None:
        self._folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._folder}/{self.NAME}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def bind(self) -> None:
        """Receive, in the place of any server before."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)

    def receive(self) -> List[str]:
        """Return the cron names that have been sent."""
        names = []
        with contextlib.suppress(BlockingIOError):
            while True:
                names.append(self._socket.recv(256).decode("utf-8", "replace"))
        return [name for name in names if CRON_NAME.fullmatch(name)]

    def send(self, cron_name: str) -> None:
        """Tell that something changed; nobody may be there to hear it."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.5)
            self._socket.sendto(cron_name.encode(), self._path)

    def close(self, unlink: bool = False) -> None:
        if unlink:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._socket.close()
        os.close(self._folder)


class Daemon:
    """The server: `run` is its whole life."""

    DRAIN_S = 5.0
    BEAT = 0xFF

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._systemd = Systemd(environ)
        self._log = ServerLog(settings.log_dir / f"{SERVICE}.log")
        self._stopping = False
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT.  Return the exit status."""
        with self._signals():
            self._start()
            try:
                self._serve()
            finally:
                self._stop()
        return 0

    # ---- start

    def _start(self) -> None:
        make_folders(self._settings)
        self._lock = self._take_instance_lock()
        self._build()
        self._store.take_over()
        self._listener, kept = listen(self._settings, self._systemd.kept_listener)
        if not kept:
            self._systemd.keep_listener(self._listener)
        self._messages = MessageSocket(self._settings.run_dir)
        self._messages.bind()
        self._loop.watch(self._messages.fileno(), self._on_messages)
        self._runner.settle()
        self._schedule.start()
        self._api.port = self._listener.getsockname()[1]
        self._http = HttpServer(self._listener, self._api, self._access, self._log.say)
        self._waiter = threading.Thread(
            target=self._loop.run, name="waiter", daemon=True
        )
        self._waiter.start()
        self._start_watchdog()
        self._prune()
        self._runner.heal()
        self._announce()

    def _take_instance_lock(self) -> int:
        path = self._settings.pid_file(SERVICE)
        lock = take_lock(path)
        deadline_s = time.monotonic() + 1
        while lock is None and time.monotonic() < deadline_s:
            # A server killed while it started a keeper: that has it until its exec.
            time.sleep(0.05)
            lock = take_lock(path)
        if lock is None:
            pid = read_pid_file(path).pid
            raise Refusal(
                "already_running",
                f"A server runs already with the folder {self._settings.run_dir} "
                f"(PID {pid}): end it, or name another folder with --run-dir.",
            )
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return lock

    def _build(self) -> None:
        """Make the parts; none of them does anything yet."""
        settings, say = self._settings, self._log.say
        self._loop = Loop(say)
        self._store = Store(settings.history, say, settings.run_dir)
        self._registry = Registry(
            settings.registry, settings.log_dir, self._on_registry
        )
        locks = LockTable(settings.run_dir, self._lock)
        self._runner = Runner(
            settings,
            self._registry,
            self._store,
            self._loop,
            say,
            self._on_change,
            locks,
        )
        self._schedule = Schedule(
            self._runner, self._store, self._registry, self._loop, say
        )
        self._runner.on_heal = self._on_heal
        self._broadcaster = Broadcaster(self._store, self._loop)
        self._broadcaster.look = self._registry.crons
        self._notifier = self._built_notifier()
        self._views = Views(self._registry, self._store, self._runner)
        page = Page(Path(__file__).resolve().with_name("dashboard.html"))
        self._api = Api(
            settings.port,
            self._registry,
            self._store,
            self._runner,
            self._schedule,
            self._broadcaster,
            self._views,
            page,
        )
        self._access = Access(settings, own_names())
        self._running_shown: Optional[str] = None
        self._built = True

    def _built_notifier(self) -> Optional[Notifier]:
        if not self._settings.notify_url:
            return None
        notifier = Notifier(self._settings.notify_url, self._registry, self._log.say)
        self._broadcaster.listen(notifier)
        return notifier

    _built = False

    def _announce(self) -> None:
        host, port = self._settings.host, self._api.port
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        with contextlib.suppress(OSError):
            print(f"{SERVICE} listens on http://{shown}:{port}", flush=True)
        count = len(self._registry.crons())
        self._log.say(
            "notice",
            f"{SERVICE} {VERSION} listens on {host}:{port}, with "
            f"{count} crons of {self._settings.registry}",
        )
        self._systemd.notify("READY=1", self._status())

    def _status(self) -> str:
        crons, running = len(self._registry.crons()), self._runner.count()
        return f"STATUS={crons} crons, {running} running"

    def _start_watchdog(self) -> None:
        if self._systemd.watchdog_s:
            self._beat()

    def _beat(self) -> None:
        """Ask the accepting loop for a sign of life, from the waiting thread.

        The sign that reaches systemd has passed through both: if either hangs, it
        does not come.
        """
        self._wake(self.BEAT)
        assert self._systemd.watchdog_s
        self._loop.call_later(self._systemd.watchdog_s / 3, self._beat)

    def _prune(self) -> None:
        """Prune the history now and once a day, in a thread that ends."""
        before = now_text(time.time() - self._settings.history_days * 86400)

        def work() -> None:
            count = self._store.prune(before, pause=lambda: time.sleep(0.005))
            if count:
                self._log.say(
                    "info",
                    f"{count} runs older than "
                    f"{self._settings.history_days} days were pruned",
                )

        threading.Thread(target=work, name="pruner", daemon=True).start()
        self._loop.call_later(PRUNE_EVERY_S, self._prune)

    # ---- what happens

    def _on_registry(self, registry: Registry) -> None:
        """A registry was read that differs from the one before."""
        for fault in registry.faults:
            self._log.say("error", f"registry: {fault}")
        if self._built and not registry.faults:
            count = len(registry.crons())
            self._log.say("notice", f"the registry was read again: {count} crons")
            self._store.tell("registry.reloaded", {"crons": count})
            self._on_change("")

    def _on_change(self, cron_name: str) -> None:
        """Something about a cron changed; called in any thread."""
        if not self._built:
            return
        self._views.forget(cron_name)
        self._broadcaster.wake()
        self._show_status()

    def _show_status(self) -> None:
        status = self._status()
        if status != self._running_shown:
            self._running_shown = status
            self._systemd.notify(status)

    def _on_heal(self) -> None:
        """Do what could not be done while the history could not be read."""
        self._broadcaster.rewind()
        self._runner.sync()
        self._schedule.start()

    def _on_messages(self, _events: int) -> None:
        """The command line has begun or ended a run."""
        names = self._messages.receive()
        self._store.take_over()
        self._runner.sync()
        for name in set(names):
            self._on_change(name)

    # ---- serve

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.fd == self._wake_in:
                        self._on_wake()
                    else:
                        self._http.accept()

    def _wake(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_out, bytes([number]))

    def _on_wake(self) -> None:
        numbers = set(os.read(self._wake_in, 4096))
        if self.BEAT in numbers:
            self._systemd.notify("WATCHDOG=1")
        if signal.SIGHUP in numbers:
            self._reload()
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._stopping = True

    def _reload(self) -> None:
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._systemd.notify("RELOADING=1", f"MONOTONIC_USEC={usec}")
        self._registry.reload()
        self._systemd.notify("READY=1", self._status())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals wake the accepting loop; put back what was there before."""

        def flag_only(_number: int, _frame: Any) -> None:
            """The number is written into the pipe by set_wakeup_fd."""

        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, flag_only) for number in wanted}
        earlier = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier)
            for number, handler in before.items():
                signal.signal(number, handler)

    # ---- stop

    def _stop(self) -> None:
        """Answer what is in work, and go.  Running crons stay with their keepers."""
        self._systemd.notify("STOPPING=1", "STATUS=stopping")
        self._log.say(
            "notice",
            f"{SERVICE} stops; {self._runner.count()} running crons go on",
        )
        self._http.closing = True
        self._http.drain(self.DRAIN_S)
        self._runner.closing = True
        self._schedule.close()
        self._loop.stop()
        self._waiter.join(self.DRAIN_S)
        self._runner.close()
        self._broadcaster.close()
        if self._notifier:
            self._notifier.close()
        self._http.close_connections()
        self._listener.close()
        self._messages.close(unlink=True)
        self._store.close()


def own_names() -> List[str]:
    """Return the names by which this machine knows itself."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


# ========================================================================== Doctor
# Looks at what goes wrong in practice, and says the remedy.  Changes nothing.

#: What systemd reads the service's settings from.
ENVIRONMENT_FILE = Path("/etc/default") / SERVICE
#: Properties of the unit on which the promises rest; a drop-in may have changed them.
UNIT_NEEDS = {
    "KillMode": ("process", "a restart of the server would end the crons that run"),
    "RuntimeDirectoryPreserve": ("yes", "a restart would delete the crons' locks"),
    "Restart": ("always", "a server that died would not come back"),
}
SECRET_CHARS = 16
FREE_BYTES = 50 << 20
DOCKER_NETWORKS = "172.16.0.0/12"
#: linux/sockios.h
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B


@dataclass(frozen=True)
class Finding:
    """What one look found: `ok`, a `note` worth knowing, or something `wrong`."""

    name: str
    status: str
    text: str
    remedy: str = ""


class Doctor:
    """The looks at one host.  None of them raises, whatever is broken."""

    #: How long a server has for an answer.
    ASK_S = 5.0

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ

    def findings(self) -> List[Finding]:
        """Look at everything, what the rest rests on first."""
        self._unit = unit_properties()
        self._installed = self._unit.get("LoadState") == "loaded"
        looks = (
            self._python,
            self._registry,
            self._folders,
            self._service,
            self._port,
            self._secret,
            self._containers,
        )
        return [finding for look in looks for finding in look()]

    def _python(self) -> Iterator[Finding]:
        version = ".".join(map(str, sys.version_info[:3]))
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            yield Finding(
                "python",
                "wrong",
                f"Python {version} on {os.uname().release} has no pidfd_open.",
                "Use Python 3.9 or newer on Linux 5.3 or newer.",
            )
        else:
            yield Finding("python", "ok", f"Python {version}")

    def _registry(self) -> Iterator[Finding]:
        path = self._settings.registry
        crons, faults = load_registry(path, self._settings.log_dir)
        for fault in faults:
            yield Finding("registry", "wrong", fault, f"Mend that: it is {path}.")
        unfit = list(self._unfit(crons.values()))
        yield from unfit
        if not faults and not unfit:
            yield Finding("registry", "ok", f"{len(crons)} crons in {path}")

    def _unfit(self, crons: Iterable[Cron]) -> Iterator[Finding]:
        for cron in crons:
            fault = start_fault(cron, os.geteuid())
            if fault:
                yield Finding(
                    "script",
                    "wrong",
                    f"{cron.name} can't be started: {fault}.",
                    f"Mend that, or its entry in {self._settings.registry}.",
                )

    def _folders(self) -> Iterator[Finding]:
        settings = self._settings
        yield look_at_folder("logs", settings.log_dir)
        yield look_at_folder("history", settings.state_dir)
        yield look_at_folder("locks", settings.run_dir)

    def _service(self) -> Iterator[Finding]:
        if not self._installed:
            yield Finding(
                "service",
                "note",
                "It is not installed as a service: nothing starts it at boot.",
                "sudo ./install.sh",
            )
            return
        faults = list(unit_faults(self._unit))
        yield from faults
        if not faults:
            yield Finding("service", "ok", "active, and starts at boot")

    def _port(self) -> Iterator[Finding]:
        port = self._settings.port
        try:
            answer = self._ask("/health")
        except OSError as error:
            if not isinstance(error, ConnectionRefusedError):
                yield Finding(
                    "port",
                    "wrong",
                    f"Who listens on port {port} does not answer ({error}).",
                    f"See who it is: sudo ss -ltnp 'sport = :{port}'",
                )
            elif self._installed:
                yield Finding(
                    "port",
                    "wrong",
                    f"Nobody answers on port {port}.",
                    f"sudo systemctl restart {SERVICE}",
                )
            else:
                yield Finding("port", "ok", f"{port} is free")
            return
        yield from self._health(answer)

    def _health(self, answer: Mapping[str, Json]) -> Iterator[Finding]:
        port = self._settings.port
        if answer.get("code") == "forbidden":
            yield Finding("port", "note", f"{port} admits other addresses than ours.")
        elif answer.get("service") != SERVICE:
            yield Finding(
                "port",
                "wrong",
                f"Another program listens on port {port}.",
                f"End it (sudo ss -ltnp 'sport = :{port}' shows it), or set another "
                f"CRON_TRIGGER_PORT in {ENVIRONMENT_FILE}.",
            )
        elif answer.get("problems"):
            for problem in answer["problems"]:
                yield Finding("health", "wrong", str(problem), "Mend that.")
        else:
            yield Finding("health", "ok", f"healthy on port {port}")

    def _ask(self, path: str) -> Dict[str, Json]:
        """Return the JSON object that the server answers, or {}; OSError if none."""
        host = self._settings.host
        address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        port = self._settings.port
        connection = http.client.HTTPConnection(address, port, timeout=self.ASK_S)
        try:
            connection.request("GET", path)
            answer = json.loads(connection.getresponse().read(1 << 20))
        except (http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return answer if isinstance(answer, dict) else {}

    def _secret(self) -> Iterator[Finding]:
        yield from self._readable_secrets()
        secret = self._settings.secret
        if secret is not None and len(secret) < SECRET_CHARS:
            yield Finding(
                "secret",
                "wrong",
                f"It has {len(secret)} characters and could be guessed.",
                f"Make one with: openssl rand -hex 32 ({ENVIRONMENT_FILE}).",
            )
            return
        refusal = self._refusal()
        if secret is not None or refusal in ("unauthorized", "too_many_attempts"):
            yield Finding("secret", "ok", "every request needs it")
        elif refusal == "forbidden":
            text = "Whether one is set can't be told from this address."
            yield Finding("secret", "note", text)
        else:
            yield Finding(
                "secret",
                "note",
                "None is set: any program here or in a container may start a cron.",
                "sudo ./install.sh --secret",
            )

    def _refusal(self) -> Optional[str]:
        """Return the code with which the server refuses a request without a secret.

        It may have one that is not ours to see.
        """
        with contextlib.suppress(OSError):
            return self._ask("/runs?limit=1").get("code")
        return None

    def _readable_secrets(self) -> Iterator[Finding]:
        paths = [self._environ.get("CRON_TRIGGER_SECRET_FILE")]
        if "CRON_TRIGGER_SECRET" in environment_file():
            paths.append(str(ENVIRONMENT_FILE))
        for path in filter(None, paths):
            with contextlib.suppress(OSError):
                if os.stat(path).st_mode & 0o077:
                    yield Finding(
                        "secret",
                        "wrong",
                        f"{path} may be read by others.",
                        f"sudo chmod 600 {path}",
                    )

    def _containers(self) -> Iterator[Finding]:
        bridges = docker_bridges()
        for name, bridge in bridges.items():
            fault = self._bridge_fault(bridge)
            found = f"{name}: {bridge.network} may call at {bridge.ip}"
            yield fault or Finding("containers", "ok", found)
        if bridges:
            yield Finding(
                "containers",
                "note",
                "A container's service in compose.yaml needs the line:",
                'extra_hosts: ["host.docker.internal:host-gateway"]',
            )
        else:
            yield Finding("containers", "note", "Docker has no bridge on this host.")

    def _bridge_fault(self, bridge: ipaddress.IPv4Interface) -> Optional[Finding]:
        """Return what keeps a bridge's containers away, as far as a host can tell."""
        host, port, network = self._settings.host, self._settings.port, bridge.network
        if host not in ("0.0.0.0", "::", str(bridge.ip)):
            return Finding(
                "containers",
                "wrong",
                f"The server listens on {host}, but containers call {bridge.ip}.",
                f"Set CRON_TRIGGER_HOST=0.0.0.0 in {ENVIRONMENT_FILE}.",
            )
        if not any(covers(allowed, network) for allowed in self._settings.allow):
            return Finding(
                "containers",
                "wrong",
                f"CRON_TRIGGER_ALLOW does not admit Docker's network {network}.",
                f"Add {network} to it in {ENVIRONMENT_FILE}.",
            )
        if firewall_blocks(network, port):
            docker = ipaddress.ip_network(DOCKER_NETWORKS)
            source = docker if covers(docker, network) else network
            return Finding(
                "containers",
                "wrong",
                f"The firewall keeps {network} from port {port}.",
                f"sudo ufw allow from {source} to any port {port} proto tcp",
            )
        return None


def look_at_folder(name: str, folder: Path) -> Finding:
    """Tell whether the server can write a folder, or make it."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(name, "wrong", f"{there}: {error.strerror}.", "Mend that.")
    unsafe = folder_fault(str(folder)) if os.geteuid() == 0 else None
    if unsafe:
        reason, _, remedy = unsafe.partition(": ")
        return Finding(name, "wrong", f"{reason}, who could put links there.", remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, "wrong", f"{there} can't be written.", "Use sudo.")
    if free < FREE_BYTES:
        text = f"The disk of {folder} has {free >> 20} MB left."
        return Finding(name, "wrong", text, "Make room: history and logs need it.")
    return Finding(name, "ok", str(folder))


def unit_properties() -> Dict[str, str]:
    """Return what systemd knows of the service; nothing where it does not run."""
    wanted = ("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
    keys = ",".join((*wanted, *UNIT_NEEDS))
    shown = output_of("systemctl", "show", f"--property={keys}", SERVICE)
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def unit_faults(unit: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with the installed service."""
    if unit["ActiveState"] != "active":
        yield Finding(
            "service",
            "wrong",
            f"The service is {unit['ActiveState']}.",
            f"sudo systemctl restart {SERVICE} (journalctl -u {SERVICE} says why)",
        )
    if unit["UnitFileState"] != "enabled":
        yield Finding(
            "service",
            "wrong",
            "It does not start at boot.",
            f"sudo systemctl enable {SERVICE}",
        )
    if unit["NeedDaemonReload"] == "yes":
        yield Finding(
            "service",
            "wrong",
            "Its unit was changed since systemd read it.",
            f"sudo systemctl daemon-reload && sudo systemctl restart {SERVICE}",
        )
    for key, (value, otherwise) in UNIT_NEEDS.items():
        if unit[key] != value:
            yield Finding(
                "service",
                "wrong",
                f"Its unit has {key}={unit[key]}: {otherwise}.",
                f"sudo systemctl edit {SERVICE}, and set {key}={value} there.",
            )


def environment_file(path: Path = ENVIRONMENT_FILE) -> Dict[str, str]:
    """Return the variables that the service is started with; nothing if unreadable."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.strip().split("=", 1) for line in lines if "=" in line)
    return {
        key: value.strip().strip("\"'")
        for key, value in pairs
        if VARIABLE_NAME.fullmatch(key)
    }


def docker_bridges() -> Dict[str, ipaddress.IPv4Interface]:
    """Return Docker's bridges: docker0, and br-ID for each further network."""
    found = {}
    for _, name in socket.if_nameindex():
        address = interface_address(name)
        if address and (name == "docker0" or name.startswith("br-")):
            found[name] = address
    return found


def interface_address(name: str) -> Optional[ipaddress.IPv4Interface]:
    """Return the IPv4 address and network of an interface: netdevice(7)."""
    request = name.encode().ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            address = fcntl.ioctl(any_socket, SIOCGIFADDR, request)[20:24]
            mask = fcntl.ioctl(any_socket, SIOCGIFNETMASK, request)[20:24]
        except OSError:
            return None
    return ipaddress.IPv4Interface(
        f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}"
    )


def firewall_blocks(network: ipaddress.IPv4Network, port: int) -> bool:
    """Tell whether ufw, or a firewall of somebody's own rules, shuts the port."""
    ufw = output_of("ufw", "status")
    if "Status: active" in ufw:
        return not ufw_admits(ufw, network, port)
    rules = output_of("iptables", "-S")
    return "-P INPUT DROP" in rules and f"--dport {port} " not in rules


def ufw_admits(
    status: str, network: ipaddress.IPv4Network, port: int
) -> bool:
    """Tell whether a rule that `ufw status` lists lets a network in to a port."""
    for line in status.splitlines():
        rule = re.match(r"(\S+)(?: on \S+)? +ALLOW(?: IN)? +(\S+)", line)
        if rule and rule[1] in ("Anywhere", str(port), f"{port}/tcp"):
            if rule[2] == "Anywhere":
                return True
            with contextlib.suppress(ValueError):
                if covers(ipaddress.ip_network(rule[2]), network):
                    return True
    return False


def covers(
    wider: Union[ipaddress.IPv4Network, ipaddress.IPv6Network],
    network: ipaddress.IPv4Network,
) -> bool:
    """Tell whether all of `network` is in `wider`."""
    return isinstance(wider, ipaddress.IPv4Network) and network.subnet_of(wider)


def output_of(*command: str) -> str:
    """Return what a program prints; nothing where it is missing, fails or hangs."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


# ==================================================================== Command line
# serve, run, list, history, check; what a person types and reads.


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings, flags before environment; else ConfigError."""

    def given(name: str) -> Optional[str]:
        value = flags.get(name)
        return (
            value if value is not None else environ.get(f"CRON_TRIGGER_{name.upper()}")
        )

    def folder(name: str, default: Callable[[], Path]) -> Path:
        return Path(os.path.abspath(given(name) or default()))

    root = os.geteuid() == 0
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    user_state = Path(state) / SERVICE
    runtime = environ.get("XDG_RUNTIME_DIR")
    state_dir = folder(
        "state_dir", lambda: Path("/var/lib") / SERVICE if root else user_state
    )
    user_run = Path(runtime) / SERVICE if runtime else state_dir / "run"
    return Settings(
        registry=_registry_path(given("registry")),
        log_dir=folder(
            "log_dir", lambda: Path("/var/log/qadhya") if root else user_state / "log"
        ),
        state_dir=state_dir,
        run_dir=folder("run_dir", lambda: Path("/run") / SERVICE if root else user_run),
        host=given("host") or "0.0.0.0",
        port=_number("CRON_TRIGGER_PORT", given("port") or "9998", 0, 65535),
        secret=_secret(given("secret"), given("secret_file"), environ),
        allow=_networks(given("allow")),
        allowed_hosts=_hosts(given("allowed_hosts")),
        allowed_origins=_origins(given("allowed_origins")),
        history_days=_number(
            "CRON_TRIGGER_HISTORY_DAYS", given("history_days") or "90", 1, 36500
        ),
        notify_url=_notify_url(given("notify_url")),
    )


def _registry_path(given: Optional[str]) -> Path:
    if given:
        path = Path(os.path.abspath(given))
        if not path.is_file():
            what = "no file" if path.exists() else "not there"
            raise ConfigError(
                f"CRON_TRIGGER_REGISTRY must name a registry file, got {path}, which "
                f"is {what}: create it, or leave the setting out."
            )
        return path
    system = Path("/etc") / SERVICE / "crons.json"
    if system.exists():
        return system
    return Path(__file__).resolve().with_name("crons.json")


def _number(name: str, text: str, low: int, high: int) -> int:
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise ConfigError(
        f'{name} must be a whole number from {low} to {high}, got "{printable(text)}".'
    )


def _items(text: Optional[str]) -> List[str]:
    return (
        re.split(r"[\s,]+", text.strip(" ,\t\n")) if text and text.strip(", ") else []
    )


DEFAULT_ALLOW = "127.0.0.0/8 ::1 172.16.0.0/12"


def _networks(
    text: Optional[str],
) -> Tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...]:
    networks = []
    for item in _items(text if text is not None else DEFAULT_ALLOW):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ConfigError(
                "CRON_TRIGGER_ALLOW must be a list of networks such as "
                f'"127.0.0.0/8 172.16.0.0/12", got "{printable(item)}" ({error}).'
            ) from None
    if not networks:
        raise ConfigError(
            "CRON_TRIGGER_ALLOW must name at least one network, such as 127.0.0.0/8."
        )
    return tuple(networks)


def _hosts(text: Optional[str]) -> Tuple[str, ...]:
    for item in _items(text):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})", item):
            raise ConfigError(
                "CRON_TRIGGER_ALLOWED_HOSTS must be a list of names without a port, "
                f'such as "crons.example.org", got "{printable(item)}".'
            )
    return tuple(_items(text))


def _origins(text: Optional[str]) -> Tuple[str, ...]:
    for item in _items(text):
        if not re.fullmatch(r"https?://[^/?#\s]+", item):
            raise ConfigError(
                "CRON_TRIGGER_ALLOWED_ORIGINS must be a list of origins such as "
                f'"https://admin.example.org", got "{printable(item)}".'
            )
    return tuple(_items(text))


def _notify_url(text: Optional[str]) -> Optional[str]:
    if not text:
        return None
    try:
        url = urllib.parse.urlsplit(text)
        held = url.scheme in ("http", "https") and url.hostname and (url.port or 1)
    except ValueError:
        held = False
    if not held or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            "CRON_TRIGGER_NOTIFY_URL must be an http or https address, got "
            f'"{printable(text, 80)}".'
        )
    return text


def _secret(
    given: Optional[str], file: Optional[str], environ: Mapping[str, str]
) -> Optional[bytes]:
    """Return the secret of the setting, the file, or systemd's LoadCredential=."""
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "secret"
    if given is not None:
        secret = os.fsencode(given)
    elif file is not None or credential.exists():
        path = Path(file) if file is not None else credential
        try:
            secret = path.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise ConfigError(
                "CRON_TRIGGER_SECRET_FILE must name a file to read, got "
                f'"{printable(str(path) if file != "" else "")}" ({error.strerror}).'
            ) from None
    else:
        return None
    if secret in (b"", b"change-me"):
        raise ConfigError(
            "CRON_TRIGGER_SECRET must not be empty or change-me: make one with "
            "openssl rand -hex 32, or leave the setting out."
        )
    if secret != secret.strip() or any(byte < 32 or byte == 127 for byte in secret):
        raise ConfigError(
            "CRON_TRIGGER_SECRET must not begin or end with a space or hold control "
            "characters, which no header can carry: make one with openssl rand -hex 32."
        )
    return secret


def _limit(text: str) -> int:
    """Return the number of runs to list, for argparse."""
    try:
        return _number("it", text, 1, 100000)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Ends a wrong call with EX_USAGE instead of argparse's 2."""

    def error(self, message: str) -> Any:
        self.exit(EX_USAGE, f"{SERVICE}: {message} (see --help)\n")


SETTING_FLAGS = {
    "host": "address to listen on (0.0.0.0)",
    "port": "port to listen on (9998; 0 picks a free one)",
    "secret": "secret that requests must carry (visible in ps: prefer --secret-file)",
    "secret-file": "file that holds the secret",
    "allow": "networks that may connect (loopback and Docker's)",
    "allowed-hosts": "further names for the Host header",
    "allowed-origins": "origins whose pages may call",
    "history-days": "days that the history keeps (90)",
    "registry": "registry file (that of /etc, else crons.json beside the program)",
    "log-dir": "folder of the logs",
    "state-dir": "folder of the history",
    "run-dir": "folder of the PID files",
    "notify-url": "address that gets a POST at the end of each run",
}


def _settings_parser() -> _Parser:
    settings = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = settings.add_argument_group(
        "settings", "each also as CRON_TRIGGER_<NAME> in the environment"
    )
    for name, what in SETTING_FLAGS.items():
        group.add_argument(f"--{name}", help=what, metavar=name.upper())
    return settings


def _parser() -> argparse.ArgumentParser:
    settings = _settings_parser()
    parser = _Parser(
        prog="cron_trigger_server.py",
        parents=[settings],
        description="Start the host's crons on request, once at a time.",
    )
    parser.add_argument("--version", action="version", version=f"{SERVICE} {VERSION}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser
    )

    def add(name: str, what: str, table: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=what, description=what, parents=[settings]
        )
        if table:
            command.add_argument("--json", action="store_true", help="for programs")
        return command

    add("serve", "serve over HTTP (what it does without a command)")
    run = add("run", "run a cron in the foreground, for crontab lines")
    run.add_argument("name", metavar="NAME", help="which cron")
    run.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of this run; as often as there are any",
    )
    add("list", "list the crons", table=True)
    history = add("history", "list the last runs", table=True)
    history.add_argument("name", metavar="NAME", nargs="?", help="of one cron only")
    history.add_argument(
        "--limit", default=20, metavar="N", type=_limit, help="how many runs (20)"
    )
    add("check", "check the registry", table=True)
    add("doctor", "look for what goes wrong in practice", table=True)
    return parser


def command_serve(settings: Settings, options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    return Daemon(settings, os.environ).run()


def command_run(settings: Settings, options: argparse.Namespace) -> int:
    """Run a cron in the foreground; return its exit status, 75 if it runs already."""
    import pwd

    make_folders(settings)
    log = ServerLog(settings.log_dir / f"{SERVICE}.log", to_stderr=False)
    messages = MessageSocket(settings.run_dir)
    loop = Loop(log.say)
    store = Store(settings.history, log.say, settings.run_dir)
    registry = Registry(settings.registry, settings.log_dir)
    runner = Runner(settings, registry, store, loop, log.say, messages.send)
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    request = Trigger(options.name, "cli", _cli_params(registry, options), client=user)
    with _cancelled_by_signals(runner, loop, user) as started:
        run = runner.trigger(request)
        started.append(run.id)
        active = runner.active(run.id)
        while active and not active.done.is_set():
            loop.step()
    runner.close()
    ended = store.run(run.id) or run
    store.close()
    if store.problem:
        messages.send(run.cron_name)  # a server may take over what was not written
        sys.stderr.write(
            f"{SERVICE}: run {run.id} is recorded later: {store.problem}\n"
        )
    messages.close()
    return ended.exit_code if ended.exit_code is not None else 1


def _cli_params(registry: Registry, options: argparse.Namespace) -> Dict[str, Json]:
    if registry.faults and options.name not in registry.crons():
        raise ConfigError(f"The registry does not hold: {registry.faults[0]}.")
    parameters = registry.get(options.name).parameters
    params: Dict[str, Json] = {}
    for text in options.param:
        name, equals, value = text.partition("=")
        if not equals or name in params:
            raise Refusal(
                "invalid_params",
                f'--param takes KEY=VALUE, each key once, got "{name}".',
            )
        known = parameters.get(name)
        params[name] = known.from_text(value) if known else value
    return params


@contextlib.contextmanager
def _cancelled_by_signals(runner: Runner, loop: Loop, user: str) -> Iterator[List[int]]:
    """Have a signal to this process cancel the run whose id is put into the list."""
    started: List[int] = []

    def cancel() -> None:
        with contextlib.suppress(Refusal):
            for run_id in started:
                runner.cancel(run_id, f"{user} (signal)")

    def handle(_number: int, _frame: Any) -> None:
        loop.call_soon(cancel)

    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COLOURS = {
    COMPLETED: 32,
    FAILED: 31,
    TIMED_OUT: 31,
    INTERRUPTED: 33,
    CANCELLED: 33,
    RUNNING: 36,
}


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a status in colour where a person looks at a terminal."""
    table = [list(heads), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for row in table:
        cells = []
        for cell, width in zip(row, widths):
            colour = COLOURS.get(cell) if coloured else None
            text = f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell
            cells.append(text + " " * (width - len(cell)))
        print("  ".join(cells).rstrip())


def print_json(value: Json) -> None:
    """Print JSON for programs."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, ensure_ascii=plain, indent=2))


def _complain(level: str, text: str) -> None:
    """Tell a person who asks for a table of what is wrong with the history."""
    if level == "error":
        sys.stderr.write(f"{SERVICE}: {text}\n")


def command_list(settings: Settings, options: argparse.Namespace) -> int:
    """List the crons as the page shows them."""
    registry = Registry(settings.registry, settings.log_dir)
    store = Store(settings.history, _complain)
    running: Dict[str, Json] = dict.fromkeys(held_locks(settings.run_dir), EXTERNAL)
    running.update((run.cron_name, run.view()) for run in store.running())
    views = [
        cron_view(cron, store.figures(cron.name), running.get(cron.name))
        for cron in registry.crons().values()
    ]
    store.close()
    if options.json:
        print_json({"crons": views})
    else:
        print_table(
            ("CRON", "STATE", "LAST RUN", "RUNS", "OK", "MEDIAN", "DESCRIPTION"),
            map(_list_row, views),
        )
    for fault in registry.faults:
        sys.stderr.write(f"{fault}\n")
    return EX_CONFIG if registry.faults else int(store.problem is not None)


def _list_row(view: Mapping[str, Json]) -> Tuple[str, ...]:
    last, rate = view["lastRun"], view["successRate"]
    state = RUNNING if view["running"] else (last["status"] if last else "-")
    return (
        view["cronName"],
        state,
        _local_time(last["startedAt"]) if last else "-",
        str(view["runs"]),
        "-" if rate is None else f"{100 * rate:.0f} %",
        duration_text(view["medianDurationMs"]),
        view["description"],
    )


def _local_time(text: str) -> str:
    moment = datetime.fromtimestamp(epoch_of(text))
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def command_history(settings: Settings, options: argparse.Namespace) -> int:
    """List the last runs, newest first."""
    store = Store(settings.history, _complain)
    runs = store.runs(cron_name=options.name, limit=options.limit)
    store.close()
    if options.name and not runs:
        Registry(settings.registry, settings.log_dir).get(options.name)
    if options.json:
        print_json({"runs": [run.view() for run in runs]})
        return int(store.problem is not None)
    print_table(
        ("RUN", "CRON", "STATUS", "STARTED", "TOOK", "EXIT", "BY"),
        (
            (
                str(run.id),
                run.cron_name,
                run.status,
                _local_time(run.started_at),
                duration_text(run.duration_ms),
                run.signal or _or_dash(run.exit_code),
                run.asked_by(),
            )
            for run in runs
        ),
    )
    return int(store.problem is not None)


def _or_dash(value: Optional[int]) -> str:
    return "-" if value is None else str(value)


def command_check(settings: Settings, options: argparse.Namespace) -> int:
    """Check the registry: every fault that it has, then what would fail to start."""
    crons, faults = load_registry(settings.registry, settings.log_dir)
    warnings = []
    for cron in crons.values():
        fault = start_fault(cron, os.geteuid())
        if fault:
            warnings.append(f'{settings.registry.name}: "{cron.name}": {fault}')
    if options.json:
        print_json(
            {
                "registry": str(settings.registry),
                "crons": len(crons),
                "faults": faults,
                "warnings": warnings,
            }
        )
        return EX_CONFIG if faults else 0
    for fault in faults:
        print(fault)
    for warning in warnings:
        print(f"warning: {warning}")
    if not faults:
        print(f"{settings.registry}: {len(crons)} crons, well formed")
    return EX_CONFIG if faults else 0


def command_doctor(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look at what goes wrong in practice; return 0 where nothing is wrong, else 1."""
    try:
        settings = read_settings(vars(options), environ)
        findings = Doctor(settings, environ).findings()
    except ConfigError as error:
        remedy = f"See {ENVIRONMENT_FILE} and the environment."
        findings = [Finding("settings", "wrong", str(error), remedy)]
    wrong = sum(finding.status == "wrong" for finding in findings)
    if options.json:
        print_json({"wrong": wrong, "findings": [asdict(f) for f in findings]})
        return 1 if wrong else 0
    for finding in findings:
        print(f"{finding.status:5}  {finding.name:10}  {printable(finding.text)}")
        if finding.remedy:
            print(f"{'':19}-> {printable(finding.remedy)}")
    print(f"{wrong} wrong" if wrong else "Nothing is wrong.")
    return 1 if wrong else 0


COMMANDS: Dict[Optional[str], Callable[[Settings, argparse.Namespace], int]] = {
    None: command_serve,
    "serve": command_serve,
    "run": command_run,
    "list": command_list,
    "history": command_history,
    "check": command_check,
}

#: The exit status of a command that was refused; others are 1.
EXIT_OF_CODE = {
    "already_running": EX_TEMPFAIL,
    "unknown_cron": EX_USAGE,
    "invalid_params": EX_USAGE,
    "launch_failed": 126,
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Do what the arguments say.  Return the exit status; nobody sees a traceback."""
    _prepare_streams()
    try:
        options = _parser().parse_args(argv)
        if options.command not in (None, "serve"):
            # Root's `run` in a crontab must look for locks where the service does, and
            # its scripts have what they have there.
            for name, value in environment_file().items():
                os.environ.setdefault(name, value)
        if options.command == "doctor":  # the settings may be what is wrong
            return command_doctor(options, os.environ)
        settings = read_settings(vars(options), os.environ)
        status = COMMANDS[options.command](settings, options)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return status
    except ConfigError as error:
        complain(str(error))
        return EX_CONFIG
    except Refusal as refusal:
        complain(refusal.message)
        return EXIT_OF_CODE.get(refusal.code, 1)
    except BrokenPipeError:
        # The reader has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        complain(str(error))
        return 1


def _prepare_streams() -> None:
    """See that 0, 1 and 2 are open, and that no character ends a table.

    Where one is closed, the next file to be opened gets its number: what is meant
    for standard error would be written into a PID file.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    # Python has set those to None that were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def complain(text: str) -> None:
    """Say why it ends; `journalctl -p err` shows it where systemd started this."""
    priority = f"<{PRIORITIES['error']}>" if _stderr_is_journal() else ""
    sys.stderr.write(f"{priority}{SERVICE}: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
