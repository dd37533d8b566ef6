"""The page's files: those of its folder, as they are, and nothing else."""

from __future__ import annotations

import gzip
import os
import tempfile
import unittest
from pathlib import Path

from beside import beside
from support import Reply, Server, Wire, patched

FILES = {
    "index.html": "<!doctype html><title>Page</title>" + "<p>text</p>" * 500,
    "main.js": "import {x} from './other_part-2.js';\n" * 100,
    "other_part-2.js": "export const x = 1;\n",
    "style.css": "body { color: black }\n",
    "notes.txt": "not for anybody",
    ".hidden.js": "not for anybody",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; worker-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class PageFilesTest(unittest.TestCase):
    server: Server
    home: Path

    @classmethod
    def setUpClass(cls) -> None:
        made = tempfile.TemporaryDirectory(prefix="cron-trigger-test-")
        cls.addClassCleanup(made.cleanup)
        cls.home = Path(made.name)
        folder = cls.home / "cron_trigger" / "dashboard"
        folder.mkdir(parents=True)
        for name, text in FILES.items():
            (folder / name).write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner" / "deep.js").write_text("not for anybody")
        (cls.home / "above.js").write_text("not for anybody")
        (cls.home / "docs").mkdir()
        (cls.home / "docs" / "openapi.json").write_text('{"openapi": "3.1.0"}')
        program = patched(f"m.HOME = m.Path({made.name!r})")
        secret = {"CRON_TRIGGER_SECRET": "0123456789-abcdef-secret"}
        cls.server = Server({}, secret, program=program).start()
        cls.addClassCleanup(cls.server.__exit__)

    @property
    def folder(self) -> Path:
        return self.home / "cron_trigger" / "dashboard"

    def raw(self, path: str) -> Reply:
        with Wire(self.server.port) as wire:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            return wire.send(head.encode("latin-1")).answer()

    def test_each_file_is_served_as_it_is_without_the_secret(self) -> None:
        for path, name, kind in (
            ("/", "index.html", "text/html"),
            ("/main.js", "main.js", "text/javascript"),
            ("/other_part-2.js", "other_part-2.js", "text/javascript"),
            ("/style.css", "style.css", "text/css"),
            ("/style.css?v=1", "style.css", "text/css"),
        ):
            with self.subTest(path):
                reply = self.server.get(path)
                self.assertEqual((reply.status, reply.text), (200, FILES[name]))
                self.assertEqual(
                    reply.headers["content-type"], f"{kind}; charset=utf-8"
                )
                self.assertEqual(reply.headers["content-security-policy"], POLICY)
                self.assertEqual(reply.headers["x-content-type-options"], "nosniff")
                self.assertEqual(reply.headers["cache-control"], "no-cache")

    def test_the_interface_is_served_without_the_secret(self) -> None:
        reply = self.server.get("/openapi.json")
        self.assertEqual((reply.status, reply.json), (200, {"openapi": "3.1.0"}))
        self.assertEqual(
            reply.headers["content-type"], "application/json; charset=utf-8"
        )
        self.assertIn("default-src 'none';", reply.headers["content-security-policy"])

    def test_nothing_else_is_served(self) -> None:
        for path in (
            "/missing.js", "/.hidden.js", "/notes.txt", "/index.html", "/inner",
            "/inner/deep.js", "/../above.js", "/..%2fabove.js", "/%2e%2e/above.js",
            "/main.js/", "/main.js%00", "/main.JS", "//main.js", "/./main.js",
            "/..\\above.js", "/main.js.bak", "/docs/openapi.json", "/inner%2fdeep.js",
        ):  # fmt: skip
            with self.subTest(path):
                reply = self.raw(path)
                self.assertIn(reply.status, (401, 404))
                self.assertNotIn("not for anybody", reply.text)

    def test_a_file_that_is_there_already_is_not_sent_again(self) -> None:
        for path in ("/", "/main.js", "/openapi.json"):
            with self.subTest(path):
                tag = self.server.get(path).headers["etag"]
                self.assertRegex(tag, r'^W/"[0-9a-f]{16}"$')
                for given in (tag, tag[2:], f'"x", {tag}', "*"):
                    reply = self.server.get(path, **{"If-None-Match": given})
                    self.assertEqual((reply.status, reply.body), (304, b""))
                    self.assertEqual(reply.headers["etag"], tag)
                    self.assertNotIn("content-length", reply.headers)
                    self.assertNotIn("content-encoding", reply.headers)
                for given in ('W/"0123456789abcdef"', '"x"', tag.replace('"', "")):
                    reply = self.server.get(path, **{"If-None-Match": given})
                    self.assertEqual(reply.status, 200)

    def test_the_next_answer_after_a_304_is_read_well(self) -> None:
        tag = self.server.get("/main.js").headers["etag"]
        with Wire(self.server.port) as wire:
            head = b"GET /main.js HTTP/1.1\r\nHost: localhost\r\n"
            wire.send(head + b"If-None-Match: " + tag.encode() + b"\r\n\r\n")
            self.assertEqual(wire.answer().status, 304)
            wire.send(head + b"\r\n")
            self.assertEqual(wire.answer().text, FILES["main.js"])

    def test_it_is_compressed_and_has_the_same_tag(self) -> None:
        plain = self.server.get("/main.js")
        packed = self.server.get("/main.js", **{"Accept-Encoding": "gzip"})
        self.assertEqual(gzip.decompress(packed.body), plain.body)
        self.assertLess(len(packed.body), len(plain.body) / 4)
        self.assertEqual(packed.headers["etag"], plain.headers["etag"])
        self.assertEqual(packed.headers["vary"], "Accept-Encoding")
        self.assertEqual(plain.headers["vary"], "Accept-Encoding")

    def test_a_file_that_changed_is_read_again(self) -> None:
        before = self.server.get("/style.css").headers["etag"]
        fresh = self.folder / "fresh"
        fresh.write_text("body { color: gray }\n")
        os.replace(fresh, self.folder / "style.css")
        self.addCleanup((self.folder / "style.css").write_text, FILES["style.css"])
        reply = self.server.get("/style.css", **{"If-None-Match": before})
        self.assertEqual((reply.status, reply.text), (200, "body { color: gray }\n"))

    def test_modules_of_the_page_come_but_not_to_another_site_s(self) -> None:
        for site, status in (("same-origin", 200), ("cross-site", 403)):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
            reply = self.server.get("/main.js", **headers)
            self.assertEqual(reply.status, status)
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        self.assertEqual(self.server.get("/", **followed).status, 200)
        self.assertEqual(self.server.get("/main.js", **followed).status, 403)

    def test_a_program_without_its_page_says_so(self) -> None:
        with Server({}, program=patched("m.HOME = m.Path('/nonexistent')")) as server:
            for path in ("/", "/main.js", "/openapi.json"):
                reply = server.get(path)
                self.assertEqual((reply.status, reply.json["code"]), (404, "not_found"))
                self.assertIn("install the program again", reply.json["error"])
            self.assertEqual(server.get("/health").status, 200)


load_tests = beside


if __name__ == "__main__":
    unittest.main()
