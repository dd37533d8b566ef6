"""The page: the built-in dashboard's files, and the description of the interface.

It knows two places on disk and promises that nothing else is ever served: names are
those that the folder itself lists.  Files are read again when they changed, and kept
compressed; connections' threads call, and the worst of a race is one more read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any, Optional

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.texts import printable
from cron_trigger.web.wire import API_POLICY, JSON_TYPE, Answer, Body, Request

#: Only the page's own files; nothing inline, nothing from elsewhere.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; worker-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": JSON_TYPE,
}


class Page:
    """Answers with files."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "cron_trigger" / "dashboard"
        self._interface = home / "docs" / "openapi.json"
        #: By path: what tells a changed file, its contents, and their tag.
        self._kept: dict[Path, tuple[Any, Body, str]] = {}

    def index(self, request: Request) -> Answer:
        return self._answer(request, self._folder / "index.html", PAGE_POLICY)

    def file(self, request: Request) -> Answer:
        """Return one of the page's further files; else `not_found`."""
        with contextlib.suppress(OSError):
            if request.part in os.listdir(self._folder):
                return self._answer(request, self._folder / request.part, PAGE_POLICY)
        raise _missing(request.part)

    def interface(self, request: Request) -> Answer:
        return self._answer(request, self._interface, API_POLICY)

    def _answer(self, request: Request, path: Path, policy: str) -> Answer:
        try:
            body, tag = self._read(path)
        except OSError:
            raise _missing(path.name) from None
        kind = TYPES[path.suffix]
        headers = {"ETag": tag}
        # With no-store there would be nothing to ask for again by its tag.
        has = _has_tag(request.headers.get("if-none-match"), tag)
        status = 304 if has else 200
        return Answer(status, body, kind, headers, policy=policy, cache="no-cache")

    def _read(self, path: Path) -> tuple[Body, str]:
        status = os.stat(path)
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        kept = self._kept.get(path)
        if kept is None or kept[0] != signature:
            body = Body(path.read_bytes())
            # Weak: it is the same for the compressed body (RFC 9110, 8.8.3.3).
            tag = f'W/"{hashlib.sha256(body.plain).hexdigest()[:16]}"'
            self._kept[path] = kept = (signature, body, tag)
        return kept[1], kept[2]


def _has_tag(given: Optional[str], tag: str) -> bool:
    """Return True if If-None-Match names this tag (RFC 9110, 13.1.2)."""
    tags = [text.strip() for text in (given or "").split(",")]
    return tag in tags or tag[2:] in tags or "*" in tags


def _missing(name: str) -> Refusal:
    return Refusal(
        "not_found",
        f'The file "{printable(name, 80)}" of the program is missing; if it should be '
        "there, install the program again.",
    )
