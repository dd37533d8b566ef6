"""Planned triggers: each fires once, at its time, or says why not.

Called by requests, which plan and cancel, and beside the loop at a due time.  They
survive in the history; what is kept here is kept for the timer's sake.
`Schedule._lock` guards that, and is never held while anything is started; the history
is asked and written under it where a client's share must hold.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from typing import Mapping, Optional

from cron_trigger.host.loop import WallTimer
from cron_trigger.host.networks import client_of
from cron_trigger.host.rates import Rates
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import ParameterValue
from cron_trigger.registry.records import (
    CANCELLED,
    MISSED,
    PENDING,
    SKIPPED,
    Scheduled,
    Trigger,
    replace,
)
from cron_trigger.registry.texts import printable
from cron_trigger.registry.threads import begin
from cron_trigger.registry.times import duration_text, epoch_of, now_text
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.runner import Runner

#: A scheduled trigger that came due while the server was down still runs this late.
SCHEDULE_LATE_S = 3600.0
#: Pending ones of all clients, and of each.
SCHEDULED_LIMIT, SCHEDULED_SHARE = 1000, 500
#: Each stays in the history when it has ended; so a client that plans and cancels in a
#: loop may plan SCHEDULED_SHARE at once, and then one in so many seconds.
PLANNED_EVERY_S = 30.0


class Schedule:
    """The scheduled triggers: fires each at its time.

    What fires one is an SQL `update ... where status = 'pending'` in the same
    transaction as the run's row, so that no restart fires it twice, no kill loses it,
    and a cancel that comes first wins.
    """

    #: What could not be done just now is tried again after so long.
    AGAIN_S = 1.0

    def __init__(self, ground: Ground, runner: Runner) -> None:
        self._on = ground
        self._runner = runner
        self._lock = threading.Lock()  # guards the two below, and the timer
        self._pending: dict[int, Scheduled] = {}
        #: The crons whose triggers a thread fires just now.
        self._firing: set[str] = set()
        self._rates = Rates(SCHEDULED_SHARE, PLANNED_EVERY_S)
        self._timer = WallTimer(ground.loop, self._tick_aside)

    def start(self) -> None:
        """Take up what is pending; give up what came due over an hour ago.

        At start, and whenever the history can be read again.
        """
        now_s = self._on.clock()
        # One that a thread fires at this moment may come back by this into the table:
        # it is refused by SQL when it is fired again, and dropped.
        for entry in self._on.history.pending():
            if entry.due_s < now_s - SCHEDULE_LATE_S:
                late = duration_text(round((now_s - entry.due_s) * 1000))
                why = f"The server was not running at that time; it is {late} late."
                self._end(replace(entry, status=MISSED, reason=why))
            else:
                with self._lock:
                    self._pending[entry.id] = entry
        self.tick()

    def _tick_aside(self) -> None:
        # `_lock` may be held while the history is written, which the loop never awaits.
        self._on.loop.aside(self.tick)

    def tick(self) -> None:
        """See to what is due, and arm the timer for what comes next.

        Each cron's triggers are fired in a thread of their own, one after the other: a
        launch that hangs delays no other cron, no end of a run and no event.
        """
        now_s = self._on.clock()
        with self._lock:
            due = {e.cron_name for e in self._pending.values() if e.due_s <= now_s}
            # What falls due for a cron that has a thread is found by that thread.
            due -= self._firing
            # Before the threads are started: the next tick must not start a second one.
            self._firing |= due
        while due:
            name = due.pop()
            try:
                begin(f"plan {name}", functools.partial(self._fire_all, name))
            except RuntimeError:  # no memory, say: a second later there may be some
                with self._lock:
                    self._firing -= {name, *due}
                self._on.loop.call_later(self.AGAIN_S, self._tick_aside)
                return
        self._arm()

    def _arm(self) -> None:
        """Wake for the next trigger that no thread sees to already."""
        now_s = self._on.clock()
        with self._lock:
            times = [
                entry.due_s
                for entry in self._pending.values()
                # Not what has come due and has a thread: the timer would spin.
                if entry.due_s > now_s or entry.cron_name not in self._firing
            ]
            due_s = min(times, default=None)
            self._timer.arm(None if self._runner.closing else due_s)

    def _fire_all(self, cron_name: str) -> None:
        """Fire what is due of one cron, the earliest first."""
        while True:
            with self._lock:
                due = [
                    (entry.due_s, entry.id)
                    for entry in self._pending.values()
                    if entry.cron_name == cron_name and entry.due_s <= self._on.clock()
                ]
                # Under the lock: a trigger that falls due now finds us here, or gone.
                if not due or self._runner.closing:
                    self._firing.discard(cron_name)
                    break
                # A cancel from here on is decided in SQL, in the transaction that
                # begins the run.
                entry = self._pending[min(due)[1]]
            self._fire(entry)
        self._arm()

    def _fire(self, entry: Scheduled) -> None:
        request = Trigger(
            entry.cron_name,
            "schedule",
            entry.params,
            entry.requested_by,
            entry.client,
            scheduled=entry,
        )
        try:
            # Without the lock: this takes as long as the disk of the script.
            self._runner.trigger(request)
        except Refusal as refusal:
            # Still pending: the next server takes it up.
            if refusal.code == "shutting_down":
                return
            recorded = refusal.extra.get("runId") is not None
            if refusal.code == "overloaded" and not recorded:
                # Still pending: tried again in a moment, by this thread.
                return time.sleep(self.AGAIN_S)
            if refusal.code not in ("launch_failed", "overloaded") or not recorded:
                return self._end(replace(entry, status=SKIPPED, reason=refusal.message))
        except Exception as error:  # one that fails must not keep the others waiting
            why = f"The server met a fault of its own: {error!r}."
            return self._end(replace(entry, status=SKIPPED, reason=why))
        with self._lock:
            self._pending.pop(entry.id, None)
        self._on.changed(entry.cron_name)

    def _end(self, entry: Scheduled) -> None:
        with self._lock:
            self._pending.pop(entry.id, None)
        # False where a cancel, or another thread, was first: it has told so.
        if self._on.history.end_scheduled(entry):
            self._on.say(
                "warning",
                f"scheduled trigger {entry.id} of {entry.cron_name} "
                f"{entry.status}: {entry.reason}",
            )
        self._on.changed(entry.cron_name)

    def create(self, request: Trigger) -> Scheduled:
        """Plan a trigger; refusals as for a trigger, and `too_many_scheduled`."""
        self._runner.refuse_if_closing()
        try:
            cron = self._on.registry.get(request.cron_name)
            values = cron.resolve(request.params)
        except Refusal:
            known = self._replayed(request)
            if known:  # a retry gets its answer, whatever the registry has by now
                return known
            raise
        # Held from the question to the record: else a client that asks many times at
        # once would pass its share, and two equal requests would plan twice.
        with self._lock:
            known = self._replayed(request)
            if known:
                return known
            self._check(cron, request)
            key = self._runner.key_for(request)
            created = self._on.history.schedule(self._asked(cron, values, request), key)
            # After the commit; a kill in between leaves it to the next start.
            self._pending[created.id] = created
        self._arm()
        self._on.say(
            "info",
            f"scheduled trigger {created.id} of {cron.name} for "
            f"{created.run_at} (http {request.client})",
        )
        self._on.changed(cron.name)
        return created

    def _asked(
        self, cron: Cron, values: Mapping[str, ParameterValue], request: Trigger
    ) -> Scheduled:
        """Return the scheduled trigger that a request asks for; it has no id yet."""
        return Scheduled(
            0,
            cron.name,
            str(request.run_at),
            PENDING,
            cron.shown(values),
            request.requested_by,
            created_at=now_text(self._on.clock()),
            client=request.client,
        )

    def _replayed(self, request: Trigger) -> Optional[Scheduled]:
        found = self._runner.replay(request)
        return self._on.history.scheduled(found.scheduled_id or 0) if found else None

    def _check(self, cron: Cron, request: Trigger) -> None:
        if epoch_of(str(request.run_at)) <= self._on.clock():
            raise Refusal(
                "invalid_request",
                f'"runAt" must be in the future, got {request.run_at}.',
            )
        secret = next((n for n in request.params if cron.parameters[n].secret), None)
        if secret:
            raise Refusal(
                "invalid_params",
                f'"{secret}" is a password, which is never stored: a planned trigger '
                "can't have one.",
                errors={secret: "can't be kept for a planned trigger"},
            )
        self._check_share(client_of(request.client) if request.client else "nobody")

    def _check_share(self, client: str) -> None:
        """Return where a client may plan one more; else `too_many_scheduled`."""
        # The caller holds `_lock`.
        callers = [entry.client for entry in self._pending.values()]
        mine = sum(1 for caller in callers if caller and client_of(caller) == client)
        if mine >= SCHEDULED_SHARE or len(callers) >= SCHEDULED_LIMIT:
            raise Refusal(
                "too_many_scheduled",
                f"Too many planned triggers are pending (at most {SCHEDULED_SHARE} of "
                f"one client and {SCHEDULED_LIMIT} of all); cancel some or wait.",
            )
        wait_s = math.ceil(self._rates.take(client))
        if wait_s:
            raise Refusal(
                "too_many_scheduled",
                "Too many triggers were planned within a short time; try again in "
                f"{wait_s} s.",
                {"Retry-After": str(wait_s)},
            )

    def cancel(self, scheduled_id: int, by: str) -> Scheduled:
        """Cancel a pending trigger; else `not_found` or `not_pending`."""
        entry = self._on.history.scheduled(scheduled_id)
        if entry is None:
            raise Refusal("not_found", f"There is no planned trigger {scheduled_id}.")
        cancelled = replace(entry, status=CANCELLED, reason=f"Cancelled by {by}.")
        # The row may have changed since it was read: the update below decides.
        ended = entry.status != PENDING
        if ended or not self._on.history.end_scheduled(cancelled):
            raise Refusal(
                "not_pending",
                f"Planned trigger {scheduled_id} has ended already; only a pending one "
                "can be cancelled.",
            )
        with self._lock:
            # A thread that has picked it already is refused by SQL.
            self._pending.pop(scheduled_id, None)
        self._arm()
        self._on.say(
            "notice",
            f"scheduled trigger {scheduled_id} of {entry.cron_name} is cancelled by "
            f"{printable(by)}",
        )
        self._on.changed(entry.cron_name)
        return cancelled
