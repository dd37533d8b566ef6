"""Registry file."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from cron_trigger.registry.checker import Checker
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.texts import printable
from cron_trigger.registry.trust import writable_by_others

REGISTRY_BYTES = 16 << 20
#: A change within this time of the last read may not show in the file's times.
REGISTRY_RACY_S = 0.1


def load_registry(path: Path, log_dir: Path) -> Tuple[Dict[str, Cron], List[str]]:
    """Return the crons of a registry file and every fault that it has.

    Where there is a fault, the crons are those that hold; nobody may run them.
    """
    checker = Checker(path, log_dir)
    try:
        unsafe = writable_by_others(str(path), {0}) if os.geteuid() == 0 else None
        if unsafe:
            checker.fault([], f"refused, because {unsafe}")
            return {}, checker.faults
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            checker.fault([], f"this is not a file ({path})")
            return {}, checker.faults
        if status.st_size > REGISTRY_BYTES:
            checker.fault([], f"must be at most {REGISTRY_BYTES >> 20} MiB")
            return {}, checker.faults
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        checker.fault([], f"this is not UTF-8: byte {error.start}")
        return {}, checker.faults
    except OSError as error:
        checker.fault([], f"can't be read: {error.strerror} ({path})")
        return {}, checker.faults
    return checker.crons(text), checker.faults


class Registry:
    """The crons in force: the last registry file that held.  Any thread may ask."""

    def __init__(
        self,
        path: Path,
        log_dir: Path,
        on_change: Callable[[Registry], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._log_dir = log_dir
        self.faults: List[str] = []
        #: Goes up with each file that was taken, for caches.
        self.version = 0
        self._crons: Dict[str, Cron] = {}
        self._signature: Optional[Tuple[int, ...]] = None
        self._lock = threading.Lock()
        self._on_change = on_change
        self.reload()

    def crons(self) -> Dict[str, Cron]:
        """Return the crons in force, read again if the file has changed."""
        if self._read_signature() != self._signature:
            self.reload()
        return self._crons

    def get(self, name: str) -> Cron:
        """Return a cron; else `unknown_cron`."""
        crons = self.crons()
        if name in crons:
            return crons[name]
        known = ", ".join(crons) or "none"
        raise Refusal(
            "unknown_cron",
            f'There is no cron "{printable(name, 80)}"; the registry has: '
            f"{printable(known, 400)}.",
            availableCrons=list(crons),
        )

    def reload(self) -> None:
        """Read the file; take it if it holds, else keep the last good one."""
        with self._lock:
            signature = self._read_signature()
            crons, faults = load_registry(self.path, self._log_dir)
            changed = (faults or crons) != (self.faults or self._crons)
            self.faults = faults
            self._signature = signature
            if not faults:
                self._crons = crons
            self.version += changed
        if changed:
            self._on_change(self)

    def _read_signature(self) -> Optional[Tuple[int, ...]]:
        """Return what tells a changed file, or None while that can't be told.

        A file written twice within a tick of the kernel's clock keeps its times, so
        a file that changed just now is read again at the next look.  One with a fault
        is, each second: the remedy may be a chmod of a folder, which it doesn't show.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return (0,)
        age_s = time.time() - status.st_ctime
        mark = int(time.monotonic() * 1e6) if 0 <= age_s < REGISTRY_RACY_S else 0
        if self.faults:
            mark = mark or int(time.monotonic())
        return (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size,
            status.st_mode,
            status.st_uid,
            mark,
        )
