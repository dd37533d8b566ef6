"""What runs as root, where it writes, and what a script can't change.

The safety of scripts, registry and folders is looked at as root; that a link is not
followed and that output stays output holds for every user.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from support import Server, need, need_full, patched, slow, wait_until

from cron_trigger.registry import trust
from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.trust import folder_fault, places_of
from cron_trigger.runs.scripts import Scripts

NOBODY = 65534
LOG = "cron-trigger-server.log"


class FolderTest(unittest.TestCase):
    """A folder of its own, with a script in it."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.script = self.write("job.sh", "#!/bin/sh\necho ran\n")

    def write(self, name: str, text: str = "", mode: int = 0o755) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def fault(self, *command: str, **entry: Any) -> str:
        """Return why root would not run a command, "" where it would."""
        cron = Cron("job", "A job", tuple(command), self.folder, **entry)
        try:
            scripts = Scripts({"PATH": os.environ["PATH"]})
            user = scripts.user_of(cron)
            path = scripts.environment(cron, user)["PATH"]
            scripts.arguments(cron, {}, user, path)
        except LaunchError as error:
            return str(error)
        return ""


class UnsafeScriptTest(FolderTest):
    """Whatever others may write is not run as root; the remedy works."""

    def setUp(self) -> None:
        need(os.geteuid() == 0, "only root refuses what others may write")
        super().setUp()

    def assert_remedied(self, *command: str) -> None:
        """Assert that a command is refused, and not after what the refusal says."""
        fault = self.fault(*command)
        remedy = re.search(r"(chmod|chown) (\S+) (\S+)$", fault)
        assert remedy, f"no remedy in: {fault!r}"
        subprocess.run(remedy[0].split(), check=True)
        self.assertEqual(self.fault(*command), "")

    def test_a_script_that_others_may_write(self) -> None:
        for mode in (0o757, 0o775, 0o777, 0o647):
            with self.subTest(oct(mode)):
                self.script.chmod(mode)
                if mode == 0o777:
                    self.assertIn("others may write", self.fault("job.sh"))
                    self.script.chmod(0o757)
                self.assert_remedied("job.sh")

    def test_a_script_or_folder_of_somebody_else(self) -> None:
        for path in (self.script, self.folder):
            os.chown(path, NOBODY, NOBODY)
            self.assertIn(
                f"{path} belongs to user {NOBODY} (nobody): use a copy that is root's "
                f"(sudo install -D -m 755 -t /usr/local/sbin/ {self.script}), or set "
                '"user": "nobody" in the entry',
                self.fault("job.sh"),
            )
            os.chown(path, 0, 0)

    def test_no_remedy_takes_anything_from_a_user_or_a_group(self) -> None:
        """Neither a home nor a folder that a group was given, nor what lies there."""
        home = self.folder / "home"
        script = self.write("home/bin/job.sh", "#!/bin/sh\n")
        for place, owner, group, mode in (
            (home, NOBODY, NOBODY, 0o700),
            (home, NOBODY, NOBODY, 0o777),
            (script, NOBODY, NOBODY, 0o755),
            (home, 0, NOBODY, 0o775),
            (home, 0, NOBODY, 0o2775),
            (script, 0, NOBODY, 0o775),
        ):
            with self.subTest(place=place.name, owner=owner, mode=oct(mode)):
                os.chown(place, owner, group)
                place.chmod(mode)
                fault = self.fault(str(script))
                self.assertNotRegex(fault, "ch(own|mod|grp) ")
                self.assertIn(
                    f"sudo install -D -m 755 -t /usr/local/sbin/ {script}", fault
                )
                place.chmod(0o755)
                os.chown(place, 0, 0)
        self.assertEqual(self.fault(str(script)), "")

    def test_well_known_shared_folders_stay_as_they_are(self) -> None:
        status = os.stat_result((0o40777, 0, 0, 2, 0, 0, 0, 0, 0, 0))
        for place in ("/home", "/srv", "/srv/team", "/tmp", "/var/tmp", "/home/a/b"):
            self.assertTrue(trust.is_shared(place, status), place)
        for place in ("/opt/x", "/tmp/x", "/etc", "/homes"):
            self.assertFalse(trust.is_shared(place, status), place)

    def test_what_the_entry_s_user_may_write_is_safe_for_that_user(self) -> None:
        os.chown(self.folder, NOBODY, NOBODY)
        os.chown(self.script, NOBODY, NOBODY)
        path = str(self.script)
        self.assertIsNone(trust.writable_by_others(path, NOBODY))
        self.assertIn("belongs to", str(trust.writable_by_others(path, 12345)))
        self.script.chmod(0o775)
        fault = trust.writable_by_others(path, NOBODY)
        self.assertEqual(fault, f"its group may write {path}: chmod g-w {path}")
        os.chown(self.script, 12345, 0)
        fault = str(trust.writable_by_others(path, NOBODY))
        self.assertIn(f"{path} belongs to user 12345: use a copy", fault)
        self.assertIn("or set another user in the entry", fault)

    def test_a_remedy_can_be_pasted(self) -> None:
        script = self.write("a b/it's.sh", "#!/bin/sh\n", 0o757)
        fault = str(trust.writable_by_others(str(script)))
        subprocess.run(["sh", "-c", fault.partition(": ")[2]], check=True)
        self.assertIsNone(trust.writable_by_others(str(script)))

    def test_a_folder_above_that_others_may_write(self) -> None:
        self.write("a/b/job.sh", "#!/bin/sh\n")
        for folder in ("a", "a/b"):
            for mode in (0o757, 0o775):
                (self.folder / folder).chmod(mode)
                self.assert_remedied("a/b/job.sh")

    def test_a_script_under_an_interpreter(self) -> None:
        self.write("other.py", "", 0o646)
        self.write("tool", "#!/bin/sh\n", 0o757)
        for command in (
            ("other.py",),
            ("/usr/bin/env", "python3", "other.py"),
            ("/bin/bash", "-o", "pipefail", "other.py"),
            ("bash", "other.py"),
            ("/usr/bin/nice", "-n", "10", str(self.folder / "other.py")),
            ("/usr/bin/nice", "./tool"),
            ("/bin/sh", "tool"),
        ):
            with self.subTest(command):
                self.assertIn("is not safe", self.fault(*command))

    def test_data_that_others_may_write_is_no_script(self) -> None:
        self.write("data.csv", "1,2", 0o666)
        self.assertEqual(self.fault("job.sh", "data.csv"), "")

    def test_the_interpreter_of_the_first_line(self) -> None:
        shutil.copy("/bin/sh", self.folder / "shell")
        self.write("mine.sh", f"#!{self.folder}/shell\n")
        self.assertEqual(self.fault("mine.sh"), "")
        (self.folder / "shell").chmod(0o757)
        self.assert_remedied("mine.sh")

    def test_the_interpreter_found_on_the_path(self) -> None:
        shutil.copy("/bin/sh", self.folder / "bash")
        os.chown(self.folder / "bash", NOBODY, 0)
        self.write("plain.sh", "", 0o644)
        path = f"{self.folder}:{os.environ['PATH']}"
        with mock.patch.dict(os.environ, PATH=path):
            self.assertIn("interpreter", self.fault("plain.sh"))
            os.chown(self.folder / "bash", 0, 0)
            self.assertEqual(self.fault("plain.sh"), "")

    def test_every_link_of_a_chain(self) -> None:
        middle = self.folder / "middle"
        middle.mkdir()
        (middle / "link").symlink_to(self.script)
        (self.folder / "first").symlink_to("middle/link")
        self.assertEqual(self.fault("first"), "")
        middle.chmod(0o757)
        self.assert_remedied("first")
        os.chown(middle / "link", NOBODY, 0, follow_symlinks=False)
        self.assertIn("belongs to user", self.fault("first"))

    def test_a_folder_that_is_a_link(self) -> None:
        self.write("real/deep/job.sh", "#!/bin/sh\n")
        (self.folder / "short").symlink_to("real/deep")
        self.write("other/x")
        self.assertEqual(self.fault("short/../deep/job.sh"), "")
        (self.folder / "real").chmod(0o777)
        self.assertIn("others may write", self.fault("short/job.sh"))

    def test_links_that_go_round_end(self) -> None:
        (self.folder / "round").symlink_to("round")
        self.assertLess(len(list(places_of(f"{self.folder}/round"))), 60)
        self.assertNotEqual(self.fault("round"), "")

    def test_a_sticky_folder_is_safe_for_what_root_owns(self) -> None:
        self.folder.chmod(0o1777)
        self.assertEqual(self.fault("job.sh"), "")
        os.chown(self.script, NOBODY, 0)
        self.assertIn("belongs to user", self.fault("job.sh"))

    def test_a_trigger_says_why_and_starts_nothing(self) -> None:
        registry = {"job": {"description": "A job", "command": "job.sh"}}
        with Server(registry, start=False) as server:
            server.script("job.sh", "#!/bin/sh\ntouch ran\n", 0o777)
            server.start()
            reply = server.trigger("job")
            self.assertEqual((reply.status, reply.json["code"]), (500, "launch_failed"))
            self.assertIn(f"chmod o-w {server.folder}/job.sh", reply.json["error"])
            run = server.run(reply.json["runId"])
            self.assertEqual(run["status"], "failed")
            self.assertFalse((server.folder / "ran").exists())
            (server.folder / "job.sh").chmod(0o755)
            self.assertEqual(server.completed("job")["status"], "completed")


