"""Parameters: what a caller may hand to a script, and how it gets there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import unittest
import warnings
from typing import Any, Mapping

from support import Reply, Server, slow, wait_until

from cron_trigger import SERVICE
from cron_trigger.cli import main

#: Prints its arguments and the variables that it got, a line each.
SHOW = """#!/bin/sh
for argument; do printf 'argument %s\\n' "$argument"; done
exec env
"""

PARAMETERS: dict[str, Any] = {
    "city": {"type": "string", "default": "Lyon", "maxLength": 12},
    "days": {"type": "integer", "minimum": 1, "maximum": 30, "default": 7},
    "ratio": {"type": "number", "minimum": 0, "maximum": 1},
    "force": {"type": "boolean", "default": False},
    "mode": {"type": "string", "enum": ["fast", "full", "--all"]},
    "code": {"type": "string", "pattern": "[A-Z]{2}[0-9]+"},
    "flag": {"type": "string", "pattern": "-[a-z]"},
    "day": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "dry-run": {"type": "boolean"},
    "token": {"type": "string", "format": "password", "minLength": 4},
}
COMMAND = [
    "./show.sh", "{city}", "--days={days}", "{ratio}", "{mode}", "{city}/{code}",
    "{unknown}", "{flag}",
]  # fmt: skip
REGISTRY = {
    "show": {
        "description": "Shows what it got",
        "command": COMMAND,
        "parameters": PARAMETERS,
        "environment": {"HOME_OF": "registry"},
    },
    "needy": {
        "description": "Needs two",
        "command": "show.sh",
        "parameters": {
            "who": {"type": "string", "required": True},
            "secret": {"type": "string", "format": "password", "required": True},
        },
    },
    "bare": {"description": "Takes none", "command": "show.sh"},
}
#: Nothing of this may ever be found anywhere but in the script's environment.
PASSWORD = "hunter2-κλειδί"


class ParametersTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.script("show.sh", SHOW)
        cls.server.start()

    def shown(self, **params: Any) -> Any:
        """Return what the script says that it got."""
        run = self.server.completed("show", params=params)
        self.assertEqual(run["status"], "completed")
        return self.told(run["id"])

    def told(self, run_id: int) -> Any:
        lines = self.server.get(f"/runs/{run_id}/log").text.rstrip("\n").split("\n")
        given = [ln[len("argument ") :] for ln in lines if ln.startswith("argument ")]
        rest = (line.partition("=") for line in lines[len(given) :])
        return {"arguments": given, "environment": {k: v for k, _, v in rest}}

    def refused(self, name: str, value: Any) -> str:
        """Return why a value is refused; nothing may have been started for it."""
        before = self.server.get("/runs?limit=1").json["runs"]
        reply = self.server.trigger("show", params={name: value})
        self.assertEqual(reply.status, 400, f"{name} = {value!r} was taken")
        self.assertEqual(reply.json["code"], "invalid_params")
        self.assertEqual(list(reply.json["errors"]), [name])
        self.assertEqual(self.server.get("/runs?limit=1").json["runs"], before)
        return str(reply.json["errors"][name])

    # ---- how values reach the script

    def test_defaults_are_filled_in_and_absent_placeholders_left_out(self) -> None:
        got = self.shown()
        self.assertEqual(got["arguments"], ["Lyon", "--days=7", "Lyon/", "{unknown}"])
        environment = got["environment"]
        self.assertEqual(environment["CRON_PARAM_CITY"], "Lyon")
        self.assertEqual(environment["CRON_PARAM_DAYS"], "7")
        self.assertEqual(environment["CRON_PARAM_FORCE"], "false")
        self.assertNotIn("CRON_PARAM_RATIO", environment)

    def test_values_come_as_environment_and_as_placeholders(self) -> None:
        got = self.shown(
            city="Saint-Étienne"[:12],
            days=30,
            ratio=0.25,
            force=True,
            mode="full",
            code="AB1",
            flag="-v",
            **{"dry-run": False},
        )
        self.assertEqual(
            got["arguments"],
            [
                "Saint-Étienn",
                "--days=30",
                "0.25",
                "full",
                "Saint-Étienn/AB1",
                "{unknown}",
                "-v",
            ],
        )
        environment = got["environment"]
        self.assertEqual(environment["CRON_PARAM_FORCE"], "true")
        self.assertEqual(environment["CRON_PARAM_DRY_RUN"], "false")
        self.assertEqual(environment["HOME_OF"], "registry")
        self.assertEqual(environment["CRON_NAME"], "show")
        self.assertEqual(environment["CRON_TRIGGER"], "http")

    def test_a_value_is_data_and_never_a_shells_or_a_placeholder(self) -> None:
        for city in ("$(id)", "`id`; ls", "a  b", "{days}", "*", "", '"', "\\n", "'"):
            with self.subTest(city):
                got = self.shown(city=city)
                self.assertEqual(got["arguments"][0], city)
                self.assertEqual(got["environment"]["CRON_PARAM_CITY"], city)

    def test_whole_numbers_are_integers_in_each_notation(self) -> None:
        self.assertIn("--days=3", self.shown(days=3.0)["arguments"])
        self.assertIn("1", self.shown(ratio=1.0)["arguments"])
        run = self.server.completed("show", params={"days": 3.0})
        self.assertEqual(json.dumps(run["params"]["days"]), "3")

    def test_the_run_keeps_its_parameters(self) -> None:
        run = self.server.completed("show", params={"city": "Nice", "days": 2})
        kept = {"city": "Nice", "days": 2, "force": False}
        self.assertEqual(run["params"], kept)

    # ---- what is refused

    def test_a_value_that_breaks_its_rule_is_refused_with_the_reason(self) -> None:
        cases = (
            ("city", 5, "a string"),
            ("city", ["Lyon"], "a string"),
            ("city", "x" * 13, "at most 12"),
            ("days", 0, "at least 1"),
            ("days", 31, "at most 30"),
            ("days", 1.5, "an integer"),
            ("days", "7", "an integer"),
            ("days", True, "an integer"),
            ("days", 2**63, "an integer"),
            ("ratio", -0.01, "at least 0"),
            ("ratio", 1.01, "at most 1"),
            ("ratio", False, "a number"),
            ("ratio", 10**400, "a number"),
            ("force", 1, "a boolean"),
            ("force", "true", "a boolean"),
            ("mode", "slow", "one of"),
            ("code", "ab1", "the pattern"),
            ("code", "AB1 ", "the pattern"),
            ("code", "xAB1", "the pattern"),
            ("day", "2026-02-30", "a date"),
            ("day", "20261123", "a date"),
            ("day", "2026-11-23T10:00:00Z", "a date"),
            ("moment", "2026-11-23T10:00:00", "a date-time"),
            ("moment", "2026-11-23", "a date-time"),
            ("moment", "2026-11-23T25:00:00Z", "a date-time"),
            ("token", "abc", "at least 4"),
            ("nonsense", 1, "is not a parameter"),
        )
        for name, value, reason in cases:
            with self.subTest(name=name, value=str(value)[:40]):
                self.assertIn(reason, self.refused(name, value))

    def test_what_could_be_taken_for_an_option_is_refused(self) -> None:
        for value in ("-", "--help", "-rf", "-1"):
            with self.subTest(value):
                self.assertIn("option", self.refused("city", value))
        # Unless the registry itself lists it, or has a pattern that admits it.
        self.assertIn("--all", self.shown(mode="--all")["arguments"])
        self.assertIn("-v", self.shown(flag="-v")["arguments"])
        self.assertIn("the pattern", self.refused("flag", "--verbose"))

    def test_nul_and_control_characters_are_refused(self) -> None:
        for value in ("a\0b", "a\nb", "a\x1bb", "a\x7fb", "a\x85b", "\r"):
            with self.subTest(repr(value)):
                self.assertIn("control", self.refused("city", value))

    def test_dates_are_taken(self) -> None:
        got = self.shown(day="2024-02-29", moment="2026-11-23T10:00:00.5+01:00")
        self.assertEqual(got["environment"]["CRON_PARAM_DAY"], "2024-02-29")

    def test_a_pattern_meets_no_more_than_a_bounded_text(self) -> None:
        self.assertIn("at most 1000", self.refused("code", "A" * 1001))

    def test_null_is_as_if_a_parameter_were_not_given(self) -> None:
        run = self.server.completed("show", params={"city": None, "ratio": None})
        self.assertEqual(run["params"], {"city": "Lyon", "days": 7, "force": False})

    def test_all_faults_are_named_at_once(self) -> None:
        reply = self.server.trigger("show", params={"days": 0, "force": 1, "x": 2})
        self.assertEqual(set(reply.json["errors"]), {"days", "force", "x"})
        reply = self.server.trigger("needy")
        self.assertEqual(set(reply.json["errors"]), {"who", "secret"})
        reply = self.server.trigger("bare", params={"x": 1})
        self.assertEqual(list(reply.json["errors"]), ["x"])

    def test_parameters_come_as_an_object(self) -> None:
        wrong: list[Any] = [[], "x", 1, False, True]
        for params in wrong:
            reply = self.server.trigger("bare", params=params)
            self.assertEqual(reply.json["code"], "invalid_request", params)
        body = b'{"cronName": "show", "params": {"days": 1, "days": 2}}'
        headers = {"Content-Type": "application/json"}
        reply = self.server.request("POST", "/trigger", body, headers)
        self.assertEqual(reply.status, 400, "a parameter given twice was taken")

    def test_the_definitions_are_shown(self) -> None:
        crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
        shown = crons["show"]["parameters"]
        self.assertEqual(shown["city"], PARAMETERS["city"])
        self.assertEqual(shown["mode"], PARAMETERS["mode"])
        self.assertTrue(crons["needy"]["parameters"]["who"]["required"])
        self.assertEqual(crons["bare"]["parameters"], {})

    # ---- the command line

    def cli(self, cron: str, *params: str) -> Any:
        flags = [f"--param={param}" for param in params]
        return self.server.command("run", cron, *flags)

    def cli_refused(self, cron: str, *params: str) -> str:
        """Return what the command line says to parameters that it refuses."""
        flags = [f"--param={param}" for param in params]
        # A process that ends need not close what it opened.
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = main(["run", cron, *flags, *self.server.folder_flags()])
        self.assertEqual(code, 64, said.getvalue())
        own = [ln for ln in said.getvalue().splitlines() if ln.startswith(SERVICE)]
        self.assertEqual(len(own), 1, said.getvalue())
        return own[0]

    def cli_shown(self, *params: str) -> Any:
        done = self.cli("show", *params)
        self.assertEqual(done.returncode, 0, done.stderr)
        run = self.server.get("/runs?limit=1").json["runs"][0]
        self.assertEqual((run["trigger"], run["status"]), ("cli", "completed"))
        return self.told(run["id"])

    def test_run_takes_parameters_through_the_same_check(self) -> None:
        got = self.cli_shown("city=a=b", "days=3", "ratio=0.5", "force=TRUE")
        self.assertEqual(got["arguments"][:3], ["a=b", "--days=3", "0.5"])
        self.assertEqual(got["environment"]["CRON_PARAM_FORCE"], "true")
        self.assertEqual(got["environment"]["CRON_TRIGGER"], "cli")
        for param, reason in (
            ("days=31", "at most 30"),
            ("days=x", "an integer"),
            ("ratio=nan", "a number"),
            ("force=yes", "a boolean"),
            ("city=-x", "option"),
            ("city=\udcff", "UTF-8"),
            ("x=1", "is not a parameter"),
            ("city", "KEY=VALUE"),
        ):
            with self.subTest(param.encode("utf-8", "replace")):
                self.assertIn(reason, self.cli_refused("show", param))
        self.assertIn("once", self.cli_refused("show", "days=1", "days=2"))
        self.assertIn("who is required", self.cli_refused("needy"))
        self.assertEqual(self.cli("show", "days=31").returncode, 64)


@slow
class PasswordTest(unittest.TestCase):
    """A password reaches the script's environment, and nothing else in the world."""

    def test_a_password_is_never_shown_logged_or_returned(self) -> None:
        answers: list[Reply] = []
        with Server(REGISTRY) as server:
            server.script("check.py", CHECK.replace("PASSWORD", repr(PASSWORD)))
            server.write_registry({**REGISTRY, **PASSWORD_REGISTRY})
            answers.append(server.trigger("locked", params={"token": PASSWORD}))
            run = server.ended(answers[-1].json["runId"])
            self.assertEqual(run["exitCode"], 0, "the script did not get it")
            self.assertEqual(run["params"], {"user": "me"})
            answers += self.refusals(server)
            done = server.command("run", "locked", f"--param=token={PASSWORD}")
            self.assertEqual(done.returncode, 0, done.stderr)
            for path in ("/crons", "/runs", "/scheduled", "/metrics", "/health"):
                answers.append(server.get(path))
            answers += [
                server.get(f"/runs/{n}{s}") for n in (1, 2) for s in ("", "/log")
            ]
            events = server.rows("select data from events")
            server.stop()
            for reply in answers:
                self.assertNotIn(PASSWORD, reply.text)
                self.assertNotIn(json.dumps(PASSWORD)[1:-1], reply.text)
            self.assertNotIn(PASSWORD, done.stdout + done.stderr + str(events))
            self.assertEqual(self.files_with_password(server), ["check.py"])

    def refusals(self, server: Server) -> list[Reply]:
        """Send it in every place where a refusal might quote it."""

        def send(params: Any, **more: Any) -> Reply:
            reply = server.trigger("locked", params=params, **more)
            self.assertGreaterEqual(reply.status, 400)
            return reply

        at = "2036-01-01T00:00:00Z"
        return [
            send({"token": PASSWORD}, runAt=at),
            send({"token": [PASSWORD]}),
            send({"token": PASSWORD * 100}),
            send({"token": "-" + PASSWORD}),
            send({"token": PASSWORD + "\n"}),
            send({"token": PASSWORD, "user": 5}),
            send({"pin": PASSWORD}),
            send({"choice": PASSWORD}),
        ]

    def files_with_password(self, server: Server) -> list[str]:
        found = []
        for folder, _, names in os.walk(server.folder):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                if any(form in content for form in FORMS):
                    found.append(name)
        return found

    def test_a_defaults_password_is_not_shown_either(self) -> None:
        secret = {"type": "string", "format": "password", "default": PASSWORD}
        cron = {"description": "D", "command": ["true"], "parameters": {"t": secret}}
        with Server({"cron": cron}) as server:
            server.completed("cron")
            for path in ("/crons", "/runs", "/runs/1"):
                self.assertNotIn(PASSWORD, server.get(path).text)
            listed = server.command("list", "--json").stdout
            self.assertNotIn(PASSWORD, listed)
            shown = json.loads(listed)["crons"][0]["parameters"]["t"]
            self.assertEqual(shown, {"type": "string", "format": "password"})

    def test_the_key_of_a_retry_keeps_no_password(self) -> None:
        with Server(PASSWORD_REGISTRY) as server:
            server.script("check.py", CHECK.replace("PASSWORD", repr(PASSWORD)))
            body: Mapping[str, Any] = {
                "cronName": "locked",
                "params": {"token": PASSWORD},
            }
            key = {"Idempotency-Key": "k1"}
            first = server.request("POST", "/trigger", body, key)
            server.ended(first.json["runId"])
            again = server.request("POST", "/trigger", body, key)
            self.assertEqual(again.json["runId"], first.json["runId"])
            other = {"cronName": "locked", "params": {"token": PASSWORD + "x"}}
            reply = server.request("POST", "/trigger", other, key)
            self.assertEqual(reply.json["code"], "idempotency_mismatch")
            wait_until(lambda: server.rows("select digest from idempotency_keys"))
            server.stop()
            self.assertEqual(self.files_with_password(server), ["check.py"])


FORMS = (PASSWORD.encode(), json.dumps(PASSWORD)[1:-1].encode(), b"hunter2")
CHECK = """#!/usr/bin/env python3
import os, sys
sys.exit(os.environ.get("CRON_PARAM_TOKEN") != PASSWORD or len(sys.argv) != 1)
"""
PASSWORD_REGISTRY: dict[str, Any] = {
    "locked": {
        "description": "Needs a password",
        "command": ["./check.py"],
        "parameters": {
            "token": {"type": "string", "format": "password", "maxLength": 50},
            "user": {"type": "string", "default": "me"},
            "pin": {"type": "string", "format": "password", "pattern": "[0-9]+"},
            "choice": {"type": "string", "format": "password", "enum": ["a", "b"]},
        },
    }
}


if __name__ == "__main__":
    unittest.main()
