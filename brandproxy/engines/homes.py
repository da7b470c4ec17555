"""Which analytics engine a settings value names; an engine is imported only when asked for."""

from __future__ import annotations

from pathlib import Path

from brandproxy.config import Settings
from brandproxy.engines.base import Engine


def open_engine(settings: Settings) -> Engine:
    """The engine a settings value names: `duckdb:` (in the data directory) or `clickhouse://…`; `config` lets no
    other through. Raises BadSettings for a ClickHouse URL that is none."""
    url = settings.analytics.engine
    if url.startswith("duckdb:"):
        from brandproxy.engines.duckdb import DuckEngine

        path = Path(url.removeprefix("duckdb:") or settings.data / "events.duckdb")
        return DuckEngine(path, settings.analytics.memory)
    from brandproxy.engines.clickhouse import ClickHouseEngine

    return ClickHouseEngine(url)
