"""How a run ends: by itself, by a cancel or its time limit, with its keeper killed.

    pidfd -> thread "ending ID": read what the keeper wrote, once -> Recorder -> events

The loop only tells that a keeper has gone; each end has a thread of its own, which may
wait for a log on a disk that hangs: nobody else's end does.  Where the script ended by
itself, no other process is looked at.  A run that is to be ended gets SIGTERM, its
whole family, SIGKILL after the cron's `killAfter`, and is recorded when nobody is left;
until then it counts as running, and its lock is held.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
import time
from typing import Callable, Iterator, Optional, Sequence

from cron_trigger.host.keeper import copy_of_lock
from cron_trigger.host.loop import is_ready
from cron_trigger.host.processes import (
    TICKS,
    Process,
    boot_time_s,
    held_still,
    process,
    send,
)
from cron_trigger.host.shortage import insist, is_shortage
from cron_trigger.registry.records import (
    CANCELLED,
    INTERRUPTED,
    TIMED_OUT,
    Run,
    replace,
)
from cron_trigger.registry.threads import Work, begin
from cron_trigger.runs.active import ActiveRun, Running
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.recorder import Recorder

#: How an end is recorded, where it is not by what the keeper has just written.
Record = Callable[[], None]


class Ending:
    """Ends runs and has their ends recorded, each once."""

    #: A family that is being ended is looked at again after so long, at least.
    LOOK_S = 0.02
    LOOK_LIMIT_S = 0.5
    #: A keeper without a script has so long to write the status and go.
    KEEPER_S = 5.0
    #: What could not be done just now is tried again after so long.
    AGAIN_S = 1.0

    def __init__(self, ground: Ground, running: Running, recorder: Recorder) -> None:
        self._on = ground
        self._running = running
        self._recorder = recorder
        self._lock = threading.Lock()  # guards the table below
        self._threads: dict[int, Work] = {}
        # Set at a stop; the threads that end families look at it.
        self._hurry = threading.Event()

    # ---- a keeper goes

    def keeper_gone(self, active: ActiveRun) -> None:
        """Have the end of a run recorded whose keeper is gone; in the loop's thread."""
        pidfd = active.pidfd
        if pidfd is not None:
            if not is_ready(pidfd):
                # A descriptor's number may be another's by now: the loop was told of it
                # before a thread closed it, and had it given anew for this run.
                return
            self._on.loop.unwatch(pidfd)
        self.go_on(active)

    def go_on(self, active: ActiveRun, record: Optional[Record] = None) -> None:
        """Bring a run to its end in a thread of its own, where it has none.

        Its keeper is gone, or its end was decided, by this process or one before it.
        """
        with self._lock:
            if active.run.id in self._threads:
                return
            work = functools.partial(self._end, active, record)
            # In the table before `_end` can take it out: that waits for `_lock`.
            try:
                self._threads[active.run.id] = begin(f"ending {active.run.id}", work)
            except RuntimeError:  # no memory, say: the next moment may have some
                again = functools.partial(self.go_on, active, record)
                self._on.loop.call_later(self.AGAIN_S, again)

    def _end(self, active: ActiveRun, record: Optional[Record]) -> None:
        """Record a run's end, once nobody is left of a family that is to be ended."""
        try:
            while not active.done.is_set():  # an end is never lost
                try:
                    self._end_now(active, record)
                except Exception as error:
                    # Without `_say`'s own faults: this thread may be the last one.
                    with contextlib.suppress(Exception):
                        why = f"run {active.run.id} can't be ended yet: {error!r}"
                        self._on.say("error", why)
                    time.sleep(self.AGAIN_S)
        finally:
            with self._lock:
                self._threads.pop(active.run.id, None)

    def _end_now(self, active: ActiveRun, record: Optional[Record]) -> None:
        if record is None and not insist(lambda: self._ended_by_itself(active)):
            self._empty(active)
        active.ending = True
        self._finish(active, record)

    def _ended_by_itself(self, active: ActiveRun) -> bool:
        """Tell whether a run has ended, with nobody to be ended before it is recorded.

        A keeper that was killed decides the end of what it has left.
        """
        with active.mutex:
            # Under the mutex: of a cancel that comes now and this end one is first.
            if active.run.end_reason is None and not active.ending:
                self._learn(active, self._on.history.run(active.run.id))
            if active.run.end_reason is None and not active.ending:
                if self._was_killed(active):
                    self._decide(active, INTERRUPTED, None)
                else:
                    active.ending = True
            return active.ending

    def learn(self, active: ActiveRun, row: Run) -> None:
        """See to an end that another process has decided: it may be killed."""
        with active.mutex:
            # Else this process has just decided it, and is about to tell the family.
            if active.run.end_reason is not None or active.ending:
                return
            self._learn(active, row)
        self.go_on(active)

    def _learn(self, active: ActiveRun, row: Optional[Run]) -> None:
        # The caller holds the mutex.
        if row is not None and row.end_reason is not None:
            # Who decided it tells the family, once.  The reason is set last: where no
            # descriptor is free for the look, all of this is done again.
            active.recall_family()
            # Before the look: whom the clean-up starts meanwhile is not to be told.
            now_s = boot_time_s()
            active.told.update(one[:2] for one in active.family.look())
            active.told_s, active.learned = now_s, True
            reason, by = row.end_reason, row.cancelled_by
            active.run = replace(active.run, end_reason=reason, cancelled_by=by)

    def _was_killed(self, active: ActiveRun) -> bool:
        """Return True where a keeper that is gone went before its script."""
        if active.written().exit_code is not None:
            return False
        if active.child is None:
            return True
        # It went by itself, but wrote nothing: it could start nothing.
        options = os.WEXITED | os.WNOWAIT
        peeked = os.waitid(os.P_PID, active.child.pid, options)
        return peeked is None or peeked.si_code != os.CLD_EXITED

    def _decide(self, active: ActiveRun, reason: str, by: Optional[str]) -> None:
        # The caller holds the mutex.  Before a signal is sent: whoever records the end,
        # this process or its successor, finds the reason there.
        if not self._on.history.set_end_reason(active.run, reason, by):
            self._learn(active, self._on.history.run(active.run.id))
        if active.run.end_reason is None:
            active.run = replace(active.run, end_reason=reason, cancelled_by=by)

    def _finish(self, active: ActiveRun, record: Optional[Record]) -> None:
        """Record an end, and let go of the lock.  Once for each run."""
        if active.done.is_set():
            return
        try:
            if record:
                record()
            else:
                written = self._recorder.end(active)
                if written.exit_code is not None:
                    self._running.recorded[active.run.cron_name] = written
        finally:
            if active.timeout:
                active.timeout.cancel()
            if active.pidfd is not None:
                self._on.loop.unwatch(active.pidfd)
            # Recorded, then unlocked, out of the table, and told: whoever finds the
            # lock free finds the end in the history, and whoever finds it taken finds
            # in the table by whom.
            active.close()
            self._running.remove(active)
            active.done.set()
            self._on.changed(active.run.cron_name)

    # ---- a run is to be ended

    def cancel(self, active: ActiveRun, by: Optional[str]) -> bool:
        """Have a run end.  Return False where its script has ended by itself.

        Raises OSError where no descriptor is free to look; nothing is decided then.
        """
        return self._stop(active, CANCELLED, by)

    def _reach_limit(self, active: ActiveRun) -> None:
        """End a run that has reached its time limit; in a thread of its own."""
        if insist(lambda: self._stop(active, TIMED_OUT, None)):
            run = active.run
            self._on.say(
                "warning",
                f"run {run.id} of {run.cron_name} has reached its time limit and is "
                "being ended",
            )

    def _stop(self, active: ActiveRun, reason: str, by: Optional[str]) -> bool:
        """Decide a run's end, and send SIGTERM; False where the script ended before."""
        # Read without the mutex, and again below under it: this saves the stop.
        if active.run.end_reason is not None:
            return not active.done.is_set()
        with self._held_script(active) as living:
            if not living:
                return False
            # The script stands still, but another cancel or the limit may have come
            # first.
            with active.mutex:
                if active.run.end_reason is not None or active.ending:
                    return not active.ending
                self._decide(active, reason, by)
            try:
                left = active.family.look()
                active.note_family()  # first: we may be killed between the two
                self._terminate(active, left)
            except OSError as error:  # then by the thread below
                if not is_shortage(error):
                    raise
        self._on.changed(active.run.cron_name)
        self.go_on(active)
        return True

    @contextlib.contextmanager
    def _held_script(self, active: ActiveRun) -> Iterator[bool]:
        """Hold the script still meanwhile; yield False where it has ended by itself.

        A keeper that has just been started may have no script yet.
        """
        deadline_s = time.monotonic() + self.KEEPER_S
        script = active.family.script()
        while script is None and time.monotonic() < deadline_s:
            if not active.alive() or active.written().exit_code is not None:
                break
            time.sleep(0.001)
            script = active.family.script()
        if script is None or not script.alive:
            yield False
            return
        # A server that is killed just now would leave it stopped for ever: its
        # successor finds this note, and has it go on.
        note = active.note("held")
        try:
            note.write_text(str(script.pid))
        except OSError as error:  # no room
            if is_shortage(error):
                raise
            yield True
            return
        active.held = script
        try:
            with held_still(script) as living:
                yield living
        finally:
            active.held = None
            note.unlink(missing_ok=True)

    def _empty(self, active: ActiveRun) -> None:
        """Return when the family is gone, and its keeper."""
        deadline_s = time.monotonic() + active.kill_after_s
        pause_s = self.LOOK_S
        lonely_s: Optional[float] = None
        said = False
        while True:
            left, kept = insist(lambda: self._look(active, deadline_s))
            now_s = time.monotonic()
            if not left and not kept:
                return
            lonely_s = (lonely_s or now_s) if not left else None
            if lonely_s is not None and now_s - lonely_s > self.KEEPER_S:
                self._kill_keeper(active)
            until_kill_s = deadline_s - now_s
            if left and until_kill_s < -self.KEEPER_S and not said:
                said = True
                self._on.say(
                    "warning",
                    f"run {active.run.id} of {active.run.cron_name} goes on: SIGKILL "
                    f"does not end its process {left[0].pid}, which is another user's "
                    "or waits for a disk",
                )
            limit_s = until_kill_s if until_kill_s > 0 else self.LOOK_LIMIT_S
            keeper = [active.run.pid] if kept and active.run.pid else []
            pids = [*keeper, *(one.pid for one in left[:16])]
            wait_for_any(pids, min(pause_s, limit_s))
            pause_s = min(pause_s * 1.5, self.LOOK_LIMIT_S)

    def _look(self, active: ActiveRun, deadline_s: float) -> tuple[list[Process], bool]:
        """Look who is left, and signal them; return them, and whether the keeper lives.

        Nobody is left only where a second look in a row says so, at which the family
        stood still: a process may be born during a look, or take turns with others
        faster than that.
        """
        left, kept = active.family.look(), active.alive()
        # At a stop the lock goes with us, where nobody else holds it.
        hurry = self._hurry.is_set() and not kept and not active.learned
        kill = time.monotonic() >= deadline_s or hurry
        if kill or not (left or kept):
            with active.family.standing_still() as left:
                # The youngest first: the end of a shell has its stopped jobs go on.
                for one in reversed(left) if kill else ():
                    send(one, signal.SIGKILL)
        active.note_family()
        if not kill:
            self._terminate(active, left)
        return left, kept

    def _terminate(self, active: ActiveRun, left: Sequence[Process]) -> None:
        """SIGTERM whoever has not got it and was there when the first one did."""
        first = active.told_s is None
        if active.told_s is None:
            active.told_s = boot_time_s()
        for one in left:
            # A start is known to a tick: one in that of the first SIGTERM may be the
            # clean-up's, which that signal has begun.
            before = first or one.began_s + 1 / TICKS <= active.told_s
            if before and one[:2] not in active.told:
                send(one, signal.SIGTERM)
                # What somebody has stopped would take notice of it never.
                one.state in "Tt" and send(one, signal.SIGCONT)
                # Last: where no descriptor was free, it is told at the next look.
                active.told.add(one[:2])

    def _kill_keeper(self, active: ActiveRun) -> None:
        keeper = insist(lambda: process(active.run.pid or 0))
        if keeper and keeper.started == active.started:
            insist(lambda: send(keeper, signal.SIGKILL))

    # ---- watching

    def watch(self, active: ActiveRun) -> None:
        """Count a run as running, and have the loop tell when its keeper goes.

        Also where no descriptor is free for that: it is tried again, and the lock that
        we hold keeps every other run of the cron out meanwhile.
        """
        # In the table before it is watched: its end takes it out.
        self._running.add(active)
        self._limit(active)
        self._open(active)

    def _open(self, active: ActiveRun) -> None:
        if active.done.is_set():
            return
        try:
            if active.pidfd is None:
                active.pidfd = os.pidfd_open(active.run.pid or 0)
            if active.lock is None:
                active.take_over(copy_of_lock(active.pidfd, active.pid_file))
        except ProcessLookupError:
            self._on.loop.call_soon(lambda: self.keeper_gone(active))
        except OSError:
            self._on.loop.call_later(self.AGAIN_S, lambda: self._open(active))
        else:
            self._on.loop.watch(active.pidfd, lambda _events: self.keeper_gone(active))

    def _limit(self, active: ActiveRun) -> None:
        """Arrange for the end of a run that takes too long, by the boot clock."""
        if active.timeout_s is None:
            return
        used_s = boot_time_s() - active.began_s if active.began_s is not None else 0.0

        def reached() -> None:
            work = functools.partial(self._reach_limit, active)
            try:
                begin(f"limit {active.run.id}", work)
            except RuntimeError:
                active.timeout = self._on.loop.call_later(self.AGAIN_S, reached)

        left_s = max(0.0, active.timeout_s - used_s)
        active.timeout = self._on.loop.call_later(left_s, reached)

    def close(self, patience_s: float = 3.0) -> None:
        """At a stop: end at once what only our own copy of a lock keeps others from.

        Nobody stands still any longer.
        """
        self._hurry.set()
        deadline_s = time.monotonic() + patience_s
        with self._lock:
            threads = dict(self._threads)
        for run_id, thread in threads.items():
            active = self._running.get(run_id)
            # None: it is recorded, and its thread lets go of what it had.
            if active is None or not (active.learned or insist(active.alive)):
                thread.join(max(0.0, deadline_s - time.monotonic()))
        for active in self._running.by_cron().values():
            while active.held and time.monotonic() < deadline_s:
                time.sleep(0.005)
            held = active.held  # by a thread that hangs with a disk
            if held:
                send(held, signal.SIGCONT)


def wait_for_any(pids: Sequence[int], timeout_s: float) -> None:
    """Wait until one of some processes has ended, or the time is over."""
    poll = select.poll()
    descriptors: list[int] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            descriptors.append(os.pidfd_open(pid))
            poll.register(descriptors[-1], select.POLLIN)
    try:
        poll.poll(max(1, round(timeout_s * 1000)))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
