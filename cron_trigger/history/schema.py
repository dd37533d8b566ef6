"""Schema."""

from __future__ import annotations

import json
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import (
    RUN_COLUMNS,
    RUN_SHOWN,
    SCHEDULED_COLUMNS,
    Run,
    Scheduled,
)
from cron_trigger.registry.strict_json import json_text

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
SHOWN_AS = {
    "params": "json(iif(json_valid(params), params, '{}'))",
    "stopping": "json(iif(status = 'running' and end_reason is not null, "
    "'true', 'false'))",
}
RUN_JSON = ", ".join(
    f"'{shown}', {SHOWN_AS.get(column, column)}"
    for shown, column in zip(
        RUN_SHOWN, (*RUN_COLUMNS[:3], "stopping", *RUN_COLUMNS[3:])
    )
)
SCHEDULED_ROW = ", ".join(SCHEDULED_COLUMNS)
SCHEDULED_VALUES = ", ".join("?" * len(SCHEDULED_COLUMNS))


def row_of(record: Union[Run, Scheduled]) -> Tuple[Any, ...]:
    # A dataclass keeps its values in the order of its fields.
    return (*{**vars(record), "params": json_text(record.params)}.values(),)


def run_of(row: Sequence[Any]) -> Run:
    # Past `__init__`, which would set each of the fields by a call of its own.
    run = Run.__new__(Run)
    values = vars(run)
    values.update(zip(RUN_COLUMNS, row))
    text = values["params"]
    values["params"] = json.loads(text) if text != "{}" else {}
    return run


def scheduled_of(row: Sequence[Any]) -> Scheduled:
    values = dict(zip(SCHEDULED_COLUMNS, row))
    return Scheduled(**{**values, "params": json.loads(values["params"])})


def page_of(
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
