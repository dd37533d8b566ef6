"""The secret that requests must carry: where it comes from, and which one is good.

Knows the rule (visible ASCII without blanks, 16 characters or more, so that guessing is
hopeless) and the three places: the setting, a file, systemd's LoadCredential=.
Promises ConfigError with the command that makes a good one, and never to show one.
Called by settings.py at the start, and by the command line as a client.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import stat
import urllib.parse
from pathlib import Path
from typing import Mapping, Optional

from cron_trigger.registry.errors import ConfigError
from cron_trigger.registry.texts import printable
from cron_trigger.registry.trust import writable_by_others

SECRET_CHARS = 16
REMEDY = "make one with openssl rand -hex 32"


def read_secret(
    given: Optional[str],
    file: Optional[str],
    environ: Mapping[str, str],
    serves: bool = True,
) -> Optional[bytes]:
    """Return the secret of the setting, the file, or systemd; else ConfigError.

    A server's file must be its own; a client may send what is somebody else's.
    """
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "secret"
    if given is not None:
        return _good(os.fsencode(given), "CRON_TRIGGER_SECRET")
    if file is not None:
        return _good(_file_secret(file, serves), "CRON_TRIGGER_SECRET_FILE")
    if credential.exists():
        secret = _file_secret(str(credential), systemds=True)
        return _good(secret, "systemd's credential")
    return None


def login_of(url: urllib.parse.SplitResult) -> dict[str, str]:
    """Return the header for the user and password in an address: RFC 7617."""
    if url.username is None:
        return {}
    pair = ":".join(map(urllib.parse.unquote, (url.username, url.password or "")))
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _file_secret(path: str, serves: bool = True, systemds: bool = False) -> bytes:
    """Return what a file holds, but its line's end; else ConfigError."""
    shown = printable(path, 300)
    try:
        # A named pipe without a writer must not hang it; bash's <(...) is waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            os.set_blocking(file.fileno(), True)
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(1 << 16).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(
            "CRON_TRIGGER_SECRET_FILE must name a file to read, got "
            f'"{shown}" ({error.strerror}).'
        ) from None
    # systemd lets nobody else into its folder.
    if systemds or not stat.S_ISREG(mode):
        return secret
    if mode & stat.S_IRWXO:
        raise ConfigError(
            "CRON_TRIGGER_SECRET_FILE must name a file that only its owner and its "
            f'group may read, got "{shown}", which others may: chmod 600 '
            f"{printable(shlex.quote(path), 300)}."
        )
    # Whoever owns the file, or can put another one there, knows the secret.
    unsafe = writable_by_others(path, os.geteuid(), what="secret") if serves else None
    if unsafe:
        raise ConfigError(f'The secret\'s file "{shown}" is refused: {unsafe}.')
    return secret


def _good(secret: bytes, source: str) -> bytes:
    if secret in (b"", b"change-me"):
        fault = "must not be empty or change-me"
    elif not re.fullmatch(rb"[!-~]*", secret):
        fault = "must not hold a blank or what is no visible ASCII character"
    elif len(secret) < SECRET_CHARS:
        fault = f"must not be shorter than {SECRET_CHARS} characters, got {len(secret)}"
    else:
        return secret
    raise ConfigError(f"{source} {fault}: {REMEDY}, or leave the setting out.")
