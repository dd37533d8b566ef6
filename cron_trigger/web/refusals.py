"""Refusals in the log: each with its address and reason, as long as that is no flood.

What is promised is that the log grows by a bounded amount, whoever is refused how
often, and says how many lines it left out.  Connections' threads and the accepting
thread call; the lock guards the count.
"""

from __future__ import annotations

import threading
from typing import Callable

from cron_trigger.host.rates import Rates
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.texts import printable


class RefusalLog:
    """Writes refusals into the server's log."""

    def __init__(self, say: Callable[[str, str], None], rates: Rates) -> None:
        self._say = say
        self._rates = rates
        self._lock = threading.Lock()
        self._left_out = 0

    def add(self, address: str, client: str, what: str, refusal: Refusal) -> None:
        with self._lock:
            if self._rates.take(client):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if left_out:
            self._say("warning", f"{left_out} more requests were refused before this")
        self._say(
            "warning",
            f"refused {printable(what, 200)} from {address}: "
            f"{refusal.status} {refusal.code}: {printable(refusal.message, 400)}",
        )
