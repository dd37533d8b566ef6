"""How often: a bound on what one client may do, and on what all of them do together.

It knows a moment for each client and promises a table that can't grow without bound.
Wrong secrets, lines of refusals in the log (web) and planned triggers (runs) are
counted so, each by a `Rates` of its own; its lock guards its table, and nothing is
called while it is held, so any thread may ask.
"""

from __future__ import annotations

import collections
import threading
import time
from typing import Callable

#: The client that stands for all of them.
ALL = "all clients"


class Rates:
    """Lets each client do a thing `burst` times at once, and then once each `every_s`.

    All clients together may do it `factor` times as often: a crowd of addresses must
    not make a bound for each of them worthless.
    """

    CLIENTS = 1024

    def __init__(
        self,
        burst: int,
        every_s: float,
        factor: int = 2,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._every_s = every_s
        self._factor = factor
        self._monotonic = monotonic
        self._lock = threading.Lock()
        #: By client, when all of its burst will be free again.  The oldest goes first.
        self._full_s: collections.OrderedDict[str, float] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._full_s)

    def take(self, client: str) -> float:
        """Count one more if it may be now and return 0; else the seconds to wait."""
        with self._lock:
            now_s = self._monotonic()
            wait_s = max(self._wait_s(client, now_s), self._wait_s(ALL, now_s))
            if not wait_s:
                self._add(client, now_s)
                self._add(ALL, now_s)
            return wait_s

    def _of(self, client: str) -> tuple[int, float]:
        """Return burst and interval: those of all are larger and shorter."""
        factor = self._factor if client == ALL else 1
        return self._burst * factor, self._every_s / factor

    def _wait_s(self, client: str, now_s: float) -> float:
        burst, every_s = self._of(client)
        free_s = self._full_s.get(client, now_s) - (burst - 1) * every_s
        wait_s = free_s - now_s
        return wait_s if wait_s > 1e-6 else 0.0  # a sum of floats is a little more

    def _add(self, client: str, now_s: float) -> None:
        _, every_s = self._of(client)
        self._full_s[client] = max(self._full_s.get(client, now_s), now_s) + every_s
        self._full_s.move_to_end(client)
        if len(self._full_s) > self.CLIENTS:
            self._full_s.popitem(last=False)
