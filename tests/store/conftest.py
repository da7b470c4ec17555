"""A store of each home, empty, for every test that takes `home`; servers are shared by a whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from brandproxy.store import Store, open_store
from tests.redis_servers import FULL, Cluster, Sentinels, Server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    farm = Sentinels(tmp_path_factory.mktemp("sentinel"))
    yield farm
    farm.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture(params=["files", "redis", *(["sentinel"] if FULL else []), "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """The settings value of an empty store."""
    if request.param == "redis":
        server: Server = request.getfixturevalue("redis_server")
        server.client().flushall()
        return server.url
    if request.param == "sentinel":
        farm: Sentinels = request.getfixturevalue("redis_sentinels")
        farm.client().flushall()
        return farm.url
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("redis_cluster")
        cluster.flush()
        return cluster.url
    return "files:"


@pytest_asyncio.fixture
async def opened(url: str, tmp_path: Path) -> AsyncIterator[Callable[[], Store]]:
    """Opens the same store again, as another process would."""
    stores: list[Store] = []

    def another() -> Store:
        stores.append(open_store(url, tmp_path))
        return stores[-1]

    yield another
    for store in stores:
        await store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()
