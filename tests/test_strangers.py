"""Attacks on access and places, with real packets from real addresses.

Three namespaces of the test's own: the server's host; on a network card of it a
neighbour; on a bridge as Docker makes them a container.  Nothing leaves them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, Iterator, Sequence

from support import Server, need, need_command, need_full, slow, wait_until

from cron_trigger.registry.threads import IDLE_LIMIT

REGISTRY = {
    "nap": {"description": "Sleep", "command": ["/bin/sleep", "60"]},
    "hello": {"description": "Say hello", "command": ["/bin/echo", "hello"]},
}
#: A caller that says from which address it comes; it prints a line for each request.
ASK = """
import http.client, json, sys
for source, target, path, host in json.load(sys.stdin):
    connection = http.client.HTTPConnection(
        target, int(sys.argv[1]), timeout=20, source_address=(source, 0)
    )
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        print(connection.getresponse().status, flush=True)
    except OSError as error:
        print(error, flush=True)
"""
#: An honest client: it asks again and again, and says how it was answered.
HONEST = """
import http.client, json, sys, time
target, port, source, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
told = []
for number in range(int(count)):
    for path in ("/health", "/crons", "/runs?limit=5"):
        since_s = time.monotonic()
        connection = http.client.HTTPConnection(
            target, port, timeout=10, source_address=(source, 0)
        )
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except OSError as error:
            status = str(error)
        connection.close()
        told.append([status, time.monotonic() - since_s])
    time.sleep(0.02)
print(json.dumps(told))
"""
#: Holds connections open, and says when it has them.
HOLD = """
import socket, sys, time
kept = []
for number in range(int(sys.argv[4])):
    try:
        kept.append(socket.create_connection(
            (sys.argv[1], int(sys.argv[2])), 5, source_address=(sys.argv[3], 0)
        ))
        kept[-1].sendall(sys.argv[5].encode().decode("unicode_escape").encode())
    except OSError:
        pass
print("held", flush=True)
sys.stdin.read()
"""
#: One local client that does all at once, for a while, that could keep others out.
FLOOD = """
import http.client, json, socket, sys, threading, time
port, until_s = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
head = "Host: localhost\\r\\n"
kept, counts = [], {}

def open_stream(path):
    made = socket.create_connection(("127.0.0.1", port), 5)
    made.sendall(f"GET {path} HTTP/1.1\\r\\n{head}\\r\\n".encode())
    kept.append(made)

def again(work):
    def run():
        # Until there were some to be refused, also on a slow machine.
        while time.monotonic() < until_s + 60 * (counts.get("refused", 0) < 200):
            try:
                work()
                counts[work.__name__] = counts.get(work.__name__, 0) + 1
            except (OSError, http.client.HTTPException, ValueError):
                pass
    return run

def call(method, path, value=None, source="127.0.0.1"):
    made = http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(source, 0))
    body = json.dumps(value) if value else None
    made.request(method, path, body, {"Content-Type": "application/json"})
    answer = made.getresponse()
    text = answer.read()
    made.close()
    return json.loads(text) if text else {}

def plan():
    call("POST", "/trigger", {"cronName": "hello", "runAt": "2099-01-01T00:00:00Z"})

def plan_and_cancel():
    planned = call("POST", "/trigger",
                   {"cronName": "hello", "runAt": "2099-01-01T00:00:00Z"})
    call("DELETE", f"/scheduled/{planned.get('scheduledId', 0)}")

turn = iter(range(10**9))

def refused():
    number = next(turn)
    source = f"127.7.{number // 250 % 250}.{number % 250}"
    call("GET", f"/nowhere{number}", source=source)

run_id = call("POST", "/trigger", {"cronName": "nap"})["runId"]
for _ in range(80):
    open_stream("/events")
    open_stream(f"/runs/{run_id}/log?follow=true")
    open_stream(f"/runs/{run_id}?wait=60")
for _ in range(200):
    kept.append(socket.create_connection(("127.0.0.1", port), 5))
threads = [threading.Thread(target=again(work)) for work in
           (plan, plan_and_cancel, plan_and_cancel, refused, refused)]
for thread in threads:
    thread.start()
print("flooding", flush=True)
for thread in threads:
    thread.join()
