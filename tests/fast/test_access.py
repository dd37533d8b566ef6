"""Who may do what: every route, address, Host, Origin and secret."""

from __future__ import annotations

import ipaddress
import unittest
from typing import Any, Callable, Optional, Sequence
from unittest import mock

from cron_trigger.host.networks import address_of, client_of
from cron_trigger.host.rates import Rates
from cron_trigger.registry.errors import ConfigError, Refusal
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.settings import read_settings
from cron_trigger.web.access import Access, Sources
from cron_trigger.web.routes import ROUTES, Route
from cron_trigger.web.wire import Request


def gateway(network: str) -> Any:
    """Return the interface of a bridge: the first address of its network."""
    made = ipaddress.ip_network(network)
    return ipaddress.ip_interface(f"{made[1]}/{made.prefixlen}")


def way_to(*networks: str) -> Callable[[Any], Any]:
    """Return a host's word on which of its addresses a peer would be answered from."""
    gateways = [gateway(network) for network in networks]
    return lambda peer: next((g.ip for g in gateways if peer in g.network), None)


def access_with(
    host_names: Sequence[str] = (),
    networks: Sequence[str] = (),
    secret: Optional[str] = None,
    **settings: str,
) -> Access:
    """Return an Access whose host has these container networks."""
    bridges = [("docker0", gateway(network)) for network in networks]
    read = read_settings(settings, {})
    return Access(
        read._replace(secret=secret.encode() if secret else None),
        Sources(read.allow, lambda: bridges, way_to(*networks)),
        host_names,
        Rates(*Limits().wrong_secrets),
    )


