"""Start the scripts of a host's crontab on request, once at a time, and record it."""

from __future__ import annotations

from pathlib import Path

VERSION = "2.0.0"
SERVICE = "cron-trigger-server"

#: The folder that holds the program, and beside it the entry and a registry.
HOME = Path(__file__).resolve().parent.parent
