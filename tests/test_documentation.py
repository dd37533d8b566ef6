"""The documentation names everything, and what it shows is what happens."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from flat import m as server
from support import REPOSITORY, need_command, wait_until

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> List[str]:
    """Return the code blocks of one language."""
    found: List[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
    return found


def console() -> List[Tuple[str, str]]:
    """Return each command that the README shows, with the output shown below it."""
    shown = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.lstrip()
            shown.append((command, output.strip()))
    return shown


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


class NamesTest(unittest.TestCase):
    def assert_named(self, words: str) -> None:
        with self.subTest(words):
            self.assertTrue(words in README, "README.md says nothing of it")

    def rows(self) -> List[List[str]]:
        """Return the cells of every table's rows."""
        lines = (li for li in README.splitlines() if li.startswith("| "))
        return [[c.strip() for c in line.strip("| ").split(" | ")] for line in lines]

    def test_every_route_with_its_query(self) -> None:
        for route in server.ROUTES:
            if route.action == "page_file":  # the page's own, for no other client
                continue
            self.assert_named(f"`{route.method} {route.path}")
            pattern = rf"`{route.method} {re.escape(route.path)}(\?[^`]*)?`"
            told = {
                tuple(re.findall(r"[?&](\w+)=", q)) for q in re.findall(pattern, README)
            }
            with self.subTest(route.path):
                self.assertIn(route.query or (), told)  # None: it is ignored

    def test_no_route_that_is_none(self) -> None:
        known = {(route.method, route.path) for route in server.ROUTES}
        for named in re.findall(r"`(GET|POST|DELETE|PUT) (/[^`?]*)", README):
            self.assertIn(named, known)

    def test_every_code_with_its_status(self) -> None:
        status_of: Dict[str, str] = {}
        for cells in self.rows():
            if re.fullmatch(r"\d{3}(, \d{3})*", cells[0]):
                codes = re.findall(r"`(\w+)`", cells[1])
                statuses = cells[0].split(", ")
                if len(statuses) == 1:
                    statuses *= len(codes)
                status_of.update(zip(codes, statuses))
        named = {code: int(status) for code, status in status_of.items()}
        self.assertEqual(named, server.STATUS_OF_CODE)

    def test_every_setting_with_its_flag_and_default(self) -> None:
        rows = {cells[0]: cells[1:] for cells in self.rows()}
        for name in server.SETTINGS:
            variable = "`CRON_TRIGGER_" + name.upper().replace("-", "_") + "`"
            with self.subTest(name):
                self.assertEqual(rows.get(variable, [""])[0], f"`--{name}`")
                self.assertTrue(rows[variable][1], "no default is said")

    def test_no_setting_that_is_none(self) -> None:
        known = {name.upper().replace("-", "_") for name in server.SETTINGS}
        known |= {"SERVER_URL", "TEST_FULL"}  # the caller's; the tests'
        named = set(re.findall(r"CRON_TRIGGER_([A-Z_]*[A-Z])", README))
        self.assertEqual(named - known, set())

    def test_every_command_and_exit_status(self) -> None:
        for name in filter(None, server.COMMANDS):
            with self.subTest(name):
                self.assertTrue(re.search(rf"\| `{name}[ `]", README))
        for status in {*server.EXIT_OF_CODE.values(), server.EX_CONFIG}:
            with self.subTest(status):
                self.assertTrue(re.search(rf"\b{status}\b", README))

    def test_every_key_of_the_registry_and_of_a_parameter(self) -> None:
        for key in (*server.ENTRY_KEYS, *server.DEFINITION_KEYS):
            self.assert_named(f"`{key}`")
        for word in (*server.TYPES, *server.FORMATS):
            self.assert_named(f"`{word}`")

    def test_every_key_and_status_of_a_run(self) -> None:
        for name in server.RUN_SHOWN:
            self.assert_named(f"`{name}`")
        for status in server.RUN_STATUSES:
            self.assert_named(f"`{status}`")

    def test_every_variable_of_a_script(self) -> None:
        for name in ("CRON_NAME", "CRON_RUN_ID", "CRON_TRIGGER", "CRON_PARAM_"):
            self.assert_named(f"`{name}")

    def test_every_shipped_cron(self) -> None:
        for name in json.loads((REPOSITORY / "crons.json").read_text("utf-8")):
            self.assert_named(f"`{name}`")

    def test_every_event_and_metric(self) -> None:
        text = "".join(
            path.read_text("utf-8")
            for path in (REPOSITORY / "cron_trigger").rglob("*.py")
        )
        events = {*re.findall(r'"((?:run|registry)\.\w+)"', text)}
        for name in (*events, "schedule.created", "schedule.cancelled"):
            self.assert_named(f"`{name}`")
        for name in set(re.findall(r'"(cron_trigger_\w+)"', text)) - {
            "cron_trigger_server"
        }:
            self.assert_named(name)


