"""`doctor`: each thing that goes wrong is named, with its remedy."""

from __future__ import annotations

import contextlib
import http.server
import io
import ipaddress
import json
import os
import socket
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from support import Server, need, slow, wait_until

from cron_trigger import cli
from cron_trigger.doctor import folders, program, service
from cron_trigger.doctor.containers import networks
from cron_trigger.doctor.findings import Finding, Host
from cron_trigger.host.networks import Interface
from cron_trigger.registry.settings import read_settings

QUICK = {"quick": {"description": "is over at once", "command": "/bin/true"}}


class DoctorCase(unittest.TestCase):
    """A host where nothing is wrong yet."""

    def setUp(self) -> None:
        self.server = Server(QUICK, start=False)
        self.addCleanup(self.server.__exit__)
        for folder in (
            self.server.log_dir,
            self.server.state_dir,
            self.server.run_dir,
        ):
            folder.mkdir()
        # A port that is free.
        with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as listener:
            self.port = listener.server_address[1]

    def call(self, *flags: str) -> tuple[int, str]:
        """Return exit status and output of `doctor`, called in this process."""
        output = io.StringIO()
        environ = mock.patch.dict(os.environ, self.server.clean_environ(), clear=True)
        with environ, contextlib.redirect_stdout(output):
            words = ("doctor", *flags, f"--port={self.port}")
            status = cli.main([*words, *self.server.folder_flags()])
        return status, output.getvalue()

    def examine(self, *flags: str) -> tuple[int, list[dict[str, str]]]:
        status, output = self.call("--json", *flags)
        answer: dict[str, Any] = json.loads(output)
        wrong = [one for one in answer["findings"] if one["status"] == "wrong"]
        self.assertEqual(answer["wrong"], len(wrong))
        return status, wrong

    def assert_wrong(self, name: str, text: str, remedy: str, *flags: str) -> None:
        """Exactly one thing is wrong, and it is this."""
        status, wrong = self.examine(*flags)
        self.assertEqual([one["name"] for one in wrong], [name], wrong)
        self.assertIn(text, wrong[0]["text"])
        self.assertIn(remedy, wrong[0]["remedy"])
        self.assertEqual(status, 1)


