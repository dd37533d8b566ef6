"""What a check of `doctor` yields, and the host that all of them look at.

Promises that a program which is missing, fails or hangs counts as one that said
nothing.  Called by the checks.
"""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from typing import Mapping

from cron_trigger import SERVICE
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.file import load_registry
from cron_trigger.registry.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What one look found: `ok`, a `note` worth knowing, or something `wrong`."""

    name: str
    status: str
    text: str
    remedy: str = ""


def wrong(name: str, text: str, remedy: str) -> Finding:
    return Finding(name, "wrong", text, remedy)


@dataclass
class Host:
    """What the checks look at; asked once each."""

    settings: Settings
    environ: Mapping[str, str]
    #: An ordinary user, who cannot see what root's service has.
    guest: bool
    #: How long a server has for an answer.
    ASK_S = 5.0

    @functools.cached_property
    def unit(self) -> dict[str, str]:
        """What systemd knows of the service; nothing where it does not run."""
        shown = output_of("systemctl", "show", SERVICE)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    @property
    def installed(self) -> bool:
        return self.unit.get("LoadState") == "loaded"

    @functools.cached_property
    def registry(self) -> tuple[dict[str, Cron], list[str]]:
        return load_registry(self.settings.registry, self.settings.log_dir)


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
