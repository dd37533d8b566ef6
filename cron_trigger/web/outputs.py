"""Outputs: a run's own part of its cron's log as an answer, whole, in part or live.

What is promised is that nobody else's bytes are in it, also where the log was rotated
or the run ends just now.  Connections' threads call; each answer has its log open by
itself, and `places` bounds how many are followed.
"""

from __future__ import annotations

import time
from typing import Callable, Iterator, Optional

from cron_trigger.host.shortage import insist
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import Run
from cron_trigger.runs.output import RunLog
from cron_trigger.web.places import Place, Places
from cron_trigger.web.views import Known
from cron_trigger.web.wire import TEXT_TYPE, UNBUFFERED, Answer

#: How often a log that is followed is looked at, and how long its beginning may take.
FOLLOW_POLL_S, BEGIN_S = 0.02, 2.0


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

    def answer(
        self,
        run: Run,
        client: str,
        lines: Optional[int],
        first: Optional[int],
        follow: bool,
    ) -> Answer:
        """Return the output: its last `lines`, or all from the byte `first` on."""
        if run.log_inode is None and run.pid is None:
            return Answer(200, content_type=TEXT_TYPE)
        log, until_s = RunLog(run), time.monotonic() + BEGIN_S
        # Its first line comes a moment after its row.
        while log.descriptor is None and run.running and run.pid is None:
            if time.monotonic() > until_s:
                break
            time.sleep(FOLLOW_POLL_S)
            run = self._find(run.id)
            log = RunLog(run)
        if log.descriptor is None:
            raise Refusal(
                "not_found",
                f"The output of run {run.id} is no longer there: its log was rotated "
                "away, or could not be written.",
            )
        try:
            start, end = self._measured(log, lines, first or 0)
            if follow and run.running:
                return self._live(log, start, client)
        except BaseException:
            log.close()
            raise
        return Answer(
            200,
            content_type=TEXT_TYPE,
            length=end - start,
            stream=log.blocks(start, end),
            release=log.close,
        )

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

    def _live(self, log: RunLog, start: int, client: str) -> Answer:
        place = self._places.claim(
            client, "Too many logs are being followed; close one", 15
        )

        def release() -> None:
            log.close()
            self._places.give(place)

        return Answer(
            200,
            content_type=TEXT_TYPE,
            headers=UNBUFFERED,
            stream=self._followed(log, start, place),
            release=release,
            lasting=True,
        )

    def _followed(self, log: RunLog, start: int, place: Place) -> Iterator[bytes]:
        """Yield a run's output as it comes, b"" while there is none.

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
            if place.lost:  # another reader has it
                raise ConnectionError
            (active.done.wait if active else time.sleep)(FOLLOW_POLL_S)
            yield b""
