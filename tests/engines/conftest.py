"""An engine of each home, empty: DuckDB, and ClickHouse through chDB or, with CLICKHOUSE_URL, a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from brandproxy.config import Settings
from brandproxy.engines import Engine, open_engine
from tests.conftest import free_port


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server, without a database."""
    if given := os.environ.get("CLICKHOUSE_URL"):
        yield given.rstrip("/")
        return
    port = free_port()
    command = [sys.executable, "-m", "tests.clickhouse_server", str(port), str(tmp_path_factory.mktemp("chdb"))]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    until = time.monotonic() + 60
    while True:
        try:
            httpx.post(f"http://127.0.0.1:{port}/", content="SELECT 1", timeout=30)
            break
        except httpx.TransportError:
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
    yield f"clickhouse://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)


@pytest.fixture(params=["duckdb", "clickhouse"])
def engine_url(request: pytest.FixtureRequest) -> str:
    if request.param == "duckdb":
        return "duckdb:"
    server = request.getfixturevalue("clickhouse")
    query = urlsplit(server).query
    return f"{server.removesuffix('?' + query)}/t{uuid4().hex[:12]}" + (f"?{query}" if query else "")


@pytest_asyncio.fixture
async def engine(engine_url: str, tmp_path: Path) -> AsyncIterator[Engine]:
    engine = open_engine(Settings(data=tmp_path, analytics={"engine": engine_url}))  # type: ignore[arg-type]
    yield engine
    await engine.close()
