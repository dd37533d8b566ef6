"""Values: times, durations, strict JSON, and the parameters of a cron."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

sys.path.append(str(Path(__file__).resolve().parent.parent))

import support  # noqa: F401 - which finds the module

from cron_trigger.registry.checker import Checker
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.parameters import Parameter, read_parameter, value_text
from cron_trigger.registry.strict_json import JsonObject, parse_json
from cron_trigger.registry.texts import (
    Place,
    path_of,
    path_text,
    printable,
    signal_name,
)
from cron_trigger.registry.times import duration_s, duration_text, epoch_of, now_text


class DurationTest(unittest.TestCase):
    def test_hours_minutes_and_seconds_in_this_order_each_optional(self) -> None:
        table = {
            "2s": 2,
            "45s": 45,
            "90s": 90,
            "1m30s": 90,
            "2h": 7200,
            "1h1m1s": 3661,
            "0h5s": 5,
            "999999h": 999999 * 3600,
        }
        for text, seconds in table.items():
            with self.subTest(text):
                self.assertEqual(duration_s(text), seconds)

    def test_everything_else_is_no_duration(self) -> None:
        for text in (
            *("", "0s", "0h0m0s", "12x", "5", "s", "-5s", "+5s", " 5s", "5s ", "5 s"),
            *("1.5h", "30s1m", "1m1m", "5S", "5ms", "1d", "1e3s", "５s", "5s\n"),
            "9999999s",
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                duration_s(text)

    def test_people_read_durations_in_the_unit_that_fits(self) -> None:
        table = {
            None: "-",
            0: "0 ms",
            999: "999 ms",
            1000: "1.0 s",
            2100: "2.1 s",
            59949: "59.9 s",
            59960: "1 min 00 s",
            200_000: "3 min 20 s",
            3_599_600: "1 h 00 min",
            7_500_000: "2 h 05 min",
        }
        for duration_ms, text in table.items():
            with self.subTest(duration_ms):
                self.assertEqual(duration_text(duration_ms), text)


class TimeTest(unittest.TestCase):
    def test_a_time_is_written_in_utc_with_milliseconds_and_read_back(self) -> None:
        self.assertEqual(now_text(0.1234), "1970-01-01T00:00:00.123+00:00")
        self.assertAlmostEqual(epoch_of(now_text(1.5)), 1.5)

    def test_every_form_of_iso_8601_that_people_write_is_one_moment(self) -> None:
        for text in (
            "2026-11-23T10:00:00+01:00",
            "2026-11-23T09:00:00Z",
            "2026-11-23t09:00:00z",
            "2026-11-23 09:00:00+00:00",
            "2026-11-23T09:00Z",
            "2026-11-23T09:00:00.0Z",
            "2026-11-23T09:00:00.000000000Z",
            "2026-11-23T10:00:00+0100",
            "2026-11-22T19:30:00-13:30",
        ):
            with self.subTest(text):
                self.assertEqual(epoch_of(text), 1795424400.0)

    def test_random_moments_survive_the_way_there_and_back(self) -> None:
        chance = random.Random(2)
        for _ in range(300):
            zone = timezone(timedelta(minutes=chance.randint(-1439, 1439)))
            moment = datetime.fromtimestamp(chance.randint(0, 10**11) / 1000, zone)
            text = moment.isoformat(timespec="milliseconds")
            with self.subTest(text):
                self.assertAlmostEqual(epoch_of(text), moment.timestamp(), 3)

    def test_what_is_no_time_with_an_offset_is_refused(self) -> None:
        for text in (
            *("", "now", "1795424400", "2026-11-23", "2026-11-23T10:00:00"),
            *("2026-02-30T10:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T10:60:00Z"),
            *("2026-11-23T10:00:60Z", "2026-11-23T10:00:00+24:00", "20261123T100000Z"),
            *("2026-11-23T10:00:00,5Z", "2026-W48-1T10:00:00Z", "２026-11-23T10:00Z"),
            *("2026-11-23T10:00:00Z\n", " 2026-11-23T10:00:00Z", "0000-01-01T00:00Z"),
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                epoch_of(text)

    def test_the_ends_of_the_calendar_do_no_harm(self) -> None:
        epoch_of("9999-12-31T23:59:59-23:59")
        epoch_of("0001-01-01T00:00:00+23:59")

    def test_an_exit_status_above_128_is_the_signal_that_it_stands_for(self) -> None:
        table = {
            None: None,
            0: None,
            1: None,
            128: None,
            137: "SIGKILL",
            143: "SIGTERM",
        }
        for code, name in {
            **table,
            255: None,
            129: None,
            130: None,
            139: "SIGSEGV",
        }.items():
            with self.subTest(code):
                self.assertEqual(signal_name(code), name)


class PrintableTest(unittest.TestCase):
    def test_nothing_that_moves_a_cursor_or_a_line_survives(self) -> None:
        hostile = "a\nb\r\x1b[2J\x00\x7f\x85\u2028\u202e\ud800é✅"
        shown = printable(hostile)
        self.assertTrue(shown.isprintable())
        self.assertIn("\\x1b[2J", shown)
        self.assertTrue(shown.endswith("é✅"))
        shown.encode("utf-8")

    def test_a_path_that_is_no_text_is_written_as_one_and_read_back(self) -> None:
        for path, text in (
            ("/var/log/é.log", "/var/log/é.log"),
            (os.fsdecode(b"/a b/\xe9%"), "file:///a%20b/%E9%25"),
        ):
            self.assertEqual(path_text(path), text)
            self.assertEqual(path_of(text), path)

    def test_a_long_text_is_cut(self) -> None:
        self.assertEqual(printable("x" * 600, 500), "x" * 500 + "…")


class JsonTest(unittest.TestCase):
    def test_json_is_taken_as_it_is(self) -> None:
        text = '{"a": [1, -2.5e3, true, null, "é\\u00e9\\n"], "b": {}}'
        self.assertEqual(parse_json(text), json.loads(text))

    def test_a_byte_order_mark_is_no_part_of_the_text(self) -> None:
        self.assertEqual(parse_json('\ufeff{"a": 1}'), {"a": 1})

    def test_what_people_write_by_mistake_is_named_with_its_place(self) -> None:
        for text, told in {
            '{"a": 1,}': "take away the comma before the } (line 1, column 8)",
            '{\n  "a": [1, 2,\n  ]}': "the comma before the ] (line 2, column 13)",
            '{"a": {"b": 1,\n\n}}': "the comma before the } (line 1, column 14)",
            '// no\n{"a": 1}': "JSON has no comments; take it away (line 1, column 1)",
            '{"a": 1, # no\n "b": 2}': "no comments; take it away (line 1, column 10)",
            '{"a": 1 /* no */}': "no comments; take it away (line 1, column 9)",
            '{"a": 1}\n// end': "JSON has no comments; take it away (line 2, column 1)",
            "{'a': 1}": "write \" instead of ' (line 1, column 2)",
            "{\"a\": ['x']}": "write \" instead of ' (line 1, column 8)",
            '{"a": "x"\n "b": 1}': "a comma is missing (line 1, column 9)",
            '{"a": ["x" "y"]}': "a comma is missing (line 1, column 10)",
            '{"a": {} "b": 1}': "a comma is missing (line 1, column 8)",
            "{": "it ends too early (line 1, column 1)",
            "[1,\n": "it ends too early (line 1, column 3)",
            "\n": "it is empty; write at least {}",
            "{a: 1}": "write the name of a key in double quotes (line 1, column 2)",
            '{"a": yes}': 'write a text in double quotes, as "x" (line 1, column 7)',
            '{"a": 1h}': 'write a text in double quotes, as "x" (line 1, column 8)',
            '{"a": ~/x.sh}': 'write a text in double quotes, as "x" (line 1, column 7)',
            '{"a": "C:\\dir"}': "write \\\\ for a backslash (line 1, column 10)",
            '{"a": "x\ty"}': "\\t for a tab (line 1, column 9)",
            '{"a": "x\n"}': "write \\n for a new line in a text",
            '{"a": "x}': "the double quote at the end of this text is missing",
            '{"a": 1} {': "nothing may follow the last } (line 1, column 10)",
            '{"a" 1}': "expecting ':' delimiter (line 1, column 6)",
        }.items():
            with self.subTest(text), self.assertRaises(ValueError) as caught:
                parse_json(text)
            self.assertIn(told, str(caught.exception))

    def test_a_key_given_twice_is_remembered_at_its_depth(self) -> None:
        value = parse_json('{"a": {"x": 1, "x": 2, "y": 3}, "b": 1}')
        self.assertEqual((value.twice, value["a"].twice), ([], ["x"]))
        pairs = [("x", 1), ("x", 2), ("y", 3)]
        self.assertEqual(list(value["a"].all_items()), pairs)

    def test_what_is_not_strict_json_is_refused(self) -> None:
        for text in (
            *(
                "",
                " ",
                "{",
                "{'a': 1}",
                '{"a": 1,}',
                "[1,]",
                "{a: 1}",
                "01",
                "+1",
                ".5",
            ),
            *("NaN", '{"a": NaN}', "[Infinity]", "[-Infinity]", "[1e999]", "1 2"),
            *('"\x01"', '"a\nb"', "// no\n{}", "\ufeff\ufeff{}", "undefined"),
            *('"\\ud800"', "\ufeff", "{}\ufeff"),
            *("[" * 21 + "]" * 21, "[" * 100_000, '{"a":' * 100_000, "1" * 10_000),
        ):
            with self.subTest(text[:30]):
                if text.startswith("11"):  # older Pythons read numbers of any length
                    self.assert_no_crash(text)
                    continue
                with self.assertRaises(ValueError):
                    parse_json(text)

    def assert_no_crash(self, text: str) -> None:
        try:
            parse_json(text)
        except ValueError as error:
            self.assertIn("digits", str(error))

    def test_twenty_levels_are_taken(self) -> None:
        parse_json("[" * 20 + "]" * 20)
        parse_json('{"a":' * 18 + "[1]" + "}" * 18)

    def test_a_whole_pair_of_surrogates_is_a_character(self) -> None:
        self.assertEqual(parse_json('"\\ud83d\\ude00"'), "\U0001f600")


def parameter(**definition: Any) -> Parameter:
    """Return a parameter as the registry reads it; fails where it has a fault."""
    place = Place([])
    made = read_parameter(place, "p", JsonObject([*definition.items()]))
    assert made is not None, place.faults
    return made


class ParameterTest(unittest.TestCase):
    def check(self, definition: dict[str, Any], values: dict[Any, Any]) -> None:
        """Check a table: value to the beginning of its fault, "" where admitted."""
        made = parameter(**definition)
        for value, expected in values.items():
            with self.subTest(definition=definition, value=str(value)[:40]):
                fault: Optional[str] = made.fault_of(value)
                if expected:
                    self.assertEqual((fault or "")[: len(expected)], expected)
                else:
                    self.assertIsNone(fault)

    def test_a_string(self) -> None:
        self.check(
            {"type": "string"},
            {
                "": "",
                "a b": "",
                "é✅": "",
                "x" * 1000: "",
                "$(reboot)`'\"\\": "",
                "x" * 1001: "must have at most 1000 characters, got 1001",
                "a\x00": "must not hold control characters",
                "a\nb": "must not hold control characters",
                "a\tb": "must not hold control characters",
                "\x7f": "must not hold control characters",
                "\x85": "must not hold control characters",
                "-rf": 'must not begin with "-"',
                "-": 'must not begin with "-"',
                "a-b": "",
                5: "expected a string, got 5",
                None: "expected a string, got null",
                True: "expected a string, got true",
            },
        )
        made = parameter(type="string")
        self.assertEqual(made.fault_of(["a"]), 'expected a string, got ["a"]')
        self.assertEqual(made.fault_of({}), "expected a string, got {}")

    def test_a_strings_length_is_counted_in_characters(self) -> None:
        self.check(
            {"type": "string", "minLength": 2, "maxLength": 3},
            {
                "é✅": "",
                "éé": "",
                "a": "must have at least 2",
                "abcd": "must have at most 3",
            },
        )
        self.check({"type": "string", "maxLength": 0}, {"": "", "a": "must have at mo"})
        self.check(
            {"type": "string", "maxLength": 9999}, {"a" * 1001: "must have at m"}
        )

    def test_a_pattern_must_match_the_whole_value_and_may_admit_a_dash(self) -> None:
        self.check(
            {"type": "string", "pattern": "[a-z]{2}"},
            {"ab": "", "abc": "must match the pattern [a-z]{2}", "ab\n": "must not"},
        )
        self.check(
            {"type": "string", "pattern": "a|bc"}, {"bc": "", "ac": "must match"}
        )
        self.check(
            {"type": "string", "pattern": "-?[0-9]+"}, {"-5": "", "--5": "must match"}
        )

    def test_an_enum_admits_its_values_only_also_those_with_a_dash(self) -> None:
        self.check(
            {"type": "string", "enum": ["a", "-v"]},
            {
                "a": "",
                "-v": "",
                "b": 'expected one of "a", "-v", got "b"',
                1: "expected",
            },
        )
        self.check(
            {"type": "integer", "enum": [1, 2]},
            {1: "", 2.0: "", 3: "expected one of 1, 2, got 3"},
        )
        self.assertIsNotNone(parameter(type="integer", enum=[1]).fault_of(True))

    def test_an_integer(self) -> None:
        self.check(
            {"type": "integer", "minimum": -3, "maximum": 10_000_000},
            {
                0: "",
                -3: "",
                5.0: "",
                10_000_000: "",
                -4: "must be at least -3, got -4",
                10_000_001: "must be at most 10000000, got 10000001",
                1.5: "expected an integer, got 1.5",
                "5": 'expected an integer, got "5"',
                math.inf: "expected an integer",
                2**63: "expected an integer",
                10**400: "expected an integer",
                1e300: "expected an integer",
            },
        )
        self.assertIsNone(parameter(type="integer").fault_of(2**63 - 1))
        self.assertIsNotNone(parameter(type="integer").fault_of(True))

    def test_a_number(self) -> None:
        self.check(
            {"type": "number", "minimum": 0.01, "maximum": 2.5},
            {
                1: "",
                0.01: "",
                2.5: "",
                0: "must be at least 0.01, got 0",
                2.6: "must be at most 2.5, got 2.6",
                math.nan: "expected a number",
                math.inf: "expected a number",
                10**400: "expected a number",
                "1": "expected a number",
            },
        )
        self.assertIsNotNone(parameter(type="number").fault_of(False))

    def test_a_bound_beyond_every_float_is_a_bound_still(self) -> None:
        made = parameter(type="integer", maximum=10**400)
        self.assertIsNone(made.fault_of(5))
        made = parameter(type="number", minimum=10**400)
        self.assertIn("must be at least 1000", str(made.fault_of(5)))

    def test_a_boolean(self) -> None:
        self.check(
            {"type": "boolean"},
            {True: "", False: "", "true": 'expected a boolean, got "true"'},
        )
        self.assertEqual(
            parameter(type="boolean").fault_of(1), "expected a boolean, got 1"
        )

    def test_a_date_and_a_time(self) -> None:
        self.check(
            {"type": "string", "format": "date"},
            {
                "2026-11-23": "",
                "2028-02-29": "",
                "2026-02-29": "expected a date such as 2026-11-23",
                "20261123": "expected a date",
                "2026-11-23T10:00Z": "expected a date",
                "": "expected a date",
            },
        )
        self.check(
            {"type": "string", "format": "date-time"},
            {
                "2026-11-23T10:00:00+01:00": "",
                "2026-11-23T10:00:00Z": "",
                "2026-11-23T10:00:00": "expected a date-time such as 2026-",
                "2026-13-23T10:00:00Z": "expected a date-time",
            },
        )

    def test_a_refused_password_is_not_repeated(self) -> None:
        made = parameter(type="string", format="password", maxLength=3, enum=["abc"])
        for value in ("hunter2", 12345, "xyz"):
            with self.subTest(value=value):
                self.assertNotIn(str(value), str(made.fault_of(value)))

    def test_clients_see_a_definition_as_it_stands_in_the_registry(self) -> None:
        definition: dict[str, Any] = {
            "type": "string",
            "title": "T",
            "description": "D",
            "default": "ab",
            "enum": ["ab", "abc"],
            "minLength": 0,
            "maxLength": 5,
            "pattern": "[a-c]*",
            "required": True,
        }
        self.assertEqual(parameter(**definition).view(), definition)
        for definition in (
            {"type": "boolean", "default": False},
            {"type": "integer", "default": 0, "minimum": 0, "maximum": 5},
            {"type": "number", "enum": [0.5, 1]},
        ):
            self.assertEqual(parameter(**definition).view(), definition)

    def test_clients_do_not_see_a_passwords_default(self) -> None:
        made = parameter(type="string", format="password", default="s3cret")
        self.assertEqual(made.view(), {"type": "string", "format": "password"})

    def test_texts_of_a_command_line_become_values_of_the_type(self) -> None:
        table: dict[str, dict[str, Any]] = {
            "string": {"5": "5", "true": "true", "": ""},
            "integer": {"5": 5, "-7": -7, "+3": 3, "5.0": "5.0", "0x1": "0x1", "": ""},
            "number": {
                "2.5": 2.5,
                "5": 5,
                "-1e3": -1000.0,
                "x": "x",
                "1_0": "1_0",
                " 1": " 1",
            },
            "boolean": {"true": True, "FALSE": False, "yes": "yes", "1": "1"},
        }
        for kind, texts in table.items():
            for text, value in texts.items():
                with self.subTest(kind=kind, text=text):
                    got = parameter(type=kind).from_text(text)
                    self.assertEqual((type(got), got), (type(value), value))

    def test_no_text_makes_a_number_that_is_none(self) -> None:
        made = parameter(type="number")
        for text in ("nan", "inf", "-Infinity", "1e999"):
            self.assertIsNotNone(made.fault_of(made.from_text(text)))

    def test_scripts_get_values_as_text(self) -> None:
        table = ((True, "true"), (False, "false"), (5, "5"), (5.0, "5"), (0.25, "0.25"))
        for value, text in (*table, ("a b", "a b"), (1e20, "1e+20")):
            self.assertEqual(value_text(value), text)

    def test_the_variable_is_upper_case_and_holds_no_other_character(self) -> None:
        for name, variable in {"n": "N", "a-b": "A_B", "fooBar_1": "FOOBAR_1"}.items():
            made = Parameter(name, "string")
            self.assertEqual(made.variable, f"CRON_PARAM_{variable}")


def cron(command: Any, **parameters: dict[str, Any]) -> Cron:
    """Return the cron that a registry of this one entry has."""
    entry = {"description": "d", "command": command, "parameters": parameters}
    checker = Checker(Path("/r/crons.json"), Path("/log"))
    crons = checker.crons(json.dumps({"c": entry}))
    assert not checker.faults, checker.faults
    return crons["c"]


class ResolveTest(unittest.TestCase):
    def refused(self, made: Cron, given: dict[str, Any]) -> dict[str, str]:
        with self.assertRaises(Refusal) as caught:
            made.resolve(given)
        self.assertEqual(caught.exception.code, "invalid_params")
        errors: dict[str, str] = caught.exception.extra["errors"]
        head = 'Invalid parameters for "c": '
        self.assertTrue(caught.exception.message.startswith(head))
        for name, why in errors.items():
            self.assertIn(f"{name} {why}", caught.exception.message)
        return errors

    def test_defaults_are_filled_in_and_absent_ones_stay_absent(self) -> None:
        made = cron("x", a={"type": "integer", "default": 0}, b={"type": "string"})
        self.assertEqual(made.resolve({}), {"a": 0})
        self.assertEqual(made.resolve({"b": ""}), {"a": 0, "b": ""})

    def test_a_default_that_is_false_or_empty_is_a_default(self) -> None:
        made = cron(
            "x",
            a={"type": "boolean", "default": False, "required": True},
            b={"type": "string", "default": ""},
        )
        self.assertEqual(made.resolve({}), {"a": False, "b": ""})

    def test_a_whole_float_becomes_an_integer(self) -> None:
        value = cron("x", a={"type": "integer"}).resolve({"a": 5.0})["a"]
        self.assertEqual((type(value), value), (int, 5))

    def test_every_fault_is_named_at_once(self) -> None:
        made = cron(
            "x",
            a={"type": "integer", "required": True},
            b={"type": "string"},
            c={"type": "boolean"},
        )
        self.assertEqual(
            self.refused(made, {"b": "-x", "c": "no", "d\n": 1}),
            {
                "d\\n": "is not a parameter of this cron",
                "a": "is required",
                "b": 'must not begin with "-": it could be taken for an option',
                "c": 'expected a boolean, got "no"',
            },
        )

    def test_null_is_as_if_it_were_not_given(self) -> None:
        """Go, C# and Java write it for what is absent."""
        made = cron(
            "x",
            a={"type": "integer", "default": 5},
            b={"type": "string"},
        )
        self.assertEqual(made.resolve({"a": None, "b": None, "x": None}), {"a": 5})
        needy = cron("x", a={"type": "integer", "required": True})
        self.assertEqual(self.refused(needy, {"a": None}), {"a": "is required"})


class PlaceholderTest(unittest.TestCase):
    def test_placeholders_are_filled_and_lone_absent_ones_left_out(self) -> None:
        made = cron(
            ["x", "--n={n}", "{n}", "{s}", "{s}{n}", "{other}", "{}", "a{s}b", "{{n}}"],
            n={"type": "integer"},
            s={"type": "string"},
        )
        self.assertEqual(
            made.arguments({"n": 5}),
            ["--n=5", "5", "5", "{other}", "{}", "ab", "{5}"],
        )
        self.assertEqual(
            made.arguments({"n": 5, "s": "v w"}),
            ["--n=5", "5", "v w", "v w5", "{other}", "{}", "av wb", "{5}"],
        )

    def test_a_value_that_looks_like_a_placeholder_is_a_value(self) -> None:
        made = cron(["x", "{a}{b}"], a={"type": "string"}, b={"type": "string"})
        self.assertEqual(made.arguments({"a": "{b}", "b": "{a}"}), ["{b}{a}"])

    def test_an_empty_value_is_an_argument_still(self) -> None:
        made = cron(["x", "{a}"], a={"type": "string"})
        self.assertEqual(made.arguments({"a": ""}), [""])


if __name__ == "__main__":
    unittest.main()
