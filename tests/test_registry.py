"""The registry: every fault with its place, and taken again when the file changes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import unittest
from pathlib import Path
from typing import Any

from fast.test_registry import GOOD, SCHEMA, schema_faults, validator
from support import REPOSITORY, Server, need, patched, slow, wait_until

from cron_trigger.registry.checker import ENTRY_KEYS
from cron_trigger.registry.crons import NOTIFY_CHOICES, Cron
from cron_trigger.registry.file import Registry, keep_text
from cron_trigger.registry.parameters import DEFINITION_KEYS, FORMATS, TYPES
from cron_trigger.registry.times import duration_s

#: A server that waits for a reading also where that is held up.
PATIENT = patched("m.Registry.PATIENCE_S = 15.0")


class ReloadTest(unittest.TestCase):
    """A running server takes a file that holds, and no other, without a restart."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(GOOD, program=PATIENT)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def setUp(self) -> None:
        self.server.write_registry(GOOD)
        self.assertEqual(self.health()["status"], "healthy")

    def health(self) -> Any:
        return self.server.get("/health").json

    def names(self) -> list[str]:
        return [cron["cronName"] for cron in self.server.get("/crons").json["crons"]]

    def test_a_changed_file_is_in_force_at_the_next_request(self) -> None:
        for count in range(5):
            names = [f"cron{i}" for i in range(count)]
            self.server.write_registry(dict.fromkeys(names, GOOD["a"]))
            self.assertEqual(self.names(), names)
            self.assertEqual(self.health()["available_crons"], count)

    def test_another_order_of_the_same_crons_is_shown_at_once(self) -> None:
        for names in (["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]):
            self.server.write_registry(dict.fromkeys(names, GOOD["a"]))
            self.assertEqual(self.names(), names)
            self.assertEqual(self.names(), names)

    def test_a_changed_entry_is_shown_and_used_at_once(self) -> None:
        for number in range(5):
            entry = {"description": f"D{number}", "command": ["echo", f"c{number}"]}
            self.server.write_registry({"a": entry})
            (cron,) = self.server.get("/crons").json["crons"]
            self.assertEqual(cron["description"], f"D{number}")
            run = self.server.completed("a")
            log = self.server.get(f"/runs/{run['id']}/log").text
            self.assertEqual(log, f"c{number}\n")

    def test_a_removed_cron_is_unknown_at_once_and_a_new_one_runs(self) -> None:
        self.server.write_registry({"b": GOOD["a"]})
        self.assertEqual(self.server.trigger("a").status, 404)
        self.assertEqual(self.server.completed("b")["status"], "completed")

    def test_rewritten_in_place_within_a_clock_tick_it_is_not_missed(self) -> None:
        path = self.server.registry
        for letter in "bcdefghijk":
            text = json.dumps({letter: GOOD["a"]})
            times = path.stat()
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.assertEqual(self.names(), [letter])

    def test_a_broken_file_is_never_taken_and_health_says_why_until_mended(
        self,
    ) -> None:
        self.server.registry.write_text('{"a": {"description": "A"}, "b": 5')
        health = self.health()
        self.assertEqual(
            list(health),
            ["status", "service", "port", "available_crons", "problems"],
        )
        self.assertEqual(health["status"], "degraded")
        self.assertEqual(health["available_crons"], 1)
        self.assertTrue(
            health["problems"][0].startswith("crons.json: this is not JSON")
        )
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(self.server.completed("a")["status"], "completed")
        self.server.write_registry({"b": GOOD["a"]})
        self.assertEqual(list(self.health()), list(health)[:4])
        self.assertEqual(self.names(), ["b"])

    def test_one_bad_entry_keeps_the_whole_file_out_and_all_faults_are_told(
        self,
    ) -> None:
        self.server.write_registry(
            {"b": {**GOOD["a"], "timeout": "12x"}, "c": {"command": 5}, "d": GOOD["a"]}
        )
        self.assertEqual(
            self.health()["problems"],
            [
                'crons.json: "b": timeout: expected a duration such as "90s", '
                'got "12x"',
                'crons.json: "c": description: is required',
                'crons.json: "c": command: expected a script\'s path or an array of '
                "texts that begins with one, got 5",
            ],
        )
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(self.server.trigger("d").status, 404)
        self.assertIn('registry: crons.json: "c": description', self.server.log_text())

    def test_another_fault_replaces_the_one_before(self) -> None:
        self.server.registry.write_text("{")
        first = self.health()["problems"]
        self.server.registry.write_text("[]")
        self.assertEqual(
            self.health()["problems"], ["crons.json: expected an object, got []"]
        )
        self.assertNotEqual(first, self.health()["problems"])

    def test_a_file_that_went_away_keeps_the_last_good_one_in_force(self) -> None:
        self.server.registry.unlink()
        self.assertIn("can't be read: No such file", self.health()["problems"][0])
        self.assertEqual(self.names(), ["a"])
        self.server.write_registry(GOOD)
        self.assertEqual(self.health()["status"], "healthy")

    def test_a_mended_folder_is_noticed_though_the_file_did_not_change(self) -> None:
        need(os.geteuid() == 0, "only root refuses what others may write")
        self.server.folder.chmod(0o777)
        self.addCleanup(self.server.folder.chmod, 0o700)
        self.server.write_registry(GOOD)
        wanted = f"others may write {self.server.folder}: chmod o-w"
        self.assertIn(wanted, self.health()["problems"][0])
        self.server.folder.chmod(0o700)
        wait_until(lambda: self.health()["status"] == "healthy", what="health")

    def test_nobodys_changes_are_lost_while_many_ask(self) -> None:
        """A reader never sees half a file that was moved into place."""
        big = {f"c{i}": GOOD["a"] for i in range(50)}
        for _ in range(10):
            self.server.write_registry(big)
            self.assertEqual(self.health()["available_crons"], 50)
            self.server.write_registry(GOOD)
            self.assertEqual(self.health()["available_crons"], 1)
        self.assertEqual(self.server.log_text().count("internal error"), 0)

    def test_a_sighup_reads_it_again(self) -> None:
        assert self.server.process
        before = self.server.log_text().count("was read again")
        self.server.write_registry({"h": GOOD["a"]})
        self.server.process.send_signal(1)
        wait_until(
            lambda: self.server.log_text().count("was read again") > before,
            what="the reload",
        )
        self.assertEqual(self.names(), ["h"])


@slow
class LargeTest(unittest.TestCase):
    def test_no_request_waits_for_a_registry_that_takes_seconds(self) -> None:
        names = [f"c{number}" for number in range(40_000)]
        with Server(GOOD, start=False) as server:
            held = server.folder / "held"
            server.program = list(
                patched(
                    "import os, time",
                    "real = m._load",
                    "def load(*arguments):",
                    "    loaded = real(*arguments)",
                    f"    while os.path.exists({str(held)!r}): time.sleep(0.01)",
                    "    return loaded",
                    "m._load = load",
                )
            )
            server.start()
            held.touch()
            server.write_registry(dict.fromkeys(names, GOOD["a"]))
            # What is answered at once is what was in force before.
            health = server.get("/health").json
            self.assertEqual(health["available_crons"], len(GOOD))
            self.assertEqual(server.trigger("a").status, 202)
            held.unlink()
            wait_until(
                lambda: server.get("/health").json["available_crons"] == len(names), 60
            )


class StartTest(unittest.TestCase):
    def test_with_a_broken_file_it_starts_degraded_and_takes_the_mended_one(
        self,
    ) -> None:
        with Server(start=False, program=PATIENT) as broken:
            broken.registry.write_text("{")
            broken.start()
            health = broken.get("/health").json
            self.assertEqual(
                (health["status"], health["available_crons"]), ("degraded", 0)
            )
            self.assertEqual(broken.get("/crons").json["crons"], [])
            self.assertEqual(broken.trigger("a").json["availableCrons"], [])
            broken.write_registry(GOOD)
            self.assertEqual(broken.get("/health").json["status"], "healthy")


class SchemaTest(unittest.TestCase):
    """`crons.schema.json` says what `check` does; see FolderCase for all the faults."""

    def test_the_schema_is_one(self) -> None:
        validator().check_schema(SCHEMA)

    def test_it_admits_the_registries_that_work(self) -> None:
        shipped = json.loads((REPOSITORY / "crons.json").read_text(encoding="utf-8"))
        named = {"$schema": "crons.schema.json", **shipped}
        registries: list[Any] = [shipped, named, {}, GOOD]
        for name in ("test_parameters", "test_http", "test_access", "test_lock"):
            registries.append(importlib.import_module(name).REGISTRY)
        for registry in registries:
            self.assertEqual(schema_faults(registry), [])

    def test_it_knows_every_key_and_its_default(self) -> None:
        cron = SCHEMA["$defs"]["cron"]["properties"]
        self.assertEqual(list(cron), list(ENTRY_KEYS))
        parameter = SCHEMA["$defs"]["parameter"]["properties"]
        self.assertEqual(list(parameter), list(DEFINITION_KEYS))
        made = Cron("a", "A", ("x",), Path("/"))
        durations = (cron["killAfter"]["default"], cron["late"]["default"])
        self.assertEqual(
            tuple(map(duration_s, durations)), (made.kill_after_s, made.late_s)
        )
        self.assertEqual(cron["notify"]["enum"], list(NOTIFY_CHOICES))
        self.assertEqual(tuple(parameter["type"]["enum"]), TYPES)
        self.assertEqual(tuple(parameter["format"]["enum"]), FORMATS)


@slow
class KeptTest(unittest.TestCase):
    """The last registry that held is in force where the file has a fault at a start."""

    def setUp(self) -> None:
        self.server = Server(GOOD, start=False, program=PATIENT)
        self.addCleanup(self.server.__exit__)
        self.copy = self.server.state_dir / "registry-last-good.json"

    def restarted_with(self, text: str) -> Any:
        """Start and stop with a good file; return what /health says of another one."""
        self.server.start()
        wait_until(self.copy.exists, what="the copy")
        self.server.stop()
        self.server.registry.write_text(text)
        self.server.start()
        return self.server.get("/health").json

    def test_a_restart_with_a_faulty_file_runs_what_was_there_and_says_both(
        self,
    ) -> None:
        health = self.restarted_with('{"a": {"description": "A"}, "b": 5}')
        self.assertEqual((health["status"], health["available_crons"]), ("degraded", 1))
        *faults, kept = health["problems"]
        self.assertEqual(
            faults,
            [
                'crons.json: "a": command: is required',
                'crons.json: "b": expected an object, got 5',
            ],
        )
        self.assertRegex(
            kept,
            "crons.json: until that is corrected, its last valid version is in force "
            r"\(taken at 20\d\d-\d\d-\d\dT\S+, crons: 1\)$",
        )
        self.assertEqual(self.server.completed("a")["status"], "completed")
        self.assertIn("last valid version", self.server.log_text())
        done = self.server.command("run", "a")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_mended_file_is_taken_and_kept_in_its_turn(self) -> None:
        self.restarted_with("{")
        self.server.write_registry({"b": GOOD["a"]})
        self.assertEqual(self.server.get("/health").json["status"], "healthy")
        wait_until(lambda: '\\"b\\"' in self.copy.read_text(), what="the new copy")
        self.server.registry.write_text("[]")
        self.assertEqual(len(self.server.get("/health").json["problems"]), 1)
        self.assertEqual(self.server.completed("b")["status"], "completed")

    def test_a_file_that_is_gone_leaves_the_copy_in_force(self) -> None:
        self.server.start()
        wait_until(self.copy.exists, what="the copy")
        self.server.stop()
        self.server.registry.unlink()
        kept = Registry(self.server.registry, self.server.log_dir, kept=self.copy)
        self.assertEqual(list(kept.crons()), ["a"])
        self.assertIn("can't be read", kept.faults[0])

    def test_a_user_who_is_gone_stops_that_user_s_crons_and_no_others(self) -> None:
        # Deleted, or of a directory service (LDAP) that is down at the boot.
        gone = {**GOOD["a"], "user": "nobody-has-this-name"}
        text = json.dumps({**GOOD, "gone": gone})
        self.copy.parent.mkdir(exist_ok=True)
        keep_text(self.copy, self.server.registry, text)
        self.server.registry.write_text(text)
        health = self.server.start().get("/health").json
        self.assertEqual((health["status"], health["available_crons"]), ("degraded", 1))
        fault, kept = health["problems"]
        self.assertIn('"gone": user: expected the name of a user', fault)
        self.assertIn("crons: 1)", kept)
        self.assertEqual(self.server.completed("a")["status"], "completed")
        done = self.server.command("run", "a")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_copy_is_the_server_s_own_and_nothing_else_writes_it(self) -> None:
        self.server.command("list")
        self.server.command("run", "a")
        self.assertFalse(self.copy.exists())
        self.server.start()
        wait_until(self.copy.exists, what="the copy")
        self.assertEqual(self.copy.stat().st_mode & 0o777, 0o600)
        inode = self.copy.stat().st_ino
        self.server.stop()
        self.server.start()
        self.server.stop()
        self.assertEqual(self.copy.stat().st_ino, inode, "written without need")
        left = [path.name for path in self.server.state_dir.glob("registry-last*")]
        self.assertEqual(left, [self.copy.name])

    def test_another_registry_s_copy_or_a_spoilt_one_is_not_taken(self) -> None:
        other = json.dumps({"registry": "/x.json", "takenAt": "x", "text": "{}"})
        for text in (other, "{", "[]", "5", '{"registry": 5}'):
            self.copy.parent.mkdir(exist_ok=True)
            self.copy.write_text(text)
            self.server.registry.write_text("{")
            registry = Registry(
                self.server.registry, self.server.log_dir, kept=self.copy
            )
            self.assertEqual((registry.crons(), len(registry.faults)), ({}, 1), text)


if __name__ == "__main__":
    unittest.main()
