"""The seven shipped crons: their registry, and real runs of each script."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import parse_qs, urlsplit

from support import need_full

TOP = Path(__file__).resolve().parent.parent
SCRIPTS = TOP / "scripts"

# Made for these tests; no private key is kept. They end in 2126 and in 2020.
FAR_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBqTCCAU+gAwIBAgIUMnd+TX+tXp+9WvHW+WRmhKTquF0wCgYIKoZIzj0EAwIw
KTENMAsGA1UECgwEVGVzdDEYMBYGA1UEAwwPZmFyLmV4YW1wbGUub3JnMCAXDTI2
MTEyMzE5NTkyMVoYDzIxMjYxMDMwMTk1OTIxWjApMQ0wCwYDVQQKDARUZXN0MRgw
FgYDVQQDDA9mYXIuZXhhbXBsZS5vcmcwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATIePBstQUmRpJVKI9ka1gFHeMc6TuRydh/RBobAXZvoqNMviAfMU1aWUC+UKf1
KEkxIZCpKD+Nf4w9Y8eoi0f7o1MwUTAdBgNVHQ4EFgQUFABvoH/NNTrm5nAaECLf
9YOBEAgwHwYDVR0jBBgwFoAUFABvoH/NNTrm5nAaECLf9YOBEAgwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAkVeVgc9RZOihS4ILOBrezQw1Pk9f4
K/DMsiKeBH9FoQIhAK5rbYQUxR5jspOPhD77Vseg6QY7TQun5XYhjdkpHDQi
-----END CERTIFICATE-----
"""
EXPIRED_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBIjCBygIBATAKBggqhkjOPQQDAjAeMRwwGgYDVQQDDBNleHBpcmVkLmV4YW1w
bGUub3JnMB4XDTIwMDEwMTAwMDAwMFoXDTIwMDIwMTAwMDAwMFowHjEcMBoGA1UE
AwwTZXhwaXJlZC5leGFtcGxlLm9yZzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BMh48Gy1BSZGklUoj2RrWAUd4xzpO5HJ2H9EGhsBdm+io0y+IB8xTVpZQL5Qp/Uo
STEhkKkoP41/jD1jx6iLR/swCgYIKoZIzj0EAwIDRwAwRAIgcbrlRkg+ApY+HThr
I/j5kZph7xftTzyRjLdtkNTKWOgCICb/ExE66ngEnhCWwQsOjUUBCcWxNvXUmFeT
um6uTrDk
-----END CERTIFICATE-----
"""


class ScriptCase(unittest.TestCase):
    """Runs one script with a clean environment and a folder of its own."""

    script = ""
    scripts = SCRIPTS
    user: Optional[int] = None

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="cron-scripts-")
        self.addCleanup(shutil.rmtree, folder)
        self.folder = Path(folder).resolve()
        # One clean environment: no proxy, no setting of the person who tests.
        self.env = {"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C"}

    def run_script(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [str(self.scripts / self.script), *args],
            user=self.user,
            env={**self.env, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        self.assertNotIn("Traceback", answer.stdout)
        return answer

    def be_an_ordinary_user(self) -> None:
        """Run the script as nobody where this is root, who may read everything."""
        if os.geteuid() != 0:
            return
        self.user, self.scripts = 65534, self.folder / "scripts"
        # A checkout may stand where nobody may look.
        self.scripts.mkdir()
        shutil.copy(SCRIPTS / self.script, self.scripts)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, self.user, self.user)

    def forbid(self, path: Path, mode: int = 0) -> None:
        """Take the rights on a path until the test ends."""
        self.addCleanup(path.chmod, path.stat().st_mode & 0o777)
        path.chmod(mode)

    def expect(self, status: int, text: str, *args: str, **env: str) -> str:
        """Run the script, and expect this exit status and this text in its output."""
        answer = self.run_script(*args, **env)
        self.assertEqual(answer.returncode, status, answer.stdout)
        self.assertIn(text, answer.stdout)
        return answer.stdout

    def write(self, name: str, contents: str | bytes, age_days: float = 0) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        then = time.time() - age_days * 86_400
        os.utime(path, (then, then))
        return path

    def command_on_path(self, name: str, body: str) -> None:
        """Put a program of this name before all others."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{body}\n").chmod(0o755)
        self.env["PATH"] = f"{self.folder / 'bin'}:{os.environ['PATH']}"


# Not a TestCase itself, or it would be run without a script.
if TYPE_CHECKING:
    Mixin = ScriptCase
else:
    Mixin = object


