"""Who calls: addresses, this host's names, and the networks of its containers.

What is promised is that a network which reaches beyond this host is never taken for
one of containers, and that addresses of one machine count as one client.  Access (web),
the planned triggers (runs), doctor and the installer's question ask here; nothing is
kept but a cache of addresses, so any thread may ask at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Iterator, Optional, Union

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]

#: How Docker and Podman name the bridges of their networks.
CONTAINER_BRIDGE = re.compile(
    r"docker0|docker_gwbridge|br-[0-9a-f]{12}|(?:cni-)?podman\d+", re.ASCII
)
#: By these names containers call the host that runs them.
HOST_IN_CONTAINERS = ("host.docker.internal", "host.containers.internal")
#: linux/sockios.h
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B
#: linux/ipv6.h: an address that holds on one link only.
IFA_LINK = 0x20


def own_names() -> list[str]:
    """Return the names by which this machine knows itself."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


@functools.lru_cache(maxsize=1024)
def address_of(text: str) -> Address:
    """Return a peer's address; IPv4-mapped IPv6 (RFC 4291, 2.5.5.2) is IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


@functools.lru_cache(maxsize=1024)
def client_of(text: str) -> str:
    """Return whom an address belongs to, as far as shares and counts go.

    A machine has the whole of 127.0.0.0/8 and one address on each bridge, and whoever
    has one IPv6 address has a /64 of them: each by itself would make one client a
    crowd.
    """
    address = address_of(text)
    if address.is_loopback or own_address_towards(address) == address:
        return "this host"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def own_address_towards(address: Address) -> Optional[Address]:
    """Return the address from which this host would answer another; None: it can't.

    So the kernel tells by which interface it goes there: a bridge that is down keeps
    its network, and a nearer route may lead elsewhere.  Nothing is sent (udp(7)).
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as way, contextlib.suppress(OSError):
        way.connect((str(address), 9))
        return address_of(way.getsockname()[0])
    return None


def container_bridges(
    devices: Path = Path("/sys/class/net"),
) -> list[tuple[str, Interface]]:
    """Return name and address, with its network, of this host's container bridges.

    Only the name, a bridge, and no physical member make one: a bridge of the same name
    with the network card in it is the LAN.
    """
    names = [name for _, name in socket.if_nameindex()]
    bridges = {
        name
        for name in names
        if CONTAINER_BRIDGE.fullmatch(name) and _is_inner_bridge(devices / name)
    }
    return [
        *((n, i) for n in names if n in bridges for i in _ipv4_interfaces(n)),
        *((n, i) for n, i in (_ipv6_interfaces() if bridges else ()) if n in bridges),
    ]


def _is_inner_bridge(device: Path) -> bool:
    """Tell whether a device is a bridge that nothing connects with the outside."""
    if not (device / "bridge").is_dir():
        return False
    with contextlib.suppress(OSError):
        members = os.listdir(device / "brif")
        return not any(_leads_outside(device.parent / name) for name in members)
    return False


def _leads_outside(device: Path) -> bool:
    """Tell whether a device is a card, or sits on one as a VLAN or a bond does."""
    names = os.listdir(device)
    return any(name == "device" or name.startswith("lower_") for name in names)


def _ipv4_interfaces(name: str) -> Iterator[Interface]:
    """Yield the IPv4 address and network of an interface: netdevice(7)."""
    request = name.encode().ljust(40, b"\0")
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with any_socket, contextlib.suppress(OSError):
        address = fcntl.ioctl(any_socket, SIOCGIFADDR, request)[20:24]
        mask = fcntl.ioctl(any_socket, SIOCGIFNETMASK, request)[20:24]
        yield ipaddress.IPv4Interface(
            f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}"
        )


def _ipv6_interfaces() -> Iterator[tuple[str, Interface]]:
    """Yield each interface's IPv6 addresses: proc_net(5).

    Not the link-local ones: all links have the network fe80::/64, the LAN's as well.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            address, _, length, scope, _, name = line.split()
            if int(scope, 16) != IFA_LINK:
                packed = bytes.fromhex(address)
                yield name, ipaddress.IPv6Interface((packed, int(length, 16)))


def covers(wider: Network, network: Network) -> bool:
    """Tell whether all of `network` is in `wider`."""
    if isinstance(wider, ipaddress.IPv4Network):
        return isinstance(network, ipaddress.IPv4Network) and network.subnet_of(wider)
    return isinstance(network, ipaddress.IPv6Network) and network.subnet_of(wider)
