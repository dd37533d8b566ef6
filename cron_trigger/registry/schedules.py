"""Schedules: the five fields of a crontab line, and the moments that they name.

Knows the rules of Debian's cron (crontab(5), cron(8), its main loop), also where the
clock changes.  Promises moments in POSIX seconds, at which cron starts a job in a time
zone; starts nothing itself and keeps no state.  Made by the checker and used by whoever
asks when a cron is due; any thread may.
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_left, bisect_right
from datetime import date, datetime, tzinfo
from typing import Iterator, NamedTuple, Optional, Sequence

from cron_trigger.registry.texts import printable, whole_number

#: None is the host's local time.
Zone = Optional[tzinfo]

#: The words of crontab(5) that stand for five fields.
WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_DAY_S = 86_400
_DAY_MIN = 1440
_EPOCH = date(1970, 1, 1).toordinal()
#: A change of the clock by more is a correction: nothing is caught up or left out.
_CORRECTION_MIN = 180
#: A few minutes forward count as having woken late: every job of them runs.
_WOKE_LATE_MIN = 5
#: 29 February on a given day of the week can be 40 years away.
_HORIZON_S = 40 * 366 * _DAY_S
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Field(NamedTuple):
    """One of the five: its name for people, its range, and names from `low` on."""

    name: str
    low: int
    high: int
    words: str = ""

    def fault(self, got: str, expected: str) -> ValueError:
        return ValueError(f"{self.name}: expected {expected}, got {_shown(got)}")


_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_WEEK_DAYS = "sun mon tue wed thu fri sat"
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEK_DAYS),
)


class Schedule(NamedTuple):
    """The moments at which cron starts a job; made by `parse_schedule`."""

    #: As it was written, with single spaces.
    text: str
    #: Minutes after midnight, in ascending order.
    times: tuple[int, ...]
    month_days: frozenset[int]
    months: frozenset[int]
    #: 0 is Sunday.
    week_days: frozenset[int]
    #: Whether one of day of month and day of week is enough; else it takes both.
    either_day: bool
    #: Whether it runs by the wall clock as it goes, through every change of the clock.
    wall_clock: bool

    def next_after(self, moment_s: float, zone: Zone = None) -> Optional[float]:
        """Return the first moment after this one, None if there is none in 40 years."""
        return next(self.due_between(moment_s, moment_s + _HORIZON_S, zone), None)

    def due_between(
        self, after_s: float, until_s: float, zone: Zone = None
    ) -> Iterator[float]:
        """Yield each moment after `after_s`, up to `until_s` or at it, in order.

        Times that a change of the clock moves to the same moment are one moment.
        """
        # A day earlier: what a change of the clock leaves out depends on it.
        spans = _spans(math.floor(after_s) - _DAY_S, math.floor(until_s) + 1, zone)
        for stretch in _cron_clock(spans, self.wall_clock):
            if stretch.moment_s(stretch.last) <= after_s:
                continue
            for minute in self._minutes(stretch):
                due_s = stretch.moment_s(minute)
                if due_s > after_s:
                    yield due_s
                    after_s = due_s

    def _minutes(self, stretch: _Stretch) -> Iterator[int]:
        for day in range(stretch.first // _DAY_MIN, stretch.last // _DAY_MIN + 1):
            if self._has_day(day):
                midnight = day * _DAY_MIN
                low = bisect_left(self.times, stretch.first - midnight)
                high = bisect_right(self.times, stretch.last - midnight)
                for minute in self.times[low:high]:
                    yield midnight + minute

    def _has_day(self, day: int) -> bool:
        on = date.fromordinal(_EPOCH + day)
        if on.month not in self.months:
            return False
        by_month = on.day in self.month_days
        by_week = on.isoweekday() % 7 in self.week_days
        return by_month or by_week if self.either_day else by_month and by_week


# What cron's clock does, in minutes of the wall clock: its wall time is counted since
# 1970 as if it were UTC.


class _Stretch(NamedTuple):
    """Minutes `first` to `last` of the wall clock.

    It shows them from `begin` on; cron runs the jobs of those before at that moment.
    """

    first: int
    last: int
    offset_s: int
    begin: int

    def moment_s(self, minute: int) -> float:
        return float(max(minute, self.begin) * 60 - self.offset_s)


def _cron_clock(spans: Iterator[_Stretch], wall_clock: bool) -> Iterator[_Stretch]:
    """Yield the minutes for which cron starts jobs of a kind, as its main loop does.

    `reached` is cron's virtual time: all jobs up to this minute have run.  After a
    small change of the clock it goes on from there: what was skipped runs, and what
    comes again does not.
    """
    least, most = 1 - _CORRECTION_MIN, _CORRECTION_MIN
    if wall_clock:
        least, most = 1, _WOKE_LATE_MIN
    reached: Optional[int] = None
    for span in spans:
        if reached is not None and least <= span.first - reached <= most:
            span = span._replace(first=reached + 1)
        yield span
        reached = span.last


def _spans(begin_s: int, end_s: int, zone: Zone) -> Iterator[_Stretch]:
    """Yield stretches with one offset from UTC each, without a gap.

    A stretch lasts up to a day, less before a change of the clock; after one, it is
    never over before what the change repeats is.
    """
    while begin_s < end_s:
        offset_s = _offset_s(begin_s, zone)
        length_s = min(_DAY_S, end_s - begin_s)
        while _offset_s(begin_s + length_s - 1, zone) != offset_s:
            length_s //= 2
        first = -(-(begin_s + offset_s) // 60)
        begin_s += length_s
        last = (begin_s - 1 + offset_s) // 60
        if first <= last:
            yield _Stretch(first, last, offset_s, begin=first)


def _offset_s(moment_s: int, zone: Zone) -> int:
    """Return what the wall clock is ahead of UTC at this moment."""
    if zone is None:
        return time.localtime(moment_s).tm_gmtoff
    offset = datetime.fromtimestamp(moment_s, zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def parse_schedule(text: str) -> Schedule:
    """Return the Schedule of five fields or of a word such as `@daily`.

    Raises ValueError with one sentence: the field, what it expects and what it got.
    """
    written = " ".join(re.findall("[^ \t]+", text))
    texts = _five(written)
    values = [_values(field, value) for field, value in zip(_FIELDS, texts)]
    minutes, hours, month_days, months, week_days = values
    star = [value.startswith("*") for value in texts]
    either_day = not (star[2] or star[4])
    longest = max(_MONTH_DAYS[month - 1] for month in months)
    if not either_day and min(month_days) > longest:
        raise ValueError(
            f"schedule: expected a day that comes in some year, got {_shown(written)}"
        )
    return Schedule(
        text=written,
        times=tuple(h * 60 + m for h in sorted(hours) for m in sorted(minutes)),
        month_days=month_days,
        months=months,
        week_days=frozenset(number % 7 for number in week_days),
        either_day=either_day,
        wall_clock=star[0] or star[1],
    )


def _five(written: str) -> Sequence[str]:
    texts = re.findall("[^ ]+", WORDS.get(written, written))
    if len(texts) == 5:
        return texts
    if written.startswith("@reboot"):
        raise ValueError(
            "schedule: expected a time, got @reboot, which has none: cron runs it when "
            'the host starts; leave "schedule" out'
        )
    got = _shown(written) if written.startswith("@") else f"{len(texts)} fields"
    raise ValueError(
        "schedule: expected five fields (minute, hour, day of month, month, day of "
        f"week) or one of {', '.join(WORDS)}, got {got}"
    )


def _values(field: _Field, text: str) -> frozenset[int]:
    return frozenset(
        number for part in text.split(",") for number in _range(field, part)
    )


def _range(field: _Field, text: str) -> range:
    """Return what `*`, `5`, `1-5`, `*/10` or `1-5/2` stands for."""
    span, slash, step = text.partition("/")
    if slash and not whole_number(step, 1, 10**9):
        raise field.fault(text, 'a step of 1 or more after "/"')
    if span == "*":
        return range(field.low, field.high + 1, int(step or 1))
    low, dash, high = span.partition("-")
    first = _number(field, low)
    last = _number(field, high) if dash else first
    if slash and not dash:
        better = f"{first}-{field.high}/{step}"
        raise field.fault(text, f'"*" or a range before "/", as in {better}')
    if first > last:
        better = f"{first}-{field.high},{field.low}-{last}"
        raise field.fault(text, f"a range from low to high, as in {better}")
    return range(first, last + 1, int(step or 1))


def _number(field: _Field, text: str) -> int:
    """Return a value that is written as a number or, in two fields, as a name."""
    words = field.words.split()
    if text.lower() in words:
        return field.low + words.index(text.lower())
    number = whole_number(text, field.low, field.high)
    if number is None:
        or_words = f" or {words[0]} to {words[-1]}" if words else ""
        raise field.fault(text, f"{field.low} to {field.high}{or_words}")
    return number


def _shown(value: str) -> str:
    """Return a value on one line, in quotes where it is more than a word."""
    shown = printable(value, 40)
    return shown if value.isascii() and value.isalnum() else f'"{shown}"'
