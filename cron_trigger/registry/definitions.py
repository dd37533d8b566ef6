"""The check of a parameter's definition, in JSON Schema's words.

Knows which keys a definition may have, of which kind, and with which types.  Promises
that every fault is noted at its place, that no fault hides another, and that what comes
back as a Parameter holds: its pattern is fast, its default is admitted.  Called by the
checker; one thread at a time.
"""

from __future__ import annotations

import re
from typing import Any, Optional

from cron_trigger.registry.parameters import PARAMETER_NAME, Parameter
from cron_trigger.registry.patterns import PATTERN_CHARS, slow_fault
from cron_trigger.registry.strict_json import Json, JsonObject
from cron_trigger.registry.texts import Place, camel

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
ATTRIBUTES = {camel(name): name for name in Parameter._fields}
WORDS: dict[Any, str] = {
    str: "a text",
    list: "an array",
    int: "a whole number",
    bool: "a boolean",
}


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
