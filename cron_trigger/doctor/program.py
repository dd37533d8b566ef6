"""Checks of what is there before anything runs: Python, files, settings, registry."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Iterator

from cron_trigger import HOME
from cron_trigger.doctor.findings import Finding, Host, wrong
from cron_trigger.registry.settings import (
    ENVIRONMENT_FILE,
    service_variables,
    unknown_settings,
)
from cron_trigger.registry.texts import printable
from cron_trigger.registry.trust import writable_by_others
from cron_trigger.runs.scripts import Scripts


def whose(host: Host) -> Iterator[Finding]:
    """Say what cannot be seen."""
    if host.guest:
        yield Finding(
            "view",
            "note",
            "The service is root's: its settings, folders, scripts and secret cannot "
            "be seen from here, and were not looked at.",
            "sudo cron-trigger doctor",
        )


def python(host: Host) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        yield wrong(
            "python",
            f"Python {version} on {os.uname().release} has no pidfd_open.",
            "Use Python 3.9 or newer on Linux 5.3 or newer.",
        )
    else:
        yield Finding("python", "ok", f"Python {version}")


def files(host: Host) -> Iterator[Finding]:
    """The program's own files: who can change one is root at its next start."""
    if os.geteuid() != 0 and not host.guest:
        return
    entry = HOME / "cron_trigger_server.py"
    for path in (entry, *sorted((HOME / "cron_trigger").rglob("*"))):
        unsafe = writable_by_others(str(path))
        if unsafe:
            reason, _, remedy = unsafe.partition(": ")
            if not remedy.startswith("chmod"):
                remedy = "Install it: sudo ./install.sh"
            yield wrong("program", f"{reason}, and root runs it.", remedy)
            return
    yield Finding("program", "ok", f"{HOME}, where root alone can write")


def settings(host: Host) -> Iterator[Finding]:
    """Variables that look like settings and are none."""
    for name, near in unknown_settings(host.environ):
        meant = f"rename it to {near}" if near else "remove it"
        yield wrong(
            "settings",
            f"{printable(name)} is no setting, and has no effect.",
            f"In {ENVIRONMENT_FILE} or the environment, {meant}.",
        )
    with contextlib.suppress(OSError):
        text = ENVIRONMENT_FILE.read_text("utf-8", "replace")
        for name in re.findall(r"(?m)^[ \t]*export[ \t]+(CRON_TRIGGER_\w+)", text):
            yield wrong(
                "settings",
                f"{name} has no effect: systemd ignores a line with `export`.",
                f"Remove the word export in {ENVIRONMENT_FILE}.",
            )


def registry(host: Host) -> Iterator[Finding]:
    path, (crons, faults) = host.settings.registry, host.registry
    for fault in faults:
        yield wrong("registry", fault, f"Fix {path}.")
    if not faults:
        number = "1 cron" if len(crons) == 1 else f"{len(crons)} crons"
        yield Finding("registry", "ok", f"{number} in {path}")


def scripts(host: Host) -> Iterator[Finding]:
    """What each cron would run: there, runnable, safe, its interpreter, its mount."""
    if host.guest:
        return
    looked_at = Scripts(service_variables())
    for cron in host.registry[0].values():
        fault = looked_at.fault(cron)
        if fault:
            reason, _, remedy = fault.partition(": ")
            yield wrong(
                "script",
                f"{cron.name} cannot be started: {reason}.",
                f"{remedy or 'Fix that'} (its entry is in {host.settings.registry})",
            )
