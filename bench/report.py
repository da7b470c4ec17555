"""Rows of a bench: a table for people, and with `--json` one JSON object as the last line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is our value over the peer's; None where there is no peer."""

    case: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None
    note: str = ""


def against(case: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Row:
    """A row of medians over interleaved rounds."""
    value, other = median(ours), median(theirs)
    return Row(case, value, unit, peer, value / other if other else None)


def show(bench: str, rows: Sequence[Row], argv: Sequence[str]) -> None:
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x {row.peer}"
        print(f"{row.case:<24} {row.value:>12,.1f} {row.unit:<14} {ratio:<20} {row.note}".rstrip())
    if "--json" in argv:
        print(json.dumps({"bench": bench, "rows": [asdict(row) for row in rows]}))
