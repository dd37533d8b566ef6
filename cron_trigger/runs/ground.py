"""What every part of a run's life stands on, and how it tells those above it."""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.registry.file import Registry
from cron_trigger.registry.settings import Settings


class Changes:
    """Calls each listener with what it is called with.

    Made first and handed down; whoever wants to hear joins when it is made itself.  Any
    thread may tell, so a listener must not wait for anything.
    """

    def __init__(self) -> None:
        # Without a lock: complete before the server serves.
        self._listeners: list[Callable[..., Any]] = []

    def listen(self, listener: Callable[..., Any]) -> None:
        """Have a listener called from now on; before the server serves."""
        self._listeners.append(listener)

    def __call__(self, *about: Any) -> None:
        # In the order in which they joined, in the thread that tells; one that fails
        # keeps the rest from hearing, so none may.
        for listener in self._listeners:
            listener(*about)


class Ground(NamedTuple):
    """The parts below, and how to tell of something; any thread may use them."""

    settings: Settings
    registry: Registry
    history: Store
    loop: Loop
    #: Writes a line of a level into the server's log.
    say: Callable[[str, str], None]
    #: Tells that something about a cron is different now; "": of any, plans too.
    changed: Callable[[str], Any] = lambda _cron_name: None
    clock: Callable[[], float] = time.time
