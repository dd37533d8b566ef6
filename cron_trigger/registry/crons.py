"""Crons: an entry of the registry that holds, and the values of one of its runs.

Knows where a cron's files are, which parameters a run of it has, and the arguments that
they make.  Promises never to change once it was read, and a Refusal that names every
wrong parameter at once.  Made by the checker, used in every room; any thread may.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Mapping, NamedTuple, Optional

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import Parameter, ParameterValue, value_text
from cron_trigger.registry.schedules import Schedule
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable

CRON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NOTIFY_CHOICES = ("always", "failure", "never")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Cron(NamedTuple):
    """An entry of the registry that holds."""

    name: str
    description: str
    command: tuple[str, ...]
    folder: Path
    log_dir: Path = Path()
    log_file: Optional[str] = None
    estimated_duration: Optional[str] = None
    timeout_s: Optional[float] = None
    #: Between SIGTERM and SIGKILL.
    kill_after_s: float = 10.0
    #: Whom the script runs as; None is the server's own user.
    user: Optional[str] = None
    #: When the crontab runs it, and how long after that a run is missed.
    schedule: Optional[Schedule] = None
    late_s: float = 300.0
    working_directory: Optional[str] = None
    environment: Mapping[str, str] = {}
    parameters: Mapping[str, Parameter] = {}
    notify: str = "always"

    @property
    def log_path(self) -> str:
        """Where this cron logs; an absolute `logFile` stays as it is."""
        return str(self.log_dir / (self.log_file or f"{self.name}.log"))

    @property
    def directory(self) -> Path:
        return self.folder / (self.working_directory or "")

    def resolve(self, given: Mapping[str, Json]) -> dict[str, ParameterValue]:
        """Return the parameters of a run, defaults filled in; else `invalid_params`.

        One that is null is as if it were not given.
        """
        given = {name: value for name, value in given.items() if value is not None}
        errors = {
            printable(name, 80): "is not a parameter of this cron"
            for name in given
            if name not in self.parameters
        }
        values: dict[str, ParameterValue] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name, parameter.default)
            if value is None:
                if parameter.required:
                    errors[name] = "is required"
                continue
            fault = parameter.fault_of(value)
            if fault:
                errors[name] = fault
            else:
                values[name] = int(value) if parameter.type == "integer" else value
        if errors:
            listed = "; ".join(f"{name} {why}" for name, why in errors.items())
            raise Refusal(
                "invalid_params",
                f'Invalid parameters for "{self.name}": {listed}.',
                errors=errors,
            )
        return values

    def shown(self, values: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        """Return the values that may be kept and shown: all but passwords."""
        return {n: v for n, v in values.items() if not self.parameters[n].secret}

    def arguments(self, values: Mapping[str, ParameterValue]) -> list[str]:
        """Return the command's elements after the first, placeholders filled in."""
        texts = {n: value_text(v) for n, v in values.items()}
        absent = {f"{{{name}}}" for name in self.parameters if name not in texts}
        return [
            self._filled(element, texts)
            for element in self.command[1:]
            if element not in absent
        ]

    def _filled(self, element: str, texts: Mapping[str, str]) -> str:
        # One pass: a value that holds "{other}" is not looked at again.
        return re.sub(
            r"\{([A-Za-z0-9_-]+)\}",
            lambda match: (
                texts.get(match[1], "") if match[1] in self.parameters else match[0]
            ),
            element,
        )
