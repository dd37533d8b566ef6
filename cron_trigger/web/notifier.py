"""Notifier: the end of each run, POSTed to one URL, and never in anybody's way.

The loop's thread puts, a thread of its own takes and waits for the address; the queue
between them is bounded and guards itself.  What can't be delivered in three attempts
is logged and given up.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import queue
import socket
import threading
import time
import urllib.parse
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Callable, Mapping, Optional

from cron_trigger.host.loop import Loop
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.records import COMPLETED, Event
from cron_trigger.registry.secret import login_of
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.threads import Work, begin
from cron_trigger.registry.times import duration_text


class Notifier:
    """POSTs the end of each run to one URL, from a thread of its own."""

    def __init__(
        self,
        url: str,
        host: str,
        crons: Callable[[], Mapping[str, Cron]],
        loop: Loop,
        say: Callable[[str, str], None],
        limits: Limits,
    ) -> None:
        # Names need it, and an upgrade of the host may have removed our Python by then.
        codecs.lookup("idna")
        self._url = urllib.parse.urlsplit(url)
        self._host = host
        self._crons = crons
        self._loop = loop
        self._say = say
        self._limits = limits
        self._queue: queue.Queue[dict[str, Json]] = queue.Queue(limits.notifications)
        self._thread: Optional[Work] = None
        self._stopping = threading.Event()

    def __call__(self, event: Event) -> None:
        """Take an event; called by the loop, so it never waits."""
        if event.name not in TOLD:
            return
        key, text_of = TOLD[event.name]
        told = json.loads(event.data)[key]
        cron = self._crons().get(told["cronName"])
        wanted = cron.notify if cron else "always"
        fine = told.get("status") == COMPLETED  # a run that did not come has none
        if wanted == "never" or (wanted == "failure" and fine):
            return
        head = {"event": event.name, "host": self._host}
        self._put({**head, key: told, "text": text_of(told)})

    def _put(self, body: dict[str, Json]) -> None:
        try:
            self._queue.put_nowait(body)
        except queue.Full:
            self._say(
                "error",
                f"the notification of {_about(body)} was dropped: "
                f"{self._limits.notifications} are waiting",
            )
        if self._thread is not None:
            return
        try:  # with the first event or, if none could be, the next
            self._thread = begin("notifier", self._work)
        except RuntimeError as error:  # no memory, or too many threads
            self._say("error", f"notifications wait: {error}")

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._deliver(self._queue.get())
            self._queue.task_done()

    def _deliver(self, body: Mapping[str, Json]) -> None:
        why = ""
        for pause_s in (0.0, *self._limits.notify_pauses_s):
            if pause_s and self._stopping.wait(pause_s):
                return
            try:
                return self._post(json.dumps(body).encode())
            except (OSError, HTTPException, ValueError, MemoryError) as error:
                why = str(error) or type(error).__name__
        self._say(
            "error", f"the notification of {_about(body)} failed three times: {why}"
        )

    def _post(self, body: bytes) -> None:
        """POST once; raises OSError, HTTPException or ValueError."""
        limit_s, secure = self._limits.notify_s, self._url.scheme == "https"
        kind = HTTPSConnection if secure else HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=limit_s)
        target = urllib.parse.urlunsplit(
            ("", "", self._url.path or "/", self._url.query, "")
        )
        # The timeout above is one of each step: a byte now and then would prolong it.
        late_s = time.monotonic() + limit_s
        break_off = functools.partial(_break_off, connection)
        limit = self._loop.call_later(limit_s, break_off)
        try:
            headers = {"Content-Type": "application/json", **login_of(self._url)}
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, HTTPException):
            if time.monotonic() < late_s:
                raise
        finally:
            limit.cancel()
            connection.close()
        if time.monotonic() >= late_s:
            raise ValueError(f"it did not answer within {limit_s:g} s")
        if not 200 <= status < 300:
            raise ValueError(f"it answered {status}")

    def close(self) -> None:
        self._stopping.set()
        waiting = self._queue.unfinished_tasks
        if waiting:
            self._say("error", f"{waiting} notifications were not sent before the stop")


def _break_off(connection: HTTPConnection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _run_text(run: Mapping[str, Json]) -> str:
    mark = "✅" if run["status"] == COMPLETED else "❌"
    how = run["signal"] or f"exit {run['exitCode']}"
    if run["exitCode"] is None:
        how = run["error"] or "exit status unknown"
    elif run["durationMs"] is not None:
        how += f" after {duration_text(run['durationMs'])}"
    return f"{mark} {run['cronName']} {run['status']}: {how}"


def _late_text(late: Mapping[str, Json]) -> str:
    since = "" if late["missed"] == 1 else f" ({late['missed']} times missed)"
    return f"⏰ {late['cronName']} did not run at {late['dueAt']}{since}"


#: The events that are told: what stands in them, and how people read it.
TOLD = {"run.finished": ("run", _run_text), "cron.late": ("cron", _late_text)}


def _about(body: Mapping[str, Json]) -> str:
    return f"run {body['run']['id']}" if "run" in body else str(body["text"])
