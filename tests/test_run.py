"""`run NAME`: a cron in the foreground, for crontab lines."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import unittest
from typing import Any

from command import REGISTRY, USER, CommandCase
from support import (
    PROGRAM,
    READERS,
    Server,
    need,
    need_command,
    need_full,
    patched,
    slow,
    wait_until,
)

from cron_trigger.registry.errors import EX_CONFIG, EX_TEMPFAIL, EX_USAGE


class RunTest(CommandCase):
    """`run NAME`, without a server: in the foreground, with the script's status."""

    @slow
    def test_the_exit_status_is_the_scripts(self) -> None:
        for name, status in {"hello": 0, "three": 3, "killed": 137}.items():
            with self.subTest(name):
                done = self.call("run", name)
                self.assertEqual((done.returncode, done.stdout), (status, ""))
                self.assertEqual(self.last_run()["exitCode"], status)

    def test_the_output_goes_to_the_log_and_the_run_is_recorded(self) -> None:
        self.call("run", "hello")
        run = self.last_run()
        self.assertEqual((run["status"], run["trigger"]), ("completed", "cli"))
        self.assertEqual(run["client"], USER)
        self.assertIsNotNone(run["cpuSeconds"])
        self.assertRegex(
            self.server.log_text("hello"),
            rf"\] run {run['id']} started \(cli {USER}\)\nhello world\n\[[^]]+\] "
            rf"run {run['id']} completed: exit 0 after ",
        )
        self.assertIn(f"run {run['id']} of hello completed", self.server.log_text())

    @slow
    def test_the_services_variables_are_the_scripts_too(self) -> None:
        file = self.server.folder / "default"
        file.write_text("A_KEY='of the file'\nPATH=/nowhere\nCRON_TRIGGER_PORT=x\n")
        entry = {
            "description": "Shows",
            "command": ["/bin/sh", "-c", 'echo "$A_KEY $B"'],
        }
        path = f"m.environment_file.__defaults__ = (m.Path({str(file)!r}),)"
        with Server({"show": entry}, program=patched(path), start=False) as made:
            self.assertEqual(made.command("run", "show", "--port=1").returncode, 0)
            self.assertIn("\nof the file \n", made.log_text("show"))
            made.environ.update(A_KEY="of the crontab", B="of the crontab")
            made.command("run", "show", "--port=1")
            self.assertEqual(made.log_text("show").count("\nof the file \n"), 2)
            self.assertEqual(made.command("run", "show").returncode, EX_CONFIG)

    @slow
    def test_parameters_become_values_of_their_type(self) -> None:
        arguments = ("--param=n=7", "--param", "word=a=b c", "--param=flag=true")
        self.assertEqual(self.call("run", "hello", *arguments).returncode, 0)
        self.assertEqual(
            self.last_run()["params"], {"n": 7, "word": "a=b c", "flag": True}
        )
        self.assertIn("\nhello a=b c 7\n", self.server.log_text("hello"))

    @slow
    def test_parameters_that_do_not_hold_are_64(self) -> None:
        for arguments, words in (
            (("--param=n=10",), "n must be at most 9, got 10"),
            (("--param=n=x",), 'n expected an integer, got "x"'),
            (("--param=flag=yes",), "flag expected a boolean"),
            (("--param=word=-rf",), 'word must not begin with "-"'),
            (("--param=other=1",), "other is not a parameter of this cron"),
            (("--param=n",), "--param takes KEY=VALUE"),
            (("--param=n=1", "--param=n=2"), "each key once"),
            (("--param==1",), "is not a parameter of this cron"),
        ):
            with self.subTest(arguments):
                done = self.call("run", "hello", *arguments)
                self.assert_sentence(done, EX_USAGE, words)

    @slow
    def test_an_unknown_cron_is_64_and_a_broken_script_126(self) -> None:
        done = self.call("run", "helo")
        self.assert_sentence(done, EX_USAGE, 'no cron "helo"', "hello, three")
        done = self.call("run", "missing")
        self.assert_sentence(done, 126, '"missing" was not started', "is missing")

    def test_what_runs_already_is_75_whoever_runs_it(self) -> None:
        self.call("run", "hello")
        flock = need_command("flock")
        lock = str(self.server.run_dir / "hello.pid")
        done = subprocess.run(
            [
                *(flock, "-n", lock, sys.executable, str(PROGRAM), "run", "hello"),
                *self.server.folder_flags(),
            ],
            capture_output=True,
            text=True,
            env=self.server.clean_environ(),
            timeout=30,
            check=False,
        )
        self.assert_sentence(done, EX_TEMPFAIL, '"hello" is running already')

    @slow
    def test_a_signal_cancels_the_run_and_the_record_says_so(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                status, output = self.signalled(number)
                run = self.last_run()
                line = f"run {run['id']} of sleeps cancelled: killed by SIGTERM after "
                self.assertEqual(status, 143)
                self.assertIn(line, output)
                self.assertEqual(output.count("\n"), 1)
                self.assertEqual(
                    (run["status"], run["signal"]), ("cancelled", "SIGTERM")
                )
                self.assertEqual(run["cancelledBy"], f"{USER} (signal)")

    @slow
    def test_an_interrupted_run_has_no_status_says_so_and_ends_with_1(self) -> None:
        lock = self.server.run_dir / "sleeps.pid"
        if lock.exists():
            lock.write_text("")
        process = self.server.spawn("run", "sleeps")
        assert process.stdout
        pid = wait_until(
            lambda: lock.exists() and lock.read_text().strip(), what="the keeper"
        )
        os.kill(int(pid), signal.SIGKILL)
        self.assertEqual(process.wait(20), 1)
        self.assertIn("of sleeps interrupted: ", process.stdout.read())
        process.stdout.close()
        run = self.last_run()
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))

    def test_what_a_script_gets_is_utf_8_whatever_the_hosts_locale(self) -> None:
        localedef = need_command("localedef")
        entry = {
            "description": "Vérifie ✅",
            "command": "vérifie-✅.sh",
            "environment": {"SIGN": "é✅"},
        }
        with Server({"check": entry}, start=False) as made:
            made.script("vérifie-✅.sh", '#!/bin/sh\necho "$SIGN"\n')
            locale = made.folder / "en_US"
            latin = [localedef, "-i", "en_US", "-f", "ISO-8859-1", str(locale)]
            subprocess.run(latin, capture_output=True, check=False)
            need(locale.is_dir(), "no sources of locales are installed")
            made.environ.update(LOCPATH=str(made.folder), LC_ALL="en_US")
            made.start()
            self.assertEqual(made.completed("check")["status"], "completed")
            self.assertEqual(made.command("run", "check").returncode, 0)
            self.assertEqual(made.log_text("check").count("\né✅\n"), 2)
            self.assertEqual(made.command("check").stderr, "")

    def test_where_somebody_removed_the_current_folder_all_works(self) -> None:
        gone = 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"'
        python = ("sh", "-c", gone, "sh", sys.executable)
        with Server(
            {"yes": {"description": "?", "command": ["true"]}}, python=python
        ) as made:
            self.assertEqual(made.completed("yes")["status"], "completed")
            for words in (("run", "yes"), ("check",)):
                done = made.command(*words)
                self.assertEqual((done.returncode, done.stderr), (0, ""), words)

    def test_what_the_caller_ignores_or_blocks_the_script_hears(self) -> None:
        deaf = (
            "import os, signal, sys\n"
            "for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):\n"
            "    signal.signal(number, signal.SIG_IGN)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        shows = ["grep", "-cE", "Sig(Blk|Ign):.0*$", "/proc/self/status"]
        waits = "until [ -s hup ]; do sleep 0.01; done; exit 3"
        entries = {
            "shows": {"description": "Shows", "command": shows},
            "waits": {"description": "Waits", "command": ["sh", "-c", waits]},
            "orphan": {"description": "?", "command": ["sh", "-c", "kill -9 $PPID"]},
        }
        with Server(entries, python=(sys.executable, "-c", deaf)) as made:
            run = made.completed("shows")
            self.assertIn("\n2\n", made.log_text("shows"))
            self.assertIsNotNone(run["cpuSeconds"])
            # Only a parent learns that this keeper did not end by itself.
            self.assertEqual(made.completed("orphan")["status"], "interrupted")
            # As under nohup(1), where the terminal goes.
            process = made.spawn("run", "waits")
            lock = made.run_dir / "waits.pid"
            wait_until(lambda: lock.read_text().strip(), what="the run")
            process.send_signal(signal.SIGHUP)
            made.script("hup", "now")
            assert process.stdout
            self.assertIn("waits failed: exit 3", process.stdout.read())
            self.assertEqual(process.wait(20), 3)
            process.stdout.close()
            self.assertEqual(made.stop(), 0)

    def signalled(self, number: int) -> tuple[int, str]:
        """Send a signal to `run sleeps`; return its exit status and output."""
        lock = self.server.run_dir / "sleeps.pid"
        if lock.exists():
            lock.write_text("")
        process = self.server.spawn("run", "sleeps")
        assert process.stdout
        # Before the PID stands there, the signal would come before its handler.
        wait_until(lambda: lock.exists() and lock.read_text().strip(), what="the run")
        process.send_signal(number)
        status = process.wait(15)
        output = process.stdout.read()
        process.stdout.close()
        return status, output

    def test_a_limit_of_months_is_no_trouble(self) -> None:
        self.assertEqual(self.call("run", "long-limit").returncode, 0)

    def test_a_registry_that_does_not_hold_is_78(self) -> None:
        with Server(start=False) as made:
            made.registry.write_text('{"a": {}}')
            done = self.main("run", "a", *made.folder_flags())
            self.assert_sentence(done, 78, 'crons.json: "a": description: is required')


@slow
class RunBesideServerTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)

        cls.server.start()

    def running(self) -> Any:
        crons = {c["cronName"]: c for c in self.server.get("/crons").json["crons"]}
        return crons["sleeps"]["running"]

    def test_the_server_knows_of_it_and_refuses_a_second_one(self) -> None:
        process = self.server.spawn("run", "sleeps")
        assert process.stdout
        run = wait_until(
            lambda: (r := self.running()) and r["id"] and r, what="the run"
        )
        self.assertEqual((run["trigger"], run["client"]), ("cli", USER))
        reply = self.server.trigger("sleeps")
        self.assertEqual((reply.status, reply.json["runId"]), (409, run["id"]))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 143)
        process.stdout.close()
        self.assertEqual(self.server.ended(run["id"])["status"], "cancelled")

    @slow
    def test_what_a_run_used_is_known_whoever_records_its_end(self) -> None:
        for _ in range(3):
            self.assertEqual(self.server.command("run", "hello").returncode, 0)
            (run,) = self.server.get("/runs?limit=1").json["runs"]
            self.assertEqual((run["cronName"], run["status"]), ("hello", "completed"))
            self.assertIsNotNone(run["cpuSeconds"])
            self.server.ended(run["id"])  # whose lock the server has had, too

    def test_the_servers_run_keeps_the_command_out_with_75(self) -> None:
        first = self.server.trigger("sleeps").json
        done = self.server.command("run", "sleeps")
        self.assertEqual(done.returncode, 75, done.stderr)
        listed = json.loads(self.server.command("list", "--json").stdout)["crons"]
        states = {cron["cronName"]: cron["running"] for cron in listed}
        self.assertEqual(states["sleeps"]["id"], first["runId"])
        self.assertIsNone(states["hello"])
        table = self.server.command("list").stdout
        self.assertRegex(table, r"(?m)^sleeps +running ")
        self.server.request("POST", f"/runs/{first['runId']}/cancel")
        self.server.ended(first["runId"])


