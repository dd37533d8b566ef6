"""What went wrong in programs of this kind, and the test that shows it can't here.

Each row: the advisory, what it was, and the test.  All of them were looked up; the
numbers are those of the CVE list, of GitHub's advisories, or of the project's issues.
"""

from __future__ import annotations

import threading
import unittest
from typing import Any

from support import Server, Wire

OLIVETIN = "https://github.com/OliveTin/OliveTin/security/advisories/"
CRONICLE = "https://github.com/jhuckaby/Cronicle/issues/"
WEBHOOK = "https://github.com/adnanh/webhook/issues/"
DKRON = "https://github.com/dkron-io/dkron/issues/"

PEERS: tuple[tuple[str, str, str, str], ...] = (
    (
        "OliveTin CVE-2026-27626",
        OLIVETIN + "GHSA-49gm-hh7w-wfvf",
        "an argument of type password, or from a webhook, reached sh -c unchecked",
        "test_peers.PeerTest.test_a_password_is_shell_text_to_nobody",
    ),
    (
        "OliveTin CVE-2025-50946",
        "https://github.com/advisories/GHSA-p3qf-84rg-jxfc",
        "what parsed as a URL was taken for harmless, and reached the shell",
        "test_files.ArgumentTest.test_shell_text_is_text",
    ),
    (
        "OliveTin CVE-2026-67438",
        OLIVETIN + "GHSA-xc5w-4v5w-7x65",
        "an argument with a pattern of its own reached the shell unchecked",
        "test_files.ArgumentTest.test_shell_text_is_text",
    ),
    (
        "OliveTin GHSA-prj9-97mp-mwh2",
        OLIVETIN + "GHSA-prj9-97mp-mwh2",
        "arguments that no action declares passed if their name began with ot_",
        "test_files.ArgumentTest.test_only_the_registry_s_parameters_are_taken",
    ),
    (
        "OliveTin GHSA-364q-w7vh-vhpc",
        OLIVETIN + "GHSA-364q-w7vh-vhpc",
        "an id that the client chose became part of a log's path: ../../",
        "test_peers.PeerTest.test_no_word_of_a_request_becomes_a_path",
    ),
    (
        "OliveTin GHSA-4fqm-6fmh-82mq",
        OLIVETIN + "GHSA-4fqm-6fmh-82mq",
        "a guest who had to log in could stop running actions all the same",
        "test_access.RouteWalkTest."
        "test_without_the_secret_only_health_and_the_page_answer",
    ),
    (
        "OliveTin CVE-2026-32102",
        OLIVETIN + "GHSA-228v-wc5r-j8m7",
        "the event stream told everybody what only some might see",
        "test_access.RouteWalkTest."
        "test_without_the_secret_only_health_and_the_page_answer",
    ),
    (
        "OliveTin CVE-2026-67439",
        OLIVETIN + "GHSA-jm28-2wcr-qf3h",
        "one of several ways to a run's output forgot to ask for the permission",
        "fast.test_access.DefaultTest.test_a_path_without_a_route_needs_the_secret",
    ),
    (
        "OliveTin CVE-2026-67437",
        OLIVETIN + "GHSA-xpxj-f2fm-rqch",
        "a table grew with each request of a stranger until memory was full",
        "test_access.WrongSecretsTest.test_a_crowd_of_clients_is_bounded_together_and_so_is_their_table",
    ),
    (
        "OliveTin CVE-2026-28789",
        OLIVETIN + "GHSA-45m3-398w-m2m9",
        "requests at the same time wrote to one table and ended the process",
        "test_peers.PeerTest.test_strangers_at_the_same_time_end_nothing",
    ),
    (
        "Cronicle CVE-2024-35478",
        CRONICLE + "755",
        "what a stranger put into an address came back as part of the page",
        "test_peers.PeerTest.test_nothing_of_an_address_comes_back_as_a_page",
    ),
    (
        "Cronicle issue 546",
        CRONICLE + "546",
        "the configuration was shown to strangers, inside a callback of their choice",
        "test_peers.PeerTest.test_nothing_of_an_address_comes_back_as_a_page",
    ),
    (
        "dkron issue 921",
        DKRON + "921",
        "markup in a job's output ran in the dashboard",
        "test_limits.AnswerTest.test_the_output_of_a_run_is_plain_text",
    ),
    (
        "webhook issue 756",
        WEBHOOK + "756",
        "a body of any size was read into memory before any check",
        "test_limits.BoundsTest.test_every_check_comes_before_the_body",
    ),
    (
        "webhook issue 248",
        WEBHOOK + "248",
        "a GET, such as a link in a chat, ran a command",
        "test_access.OriginTest.test_a_get_never_starts_anything",
    ),
)


