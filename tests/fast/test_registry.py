"""The registry: every fault with its place, and taken again when the file changes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import pwd
import re
import shutil
import sys
import tempfile
import threading
import unittest
from concurrent import futures
from pathlib import Path
from typing import Any, Mapping, Union
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import FULL, REPOSITORY, need, slow, wait_until

from cron_trigger.registry import threads
from cron_trigger.registry.file import REGISTRY_BYTES, Registry, load_registry

GOOD = {"a": {"description": "A", "command": ["true"]}}


SCHEMA = json.loads((REPOSITORY / "crons.schema.json").read_text(encoding="utf-8"))


#: What a JSON Schema can't say: each a part of the fault that `check` tells.
NOT_SAID = re.compile(
    r"this is not JSON|this is not UTF-8|is given twice|is the log of"
    r"|has the same variable|can't hold|expected the name of a user|only root runs"
    r"|pattern: (is not a regular|could|refers|repeats)|is above"
    # Times that no clock has, and fields that are no numbers in their range.
    r"|schedule: (minute|hour|day of month|month|day of week|expected a day)"
    # A definition's own values against its own rules.
    r"|(default|enum): (must|expected (one of|a date))"
    # Python's `$` matches before a last line's end as well; other languages' does not.
    r"|\\n\": a cron's name is"
)


def validator() -> Any:
    """Return the class that validates; skips where the package is not installed."""
    need(importlib.util.find_spec("jsonschema"), "jsonschema is not installed")
    return importlib.import_module("jsonschema").Draft202012Validator


def schema_faults(registry: Any) -> list[str]:
    """Return what an editor says that knows the schema."""
    return [error.message for error in validator()(SCHEMA).iter_errors(registry)]


class FolderCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "crons.json"

    def write(self, content: Union[str, bytes, Mapping[str, Any]]) -> None:
        if isinstance(content, Mapping):
            content = json.dumps(content)
        data = content.encode() if isinstance(content, str) else content
        self.path.write_bytes(data)

    def faults(self, content: Union[str, bytes, Mapping[str, Any]]) -> list[str]:
        """Return the faults of a registry file without its name at their beginning."""
        self.write(content)
        faults = load_registry(self.path, Path("/var/log/qadhya"))[1]
        for fault in faults:
            self.assertTrue(fault.startswith("crons.json: "), fault)
            self.assertTrue(fault.isprintable(), fault)
        self.assert_schema_agrees(content, faults)
        return [fault[len("crons.json: ") :] for fault in faults]

    def assert_schema_agrees(
        self, content: Union[str, bytes, Mapping[str, Any]], faults: list[str]
    ) -> None:
        """Assert that the schema finds a fault where the check does, as it can."""
        with contextlib.suppress(ValueError, unittest.SkipTest, RecursionError):
            told = schema_faults(
                content if isinstance(content, Mapping) else json.loads(content)
            )
            if any(not NOT_SAID.search(fault) for fault in faults):
                self.assertTrue(told, f"the schema admits it: {content!r}: {faults}")
            elif not faults:
                self.assertEqual(told, [], content)

    def entry_faults(self, **keys: Any) -> list[str]:
        """Return the faults of a good entry with some keys of its own."""
        entry = {"description": "A", "command": "a.sh", **keys}
        faults = self.faults({"a": entry})
        for fault in faults:
            self.assertTrue(fault.startswith('"a": '), fault)
        return [fault[len('"a": ') :] for fault in faults]


class WholeFileTest(FolderCase):
    def test_the_fault_of_the_contract_reads_exactly_so(self) -> None:
        self.write({"index-kb": {"description": "d", "command": "c", "timeout": "12x"}})
        self.assertEqual(
            load_registry(self.path, Path("/log"))[1],
            [
                'crons.json: "index-kb": timeout: expected a duration such as "90s", '
                'got "12x"'
            ],
        )

    def test_a_file_that_is_no_json_object_is_one_fault(self) -> None:
        table: dict[Union[str, bytes], str] = {
            "": "this is not JSON: it is empty; write at least {}",
            "{": "this is not JSON: it ends too early (line 1, column 1)",
            '{"a": NaN}': "this is not JSON: NaN is not JSON",
            '{"a": 1e999}': "this is not JSON: ",
            "[" * 100_000: "this is not JSON: it is nested too deeply",
            '{"a": "\\ud800"}': "this is not JSON: it holds half of a surrogate pair",
            "[]": "expected an object, got []",
            "null": "expected an object, got null",
            '"x"': 'expected an object, got "x"',
            b"\xff{}": "this is not UTF-8: byte 0",
            b'{"a": "\xc3("}': "this is not UTF-8: byte 7",
            b"\xff\xfe{\x00}\x00": "this is not UTF-8: byte 0; save it so",
            b"\x00": "this is not JSON: ",
        }
        for content, beginning in table.items():
            with self.subTest(content[:20]):
                faults = self.faults(content)
                self.assertEqual(len(faults), 1)
                self.assertEqual(faults[0][: len(beginning)], beginning)

    def test_a_file_that_is_not_there_or_a_folder_or_too_large_is_a_fault(self) -> None:
        log = Path("/log")
        self.assertEqual(
            load_registry(self.path, log)[1],
            [f"crons.json: can't be read: No such file or directory ({self.path})"],
        )
        fault = "crons.json: this is not a file"
        self.assertIn("this is not a file", str(load_registry(self.folder, log)))
        os.mkfifo(self.path)  # nobody must wait for its writer
        self.assertIn(fault, load_registry(self.path, log)[1][0])
        self.path.unlink()
        with self.path.open("wb") as file:
            file.truncate(REGISTRY_BYTES + 1)
        self.assertEqual(
            load_registry(self.path, log)[1],
            ["crons.json: must be at most 16 MiB"],
        )

    def test_every_fault_is_named_at_once_in_the_order_of_the_file(self) -> None:
        text = """{
          "b": {"command": "x", "timeout": 5, "surprise": 1},
          "b": {"description": "x", "command": "x", "logFile": "../up", "timeout": "1x",
                "timeout": "2s"},
          "_c": {"description": "x", "command": "x"},
          "cron-trigger-server": {"description": " ", "command": []},
          "d": "scripts/d.sh"
        }"""
        known = "description, command, logFile, estimatedDuration, timeout, killAfter, "
        known += "user, notify, schedule, late, workingDirectory, environment, "
        known += "parameters"
        rule = "a letter or digit, then up to 63 letters, digits, dots, _ or -"
        self.assertEqual(
            self.faults(text),
            [
                '"b": is given twice (lines 2 and 3); keep one of them',
                f'"b" (line 2): surprise: expected one of {known}',
                '"b" (line 2): description: is required',
                '"b" (line 2): timeout: expected a duration such as "90s", got 5',
                '"b" (line 3): timeout: is given twice (lines 3 and 4); keep one of '
                "them",
                '"b" (line 3): logFile: expected a file name in the log folder or '
                'an absolute path, got "../up"',
                '"b" (line 3): timeout (line 3): expected a duration such as '
                '"90s", got "1x"',
                f'"_c": a cron\'s name is {rule}',
                '"cron-trigger-server": this name is reserved for the server itself',
                '"cron-trigger-server": description: expected a text, got " "',
                '"cron-trigger-server": command: expected a script\'s path or an array '
                "of texts that begins with one, got []",
                '"d": expected an object, got "scripts/d.sh"',
            ],
        )
        self.assertEqual(
            self.faults({"b": {"timeout": 5, "surprise": 1}}),
            [
                f'"b": surprise: expected one of {known}',
                '"b": description: is required',
                '"b": command: is required',
                '"b": timeout: expected a duration such as "90s", got 5',
            ],
        )

    def test_lines_are_those_of_keys_not_of_texts_that_look_like_one(self) -> None:
        text = """{
          "$schema": "\\"a\\": {",
          "a": {"description": "\\"b\\":", "command": ["\\\\", "{\\"a\\": 1}"]},
          "x": {"description": "x", "command": ["x", "a"], "environment":
            {"a": "1", "b": "2",
             "a": "3"}},
          "a":
            {"description": "A", "command": "a"}
        }"""
        self.assertEqual(
            self.faults(text),
            [
                '"a": is given twice (lines 3 and 7); keep one of them',
                '"x": environment: a: is given twice (lines 5 and 6); keep one of them',
            ],
        )

    def test_no_fault_hides_another(self) -> None:
        number = {"type": "integer", "minLength": 3, "minimum": 5, "maximum": 2}
        entry = {"description": "x", "command": "x", "logFile": "x.log"}
        faults = self.faults(
            {
                "a": {**entry, "parameters": {"n": {**number, "default": "y"}}},
                "b": {**entry, "timeout": "0s"},
            }
        )
        self.assertEqual(len(faults), 5, faults)
        for words in (
            "minLength: does not go with the type integer",
            "minimum: 5 is above maximum",
            'default: expected an integer, got "y"',
            "timeout: expected a duration",
            'is the log of "a"',
        ):
            self.assertTrue(any(words in fault for fault in faults), (words, faults))

    def test_names_that_hold_and_names_that_do_not(self) -> None:
        entry = GOOD["a"]
        for name in ("a", "0", "A.b_c-d", "x" * 64, "a..b"):
            with self.subTest(name):
                self.assertEqual(self.faults({name: entry}), [])
        for name in ("", ".a", "-a", "_a", "a b", "a/b", "é", "x" * 65, "a\n", "a\x00"):
            with self.subTest(name):
                self.assertEqual(len(self.faults({name: entry})), 1)

    def test_an_empty_registry_holds(self) -> None:
        self.assertEqual(self.faults({}), [])

    def test_a_byte_order_mark_and_a_schema_are_ignored(self) -> None:
        self.assertEqual(self.faults("\ufeff" + json.dumps(GOOD)), [])
        for schema in ("./crons.schema.json", 5):
            self.write({"$schema": schema, **GOOD})
            crons, faults = load_registry(self.path, Path("/log"))
            self.assertEqual((list(crons), faults), (["a"], []))

    def test_what_people_write_by_mistake_is_one_sentence_with_its_remedy(
        self,
    ) -> None:
        home = os.path.expanduser("~")
        entry = GOOD["a"]
        table: dict[str, Union[str, Mapping[str, Any]]] = {
            "this is not JSON: take away the comma before the } (line 2, column 10)":
                '{"a": {"description": "A",\n "x": "y",}}',
            "this is not JSON: JSON has no comments; take it away (line 1, column 3)":
                "{ // crons\n}",
            '"a": is given twice (line 1); keep one of them':
                '{"a": {"description": "A", "command": "x"},'
                ' "a": {"description": "B", "command": "x"}}',
            '"a": timout: expected one of description, command, logFile, '
            "estimatedDuration, timeout, killAfter, user, notify, schedule, late, "
            "workingDirectory, environment, parameters; did you mean timeout?":
                {"a": {**entry, "timout": "5s"}},
            '"a": parameters: n: minimun: expected one of type, title, description, '
            "default, enum, minimum, maximum, minLength, maxLength, pattern, format, "
            "required; did you mean minimum?":
                {"a": {**entry, "parameters": {"n": {"type": "number", "minimun": 1}}}},
            f'"a": command: ~ stands for no folder here: write {home}/a.sh in full, '
            'got "~/a.sh"': {"a": {**entry, "command": ["~/a.sh", "~"]}},
            f'"a": logFile: ~ stands for no folder here: write {home}/a.log in full, '
            'got "~/a.log"': {"a": {**entry, "logFile": "~/a.log"}},
            '"a": workingDirectory: ~ stands for no folder here: write /home/NAME/… in '
            'full, got "~nobody-here/x"':
                {"a": {**entry, "workingDirectory": "~nobody-here/x"}},
        }  # fmt: skip
        for told, content in table.items():
            with self.subTest(told):
                self.assertEqual(self.faults(content), [told])


class EntryTest(FolderCase):
    def assert_fault(self, expected: str, **keys: Any) -> None:
        with self.subTest(keys):
            self.assertEqual(self.entry_faults(**keys), [expected])

    def test_everything_that_an_entry_may_hold(self) -> None:
        text = self.entry_faults(
            logFile="/var/log/elsewhere/a.log",
            estimatedDuration="1m30s",
            timeout="2h",
            workingDirectory="/tmp",
            environment={"PATH": "/bin", "_x1": "", "é".upper().lower() and "B": "é\n"},
            parameters={"n": {"type": "integer"}},
            notify="failure",
            killAfter="1m",
            user=pwd.getpwuid(os.geteuid()).pw_name,
            schedule="30 2 * * mon-fri",
            late="10m",
        )
        self.assertEqual(text, [])

    def test_the_defaults_of_what_an_entry_leaves_out(self) -> None:
        self.write({"a": {"description": "A", "command": "x"}})
        cron = load_registry(self.path, Path("/log"))[0]["a"]
        self.assertEqual((cron.kill_after_s, cron.late_s), (10.0, 300.0))
        self.assertEqual((cron.user, cron.schedule), (None, None))

    def test_what_an_entry_says_reaches_the_cron(self) -> None:
        more = {"killAfter": "2s", "late": "1m", "schedule": "@daily"}
        name = pwd.getpwuid(os.geteuid()).pw_name
        self.write({"a": {"description": "A", "command": "x", "user": name, **more}})
        cron = load_registry(self.path, Path("/log"))[0]["a"]
        self.assertEqual((cron.kill_after_s, cron.late_s), (2.0, 60.0))
        self.assertEqual(
            (cron.user, str(cron.schedule and cron.schedule.text)), (name, "@daily")
        )

    def test_a_user_is_one_of_this_host(self) -> None:
        rule = "user: expected the name of a user of this host (getent passwd)"
        for name in ("no-such-user-here", "é", "0", "root\n"):
            self.assert_fault(
                f"{rule}, got {json.dumps(name, ensure_ascii=False)}", user=name
            )
        value: Any
        for value in (None, 5, "", []):
            self.assert_fault(
                f"user: expected a text, got {json.dumps(value)}", user=value
            )

    def test_only_root_may_name_another_user(self) -> None:
        with mock.patch("os.geteuid", return_value=pwd.getpwnam("nobody").pw_uid):
            self.assertEqual(self.entry_faults(user="nobody"), [])
            (fault,) = self.entry_faults(user="root")
        self.assertIn("only root runs a script as another user", fault)
        self.assertIn(
            'got "root": start the server as root, or leave the user out', fault
        )

    def test_a_schedule_is_what_a_crontab_has(self) -> None:
        for text, told in {
            "61 * * * *": "schedule: minute: expected 0 to 59, got 61",
            "* * * *": "schedule: expected five fields (minute, hour, day of month",
            "@reboot": "schedule: expected a time, got @reboot",
        }.items():
            with self.subTest(text):
                (fault,) = self.entry_faults(schedule=text)
                self.assertTrue(fault.startswith(told), fault)
        (fault,) = self.entry_faults(schedule=5)
        self.assertIn("schedule: expected five fields as in a crontab", fault)

    def test_texts(self) -> None:
        value: Any
        for key in ("description", "logFile", "workingDirectory"):
            for value in (None, 5, [], "", " ", False):
                shown = json.dumps(value)
                self.assert_fault(
                    f"{key}: expected a text, got {shown}", **{key: value}
                )
            self.assert_fault(
                f"{key}: must not hold a NUL character", **{key: "a\x00b"}
            )

    def test_commands(self) -> None:
        value: Any
        rule = "command: expected a script's path or an array of texts that begins with"
        for value in (None, 5, {}, "", " ", [], [5], ["x", 5], [""], ["x", "\x00"]):
            shown = json.dumps(value)
            self.assert_fault(f"{rule} one, got {shown}", command=value)
        self.assertEqual(self.entry_faults(command=["x", "", " "]), [])

    def test_durations(self) -> None:
        value: Any
        for key in ("timeout", "estimatedDuration", "killAfter", "late"):
            for value in (None, 5, True, [], "", "0s", "5", "1.5h", "-5s"):
                shown = json.dumps(value)
                what = f'expected a duration such as "90s", got {shown}'
                self.assert_fault(f"{key}: {what}", **{key: value})

    def test_log_files(self) -> None:
        rule = "logFile: expected a file name in the log folder or an absolute path"
        for value in ("a/b.log", "./b.log", "../b.log", ".", ".."):
            self.assert_fault(f'{rule}, got "{value}"', logFile=value)

    def test_environments(self) -> None:
        own = "this variable is the server's own"
        rule = "a variable's name is letters, digits and _"
        self.assert_fault(
            "environment: expected an object of texts, got another value",
            environment=["KEY=abc"],
        )
        for name in ("1A", "A B", "A=B", "", "É"):
            self.assert_fault(f"environment: {name}: {rule}", environment={name: "x"})
        for name in (
            *("CRON_NAME", "CRON_RUN_ID", "CRON_TRIGGER", "CRON_TRIGGER_SECRET"),
            "CRON_PARAM_X",
        ):
            self.assert_fault(f"environment: {name}: {own}", environment={name: "x"})
        value: Any
        for value in (5, None, [], "a\x00"):
            self.assert_fault(
                "environment: A: expected a text, got another value",
                environment={"A": value},
            )

    def test_notify(self) -> None:
        value: Any
        for value in ("sometimes", None, True, []):
            self.assert_fault(
                'notify: expected "always", "failure" or "never", '
                f"got {json.dumps(value)}",
                notify=value,
            )

    def test_a_long_value_is_shown_short(self) -> None:
        faults = self.entry_faults(timeout="x" * 5000)
        self.assertLess(len(faults[0]), 200)


class ParameterDefinitionTest(FolderCase):
    def assert_fault(self, expected: str, **definition: Any) -> None:
        with self.subTest(definition):
            faults = self.entry_faults(parameters={"p": definition})
            self.assertEqual(faults, [f"parameters: p: {expected}"])

    def test_the_type_is_one_of_four(self) -> None:
        value: Any
        choices = '"string", "integer", "number", "boolean"'
        self.assert_fault("type: is required", title="x")
        self.assert_fault(f'type: expected one of {choices}, got "text"', type="text")
        for value in (["string"], None, 5, {}):
            shown = json.dumps(value)
            self.assert_fault(f"type: expected a text, got {shown}", type=value)

    def test_each_key_has_its_kind(self) -> None:
        for keys, expected in (
            ({"title": 5}, "title: expected a text, got 5"),
            ({"description": None}, "description: expected a text, got null"),
            ({"enum": "a"}, 'enum: expected an array, got "a"'),
            ({"minLength": 1.5}, "minLength: expected a whole number, got 1.5"),
            ({"minLength": True}, "minLength: expected a whole number, got true"),
            ({"maxLength": -1}, "maxLength: must not be negative, got -1"),
            ({"pattern": 5}, "pattern: expected a text, got 5"),
            ({"required": "yes"}, 'required: expected a boolean, got "yes"'),
            ({"required": 1}, "required: expected a boolean, got 1"),
            ({"enum": []}, "enum: must list at least one value"),
            ({"enum": ["a", 1]}, "enum: expected a string, got 1"),
            ({"enum": ["-a\x00"]}, "enum: must not hold control characters"),
            ({"default": 5}, "default: expected a string, got 5"),
            ({"default": "-x"}, 'default: must not begin with "-": it could be taken '
                                "for an option"),
            ({"enum": ["a"], "default": "b"}, 'default: expected one of "a", got "b"'),
            ({"format": "date", "default": "x"},
             "default: expected a date such as 2026-11-23"),
            ({"minLength": 5, "maxLength": 2}, "minLength: 5 is above maxLength"),
            ({"format": "email"},
             'format: expected one of "date", "date-time", "password", got "email"'),
        ):  # fmt: skip
            self.assert_fault(expected, type="string", **keys)
        self.assert_fault(
            "minimum: expected a number, got true", type="integer", minimum=True
        )
        self.assert_fault(
            "minimum: 5 is above maximum", type="number", minimum=5, maximum=2.5
        )
        self.assert_fault(
            "default: must be at least 1" + "0" * 400 + ", got 5",
            type="integer",
            minimum=10**400,
            default=5,
        )

    def test_a_bound_that_no_json_can_carry_is_refused(self) -> None:
        faults = self.faults(
            '{"a": {"description": "A", "command": "x", "parameters": '
            '{"n": {"type": "number", "maximum": 1e999}}}}'
        )
        self.assertEqual(len(faults), 1)

    def test_an_unknown_key_is_named_with_those_that_are_known(self) -> None:
        keys = "type, title, description, default, enum, minimum, maximum, minLength, "
        keys += "maxLength, pattern, format, required"
        self.assert_fault(f"least: expected one of {keys}", type="integer", least=1)

    def test_a_key_goes_with_its_types_only(self) -> None:
        for kind, key, value in (
            ("string", "minimum", 1),
            ("boolean", "maximum", 1),
            ("integer", "minLength", 1),
            ("number", "pattern", "x"),
            ("boolean", "format", "date"),
        ):
            self.assert_fault(
                f"{key}: does not go with the type {kind}", type=kind, **{key: value}
            )

    def test_a_pattern_must_be_a_regular_expression(self) -> None:
        for pattern in ("[", "(", "a**", "(?P<x", "\\"):
            with self.subTest(pattern):
                faults = self.entry_faults(
                    parameters={"p": {"type": "string", "pattern": pattern}}
                )
                self.assertEqual(len(faults), 1)
                self.assertIn("pattern: is not a regular expression: ", faults[0])

    def test_a_pattern_that_may_take_too_long_is_refused_with_a_better_one(
        self,
    ) -> None:
        for pattern in ("(a+)+", "(.)\\1", "a*a*a*a*"):
            (fault,) = self.entry_faults(
                parameters={"p": {"type": "string", "pattern": pattern}}
            )
            self.assertTrue(fault.startswith("parameters: p: pattern: "), fault)
            self.assertIn("too long", fault)
        long = {"type": "string", "pattern": "a" * 1001}
        self.assertEqual(
            self.entry_faults(parameters={"p": long}),
            ["parameters: p: pattern: must have at most 1000 characters, got 1001"],
        )

    def test_names_and_their_variables(self) -> None:
        rule = "a parameter's name is letters, digits, _ and -"
        text = {"type": "string"}
        for name in ("1a", "", "a b", "é", "a.b", "-a", "x" * 65):
            self.assertEqual(
                self.entry_faults(parameters={name: text}),
                [f"parameters: {name}: {rule}"],
            )
        self.assertEqual(
            self.entry_faults(parameters={"a-b": text, "A_B": text}),
            ['parameters: A_B: has the same variable as "a-b"'],
        )
        self.assertEqual(
            self.entry_faults(parameters=[]), ["parameters: expected an object, got []"]
        )
        self.assertEqual(
            self.entry_faults(parameters={"p": 5}),
            ["parameters: p: expected an object, got 5"],
        )

    def test_a_placeholder_is_neither_the_program_nor_a_password(self) -> None:
        secret = {"type": "string", "format": "password"}
        self.assertEqual(
            self.entry_faults(command=["{p}"], parameters={"p": {"type": "string"}}),
            ["command: the program can't hold {p}"],
        )
        self.assertEqual(
            self.entry_faults(command=["x", "--token={p}"], parameters={"p": secret}),
            ["command: can't hold {p}: a password goes by environment only"],
        )

    def test_the_default_of_a_password_is_not_shown(self) -> None:
        faults = self.entry_faults(
            parameters={"p": {"type": "string", "format": "password", "default": 77123}}
        )
        self.assertEqual(len(faults), 1)
        self.assertNotIn("77123", faults[0])


class SharedLogTest(FolderCase):
    def shared(self, one: str, other: str) -> list[str]:
        def entry(log_file: str) -> dict[str, str]:
            own = {"logFile": log_file} if log_file else {}
            return {"description": "A", "command": "x", **own}

        return self.faults({"one": entry(one), "two": entry(other)})

    def test_two_crons_may_not_share_a_log_however_it_is_written(self) -> None:
        log = "/var/log/qadhya"
        for one, other, path in (
            ("x.log", "x.log", f"{log}/x.log"),
            ("two.log", "", f"{log}/two.log"),
            ("", "one.log", f"{log}/one.log"),
            ("", f"{log}/one.log", f"{log}/one.log"),
            ("", f"{log}/../qadhya//one.log", f"{log}/one.log"),
            ("/a/b.log", "/a/./c/../b.log", "/a/b.log"),
        ):
            with self.subTest(one=one, other=other):
                self.assertEqual(
                    self.shared(one, other),
                    [
                        f'"two": logFile: "{path}" is the log of "one": give each cron '
                        "its own"
                    ],
                )

    def test_nobody_may_take_the_servers_own_log(self) -> None:
        log = "/var/log/qadhya/cron-trigger-server.log"
        for one in ("cron-trigger-server.log", log):
            with self.subTest(one):
                self.assertEqual(
                    self.shared(one, ""),
                    [
                        f'"one": logFile: "{log}" is the log of "cron-trigger-server": '
                        "give each cron its own"
                    ],
                )

    def test_different_logs_hold(self) -> None:
        self.assertEqual(self.shared("", ""), [])
        self.assertEqual(self.shared("x.log", "/srv/x.log"), [])


class SafetyTest(FolderCase):
    """Root only: another user puts only that user's own account at stake."""

    def setUp(self) -> None:
        super().setUp()
        need(os.geteuid() == 0, "only root refuses what others may write")

    def test_a_file_or_folder_that_others_may_write_is_refused(self) -> None:
        self.write(GOOD)
        for place, mode, who in (
            (self.path, 0o666, "others may write"),
            (self.path, 0o664, "its group may write"),
            (self.folder, 0o777, "others may write"),
            (self.folder, 0o770, "its group may write"),
        ):
            with self.subTest(place=place.name, mode=oct(mode)):
                before = place.stat().st_mode & 0o7777
                place.chmod(mode)
                faults = load_registry(self.path, Path("/log"))[1]
                place.chmod(before)
                letter = "o" if "others" in who else "g"
                self.assertEqual(
                    faults,
                    [
                        f"crons.json: refused, because {who} {place}: "
                        f"chmod {letter}-w {place}"
                    ],
                )
        self.assertEqual(load_registry(self.path, Path("/log"))[1], [])

    def test_somebody_elses_file_or_folder_is_refused(self) -> None:
        self.write(GOOD)
        for place in (self.path, self.folder):
            with self.subTest(place.name):
                os.chown(place, 65534, -1)
                faults = load_registry(self.path, Path("/log"))[1]
                os.chown(place, 0, -1)
                self.assertEqual(
                    faults,
                    [
                        f"crons.json: refused, because {place} belongs to user 65534 "
                        "(nobody): keep a copy that is root's (sudo install -D -m 644 "
                        f"-t /etc/cron-trigger-server/ {self.path})"
                    ],
                )

    def test_a_link_into_a_foreign_folder_is_refused(self) -> None:
        foreign = self.folder / "foreign"
        foreign.mkdir()
        (foreign / "crons.json").write_text(json.dumps(GOOD))
        os.chown(foreign, 65534, -1)
        self.path.symlink_to(foreign / "crons.json")
        faults = load_registry(self.path, Path("/log"))[1]
        self.assertEqual(len(faults), 1)
        self.assertIn(f"{foreign} belongs to user 65534", faults[0])


