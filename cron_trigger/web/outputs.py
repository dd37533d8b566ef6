"""Outputs: a run's own part of its cron's log as an answer, whole, in part or live.

What is promised is that nobody else's bytes are in it, also where the log was rotated
or the run ends just now.  Connections' threads call; each answer has its log open by
itself, and `places` bounds how many are followed.
"""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Iterator, Optional

from cron_trigger.host.shortage import insist
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import Run
from cron_trigger.runs.output import RunLog
from cron_trigger.web.fields import query_flag, query_number
from cron_trigger.web.places import Place, Places
from cron_trigger.web.views import Known
from cron_trigger.web.wire import TEXT_TYPE, UNBUFFERED, Answer, Request, invalid

#: How often a log that is followed is looked at, and how long its beginning may take.
FOLLOW_POLL_S, FIRST_LINE_S = 0.02, 2.0


class Outputs:
    """Answers with what runs printed."""

    def __init__(
        self, known: Known, find: Callable[[int], Run], places: Places
    ) -> None:
        """`find` returns a run as it is now; else `not_found`."""
        self._store = known.store
        self._runner = known.runner
        self._find = find
        self._places = places

    def answer(self, request: Request) -> Answer:
        """Return the output: its last lines, or all from a byte on."""
        lines = query_number(request.query, "tail", 0, 10**9)
        first = query_number(request.query, "from", 0, INTEGER_LIMIT - 1)
        follow = query_flag(request.query, "follow")
        if lines is not None and first is not None:
            raise invalid('"tail" and "from" exclude each other; send one of them.')
        log = self._opened(request)
        run = log.run
        if run.log_inode is None and run.pid is None:
            return Answer(200, content_type=TEXT_TYPE)
        if log.descriptor is None:
            raise Refusal(
                "not_found",
                f"The output of run {run.id} is no longer there: its log was rotated "
                "away, or could not be written.",
            )
        with contextlib.ExitStack() as held:
            held.callback(log.close)
            start, end = self._measured(log, lines, first or 0)
            blocks = log.blocks(start, end)
            answer = Answer(
                200, content_type=TEXT_TYPE, length=end - start, stream=blocks
            )
            if follow and run.running:
                refused = "Too many logs are being followed; close one"
                place = self._places.claim(request.client, refused, 15)
                held.callback(place.give)
                blocks = self._followed(log, start, place, request)
                answer = answer._replace(length=None, stream=blocks, headers=UNBUFFERED)
            return answer._replace(release=held.pop_all().close)

    def _opened(self, request: Request) -> RunLog:
        until_s = time.monotonic() + FIRST_LINE_S
        while True:
            log = RunLog(run := self._find(request.id))
            # The row of a run is there a moment before its first line, then its PID.
            begins = run.running and run.pid is None and log.descriptor is None
            if not begins or time.monotonic() > until_s:
                return log
            request.waits()
            time.sleep(FOLLOW_POLL_S)

    def _measured(
        self, log: RunLog, lines: Optional[int], first: int
    ) -> tuple[int, int]:
        """Return where a run's output, or its last lines, begin and end so far."""
        end = log.end()
        # The line after the output is written once the end is recorded: where it is
        # recorded by now, that line may have been in what was measured.
        log.run = self._store.run(log.run.id) or log.run
        end = min(end, log.end())
        if lines is not None:
            return log.tail_start(end, lines), end
        return min(log.start + first, end), end

    def _followed(
        self, log: RunLog, start: int, place: Place, request: Request
    ) -> Iterator[bytes]:
        """Yield a run's output as it comes.

        The line that follows the output is written after the keeper was reaped; so
        what is in the file while the keeper is seen after is the run's own.
        """
        while True:
            active = self._runner.active(log.run.id)
            end = log.end()
            if active is None:
                log.run = self._find(log.run.id)
                end = log.end()
            elif not insist(active.alive):
                end = start
            for block in log.blocks(start, end):
                start += len(block)
                yield block
            if active is None and not log.run.running:
                return
            if place.lost or not request.stays():  # another reader has it
                raise ConnectionError
            (active.done.wait if active else time.sleep)(FOLLOW_POLL_S)
