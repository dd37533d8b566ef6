"""What every part of a run's life stands on, made below and passed on as one."""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.registry.file import Registry
from cron_trigger.registry.settings import Settings


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
