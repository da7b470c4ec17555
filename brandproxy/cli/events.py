"""`brandproxy events`: the feed in the terminal, and what is done to stored events."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json

if TYPE_CHECKING:
    from brandproxy.cli.numbers import Source

app = typer.Typer(help="The feed of events, and what is done to stored ones.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option(help="Only this tenant.")]
Since = Annotated[str, typer.Option(help="First moment: 2026-11-23 or 2026-11-23T17:00:00Z.")]


@app.command()
def tail(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing events as they happen.")] = False,
    lines: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many of the newest.")] = 20,
    tenant: Tenant = "",
    campaign: Annotated[str, typer.Option(help="Only this campaign.")] = "",
    kind: Annotated[str, typer.Option(help="click, open or unsubscribe.")] = "",
    machines: Annotated[str, typer.Option(help="include, exclude or only.")] = "include",
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The newest events, oldest of them first. Following needs a running server.

    Example: brandproxy events tail -f --tenant acme
    """
    given = {"tenant": tenant, "campaign": campaign, "kind": kind, "machines": machines}
    asked = {name: value for name, value in given.items() if value}
    show = (lambda e: print(json.dumps(e, ensure_ascii=False), flush=True)) if json_lines else _print_event

    from brandproxy.cli.numbers import need_server, open_source

    if follow:
        need_server()

    async def run() -> None:
        async with open_source() as source:
            for event in reversed((await source.get("/events", asked | {"limit": str(lines)}))["events"]):
                show(event)
            if follow:
                await _follow(source, asked, show)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _follow(source: Source, asked: dict[str, str], show: Any) -> None:
    async with source.stream("/live", asked) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                show(json.loads(line.removeprefix("data: ")))


def _print_event(e: dict[str, Any]) -> None:
    when = datetime.fromisoformat(e["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    verdict = "machine: " + ",".join(e["machine"]) if e["machine"] else "person"
    parts = [when, e["kind"].ljust(11), e["tenant"], e["campaign"] or "-", e["recipient"] or e["message"] or "-"]
    # what a client sent is shown escaped: a terminal obeys control characters
    line = "  ".join([*parts, e["url"] or e["host"], f"({verdict})"])
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line), flush=True)


@app.command()
def forget(
    recipient: Annotated[str, typer.Argument(help="The recipient's reference.")],
    tenant: Annotated[str, typer.Option(help="The tenant the recipient belongs to.")],
    json: Json = False,
) -> None:
    """Delete every event of a recipient, as a privacy request asks.

    Example: brandproxy events forget --tenant acme r-4711
    """
    found = _send("POST", "/forget", {}, {"tenant": tenant, "recipient": recipient})
    print_json(found) if json else print(f"{found['deleted']:,} events deleted")


@app.command()
def reclassify(since: Since = "", tenant: Tenant = "", json: Json = False) -> None:
    """Judge stored events again after the machine rules changed (the last 30 days unless told otherwise).

    Example: brandproxy events reclassify --since 2026-11-01
    """
    asked = {name: value for name, value in (("since", since), ("tenant", tenant)) if value}
    found = _send("POST", "/reclassify", asked)
    print_json(found) if json else print(f"{found['changed']:,} of {found['seen']:,} events changed their verdict")


@app.command()
def backup(json: Json = False) -> None:
    """Copy all events into a new folder (Parquet) under backups/ in the data directory; the server goes on.

    Example: brandproxy events backup
    """
    found = _send("POST", "/backups", {})
    print_json(found) if json else print(found["folder"])


@app.command()
def restore(folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)]) -> None:
    """Fill an empty engine from a backup. The server must not run.

    Example: brandproxy events restore var/backups/20261123T170000Z
    """
    from brandproxy.cli.numbers import own_engine

    async def run() -> None:
        async with own_engine(drained=False) as (_, engine):
            await engine.restore(folder)

    asyncio.run(run())
    print("restored")


def _send(method: str, path: str, params: dict[str, str], body: dict[str, str] | None = None) -> Any:
    from brandproxy.cli.numbers import open_source

    async def run() -> Any:
        async with open_source() as source:
            return await source.send(method, path, params, body)

    return asyncio.run(run())
