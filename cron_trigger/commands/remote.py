"""`trigger`, `log`, `cancel`, `events`: what a person or a script asks of a server.

Any server: this host's, or the one at `--url`.  Messages for people go to standard
error where standard output has something else to carry.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import secrets
import socket
import sys
import urllib.parse
from datetime import datetime
from typing import Any, Callable

from cron_trigger import SERVICE
from cron_trigger.client import Client, client_of
from cron_trigger.commands.run import split_params
from cron_trigger.commands.terminal import (
    Failed,
    Output,
    print_json,
    reader_may_go,
    say,
    visible,
)
from cron_trigger.host.users import own_user
from cron_trigger.registry.errors import EX_USAGE
from cron_trigger.registry.records import COMPLETED, RUNNING
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable
from cron_trigger.registry.times import duration_text

#: As much of a log is looked through for its last lines before it is followed.
TAIL_BYTES = 1 << 20
#: Proxies end an answer that takes longer: HAProxy often after 10 s or 30 s, Envoy
#: after 15 s.
WAIT_S = 8
Command = Callable[[argparse.Namespace], int]


def _of_ours(command: Command) -> Command:
    """Have an answer without what ours have end a command with a sentence."""

    @functools.wraps(command)
    def asked(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except (AttributeError, KeyError, TypeError):
            why = f"The answer is not that of a {SERVICE}: correct --url."
            raise Failed(why) from None

    return asked


@_of_ours
def trigger(options: argparse.Namespace) -> int:
    """Start a cron, now or at a time; with `--wait` return the run's exit status."""
    if options.at and (options.wait or options.follow):
        raise Failed("--at cannot go with --wait or --follow.", EX_USAGE)
    client = client_of(vars(options), os.environ)
    body: dict[str, Json] = {"cronName": options.name, "requestedBy": _requester()}
    if options.param:
        body["params"] = _params(client, options.name, options.param)
    if options.at:
        body["runAt"] = _moment(options.at)
    # With the key, a request whose answer was lost can be sent again.
    key = secrets.token_hex(16)
    answer = client.patiently(
        lambda: client.ask("POST", "trigger", body, {"Idempotency-Key": key})
    )
    run_id = answer.get("runId")
    if not (options.follow or options.wait):
        _say_answer(options, answer)
        return 0
    # Whether somebody reads it or not: the status is the run's.
    with reader_may_go(sys.stdout, OSError):
        _say_answer(options, answer)
        if options.follow:
            try:
                _show(client.follow(f"runs/{run_id}"))
            except Failed as error:  # it was not kept, say
                say(str(error))
    return _ended(client, run_id)


def _say_answer(options: argparse.Namespace, answer: dict[str, Json]) -> None:
    run_id = answer.get("runId")
    if options.json:
        print_json(answer)
    elif run_id is None:
        print(visible(f"planned trigger {answer['scheduledId']}: {answer['runAt']}"))
    elif options.follow or options.wait:
        say(f"run {run_id} of {options.name} started")
    else:
        started = f"run {run_id} of {options.name} started: cron-trigger log {run_id}"
        print(visible(started))


def _requester() -> str:
    user = os.environ.get("SUDO_USER") or own_user().name
    return f"{user}@{socket.gethostname()}"


def _params(client: Client, cron_name: str, texts: list[str]) -> dict[str, Json]:
    """Return the values, each of the type that the server's cron gives it."""
    path = f"crons/{urllib.parse.quote(cron_name, safe='')}"
    known = client.ask("GET", path)["cron"]["parameters"]
    values: dict[str, Json] = dict(split_params(texts))
    for name, text in values.items():
        if known.get(name, {}).get("type", "string") != "string":
            with contextlib.suppress(ValueError):  # the server says what it expects
                values[name] = json.loads(text)
    return values


def _moment(text: str) -> str:
    """Return a time with an offset: this host's, where none is given."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        example = "2026-11-23T22:00 or 2026-11-23T22:00+01:00"
        why = f'--at takes a time such as {example}, got "{printable(text, 40)}".'
        raise Failed(why, EX_USAGE) from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


def _ended(client: Client, run_id: int) -> int:
    """Wait for a run's end; say it; return the exit status that was recorded."""
    path = f"runs/{run_id}?wait={WAIT_S}"
    while True:
        run = client.patiently(lambda: client.ask("GET", path))["run"]
        if run["status"] != RUNNING:
            break
    how = run["signal"] or f"exit {run['exitCode']}"
    if run["exitCode"] is None:
        how = printable(run["error"] or "exit status unknown")
    took = duration_text(run["durationMs"])
    say(f"run {run_id} of {run['cronName']} {run['status']}: {how} after {took}")
    if run["exitCode"] is not None:
        return int(run["exitCode"])
    return 0 if run["status"] == COMPLETED else 1


def _show(blocks: Any) -> None:
    output = Output(sys.stdout)
    for block in blocks:
        output.write(block)
    output.write(b"", last=True)


@_of_ours
def log(options: argparse.Namespace) -> int:
    """Show a run's output, or its last lines; with `--follow` as it comes."""
    client = client_of(vars(options), os.environ)
    path = f"runs/{options.id}"
    if options.follow or options.tail is None:
        begin = _tail_begin(client, path, options.tail)
        _show(client.follow(path, begin, options.follow))
        return 0
    with client.open("GET", f"{path}/log?tail={options.tail}") as answer:
        _show(iter(lambda: answer.read(65536), b""))
        if answer.length:
            raise Failed(f"The output was cut off: {answer.length} bytes are missing.")
    return 0


def _tail_begin(client: Client, path: str, lines: int) -> int:
    """Return from which byte on the last lines of an output that may grow are."""
    if lines is None:
        return 0
    with client.open("HEAD", f"{path}/log") as answer:
        end = int(answer.headers.get("Content-Length") or 0)
    begin = max(0, end - TAIL_BYTES)
    with client.open("GET", f"{path}/log?from={begin}") as answer:
        data = client.rest(answer)[: end - begin]
    last = data.splitlines(keepends=True)[-lines:] if lines else []
    return end - sum(map(len, last))


@_of_ours
def cancel(options: argparse.Namespace) -> int:
    client = client_of(vars(options), os.environ)
    body = {"requestedBy": _requester()}
    answer = client.ask("POST", f"runs/{options.id}/cancel", body)
    if options.json:
        print_json(answer)
    else:
        print(f"run {options.id} is being cancelled")
    return 0


@_of_ours
def events(options: argparse.Namespace) -> int:
    """Show what happens, one line each, until a signal ends it."""
    client = client_of(vars(options), os.environ)
    for number, name, data in client.events():
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            raise Failed(
                f"{client.url} sends what is no event: correct --url."
            ) from None
        if options.json:
            print(json.dumps({"id": number, "event": name, "data": told}))
        else:
            line = f"{datetime.now():%H:%M:%S}  {name:18}  {_event_line(told, data)}"
            print(visible(line))
        sys.stdout.flush()
    return 0


def _event_line(told: Any, data: str) -> str:
    """Return what an event is about, for people."""
    about = told.get("run") or told.get("scheduled") or told.get("cron") or told
    keys = ("id", "cronName", "status", "exitCode", "runAt", "dueAt", "missed", "error")
    shown = [f"{about[key]}" for key in keys if about.get(key) is not None]
    return "  ".join(shown) if shown else data
