"""What people and programs get to see: tables, JSON, and the outputs of scripts.

Promises that no control character of a script, a crontab or a registry reaches a
terminal.  Called by the commands; nothing here knows what is shown.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sys
from typing import Iterable, Iterator, Sequence, TextIO

from cron_trigger import SERVICE
from cron_trigger.registry.errors import EX_CONFIG, EX_TEMPFAIL, EX_USAGE
from cron_trigger.registry.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TIMED_OUT,
)
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable

LATE = "late"
COLOURS = {
    LATE: 33,
    COMPLETED: 32,
    FAILED: 31,
    TIMED_OUT: 31,
    INTERRUPTED: 33,
    CANCELLED: 33,
    RUNNING: 36,
}
#: The exit status of a command that was refused; others are 1.
EXIT_OF_CODE = {
    "already_running": EX_TEMPFAIL,
    "unknown_cron": EX_USAGE,
    "invalid_params": EX_USAGE,
    "invalid_request": EX_USAGE,
    "unauthorized": EX_CONFIG,
    "launch_failed": 126,
}
LINE = re.compile(r"[^\n\t]+")
#: What JSON may hold as it is and a terminal takes for a command, or hides.
UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Failed(Exception):
    """A command that failed: one sentence, and the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@contextlib.contextmanager
def reader_may_go(
    stream: TextIO, fault: type[OSError] = BrokenPipeError
) -> Iterator[None]:
    """Write to a reader who may have seen enough (`| head`); what follows happens.

    With `OSError`, after a full disk or a terminal that is gone, too.
    """
    try:
        yield
        stream.flush()
    except OSError as error:
        # What is still buffered would fail again as Python exits, which makes it 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if not isinstance(error, fault):
            raise
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            say(f"nothing more is shown: {error.strerror}")


def tell(text: str) -> None:
    """Write to standard error; whether somebody reads it changes nothing else."""
    with reader_may_go(sys.stderr, OSError):
        sys.stderr.write(text)


def say(text: str) -> None:
    """Tell a person something beside the output."""
    tell(visible(f"{SERVICE}: {text}\n"))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a status in colour where a person looks at a terminal."""
    table = [list(heads), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    coloured = sys.stdout.isatty() and not plain
    lines = []
    for row in table:
        cells = []
        for cell, width in zip(row, widths):
            colour = COLOURS.get(cell) if coloured else None
            text = f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell
            cells.append(text + " " * (width - len(cell)))
        lines.append("  ".join(cells).rstrip())
    print_lines(lines)


def print_lines(lines: Iterable[str]) -> None:
    """Print a command's answer, of which its reader may want the beginning only."""
    with reader_may_go(sys.stdout):
        for line in lines:
            print(line)


def print_json(value: Json) -> None:
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    text = json.dumps(value, ensure_ascii=plain, indent=2)
    print_lines([UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)])


def visible(text: str) -> str:
    """Return lines with all that is no character to look at written out: CWE-150."""
    return LINE.sub(lambda line: printable(line[0], len(line[0])), text)


class Output:
    """A script's output on its way to a stream: as it is, unless that is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._raw = None if stream.isatty() else getattr(stream, "buffer", None)
        # A character may come in two parts.
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, data: bytes, last: bool = False) -> None:
        if self._raw is not None:
            self._raw.write(data)
        else:
            self._stream.write(visible(self._decode(data, last)))
        self._stream.flush()
