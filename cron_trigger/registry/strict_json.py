"""JSON, strictly: what a registry and a request's body are written in.

Knows what JSON does not say by itself: a key given twice, numbers without end, nesting
without bound, and what people write by mistake.  Promises ValueError with a sentence's
end that says where the fault is and what to do.  Pure functions, called by the
registry's checker and by the web's fields; any thread may.
"""

from __future__ import annotations

import collections
import json
import math
import re
from typing import Any, Iterable, Iterator, NoReturn, Sequence

#: Levels of JSON: a registry has five, a request three.
NESTING = 20
Json = Any
#: Made once: `json.dumps` makes an encoder for each call with options.
_written = json.JSONEncoder(ensure_ascii=False).encode
#: What Python makes of bytes that are not UTF-8, of a path say (PEP 383), or half of a
#: pair.
SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(value: Json) -> str:
    """Return a value as JSON, which can be sent and stored: see `encodable`."""
    return encodable(_written(value), "\\\\")


def encodable(text: str, backslash: str = "\\") -> str:
    """Return a text with each byte that is not UTF-8 written out, as `\\xff`."""
    if text.isascii():
        return text
    return SURROGATE.sub(lambda found: f"{backslash}x{ord(found[0]) & 0xFF:02x}", text)


class JsonObject(dict[str, Json]):
    """A JSON object that remembers what it was given twice."""

    def __init__(self, pairs: Sequence[tuple[str, Json]]) -> None:
        super().__init__(pairs)
        self.twice: list[str] = []
        #: Of each pair of `all_items`, its key's line.
        self.lines: list[int] = []
        self._pairs: Sequence[tuple[str, Json]] = ()
        if len(self) < len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            self.twice = [key for key, count in counts.items() if count > 1]
            self._pairs = pairs

    def twice_where(self, key: str) -> str:
        """Return what is wrong with a key that is given twice."""
        pairs = zip(self._pairs, self.lines)
        lines = list(dict.fromkeys(str(n) for (name, _), n in pairs if name == key))
        where = f"lines {' and '.join(lines)}" if lines[1:] else f"line {lines[0]}"
        return f"is given twice ({where}); keep one of them"

    def all_items(self) -> Iterable[tuple[str, Json]]:
        """Return keys and values in the order of the text, repeated ones, too."""
        return self._pairs or self.items()


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999
        raise ValueError(f"{text[:40]} is too large a number")
    return number


#: What the reader says, and what a person does about it.
REMEDIES = {
    "Invalid \\escape": "write \\\\ for a backslash",
    "Invalid control character": "write \\n for a new line in a text, \\t for a tab",
    "Unterminated string": "the double quote at the end of this text is missing",
    "Expecting property name": "write the name of a key in double quotes",
    "Extra data": "nothing may follow the last }",
}
#: A text; a colon follows it where that is a key.  As a choice of one character after
#: the other, `re` would take 100 bytes for each of them.
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?')
#: Made once: `json.loads` makes a decoder for each call with options.
STRICT_READER = json.JSONDecoder(
    object_pairs_hook=JsonObject, parse_float=_finite_number, parse_constant=_no_json
)


def parse_json(text: str) -> Json:
    """Return what strict JSON says: no NaN, no endless nesting; else ValueError.

    Objects come back as `JsonObject`, so that a key given twice can be refused.  A
    byte order mark, which some editors write, is no part of the text.
    """
    text = text.removeprefix("\ufeff")
    try:
        value = STRICT_READER.decode(text)
        _go_through(value, _key_lines(text), NESTING)
        # A lone surrogate ("\ud800") parses, and fails wherever it is written.
        if "\\" in text:
            _written(value).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise ValueError(_mistake(text, error)) from None
    return value


def _mistake(text: str, error: json.JSONDecodeError) -> str:
    """Return where a text ends to be JSON, and what people do about it."""
    place = error.pos
    before, rest = text[:place].rstrip(), text[place:].lstrip()
    if rest.startswith(","):  # where Python 3.13 sees a comma before an end
        before, rest = text[: place + 1], rest[1:].lstrip()
    if before.endswith(",") and rest[:1] in ("}", "]"):
        return f"take away the comma before the {rest[0]} ({_line(text, len(before))})"
    if rest.startswith(("//", "/*", "#")):
        return f"JSON has no comments; take it away ({_line(text, place + 1)})"
    if rest.startswith("'"):
        return f"""write " instead of ' ({_line(text, place + 1)})"""
    comma = before[-1:] in ('"', "}", "]", "e", "l") and rest.startswith(
        ('"', "{", "[")
    )
    if comma and error.msg != "Extra data":
        return f"a comma is missing ({_line(text, len(before))})"
    if not rest:
        ends = f"it ends too early ({_line(text, len(before))})"
        return ends if before else "it is empty; write at least {}"
    for message, remedy in REMEDIES.items():
        if error.msg.startswith(message):
            return f"{remedy} ({_line(text, place + 1)})"
    if rest[:1].isalpha() or rest[:1] in "~/.":
        return f'write a text in double quotes, as "x" ({_line(text, place + 1)})'
    return f"{error.msg[:1].lower()}{error.msg[1:]} ({_line(text, place + 1)})"


def _line(text: str, length: int) -> str:
    """Return the place of the last of `text`'s first characters, for people."""
    lines = text[:length].split("\n")
    return f"line {len(lines)}, column {len(lines[-1])}"


def _key_lines(text: str) -> Iterator[int]:
    """Yield the line of each key, in the order of the text."""
    line, place = 1, 0
    for match in STRING.finditer(text):
        if match[1]:
            line += text.count("\n", place, match.start())
            place = match.start()
            yield line


def _go_through(value: Json, lines: Iterator[int], levels: int) -> None:
    """Note the lines of all keys, in the same order, and refuse what goes too deep.

    What is nested very deeply could be read, but not be written again.
    """
    if levels == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, JsonObject):
        for _, inner in value.all_items():
            value.lines.append(next(lines))
            _go_through(inner, lines, levels - 1)
    elif isinstance(value, list):
        for inner in value:
            _go_through(inner, lines, levels - 1)
