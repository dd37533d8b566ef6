"""Api."""

from __future__ import annotations

import functools
import re
import socket
import threading
from typing import Dict, Iterator, Mapping, Optional, Tuple

from cron_trigger.history.answers import RUNS_PAGE, RUNS_PAGE_LIMIT
from cron_trigger.history.store import Store
from cron_trigger.registry.crons import CRON_NAME
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.file import Registry
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import RUN_STATUSES, Run, Trigger
from cron_trigger.registry.strict_json import Json, json_text
from cron_trigger.registry.texts import printable
from cron_trigger.runs.output import RunLog
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.schedule import Schedule
from cron_trigger.web.events import Broadcaster
from cron_trigger.web.fields import (
    query_number,
    read_body,
    read_requested_by,
    read_trigger,
)
from cron_trigger.web.metrics import Metrics
from cron_trigger.web.page import Page
from cron_trigger.web.views import Views
from cron_trigger.web.wire import TEXT_TYPE, Answer, Request, json_answer

FOLLOW_POLL_S = 0.02
FOLLOW_LIMIT = 32


class Api:
    """What each route does.  A method's name is its route's action."""

    def __init__(
        self,
        port: int,
        registry: Registry,
        store: Store,
        runner: Runner,
        schedule: Schedule,
        broadcaster: Broadcaster,
        views: Views,
        page: Page,
    ) -> None:
        self.port = port
        self._registry = registry
        self._store = store
        self._runner = runner
        self._schedule = schedule
        self._broadcaster = broadcaster
        self._views = views
        self._page = page
        self._followers = threading.BoundedSemaphore(FOLLOW_LIMIT)

    def page(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return self._page.answer()

    def health(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return Answer(200, self._views.health(self.port))

    def trigger(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        trigger = read_trigger(request)
        if trigger.run_at is not None:
            planned = self._schedule.create(trigger)
            head = self._accepted(trigger, "Cron execution scheduled", None)
            more = {"scheduledId": planned.id, "runAt": planned.run_at}
            return json_answer(202, {**head, **more})
        run = self._runner.trigger(trigger)
        message = "Cron execution started in background"
        head = self._accepted(trigger, message, run.log_file)
        more = {"runId": run.id, "pid": run.pid, "startedAt": run.started_at}
        return json_answer(202, {**head, **more})

    def _accepted(
        self, trigger: Trigger, message: str, log_file: Optional[str]
    ) -> Dict[str, Json]:
        """Return what answers to a trigger begin with.

        A retry is answered although its cron has left the registry: then without words.
        """
        cron = self._registry.crons().get(trigger.cron_name)
        return {
            "success": True,
            "cronName": trigger.cron_name,
            "description": cron.description if cron else None,
            "message": message,
            "logFile": log_file or (cron.log_path if cron else None),
        }

    def crons(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        return Answer(200, self._views.crons())

    def runs(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        limit = query_number(query, "limit", 1, RUNS_PAGE_LIMIT, RUNS_PAGE) or 1
        before = query_number(query, "before", 1, INTEGER_LIMIT - 1)
        status, cron_name = query.get("status"), query.get("cron")
        if status is not None and status not in RUN_STATUSES:
            raise Refusal(
                "invalid_request",
                f'"status" must be one of {", ".join(RUN_STATUSES)}, got '
                f'"{printable(status, 40)}".',
            )
        if cron_name is not None and not CRON_NAME.fullmatch(cron_name):
            raise Refusal(
                "invalid_request",
                f'"cron" must be a cron\'s name, got "{printable(cron_name, 80)}".',
            )
        self._runner.sync()
        # One more than asked for tells if there is a following page.
        found = self._store.run_texts(cron_name, status, before, limit + 1)
        page = found[:limit]
        following = json_text(page[-1][0] if len(found) > limit else None)
        listed = ", ".join(text for _, text in page)
        body = f'{{"success": true, "runs": [{listed}], "next": {following}}}'
        return Answer(200, body.encode("utf-8", "replace"))

    def _run(self, run_id: int) -> Run:
        active = self._runner.active(run_id)
        run = active.run if active else self._store.run(run_id)
        if run and run.running and active is None:
            self._runner.sync()  # the crontab began it, and its message is on the way
            run = self._store.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        return run

    def run(self, request: Request, query: Mapping[str, str], run_id: int) -> Answer:
        return json_answer(200, {"success": True, "run": self._run(run_id).view()})

    def run_log(
        self, request: Request, query: Mapping[str, str], run_id: int
    ) -> Answer:
        lines = query_number(query, "tail", 0, 10**9)
        follow = query.get("follow", "false")
        if follow not in ("true", "false"):
            raise Refusal(
                "invalid_request",
                f'"follow" must be true or false, got "{printable(follow, 40)}".',
            )
        run = self._run(run_id)
        if run.log_inode is None and run.pid is None:
            return Answer(200, b"", TEXT_TYPE)
        log = RunLog(run)
        if log.descriptor is None:
            raise Refusal(
                "not_found",
                f"The output of run {run_id} is no longer there: its log was rotated "
                "away, or could not be written.",
            )
        return self._log_answer(log, lines, follow == "true" and run.running)

    def _measured(self, log: RunLog, lines: Optional[int]) -> Tuple[int, int]:
        """Return where a run's output, or its last lines, begin and end so far."""
        end = log.end()
        # The line after the output is written once the end is recorded: where it is
        # recorded by now, that line may have been in what was measured.
        log.run = self._store.run(log.run.id) or log.run
        end = min(end, log.end())
        return (log.start if lines is None else log.tail_start(end, lines)), end

    def _log_answer(self, log: RunLog, lines: Optional[int], follow: bool) -> Answer:
        try:
            start, end = self._measured(log, lines)
        except BaseException:
            log.close()
            raise
        if not follow:
            return Answer(
                200,
                b"",
                TEXT_TYPE,
                length=end - start,
                stream=log.blocks(start, end),
                release=log.close,
            )
        if not self._followers.acquire(blocking=False):
            log.close()
            raise Refusal(
                "overloaded",
                f"{FOLLOW_LIMIT} logs are being followed, which is the most; close one "
                "or try again later.",
                {"Retry-After": "15"},
            )

        def release() -> None:
            log.close()
            self._followers.release()

        return Answer(
            200,
            b"",
            TEXT_TYPE,
            stream=self._followed(log, start),
            release=release,
            lasting=True,
        )

    def _followed(self, log: RunLog, start: int) -> Iterator[bytes]:
        """Yield a run's output as it comes, b"" while there is none.

        The line that follows the output is written after the keeper was reaped; so
        what is in the file while the keeper is seen after is the run's own.
        """
        while True:
            active = self._runner.active(log.run.id)
            end = log.end()
            if active is None:
                log.run = self._run(log.run.id)
                end = log.end()
            elif not active.alive():
                end = start
            for block in log.blocks(start, end):
                start += len(block)
                yield block
            if active is None:
                return
            active.done.wait(FOLLOW_POLL_S)
            yield b""

    def cancel_run(
        self, request: Request, query: Mapping[str, str], run_id: int
    ) -> Answer:
        by = read_requested_by(read_body(request, ("requestedBy",)))
        run = self._runner.cancel(run_id, by or request.address)
        return json_answer(202, {"success": True, "run": run.view()})

    def scheduled(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        entries = [*self._store.pending(), *self._store.ended_scheduled()]
        views = [entry.view() for entry in entries]
        return json_answer(200, {"success": True, "scheduled": views})

    def cancel_scheduled(
        self, request: Request, query: Mapping[str, str], scheduled_id: int
    ) -> Answer:
        by = read_requested_by(read_body(request, ("requestedBy",)))
        entry = self._schedule.cancel(scheduled_id, by or request.address)
        return json_answer(200, {"success": True, "scheduled": entry.view()})

    def events(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        self._runner.refuse_if_closing()
        text = request.headers.get("last-event-id")
        if text is not None and not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise Refusal("invalid_request", "Last-Event-ID must be a whole number.")
        last = int(text) if text is not None else None

        place = self._broadcaster.reserve()

        def hand_over(connection: socket.socket) -> None:
            self._broadcaster.join(connection, last, place)

        return Answer(
            200,
            b"retry: 2000\n\n",
            "text/event-stream; charset=utf-8",
            hand_over=hand_over,
            release=functools.partial(self._broadcaster.release, place),
            lasting=True,
        )

    def metrics(self, request: Request, query: Mapping[str, str], _id: int) -> Answer:
        text = Metrics(self._registry, self._store, self._runner).text()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Answer(200, text.encode(), kind)
