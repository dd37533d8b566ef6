"""The checks of `doctor`, in the order in which they are shown.

What the rest rests on comes first.  Called by the command line.
"""

from __future__ import annotations

from typing import Mapping

from cron_trigger.doctor import containers, folders, program, service
from cron_trigger.doctor.findings import Finding, Host
from cron_trigger.registry.settings import Settings

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


def findings(
    settings: Settings, environ: Mapping[str, str], guest: bool
) -> list[Finding]:
    """Return what all checks find."""
    host = Host(settings, environ, guest)
    return [finding for look in CHECKS for finding in look(host)]
