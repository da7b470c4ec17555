"""What templates need to speak to people: periods, links that keep the present filters, numbers and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from brandproxy.analytics.filters import Filter

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Period:
    name: str
    label: str
    days: int
    unit: str  # of its chart


PERIODS = {
    p.name: p
    for p in (
        Period("24h", "24 hours", 1, "hour"),
        Period("7d", "7 days", 7, "day"),
        Period("30d", "30 days", 30, "day"),
        Period("90d", "90 days", 90, "day"),
        Period("12m", "12 months", 365, "week"),
    )
}
DEFAULT_PERIOD = "30d"
FILTERS = ("tenant", "campaign", "message", "recipient", "host", "link", "kind")


@dataclass(frozen=True, slots=True)
class View:
    """What the reader looks at: the filter as asked for (`asked`), the period, and the page's path."""

    path: str
    asked: Mapping[str, str]
    period: Period
    filter: Filter

    def url(self, path: str = "", /, **changes: object) -> str:
        """A link to `path` (this page when empty) with the present filters and some changed; None removes one."""
        kept = {name: value for name, value in self.asked.items() if name in (*FILTERS, "period", "machines")}
        query = urlencode({name: value for name, value in {**kept, **changes}.items() if value is not None})
        return (path or self.path) + (f"?{query}" if query else "")

    @property
    def chips(self) -> list[tuple[str, str, str]]:
        """(name, value, link that removes it) of every filter in force."""
        return [(name, self.asked[name], self.url("", **{name: None})) for name in FILTERS if self.asked.get(name)]

    @property
    def before(self) -> Filter:
        """The same question about the period before this one."""
        length = self.filter.until_us - self.filter.since_us
        return replace(self.filter, since_us=max(0, self.filter.since_us - length), until_us=self.filter.since_us)


def with_period(f: Filter, period: Period, zone: Any) -> Filter:
    """`f` over the last days of a period, counted in whole calendar days of the reader but for 24 hours."""
    now = datetime.now(zone)
    if period.unit == "hour":
        since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
    else:
        since = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=period.days - 1)
    return replace(
        f, since_us=int(since.timestamp()) * 1_000_000, until_us=int(now.timestamp() * 1e6) + 60_000_000
    )


def count(value: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,}"


def short(value: int) -> str:
    """At most four characters or so: 987, 12.3k, 4.56M."""
    for size, sign in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size * 10 or (size > 1000 and value >= size):
            return f"{value / size:.3g}{sign}"
    return f"{value:,}"


def percent(share: float) -> str:
    return "0 %" if not share else f"{share * 100:.0f} %" if share >= 0.1 else f"{share * 100:.1f} %"


def change(now: int, before: int) -> str:
    """The change to the period before, in words that a screen reader reads well; "" when there is none to tell."""
    if not before or now == before:
        return ""
    step = (now - before) / before
    return f"{'+' if step > 0 else '−'}{abs(step) * 100:.0f} %" if abs(step) < 10 else f"× {now / before:.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 42 s, 7 min, 3.2 h, 2.1 days."""
    if seconds is None:
        return "–"
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.2g} {name}" if seconds < size * 100 else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def moment(us: int, zone: Any) -> str:
    return datetime.fromtimestamp(us / 1e6, zone).strftime("%-d %b %Y, %H:%M:%S")


def clock(us: int, zone: Any) -> str:
    """The time of day; with the date when that is not today's."""
    when = datetime.fromtimestamp(us / 1e6, zone)
    return when.strftime("%H:%M:%S" if when.date() == datetime.now(zone).date() else "%-d %b, %H:%M:%S")


def day(value: str, unit: str) -> str:
    """A bucket's first moment (RFC 3339) as a row title."""
    when = datetime.fromisoformat(value)
    return when.strftime({"hour": "%-d %b, %H:%M", "month": "%B %Y"}.get(unit, "%a %-d %b %Y"))


def ago(seconds_since_1970: int) -> str:
    return duration(max(0, datetime.now(UTC).timestamp() - seconds_since_1970))


def place(url: str) -> str:
    """A URL without what people do not read: scheme, www., query."""
    parts = urlsplit(url)
    text = parts.netloc.removeprefix("www.") + ("" if parts.path == "/" else parts.path)
    return text + (" ?" if parts.query else "") if text else url
