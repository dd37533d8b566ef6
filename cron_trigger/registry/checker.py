"""The check of a whole registry: what makes an entry, and every fault by its place.

Knows each key of an entry, what its value must be, and what may not be twice among the
crons.  Promises that every fault of the file is noted at once, and that a Cron that
comes back holds.  Called by file.py, in whichever thread reads a registry; a Checker is
for one file and one thread.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from cron_trigger import SERVICE
from cron_trigger.registry.crons import CRON_NAME, NOTIFY_CHOICES, VARIABLE_NAME, Cron
from cron_trigger.registry.parameters import Parameter, read_parameter
from cron_trigger.registry.schedules import Schedule, parse_schedule
from cron_trigger.registry.strict_json import Json, JsonObject, parse_json
from cron_trigger.registry.texts import Place, printable, shown
from cron_trigger.registry.times import duration_s


class Checker:
    """Checks a registry and collects its faults, each with its place."""

    def __init__(self, path: Path, log_dir: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.place = Place(self.faults, path.name)
        self._log_dir = log_dir
        own = str(log_dir / f"{SERVICE}.log")
        self._log_owners = {os.path.normpath(own): SERVICE}

    def crons(self, text: str) -> dict[str, Cron]:
        """Return the crons that hold; `faults` says what is wrong with the others."""
        try:
            document = parse_json(text)
        except ValueError as error:
            self.place.fault(f"this is not JSON: {error}")
            return {}
        if not isinstance(document, JsonObject):
            self.place.expected("an object", document)
            return {}
        crons = {}
        for here, name, entry in self.place.members(document):
            if name == "$schema":  # for editors
                continue
            cron = self._cron(here, name, entry)
            if cron:
                crons[name] = cron
        return crons

    def _cron(self, place: Place, name: str, entry: Json) -> Optional[Cron]:
        before = len(self.faults)
        if not CRON_NAME.fullmatch(name):
            rule = "a letter or digit, then up to 63 letters, digits, dots, _ or -"
            place.fault(f"a cron's name is {rule}")
        if name == SERVICE:
            place.fault("this name is reserved for the server itself")
        if not isinstance(entry, JsonObject):
            place.expected("an object", entry)
            return None
        values = _entry_values(place, entry)
        _check_placeholders(place, values)
        self._check_log(place, name, values.get("log_file"))
        if len(self.faults) > before:
            return None
        return Cron(name=name, folder=self.path.parent, log_dir=self._log_dir, **values)

    def _check_log(self, place: Place, name: str, log_file: Optional[str]) -> None:
        # In a shared log, one run's output could not be told from another's.
        path = os.path.normpath(self._log_dir / (log_file or f"{name}.log"))
        owner = self._log_owners.setdefault(path, name)
        if owner != name:
            place.at("logFile").fault(
                f'"{printable(path)}" is the log of "{printable(owner, 80)}": give '
                "each cron its own"
            )


def _entry_values(place: Place, entry: JsonObject) -> dict[str, Any]:
    values: dict[str, Any] = {}
    members = list(place.members(entry))
    for here, key, _ in members:
        if key not in ENTRY_KEYS:
            here.unknown_key(key, ENTRY_KEYS)
    for key in ("description", "command"):
        if key not in entry:
            place.at(key).fault("is required")
    for here, key, value in members:
        if key in ENTRY_KEYS:
            attribute, reader = ENTRY_KEYS[key]
            values[attribute] = reader(here, value)
    return values


def _check_placeholders(place: Place, values: Mapping[str, Any]) -> None:
    command = values.get("command") or ()
    here = place.at("command")
    for name, parameter in (values.get("parameters") or {}).items():
        holder = f"{{{name}}}"
        if any(holder in element for element in command[:1]):
            here.fault(f"the program can't hold {holder}")
        if parameter.secret and any(holder in element for element in command):
            here.fault(f"can't hold {holder}: a password goes by environment only")


# The readers: each returns the value that an attribute has, and notes its faults.


def _text(place: Place, value: Json) -> Optional[str]:
    if not isinstance(value, str) or not value.strip():
        place.expected("a text", value)
        return None
    if "\x00" in value:
        place.fault("must not hold a NUL character")
    return value


def _path(place: Place, value: Json) -> Optional[str]:
    text = _text(place, value)
    if text:
        _refuse_tilde(place, text)
    return text


def _refuse_tilde(place: Place, path: str) -> None:
    """Note a `~`, which no shell sees here."""
    if path.startswith("~"):
        whole = printable(os.path.expanduser(path), 200)
        whole = "/home/NAME/…" if whole.startswith("~") else whole
        got = shown(path)
        place.fault(f"~ stands for no folder here: write {whole} in full, got {got}")


def _command(place: Place, value: Json) -> tuple[str, ...]:
    elements = [value] if isinstance(value, str) else value
    held = (
        isinstance(elements, list)
        and elements
        and all(isinstance(e, str) and "\x00" not in e for e in elements)
    )
    if not held or not elements[0].strip():
        place.expected(
            "a script's path or an array of texts that begins with one", value
        )
        return ()
    _refuse_tilde(place, elements[0])
    return tuple(elements)


def _log_file(place: Place, value: Json) -> Optional[str]:
    text = _path(place, value)
    if text is None or os.path.isabs(text) or text.startswith("~"):
        return text
    if "/" in text or text in (".", ".."):
        place.expected("a file name in the log folder or an absolute path", value)
    return text


def _duration(place: Place, value: Json) -> Optional[float]:
    try:
        return duration_s(value)
    except (TypeError, ValueError):
        place.expected('a duration such as "90s"', value)
        return None


def _duration_text(place: Place, value: Json) -> Optional[str]:
    return value if _duration(place, value) else None


def _user(place: Place, value: Json) -> Optional[str]:
    """Return whom the script runs as; only root can run it as somebody else."""
    name = _text(place, value)
    if name is None or "\x00" in name:
        return None
    try:
        user_id = pwd.getpwnam(name).pw_uid
    except (KeyError, UnicodeError):
        place.expected("the name of a user of this host (getent passwd)", name)
        return None
    own = os.geteuid()
    if own not in (0, user_id):
        place.fault(
            f"only root runs a script as another user, and this is user {own}, got "
            f"{shown(name)}: start the server as root, or leave the user out"
        )
    return name


def _notify(place: Place, value: Json) -> str:
    if value not in NOTIFY_CHOICES:
        place.expected('"always", "failure" or "never"', value)
    return str(value)


def _schedule(place: Place, value: Json) -> Optional[Schedule]:
    if not isinstance(value, str):
        place.expected('five fields as in a crontab, such as "30 2 * * *"', value)
        return None
    try:
        return parse_schedule(value)
    except ValueError as error:
        place.fault(str(error).replace("schedule: ", "", 1))
        return None


def _environment(place: Place, value: Json) -> dict[str, str]:
    if not isinstance(value, JsonObject):
        # Not shown, here and below: everybody may ask /health for the faults.
        place.expected("an object of texts", value, hidden=True)
        return {}
    for here, name, text in place.members(value):
        if not VARIABLE_NAME.fullmatch(name):
            here.fault("a variable's name is letters, digits and _")
        if name in ("CRON_NAME", "CRON_RUN_ID") or name.startswith(
            ("CRON_TRIGGER", "CRON_PARAM_")
        ):
            here.fault("this variable is the server's own")
        if not isinstance(text, str) or "\x00" in text:
            here.expected("a text", text, hidden=True)
    return dict(value)


def _parameters(place: Place, value: Json) -> dict[str, Parameter]:
    if not isinstance(value, JsonObject):
        place.expected("an object", value)
        return {}
    parameters: dict[str, Parameter] = {}
    variables: dict[str, str] = {}
    for here, name, definition in place.members(value):
        parameter = read_parameter(here, name, definition)
        if parameter is None:
            continue
        other = variables.setdefault(parameter.variable, name)
        if other != name:
            here.fault(f'has the same variable as "{other}"')
        parameters[name] = parameter
    return parameters


#: Each key of an entry with the attribute that it becomes and its reader.
ENTRY_KEYS: dict[str, tuple[str, Callable[[Place, Json], Any]]] = {
    "description": ("description", _text),
    "command": ("command", _command),
    "logFile": ("log_file", _log_file),
    "estimatedDuration": ("estimated_duration", _duration_text),
    "timeout": ("timeout_s", _duration),
    "killAfter": ("kill_after_s", _duration),
    "user": ("user", _user),
    "notify": ("notify", _notify),
    "schedule": ("schedule", _schedule),
    "late": ("late_s", _duration),
    "workingDirectory": ("working_directory", _path),
    "environment": ("environment", _environment),
    "parameters": ("parameters", _parameters),
}
