"""Events: what happens, sent to every client of `/events` as it happens.

Beside the loop, events are read and sent to all streams, and never waited for: a slow
reader fills its own backlog until it is dropped, and the loop sends the rest.  A
connection's thread sends what its client missed, then hands its socket over by `join`.
`Broadcaster._lock` guards the streams and what each has been sent; nothing that waits
for a client, or for the history, is done while it is held.
"""

from __future__ import annotations

import functools
import select
import socket
import threading
import time
from typing import Any, Callable, Optional

from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.registry.records import Event
from cron_trigger.web.places import Place
from cron_trigger.web.views import Views
from cron_trigger.web.wire import chunk

STREAM_BACKLOG_BYTES = 1 << 20


class Stream:
    """A client of `/events`: its socket, and what it did not take yet."""

    def __init__(self, connection: socket.socket, place: Place, chunked: bool) -> None:
        self.connection = connection
        self.place = place
        #: Some clients show nothing of a body without length or chunks until its end.
        self.chunked = chunked
        #: The id of the last event that was sent or queued.
        self.position = 0
        self.backlog = bytearray()
        #: What the loop watches it for.
        self.watched = 0

    def framed(self, data: bytes) -> bytes:
        """Return text as it goes over the wire."""
        return chunk(data) if self.chunked else data

    def send(self, text: bytes) -> bool:
        """Send or queue; never wait.  Return False where it is to be dropped."""
        self.backlog += self.framed(text)
        return self.flush()

    def flush(self) -> bool:
        """Send what is queued, as far as it goes; return False as `send`."""
        try:
            del self.backlog[: self.connection.send(self.backlog)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return len(self.backlog) <= STREAM_BACKLOG_BYTES

    def end(self) -> None:
        """Tell a client that nothing more comes, if it has taken all else."""
        if not self.backlog:
            self.send(b"")

    def gone(self) -> bool:
        """Return True if the client has closed, or sent what nobody asked for.

        The answer said that the connection closes after it, so no request may follow;
        one who sends without end would keep the loop, and so all runs' ends, busy.
        """
        try:
            self.connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class Broadcaster:
    """Sends each event to every stream, beside the loop, without waiting."""

    #: How often it is looked whether the registry has changed, while there are streams.
    LOOK_S = 1.0
    #: After a trigger, streams wait so long: its answer goes out before all of them
    #: are written to.
    PAUSE_S = 0.002

    def __init__(
        self,
        store: Store,
        loop: Loop,
        views: Views,
        comment_s: float,
        look: Callable[[], Any],
        listener: Optional[Callable[[Event], None]] = None,
    ) -> None:
        """`look` is called each second while there are streams, beside the loop.

        So is `listener` with each event, in their order, streams or not.
        """
        self._store = store
        self._loop = loop
        self._views = views
        self._lock = threading.Lock()
        self._streams: dict[Place, Stream] = {}
        self._listener = listener
        self._cursor = store.last_event_id()
        # Set by any thread, taken back by the loop's; one wake-up too many is harmless.
        self._pumping = False
        self._look = look
        self._comment_s = comment_s
        # Whether a tick is on its way; when the next comment is due.  Under the lock.
        self._ticking = False
        self._comment_due_s = 0.0

    def wake(self) -> None:
        """Have new events sent; from any thread, as often as one likes."""
        # Seen without the lock: who joins wakes by itself, after it was added.
        if self._pumping or not (self._streams or self._listener):
            return
        self._pumping = True
        if self._loop.is_here():
            self._loop.aside(self._pump)
        else:
            pump = functools.partial(self._loop.aside, self._pump)
            self._loop.call_later(self.PAUSE_S, pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._streams or self._listener:
            events = self._store.events_after(self._cursor)
            if not events:
                return
            for event in events:
                # Before the lock: an end's asks the history, which may hang.
                data = self.sse(event) if self._streams else b""
                with self._lock:
                    self._cursor = event.id
                    self._send(event, data)
                if self._listener:
                    self._listener(event)

    def _send(self, event: Event, data: bytes) -> None:
        for stream in list(self._streams.values()):
            if stream.position < event.id:
                stream.position = event.id
                # Without, where the first stream has joined at this moment.
                data = data or self.sse(event)
                self._keep(stream, stream.send(data))

    def sse(self, event: Event) -> bytes:
        """Return an event as the HTML standard has it (9.2.6).  JSON has no newline.

        The host is added, and to the end of a run its cron's entry as it is now, so
        that nobody need ask for it.
        """
        data = event.data[:-1]
        if event.name == "run.finished":
            run = event.run()
            entry = self._views.ended(run["cronName"], run["id"])
            data += f', "cron": {entry or "null"}'
        data += f', "host": {self._views.host}}}'
        return f"id: {event.id}\nevent: {event.name}\ndata: {data}\n\n".encode()

    def _keep(self, stream: Stream, well: bool) -> None:
        """Drop a stream that is not well; wait for room where it has a backlog."""
        if not well:
            self._streams.pop(stream.place, None)
            stream.place.give()
            self._loop.unwatch(stream.connection.fileno())
            stream.connection.close()
            return
        events = select.EPOLLIN | (select.EPOLLOUT if stream.backlog else 0)
        if events != stream.watched:
            stream.watched = events
            ready = functools.partial(self._ready, stream)
            self._loop.watch(stream.connection.fileno(), ready, events)

    def _ready(self, stream: Stream, ready: int) -> None:
        with self._lock:
            if stream.place not in self._streams:
                return
            well = not (ready & ~select.EPOLLOUT and stream.gone())
            self._keep(stream, well and stream.flush())

    def release(self, place: Place) -> None:
        """Give a place back, unless its stream has joined and counts by itself."""
        with self._lock:
            if place not in self._streams:
                place.give()

    def join(self, stream: Stream, position: int) -> None:
        """Send what came after an event's id, then take the client's socket over.

        Called in the connection's thread, which may wait for the client; only the
        last look, under the lock, makes sure that nothing falls in between.
        """
        while True:
            cursor = self._cursor
            events = self._store.events_after(position)
            if events:
                text = b"".join(map(self.sse, events))
                stream.connection.sendall(stream.framed(text))
                position = events[-1].id
                continue
            # Nothing is left between the two: the cursor was seen before the history.
            position = max(position, cursor)
            with self._lock:
                if self._cursor <= position:
                    stream.position = position
                    self._add(stream)
                    break
        self.wake()

    def _add(self, stream: Stream) -> None:
        # The caller holds `_lock`.
        stream.connection.setblocking(False)
        if not self._streams and not self._listener:
            self._cursor = stream.position
        self._streams[stream.place] = stream
        leave = functools.partial(self._push_out, stream)
        stream.place.leave = lambda: self._loop.call_soon(leave)
        sent = stream.send(b"id: %d\n: joined\n\n" % stream.position)
        # It may have been pushed out before it could be told so.
        self._keep(stream, sent and not stream.place.lost)
        if not self._ticking:
            self._ticking = True
            self._comment_due_s = time.monotonic() + self._comment_s
            self._tick_later()

    def _push_out(self, stream: Stream) -> None:
        """End a stream whose place another one has; its client may come again."""
        with self._lock:
            if stream.place in self._streams:
                stream.end()
                self._keep(stream, False)

    def _tick_later(self) -> None:
        self._loop.call_later(min(self.LOOK_S, self._comment_s), self._tick)

    def _tick(self) -> None:
        """Send a comment where one is due, and look, until there are no streams."""
        with self._lock:
            if not self._streams:
                self._ticking = False
                return
            now_s = time.monotonic()
            if now_s >= self._comment_due_s:
                self._comment_due_s = now_s + self._comment_s
                for stream in list(self._streams.values()):
                    self._keep(stream, stream.send(b":\n\n"))
        self._loop.aside(self._look)
        self._tick_later()

    def close(self) -> None:
        self._pump()  # what was recorded since the loop has stopped
        with self._lock:
            for stream in list(self._streams.values()):
                stream.end()
                self._keep(stream, False)
