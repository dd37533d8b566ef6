"""Networks."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
from typing import Dict, List, Optional, Union


def own_names() -> List[str]:
    """Return the names by which this machine knows itself."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]]


DOCKER_NETWORKS = "172.16.0.0/12"
#: linux/sockios.h
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B


def docker_bridges() -> Dict[str, ipaddress.IPv4Interface]:
    """Return Docker's bridges: docker0, and br-ID for each further network."""
    found = {}
    for _, name in socket.if_nameindex():
        address = interface_address(name)
        if address and (name == "docker0" or name.startswith("br-")):
            found[name] = address
    return found


def interface_address(name: str) -> Optional[ipaddress.IPv4Interface]:
    """Return the IPv4 address and network of an interface: netdevice(7)."""
    request = name.encode().ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            address = fcntl.ioctl(any_socket, SIOCGIFADDR, request)[20:24]
            mask = fcntl.ioctl(any_socket, SIOCGIFNETMASK, request)[20:24]
        except OSError:
            return None
    return ipaddress.IPv4Interface(
        f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}"
    )


def covers(
    wider: Union[ipaddress.IPv4Network, ipaddress.IPv6Network],
    network: ipaddress.IPv4Network,
) -> bool:
    """Tell whether all of `network` is in `wider`."""
    return isinstance(wider, ipaddress.IPv4Network) and network.subnet_of(wider)
