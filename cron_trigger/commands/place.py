"""Whose state a command works with: the service's, or one's own.

As root, a command has the settings that systemd gives to the service, and so its
folders.  An ordinary user has folders of their own; on a host with the service,
a command says so, and `run` refuses, since two servers' locks know nothing of each
other.  Called by all commands that look at this host.
"""

from __future__ import annotations

import argparse
import os

from cron_trigger.commands.terminal import say
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.file import Registry
from cron_trigger.registry.settings import (
    SERVICE_FOLDER,
    Settings,
    read_settings,
    service_variables,
)


def environment() -> dict[str, str]:
    """Return this process's variables, and for root those of the service below them."""
    return {**service_variables(), **os.environ}


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that a command has; else ConfigError."""
    return read_settings(vars(options), environment())


def registry_of(settings: Settings) -> Registry:
    """Return the crons that a server would have in force."""
    return Registry(settings.registry, settings.log_dir, kept=settings.kept_registry)


def is_guest(options: argparse.Namespace) -> bool:
    """Tell whether a user other than root looks at a host that has the service.

    Who names a registry or a folder has something of their own.
    """
    if os.geteuid() == 0 or not os.path.lexists(SERVICE_FOLDER):
        return False
    return not any(
        getattr(options, name, None) or os.environ.get(f"CRON_TRIGGER_{name.upper()}")
        for name in ("registry", "state_dir")
    )


def say_whose(options: argparse.Namespace, settings: Settings) -> None:
    """Tell a guest that this is not the service's history."""
    if is_guest(options):
        say(
            f"this is your own history ({settings.state_dir}); the service's is "
            f"root's: sudo cron-trigger {options.command}"
        )


def refuse_guest(options: argparse.Namespace) -> None:
    """Refuse a run beside the service's, which could be a second one of the same cron.

    Raises ConfigError.
    """
    if is_guest(options):
        raise ConfigError(
            "This host's crons are run by root's service, whose locks you cannot take: "
            f"sudo cron-trigger run {options.name}, a line in root's crontab, or "
            f"cron-trigger trigger {options.name}; for crons of your own, name "
            "--registry and --state-dir."
        )
