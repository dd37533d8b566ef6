"""What the crontab should have run: the next time of each schedule, and what is late.

The server starts nothing of it.  At a due time plus the cron's `late` it asks whether a
run has begun since, by whichever way, or the lock is held just now; a `flock` line that
came and went unseen can't be told.  Each missed time is one `cron.late`; after a time
without a server, one for each cron says how many there were.

One thread at a time judges, beside the loop; any may ask.  `Lateness._lock` guards the
table and is not held while the history is asked.
"""

from __future__ import annotations

import bisect
import threading
import time
from datetime import datetime
from typing import Mapping, Optional, Sequence

from cron_trigger.history.schedules import Judged
from cron_trigger.history.store import Store
from cron_trigger.host.loop import WallTimer
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.records import replace
from cron_trigger.registry.schedules import Schedule
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.runner import Runner

#: A crontab's `run` is a moment slower than its minute; cron itself may be early.
EARLY_S = 2.0
#: More missed times than these, found at once, are told as one: the host has slept.
EACH = 10
#: What is older is not judged: a clock without a battery begins in 1970.
YEAR_S = 366 * 86400.0


def next_time(schedule: Schedule, now_s: float) -> tuple[float, Optional[str]]:
    """Return the next due time, and as ISO 8601 with the host's offset."""
    due_s = schedule.next_after(now_s)
    if not due_s:
        return float("inf"), None
    return due_s, datetime.fromtimestamp(due_s).astimezone().isoformat()


def is_late(cron: Cron, judged: Mapping[str, Judged], history: Store) -> bool:
    """Return True from a missed time until a run begins."""
    known = judged.get(cron.name)
    if cron.schedule is None or known is None or known.missed_s is None:
        return False
    begun = history.last_start(cron.name)  # or, where that was pruned, its last end
    begun = begun or max(
        (row[4] or "" for row in history.totals(cron.name)), default=""
    )
    return not begun or epoch_of(begun) < known.missed_s - EARLY_S


