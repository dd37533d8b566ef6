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
            full_s = {
                name: max(self._full_s.get(name, now_s), now_s) + self._every_s / factor
                for name, factor in ((client, 1), (ALL, self._factor))
            }
            # A whole burst is free again after this long, for one as for all of them.
            wait_s = max(full_s.values()) - now_s - self._burst * self._every_s
            if wait_s > 1e-6:  # a sum of floats is a little more
                return wait_s
            for name, moment_s in full_s.items():
                self._full_s[name] = moment_s
                self._full_s.move_to_end(name)
            while len(self._full_s) > self.CLIENTS:
                self._full_s.popitem(last=False)
            return 0.0
