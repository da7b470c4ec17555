"""The analytics engine's contract. One test suite (`tests/engines/`) holds every home to it.

- Events live in one table (here `events`) whose columns are the fields of `Row`, in that order.
- A *source* is a spool segment; its *end* is how far it has been ingested, in bytes. Rows and the end of
  the range they came from become visible together or not at all, so a range delivered twice counts once.
- Queries are written once, in the SQL both engines share, with parameters as `$name`; where they differ the
  query asks `dialect`. A query sees one consistent state and may run beside an ingest.
- What could not be done because the engine is away raises a `Retryable` error and was not done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from brandproxy.config import Settings
from brandproxy.engines.dialect import Dialect
from brandproxy.errors import Retryable
from brandproxy.model import Event


class EngineUnavailable(Retryable):
    action = "Check that the analytics engine is up; events wait in the spool and are not lost."


class EngineBusy(EngineUnavailable):
    """The embedded engine's file belongs to another process, as a rule the running server."""

    action = "Ask the running server instead, or stop it first."


class Row(NamedTuple):
    """An event as it is counted: the recorded fields and what was derived from them at ingest."""

    id: str
    kind: str
    at_us: int
    tenant: str
    host: str
    campaign: str
    message: str
    recipient: str
    link: int
    url: str
    sent_at: int
    address: str
    agent: str
    method: str
    machine: list[str]  # reasons; empty: a person
    rules: int
    person: bool  # no machine reason
    reader: int  # 63-bit hash of (tenant, recipient), 0 when there is no recipient: what uniques count
    domain: str  # destination's host name
    device: str  # desktop, mobile, tablet, bot, "" when unknown
    client: str  # mail client or browser family
    country: str  # ISO 3166 code when a GeoIP database is given
    seen_us: int  # when it was taken in, microseconds; grows from batch to batch


COLUMNS = Row._fields
Params = Mapping[str, Any]


class Engine(Protocol):
    dialect: Dialect

    async def ingest(self, source: str, start: int, end: int, rows: Sequence[Row]) -> int:
        """Take `rows`, read from bytes `start` to `end` of `source`; return how far the engine has it now.

        When the engine's end is not `start`, nothing is written: read on from what is returned.
        """

    async def end(self, source: str) -> int:
        """How far `source` has been ingested; 0 when it was never seen."""

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """The rows of a SELECT. Raises QueryTooLong when it runs past the limit."""

    async def delete(self, where: str, params: Params) -> int:
        """Remove the events that match the condition; how many went."""

    async def reclassify(self, events: Sequence[Event]) -> None:
        """Write the machine reasons and rules version that these events now have; the rest is as it was."""

    async def settle(self) -> None:
        """Upkeep between ingests: order what has gathered for fast reading, forget old progress."""

    async def backup(self, folder: Path) -> None:
        """A consistent copy of everything into an empty folder, while ingest goes on."""

    async def restore(self, folder: Path) -> None:
        """Fill an empty engine from a backup. Raises Conflict when it holds events."""

    async def close(self) -> None: ...


class QueryTooLong(Retryable):
    action = "Ask for a shorter period or fewer tenants at once."


def embedded(settings: Settings) -> bool:
    """Whether the engine lives in the process that opens it, so that only one process can."""
    return settings.analytics.engine.startswith("duckdb:")
