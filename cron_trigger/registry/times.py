"""Times and durations, as they are written and as people read them.

Knows ISO 8601 with an offset (RFC 3339) and durations such as `1m30s`.  Promises the
same answer on every Python, ValueError for every other text, and one spelling on the
way out.  Pure functions, called from every room.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import Optional

DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)


def now_text(epoch_s: Optional[float] = None) -> str:
    """Return a time (default: now) as ISO 8601 in UTC with milliseconds."""
    epoch_s = time.time() if epoch_s is None else epoch_s
    moment = datetime.fromtimestamp(epoch_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds")


def epoch_of(text: str) -> float:
    """Return the POSIX time of an ISO 8601 text with an offset; else ValueError.

    `datetime.fromisoformat` takes neither `Z` nor one digit of a fraction before
    Python 3.11, and much more than RFC 3339 since: the form is checked here.
    """
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?"
        r"(Z|z|[+-]\d\d:?\d\d)",
        text,
        re.ASCII,
    )
    if not match:
        raise ValueError("not an ISO 8601 time with an offset")
    day, minutes, seconds, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset
    offset = offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    moment = datetime.fromisoformat(f"{day}T{minutes}{seconds or ':00'}{offset}")
    return moment.timestamp() + float(fraction or 0)


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as `1m30s`; else ValueError."""
    match = DURATION.fullmatch(text)
    parts = match.groups("0") if match else ()
    total = sum(int(part) * unit_s for part, unit_s in zip(parts, (3600, 60, 1)))
    if not total:
        raise ValueError("not a duration")
    return float(total)


def duration_text(duration_ms: Optional[int]) -> str:
    """Return a duration for people: `85 ms`, `2.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if duration_ms is None:
        return "-"
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    seconds = duration_ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
