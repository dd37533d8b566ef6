"""The tables of a history, and how a record becomes a row and a row a record.

Both files of a history have these tables: the one that stays and the one beside the
PID files.  The text of every query that two modules need stands here, once.  Every
module of the room calls it; no connection is opened here and nothing is locked.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any, Iterator, Sequence, Union

from cron_trigger.registry.records import (
    RUN_COLUMNS,
    RUN_SHOWN,
    SCHEDULED_COLUMNS,
    Run,
    Scheduled,
)
from cron_trigger.registry.strict_json import encodable, json_text

#: `pragma user_version`.  0 is what programs before this number wrote.
VERSION = 1
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
  log_end integer,
  keeper_started text
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
create table if not exists schedules (
  cron_name text primary key,
  schedule text not null,
  judged_s real not null,
  missed_s real
) without rowid;
create table if not exists run_totals (
  cron_name text not null,
  status text not null,
  runs integer not null,
  duration_ms integer not null,
  last_completed_at text,
  in_a_row integer not null default 0,
  primary key (cron_name, status)
) without rowid;
"""
#: Totals are counted by SQLite itself, in the transaction that records an end.
#: `in_a_row`: how many ended so since the cron last completed.
COUNT_ENDED = """
begin
  insert into run_totals
    values (new.cron_name, new.status, 1, coalesce(new.duration_ms, 0),
            new.completed_at, new.status <> 'completed')
    on conflict (cron_name, status) do update set
      runs = runs + 1,
      duration_ms = duration_ms + excluded.duration_ms,
      last_completed_at = max(coalesce(last_completed_at, ''),
                              coalesce(excluded.last_completed_at, '')),
      in_a_row = in_a_row + excluded.in_a_row;
  update run_totals set in_a_row = 0
    where new.status = 'completed' and cron_name = new.cron_name and in_a_row > 0;
end;
"""
COUNTING = f"""
create trigger if not exists count_ended_update after update of status
  on cron_executions when old.status = 'running' and new.status <> 'running'
{COUNT_ENDED}
create trigger if not exists count_ended_insert after insert
  on cron_executions when new.status <> 'running'
{COUNT_ENDED}
"""
#: What a history of version 0 lacks: table, column, and how it is added.
SINCE_0 = (
    (
        "cron_executions",
        "keeper_started",
        "alter table cron_executions add column keeper_started text;",
    ),
    (
        "run_totals",
        "in_a_row",
        """
alter table run_totals add column in_a_row integer not null default 0;
update run_totals set in_a_row = (
  select count(*) from cron_executions as e
  where e.cron_name = run_totals.cron_name and e.status = run_totals.status
    and e.id > coalesce((select max(id) from cron_executions as c
      where c.cron_name = e.cron_name and c.status = 'completed'), 0));
""",
    ),
)
#: What moves from one history to the other; `run_totals` follow by themselves.
TABLES = (
    *("cron_executions", "scheduled_triggers", "idempotency_keys"),
    *("events", "schedules"),
)


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of version 0 up.

    One transaction: a kill in the midst of it leaves the history as it was.
    """
    # First: another process may bring it up just now, and each column is added once.
    db.execute("begin immediate")
    try:
        steps = ""
        for table, column, step in SINCE_0:
            columns = columns_of(db, "main", table)
            if columns and column not in columns:
                steps += step
        if steps:
            steps += "drop trigger if exists count_ended_update;"
            steps += "drop trigger if exists count_ended_insert;"
        for statement in _statements(steps + SCHEMA + COUNTING):
            db.execute(statement)
        db.execute(f"pragma user_version = {VERSION}")
        db.execute("commit")
    except BaseException:
        roll_back(db)
        raise


def _statements(text: str) -> Iterator[str]:
    """Yield statement by statement; `executescript` would commit what has begun."""
    statement = ""
    for part in text.split(";")[:-1]:
        statement += part + ";"
        if sqlite3.complete_statement(statement):  # a trigger has several within
            yield statement
            statement = ""


def columns_of(db: sqlite3.Connection, schema: str, table: str) -> list[str]:
    """Return the columns of a table, none where there is no such table."""
    return [row[1] for row in db.execute(f"pragma {schema}.table_info({table})")]


def roll_back(db: sqlite3.Connection) -> None:
    """Take back what a transaction has done, if there is one."""
    with contextlib.suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("rollback")


RUN_ROW = ", ".join(RUN_COLUMNS)
RUN_VALUES = ", ".join("?" * len(RUN_COLUMNS))
RUN_INSERT = f"insert or ignore into cron_executions ({RUN_ROW}) values ({RUN_VALUES})"
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


def _json_member(shown: str, column: str) -> str:
    """Return a pair for SQLite's `json_object`.

    `json` alone would fail for a text that somebody else has put into the history.
    """
    if column == "params":
        return f"'{shown}', json(iif(json_valid(params), params, '{{}}'))"
    return f"'{shown}', {column}"


STOPPING = (
    "'stopping', json(iif(status = 'running' and end_reason is not null, "
    "'true', 'false'))"
)
_MEMBERS = [
    _json_member(shown, column)
    for shown, column in zip((*RUN_SHOWN[:3], *RUN_SHOWN[4:]), RUN_COLUMNS)
]
#: A run as `Run.view` has it, written by SQLite.
RUN_JSON = ", ".join((*_MEMBERS[:3], STOPPING, *_MEMBERS[3:]))
SCHEDULED_ROW = ", ".join(SCHEDULED_COLUMNS)
SCHEDULED_VALUES = ", ".join("?" * len(SCHEDULED_COLUMNS))
SCHEDULED_PUT = (
    f"insert or replace into scheduled_triggers ({SCHEDULED_ROW}) "
    f"values ({SCHEDULED_VALUES})"
)
SCHEDULED_INSERT = SCHEDULED_PUT.replace("or replace", "or ignore")
KEY_ROW = "cron_name, key, digest, created_s, run_id, scheduled_id"
KEY_PUT = f"insert or replace into idempotency_keys ({KEY_ROW}) values (?,?,?,?,?,?)"
EVENT_ROW = "id, event, data"
EVENT_PUT = f"insert or ignore into events ({EVENT_ROW}) values (?, ?, ?)"
SCHEDULE_ROW = "cron_name, schedule, judged_s, missed_s"
SCHEDULE_PUT = f"insert or replace into schedules ({SCHEDULE_ROW}) values (?, ?, ?, ?)"
#: What every query relies on: where one of these fails, a column was renamed.
ALL_ROWS = (
    f"select {RUN_ROW} from cron_executions where 0",
    f"select {SCHEDULED_ROW} from scheduled_triggers where 0",
    f"select {KEY_ROW} from idempotency_keys where 0",
    f"select {EVENT_ROW} from events where 0",
    f"select {SCHEDULE_ROW} from schedules where 0",
    "select cron_name, status, runs, duration_ms, last_completed_at, in_a_row "
    "from run_totals where 0",
)


def row_of(record: Union[Run, Scheduled]) -> tuple[Any, ...]:
    values = record._replace(params=json_text(record.params))  # type: ignore[arg-type]
    return tuple(map(storable, values))


def storable(value: Any) -> Any:
    """Return a value as SQLite takes it: bytes that are not UTF-8 are written out."""
    return encodable(value) if isinstance(value, str) else value


def run_of(row: Sequence[Any]) -> Run:
    run = Run._make(row)
    return run._replace(params=_params_of(run.params))


def scheduled_of(row: Sequence[Any]) -> Scheduled:
    entry = Scheduled._make(row)
    return entry._replace(params=_params_of(entry.params))


def _params_of(text: Any) -> dict[str, Any]:
    """Return a record's parameters; none where somebody else has broken them."""
    if text != "{}":
        with contextlib.suppress(ValueError, TypeError):
            found = json.loads(text)
            if isinstance(found, dict):
                return found
    return {}