def request(address: str = "::1", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client = client_of(address)
    return Request("GET", "/", "", {"host": "localhost", **named}, address, client)


class DefaultTest(unittest.TestCase):
    """What is not expressly open is shut."""

    def test_only_four_routes_and_the_preflight_are_public(self) -> None:
        public = [route.path for route in ROUTES if route.public]
        self.assertEqual(public, ["/", "/health", "/openapi.json", "/FILE"])
        self.assertFalse(Route("GET", "/new", "new").public)

    def test_a_path_without_a_route_needs_the_secret(self) -> None:
        with self.assertRaises(Refusal) as caught:
            access_with(secret="x" * 20).check(request(), None)
        self.assertEqual(caught.exception.code, "unauthorized")


class HostTest(unittest.TestCase):
    """Host against DNS rebinding: addresses and our own names, nothing else."""

    def allowed(self, host: str, listed: str = "", address: str = "::1") -> bool:
        networks = ("172.18.0.0/16", "fd00:18::/64")
        access = access_with(["mine.example", "mine"], networks, allowed_hosts=listed)
        try:
            access.check(request(address, host=host), ROUTES[1])
        except Refusal as refusal:
            self.assertEqual(refusal.code, "misdirected_request")
            return False
        return True

    def test_our_names_and_addresses_are_admitted(self) -> None:
        for host in (
            "localhost", "LOCALHOST:9998", "localhost.", "127.0.0.1", "127.0.0.1:1",
            "[::1]", "[::1]:9998", "mine", "Mine.Example:80", "mine:443",
            "172.17.0.1:9998", "192.168.1.7",
        ):  # fmt: skip
            with self.subTest(host):
                self.assertTrue(self.allowed(host))

    def test_all_else_is_refused(self) -> None:
        for host in (
            "", ".", ":", ":80", "evil.example", "localhost.evil.example",
            "evil.example.", "user@localhost", "localhost@evil.example",
            "localhost,evil.example", "localhost evil.example", "localhost/",
            "localhost#", "localhost?", "localhost:http", "localhost:123456",
            "localhost:", "localhost:80:80", "[::1", "::1", "[::1]x", "[fe80::1%25lo]",
            "[fe80::1%lo]", "[evil.example]", "2130706433", "0x7f000001", "0177.0.0.1",
            "127.1", "127.0.0.1.nip.io", "127.0.0.\xb9", "l\xf3calhost", "xn--loclhost",
            "localhost\xa0", "a" * 5000, "127.0.0.1" + "." * 5000,
        ):  # fmt: skip
            with self.subTest(host[:40]):
                self.assertFalse(self.allowed(host))

    def test_a_listed_name_is_admitted(self) -> None:
        self.assertTrue(self.allowed("cron.example.org:9998", "cron.example.org"))
        self.assertFalse(self.allowed("example.org", "cron.example.org"))

    def test_the_name_that_it_listens_on_is_admitted(self) -> None:
        access_with(host="Crons.internal").check(
            request(host="crons.internal:9998"), ROUTES[1]
        )

    def test_the_host_of_containers_is_known_to_containers_only(self) -> None:
        # Elsewhere a hostile resolver may answer for the name: DNS rebinding.
        for host in ("host.docker.internal:9998", "Host.Containers.Internal"):
            for address in ("172.18.0.5", "::ffff:172.18.0.5", "fd00:18::5"):
                self.assertTrue(self.allowed(host, address=address))
            for address in ("127.0.0.1", "::1", "172.19.0.5", "fd00:19::5"):
                self.assertFalse(self.allowed(host, address=address))
        self.assertTrue(self.allowed("host.docker.internal", "host.docker.internal"))

    def test_the_caches_of_addresses_are_bounded(self) -> None:
        for function in (address_of, client_of):
            self.assertLessEqual(function.cache_info().maxsize or 10**9, 1024)


class SamePlaceTest(unittest.TestCase):
    """Whether an Origin is the server's own, as Host names it."""

    def admitted(self, origin: str, host: str, **settings: str) -> bool:
        access = access_with(["crons.example.org"], **settings)
        try:
            access.check(request(origin=origin, host=host), ROUTES[1])
        except Refusal as refusal:
            self.assertEqual(refusal.code, "forbidden")
            return False
        return True

    def test_a_default_port_may_be_named_or_left_out(self) -> None:
        name = "crons.example.org"
        for origin, host in (
            (f"https://{name}", f"{name}:443"),
            (f"https://{name}:443", name),
            (f"http://{name}", f"{name}:80"),
            (f"http://{name}:80", name),
            (f"http://{name}:9998", f"{name}:9998"),
            (f"https://{name}:8443", f"{name}:8443"),
            (f"https://{name}", name.upper()),
            ("http://[::1]:9998", "[::1]:9998"),
        ):
            self.assertTrue(self.admitted(origin, host), (origin, host))

    def test_another_port_scheme_or_name_is_another_place(self) -> None:
        name = "crons.example.org"
        for origin, host in (
            (f"https://{name}", f"{name}:80"),
            (f"http://{name}", f"{name}:443"),
            (f"http://{name}", f"{name}:9998"),
            (f"http://{name}:9998", name),
            (f"ftp://{name}", name),
            (f"https://{name}.evil.example", name),
            (f"https://evil.example#{name}", name),
            (f"https://evil.example@{name}", name),
            (f"https://{name}/", name),
            (f"https://{name}:", name),
            ("https://", name),
            ("null", name),
            ("", name),
        ):
            self.assertFalse(self.admitted(origin, host), (origin, host))

    def test_a_listed_origin_may_be_named_with_its_default_port(self) -> None:
        for listed, origin in (
            ("https://admin.example.org", "https://admin.example.org:443"),
            ("https://admin.example.org:443", "https://admin.example.org"),
            ("http://admin.example.org:80", "http://admin.example.org"),
        ):
            given = {"allowed_origins": listed}
            self.assertTrue(self.admitted(origin, "localhost", **given))
            self.assertFalse(self.admitted(f"{origin}:444", "localhost", **given))


class ClientTest(unittest.TestCase):
    """What counts as one client."""

    def test_a_machine_an_address_and_a_network_of_ipv6_count_as_one(self) -> None:
        for group in (
            ("127.0.0.1", "127.255.0.9", "::1", "::ffff:127.1.2.3"),
            ("172.18.0.5", "::ffff:172.18.0.5"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
            ("fe80::1%eth0", "fe80::2%eth1"),
        ):
            self.assertEqual(len({client_of(address) for address in group}), 1)
        alone = ("127.0.0.1", "172.18.0.5", "172.18.0.6", "fd00::1", "fd00:0:0:1::1")
        self.assertEqual(len({client_of(a) for a in alone}), len(alone))


class SourceTest(unittest.TestCase):
    """Whose address may connect at all."""

    NETWORKS = ("172.18.0.0/16", "192.168.96.0/20", "fd00:18::/64")

    def allowed(self, address: str, allow: Optional[str] = None) -> bool:
        given = {} if allow is None else {"allow": allow}
        access = access_with(networks=self.NETWORKS, **given)
        return bool(access.sources.allow(address))

    def test_the_default_is_loopback_and_this_hosts_containers(self) -> None:
        for address in (
            "127.0.0.1", "127.9.9.9", "::1", "172.18.0.1", "192.168.100.1",
            "fd00:18::7", "::ffff:127.0.0.1", "::ffff:172.18.0.1",
        ):  # fmt: skip
            self.assertTrue(self.allowed(address), address)
        for address in (
            # The default VPC of AWS, and what else is in 172.16.0.0/12.
            "172.31.10.99", "172.16.0.1", "172.17.0.1", "172.19.0.1",
            "10.0.0.1", "192.168.1.1", "8.8.8.8", "::", "0.0.0.0", "fe80::1%eth0",
            "fd00::1", "fd00:18:0:1::1", "::127.0.0.1", "64:ff9b::7f00:1",
            "2002:7f00:1::1", "::ffff:10.0.0.1", "::ffff:172.31.10.99",
        ):  # fmt: skip
            self.assertFalse(self.allowed(address), address)

    def test_a_neighbour_with_an_address_of_a_bridge_s_network_is_none_of_its(
        self,
    ) -> None:
        bridges = [("docker0", gateway("172.18.0.0/16"))]
        for way in (None, ipaddress.ip_address("10.0.0.7")):  # down; a nearer route
            sources = Sources(None, lambda: bridges, mock.Mock(return_value=way))
            self.assertFalse(sources.allow("172.18.0.5"))
            self.assertFalse(sources.is_container("172.18.0.5"))

    def test_each_address_of_this_host_is_this_host(self) -> None:
        own = ipaddress.ip_address("10.0.0.7")
        for allow in (None, [ipaddress.ip_network("10.9.0.0/16")]):
            sources = Sources(allow, list, lambda _peer: own)
            self.assertTrue(sources.allow("10.0.0.7"))
            self.assertFalse(sources.allow("10.0.0.8"))

    def test_a_list_replaces_the_containers_and_loopback_stays(self) -> None:
        self.assertTrue(self.allowed("10.1.2.3", "10.0.0.0/8, fd00::/16"))
        self.assertTrue(self.allowed("fd00::7", "10.0.0.0/8 fd00::/16"))
        self.assertFalse(self.allowed("172.18.0.5", "10.0.0.0/8"))
        for address in ("127.0.0.1", "::1"):
            self.assertTrue(self.allowed(address, "10.0.0.0/8"))
        for text in ("10.0.0.1/8", "everyone", "", "127.0.0.0/8 10.0.0.0/33"):
            with self.assertRaises(ConfigError):
                read_settings({"allow": text}, {})

    def test_a_network_that_is_made_later_is_let_in_and_one_that_is_gone_is_not(
        self,
    ) -> None:
        clock, looks = [0.0], []
        bridges: list[tuple[str, Any]] = []

        def look() -> list[tuple[str, Any]]:
            looks.append(clock[0])
            return bridges

        way = way_to("172.18.0.0/16")
        sources = Sources(None, look, way, lambda: clock[0])
        for _ in range(100):  # a stranger has us look once, not a hundred times
            self.assertFalse(sources.allow("172.18.0.5"))
        self.assertEqual(len(looks), 1)
        bridges.append(("docker0", gateway("172.18.0.0/16")))
        clock[0] += sources.KEPT_S
        self.assertTrue(sources.allow("172.18.0.5"))
        bridges.clear()
        clock[0] += sources.KEPT_S
        self.assertFalse(sources.allow("172.18.0.5"))
        before = len(looks)
        sources.allow("127.0.0.1")
        self.assertEqual(len(looks), before)


if __name__ == "__main__":
    unittest.main()
