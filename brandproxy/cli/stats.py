"""`brandproxy stats`: what was clicked, in the terminal, with a running server or without one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table

if TYPE_CHECKING:
    from brandproxy.cli.numbers import Source

app = typer.Typer()

_BARS = " ▁▂▃▄▅▆▇█"


@app.command()
def stats(
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    campaign: Annotated[str, typer.Option(help="Only this campaign.")] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How far back.")] = 30,
    by: Annotated[str, typer.Option(help="What to list: link, url, domain, campaign, tenant, client …")] = "link",
    machines: Annotated[str, typer.Option(help="include, exclude or only.")] = "include",
    json: Json = False,
) -> None:
    """Clicks, opens and unsubscribes: totals, days, top links.

    Example: brandproxy stats --tenant acme --days 7
    """
    since = datetime.now(UTC) - timedelta(days=days)
    given = {
        "tenant": tenant,
        "campaign": campaign,
        "machines": machines,
        "since": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    asked = {name: value for name, value in given.items() if value}

    async def ask(source: Source) -> dict[str, Any]:
        zone = "UTC" if json else _zone()
        return {
            "summary": await source.get("/summary", asked),
            "timeseries": await source.get("/timeseries", asked | {"unit": "day", "zone": zone}),
            "top": await source.get("/top", asked | {"by": by, "limit": "20"}),
        }

    found = asyncio.run(_with_source(ask))
    print_json(found) if json else _print(found)


async def _with_source(ask: Any) -> Any:
    from brandproxy.cli.numbers import open_source

    async with open_source() as source:
        return await ask(source)


def _zone() -> str:
    """This machine's zone when it has an IANA name, else UTC."""
    return str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")[2] or "UTC"


def _print(found: dict[str, Any]) -> None:
    s = found["summary"]
    print_table(
        ["", "all", "recipients"],
        [(name, f"{s[name]:,}", f"{s['unique_' + name]:,}") for name in ("clicks", "opens", "unsubscribes")],
        "",
    )
    print(f"machine events {s['machines']:,}   median delay to click {_seconds(s['delay']['p50'])}\n")
    points = found["timeseries"]["points"]
    counts = [point["clicks"] for point in points]
    if counts:
        first, last = points[0]["at"][:10], points[-1]["at"][:10]
        print(f"clicks a day   {spark(counts)}   {first} … {last}, most {max(counts):,}\n")
    print_table(
        ["clicks", "share", "unique", found["top"]["by"], ""],
        [
            (
                f"{i['events']:,}",
                f"{i['share']:.1%}",
                f"{i['unique']:,}",
                _name(i),
                i["label"] if "link" in i else "",
            )
            for i in found["top"]["items"]
        ],
        "no clicks in this period",
    )


def _name(item: dict[str, Any]) -> str:
    return (
        f"{item['campaign'] or '(no campaign)'} #{item['link']}" if "link" in item else item["key"] or "(unknown)"
    )


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else str(timedelta(seconds=round(value)))


def spark(counts: list[int]) -> str:
    """A bar a number; anything above nothing shows."""
    most = max(counts) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)
