"""Schedules: what is taken, on which days, and minute by minute where clocks change.

The reference is cron itself: `CronLoop` does, minute by minute and job by job, what the
man page cron(8) and the main loop of Debian's cron say.  It shares nothing with the
module but the text of a schedule.
"""

from __future__ import annotations

import os
import random
import sys
import time
import unittest
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Iterator, Optional, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

sys.path.append(str(Path(__file__).resolve().parent.parent))

import support
from support import FULL, slow

from cron_trigger.registry.schedules import Schedule, parse_schedule

#: Europe/Paris as POSIX writes it: the host's zone without any data of zones.
PARIS_RULE = "CET-1CEST,M3.5.0,M10.5.0/3"
MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


def zone_named(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        support.need(False, f"no data of the time zone {name}: install tzdata")
        raise


class HostZone:
    """Make a zone the host's local time, for a while."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.before: Optional[str] = None

    def __enter__(self) -> None:
        self.before = os.environ.get("TZ")
        os.environ["TZ"] = self.name
        time.tzset()

    def __exit__(self, *_: object) -> None:
        os.environ.pop("TZ")
        if self.before is not None:
            os.environ["TZ"] = self.before
        time.tzset()


class Job:
    """A crontab's line as cron reads it: sets of numbers, and what began with `*`."""

    LOWEST = (0, 0, 1, 1, 0)
    HIGHEST = (59, 23, 31, 12, 7)

    def __init__(self, text: str) -> None:
        fields = text.split()
        self.minute, self.hour, self.day, self.month, self.week_day = (
            self.numbers(*each) for each in zip(fields, self.LOWEST, self.HIGHEST)
        )
        if self.week_day & {0, 7}:
            self.week_day |= {0, 7}
        self.wild = fields[0][0] == "*" or fields[1][0] == "*"
        self.both_days = fields[2][0] == "*" or fields[4][0] == "*"

    @staticmethod
    def numbers(field: str, lowest: int, highest: int) -> set[int]:
        found: set[int] = set()
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            if span == "*":
                first, last = str(lowest), str(highest)
            number = int(first)
            while number <= int(last or first):
                found.add(number)
                number += int(step or "1")
        return found

    def matches(self, at: time.struct_time) -> bool:
        if at.tm_min not in self.minute or at.tm_hour not in self.hour:
            return False
        day = at.tm_mday in self.day
        week_day = (at.tm_wday + 1) % 7 in self.week_day
        on_day = (day and week_day) if self.both_days else (day or week_day)
        return at.tm_mon in self.month and on_day


class CronLoop:
    """Debian's cron: woken at each minute, it starts jobs by its two clocks."""

    def __init__(self, jobs: Sequence[Job], zone: tzinfo, start_s: int) -> None:
        self.jobs = jobs
        self.zone = zone
        self.virtual = self.wall(start_s)
        #: Job's place in the list to the moments at which it was started.
        self.started: list[list[float]] = [[] for _ in jobs]

    def wall(self, moment_s: int) -> int:
        offset = datetime.fromtimestamp(moment_s, self.zone).utcoffset()
        assert offset is not None
        return int(moment_s + offset.total_seconds()) // MINUTE_S

    def wake(self, moment_s: int) -> None:
        now = self.wall(moment_s)
        ahead = now - self.virtual
        if ahead == 1 or ahead > 180 or ahead <= -180:  # as usual, or corrected
            self.virtual = now
            self.start(moment_s, now, wild=True, fixed=True)
        elif 1 < ahead <= 5:  # woke late
            while self.virtual < now:
                self.virtual += 1
                self.start(moment_s, self.virtual, wild=True, fixed=True)
        elif ahead > 5:  # summer time begins
            self.start(moment_s, now, wild=True, fixed=False)
            while self.virtual < now:
                self.virtual += 1
                self.start(moment_s, self.virtual, wild=False, fixed=True)
        else:  # summer time ends
            self.start(moment_s, now, wild=True, fixed=False)

    def start(self, moment_s: int, wall_minute: int, wild: bool, fixed: bool) -> None:
        at = time.gmtime(wall_minute * MINUTE_S)
        for job, started in zip(self.jobs, self.started):
            runs = (wild if job.wild else fixed) and job.matches(at)
            if runs and started[-1:] != [moment_s]:
                started.append(float(moment_s))


def simulate(
    texts: Sequence[str], zone: tzinfo, begin_s: int, end_s: int
) -> dict[str, list[float]]:
    """Return the moments after `begin_s`, up to `end_s`, at which cron starts each."""
    loop = CronLoop([Job(text) for text in texts], zone, begin_s - 6 * HOUR_S)
    for moment_s in range(begin_s - 6 * HOUR_S + MINUTE_S, end_s + 1, MINUTE_S):
        loop.wake(moment_s)
    return {
        text: [moment_s for moment_s in started if moment_s > begin_s]
        for text, started in zip(texts, loop.started)
    }


def random_field(chance: random.Random, low: int, high: int) -> str:
    first = chance.randint(low, high)
    last = chance.randint(first, high)
    step = chance.choice((1, 2, 5, 7, 10, 15, 30))
    forms = ("*", "*", f"*/{step}", f"{first}", f"{first}-{last}")
    others = (f"{first}-{last}/{step}", f"{first},{last}", f"{low},{first}-{last}")
    return chance.choice(forms + others)


def random_schedule(chance: random.Random) -> str:
    """Return five fields that are due often enough to meet a change of the clock."""
    day = chance.choice(("*", "*", "*", "*/2", "1-31", "28,31", "1,15"))
    week_day = chance.choice(("*", "*", "*", "0", "7", "1-6", "*/3"))
    hour = chance.choice((random_field(chance, 0, 23), random_field(chance, 0, 4)))
    return f"{random_field(chance, 0, 59)} {hour} {day} * {week_day}"


class ClockChangeTest(unittest.TestCase):
    """Both changes of 2027 in Europe/Paris: 28 March, 31 October."""

    #: Worked out by hand from cron(8).  A schedule to the times on 28 March, where
    #: 02:00 becomes 03:00 (+2), and on 31 October, where 03:00 becomes 02:00 (+1).
    BY_HAND: dict[str, tuple[str, str]] = {
        # At a particular time: run after the hour that was skipped, not run again.
        "59 1 * * *": ("01:59+1", "01:59+2"),
        "0 2 * * *": ("03:00+2", "02:00+2"),
        "30 2 * * *": ("03:00+2", "02:30+2"),
        "59 2 * * *": ("03:00+2", "02:59+2"),
        "0 3 * * *": ("03:00+2", "03:00+1"),
        "1 3 * * *": ("03:01+2", "03:01+1"),
        "0,30 1-3 * * *": (
            "01:00+1 01:30+1 03:00+2 03:30+2",
            "01:00+2 01:30+2 02:00+2 02:30+2 03:00+1 03:30+1",
        ),
        "30 2,5 * * 0": ("03:00+2 05:30+2", "02:30+2 05:30+1"),
        "15 2 * * 1": ("", ""),
        "@daily": ("00:00+1", "00:00+2"),
        "@weekly": ("00:00+1", "00:00+2"),
        # With a star in minute or hour: by the wall clock, whatever it does.
        "*/30 2 * * *": ("", "02:00+2 02:30+2 02:00+1 02:30+1"),
        "30 */2 * * *": (
            "00:30+1 04:30+2 06:30+2 08:30+2 10:30+2 12:30+2 14:30+2 16:30+2 18:30+2 "
            "20:30+2 22:30+2",
            "00:30+2 02:30+2 02:30+1 04:30+1 06:30+1 08:30+1 10:30+1 12:30+1 14:30+1 "
            "16:30+1 18:30+1 20:30+1 22:30+1",
        ),
        "*/20 1-3 * * *": (
            "01:00+1 01:20+1 01:40+1 03:00+2 03:20+2 03:40+2",
            "01:00+2 01:20+2 01:40+2 02:00+2 02:20+2 02:40+2 "
            "02:00+1 02:20+1 02:40+1 03:00+1 03:20+1 03:40+1",
        ),
    }

    def times_on(self, text: str, day: datetime) -> str:
        zone = zone_named("Europe/Paris")
        begin_s = day.replace(tzinfo=zone).timestamp()
        end_s = (day + timedelta(days=1)).replace(tzinfo=zone).timestamp()
        due = parse_schedule(text).due_between(begin_s - 1, end_s - 1, zone)
        moments = [datetime.fromtimestamp(moment_s, zone) for moment_s in due]
        return " ".join(f"{at:%H:%M}+{at.utcoffset()}"[:7] for at in moments)

    def test_the_table_that_was_worked_out_by_hand(self) -> None:
        for text, (march, october) in self.BY_HAND.items():
            with self.subTest(text):
                self.assertEqual(self.times_on(text, datetime(2027, 3, 28)), march)
                self.assertEqual(self.times_on(text, datetime(2027, 10, 31)), october)

    def test_hourly_comes_every_hour_of_a_day_with_23_or_25(self) -> None:
        for text in ("@hourly", "0 * * * *", "7 * * * *"):
            march = self.times_on(text, datetime(2027, 3, 28)).split()
            october = self.times_on(text, datetime(2027, 10, 31)).split()
            with self.subTest(text):
                self.assertEqual((len(march), len(october)), (23, 25))

    def test_minute_by_minute_as_cron_does(self) -> None:
        zone = zone_named("Europe/Paris")
        texts = [text for text in self.BY_HAND if not text.startswith("@")]
        texts += ["* * * * *", "*/5 * * * *", "0-59 * * * *", "0-59 0-23 * * *"]
        texts += ["30 2 28 3 *", "30 2 31 10 *", "30 2 1 * 7", "45 2 */9 * 0"]
        for day in (datetime(2027, 3, 28), datetime(2027, 10, 31)):
            begin_s = int((day - timedelta(days=1)).replace(tzinfo=zone).timestamp())
            end_s = begin_s + 3 * DAY_S
            expected = simulate(texts, zone, begin_s, end_s)
            for text in texts:
                with self.subTest(text, day=day):
                    check(self, text, begin_s, end_s, zone, expected[text])

    def test_the_host_zone_counts_where_none_is_given(self) -> None:
        winter, summer = timezone(timedelta(hours=1)), timezone(timedelta(hours=2))
        table = {
            datetime(2027, 3, 28, 1, 59, tzinfo=winter): (
                datetime(2027, 3, 28, 3, 0, tzinfo=summer)
            ),
            datetime(2027, 3, 28, 3, 0, tzinfo=summer): (
                datetime(2027, 3, 29, 2, 30, tzinfo=summer)
            ),
            datetime(2027, 10, 31, 2, 29, tzinfo=summer): (
                datetime(2027, 10, 31, 2, 30, tzinfo=summer)
            ),
            datetime(2027, 10, 31, 2, 29, tzinfo=winter): (
                datetime(2027, 11, 1, 2, 30, tzinfo=winter)
            ),
        }
        with HostZone(PARIS_RULE):
            for moment, due in table.items():
                with self.subTest(moment):
                    found = parse_schedule("30 2 * * *").next_after(moment.timestamp())
                    self.assertEqual(found, due.timestamp())


def check(
    case: unittest.TestCase,
    text: str,
    begin_s: int,
    end_s: int,
    zone: tzinfo,
    expected: list[float],
) -> None:
    """Hold every way to ask a schedule against the moments that cron has."""
    schedule = parse_schedule(text)
    case.assertEqual(list(schedule.due_between(begin_s, end_s, zone)), expected)
    if len(expected) < 200:
        case.assertEqual(list(one_by_one(schedule, begin_s, end_s, zone)), expected)


def one_by_one(
    schedule: Schedule, begin_s: float, end_s: float, zone: tzinfo
) -> Iterator[float]:
    moment_s = schedule.next_after(begin_s, zone)
    while moment_s is not None and moment_s <= end_s:
        yield moment_s
        moment_s = schedule.next_after(moment_s, zone)


class MadeZone(tzinfo):
    """A zone that a test makes: UTC so far."""

    def utcoffset(self, _: Optional[datetime]) -> timedelta:
        return timedelta(0)

    def dst(self, _: Optional[datetime]) -> timedelta:
        return timedelta(0)

    def tzname(self, _: Optional[datetime]) -> str:
        return "made"


class OneChange(MadeZone):
    """UTC, until the clock is set by some minutes."""

    def __init__(self, moment_s: int, minutes: int) -> None:
        self.moment_s = moment_s
        self.ahead = timedelta(minutes=minutes)

    def fromutc(self, moment: datetime) -> datetime:
        changed = moment.replace(tzinfo=timezone.utc).timestamp() >= self.moment_s
        # `fold` carries to `utcoffset` on which side of the change the moment is.
        return (moment + self.ahead).replace(fold=1) if changed else moment

    def utcoffset(self, moment: Optional[datetime]) -> timedelta:
        return self.ahead if moment is not None and moment.fold else timedelta(0)


class CountingZone(MadeZone):
    """UTC, counting how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def fromutc(self, moment: datetime) -> datetime:
        self.asked += 1
        return moment


class OtherClocksTest(unittest.TestCase):
    """Zones whose clocks change otherwise, against the same reference."""

    #: Zone to days with a change near them, and what it is.
    CHANGES = {
        "Europe/Paris": ((2027, 3, 28), (2027, 10, 31)),
        "America/New_York": ((2027, 3, 14), (2027, 11, 7)),
        "Australia/Lord_Howe": ((2027, 4, 4), (2027, 10, 3)),  # half an hour
        "Antarctica/Troll": ((2027, 3, 28), (2027, 10, 31)),  # two hours
        "Antarctica/Casey": ((2010, 3, 4), (2018, 3, 10)),  # three: a correction
        "Pacific/Apia": ((2011, 12, 30), (2011, 9, 24)),  # without the 30th
        "America/Caracas": ((2007, 12, 9), (2016, 5, 1)),  # half an hour, for good
        "Africa/Casablanca": ((2026, 2, 15), (2026, 3, 22)),  # Ramadan
        "America/Havana": ((2027, 3, 14), (2027, 11, 7)),  # at midnight
        "Asia/Kathmandu": ((1985, 12, 31), (1986, 1, 1)),  # a quarter of an hour
    }
    AIMED = ("0 0 * * *", "30 2 * * *", "15 0 30 12 *", "* * * * *", "1-59/2 0-3 * * *")

    @slow
    def test_random_schedules_run_when_cron_runs_them(self) -> None:
        chance = random.Random(8)
        for name, days in self.CHANGES.items():
            zone = zone_named(name)
            for day in days:
                texts = [
                    *self.AIMED,
                    *(random_schedule(chance) for _ in range(12)),
                ]
                middle = datetime(*day, 12, tzinfo=timezone.utc)
                begin_s = int(middle.timestamp()) - 30 * HOUR_S
                end_s = begin_s + 48 * HOUR_S
                expected = simulate(texts, zone, begin_s, end_s)
                for text in texts:
                    with self.subTest(text, zone=name, day=day):
                        check(self, text, begin_s, end_s, zone, expected[text])

    @slow
    def test_a_change_counts_by_its_minutes(self) -> None:
        """Woken late, summer time, or a correction: cron tells them by their size."""
        texts = ("* * * * *", "*/7 * * * *", "0-59/7 * * * *", "30 0-23/3 * * *")
        more = (3, 4, 178, 182, 240, 1380)
        for minutes in (1, 5, 6, 60, 179, 180, 181, *more):
            for change in (minutes, -minutes):
                zone = OneChange(20 * DAY_S + 5 * HOUR_S, change)
                begin_s, end_s = 20 * DAY_S, 22 * DAY_S
                expected = simulate(texts, zone, begin_s, end_s)
                for text in texts:
                    with self.subTest(text, change=change):
                        check(self, text, begin_s, end_s, zone, expected[text])

    def test_a_question_may_begin_at_any_moment_around_a_change(self) -> None:
        zone = zone_named("Europe/Paris")
        chance = random.Random(9)
        texts = ("30 2 * * *", "*/30 2 * * *", "10,50 1-3 * * *", "0 3 * * *")
        for day in (datetime(2027, 3, 28), datetime(2027, 10, 31)):
            begin_s = int(day.replace(tzinfo=zone).timestamp())
            all_of = simulate(texts, zone, begin_s, begin_s + DAY_S)
            for text in texts * 20:
                after_s = begin_s + chance.uniform(0, 5 * HOUR_S)
                until_s = after_s + chance.uniform(0, 5 * HOUR_S)
                expected = [s for s in all_of[text] if after_s < s <= until_s]
                with self.subTest(text, day=day, after_s=after_s):
                    found = parse_schedule(text).due_between(after_s, until_s, zone)
                    self.assertEqual(list(found), expected)


class DayTest(unittest.TestCase):
    """Which days a schedule names, in UTC."""

    def days(self, text: str, year: int = 2027, month: int = 0) -> list[str]:
        begin = datetime(year, month or 1, 1, tzinfo=timezone.utc)
        end = begin.replace(year=year + 1)
        if month:
            end = (begin + timedelta(days=31)).replace(day=1)
        due = parse_schedule(text).due_between(
            begin.timestamp() - 1, end.timestamp() - 1, timezone.utc
        )
        return [f"{datetime.fromtimestamp(s, timezone.utc):%m-%d}" for s in due]

    def test_day_of_month_or_day_of_week_where_neither_begins_with_a_star(self) -> None:
        table = {
            "0 0 1,15 * 5": "01 05 12 15 19 26",
            "0 0 13 * fri": "05 12 13 19 26",
            "0 0 1-2 * 0-1": "01 02 07 08 14 15 21 22 28",
            "0 0 1-31 * 1": " ".join(f"{day:02}" for day in range(1, 29)),
            "0 0 13 * *": "13",
            "0 0 * * 5": "05 12 19 26",
            "0 0 */2 * 5": "05 19",
            "0 0 8-14 * */5": "12 14",
            "0 0 *,13 * 5": "05 12 19 26",
            "0 0 */10 * */2": "11 21",
        }
        for text, days in table.items():
            expected = [f"02-{day}" for day in days.split()]
            with self.subTest(text):
                self.assertEqual(self.days(text, month=2), expected)

    def test_names_numbers_and_words_say_the_same(self) -> None:
        table = {
            "0 0 * jan sun": "0 0 * 1 0",
            "0 0 * JAN,Dec Mon-FRI": "0 0 * 1,12 1-5",
            "0 0 * * 7": "0 0 * * 0",
            "0 0 * * 5-7": "0 0 * * 0,5,6",
            "0 0 * * 0-7": "0 0 * * sun-sat",
            "0 0 * * */7": "0 0 * * 0",
            "00 00 01 01 *": "0 0 1 1 *",
            "  0\t0  *\t* 1-5 ": "0 0 * * 1-5",
            "0 0 1-9/3 * *": "0 0 1,4,7 * *",
            "0 0 */10 * *": "0 0 1,11,21,31 * *",
            "0 0 1-9/99 * *": "0 0 1 * *",
            "@daily": "0 0 * * *",
            "@midnight": "0 0 * * *",
            "@weekly": "0 0 * * 0",
            "@monthly": "0 0 1 * *",
            "@yearly": "0 0 1 1 *",
            "@annually": "0 0 1 1 *",
        }
        for text, other in table.items():
            with self.subTest(text):
                self.assertEqual(self.days(text), self.days(other))
        self.assertEqual(len(self.days("@hourly")), 365 * 24)

    def test_what_is_due_on_29_february_waits_for_a_leap_year(self) -> None:
        moment_s = datetime(2096, 3, 1, tzinfo=timezone.utc).timestamp()
        table = {
            "0 0 29 2 *": "2104-02-29",
            "0 0 29 feb */7": "2128-02-29",
            "0 0 29 2 0": "2097-02-03",
            "0 0 29,30 2,4 *": "2096-04-29",
        }
        for text, day in table.items():
            due_s = parse_schedule(text).next_after(moment_s, timezone.utc)
            with self.subTest(text):
                assert due_s is not None
                due = datetime.fromtimestamp(due_s, timezone.utc)
                self.assertEqual(f"{due:%Y-%m-%d}", day)


class RangeOfMomentsTest(unittest.TestCase):
    def test_the_moment_asked_from_is_left_out_and_the_last_one_is_in(self) -> None:
        schedule = parse_schedule("*/10 * * * *")
        utc = timezone.utc
        self.assertEqual(schedule.next_after(600.0, utc), 1200.0)
        self.assertEqual(schedule.next_after(599.999, utc), 600.0)
        self.assertEqual(list(schedule.due_between(600, 1800, utc)), [1200.0, 1800.0])
        self.assertEqual(list(schedule.due_between(1800, 600, utc)), [])

    def test_the_moment_of_a_change_is_a_moment_like_any_other(self) -> None:
        at_s, schedule = 20 * DAY_S, parse_schedule("30 0 * * *")
        zone = OneChange(at_s, 60)
        table = {(at_s - 60, at_s): 1, (at_s, at_s + 60): 0, (at_s - 60, at_s - 1): 0}
        for (after_s, until_s), count in table.items():
            with self.subTest(after_s=after_s, until_s=until_s):
                found = list(schedule.due_between(after_s, until_s, zone))
                self.assertEqual(len(found), count)

    def test_the_next_moment_is_found_without_looking_at_a_later_day(self) -> None:
        """A zone that counts how often it is asked stands for the work done."""
        zone = CountingZone()
        schedule = parse_schedule("* * * * *")
        self.assertEqual(schedule.next_after(1e9, zone), 1_000_000_020.0)
        self.assertLess(zone.asked, 10)

    def test_the_minutes_of_months_ask_for_each_day_alone(self) -> None:
        zone = CountingZone()
        due = parse_schedule("* * * * *").due_between(0, 100 * DAY_S, zone)
        self.assertEqual(sum(1 for _ in due), 100 * 1440)
        self.assertLess(zone.asked, 3 * 100)


class FaultTest(unittest.TestCase):
    FIVE = (
        "expected five fields (minute, hour, day of month, month, day of week) or one"
    )
    WORDS = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"

    def test_each_fault_is_one_sentence_with_field_rule_and_value(self) -> None:
        never = "schedule: expected a day that comes in some year, got"
        table = {
            "61 * * * *": "minute: expected 0 to 59, got 61",
            "60 * * * *": "minute: expected 0 to 59, got 60",
            "* 24 * * *": "hour: expected 0 to 23, got 24",
            "* * 0 * *": "day of month: expected 1 to 31, got 0",
            "* * 32 * *": "day of month: expected 1 to 31, got 32",
            "* * * 13 *": "month: expected 1 to 12 or jan to dec, got 13",
            "* * * 0 *": "month: expected 1 to 12 or jan to dec, got 0",
            "* * * january *": "month: expected 1 to 12 or jan to dec, got january",
            "* * * * 8": "day of week: expected 0 to 7 or sun to sat, got 8",
            "* * * * mon-xyz": "day of week: expected 0 to 7 or sun to sat, got xyz",
            "mon * * * *": "minute: expected 0 to 59, got mon",
            "1,,2 * * * *": 'minute: expected 0 to 59, got ""',
            "-5 * * * *": 'minute: expected 0 to 59, got ""',
            "5- * * * *": 'minute: expected 0 to 59, got ""',
            "1-2-3 * * * *": 'minute: expected 0 to 59, got "2-3"',
            "*5 * * * *": 'minute: expected 0 to 59, got "*5"',
            "? * * * *": 'minute: expected 0 to 59, got "?"',
            "* * L * *": "day of month: expected 1 to 31, got L",
            "0~9 * * * *": 'minute: expected 0 to 59, got "0~9"',
            "５ * * * *": 'minute: expected 0 to 59, got "５"',
            "5\n * * * *": 'minute: expected 0 to 59, got "5\\n"',
            "\x1b[2J * * * *": 'minute: expected 0 to 59, got "\\x1b[2J"',
            f"{'9' * 5000} * * * *": f"minute: expected 0 to 59, got {'9' * 40}…",
            "*/0 * * * *": (
                'minute: expected a step of 1 or more after "/", got "*/0"'
            ),
            "*/ * * * *": 'minute: expected a step of 1 or more after "/", got "*/"',
            "*/a * * * *": 'minute: expected a step of 1 or more after "/", got "*/a"',
            "*/5/5 * * * *": (
                'minute: expected a step of 1 or more after "/", got "*/5/5"'
            ),
            "1/20 * * * *": (
                'minute: expected "*" or a range before "/", as in 1-59/20, got "1/20"'
            ),
            "* 22-4 * * *": (
                'hour: expected a range from low to high, as in 22-23,0-4, got "22-4"'
            ),
            "0 0 30 2 *": f'{never} "0 0 30 2 *"',
            "0 0 31 2,4,jun,9,11 *": f'{never} "0 0 31 2,4,jun,9,11 *"',
            "0 0 */30 2 *": None,
            "0 0 31 4 */2": f'{never} "0 0 31 4 */2"',
            "": f"schedule: {self.FIVE} of {self.WORDS}, got 0 fields",
            "* * * *": f"schedule: {self.FIVE} of {self.WORDS}, got 4 fields",
            "0 * * * * root": f"schedule: {self.FIVE} of {self.WORDS}, got 6 fields",
            "@Daily": f'schedule: {self.FIVE} of {self.WORDS}, got "@Daily"',
            "@every_minute": (
                f'schedule: {self.FIVE} of {self.WORDS}, got "@every_minute"'
            ),
            "@reboot": (
                "schedule: expected a time, got @reboot, which has none: cron runs it "
                'when the host starts; leave "schedule" out'
            ),
        }
        for text, sentence in table.items():
            with self.subTest(text[:20]):
                self.assertEqual(self.fault(text), sentence)

    def fault(self, text: str) -> Optional[str]:
        try:
            parse_schedule(text)
        except ValueError as error:
            return str(error)
        return None

    def test_a_day_that_no_month_has_is_no_fault_where_a_week_day_is_enough(
        self,
    ) -> None:
        self.assertIsNone(self.fault("0 0 31 4 1"))

    def test_no_text_raises_anything_else(self) -> None:
        chance = random.Random(3)
        letters = "0123456789*/,-@ \tjansunx%é\x00"
        for _ in range(3000 if FULL else 300):
            text = "".join(chance.choices(letters, k=chance.randint(0, 20)))
            with self.subTest(text):
                self.fault(f"{text} * * * *")
                self.fault(text)

    def test_a_schedule_is_kept_as_it_was_written_with_single_spaces(self) -> None:
        self.assertEqual(parse_schedule(" 0\t4 * *  MON ").text, "0 4 * * MON")
        self.assertEqual(parse_schedule("@daily").text, "@daily")


if __name__ == "__main__":
    unittest.main()
