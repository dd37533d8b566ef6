"""`doctor`: what goes wrong in practice on this host, and the remedy of each.

The checks are those of the room `doctor`; they change nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Iterator

from cron_trigger.commands.place import environment, is_guest, settings_of
from cron_trigger.commands.terminal import print_json, print_lines
from cron_trigger.doctor import containers, folders, program, service
from cron_trigger.doctor.findings import Finding, Host
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import ENVIRONMENT_FILE
from cron_trigger.registry.texts import printable

#: In the order in which they are shown: what the rest rests on comes first.
CHECKS = (
    program.whose,
    program.python,
    program.files,
    program.settings,
    program.registry,
    program.scripts,
    folders.folders,
    folders.rotation,
    service.service,
    service.port,
    service.secret,
    containers.networks,
)


def command(options: argparse.Namespace) -> int:
    """Look at what goes wrong in practice; return 0 where nothing is wrong, else 1."""
    try:
        host = Host(settings_of(options), environment(), is_guest(options))
        found = [finding for look in CHECKS for finding in look(host)]
    except ConfigError as error:
        remedy = f"See {ENVIRONMENT_FILE} and the environment."
        found = [Finding("settings", "wrong", str(error), remedy)]
    wrong = sum(finding.status == "wrong" for finding in found)
    if options.json:
        print_json({"wrong": wrong, "findings": [asdict(f) for f in found]})
    else:
        lines = [line for finding in found for line in _finding_lines(finding)]
        print_lines([*lines, f"{wrong} wrong" if wrong else "Nothing is wrong."])
    return 1 if wrong else 0


def _finding_lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.status:5}  {finding.name:10}  {printable(finding.text)}"
    if finding.remedy:
        yield f"{'':19}-> {printable(finding.remedy)}"
