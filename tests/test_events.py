"""Server-sent events: what happened, in the order in which it did, nothing twice."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
import unittest
from typing import Any, Iterator, NamedTuple, Optional

from support import (
    PROGRAM,
    Server,
    Wire,
    limited,
    need_command,
    need_full,
    npm_folder,
    patched,
    slow,
    wait_until,
)
from test_schedule import at, plan, plan_soon, settled

from cron_trigger.registry.times import epoch_of

REGISTRY: dict[str, Any] = {
    **{f"c{n}": {"description": "Brief", "command": ["true"]} for n in range(8)},
    "quiet": {"description": "Sleeps", "command": ["sleep", "60"]},
    "short": {"description": "Sleeps a little", "command": ["sleep", "0.4"]},
    "told": {
        "description": "Ends when a file is there",
        "command": ["sh", "-c", "until [ -e over ]; do sleep 0.02; done"],
    },
}


class Event(NamedTuple):
    id: int
    name: str
    data: Any


class Listener:
    """A client of `/events` that knows no more than the HTML standard (9.2.6)."""

    def __init__(self, server: Server, last_event_id: Optional[int] = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 10)
        lines = ["GET /events HTTP/1.1", "Host: localhost"]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.file = http.client.HTTPResponse(self.socket)
        self.file.begin()
        self.status = self.file.status
        self.headers = {k.lower(): v for k, v in self.file.getheaders()}
        self.comments: list[str] = []

    def blocks(self) -> Iterator[list[str]]:
        """Yield the lines of each block until the stream ends."""
        lines: list[str] = []
        for raw in self.file:
            line = raw.decode("utf-8").rstrip("\n")
            if line:
                lines.append(line)
            elif lines:
                yield lines
                lines = []

    def events(self) -> Iterator[Event]:
        for lines in self.blocks():
            fields = dict(line.split(": ", 1) for line in lines if line[0] != ":")
            self.comments += [line for line in lines if line[0] == ":"]
            if "data" in fields:
                data = json.loads(fields["data"])
                yield Event(int(fields["id"]), fields["event"], data)

    def take(self, count: int) -> list[Event]:
        events = self.events()
        return [next(events) for _ in range(count)]

    def until(
        self, name: str, key: str = "run", id: Optional[int] = None
    ) -> list[Event]:
        """Return the events up to one of this name (of this run)."""
        found = []
        for event in self.events():
            found.append(event)
            if event.name == name and id in (None, event.data[key]["id"]):
                return found
        raise AssertionError(f"the stream ended before {name}")

    def joined(self) -> Listener:
        """Wait until the server has taken the stream up."""
        while self.file.readline() != b": joined\n":
            pass
        return self

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextlib.contextmanager
def listening(
    server: Server, last_event_id: Optional[int] = None
) -> Iterator[Listener]:
    listener = Listener(server, last_event_id)
    try:
        # What was missed comes before the comment that tells of the joining.
        yield listener if last_event_id is not None else listener.joined()
    finally:
        listener.close()


def last_id(server: Server) -> int:
    return int(server.rows("select coalesce(max(id), 0) from events")[0][0])


class EventsTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server(REGISTRY)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def test_the_shape_of_the_stream(self) -> None:
        listener = Listener(self.server)
        self.addCleanup(listener.close)
        self.assertEqual(listener.status, 200)
        kind = listener.headers["content-type"]
        self.assertEqual(kind, "text/event-stream; charset=utf-8")
        self.assertNotIn("content-length", listener.headers)
        self.assertEqual(listener.headers["cache-control"], "no-store")
        blocks = listener.blocks()
        self.assertEqual(next(blocks), ["retry: 2000"])
        begin = f"id: {last_id(self.server)}"
        self.assertEqual(next(blocks), [begin, ": joined"])
        run_id = self.server.trigger("c0").json["runId"]
        lines = next(blocks)
        self.assertEqual(
            [line.split(":")[0] for line in lines], ["id", "event", "data"]
        )
        self.assertEqual(json.loads(lines[2][6:])["run"]["id"], run_id)
        self.server.ended(run_id)

    def test_it_comes_in_chunks_but_to_an_old_client(self) -> None:
        for version, encoding in (("1.1", "chunked"), ("1.0", None)):
            with self.subTest(version), Wire(self.server.port) as wire:
                head = f"GET /events HTTP/{version}\r\nHost: localhost\r\n\r\n"
                reply = wire.send(head.encode()).answer(has_body=False)
                self.assertEqual(reply.headers.get("transfer-encoding"), encoding)
                self.assertEqual(reply.headers["connection"], "close")
                first = b"retry: 2000\n\n"
                first = b"d\r\n%b\r\n" % first if encoding else first
                while len(wire.rest) < len(first):
                    wire.receive()
                self.assertEqual(wire.rest[: len(first)], first)

    @slow
    def test_what_happens_once_the_answer_has_begun_is_told(self) -> None:
        late = (
            "join = m.Broadcaster.join",
            "def late(*words): m.time.sleep(0.5); join(*words)",
            "m.Broadcaster.join = late",
        )
        with Server(REGISTRY, program=patched(*late)) as server:
            for last in (None, 10**17):
                listener = Listener(server, last)
                self.addCleanup(listener.close)
                self.assertEqual(next(listener.blocks()), ["retry: 2000"])
                run_id = server.trigger("c0").json["runId"]
                self.assertEqual(len(listener.until("run.finished", id=run_id)), 2)

    @slow
    def test_an_end_comes_with_what_its_cron_is_after_it(self) -> None:
        """Also where the stream is written before the server has told of a change."""
        late = "lambda self, run: (whole(self, run), m.time.sleep(0.5))[0]"
        program = patched("whole = m.Runs.end", f"m.Runs.end = {late}")
        gone = {"description": "Gone", "command": "gone.sh"}
        registry = {"gone": gone, "other": gone}
        with Server(registry, program=program) as server, listening(server) as one:
            server.get("/crons")
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                pool.submit(server.trigger, "gone")
                query = "select count(*) from events where event = 'run.finished'"
                wait_until(lambda: server.rows(query) == [(1,)])
                server.trigger("other", runAt=at(3600))  # has the streams written
                told = one.until("run.finished")[-1].data
            self.assertEqual(told["cron"]["lastRun"], told["run"])

    @slow
    def test_whose_end_was_told_is_shown_as_ended(self) -> None:
        late = "lambda *a: (m.time.sleep(0.3), whole(*a))[1]"
        program = patched("whole = m.ActiveRun.close", f"m.ActiveRun.close = {late}")
        with Server(REGISTRY, program=program) as server, listening(server) as one:
            run_id = server.trigger("c0").json["runId"]
            server.trigger("c1")
            told = one.until("run.finished", id=run_id)[-1]
            self.assertEqual(server.run(run_id), told.data["run"])

    def test_a_runs_start_and_end_are_told(self) -> None:
        with listening(self.server) as listener:
            run_id = self.server.trigger("c0", requestedBy="Zoë\u2028").json
            self.assertEqual(run_id["code"], "invalid_request")
            run_id = self.server.trigger("c0", requestedBy="Zoë").json["runId"]
            started, finished = listener.take(2)
        self.assertEqual((started.name, finished.name), ("run.started", "run.finished"))
        self.assertEqual(finished.id, started.id + 1)
        self.assertEqual(started.data["run"]["status"], "running")
        self.assertEqual(started.data["run"]["requestedBy"], "Zoë")
        self.assertGreater(started.data["run"]["pid"], 0)
        self.assertEqual(started.data["host"], socket.gethostname())
        self.assertEqual(list(started.data), ["run", "host"])
        self.assertEqual(list(finished.data), ["run", "cron", "host"])
        self.assertEqual(finished.data["run"], self.server.run(run_id))
        # The cron's entry comes with it, so that nobody need ask for it.
        entry = self.server.get("/crons/c0").json["cron"]
        self.assertEqual(finished.data["cron"], entry)
        self.assertIsNone(entry["running"])
        self.assertEqual(entry["lastRun"]["id"], run_id)

    def test_an_event_comes_at_once(self) -> None:
        with listening(self.server) as listener:
            delays = []
            for _ in range(5):
                self.server.trigger("c1")
                listener.take(1)
                finished = listener.take(1)[0].data["run"]["completedAt"]
                delays.append(time.time() - epoch_of(finished))
            # On a busy machine one of five is enough.
            self.assertLess(min(delays), 0.1, delays)

    @slow
    def test_what_is_planned_is_told(self) -> None:
        with listening(self.server) as listener:
            cancelled = plan(self.server, "c2", at(60))
            self.server.request("DELETE", f"/scheduled/{cancelled}")
            fired = plan_soon(self.server, "c2")
            events = listener.until("run.finished")
        told = [(e.name, e.data.get("scheduled", {}).get("id")) for e in events]
        self.assertEqual(
            told,
            [
                ("schedule.created", cancelled),
                ("schedule.cancelled", cancelled),
                ("schedule.created", fired),
                ("schedule.fired", fired),
                ("run.started", None),
                ("run.finished", None),
            ],
        )
        self.assertEqual(events[0].data["scheduled"]["status"], "pending")
        self.assertEqual(events[3].data["scheduled"]["status"], "fired")
        run_id = events[4].data["run"]["id"]
        self.assertEqual(events[3].data["scheduled"]["runId"], run_id)

    @slow
    def test_a_new_registry_is_told(self) -> None:
        with listening(self.server) as listener:
            more = {"more": {"description": "More", "command": ["true"]}}
            self.server.write_registry({**REGISTRY, **more})
            self.server.get("/health")
            event = listener.take(1)[0]
            self.assertEqual(event.name, "registry.reloaded")
            self.assertEqual(event.data["crons"], len(REGISTRY) + 1)
            self.server.write_registry(REGISTRY)  # and nobody asks for anything
            self.assertEqual(listener.take(1)[0].data["crons"], len(REGISTRY))

    @slow
    def test_the_crontabs_run_is_told(self) -> None:
        with listening(self.server) as listener:
            self.assertEqual(self.server.command("run", "short").returncode, 0)
            started, finished = listener.take(2)
        self.assertEqual((started.name, finished.name), ("run.started", "run.finished"))
        self.assertEqual(started.data["run"]["trigger"], "cli")
        self.assertEqual(finished.data["run"]["status"], "completed")

    @slow
    def test_a_crontabs_start_is_told_while_it_runs(self) -> None:
        with listening(self.server) as listener:
            caller = self.server.spawn("run", "told")
            started = listener.take(1)[0]
            self.assertIsNone(caller.poll())
            crons = self.server.get("/crons").json["crons"]
            running = {c["cronName"]: c["running"] for c in crons}["told"]
            self.assertEqual(running["id"], started.data["run"]["id"])
            self.server.script("over", "")
            listener.until("run.finished")
            caller.communicate(timeout=10)

    def test_the_order_is_that_of_what_happened(self) -> None:
        before = last_id(self.server)
        with listening(self.server) as listener:
            threads = [
                threading.Thread(target=self.complete, args=(f"c{n}", 4))
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            events = listener.take(2 * 16)
            for thread in threads:
                thread.join()
        ids = [event.id for event in events]
        self.assertEqual(ids, list(range(before + 1, before + 33)))
        state: dict[str, str] = {}
        for event in events:
            cron = event.data["run"]["cronName"]
            # Of one cron, starts and ends take turns: it never runs twice.
            wanted = (
                "run.started" if state.get(cron) != "run.started" else "run.finished"
            )
            self.assertEqual(event.name, wanted)
            state[cron] = event.name

    def complete(self, cron: str, times: int) -> None:
        for _ in range(times):
            self.server.completed(cron)

    def test_a_reader_that_comes_and_goes_misses_nothing(self) -> None:
        first = last_id(self.server)
        worker = threading.Thread(target=self.complete, args=("c5", 20))
        worker.start()
        seen: list[int] = []
        while len(seen) < 40:
            with listening(self.server, seen[-1] if seen else first) as listener:
                seen += [e.id for e in listener.take(min(3, 40 - len(seen)))]
        worker.join()
        self.assertEqual(seen, list(range(first + 1, first + 41)))

    def test_a_last_event_id_of_the_future_waits_for_what_comes(self) -> None:
        with listening(self.server, 10**17) as listener:
            run_id = self.server.trigger("c6").json["runId"]
            self.assertEqual(listener.take(1)[0].data["run"]["id"], run_id)
            self.server.ended(run_id)

    def test_a_last_event_id_that_is_none_is_refused(self) -> None:
        for text in ("x", "-1", "1.5", "9" * 19):
            reply = self.server.get("/events", **{"Last-Event-ID": text})
            self.assertEqual(reply.status, 400, text)
            reply = self.server.get(f"/events?lastEventId={text}")
            self.assertIn("Last-Event-ID must be", reply.json["error"])

    def test_the_last_event_id_may_be_in_the_query(self) -> None:
        self.server.completed("c6")
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, 10)
        self.addCleanup(connection.close)
        connection.request("GET", "/events?lastEventId=0")
        with connection.getresponse() as answer:
            lines = [answer.readline() for _ in range(3)]
        self.assertEqual(lines, [b"retry: 2000\n", b"\n", b"id: 1\n"])

    def test_head_does_not_hang(self) -> None:
        reply = self.server.request("HEAD", "/events")
        self.assertEqual((reply.status, reply.body), (200, b""))

    def test_streams_are_bounded_and_places_come_back(self) -> None:
        # None is pushed out, however long this takes.
        server = Server(REGISTRY, program=limited("safe_s=60.0"))
        self.addCleanup(server.__exit__)
        server.start()
        listeners: list[Listener] = []
        try:
            while (listener := Listener(server)).status == 200:
                listeners.append(listener.joined())
            self.assertEqual((listener.status, len(listeners)), (503, 32))
            self.assertIn("retry-after", listener.headers)
        finally:
            for one in [*listeners, listener]:
                one.close()
        wait_until(lambda: server.request("HEAD", "/events").status == 200)
        with listening(server):
            pass

    def test_a_reader_that_goes_away_leaves_nothing(self) -> None:
        assert self.server.process
        fds = f"/proc/{self.server.process.pid}/fd"
        before = len(os.listdir(fds))
        for _ in range(5):
            with listening(self.server):
                pass
        wait_until(lambda: len(os.listdir(fds)) <= before, what="the descriptors")


def add_events(server: Server, count: int, size: int) -> None:
    """Put events into the history that no server could be made to tell."""
    text = json.dumps({"run": {"id": 0, "filler": "x" * size}})
    db = sqlite3.connect(server.state_dir / "history.db", timeout=10)
    with contextlib.closing(db), db:
        query = "insert into events (event, data) values ('test', ?)"
        db.executemany(query, [[text]] * count)


def has_ended(server: Server, name: str) -> bool:
    """Tell whether a cron's keeper has written an exit status, server or not."""
    return len((server.run_dir / f"{name}.pid").read_text().split()) == 2


