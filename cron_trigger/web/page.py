"""Page."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Tuple

from cron_trigger.registry.errors import Refusal
from cron_trigger.web.wire import Answer


class Page:
    """The built-in page, and the policy that lets only its own script and style run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: Tuple[Any, bytes, str] = (None, b"", "")

    def answer(self) -> Answer:
        """Return the page as it stands in its file."""
        try:
            status = os.stat(self._path)
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._kept[0] != signature:
                text = self._path.read_bytes()
                self._kept = (signature, text, self._policy(text))
        except OSError:
            raise Refusal(
                "not_found",
                f"The page {self._path} is missing; install it beside the server.",
            ) from None
        return Answer(
            200, self._kept[1], "text/html; charset=utf-8", policy=self._kept[2]
        )

    def _policy(self, text: bytes) -> str:
        import base64

        def hashes(tag: bytes) -> str:
            bodies = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), text, re.DOTALL)
            digests = (hashlib.sha256(body).digest() for body in bodies)
            listed = (f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
            return " ".join(listed) or "'none'"

        return (
            f"default-src 'none'; script-src {hashes(b'script')}; "
            f"style-src {hashes(b'style')}; img-src data:; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