print(json.dumps(counts))
"""


#: One local client whose connections, once open, never fall silent.
BUSY = """
import socket, sys, threading
port, path, body = int(sys.argv[1]), sys.argv[2], sys.argv[3]
data = (
    f"{'POST' if body else 'GET'} {path} HTTP/1.1\\r\\nHost: localhost\\r\\n"
    "Content-Type: application/json\\r\\nAccept-Encoding: gzip\\r\\n"
    f"Content-Length: {len(body)}\\r\\n\\r\\n{body}"
).encode()

def again():
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", port), 60)
            made.sendall(data * 3)
            while told := made.recv(1 << 18):
                made.sendall(data * told.count(b"HTTP/1.1 "))
        except OSError:
            pass

for _ in range(200):
    threading.Thread(target=again, daemon=True).start()
print("flooding", flush=True)
sys.stdin.read()
"""


class Namespace:
    """A network namespace, with the devices that it has in its own /sys."""

    def __init__(self) -> None:
        keep = "mount -t sysfs none /sys && echo made && exec sleep 600"
        self.holder = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c", keep], stdout=subprocess.PIPE
        )
        assert self.holder.stdout
        if self.holder.stdout.readline() != b"made\n":
            raise unittest.SkipTest("this kernel gives no network namespace")
        self.enter = ["nsenter", "-t", str(self.holder.pid), "-n", "-m"]
        self.ip("link set lo up")

    def ip(self, *commands: str) -> None:
        for command in commands:
            words = [*self.enter, "ip", *command.split()]
            subprocess.run(words, check=True, capture_output=True)

    def python(self, code: str, *words: object, given: str = "") -> str:
        done = subprocess.run(
            [*self.enter, sys.executable, "-c", code, *map(str, words)],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    @contextlib.contextmanager
    def running(self, code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
        """A program that has said its first line, ended afterwards."""
        process = subprocess.Popen(
            [*self.enter, sys.executable, "-c", code, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()

    def ask(self, port: int, *calls: Sequence[str]) -> list[str]:
        """Return what callers are answered: (source, target, path, Host)."""
        padded = [
            [*call, "/crons", ""][:4] if len(call) < 3 else call for call in calls
        ]
        return self.python(ASK, port, given=json.dumps(padded)).split("\n")[:-1]

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


class Host(Namespace):
    """The server's host, with a neighbour and a container."""

    NEIGHBOUR = ("172.31.10.99", "172.31.10.1")
    NEIGHBOUR_6 = ("fd00:31::99", "fd00:31::1")
    CONTAINER = ("192.168.96.5", "192.168.96.1")
    CONTAINER_6 = ("fd00:96::5", "fd00:96::1")

    def __init__(self) -> None:
        super().__init__()
        self.others: dict[str, Namespace] = {}
        self.wire("neighbour", "card0", "172.31.10.%s/24", "fd00:31::%s/64", "99")
        self.bridge("br-0123456789ab")
        self.wire("container", "veth0", "192.168.96.%s/20", "fd00:96::%s/64", "5")

    def bridge(self, name: str) -> None:
        # An address of its own: it would have that of its members, which come and go.
        self.ip(
            f"link add {name} address 02:00:00:00:00:01 type bridge",
            f"link set {name} up",
        )

    def wire(self, name: str, device: str, ipv4: str, ipv6: str, host: str) -> None:
        """Connect another machine; a container to the bridge, which has the address."""
        other = self.others[name] = Namespace()
        self.ip(
            f"link add {device} type veth peer name inner",
            f"link set inner netns {other.holder.pid}",
            f"link set {device} up",
        )
        own = device
        if name == "container":
            own = "br-0123456789ab"
            self.ip(f"link set {device} master {own}")
        for space, where, number in ((self, own, "1"), (other, "inner", host)):
            for address in (ipv4 % number, ipv6 % number):
                nodad = " nodad" if ":" in address else ""
                space.ip(f"address add {address} dev {where}{nodad}")
        other.ip("link set inner up")

    def close(self) -> None:
        for other in self.others.values():
            other.close()
        super().close()