class TableTest(unittest.TestCase):
    def test_every_row_names_a_test_that_exists(self) -> None:
        for name, address, what, test in PEERS:
            with self.subTest(name):
                self.assertTrue(address.startswith("https://"))
                self.assertTrue(what)
                suite = unittest.defaultTestLoader.loadTestsFromName(test)
                self.assertEqual(suite.countTestCases(), 1)
        self.assertFalse(unittest.defaultTestLoader.errors)


class PeerTest(unittest.TestCase):
    """Those of the table that no other file has."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        registry: dict[str, Any] = {
            "login": {
                "description": "Takes a password",
                "command": ["login.sh", "fixed"],
                "parameters": {"word": {"type": "string", "format": "password"}},
            }
        }
        environ = {"CRON_TRIGGER_SECRET": "a-secret-of-this-test"}
        cls.server = Server(registry, environ, start=False)
        cls.server.script(
            "login.sh",
            '#!/bin/sh\ntr "\\0" "|" </proc/$$/cmdline\n'
            'printf "\\n%s\\n" "$CRON_PARAM_WORD"\n',
        )
        cls.server.start()
        cls.addClassCleanup(cls.server.__exit__)
        cls.secret = {"X-Trigger-Secret": environ["CRON_TRIGGER_SECRET"]}

    secret: dict[str, str]

    def trigger(self, headers: dict[str, str], **fields: Any) -> int:
        body = {"cronName": "login", **fields}
        reply = self.server.request(
            "POST", "/trigger", body, {**self.secret, **headers}
        )
        return int(reply.json["runId"]) if reply.status == 202 else -reply.status

    def log(self, run_id: int) -> str:
        path = f"/runs/{run_id}/log?follow=true"
        return self.server.request("GET", path, headers=self.secret).text

    def test_a_password_is_shell_text_to_nobody(self) -> None:
        word = "x'; touch owned; $(touch owned) `touch owned` \" && touch owned"
        run_id = self.trigger({}, params={"word": word})
        arguments, shown, *_ = self.log(run_id).splitlines()
        self.assertEqual(shown, word)
        self.assertNotIn("touch", arguments)
        self.assertFalse(list(self.server.folder.rglob("owned")))

    def test_no_word_of_a_request_becomes_a_path(self) -> None:
        for word in ("../../../tmp/owned", "/tmp/owned", "..%2fowned"):
            run_id = self.trigger(
                {"Idempotency-Key": word}, requestedBy=word, params={"word": word}
            )
            self.assertGreater(run_id, 0)
            self.log(run_id)
            self.assertLess(self.trigger({}, cronName=word), 0)
        names = {path.name for path in self.server.folder.rglob("*")}
        self.assertFalse([name for name in names if "owned" in name])
        self.assertEqual(
            {path.name for path in self.server.log_dir.iterdir()},
            {"login.log", "cron-trigger-server.log"},
        )

    def test_nothing_of_an_address_comes_back_as_a_page(self) -> None:
        mark = "<script>alert(1)</script>"
        self.assertNotIn(mark, self.server.get(f"/?u={mark}").text)
        for path in (
            f"/{mark}", f"/runs?callback={mark}", f"/crons?callback={mark}",
            f"/runs/{mark}", f"/health?{mark}=1",
        ):  # fmt: skip
            for headers in ({}, self.secret):
                reply = self.server.request("GET", path, headers=headers)
                # The query of /health is ignored.
                wanted = (200,) if path.startswith("/health") else (400, 401, 404)
                self.assertIn(reply.status, wanted)
                kind = reply.headers["content-type"]
                self.assertEqual(kind, "application/json; charset=utf-8")
                self.assertEqual(reply.headers["x-content-type-options"], "nosniff")
                self.assertIn("default-src 'none'",
                              reply.headers["content-security-policy"])  # fmt: skip

    def test_strangers_at_the_same_time_end_nothing(self) -> None:
        statuses: list[int] = []

        def stranger(number: int) -> None:
            for turn in range(25):
                # An address of its own: it is refused for a minute from here on.
                with Wire(self.server.port, "127.0.0.9") as wire:
                    wire.send(
                        b"GET /crons HTTP/1.1\r\nHost: localhost\r\n"
                        + f"Authorization: Bearer {number}-{turn}\r\n\r\n".encode()
                    )
                    statuses.append(wire.answer().status)

        threads = [threading.Thread(target=stranger, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(set(statuses), {401, 429})
        self.assertLess(statuses.count(401), 10 + len(threads))
        self.assertEqual(self.server.get("/health").status, 200)


if __name__ == "__main__":
    unittest.main()
