"""A run's output while it runs: as it comes, only its own, to its end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import signal
import socket
import time
import unittest
from pathlib import Path
from typing import Any, Iterator

from support import Server, limited, need_full, patched, slow, wait_until

from cron_trigger.registry.threads import IDLE_LIMIT

#: A script that says what the test asks it to say, when it asks: what stands in the
#: file `more` is printed, and it ends when that is "end".
SPEAKER = """#!/usr/bin/env python3
import os, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
for number in range(1000000):
    path = os.path.join(folder, f"say{number}")
    while not os.path.exists(path):
        time.sleep(0.005)
    text = open(path).read()
    if text == "end":
        break
    sys.stdout.write(text)
    sys.stdout.flush()
"""

REGISTRY = {
    "speaker": {"description": "Speaks", "command": "speaker.py"},
    "quiet": {"description": "Sleeps", "command": ["sleep", "60"]},
    "brief": {"description": "Says one line", "command": ["echo", "brief"]},
    "dated": {"description": "Says when", "command": "dated.sh"},
    "raw": {"description": "Says bytes", "command": ["printf", "a\\0b\\377\\r\\nend"]},
}
DATED = "until [ -e enough ]; do date +%s.%N; sleep 0.037; done\n"


def speaking(server: Server) -> Server:
    server.script("speaker.py", SPEAKER)
    server.script("dated.sh", "#!/bin/sh\n" + DATED)
    return server


class Speaker:
    """A running `speaker` that prints what it is told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.said = 0
        for path in server.folder.glob("say*"):
            path.unlink()
        self.run_id: int = server.trigger("speaker").json["runId"]

    def say(self, text: str) -> None:
        have_said(self.server, self.said, text)
        self.said += 1

    def end(self) -> Any:
        self.say("end")
        return self.server.ended(self.run_id)


def have_said(server: Server, number: int, text: str) -> None:
    """Tell the `speaker` what to print next, in one step: it reads what is there."""
    fresh = server.folder / "fresh"
    fresh.write_text(text)
    os.replace(fresh, server.folder / f"say{number}")


