"""Events."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any, Callable, Dict, List, Optional

from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import Event

STREAM_BACKLOG_BYTES = 1 << 20
STREAM_COMMENT_S = 15.0


class Stream:
    """A client of `/events`: its socket, and what it did not take yet."""

    def __init__(self, connection: socket.socket, position: int) -> None:
        self.connection = connection
        self.descriptor = connection.fileno()
        #: The id of the last event that was sent or queued.
        self.position = position
        self.backlog = bytearray()
        #: What the loop watches it for.
        self.watched = 0

    def send(self, data: bytes) -> bool:
        """Send or queue; never wait.  Return False where it is to be dropped."""
        if not self.backlog:
            try:
                data = data[self.connection.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return False
        self.backlog += data
        return len(self.backlog) <= STREAM_BACKLOG_BYTES

    def flush(self) -> bool:
        """Send what is queued, as far as it goes; return False as `send`."""
        queued, self.backlog = bytes(self.backlog), bytearray()
        return self.send(queued)

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
    """Sends each event to every stream, from the loop's thread, without waiting.

    One thread serves all streams: a hundred of them cost a hundred sockets, and a
    reader that is slow fills its own backlog until it is dropped.
    """

    LIMIT = 32
    #: How often it is looked whether the registry has changed, while there are streams.
    LOOK_S = 1.0
    #: After a trigger, streams wait so long: its answer goes out before a hundred of
    #: them are written to.
    PAUSE_S = 0.002

    def __init__(self, store: Store, loop: Loop) -> None:
        self._store = store
        self._loop = loop
        self._lock = threading.Lock()  # guards all below
        self._streams: Dict[int, Stream] = {}
        self._joining: List[object] = []  # a token for each place that is reserved
        self._listeners: List[Callable[[Event], None]] = []
        self._cursor = store.last_event_id()
        self._pumping = False
        self._commenting = False
        self._looking = False
        #: Called in the loop's thread now and then, while there are streams.
        self.look: Callable[[], Any] = lambda: None

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call with each event, in the loop's thread."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Have new events sent; from any thread, as often as one likes."""
        # Seen without the lock: who joins wakes by itself, after it was added.
        if self._pumping or not (self._streams or self._listeners):
            return
        self._pumping = True
        if self._loop.is_here():
            self._loop.call_soon(self._pump)
        else:
            self._loop.call_later(self.PAUSE_S, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if not self._streams and not self._listeners:
            return
        with self._lock:
            while True:
                events = self._store.events_after(self._cursor)
                for event in events:
                    self._cursor = event.id
                    self._send(event)
                if not events:
                    return

    def _send(self, event: Event) -> None:
        data = sse(event)
        for stream in list(self._streams.values()):
            if stream.position < event.id:
                stream.position = event.id
                self._keep(stream, stream.send(data))
        for listener in self._listeners:
            listener(event)

    def _keep(self, stream: Stream, well: bool) -> None:
        """Drop a stream that is not well; wait for room where it has a backlog."""
        if not well:
            self._streams.pop(stream.descriptor, None)
            self._loop.unwatch(stream.descriptor)
            stream.connection.close()
            return
        events = select.EPOLLIN | (select.EPOLLOUT if stream.backlog else 0)
        if events != stream.watched:
            stream.watched = events
            self._loop.watch(
                stream.descriptor, lambda ready: self._ready(stream, ready), events
            )

    def _ready(self, stream: Stream, ready: int) -> None:
        with self._lock:
            if self._streams.get(stream.descriptor) is not stream:
                return
            well = not (ready & ~select.EPOLLOUT and stream.gone())
            self._keep(stream, well and stream.flush())

    def reserve(self) -> object:
        """Take a place for one more stream, until `release`; else `overloaded`."""
        with self._lock:
            if len(self._streams) + len(self._joining) >= self.LIMIT:
                raise Refusal(
                    "overloaded",
                    f"{self.LIMIT} event streams are open, which is the most; close "
                    "one or try again later.",
                    {"Retry-After": "15"},
                )
            place = object()
            self._joining.append(place)
            return place

    def release(self, place: object) -> None:
        """Give a place back, unless its stream has joined and counts by itself."""
        with self._lock:
            if place in self._joining:
                self._joining.remove(place)

    def join(
        self, connection: socket.socket, last_event_id: Optional[int], place: object
    ) -> None:
        """Send what a client missed, then take its socket over.

        Called in the connection's thread, which may wait for the client; only the
        last look, under the lock, makes sure that nothing falls in between.
        """
        position = last_event_id
        while position is not None:
            events = self._store.events_after(position)
            if not events:
                break
            connection.sendall(b"".join(map(sse, events)))
            position = events[-1].id
        with self._lock:
            newest = self._store.last_event_id()
            position = newest if position is None else min(position, newest)
            missed = self._store.events_after(position)
            stream = Stream(connection, missed[-1].id if missed else position)
            connection.setblocking(False)
            if not self._streams and not self._listeners:
                self._cursor = stream.position
            self._streams[stream.descriptor] = stream
            self._joining.remove(place)
            self._keep(
                stream, stream.send(b": joined\n\n" + b"".join(map(sse, missed)))
            )
            self._start_comments()
            self._start_looks()
        self.wake()

    def _start_comments(self) -> None:
        if not self._commenting:
            self._commenting = True
            self._loop.call_later(STREAM_COMMENT_S, self._comment)

    def _comment(self) -> None:
        with self._lock:
            for stream in list(self._streams.values()):
                self._keep(stream, stream.send(b":\n\n"))
            self._commenting = False
            if self._streams:
                self._start_comments()

    def _start_looks(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(self.LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._streams:
            self.look()
            self._start_looks()

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            for stream in list(self._streams.values()):
                self._keep(stream, False)


def sse(event: Event) -> bytes:
    """Return an event as the HTML standard has it (9.2.6).  JSON has no newline."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n".encode()
