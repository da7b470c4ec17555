"""Which analytics engine a settings value names; an engine is imported only when asked for."""

from __future__ import annotations

from pathlib import Path

from brandproxy.config import Settings
from brandproxy.engines.base import Engine
from brandproxy.errors import BadSettings


def open_engine(settings: Settings) -> Engine:
    """The engine a settings value names: `duckdb:` (in the data directory) or `clickhouse://…`."""
    url = settings.analytics.engine
    scheme = url.partition(":")[0]
    if scheme == "duckdb":
        from brandproxy.engines.duckdb import DuckEngine

        path = Path(url.removeprefix("duckdb:") or settings.data / "events.duckdb")
        return DuckEngine(path, settings.analytics.memory)
    if scheme == "clickhouse":
        from brandproxy.engines.clickhouse import ClickHouseEngine

        return ClickHouseEngine(url)
    raise BadSettings(f"no analytics engine under {url!r}", "Use `duckdb:` or `clickhouse://host:8123/db`.")
