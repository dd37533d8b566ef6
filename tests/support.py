"""What the tests share: a real server in a folder of its own, and one way to wait."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, TypeVar

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = REPOSITORY / "cron_trigger_server.py"
sys.path.insert(0, str(REPOSITORY))

#: Set where nothing may be skipped: in CI.
NO_SKIP = os.environ.get("CRON_TRIGGER_TEST_NO_SKIP") == "1"
#: Set where the slow tests and those that need many tools run, too.
FULL = os.environ.get("CRON_TRIGGER_TEST_FULL") == "1"


#: A test, or a class of tests.
Test = TypeVar("Test", bound=Callable[..., Any])


# A shell starts what it has in the background deaf to these, nohup(1) to the last, and
# so would be every process that a test starts.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, lambda *_: None),  # this one stays deaf
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


# A test run starts the program a thousand times: it is compiled once, outside the tree.
BYTECODE = tempfile.TemporaryDirectory(prefix="cron-trigger-bytecode-")
os.chmod(BYTECODE.name, 0o755)
os.environ["PYTHONPYCACHEPREFIX"] = BYTECODE.name
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def need(condition: object, reason: str) -> None:
    """Skip the test, saying why, unless `condition` holds; fail where NO_SKIP."""
    if condition:
        return
    if NO_SKIP:
        raise AssertionError(f"nothing may be skipped here, but: {reason}")
    raise unittest.SkipTest(reason)


def need_full() -> None:
    """Skip a slow test in the plain run."""
    need(FULL, "slow: set CRON_TRIGGER_TEST_FULL=1 to run it")


def slow(test: Test) -> Test:
    """Keep a test, or a class of them, for the full run: the decorator's way to say so.

    Slow are tests of which the plain run has cheaper ones of the same promise.
    """
    reason = "slow: set CRON_TRIGGER_TEST_FULL=1 to run it"
    return test if FULL else unittest.skip(reason)(test)


def need_command(name: str) -> str:
    """Return the path of a program; skip where it is missing."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    need(path, f"{name} is not installed")
    return str(path)


#: How a command's output may be read, or not: its exit status is the same for all.
READERS = (
    "{} | true",
    "{} 2>&1 | true",
    "{} >/dev/full",
    "{} >/dev/full 2>&1",
    "{} >&- 2>&-",
)
#: What tests install is kept from run to run.
CACHE = Path(
    os.environ.get("CRON_TRIGGER_TEST_CACHE")
    or Path.home() / ".cache" / "cron-trigger-server-tests"
)


def npm_folder(*packages: str) -> Path:
    """Return a folder whose `node_modules` has these packages, installed but once.

    Skips where there is no npm.  Only the full run asks the registry: the plain one
    takes nothing from outside this machine.
    """
    need_command("node")
    npm = need_command("npm")
    made = CACHE / f"npm-{hashlib.sha256(repr(packages).encode()).hexdigest()[:12]}"
    if made.is_dir():
        return made
    need(FULL, f"{', '.join(packages)}: set CRON_TRIGGER_TEST_FULL=1 to install it")
    CACHE.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix="npm-", dir=CACHE))
    # Types and plain JavaScript: nothing of it runs while it is installed.
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    done = subprocess.run(
        [npm, "install", *quiet, f"--prefix={half}", *packages],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 0:
        with contextlib.suppress(OSError):  # another run of the tests was faster
            half.rename(made)
    shutil.rmtree(half, ignore_errors=True)
    need(made.is_dir(), f"npm can't install {packages}: {done.stderr[-300:]}")
    return made


def children(pid: int) -> list[int]:
    """Return the processes whose parent this one is: proc(5)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (path / "stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.name))
    return found


def wait_until(
    predicate: Callable[[], Any], timeout_s: float = 15.0, what: str = "it"
) -> Any:
    """Return the predicate's first true value; the only way in which tests wait."""
    deadline_s = time.monotonic() + timeout_s
    pause_s = 0.002
    while True:
        # Before the look: whoever was held up after it looks once more.
        is_late = time.monotonic() > deadline_s
        value = predicate()
        if value:
            return value
        if is_late:
            raise AssertionError(f"{what} did not come about within {timeout_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)


def patched(*statements: str) -> tuple[str, str]:
    """Return a `program` for Server: the module, `m`, changed before it starts."""
    head = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'tests')!r})"
    return "-c", "\n".join(
        [head, "from flat import m", *statements, "sys.exit(m.main())"]
    )


def limited(limits: str) -> tuple[str, str]:
    """Return a `program` for Server: one with other limits, such as "send_s=0.3"."""
    return "-c", "\n".join(
        [
            f"import sys; sys.path.append({str(REPOSITORY)!r})",
            "from cron_trigger.cli import main",
            "from cron_trigger.registry.limits import Limit, Limits",
            f"sys.exit(main(limits=Limits({limits})))",
        ]
    )


class Reply:
    """An answer: status, headers (lower case names) and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = dict(headers)
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection on which a test says exactly which bytes go out, and from where."""

    def __init__(
        self, port: int, source: str = "127.0.0.1", timeout_s: float = 15.0
    ) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout_s, source_address=(source, 0)
        )
        #: What came in beyond the answers that were read.
        self.rest = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send; a server that has closed already may have answered before."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def answer(self, has_body: bool = True) -> Reply:
        """Read one answer; raises ConnectionError where none comes."""
        while b"\r\n\r\n" not in self.rest:
            self.receive()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        length = int(headers.get("content-length", "0")) if has_body else 0
        while len(self.rest) < length:
            self.receive()
        body, self.rest = self.rest[:length], self.rest[length:]
        return Reply(int(first.split()[1]), headers, body)

    def receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.rest += data

    def closed(self) -> bool:
        """Return True once the server has closed, with nothing more to read."""
        try:
            return not self.rest and not self.socket.recv(1)
        except ConnectionError:
            return True


