"""The registry's file: read when it changed, taken when it holds.

Knows when the file may have changed, what is in force meanwhile, and why.  Promises
that the crons in force are always those of a file that held; that a change shows at the
next request; and that no request waits longer than PATIENCE_S for a file, however large
it is.  Any thread may ask a Registry; `_reading_lock` is held while a file is read,
`_lock` for the moment in which a reading begins or is over.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Callable, Optional

from cron_trigger.registry.checker import Checker
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.texts import printable
from cron_trigger.registry.threads import begin
from cron_trigger.registry.times import now_text
from cron_trigger.registry.trust import writable_by_others

REGISTRY_BYTES = 16 << 20
#: A change within this time of the last read may not show in the file's times.
REGISTRY_RACY_S = 0.1


def load_registry(path: Path, log_dir: Path) -> tuple[dict[str, Cron], list[str]]:
    """Return the crons of a registry file and every fault that it has.

    Where there is a fault, the crons are those that hold; nobody may run them.
    """
    crons, faults, _ = _load(path, log_dir)
    return crons, faults


def _load(path: Path, log_dir: Path) -> tuple[dict[str, Cron], list[str], str]:
    """Return the crons, the faults and the text of a registry file."""
    checker = Checker(path, log_dir)
    try:
        text = _read(path)
    except UnicodeDecodeError as error:
        checker.place.fault(f"this is not UTF-8: byte {error.start}; save it so")
    except OSError as error:
        checker.place.fault(f"can't be read: {error.strerror} ({path})")
    except ValueError as error:
        checker.place.fault(str(error))
    else:
        return checker.crons(text), checker.faults, text
    return {}, checker.faults, ""


def _read(path: Path) -> str:
    """Return the text of a file that may be a registry; else ValueError or OSError."""
    as_root = os.geteuid() == 0
    unsafe = writable_by_others(str(path), what="registry") if as_root else None
    if unsafe:
        raise ValueError(f"refused, because {unsafe}")
    # Without waiting: it may be a FIFO that nobody writes to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"this is not a file ({path})")
        if status.st_size > REGISTRY_BYTES:
            raise ValueError(f"must be at most {REGISTRY_BYTES >> 20} MiB")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read().decode("utf-8")
    finally:
        os.close(descriptor)


class Registry:
    """The crons in force: the last registry file that held.  Any thread may ask."""

    #: How long a request may wait for a reading, all requests together.
    PATIENCE_S = 0.5

    def __init__(
        self,
        path: Path,
        log_dir: Path,
        on_change: Callable[[Registry], None] = lambda _: None,
        kept: Optional[Path] = None,
        keeps: bool = False,
    ) -> None:
        """Read the file.  `on_change` is called in the thread that read another one.

        `kept` is the copy of the last file that held (`kept_text`): in force while
        the file has had faults since the start.  It is written only where `keeps`.
        """
        self.path = path
        self._log_dir = log_dir
        self._on_change = on_change
        self._kept, self._keeps = kept, keeps
        # Set by a reading, each as a whole; read without a lock.
        self.faults: list[str] = []
        self._crons: dict[str, Cron] = {}
        self._look: tuple[tuple[int, ...], int] = (), 0
        #: The last file that held; "" while none has since the start.
        self._text = ""
        self._reading_lock = threading.Lock()
        self._lock = threading.Lock()
        #: Set when the reading under way is over, and how long one waits for that.
        self._reading: Optional[threading.Event] = None
        self._until_s = 0.0
        self.reload()

    def crons(self) -> dict[str, Cron]:
        """Return the crons in force; a file that has changed is read first.

        Where that takes its time, those in force until then.
        """
        before, now = self._look, self._look_at_file()
        if now != before:
            self._read_in_background(wait=now[0] != before[0])
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
        if self._read_file():
            self._on_change(self)
        self._keep()

    def _read_file(self) -> bool:
        """Read the file and put what it holds in force; return whether that is new."""
        with self._reading_lock:
            look = self._look_at_file()
            crons, faults, text = _load(self.path, self._log_dir)
            if faults and not self._text:
                crons, note = self._kept_crons()
                faults = faults + note
            changed = (faults or crons) != (self.faults or self._crons)
            if not faults or not self._text:
                self._crons = crons
            self._text = self._text if faults else text
            self.faults = faults
            self._look = look
        return changed

    def _keep(self) -> None:
        with self._reading_lock:  # so that the copy is never older than another one
            if self._text and self._kept and self._keeps:
                keep_text(self._kept, self.path, self._text)

    def _kept_crons(self) -> tuple[dict[str, Cron], list[str]]:
        """Return the crons of the copy that was kept, and what to tell of it.

        It held once: what does not any more (its user is gone) keeps no other away.
        """
        kept = kept_text(self._kept, self.path) if self._kept else None
        if kept is None:
            return {}, []
        text, taken_at = kept
        checker = Checker(self.path, self._log_dir)
        crons = checker.crons(text)
        if not crons:
            return {}, []
        checker.place.fault(
            "until that is corrected, its last valid version is in force (taken at "
            f"{taken_at}, crons: {len(crons)})"
        )
        return crons, checker.faults[-1:]

    def _read_in_background(self, wait: bool) -> None:
        """Have the file read in a thread of its own, and wait as long as that is quick.

        A reading that was under way may have begun before the change: once more, then.
        """
        for _ in range(2):
            with self._lock:
                joined = self._reading
                reading = joined or self._begin_reading()
                left_s = self._until_s - time.monotonic()
            if not (reading and wait and reading.wait(left_s) and joined):
                return

    def _begin_reading(self) -> Optional[threading.Event]:
        """Start the thread; None where there is no room for one: the next look does."""
        reading = self._reading = threading.Event()
        self._until_s = time.monotonic() + self.PATIENCE_S
        try:
            begin("registry", functools.partial(self._read_for, reading))
        except RuntimeError:
            self._reading = None
        return self._reading

    def _read_for(self, reading: threading.Event) -> None:
        try:
            changed = self._read_file()
            # Before `on_change`, which may ask for the crons: it must not wait for
            # itself.  And those who wait go on before the copy is written.
            with self._lock:
                self._reading = None
            if changed:
                self._on_change(self)
        finally:
            with self._lock:
                if self._reading is reading:
                    self._reading = None
            reading.set()
        self._keep()

    def _look_at_file(self) -> tuple[tuple[int, ...], int]:
        """Return what tells a changed file, and where it has a fault the second.

        A file written twice within a tick of the kernel's clock keeps its times, so
        a file that changed just now is read again at the next look.  One with a fault
        is, each second: the remedy may be a chmod of a folder, which it doesn't show.
        """
        second = int(time.monotonic()) if self.faults else 0
        try:
            status = os.stat(self.path)
        except OSError:
            return (), second
        age_s = time.time() - status.st_ctime
        told = (
            int(time.monotonic() * 1e6) if 0 <= age_s < REGISTRY_RACY_S else 0,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size,
            status.st_mode,
            status.st_uid,
        )
        return told, second


def keep_text(path: Path, registry: Path, text: str) -> None:
    """Keep the text of a registry that was taken, unless it is there already.

    The copy is whole or not there, and nobody else's to read.  A folder that can't be
    written is the history's fault to tell: here, it leaves the copy that was there.
    """
    kept = kept_text(path, registry)
    if kept and kept[0] == text:
        return
    content = {"registry": str(registry), "takenAt": now_text(), "text": text}
    with contextlib.suppress(OSError):
        fresh = f"{path}.new"  # where one may be left of a server that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)


def kept_text(path: Path, registry: Path) -> Optional[tuple[str, str]]:
    """Return the text of a registry that was kept, and when it was taken, if any."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["registry"] == str(registry):
            return str(content["text"]), str(content["takenAt"])
    return None