SHOWS: dict[str, Any] = {
    "waits": {
        "description": "Prints, then waits for a file",
        "command": ["sh", "-c", "echo first; while [ ! -e go ]; do sleep 0.01; done"],
    },
    "fails": {"description": "Fails", "command": ["sh", "-c", "seq 1 30; exit 3"]},
    "paints": {
        "description": "Paints",
        "command": ["printf", r"a\033[31mb\tc\303\251\nd\377"],
    },
    "fails-late": {
        "description": "Ignores SIGTERM",
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait"],
        "timeout": "5s",
    },
}


class OutputTest(CommandCase):
    """What `run` shows, and what a mail of cron would say."""

    registry = SHOWS

    def test_nothing_is_shown_of_what_went_well(self) -> None:
        done = self.call("run", "paints")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    @slow
    def test_a_failure_is_a_line_and_the_last_twenty_of_the_output(self) -> None:
        done = self.call("run", "fails")
        first, *lines = done.stderr.splitlines()
        run = self.last_run()
        self.assertRegex(
            first, rf"^cron-trigger-server: run {run['id']} of fails failed: exit 3 a"
        )
        self.assertEqual(lines, [str(number) for number in range(11, 31)])
        self.assertEqual((done.returncode, done.stdout), (3, ""))

    @slow
    def test_a_limit_that_the_script_took_well_is_said_all_the_same(self) -> None:
        done = self.call("run", "fails-late")
        self.assertIn("of fails-late timed_out: exit 0 after", done.stderr)
        self.assertEqual(done.returncode, 0)

    def test_with_output_it_comes_as_it_is_printed(self) -> None:
        process = self.server.spawn("run", "waits", "--output")
        assert process.stdout
        self.assertEqual(process.stdout.readline(), "first\n")
        self.assertIsNone(process.poll())
        (self.server.folder / "go").touch()
        self.assertEqual(process.wait(15), 0)
        self.assertEqual(process.stdout.read(), "")
        process.stdout.close()

    def test_a_reader_that_has_seen_enough_does_not_end_the_run(self) -> None:
        self.assertEqual(self.server.read_by("{} 2>&1 | true", "run fails"), 3)

    @slow
    def test_whoever_reads_it_or_not_the_status_is_the_runs(self) -> None:
        for call in ("run fails", "run fails --output"):
            for reader in READERS:
                with self.subTest(call, reader=reader):
                    self.assertEqual(self.server.read_by(reader, call), 3)
                    self.assertEqual(self.last_run()["exitCode"], 3)

    def test_a_disk_that_is_full_is_said_where_output_was_wanted(self) -> None:
        words = [sys.executable, str(PROGRAM), "run", "fails", "--output"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*words, *self.server.folder_flags()],
                stdout=full,
                stderr=subprocess.PIPE,
                env=self.server.clean_environ(),
                timeout=30,
                check=False,
            )
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"nothing more is shown: No space left on device", done.stderr)

    @slow
    def test_a_history_that_can_not_be_read_for_a_moment_is_asked_again(self) -> None:
        patch = (
            "inner, calls = m.Answers.run, []\n"
            "def run(self, run_id):\n"
            "    calls.append(run_id)\n"
            "    return inner(self, run_id) if len(calls) > 3 else None\n"
            "m.Answers.run = run"
        )
        call = [sys.executable, *patched(patch), "run", "fails"]
        done = subprocess.run(
            [*call, *self.server.folder_flags()],
            capture_output=True,
            env=self.server.clean_environ(),
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 3, done.stderr)

    @slow
    def test_a_pipe_gets_the_bytes_and_a_terminal_sees_them_written_out(self) -> None:
        words = [sys.executable, str(PROGRAM), "run", "paints", "--output"]
        call = [*words, *self.server.folder_flags()]
        environ = self.server.clean_environ()
        piped = subprocess.run(
            call, stdout=subprocess.PIPE, env=environ, timeout=30, check=True
        )
        self.assertEqual(piped.stdout, b"a\x1b[31mb\tc\xc3\xa9\nd\xff")
        main, terminal = pty.openpty()
        call.remove("--output")  # a terminal needs no asking
        subprocess.run(call, stdout=terminal, env=environ, timeout=30, check=True)
        os.close(terminal)
        self.assertEqual(os.read(main, 999).decode(), "a\\x1b[31mb\tcé\r\nd\\xff")
        os.close(main)


class RestartTest(unittest.TestCase):
    """The status that `run` ends with is the one in the history, whoever wrote it."""

    def test_many_runs_while_the_server_is_killed_and_started(self) -> None:
        need_full()
        registry = {
            f"exits-{i}": {
                "description": "?",
                "command": ["sh", "-c", f"sleep 0.0{i}; exit {i}"],
            }
            for i in range(6)
        }
        with Server(registry) as made:
            told: dict[str, list[int]] = {name: [] for name in registry}

            def work(seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(7):
                    name = chance.choice(list(registry))
                    told[name].append(made.command("run", name).returncode)

            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.2)
                made.kill()
                made.start()
            for name, statuses in told.items():
                # Both histories: a row may wait in the second one.
                runs = made.get(f"/runs?cron={name}&limit=500").json["runs"]
                recorded = sorted(run["exitCode"] for run in runs)
                own = sorted(status for status in statuses if status != 75)
                self.assertEqual(own, recorded)


if __name__ == "__main__":
    unittest.main()
