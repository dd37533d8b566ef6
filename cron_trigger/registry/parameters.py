"""Parameters: what a caller may hand to a script.

Knows the keys of a definition, in JSON Schema's words, and why a value is not admitted.
Promises that every fault of a definition is noted at its place and hides no other, and
for a value a reason in words, never with a password in it, within milliseconds
(patterns.py has judged every pattern).  Made by the checker; any thread may ask.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from typing import Any, NamedTuple, Optional, Union

from cron_trigger.registry.patterns import PARAMETER_CHARS, PATTERN_CHARS, slow_fault
from cron_trigger.registry.strict_json import SURROGATE, Json, JsonObject
from cron_trigger.registry.texts import CONTROL_CHARACTER, Place, camel, shown
from cron_trigger.registry.times import epoch_of

PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
INTEGER_LIMIT = 2**63
ParameterValue = Union[str, int, float, bool]
TYPES = ("string", "integer", "number", "boolean")
FORMATS = ("date", "date-time", "password")
CHOICES = {"type": TYPES, "format": FORMATS}
NUMERIC, TEXT = ("integer", "number"), ("string",)
#: Each key with what its value is, and the types that it goes with.
DEFINITION_KEYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "type": (str, TYPES),
    "title": (str, TYPES),
    "description": (str, TYPES),
    "default": (object, TYPES),
    "enum": (list, TYPES),
    "minimum": ((int, float), NUMERIC),
    "maximum": ((int, float), NUMERIC),
    "minLength": (int, TEXT),
    "maxLength": (int, TEXT),
    "pattern": (str, TEXT),
    "format": (str, TEXT),
    "required": (bool, TYPES),
}
WORDS: dict[Any, str] = {
    str: "a text",
    list: "an array",
    int: "a whole number",
    bool: "a boolean",
}


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
        numeric = self.type in NUMERIC
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


ATTRIBUTES = {camel(name): name for name in Parameter._fields}


def read_parameter(place: Place, name: str, definition: Json) -> Optional[Parameter]:
    """Return the parameter that a definition makes, or None where it has a fault."""
    before = len(place.faults)
    if not PARAMETER_NAME.fullmatch(name):
        place.fault("a parameter's name is letters, digits, _ and -")
    if not isinstance(definition, JsonObject):
        place.expected("an object", definition)
        return None
    if "type" not in definition:
        place.at("type").fault("is required")
    given = definition.get("type")
    of_type = given if given in TYPES else None
    values = {}
    for here, key, value in place.members(definition):
        faults = len(place.faults)
        _check_key(here, key, value, of_type)
        if len(place.faults) == faults:
            values[ATTRIBUTES[key]] = value
    if of_type is None:
        return None
    if "enum" in values:
        values["enum"] = tuple(values["enum"])
    parameter = Parameter(name=name, **values)
    _check_own_values(place, parameter)
    return parameter if len(place.faults) == before else None


def _check_key(place: Place, key: str, value: Json, of_type: Optional[str]) -> None:
    """Check a key by itself, at its place."""
    if key not in DEFINITION_KEYS:
        place.unknown_key(key, DEFINITION_KEYS)
        return
    kind, types = DEFINITION_KEYS[key]
    stray_boolean = isinstance(value, bool) and kind not in (bool, object)
    if not isinstance(value, kind) or stray_boolean:
        place.expected(WORDS.get(kind, "a number"), value)
    elif of_type and of_type not in types:
        place.fault(f"does not go with the type {of_type}")
    elif key in ("minLength", "maxLength") and value < 0:
        place.fault(f"must not be negative, got {value}")
    elif key == "pattern":
        _check_pattern(place, value)
    elif key in CHOICES and value not in CHOICES[key]:
        listed = ", ".join(f'"{choice}"' for choice in CHOICES[key])
        place.expected(f"one of {listed}", value)


def _check_pattern(place: Place, value: str) -> None:
    if len(value) > PATTERN_CHARS:
        place.fault(f"must have at most {PATTERN_CHARS} characters, got {len(value)}")
        return
    try:
        slow = slow_fault(value)
    except (re.error, RecursionError, OverflowError) as error:
        slow = f"is not a regular expression: {error}"
    if slow:
        place.fault(slow)


def _check_own_values(place: Place, parameter: Parameter) -> None:
    """Check the definition's own values against its own rules."""
    if parameter.enum is not None and not parameter.enum:
        place.at("enum").fault("must list at least one value")
    own = [("enum", value) for value in parameter.enum or ()]
    if parameter.default is not None:
        own.append(("default", parameter.default))
    for key, value in own:
        fault = parameter.fault_of(value)
        if fault:
            place.at(key).fault(fault)
    for low, high in (("minimum", "maximum"), ("min_length", "max_length")):
        pair = getattr(parameter, low), getattr(parameter, high)
        if None not in pair and pair[0] > pair[1]:
            place.at(camel(low)).fault(f"{pair[0]} is above {camel(high)}")
