"""Records: a run, a scheduled trigger, a request for a run, an event, a key.

Knows their fields, which are the columns of the history, and how clients and people see
them.  Promises that none of them ever changes: a change makes another.  Made in runs/
and history/, shown by web/ and cli; any thread may.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Mapping, NamedTuple, Optional, TypeVar

from cron_trigger.registry.parameters import ParameterValue
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import camel, printable
from cron_trigger.registry.times import duration_text, epoch_of

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
R = TypeVar("R")


def replace(record: R, **changes: Any) -> R:
    changed: R = record._replace(**changes)  # type: ignore[attr-defined]
    return changed


class Run(NamedTuple):
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
    params: Mapping[str, ParameterValue] = {}
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
    #: By which the keeper is told from a later process of its PID.
    keeper_started: Optional[str] = None

    @property
    def running(self) -> bool:
        return self.status == RUNNING

    @property
    def stopping(self) -> bool:
        """True from a cancel or time limit until the last process is gone."""
        return self.status == RUNNING and self.end_reason is not None

    def view(self) -> dict[str, Json]:
        number, cron_name, status, *others = self
        values = (number, cron_name, status, self.stopping, *others)
        return dict(zip(RUN_SHOWN, values))

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


RUN_COLUMNS = Run._fields
#: What a client sees of these, the first ones, as it sees them named; `stopping`, which
#: is no column, stands after `status`.
RUN_SHOWN = (
    *map(camel, RUN_COLUMNS[:3]),
    "stopping",
    *map(camel, RUN_COLUMNS[3 : RUN_COLUMNS.index("end_reason")]),
)


class Scheduled(NamedTuple):
    """A scheduled trigger: a row of `scheduled_triggers`."""

    id: int
    cron_name: str
    run_at: str
    status: str = PENDING
    params: Mapping[str, ParameterValue] = {}
    requested_by: Optional[str] = None
    run_id: Optional[int] = None
    reason: Optional[str] = None
    created_at: str = ""
    client: Optional[str] = None

    @property
    def due_s(self) -> float:
        return epoch_of(self.run_at)

    def view(self) -> dict[str, Json]:
        shown = SCHEDULED_COLUMNS[: SCHEDULED_COLUMNS.index("client")]
        return {camel(name): getattr(self, name) for name in shown}


SCHEDULED_COLUMNS = Scheduled._fields


class Trigger(NamedTuple):
    """A request for a run, from whichever side."""

    cron_name: str
    source: str
    params: Mapping[str, Json] = {}
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


class Event(NamedTuple):
    """Something that happened, as `/events` tells it.  `data` is JSON."""

    id: int
    name: str
    data: str

    def run(self) -> dict[str, Json]:
        run: dict[str, Json] = json.loads(self.data)["run"]
        return run


class Key(NamedTuple):
    """An idempotency key and what its first request led to."""

    cron_name: str
    key: str
    digest: str
    created_s: float
    run_id: Optional[int] = None
    scheduled_id: Optional[int] = None
