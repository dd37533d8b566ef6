"""The documentation names everything, and what it shows is what happens.

Each block of README and docs that begins with ```console is run, unless a comment
before it says why not (`<!-- not run: … -->`), and its output compared with what is
shown.  A document's blocks share a folder and a server, and run in its order; a comment
`<!-- file: NAME -->` makes a block a file there.  In what is shown, `…` stands for
anything, and what differs from run to run (times, numbers of processes, the machine's
name) is compared as such: see `VARYING`.  What needs an installed service is tried by
test_systemd.py, in a Debian that it boots: `<!-- in a booted Debian -->`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, NamedTuple, Optional

from support import PROGRAM, REPOSITORY, need, need_command, slow

from cron_trigger import cli
from cron_trigger.registry.checker import ENTRY_KEYS, Checker
from cron_trigger.registry.errors import (
    EX_CONFIG,
    EX_TEMPFAIL,
    EX_USAGE,
    STATUS_OF_CODE,
)
from cron_trigger.registry.parameters import DEFINITION_KEYS, FORMATS, TYPES
from cron_trigger.registry.records import RUN_SHOWN, RUN_STATUSES, Scheduled
from cron_trigger.registry.settings import OTHERS, SETTINGS, variable_of
from cron_trigger.web.metrics import FAMILIES
from cron_trigger.web.routes import ROUTES

README = REPOSITORY / "README.md"
DOCUMENTS = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
    for path in (README, *sorted((REPOSITORY / "docs").glob("*.md")))
}
ALL = "\n".join(DOCUMENTS.values())
HTTP = DOCUMENTS["docs/http.md"]
INTERFACE: Any = json.loads((REPOSITORY / "docs/openapi.json").read_text("utf-8"))
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
#: The comment of a block that test_systemd.py tries.
BOOTED = "in a booted Debian"
NOBODY = 65534
#: What differs from run to run, and what it is compared as.
VARYING = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d)?", "TIME"),
    (r'("(?:pid|durationMs|medianDurationMs)":) ?\d+', r"\1 N"),
    (r'("(?:cpuSeconds|maxRssBytes)":) ?(?:[\d.]+|null)', r"\1 N"),
    (r'("host":) "[^"]*"', r'\1 "HOST"'),
    (r"\b\d+(\.\d+)? (ms|s|min|h)\b( \d+ (s|min)\b)?", "DURATION"),
    (r"\b\d+(\.\d+)?[KMG]\b", "SIZE"),
    (r"Python 3\.\d+(\.\d+)?", "Python 3"),
    (r"[ \t\r]+", " "),
    (r"(?m) $", ""),
)


class Block(NamedTuple):
    """A fenced block, and the comment on the line before it."""

    comment: str
    language: str
    text: str


class Step(NamedTuple):
    """A command that is shown, and the output shown below it."""

    command: str
    output: str


def blocks(text: str, language: Optional[str] = None) -> list[Block]:
    found = [Block(*match) for match in BLOCK.findall(text)]
    return [b for b in found if language is None or b.language == language]


def steps(block: Block) -> list[Step]:
    parts = re.split(r"^\$ ", block.text, flags=re.M)[1:]
    pairs = (part.partition("\n") for part in parts)
    return [Step(command, output.strip()) for command, _, output in pairs]


def prose(text: str) -> str:
    """Return a document without its blocks."""
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table's rows."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    return [[c.strip() for c in line.strip("| ").split(" | ")] for line in lines]


def difference(shown: str, got: str) -> str:
    """Return what to say where something else appears than is shown; else ""."""
    for pattern, common in VARYING:
        shown, got = re.sub(pattern, common, shown), re.sub(pattern, common, got)
    pattern = ".*".join(map(re.escape, shown.split("…")))
    if re.fullmatch(pattern, got, re.DOTALL):
        return ""
    return f"shown:\n{shown}\n\nwhat appears:\n{got}"


class NamesTest(unittest.TestCase):
    def assert_named(self, *words: str, within: str = ALL) -> None:
        for word in words:
            with self.subTest(word):
                self.assertTrue(word in within, "nothing is said of it")

    def test_every_route_with_its_query_and_none_that_is_none(self) -> None:
        told: dict[tuple[str, str], set[tuple[str, ...]]] = {}
        for method, path, query in re.findall(
            r"`(GET|POST|DELETE) (/[^`? ]*)(?:\?([^`]*))?`", HTTP
        ):
            names = tuple(part.partition("=")[0] for part in query.split("&") if part)
            told.setdefault((method, path), set()).add(names)
        known = {(route.method, route.path): route.query for route in ROUTES}
        self.assertEqual(set(told), set(known))
        for key, query_names in known.items():
            with self.subTest(key):
                self.assertIn(query_names or (), told[key])

    def test_every_code_with_its_status(self) -> None:
        named = {
            code: int(cells[0])
            for cells in rows(HTTP)
            if re.fullmatch(r"\d{3}", cells[0])
            for code in re.findall(r"`(\w+)`", cells[1])
        }
        self.assertEqual(named, {**STATUS_OF_CODE, "internal_error": 500})

    def test_every_setting_with_its_flag_and_default(self) -> None:
        table = {cells[0]: cells[1:] for cells in rows(DOCUMENTS["docs/operations.md"])}
        for name in SETTINGS:
            with self.subTest(name):
                flag, default = table[f"`{variable_of(name)}`"][:2]
                self.assertEqual(flag, f"`--{name}`")
                self.assertTrue(default, "no default is said")

    def test_no_setting_that_is_none(self) -> None:
        known = {*map(variable_of, SETTINGS), *OTHERS, "CRON_TRIGGER_TEST_FULL"}
        named = set(re.findall(r"CRON_TRIGGER_[A-Z_]*[A-Z]", ALL))
        self.assertEqual(named - known, set())

    def test_every_command_with_its_exit_statuses(self) -> None:
        table = DOCUMENTS["docs/operations.md"]
        for name in cli.COMMANDS:
            with self.subTest(name):
                self.assertTrue(re.search(rf"\| `{name}[ `]", table))
        for status in (EX_USAGE, EX_TEMPFAIL, EX_CONFIG):
            with self.subTest(status):
                self.assertTrue(re.search(rf"\b{status}\b", table))

    def test_every_key_of_the_registry_and_of_a_parameter(self) -> None:
        told = DOCUMENTS["docs/scripts.md"]
        keys = (*ENTRY_KEYS, *DEFINITION_KEYS, *TYPES, *FORMATS)
        self.assert_named(*(f"`{key}`" for key in keys), within=told)

    def test_every_key_and_status_of_a_run(self) -> None:
        self.assert_named(*(f"`{k}`" for k in RUN_SHOWN + RUN_STATUSES), within=HTTP)

    def test_every_status_of_a_plan(self) -> None:
        schema = INTERFACE["components"]["schemas"]["Scheduled"]
        statuses = schema["properties"]["status"]["enum"]
        self.assertIn(Scheduled(1, "x", "").status, statuses)
        self.assert_named(*(f"`{status}`" for status in statuses), within=HTTP)

    def test_every_variable_of_a_script(self) -> None:
        names = ("CRON_NAME", "CRON_RUN_ID", "CRON_TRIGGER", "CRON_PARAM_")
        self.assert_named(*(f"`{name}" for name in names))

    def test_every_shipped_cron(self) -> None:
        crons = json.loads((REPOSITORY / "crons.json").read_text("utf-8"))
        names = (f"`{name}`" for name in crons if name != "$schema")
        self.assert_named(*names, within=DOCUMENTS["docs/scripts.md"])

    def test_every_event(self) -> None:
        told = INTERFACE["paths"]["/events"]["get"]["responses"]["200"]["description"]
        events = re.findall(r"\b(?:run|schedule|cron|registry)\.\w+", told)
        self.assertEqual(len(events), 9)
        self.assert_named(*(f"`{event}`" for event in events), within=HTTP)

    def test_every_metric(self) -> None:
        names = (f"`cron_trigger_{family[0]}" for family in FAMILIES)
        self.assert_named(*names, within=DOCUMENTS["docs/operations.md"])

    def test_every_test_that_is_named_is_there(self) -> None:
        for name, test in re.findall(r"`(test_\w+)(?:\.py)?`(?:: `(\w+)`)?", ALL):
            with self.subTest(name):
                paths = list((REPOSITORY / "tests").rglob(f"{name}.py"))
                self.assertTrue(paths, "no such file")
                there = [p for p in paths if f" {test}" in p.read_text("utf-8")]
                self.assertTrue(there, f"it has no {test}")


class ReadingTest(unittest.TestCase):
    def test_the_readme_fits_in_one_reading(self) -> None:
        self.assertLessEqual(README.stat().st_size, 12288)

    def test_every_link_leads_somewhere(self) -> None:
        for document, text in DOCUMENTS.items():
            for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
                with self.subTest(document, target=target):
                    if not target.startswith("https://"):
                        self.assert_is_there(document, target)

    def assert_is_there(self, document: str, target: str) -> None:
        name, _, anchor = target.partition("#")
        path = (REPOSITORY / document).parent / name if name else REPOSITORY / document
        self.assertTrue(path.exists(), "no such file")
        if anchor:
            self.assertIn(anchor, anchors(path.read_text("utf-8")))

    def test_every_document_is_linked_from_the_readme(self) -> None:
        for document in DOCUMENTS:
            if document != "README.md":
                self.assertIn(f"]({document}", DOCUMENTS["README.md"])

    def test_every_registry_that_is_shown_is_well_formed(self) -> None:
        shown = [b.text for b in blocks(ALL, "json") if '"command"' in b.text]
        self.assertTrue(shown)
        for text in shown:
            checker = Checker(Path("crons.json"), Path("/log"))
            checker.crons(text)
            # Not every host lets these users be run as.
            faults = [fault for fault in checker.faults if ": user: only" not in fault]
            self.assertEqual(faults, [], text)

    def test_every_call_of_the_program_is_one(self) -> None:
        parser = cli.parser()
        shown = {s.command for block in blocks(ALL, "console") for s in steps(block)}
        calls = (re.search(r"(?:^|\s)cron-trigger( [^|>]*)", text) for text in shown)
        for call in filter(None, calls):
            with self.subTest(call[0]):
                parser.parse_args(shlex.split(call[1]))

    def test_a_block_that_is_not_run_says_why(self) -> None:
        for block in blocks(ALL, "console"):
            if block.comment:
                self.assertRegex(block.comment, rf"^not run: .{{10}}|^{BOOTED}$")


class Shown:
    """What a document shows, tried in a folder of its own."""

    def __init__(
        self,
        test: unittest.TestCase,
        program: Path = PROGRAM,
        python: str = sys.executable,
        user: Optional[int] = None,
    ) -> None:
        self._test = test
        self._program = program
        self._user = user
        self._folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        test.addCleanup(shutil.rmtree, self._folder)
        (self._folder / program.name).symlink_to(program)
        commands = self._folder / "commands"
        commands.mkdir()
        (commands / "python3").symlink_to(python)
        (commands / "cron-trigger").symlink_to(program)
        self._log_dir = self._folder / "log"
        self._port = 0
        if user is not None:
            os.chown(self._folder, user, user)

    def _environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CRON_")}
        dirs = {
            variable_of(f"{name}-dir"): str(self._folder / name)
            for name in ("log", "state", "run")
        }
        port = str(self._port)
        where = {"CRON_TRIGGER_HOST": "127.0.0.1", "CRON_TRIGGER_PORT": port}
        path = {"PATH": f"{self._folder}/commands:{kept['PATH']}", "TZ": "UTC"}
        registry = self._folder / "crons.json"
        if registry.exists():  # one that the document shows
            where["CRON_TRIGGER_REGISTRY"] = str(registry)
        return {**kept, **dirs, **where, **path}

    def try_all(self, text: str) -> int:
        """Try each block; return how many commands were tried."""
        tried = 0
        for block in blocks(text):
            if block.comment.startswith("file: "):
                name = block.comment[len("file: ") :]
                (self._folder / name).write_text(block.text, "utf-8")
            elif block.language == "console" and not block.comment:
                for step in steps(block):
                    with self._test.subTest(step.command):
                        self._try(step)
                    tried += 1
        return tried

    def _try(self, step: Step) -> None:
        if re.match(r"python3 cron_trigger_server\.py( --|$)", step.command):
            self._start(step)
            return
        command = step.command.replace(":9998", f":{self._port}")
        # What is endless is cut off: not before a slow machine has said it all.
        command = command.replace("curl -sN -m 2 ", "curl -sN -m 6 ")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environ(),
            user=self._user,
            group=self._user,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=90,
            check=False,
        )
        self._compare(step.output, done.stdout.decode("utf-8", "replace"))

    def _compare(self, shown: str, got: str) -> None:
        """Fail where what is shown is not what appeared."""
        got = re.sub(rf":{self._port}\b", ":9998", got.strip())
        got = got.replace(f'"port": {self._port}', '"port": 9998')
        got = got.replace(str(self._log_dir), "/var/log/qadhya")
        got = got.replace(str(self._folder), ".")
        got = got.replace(str(self._program), "/usr/local/bin/cron-trigger")
        fault = difference(shown, got)
        if fault:
            self._test.fail(fault)

    def _start(self, step: Step) -> None:
        """Start a server as it is shown; it ends with the test."""
        process = subprocess.Popen(
            shlex.split(step.command),
            cwd=self._folder,
            env=self._environ(),
            user=self._user,
            group=self._user,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._test.addCleanup(self._end, process)
        assert process.stdout
        line = process.stdout.readline().decode()
        self._port = int(line.rpartition(":")[2])
        self._compare(step.output, line)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stdout
        process.stdout.close()


@slow
class ShownTest(unittest.TestCase):
    """What is shown is what one gets."""

    def try_document(self, name: str) -> None:
        need_command("curl")
        self.assertTrue(Shown(self).try_all(DOCUMENTS[name]), "nothing was tried")

    def test_the_readme(self) -> None:
        self.try_document("README.md")

    def test_the_readme_in_a_fresh_clone_of_an_ordinary_user(self) -> None:
        need_command("curl")
        need(os.geteuid() == 0, "only root can be somebody else")
        python = shutil.which("python3", path="/usr/bin:/bin")
        need(python, "there is no python3 that every user may start")
        folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        hidden = shutil.ignore_patterns(".*", "__pycache__", "tests")
        clone = shutil.copytree(REPOSITORY, folder / "clone", ignore=hidden)
        shown = Shown(self, Path(clone) / PROGRAM.name, str(python), NOBODY)
        self.assertTrue(shown.try_all(DOCUMENTS["README.md"]))

    def test_the_interface(self) -> None:
        self.try_document("docs/http.md")

    def test_the_registry(self) -> None:
        self.try_document("docs/scripts.md")

    def test_all_documents_are_tried_that_have_anything_to_try(self) -> None:
        names = {
            name
            for name, text in DOCUMENTS.items()
            if any(not block.comment for block in blocks(text, "console"))
        }
        tried = {"README.md", "docs/http.md", "docs/scripts.md"}
        self.assertEqual(names, tried)

    def test_another_output_than_what_is_shown_is_a_fault(self) -> None:
        shown = Shown(self)
        for text in ("two", "one\n…\ntwo", "2 crons"):
            with self.subTest(text), self.assertRaises(AssertionError):
                shown._compare(text, "one")
        shown._compare("3 ms at 2026-11-23T10:00Z", "2 h 05 min at 2027-01-01T00:00Z")


if __name__ == "__main__":
    unittest.main()