class LinkTest(unittest.TestCase):
    def test_every_link_within_leads_somewhere(self) -> None:
        headings = re.findall(r"^#+ (.+)$", re.sub(r"(?s)```.*?```", "", README), re.M)
        anchors = {anchor(heading) for heading in headings}
        for target in re.findall(r"\]\(#([^)]+)\)", README):
            with self.subTest(target):
                self.assertIn(target, anchors)

    def test_every_file_that_is_linked_is_there(self) -> None:
        for target in re.findall(r"\]\(([^)#:]+)\)", README):
            with self.subTest(target):
                self.assertTrue((REPOSITORY / target).exists())


class ExampleTest(unittest.TestCase):
    """What the README shows is what one gets."""

    port = 0
    folder: Path

    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name)
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        stack.enter_context(cls.server())

    @classmethod
    def environ(cls) -> Dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CRON_")}
        own = {
            f"CRON_TRIGGER_{n}_DIR": str(cls.folder) for n in ("LOG", "STATE", "RUN")
        }
        return {
            **kept,
            **own,
            "CRON_TRIGGER_HOST": "127.0.0.1",
            "CRON_TRIGGER_PORT": "0",
        }

    @classmethod
    @contextlib.contextmanager
    def server(cls) -> Iterator[None]:
        """Start the server by the README's first command."""
        command, output = console()[0]
        words = shlex.split(command)
        assert words[:2] == ["python3", "cron_trigger_server.py"], words
        process = subprocess.Popen(
            [sys.executable, *words[1:]],
            cwd=REPOSITORY,
            env=cls.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout
        try:
            line = process.stdout.readline().decode().strip()
            cls.port = int(line.rpartition(":")[2])
            assert output == line.replace(f":{cls.port}", ":9998"), line
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            process.stdout.close()

    def curl(self, command: str) -> str:
        """Do a curl line of the README against this server; return what it prints."""
        need_command("curl")
        words = shlex.split(command.replace(":9998", f":{self.port}"))
        done = subprocess.run(words, capture_output=True, timeout=20, check=True)
        return done.stdout.decode().replace(f'"port": {self.port}', '"port": 9998')

    def first_lines(self) -> Dict[str, Tuple[str, str]]:
        """Return the curl lines of the first section, by what they ask for."""
        lines = [(c, o) for c, o in console()[1:] if c.startswith("curl -s http")]
        paths = (re.findall(r":9998(/\S*)", command)[0] for command, _ in lines)
        found: Dict[str, Tuple[str, str]] = {}
        for path, line in zip(paths, lines):
            found.setdefault(path, line)
        return found

    def test_the_first_curl_lines_show_a_real_run(self) -> None:
        lines = self.first_lines()
        command, output = lines["/health"]
        self.assertEqual(self.curl(command), output)

        command, output = lines["/trigger"]
        shown, got = json.loads(output), json.loads(self.curl(command))
        self.assertEqual(list(got), list(shown))
        for key in ("success", "cronName", "description", "message", "runId"):
            self.assertEqual(got[key], shown[key], key)

        command, output = lines["/runs/1"]
        run = wait_until(lambda: self.ended(command), what="the end of the run")
        told = output.partition('"status"')[0]
        self.assertTrue(self.curl(command).startswith(told), output)
        self.assertEqual(run["cronName"], shown["cronName"])

        command, output = lines["/runs/1/log"]
        self.assertTrue(self.curl(command).strip(), "the run printed nothing")

    def ended(self, command: str) -> Any:
        run = json.loads(self.curl(command))["run"]
        return run if run["status"] != "running" else None

    def test_the_sql_of_the_readme_answers(self) -> None:
        (query,) = re.findall(
            r"sqlite3 \S+history\.db \"(select [^\"]+)\"", README, re.I
        )
        with contextlib.closing(sqlite3.connect(self.folder / "history.db")) as db:
            cursor = db.execute(query)
        columns = [column[0] for column in cursor.description]
        self.assertEqual(columns, ["cron_name", "status", "duration_ms", "started_at"])

    def test_the_example_of_a_registry_holds(self) -> None:
        for block in blocks("json"):
            value = json.loads(block)
            checker = server.Checker(Path("crons.json"), Path("/log"))
            if "command" in block:
                checker.crons(json.dumps(value))
            self.assertEqual(checker.faults, [])

    def test_every_call_of_the_program_is_one(self) -> None:
        calls = re.findall(r"cron_trigger_server\.py((?: [-\w=./]+)*)", README)
        for call in calls:
            with self.subTest(call):
                server._parser().parse_args(shlex.split(call))

    def test_check_finds_the_shipped_registry_well_formed(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "cron_trigger_server.py",
                "check",
                "--registry=crons.json",
            ],
            cwd=REPOSITORY,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("7 crons, well formed", done.stdout)


if __name__ == "__main__":
    unittest.main()
