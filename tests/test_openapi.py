"""docs/openapi.json describes the interface exactly: held against a real server."""

from __future__ import annotations

import http.client
import importlib.util
import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Iterator

from fast.test_openapi import DOCUMENT
from support import Server, limited, need, need_full

SECRET = "a-secret-of-the-tests"


REGISTRY: dict[str, Any] = {
    "import-day": {
        "description": "With parameters",
        "command": ["echo", "{mode}"],
        "schedule": "30 2 1 1 *",  # once a year: none is late here
        "parameters": {
            "day": {"type": "string", "format": "date"},
            "mode": {"type": "string", "enum": ["fast", "full"], "default": "fast"},
            "token": {"type": "string", "format": "password"},
        },
    },
    "quick": {"description": "Ends at once", "command": ["true"]},
    "missing": {"description": "Can't start", "command": ["/nowhere/script"]},
    # Who asks for its end, or follows it, is answered within the --request-timeout.
    "long": {"description": "Takes its time", "command": ["sleep", "10"]},
}


class ServedTest(unittest.TestCase):
    server: Server
    headers: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        # It sends wrong secrets by the dozen, each of which is to be told so.
        program = limited("wrong_secrets=(10**6, 6.0, 10)")
        environ = {"CRON_TRIGGER_SECRET": SECRET}
        cls.server = Server(REGISTRY, environ, program=program)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()
        cls.headers = {"X-Trigger-Secret": SECRET, "Content-Type": "application/json"}

    def test_it_is_served_without_a_secret(self) -> None:
        reply = self.server.get("/openapi.json")
        self.assertEqual((reply.status, reply.json), (200, DOCUMENT))

    def trigger(self, body: Any) -> Any:
        return self.server.request("POST", "/trigger", body, self.headers).json

    def test_what_events_say_is_as_described(self) -> None:
        need(importlib.util.find_spec("jsonschema"), "jsonschema is not installed")
        jsonschema = importlib.import_module("jsonschema")
        self.trigger({"cronName": "quick"})
        self.trigger({"cronName": "missing"})
        plan = self.trigger({"cronName": "quick", "runAt": "2099-01-01T00:00:00Z"})
        address = f"/scheduled/{plan['scheduledId']}"
        self.server.request("DELETE", address, None, self.headers)
        of_event = {
            "run.started": "RunStartedEvent",
            "run.finished": "RunFinishedEvent",
            "schedule.created": "ScheduledEvent",
            "schedule.cancelled": "ScheduledEvent",
        }
        seen = set()
        for name, data in self.events(len(of_event)):
            seen.add(name)
            reference = f"#/components/schemas/{of_event[name]}"
            schema = {**DOCUMENT, "$ref": reference}
            jsonschema.Draft202012Validator(schema).validate(data)
        self.assertEqual(seen, set(of_event))

    def events(self, names: int) -> Iterator[tuple[str, Any]]:
        """Yield events from the first on, until so many names were among them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, 15)
        self.addCleanup(connection.close)
        headers = {**self.headers, "Last-Event-ID": "0"}
        connection.request("GET", "/events", headers=headers)
        seen: set[str] = set()
        name = ""
        for line in connection.getresponse():
            kind, _, text = line.decode().rstrip("\n").partition(": ")
            if kind == "event":
                name = text
                seen.add(name)
            elif kind == "data":
                yield name, json.loads(text)
                if len(seen) == names:
                    return

    def test_schemathesis_finds_no_answer_that_is_not_described(self) -> None:
        need_full()
        program = shutil.which("schemathesis")
        need(program, "schemathesis is not installed: pip install schemathesis")
        for name in ("import-day", "quick", "missing", "long"):
            self.trigger({"cronName": name})
        folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, folder)
        done = subprocess.run(
            [
                str(program),
                "run",
                f"http://127.0.0.1:{self.server.port}/openapi.json",
                "--header",
                f"X-Trigger-Secret: {SECRET}",
                "--exclude-path=/events",  # which never ends
                # A plan for the past is of the right form, and refused.
                "--exclude-checks=positive_data_acceptance",
                "--max-examples=25",
                "--generation-database=none",
                "--continue-on-failure",
                "--request-timeout=60",
                "--no-color",
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:])


if __name__ == "__main__":
    unittest.main()
