"""Access: who may do what.

Two questions, and the answer to both is no by default: may this address connect at all
(asked by the accepting thread, before anything is read), and may this request go on
(asked once for each by its connection's thread, with its route, before its body is
read).  `Sources` and `Rates` guard their tables by locks of their own; all else is
fixed at the start.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import hmac
import ipaddress
import math
import re
import threading
import time
from typing import Callable, Iterable, Optional, Sequence

from cron_trigger.host.networks import (
    HOST_IN_CONTAINERS,
    Address,
    Interface,
    Network,
    address_of,
    container_bridges,
    own_address_towards,
)
from cron_trigger.host.rates import Rates
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.settings import Settings
from cron_trigger.registry.texts import printable
from cron_trigger.web.routes import Route
from cron_trigger.web.wire import Request

DEFAULT_PORTS = {"http": 80, "https": 443}
#: Name or address, and port.  No name is longer than 253 characters: RFC 1035, 2.3.4.
AUTHORITY = re.compile(
    r"(\[[0-9A-Fa-f:.]{1,99}\]|[^:\[\]]{0,299})(?::(\d{1,5}))?", re.ASCII
)

#: Scheme, name and port, the default one where none is named.
Place = tuple[str, str, int]


def same_secret(given: bytes, secret: bytes) -> bool:
    """Compare in constant time; hashed, so that the length does not show either."""
    digests = (hashlib.sha256(text).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


class Sources:
    """Which addresses may connect: this host, and containers or the networks listed."""

    #: A network that is made later is let in after so long.
    KEPT_S = 2.0

    def __init__(
        self,
        listed: Optional[Sequence[Network]],
        bridges: Callable[[], Iterable[tuple[str, Interface]]] = container_bridges,
        towards: Callable[[Address], Optional[Address]] = own_address_towards,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`listed` is CRON_TRIGGER_ALLOW, None where it is not set."""
        self._listed = listed
        self._bridges = bridges
        self._towards = towards
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards the two below; the look takes 1 ms
        self._containers: tuple[Interface, ...] = ()
        self._looked_s = -math.inf

    def allow(self, address: str) -> bool:
        peer = address_of(address)
        if peer.is_loopback or self._towards(peer) == peer:
            return True  # nobody else can call from an address of this host
        if self._listed is not None:
            return any(peer in network for network in self._listed)
        return self.is_container(address)

    def is_container(self, address: str) -> bool:
        """Return True where a peer is in a network of this host's containers.

        And behind their bridge: a neighbour can have an address of its network.  The
        bridge's own address is the host's, from which its browsers call.
        """
        peer = address_of(address)
        with self._lock:
            now_s = self._monotonic()
            if now_s - self._looked_s >= self.KEPT_S:
                self._looked_s = now_s
                with contextlib.suppress(OSError):  # no descriptor is free
                    self._containers = tuple(bridge for _, bridge in self._bridges())
            found = [bridge for bridge in self._containers if peer in bridge.network]
        own = self._towards(peer) if found else None
        return own != peer and any(bridge.ip == own for bridge in found)