class EventsAcrossRestartTest(unittest.TestCase):
    def test_what_was_missed_is_replayed_by_the_next_server(self) -> None:
        with Server(REGISTRY) as server:
            with listening(server) as listener:
                run_id = server.trigger("told").json["runId"]
                started = listener.take(1)[0]
                server.kill()
                self.assertEqual(list(listener.events()), [])
            server.script("over", "")
            wait_until(lambda: has_ended(server, "told"))
            server.start()
            with listening(server, started.id) as listener:
                finished = listener.take(1)[0]
            self.assertEqual(finished.name, "run.finished")
            self.assertEqual(finished.data["run"]["id"], run_id)
            self.assertEqual(finished.data["run"]["status"], "completed")
            self.assertGreater(finished.id, started.id)

    @slow
    def test_a_start_that_could_not_be_recorded_is_told_before_the_end(self) -> None:
        die = "lambda *_: m.os.kill(m.os.getpid(), m.signal.SIGKILL)"
        program = patched(f"m.Runs.started = {die}")
        with Server(REGISTRY, program=program) as server:
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.trigger("c0")
            assert server.process
            server.process.wait(10)
            wait_until(lambda: has_ended(server, "c0"))
            server.kill()
            server.program = [str(PROGRAM)]
            server.start()
            with listening(server, 0) as listener:
                told = listener.take(2)
        self.assertEqual([e.name for e in told], ["run.started", "run.finished"])
        self.assertGreater(told[0].data["run"]["pid"], 0)

    def test_the_crontabs_run_without_a_server_is_replayed(self) -> None:
        need_full()
        with Server(REGISTRY) as server:
            position = last_id(server)
            server.stop()
            self.assertEqual(server.command("run", "c0").returncode, 0)
            server.start()
            with listening(server, position) as listener:
                told = [e.name for e in listener.take(2)]
        self.assertEqual(told, ["run.started", "run.finished"])

    def test_an_orderly_stop_ends_the_stream(self) -> None:
        # One that waited for its client would not be over when `stop` gives up.
        program = patched("m.Daemon.DRAIN_S = 60.0")
        with Server(REGISTRY, program=program) as server, listening(server) as listener:
            self.assertEqual(server.stop(), 0)
            self.assertEqual(list(listener.events()), [])

    def test_an_orderly_stop_says_that_nothing_more_comes(self) -> None:
        with Server(REGISTRY) as server, Wire(server.port) as wire:
            wire.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b": joined" not in wire.rest:
                wire.receive()
            server.stop()
            with contextlib.suppress(ConnectionError):
                while True:
                    wire.receive()
            self.assertTrue(wire.rest.endswith(b"\r\n0\r\n\r\n"), wire.rest)

    @slow
    def test_comments_keep_the_connection_alive(self) -> None:
        program = limited("comment_s=0.1")
        with Server(REGISTRY, program=program) as server, listening(server) as one:
            lines = [one.file.readline() for _ in range(7)]
            comments = [line for line in lines if line.strip()]
            self.assertEqual(comments, [b":\n"] * 3)

    @slow
    def test_a_slow_reader_is_dropped_and_never_waited_for(self) -> None:
        with Server(REGISTRY) as server, listening(server) as prompt:
            slow = Listener(server).joined()
            # Events as large as none is: some 30 MB, more than any socket takes.
            for _ in range(30):
                add_events(server, 10, 100_000)
                run_id = server.trigger("c0").json["runId"]
                events = prompt.until("run.finished", id=run_id)
                self.assertEqual(len(events), 12)
            self.assertEqual(server.get("/health").json["status"], "healthy")
            # What it was sent before it was dropped is less than all.
            got: list[Event] = []
            with contextlib.suppress(ConnectionError, http.client.IncompleteRead):
                for event in slow.events():
                    got.append(event)
            self.assertLess(len(got), 360)
            slow.close()