class UnsafePlaceTest(FolderTest):
    """Registry, log, state and PID folders."""

    def setUp(self) -> None:
        need(os.geteuid() == 0, "only root refuses what others may write")
        super().setUp()

    def test_a_registry_that_others_may_write_is_not_taken(self) -> None:
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            server.registry.chmod(0o646)
            health = wait_until(
                lambda: (h := server.get("/health").json)["status"] == "degraded" and h
            )
            self.assertIn(f"chmod o-w {server.registry}", health["problems"][0])
            self.assertEqual(server.completed("a")["status"], "completed")
            server.registry.chmod(0o644)
            wait_until(lambda: server.get("/health").json["status"] == "healthy")

    @slow
    def test_a_folder_that_others_may_write_ends_the_start(self) -> None:
        for name in ("log_dir", "state_dir", "run_dir"):
            with self.subTest(name), Server({}, start=False) as server:
                folder: Path = getattr(server, name)
                folder.mkdir()
                folder.chmod(0o1777)
                ended = server.command("serve", "--port=0")
                self.assertEqual(ended.returncode, 78)
                self.assertIn(f"chmod go-w {folder}", ended.stderr)

    def test_a_folder_above_them_that_others_may_write_does_too(self) -> None:
        above = self.folder / "above"
        above.mkdir()
        above.chmod(0o777)
        with Server({}, start=False) as server:
            server.log_dir = above / "log"
            ended = server.command("serve", "--port=0")
            self.assertEqual(ended.returncode, 78)
            self.assertIn(f"chmod o-w {above}", ended.stderr)

    def test_a_folder_above_them_may_be_its_group_s(self) -> None:
        above = self.folder / "above"
        (above / "log").mkdir(parents=True)
        above.chmod(0o775)
        self.assertIsNone(folder_fault(f"{above}/log", of_logs=True))
        above.chmod(0o757)
        self.assertIsNotNone(folder_fault(f"{above}/log", of_logs=True))

    @slow
    def test_a_folder_above_locks_and_history_may_not(self) -> None:
        # A member of the group could put a link in the folder's place, and what the
        # server makes there, or gives a mode, would be something else.
        above = self.folder / "above"
        above.mkdir()
        above.chmod(0o775)
        for name in ("run_dir", "state_dir"):
            with self.subTest(name), Server({}, start=False) as server:
                setattr(server, name, above / "own")
                ended = server.command("serve", "--port=0")
                self.assertEqual(ended.returncode, 78)
                self.assertIn(f"chmod g-w {above}", ended.stderr)

    def test_the_log_folder_of_a_cron(self) -> None:
        log = self.folder / "logs" / "x.log"
        log.parent.mkdir()
        registry = {
            "a": {"description": "A", "command": "/bin/true", "logFile": str(log)}
        }
        with Server(registry) as server:
            self.assertEqual(server.completed("a")["status"], "completed")
            log.parent.chmod(0o777)
            reply = server.trigger("a")
            self.assertEqual(reply.json["code"], "launch_failed")
            self.assertIn(f"chmod go-w {log.parent}", reply.json["error"])


