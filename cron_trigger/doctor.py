"""Doctor."""

from __future__ import annotations

import contextlib
import http
import http.client
import http.server
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional

from cron_trigger import SERVICE
from cron_trigger.host.networks import Interface, Network, container_bridges, covers
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.file import load_registry
from cron_trigger.registry.settings import (
    ENVIRONMENT_FILE,
    Settings,
    environment_file,
    service_variables,
)
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.trust import folder_fault
from cron_trigger.runs.scripts import Scripts

#: Properties of the unit on which the promises rest; a drop-in may have changed them.
UNIT_NEEDS = {
    "KillMode": ("process", "a restart of the server would end the crons that run"),
    "RuntimeDirectoryPreserve": ("yes", "a restart would delete the crons' locks"),
    "Restart": ("always", "a server that died would not come back"),
}
SECRET_CHARS = 16
FREE_BYTES = 50 << 20


@dataclass(frozen=True)
class Finding:
    """What one look found: `ok`, a `note` worth knowing, or something `wrong`."""

    name: str
    status: str
    text: str
    remedy: str = ""


class Doctor:
    """The looks at one host.  None of them raises, whatever is broken."""

    #: How long a server has for an answer.
    ASK_S = 5.0

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ

    def findings(self) -> List[Finding]:
        """Look at everything, what the rest rests on first."""
        self._unit = unit_properties()
        self._installed = self._unit.get("LoadState") == "loaded"
        looks = (
            self._python,
            self._registry,
            self._folders,
            self._service,
            self._port,
            self._secret,
            self._containers,
        )
        return [finding for look in looks for finding in look()]

    def _python(self) -> Iterator[Finding]:
        version = ".".join(map(str, sys.version_info[:3]))
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            yield Finding(
                "python",
                "wrong",
                f"Python {version} on {os.uname().release} has no pidfd_open.",
                "Use Python 3.9 or newer on Linux 5.3 or newer.",
            )
        else:
            yield Finding("python", "ok", f"Python {version}")

    def _registry(self) -> Iterator[Finding]:
        path = self._settings.registry
        crons, faults = load_registry(path, self._settings.log_dir)
        for fault in faults:
            yield Finding("registry", "wrong", fault, f"Mend that: it is {path}.")
        unfit = list(self._unfit(crons.values()))
        yield from unfit
        if not faults and not unfit:
            yield Finding("registry", "ok", f"{len(crons)} crons in {path}")

    def _unfit(self, crons: Iterable[Cron]) -> Iterator[Finding]:
        scripts = Scripts(service_variables())
        for cron in crons:
            fault = scripts.fault(cron)
            if fault:
                yield Finding(
                    "script",
                    "wrong",
                    f"{cron.name} can't be started: {fault}.",
                    f"Mend that, or its entry in {self._settings.registry}.",
                )

    def _folders(self) -> Iterator[Finding]:
        settings = self._settings
        yield look_at_folder("logs", settings.log_dir)
        yield look_at_folder("history", settings.state_dir)
        yield look_at_folder("locks", settings.run_dir)

    def _service(self) -> Iterator[Finding]:
        if not self._installed:
            yield Finding(
                "service",
                "note",
                "It is not installed as a service: nothing starts it at boot.",
                "sudo ./install.sh",
            )
            return
        faults = list(unit_faults(self._unit))
        yield from faults
        if not faults:
            yield Finding("service", "ok", "active, and starts at boot")

    def _port(self) -> Iterator[Finding]:
        port = self._settings.port
        try:
            answer = self._ask("/health")
        except OSError as error:
            if not isinstance(error, ConnectionRefusedError):
                yield Finding(
                    "port",
                    "wrong",
                    f"Who listens on port {port} does not answer ({error}).",
                    f"See who it is: sudo ss -ltnp 'sport = :{port}'",
                )
            elif self._installed:
                yield Finding(
                    "port",
                    "wrong",
                    f"Nobody answers on port {port}.",
                    f"sudo systemctl restart {SERVICE}",
                )
            else:
                yield Finding("port", "ok", f"{port} is free")
            return
        yield from self._health(answer)

    def _health(self, answer: Mapping[str, Json]) -> Iterator[Finding]:
        port = self._settings.port
        if answer.get("code") == "forbidden":
            yield Finding("port", "note", f"{port} admits other addresses than ours.")
        elif answer.get("service") != SERVICE:
            yield Finding(
                "port",
                "wrong",
                f"Another program listens on port {port}.",
                f"End it (sudo ss -ltnp 'sport = :{port}' shows it), or set another "
                f"CRON_TRIGGER_PORT in {ENVIRONMENT_FILE}.",
            )
        elif answer.get("problems"):
            for problem in answer["problems"]:
                yield Finding("health", "wrong", str(problem), "Mend that.")
        else:
            yield Finding("health", "ok", f"healthy on port {port}")

    def _ask(self, path: str) -> Dict[str, Json]:
        """Return the JSON object that the server answers, or {}; OSError if none."""
        host = self._settings.host
        address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        port = self._settings.port
        connection = http.client.HTTPConnection(address, port, timeout=self.ASK_S)
        try:
            connection.request("GET", path)
            answer = json.loads(connection.getresponse().read(1 << 20))
        except (http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return answer if isinstance(answer, dict) else {}

    def _secret(self) -> Iterator[Finding]:
        yield from self._readable_secrets()
        secret = self._settings.secret
        if secret is not None and len(secret) < SECRET_CHARS:
            yield Finding(
                "secret",
                "wrong",
                f"It has {len(secret)} characters and could be guessed.",
                f"Make one with: openssl rand -hex 32 ({ENVIRONMENT_FILE}).",
            )
            return
        refusal = self._refusal()
        if secret is not None or refusal in ("unauthorized", "too_many_attempts"):
            yield Finding("secret", "ok", "every request needs it")
        elif refusal == "forbidden":
            text = "Whether one is set can't be told from this address."
            yield Finding("secret", "note", text)
        else:
            yield Finding(
                "secret",
                "note",
                "None is set: any program here or in a container may start a cron.",
                "sudo ./install.sh --secret",
            )

    def _refusal(self) -> Optional[str]:
        """Return the code with which the server refuses a request without a secret.

        It may have one that is not ours to see.
        """
        with contextlib.suppress(OSError):
            return self._ask("/runs?limit=1").get("code")
        return None

    def _readable_secrets(self) -> Iterator[Finding]:
        paths = [self._environ.get("CRON_TRIGGER_SECRET_FILE")]
        if "CRON_TRIGGER_SECRET" in environment_file():
            paths.append(str(ENVIRONMENT_FILE))
        for path in filter(None, paths):
            with contextlib.suppress(OSError):
                if os.stat(path).st_mode & 0o077:
                    yield Finding(
                        "secret",
                        "wrong",
                        f"{path} may be read by others.",
                        f"sudo chmod 600 {path}",
                    )

    def _containers(self) -> Iterator[Finding]:
        bridges = container_bridges()
        for name, bridge in bridges:
            fault = self._bridge_fault(bridge)
            found = f"{name}: {bridge.network} may call at {bridge.ip}"
            yield fault or Finding("containers", "ok", found)
        if bridges:
            yield Finding(
                "containers",
                "note",
                "A container's service in compose.yaml needs the line:",
                'extra_hosts: ["host.docker.internal:host-gateway"]',
            )
        else:
            text = "Docker and Podman have no bridge on this host."
            yield Finding("containers", "note", text)

    def _bridge_fault(self, bridge: Interface) -> Optional[Finding]:
        """Return what keeps a bridge's containers away, as far as a host can tell."""
        host, port, network = self._settings.host, self._settings.port, bridge.network
        if host not in ("0.0.0.0", "::", str(bridge.ip)):
            return Finding(
                "containers",
                "wrong",
                f"The server listens on {host}, but containers call {bridge.ip}.",
                f"Set CRON_TRIGGER_HOST=0.0.0.0 in {ENVIRONMENT_FILE}.",
            )
        listed = self._settings.allow
        if listed and not any(covers(allowed, network) for allowed in listed):
            return Finding(
                "containers",
                "wrong",
                f"CRON_TRIGGER_ALLOW does not admit the containers' network {network}.",
                f"Add {network} to it in {ENVIRONMENT_FILE}.",
            )
        if firewall_blocks(network, port):
            return Finding(
                "containers",
                "wrong",
                f"The firewall keeps {network} from port {port}.",
                f"sudo ufw allow from {network} to any port {port} proto tcp",
            )
        return None


def look_at_folder(name: str, folder: Path) -> Finding:
    """Tell whether the server can write a folder, or make it."""
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(name, "wrong", f"{there}: {error.strerror}.", "Mend that.")
    unsafe = folder_fault(str(folder)) if os.geteuid() == 0 else None
    if unsafe:
        reason, _, remedy = unsafe.partition(": ")
        return Finding(name, "wrong", f"{reason}, who could put links there.", remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, "wrong", f"{there} can't be written.", "Use sudo.")
    if free < FREE_BYTES:
        text = f"The disk of {folder} has {free >> 20} MB left."
        return Finding(name, "wrong", text, "Make room: history and logs need it.")
    return Finding(name, "ok", str(folder))


def unit_properties() -> Dict[str, str]:
    """Return what systemd knows of the service; nothing where it does not run."""
    wanted = ("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
    keys = ",".join((*wanted, *UNIT_NEEDS))
    shown = output_of("systemctl", "show", f"--property={keys}", SERVICE)
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def unit_faults(unit: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with the installed service."""
    if unit["ActiveState"] != "active":
        yield Finding(
            "service",
            "wrong",
            f"The service is {unit['ActiveState']}.",
            f"sudo systemctl restart {SERVICE} (journalctl -u {SERVICE} says why)",
        )
    if unit["UnitFileState"] != "enabled":
        yield Finding(
            "service",
            "wrong",
            "It does not start at boot.",
            f"sudo systemctl enable {SERVICE}",
        )
    if unit["NeedDaemonReload"] == "yes":
        yield Finding(
            "service",
            "wrong",
            "Its unit was changed since systemd read it.",
            f"sudo systemctl daemon-reload && sudo systemctl restart {SERVICE}",
        )
    for key, (value, otherwise) in UNIT_NEEDS.items():
        if unit[key] != value:
            yield Finding(
                "service",
                "wrong",
                f"Its unit has {key}={unit[key]}: {otherwise}.",
                f"sudo systemctl edit {SERVICE}, and set {key}={value} there.",
            )


def firewall_blocks(network: Network, port: int) -> bool:
    """Tell whether ufw, or a firewall of somebody's own rules, shuts the port."""
    ufw = output_of("ufw", "status")
    if "Status: active" in ufw:
        return not ufw_admits(ufw, network, port)
    rules = output_of("iptables", "-S")
    return "-P INPUT DROP" in rules and f"--dport {port} " not in rules


def ufw_admits(status: str, network: Network, port: int) -> bool:
    """Tell whether a rule that `ufw status` lists lets a network in to a port."""
    for line in status.splitlines():
        rule = re.match(r"(\S+)(?: on \S+)? +ALLOW(?: IN)? +(\S+)", line)
        if rule and rule[1] in ("Anywhere", str(port), f"{port}/tcp"):
            if rule[2] == "Anywhere":
                return True
            with contextlib.suppress(ValueError):
                if covers(ipaddress.ip_network(rule[2]), network):
                    return True
    return False


def output_of(*command: str) -> str:
    """Return what a program prints; nothing where it is missing, fails or hangs."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
