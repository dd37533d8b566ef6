"""Texts for people and logs: made safe, short, and in one spelling.

Knows how a foreign text is shown on one line, how a refused value is, which names look
alike, what a signal is called, and which digits are a number.  Promises never to raise
and never to send a control character on.  Pure functions, called from every room.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import urllib.parse
from typing import Iterable, Iterator, Optional

from cron_trigger.registry.strict_json import SURROGATE, Json, JsonObject

CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
#: What ends a line, or turns the order of what follows, in some programs' eyes.
LINE_CONTROL = re.compile("[\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FILE_URL = "file://"


#: Exit statuses above 128 that programs do not end with by themselves.
SIGNAL_STATUSES = (*range(132, 138), 139, 143, 152, 159)


def signal_name(exit_code: Optional[int]) -> Optional[str]:
    """Return the signal that a shell's exit status (128 + number) surely stands for.

    `git config` exits with 129, others with 130 or 141: those prove nothing.
    """
    if exit_code is None or exit_code not in SIGNAL_STATUSES:
        return None
    return signal.Signals(exit_code - 128).name


def printable(text: str, limit: int = 500) -> str:
    """Return `text` on one line, safe for a log or terminal: CWE-117, CWE-150."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut
    )


def path_text(path: str) -> str:
    """Return a path as text; one that is not UTF-8 as a `file:` URL (RFC 8089).

    An absolute path begins with a slash, so `path_of` knows which of the two it has.
    """
    if not SURROGATE.search(path):
        return path
    return FILE_URL + urllib.parse.quote_from_bytes(os.fsencode(path))


def path_of(text: str) -> str:
    """Return the path that `path_text` has made a text of."""
    if not text.startswith(FILE_URL):
        return text
    return os.fsdecode(urllib.parse.unquote_to_bytes(text[len(FILE_URL) :]))


def whole_number(text: str, low: int, high: int) -> Optional[int]:
    """Return the number that decimal digits stand for, None where it is out of bounds.

    No sign, no blanks, no other script's digits, all of which `int` takes; and at most
    19 of them, since `int` takes the longer the more it gets (CVE-2020-10735).
    """
    if not re.fullmatch(r"[0-9]{1,19}", text):
        return None
    number = int(text)
    return number if low <= number <= high else None


def shown(value: Json, secret: bool = False) -> str:
    """Return a refused value for a message, short, and never a password."""
    if secret:
        return "another value"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


@functools.cache
def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def nearest(word: str, known: Iterable[str]) -> Optional[str]:
    """Return the known name that `word` probably means, None without a likely one."""
    try:
        import difflib  # a misspelt name is rare, and the import takes a millisecond
    except ImportError:  # an upgrade of the host has removed our Python
        return None
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:80].lower(), by_lower, 1, 0.7)
    return by_lower[found[0]] if found else None


class Place:
    """Where in a registry something stands, and where its faults go to.

    A fault is a sentence that begins with its place, on one line, without a password.
    """

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