@contextlib.contextmanager
def following(
    server: Server, run_id: int, query: str = "follow=true"
) -> Iterator[http.client.HTTPResponse]:
    """A client that follows a run; its answer is read as it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", f"/runs/{run_id}/log?{query}")
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def threads(server: Server) -> int:
    assert server.process
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


class FollowTest(unittest.TestCase):
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        program = limited("followers=Limit(2, 4), safe_s=60.0")
        cls.server = speaking(Server(REGISTRY, program=program))
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.start()

    def test_output_comes_as_it_is_written_and_ends_with_the_run(self) -> None:
        speaker = Speaker(self.server)
        with following(self.server, speaker.run_id) as answer:
            self.assertEqual(answer.getheader("Transfer-Encoding"), "chunked")
            kind = answer.getheader("Content-Type")
            self.assertEqual(kind, "text/plain; charset=utf-8")
            speaker.say("first\n")
            self.assertEqual(answer.read1(100), b"first\n")
            speaker.say("half a li")
            self.assertEqual(answer.read1(100), b"half a li")
            speaker.end()
            self.assertEqual(answer.read(), b"")

    @slow
    def test_a_run_that_is_just_being_started_is_followed_to_its_end(self) -> None:
        late = "lambda *a: (m.time.sleep(1), watch(*a))[1]"
        program = patched("watch = m.Ending.watch", f"m.Ending.watch = {late}")
        command = ["sh", "-c", "echo first; sleep 2; echo last"]
        registry = {"two": {"description": "Two lines", "command": command}}
        path = "/runs?status=running"
        with Server(registry, program=program) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                pool.submit(server.trigger, "two")
                [run] = wait_until(lambda: server.get(path).json["runs"])
                answer = server.get(f"/runs/{run['id']}/log?follow=true")
            self.assertEqual(answer.text, "first\nlast\n")

    @slow
    def test_a_run_whose_log_has_not_begun_is_followed_to_its_end(self) -> None:
        late = "lambda *a: (m.time.sleep(1), note(*a))"
        program = patched(
            "import cron_trigger.runs.launch as launch",
            "note = launch.write_note",
            f"launch.write_note = {late}",
        )
        registry = {"one": {"description": "One line", "command": ["echo", "first"]}}
        with Server(registry, program=program) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                pool.submit(server.trigger, "one")
                [run] = wait_until(
                    lambda: server.get("/runs?status=running").json["runs"]
                )
                answer = server.get(f"/runs/{run['id']}/log?follow=true")
            self.assertEqual((answer.status, answer.text), (200, "first\n"))

    @slow
    def test_first_byte_comes_soon_after_it_was_written(self) -> None:
        run_id = self.server.trigger("dated").json["runId"]
        delays: list[float] = []
        with following(self.server, run_id) as answer:
            # 50 ms is the promise; on a busy machine one of many keeps it.
            while len(delays) < 400 and min(delays, default=1.0) >= 0.05:
                delays.append(time.time() - float(answer.readline()))
            self.server.script("enough", "")
            self.assertRegex(answer.read(), rb"^([\d.]+\n)*$")
        self.assertLess(min(delays), 0.05, delays)

    def test_tail_begins_with_the_last_lines_and_goes_on(self) -> None:
        speaker = Speaker(self.server)
        speaker.say("one\ntwo\nthree\n")
        path = f"/runs/{speaker.run_id}/log"
        wait_until(lambda: b"three" in self.server.get(path).body)
        for lines, text in ((0, b""), (1, b"three\n"), (2, b"two\nthree\n")):
            self.assertEqual(self.server.get(f"{path}?tail={lines}").body, text)
        self.assertEqual(self.server.get(f"{path}?tail=99").body, b"one\ntwo\nthree\n")
        with following(self.server, speaker.run_id, "follow=true&tail=1") as answer:
            speaker.say("four\n")
            speaker.end()
            self.assertEqual(answer.read(), b"three\nfour\n")

    def test_it_goes_on_where_a_reader_was_cut_off(self) -> None:
        speaker = Speaker(self.server)
        speaker.say("one\ntwo\n")
        path = f"/runs/{speaker.run_id}/log"
        wait_until(lambda: b"two" in self.server.get(path).body)
        for first, text in ((0, "one\ntwo\n"), (3, "\ntwo\n"), (8, ""), (10**15, "")):
            self.assertEqual(self.server.get(f"{path}?from={first}").text, text)
        with following(self.server, speaker.run_id, "follow=true&from=6") as answer:
            self.assertEqual(answer.read1(100), b"o\n")
            speaker.say("three\n")
            speaker.end()
            self.assertEqual(answer.read(), b"three\n")
        self.assertEqual(self.server.get(f"{path}?from=8").text, "three\n")

    def test_an_ended_run_is_answered_whole_with_its_length(self) -> None:
        run = self.server.completed("raw")
        with following(self.server, run["id"]) as answer:
            self.assertEqual(answer.getheader("Content-Length"), "9")
            self.assertEqual(answer.read(), b"a\0b\xff\r\nend")

    def test_only_this_runs_bytes_also_after_a_rotation(self) -> None:
        self.server.completed("brief")
        log = self.server.log_dir / "speaker.log"
        speaker = Speaker(self.server)
        with following(self.server, speaker.run_id) as answer:
            speaker.say("before\n")
            self.assertEqual(answer.read1(100), b"before\n")
            log.rename(f"{log}.1")
            speaker.say("after\n")
            speaker.end()
            self.assertEqual(answer.read(), b"after\n")
        following_one = Speaker(self.server)
        following_one.say("another run\n")
        following_one.end()
        path = f"/runs/{speaker.run_id}/log"
        self.assertEqual(self.server.get(path).body, b"before\nafter\n")
        self.assertEqual(self.server.get(f"{path}?tail=1").body, b"after\n")

    def test_a_client_that_goes_away_frees_its_thread(self) -> None:
        # Some wait for more to do; nobody's stays.
        before = threads(self.server) + IDLE_LIMIT
        run_id = self.server.trigger("quiet").json["runId"]

        def is_served() -> bool:
            with following(self.server, run_id) as answer:
                return answer.status == 200

        try:
            # More than may follow at once, one after the other.
            for _ in range(IDLE_LIMIT + 5):
                wait_until(is_served)
            wait_until(lambda: threads(self.server) <= before, what="the threads")
        finally:
            self.server.request("POST", f"/runs/{run_id}/cancel")
            self.server.ended(run_id)

    def test_too_many_followers_are_told_to_come_later(self) -> None:
        speaker = Speaker(self.server)
        one = following(self.server, speaker.run_id)
        two = following(self.server, speaker.run_id)
        with one as first, two as second:
            reply = self.server.get(f"/runs/{speaker.run_id}/log?follow=true")
            self.assertEqual(reply.status, 503)
            self.assertEqual(reply.json["code"], "overloaded")
            self.assertIn("retry-after", reply.headers)
            speaker.end()
            self.assertEqual(first.read() + second.read(), b"")

    def test_http_1_0_gets_plain_bytes_until_the_end(self) -> None:
        speaker = Speaker(self.server)
        with socket.create_connection(("127.0.0.1", self.server.port), 20) as client:
            request = f"GET /runs/{speaker.run_id}/log?follow=true HTTP/1.0\r\n\r\n"
            client.sendall(request.encode())
            received = client.recv(65536)  # it follows
            speaker.say("plain\n")
            speaker.end()
            received += b"".join(iter(lambda: client.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head.lower())
        self.assertNotIn(b"content-length", head.lower())
        self.assertIn(b"Connection: close", head)
        self.assertEqual(body, b"plain\n")

    def test_head_answers_at_once_without_a_body(self) -> None:
        speaker = Speaker(self.server)
        path = f"/runs/{speaker.run_id}/log?follow=true"
        reply = self.server.request("HEAD", path)
        self.assertEqual((reply.status, reply.body), (200, b""))
        speaker.end()

    def test_a_wrong_query_is_refused(self) -> None:
        run_id = self.server.completed("brief")["id"]
        for query in ("tail=-1", "tail=x", "follow=yes", "follow=", "lines=3"):
            reply = self.server.get(f"/runs/{run_id}/log?{query}")
            self.assertEqual(reply.status, 400, query)

    def test_the_crontabs_run_is_followed_too(self) -> None:
        for path in self.server.folder.glob("say*"):
            path.unlink()
        caller = self.server.spawn("run", "speaker")
        rows = "select id from cron_executions where status = 'running' and pid > 0"
        run_id = wait_until(lambda: self.server.rows(rows))[0][0]
        with following(self.server, run_id) as answer:
            have_said(self.server, 0, "from the crontab\n")
            self.assertEqual(answer.read1(100), b"from the crontab\n")
            have_said(self.server, 1, "end")
            self.assertEqual(answer.read(), b"")
        self.assertEqual(caller.communicate(timeout=20)[0], "")
        self.assertEqual(caller.returncode, 0)


@slow
class FollowAcrossRestartTest(unittest.TestCase):
    def test_a_follower_is_cut_off_and_reads_all_from_the_next_server(self) -> None:
        with speaking(Server(REGISTRY)) as server:
            speaker = Speaker(server)
            speaker.say("one\n")
            with following(server, speaker.run_id) as answer:
                self.assertEqual(answer.read1(100), b"one\n")
                server.stop()
                with self.assertRaises((http.client.HTTPException, OSError)):
                    answer.read()
            server.start()
            with following(server, speaker.run_id) as answer:
                resumed = following(server, speaker.run_id, "follow=true&from=4")
                with resumed as rest:
                    speaker.say("two\n")
                    speaker.end()
                    self.assertEqual(rest.read(), b"two\n")
                self.assertEqual(answer.read(), b"one\ntwo\n")

    def test_a_killed_keeper_ends_the_stream(self) -> None:
        with Server(REGISTRY) as server:
            run = server.trigger("quiet").json
            with following(server, run["runId"]) as answer:
                os.kill(run["pid"], signal.SIGKILL)
                self.assertEqual(answer.read(), b"")
            self.assertEqual(server.ended(run["runId"])["status"], "interrupted")

    def test_a_client_that_does_not_read_is_cut_off(self) -> None:
        much = ["sh", "-c", "head -c 30000000 /dev/zero; sleep 60"]
        program = limited("followers=Limit(1, 2), send_s=0.3")
        registry = {"much": {"description": "Much", "command": much}}
        with Server(registry, program=program) as server:
            run_id = server.trigger("much").json["runId"]
            with following(server, run_id) as answer:
                self.assertEqual(answer.status, 200)
                path = f"/runs/{run_id}/log?follow=true&tail=0"
                # Its place is another's as soon as its thread is free.
                wait_until(lambda: server.request("HEAD", path).status == 200)
            server.request("POST", f"/runs/{run_id}/cancel")
            self.assertEqual(server.ended(run_id)["status"], "cancelled")

    def test_a_million_lines_byte_for_byte(self) -> None:
        need_full()
        lines = "import sys\nfor i in range(1000000): print('line', i, 'of a million')"
        registry = {"million": {"description": "Much", "command": "million.py"}}
        with Server(registry) as server:
            server.script("million.py", lines, mode=0o644)
            run_id = server.trigger("million").json["runId"]
            digest = hashlib.sha256()
            with following(server, run_id) as answer:
                while block := answer.read1(1 << 20):
                    digest.update(block)
            wanted = "".join(f"line {i} of a million\n" for i in range(1000000))
            self.assertEqual(
                digest.hexdigest(), hashlib.sha256(wanted.encode()).hexdigest()
            )
            log = Path(server.log_dir / "million.log").read_bytes().split(b"\n", 1)[1]
            self.assertTrue(log.startswith(wanted.encode()))


if __name__ == "__main__":
    unittest.main()
