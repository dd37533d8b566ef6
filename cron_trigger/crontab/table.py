"""What `crontab` shows of a conversion, and how its entries get into a registry.

Promises that a registry's text stays as somebody wrote it, with the entries at its end,
and that a reader of the file sees the old one or the new one.  Called by the command,
which checks the entries first.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import stat
import textwrap
from pathlib import Path
from typing import Iterator, Mapping, Optional

from cron_trigger.crontab.conversion import Conversion, Entry, Line
from cron_trigger.registry.strict_json import Json, JsonObject, parse_json
from cron_trigger.registry.texts import printable


def to_json(conversion: Conversion) -> dict[str, Json]:
    """Return what `--json` prints."""
    lines = [line._asdict() for line in conversion.lines]
    return {"entries": conversion.entries, "lines": lines}


def table_lines(conversion: Conversion, width: Optional[int] = None) -> Iterator[str]:
    """Yield each entry, and beside it the old line, the new one, and the note."""
    wide = width or shutil.get_terminal_size().columns
    left = max(36, wide // 2 - 2)
    for line in conversion.lines:
        yield f"{printable(line.file)}, line {line.line}: {line.name or '-'}"
        entry = _entry_rows(conversion.entries.get(line.name or "", {}), left)
        rows = itertools.zip_longest(entry, _line_rows(line, left), fillvalue="")
        yield from (f"  {one:{left}}  {other}".rstrip() for one, other in rows)
        yield ""


def _entry_rows(entry: Entry, width: int) -> Iterator[str]:
    """Yield an entry's keys as they stand in the registry, wrapped."""
    for key, value in entry.items():
        text = printable(f'"{key}": {json.dumps(value, ensure_ascii=False)}', 2000)
        yield from textwrap.wrap(
            text, width, subsequent_indent="  ", break_on_hyphens=False
        )


def _line_rows(line: Line, width: int) -> list[str]:
    """Return the lines and the note; the new line is one row, to be copied."""
    rows = [f"old:  {_shown_line(line.old)}"]
    if line.new is not None:
        rows.append(f"new:  {_shown_line(line.new)}")
    note = printable(f"note: {line.note}", 2000) if line.note else ""
    return rows + textwrap.wrap(note, width, subsequent_indent=" " * 6)


def _shown_line(text: str) -> str:
    return printable(text.replace("\t", " "), 2000)


def merged_registry(text: str, entries: Mapping[str, Entry]) -> str:
    """Return a registry's text with these entries at its end, the rest as it was.

    Raises ValueError where the text is no JSON object, has a key twice, or has one of
    these names already.
    """
    document = _registry(text)
    for name in entries:
        if name in document:
            raise ValueError(f'"{name}" is in the registry already')
    if not entries:
        return text
    added = json.dumps(entries, ensure_ascii=False, indent=2)[2:-2]
    head = text[: text.rindex("}")].rstrip()
    comma = "," if document else ""
    merged = f"{head}{comma}\n{added}\n}}\n"
    if _registry(merged) != {**document, **entries}:
        raise ValueError("these entries cannot be added to it")
    return merged


def _registry(text: str) -> JsonObject:
    document = parse_json(text)
    if not isinstance(document, JsonObject):
        raise ValueError("expected an object")
    if document.twice:
        name = document.twice[0]
        raise ValueError(f'"{printable(name, 80)}" {document.twice_where(name)}')
    return document


def write_registry(path: Path, text: str) -> None:
    """Replace a registry in one step, with the mode and the owner that it had.

    Raises OSError and leaves the old file where that fails.  A link stays a link.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _take_over(target, descriptor)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _take_over(old: Path, descriptor: int) -> None:
    """Give a new file the old one's owner and mode; without an old one, 0644."""
    mode = 0o644
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(old)
        os.fchown(descriptor, status.st_uid, status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
    os.fchmod(descriptor, mode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
