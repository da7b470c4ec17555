"""Calendar buckets in a time zone, as integer arithmetic that every engine shares.

Converting each row's time in the database is slow and engine-specific. A period crosses few changes of the
zone's offset, so the local time is `at_us` plus a constant between two of them: the SQL is a sum, a division
and at most a few CASE branches; months are looked up between edges. Names come back from Python's zoneinfo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from brandproxy.engines import Dialect
from brandproxy.errors import BadInput

UNITS = ("hour", "day", "week", "month")
MAX_POINTS = 2000
_SECONDS = {"hour": 3600, "day": 86400, "week": 7 * 86400, "month": 28 * 86400}
_US = 1_000_000
_HOUR, _DAY = 3600 * _US, 86400 * _US
_MONDAY = 3 * _DAY  # 1970-01-01 was a Thursday: weeks start on Mondays when counted from three days before
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Buckets:
    """`expression` groups rows of `events`; `starts` are its values in order, with each bucket's first moment."""

    expression: str
    starts: dict[int, datetime]


def zone_of(name: str) -> ZoneInfo:
    """Raises BadInput."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:  # ZoneInfoNotFoundError is a LookupError
        raise BadInput(f"no time zone {name[:40]!r}", "Use an IANA name such as Europe/Berlin.") from error


def clamp(since_us: int, until_us: int, unit: str, now_us: int) -> tuple[int, int]:
    """The part of a period that can be drawn: after 1970, not later than a day ahead, at most MAX_POINTS."""
    until_us = max(2 * _DAY, min(until_us, now_us + _DAY))
    return min(until_us, max(since_us, 2 * _DAY, until_us - MAX_POINTS * _SECONDS[unit] * _US)), until_us


def buckets(dialect: Dialect, unit: str, zone: ZoneInfo, since_us: int, until_us: int) -> Buckets:
    """The buckets of a clamped period."""
    if since_us >= until_us:
        return Buckets("0", {})
    local = _local(zone, since_us, until_us)
    if unit == "hour":
        # Whole hours of local time, named by the moment they start: 02:00 twice on the night clocks go back.
        part = f"({local} - ({dialect.floor(local, _HOUR)}))"
        return Buckets(f"at_us - {part}", _walk(zone, since_us, until_us, _hour_of))
    if unit == "day":
        return Buckets(dialect.floor(local, _DAY), _walk(zone, since_us, until_us, _day_of))
    if unit == "week":
        return Buckets(dialect.floor(f"{local} + {_MONDAY}", 7 * _DAY), _walk(zone, since_us, until_us, _week_of))
    starts = _walk(zone, since_us, until_us, _month_of)
    branches = "".join(f" WHEN {local} >= {edge} THEN {edge}" for edge in reversed(starts))
    return Buckets(f"CASE{branches} ELSE 0 END", starts)


def _local(zone: ZoneInfo, since_us: int, until_us: int) -> str:
    """SQL for the local clock of a row, in microseconds."""
    changes = _changes(zone, since_us // _US, -(-until_us // _US))
    if len(changes) == 1:
        return f"(at_us + {changes[0][1] * _US})"
    branches = "".join(f" WHEN at_us < {end * _US} THEN {offset * _US}" for end, offset in changes[:-1])
    return f"(at_us + CASE{branches} ELSE {changes[-1][1] * _US} END)"


def _changes(zone: ZoneInfo, since: int, until: int) -> list[tuple[int, int]]:
    """(second it ends, offset in seconds) of every constant stretch; changes are found to the second."""
    stretches: list[tuple[int, int]] = []
    at = since
    while at < until:
        step, offset = min(at + 86400, until), _offset(zone, at)
        if _offset(zone, step) != offset:
            low, high = at, step
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            stretches.append((high, offset))
            step = high
        at = step
    return [*stretches, (until, _offset(zone, until))]


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


Namer = Callable[[ZoneInfo, datetime], tuple[int, datetime, datetime]]


def _walk(zone: ZoneInfo, since_us: int, until_us: int, name: Namer) -> dict[int, datetime]:
    """Key and first moment of every bucket that touches the period; `name` also gives where the next begins."""
    starts: dict[int, datetime] = {}
    at = _EPOCH + timedelta(microseconds=since_us)
    until = _EPOCH + timedelta(microseconds=until_us)
    while at < until:
        key, start, following = name(zone, at)
        starts[key] = start.astimezone(zone)
        at = following.astimezone(UTC)
    return starts


def _hour_of(zone: ZoneInfo, at: datetime) -> tuple[int, datetime, datetime]:
    local = at.astimezone(zone)
    start = at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return (start - _EPOCH) // timedelta(microseconds=1), start, start + timedelta(hours=1)


def _day_of(zone: ZoneInfo, at: datetime) -> tuple[int, datetime, datetime]:
    day = at.astimezone(zone).date()
    return _clock(day), _midnight(zone, day), _midnight(zone, day + timedelta(days=1))


def _week_of(zone: ZoneInfo, at: datetime) -> tuple[int, datetime, datetime]:
    day = at.astimezone(zone).date()
    monday = day - timedelta(days=day.weekday())
    return _clock(monday) + _MONDAY, _midnight(zone, monday), _midnight(zone, monday + timedelta(days=7))


def _month_of(zone: ZoneInfo, at: datetime) -> tuple[int, datetime, datetime]:
    first = at.astimezone(zone).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return _clock(first), _midnight(zone, first), _midnight(zone, following)


def _clock(day: date) -> int:
    """A local midnight on the local clock, in microseconds."""
    return (day - date(1970, 1, 1)).days * _DAY


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)
