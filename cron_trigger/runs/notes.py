"""The note of a run, beside its PID file: what the history says, should it be lost.

Written by whoever starts a run, and blanked when its end is recorded, in both cases
under the cron's lock or by who has just had it.  So a note that is there speaks of a
run whose end may be recorded nowhere.  No state, no lock of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Optional

from cron_trigger.registry.records import Run
from cron_trigger.registry.strict_json import json_text

FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def _note_of(pid_file: str) -> str:
    folder, _, name = pid_file.rpartition("/")
    return f"{folder}/.{name[: -len('.pid')]}.run"  # no cron's name has a dot first


def write_note(pid_file: str, run: Run) -> None:
    """Note a run that is about to start; without room it is in the history alone."""
    text = json_text(run._asdict()).encode("utf-8", "replace")
    with contextlib.suppress(OSError):
        note = os.open(_note_of(pid_file), FLAGS | os.O_CREAT, 0o600)
        try:
            # Over what stands there, whose place on the disk is had.  A kill leaves
            # half a note, which is none.
            os.pwrite(note, text, 0)
            os.ftruncate(note, len(text))
        finally:
            os.close(note)


def read_note(pid_file: str) -> Optional[Run]:
    """Return the run that was noted last for a cron; None without one."""
    try:
        run = Run(**json.loads(Path(_note_of(pid_file)).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return run if run.cron_name == Path(pid_file).stem else None


def blank_note(pid_file: str, run: Run) -> None:
    """Take back the note of a run whose end is recorded; its place stays taken."""
    ours = json_text({"id": run.id}).encode()[:-1] + b","
    with contextlib.suppress(OSError):
        note = os.open(_note_of(pid_file), FLAGS)
        try:
            if os.pread(note, len(ours), 0) == ours:
                os.pwrite(note, b" " * os.fstat(note).st_size, 0)
        finally:
            os.close(note)