class Server:
    """A real server on a free port of loopback, with folders of its own.

    `registry` is an object of entries; scripts are written by `script`.  Used as a
    context manager: it starts the server, and at the end nothing is left, neither
    processes (those whose environment names this registry's runs are ended by PID)
    nor files.
    """

    def __init__(
        self,
        registry: Optional[Mapping[str, Any]] = None,
        environ: Optional[Mapping[str, str]] = None,
        arguments: Sequence[str] = (),
        start: bool = True,
        python: Sequence[str] = (sys.executable,),
        program: Sequence[str] = (str(PROGRAM),),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-test-"))
        self.registry = self.folder / "crons.json"
        self.log_dir = self.folder / "log"
        self.state_dir = self.folder / "state"
        self.run_dir = self.folder / "run"
        self.environ = dict(environ or {})
        self.arguments = list(arguments)
        self.python = list(python)
        self.program = list(program)
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.port = 0
        self._start = start
        self.write_registry(registry or {})

    # ---- files

    def write_registry(self, registry: Mapping[str, Any]) -> None:
        """Write the registry as an editor does: a new file in the old one's place."""
        text = json.dumps(registry, ensure_ascii=False)
        fresh = self.registry.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, self.registry)

    def script(self, name: str, text: str, mode: int = 0o755) -> str:
        """Write a script beside the registry; return its relative path."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return name

    def log_text(self, name: str = "cron-trigger-server") -> str:
        path = self.log_dir / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Ask the history itself."""
        path = self.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
            return db.execute(query, values).fetchall()

    # ---- process

    def folder_flags(self) -> list[str]:
        return [
            f"--registry={self.registry}",
            f"--log-dir={self.log_dir}",
            f"--state-dir={self.state_dir}",
            f"--run-dir={self.run_dir}",
        ]

    def clean_environ(self) -> dict[str, str]:
        """Return an environment without settings of whoever runs the tests."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CRON_")}
        for name in ("NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_PID", "LISTEN_FDS"):
            kept.pop(name, None)
        return {**kept, **self.environ}

    def start(self, *arguments: str, port: int = 0) -> Server:
        """Start the server and wait until it says that it listens."""
        self.log = open(self.folder / "stderr", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [
                *self.python,
                *self.program,
                "--host=127.0.0.1",
                f"--port={port}",
                *self.folder_flags(),
                *self.arguments,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=self.clean_environ(),
        )
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        match = re.search(r"http://\S+?:(\d+)$", line.strip())
        if not match:
            self.process.wait(10)
            raise AssertionError(f"the server did not start: {line!r} {self.stderr()}")
        self.port = int(match[1])
        return self

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL the server; its runs go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM the server; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self.process and self.process.stdout
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return code

    def command(
        self, *arguments: str, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line with this server's folders."""
        return subprocess.run(
            [*self.python, *self.program, *arguments, *self.folder_flags()],
            capture_output=True,
            text=True,
            env=self.clean_environ(),
            timeout=timeout_s,
            check=False,
        )

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line with this server's folders, without waiting."""
        return subprocess.Popen(
            [*self.python, *self.program, *arguments, *self.folder_flags()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.clean_environ(),
        )

    def read_by(self, reader: str, command: str) -> int:
        """Return the exit status of a command line that is read in a way of READERS."""
        words = [*self.python, *self.program, *command.split()]
        if "--url" not in command:
            words += self.folder_flags()
        line = reader.format(shlex.join(words))
        done = subprocess.run(
            ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.clean_environ(),
            timeout=30,
            check=False,
        )
        return done.returncode

    def __enter__(self) -> Server:
        return self.start() if self._start else self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()
        self.end_runs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end_runs(self) -> None:
        """SIGKILL what runs in this server's folders, keepers first."""
        for pid_file in self.run_dir.glob("*.pid"):
            words = pid_file.read_text().split()
            if len(words) == 1 and _is_keeper(int(words[0])):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(words[0]), signal.SIGKILL)

    # ---- requests

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout_s: float = 20,
    ) -> Reply:
        """Send one request on a connection of its own.

        An object as body goes as JSON with its Content-Type, bytes as they are.
        """
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=timeout_s
        )
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            names = {k.lower(): v for k, v in answer.getheaders()}
            return Reply(answer.status, names, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def trigger(self, name: str, **fields: Any) -> Reply:
        """POST /trigger for a cron, with further fields of the body."""
        return self.request("POST", "/trigger", {"cronName": name, **fields})

    def run(self, run_id: int) -> Any:
        reply = self.get(f"/runs/{run_id}")
        assert reply.status == 200, reply.text
        return reply.json["run"]

    def ended(self, run_id: int, timeout_s: float = 20) -> Any:
        """Return a run once it has ended."""
        return wait_until(
            lambda: (run := self.run(run_id))["status"] != "running" and run,
            timeout_s,
            f"the end of run {run_id}",
        )

    def completed(self, name: str, **fields: Any) -> Any:
        """Trigger a cron, and return its run once it has ended."""
        reply = self.trigger(name, **fields)
        assert reply.status == 202, reply.text
        return self.ended(reply.json["runId"])


def _is_keeper(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"cron " in command and b"trap :" in command
