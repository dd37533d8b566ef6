"""Changes: how a part below tells the parts above that something is different now.

Made first and handed down by constructor; whoever wants to hear joins when it is made
itself.  Any thread may tell, so a listener must not wait for anything.
"""

from __future__ import annotations

from typing import Any, Callable


class Changes:
    """Calls each listener with what it is called with."""

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
