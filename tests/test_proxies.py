"""Behind nginx and Caddy: the files of examples/proxies, each with the real program.

Only what a machine must have of its own is replaced in them: ports, the paths of the
certificate, the server's address.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
from base64 import b64encode
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from browser import chromium
from support import REPOSITORY, Reply, Server, need_command, need_full, slow, wait_until

EXAMPLES = REPOSITORY / "examples" / "proxies"
#: A name of its own, and a path of a site: host and the path before the server's.
#: With these a Chromium finds the sites on this host.
FLAGS = (
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP *.example.org 127.0.0.1",
)
SITES = (("crons.example.org", "/"), ("www.example.org", "/crons/"))
SECRET = "a-secret-of-the-proxy-tests-0123456789"
LOGIN = ("admin", "correct horse")

REGISTRY = {
    "brief": {"description": "Says one line", "command": ["echo", "brief"]},
    "waiter": {"description": "Waits to be told", "command": "waiter.sh"},
}
#: Says a line and ends only when the test has seen it, so that a line that was held
#: back anywhere can't arrive.
WAITER = """#!/bin/sh
folder=$(dirname "$0")
echo first line
until [ -e "$folder/seen" ]; do sleep 0.02; done
rm "$folder/seen"
echo last line
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for both names, which only its own tests trust."""
    need_command("openssl")
    names = ",".join(f"DNS:{name}" for name, _ in SITES)
    made = folder / "crons.pem", folder / "crons.key"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=crons"
    words = [*command.split(), "-addext", f"subjectAltName={names}"]
    words += ["-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run(words, check=True, capture_output=True)
    return made


class Proxy:
    """A proxy in the foreground, with a configuration and folder of its own."""

    PROGRAM: str

    def __init__(self, server: Server, logs_in: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-proxy-"))
        self.folder.chmod(0o755)  # nginx's workers are another user
        self.server, self.logs_in = server, logs_in
        self.port = free_port()
        self.certificate, self.key = certificate(self.folder)
        self.process: Optional[subprocess.Popen[bytes]] = None

    def site_text(self, name: str) -> str:
        """Return the example with this machine's address and paths in it."""
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        text = text.replace("127.0.0.1:9998", f"127.0.0.1:{self.server.port}")
        text = re.sub(r"/etc/ssl/certs/\S+\.pem", str(self.certificate), text)
        text = re.sub(r"/etc/ssl/private/\S+\.key", str(self.key), text)
        return re.sub(r"(?m)^(\s*)#(?! )", r"\1", text) if self.logs_in else text

    def start(self) -> Proxy:
        log = self.folder / "proxy.log"
        command, environ = self.command()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **environ}
            )
        try:
            wait_until(self._answers, what=f"{command[0]} to listen")
        except AssertionError:
            print(log.read_text(errors="replace"))
            self.close()
            raise
        return self

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Write the configuration; return the command and its variables."""
        raise NotImplementedError

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- requests

    def connect(self, name: str) -> http.client.HTTPConnection:
        """Return a connection by https to the proxy under a name."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection(("127.0.0.1", self.port), 20)
        connection = http.client.HTTPConnection(name, self.port)
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        return connection

    def ask(
        self,
        name: str,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Reply:
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = json.dumps(body)
        with contextlib.closing(self.connect(name)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            names = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, names, answer.read())

    def click(self, name: str, base: str, **headers: str) -> Reply:
        """Trigger as a browser's page does."""
        sent = {"Origin": f"https://{name}:{self.port}", **headers}
        sent["Sec-Fetch-Site"] = "same-origin"
        return self.ask(name, "POST", f"{base}trigger", {"cronName": "brief"}, sent)


class Nginx(Proxy):
    PROGRAM = "nginx"
    #: What Debian's own nginx.conf has around a site, without its paths.
    MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    gzip on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""

    def command(self) -> tuple[list[str], dict[str, str]]:
        site = self.site_text("nginx.conf").replace("listen [::]:443 ssl http2;", "")
        site = site.replace("listen 443", f"listen 127.0.0.1:{self.port}")
        site = site.replace("/etc/nginx/crons.", f"{self.folder}/crons.")
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", LOGIN[1]],
            check=True,
            capture_output=True,
            text=True,
        )
        self._write("crons.users", f"{LOGIN[0]}:{hashed.stdout}")
        self._write("crons.secret", f'proxy_set_header X-Trigger-Secret "{SECRET}";\n')
        self._write("site.conf", site)
        main = self._write("nginx.conf", self.MAIN.format(folder=self.folder))
        # -e: as an ordinary user, /var/log/nginx is closed even before the file is read
        return [need_command("nginx"), "-e", "stderr", "-c", str(main)], {}

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


