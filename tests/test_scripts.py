"""The seven shipped crons: their registry, and real runs of each script."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

from support import REPOSITORY, need, need_command, slow, wait_until

SCRIPTS = REPOSITORY / "scripts"
NOBODY = 65534


class RegistryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.crons = json.loads((REPOSITORY / "crons.json").read_text("utf-8"))

    def test_the_seven_crons_have_their_names_order_and_descriptions(self) -> None:
        expected = {
            "monitor-openai": "Monitoring Budget OpenAI",
            "check-alerts": "Vérification Alertes Système",
            "index-kb-progressive": "Indexation Progressive Base de Connaissances",
            "check-certificates": "Certificats TLS Bientôt Expirés",
            "largest-folders": "Dossiers les Plus Volumineux",
            "clean-rotated-logs": "Nettoyage des Journaux Archivés",
            "backup-databases": "Sauvegarde des Bases de Données",
        }
        names = [(name, entry["description"]) for name, entry in self.crons.items()]
        self.assertEqual(names, list(expected.items()))
        self.assertEqual(self.crons["check-alerts"]["estimatedDuration"], "2s")
        self.assertEqual(self.crons["index-kb-progressive"]["logFile"], "index-kb.log")

    def test_every_script_is_there_runnable_used_and_short(self) -> None:
        commands = [entry["command"] for entry in self.crons.values()]
        used = {REPOSITORY / (c if isinstance(c, str) else c[0]) for c in commands}
        self.assertEqual(used, set(SCRIPTS.glob("[a-z]*")))
        self.assertTrue(all(os.access(script, os.X_OK) for script in used))
        lengths = [len(file.read_text("utf-8").splitlines()) for file in used]
        self.assertLessEqual(max(lengths), 100)
        self.assertLessEqual(sum(lengths), 600)


class ScriptCase(unittest.TestCase):
    """Runs one script with a clean environment and a folder of its own."""

    script = ""
    scripts = SCRIPTS
    user: Optional[int] = None

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="cron-scripts-")
        self.addCleanup(shutil.rmtree, folder)
        self.folder = Path(folder).resolve()
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        (self.bin / "python3").symlink_to(sys.executable)
        # No proxy, no setting of the person who tests.
        path = f"{self.bin}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.env = {"PATH": path, "HOME": folder, "LANG": "C.UTF-8"}

    def run_script(self, *args: str, stdout: Any = subprocess.PIPE, **env: str) -> Any:
        return subprocess.run(
            [str(self.scripts / self.script), *args],
            user=self.user,
            env={**self.env, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=30,
            check=False,
        )

    def expect(self, status: int, text: str, *args: str, **env: str) -> str:
        """Run the script, and expect this exit status and this text in its output."""
        done = self.run_script(*args, **env)
        self.assertNotIn("Traceback", done.stdout)
        self.assertEqual(done.returncode, status, done.stdout)
        self.assertIn(text, done.stdout)
        return str(done.stdout)

    def refuse(self, text: str, *args: str, status: int = 78, **env: str) -> None:
        """Expect one sentence and nothing else."""
        output = self.expect(status, text, *args, **env)
        self.assertEqual(output.count("\n"), 1, output)

    def be_an_ordinary_user(self) -> None:
        """Run the script as nobody where this is root, who may read everything."""
        if os.geteuid() != 0:
            return
        # Neither a checkout nor the Python of the tests need be for everybody.
        shutil.copy(SCRIPTS / self.script, self.folder)
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        need(python, "there is no Python that every user may run")
        (self.bin / "python3").unlink()
        (self.bin / "python3").symlink_to(str(python))
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        self.scripts, self.user = self.folder, NOBODY

    def forbid(self, path: Path, mode: int = 0) -> None:
        """Take the rights on a path until the test ends."""
        self.addCleanup(path.chmod, path.stat().st_mode & 0o777)
        path.chmod(mode)

    def write(self, name: str, contents: Any, age_days: float = 0) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        then = time.time() - age_days * 86_400
        os.utime(path, (then, then))
        return path

    def command(self, name: str, body: str) -> None:
        """Put a program of this name before all others."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{body}\n").chmod(0o755)

    def only(self, *names: str) -> None:
        """Leave the script no commands but these, and Python."""
        self.env["PATH"] = str(self.bin)
        for name in names:
            (self.bin / name).symlink_to(need_command(name))

    def serve(self, server: Any) -> Any:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for cleanup in (server.server_close, thread.join, server.shutdown):
            self.addCleanup(cleanup)
        return server


