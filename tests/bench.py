#!/usr/bin/env python3
"""Measure the server, each figure beside its yardstick, taken in the same run.

    python3 tests/bench.py [--quick] [--json] [--only WORD]

It starts real servers on loopback in temporary folders, and what they are compared
with: `webhook` where it is installed, a constant `http.server`, a bare `Popen`.  The
contestants alternate, A B A B, so that a busy machine slows all of them alike; a
figure is a median, its spread the middle half of the rounds.  The exit status is 0,
goals met or not; the table says which.

A script's first instruction is seen through a named pipe that this program holds
open (`Bell`): the script's only line writes one byte into it.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import fcntl
import itertools
import json
import os
import platform
import re
import select
import selectors
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support import REPOSITORY, Server, limited, wait_until

from cron_trigger.host.keeper import KEEPER, SHELL
from cron_trigger.host.processes import Family, process, send

# ========================================================================== Figures
# How much is measured, and what becomes of it: rows of one table.


@dataclass(frozen=True)
class Scale:
    """How much of everything.  A round is one value of a ratio's spread."""

    rounds: int = 10
    samples: int = 40  # of each contestant, in a round
    rows: int = 1_000_000
    crons: int = 5000
    streams: int = 100
    running: int = 200
    runs: int = 20_000
    runs_a_round: int = 800
    starts: int = 15
    family: int = 2000
    idle_s: float = 30.0


FULL = Scale()
QUICK = Scale(
    rounds=2,
    samples=4,
    rows=5_000,
    crons=500,
    streams=20,
    running=20,
    runs=100,
    runs_a_round=60,
    starts=2,
    idle_s=1.0,
)

#: Between two triggers, so that the end of one run is not in the next one's time.
PAUSE_S = 0.003


