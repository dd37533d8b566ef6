"""Checker."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from cron_trigger import SERVICE
from cron_trigger.registry.crons import CRON_NAME, VARIABLE_NAME, Cron
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import PARAMETER_NAME, Parameter
from cron_trigger.registry.strict_json import Json, parse_json
from cron_trigger.registry.texts import camel, printable, shown
from cron_trigger.registry.times import duration_s


class Checker:
    """Checks a registry and collects its faults, each with its place."""

    def __init__(self, path: Path, log_dir: Path) -> None:
        self.path = path
        self.faults: List[str] = []
        self._log_dir = log_dir
        own = str(log_dir / f"{SERVICE}.log")
        self._log_owners = {os.path.normpath(own): SERVICE}

    def fault(self, place: Sequence[str], what: str) -> None:
        """Note a fault: `crons.json: "index-kb": timeout: expected ...`."""
        head = [self.path.name, *place]
        self.faults.append(": ".join([*head, what]))

    def crons(self, text: str) -> Dict[str, Cron]:
        """Return the crons that hold; `faults` says what is wrong with the others."""
        try:
            document = parse_json(text)
        except ValueError as error:
            self.fault([], f"this is not JSON: {error}")
            return {}
        if not isinstance(document, dict):
            self.fault([], f"expected an object, got {shown(document)}")
            return {}
        self._twice([], document)
        crons = {}
        for name, entry in document.items():
            cron = self._cron(name, entry)
            if cron:
                crons[name] = cron
        return crons

    def _twice(self, place: Sequence[str], value: Json) -> None:
        for key in getattr(value, "twice", ()):
            shown = printable(key, 80)
            self.fault([*place, shown if place else f'"{shown}"'], "is given twice")

    def _cron(self, name: str, entry: Json) -> Optional[Cron]:
        place = [f'"{printable(name, 80)}"']
        before = len(self.faults)
        if not CRON_NAME.fullmatch(name):
            rule = "a letter or digit, then up to 63 letters, digits, dots, _ or -"
            self.fault(place, f"a cron's name is {rule}")
        if name == SERVICE:
            self.fault(place, "this name is reserved for the server itself")
        if not isinstance(entry, dict):
            self.fault(place, f"expected an object, got {shown(entry)}")
            return None
        self._twice(place, entry)
        self._keys(place, entry)
        values = {
            attribute: self._value(place, key, reader, entry[key])
            for key, (attribute, reader) in self._entry_keys().items()
            if key in entry
        }
        values["parameters"] = values.get("parameters") or {}
        self._placeholders(place, values)
        self._shared_log(name, values.get("log_file"))
        if len(self.faults) > before:
            return None
        return Cron(name=name, folder=self.path.parent, log_dir=self._log_dir, **values)

    def _keys(self, place: Sequence[str], entry: Mapping[str, Json]) -> None:
        known = self._entry_keys()
        for key in entry:
            if key not in known:
                names = ", ".join(known)
                self.fault([*place, printable(key, 80)], f"expected one of {names}")
        for key in ("description", "command"):
            if key not in entry:
                self.fault([*place, key], "is required")

    def _entry_keys(self) -> Dict[str, Tuple[str, Callable[[List[str], Json], Any]]]:
        """Return each key of an entry with its attribute and its reader."""
        return {
            "description": ("description", self._text),
            "command": ("command", self._command),
            "logFile": ("log_file", self._log_file),
            "estimatedDuration": ("estimated_duration", self._duration_text),
            "timeout": ("timeout_s", self._duration),
            "workingDirectory": ("working_directory", self._text),
            "environment": ("environment", self._environment),
            "parameters": ("parameters", self._parameters),
            "notify": ("notify", self._notify),
        }

    def _value(
        self, place: List[str], key: str, reader: Callable[..., Any], value: Json
    ) -> Any:
        return reader([*place, key], value)

    def _text(self, place: List[str], value: Json) -> Optional[str]:
        if not isinstance(value, str) or not value.strip():
            self.fault(place, f"expected a text, got {shown(value)}")
            return None
        if "\x00" in value:
            self.fault(place, "must not hold a NUL character")
        return value

    def _command(self, place: List[str], value: Json) -> Tuple[str, ...]:
        elements = [value] if isinstance(value, str) else value
        held = (
            isinstance(elements, list)
            and elements
            and all(isinstance(e, str) and "\x00" not in e for e in elements)
        )
        if not held or not elements[0].strip():
            self.fault(
                place,
                "expected a script's path or an array of texts that begins with "
                f"one, got {shown(value)}",
            )
            return ()
        return tuple(elements)

    def _log_file(self, place: List[str], value: Json) -> Optional[str]:
        text = self._text(place, value)
        if text is None or os.path.isabs(text):
            return text
        if "/" in text or text in (".", ".."):
            self.fault(
                place,
                "expected a file name in the log folder or an absolute path, "
                f"got {shown(value)}",
            )
        return text

    def _duration(self, place: List[str], value: Json) -> Optional[float]:
        try:
            return duration_s(value)
        except (TypeError, ValueError):
            self.fault(place, f'expected a duration such as "90s", got {shown(value)}')
            return None

    def _duration_text(self, place: List[str], value: Json) -> Optional[str]:
        return value if self._duration(place, value) else None

    def _notify(self, place: List[str], value: Json) -> str:
        if value not in ("always", "failure", "never"):
            choices = '"always", "failure" or "never"'
            self.fault(place, f"expected {choices}, got {shown(value)}")
        return str(value)

    def _environment(self, place: List[str], value: Json) -> Dict[str, str]:
        if not isinstance(value, dict):
            # Not shown, here and below: everybody may ask /health for the faults.
            self.fault(place, f"expected an object of texts, got {shown(value, True)}")
            return {}
        self._twice(place, value)
        for name, text in value.items():
            here = [*place, printable(name, 80)]
            if not VARIABLE_NAME.fullmatch(name):
                self.fault(here, "a variable's name is letters, digits and _")
            if name in ("CRON_NAME", "CRON_RUN_ID") or name.startswith(
                ("CRON_TRIGGER", "CRON_PARAM_")
            ):
                self.fault(here, "this variable is the server's own")
            if not isinstance(text, str) or "\x00" in text:
                self.fault(here, f"expected a text, got {shown(text, True)}")
        return dict(value)

    def _parameters(self, place: List[str], value: Json) -> Dict[str, Parameter]:
        if not isinstance(value, dict):
            self.fault(place, f"expected an object, got {shown(value)}")
            return {}
        self._twice(place, value)
        parameters: Dict[str, Parameter] = {}
        variables: Dict[str, str] = {}
        for name, definition in value.items():
            here = [*place, printable(name, 80)]
            parameter = ParameterChecker(self, here).parameter(name, definition)
            if parameter is None:
                continue
            other = variables.setdefault(parameter.variable, name)
            if other != name:
                self.fault(here, f'has the same variable as "{other}"')
            parameters[name] = parameter
        return parameters

    def _placeholders(self, place: List[str], values: Mapping[str, Any]) -> None:
        command = values.get("command") or ()
        for name, parameter in values["parameters"].items():
            holder = f"{{{name}}}"
            if any(holder in element for element in command[:1]):
                self.fault([*place, "command"], f"the program can't hold {holder}")
            if parameter.secret and any(holder in element for element in command):
                why = "a password goes by environment only"
                self.fault([*place, "command"], f"can't hold {holder}: {why}")

    def _shared_log(self, name: str, log_file: Optional[str]) -> None:
        # In a shared log, one run's output could not be told from another's.
        path = os.path.normpath(self._log_dir / (log_file or f"{name}.log"))
        owner = self._log_owners.setdefault(path, name)
        if owner != name:
            self.fault(
                [f'"{printable(name, 80)}"', "logFile"],
                f'"{printable(path)}" is the log of "{printable(owner, 80)}": give '
                "each cron its own",
            )


class ParameterChecker:
    """Checks one parameter's definition."""

    KEYS: Dict[str, Tuple[str, Any]] = {
        "type": ("type", str),
        "title": ("title", str),
        "description": ("description", str),
        "default": ("default", object),
        "enum": ("enum", list),
        "minimum": ("minimum", (int, float)),
        "maximum": ("maximum", (int, float)),
        "minLength": ("min_length", int),
        "maxLength": ("max_length", int),
        "pattern": ("pattern", str),
        "format": ("format", str),
        "required": ("required", bool),
    }
    TYPES = ("string", "integer", "number", "boolean")
    FORMATS = ("date", "date-time", "password")
    OF_TYPE = {
        "minimum": ("integer", "number"),
        "maximum": ("integer", "number"),
        "minLength": ("string",),
        "maxLength": ("string",),
        "pattern": ("string",),
        "format": ("string",),
    }
    WORDS: Dict[Any, str] = {
        str: "a text",
        list: "an array",
        int: "a whole number",
        bool: "a boolean",
    }

    def __init__(self, checker: Checker, place: List[str]) -> None:
        self._checker = checker
        self._place = place

    def parameter(self, name: str, definition: Json) -> Optional[Parameter]:
        """Return the parameter, or None where a fault was noted."""
        before = len(self._checker.faults)
        if not PARAMETER_NAME.fullmatch(name):
            self._fault([], "a parameter's name is letters, digits, _ and -")
        if not isinstance(definition, dict):
            self._fault([], f"expected an object, got {shown(definition)}")
            return None
        self._checker._twice(self._place, definition)
        of_type = definition.get("type")
        sound = {k: v for k, v in definition.items() if self._holds(k, v, of_type)}
        if "type" not in definition:
            self._fault(["type"], "is required")
        elif isinstance(definition["type"], str) and of_type not in self.TYPES:
            choices = ", ".join(f'"{t}"' for t in self.TYPES)
            self._fault(["type"], f"expected one of {choices}, got {shown(of_type)}")
        if of_type not in self.TYPES:
            return None
        parameter = self._built(name, sound)
        self._own_values(parameter)
        return parameter if len(self._checker.faults) == before else None

    def _holds(self, key: str, value: Json, of_type: Json) -> bool:
        """Check a key by itself; return False where a fault was noted."""
        before = len(self._checker.faults)
        self._key(key, value, of_type)
        return len(self._checker.faults) == before

    def _fault(self, place: List[str], what: str) -> None:
        self._checker.fault([*self._place, *place], what)

    def _key(self, key: str, value: Json, of_type: Json) -> None:
        if key not in self.KEYS:
            names = ", ".join(self.KEYS)
            self._fault([printable(key, 80)], f"expected one of {names}")
            return
        kind = self.KEYS[key][1]
        stray_boolean = isinstance(value, bool) and kind not in (bool, object)
        if not isinstance(value, kind) or stray_boolean:
            word = self.WORDS.get(kind, "a number")
            self._fault([key], f"expected {word}, got {shown(value)}")
        elif of_type in self.TYPES and of_type not in self.OF_TYPE.get(key, (of_type,)):
            self._fault([key], f"does not go with the type {of_type}")
        elif key in ("minLength", "maxLength") and value < 0:
            self._fault([key], f"must not be negative, got {value}")
        elif key == "pattern":
            self._pattern(value)
        elif key == "format" and value not in self.FORMATS:
            choices = ", ".join(f'"{f}"' for f in self.FORMATS)
            self._fault([key], f"expected one of {choices}, got {shown(value)}")

    def _pattern(self, value: str) -> None:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            self._fault(["pattern"], f"is not a regular expression: {error}")

    def _built(self, name: str, definition: Mapping[str, Json]) -> Parameter:
        values = {self.KEYS[key][0]: value for key, value in definition.items()}
        if "enum" in values:
            values["enum"] = tuple(values["enum"])
        return Parameter(name=name, **values)

    def _own_values(self, parameter: Parameter) -> None:
        """Check the definition's own values against its own rules."""
        if parameter.enum is not None and not parameter.enum:
            self._fault(["enum"], "must list at least one value")
        for value in parameter.enum or ():
            self._own_value(parameter, "enum", value)
        if parameter.default is not None:
            self._own_value(parameter, "default", parameter.default)
        for low, high in (("minimum", "maximum"), ("min_length", "max_length")):
            pair = getattr(parameter, low), getattr(parameter, high)
            if None not in pair and pair[0] > pair[1]:
                self._fault([camel(low)], f"{pair[0]} is above {camel(high)}")

    def _own_value(self, parameter: Parameter, key: str, value: Json) -> None:
        try:
            fault = parameter.fault_of(value)
        except Refusal as refusal:  # other slow patterns are being tried
            fault = refusal.message
        if fault:
            self._fault([key], fault)
