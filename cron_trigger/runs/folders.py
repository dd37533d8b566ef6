"""Folders."""

from __future__ import annotations

import os

from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.trust import folder_fault
from cron_trigger.runs.logs import DISK_FAULTS, LOG_FOLDER_MODE


def make_folders(settings: Settings) -> None:
    """Make the folders, and see that only this user may write them; else ConfigError.

    A state or log folder that can't be made is survived, and told by `/health`; without
    the run folder there is no lock, so nothing may run.
    """
    for path, mode, needed in (
        (settings.run_dir, 0o700, True),
        (settings.state_dir, 0o700, False),
        (settings.log_dir, LOG_FOLDER_MODE, False),
    ):
        try:
            if not path.is_dir():
                path.mkdir(mode=mode, parents=True, exist_ok=True)
                path.chmod(mode)  # whatever the umask
        except OSError as error:
            if needed or error.errno not in DISK_FAULTS:
                raise ConfigError(
                    f"The folder {path} can't be made ({error.strerror}); make it, or "
                    "name another (--run-dir, --state-dir, --log-dir)."
                ) from None
            continue
        unsafe = folder_fault(str(path)) if os.geteuid() == 0 else None
        if unsafe:
            raise ConfigError(
                f"The folder {path} is refused, where others could put links, because "
                f"{unsafe}."
            )
