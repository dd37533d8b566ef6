"""Checks of containers' networks: who is let in, and what keeps them out."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Iterator, Optional

from cron_trigger.doctor.findings import Finding, Host, output_of, wrong
from cron_trigger.host.networks import Interface, Network, container_bridges, covers
from cron_trigger.registry.settings import ENVIRONMENT_FILE


def networks(host: Host) -> Iterator[Finding]:
    bridges = container_bridges()
    for name, bridge in bridges:
        found = f"{name}: {bridge.network} may call at {bridge.ip}"
        yield _fault(host, bridge) or Finding("containers", "ok", found)
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


def _fault(host: Host, bridge: Interface) -> Optional[Finding]:
    """Return what keeps a bridge's containers away, as far as a host can tell."""
    settings, network = host.settings, bridge.network
    everywhere = "0.0.0.0" if bridge.version == 4 else "::"
    if settings.host not in ("::", everywhere, str(bridge.ip)):
        return wrong(
            "containers",
            f"The server listens on {settings.host}, but containers call {bridge.ip}.",
            f"Remove CRON_TRIGGER_HOST from {ENVIRONMENT_FILE}, to listen everywhere.",
        )
    listed = settings.allow
    if listed and not any(covers(allowed, network) for allowed in listed):
        return wrong(
            "containers",
            f"CRON_TRIGGER_ALLOW does not admit the containers' network {network}.",
            f"Add {network} to it in {ENVIRONMENT_FILE}.",
        )
    if firewall_blocks(network, settings.port):
        return wrong(
            "containers",
            f"The firewall keeps {network} from port {settings.port}.",
            f"sudo ufw allow from {network} to any port {settings.port} proto tcp",
        )
    return None


def firewall_blocks(network: Network, port: int) -> bool:
    """Tell whether ufw, or a firewall of somebody's own rules, shuts the port."""
    ufw = output_of("ufw", "status")
    if "Status: active" in ufw:
        return not ufw_admits(ufw, network, port)
    rules = output_of("iptables" if network.version == 4 else "ip6tables", "-S")
    return "-P INPUT DROP" in rules and f"--dport {port} " not in rules


def ufw_admits(status: str, network: Network, port: int) -> bool:
    """Tell whether a rule that `ufw status` lists lets a network in to a port."""
    anywhere = "Anywhere" if network.version == 4 else "Anywhere (v6)"
    rule = r"(?m)^(\S+)(?: \(v6\))?(?: on \S+)? +ALLOW(?: IN)? +(\S+(?: \(v6\))?)"
    for opened, source in re.findall(rule, status):
        if opened not in ("Anywhere", f"{port}", f"{port}/tcp"):
            continue
        if source == anywhere:
            return True
        with contextlib.suppress(ValueError):
            if covers(ipaddress.ip_network(source), network):
                return True
    return False
