"""`crontab`: what cron runs on this host, as crons; with `--write` into the registry.

The conversion is the room `crontab`; here it meets the registry.  Promises that what
the checker refuses is left out and said, and that no crontab is written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from cron_trigger.commands.place import is_guest, settings_of
from cron_trigger.commands.terminal import Failed, print_json, print_lines, say
from cron_trigger.crontab.conversion import PROGRAM, Entry, convert
from cron_trigger.crontab.lines import read_sources
from cron_trigger.crontab.table import (
    merged_registry,
    table_lines,
    to_json,
    write_registry,
)
from cron_trigger.host.users import own_user
from cron_trigger.registry.checker import Checker
from cron_trigger.registry.errors import EX_CONFIG
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.strict_json import JsonObject, parse_json


def command(options: argparse.Namespace) -> int:
    """Show each line's entry and the line that takes its place; 1 if one is refused."""
    settings = settings_of(options)
    # Whose crontab calls `run`: the server's.
    user = "root" if is_guest(options) else own_user().name
    sources, notes = read_sources(options.file, options.user)
    for note in notes:
        say(note)
    try:
        text = settings.registry.read_text("utf-8")
        existing = parse_json(text)
        if not isinstance(existing, JsonObject):
            raise ValueError("expected an object")
        result = convert(sources, existing, _program(), user)
    except ValueError as error:
        raise Failed(f"{settings.registry} is invalid: {error}.", EX_CONFIG) from None
    if options.json:
        print_json(to_json(result))
    else:
        print_lines(table_lines(result))
    if not options.write:
        return 0
    good, refused = _checked(result.entries, settings)
    for fault in refused:
        say(f"left out: {fault}")
    try:
        write_registry(settings.registry, merged_registry(text, good))
    except ValueError as error:
        raise Failed(f"{settings.registry} is invalid: {error}.", EX_CONFIG) from None
    number = "1 cron was" if len(good) == 1 else f"{len(good)} crons were"
    say(f"{number} added to {settings.registry}")
    return 1 if refused else 0


def _program() -> str:
    """Return what a crontab's line has to call: what is installed, else this."""
    return PROGRAM if os.path.exists(PROGRAM) else os.path.realpath(sys.argv[0])


def _checked(
    entries: dict[str, Entry], settings: Settings
) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries that the registry takes, and the others' faults."""
    good: dict[str, Entry] = {}
    refused: list[str] = []
    for name, entry in entries.items():
        checker = Checker(settings.registry, settings.log_dir)
        if checker.crons(json.dumps({name: entry})):
            good[name] = entry
        refused += checker.faults[:1]
    return good, refused