class FakeOpenAI(ThreadingHTTPServer):
    """Answers the costs endpoint on loopback, page after page."""

    def __init__(self, *pages: Any) -> None:
        super().__init__(("127.0.0.1", 0), FakeOpenAIHandler)
        self.pages = pages
        self.status = 200
        self.location = ""
        self.asked: list[str] = []
        self.keys: list[Optional[str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class FakeOpenAIHandler(BaseHTTPRequestHandler):
    server: FakeOpenAI

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.keys.append(self.headers["Authorization"])
        page = self.server.pages[
            min(len(self.server.asked), len(self.server.pages)) - 1
        ]
        self.send_response(self.server.status)
        self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write((page if isinstance(page, str) else json.dumps(page)).encode())

    def log_message(self, *args: Any) -> None:
        pass


def costs(
    *values: object, currency: str = "usd", next_page: str = ""
) -> dict[str, Any]:
    """Return a page as OpenAI's reference shows it, one day per value."""
    amounts = [{"value": value, "currency": currency} for value in values]
    days = [{"object": "bucket", "results": [{"amount": each}]} for each in amounts]
    return {"data": days, "has_more": bool(next_page), "next_page": next_page or None}


@slow
class MonitorOpenAITest(ScriptCase):
    script = "monitor-openai.py"
    KEY = "sk-admin-not-a-real-key"

    def setUp(self) -> None:
        super().setUp()
        self.openai = self.serve(FakeOpenAI(costs(1)))
        self.env.update(OPENAI_BASE_URL=self.openai.url, OPENAI_ADMIN_KEY=self.KEY)

    def test_all_pages_of_the_month_are_added_with_the_key(self) -> None:
        self.openai.pages = [costs(1.25, "2.50", next_page="page 2"), costs(3)]
        budget = {"OPENAI_MONTHLY_BUDGET_USD": "10"}
        self.expect(0, "il reste 3.25 USD (6.75 dépensés ce mois sur 10)", **budget)
        first, second = (urlsplit(path) for path in self.openai.asked)
        self.assertEqual(first.path, "/v1/organization/costs")
        start = time.gmtime(int(parse_qs(first.query)["start_time"][0]))
        self.assertEqual((start.tm_mday, start.tm_hour, start.tm_min), (1, 0, 0))
        self.assertEqual(parse_qs(second.query)["page"], ["page 2"])
        self.assertEqual(self.openai.keys, [f"Bearer {self.KEY}"] * 2)

    def test_above_the_budget_it_is_exit_1_and_says_by_how_much(self) -> None:
        self.openai.pages = [costs(10.5)]
        given = {"OPENAI_MONTHLY_BUDGET_USD": "100", "CRON_PARAM_BUDGET": "10"}
        self.expect(1, "dépassé de 0.50 USD", **given)

    def test_a_key_that_is_missing_malformed_or_refused_is_never_shown(self) -> None:
        for key in ("", "sk-secret\nX: y"):
            self.refuse("OPENAI_ADMIN_KEY manque", OPENAI_ADMIN_KEY=key)
        self.openai.status, self.openai.pages = 401, [f"Incorrect key {self.KEY}"]
        self.refuse("OpenAI refuse OPENAI_ADMIN_KEY (HTTP 401).")

    def test_the_key_goes_to_no_other_host(self) -> None:
        elsewhere = self.serve(FakeOpenAI(costs(1)))
        self.openai.status, self.openai.location = 302, elsewhere.url
        self.run_script()
        self.assertEqual(elsewhere.keys, [None])
        for url in ("http://example.org/v1", "https://a..b/"):
            self.refuse("OPENAI_BASE_URL", OPENAI_BASE_URL=url)

    def test_an_invalid_budget_is_exit_78(self) -> None:
        for budget in ("nan", "0", os.fsdecode(b"\xff")):
            self.refuse("montant positif", OPENAI_MONTHLY_BUDGET_USD=budget)

    def test_an_answer_that_is_unusable_is_exit_1(self) -> None:
        euros, endless = costs(1, currency="eur"), costs(0, next_page="again")
        odd: list[Any] = ["<html>", [], costs(None), costs("NaN"), euros, endless]
        for page in odd:
            self.openai.pages = [page]
            self.refuse("vérifiez le réseau et OPENAI_BASE_URL", status=1)
        self.openai.status = 500
        self.refuse("HTTP 500", status=1)
        with socket.socket() as unused:  # bound, but nobody listens
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            self.refuse("refused", status=1, OPENAI_BASE_URL=url)


@slow
class CheckAlertsTest(ScriptCase):
    script = "check-alerts.py"

    def setUp(self) -> None:
        super().setUp()
        self.kernel()
        self.command("systemctl", "exit 0")
        # One disk, which may be as full as it likes.
        self.command("df", f'exec {need_command("df")} "$@" {self.folder}')
        self.env.update(ALERT_DISK_PERCENT="100", ALERT_INODE_PERCENT="100")

    def kernel(self, available_kib: int = 900, load: float = 0) -> None:
        memory = f"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n"
        self.write("proc/meminfo", memory)
        self.write("proc/loadavg", f"0.00 {load:.2f} 0.00 1/100 4242\n")
        self.env["ALERT_PROC_DIR"] = str(self.folder / "proc")

    def test_a_healthy_host_is_exit_0(self) -> None:
        output = self.expect(0, "Unités systemd en échec : aucune")
        self.assertNotIn("ALERTE", output)
        real = {"ALERT_MEMORY_PERCENT": "100", "ALERT_LOAD_PER_CORE": "1000"}
        self.expect(0, "Mémoire", ALERT_PROC_DIR="", **real)

    def test_each_threshold_is_an_alert_and_exit_1(self) -> None:
        self.expect(1, "ALERTE  Disque /", ALERT_DISK_PERCENT="0")
        self.expect(1, "ALERTE  Inodes /", ALERT_INODE_PERCENT="0")
        self.kernel(available_kib=50)
        self.expect(1, "ALERTE  Mémoire : 95 %")
        self.kernel(load=3.0 * (os.cpu_count() or 1))
        self.expect(1, "ALERTE  Charge par cœur : 3.00")
        self.command("systemctl", "echo 'nginx.service loaded failed failed Web'")
        self.expect(1, "ALERTE  Unités systemd en échec : nginx.service")

    def test_what_could_not_be_looked_at_is_said(self) -> None:
        self.command("df", "echo ' 10%   - /'; echo 'df: /mnt: I/O error' >&2; exit 1")
        self.expect(1, "ALERTE  df: /mnt: I/O error")
        self.command("df", "echo ' 10%   - /'")
        self.command("systemctl", "echo 'no answer' >&2; exit 1")
        fault = int(os.path.isdir("/run/systemd/system"))  # none where it does not run
        self.expect(fault, "Unités systemd : no answer")

    def test_an_invalid_setting_or_another_df_is_exit_78(self) -> None:
        for value in ("-1", "101", os.fsdecode(b"\xff")):
            self.refuse("ALERT_MEMORY_PERCENT", ALERT_MEMORY_PERCENT=value)
        for folder in ("/etc/passwd", os.fsdecode(b"/\xff")):
            self.refuse("ALERT_PROC_DIR", ALERT_PROC_DIR=folder)
        self.command("df", "echo 'df: unrecognized option: output' >&2; exit 1")
        self.refuse("GNU coreutils")
        (self.bin / "df").unlink()
        self.only()
        self.refuse("df manque")


@slow
class IndexKbTest(ScriptCase):
    script = "index-kb-progressive.py"

    def setUp(self) -> None:
        super().setUp()
        self.index = self.folder / "state" / "kb.db"
        (self.folder / "kb").mkdir()
        self.env.update(KB_DIR=str(self.folder / "kb"), KB_INDEX=str(self.index))

    def found(self, word: str) -> list[str]:
        """Search as the script's header says."""
        index = sqlite3.connect(self.index)
        query = "select path from kb where kb match ? order by path"
        paths = [path for (path,) in index.execute(query, (word,))]
        index.close()
        return paths

    def test_texts_and_zipped_texts_can_be_searched_and_nothing_else(self) -> None:
        self.write("kb/net/dns.txt", "Le résolveur répond")
        self.write("kb/net/dhcp.md.gz", gzip.compress("Résolveur et bail".encode()))
        self.write("kb/.hidden/x.txt", "résolveur")
        self.write("kb/picture", "résolveur\0")
        self.write("kb/bomb.gz", gzip.compress(b"resolveur " * 300_000))
        (self.folder / "kb/link.txt").symlink_to(self.write("secret.txt", "résolveur"))
        (self.folder / "kb/folder").symlink_to(self.folder)
        os.mkfifo(self.folder / "kb/fifo.txt")
        self.expect(0, "4 documents, dont 0 à indexer encore")
        self.assertEqual(self.found("resolveur"), ["net/dhcp.md.gz", "net/dns.txt"])

    def test_a_run_indexes_as_many_as_asked_and_only_what_changed(self) -> None:
        files = [self.write(f"kb/{number}.txt", "alpha") for number in range(5)]
        self.expect(0, "dont 3 à indexer encore", "2")
        self.assertEqual(len(self.found("alpha")), 2)
        self.expect(0, "dont 0 à indexer encore", "3")
        self.assertEqual(len(self.found("alpha")), 5)
        files[0].unlink()
        files[1].write_text("beta now")
        self.expect(0, "4 documents, dont 0", "1")
        self.assertEqual(self.found("alpha"), ["2.txt", "3.txt", "4.txt"])
        self.assertEqual(self.found("beta"), ["1.txt"])

    def test_a_category_is_a_subfolder_and_leaves_the_others_alone(self) -> None:
        self.write("kb/net/a.txt", "alpha")
        self.write("kb/disk/b.txt", "alpha")
        self.expect(0, "1 documents", "10", "disk")
        self.assertEqual(self.found("alpha"), ["disk/b.txt"])
        self.expect(0, "1 documents", "10", "net")
        self.assertEqual(self.found("alpha"), ["disk/b.txt", "net/a.txt"])

    def test_killed_in_the_middle_it_goes_on_where_it_stopped(self) -> None:
        for number in range(1000):
            self.write(f"kb/{number}.txt", "alpha")
        self.expect(0, "dont 999 à indexer encore", "1")
        reader = sqlite3.connect(self.index, isolation_level=None)
        self.addCleanup(reader.close)

        def has_grown() -> bool:
            """While it is read, nothing can be committed."""
            if reader.in_transaction:
                reader.execute("commit")
            reader.execute("begin")
            (count,) = reader.execute("select count(*) from kb").fetchone()
            return bool(count > 5)

        call = [str(SCRIPTS / self.script), "1000"]
        with subprocess.Popen(call, env={**self.env, "KB_BATCH": "1"}) as child:
            wait_until(has_grown)
            child.kill()
        reader.execute("commit")
        self.assertEqual(child.returncode, -signal.SIGKILL)
        self.assertLess(len(self.found("alpha")), 1000)
        self.expect(0, "1000 documents, dont 0 à indexer encore", "1000")
        self.assertEqual(len(self.found("alpha")), 1000)

    def test_what_cannot_be_read_is_exit_1_stays_and_is_tried_again(self) -> None:
        self.write("kb/net/a.txt", "alpha")
        b, broken = self.write("kb/b.txt", "alpha"), self.write("kb/broken.gz", "alpha")
        self.be_an_ordinary_user()
        for _ in range(2):
            self.expect(1, "Illisible : 'broken.gz'")
        broken.unlink()
        self.forbid(self.folder / "kb/net")
        self.expect(1, "Permission denied")
        self.assertEqual(self.found("alpha"), ["b.txt", "net/a.txt"])
        (self.folder / "kb/net").chmod(0o700)
        self.forbid(b)
        self.expect(1, "Illisible : 'b.txt'")
        self.assertEqual(self.found("alpha"), ["net/a.txt"])
        b.chmod(0o600)
        self.expect(0, "2 documents")
        self.assertEqual(self.found("alpha"), ["b.txt", "net/a.txt"])

    def test_an_emptied_folder_or_an_invalid_setting_leaves_the_index(self) -> None:
        file = self.write("kb/a.txt", "alpha")
        self.expect(0, "1 documents")
        self.refuse("DOCUMENTS", "0", status=64)
        for category in ("nowhere", ".."):
            self.refuse("CATEGORIE", "10", category, status=64)
        self.refuse("KB_BATCH", KB_BATCH="0")
        self.refuse("KB_DIR", KB_DIR="/nonexistent")
        for index in (
            "/etc/passwd/kb.db",
            str(self.write("no.db", "no SQLite, " * 99)),
        ):
            self.refuse("KB_INDEX", KB_INDEX=index)
        file.unlink()
        self.refuse("KB_DIR est vide")
        self.assertEqual(self.found("alpha"), ["a.txt"])


@slow
class CheckCertificatesTest(ScriptCase):
    script = "check-certificates.py"

    def setUp(self) -> None:
        super().setUp()
        need_command("openssl")
        (self.folder / "tls").mkdir()
        self.env["CERT_PATHS"] = str(self.folder / "tls")

    def certificate(self, name: str, days: int) -> str:
        """Make a certificate, and its `key`."""
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        given = ["-days", str(days), "-subj", f"/CN={name}", "-keyout", "key"]
        command = [*make.split(), *given]
        return subprocess.check_output(
            command, cwd=self.folder, stderr=subprocess.DEVNULL, text=True
        )

    def test_certificates_are_judged_by_the_days_left(self) -> None:
        far, soon = self.certificate("far", 90), self.certificate("soon", 20)
        self.write("tls/site/far.pem", far)
        self.expect(0, "OK     subject=CN = far notAfter=")
        self.write("tls/chain.crt", far + soon)
        output = self.expect(1, "ALERTE subject=CN = soon")
        self.assertEqual(output.count("CN = far"), 1)
        self.expect(0, "OK     subject=CN = soon", CERT_DAYS="10")
        self.expect(1, "ALERTE", CERT_DAYS="10", CRON_PARAM_DAYS="25")
        self.write("tls/chain.crt", far[:60] + far[120:])
        self.expect(1, "ALERTE pas de certificat")

    def test_links_are_followed_and_what_is_no_certificate_is_left_out(self) -> None:
        self.write("far", self.certificate("far", 90))
        (self.folder / "tls/cert.pem").symlink_to("../far")
        (self.folder / "tls/gone.pem").symlink_to("gone")
        shutil.copy(self.folder / "key", self.folder / "tls/key.pem")
        os.mkfifo(self.folder / "tls/fifo.pem")
        one = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
        self.write("tls/authorities.pem", one * 11)
        output = self.expect(0, "CN = far")
        self.assertEqual(output.count("\n"), 1)

    def test_what_servers_present_is_judged_too(self) -> None:
        self.write("cert", self.certificate("soon", 20))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "cert", self.folder / "key")
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.serve(server)
        host = f"127.0.0.1:{server.server_address[1]}"
        self.expect(0, "CN = soon", CERT_HOSTS=host, CERT_DAYS="10")
        hosts = f"{host} [::1]:1 127.0.0.1:1"
        output = self.expect(1, "ALERTE subject=CN = soon", CERT_HOSTS=hosts)
        self.assertEqual(output.count("ALERTE pas de certificat"), 2)

    def test_what_cannot_be_read_is_named_and_is_exit_1(self) -> None:
        self.write("tls/far.pem", self.certificate("far", 90))
        self.write("tls/inner/x.pem", "")
        self.be_an_ordinary_user()
        for name in ("tls/far.pem", "tls/inner", "tls"):
            self.forbid(self.folder / name)
            self.expect(1, f"ILLISIBLE '{self.folder / name}'")

    def test_an_invalid_setting_or_no_openssl_is_exit_78(self) -> None:
        self.refuse("CRON_PARAM_DAYS", CRON_PARAM_DAYS="soon")
        for host in ("example.org", ":443"):
            self.refuse("HÔTE:PORT", CERT_HOSTS=host)
        for paths in (f"{self.folder}/tls:/nope", ":"):
            self.refuse("CERT_PATHS", CERT_PATHS=paths)
        self.only("timeout")
        self.refuse("openssl")


class LargestFoldersTest(ScriptCase):
    script = "largest-folders.sh"

    def setUp(self) -> None:
        super().setUp()
        self.write("data/big/deep/file", os.urandom(3 * 1024 * 1024))
        self.write("data/small/file", os.urandom(64 * 1024))
        self.data = f"{self.folder}/data"

    def test_the_largest_stands_first_and_as_many_as_asked(self) -> None:
        output = self.expect(0, f"3.1M\t{self.data}\n", self.data)
        lines = output.splitlines()[-4:]
        self.assertEqual(lines[-1].split("\t")[1], f"{self.data}/small")
        self.assertNotIn("small", self.expect(0, "/big", self.data, "3"))
        shallow = {"LARGEST_FOLDERS_DEPTH": "1"}
        self.assertNotIn("deep", self.expect(0, "/big", self.data, **shallow))

    def test_hostile_names_are_data_and_shown_without_control_characters(self) -> None:
        self.write("data/$(touch owned);\x1b[31m/-rf/file", "x")
        self.expect(0, f"{self.data}/$(touch owned);[31m/-rf\n", self.data)
        self.assertFalse((self.folder / "owned").exists())

    def test_what_could_not_be_measured_is_exit_1(self) -> None:
        self.be_an_ordinary_user()
        self.forbid(self.folder / "data/small")
        self.expect(1, "1 dossier(s) illisible(s)", self.data)

    def test_invalid_arguments_and_settings_are_refused(self) -> None:
        for args in (["var"], ["/nonexistent"], ["/", "0"], ["/", "10000"]):
            self.refuse("largest-folders : ", *args, status=64)
        self.refuse("DEPTH", "/", LARGEST_FOLDERS_DEPTH="0")
        self.only("sh")
        self.refuse("la commande du", "/")


@slow
class CleanRotatedLogsTest(ScriptCase):
    script = "clean-rotated-logs.py"

    def setUp(self) -> None:
        super().setUp()
        self.env["LOGS_DIR"] = str(self.folder / "log")
        (self.folder / "log").mkdir()

    def old(self, *names: str, age_days: float = 100) -> list[Path]:
        return [self.write(f"log/{name}", "x", age_days) for name in names]

    def test_old_rotated_logs_are_deleted_whatever_their_form(self) -> None:
        names = ["syslog.1", "syslog.2.gz", "nginx/access.log.10.xz", "cron-20250131"]
        names += ["mail.log-20250131.gz", "app-20250131.log", "x-20250131-07.zst"]
        files = self.old(*names, os.fsdecode(b"\xff\x1b.log.1"))
        output = self.expect(0, f"{len(files)} fichier(s) supprimé(s)")
        self.assertNotIn("\x1b", output)
        self.assertEqual([file for file in files if file.exists()], [])

    def test_everything_else_stays(self) -> None:
        names = ["syslog", "a.log", "b.gz", "dump.sql", "v-12345678", "c.1.bak", ".1"]
        names += ["journal/system.1", "audit/audit.log.1", "installer/x.1.gz", "d.1234"]
        outside = self.write("outside/kept.log.1", "x", age_days=1000)
        files = [*self.old(*names), *self.old("young.log.1", age_days=89), outside]
        (self.folder / "log/linked").symlink_to(outside.parent)
        files.append(self.folder / "log/link.log.1")
        files[-1].symlink_to(outside)
        os.utime(files[-1], (0, 0), follow_symlinks=False)
        self.expect(0, "0 fichier(s) supprimé(s)")
        self.assertTrue(all(map(os.path.lexists, files)))

    def test_days_can_be_set_and_given_for_one_run_which_may_be_simulated(self) -> None:
        (file,) = self.old("a.log.1", age_days=20)
        env = {"LOGS_KEEP_DAYS": "30"}
        self.expect(0, "0 fichier(s)", **env)
        env["CRON_PARAM_DAYS"] = "10"
        self.expect(0, f"À supprimer : {file}", CRON_PARAM_SIMULATE="true", **env)
        self.assertTrue(file.exists())
        self.expect(0, "1 fichier(s)", **env)
        self.assertFalse(file.exists())

    def test_an_invalid_setting_deletes_nothing(self) -> None:
        (file,) = self.old("a.log.1")
        self.refuse("CRON_PARAM_SIMULATE", CRON_PARAM_SIMULATE="oui")
        self.refuse("LOGS_KEEP_DAYS", LOGS_KEEP_DAYS="0")
        for folder in ("/etc/", "log", f"{file}"):
            self.refuse("LOGS_DIR", LOGS_DIR=folder, CRON_PARAM_SIMULATE="true")
        self.assertTrue(file.exists())

    def test_on_a_full_disk_it_deletes_all_the_same(self) -> None:
        files = self.old(*(f"{number}.log.1" for number in range(300)))
        with open("/dev/full", "wb", buffering=0) as full:
            self.assertEqual(self.run_script(stdout=full).returncode, 0)
        self.assertEqual([file for file in files if file.exists()], [])

    def test_what_could_not_be_deleted_or_read_is_exit_1(self) -> None:
        (file, _) = self.old("a.log.1", "inner/b.log.1")
        self.be_an_ordinary_user()
        self.forbid(self.folder / "log/inner")
        self.forbid(self.folder / "log", 0o500)
        output = self.expect(1, f"Gardé, ou illisible : {file} (")
        self.assertIn("inner (", output)


@slow
class BackupDatabasesTest(ScriptCase):
    script = "backup-databases.sh"

    def setUp(self) -> None:
        super().setUp()
        need_command("flock")
        self.backups = self.folder / "backups"
        self.source = self.folder / "app data" / "shop*.db"
        self.source.parent.mkdir()
        self.database = sqlite3.connect(self.source)
        self.addCleanup(self.database.close)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("create table orders (id integer)")
        self.database.execute("insert into orders values (42)")
        self.database.commit()
        self.env.update(BACKUP_DIR=str(self.backups), BACKUP_SQLITE=str(self.source))
        self.postgres = {"BACKUP_PG_DATABASES": "shop", "BACKUP_PG_RUN_AS": "root"}

    def saved(self, pattern: str = "*") -> list[Path]:
        return sorted(self.backups.glob(pattern))

    def test_a_database_in_use_is_saved_whole_and_for_its_owner_only(self) -> None:
        self.database.execute("insert into orders values (43)")  # not committed
        self.write("app data/shop2.db", "its name fits the pattern of the other one's")
        self.expect(0, f"OK      {self.source}")
        (backup,) = self.saved()
        modes = [path.stat().st_mode & 0o777 for path in (self.backups, backup)]
        self.assertEqual(modes, [0o700, 0o600])
        copy = self.write("copy.db", gzip.decompress(backup.read_bytes()))
        restored = sqlite3.connect(copy)
        rows = restored.execute("select id from orders").fetchall()
        restored.close()
        self.assertEqual(rows, [(42,)])

    def test_only_the_oldest_backups_of_this_database_are_deleted(self) -> None:
        self.expect(0, "OK")
        (first,) = self.saved()
        first.unlink()  # the next one may bear another second, or the same
        name = first.name[: -len(".20250101T000000Z.gz")]
        old = [f"{name}.2025010{day}T000000Z.gz" for day in range(1, 5)]
        others = ["other.20250101T000000Z.gz", f"{name}.gz", f"{name}.x.gz", "README"]
        for file in old + others:
            self.write(f"backups/{file}", "x")
        self.expect(0, "OK", BACKUP_KEEP="2")
        names = {file.name for file in self.saved()}
        self.assertEqual(names & {*old, *others}, {old[-1], *others})
        self.assertEqual(len(names), 2 + len(others))

    def test_one_failure_is_exit_1_and_the_others_are_saved(self) -> None:
        missing, empty = self.folder / "missing.db", self.write("empty.db", "")
        damaged = self.write("damaged.db", "not a database at all" * 99)
        files = f"{damaged}:{missing}:{empty}:{self.source}"
        output = self.expect(1, f"OK      {self.source}", BACKUP_SQLITE=files)
        self.assertEqual(output.count("ÉCHEC"), 3)
        self.assertEqual(len(self.saved()), 1)
        self.assertFalse(missing.exists())
        # A row that its table could never have taken.
        self.database.executescript(
            "insert into orders values (null); pragma writable_schema = on;"
            "update sqlite_master set sql = 'create table orders (id int not null)'"
        )
        self.expect(1, f"ÉCHEC   {self.source}")
        self.assertEqual(len(self.saved()), 1)

    def test_nothing_unfinished_is_left_nor_is_another_run_disturbed(self) -> None:
        self.write("backups/.unfinished/part", "x")
        self.backups.chmod(0o700)
        folder = os.open(self.backups, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        self.refuse("est en cours", status=1)
        os.close(folder)
        self.command("pg_dump", "echo half; kill -TERM $PPID; exec sleep 1")
        done = self.run_script(**self.postgres)
        self.assertEqual(done.returncode, 128 + signal.SIGTERM, done.stdout)
        self.assertEqual(self.saved(), [])

    def test_a_postgresql_database_is_dumped_by_pg_dump(self) -> None:
        self.command("pg_dump", 'echo "dump of $*"')
        self.expect(0, "OK      shop", **self.postgres)
        (dump,) = self.saved("postgresql-shop.*.pgdump")
        self.assertIn("--dbname=shop", dump.read_text())
        dump.unlink()
        self.command("pg_dump", "echo 'no such database' >&2; echo half; exit 1")
        self.expect(1, "no such database", **self.postgres)
        self.assertEqual(self.saved("postgresql-*"), [])

    def test_without_settings_the_servers_history_is_saved(self) -> None:
        history = self.folder / ".local/state/cron-trigger-server/history.db"
        history.parent.mkdir(parents=True)
        self.database.execute("vacuum into ?", (str(history),))
        self.be_an_ordinary_user()
        self.expect(0, "history.db", BACKUP_SQLITE="", BACKUP_DIR="")
        self.assertEqual(len(list(history.parent.glob("backup/*.gz"))), 1)
        history.unlink()
        self.refuse("BACKUP_SQLITE", status=1, BACKUP_SQLITE="")

    def test_an_invalid_setting_or_a_missing_tool_is_exit_78(self) -> None:
        self.refuse("BACKUP_KEEP", BACKUP_KEEP="0")
        for bases in ("a/b", "*", "host=x"):
            self.refuse("BACKUP_PG_DATABASES", BACKUP_PG_DATABASES=bases)
        self.expect(78, "Deux bases", BACKUP_SQLITE=f"{self.source}:{self.source}")
        self.expect(78, "BACKUP_DIR", BACKUP_DIR="/proc/x")
        self.backups.chmod(0o777)
        self.refuse("BACKUP_DIR")
        self.only("sh", "id", "gzip", "flock")
        self.refuse("pg_dump", BACKUP_PG_DATABASES="shop")


if __name__ == "__main__":
    unittest.main()
