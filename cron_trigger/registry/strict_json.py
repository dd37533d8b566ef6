"""JSON."""

from __future__ import annotations

import collections
import itertools
import json
import math
from typing import Any, Dict, List, NoReturn, Sequence, Tuple

#: Levels of JSON: a registry has five, a request three.
NESTING = 20
Json = Any
#: Made once: `json.dumps` makes an encoder for each call with options.
json_text = json.JSONEncoder(ensure_ascii=False).encode


class _Object(Dict[str, Json]):
    """A JSON object that remembers the keys it was given twice."""

    def __init__(self, pairs: Sequence[Tuple[str, Json]]) -> None:
        super().__init__(pairs)
        self.twice: List[str] = []
        if len(self) < len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            self.twice = [key for key, count in counts.items() if count > 1]


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999
        raise ValueError(f"{text[:40]} is too large a number")
    return number


#: Made once: `json.loads` makes a decoder for each call with options.
STRICT_READER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_finite_number, parse_constant=_no_json
)


def parse_json(text: str) -> Json:
    """Return what strict JSON says: no NaN, no endless nesting; else ValueError.

    Objects come back as `_Object`, so that a key given twice can be refused.
    """
    try:
        value = STRICT_READER.decode(text)
        _check_depth(value)
        # A lone surrogate ("\ud800") parses, and fails wherever it is written.
        if "\\" in text:
            json_text(value).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _check_depth(value: Json) -> None:
    """Refuse what is nested so deeply that it could not be written again."""
    level = [value]
    for _ in range(NESTING):
        objects = [inner.values() for inner in level if isinstance(inner, dict)]
        arrays = [inner for inner in level if isinstance(inner, list)]
        level = list(itertools.chain(*objects, *arrays))
        if not level:
            return
    raise ValueError("it is nested too deeply")