#: Prints each event's id and name as a line; connects again by itself.
CLIENT = """
const {EventSource} = require("eventsource");
const source = new EventSource(process.argv[2]);
const names = ["run.started", "run.finished", "schedule.created", "schedule.fired"];
for (const name of names) {
  source.addEventListener(name, (e) => {
    JSON.parse(e.data);
    console.log(`${e.lastEventId} ${e.type}`);
  });
}
source.addEventListener("open", () => console.log("open"));
"""


class BrowserClientTest(unittest.TestCase):
    def test_the_eventsource_client_over_a_restart(self) -> None:
        need_full()
        node = need_command("node")
        folder = npm_folder("eventsource@3")
        with Server(REGISTRY) as server:
            script = folder / f"client-{os.getpid()}.js"
            script.write_text(CLIENT)
            self.addCleanup(script.unlink)
            client = subprocess.Popen(
                [node, str(script), f"http://127.0.0.1:{server.port}/events"],
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                self.follow(server, client)
            finally:
                client.kill()
                client.communicate()

    def follow(self, server: Server, client: subprocess.Popen[str]) -> None:
        assert client.stdout
        lines: list[str] = []
        stdout = client.stdout
        reader = threading.Thread(
            target=lambda: lines.extend(iter_lines(stdout, lines))
        )
        reader.daemon = True
        reader.start()
        wait_until(lambda: "open" in lines)
        server.completed("c0")
        run_id = server.trigger("short").json["runId"]
        server.ended(settled(server, plan_soon(server, "c1"))["runId"])
        wait_until(lambda: any("started" in line for line in lines))
        port = server.port
        server.kill()
        wait_until(lambda: has_ended(server, "short"))
        server.start(port=port)
        server.ended(run_id)
        server.completed("c2")
        total = last_id(server)
        wait_until(lambda: any(line.startswith(f"{total} ") for line in lines), 20)
        told = [line for line in lines if line != "open"]
        stored = server.rows("select id, event from events order by id")
        self.assertEqual(told, [f"{number} {name}" for number, name in stored])


def iter_lines(stream: Any, lines: list[str]) -> list[str]:
    for line in stream:
        lines.append(line.strip())
    return []


if __name__ == "__main__":
    unittest.main()