@slow
class ModeTest(FolderTest):
    """What a log may be read by is not decided by whoever started the server."""

    def modes(self, server: Server) -> list[str]:
        paths = (server.log_dir, server.log_dir / "a.log", server.log_dir / LOG)
        return [oct(path.stat().st_mode & 0o777) for path in paths]

    def test_logs_have_their_mode_whatever_the_umask(self) -> None:
        # The script's own is that of cron, 022.
        program = patched("import os; os.umask(0o077)")
        entry = {"description": "A", "command": ["sh", "-c", "umask"]}
        with Server({"a": entry}, program=program) as server:
            run = server.completed("a")
            self.assertEqual(self.modes(server), ["0o755", "0o644", "0o644"])
            self.assertIn("22\n", server.get(f"/runs/{run['id']}/log").text)

    def test_a_log_that_is_there_keeps_its_mode(self) -> None:
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            wait_until(lambda: "listens on" in server.log_text())
            for name in ("a.log", LOG):
                path = server.log_dir / name
                path.touch()
                path.chmod(0o640)
            server.completed("a")
            self.assertEqual(self.modes(server), ["0o755", "0o640", "0o640"])


class LinkTest(FolderTest):
    """Neither a PID file nor a log is ever reached through a link."""

    def test_a_pid_file_that_is_a_link_is_not_followed(self) -> None:
        victim = self.write("victim", "precious")
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            (server.run_dir / "a.pid").unlink()
            (server.run_dir / "a.pid").symlink_to(victim)
            reply = server.trigger("a")
            self.assertEqual((reply.status, reply.json["code"]), (500, "launch_failed"))
            self.assertEqual(victim.read_text(), "precious")
            run = server.run(reply.json["runId"])
            self.assertEqual(run["status"], "failed")
            self.assertIn("is a link, which is not followed", run["error"])
            (server.run_dir / "a.pid").unlink()
            self.assertEqual(server.completed("a")["status"], "completed")

    def test_a_log_that_is_a_link_is_not_followed(self) -> None:
        victim = self.write("victim", "precious")
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            (server.log_dir / "a.log").symlink_to(victim)
            reply = server.trigger("a")
            self.assertIn("is a link, which is not followed", reply.json["error"])
            (server.log_dir / "a.log").unlink()
            (server.log_dir / "a.log").symlink_to(self.folder / "not there")
            self.assertEqual(server.trigger("a").json["code"], "launch_failed")
            self.assertFalse((self.folder / "not there").exists())
            self.assertEqual(victim.read_text(), "precious")

    def test_the_server_s_own_log_that_is_a_link_is_not_followed(self) -> None:
        victim = self.write("victim", "precious")
        with Server({}, start=False) as server:
            server.log_dir.mkdir()
            (server.log_dir / "cron-trigger-server.log").symlink_to(victim)
            server.start()
            self.assertEqual(server.get("/nothing").status, 404)
            self.assertEqual(victim.read_text(), "precious")

    def test_a_log_that_is_no_file_does_not_hang(self) -> None:
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            os.mkfifo(server.log_dir / "a.log")
            self.assertEqual(server.trigger("a").json["code"], "launch_failed")

    def test_a_log_that_became_a_link_is_not_read_through_it(self) -> None:
        secret = self.write("secret", "] run 1 started (\nroot's own\n")
        with Server({"a": {"description": "A", "command": "/bin/true"}}) as server:
            run = server.completed("a")
            log = server.log_dir / "a.log"
            log.unlink()
            log.symlink_to(secret)
            reply = server.get(f"/runs/{run['id']}/log")
            self.assertEqual(reply.status, 404)

    def test_what_the_server_makes_is_for_nobody_else_to_write(self) -> None:
        registry = {"a": {"description": "A", "command": "/bin/true"}}
        with Server(registry, start=False) as server:
            server.registry.chmod(0o644)
            self.addCleanup(os.umask, os.umask(0))
            server.start()
            server.completed("a")
            for path, mode in (
                (server.run_dir, 0o700),
                (server.run_dir / "a.pid", 0o600),
                (server.run_dir / "events.sock", 0o600),
                (server.state_dir, 0o700),
                (server.state_dir / "history.db", 0o600),
                (server.log_dir, 0o755),
                (server.log_dir / "a.log", 0o644),
                (server.log_dir / "cron-trigger-server.log", 0o644),
            ):
                with self.subTest(path.name):
                    self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)


