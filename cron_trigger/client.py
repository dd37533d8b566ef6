"""A server's client: address, secret, requests, and streams that outlast a restart.

Knows HTTP as `docs/http.md` has it, nothing of commands.  Promises that each failure is
a sentence, that this host's secret is sent to this host alone, and that a server
which restarts meanwhile is waited for.  One thread.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import ssl
import time
import urllib.parse
from typing import Any, Callable, Iterator, Mapping, Optional, TypeVar

from cron_trigger import SERVICE
from cron_trigger.commands.terminal import EXIT_OF_CODE, Failed
from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.records import RUNNING
from cron_trigger.registry.secret import login_of, read_secret
from cron_trigger.registry.settings import SERVICE_FOLDER, environment_file
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable

#: Written by the installer for `curl -H @FILE`.
SECRET_HEADER = SERVICE_FOLDER / "secret.header"
#: What comes of an answer that is not as ours are.
NOT_OURS = (ValueError, RecursionError, KeyError, TypeError)
#: What a proxy answers for a server that is away.
AWAY = (502, 503, 504)
KINDS: dict[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}
#: What a path has as it is: RFC 3986, 3.3.
PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
T = TypeVar("T")


class Unreachable(Failed):
    """No server answers just now; it may be restarting."""


class Client:
    #: How long a server may be away while something of it is awaited.
    PATIENCE_S = 60.0
    PAUSE_S = 0.5
    #: A stream that is silent for longer is opened again where it was.
    SILENCE_S = 45.0

    def __init__(self, url: str, secret: Optional[bytes] = None) -> None:
        """Take a base address; one that ends in `/trigger`, too.  Else ConfigError."""
        with contextlib.suppress(ValueError, http.client.InvalidURL):
            parts = urllib.parse.urlsplit(url)
            if parts.scheme in KINDS and parts.hostname:
                self._kind, self._host = KINDS[parts.scheme], parts.hostname
                self._port = parts.port or self._kind.default_port
                # Raises where the name is none.
                http.client.HTTPConnection(self._host.encode("idna").decode(), 80)
                path = urllib.parse.quote(parts.path, PATH_CHARACTERS)
                self._path = path.rstrip("/").removesuffix("/trigger")
                place = parts.netloc.rpartition("@")[2]  # to be shown, so no password
                self.url = f"{parts.scheme}://{place}{self._path}"
                self._login = login_of(parts)
                self._secret = secret
                self._met = False  # True once it was there
                return
        raise ConfigError(
            "--url (or CRON_TRIGGER_URL) must be an address such as "
            f'http://127.0.0.1:9998, got "{printable(url, 200)}".'
        )

    def open(
        self, method: str, path: str, body: Json = None, headers: Mapping[str, str] = {}
    ) -> http.client.HTTPResponse:
        """Send a request; return the answer, if it is a good one.  Else Failed."""
        sent = {"Accept-Encoding": "identity", "Connection": "close", **headers}
        sent.update(self._login)
        if self._secret is not None:
            sent["X-Trigger-Secret"] = self._secret.decode("ascii")
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body), "application/json"
        connection = self._kind(self._host, self._port, timeout=self.SILENCE_S)
        met = self._met
        try:
            connection.connect()
            self._met = True
            connection.request(method, f"{self._path}/{path}", data, sent)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from None
        if answer.status >= 300:
            self._met = met  # perhaps a proxy's
            raise self._refused(answer)
        return answer

    def ask(
        self, method: str, path: str, body: Json = None, headers: Mapping[str, str] = {}
    ) -> Any:
        """Return the JSON object that is answered."""
        with self.open(method, path, body, headers) as answer:
            try:
                told = json.loads(self.rest(answer))
            except NOT_OURS:
                told = None
        if not isinstance(told, dict) or told.get("success") is not True:
            raise Failed(self._foreign(answer))
        return told

    def rest(self, answer: http.client.HTTPResponse) -> bytes:
        """Return all of an answer's body; else Unreachable."""
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Return what an attempt does, made again while a server restarts."""
        until_s = time.monotonic() + self.PATIENCE_S
        while True:
            try:
                return attempt()
            except Unreachable:
                if not self._met or time.monotonic() > until_s:
                    raise
                time.sleep(self.PAUSE_S)

    def _unreachable(self, error: Exception) -> Unreachable:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            return Unreachable(
                f"No secure connection to {self.url} ({why}): correct --url, or name a "
                "file with its CA's certificate in SSL_CERT_FILE."
            )
        return Unreachable(
            f"No server answers at {self.url} ({why}): start it (sudo systemctl start "
            f"{SERVICE}), or name another with --url."
        )

    def _refused(self, answer: http.client.HTTPResponse) -> Failed:
        try:
            told = json.loads(answer.read(1 << 20))
            text, code = str(told["error"]), str(told["code"])
        except (*NOT_OURS, OSError, http.client.HTTPException):
            kind = Unreachable if answer.status in AWAY else Failed
            return kind(self._foreign(answer))
        if code == "unauthorized":
            text += " Set CRON_TRIGGER_SECRET or CRON_TRIGGER_SECRET_FILE, or use sudo."
        kind = Unreachable if answer.status == 503 else Failed
        return kind(printable(text, 4000), EXIT_OF_CODE.get(code, 1))

    def _foreign(self, answer: http.client.HTTPResponse) -> str:
        away = "start the server behind it, or " if answer.status in AWAY else ""
        return (
            f"{self.url} answers {answer.status} {printable(answer.reason, 80)}, and "
            f"not as {SERVICE} does: {away}correct --url."
        )

    # ---- streams

    def follow(self, path: str, begin: int = 0, live: bool = True) -> Iterator[bytes]:
        """Yield a run's output from a byte on, over restarts of the server.

        To the run's end, or with `live` false as far as it goes now.  A reader may be
        slow (`| less`): the server then ends the answer, and the rest is asked for.
        """
        place, ended = begin, False
        while not ended:
            # Asked before the output: what it had by then is all there.
            run = self.patiently(lambda: self.ask("GET", path))["run"]
            ended = not live or run["status"] != RUNNING
            try:
                query = f"{path}/log?from={place}&follow={json.dumps(live)}"
                with self.open("GET", query) as answer:
                    while block := answer.read1(65536):
                        place += len(block)
                        yield block
                    if answer.length:  # `read1` says nothing of it
                        raise ConnectionError
            except (OSError, http.client.HTTPException, Unreachable):
                ended = False  # cut off: the rest is asked for
                time.sleep(self.PAUSE_S)

    def events(self) -> Iterator[tuple[str, str, str]]:
        """Yield id, name and data of each event, for ever, each of them once."""
        last: dict[str, str] = {}
        while True:
            answer = self.patiently(lambda: self.open("GET", "events", None, last))
            with answer, contextlib.suppress(OSError, http.client.HTTPException):
                fields: dict[str, str] = {}
                while line := answer.readline().decode("utf-8", "replace"):
                    name, _, value = line.rstrip("\n").partition(": ")
                    if name:
                        fields[name] = value
                        continue
                    if "id" in fields:  # one without data says where the stream begins
                        last["Last-Event-ID"] = fields["id"]
                    if "data" in fields:
                        yield fields.get("id", ""), fields["event"], fields["data"]
                    fields = {}


def client_of(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Client:
    """Return the client that flags and variables ask for; else ConfigError."""

    def given(name: str) -> Optional[str]:
        return flags.get(name) or environ.get(f"CRON_TRIGGER_{name.upper()}") or None

    # An ordinary user may read the service's address, where its file allows that.
    known = environment_file()
    port = given("port") or known.get("CRON_TRIGGER_PORT") or "9998"
    host = given("host") or known.get("CRON_TRIGGER_HOST") or "::"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    here = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    url = given("url") or here
    client = Client(url)
    secret, file = given("secret"), given("secret_file")
    if secret is None and file is None and (client.url == here or _is_here(client.url)):
        secret, file = _installed_secret()
    return Client(url, read_secret(secret, file, {}, serves=False))


def _is_here(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _installed_secret() -> tuple[Optional[str], Optional[str]]:
    """Return this host's secret, or its file, where that may be read."""
    values = environment_file()
    secret, file = map(values.get, ("CRON_TRIGGER_SECRET", "CRON_TRIGGER_SECRET_FILE"))
    if secret is None and file is None:  # which an ordinary user may not read
        with contextlib.suppress(OSError):
            secret = SECRET_HEADER.read_text("utf-8").partition(": ")[2].strip()
    return secret, file
