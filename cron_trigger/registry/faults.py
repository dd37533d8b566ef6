"""Faults of a registry: each is a sentence that begins with its place.

A Place knows where in the file it is, such as `crons.json: "index-kb": timeout`, and
the list that all places of one file share.  Promises that a fault is on one line,
short, and shows no password.  Made by the checker, used by all of its readers; one
thread at a time.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Optional

from cron_trigger.registry.strict_json import Json, JsonObject
from cron_trigger.registry.texts import nearest, printable, shown


class Place:
    """Where something stands, and where its faults go to."""

    def __init__(self, faults: list[str], *names: str) -> None:
        self.faults = faults
        self._names = names

    def at(self, key: str, line: Optional[int] = None) -> Place:
        """Return the place of a key in this one; a cron's name stands in quotes.

        The line tells it from another of the same name.
        """
        name = printable(key, 80)
        name = f'"{name}"' if len(self._names) == 1 else name
        name = f"{name} (line {line})" if line else name
        return Place(self.faults, *self._names, name)

    def fault(self, what: str) -> None:
        """Note a fault: `crons.json: "index-kb": timeout: expected …`."""
        self.faults.append(": ".join([*self._names, what]))

    def expected(self, what: str, got: Json, hidden: bool = False) -> None:
        """Note that a value is not what it should be; `hidden` does not show it."""
        self.fault(f"expected {what}, got {shown(got, hidden)}")

    def unknown_key(self, key: str, known: Iterable[str]) -> None:
        """Note, at its place, a key that means nothing, with those that do."""
        names = tuple(known)
        near = nearest(key, names)
        hint = f"; did you mean {near}?" if near else ""
        self.fault(f"expected one of {', '.join(names)}{hint}")

    def members(self, value: JsonObject) -> Iterator[tuple[Place, str, Json]]:
        """Yield places, keys and values in the file's order; a key twice is a fault.

        Both of its values come, so that the first one's faults are told as well.
        """
        for key in value.twice:
            self.at(key).fault(value.twice_where(key))
        for number, (key, inner) in enumerate(value.all_items()):
            line = value.lines[number] if key in value.twice else None
            yield self.at(key, line), key, inner
