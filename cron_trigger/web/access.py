"""Access."""

from __future__ import annotations

import collections
import functools
import hashlib
import hmac
import ipaddress
import math
import re
import threading
import time
from typing import Callable, Deque, Iterable, Optional

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.settings import LOOPBACK, Settings
from cron_trigger.registry.texts import printable
from cron_trigger.web.routes import Route
from cron_trigger.web.wire import Request

WRONG_SECRETS, WRONG_SECRETS_S, WRONG_SECRETS_ADDRESSES = 10, 60.0, 1024


def same_secret(given: bytes, secret: bytes) -> bool:
    """Compare in constant time; hashed, so that the length does not show either."""
    digests = (hashlib.sha256(text).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


class WrongSecrets:
    """Counts wrong secrets by address, in a table that can't grow without bound."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._times: collections.OrderedDict[str, Deque[float]] = (
            collections.OrderedDict()
        )

    def blocked_s(self, address: str) -> float:
        """Return for how many seconds an address is refused, 0 if it is not."""
        with self._lock:
            times = self._times.get(address)
            if times is None or len(times) < WRONG_SECRETS:
                return 0.0
            return max(0.0, times[0] + WRONG_SECRETS_S - self._monotonic())

    def add(self, address: str) -> None:
        """Count one more."""
        with self._lock:
            times = self._times.setdefault(
                address, collections.deque(maxlen=WRONG_SECRETS)
            )
            self._times.move_to_end(address)
            times.append(self._monotonic())
            if len(self._times) > WRONG_SECRETS_ADDRESSES:
                self._times.popitem(last=False)


class Access:
    """Decides who may do what.  Every request passes `check`, and the default is no."""

    def __init__(self, settings: Settings, host_names: Iterable[str]) -> None:
        self._settings = settings
        listed = (*host_names, *settings.allowed_hosts, "localhost")
        self._hosts = {"host.docker.internal", *(name.lower() for name in listed)}
        self._origins = frozenset(settings.allowed_origins)
        self._wrong = WrongSecrets()

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - one Access lives as long as its server
    def source_allowed(self, address: str) -> bool:
        """Return True where a peer's address is in an allowed network."""
        peer = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        peer = mapped or peer
        return any(peer in network for network in self._settings.allow or LOOPBACK)

    def check(self, request: Request, route: Optional[Route]) -> None:
        """Return where a request may go on; else a Refusal.

        `route` is None for a path or method that does not exist: a stranger learns
        not even that.
        """
        self._check_host(request)
        self._check_origin(request, route)
        if route is None or not route.public:
            self._check_secret(request)

    def _check_host(self, request: Request) -> None:
        # DNS rebinding: a foreign page's own name is made to point here, and its
        # browser believes it speaks to that page's server.  The name gives it away.
        host = request.headers.get("host")
        if host is None and request.old:
            return
        if host is None or len(host) > 300 or not self._host_allowed(host):
            raise Refusal(
                "misdirected_request",
                f'The Host "{printable(host or "", 80)}" is not one of ours; use '
                "an IP address or localhost, or list it in CRON_TRIGGER_ALLOWED_HOSTS.",
            )

    @functools.lru_cache(maxsize=256)  # noqa: B019 - as above
    def _host_allowed(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::\d{1,5})?", host)
        if not match:
            return False
        name = match[1].rstrip(".").lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def origin_listed(self, request: Request) -> Optional[str]:
        """Return the request's Origin if it is one of CRON_TRIGGER_ALLOWED_ORIGINS."""
        origin = request.headers.get("origin")
        return origin if origin in self._origins else None

    def _check_origin(self, request: Request, route: Optional[Route]) -> None:
        # CSRF: a foreign page has its visitor's browser send a request here.  The
        # browser says whose idea that was: Origin, or Sec-Fetch-Site where a GET
        # has none.  Following a link to the page is a person's own idea.
        if self.origin_listed(request):
            return
        origin = request.headers.get("origin")
        host = request.headers.get("host")
        ours = (f"http://{host}", f"https://{host}") if host else ()
        if origin is not None and origin not in ours:
            raise self._foreign("Origin", origin)
        site = request.headers.get("sec-fetch-site", "none")
        if site in ("none", "same-origin"):
            return
        followed = request.headers.get("sec-fetch-mode") == "navigate"
        if not (followed and route and route.action == "page"):
            raise self._foreign("Sec-Fetch-Site", site)

    def _foreign(self, header: str, value: str) -> Refusal:
        return Refusal(
            "forbidden",
            f'Requests from other sites are refused ({header} "{printable(value, 80)}"'
            "); list the site in CRON_TRIGGER_ALLOWED_ORIGINS if it is yours.",
        )

    def _check_secret(self, request: Request) -> None:
        secret = self._settings.secret
        if secret is None:
            return
        blocked_s = self._wrong.blocked_s(request.address)
        if blocked_s:
            raise Refusal(
                "too_many_attempts",
                f"{WRONG_SECRETS} wrong secrets came from this address within a "
                f"minute; try again in {math.ceil(blocked_s)} s.",
                {"Retry-After": str(math.ceil(blocked_s))},
            )
        given = self._given_secret(request)
        if given is not None and same_secret(given, secret):
            return
        if given is not None:
            self._wrong.add(request.address)
        raise Refusal(
            "unauthorized",
            "This request needs the server's secret, in the header X-Trigger-Secret "
            "or as Authorization: Bearer.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _given_secret(self, request: Request) -> Optional[bytes]:
        """Return the request's secret as the bytes that were sent."""
        given = request.headers.get("x-trigger-secret")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if given is None and scheme.lower() == "bearer":
            # Only blanks: a UTF-8 secret may end in a byte that latin-1 calls a space.
            given = token.strip(" \t")
        return given.encode("latin-1") if given is not None else None