class Access:
    """Decides who may do what.  Every request passes `check`, and the default is no."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        host_names: Iterable[str],
        wrong: Rates,
    ) -> None:
        """`wrong` slows those down who send a wrong secret."""
        self._secret = settings.secret
        self.sources = sources
        # The name that it listens on, too: that is the address which it announces.
        names = (settings.host, *host_names, *settings.allowed_hosts)
        self._hosts = frozenset(("localhost", *map(str.lower, names)))
        self._origins = frozenset(map(_place_of, settings.allowed_origins))
        self._wrong = wrong

    def check(self, request: Request, route: Optional[Route]) -> None:
        """Return where a request may go on; else a Refusal.

        `route` is None for a path or method that does not exist: a stranger learns
        not even that.
        """
        self._check_host(request)
        self._check_origin(request, route)
        if route is None or not route.public:
            self._check_secret(request, basic=route is not None and route.basic)

    # ---- Host

    def _check_host(self, request: Request) -> None:
        # DNS rebinding: a foreign page's own name is made to point here, and its
        # browser believes it speaks to that page's server.  The name gives it away.
        host = request.headers.get("host")
        if host is None and request.old:
            return
        match = AUTHORITY.fullmatch(host or "")
        name = match[1].rstrip(".").lower() if match else None
        if name is None or not self._name_allowed(name, request.address):
            raise Refusal(
                "misdirected_request",
                f'Host "{printable(host or "", 80)}" is not allowed; use an IP address '
                "or localhost, or list it in CRON_TRIGGER_ALLOWED_HOSTS.",
            )

    def _name_allowed(self, name: str, address: str) -> bool:
        if name in self._hosts:
            return True
        if name in HOST_IN_CONTAINERS:
            # Only there it is the host's; elsewhere, whoever answers for a name that
            # nobody owns would make a browser's rebinding work.
            return self.sources.is_container(address)
        return _is_address(name.strip("[]"))

    # ---- Origin

    def origin_listed(self, request: Request) -> Optional[str]:
        """Return the request's Origin if it is one of CRON_TRIGGER_ALLOWED_ORIGINS."""
        origin = request.headers.get("origin", "")
        place = _place_of(origin)
        return origin if place is not None and place in self._origins else None

    def _check_origin(self, request: Request, route: Optional[Route]) -> None:
        # CSRF: a foreign page has its visitor's browser send a request here.  The
        # browser says whose idea that was: Origin, or Sec-Fetch-Site where a GET
        # has none.  Following a link to the page is a person's own idea.
        if self.origin_listed(request):
            return
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and not _same_place(origin, host):
            raise _foreign("Origin", origin)
        site = request.headers.get("sec-fetch-site", "none")
        if site in ("none", "same-origin"):
            return
        followed = request.headers.get("sec-fetch-mode") == "navigate"
        if not (followed and route and route.linked):
            raise _foreign("Sec-Fetch-Site", site)

    # ---- secret

    def _check_secret(self, request: Request, basic: bool) -> None:
        """Let the right secret in, whatever others do; slow the wrong ones down."""
        if self._secret is None:
            return
        given = _given_secret(request, basic)
        if given is not None and same_secret(given, self._secret):
            return
        wait_s = self._wrong.take(request.client) if given is not None else 0
        if wait_s:
            raise Refusal(
                "too_many_attempts",
                "Too many wrong secrets came from this address; try again in "
                f"{math.ceil(wait_s)} s, or send the right one.",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        ways = 'Bearer, Basic realm="cron-trigger-server"' if basic else "Bearer"
        raise Refusal(
            "unauthorized",
            "This request needs the server's secret; send it in the header "
            "X-Trigger-Secret, or as Authorization: Bearer.",
            {"WWW-Authenticate": ways},
        )


def _given_secret(request: Request, basic: bool) -> Optional[bytes]:
    given = request.headers.get("x-trigger-secret")
    if given is not None:
        return given.encode("latin-1")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # Only blanks: a UTF-8 secret may end in a byte that latin-1 calls a space.
    text = token.strip(" \t").encode("latin-1")
    if scheme.lower() == "bearer":
        return text
    if basic and scheme.lower() == "basic":
        try:
            return base64.b64decode(text, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return None


def _foreign(header: str, value: str) -> Refusal:
    return Refusal(
        "forbidden",
        f'Requests from other sites are refused ({header} "{printable(value, 80)}"); '
        "list the site in CRON_TRIGGER_ALLOWED_ORIGINS if it is yours.",
    )


@functools.lru_cache(maxsize=256)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _place_of(origin: str) -> Optional[Place]:
    """Return the place of an Origin, None where it is none of HTTP."""
    scheme, _, authority = origin.partition("://")
    match = AUTHORITY.fullmatch(authority)
    if not match or not match[1] or scheme not in DEFAULT_PORTS:
        return None
    return scheme, match[1].lower(), int(match[2] or DEFAULT_PORTS[scheme])


def _same_place(origin: str, host: str) -> bool:
    """Return True where an Origin is the server's own, by http or https (a proxy's)."""
    place = _place_of(origin)
    return place is not None and place == _place_of(f"{place[0]}://{host}")


class RefusalLog:
    """Writes refusals into the server's log, so many of each client and of all."""

    def __init__(self, say: Callable[[str, str], None], rates: Rates) -> None:
        self._say = say
        self._rates = rates
        self._lock = threading.Lock()  # guards the count; any thread adds
        self._left_out = 0

    def add(self, address: str, client: str, what: str, refusal: Refusal) -> None:
        with self._lock:
            if self._rates.take(client):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if left_out:
            self._say("warning", f"{left_out} more requests were refused before this")
        self._say(
            "warning",
            f"refused {printable(what, 200)} from {address}: "
            f"{refusal.status} {refusal.code}: {printable(refusal.message, 400)}",
        )
