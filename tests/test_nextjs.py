"""The example dashboard for Next.js: copied, built and used as an application has it.

The full run makes what `create-next-app` makes today, copies the example in, builds it,
starts it in production mode in a container's network namespace (test_container.py), and
drives it with a real Chromium.  The plain run only reads the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Optional

from beside import beside
from browser import chromium, chromium_path
from support import (
    CACHE,
    REPOSITORY,
    Server,
    need,
    need_command,
    need_full,
    npm_folder,
    slow,
    wait_until,
)
from test_container import Container

from cron_trigger.registry.errors import STATUS_OF_CODE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request, Route

EXAMPLE = REPOSITORY / "examples" / "nextjs"
ROUTES = "app/api/admin/cron-executions"
COMPONENTS = "components/super-admin/monitoring"
PARTS = ("app", "components", "lib")

CREATE_NEXT_APP = "create-next-app@16"
#: An empty application without fonts from elsewhere, else with what it has by default.
CREATE_OPTIONS = (
    *("--empty", "--ts", "--app", "--no-tailwind", "--no-eslint", "--no-src-dir"),
    *("--import-alias", "@/*", "--use-npm", "--disable-git", "--yes"),
)
#: Stricter than `strict`: whoever copies the example may have them on.
STRICTER = (
    "--noUncheckedIndexedAccess",
    "--exactOptionalPropertyTypes",
    "--noImplicitOverride",
    "--noUnusedLocals",
    "--noUnusedParameters",
)
ADMIN = "admin@example.org"
SECRET = "right-right-right-right"
CRON_PORT = 9998
APPLICATION = "http://127.0.0.1:3000"

# What the application has and the example leaves to it.
THEIR_FILES = {
    "lib/session.ts": """
import { cookies } from "next/headers";

export async function currentAdmin(): Promise<{ email: string } | null> {
  const email = (await cookies()).get("admin")?.value;
  return email ? { email } : null;
}
""",
    "app/page.tsx": """
import CronsAndBatchesTab from "@/components/super-admin/monitoring/CronsAndBatchesTab";

export default function Page() {
  return <main><h1>Monitoring</h1><CronsAndBatchesTab /></main>;
}
""",
    "app/alone/page.tsx": """
import { CronQuickTrigger } from "@/components/super-admin/monitoring/CronQuickTrigger";

export default function Page() {
  return <main><CronQuickTrigger /></main>;
}
""",
    # The settings change under a running application, so that not each test starts one.
    "app/test-settings/route.ts": """
export async function POST(request: Request): Promise<Response> {
  const settings = (await request.json()) as Record<string, string>;
  for (const name of Object.keys(process.env))
    if (name.startsWith("CRON_TRIGGER_")) delete process.env[name];
  Object.assign(process.env, settings);
  return Response.json({});
}
""",
}

PARAMETERS = {
    "day": {"type": "string", "format": "date", "title": "Jour", "required": True},
    "mode": {"type": "string", "enum": ["fast", "full"], "default": "fast"},
    "keep": {"type": "integer", "title": "Garder", "minimum": 1, "maximum": 30},
    "word": {"type": "string", "title": "Mot", "pattern": "[a-z]+"},
    "dry": {"type": "boolean", "title": "Simuler", "default": True},
    "token": {"type": "string", "format": "password", "title": "Jeton"},
}
#: Prints a line each time that its test lets it, so that a log grows step by step.
STEPS = """#!/bin/sh
step=1
while [ $step -le 4 ]; do
    until [ -e "step-$step" ]; do sleep 0.05; done
    echo "étape $step sur 4"
    step=$((step + 1))
done
"""
SCRIPTS = {
    "quick": "#!/bin/sh\necho bonjour\n",
    "slow": "#!/bin/sh\necho commence\nexec sleep 600\n",
    "steps": STEPS,
    "params": "#!/bin/sh\nenv | grep ^CRON_PARAM_ | sort\n",
}
REGISTRY: dict[str, Any] = {
    "quick": {"description": "Un cron rapide", "estimatedDuration": "2s"},
    "slow": {"description": "Un cron lent", "estimatedDuration": "1m30s"},
    "steps": {"description": "Un cron par étapes"},
    "params": {"description": "Avec paramètres", "parameters": PARAMETERS},
    "missing": {"description": "Sans script"},
}


def with_commands(registry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"command": f"./{name}.sh", **entry} for name, entry in registry.items()
    }


# ---- The files


class Files(unittest.TestCase):
    """What stands in the example."""

    def sources(self) -> Iterator[tuple[str, str]]:
        for path in sorted(EXAMPLE.rglob("*.ts*")):
            yield str(path.relative_to(EXAMPLE)), path.read_text(encoding="utf-8")

    def test_each_file_is_where_the_application_looks_for_it(self) -> None:
        for path in (
            f"{ROUTES}/trigger/route.ts",
            "lib/cron-trigger.ts",
            "lib/session.example.ts",
            f"{COMPONENTS}/CronQuickTrigger.tsx",
            f"{COMPONENTS}/CronTriggerModal.tsx",
            f"{COMPONENTS}/CronsAndBatchesTab.tsx",
            "README.md",
        ):
            self.assertTrue((EXAMPLE / path).is_file(), path)

    def test_each_component_is_a_named_and_the_default_export(self) -> None:
        for path in (EXAMPLE / COMPONENTS).glob("*.tsx"):
            text = path.read_text(encoding="utf-8")
            self.assertIn(f"export function {path.stem}(", text)
            self.assertIn(f"export default {path.stem};", text)
            self.assertTrue(text.startswith('"use client";'), path)

    def test_it_needs_nothing_but_next_and_react(self) -> None:
        known = re.compile(r"(react|node:[\w/]+|@/lib/[\w-]+|\.\.?/.*)$")
        for path, text in self.sources():
            for module in re.findall(r'(?:from|import) "([^"]+)"', text):
                self.assertRegex(module, known, path)

    def test_components_take_only_types_from_the_server_side(self) -> None:
        for path, text in self.sources():
            if path.startswith("components/"):
                self.assertEqual(re.findall(r'import \{.*"@/lib', text), [], path)

    def test_the_words_of_the_order_are_exact(self) -> None:
        text = "".join(text for _, text in self.sources())
        for words in (
            '"Démarrage…"',
            '"✅ Cron démarré avec succès !"',
            '"Ce cron est déjà en cours d\'exécution. Attendez sa fin."',
            '"En cours"',
        ):
            self.assertIn(words, text)
        self.assertIn("REFRESH_MS = 30_000;", text)
        self.assertIn("CLOSES_AFTER_MS = 2_000;", text)

    def test_the_example_session_lets_nobody_in(self) -> None:
        text = (EXAMPLE / "lib" / "session.example.ts").read_text(encoding="utf-8")
        self.assertIn("currentAdmin(): Promise<{ email: string } | null>", text)
        self.assertIn("REPLACE THIS", text)
        self.assertRegex(text, r"\n  return null;\n}\n$")


class Types(unittest.TestCase):
    """The types by hand, against what a real server says."""

    def fields_of(self, name: str) -> list[str]:
        text = (EXAMPLE / "lib" / "cron-trigger.ts").read_text(encoding="utf-8")
        section = text.partition("// ---- Types: the interface of")[2]
        body = section.partition(f"\nexport type {name} = {{\n")[2].partition("\n};")[0]
        self.assertTrue(body, f"there is no type {name}")
        return re.findall(r"^  (\w+)\??:", body, re.MULTILINE)

    def test_they_know_every_field_that_the_server_sends(self) -> None:
        registry = {"quick": {"description": "q", "command": "/bin/true"}}
        with Server(registry) as server:
            server.completed("quick")
            server.trigger("quick", runAt="2099-01-01T00:00:00Z")
            cron = server.get("/crons").json["crons"][0]
            run = server.get("/runs").json["runs"][0]
            planned = server.get("/scheduled").json["scheduled"][0]
        for name, told in (("Cron", cron), ("Run", run), ("ScheduledTrigger", planned)):
            self.assertEqual(set(told) - set(self.fields_of(name)), set(), name)


#: Each shape of the example against what the document's generated types say: identical,
#: also in what is optional; of errors, of which there are many, every key.
SAME = """
import type { components, paths } from "../interface";
import type * as Ours from "./cron-trigger";

