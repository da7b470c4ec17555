"""`brandproxy analytics`: move the history of events between engines."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from brandproxy.cli.common import Json, print_json
from brandproxy.config import load

app = typer.Typer(help="The analytics engine's history.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The analytics engine's history."""


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Engine to read: `duckdb:`, `duckdb:FILE` or `clickhouse://…`.")],
    target: Annotated[str, typer.Argument(help="Engine to fill; empty, or filled by a broken-off copy.")],
    json: Json = False,
) -> None:
    """Copy all events into another engine and compare the counts of every tenant.

    An embedded engine belongs to the running server: stop it, or copy a restored backup. Events that arrive
    meanwhile wait in the spools.

    Example: [bold]brandproxy analytics copy duckdb: clickhouse://clickhouse.internal:8123/brandproxy[/bold]
    """
    count = asyncio.run(_copy(source, target))
    if json:
        print_json({"events": count, "verified": True})
    else:
        print(f"{count} events are in the target; counts are equal for every tenant.")


async def _copy(source: str, target: str) -> int:
    from brandproxy.engines import open_engine
    from brandproxy.engines.copying import copy as copy_engine

    def tell(done: int, of: int) -> None:
        print(f"\r{done} of {of} events", end="" if done < of else "\n", file=sys.stderr, flush=True)

    async with AsyncExitStack() as stack:
        engines = [open_engine(load(analytics={"engine": url})) for url in (source, target)]
        for engine in engines:
            stack.push_async_callback(engine.close)
        return await copy_engine(engines[0], engines[1], tell)