class Doctor(DoctorCase):
    """The findings on a host where one thing is wrong."""

    def test_nothing_is_wrong_before_the_first_start(self) -> None:
        self.assertEqual(self.examine(), (0, []))

    def test_nothing_is_wrong_while_it_serves(self) -> None:
        self.port = self.server.start().port
        self.assertEqual(self.examine(), (0, []))

    def test_table_for_people(self) -> None:
        status, output = self.call("--secret=short")
        self.assertEqual(status, 1)
        told = "wrong  settings    CRON_TRIGGER_SECRET must not be shorter than 16"
        self.assertIn(told, output)
        self.assertIn("make one with openssl rand -hex 32", output)
        self.assertTrue(output.endswith("1 wrong\n"), output)

    def test_setting_that_does_not_hold(self) -> None:
        self.assert_wrong(
            "settings", "CRON_TRIGGER_ALLOW must be", "environment", "--allow=nonsense"
        )

    def test_registry_with_a_fault(self) -> None:
        self.server.write_registry({"quick": {"description": "no command"}})
        self.assert_wrong("registry", "command", f"Fix {self.server.registry}")

    def test_registry_that_is_no_json(self) -> None:
        self.server.registry.write_text("{")
        self.assert_wrong("registry", "crons.json", f"Fix {self.server.registry}")

    def test_script_that_is_missing(self) -> None:
        entry = {"description": "lost", "command": "lost.sh"}
        self.server.write_registry({**QUICK, "lost": entry})
        self.assert_wrong(
            "script", "lost.sh", f"its entry is in {self.server.registry}"
        )

    def test_script_that_others_may_change(self) -> None:
        need(os.geteuid() == 0, "only root's scripts are looked at so")
        self.server.script("open.sh", "#!/bin/sh\n", 0o777)
        entry = {"description": "open", "command": "open.sh"}
        self.server.write_registry({"open": entry})
        self.assert_wrong("script", "open cannot be started", "chmod o-w")

    def test_folder_that_others_may_write(self) -> None:
        need(os.geteuid() == 0, "only root's folders are looked at so")
        self.server.log_dir.chmod(0o777)
        folder = self.server.log_dir
        self.assert_wrong("logs", "others may write", f"chmod go-w {folder}")

    def test_folder_that_is_not_there_yet(self) -> None:
        """As for the server, above it may be /tmp, or a group's: Ubuntu's /var/log."""
        above, self.server.log_dir = self.server.log_dir, self.server.log_dir / "new"
        for mode in (0o1777, 0o775):
            above.chmod(mode)
            self.assertEqual(self.examine(), (0, []))

    def test_folder_above_that_others_may_write(self) -> None:
        need(os.geteuid() == 0, "only root's folders are looked at so")
        above, self.server.log_dir = self.server.log_dir, self.server.log_dir / "new"
        self.server.log_dir.mkdir()
        above.chmod(0o777)
        self.assert_wrong("logs", "others may write", f"chmod o-w {above}")

    def test_folders_of_a_cron_that_are_missing(self) -> None:
        entry = {"description": "A", "command": "/bin/true"}
        for more in ({"workingDirectory": "/no/where"}, {"logFile": "/no/where/x.log"}):
            self.server.write_registry({"a": {**entry, **more}})
            self.assert_wrong("script", "a cannot be started", "/crons.json")

    @slow
    def test_port_that_does_not_answer(self) -> None:
        quick = mock.patch.object(Host, "ASK_S", 0.2)
        with quick, socket.create_server(("127.0.0.1", 0)) as deaf:
            self.port = deaf.getsockname()[1]
            self.assert_wrong("port", "does not respond", "ss -ltnp")

    def test_secret_of_a_server_that_has_enough_of_wrong_ones(self) -> None:
        self.port = self.server.start("--secret=long-enough-to-be-safe").port
        for _ in range(10):
            self.server.get("/runs", **{"X-Trigger-Secret": "wrong"})
        self.assertIn("every request needs it", self.call()[1])

    @slow
    def test_port_of_another_program(self) -> None:
        with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as other:
            self.port = other.server_address[1]
            threading.Thread(target=other.handle_request, name="other").start()
            self.assert_wrong("port", "Another program listens", "ss -ltnp")

    @slow
    def test_a_refusal_of_the_server_is_not_another_program_s(self) -> None:
        with http.server.HTTPServer(("127.0.0.1", 0), Overloaded) as other:
            self.port = other.server_address[1]
            threading.Thread(target=other.handle_request, name="other").start()
            self.assert_wrong("health", "Too many requests", "the server's log")

    def test_degraded_server(self) -> None:
        self.port = self.server.start().port
        self.server.write_registry({"quick": {}})
        wait_until(lambda: "problems" in self.server.get("/health").json)
        status, wrong = self.examine()
        self.assertEqual(status, 1)
        found = next(one for one in wrong if one["name"] == "health")
        self.assertIn('crons.json: "quick": ', found["text"])
        self.assertEqual(found["remedy"], f"Fix {self.server.registry}.")

    def test_secret_in_a_file_that_others_may_read(self) -> None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("long-enough-to-be-safe\n")
            file.flush()
            os.chmod(file.name, 0o644)
            self.server.environ["CRON_TRIGGER_SECRET_FILE"] = file.name
            status, wrong = self.examine()
        self.assertEqual([one["name"] for one in wrong], ["settings"])
        self.assertIn(f"chmod 600 {file.name}.", wrong[0]["text"])
        self.assertEqual(status, 1)

    def test_secret_is_never_shown(self) -> None:
        self.assertNotIn("not-for-any", self.call("--secret=not-for-anybody")[1])