FORGERY = """#!/bin/sh
printf '[2026-01-01T00:00:00+00:00] run %s completed: exit 0 after 1 ms\\n' $CRON_RUN_ID
printf '[2026-01-01T00:00:00+00:00] run 999 started (http 127.0.0.1)\\n'
printf 'data: {"run": {"status": "completed"}}\\n\\nevent: run.finished\\n'
printf '\\033[2J\\033]0;owned\\007\\2331m\\n<img src=x onerror=alert(1)>\\n'
printf '12345\\n0\\n'
exit 3
"""


class ForgeryTest(unittest.TestCase):
    """What a script prints is output: no record, no page, no terminal changes."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        registry: dict[str, Any] = {
            "forge": {"description": "Lies", "command": "forge.sh"},
            "echo": {
                "description": "A \x1b[2J description",
                "command": ["/bin/echo", "{text}"],
                "parameters": {"text": {"type": "string"}},
            },
        }
        cls.server = Server(registry, start=False)
        cls.server.script("forge.sh", FORGERY)
        cls.server.start()
        cls.addClassCleanup(cls.server.__exit__)

    def test_a_forged_end_is_no_end(self) -> None:
        run = self.server.completed("forge")
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 3))
        reply = self.server.get(f"/runs/{run['id']}/log")
        self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
        self.assertIn(b"run 999 started", reply.body)
        self.assertTrue(reply.body.endswith(b"12345\n0\n"))
        self.assertEqual(self.server.get("/runs/999").status, 404)
        self.assertEqual(self.server.get("/runs/999/log").status, 404)

    def test_a_forged_event_is_no_event(self) -> None:
        run = self.server.completed("forge")
        rows = self.server.rows("select event, data from events")
        ends = [data for event, data in rows if event == "run.finished"]
        self.assertIn('"status": "failed"', ends[-1])
        self.assertIn(f'"id": {run["id"]}', ends[-1])
        self.assertFalse([data for _, data in rows if "\n" in data])

    def test_the_next_run_s_output_is_its_own(self) -> None:
        first = self.server.completed("forge")
        second = self.server.completed("forge")
        for run in (first, second):
            text = self.server.get(f"/runs/{run['id']}/log").body.decode("latin-1")
            self.assertIn(f"run {run['id']} completed: exit 0", text)
            self.assertEqual(text.count("12345"), 1)

    def test_output_does_not_reach_the_server_s_own_log(self) -> None:
        self.server.completed("forge")
        text = self.server.log_text() + self.server.stderr()
        for word in ("owned", "12345", "onerror", "\x1b"):
            self.assertNotIn(word, text)

    def terminal(self, *arguments: str) -> str:
        """Return what the command line writes to a real terminal."""
        leader, follower = pty.openpty()
        command = [sys.executable, *self.server.program, *arguments]
        environ = {**self.server.clean_environ(), "TERM": "xterm"}
        process = subprocess.Popen(
            [*command, *self.server.folder_flags()],
            stdout=follower,
            stderr=follower,
            env=environ,
        )
        os.close(follower)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while True:
                seen += os.read(leader, 65536)
        os.close(leader)
        process.wait(20)
        return seen.decode()

    def test_tables_show_escape_sequences_and_do_not_send_them(self) -> None:
        need_full()
        self.server.completed("echo", requestedBy="someone", params={"text": "\u202ex"})
        for arguments in (("list",), ("history",), ("history", "--limit=5")):
            text = self.terminal(*arguments)
            self.assertIn("echo", text)
            # Colours are the command's own, and nothing else is.
            plain = re.sub(r"\x1b\[\d+m", "", text).replace("\r\n", "\n")
            for line in plain.splitlines():
                self.assertTrue(line.isprintable(), ascii(line))
        self.assertIn("\\x1b[2J description", self.terminal("list"))

    @slow
    def test_a_registry_s_faults_do_not_reach_the_terminal_raw(self) -> None:
        with Server({"\x9b2J": {"description": "\x9b", "command": 7}}) as server:
            ended = server.command("check")
            self.assertEqual(ended.returncode, 78)
            for line in ended.stdout.splitlines():
                self.assertTrue(line.isprintable(), ascii(line))


class ArgumentTest(unittest.TestCase):
    """A parameter is a value: never a path, an option, a variable or shell text."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        registry: dict[str, Any] = {
            "show": {
                "description": "Show its arguments",
                "command": ["show.sh", "--text={text}", "{text}", "{other}", "{list}"],
                "parameters": {
                    "text": {"type": "string"},
                    "other": {"type": "string"},
                    "list": {"type": "string", "enum": ["-l", "a"]},
                    "word": {"type": "string", "format": "password"},
                },
            }
        }
        cls.server = Server(registry, start=False)
        cls.server.script(
            "show.sh", '#!/bin/sh\nprintf "<%s>\\n" "$@"\nenv | grep ^CRON_PARAM_\n:\n'
        )
        cls.server.start()
        cls.addClassCleanup(cls.server.__exit__)

    def output(self, **params: Any) -> list[str]:
        run = self.server.completed("show", params=params)
        self.assertEqual(run["status"], "completed")
        return self.server.get(f"/runs/{run['id']}/log").text.splitlines()

    def test_shell_text_is_text(self) -> None:
        for text in (
            "$(id)", "`id`", "; id", "a b", "*", '"', "'", "\\", "| id", "{other}",
            "%s%n", "é 🔑", "a=b", "../../etc/passwd", "<(id)", "${HOME}", "~", "#",
            "!!",
        ):  # fmt: skip
            with self.subTest(text):
                lines = self.output(text=text)
                self.assertEqual(lines[:2], [f"<--text={text}>", f"<{text}>"])
                self.assertIn(f"CRON_PARAM_TEXT={text}", lines)

    def test_what_could_be_an_option_or_a_line_is_refused(self) -> None:
        for text in ("-x", "--help", "-", "a\nb", "a\rb", "a\0b", "\x1b[2J", "a\x9bb",
                     "x" * 1001, "\u0000", "\x7f"):  # fmt: skip
            reply = self.server.trigger("show", params={"text": text})
            self.assertEqual(
                (reply.status, reply.json["code"]), (400, "invalid_params")
            )
        self.assertEqual(self.server.trigger("show", params={"list": "-x"}).status, 400)

    def test_only_the_registry_s_parameters_are_taken(self) -> None:
        for name in ("PATH", "LD_PRELOAD", "CRON_TRIGGER_SECRET", "ot_x", "", "text ",
                     "__proto__", "BASH_ENV", "CRON_RUN_ID"):  # fmt: skip
            reply = self.server.trigger("show", params={name: "x"})
            self.assertEqual(
                (reply.status, reply.json["code"]), (400, "invalid_params")
            )

    def test_a_password_is_kept_nowhere(self) -> None:
        password = "Correct-Horse-Battery"
        run = self.server.completed("show", params={"word": password, "text": "t"})
        self.assertEqual(run["params"], {"text": "t"})
        reply = self.server.trigger("show", params={"word": [password]})
        self.assertNotIn(password, reply.text)
        soon = "2999-01-01T00:00:00Z"
        planned = self.server.trigger("show", params={"word": password}, runAt=soon)
        self.assertEqual(planned.json["code"], "invalid_params")
        texts = [self.server.log_text(), self.server.stderr()]
        texts += [str(row) for row in self.server.rows("select * from cron_executions")]
        texts += [str(row) for row in self.server.rows("select * from events")]
        self.assertFalse([text for text in texts if password in text])


if __name__ == "__main__":
    unittest.main()
