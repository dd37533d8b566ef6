"""How much time has passed, by what the servers of a history have seen of it.

The wall clock may be set ahead by a hundred days, and a host may be off for as long; by
that alone nothing grows old.  A jump of more than a day that the boot clock has not
seen pass is noted in a small file beside the history, so that a restart knows of it,
too; what is from before a jump counts as so much younger.  Keys and pruning ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Callable, Optional

from cron_trigger.host.processes import boot_id, boot_time_s

DAY_S = 86400.0
#: Of more the oldest are forgotten: a host that is off each weekend has 52 in a year.
JUMPS_KEPT = 2000


class Clock:
    """Tells up to when something is old.  Any thread may call."""

    NAME = "clock.json"

    def __init__(
        self,
        path: Path,
        newest: Callable[[], Optional[float]],
        say: Callable[[str, str], None],
        wall: Callable[[], float] = time.time,
        boot: Callable[[], tuple[str, float]] = lambda: (boot_id(), boot_time_s()),
    ) -> None:
        """Go on with what an earlier server noted; else with the newest record."""
        self._path, self._say = path, say
        self._wall, self._boot = wall, boot
        self._lock = threading.Lock()  # for what follows, and the file
        #: The wall clock after each jump, and by how much it jumped; oldest first.
        self._jumps: list[tuple[float, float]] = []
        # What the clocks said when they were last looked at: the name of that boot, the
        # time since then, the wall clock.
        self._seen: Optional[tuple[str, float, float]] = None
        # True in the server, which prunes: the one that writes the file.
        self._keeps = False
        if not self._load() and (newest_s := newest()) is not None:
            self._seen = ("", 0.0, newest_s)

    def _load(self) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
            boot, boot_s, wall_s = content["seen"]
            self._jumps = [(float(at), float(by)) for at, by in content["jumps"]]
            self._seen = (str(boot), float(boot_s), float(wall_s))
        return self._seen is not None

    def ago(self, age_s: float, keep: bool = False) -> float:
        """Return the moment so long ago, in time that was seen; never a later one.

        With `keep`, what the clocks say is noted, here and when the history closes.
        """
        with self._lock:
            jump_s = self._look(keep)
            assert self._seen is not None
            # By the same look: the clock may be set at any moment.
            moment_s = self._before(self._seen[2] - age_s)
        if jump_s:
            self._say(
                "warning",
                f"the clock has jumped by {jump_s / DAY_S:.0f} days since the server "
                "last looked: no run becomes old by that, and none is pruned for it; "
                "unless the host was off for so long, check its date",
            )
        return moment_s

    def _look(self, keep: bool) -> float:
        self._keeps = keep or self._keeps
        now_s, (boot, boot_s) = self._wall(), self._boot()
        jump_s = self._unseen_s(now_s, boot, boot_s)
        if abs(jump_s) > DAY_S:
            self._jumps = [*self._jumps[1 - JUMPS_KEPT :], (now_s, jump_s)]
            keep = self._keeps
        else:
            jump_s = 0.0
        self._seen = (boot, boot_s, now_s)
        # Before anybody acts on it.  Killed before: the next server sees the same jump,
        # from where this one began.
        if keep:
            self._save()
        return jump_s

    def _unseen_s(self, now_s: float, boot: str, boot_s: float) -> float:
        """Return by how much the wall clock went on more than time did."""
        if self._seen is None:
            return 0.0
        seen_boot, seen_boot_s, seen_s = self._seen
        went_on_s = now_s - seen_s
        if boot == seen_boot:  # this clock nobody sets, and it goes on in sleep
            return went_on_s - (boot_s - seen_boot_s)
        return went_on_s  # nobody knows how long the host was off

    def _save(self) -> None:
        # Where it can't be written the history can't be, either, which is told.
        with contextlib.suppress(OSError):
            fresh = f"{self._path}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump({"seen": self._seen, "jumps": self._jumps}, file)
            os.replace(fresh, self._path)  # a kill leaves the old one, whole

    def _before(self, moment_s: float) -> float:
        then_s = moment_s
        for after_s, jump_s in reversed(self._jumps):
            if after_s <= then_s:
                break
            then_s -= jump_s
        # While the clock was ahead, records got later dates than those that came after
        # it was set back: a moment in between says nothing of these.
        return max(0.0, min(then_s, moment_s))

    def close(self) -> None:
        """Note when the server ended: what it saw is seen until then."""
        if self._keeps:
            self.ago(0.0, keep=True)