@dataclass(frozen=True)
class Row:
    """A line of the table: one value for each round, and the goal for their median.

    With a yardstick the values are ratios, without one they are in `unit`.
    """

    what: str
    yardstick: str
    goal: float
    values: list[float]
    unit: str
    ours: float
    base: Optional[float] = None
    at_least: bool = False

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        shown = float(f"{self.value:.3g}")
        return shown >= self.goal if self.at_least else shown <= self.goal

    def spread(self) -> str:
        """Return the middle half of the rounds."""
        if len(self.values) < 2:
            return ""
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return f"{low:.3g}–{high:.3g}"

    def cells(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        has_base = self.base is not None
        return [
            self.what,
            f"{self.ours:.3g} {self.unit}",
            f"{self.yardstick}: {self.base:.3g} {self.unit}" if has_base else "—",
            f"{self.value:.3g}" if has_base else "",
            self.spread(),
            f"{sign} {self.goal:g}" + ("" if has_base else f" {self.unit}"),
            "yes" if self.met else "NO",
        ]


HEADINGS = ["what", "median", "yardstick", "ratio", "spread", "goal", "met"]

Sampler = Callable[[], float]
Rounds = list[list[float]]


def alternate(samplers: Mapping[str, Sampler], scale: Scale) -> dict[str, Rounds]:
    """Return each contestant's samples, by round; they take turns after each one."""
    taken: dict[str, Rounds] = {name: [] for name in samplers}
    for sampler in samplers.values():  # what is first of all is not counted
        sampler()
        sampler()
    for _ in range(scale.rounds):
        for name in samplers:
            taken[name].append([])
        for _ in range(scale.samples):
            for name, sampler in samplers.items():
                taken[name][-1].append(sampler())
    return taken


def compared(
    what: str, yardstick: str, goal: float, ours: Rounds, base: Rounds, **more: Any
) -> Row:
    """Return the row of two contestants' samples."""
    pairs = zip(map(statistics.median, ours), map(statistics.median, base))
    return Row(
        what,
        yardstick,
        goal,
        [a / b for a, b in pairs],
        ours=statistics.median(itertools.chain(*ours)),
        base=statistics.median(itertools.chain(*base)),
        **{"unit": "ms", **more},
    )


# ========================================================================== Clients


class Bell:
    """A named pipe that scripts write a byte into, and this program holds open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bell"
        os.mkfifo(self.path)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 4096):
                pass

    def wait(self) -> None:
        """Wait until it rings."""
        if not select.select([self.descriptor], [], [], 10)[0]:
            raise RuntimeError("a script did not begin within 10 s")
        self.drain()

    def script(self) -> str:
        return f"#!/bin/sh\necho >{self.path}\n"

    def close(self) -> None:
        os.close(self.descriptor)


class Connection:
    """A kept-alive connection that costs little of the time it measures."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send a request; return the body of the answer."""
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> bytes:
        """Return the body of the next answer; one above 299 ends the bench."""
        data = self.socket.recv(65536)
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        match = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        length = int(match[1]) if match else 0
        while len(body) < length:
            body += self._more()
        if int(head[9:12]) >= 300:
            raise RuntimeError(f"refused: {head[9:12].decode()} {body.decode()}")
        return body

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the connection was closed")
        return data

    def close(self) -> None:
        self.socket.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post_trigger(cron_name: str) -> bytes:
    body = json.dumps({"cronName": cron_name})
    return (
        "POST /trigger HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Stream(Connection):
    """A reader of /events."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.socket.sendall(get("/events"))
        self.data = b""
        self.read_until(b": joined\n\n")

    def read_until(self, mark: bytes) -> None:
        while mark not in self.data:
            self.data += self._more()
        self.data = self.data.partition(mark)[2]

    def drain(self) -> None:
        """Take what has come in, without waiting."""
        while select.select([self.socket], [], [], 0)[0]:
            self._more()


# ====================================================================== Contestants


def cron_names(count: int) -> list[str]:
    return [f"cron-{number}" for number in range(count)]


#: As the unit starts it.  Its modules are compiled, as install.sh does, by `main`.
AS_A_SERVICE: Mapping[str, Any] = {"python": (sys.executable, "-I")}


@contextlib.contextmanager
def our_server(
    crons: int = 7, rows: int = 0, days_ago: int = 30, **how: Any
) -> Iterator[Bench]:
    """Run our server with so many crons that ring, and so many rows of history.

    `how` is how Server starts it, where it is not as the service does.
    """
    entry = {"description": "Rings", "command": "ring", "estimatedDuration": "1s"}
    registry = dict.fromkeys(cron_names(crons), entry)
    server = Server(registry, start=False, **{**AS_A_SERVICE, **how})
    with contextlib.ExitStack() as stack:
        stack.enter_context(memory_folder(server))
        stack.enter_context(server)
        bench = stack.enter_context(contextlib.closing(Bench(server, crons)))
        if rows:
            server.start()
            server.stop()
            fill_history(server.state_dir / "history.db", rows, days_ago)
        server.start()
        yield bench


@contextlib.contextmanager
def memory_folder(server: Server) -> Iterator[None]:
    """Have the PID files where they are in use: in memory, as in /run."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="cron-trigger-test-", dir=shm) as folder:
        server.run_dir = Path(folder)
        yield


class Bench:
    """A server of ours as it is measured."""

    def __init__(self, server: Server, crons: int) -> None:
        self.server = server
        self.bell = Bell(server.folder)
        server.script("ring", self.bell.script())
        self._crons = itertools.cycle(cron_names(min(crons, 7)))
        self._connection: Optional[Connection] = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self.server.port)
        return self._connection

    def first_instruction_ms(self) -> float:
        """Trigger; return the time until the script's first instruction."""
        request = self._next_trigger()
        begun_s = time.perf_counter()
        self.connection.socket.sendall(request)
        self.bell.wait()
        ended_s = time.perf_counter()
        self.connection.answer()
        return (ended_s - begun_s) * 1000

    def answer_ms(self) -> float:
        """Trigger; return the time until the answer."""
        took_ms = timed_ms(self.connection, self._next_trigger())
        self.bell.wait()
        return took_ms

    def _next_trigger(self) -> bytes:
        """Return the next request, when its cron's last run is surely over."""
        name = next(self._crons)
        wait_for_lock(self.server.run_dir / f"{name}.pid")
        time.sleep(PAUSE_S)
        self.bell.drain()
        return post_trigger(name)

    def resident_kib(self) -> int:
        assert self.server.process
        text = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def ended_runs(self) -> int:
        return int(
            self.server.rows("select coalesce(sum(runs), 0) from run_totals")[0][0]
        )

    def close(self) -> None:
        self.bell.close()
        if self._connection:
            self._connection.close()


def wait_for_lock(path: Path) -> None:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def timed_ms(connection: Connection, request: bytes) -> float:
    begun_s = time.perf_counter()
    connection.ask(request)
    return (time.perf_counter() - begun_s) * 1000


def fill_history(path: Path, rows: int, days_ago: int) -> None:
    """Write ended runs of seven crons into a history, the oldest `days_ago`."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        counters = db.execute(
            "select name, sql from sqlite_master where type = 'trigger'"
        ).fetchall()
        db.execute("begin")
        for name, _ in counters:  # a row at a time, they would take minutes
            db.execute(f"drop trigger {name}")
        db.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n "
            "where i < :rows) insert into cron_executions (cron_name, status, "
            "started_at, completed_at, duration_ms, exit_code, trigger, client, pid, "
            "log_file, cpu_seconds, max_rss_bytes) "
            "select 'cron-' || (i % 7), 'completed', "
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', :ago, '+' || i || ' seconds'),"
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', :ago, '+' || i || ' seconds'),"
            "20 + i % 50, 0, 'http', '127.0.0.1', 1000 + i % 30000, "
            "'/var/log/qadhya/cron.log', 0.002, 3500000 from n",
            {"rows": rows, "ago": f"-{days_ago} days"},
        )
        # A clock that is far from the newest run is not trusted: nothing is pruned.
        now = "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
        db.execute(
            f"update cron_executions set started_at = {now}, completed_at = {now} "
            "where id = (select max(id) from cron_executions)"
        )
        db.execute(
            "insert into run_totals (cron_name, status, runs, duration_ms, "
            "last_completed_at) select cron_name, status, count(*), "
            "sum(duration_ms), max(completed_at) from cron_executions group by 1, 2"
        )
        for _, sql in counters:
            db.execute(sql)
        db.execute("commit")


class Popens:
    """Starts the keeper with the script as the server does, and does nothing else."""

    def __init__(self, bench: Bench) -> None:
        self._bell = bench.bell
        self._folder = bench.server.folder
        self._script = str(bench.server.folder / "ring")
        self._pid_file = os.open(bench.server.run_dir / "popen", os.O_RDWR | os.O_CREAT)
        self._log = os.open(bench.server.folder / "popen.log", os.O_WRONLY | os.O_CREAT)

    def first_instruction_ms(self) -> float:
        time.sleep(PAUSE_S)
        self._bell.drain()
        begun_s = time.perf_counter()
        keeper = subprocess.Popen(
            [SHELL, "-c", KEEPER, "cron x", self._script],
            stdin=self._pid_file,
            stdout=self._log,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=dict(os.environ),
            start_new_session=True,
        )
        self._bell.wait()
        took_ms = (time.perf_counter() - begun_s) * 1000
        keeper.wait()
        return took_ms

    def close(self) -> None:
        os.close(self._pid_file)
        os.close(self._log)


#: What webhook's users do by hand: a lock, a log, a record of start and end.
WRAPPER = """#!/bin/sh
exec 9>>{locks}/$1.lock
flock -n 9 || exit 75
echo "$(date -Is) $1 started" >>{folder}/record
{script} >>{folder}/$1.log 2>&1
code=$?
echo "$(date -Is) $1 ended: $code" >>{folder}/record
exit $code
"""


class Webhook:
    """Debian's webhook, with our script bare and in a wrapper."""

    def __init__(self, bench: Bench) -> None:
        self._bell = bench.bell
        folder = bench.server.folder
        script = str(folder / "ring")
        locks = bench.server.run_dir
        self._lock = locks / "x.lock"
        text = WRAPPER.format(folder=folder, locks=locks, script=script)
        bench.server.script("wrapper", text)
        wrapped = str(folder / "wrapper")
        hooks = [
            {"id": "bare", "execute-command": script},
            {
                "id": "wrapped",
                "execute-command": wrapped,
                "pass-arguments-to-command": [{"source": "string", "name": "x"}],
            },
        ]
        file = folder / "hooks.json"
        file.write_text(json.dumps(hooks))
        port = free_port()
        self._process = subprocess.Popen(
            ["webhook", "-hooks", str(file), "-ip", "127.0.0.1", "-port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._connection = wait_until(lambda: connected(port), what="webhook")

    def first_instruction_ms(self, hook: str) -> float:
        time.sleep(PAUSE_S)
        # The wrapper before may still hold it: it is answered before it has ended.
        wait_for_lock(self._lock)
        self._bell.drain()
        begun_s = time.perf_counter()
        self._connection.socket.sendall(get(f"/hooks/{hook}"))
        self._bell.wait()
        took_ms = (time.perf_counter() - begun_s) * 1000
        self._connection.answer()
        return took_ms

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connected(port: int) -> Optional[Connection]:
    try:
        return Connection(port)
    except OSError:
        return None


#: As fast as http.server gets: the answer goes out in one write.
CONSTANT = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def constant_server() -> Iterator[Connection]:
    """Run an http.server that always answers the same; yield a connection to it."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", CONSTANT], stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        connection = Connection(int(process.stdout.readline()))
        with contextlib.closing(connection):
            yield connection
    finally:
        process.stdout.close()
        process.terminate()
        process.wait(10)


# ====================================================================== Measurements
# One function for each group of rows.


def first_instruction(scale: Scale) -> Iterator[Row]:
    what = "request to the script's first instruction"
    with contextlib.ExitStack() as stack:
        bench = stack.enter_context(our_server())
        popens = stack.enter_context(contextlib.closing(Popens(bench)))
        samplers = {"ours": bench.first_instruction_ms}
        if shutil.which("webhook"):
            hooks = stack.enter_context(contextlib.closing(Webhook(bench)))
            samplers["webhook in a wrapper"] = lambda: hooks.first_instruction_ms(
                "wrapped"
            )
            samplers["webhook bare"] = lambda: hooks.first_instruction_ms("bare")
        samplers["Popen of keeper and script"] = popens.first_instruction_ms
        taken = alternate(samplers, scale)
    goals = {
        "webhook in a wrapper": 0.55,
        "webhook bare": 1.4,
        "Popen of keeper and script": 1.25,
    }
    for name in taken.keys() & goals.keys():
        yield compared(what, name, goals[name], taken["ours"], taken[name])


def answers(scale: Scale) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        constant = stack.enter_context(constant_server())
        few = stack.enter_context(our_server())
        hundred = stack.enter_context(our_server(crons=100))
        million = stack.enter_context(our_server(rows=scale.rows))
        for cron_name in cron_names(100):
            hundred.connection.ask(post_trigger(cron_name))
        wait_until(lambda: hundred.ended_runs() >= 100, 60, "the end of 100 runs")

        def constant_ms() -> float:
            return timed_ms(constant, get("/"))

        def trigger_rested_ms() -> float:
            return few.answer_ms()

        def constant_rested_ms() -> float:
            time.sleep(PAUSE_S)
            return constant_ms()

        taken = alternate(
            {"ours": trigger_rested_ms, "base": constant_rested_ms}, scale
        )
        name = "constant http.server"
        yield compared("answer of /trigger", name, 8, taken["ours"], taken["base"])
        for what, bench, path, goal in (
            ("answer of /health", few, "/health", 1.15),
            ("answer of /crons, 100 crons", hundred, "/crons", 4),
            (
                f"answer of /runs?limit=50, {scale.rows:,} rows",
                million,
                "/runs?limit=50",
                4,
            ),
        ):
            request = get(path)
            connection = bench.connection
            taken = alternate(
                {"ours": lambda: timed_ms(connection, request), "base": constant_ms},  # noqa: B023
                scale,
            )
            yield compared(what, name, goal, taken["ours"], taken["base"])


def throughput(scale: Scale) -> Iterator[Row]:
    """Runs completed per second, ours against a bare loop of threads."""
    count = scale.runs_a_round
    with our_server(crons=400) as bench:
        script = [str(bench.server.folder / "ring")]
        kept = [SHELL, "-c", KEEPER, "cron x", *script]
        drive(bench, 400, 50)
        taken = alternate(
            {
                "ours": lambda: count / drive(bench, 400, count),
                "script": lambda: count / popen_loop(script, count),
                "keeper and script": lambda: count / popen_loop(kept, count),
            },
            Scale(rounds=scale.rounds, samples=1),
        )
    for name in ("script", "keeper and script"):
        yield compared(
            "runs completed per second, 8 connections, 400 crons",
            f"Popen and wait of the {name}, 8 threads",
            0.6,
            taken["ours"],
            taken[name],
            unit="/s",
            at_least=True,
        )


def drive(bench: Bench, crons: int, count: int, connections: int = 8) -> float:
    """Complete so many runs over so many connections; return the seconds it took."""
    requests = itertools.cycle(map(post_trigger, cron_names(crons)))
    before = bench.ended_runs()
    begun_s = time.perf_counter()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(connections):
            connection = Connection(bench.server.port)
            stack.enter_context(contextlib.closing(connection))
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.socket.sendall(next(requests))
        sent = connections
        answered = 0
        while answered < count:
            ready = selector.select(20)
            if not ready:
                raise RuntimeError("no answer within 20 s")
            for key, _ in ready:
                key.data.answer()
                answered += 1
                if sent < count:
                    key.data.socket.sendall(next(requests))
                    sent += 1
    wait_until(lambda: bench.ended_runs() >= before + count, 60, "the end of all runs")
    bench.bell.drain()
    return time.perf_counter() - begun_s


def popen_loop(command: Sequence[str], count: int, threads: int = 8) -> float:
    """Do the same with nothing but Popen and wait; return the seconds it took."""

    def work() -> None:
        for _ in range(count // threads):
            subprocess.Popen(command, stdin=subprocess.DEVNULL).wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun_s = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begun_s


IMPORTS = "import http.server, sqlite3, subprocess, json"


def start(scale: Scale) -> Iterator[Row]:
    taken = alternate(
        {"ours": start_ms, "base": imports_ms}, Scale(rounds=scale.starts, samples=1)
    )
    yield compared(
        "start as the service starts it, until /health answers",
        f'python3 -I -c "{IMPORTS}"',
        2,
        taken["ours"],
        taken["base"],
    )


def start_ms() -> float:
    entry = {"description": "A", "command": "/bin/true"}
    with Server({"a": entry}, start=False, **AS_A_SERVICE) as server:
        begun_s = time.perf_counter()
        server.start()
        with contextlib.closing(Connection(server.port)) as connection:
            connection.ask(get("/health"))
        return (time.perf_counter() - begun_s) * 1000


def imports_ms() -> float:
    begun_s = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", IMPORTS], check=True)
    return (time.perf_counter() - begun_s) * 1000


#: How a server has more places for event streams than there are by default.
MORE_STREAMS: Mapping[str, Any] = {"program": limited("streams=Limit(200, 200)")}


def memory(scale: Scale) -> Iterator[Row]:
    yield idle_memory(scale)
    with our_server(crons=400) as bench:
        before = bench.resident_kib() / 1024
        drive(bench, 400, scale.runs)
        after = bench.resident_kib() / 1024
    what = f"resident memory after {scale.runs:,} runs"
    yield ratio_row(what, "idle", 1.1, after, before, "MiB")
    with our_server(**MORE_STREAMS) as bench:
        before = bench.resident_kib() / 1024
        with streams(bench, scale.streams):
            after = bench.resident_kib() / 1024
    what = f"resident memory with {scale.streams} event streams"
    yield ratio_row(what, "idle", 1.6, after, before, "MiB")


def idle_memory(scale: Scale) -> Row:
    taken: list[float] = []
    for _ in range(min(scale.rounds, 5)):
        with our_server() as bench:
            bench.connection.ask(get("/health"))
            taken.append(bench.resident_kib() / 1024)
    median = statistics.median(taken)
    return Row("resident memory, idle", "", 26, taken, "MiB", median)


def ratio_row(
    what: str, yardstick: str, goal: float, ours: float, base: float, unit: str
) -> Row:
    return Row(what, yardstick, goal, [ours / base], unit, ours, base)


@contextlib.contextmanager
def streams(bench: Bench, count: int) -> Iterator[list[Stream]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(Stream(bench.server.port)))
            for _ in range(count)
        ]


def flatness(scale: Scale) -> Iterator[Row]:
    """The time of a trigger as everything grows."""

    def row(what: str, bench: Bench, readers: Sequence[Stream] = ()) -> Row:
        turns = itertools.cycle(readers)

        def grown_ms() -> float:
            for _ in readers[:10]:
                next(turns).drain()
            return bench.answer_ms()

        taken = alternate({"ours": grown_ms, "base": base.answer_ms}, scale)
        what = f"answer of /trigger with {what}"
        base_name = "7 crons, nothing else"
        return compared(what, base_name, 1.15, taken["ours"], taken["base"])

    with our_server() as base:
        with our_server(crons=scale.crons) as bench:
            yield row(f"{scale.crons:,} crons", bench)
        with our_server(rows=scale.rows) as bench:
            yield row(f"{scale.rows:,} rows", bench)
        more = our_server(**MORE_STREAMS)
        with more as bench, streams(bench, scale.streams) as readers:
            yield row(f"{scale.streams} event streams", bench, readers)
        with our_server(crons=7 + scale.running) as bench:
            bench.server.script("ring-not", "#!/bin/sh\nexec sleep 3600\n")
            occupy(bench, scale.running)
            yield row(f"{scale.running} crons running", bench)


def occupy(bench: Bench, count: int) -> None:
    """Have so many crons run, those after the first seven."""
    entry = {"description": "Rests", "command": "ring-not"}
    registry = json.loads(bench.server.registry.read_text())
    registry.update(dict.fromkeys(cron_names(7 + count)[7:], entry))
    bench.server.write_registry(registry)
    for cron_name in cron_names(7 + count)[7:]:
        bench.connection.ask(post_trigger(cron_name))


def events(scale: Scale) -> Iterator[Row]:
    with our_server() as bench, contextlib.closing(Stream(bench.server.port)) as reader:

        def event_ms() -> float:
            bench.first_instruction_ms()  # which is the script's last, too
            begun_s = time.perf_counter()
            reader.read_until(b"event: run.finished")
            return (time.perf_counter() - begun_s) * 1000

        taken = alternate({"ours": event_ms}, scale)["ours"]
    values = [statistics.median(samples) for samples in taken]
    yield Row(
        "end of a script to its event at the reader",
        "",
        5,
        values,
        "ms",
        statistics.median(itertools.chain(*taken)),
    )


def wake_ups(scale: Scale) -> Iterator[Row]:
    with our_server() as bench:
        bench.first_instruction_ms()
        bench.close()
        time.sleep(1)
        before = switches(bench)
        time.sleep(scale.idle_s)
        count = switches(bench) - before
        bench.bell = Bell(Path(bench.server.log_dir))
    yield Row(
        f"wake-ups of an idle server in {scale.idle_s:g} s", "", 0, [count], "", count
    )


def switches(bench: Bench) -> int:
    """Return the voluntary context switches of all threads of a server."""
    assert bench.server.process
    tasks = Path(f"/proc/{bench.server.process.pid}/task").iterdir()
    texts = [(task / "status").read_text() for task in tasks]
    return sum(
        int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        for text in texts
    )


def pruning(scale: Scale) -> Iterator[Row]:
    what = f"answer of /trigger while {scale.rows:,} rows are pruned"
    with our_server() as base, our_server(rows=scale.rows, days_ago=400) as bench:
        ours: Rounds = []
        quiet: Rounds = []
        until_s = time.monotonic() + 600
        while not ours or "were pruned" not in bench.server.log_text():
            if time.monotonic() > until_s:
                raise RuntimeError("pruning did not end within 10 minutes")
            ours.append([bench.answer_ms() for _ in range(5)])
            quiet.append([base.answer_ms() for _ in range(5)])
    yield compared(what, "the same without", 2, ours, quiet)


#: A script that has so many processes, and says when.
LARGE_FAMILY = """
import os, signal, sys
for _ in range(int(sys.argv[1]) - 1):
    if not os.fork():
        signal.pause()
print(flush=True)
signal.pause()
"""


def family(scale: Scale) -> Iterator[Row]:
    """A look at the processes of a run, as each cancel and each end has one."""
    count = f"{scale.family:,} processes"
    with group([sys.executable, "-I", "-c", LARGE_FAMILY, str(scale.family)]) as many:
        with group(["sh", "-c", "setsid sleep 600 & echo; sleep 600"]) as few:
            yield looked_at(f"a look at a family of 2 beside {count}", few, 2, scale)
        others = scale.family - 1  # all but the keeper
        yield looked_at(f"a look at a family of {count}", many, others, scale)


def looked_at(what: str, leader: int, members: int, scale: Scale) -> Row:
    found = process(leader)
    looked = Family(leader, found.started if found else None)
    until_s = time.monotonic() + 60
    while len(looked.look()) != members:
        if time.monotonic() > until_s:
            raise RuntimeError("a look did not find the whole family")
    taken = alternate({"ours": lambda: look_ms(looked)}, scale)["ours"]
    values = [statistics.median(samples) for samples in taken]
    ours = statistics.median(itertools.chain(*taken))
    for one in looked.look():
        send(one, signal.SIGKILL)
    return Row(what, "", 50, values, "ms", ours)


def look_ms(looked: Family) -> float:
    begun_s = time.perf_counter()
    looked.look()
    return (time.perf_counter() - begun_s) * 1000


@contextlib.contextmanager
def group(command: list[str]) -> Iterator[int]:
    """Have a session that has said a line; yield its leader's number."""
    leader = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # of a shell whose children are killed
        start_new_session=True,
    )
    assert leader.stdout
    try:
        if not leader.stdout.readline():
            raise RuntimeError(f"this machine does not allow {command}")
        yield leader.pid
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.stdout.close()
        leader.wait()


GROUPS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "first": first_instruction,
    "answers": answers,
    "throughput": throughput,
    "start": start,
    "memory": memory,
    "flatness": flatness,
    "events": events,
    "wake-ups": wake_ups,
    "pruning": pruning,
    "family": family,
}

# =========================================================================== Output


def machine() -> str:
    kernel = ".".join(platform.release().split(".")[:2])
    python = platform.python_version()
    return f"{os.cpu_count()} cores, Linux {kernel}, Python {python}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |"
        for line in lines
    )


def as_json(rows: Sequence[Row]) -> str:
    listed = [
        {**asdict(row), "value": row.value, "met": row.met, "spread": row.spread()}
        for row in rows
    ]
    return json.dumps({"machine": machine(), "rows": listed}, indent=1)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", choices=GROUPS, action="append", help="a group only")
    options = parser.parse_args(argv)
    scale = QUICK if options.quick else FULL
    for name in os.environ.keys() - {"PATH", "HOME", "LANG", "TMPDIR"}:
        del os.environ[name]  # a service has but a few variables, too
    compileall.compile_dir(REPOSITORY / "cron_trigger", quiet=2)
    rows: list[Row] = []
    for name in options.only or GROUPS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.extend(GROUPS[name](scale))
    print(as_json(rows) if options.json else f"{machine()}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