class StrangersCase(unittest.TestCase):
    host: Host

    @classmethod
    def setUpClass(cls) -> None:
        need(os.geteuid() == 0, "only root makes network namespaces")
        for name in ("ip", "unshare", "nsenter", "mount"):
            need_command(name)
        able = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True)
        need(able.returncode == 0, "this kernel gives no network namespace")
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.container = cls.host.others["container"]
        cls.neighbour = cls.host.others["neighbour"]

    container: Namespace
    neighbour: Namespace

    def server_at(self, host: str = "::", **environ: str) -> Server:
        enter = [*self.host.enter, sys.executable]
        server = Server(REGISTRY, environ, [f"--host={host}"], python=enter).start()
        self.addCleanup(server.__exit__)
        return server

    def server_pid(self, server: Server) -> int:
        assert server.process  # nsenter becomes the program that it starts
        return server.process.pid

    def count(self, server: Server, what: str) -> int:
        return len(os.listdir(f"/proc/{self.server_pid(server)}/{what}"))


@slow
class SourceTest(StrangersCase):
    """Who is let in by default: this host, and its containers."""

    def test_a_container_is_let_in_and_a_neighbour_is_not(self) -> None:
        server = self.server_at()
        host, port = self.host, server.port
        calls = (host.CONTAINER, host.CONTAINER_6)
        self.assertEqual(self.container.ask(port, *calls), ["200", "200"])
        # 172.31.0.0/16 is the default network of each AWS account.
        calls = (host.NEIGHBOUR, host.NEIGHBOUR_6)
        self.assertEqual(self.neighbour.ask(port, *calls), ["403", "403"])
        own = (("127.0.0.1", "127.0.0.1"), ("::1", "::1"))
        self.assertEqual(host.ask(port, *own), ["200", "200"])
        # Told after the answer, by another thread.
        wait_until(lambda: "from 172.31.10.99: 403 forbidden" in server.log_text())
        wait_until(lambda: "from fd00:31::99: 403 forbidden" in server.log_text())
        for at in (host.NEIGHBOUR[1], host.NEIGHBOUR_6[1], "192.168.96.1"):
            self.assertEqual(host.ask(port, (at, at)), ["200"], at)
        # The address that is called does not matter, only the caller's.
        self.neighbour.ip("route add 192.168.96.0/20 via 172.31.10.1")
        crossed = ("172.31.10.99", "192.168.96.1")
        self.assertEqual(self.neighbour.ask(port, crossed), ["403"])

    def test_who_comes_with_the_last_descriptor_is_not_called_a_stranger(self) -> None:
        server = self.server_at()
        at, pid = self.host.NEIGHBOUR[1], self.server_pid(server)
        sockets = self.sockets(pid)
        # Once it has answered, and closed, it has all descriptors that it keeps.
        own = ("127.0.0.1", "127.0.0.1")
        self.assertEqual(self.host.ask(server.port, own), ["200"])
        wait_until(lambda: self.sockets(pid) == sockets)
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        _, second, *_ = (n for n in range(max(used) + 3) if n not in used)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Accepting takes the one that is left; the caller's address needs another.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (second, before[1]))
        try:
            self.assertEqual(self.host.ask(server.port, (at, at)), ["503"])
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.assertEqual(self.host.ask(server.port, (at, at)), ["200"])

    def sockets(self, pid: int) -> int:
        folder, count = f"/proc/{pid}/fd", 0
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                count += os.readlink(f"{folder}/{name}").startswith("socket:")
        return count

    def test_a_listed_network_replaces_the_containers(self) -> None:
        allow = "172.31.10.0/24 fd00:31::/64"
        server = self.server_at(CRON_TRIGGER_ALLOW=allow)
        host, port = self.host, server.port
        calls = (host.NEIGHBOUR, host.NEIGHBOUR_6)
        self.assertEqual(self.neighbour.ask(port, *calls), ["200", "200"])
        self.assertEqual(self.container.ask(port, host.CONTAINER), ["403"])
        own = ("127.0.0.1", "127.0.0.1")
        self.assertEqual(host.ask(port, own), ["200"])

    def test_a_neighbour_with_the_address_of_a_container_is_not_let_in(self) -> None:
        server = self.server_at()
        host, inner = self.host, self.neighbour
        stolen = (("192.168.96.77", "172.31.10.1"), ("fd00:96::77", "fd00:31::1"))
        for prefix, (address, _) in zip(("32", "128"), stolen):
            inner.ip(f"address add {address}/{prefix} dev inner nodad")
            host.ip(f"route add {address}/{prefix} dev card0")
        self.assertEqual(inner.ask(server.port, *stolen), ["403", "403"])
        for prefix, (address, _) in zip(("32", "128"), stolen):
            host.ip(f"route delete {address}/{prefix} dev card0")
        # A bridge that is down keeps its network, but no way leads there any more.
        host.ip("link set br-0123456789ab down")
        try:
            host.ip("route add 192.168.96.0/20 dev card0")
            self.assertEqual(inner.ask(server.port, stolen[0]), ["403"])
            host.ip("route delete 192.168.96.0/20 dev card0")
        finally:
            host.ip("link set br-0123456789ab up")
            host.ip("address replace fd00:96::1/64 dev br-0123456789ab nodad")
            for prefix, (address, _) in zip(("32", "128"), stolen):
                inner.ip(f"address delete {address}/{prefix} dev inner")
        call = (host.CONTAINER, host.CONTAINER_6)
        told = self.container.ask(server.port, *call)
        self.assertEqual(told, ["200", "200"])

    def test_a_bridge_with_a_card_in_it_is_the_lan(self) -> None:
        server = self.server_at("0.0.0.0")
        call = self.host.CONTAINER
        self.assertEqual(self.container.ask(server.port, call), ["200"])
        # It sits on a card as a VLAN or a bond does.
        self.host.ip(
            "link add link card0 name card0.7 type macvlan",
            "link set card0.7 master br-0123456789ab",
        )
        try:
            wait_until(lambda: self.container.ask(server.port, call) == ["403"])
        finally:
            self.host.ip("link delete card0.7")
        wait_until(lambda: self.container.ask(server.port, call) == ["200"])

    def test_a_network_that_is_made_while_it_runs_is_let_in(self) -> None:
        need_full()
        server = self.server_at("0.0.0.0")
        call = ("10.88.0.5", "10.88.0.1")
        self.container.ip("address add 10.88.0.5/16 dev inner")
        self.host.ip("address add 10.88.0.1/16 dev card0")
        try:
            self.host.ip("route add 10.88.0.5/32 dev br-0123456789ab")
            self.assertEqual(self.container.ask(server.port, call), ["403"])
            self.host.ip("address delete 10.88.0.1/16 dev card0")
            self.host.ip("route delete 10.88.0.5/32 dev br-0123456789ab")
            self.host.bridge("podman1")
            self.host.ip(
                "link set veth0 master podman1", "address add 10.88.0.1/16 dev podman1"
            )
            wait_until(lambda: self.container.ask(server.port, call) == ["200"])
        finally:
            self.host.ip("link set veth0 master br-0123456789ab")
            self.host.ip("link delete podman1")
            self.container.ip("address delete 10.88.0.5/16 dev inner")

    def test_names_and_kinds_that_are_no_container_s_are_not_let_in(self) -> None:
        need_full()
        server = self.server_at("0.0.0.0")
        call = ("10.89.0.5", "10.89.0.1")
        self.container.ip("address add 10.89.0.5/16 dev inner")
        self.addCleanup(self.container.ip, "address delete 10.89.0.5/16 dev inner")
        for name, kind in (
            ("br0", "bridge"),
            ("br-lan", "bridge"),
            ("br-0123456789aB", "bridge"),
            ("virbr0", "bridge"),
            ("docker1", "bridge"),
            ("podman", "bridge"),
            ("docker0", "veth peer name podman0"),
        ):
            with self.subTest(name):
                self.host.ip(f"link add {name} type {kind}", f"link set {name} up")
                try:
                    self.host.ip(f"address add 10.89.0.1/16 dev {name}")
                    self.host.ip("route replace 10.89.0.5/32 dev br-0123456789ab")
                    told = self.container.ask(server.port, call)
                    self.assertEqual(told, ["403"])
                finally:
                    self.host.ip(f"link delete {name}")

    def test_the_host_s_name_in_containers_is_good_only_there(self) -> None:
        server = self.server_at()
        for name in ("host.docker.internal", "host.containers.internal"):
            host = f"{name}:{server.port}"
            call = (*self.host.CONTAINER, "/health", host)
            self.assertEqual(self.container.ask(server.port, call), ["200"])
            call = (*self.host.CONTAINER_6, "/health", host)
            self.assertEqual(self.container.ask(server.port, call), ["200"])
            # A browser of the host itself calls a bridge from the bridge's address.
            for own in ("127.0.0.1", "192.168.96.1", "fd00:96::1"):
                call = (own, own, "/health", host)
                self.assertEqual(self.host.ask(server.port, call), ["421"])