class Lateness:
    """Watches the schedules of the registry."""

    def __init__(self, ground: Ground, runner: Runner) -> None:
        self._on = ground
        self._runner = runner
        self._lock = threading.Lock()  # to change the two below; one look needs none
        self._judged: dict[str, Judged] = {}
        self._next: dict[str, tuple[Schedule, float, float, Optional[str]]] = {}
        self._timer = WallTimer(ground.loop, lambda: ground.loop.aside(self.tick))

    # ---- asked by anybody

    def next_run_at(self, cron: Cron) -> Optional[str]:
        """Return the next time of its schedule, ISO 8601 with the host's offset."""
        return self._next_of(cron)[1]

    def _next_of(self, cron: Cron) -> tuple[float, Optional[str]]:
        """Return the next due time and its text, found once until it has passed."""
        if cron.schedule is None:
            return float("inf"), None
        now_s = self._on.clock()
        # Any thread, without the lock: an entry is replaced as a whole, and two threads
        # that find none find the same.
        known = self._next.get(cron.name)
        fits = known and known[0] is cron.schedule and known[1] <= now_s < known[2]
        if known is None or not fits:  # the clock may have been set back
            known = (cron.schedule, now_s, *next_time(cron.schedule, now_s))
            with self._lock:
                self._next[cron.name] = known
        return known[2:]

    def late(self, cron: Cron) -> bool:
        """Return True from a missed time until a run begins."""
        return is_late(cron, self._judged, self._on.history)

    # ---- beside the loop

    def start(self) -> None:
        """Judge what was due while no server ran, then each time as it comes."""
        # Without the lock: a request must not wait for the history here.
        known = self._on.history.judged()
        with self._lock:
            self._judged = known
        self.tick(at_once=True)

    def tick(self, at_once: bool = False) -> None:
        """See to what is due or overdue, and wake again for what comes next.

        Also called when the registry has changed.
        """
        zone = time.tzname, time.timezone
        time.tzset()  # /etc/localtime may be another by now
        if zone != (time.tzname, time.timezone):
            with self._lock:
                self._next.clear()  # found in the zone before
        # The table in force at this moment; a reading puts another one in its place.
        for cron in self._on.registry.crons().values():
            self._judge(cron, at_once)
        self._arm()

    def _judge(self, cron: Cron, at_once: bool) -> None:
        """Judge the times of one cron up to now; `at_once` tells of them as one."""
        schedule, now_s = cron.schedule, self._on.clock()
        if schedule is None:
            return
        # Changed by this thread alone, so it stays what it is until `_record`.
        known = self._judged.get(cron.name)
        if known is None or known.schedule != schedule.text or known.judged_s > now_s:
            # What was due before the schedule was known is not late.
            self._record(Judged(cron.name, schedule.text, now_s))
            return
        until_s = now_s - cron.late_s
        since_s = max(known.judged_s, until_s - YEAR_S)
        due = list(schedule.due_between(since_s, until_s))
        if not due:
            if since_s > known.judged_s:  # else the timer would wake for it, for ever
                self._record(replace(known, judged_s=since_s))
            return
        missed = self._missed(cron, due)
        last_missed = due[-1] if missed and missed[-1] == due[-1] else None
        judged = replace(known, judged_s=due[-1], missed_s=last_missed)
        if not missed:
            self._record(judged)
        elif at_once or len(missed) > EACH:
            self._record(judged, missed[-1], len(missed))
        else:
            # Up to each: after a kill the next server tells of what is left.
            for due_s in missed[:-1]:
                self._record(replace(judged, judged_s=due_s), due_s)
            self._record(judged, missed[-1])

    def _missed(self, cron: Cron, due: Sequence[float]) -> list[float]:
        """Return the times at which no run began soon enough."""
        # Asked `late_s` after the due time, so who records slowly has done so by now.
        begun = self._on.history.starts_since(cron.name, now_text(due[0] - EARLY_S))
        starts = sorted(map(epoch_of, begun))

        def came(due_s: float) -> bool:
            place = bisect.bisect_left(starts, due_s - EARLY_S)
            return place < len(starts) and starts[place] <= due_s + cron.late_s

        missed = [due_s for due_s in due if not came(due_s)]
        # It runs, from before its time: whoever came then was told so.
        # Asked after the history: a run that begins between the two is seen here.
        held = cron.name in {*self._runner.running(), *self._runner.external()}
        return missed[:-1] if held and missed and missed[-1] == due[-1] else missed

    def _record(
        self, judged: Judged, due_s: Optional[float] = None, count: int = 1
    ) -> None:
        with self._lock:
            # First here, then in the history: where that has a fault, the next
            # judgement goes on from here, and none is told twice by this server.
            self._judged[judged.cron_name] = judged
        name, late = judged.cron_name, None
        if due_s is not None:
            late = {"cronName": name, "dueAt": now_text(due_s), "missed": count}
            text = f"{name} did not run at {now_text(due_s)} as scheduled"
            self._on.say("warning", text + f" (missed: {count})" * (count > 1))
        # The judgement and its event in one: no kill tells it twice, or never.
        self._on.history.judge(judged, late)
        self._on.changed(name)

    def _arm(self) -> None:
        """Wake at the next due time, which shows another one, and when one is late."""
        moments, crons = [], self._on.registry.crons()
        with self._lock:  # what was due before a cron comes back is not late
            kept = {n: j for n, j in self._judged.items() if n in crons}
            self._judged = {n: j for n, j in kept.items() if crons[n].schedule}
        for cron in crons.values():
            known = self._judged.get(cron.name)
            if cron.schedule and known:
                moments.append(self._next_of(cron)[0])
                after = cron.schedule.next_after(known.judged_s)
                moments.append(after + cron.late_s if after else float("inf"))
        first = min(moments, default=float("inf"))
        self._timer.arm(first if first < float("inf") else None)