class OutputTests(Mixin):
    """What holds for each script in Python, whatever its output leads to.

    Each test makes a run that ends with 0 where all is well with its output.
    """

    def setUp(self) -> None:
        need_full()
        super().setUp()

    def run_into(self, output: Any) -> None:
        """Expect success, and no word, of a run with this standard output."""
        answer = subprocess.run(
            [str(self.scripts / self.script)],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))

    def test_a_full_disk_under_its_output_does_not_stop_it(self) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            self.run_into(full)

    def test_a_reader_that_has_left_does_not_stop_it(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe:
            self.run_into(pipe)

    def test_a_pipe_that_is_full_and_does_not_block_does_not_stop_it(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        with open(writer, "wb", buffering=0) as pipe:
            while pipe.write(b"x" * 65_536):
                pass
            self.run_into(pipe)

    def test_closed_outputs_do_not_stop_it_nor_change_its_exit_status(self) -> None:
        for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
            for args, status in (("", 0), (" a b c", 64)):
                command = f"exec ./{self.script}{args} {closed}"
                answer = subprocess.run(
                    ["sh", "-c", f"cd {self.scripts} && {command}"],
                    env=self.env,
                    capture_output=True,
                    timeout=30,
                    check=False,
                )
                self.assertEqual(answer.returncode, status, (command, answer.stderr))
                self.assertNotIn(b"Traceback", answer.stderr)

    def test_what_is_not_utf_8_in_a_setting_is_no_traceback(self) -> None:
        header = (SCRIPTS / self.script).read_text("utf-8").split('"""')[1]
        names = re.findall(r"^  ([A-Z]+_[A-Z_]+)  ", header, re.M)
        self.assertTrue(names)
        for name in names:
            answer = self.run_script(**{name: os.fsdecode(b"\xff")})
            self.assertIn(answer.returncode, (0, 1, 78), (name, answer.stdout))
            if answer.returncode == 78:
                self.assertIn(name, answer.stdout)
            self.assertNotIn("lost sys.stderr", answer.stdout)


class RegistryTest(unittest.TestCase):
    KEYS = frozenset(
        ["description", "command", "logFile", "estimatedDuration", "timeout"]
        + ["workingDirectory", "environment", "parameters"]
    )

    def setUp(self) -> None:
        self.crons = json.loads((TOP / "crons.json").read_text("utf-8"))

    def argv(self, name: str) -> list[str]:
        command = self.crons[name]["command"]
        return [command] if isinstance(command, str) else list(command)

    def test_there_are_seven_crons_with_the_keys_of_the_contract_only(self) -> None:
        self.assertEqual(len(self.crons), 7)
        for name, entry in self.crons.items():
            self.assertRegex(name, r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
            self.assertLessEqual(set(entry), self.KEYS)
            self.assertTrue(entry["description"])

    def test_the_names_that_a_dashboard_relies_on_are_there(self) -> None:
        self.assertEqual(
            self.crons["monitor-openai"]["description"], "Monitoring Budget OpenAI"
        )
        alerts = self.crons["check-alerts"]
        self.assertEqual(alerts["description"], "Vérification Alertes Système")
        self.assertEqual(alerts["estimatedDuration"], "2s")
        index = self.crons["index-kb-progressive"]
        self.assertEqual(index["estimatedDuration"], "45s")
        self.assertEqual(index["logFile"], "index-kb.log")

    def test_every_script_is_there_runnable_and_used(self) -> None:
        used = {TOP / self.argv(name)[0] for name in self.crons}
        self.assertEqual(used, set(SCRIPTS.glob("[a-z]*")))
        for script in used:
            self.assertTrue(os.access(script, os.X_OK), script)

    def test_every_parameter_reaches_its_script(self) -> None:
        for name, entry in self.crons.items():
            command, *rest = self.argv(name)
            parameters = entry.get("parameters", {})
            placeholders = set(re.findall(r"\{(\w+)\}", " ".join(rest)))
            self.assertLessEqual(placeholders, set(parameters))
            for parameter in set(parameters) - placeholders:
                variable = f"CRON_PARAM_{parameter.upper()}"
                self.assertIn(variable, (TOP / command).read_text("utf-8"))

    def test_every_setting_that_a_script_reads_stands_in_its_header(self) -> None:
        for script in SCRIPTS.glob("*.py"):
            text = script.read_text("utf-8")
            header = text.split('"""')[1]
            own = "OPENAI|ALERT|KB|CERT|LOGS|BACKUP|CRON_PARAM"
            for setting in re.findall(rf'"((?:{own})_[A-Z_]+)"', text):
                self.assertIn(setting, header, script.name)

    def test_a_wrong_call_of_any_script_is_exit_64_and_one_line(self) -> None:
        need_full()
        for script in SCRIPTS.glob("[a-z]*"):
            answer = subprocess.run(
                [str(script), "a", "b", "c"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=30,
                check=False,
            )
            self.assertEqual(answer.returncode, 64, script.name)
            self.assertEqual(answer.stdout.count("\n"), 1, answer.stdout)


class FakeOpenAI(ThreadingHTTPServer):
    """Answers the costs endpoint on loopback, page after page."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeOpenAIHandler)
        self.pages: list[Any] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.queries: list[dict[str, list[str]]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class FakeOpenAIHandler(BaseHTTPRequestHandler):
    server: FakeOpenAI

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.paths.append(parts.path)
        self.server.queries.append(parse_qs(parts.query))
        self.server.keys.append(self.headers.get("Authorization", ""))
        number = min(len(self.server.paths), len(self.server.pages)) - 1
        page = self.server.pages[number] if self.server.pages else ""
        body = page if isinstance(page, str) else json.dumps(page)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        pass


def costs(*values: object, next_page: str | None = None) -> dict[str, Any]:
    """Return a page as OpenAI's reference shows it, one day per value."""
    results = [
        {
            "object": "organization.costs.result",
            "amount": {"value": v, "currency": "usd"},
        }
        for v in values
    ]
    buckets = [{"object": "bucket", "results": [result]} for result in results]
    more = next_page is not None
    return {"object": "page", "data": buckets, "has_more": more, "next_page": next_page}


def month_start() -> int:
    now = datetime.now(timezone.utc)
    return int(now.replace(day=1, hour=0, minute=0, second=0).timestamp())


class MonitorOpenAITest(OutputTests, ScriptCase):
    script = "monitor-openai.py"
    KEY = "sk-admin-not-a-real-key"

    def setUp(self) -> None:
        super().setUp()
        self.openai = self.fake()
        self.openai.pages = [costs(1)]
        self.env.update(OPENAI_BASE_URL=self.openai.url, OPENAI_ADMIN_KEY=self.KEY)

    def fake(self) -> FakeOpenAI:
        server = FakeOpenAI()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return server

    def test_costs_within_the_budget_of_all_pages_are_added_and_are_exit_0(
        self,
    ) -> None:
        self.openai.pages = [costs(1.25, "2.50", next_page="page_2"), costs(3)]
        output = self.expect(0, "OK", OPENAI_MONTHLY_BUDGET_USD="10")
        self.assertIn("6.75 USD", output)
        self.assertIn("il reste 3.25 USD", output)

    def test_the_request_is_the_one_of_openais_reference(self) -> None:
        self.openai.pages = [costs(next_page="page_2"), costs()]
        before = month_start()
        self.expect(0, "OK")
        first, second = self.openai.queries
        self.assertEqual(self.openai.paths, ["/v1/organization/costs"] * 2)
        self.assertIn(int(first["start_time"][0]), (before, month_start()))
        self.assertEqual(first["bucket_width"], ["1d"])
        self.assertTrue(1 <= int(first["limit"][0]) <= 180)
        self.assertNotIn("page", first)
        self.assertEqual(second["page"], ["page_2"])
        self.assertEqual(self.openai.keys, [f"Bearer {self.KEY}"] * 2)

    def test_costs_above_the_budget_are_exit_1_and_say_by_how_much(self) -> None:
        self.openai.pages = [costs(10.5)]
        self.expect(1, "dépassé de 0.50 USD", OPENAI_MONTHLY_BUDGET_USD="10")

    def test_a_budget_given_for_the_run_wins_over_the_setting(self) -> None:
        self.openai.pages = [costs(10.5)]
        env = {"OPENAI_MONTHLY_BUDGET_USD": "100", "CRON_PARAM_BUDGET": "10"}
        self.expect(1, "dépassé", **env)

    def test_without_a_key_one_sentence_and_exit_78(self) -> None:
        output = self.expect(78, "OPENAI_ADMIN_KEY", OPENAI_ADMIN_KEY="")
        self.assertEqual(output.count("\n"), 1)
        self.assertEqual(self.openai.paths, [])

    def test_a_refused_key_is_exit_78_and_never_shown(self) -> None:
        self.openai.status, self.openai.pages = 401, [f"Incorrect key {self.KEY}"]
        self.assertNotIn(self.KEY, self.expect(78, "HTTP 401"))

    def test_a_malformed_key_is_exit_78_and_never_shown(self) -> None:
        output = self.expect(78, "OPENAI_ADMIN_KEY", OPENAI_ADMIN_KEY="sk-secret\nX: y")
        self.assertNotIn("sk-secret", output)

    def test_a_redirect_does_not_carry_the_key_to_another_host(self) -> None:
        elsewhere = self.fake()
        self.openai.status, self.openai.pages = 302, [""]
        self.openai.headers["Location"] = elsewhere.url
        self.expect(1, "HTTP 302")
        self.assertEqual(elsewhere.keys, [])

    def test_the_key_never_travels_over_plain_http_to_another_host(self) -> None:
        self.expect(78, "https://", OPENAI_BASE_URL="http://api.example.org/v1")

    def test_an_address_that_no_host_can_have_is_exit_78(self) -> None:
        need_full()
        urls = ["https://a..b/", "https://a%2e.b/", "https://[::1", "https://a:x/"]
        for url in [*urls, f"https://{'a' * 64}/", "https://u:p@h/", "https:///v1"]:
            self.expect(78, "OPENAI_BASE_URL", OPENAI_BASE_URL=url)

    def test_a_bad_budget_is_exit_78(self) -> None:
        need_full()
        budgets = ["abc", "-1", "0", "nan", "inf", "1e-999999", "1e999999"]
        for budget in [*budgets, os.fsdecode(b"\xff")]:
            self.expect(78, "montant positif", OPENAI_MONTHLY_BUDGET_USD=budget)

    def test_an_answer_of_another_shape_is_exit_1_and_a_sentence(self) -> None:
        need_full()
        euros = {"amount": {"value": 1, "currency": "eur"}}
        for page, text in (
            ("<html>", "JSON"),
            ([], "forme attendue"),
            ({"data": [{"results": [{"amount": None}]}]}, "forme attendue"),
            (costs("NaN"), "forme attendue"),
            ({"data": [{"results": [euros]}]}, "dollar"),
        ):
            self.openai.pages = [page]
            self.expect(1, text)

    def test_an_answer_without_end_is_given_up(self) -> None:
        self.openai.pages = [costs(1, next_page="again")]
        self.expect(1, "ne finit pas")

    def test_a_server_that_is_not_there_is_exit_1_and_a_remedy(self) -> None:
        with socket.socket() as unused:  # bound, but nobody listens
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            self.expect(1, "vérifiez le réseau", OPENAI_BASE_URL=url)


class CheckAlertsTest(OutputTests, ScriptCase):
    script = "check-alerts.py"

    def setUp(self) -> None:
        super().setUp()
        self.kernel_says()
        self.command_on_path("systemctl", "exit 0")
        # The disk under the tests may be as full as it likes.
        self.env.update(ALERT_DISK_PERCENT="100", ALERT_INODE_PERCENT="100")

    def kernel_says(
        self, available_kib: int = 900, load: float = 0, mounts: str = "d / ext4 rw 0 0"
    ) -> None:
        memory = f"MemTotal: 1000 kB\nMemAvailable: {available_kib} kB\n"
        self.write("proc/meminfo", memory)
        self.write("proc/loadavg", f"0.00 {load:.2f} 0.00 1/100 4242\n")
        self.write("proc/self/mounts", mounts + "\n")
        self.env["ALERT_PROC_DIR"] = str(self.folder / "proc")

    def test_a_healthy_host_is_exit_0(self) -> None:
        self.expect(0, "Tout va bien")

    def test_the_real_proc_is_read_without_any_setting(self) -> None:
        env = {"ALERT_MEMORY_PERCENT": "100", "ALERT_LOAD_PER_CORE": "1000"}
        output = self.expect(0, "Mémoire", ALERT_PROC_DIR="", **env)
        self.assertIn("Charge (5 min)", output)

    def test_little_memory_is_an_alert_and_exit_1(self) -> None:
        self.kernel_says(available_kib=50)
        self.expect(1, "ALERTE  Mémoire : 95 %")

    def test_a_high_load_per_core_is_an_alert_and_exit_1(self) -> None:
        self.kernel_says(load=3.0 * (os.cpu_count() or 1))
        self.expect(1, "ALERTE  Charge (5 min) : 3.00 par cœur")

    def test_a_disk_at_its_threshold_is_an_alert_and_exit_1(self) -> None:
        self.expect(1, "ALERTE  Disque /", ALERT_DISK_PERCENT="0")

    def test_only_writable_local_file_systems_count_each_once(self) -> None:
        spaced = self.folder / "with space"
        spaced.mkdir()
        where = str(spaced).replace(" ", "\\040")
        lines = [
            f"d {where} ext4 rw 0 0",
            f"d {self.folder}/with\\040space/../proc ext4 rw 0 0",
            "server:/x /proc nfs4 rw 0 0",
            "d /dev ext4 ro,noatime 0 0",
        ]
        self.kernel_says(mounts="\n".join(lines))
        output = self.expect(0, f"Disque {spaced} :")
        self.assertEqual(len(set(re.findall("Disque (.*?) :", output))), 1, output)

    def test_failed_units_are_an_alert_and_are_named(self) -> None:
        self.command_on_path(
            "systemctl", "echo 'nginx.service loaded failed failed A web server'"
        )
        self.expect(1, "1 en échec (nginx.service)")

    def test_without_systemd_the_units_are_skipped_and_that_is_said(self) -> None:
        self.command_on_path("systemctl", "exit 1")
        self.expect(0, "non vérifiées")

    def test_a_bad_threshold_is_exit_78_and_names_the_setting(self) -> None:
        for value in ("abc", "-1", "101", "nan", os.fsdecode(b"\xff")):
            self.expect(78, "ALERT_MEMORY_PERCENT", ALERT_MEMORY_PERCENT=value)

    def test_a_folder_without_the_kernels_figures_is_exit_78_and_its_setting(
        self,
    ) -> None:
        for folder in ("/nonexistent", "/etc/passwd", os.fsdecode(b"/\xff")):
            self.expect(78, "ALERT_PROC_DIR", ALERT_PROC_DIR=folder)
        for file in ("meminfo", "loadavg"):
            self.kernel_says()
            self.write(f"proc/{file}", "")
            self.expect(78, "ALERT_PROC_DIR")


class IndexKbTest(OutputTests, ScriptCase):
    script = "index-kb-progressive.py"

    def setUp(self) -> None:
        super().setUp()
        self.index = self.folder / "state" / "kb.db"
        (self.folder / "kb").mkdir()
        self.env.update(KB_DIR=str(self.folder / "kb"), KB_INDEX=str(self.index))

    def found(self, word: str) -> list[str]:
        """Search as the script's last line says."""
        db = sqlite3.connect(self.index)
        rows = db.execute(
            "select path from documents join pages on pages.rowid = documents.id"
            " where pages match ? order by path",
            (word,),
        ).fetchall()
        db.close()
        return [row[0] for row in rows]

    def test_texts_zipped_texts_and_pages_can_be_searched(self) -> None:
        self.write("kb/net/dns.txt", "Le résolveur répond")
        self.write("kb/net/dhcp.md.gz", gzip.compress("Résolveur et bail".encode()))
        self.write("kb/page.html", "<p class=bail>R&eacute;solveur</p>")
        self.expect(0, "Indexés : 3")
        self.assertEqual(
            self.found("resolveur"), ["net/dhcp.md.gz", "net/dns.txt", "page.html"]
        )
        self.assertEqual(self.found("bail"), ["net/dhcp.md.gz"])

    def test_a_run_indexes_as_many_as_asked_and_the_next_goes_on(self) -> None:
        for number in range(5):
            self.write(f"kb/{number}.txt", "alpha")
        self.expect(0, "Il en reste 3", "2")
        self.assertEqual(len(self.found("alpha")), 2)
        self.expect(0, "à jour", "3")
        self.assertEqual(len(self.found("alpha")), 5)

    def test_only_new_changed_and_removed_documents_make_work(self) -> None:
        self.write("kb/same.txt", "alpha")
        self.write("kb/gone.txt", "alpha")
        changed = self.write("kb/changed.txt", "alpha")
        self.expect(0, "Indexés : 3")
        changed.write_text("beta now")
        (self.folder / "kb/gone.txt").unlink()
        self.expect(0, "Indexés : 1, sans texte : 0, retirés : 1")
        self.assertEqual(self.found("alpha"), ["same.txt"])
        self.assertEqual(self.found("beta"), ["changed.txt"])

    def test_a_category_is_a_subfolder_and_leaves_the_others_alone(self) -> None:
        self.write("kb/net/a.txt", "alpha")
        self.write("kb/disk/b.txt", "alpha")
        self.expect(0, "Indexés : 1", "10", "disk")
        self.assertEqual(self.found("alpha"), ["disk/b.txt"])
        self.expect(0, "retirés : 0", "10", "net")
        self.assertEqual(self.found("alpha"), ["disk/b.txt", "net/a.txt"])
        self.expect(64, "inconnue", "10", "nowhere")

    def test_killed_in_the_middle_it_goes_on_where_it_stopped(self) -> None:
        # Long names: the unread pipe is full, and the script stuck, long before the
        # last document. So the kill finds it in the middle.
        total = 500
        for number in range(total):
            self.write(f"kb/{number:04}{'x' * 200}.txt", "alpha")
        with subprocess.Popen(
            [str(SCRIPTS / self.script), str(total)],
            env={**self.env, "KB_BATCH": "1"},
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if b" 20/" in line:
                    break
            child.kill()
        self.assertEqual(child.returncode, -signal.SIGKILL)
        before = len(self.found("alpha"))
        self.assertTrue(20 <= before < total, before)
        self.expect(0, f"Indexés : {total - before},", str(total))
        self.assertEqual(len(self.found("alpha")), total)

    def test_a_link_or_a_fifo_or_a_hidden_file_is_not_read(self) -> None:
        secret = self.write("secret.txt", "alpha")
        self.write("elsewhere/x.txt", "alpha")
        self.write("kb/.hidden", "alpha")
        self.write("kb/plain.txt", "alpha")
        (self.folder / "kb/link.txt").symlink_to(secret)
        (self.folder / "kb/folder").symlink_to(self.folder / "elsewhere")
        os.mkfifo(self.folder / "kb/fifo.txt")
        self.expect(0, "1 fichiers, dont 1 nouveaux")
        self.assertEqual(self.found("alpha"), ["plain.txt"])
        self.expect(64, "lien symbolique", "10", "folder")

    def test_what_is_no_text_is_left_out_and_not_read_again(self) -> None:
        self.write("kb/picture", b"alpha\0\1\2")
        self.write("kb/broken.gz", b"alpha")
        self.write("kb/bomb.gz", gzip.compress(b"a" * 3_000_000))
        self.expect(0, "Indexés : 0, sans texte : 3")
        self.expect(0, "dont 0 nouveaux")

    def test_an_emptied_folder_does_not_empty_the_index(self) -> None:
        self.write("kb/a.txt", "alpha")
        self.expect(0, "à jour")
        (self.folder / "kb/a.txt").unlink()
        self.expect(1, "monté")
        self.assertEqual(self.found("alpha"), ["a.txt"])

    def test_the_index_of_another_folder_is_not_touched(self) -> None:
        self.write("kb/a.txt", "alpha")
        self.expect(0, "à jour")
        self.expect(78, "KB_INDEX", KB_DIR=str(self.folder))
        self.assertEqual(self.found("alpha"), ["a.txt"])

    def test_wrong_arguments_and_settings_are_refused(self) -> None:
        need_full()
        for documents in ("0", "x", "-1", "1000000"):
            self.expect(64, "DOCUMENTS", documents)
        for category in ("../x", "..", "net/dns"):
            self.expect(64, "sans « / »", "10", category)
        self.expect(78, "KB_DIR", KB_DIR="/nonexistent")
        self.expect(78, "KB_BATCH", KB_BATCH="0")

    def test_an_index_where_none_can_be_is_exit_78_and_names_the_setting(self) -> None:
        for file in ("/proc/x/kb.db", "/etc/passwd/kb.db", str(self.folder)):
            self.expect(78, f"KB_INDEX vaut « {file} »", KB_INDEX=file)

    def test_a_folder_whose_name_is_not_utf_8_is_exit_78(self) -> None:
        folder = os.fsdecode(os.fsencode(self.folder) + b"/\xff")
        os.mkdir(folder)
        self.expect(78, "KB_DIR", KB_DIR=folder)
        self.expect(0, "à jour", KB_INDEX=f"{folder}/kb.db")

    def test_an_unreadable_folder_is_exit_78_and_keeps_the_index(self) -> None:
        self.write("kb/net/a.txt", "alpha")
        self.be_an_ordinary_user()
        fresh = {"KB_INDEX": str(self.folder / "fresh.db")}
        self.expect(0, "à jour")
        for mode in (0, 0o400):  # the second one gives the names and no more
            self.forbid(self.folder / "kb", mode)
            self.expect(78, "KB_DIR")
            self.expect(78, "KB_DIR", **fresh)
        self.assertEqual(self.found("alpha"), ["net/a.txt"])

    def test_below_an_unreadable_folder_nothing_is_forgotten(self) -> None:
        self.write("kb/net/a.txt", "alpha")
        self.write("kb/b.txt", "alpha")
        self.be_an_ordinary_user()
        self.expect(0, "à jour")
        for mode in (0, 0o400):
            self.forbid(self.folder / "kb/net", mode)
            self.expect(0, "Illisible, laissé de côté : net")
            self.expect(78, "KB_DIR", "10", "net")
        self.assertEqual(self.found("alpha"), ["b.txt", "net/a.txt"])

    def test_a_file_that_is_no_index_is_a_sentence(self) -> None:
        self.write("state/kb.db", "this is not SQLite, " * 100)
        self.expect(1, "SQLite refuse")

    def test_without_settings_it_indexes_the_hosts_own_documents(self) -> None:
        home = {"XDG_STATE_HOME": str(self.folder / "home")}
        self.expect(0, "Documents : /usr/share", "3", KB_DIR="", **home)


class CheckCertificatesTest(OutputTests, ScriptCase):
    script = "check-certificates.py"

    def setUp(self) -> None:
        super().setUp()
        self.env["CERT_PATHS"] = str(self.folder / "tls")
        (self.folder / "tls").mkdir()

    def test_a_certificate_with_time_left_is_exit_0(self) -> None:
        self.write("tls/site/far.pem", FAR_CERTIFICATE)
        self.expect(0, "far.example.org : expire le 30/10/2126")

    def test_an_expired_certificate_is_exit_1(self) -> None:
        self.write("tls/old.crt", FAR_CERTIFICATE + EXPIRED_CERTIFICATE)
        output = self.expect(
            1, "EXPIRÉ   expired.example.org : expire depuis le 01/02/2020"
        )
        self.assertIn("1 certificat(s) à renouveler ou à vérifier, sur 2", output)

    def test_the_binary_form_is_read_too(self) -> None:
        self.write("tls/old.der", ssl.PEM_cert_to_DER_cert(EXPIRED_CERTIFICATE))
        self.expect(1, "expired.example.org")

    def test_one_certificate_behind_two_names_is_said_once(self) -> None:
        file = self.write("archive/far1.pem", FAR_CERTIFICATE)
        (self.folder / "tls/cert.pem").symlink_to(file)
        (self.folder / "tls/fullchain.pem").symlink_to(file)
        self.expect(0, "1 certificat(s)")

    def test_keys_lists_of_authorities_and_broken_files_are_passed_over(self) -> None:
        self.write("tls/bundle.pem", EXPIRED_CERTIFICATE * 11)
        self.write("tls/cut.der", ssl.PEM_cert_to_DER_cert(EXPIRED_CERTIFICATE)[:90])
        self.write("tls/odd.pem", EXPIRED_CERTIFICATE.replace("MIIBIjCB", "MIIBIjCA"))
        self.write("tls/key.pem", "-----BEGIN CERTIFICATE-----\n")
        self.write("tls/junk.der", b"\x30\x84\xff\xff\xff\xff0")
        os.mkfifo(self.folder / "tls/fifo.pem")
        self.expect(0, "Aucun certificat trouvé")

    def test_without_settings_the_usual_places_are_looked_at(self) -> None:
        answer = self.run_script(CERT_PATHS="")
        self.assertIn(answer.returncode, (0, 1), answer.stdout)

    def test_a_path_that_is_not_there_is_exit_78(self) -> None:
        need_full()
        self.write("tls/far.pem", FAR_CERTIFICATE)
        tls = f"{self.folder}/tls"
        for paths in ("/nope", f"{tls}:/nope", f"{tls}/far.pem/x", ":"):
            self.expect(78, "CERT_PATHS", CERT_PATHS=paths)
        self.expect(0, "Tout va bien", CERT_PATHS=f":{tls}:{tls}/far.pem")

    def test_what_cannot_be_read_is_counted_and_is_exit_1(self) -> None:
        self.write("tls/far.pem", FAR_CERTIFICATE)
        self.write("tls/inner/old.pem", EXPIRED_CERTIFICATE)
        self.be_an_ordinary_user()
        for name in ("tls/far.pem", "tls/inner", "tls"):
            self.forbid(self.folder / name)
            output = self.expect(1, f"ILLISIBLE {self.folder / name} (")
            self.assertIn("endroit(s) illisible(s)", output)
            self.assertNotIn("Tout va bien", output)
        for name in ("tls/far.pem", "tls/inner"):  # below what can't be looked into
            path = str(self.folder / name)
            self.expect(1, f"ILLISIBLE {path} (", CERT_PATHS=path)

    def test_a_dangling_link_and_a_socket_are_passed_over(self) -> None:
        self.write("tls/far.pem", FAR_CERTIFICATE)
        (self.folder / "tls/gone.pem").symlink_to(self.folder / "gone")
        (self.folder / "tls/cut.pem").symlink_to(self.folder / "tls/far.pem/x")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.folder / "tls/socket.pem"))
            self.expect(0, "Tout va bien : 1 certificat(s)")

    def usual_places(self, *names: str) -> None:
        """Run a copy of the script that takes these for the usual places."""
        ours = "DEFAULT_PATHS = " + repr(":".join(f"{self.folder}/{n}" for n in names))
        text = (SCRIPTS / self.script).read_text("utf-8")
        text = re.sub(r"DEFAULT_PATHS = \(.*?\n\)", ours, text, flags=re.S)
        self.be_an_ordinary_user()
        self.scripts = self.folder / "own"
        self.write(f"own/{self.script}", text).chmod(0o755)
        self.env["CERT_PATHS"] = ""

    def test_of_the_usual_places_some_may_be_unreadable_but_not_all(self) -> None:
        self.write("tls/far.pem", FAR_CERTIFICATE)
        self.write("private/key.pem", "")
        self.usual_places("tls", "private", "missing")
        self.forbid(self.folder / "private")
        output = self.expect(0, f"ILLISIBLE {self.folder}/private (")
        self.assertIn("Le reste va bien : 1 certificat(s)", output)
        self.forbid(self.folder / "tls")
        self.expect(1, "Aucun certificat trouvé")

    def test_a_bad_setting_is_exit_78(self) -> None:
        need_full()
        self.expect(78, "CRON_PARAM_DAYS", CRON_PARAM_DAYS="soon")
        hosts = ["example.org", "example.org:x", ":443", "example.org:65536"]
        for host in [*hosts, "a..b:443", os.fsdecode(b"\xff:443")]:
            self.expect(78, "HÔTE:PORT", CERT_HOSTS=host)

    def test_a_server_that_is_not_there_is_an_alert(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{unused.getsockname()[1]}"
            self.expect(1, "ERREUR", CERT_HOSTS=host)

    def test_what_a_server_presents_is_judged_by_the_days_left(self) -> None:
        host = self.tls_server(days=20)
        self.expect(1, "BIENTÔT  short.example.org : expire dans 19", CERT_HOSTS=host)
        self.expect(0, "OK", CERT_HOSTS=host, CERT_DAYS="10")
        self.expect(1, "BIENTÔT", CERT_HOSTS=host, CERT_DAYS="10", CRON_PARAM_DAYS="25")

    def tls_server(self, days: int) -> str:
        if not shutil.which("openssl"):
            message = "openssl is needed to make a certificate"
            if os.environ.get("CRON_TRIGGER_TEST_NO_SKIP") == "1":
                self.fail(message)
            self.skipTest(message)
        key, cert = str(self.folder / "key"), str(self.folder / "cert")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
            + ["-keyout", key, "-out", cert, "-subj", "/CN=short.example.org"]
            + ["-days", str(days)],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        server = ThreadingHTTPServer(("127.0.0.1", 0), FakeOpenAIHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"127.0.0.1:{server.server_address[1]}"


class LargestFoldersTest(ScriptCase):
    script = "largest-folders.sh"

    def setUp(self) -> None:
        super().setUp()
        self.write("data/big/deep/file", os.urandom(3 * 1024 * 1024))
        self.write("data/small/file", os.urandom(64 * 1024))

    def shown(self, output: str) -> list[str]:
        return re.findall(r"^ +[0-9.]+ [KMG]io  (.*)$", output, re.M)

    def test_the_largest_stands_first_with_all_that_it_contains(self) -> None:
        data = f"{self.folder}/data"
        output = self.expect(0, "3.0 Mio", data)
        self.assertEqual(self.shown(output)[-1], f"{data}/small")
        self.assertCountEqual(
            self.shown(output),
            [data, f"{data}/big", f"{data}/big/deep", f"{data}/small"],
        )

    def test_no_more_folders_are_shown_than_asked(self) -> None:
        output = self.expect(0, "Mio", f"{self.folder}/data", "2")
        self.assertEqual(len(self.shown(output)), 2)

    def test_depth_is_bounded_by_its_setting(self) -> None:
        output = self.expect(0, "", f"{self.folder}/data", LARGEST_FOLDERS_DEPTH="1")
        self.assertNotIn("deep", output)

    def test_hostile_names_are_data_and_shown_without_control_characters(self) -> None:
        self.write("data/$(touch owned);\x1b[31m/file", "x")
        self.write("-rf/file", "x")
        output = self.expect(0, "$(touch owned);?[31m", str(self.folder))
        self.assertNotIn("\x1b", output)
        self.assertFalse((self.folder / "owned").exists())

    def test_wrong_arguments_are_refused(self) -> None:
        for args in (["var"], ["/nonexistent"], ["/", "0"], ["/", "x"], ["/", "1001"]):
            self.expect(64, "largest-folders : ", *args)
        self.expect(78, "DEPTH", "/", LARGEST_FOLDERS_DEPTH="0")


class CleanRotatedLogsTest(OutputTests, ScriptCase):
    script = "clean-rotated-logs.py"

    def setUp(self) -> None:
        super().setUp()
        self.env["LOGS_DIR"] = str(self.folder / "log")
        (self.folder / "log").mkdir()

    def test_old_rotated_logs_are_deleted_whatever_their_form(self) -> None:
        names = ["syslog.1", "syslog.2.gz", "nginx/access.log.10.xz", "cron-20250131"]
        names += ["mail.log-20250131.gz", "app-20250131.log", "x-20250131-07.zst"]
        files = [self.write(f"log/{name}", "x", age_days=100) for name in names]
        self.expect(0, f"{len(files)} fichier(s) supprimé(s)")
        self.assertEqual([file for file in files if file.exists()], [])

    def test_everything_else_stays(self) -> None:
        names = ["syslog", "a.log", "b.gz", "dump.sql", "v-12345678", "c.1.bak", ".1"]
        names += ["journal/system.1", "audit/audit.log.1", "installer/x.1.gz", "d.1234"]
        files = [self.write(f"log/{name}", "x", age_days=1000) for name in names]
        files.append(self.write("log/young.log.1", "x", age_days=89))
        self.expect(0, "0 fichier(s) supprimé(s)")
        self.assertEqual([file for file in files if not file.exists()], [])

    def test_links_are_neither_followed_nor_deleted(self) -> None:
        outside = self.write("outside/kept.log.1", "x", age_days=1000)
        (self.folder / "log/linked").symlink_to(outside.parent)
        link = self.folder / "log/link.log.1"
        link.symlink_to(outside)
        os.utime(link, (0, 0), follow_symlinks=False)
        self.expect(0, "0 fichier(s) supprimé(s)")
        self.assertTrue(outside.exists())
        self.assertTrue(link.is_symlink())

    def test_days_can_be_set_and_given_for_one_run(self) -> None:
        file = self.write("log/a.log.1", "x", age_days=20)
        env = {"LOGS_KEEP_DAYS": "30"}
        self.expect(0, "0 fichier(s)", **env)
        self.expect(0, "1 fichier(s)", CRON_PARAM_DAYS="10", **env)
        self.assertFalse(file.exists())

    def test_a_simulation_deletes_nothing(self) -> None:
        file = self.write("log/a.log.1", "x", age_days=100)
        self.expect(0, f"À supprimer : {file}", CRON_PARAM_SIMULATE="true")
        self.assertTrue(file.exists())

    def test_a_setting_that_does_not_hold_deletes_nothing(self) -> None:
        file = self.write("log/a.log.1", "x", age_days=100)
        self.expect(78, "CRON_PARAM_SIMULATE", CRON_PARAM_SIMULATE="oui")
        self.expect(78, "LOGS_KEEP_DAYS", LOGS_KEEP_DAYS="0")
        self.expect(78, "trop large", LOGS_DIR="/", CRON_PARAM_SIMULATE="true")
        self.expect(78, "trop large", LOGS_DIR="/etc/", CRON_PARAM_SIMULATE="true")
        self.expect(78, "chemin absolu", LOGS_DIR="log")
        self.assertTrue(file.exists())

    def test_on_a_full_disk_it_deletes_all_the_same(self) -> None:
        files = [self.write(f"log/{n}.log.1", "x", age_days=100) for n in range(300)]
        with open("/dev/full", "wb", buffering=0) as full:
            self.run_into(full)
        self.assertEqual([file for file in files if file.exists()], [])

    def test_an_unreadable_folder_is_exit_78(self) -> None:
        self.be_an_ordinary_user()
        self.forbid(self.folder / "log")
        self.expect(78, "LOGS_DIR")

    def test_what_could_not_be_deleted_is_exit_1_whatever_the_output(self) -> None:
        self.write("log/a.log.1", "x", age_days=100)
        self.be_an_ordinary_user()
        self.forbid(self.folder / "log", 0o500)
        self.expect(1, "Gardé")
        command = f"exec {self.scripts / self.script} >/dev/full"
        answer = subprocess.run(
            ["sh", "-c", command], env=self.env, user=self.user, check=False
        )
        self.assertEqual(answer.returncode, 1)

    def test_without_settings_it_looks_at_the_hosts_logs(self) -> None:
        self.expect(0, "sous /var/log", LOGS_DIR="", CRON_PARAM_SIMULATE="true")


class BackupDatabasesTest(OutputTests, ScriptCase):
    script = "backup-databases.py"

    def setUp(self) -> None:
        super().setUp()
        self.backups = self.folder / "backups"
        self.source = self.folder / "app data" / "shop.db"
        self.source.parent.mkdir()
        self.database = sqlite3.connect(self.source)
        self.addCleanup(self.database.close)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("create table orders (id integer)")
        self.database.execute("insert into orders values (42)")
        self.database.commit()
        self.env.update(BACKUP_DIR=str(self.backups), BACKUP_SQLITE=str(self.source))

    def saved(self) -> list[Path]:
        return sorted(self.backups.iterdir())

    def test_a_database_in_use_is_saved_whole_and_can_be_read_back(self) -> None:
        self.database.execute("insert into orders values (43)")  # not committed
        self.expect(0, "1 base(s) sauvegardée(s)")
        (backup,) = self.saved()
        copy = self.write("copy.db", gzip.decompress(backup.read_bytes()))
        restored = sqlite3.connect(copy)
        rows = restored.execute("select id from orders").fetchall()
        restored.close()
        self.assertEqual(rows, [(42,)])

    def test_nobody_else_may_read_a_backup(self) -> None:
        self.expect(0, "OK")
        self.assertEqual(self.backups.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.saved()[0].stat().st_mode & 0o777, 0o600)

    def test_only_the_oldest_backups_of_this_database_are_deleted(self) -> None:
        self.expect(0, "OK")
        name = re.sub(r"\..{16}\.gz$", "", self.saved()[0].name)
        old = [f"{name}.2025010{day}T000000Z.gz" for day in range(1, 5)]
        others = ["other.20250101T000000Z.gz", f"{name}.gz", f"{name}.notes", "README"]
        self.saved()[0].unlink()  # the next one may bear another second, or the same
        for file in old + others:
            self.write(f"backups/{file}", "x")
        self.expect(0, "retirée(s)", BACKUP_KEEP="2")
        names = {file.name for file in self.saved()}
        self.assertEqual([name for name in old if name in names], old[-1:])
        self.assertLessEqual(set(others), names)
        self.assertEqual(len(names), 2 + len(others))

    def test_one_failure_is_exit_1_and_the_others_are_saved(self) -> None:
        not_sqlite = self.write("notes.txt", "not a database at all")
        missing = self.folder / "missing.db"
        files = f"{not_sqlite}:{missing}:{self.source}"
        output = self.expect(1, "2 base(s) sur 3 sans sauvegarde", BACKUP_SQLITE=files)
        self.assertEqual(output.count("ÉCHEC"), 2)
        self.assertEqual(len(self.saved()), 1)
        self.assertFalse(missing.exists())

    def test_a_damaged_database_is_not_taken_for_a_backup(self) -> None:
        # A row that its table could never have taken.
        self.database.executescript(
            "insert into orders values (null); pragma writable_schema = on;"
            "update sqlite_master set sql = 'create table orders (id int not null)'"
        )
        self.expect(1, "la base est abîmée")
        self.assertEqual(self.saved(), [])

    def test_a_folder_that_others_may_write_to_is_refused(self) -> None:
        self.backups.mkdir()
        self.backups.chmod(0o777)
        self.expect(78, "d'autres peuvent écrire")
        self.assertEqual(self.saved(), [])

    def test_what_a_killed_run_left_behind_goes_away(self) -> None:
        self.write("backups/.unfinished/backup.part", "x")
        self.backups.chmod(0o700)
        self.expect(0, "OK")
        self.assertEqual([file.suffix for file in self.saved()], [".gz"])

    def test_ended_by_sigterm_it_leaves_no_unfinished_copy(self) -> None:
        self.command_on_path("pg_dump", 'kill -TERM "$PPID"; exec sleep 30')
        env = {"BACKUP_PG_DATABASES": "shop", "BACKUP_PG_RUN_AS": "root"}
        answer = self.run_script(BACKUP_SQLITE="", XDG_STATE_HOME="/nonexistent", **env)
        self.assertEqual(answer.returncode, 128 + signal.SIGTERM)
        self.assertEqual(self.saved(), [])

    def test_a_postgresql_database_is_dumped_by_pg_dump(self) -> None:
        self.command_on_path("pg_dump", 'echo "dump of $*"')
        env = {"BACKUP_PG_DATABASES": "shop", "BACKUP_PG_RUN_AS": "root"}
        self.expect(0, "2 base(s) sauvegardée(s)", **env)
        (dump,) = self.backups.glob("postgresql-shop.*.pgdump")
        self.assertIn("--dbname=shop", dump.read_text())

    def test_a_pg_dump_that_fails_is_exit_1_and_its_reason(self) -> None:
        self.command_on_path(
            "pg_dump", "echo 'no such database' >&2; echo half; exit 1"
        )
        env = {"BACKUP_PG_DATABASES": "shop", "BACKUP_PG_RUN_AS": "root"}
        self.expect(1, "no such database", **env)
        self.assertEqual(list(self.backups.glob("postgresql-*")), [])

    def test_bad_settings_are_exit_78(self) -> None:
        for name in ("--help", "host=evil", "a;b", "a/b"):
            self.expect(78, "BACKUP_PG_DATABASES", BACKUP_PG_DATABASES=name)
        self.expect(78, "BACKUP_KEEP", BACKUP_KEEP="0")

    def test_a_folder_where_nothing_can_be_written_is_exit_78(self) -> None:
        for folder in ("/etc/passwd", "/proc/x", "/etc/passwd/x"):
            self.expect(78, f"BACKUP_DIR vaut « {folder} »", BACKUP_DIR=folder)
        self.backups.mkdir()
        self.be_an_ordinary_user()
        self.forbid(self.backups, 0o500)
        self.expect(78, f"BACKUP_DIR vaut « {self.backups} »")

    def test_a_database_whose_name_is_not_utf_8_is_saved(self) -> None:
        file = os.fsdecode(os.fsencode(self.folder) + b"/\xff?%41#.db")
        self.database.execute("vacuum into ?", (str(self.folder / "copy.db"),))
        os.rename(self.folder / "copy.db", file)
        self.expect(0, "1 base(s) sauvegardée(s)", BACKUP_SQLITE=file)

    def test_without_settings_the_servers_history_is_saved(self) -> None:
        state = self.folder / ".local/state/cron-trigger-server"
        state.mkdir(parents=True)
        self.database.execute("vacuum into ?", (str(state / "history.db"),))
        self.be_an_ordinary_user()
        self.expect(0, "history.db", BACKUP_SQLITE="", BACKUP_DIR="")
        self.assertEqual(len(list((state / "backup").iterdir())), 1)

    def test_with_nothing_to_save_it_is_exit_1_and_names_the_setting(self) -> None:
        self.be_an_ordinary_user()
        output = self.expect(1, "Rien n'a été sauvegardé", BACKUP_SQLITE="")
        self.assertIn("BACKUP_SQLITE", output)


if __name__ == "__main__":
    unittest.main()