@slow
class FloodTest(StrangersCase):
    """One who takes all that he gets, and one who only wants his answer."""

    def honest(self, space: Namespace, server: Server, call: tuple[str, str]) -> Any:
        text = space.python(HONEST, call[1], server.port, call[0], 25)
        told = json.loads(text)
        failed = [status for status, _ in told if status != 200]
        self.assertEqual(failed, [])
        return statistics.median(took_s for _, took_s in told)

    def test_strangers_cost_no_thread_no_place_and_no_time(self) -> None:
        server = self.server_at("0.0.0.0")
        before = self.count(server, "task"), self.count(server, "fd")
        source, target = self.host.NEIGHBOUR
        for data in ("", "GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"):
            holds = (target, server.port, source, 400, data)
            with self.neighbour.running(HOLD, *holds):
                # Those who were served before may have left some that wait for more.
                self.assertLess(self.count(server, "task"), before[0] + 3 + IDLE_LIMIT)
                self.assertLess(self.count(server, "fd"), before[1] + 25)
                own = ("127.0.0.1", "127.0.0.1")
                self.assertLess(self.honest(self.host, server, own), 0.1)
        wait_until(lambda: self.count(server, "fd") <= before[1] + 2)

    def test_a_stranger_is_told_why_whatever_he_sends(self) -> None:
        server = self.server_at("0.0.0.0")
        calls = [(*self.host.NEIGHBOUR, "/" + "x" * 20000)] * 30
        padded = [(*call, "") for call in calls]
        told = self.neighbour.ask(server.port, *padded)
        self.assertEqual(told, ["403"] * 30)

    def test_busy_connections_of_one_client_are_worked_on_in_turn(self) -> None:
        server = self.server_at("0.0.0.0")
        source, target = self.host.CONTAINER
        for path, body in (
            ("/crons", ""),
            ("/metrics", ""),
            ("/runs?limit=200", ""),
            ("/trigger", "[" * 30000 + "]" * 30000),
            ("/trigger", '{"cronName": "nap"}'),
        ):
            busy = (server.port, path, body)
            with self.subTest(path), self.host.running(BUSY, *busy):
                median_s = self.honest(self.container, server, (source, target))
                self.assertLess(median_s, 0.1)

    def test_one_local_client_keeps_nobody_from_anything(self) -> None:
        server = self.server_at("0.0.0.0")
        source, target = self.host.CONTAINER
        path = server.state_dir
        with self.host.running(FLOOD, server.port, 4) as flood:
            median_s = self.honest(self.container, server, (source, target))
            self.assertLess(median_s, 0.1)
            run_id = server.rows("select max(id) from cron_executions")[0][0]
            for path_ in ("/events", f"/runs/{run_id}/log?follow=true"):
                call = (source, target, path_, "")
                self.assertEqual(self.container.ask(server.port, call), ["200"])
            plan = self.container.python(
                "import http.client, json, sys\n"
                "made = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))\n"
                "body = {'cronName': 'hello', 'runAt': '2099-01-01T00:00:00Z'}\n"
                "made.request('POST', '/trigger', json.dumps(body),\n"
                "             {'Content-Type': 'application/json'})\n"
                "print(made.getresponse().status)",
                target,
                server.port,
            )
            self.assertEqual(plan, "202\n")
            assert flood.stdout
            counts = json.loads(flood.stdout.readline())
        self.assertGreater(counts["refused"], 100, counts)
        planned = server.rows("select count(*) from scheduled_triggers")[0][0]
        self.assertLessEqual(planned, 520)
        self.assertLess(sum(p.stat().st_size for p in path.iterdir()), 6 << 20)
        log = Path(server.log_dir / "cron-trigger-server.log")
        self.assertLess(log.stat().st_size, 1 << 20)
        self.assertNotIn("internal error", server.log_text())


if __name__ == "__main__":
    unittest.main()
