"""`brandproxy store`: move an installation between homes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from brandproxy.cli.common import Json, print_json
from brandproxy.config import load
from brandproxy.store import Store, open_store

app = typer.Typer(help="The store of tenants, hosts, keys and certificates.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The store of tenants, hosts, keys and certificates."""


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Store to read: `files:`, `files:/path/of/data`, or `redis://…`.")],
    target: Annotated[str, typer.Argument(help="Store to fill; empty, or filled by a broken-off copy.")],
    json: Json = False,
) -> None:
    """Copy a store into another and compare them entry by entry; the source may be in use meanwhile.

    What is sealed stays sealed: give the new place the same master key (`BRANDPROXY_MASTER_KEY`, or the file
    `master.key` of the data directory). Switch control nodes off before the last copy, edges may stay on.

    Example: [bold]brandproxy store copy files: redis://store.internal:6379/0[/bold]
    """
    count = asyncio.run(_copy(source, target))
    if json:
        print_json({"entries": count, "verified": True})
    else:
        print(f"{count} entries are in the target and equal. Take the master key along.")


async def _copy(source: str, target: str) -> int:
    from brandproxy.store.copying import copy as copy_store

    def tell(done: int, of: int) -> None:
        print(f"\r{done} of {of} entries", end="" if done < of else "\n", file=sys.stderr, flush=True)

    async with AsyncExitStack() as stack:
        here, there = _open(source), _open(target)
        stack.push_async_callback(here.close)
        stack.push_async_callback(there.close)
        return await copy_store(here, there, tell)


def _open(url: str) -> Store:
    folder = url.removeprefix("files:") if url.startswith("files:") else ""
    return open_store("files:" if folder else url, Path(folder) if folder else load().data)
