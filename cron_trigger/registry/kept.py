"""The last registry that was taken, kept beside the history for a bad morning.

Knows the copy's file and its form.  Promises that the copy is whole or not there, that
nobody else may read it, and that another registry's is not taken for this one's.
Called by file.py alone, with its lock on reading held.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple, Optional

from cron_trigger.registry.times import now_text


class KeptText(NamedTuple):
    """The text of a registry that was taken, and when it was."""

    text: str
    taken_at: str


def keep_text(path: Path, registry: Path, text: str) -> None:
    """Keep the text of a registry that was taken, unless it is there already.

    A folder that can't be written is the history's fault to tell: here, it leaves the
    copy that was there.
    """
    kept = kept_text(path, registry)
    if kept and kept.text == text:
        return
    content = {"registry": str(registry), "takenAt": now_text(), "text": text}
    with contextlib.suppress(OSError):
        fresh = f"{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)  # of a server that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)


def kept_text(path: Path, registry: Path) -> Optional[KeptText]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["registry"] == str(registry):
            return KeptText(str(content["text"]), str(content["takenAt"]))
    return None