class Patient(Registry):
    """One that is waited for, however slow this machine is."""

    PATIENCE_S = 30.0


class RacyTest(FolderCase):
    def test_changes_within_one_tick_of_the_clock_are_seen(self) -> None:
        """Though size, inode and, by a tool that keeps it, the time are the same."""
        self.write({"a": GOOD["a"]})
        times = self.path.stat()
        registry = Patient(self.path, Path("/log"))
        for number in range(300 if FULL else 60):
            name = "abc"[number % 3]
            self.write({name: GOOD["a"]})
            os.utime(self.path, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.assertEqual(list(registry.crons()), [name])

    @slow
    def test_nobody_waits_for_a_file_that_takes_its_time(self) -> None:
        """Meanwhile, the crons are those of before."""
        go = threading.Event()
        go.set()

        class Hurried(Registry):
            PATIENCE_S = 0.01

            def _read_file(self) -> bool:
                return go.wait(60) and super()._read_file()

        self.write(GOOD)
        told: list[bool] = []
        registry = Hurried(self.path, Path("/log"), lambda _: told.append(True))
        go.clear()
        before = registry.crons()
        self.write(dict.fromkeys((f"c{number}" for number in range(2000)), GOOD["a"]))
        self.assertIs(registry.crons(), before)
        self.assertEqual(registry.get("a").description, "A")
        go.set()
        wait_until(lambda: len(registry.crons()) == 2000, what="the large file")
        wait_until(lambda: told == [True, True], what="the word of it")

    def test_a_reading_leaves_no_thread(self) -> None:
        self.write(GOOD)
        registry = Patient(self.path, Path("/log"))
        threads.begin("first", lambda: None)  # it waits for more to do
        wait_until(lambda: threads._idle)
        before = set(os.listdir("/proc/self/task"))
        for number in range(5):
            self.write({f"c{number}": GOOD["a"]})
            self.assertEqual(list(registry.crons()), [f"c{number}"])
            wait_until(lambda: threads._idle)
        wait_until(
            lambda: before.issuperset(os.listdir("/proc/self/task")),
            what="the end of its threads",
        )

    def test_many_who_ask_at_once_all_see_the_change(self) -> None:
        self.write(GOOD)
        registry = Patient(self.path, Path("/log"))
        for number in range(10):
            self.write({f"c{number}": GOOD["a"]})
            with futures.ThreadPoolExecutor(8) as pool:
                seen = list(pool.map(lambda _: list(registry.crons()), range(8)))
            self.assertEqual(seen, [[f"c{number}"]] * 8)

    def test_who_is_told_of_a_change_may_ask_for_the_crons(self) -> None:
        """And those who wait for the file do not wait for him in vain."""
        self.write({})
        seen: list[int] = []
        registry = Patient(
            self.path, Path("/log"), lambda changed: seen.append(len(changed.crons()))
        )
        for count in range(1, 6):
            self.write({f"c{number}": GOOD["a"] for number in range(count)})
            self.assertEqual(len(registry.crons()), count)
        wait_until(lambda: seen[-1] == 5, what="the word of the last")

    def test_an_unchanged_file_is_not_read_again(self) -> None:
        self.write(GOOD)
        registry = Patient(self.path, Path("/log"))
        wait_until(lambda: registry.crons() is registry.crons(), what="rest")
        crons = registry.crons()
        self.assertIs(registry.crons(), crons)


class ShippedTest(unittest.TestCase):
    def test_the_shipped_registry_has_no_fault_and_its_parameters_work(self) -> None:
        crons, faults = load_registry(
            REPOSITORY / "crons.json", Path("/var/log/qadhya")
        )
        if os.geteuid() == 0 and any("refused" in fault for fault in faults):
            raise unittest.SkipTest(f"this clone is not safe for root: {faults}")
        self.assertEqual(faults, [])
        self.assertEqual(len(crons), 7)
        folders = crons["largest-folders"]
        self.assertEqual(
            folders.arguments(folders.resolve({"folder": "/var/log", "count": 3})),
            ["/var/log", "3"],
        )
        for cron in crons.values():
            cron.resolve({})


if __name__ == "__main__":
    unittest.main()
