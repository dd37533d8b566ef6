"""How a script is started, what it gets, what it leaves in its log."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from support import FULL, Server, need, need_command, npm_folder, slow, wait_until

from cron_trigger.registry.crons import Cron
from cron_trigger.registry.errors import LaunchError
from cron_trigger.registry.records import Run
from cron_trigger.registry.times import epoch_of
from cron_trigger.runs.output import RunLog
from cron_trigger.runs.scripts import find_program

TSX = "tsx@4.20.6"

#: What JavaScript has not: an enum, an interface, a type assertion.
TYPESCRIPT = """\
enum Colour { Red = "red", Green = "green" }
interface Cron { name: string; colour: Colour }
const cron: Cron = { name: process.env.CRON_NAME ?? "?", colour: Colour.Green };
const given = process.argv.slice(2) as string[];
console.log(cron.name, cron.colour, given.join("|"), process.env.CRON_PARAM_N);
process.exit(given.length === 1 ? 0 : 5);
"""


FRAME = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\] "


class RunCase(unittest.TestCase):
    """Tests that share one server and its registry."""

    server: Server
    registry: dict[str, Any] = {}
    environ: dict[str, str] = {}
    headers: dict[str, str] = {}

    @classmethod
    def setUpClass(cls) -> None:
        entries = {n: {"description": n, **entry} for n, entry in cls.registry.items()}
        cls.server = Server(entries, cls.environ)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def output(self, name: str, **fields: Any) -> str:
        """Run a cron that must complete; return what it printed."""
        run = self.server.completed(name, **fields)
        text = self.server.get(f"/runs/{run['id']}/log").text
        self.assertEqual(run["status"], "completed", (run, text))
        return text


class KindTest(RunCase):
    """Executables as they are, everything else by its ending."""

    registry = {
        "executable": {"command": ["bin/show", "a b", "", "$HOME;*"]},
        "plain": {"command": "plain"},
        "sh": {"command": ["not-executable.sh", "x"]},
        "py": {"command": ["not-executable.py", "x"]},
        "js": {"command": ["not-executable.js", "x"]},
        "path": {"command": ["printf", "%s", "from PATH"]},
        "nearer": {"command": "uname"},
        "directory": {"command": "bin/where"},
        "elsewhere": {"command": "bin/where", "workingDirectory": "bin"},
        "absolute": {"command": ["pwd"], "workingDirectory": "/"},
        "interpreted": {"command": ["sh", "not-executable.sh", "y"]},
        "stdin": {"command": "bin/stdin"},
        "session": {"command": "bin/session"},
    }

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        script = cls.server.script
        (cls.server.folder / "bin").mkdir()
        script("bin/show", "#!/bin/sh\nprintf '<%s>' \"$@\"\n")
        script("bin/where", "#!/bin/sh\npwd\n")
        script("bin/stdin", "#!/bin/sh\nwc -c; readlink /proc/self/fd/0\n")
        script(
            "bin/session",
            "#!/bin/sh\nread -r _ _ _ _ pgid sid _ </proc/$$/stat\necho $sid $pgid\n",
        )
        script("plain", "echo no first line\n")
        script("uname", "#!/bin/sh\necho the nearer one\n")
        script("not-executable.sh", 'echo "bash ${BASH_VERSION:+yes} $1"\n', 0o644)
        script("not-executable.py", "import sys\nprint('python', sys.argv[1])\n", 0o644)
        script("not-executable.js", "console.log('node', process.argv[2])\n", 0o644)

    def test_an_executable_gets_its_arguments_as_they_are(self) -> None:
        self.assertEqual(self.output("executable"), "<a b><><$HOME;*>")

    def test_an_executable_without_a_first_line_is_run_by_sh(self) -> None:
        self.assertEqual(self.output("plain"), "no first line\n")

    def test_others_run_by_their_ending(self) -> None:
        self.assertEqual(self.output("sh"), "bash yes x\n")
        self.assertEqual(self.output("py"), "python x\n")
        need_command("node")
        self.assertEqual(self.output("js"), "node x\n")

    def test_a_name_without_a_slash_is_looked_up_in_the_folder_then_in_path(
        self,
    ) -> None:
        self.assertEqual(self.output("path"), "from PATH")
        self.assertEqual(self.output("nearer"), "the nearer one\n")

    def test_an_interpreter_may_be_named(self) -> None:
        self.assertRegex(self.output("interpreted"), r"^bash (yes)? ?y\n$")

    def test_the_working_directory(self) -> None:
        folder = self.server.folder
        self.assertEqual(self.output("directory"), f"{folder}\n")
        self.assertEqual(self.output("elsewhere"), f"{folder}/bin\n")
        self.assertEqual(self.output("absolute"), "/\n")

    def test_there_is_nothing_to_read_and_no_terminal(self) -> None:
        self.assertEqual(self.output("stdin").split(), ["0", "/dev/null"])
        session, group = self.output("session").split()
        self.assertEqual(session, group)
        assert self.server.process
        self.assertNotEqual(int(session), os.getsid(self.server.process.pid))


class TypeScriptTest(unittest.TestCase):
    ENTRY = {
        "description": "TypeScript",
        "command": ["check.ts", "{n}"],
        "parameters": {"n": {"type": "integer", "default": 7}},
    }

    def server_with_path(self, path: Sequence[object]) -> Server:
        made = Server(start=False)
        self.write(made, path)
        self.addCleanup(made.__exit__)
        made.script("check.ts", TYPESCRIPT, 0o644)
        (made.folder / "bin").mkdir()
        return made

    def write(self, made: Server, path: Sequence[object]) -> None:
        # tsx keeps a cache in TMPDIR.
        variables = {"PATH": ":".join(map(str, path)), "TMPDIR": str(made.folder)}
        made.write_registry({"check": {**self.ENTRY, "environment": variables}})

    def fake_node(self, made: Server, version: str) -> None:
        text = f'#!/bin/sh\n[ "$1" = --version ] && echo {version} || echo node "$@"\n'
        made.script("bin/node", text)

    @slow
    def test_tsx_runs_a_ts_script_for_real(self) -> None:
        tsx = npm_folder(TSX) / "node_modules" / ".bin"
        path = [tsx, *os.environ["PATH"].split(os.pathsep)]
        made = self.server_with_path(path).start()
        run = made.completed("check")
        self.assertEqual(
            made.get(f"/runs/{run['id']}/log").text, "check green 7 7\n", run
        )
        self.assertEqual((run["status"], run["exitCode"]), ("completed", 0))

    def test_without_tsx_a_node_that_strips_types_runs_it(self) -> None:
        made = self.server_with_path(["/bin", "/usr/bin"])
        self.write(made, [f"{made.folder}/bin", "/bin"])
        self.fake_node(made, "v22.18.0")
        with made.start():
            run = made.completed("check")
            text = made.get(f"/runs/{run['id']}/log").text
            self.assertEqual(text, f"node {made.folder}/check.ts 7\n")

    def test_an_older_node_alone_is_a_launch_that_failed_until_it_is_newer(
        self,
    ) -> None:
        made = self.server_with_path(["/nowhere"])
        self.write(made, [f"{made.folder}/bin"])
        made.start()
        for version in ("", "v22.17.1", "v20.20.2", "nonsense"):
            if version:
                self.fake_node(made, version)
            with self.subTest(version):
                reply = made.trigger("check")
                code = reply.json.get("code")
                self.assertEqual((reply.status, code), (500, "launch_failed"))
                self.assertIn("needs tsx, or node 22.18 or later", reply.json["error"])
                self.assertIn("npm install -g tsx", reply.json["error"])
        self.fake_node(made, "v22.18.0")
        self.assertEqual(made.completed("check")["status"], "completed")

    @slow
    def test_a_node_that_did_not_answer_once_is_asked_again(self) -> None:
        made = self.server_with_path(["/nowhere"])
        self.write(made, [f"{made.folder}/bin", "/bin"])
        again = made.folder / "again"
        text = (
            f'#!/bin/sh\n[ "$1" = --version ] || exec echo node "$@"\n'
            f"[ -e {again} ] && echo v22.18.0 || ! : >{again}\n"
        )
        made.script("bin/node", text)
        made.start()
        self.assertEqual(made.trigger("check").json["code"], "launch_failed")
        self.assertTrue(again.exists())
        self.assertEqual(made.completed("check")["status"], "completed")


class ParameterTest(RunCase):
    registry = {
        "show": {
            "command": ["show", "--n={n}", "{n}", "{word}", "{flag}", "{{n}}"],
            "environment": {"CRON_KEPT": "kept", "HOME": "/elsewhere"},
            "parameters": {
                "n": {"type": "integer", "default": 5},
                "word": {"type": "string"},
                "flag": {"type": "boolean"},
                "dry-run": {"type": "boolean", "default": False},
                "path": {"type": "string"},
                "token": {"type": "string", "format": "password"},
            },
        }
    }

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.script("show", "#!/bin/sh\nprintf '<%s>' \"$@\"; echo; env\n")

    def shown(self, **params: Any) -> list[str]:
        return self.output("show", params=params).splitlines()

    def test_they_reach_the_script_as_arguments_and_variables(self) -> None:
        lines = self.shown(word="a b", flag=True)
        self.assertEqual(lines[0], "<--n=5><5><a b><true><{5}>")
        for line in ("N=5", "WORD=a b", "FLAG=true", "DRY_RUN=false"):
            self.assertIn(f"CRON_PARAM_{line}", lines)
        self.assertFalse([li for li in lines if li.startswith("CRON_PARAM_TOKEN")])

    def test_an_absent_one_leaves_no_argument_and_no_variable(self) -> None:
        lines = self.shown()
        self.assertEqual(lines[0], "<--n=5><5><{5}>")
        self.assertFalse([line for line in lines if line.startswith("CRON_PARAM_WORD")])

    def test_no_shell_ever_sees_a_value(self) -> None:
        word = "$(touch pwned)`id`;'\"\\ & > x | {n} %s"
        self.assertEqual(self.shown(word=word)[0], f"<--n=5><5><{word}><{{5}}>")
        self.assertFalse((self.server.folder / "pwned").exists())

    def test_a_parameter_overwrites_no_other_variable(self) -> None:
        lines = self.shown(path="/evil")
        self.assertIn("CRON_PARAM_PATH=/evil", lines)
        self.assertNotIn("PATH=/evil", lines)

    def test_the_entrys_environment_is_added(self) -> None:
        lines = self.shown()
        self.assertIn("CRON_KEPT=kept", lines)
        self.assertIn("HOME=/elsewhere", lines)

    def test_a_password_goes_by_environment_and_is_kept_nowhere(self) -> None:
        reply = self.server.trigger("show", params={"token": "hunter2x", "n": 6})
        run = self.server.ended(reply.json["runId"])
        self.assertEqual(run["params"], {"n": 6, "dry-run": False})
        output = self.server.get(f"/runs/{run['id']}/log").text
        self.assertIn("CRON_PARAM_TOKEN=hunter2x\n", output)
        self.assertNotIn("hunter2x", reply.text + self.server.log_text())
        for file in self.server.state_dir.iterdir():
            self.assertNotIn(b"hunter2x", file.read_bytes(), file)

    def test_refused_values_start_nothing(self) -> None:
        before = self.server.get("/runs").json["runs"]
        for params, why in (
            ({"word": "-rf"}, 'must not begin with "-"'),
            ({"word": "a\x00b"}, "control characters"),
            ({"word": "a\nb"}, "control characters"),
            ({"n": "5"}, "expected an integer"),
            ({"n": True}, "expected an integer"),
            ({"other": 1}, "is not a parameter"),
        ):
            with self.subTest(params):
                reply = self.server.trigger("show", params=params)
                self.assertEqual(
                    (reply.status, reply.json["code"]), (400, "invalid_params")
                )
                (name,) = params
                self.assertIn(why, reply.json["errors"][name])
        self.assertEqual(self.server.get("/runs").json["runs"], before)


class EnvironmentTest(RunCase):
    """What a script inherits, and what it must not."""

    registry = {"show": {"command": "show"}, "typed": {"command": "show"}}
    environ = {
        "CRON_TRIGGER_SECRET": "s3cret-of-the-tests",
        "CRON_TRIGGER_HISTORY_DAYS": "30",
        "CRON_NAME": "forged",
        "CRON_RUN_ID": "999",
        "CRON_PARAM_X": "forged",
        "NOTIFY_SOCKET": "/nowhere/notify",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "0",
        "LISTEN_FDNAMES": "http",
        "CREDENTIALS_DIRECTORY": "/nowhere",
        "INVOCATION_ID": "0123456789abcdef0123456789abcdef",
        "STATE_DIRECTORY": "/nowhere/state",
        "OPENAI_ADMIN_KEY": "of the caller",
    }

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.script(
            "show", "#!/bin/sh\nenv; tr '\\0' '\\n' </proc/$PPID/environ\n"
        )

    def variables(self) -> dict[str, str]:
        sent = {"X-Trigger-Secret": "s3cret-of-the-tests"}
        body = {"cronName": "show"}
        reply = self.server.request("POST", "/trigger", body, sent)
        run_id = reply.json["runId"]

        def ended() -> bool:
            reply = self.server.request("GET", f"/runs/{run_id}", headers=sent)
            return bool(reply.json["run"]["status"] != "running")

        wait_until(ended)
        text = self.server.request("GET", f"/runs/{run_id}/log", headers=sent).text
        self.assertNotIn("s3cret-of-the-tests", text)
        self.run_id = run_id
        pairs = (line.partition("=") for line in text.splitlines())
        return {name: value for name, _, value in pairs}

    def test_its_own_variables_are_true_and_private_ones_absent(self) -> None:
        variables = self.variables()
        own = {n: v for n, v in variables.items() if n.startswith("CRON_")}
        wanted = {"CRON_NAME": "show", "CRON_TRIGGER": "http"}
        self.assertEqual(own, {**wanted, "CRON_RUN_ID": str(self.run_id)})
        for name in variables:
            self.assertNotIn(name, self.environ.keys() - own.keys())

    def test_a_run_of_the_command_line_says_so(self) -> None:
        self.server.command("run", "typed")
        self.assertIn("\nCRON_TRIGGER=cli\n", self.server.log_text("typed"))


class FailedLaunchTest(RunCase):
    """A script that can't be started: which, why, what to do; nothing was started."""

    registry = {
        "missing": {"command": "nowhere/x.sh"},
        "not-on-path": {"command": "surely-no-such-program"},
        "call-in-a-string": {"command": "ok.sh --verbose"},
        "a-folder": {"command": "folder"},
        "a-pipe": {"command": "pipe"},
        "below-a-file": {"command": "ok.sh/x"},
        "too-long": {"command": "x" * 5000},
        "not-executable": {"command": "plain.txt"},
        "crlf": {"command": "crlf.sh"},
        "crlf-env": {"command": "crlf-env"},
        "no-interpreter": {"command": "no-interpreter"},
        "empty-first-line": {"command": "empty-first-line"},
        "no-directory": {"command": "ok.sh", "workingDirectory": "nowhere"},
        "no-log-folder": {"command": "ok.sh", "logFile": "/nowhere/at/all/x.log"},
        "link-as-log": {"command": "ok.sh", "logFile": "link.log"},
        "folder-as-log": {"command": "ok.sh", "logFile": "folder.log"},
        "pipe-as-log": {"command": "ok.sh", "logFile": "pipe.log"},
        "long-log": {"command": "ok.sh", "logFile": "x" * 300},
        "mended": {"command": "mended.sh"},
        "too-much": {"command": "ok.sh", "environment": {"X": "x" * 200_000}},
        "unsafe": {"command": "unsafe.sh"},
        "unsafe-folder": {"command": "open/x.sh"},
        "unsafe-interpreted": {"command": ["bash", "-e", "unsafe.sh"]},
        "foreign": {"command": "foreign.sh"},
    }

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder, script = cls.server.folder, cls.server.script
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        script("ok.sh", "#!/bin/sh\necho fine\n")
        script("plain.txt", "echo fine\n", 0o644)
        script("crlf.sh", "#!/bin/sh\r\necho fine\r\n")
        script("crlf-env", "#!/usr/bin/env python3\r\nprint(1)\r\n")
        script("no-interpreter", "#! /nowhere/ruby -w\n")
        script("empty-first-line", "#!\n")
        (cls.server.log_dir / "link.log").symlink_to(folder / "elsewhere")
        (cls.server.log_dir / "folder.log").mkdir()
        os.mkfifo(cls.server.log_dir / "pipe.log")
        script("unsafe.sh", "#!/bin/sh\n", 0o777)
        (folder / "open").mkdir()
        script("open/x.sh", "#!/bin/sh\n")
        (folder / "open").chmod(0o777)
        script("foreign.sh", "#!/bin/sh\n")
        if os.geteuid() == 0:
            os.chown(folder / "foreign.sh", 65534, -1)

    def assert_refused(self, name: str, *words: str) -> None:
        with self.subTest(name):
            reply = self.server.trigger(name)
            self.assertEqual((reply.status, reply.json["code"]), (500, "launch_failed"))
            sentence = reply.json["error"]
            self.assertTrue(
                sentence.startswith(f'"{name}" was not started: '), sentence
            )
            self.assertTrue(sentence.isprintable() and sentence.endswith("."), sentence)
            for word in words:
                self.assertIn(word, sentence)
            self.assert_recorded(reply.json["runId"], name, sentence)

    def assert_recorded(self, run_id: int, name: str, sentence: str) -> None:
        run = self.server.run(run_id)
        self.assertEqual((run["cronName"], run["status"]), (name, "failed"))
        self.assertEqual((run["pid"], run["exitCode"], run["signal"]), (None,) * 3)
        self.assertEqual(run["error"], "Not started: " + sentence.partition(": ")[2])
        self.assertIsNotNone(run["completedAt"])
        self.assertEqual(run["durationMs"], 0)
        log = self.server.get(f"/runs/{run_id}/log")
        self.assertEqual((log.status, log.text), (200, ""))
        self.assertIn(f"run {run_id} of {name} failed to start", self.server.log_text())

    def test_a_script_that_is_missing_or_no_file(self) -> None:
        folder = self.server.folder
        remedy = "put it there or correct the command in the registry"
        self.assert_refused("missing", f"{folder}/nowhere/x.sh is missing: {remedy}")
        self.assert_refused("not-on-path", '"surely-no-such-program" is not installed')
        self.assert_refused("below-a-file", "is missing")
        self.assert_refused("call-in-a-string", "is missing", "as an array")
        self.assert_refused("a-folder", f"{folder}/folder is not a file")
        self.assert_refused("a-pipe", f"{folder}/pipe is not a file")
        self.assert_refused("too-long", "cannot be reached (File name too long)")

    def test_a_script_that_can_not_be_run(self) -> None:
        self.assert_refused(
            "not-executable", "is not executable: chmod +x ", "plain.txt"
        )
        for name in ("crlf", "crlf-env"):
            self.assert_refused(name, "as Windows has it (CR LF): sed -i 's/\\r$//'")
        self.assert_refused(
            "no-interpreter",
            'asks for the interpreter "/nowhere/ruby", which is not installed: '
            "install it or correct the script's first line",
        )
        self.assert_refused("empty-first-line", 'the interpreter ""')

    def test_a_folder_that_is_missing(self) -> None:
        self.assert_refused("no-directory", f"{self.server.folder}/nowhere is missing")
        self.assert_refused("no-log-folder", "mkdir -p /nowhere/at/all")

    def test_a_log_that_is_none(self) -> None:
        self.assert_refused("link-as-log", "link.log is a link", "remove the link")
        self.assertFalse((self.server.folder / "elsewhere").exists())
        self.assert_refused("folder-as-log", "folder.log cannot be written")
        self.assert_refused("pipe-as-log", "pipe.log")
        self.assert_refused("long-log", "File name too long")

    def test_what_the_system_refuses_ends_its_part_of_the_log(self) -> None:
        self.assert_refused("too-much", "refused to start it", "Argument list too long")
        self.assertRegex(
            self.server.log_text("too-much"),
            rf"^{FRAME}run (\d+) started .*\n{FRAME}run \1 failed: Not started: ",
        )
        with (self.server.log_dir / "too-much.log").open("a") as log:
            log.write("another run's\n")
        (run,) = self.server.get("/runs?cron=too-much&limit=1").json["runs"]
        self.assertEqual(self.server.get(f"/runs/{run['id']}/log").text, "")

    def test_once_mended_it_starts(self) -> None:
        self.assert_refused("mended", "is missing")
        self.server.script("mended.sh", "#!/bin/sh\n")
        self.assertEqual(self.server.completed("mended")["status"], "completed")

    def test_as_root_what_others_may_write_is_not_started(self) -> None:
        need(os.geteuid() == 0, "only root refuses what others may write")
        folder = self.server.folder
        remedy = f"others may write {folder}/unsafe.sh: chmod o-w {folder}/unsafe.sh"
        self.assert_refused("unsafe", "is not safe, because", remedy)
        self.assert_refused("unsafe-interpreted", remedy)
        self.assert_refused("unsafe-folder", f"others may write {folder}/open: chmod")
        self.assert_refused("foreign", "belongs to user 65534 (nobody): use a copy")

    def test_check_names_the_same_without_starting_anything(self) -> None:
        runs = self.server.get("/runs?limit=1").json["runs"]
        done = self.server.command("check")
        warned = [li for li in done.stdout.splitlines() if li.startswith("warning: ")]
        named = {line.split('"')[1] for line in warned}
        can_start = {n for n in self.registry if "log" in n and n != "no-log-folder"}
        can_start.add("too-much")
        own = {n for n in self.registry if n.startswith("foreign")}
        can_start |= own if os.geteuid() else set()
        self.assertEqual(
            named - {"mended"}, set(self.registry) - can_start - {"mended"}
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(self.server.get("/runs?limit=1").json["runs"], runs)


class UnreachableTest(unittest.TestCase):
    def test_a_folder_that_may_not_be_searched_is_a_launch_that_failed(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "closed").mkdir()
        cron = Cron("a", "A", ("closed/x.sh",), folder)
        if os.geteuid() == 0:  # who may search every folder
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        else:
            folder.chmod(0)
            self.addCleanup(folder.chmod, 0o700)
        with self.assertRaises(LaunchError) as caught:
            find_program(cron, "/bin")
        self.assertIn("cannot be reached (Permission denied)", str(caught.exception))


class EndTest(RunCase):
    registry = {
        "three": {"command": ["sh", "-c", "exit 3"]},
        "killed": {"command": ["sh", "-c", "kill -KILL $$"]},
        "terminated": {"command": ["sh", "-c", "kill $$"]},
        "no-such": {"command": ["sh", "-c", "no-such-program"]},
        "busy": {"command": ["python3", "-c", "sum(range(3_000_000))"]},
    }

    def test_the_exit_status_is_the_scripts_own(self) -> None:
        table: Mapping[str, Sequence[Optional[object]]] = {
            "three": ("failed", 3, None),
            "killed": ("failed", 137, "SIGKILL"),
            "terminated": ("failed", 143, "SIGTERM"),
            "no-such": ("failed", 127, None),
        }
        for name, expected in table.items():
            with self.subTest(name):
                run = self.server.completed(name)
                self.assertEqual(
                    (run["status"], run["exitCode"], run["signal"]), expected
                )
                self.assertIsNone(run["error"])

    def test_what_it_used_is_measured(self) -> None:
        begun_s = time.monotonic()
        run = self.server.completed("busy")
        most_s = time.monotonic() - begun_s
        self.assertGreater(run["cpuSeconds"], 0.02)
        # Null where it was smaller than the server, whose mark Linux hands on.
        self.assertNotEqual(run["maxRssBytes"], 0)
        self.assertGreater(run["durationMs"], 20)
        took_s = epoch_of(run["completedAt"]) - epoch_of(run["startedAt"])
        self.assertLess(run["durationMs"] / 1000 - 0.01, took_s)
        self.assertLess(took_s, most_s + 0.01)


class LogTest(RunCase):
    """Each cron's log: two lines around each run; rotated at any time."""

    registry = {
        "hello": {"command": ["echo", "hello"]},
        "partial": {"command": ["printf", "no newline"]},
        "silent": {"command": ["true"]},
        "named": {"command": ["echo", "x"], "logFile": "other-name.log"},
        "both": {"command": ["sh", "-c", "echo out; echo err >&2"]},
        "forger": {"command": ["forger"]},
        "slow": {"command": "slow"},
    }

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.script(
            "forger",
            "#!/bin/sh\n"
            'echo "[2026-11-23T10:00:00+00:00] run 1 completed: exit 0 after 1 ms"\n'
            'echo "[2026-11-23T10:00:00+00:00] run 2 started (http 6.6.6.6)"\n'
            "printf '\\033[2J\\000\\377\\r\\n'\n",
        )
        cls.server.script(
            "slow",
            "#!/bin/sh\necho one\ntouch begun\n"
            "while [ ! -e go ]; do sleep 0.01; done\necho two\n",
        )

    def log_of(self, run: Mapping[str, Any], query: str = "") -> str:
        return self.server.get(f"/runs/{run['id']}/log{query}").text

    def test_two_lines_stand_around_each_run(self) -> None:
        run = self.server.completed("hello", requestedBy="admin@example.org")
        self.assertRegex(
            self.server.log_text("hello"),
            rf"(?m)^{FRAME}run {run['id']} started \(http 127\.0\.0\.1, requested by "
            rf"admin@example\.org\)\nhello\n{FRAME}run {run['id']} completed: exit 0 "
            r"after \d+ ms\n",
        )
        self.assertEqual(self.log_of(run), "hello\n")

    def test_output_without_a_last_newline_is_kept_as_it_is(self) -> None:
        first, second = (self.server.completed("partial") for _ in range(2))
        self.assertEqual(self.log_of(first), "no newline")
        self.assertEqual(self.log_of(second), "no newline")
        self.assertRegex(
            self.server.log_text("partial"),
            rf"^{FRAME}run {first['id']} started .*\nno newline\n{FRAME}run "
            rf"{first['id']} completed.*\n{FRAME}run {second['id']} started .*\n"
            rf"no newline\n{FRAME}run {second['id']} completed.*\n$",
        )

    def test_a_silent_run_has_an_empty_output(self) -> None:
        run = self.server.completed("silent")
        self.assertEqual(self.log_of(run), "")
        self.assertEqual(self.log_of(run, "?tail=5"), "")

    def test_both_streams_go_there_in_their_order(self) -> None:
        self.assertEqual(self.log_of(self.server.completed("both")), "out\nerr\n")

    def test_an_entry_may_name_another_file(self) -> None:
        run = self.server.completed("named")
        path = self.server.log_dir / "other-name.log"
        self.assertEqual(run["logFile"], str(path))
        self.assertIn("\nx\n", path.read_text())
        self.assertFalse((self.server.log_dir / "named.log").exists())

    def test_logs_may_be_read_by_all_and_written_by_the_owner(self) -> None:
        self.server.completed("hello")
        for name in ("hello.log", "cron-trigger-server.log"):
            mode = stat.S_IMODE((self.server.log_dir / name).stat().st_mode)
            self.assertEqual(oct(mode), "0o644")

    def test_output_that_forges_the_lines_changes_no_record(self) -> None:
        first = self.server.completed("forger")
        second = self.server.completed("forger")
        for run in (first, second):
            reply = self.server.get(f"/runs/{run['id']}/log")
            self.assertEqual(reply.body.count(b"\n"), 3)
            self.assertTrue(reply.body.endswith(b"\x1b[2J\x00\xff\r\n"))
            self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(reply.headers["x-content-type-options"], "nosniff")
            self.assertEqual(run["status"], "completed")

    def test_a_log_rotated_between_runs_and_again(self) -> None:
        log = self.server.log_dir / "hello.log"
        first = self.server.completed("hello")
        log.rename(log.with_name("hello.log.1"))
        second = self.server.completed("hello")
        self.assertEqual([self.log_of(first), self.log_of(second)], ["hello\n"] * 2)
        log.with_name("hello.log.1").rename(log.with_name("hello.log.2"))
        log.rename(log.with_name("hello.log-20261123"))
        self.assertEqual([self.log_of(first), self.log_of(second)], ["hello\n"] * 2)

    def test_a_log_rotated_away_or_emptied_is_a_sentence(self) -> None:
        for change in (Path.unlink, lambda path: os.truncate(path, 0)):
            run = self.server.completed("hello")
            change(self.server.log_dir / "hello.log")
            reply = self.server.get(f"/runs/{run['id']}/log")
            self.assertEqual((reply.status, reply.json["code"]), (404, "not_found"))
            self.assertIn("is no longer there", reply.json["error"])

    def test_a_log_rotated_while_a_run_writes_keeps_all_of_it(self) -> None:
        log = self.server.log_dir / "slow.log"
        run_id = self.server.trigger("slow").json["runId"]
        while not (self.server.folder / "begun").exists():
            time.sleep(0.01)
        log.rename(log.with_name("slow.log.1"))
        self.assertEqual(self.server.get(f"/runs/{run_id}/log").text, "one\n")
        (self.server.folder / "go").touch()
        run = self.server.ended(run_id)
        self.assertEqual(self.log_of(run), "one\ntwo\n")
        self.assertFalse(log.exists())
        self.assertRegex(
            log.with_name("slow.log.1").read_text(),
            rf"\none\ntwo\n{FRAME}run {run_id} completed: ",
        )


class TailTest(unittest.TestCase):
    """The last lines of a run's output, against a slow way that is surely right."""

    def expected(self, output: bytes, lines: int) -> bytes:
        kept = output.split(b"\n")
        if kept[-1] == b"":
            kept = kept[:-2] + [kept[-2] + b"\n"] if len(kept) > 1 else []
            return b"\n".join(kept[max(0, len(kept) - lines) :]) if lines else b""
        return b"\n".join(kept[-lines:]) if lines else b""

    def test_random_outputs_and_numbers_of_lines(self) -> None:
        chance = random.Random(7)
        with tempfile.TemporaryDirectory(prefix="cron-trigger-test-") as folder:
            for case in range(400 if FULL else 60):
                size = chance.choice((0, 1, 2, 5, 30, 70_000))
                output = bytes(chance.choices(b"\n\nab", k=size))
                if size > 1000:
                    output = output.replace(b"a\n", b"aaaa")
                lines = chance.choice((0, 1, 2, 3, 10, 40_000, 10**9))
                with self.subTest(case=case, size=size, lines=lines):
                    got = self.tail(Path(folder) / "x.log", output, lines)
                    self.assertEqual(got, self.expected(output, lines))

    def tail(self, path: Path, output: bytes, lines: int) -> bytes:
        before = b"another run's\n" * 3
        head = b"[2026-11-23T10:00:00+00:00] run 5 started (http x)\n"
        path.write_bytes(before + head + output + b"the end line\n")
        inode = path.stat().st_ino
        end = len(before + head + output)
        run = Run(
            5, "x", "completed", log_file=str(path), log_inode=inode,
            log_start=len(before), log_end=end,
        )  # fmt: skip
        log = RunLog(run)
        try:
            start = log.tail_start(log.end(), lines)
            return b"".join(log.blocks(start, log.end()))
        finally:
            log.close()


class BackgroundTest(RunCase):
    registry = {"parent": {"command": "parent"}}

    def test_what_a_script_leaves_behind_holds_neither_run_nor_lock(self) -> None:
        self.server.script("parent", "#!/bin/sh\nsleep 30 &\necho $! >child\n")
        run = self.server.completed("parent")
        self.addCleanup(self.end_child)
        self.assertEqual(run["status"], "completed")
        self.assertEqual(self.server.completed("parent")["status"], "completed")

    def end_child(self) -> None:
        os.kill(int((self.server.folder / "child").read_text()), signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