type Plain<T> = T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Identical<A, B> =
  (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
type Same<A, B> = Identical<Plain<A>, Plain<B>>;
type KeyOf<T> = T extends unknown ? keyof T : never;

type Schemas = components["schemas"];
type Json<T> =
  T extends { content: { "application/json": infer Content } } ? Content : never;
type Said<Operation> = Operation extends { responses: infer Responses }
  ? Json<Responses[keyof Responses & (200 | 202)]>
  : never;
type Errors = Json<components["responses"][keyof components["responses"]]>;

function holds<_Claim extends true>(): void {}

holds<Same<Ours.ParameterValue, Schemas["ParamValues"][string]>>();
holds<Same<Ours.Parameter, Schemas["Parameter"]>>();
holds<Same<Ours.Run, Schemas["Run"]>>();
holds<Same<Ours.ExternalRun, Schemas["External"]>>();
holds<Same<Ours.Cron, Schemas["Cron"]>>();
holds<Same<Ours.ScheduledTrigger, Schemas["Scheduled"]>>();
holds<Same<Ours.Triggered, Said<paths["/trigger"]["post"]>>>();
holds<Same<Ours.CronList, Said<paths["/crons"]["get"]>>>();
holds<Same<Ours.RunList, Said<paths["/runs"]["get"]>>>();
holds<Same<Ours.OneRun, Said<paths["/runs/{ID}"]["get"]>>>();
holds<Same<Ours.OneRun, Said<paths["/runs/{ID}/cancel"]["post"]>>>();
holds<Same<Ours.ScheduledList, Said<paths["/scheduled"]["get"]>>>();
holds<Same<Ours.OneScheduled, Said<paths["/scheduled/{ID}"]["delete"]>>>();
holds<[Errors] extends [Ours.Problem] ? true : false>();
holds<Identical<KeyOf<Errors>, keyof Ours.Problem>>();
"""
SETTINGS = {
    "strict": True,
    "noEmit": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "lib": ["es2023", "dom", "dom.iterable"],
    "types": ["node"],
    "skipLibCheck": True,
}


#: What is to be seen if it happens to the example or to the document.
CHANGES = (
    ("  cpuSeconds: number", "  cpuTime: number"),
    ("  title?: string;", "  titel?: string;"),
    ("  title?: string;", "  title: string;"),
    ("  stopping: boolean;", "  stopping: boolean | null;"),
    ('  | "timed_out"\n', ""),
    ("  createdAt: string;", "  createdAt: string;\n  more: string;"),
    ("  availableCrons?: string[];", "  available?: string[];"),
)


@slow
class Interface(unittest.TestCase):
    """The types by hand, against those that a generator makes of docs/openapi.json."""

    document = REPOSITORY / "docs" / "openapi.json"
    library = EXAMPLE / "lib" / "cron-trigger.ts"

    def test_they_are_the_same_and_a_difference_is_seen(self) -> None:
        packages = ("openapi-typescript@7", "typescript@5", "@types/node@22")
        modules = npm_folder(*packages) / "node_modules"
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "node_modules").symlink_to(modules)
        made = self.node("openapi-typescript/bin/cli.js", self.document)
        (self.folder / "interface.ts").write_text(made.stdout, encoding="utf-8")
        text = self.library.read_text(encoding="utf-8")
        self.write("same", text)
        for number, change in enumerate(CHANGES):
            self.assertEqual(text.count(change[0]), 1, change)
            self.write(f"change-{number}", text.replace(*change))
        settings = {"compilerOptions": SETTINGS, "include": ["*/*.ts"]}
        (self.folder / "tsconfig.json").write_text(json.dumps(settings))
        # One call for all: most of its time goes into the language's own types.
        said = self.node("typescript/bin/tsc", "-p", ".").stdout
        of_same = [line for line in said.splitlines() if "change-" not in line]
        self.assertEqual(of_same, [])
        for number, change in enumerate(CHANGES):
            with self.subTest(change):
                self.assertRegex(said, rf"change-{number}/.* does not satisfy")

    def write(self, name: str, text: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        (folder / "cron-trigger.ts").write_text(text, encoding="utf-8")
        (folder / "same.ts").write_text(SAME, encoding="utf-8")

    def node(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", f"node_modules/{script}", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def test_it_knows_every_event_and_no_code_that_is_none(self) -> None:
        text = self.library.read_text(encoding="utf-8")
        union = text.partition("export type CronEventName =")[2].partition(";")[0]
        events = json.loads(self.document.read_text("utf-8"))["paths"]["/events"]
        told = events["get"]["responses"]["200"]["description"]
        named = re.findall(r"\b(?:run|schedule|cron|registry)\.\w+", told)
        self.assertEqual(set(re.findall(r'"([\w.]+)"', union)), set(named))
        refusals = text.partition("const REFUSALS:")[2].partition("\n};")[0]
        codes = re.findall(r"^  (\w+):", refusals, re.MULTILINE)
        self.assertEqual(set(codes) - set(STATUS_OF_CODE), set())


# ---- The application


def created_application() -> Path:
    """Return what `create-next-app` makes, with its packages; made but once."""
    name = repr((CREATE_NEXT_APP, CREATE_OPTIONS))
    made = CACHE / f"next-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "next.lock").open("w") as lock:
        # Whoever makes it just now, ahead or in another run, is waited for.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            create_application(made)
    return made


def create_application(made: Path) -> None:
    creator = npm_folder(CREATE_NEXT_APP) / "node_modules/create-next-app"
    half = Path(tempfile.mkdtemp(prefix="next-", dir=CACHE))
    done = subprocess.run(
        ["node", str(creator / "dist/index.js"), "application", *CREATE_OPTIONS],
        cwd=half,
        # Not with whatever somebody chose here before.
        env={
            **os.environ,
            "XDG_CONFIG_HOME": str(half),
            "NEXT_TELEMETRY_DISABLED": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 0:
        (half / "application").rename(made)
    shutil.rmtree(half, ignore_errors=True)
    output = f"{done.stdout}{done.stderr}"
    need(made.is_dir(), f"create-next-app can't make an application: {output[-300:]}")


class Application:
    """The created application with the example in it, built."""

    def __init__(self, *, cache_components: bool) -> None:
        created = created_application()
        # Beside it: the packages are linked, and a link may not leave its file system.
        self.folder = Path(tempfile.mkdtemp(prefix="next-built-", dir=CACHE))
        copied = [str(path) for path in created.iterdir() if path.name != ".next"]
        subprocess.run(["cp", "-al", *copied, str(self.folder)], check=True)
        for part in PARTS:
            shutil.copytree(EXAMPLE / part, self.folder / part, dirs_exist_ok=True)
        for path, text in THEIR_FILES.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # it may be a link to the created one's
            file.write_text(text, encoding="utf-8")
        self._configure(cache_components)
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CRON_TRIGGER_")
        }
        self.environ["NEXT_TELEMETRY_DISABLED"] = "1"
        self.output = self.run("node", "node_modules/next/dist/bin/next", "build")

    def _configure(self, cache_components: bool) -> None:
        """Switch cacheComponents; today a new application has it on."""
        config = self.folder / "next.config.ts"
        text = config.read_text(encoding="utf-8")
        assert "cacheComponents: true" in text, text
        config.unlink()
        if not cache_components:
            text = re.sub(r"(cacheComponents|partialPrefetching): true,", "", text)
        config.write_text(text, encoding="utf-8")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def prerendered_routes(self) -> list[str]:
        """Return the API routes whose answer was made at build time, from its table."""
        lines = [line for line in self.output.splitlines() if "/api/" in line]
        assert len(lines) == 8, self.output
        return [line for line in lines if "ƒ" not in line]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Built:
    """What all classes share, made when the first needs it."""

    closing = contextlib.ExitStack()
    application: Optional[Application] = None

    @classmethod
    def get(cls) -> Application:
        if cls.application is None:
            cls.application = Application(cache_components=True)
            cls.closing.callback(cls.application.remove)
        return cls.application


def tearDownModule() -> None:
    Built.closing.close()
    Built.application = None


class Build(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        need_command("npm")

    def test_no_answer_is_made_at_build_time(self) -> None:
        self.assertIn("Cache Components enabled", Built.get().output)
        self.assertEqual(Built.get().prerendered_routes(), [])

    def test_it_builds_without_cache_components(self) -> None:
        application = Application(cache_components=False)
        self.addCleanup(application.remove)
        self.assertNotIn("Cache Components enabled", application.output)
        self.assertEqual(application.prerendered_routes(), [])

    def test_it_holds_under_stricter_options(self) -> None:
        compiler = ("node", "node_modules/typescript/bin/tsc", "--noEmit")
        Built.get().run(*compiler, "--incremental", "false", *STRICTER)


class InContainer(Container):
    """The application in production mode, in the container; servers on the host."""

    application: Application
    log: Path

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        need_command("npm")
        super().setUpClass()
        cls.application = Built.get()
        cls.log = cls.folder / "application.log"
        cls.start_application()

    @classmethod
    def start_application(cls) -> None:
        port = APPLICATION.rpartition(":")[2]
        start = ("node_modules/next/dist/bin/next", "start", "-H127.0.0.1", f"-p{port}")
        where = f"--wd={cls.application.folder}"
        enter = [f"--target={cls.container.pid}", "--net", "--mount", where]
        with open(cls.log, "ab") as log:
            process = subprocess.Popen(
                ["nsenter", *enter, "--", "node", *start],
                env={**cls.application.environ, "TZ": "Europe/Paris"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        cls.addClassCleanup(cls.end, process)
        wait_until(
            lambda: "Ready in" in cls.log_text() or process.poll() is not None,
            60,
            "the application's start",
        )
        assert process.poll() is None, cls.log_text()

    @staticmethod
    def end(process: subprocess.Popen[Any]) -> None:
        process.terminate()
        process.wait(20)

    @classmethod
    def log_text(cls) -> str:
        return cls.log.read_text(encoding="utf-8")

    def setUp(self) -> None:
        self.server = self.made_cron_server()
        self.server.start()
        self.configure()

    def made_cron_server(self, port: int = CRON_PORT, **settings: str) -> Server:
        server = self.made_server(with_commands(REGISTRY), settings, f"--port={port}")
        for name, text in SCRIPTS.items():
            server.script(f"{name}.sh", text)
        return server

    def configure(self, url: Optional[str] = None, **settings: str) -> None:
        """Give the application its settings, and none from before."""
        usual = f"http://host.docker.internal:{CRON_PORT}/trigger"
        chosen = {"CRON_TRIGGER_SERVER_URL": usual if url is None else url, **settings}
        self.call("POST", "/test-settings", chosen)

    # ---- requests: to the application as its page sends them, and past it

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        admin: str = ADMIN,
    ) -> tuple[int, Any]:
        """Send a request to the application; return status and JSON."""
        done = self.container.run(*self.request(method, path, body, headers, admin))
        content, _, status = done.rpartition("\n")
        return int(status), json.loads(content)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        admin: str = ADMIN,
    ) -> list[str]:
        sent = dict(headers or {})
        if admin:
            sent["Cookie"] = f"admin={admin}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        text = body if isinstance(body, str) else json.dumps(body)
        return [
            *("curl", "-sS", "-m60", "-X", method, "-w", "\n%{http_code}"),
            *(part for pair in sent.items() for part in ("-H", ": ".join(pair))),
            *(("--data-raw", text) if body is not None else ()),
            APPLICATION + path,
        ]

    def api(self, path: str = "") -> str:
        return f"/api/admin/cron-executions{path}"

    def list_crons(self) -> tuple[int, Any]:
        return self.call("GET", self.api("/trigger"))

    def trigger(self, cron: str, **more: Any) -> tuple[int, Any]:
        return self.call("POST", self.api("/trigger"), {"cronName": cron, **more})

    def runs(self) -> list[Any]:
        """The history of the server itself."""
        return list(self.curl("/runs")["runs"])

    def run_of(self, run_id: int) -> Any:
        return self.curl(f"/runs/{run_id}")["run"]

    def completed(self, cron: str, **more: Any) -> None:
        """Trigger a cron and wait for its end."""
        run_id = self.trigger(cron, **more)[1]["runId"]
        wait_until(lambda: self.run_of(run_id)["status"] == "completed")

    def restart(self) -> None:
        self.server.kill()
        self.server.start()


class Api(InContainer):
    """The routes, without a browser."""

    def test_get_lists_the_crons(self) -> None:
        status, answer = self.list_crons()
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["servers"], [{"name": "default", "reachable": True}])
        names = [(cron["cronName"], cron["server"]) for cron in answer["crons"]]
        self.assertEqual(names, [(name, "default") for name in REGISTRY])

    def test_post_starts_a_cron_in_the_administrators_name(self) -> None:
        status, answer = self.trigger(
            "params", params={"day": "2026-11-23"}, requestedBy="somebody-else"
        )
        self.assertEqual(status, 202, answer)
        run = self.run_of(answer["runId"])
        self.assertEqual(run["requestedBy"], ADMIN)
        self.assertEqual(run["params"]["day"], "2026-11-23")

    def test_address_of_300_characters_still_starts_it(self) -> None:
        body = {"cronName": "quick"}
        email = "a" * 300
        status, answer = self.call("POST", self.api("/trigger"), body, admin=email)
        self.assertEqual(status, 202, answer)
        self.assertEqual(self.run_of(answer["runId"])["requestedBy"], "a" * 200)

    def test_cron_that_runs_is_refused_in_words(self) -> None:
        run_id = self.trigger("slow")[1]["runId"]
        status, answer = self.trigger("slow")
        self.assertEqual((status, answer["code"]), (409, "already_running"))
        self.assertEqual(
            answer["error"], "Ce cron est déjà en cours d'exécution. Attendez sa fin."
        )
        self.assertEqual(answer["runId"], run_id)

    def test_other_refusals_keep_their_codes_and_facts(self) -> None:
        status, answer = self.trigger("unheard-of")
        self.assertEqual((status, answer["code"]), (404, "unknown_cron"))
        self.assertEqual(answer["availableCrons"], list(REGISTRY))
        status, answer = self.trigger("params", params={"keep": 31})
        self.assertEqual((status, answer["code"]), (400, "invalid_params"))
        self.assertEqual(set(answer["errors"]), {"day", "keep"})
        for path in ("/999", "/999/log", "/x", "/x/log"):
            status, answer = self.call("GET", self.api(path))
            self.assertEqual((status, answer["code"]), (404, "not_found"), path)

    def test_a_run_its_log_and_its_end(self) -> None:
        run_id = self.trigger("slow")[1]["runId"]
        log = self.api(f"/{run_id}/log")
        wait_until(lambda: "commence" in self.text(log), what="its first line")
        status, answer = self.call("POST", self.api(f"/{run_id}/cancel"), {})
        self.assertEqual((status, answer["run"]["server"]), (202, "default"))
        ended = wait_until(
            lambda: (run := self.one(run_id))["status"] != "running" and run
        )
        self.assertEqual(ended["status"], "cancelled")
        self.assertEqual(ended["cancelledBy"], ADMIN)
        status, answer = self.call("POST", self.api(f"/{run_id}/cancel"), {})
        self.assertEqual((status, answer["code"]), (409, "not_running"))

    def text(self, path: str) -> str:
        cookie = ("-H", f"Cookie: admin={ADMIN}")
        return self.container.run("curl", "-sS", *cookie, APPLICATION + path)

    def one(self, run_id: int) -> Any:
        return self.call("GET", self.api(f"/{run_id}"))[1]["run"]

    def test_the_history_is_filtered_and_has_pages(self) -> None:
        for _ in range(3):
            self.completed("quick")
        status, answer = self.call("GET", self.api("?cron=quick&limit=2"))
        self.assertEqual((status, len(answer["runs"])), (200, 2))
        self.assertEqual(answer["runs"][0]["server"], "default")
        path = self.api(f"?cron=quick&limit=2&before={answer['next']}")
        rest = self.call("GET", path)[1]
        self.assertEqual((len(rest["runs"]), rest["next"]), (1, None))
        self.assertEqual(self.call("GET", self.api("?status=failed"))[1]["runs"], [])
        self.assertEqual(self.call("GET", self.api("?status=bad"))[0], 400)

    def test_nobody_without_a_session(self) -> None:
        for method, path in (
            ("GET", "/trigger"),
            ("POST", "/trigger"),
            ("GET", ""),
            ("GET", "/1"),
            ("GET", "/1/log"),
            ("POST", "/1/cancel"),
            ("GET", "/scheduled"),
            ("DELETE", "/scheduled/1"),
            ("GET", "/events"),
        ):
            body = {"cronName": "quick"} if method == "POST" else None
            status, answer = self.call(method, self.api(path), body, admin="")
            self.assertEqual((status, answer["code"]), (401, "unauthorized"), path)
        self.assertEqual(self.runs(), [])

    def test_form_of_another_site_is_refused(self) -> None:
        path = self.api("/trigger")
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            sent = {"Content-Type": kind}
            status, answer = self.call("POST", path, '{"cronName": "quick"}', sent)
            self.assertEqual((status, answer["success"]), (415, False))
        for bad in ("[1", "null", "[]"):
            self.assertEqual(self.call("POST", path, bad)[0], 400)
        self.assertEqual(self.runs(), [])

    def test_the_same_key_starts_it_only_once(self) -> None:
        body, key = {"cronName": "quick"}, {"Idempotency-Key": "key-1"}
        first = self.call("POST", self.api("/trigger"), body, key)[1]
        wait_until(lambda: self.run_of(first["runId"])["status"] == "completed")
        status, again = self.call("POST", self.api("/trigger"), body, key)
        self.assertEqual((status, again["runId"]), (202, first["runId"]))
        other = {"cronName": "params", "params": {"day": "2026-11-23"}}
        status, answer = self.call("POST", self.api("/trigger"), other, key)
        if status == 422:  # a key belongs to a cron, or to all of them
            self.assertEqual(answer["code"], "idempotency_mismatch")
        self.assertEqual(len([r for r in self.runs() if r["cronName"] == "quick"]), 1)

    def test_a_server_that_hangs_costs_a_limited_time_and_no_second_run(self) -> None:
        body, key = {"cronName": "quick"}, {"Idempotency-Key": "key-2"}
        post = self.request("POST", self.api("/trigger"), body, key)
        get = self.request("GET", self.api("/trigger"))
        assert self.server.process
        self.server.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.server.process.send_signal, signal.SIGCONT)
        began_s = time.monotonic()
        asked = [
            subprocess.Popen(
                self.container.within(*command), stdout=subprocess.PIPE, text=True
            )
            for command in (get, post)
        ]
        for process, limit_s in zip(asked, (15, 30)):
            content, _, number = process.communicate(timeout=60)[0].rpartition("\n")
            code = json.loads(content)["code"]
            self.assertEqual((number, code), ("502", "timeout"))
            took_s = time.monotonic() - began_s
            self.assertTrue(limit_s - 1 < took_s < limit_s + 13, took_s)
        self.server.process.send_signal(signal.SIGCONT)
        status, answer = self.call("POST", self.api("/trigger"), body, key)
        self.assertEqual(status, 202, answer)
        self.assertEqual(len(self.runs()), 1)

    def test_events_end_with_their_reader(self) -> None:
        cookie = f"Cookie: admin={ADMIN}"
        with subprocess.Popen(
            self.container.within(
                *("curl", "-sSN", "-m30", "--compressed", "-H", cookie),
                APPLICATION + self.api("/events"),
            ),
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdout
            lines = iter(reader.stdout)
            wait_until(lambda: "event: server" in next(lines))
            self.assertIn('"reachable":true', next(lines))
            self.trigger("quick")
            wait_until(lambda: "event: run.finished" in next(lines))
            self.assertIn('"server":"default"', next(lines))
            wait_until(lambda: self.streams() == 1, what="the end of the others")
            reader.terminate()
        wait_until(lambda: self.streams() == 0, what="the end of the server's stream")

    def streams(self) -> int:
        """Return how many event streams the server has for the application.

        Kept connections are closed by both sides after a few seconds.
        """
        which = ("state", "established", "sport", "=", f":{CRON_PORT}")
        return len(self.host.run("ss", "-tnH", *which).splitlines())

    def test_what_came_between_two_readers_is_replayed(self) -> None:
        first = self.read_events({}, "run.finished")
        position = next(line[4:] for line in first[::-1] if line.startswith("id: "))
        self.assertRegex(position, r"^default=\d+$")
        self.completed("params", params={"day": "2026-11-23"})
        before = {"Last-Event-ID": position}
        again = self.read_events(before, '"cronName":"params","status":"completed"')
        self.assertIn("event: run.finished", again)

    def read_events(self, headers: Mapping[str, str], until: str) -> list[str]:
        """Return a new reader's lines up to one with `until`; starts a cron itself."""
        sent = {"Cookie": f"admin={ADMIN}", **headers}
        flags = [part for pair in sent.items() for part in ("-H", ": ".join(pair))]
        command = ["curl", "-sSN", "-m30", *flags, APPLICATION + self.api("/events")]
        lines: list[str] = []
        with subprocess.Popen(
            self.container.within(*command), stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout
            for line in reader.stdout:
                lines.append(line.strip())
                if until in line:
                    break
                if "reachable" in line:
                    self.trigger("quick")
            reader.terminate()
        return lines


class Faults(InContainer):
    """What is wrong behind the application is no user's fault, nor theirs to read."""

    def assert_fault(self, code: str, logged: str) -> None:
        """Listing and triggering say `code` with 502; the log, and nobody else, why."""
        for status, answer in (self.list_crons(), self.trigger("quick")):
            self.assertEqual((status, answer["code"]), (502, code), answer)
            self.assertRegex(answer["error"], r"^(Le serveur|Cette application) ")
            self.assertNotRegex(json.dumps(answer), "CRON_TRIGGER|host.docker")
        lines = [line for line in self.log_text().splitlines() if logged in line]
        self.assertTrue(lines, self.log_text()[-2000:])
        self.assertTrue(lines[-1].startswith("cron-trigger: "), lines[-1])

    def test_server_that_is_away(self) -> None:
        self.server.kill()
        self.assert_fault("unreachable", "ECONNREFUSED")

    def test_name_that_nobody_knows(self) -> None:
        self.configure("http://host.docker.internal.invalid:9998")
        self.assert_fault("unreachable", 'extra_hosts: ["host.docker.internal')

    def test_address_that_is_none(self) -> None:
        for url, logged in (
            ("", "CRON_TRIGGER_SERVER_URL is empty"),
            ("   ", "CRON_TRIGGER_SERVER_URL is empty"),
            (
                "host.docker.internal:9998",
                '"host.docker.internal:9998" is no such address',
            ),
            ("ftp://host/", '"ftp://host/" is no such address'),
            ("http://", '"http://" is no such address'),
            ("http://me:word@h:9998", '"http://…@h:9998" is no such address'),
            ("http://h:9998/?x=1", "is no such address"),
            ("http://a,http://b", '"http://a" is neither'),
            ("a=http://a,a=http://b", "names a server twice"),
        ):
            with self.subTest(url):
                self.configure(url)
                self.assert_fault("misconfigured", logged)
        self.assertNotIn("me:word", self.log_text())

    def test_address_in_every_spelling(self) -> None:
        for path in ("", "/", "/trigger", "/trigger/"):
            with self.subTest(path):
                self.configure(f"http://host.docker.internal:{CRON_PORT}{path}")
                self.assertEqual(self.list_crons()[0], 200)
                self.assertIn(self.trigger("quick")[0], (202, 409))

    def test_address_with_a_path_before_it(self) -> None:
        with proxy_under_a_path(self.host.within(sys.executable)) as port:
            for path in ("/crons-of/vps1", "/crons-of/vps1/trigger"):
                self.configure(f"http://host.docker.internal:{port}{path}")
                status, answer = self.list_crons()
                self.assertEqual(status, 200, answer)
                self.assertEqual(len(answer["crons"]), len(REGISTRY))
            self.configure(f"http://host.docker.internal:{port}/elsewhere")
            self.assert_fault("unexpected", "lead to it?")

    def test_path_that_the_server_does_not_have(self) -> None:
        self.configure(f"http://host.docker.internal:{CRON_PORT}/crons-of/vps1")
        self.assert_fault("unexpected", "answered 404")

    def test_wrong_secret(self) -> None:
        self.server.kill()
        self.server = self.made_cron_server(CRON_TRIGGER_SECRET=SECRET)
        self.server.start()
        self.configure()
        self.assert_fault("wrong_secret", "answered 401 unauthorized")
        self.configure(CRON_TRIGGER_SECRET="wrong-wrong-wrong-wrong")
        self.assert_fault("wrong_secret", "answered 401 unauthorized")
        self.configure(CRON_TRIGGER_SECRET=f"{SECRET}\u00e9")
        self.assert_fault("misconfigured", "only visible ASCII can be sent")
        self.configure(CRON_TRIGGER_SECRET=SECRET)
        self.assertEqual(self.list_crons()[0], 200)
        self.assertEqual(self.trigger("quick")[0], 202)

    def test_too_many_wrong_secrets(self) -> None:
        self.server.kill()
        self.server = self.made_cron_server(CRON_TRIGGER_SECRET=SECRET)
        self.server.start()
        self.configure(CRON_TRIGGER_SECRET="wrong-wrong-wrong-wrong")

        def is_slowed_down() -> bool:
            status, answer = self.list_crons()
            self.assertEqual((status, answer["code"]), (502, "wrong_secret"))
            return "answered 429 too_many_attempts" in self.log_text()

        wait_until(is_slowed_down, what="the refusal of any more")

    def test_secret_in_a_file(self) -> None:
        self.server.kill()
        self.server = self.made_cron_server(CRON_TRIGGER_SECRET=SECRET)
        self.server.start()
        file = self.folder / "secret"
        self.configure(CRON_TRIGGER_SECRET_FILE=str(file))
        self.assert_fault("misconfigured", "can't be read (ENOENT)")
        file.write_text("\n")
        self.assert_fault("misconfigured", "is empty")
        file.write_text(f"{SECRET}\n")
        self.assertEqual(self.list_crons()[0], 200)

    def test_address_or_name_that_the_server_refuses(self) -> None:
        self.configure(f"http://cron.example:{CRON_PORT}")
        self.assert_fault("refused", "answered 421 misdirected_request")
        self.server.kill()
        self.server = self.made_cron_server(CRON_TRIGGER_ALLOW="10.99.0.0/24")
        self.server.start()
        self.configure()
        self.assert_fault("refused", "answered 403 forbidden")

    def test_script_that_can_not_start(self) -> None:
        status, answer = self.trigger("missing")
        self.assertEqual((status, answer["code"]), (502, "launch_failed"))
        self.assertIn("rien n'a été lancé", answer["error"])
        self.assertNotIn("missing.sh", json.dumps(answer))
        self.assertIn("missing.sh", self.log_text())


#: Passes /crons-of/vps1/… on to the server, and answers all else like another program.
PROXY = """
import http.client, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        prefix = "/crons-of/vps1/"
        if not self.path.startswith(prefix):
            return self.send_error(404)
        server = http.client.HTTPConnection("127.0.0.1", 9998)
        server.request("GET", "/" + self.path[len(prefix):])
        answer = server.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def proxy_under_a_path(python: list[str]) -> Iterator[int]:
    command = [*python, "-c", PROXY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.terminate()


class Servers(InContainer):
    """Several servers, each with a secret of its own, and one that is down."""

    def setUp(self) -> None:
        super().setUp()
        self.second = self.made_cron_server(9999, CRON_TRIGGER_SECRET=SECRET)
        self.second.start()
        self.configure(
            "vps1=http://host.docker.internal:9998/trigger, "
            "vps-2=http://host.docker.internal:9999",
            CRON_TRIGGER_VPS_2_SECRET=SECRET,
        )

    def test_all_of_them_are_asked(self) -> None:
        status, answer = self.list_crons()
        self.assertEqual(status, 200, answer)
        both = [{"name": name, "reachable": True} for name in ("vps1", "vps-2")]
        self.assertEqual(answer["servers"], both)
        names = {(cron["server"], cron["cronName"]) for cron in answer["crons"]}
        self.assertEqual(len(names), 2 * len(REGISTRY))

    def test_a_trigger_says_which(self) -> None:
        status, answer = self.trigger("quick")
        self.assertEqual((status, answer["code"]), (400, "unknown_server"))
        self.assertEqual(answer["servers"], ["vps1", "vps-2"])
        self.assertEqual(self.trigger("quick", server="vps-3")[0], 400)
        status, answer = self.trigger("quick", server="vps-2")
        self.assertEqual((status, answer["server"]), (202, "vps-2"))
        self.assertEqual(self.runs(), [])
        status, answer = self.call("GET", self.api())
        self.assertEqual([run["server"] for run in answer["runs"]], ["vps-2"])

    def test_one_that_is_down_hides_no_other(self) -> None:
        self.second.kill()
        status, answer = self.list_crons()
        self.assertEqual(status, 200, answer)
        up, down = answer["servers"]
        self.assertEqual(up, {"name": "vps1", "reachable": True})
        self.assertEqual((down["name"], down["reachable"]), ("vps-2", False))
        self.assertEqual({cron["server"] for cron in answer["crons"]}, {"vps1"})
        self.assertEqual(self.trigger("quick", server="vps1")[0], 202)
        status, answer = self.trigger("quick", server="vps-2")
        self.assertEqual((status, answer["code"]), (502, "unreachable"))
        for path in ("", "/scheduled"):
            self.assertEqual(self.call("GET", self.api(path))[0], 200)

    def test_one_that_hangs_keeps_no_other_waiting(self) -> None:
        assert self.second.process
        self.second.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.second.process.send_signal, signal.SIGCONT)
        began_s = time.monotonic()
        status, answer = self.list_crons()
        self.assertLess(time.monotonic() - began_s, 14)  # of one alone it is 15
        reachable = [server["reachable"] for server in answer["servers"]]
        self.assertEqual((status, reachable), (200, [True, False]))

    def test_all_down_is_a_fault_that_names_each(self) -> None:
        self.server.kill()
        self.second.kill()
        status, answer = self.list_crons()
        self.assertEqual((status, answer["code"]), (502, "unreachable"))
        reachable = [server["reachable"] for server in answer["servers"]]
        self.assertEqual(reachable, [False, False])


# ---- The browser


class Dashboard(InContainer):
    """What an administrator sees and does."""

    browser: Browser
    page: Page

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        path = chromium_path()
        super().setUpClass()
        # The browser is inside, too: nothing else reaches the application.
        inside = cls.folder / "chromium"
        command = shlex.join([*cls.container.within(path)])
        inside.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        inside.chmod(0o755)
        running = contextlib.ExitStack()
        cls.addClassCleanup(running.close)
        cls.browser = running.enter_context(chromium(path=str(inside)))

    def setUp(self) -> None:
        super().setUp()
        context = self.browser.new_context(locale="fr-FR", timezone_id="Europe/Paris")
        self.addCleanup(context.close)
        context.add_cookies([{"name": "admin", "value": ADMIN, "url": APPLICATION}])
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.add_init_script(KEEP_WHAT_IS_SAID)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.streams: list[str] = []
        self.page.on("request", self.count_streams)
        self.addCleanup(lambda: self.assertEqual(self.faults, []))

    def count_streams(self, request: Request) -> None:
        if request.url.endswith("/events"):
            self.streams.append(request.url)

    # ---- what is on the page

    def open(self, path: str = "/") -> None:
        self.page.goto(APPLICATION + path)
        self.sees(self.card("quick"))
        if path == "/":
            self.sees(self.page.locator("[data-connection=live]"), "En direct")

    def sees(
        self, locator: Locator, text: Any = None, timeout_s: float = 15
    ) -> Locator:
        """Wait until a person would see it (with this text in it); fail otherwise."""
        from playwright.sync_api import expect

        expect(locator).to_be_visible(timeout=timeout_s * 1000)
        if text is not None:
            expect(locator).to_contain_text(text, timeout=timeout_s * 1000)
        return locator

    def gone(self, locator: Locator, timeout_s: float = 15) -> None:
        from playwright.sync_api import expect

        expect(locator).to_have_count(0, timeout=timeout_s * 1000)

    def card(self, cron: str, server: str = "default") -> Locator:
        return self.page.locator(f"[data-server='{server}'] [data-cron='{cron}']")

    def row(self, number: int = 0) -> Locator:
        return self.page.locator("tr[data-run]").nth(number)

    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    def choose(self, cron: str, server: str = "default") -> Locator:
        self.page.evaluate("said.clear()")
        self.card(cron, server).get_by_role("button").click()
        return self.sees(self.dialog(), cron)

    def press(self, name: str) -> None:
        self.dialog().get_by_role("button", name=name, exact=True).click()

    def start(self, cron: str) -> None:
        self.choose(cron)
        self.press("Exécuter maintenant")
        self.succeeds()

    def succeeds(self, words: str = "✅ Cron démarré avec succès !") -> None:
        """Wait until the dialog has said so, which it does for 2 s, and has closed."""
        told = "words => [...said].some((text) => text.includes(words))"
        self.page.wait_for_function(told, arg=words)
        self.gone(self.dialog())

    # ---- the order's tests

    def test_trigger_dialog_success_closing_and_the_new_row(self) -> None:
        self.page.clock.install()
        self.open()
        self.sees(self.page.get_by_text("Aucune exécution."))
        dialog = self.choose("quick")
        self.sees(dialog, "Un cron rapide")
        self.sees(dialog, "Durée estimée2 s")
        held: list[Route] = []

        def hold(route: Route) -> None:
            # The list of crons, of the same address, may be asked for meanwhile.
            post = route.request.method == "POST"
            held.append(route) if post else route.continue_()

        self.page.route("**/trigger", hold)
        self.press("Exécuter maintenant")
        waiting = self.sees(dialog.get_by_role("button", name="Démarrage…"))
        wait_until(lambda: waiting.is_disabled() and held, what="the request")
        self.page.clock.pause_at(time.time() + 20)
        held[0].continue_()
        self.sees(dialog, "✅ Cron démarré avec succès !")
        self.page.clock.run_for(1900)
        self.assertTrue(dialog.is_visible())
        self.page.clock.run_for(200)
        self.gone(dialog)
        self.page.clock.resume()
        self.sees(self.row(), "Réussi")
        self.sees(self.row(), "quick")
        self.sees(self.row(), ADMIN)
        self.sees(self.card("quick"), "Réussi")
        self.sees(self.page.locator("[data-connection]"), "quick : Réussi")

    def test_long_one_twice_is_refused_and_can_be_cancelled(self) -> None:
        self.open()
        self.start("slow")
        self.sees(self.row(), "En cours")
        self.sees(self.card("slow"), "En cours")
        dialog = self.choose("slow")
        self.press("Exécuter maintenant")
        refusal = "Ce cron est déjà en cours d'exécution. Attendez sa fin."
        self.sees(dialog.get_by_role("alert"), refusal)
        self.press("Fermer")
        self.gone(dialog)
        self.assertEqual(len(self.runs()), 1)
        self.row().get_by_role("button").click()
        self.sees(self.dialog(), "commence")
        self.press("Annuler l'exécution")
        self.press("Confirmer l'annulation ?")
        self.sees(self.dialog(), f"Annulé par{ADMIN}")
        self.press("Fermer")
        self.sees(self.row(), "Annulé")

    def test_events_go_on_by_themselves_after_a_restart(self) -> None:
        self.open()
        self.start("steps")
        self.sees(self.row(), "En cours")
        self.server.kill()
        self.sees(self.page.get_by_text("Le serveur de crons ne répond pas").first)
        self.sees(self.row(), "En cours")  # what was known stays
        self.allow_steps(4)
        self.server.start()
        self.sees(self.row(), "Réussi")
        self.gone(self.page.get_by_text("Le serveur de crons ne répond pas"))
        self.trigger("quick")  # not from this page: it hears of it
        self.sees(self.row(), "quick", timeout_s=10)
        self.sees(self.row(), "Réussi", timeout_s=10)
        self.assertEqual(len(self.streams), 1, "the browser's own stream never broke")

    def allow_steps(self, *numbers: int) -> None:
        for number in range(1, max(numbers) + 1):
            (self.server.folder / f"step-{number}").touch()

    def test_log_grows_and_outlives_a_restart(self) -> None:
        self.open()
        self.start("steps")
        self.row().get_by_role("button").click()
        log = self.dialog().locator("pre")
        self.sees(log, "Rien d'écrit pour l'instant…")
        self.allow_steps(1)
        self.sees(log, "étape 1 sur 4")
        self.restart()
        self.allow_steps(2)
        self.sees(log, "étape 2 sur 4")
        self.server.kill()
        self.allow_steps(4)
        self.server.start()
        self.sees(log, "étape 4 sur 4")
        lines = [f"étape {step} sur 4\n" for step in (1, 2, 3, 4)]
        self.assertEqual(log.text_content(), "".join(lines))
        self.sees(self.dialog(), "Réussi")

    def test_parameters(self) -> None:
        self.open()
        dialog = self.choose("params")
        self.press("Exécuter maintenant")
        self.assertFalse(dialog.get_by_label("Jour").evaluate("e => e.validity.valid"))
        dialog.get_by_label("Jour").fill("2026-11-23")
        dialog.get_by_label("mode").select_option("full")
        dialog.get_by_label("Garder").fill("7")
        dialog.get_by_label("Mot").fill("UPPER")
        dialog.get_by_label("Simuler").uncheck()
        dialog.get_by_label("Jeton").fill("hidden")
        self.press("Exécuter maintenant")
        self.sees(dialog.get_by_role("alert"), "Certains paramètres sont à corriger.")
        self.assertEqual(
            dialog.get_by_label("Mot").get_attribute("aria-invalid"), "true"
        )
        dialog.get_by_label("Mot").fill("lower")
        self.press("Exécuter maintenant")
        self.succeeds()
        self.sees(self.row(), "Réussi")
        self.row().get_by_role("button").click()
        log = self.sees(self.dialog().locator("pre"), "CRON_PARAM_DAY=2026-11-23")
        for line in ("DRY=false", "KEEP=7", "MODE=full", "TOKEN=hidden", "WORD=lower"):
            self.sees(log, f"CRON_PARAM_{line}")
        self.sees(self.dialog().locator("dl"), "keep7")

    def test_plan(self) -> None:
        self.open()
        self.sees(self.page.get_by_text("Rien de prévu."))
        dialog = self.choose("quick")
        self.press("Planifier…")
        dialog.get_by_label("Date et heure (Europe/Paris)").fill("2099-01-02T03:04")
        self.press("Planifier")
        self.succeeds("✅ Déclenchement planifié : 2 janv. 2099")
        planned = self.curl("/scheduled")["scheduled"][0]
        self.assertEqual(planned["requestedBy"], ADMIN)
        self.assertEqual(planned["runAt"][:19], "2099-01-02T02:04:00")
        item = self.page.locator("[data-scheduled]")
        self.sees(item, "Prévu")
        item.get_by_role("button").click()
        self.sees(item, "Annulé")
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 8))
        self.assertEqual(self.trigger("quick", runAt=soon)[0], 202)
        self.sees(self.page.locator("[data-status=pending]"), "Prévu", timeout_s=5)
        self.sees(self.row(), "Réussi", timeout_s=20)

    def test_a_lost_answer_starts_no_second_run(self) -> None:
        self.page.add_init_script(LOSE_FIRST_ANSWER)
        self.open()
        dialog = self.choose("quick")
        self.press("Exécuter maintenant")
        self.sees(dialog.get_by_role("alert"), "L'application ne répond pas")
        self.sees(self.row(), "Réussi")  # it did start
        self.press("Exécuter maintenant")
        self.succeeds()
        self.assertEqual(len(self.runs()), 1)

    def test_wrong_secret_is_not_the_users_fault(self) -> None:
        self.server.kill()
        self.server = self.made_cron_server(CRON_TRIGGER_SECRET=SECRET)
        self.server.start()
        self.configure(CRON_TRIGGER_SECRET="wrong-wrong-wrong-wrong")
        self.page.goto(APPLICATION)
        apology = "Le serveur de crons refuse cette application."
        self.sees(self.page.get_by_text(apology).first)
        self.configure(CRON_TRIGGER_SECRET=SECRET)
        self.page.get_by_role("button", name="Réessayer").first.click()
        self.sees(self.card("quick"))
        self.start("quick")

    def test_the_buttons_alone(self) -> None:
        self.open("/alone")
        self.start("quick")
        self.sees(self.card("quick"), "Réussi")

    def test_two_servers_one_down(self) -> None:
        second = self.made_cron_server(9999)
        second.start()
        url = "http://host.docker.internal"
        self.configure(f"vps1={url}:9998/trigger,vps2={url}:9999/trigger")
        self.page.goto(APPLICATION)
        self.sees(self.card("quick", "vps2"))
        second.kill()
        down = self.page.locator("[data-server=vps2]")
        self.sees(down.get_by_role("alert"), "Le serveur de crons ne répond pas")
        self.choose("quick", "vps1")
        self.press("Exécuter maintenant")
        self.succeeds()
        self.sees(self.row(), "vps1")
        second.start()
        self.sees(self.card("quick", "vps2"), timeout_s=20)
        self.gone(down.get_by_role("alert"))

    def test_without_its_stream_it_says_so_and_comes_back(self) -> None:
        self.page.route("**/events", lambda route: route.abort())
        self.page.goto(APPLICATION)
        self.sees(self.page.locator("[data-connection=polling]"), "toutes les 30 s")
        self.page.unroute("**/events")
        live = self.page.locator("[data-connection=live]")
        self.sees(live, "En direct", timeout_s=30)  # it tries again after 10 s

    def test_axe_finds_nothing(self) -> None:
        folder = npm_folder("axe-core@4") / "node_modules" / "axe-core"
        self.open()
        self.start("quick")
        self.start("slow")
        self.sees(self.row(), "slow")
        self.trigger("quick", runAt="2099-01-01T00:00:00Z")
        self.sees(self.page.locator("[data-scheduled]"))
        self.page.add_script_tag(path=folder / "axe.min.js")
        for scheme in ("light", "dark"):
            look = f":root {{ color-scheme: {scheme}; background: Canvas }}"
            self.page.add_style_tag(content=look)
            self.assertEqual(self.page.evaluate(FOUND_BY_AXE), [])
            self.choose("params")
            self.assertEqual(self.page.evaluate(FOUND_BY_AXE), [])
            self.press("Fermer")
            self.row().get_by_role("button").click()
            self.sees(self.dialog(), "commence")
            self.assertEqual(self.page.evaluate(FOUND_BY_AXE), [])
            self.press("Fermer")

    def test_a_phone_has_no_sideways_scrolling(self) -> None:
        self.page.set_viewport_size({"width": 360, "height": 740})
        self.open()
        self.start("quick")
        self.sees(self.row(), "Réussi")
        wide = "document.documentElement.scrollWidth > innerWidth"
        self.assertFalse(self.page.evaluate(wide))


#: What a dialog says is kept: its success is to be seen for two seconds.
KEEP_WHAT_IS_SAID = """
window.said = new Set();
new MutationObserver(() => {
  const status = document.querySelector("dialog [role=status]");
  if (status?.checkVisibility()) said.add(status.textContent);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
#: What the page itself has (its language, its title) is the application's.
FOUND_BY_AXE = """
axe.run({ include: "main" }).then(({ violations }) => violations.flatMap(
  ({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 120)}`)))
"""
#: The first trigger is carried out, but its answer never reaches the page.
LOSE_FIRST_ANSWER = """
const real = window.fetch;
let lost = false;
window.fetch = async (url, init) => {
  const response = await real(url, init);
  if (init?.method === "POST" && !lost) {
    lost = true;
    throw new TypeError("Failed to fetch");
  }
  return response;
};
"""


load_tests = beside


if __name__ == "__main__":
    unittest.main()
