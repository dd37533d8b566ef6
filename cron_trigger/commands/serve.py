"""`serve`: the server itself, with the settings that its environment gives.

Under systemd that has read the service's file; at a terminal nobody has, and a server
that somebody starts by hand beside the service has nothing of it.
"""

from __future__ import annotations

import argparse
import os

from cron_trigger.daemon.life import Daemon
from cron_trigger.registry.settings import read_settings


def command(options: argparse.Namespace) -> int:
    settings = read_settings(vars(options), os.environ)
    return Daemon(settings, os.environ, options.limits).run()
