"""A caller in a container, and the name host.docker.internal.

Two network namespaces stand in for the host and a container on its Docker bridge. They
belong to processes, so that nothing of them is left once these ended.  What a whole
application in such a container does is in test_nextjs.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Mapping

from support import Server, need, slow

#: What Docker calls the bridge of a network that compose makes.
BRIDGE = "br-0123456789ab"
GATEWAY = "172.18.0.1"
CONTAINER = "172.18.0.5"
OTHER_GATEWAY = "10.99.0.1"

REGISTRY = {
    "sleeper": {"description": "sleeps", "command": ["/bin/sleep", "600"]},
    "quick": {
        "description": "is over at once",
        "command": "/bin/true",
        "parameters": {"days": {"type": "integer"}},
    },
}


class Namespace:
    """A network namespace with mounts of its own, until `close`."""

    def __init__(self) -> None:
        # It ends with its standard input: no later than this test.  /sys shows the
        # interfaces of whoever mounted it.
        script = "mount -t sysfs sysfs /sys && ip link set lo up && echo ready"
        script += " && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"ready\n"
        self.pid = self._holder.pid

    def within(self, *command: str) -> list[str]:
        """The command line that runs a command in here."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount"]
        # nsenter goes to the namespace's working directory otherwise.
        return [*enter, f"--wd={os.getcwd()}", "--", *command]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            self.within(*command), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def close(self) -> None:
        self._holder.communicate(timeout=10)


class Container(unittest.TestCase):
    """A host that serves, and a container on its bridge that calls."""

    folder: Path
    host: Namespace
    container: Namespace

    @classmethod
    def setUpClass(cls) -> None:
        need(os.geteuid() == 0, "a network namespace needs root")
        for tool in ("ip", "unshare", "nsenter", "curl"):
            need(shutil.which(tool), f"{tool} is not installed")
        cls.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-container-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.host = Namespace()
        cls.addClassCleanup(cls.host.close)
        cls.container = Namespace()
        cls.addClassCleanup(cls.container.close)
        cls.connect()

    @classmethod
    def connect(cls) -> None:
        """Give the two what Docker gives a host and a container with `extra_hosts`."""
        host, container = cls.host, cls.container
        for link, peer in (("veth0", "eth0"), ("lan0", "eth1")):
            pair = f"ip link add {link} type veth peer name {peer} netns"
            host.run(*pair.split(), str(container.pid))
        host.run("ip", "link", "add", BRIDGE, "type", "bridge")
        host.run("ip", "link", "set", "veth0", "master", BRIDGE)
        host.run("ip", "link", "set", "veth0", "up")
        for space, link, address in (
            (host, BRIDGE, f"{GATEWAY}/16"),
            (container, "eth0", f"{CONTAINER}/16"),
            # A network that is not Docker's.
            (host, "lan0", f"{OTHER_GATEWAY}/24"),
            (container, "eth1", "10.99.0.5/24"),
        ):
            space.run("ip", "addr", "add", address, "dev", link)
            space.run("ip", "link", "set", link, "up")
        hosts = cls.folder / "hosts"
        names = "host.docker.internal cron.example"
        hosts.write_text(f"127.0.0.1 localhost\n{GATEWAY} {names}\n")
        container.run("mount", "--bind", str(hosts), "/etc/hosts")

    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: str) -> None:
        self.server = self.made_server(REGISTRY, settings)
        self.server.start()

    def made_server(
        self,
        registry: Mapping[str, Any],
        settings: Mapping[str, str],
        *arguments: str,
    ) -> Server:
        """Return a server of the host, not started yet, that is gone after the test."""
        server = Server(
            registry,
            environ=settings,
            arguments=("--host=0.0.0.0", *arguments),
            python=self.host.within(sys.executable),
        )
        self.addCleanup(server.__exit__)
        return server

    def curl(self, path: str, *options: str, host: str = "host.docker.internal") -> Any:
        url = f"http://{host}:{self.server.port}{path}"
        return json.loads(self.container.run("curl", "-sS", "-m10", *options, url))


@slow
class Name(Container):
    """The server as a container sees it."""

    def test_the_name_host_docker_internal_reaches_the_server(self) -> None:
        self.assertEqual(self.curl("/health")["status"], "healthy")
        body = '{"cronName": "quick"}'
        as_json = ("-H", "Content-Type: application/json")
        answer = self.curl("/trigger", *as_json, "-d", body)
        self.assertTrue(answer["success"], answer)
        run = self.curl(f"/runs/{answer['runId']}")["run"]
        self.assertEqual(run["client"], CONTAINER)

    def test_another_network_is_refused(self) -> None:
        answer = self.curl("/health", host=OTHER_GATEWAY)
        self.assertEqual(answer["code"], "forbidden")
        self.serve(CRON_TRIGGER_ALLOW="10.99.0.0/24")
        self.assertEqual(self.curl("/health", host=OTHER_GATEWAY)["status"], "healthy")
        self.assertEqual(self.curl("/health")["code"], "forbidden")

    def test_another_name_is_refused(self) -> None:
        answer = self.curl("/crons", "-H", "Host: attacker.example")
        self.assertEqual(answer["code"], "misdirected_request")


if __name__ == "__main__":
    unittest.main()
