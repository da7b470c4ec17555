"""What all commands share: opening the installation, and printing for people or for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from brandproxy.config import load
from brandproxy.context import Context, open_context

T = TypeVar("T")

_WHOLE = 32  # characters of a first column that are never folded

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def with_context(work: Callable[[Context], Awaitable[T]]) -> T:
    """Run `work` on this installation's data directory; no server needs to run."""

    async def run() -> T:
        async with open_context(load()) as context:
            return await work(context)

    return asyncio.run(run())


def utc(seconds: int, form: str = "%Y-%m-%d") -> str:
    """A moment for people; `form` is strftime's."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str, stderr: bool = False
) -> None:
    """A table for people, or the sentence `empty` when there is nothing to show. Only a rich Text has colours."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = list(rows)
    for number, column in enumerate(columns):
        # What a line is about (an id, a setting) stays in one piece to be copied, unless it would fill the line.
        whole = number == 0 and all(len(str(row[0])) <= _WHOLE for row in rows)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console = Console(stderr=stderr)
    console.print(table if table.row_count else empty)
