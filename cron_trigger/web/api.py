"""Api: what each route does, once its request has been let in and read.

A method's name is its route's action; it takes a request, returns an answer, or raises
the refusal that any depth below may raise.  Connections' threads call, many at once;
the parts that it asks guard themselves.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
import time
from typing import Optional

from cron_trigger.history.answers import RUNS_PAGE, RUNS_PAGE_LIMIT, Selection
from cron_trigger.registry.crons import CRON_NAME
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import INTEGER_LIMIT
from cron_trigger.registry.records import Run, Trigger
from cron_trigger.registry.strict_json import Json, json_text
from cron_trigger.registry.texts import path_text, printable, whole_number
from cron_trigger.web.events import Broadcaster, Stream
from cron_trigger.web.fields import (
    query_number,
    query_statuses,
    query_time,
    read_fields,
    read_requested_by,
    read_trigger,
)
from cron_trigger.web.metrics import metrics
from cron_trigger.web.outputs import Outputs
from cron_trigger.web.page import Page
from cron_trigger.web.places import Place, Places
from cron_trigger.web.views import Known, Views
from cron_trigger.web.wire import (
    UNBUFFERED,
    Answer,
    Body,
    Request,
    invalid,
    json_answer,
    json_body,
)

#: How long the end of a run may be waited for, and how often the client is looked at.
WAIT_S, WAIT_POLL_S, FIND_S, END_S = 60, 0.2, 0.05, 0.5
#: As large as one may be; who names none wants what comes after the newest.
LAST_EVENT_ID = 10**18 - 1
#: A page of the history ends here, lest a crowd that reads none fills the memory.
RUNS_PAGE_CHARS = 1 << 19


class Api:
    """The answers."""

    def __init__(
        self,
        known: Known,
        broadcaster: Broadcaster,
        views: Views,
        page: Page,
        streams: Places,
        followers: Places,
    ) -> None:
        self._known = known
        self._registry, self._store, self._runner, self._schedule, _ = known
        self._broadcaster = broadcaster
        self._views = views
        self._streams, self._followers = streams, followers
        self.run_log = Outputs(known, self._run, followers).answer
        self.page, self.page_file = page.index, page.file
        self.interface = page.interface
        self.health, self.crons, self.cron = views.health, views.crons, views.cron

    # ---- triggers

    def trigger(self, request: Request) -> Answer:
        trigger = read_trigger(request)
        request.waits()
        # Asked before, which tells a retry from the first one: afterwards both are
        # the same run.
        replay = {"Idempotent-Replay": "true"} if self._runner.replay(trigger) else {}
        if trigger.run_at is not None:
            planned = self._schedule.create(trigger)
            head = self._accepted(trigger, "Cron execution scheduled", None)
            more = {"scheduledId": planned.id, "runAt": planned.run_at}
            return json_answer(202, {**head, **more}, replay)
        run = self._runner.trigger(trigger)
        message = "Cron execution started in background"
        head = self._accepted(trigger, message, run.log_file)
        more = {"runId": run.id, "pid": run.pid, "startedAt": run.started_at}
        # Relative, so that it holds behind a proxy's path as well.
        headers = {"Location": f"runs/{run.id}", **replay}
        return json_answer(202, {**head, **more}, headers)

    def _accepted(
        self, trigger: Trigger, message: str, log_file: Optional[str]
    ) -> dict[str, Json]:
        """Return what answers to a trigger begin with.

        A retry is answered although its cron has left the registry: then without words.
        """
        cron = self._registry.crons().get(trigger.cron_name)
        return {
            "success": True,
            "cronName": trigger.cron_name,
            "description": cron.description if cron else None,
            "message": message,
            "logFile": log_file or (path_text(cron.log_path) if cron else None),
        }

    def scheduled(self, request: Request) -> Answer:
        entries = [*self._store.pending(), *self._store.ended_scheduled()]
        views = [entry.view() for entry in entries]
        return json_answer(200, {"success": True, "scheduled": views})

    def cancel_scheduled(self, request: Request) -> Answer:
        by = self._asked_by(request)
        entry = self._schedule.cancel(request.id, by)
        return json_answer(200, {"success": True, "scheduled": entry.view()})

    def _asked_by(self, request: Request) -> str:
        fields = read_fields(request, ("requestedBy",))
        return read_requested_by(fields) or request.address

    # ---- runs

    def runs(self, request: Request) -> Answer:
        query = request.query
        limit = query_number(query, "limit", 1, RUNS_PAGE_LIMIT) or RUNS_PAGE
        before = query_number(query, "before", 1, INTEGER_LIMIT - 1)
        statuses, cron_name = query_statuses(query), query.get("cron")
        since, until = query_time(query, "since"), query_time(query, "until")
        if cron_name is not None and not CRON_NAME.fullmatch(cron_name):
            raise invalid(
                f'"cron" must be a cron\'s name, got "{printable(cron_name, 80)}".'
            )
        self._runner.sync()
        # One more than asked for tells if there is a following page.
        asked = Selection(cron_name, statuses, before, limit + 1, since, until)
        found = self._store.run_texts(asked)
        sizes = itertools.accumulate(len(text) for _, text in found)
        fits = sum(size <= RUNS_PAGE_CHARS for size in sizes)
        page = found[: min(limit, max(1, fits))]
        following = json_text(page[-1][0] if len(found) > len(page) else None)
        listed = ", ".join(text for _, text in page)
        text = f'{{"success": true, "runs": [{listed}], "next": {following}}}'
        return Answer(200, json_body(text))

    def run(self, request: Request) -> Answer:
        wait_s = query_number(request.query, "wait", 0, WAIT_S) or 0
        run = self._run(request.id)
        if wait_s and run.running:
            place = self._followers.claim(
                request.client, "Too many clients wait for runs to end", 1
            )
            try:
                run = self._awaited(run, request, place, time.monotonic() + wait_s)
            finally:
                place.give()
        return json_answer(200, {"success": True, "run": run.view()})

    def _awaited(self, run: Run, request: Request, place: Place, until_s: float) -> Run:
        """Return a run when it has ended, or as it is when nobody can wait longer."""
        while run.running and request.stays() and not place.lost:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                break
            active = self._runner.active(run.id)
            if active:
                active.done.wait(min(left_s, WAIT_POLL_S))
            else:
                time.sleep(FIND_S)  # somebody else's, which is found in a moment
            with contextlib.suppress(Refusal):  # it was pruned meanwhile
                run = self._run(run.id)
        return run

    def _run(self, run_id: int) -> Run:
        """Return a run as it is now; else `not_found`."""
        active = self._runner.active(run_id)
        # An event may have told its end already, which is complete in moments.
        if active and active.ending and active.done.wait(END_S):
            active = None
        run = active.run if active else self._store.run(run_id)
        if run and run.running and active is None:
            self._runner.sync()  # the crontab began it, and its message is on the way
            run = self._store.run(run_id)
        if run is None:
            raise Refusal("not_found", f"There is no run {run_id}.")
        return run

    def cancel_run(self, request: Request) -> Answer:
        by = self._asked_by(request)
        run = self._runner.cancel(request.id, by)
        return json_answer(202, {"success": True, "run": run.view()})

    # ---- streams and figures

    def events(self, request: Request) -> Answer:
        self._runner.refuse_if_closing()
        query = request.query.get("lastEventId", str(LAST_EVENT_ID))
        text = request.headers.get("last-event-id", query)
        last = whole_number(text, 0, LAST_EVENT_ID)
        if last is None:
            raise invalid("Last-Event-ID must be a whole number of up to 18 digits.")
        # Whoever reads nothing can't be told from one to whom nothing was sent; so the
        # oldest of the greediest client goes, once it has had its place for a while.
        refused = "Too many event streams are open; close one"
        place = self._streams.claim(request.client, refused, 15)
        # From before the answer begins: its client may already rely on it.
        position = min(last, self._store.last_event_id())

        def hand_over(connection: socket.socket) -> None:
            stream = Stream(connection, place, chunked=not request.old)
            self._broadcaster.join(stream, position)

        return Answer(
            200,
            Body(b"retry: 2000\n\n"),
            "text/event-stream; charset=utf-8",
            UNBUFFERED,
            hand_over=hand_over,
            release=functools.partial(self._broadcaster.release, place),
        )

    def metrics(self, request: Request) -> Answer:
        text = metrics(self._known, self._views)
        body = Body(text.encode())
        return Answer(200, body, "text/plain; version=0.0.4; charset=utf-8")
