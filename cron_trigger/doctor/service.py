"""Checks of what runs: the unit, the port, what the server says, the secret.

A secret is never shown.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from typing import Iterator, Mapping, Optional

from cron_trigger import SERVICE
from cron_trigger.doctor.findings import Finding, Host, wrong
from cron_trigger.registry.settings import (
    ENVIRONMENT_FILE,
    Settings,
    environment_file,
)
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable

RESTART = f"sudo systemctl restart {SERVICE}"
#: What is wrong with a unit's property, unless it has the value.
UNIT_STATES = (
    ("ActiveState", "active", "The service is {}.", RESTART),
    (
        "UnitFileState",
        "enabled",
        "It does not start at boot.",
        f"sudo systemctl enable {SERVICE}",
    ),
    (
        "NeedDaemonReload",
        "no",
        "Its unit was changed since systemd read it.",
        f"sudo systemctl daemon-reload && {RESTART}",
    ),
)
#: Properties of the unit on which the promises rest; a drop-in may have changed them.
UNIT_NEEDS = {
    "KillMode": ("process", "a restart of the server would end the crons that run"),
    "RuntimeDirectoryPreserve": ("yes", "a restart would delete the crons' locks"),
    "Restart": ("always", "a server that died would not come back"),
    "PrivateTmp": ("no", "a restart would delete temporary files of crons that run"),
    "OOMPolicy": ("continue", "a cron that runs out of memory would end the server"),
    "User": ("root", "root's `run NAME` and `doctor` have other locks and folders"),
    # pidfd_getfd(2), by which a run is found again, is none of @system-service.
    "SystemCallFilter": ("", "a restart while a cron runs may kill the server"),
}
#: Properties that are no fault, but make a script find something else than in cron.
UNIT_SANDBOX = (
    "ProtectSystem",
    "ProtectHome",
    "PrivateDevices",
    "PrivateNetwork",
    "PrivateUsers",
    "NoNewPrivileges",
)


def service(host: Host) -> Iterator[Finding]:
    if not host.installed:
        yield Finding(
            "service",
            "note",
            "It is not installed as a service: nothing starts it at boot.",
            "sudo ./install.sh",
        )
        return
    right = Finding("service", "ok", "active, and starts at boot")
    yield from list(_unit_faults(host.unit)) or [right]


def _unit_faults(unit: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with the installed service."""
    for key, value, text, remedy in UNIT_STATES:
        if unit.get(key) != value:
            yield wrong("service", text.format(unit.get(key)), remedy)
    for key, (value, otherwise) in UNIT_NEEDS.items():
        # An older systemd does not know each of them.
        found = unit.get(key) or value
        if found != value:
            yield wrong(
                "service",
                f"Its unit has {key}={printable(found, 40)}: {otherwise}.",
                f"sudo systemctl edit {SERVICE}, and set {key}={value} there.",
            )
    for key in UNIT_SANDBOX:
        if unit.get(key, "no") != "no":
            text = f"Its unit has {key}={unit[key]}: crons inherit it, and may fail."
            yield Finding("service", "note", text)


def port(host: Host) -> Iterator[Finding]:
    number = host.settings.port
    try:
        answer = _ask(host, "/health")
    except ConnectionRefusedError:
        if host.installed and not host.guest:
            yield wrong("port", f"Nobody answers on port {number}.", RESTART)
        elif host.guest:
            text = f"Nobody answers on port {number}; the service may have another one."
            yield Finding("port", "note", text, "sudo cron-trigger doctor")
        else:
            yield Finding("port", "ok", f"{number} is free")
    except OSError as error:
        yield wrong(
            "port",
            f"The process on port {number} does not respond ({error}).",
            f"See who it is: sudo ss -ltnp 'sport = :{number}'",
        )
    else:
        yield from _health(host.settings, answer)


def _health(settings: Settings, answer: Mapping[str, Json]) -> Iterator[Finding]:
    number, registry = settings.port, settings.registry
    if answer.get("code") == "forbidden":
        yield Finding("port", "note", f"{number} admits other addresses than ours.")
    elif answer.get("success") is False and "error" in answer:  # overloaded, say
        yield wrong("health", str(answer["error"]), "See the server's log.")
    elif answer.get("service") != SERVICE:
        yield wrong(
            "port",
            f"Another program listens on port {number}.",
            f"End it (sudo ss -ltnp 'sport = :{number}' shows it), or set another "
            f"CRON_TRIGGER_PORT in {ENVIRONMENT_FILE}.",
        )
    elif answer.get("problems"):
        for problem in answer["problems"]:
            text, _, remedy = str(problem).partition(": ")
            if text == registry.name:  # the place of a fault, which follows
                text, remedy = str(problem), f"Fix {registry}."
            yield wrong("health", text, remedy or "See the server's log.")
    else:
        yield Finding("health", "ok", f"healthy on port {number}")


def _ask(host: Host, path: str) -> dict[str, Json]:
    """Return the JSON object that the server answers, or {}; OSError if none."""
    address = host.settings.host
    if address in ("0.0.0.0", "::"):
        address = "127.0.0.1"
    connection = http.client.HTTPConnection(
        address, host.settings.port, timeout=host.ASK_S
    )
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read(1 << 20))
    except (http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


def secret(host: Host) -> Iterator[Finding]:
    yield from _readable_secrets(host)
    refusal, has_one = None, host.settings.secret is not None
    # It may have one that is not ours to see.  Only then: a refusal is in its log.
    with contextlib.suppress(OSError):
        refusal = None if has_one else _ask(host, "/runs?limit=1").get("code")
    if has_one or refusal in ("unauthorized", "too_many_attempts"):
        yield Finding("secret", "ok", "every request needs it")
    elif refusal == "forbidden" or host.guest:
        text = "Whether one is set cannot be told from here."
        yield Finding("secret", "note", text)
    else:
        yield Finding(
            "secret",
            "note",
            "None is set: any program here or in a container may start a cron.",
            "sudo ./install.sh --secret",
        )


def _readable_secrets(host: Host) -> Iterator[Finding]:
    paths: list[Optional[str]] = [host.environ.get("CRON_TRIGGER_SECRET_FILE")]
    if "CRON_TRIGGER_SECRET" in environment_file():
        paths.append(str(ENVIRONMENT_FILE))
    for path in filter(None, paths):
        with contextlib.suppress(OSError):
            if os.stat(path).st_mode & 0o007:
                yield wrong(
                    "secret",
                    f"{path} may be read by others.",
                    f"sudo chmod o-rwx {path}",
                )