class Looks(DoctorCase):
    """Checks whose place on the host a test may choose."""

    def host(self, guest: bool = False, **flags: str) -> Host:
        given = {"registry": str(self.server.registry), "log_dir": "/var/log/x"}
        settings = read_settings({**given, **flags}, {})
        return Host(settings, {}, guest)

    def of_unit(self, **properties: str) -> list[Finding]:
        right = {"ActiveState": "active", "UnitFileState": "enabled"}
        more = {"LoadState": "loaded", "NeedDaemonReload": "no"}
        more |= {"KillMode": "process", "Restart": "always", "User": ""}
        host = self.host()
        preserve = {"RuntimeDirectoryPreserve": "yes", "ProtectHome": "no"}
        host.__dict__["unit"] = {**right, **more, **preserve, **properties}
        return list(service.service(host))

    def test_drop_ins_that_break_a_promise_are_named(self) -> None:
        self.assertEqual([one.status for one in self.of_unit()], ["ok"])
        self.assertEqual([one.status for one in self.of_unit(User="root")], ["ok"])
        for key, value, set_to in (
            ("KillMode", "mixed", "process"),
            ("PrivateTmp", "yes", "no"),
            ("OOMPolicy", "kill", "continue"),
            ("User", "deploy", "root"),
            ("SystemCallFilter", "accept bind " * 99, ""),
        ):
            (found,) = self.of_unit(**{key: value})
            self.assertEqual(found.status, "wrong", key)
            self.assertIn(f"Its unit has {key}={value[:12]}", found.text)
            self.assertLess(len(found.text), 150)
            self.assertIn(f"set {key}={set_to} there", found.remedy)

    def test_a_sandbox_that_crons_inherit_is_noted(self) -> None:
        (found,) = self.of_unit(ProtectHome="read-only")
        self.assertEqual(found.status, "note")
        self.assertIn("ProtectHome=read-only: crons inherit it", found.text)

    def test_a_setting_that_systemd_ignores(self) -> None:
        file = self.server.folder / "default"
        file.write_text("CRON_TRIGGER_PORT=1\n export CRON_TRIGGER_SECRET=not-shown\n")
        with mock.patch.object(program, "ENVIRONMENT_FILE", file):
            (found,) = program.settings(self.host())
        self.assertIn("CRON_TRIGGER_SECRET has no effect", found.text)
        self.assertNotIn("shown", found.text + found.remedy)

    def test_log_that_nobody_rotates(self) -> None:
        entry = {"description": "A", "command": "/bin/true"}
        own, rotated = (str(self.server.folder / name) for name in ("a.log", "b.log"))
        logs = {"a": own, "b": rotated, "c": "own.log", "d": "/dev/null"}
        self.server.write_registry(
            {name: {**entry, "logFile": path} for name, path in logs.items()}
        )
        rules = self.server.folder / "rules"
        rules.mkdir()
        rule = f"# {own} {{\n/var/x.log {{\n}}\n/y.log\n{rotated[:-5]}*.log {{\n}}\n"
        (rules / "x").write_text(rule.replace("*.log", "b*.log"))
        with mock.patch.object(folders, "ROTATION", (rules, Path("/no/where"))):
            (found,) = folders.rotation(self.host())
        self.assertEqual(found.status, "wrong")
        self.assertIn(f"{own}: it grows for ever", found.text)
        self.assertIn(f"{own} {{ weekly", found.remedy)

    def test_program_that_others_may_change(self) -> None:
        need(os.geteuid() == 0, "only root's program is looked at so")
        home = self.server.folder / "home"
        (home / "cron_trigger" / "web").mkdir(parents=True)
        page = home / "cron_trigger" / "web" / "page.py"
        for path in (home / "cron_trigger_server.py", page):
            path.touch()
        with mock.patch.object(program, "HOME", home):
            self.assertEqual([f.status for f in program.files(self.host())], ["ok"])
            page.chmod(0o666)
            (found,) = program.files(self.host())
        self.assertIn(f"others may write {page}, and root runs it", found.text)
        self.assertEqual(found.remedy, f"chmod o-w {page}")

    def test_misspelt_setting(self) -> None:
        self.server.environ["CRON_TRIGGER_ALLOWED_HOST"] = "x"
        text = "CRON_TRIGGER_ALLOWED_HOST is no setting"
        self.assert_wrong("settings", text, "rename it to CRON_TRIGGER_ALLOWED_HOSTS")

    def bridges(self, *addresses: str, **flags: str) -> list[Finding]:
        """Return what is said of bridges with these addresses."""
        made: list[tuple[str, Interface]] = [
            ("docker0", ipaddress.ip_interface(address)) for address in addresses
        ]
        module = "cron_trigger.doctor.containers"
        with (
            mock.patch(f"{module}.container_bridges", return_value=made),
            mock.patch(f"{module}.output_of", return_value=""),
        ):
            return list(networks(self.host(False, **flags)))

    def test_networks_of_containers_of_both_families(self) -> None:
        first, second, note = self.bridges("172.18.0.1/16", "fd00:1::1/64")
        self.assertEqual(first.text, "docker0: 172.18.0.0/16 may call at 172.18.0.1")
        self.assertEqual(second.text, "docker0: fd00:1::/64 may call at fd00:1::1")
        self.assertIn("host.docker.internal:host-gateway", note.remedy)
        (none,) = self.bridges()
        self.assertIn("no bridge", none.text)

    def test_containers_that_cannot_come_in(self) -> None:
        (wrong, _) = self.bridges("172.18.0.1/16", host="127.0.0.1")
        self.assertIn("listens on 127.0.0.1, but containers call", wrong.text)
        wrong, right, _ = self.bridges(
            "fd00:1::1/64", "172.18.0.1/16", allow="172.16.0.0/12"
        )
        self.assertIn("does not admit the containers' network fd00:1::/64", wrong.text)
        self.assertEqual(right.status, "ok")
        (wrong, _) = self.bridges("fd00:1::1/64", host="0.0.0.0")
        self.assertEqual(wrong.status, "wrong")


class Quiet(http.server.BaseHTTPRequestHandler):
    """Another program's server."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Overloaded(Quiet):
    """A server of ours that has no place for one more."""

    def do_GET(self) -> None:
        body = b'{"success": false, "error": "Too many requests", "code": "overloaded"}'
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    unittest.main()
