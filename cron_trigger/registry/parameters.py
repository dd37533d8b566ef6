"""Parameters: what a caller may hand to a script.

Knows a parameter's definition and why a value is not admitted.  Promises a reason in
words, never with a password in it, within milliseconds (patterns.py has judged every
pattern).  Made by the checker; any thread may ask.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from typing import NamedTuple, Optional, Union

from cron_trigger.registry.patterns import PARAMETER_CHARS
from cron_trigger.registry.strict_json import SURROGATE, Json
from cron_trigger.registry.texts import CONTROL_CHARACTER, camel, shown
from cron_trigger.registry.times import epoch_of

PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
INTEGER_LIMIT = 2**63
ParameterValue = Union[str, int, float, bool]


class Parameter(NamedTuple):
    """One parameter of a cron, defined in JSON Schema's words."""

    name: str
    type: str
    title: Optional[str] = None
    description: Optional[str] = None
    default: Optional[ParameterValue] = None
    enum: Optional[tuple[ParameterValue, ...]] = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    min_length: Optional[int] = None
    max_length: Optional[int] = None
    pattern: Optional[str] = None
    format: Optional[str] = None
    required: bool = False

    @property
    def secret(self) -> bool:
        return self.format == "password"

    @property
    def variable(self) -> str:
        return "CRON_PARAM_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    def view(self) -> dict[str, Json]:
        """Return the definition for clients, without a password's default."""
        hidden = {"name"} | ({"default", "enum"} if self.secret else set())
        unasked = ("required", False)
        return {
            camel(key): list(value) if isinstance(value, tuple) else value
            for key, value in self._asdict().items()
            if key not in hidden and value is not None and (key, value) != unasked
        }

    def fault_of(self, value: Json) -> Optional[str]:
        """Return why `value` is not admitted, in words, or None where it is."""
        own = self._text_fault if self.type == "string" else self._bounds_fault
        return self._type_fault(value) or self._enum_fault(value) or own(value)

    def _type_fault(self, value: Json) -> Optional[str]:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        finite = number and abs(value) <= sys.float_info.max
        admitted = {
            "string": isinstance(value, str),
            "integer": finite and value == int(value) and abs(value) < INTEGER_LIMIT,
            "number": finite,
            "boolean": isinstance(value, bool),
        }[self.type]
        if admitted:
            return None
        kind = "an integer" if self.type == "integer" else f"a {self.type}"
        return f"expected {kind}, got {shown(value, self.secret)}"

    def _enum_fault(self, value: Json) -> Optional[str]:
        if self.enum is None or value in self.enum:
            return None
        choices = ", ".join(json.dumps(v, ensure_ascii=False) for v in self.enum)
        if self.secret:
            return "expected one of the listed values"
        return f"expected one of {choices}, got {shown(value, self.secret)}"

    def _bounds_fault(self, value: Json) -> Optional[str]:
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {value_text(self.minimum)}, got {shown(value)}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {value_text(self.maximum)}, got {shown(value)}"
        return None

    def _text_fault(self, value: str) -> Optional[str]:
        limits = (PARAMETER_CHARS, self.max_length)
        longest = min(limit for limit in limits if limit is not None)
        if len(value) > longest:
            return f"must have at most {longest} characters, got {len(value)}"
        if len(value) < (self.min_length or 0):
            return f"must have at least {self.min_length} characters, got {len(value)}"
        if CONTROL_CHARACTER.search(value):
            return "must not hold control characters"
        if SURROGATE.search(value):
            return "must be text in UTF-8"
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return f"must match the pattern {self.pattern}"
        admitted = self.pattern is not None or self.enum is not None
        if value.startswith("-") and not admitted:
            return 'must not begin with "-": it could be taken for an option'
        return _format_fault(self.format, value)

    def from_text(self, text: str) -> Json:
        """Return the value that `text` from a command line stands for.

        A text that is none of this type's comes back as it is, for `fault_of`.
        """
        if self.type == "boolean":
            return {"true": True, "false": False}.get(text.lower(), text)
        numeric = self.type in ("integer", "number")
        if numeric and re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
            return int(text)
        # Not all that `float` takes: "nan", "1_0" and " 1" are no numbers here.
        decimal = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
        if self.type == "number" and re.fullmatch(decimal, text, re.ASCII):
            return float(text)
        return text


def _format_fault(name: Optional[str], value: str) -> Optional[str]:
    """Return why a text is no `date` or `date-time` (RFC 3339), or None."""
    try:
        if name == "date":
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
                raise ValueError
            date.fromisoformat(value)
        if name == "date-time":
            epoch_of(value)
    except (ValueError, OverflowError):
        example = "2026-11-23" if name == "date" else "2026-11-23T10:00:00+01:00"
        return f"expected a {name} such as {example}"
    return None


def value_text(value: ParameterValue) -> str:
    """Return a parameter's value as a script gets it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