class Caddy(Proxy):
    PROGRAM = "caddy"
    MAIN = """{
    admin off
    grace_period 1s
    https_port %d
    default_bind 127.0.0.1
    auto_https disable_redirects
}
"""

    def command(self) -> tuple[list[str], dict[str, str]]:
        caddy = need_command("caddy")
        site = self.site_text("Caddyfile")
        if self.logs_in:
            word = subprocess.run(
                [caddy, "hash-password", "--plaintext", LOGIN[1]],
                check=True,
                capture_output=True,
                text=True,
            )
            site = site.replace("HASH", word.stdout.strip()).replace("...", SECRET)
        main = self.folder / "Caddyfile"
        main.write_text(self.MAIN % self.port + site, encoding="utf-8")
        home = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME")}
        return [caddy, "run", "--adapter", "caddyfile", "--config", str(main)], home


def connections_to(port: int) -> int:
    """Return how many connections a port of this host's has."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    words = (row.split() for row in rows)
    end, established = f":{port:04X}", "01"
    return sum(w[1].endswith(end) and w[3] == established for w in words)


class Behind:
    """Holds what is tried with each proxy, where unittest does not look for tests."""

    class Cases(unittest.TestCase):
        kind: type[Proxy]
        server: Server
        proxy: Proxy

        @classmethod
        def setUpClass(cls) -> None:
            cls.server, cls.proxy = cls.started(cls.addClassCleanup)

        @classmethod
        def started(
            cls, clean_up: Callable[..., Any], **environ: str
        ) -> tuple[Server, Proxy]:
            """Start a server, and the proxy before it; with a secret, people log in."""
            need_command(cls.kind.PROGRAM)
            names = " ".join(name for name, _ in SITES)
            server = Server(REGISTRY, {"CRON_TRIGGER_ALLOWED_HOSTS": names, **environ})
            server.script("waiter.sh", WAITER)
            clean_up(server.__exit__)
            server.start()
            proxy = cls.kind(server, logs_in=bool(environ))
            clean_up(proxy.close)
            return server, proxy.start()

        def waiter(self) -> int:
            """Start a run that ends with `let_go`, or with the test."""
            reply = self.server.trigger("waiter")
            self.assertEqual(reply.status, 202, reply.text)
            self.addCleanup(self.let_go, reply.json["runId"])
            return int(reply.json["runId"])

        def let_go(self, run_id: int) -> None:
            if self.server.run(run_id)["status"] == "running":
                (self.server.folder / "seen").touch()
                self.server.ended(run_id)

        def test_the_page_and_its_answers_come_under_both_addresses(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    page = self.proxy.ask(name, "GET", base)
                    self.assertEqual(page.status, 200, page.text)
                    self.assertIn("<!doctype html>", page.text.lower())
                    health = self.proxy.ask(name, "GET", f"{base}health").json
                    self.assertEqual(health["status"], "healthy")

        def test_the_path_without_its_slash_leads_to_the_page(self) -> None:
            moved = self.proxy.ask("www.example.org", "GET", "/crons")
            self.assertEqual(moved.status, 308)
            self.assertEqual(moved.headers["location"], "/crons/")

        def test_a_click_starts_a_cron(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    answer = self.proxy.click(name, base)
                    self.assertEqual(answer.status, 202, answer.text)
                    run = self.server.ended(answer.json["runId"])
                    self.assertEqual(run["exitCode"], 0)

        def test_a_click_at_the_usual_port_starts_a_cron(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    usual = {"Host": name, "Origin": f"https://{name}"}
                    answer = self.proxy.click(name, base, **usual)
                    self.assertEqual(answer.status, 202, answer.text)
                    self.server.ended(answer.json["runId"])

        def test_a_click_on_a_foreign_page_does_not(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    refused = self.proxy.click(name, base, Origin="https://evil.org")
                    self.assertEqual(refused.status, 403)
                    self.assertEqual(refused.json["code"], "forbidden")

        def test_a_log_that_is_followed_comes_line_by_line(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    run_id = self.waiter()
                    path = f"{base}runs/{run_id}/log?follow=true"
                    with contextlib.closing(self.proxy.connect(name)) as connection:
                        connection.request("GET", path)
                        log = connection.getresponse()
                        self.assertEqual(log.readline(), b"first line\n")
                        self.assertEqual(self.server.run(run_id)["status"], "running")
                        self.let_go(run_id)
                        self.assertEqual(log.read(), b"last line\n")

        def test_an_event_comes_while_its_cron_still_runs(self) -> None:
            for name, base in SITES:
                connection = self.proxy.connect(name)
                with self.subTest(name), contextlib.closing(connection):
                    connection.request("GET", f"{base}events")
                    events = connection.getresponse()
                    self.assertEqual(events.status, 200)
                    run_id = self.waiter()
                    started = self.data(events, "run.started")
                    self.assertIn(f'"id": {run_id}', started)
                    self.let_go(run_id)
                    finished = self.data(events, "run.finished")
                    self.assertIn(f'"id": {run_id}', finished)

        def data(self, events: http.client.HTTPResponse, kind: str) -> str:
            """Return the data of the next event of a kind."""
            deadline_s = time.monotonic() + 15
            while events.readline().decode().strip() != f"event: {kind}":
                # A stream has a comment every 15 s: a read alone may never time out.
                self.assertLess(time.monotonic(), deadline_s, f"no {kind}")
            lines = iter(lambda: events.readline().decode().strip(), "")
            return "".join(lines)

        def test_a_silent_stream_whose_reader_has_gone_ends_at_the_server(self) -> None:
            for name, base in SITES:
                with self.subTest(name):
                    run_id = self.waiter()
                    with contextlib.closing(self.proxy.connect(name)) as connection:
                        path = f"{base}runs/{run_id}/log?follow=true"
                        connection.request("GET", path)
                        with connection.getresponse() as log:
                            self.assertEqual(log.readline(), b"first line\n")
                            held = connections_to(self.server.port)
                    self.fewer_than(held)
                    self.let_go(run_id)

        def fewer_than(self, count: int) -> None:
            port = self.server.port
            wait_until(lambda: connections_to(port) < count, 8, "the stream's end")

        def test_http_2_passes_on_the_host_too(self) -> None:
            curl = need_command("curl")
            for name, base in SITES:
                there = f"{name}:{self.proxy.port}"
                words = f"{curl} -sS --http2 --resolve {there}:127.0.0.1".split()
                words += ["--cacert", str(self.proxy.certificate), "-w%{http_version}"]
                words += [f"-HOrigin: https://{there}", '-d{"cronName": "brief"}']
                words += ["-HContent-Type: application/json"]
                words += [f"https://{there}{base}trigger"]
                done = subprocess.run(words, capture_output=True, text=True)
                body, version = done.stdout[:-1], done.stdout[-1:]
                self.assertEqual(version, "2", done.stderr)
                self.server.ended(json.loads(body)["runId"])

        @slow
        def test_people_log_in_at_the_proxy_which_has_the_secret(self) -> None:
            secret = {"CRON_TRIGGER_SECRET": SECRET}
            server, proxy = self.started(self.addCleanup, **secret)
            self.assertEqual(server.get("/crons").status, 401)
            login = "Basic " + b64encode(":".join(LOGIN).encode()).decode()
            for name, base in SITES:
                with self.subTest(name):
                    refused = proxy.ask(name, "GET", f"{base}crons")
                    self.assertEqual(refused.status, 401)
                    self.assertIn("Basic", refused.headers["www-authenticate"])
                    answer = proxy.click(name, base, Authorization=login)
                    self.assertEqual(answer.status, 202, answer.text)
                    own = {"X-Trigger-Secret": SECRET}
                    path = f"/runs/{answer.json['runId']}?wait=15"
                    run = server.request("GET", path, headers=own)
                    self.assertEqual(run.status, 200)

        def test_a_browser_s_page_triggers_and_hears_of_it(self) -> None:
            need_full()
            with chromium(*FLAGS) as browser:
                for name, base in SITES:
                    page = browser.new_page()
                    page.goto(f"https://{name}:{self.proxy.port}{base}")
                    status, event = page.evaluate(CLICK_AND_LISTEN)
                    self.assertEqual(status, 202)
                    self.assertEqual(json.loads(event)["run"]["cronName"], "brief")
                    page.close()


#: What the page does for a click, at its own relative addresses.
CLICK_AND_LISTEN = """async () => {
  const events = new EventSource("events");
  await new Promise(resolve => events.addEventListener("open", resolve));
  const told = new Promise(resolve =>
    events.addEventListener("run.finished", event => resolve(event.data)));
  const answer = await fetch("trigger", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({cronName: "brief"}),
  });
  const event = await told;
  events.close();
  return [answer.status, event];
}"""


class BehindNginx(Behind.Cases):
    kind = Nginx

    def test_nginx_finds_no_fault_in_its_file(self) -> None:
        command, _ = self.proxy.command()
        done = subprocess.run([*command, "-t"], capture_output=True, text=True)
        said = done.stderr.replace("the configuration file", "").splitlines()
        self.assertEqual([line for line in said if "[" in line], [])


class BehindCaddy(Behind.Cases):
    kind = Caddy


if __name__ == "__main__":
    unittest.main()
