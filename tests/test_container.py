"""A caller in a container: README's Next.js route, and the name host.docker.internal.

Two network namespaces stand in for the host and a container on its Docker bridge. They
belong to processes, so that nothing of them is left once these ended.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from support import REPOSITORY, Server, need, need_full, npm_folder

#: Types and a compiler: no binary of Next.js' own is needed.
NPM_PACKAGES = (
    "--omit=optional",
    *("next@16", "react@19", "react-dom@19", "typescript@~5.9.0"),
    *("@types/node@20", "@types/react@19"),
)
BRIDGE = "br-0123456789ab"
GATEWAY = "172.18.0.1"
CONTAINER = "172.18.0.5"

# What the application has and README leaves to it: its session check.
SESSION = """
export async function currentAdmin(): Promise<{ email: string } | null> {
  const email = process.env.TEST_ADMIN;
  return email ? { email } : null;
}
"""
COMPILER_OPTIONS = {
    "strict": True,
    "noEmitOnError": True,
    "target": "es2022",
    "lib": ["es2022", "dom"],
    "module": "commonjs",
    "moduleResolution": "node10",
    "esModuleInterop": True,
    "skipLibCheck": True,  # as `create-next-app` sets it
    "types": ["node"],
    "paths": {"@/*": ["./*"]},
    "outDir": "out",
}
# Calls the compiled route once, as Next.js would, and prints its answer.
CALL = """
const { NextRequest } = require("next/server");
const route = require("./out/app/api/admin/crons/route.js");
const [method, type, body] = process.argv.slice(2);
const request = new NextRequest("http://app.example/api/admin/crons", {
  method,
  headers: type ? { "Content-Type": type } : {},
  body: body || undefined,
});
route[method](request).then(async (response) => {
  const answer = await response.json();
  console.log(JSON.stringify({ status: response.status, answer }));
});
"""
REGISTRY = {
    "sleeper": {"description": "sleeps", "command": ["/bin/sleep", "600"]},
    "quick": {
        "description": "is over at once",
        "command": "/bin/true",
        "parameters": {"days": {"type": "integer"}},
    },
}


def route_of_readme() -> str:
    """The TypeScript of README's route handler."""
    blocks = re.findall(
        r"^```ts\n(.*?)^```",
        (REPOSITORY / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    routes = [block for block in blocks if "route.ts" in block.splitlines()[0]]
    assert len(routes) == 1, "README.md shows one route.ts"
    return str(routes[0])


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


class Namespace:
    """A network namespace with mounts of its own, until `close`."""

    def __init__(self) -> None:
        # It ends with its standard input: no later than this test.
        script = "mount -t sysfs none /sys; ip link set lo up && echo ready && exec cat"
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
        cls.host.run("ip", "link", "add", BRIDGE, "type", "bridge")
        for link, inner in (("veth0", "eth0"), ("card0", "eth1")):
            pair = f"ip link add {link} type veth peer name {inner} netns"
            cls.host.run(*pair.split(), str(cls.container.pid))
            cls.host.run("ip", "link", "set", link, "up")
        cls.host.run("ip", "link", "set", "veth0", "master", BRIDGE)
        for space, link, address in (
            (cls.host, BRIDGE, f"{GATEWAY}/16"),
            (cls.container, "eth0", f"{CONTAINER}/16"),
            # A network that is not Docker's.
            (cls.host, "card0", "10.99.0.1/24"),
            (cls.container, "eth1", "10.99.0.5/24"),
        ):
            space.run("ip", "addr", "add", address, "dev", link)
            space.run("ip", "link", "set", link, "up")
        hosts = cls.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{GATEWAY} host.docker.internal\n")
        cls.container.run("mount", "--bind", str(hosts), "/etc/hosts")

    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: str) -> None:
        self.server = Server(
            REGISTRY,
            environ=settings,
            arguments=("--host=0.0.0.0",),
            python=self.host.within(sys.executable),
        )
        self.addCleanup(self.server.__exit__)
        self.server.__enter__()

    def curl(self, path: str, *options: str, host: str = "host.docker.internal") -> Any:
        url = f"http://{host}:{self.server.port}{path}"
        return json.loads(self.container.run("curl", "-sS", "-m10", *options, url))


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
        answer = self.curl("/health", host="10.99.0.1")
        self.assertEqual(answer["code"], "forbidden")
        self.serve(CRON_TRIGGER_ALLOW="10.99.0.0/24")
        self.assertEqual(self.curl("/health", host="10.99.0.1")["status"], "healthy")
        self.assertEqual(self.curl("/health")["code"], "forbidden")

    def test_another_name_is_refused(self) -> None:
        answer = self.curl("/crons", "-H", "Host: attacker.example")
        self.assertEqual(answer["code"], "misdirected_request")


class Route(Container):
    """README's route handler, compiled under `strict`, called in the container."""

    application: Path
    modules: Path

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        cls.modules = npm_folder(*NPM_PACKAGES) / "node_modules"
        super().setUpClass()
        cls.application = cls.folder / "application"
        cls.compile()

    @classmethod
    def compile(cls) -> None:
        top = cls.application
        route = make_folder(top / "app/api/admin/crons") / "route.ts"
        route.write_text(route_of_readme())
        (make_folder(top / "lib") / "session.ts").write_text(SESSION)
        (top / "tsconfig.json").write_text(
            json.dumps({"compilerOptions": COMPILER_OPTIONS})
        )
        (top / "call.js").write_text(CALL)
        make_folder(top / "node_modules")
        for package in cls.modules.iterdir():
            (top / "node_modules" / package.name).symlink_to(package)
        done = subprocess.run(
            ["node", str(cls.modules / "typescript/bin/tsc"), "--project", str(top)],
            cwd=top,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"README's route does not compile: {done.stdout}")
        # Node resolves the application's "@/lib" as if it were a package.
        (top / "node_modules/@").symlink_to(top / "out")

    def setUp(self) -> None:
        super().setUp()
        self.environment = {
            "TEST_ADMIN": "admin@example.org",
            "CRON_TRIGGER_SERVER_URL": self.url(),
        }

    def url(self) -> str:
        return f"http://host.docker.internal:{self.server.port}/trigger"

    def call(
        self, method: str, body: str = "", kind: str = "application/json"
    ) -> tuple[int, Any]:
        """Call the route as Next.js would: (status, content)."""
        changes = [f"{key}={value}" for key, value in self.environment.items()]
        script = str(self.application / "call.js")
        given = (method, kind, body) if body else (method,)
        done = self.container.run("env", *changes, "node", script, *given)
        answer = json.loads(done)
        return answer["status"], answer["answer"]

    def trigger(self, cron: str, **more: Any) -> tuple[int, Any]:
        return self.call("POST", json.dumps({"cronName": cron, **more}))

    def test_get_lists_the_crons(self) -> None:
        status, answer = self.call("GET")
        self.assertEqual(status, 200, answer)
        names = [cron["cronName"] for cron in answer["crons"]]
        self.assertEqual(names, ["sleeper", "quick"])

    def test_post_starts_a_cron_in_the_administrators_name(self) -> None:
        status, answer = self.trigger(
            "quick", params={"days": 3}, requestedBy="somebody-else@example.org"
        )
        self.assertEqual(status, 202, answer)
        run = self.curl(f"/runs/{answer['runId']}")["run"]
        self.assertEqual(run["requestedBy"], "admin@example.org")
        self.assertEqual(run["params"], {"days": 3})

    def test_cron_that_runs_is_refused_in_words(self) -> None:
        run_id = self.trigger("sleeper")[1]["runId"]
        status, answer = self.trigger("sleeper")
        self.assertEqual(status, 409)
        self.assertEqual(
            answer["error"], "Ce cron est déjà en cours d'exécution. Attendez sa fin."
        )
        self.assertEqual(answer["runId"], run_id)

    def test_other_refusals_are_the_servers_own_words(self) -> None:
        status, answer = self.trigger("unheard-of")
        self.assertEqual((status, answer["code"]), (404, "unknown_cron"))
        self.assertEqual(answer["availableCrons"], ["sleeper", "quick"])

    def test_nobody_without_a_session(self) -> None:
        self.environment["TEST_ADMIN"] = ""
        self.assertEqual(self.call("GET")[0], 401)
        self.assertEqual(self.trigger("quick")[0], 401)
        self.assertEqual(self.curl("/runs")["runs"], [])

    def test_form_of_another_site_is_refused(self) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            status, _ = self.call("POST", '{"cronName": "quick"}', kind)
            self.assertEqual(status, 415)
        self.assertEqual(self.call("POST", "[1")[0], 400)
        self.assertEqual(self.call("POST", "null")[0], 400)
        self.assertEqual(self.curl("/runs")["runs"], [])

    def test_secret(self) -> None:
        self.serve(CRON_TRIGGER_SECRET="right-right-right")
        self.environment["CRON_TRIGGER_SERVER_URL"] = self.url()
        self.assertEqual(self.call("GET")[1]["code"], "wrong_secret")
        self.environment["CRON_TRIGGER_SECRET"] = "right-right-right"
        self.assertEqual(self.call("GET")[0], 200)
        self.assertEqual(self.trigger("quick")[0], 202)

    def test_server_that_is_away(self) -> None:
        self.server.kill()
        status, answer = self.call("GET")
        self.assertEqual((status, answer["code"]), (502, "unreachable"))


if __name__ == "__main__":
    unittest.main()
