"""Whatever a server sends: its request gets a whole answer or a clean error, soon, and no other gets any of it."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from brandproxy.config import Settings
from brandproxy.errors import BrandproxyError, FetchFailed
from brandproxy.fetch import Fetched, Fetcher, open_fetcher
from brandproxy.model import Origin
from brandproxy.storage.base import ObjectMissing, StorageFailed, Want
from brandproxy.storage.origins import Origins
from brandproxy.store.seal import open_seal
from tests.outbound.broken_servers import EVIL, TABLE, Broken, misbehaving

SECONDS = 0.25


def run(loop_kind: str, work: object) -> None:
    make = uvloop.new_event_loop if loop_kind == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(work)  # type: ignore[arg-type]


@asynccontextmanager
async def fetching(**outbound: object) -> AsyncIterator[Fetcher]:
    given = {"allow": "127.0.0.1", "seconds": SECONDS, **outbound}
    async with open_fetcher(Settings(outbound=given)) as fetcher:  # type: ignore[arg-type]
        yield fetcher


async def ask(fetcher: Fetcher, url: str, tenant: str | None, method: str = "GET") -> Fetched | BrandproxyError:
    try:
        return await fetcher.request(method, url, tenant=tenant, seconds=4 * SECONDS)
    except BrandproxyError as error:
        return error


def judge(broken: Broken, got: Fetched | BrandproxyError) -> None:
    if isinstance(got, Fetched):
        assert broken.own or (broken.good and got.body in (b"good", b""))
    else:
        assert broken.own or not broken.good, got
        assert len(str(got)) < 400


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("loop_kind", "method"), [("asyncio", "GET"), ("uvloop", "GET"), ("asyncio", "POST")])
def test_no_broken_answer_reaches_another_request_or_tenant(loop_kind: str, name: str, method: str) -> None:
    async def work() -> None:
        async with misbehaving(TABLE[name]) as server, fetching() as fetcher:
            start = time.monotonic()
            for pause in (0.0, 0.1):
                judge(server.broken, await ask(fetcher, server.url, "acme", method))
                await asyncio.sleep(pause)
            assert time.monotonic() - start < 12 * SECONDS
            server.good = True
            for tenant in ("beta", "acme", None):
                got = await ask(fetcher, server.url, tenant, method)
                assert isinstance(got, Fetched), got
                assert got.body == b"good"

    run(loop_kind, work())


@pytest.mark.parametrize("name", TABLE)
async def test_heads_without_a_body_are_no_better_believed(name: str) -> None:
    async with misbehaving(TABLE[name]) as server, fetching() as fetcher:
        got = await ask(fetcher, server.url, "acme", "HEAD")
        assert isinstance(got, BrandproxyError) or got.body == b""
        await asyncio.sleep(0.05)
        server.good = True
        got = await ask(fetcher, server.url, "acme", "GET")
        assert isinstance(got, Fetched)
        assert got.body == b"good"


@pytest.mark.parametrize("name", [name for name, broken in TABLE.items() if "flood" in broken.script])
async def test_what_never_ends_costs_little_memory(name: str) -> None:
    async with misbehaving(TABLE[name]) as server, fetching() as fetcher:
        tracemalloc.start()
        await ask(fetcher, server.url, "acme")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 << 20


@pytest.mark.parametrize("name", TABLE)
async def test_images_of_one_tenant_never_come_from_anothers_server(name: str) -> None:
    settings = Settings(outbound={"allow": "127.0.0.1", "seconds": SECONDS})  # type: ignore[arg-type]
    async with misbehaving(TABLE[name]) as server, open_fetcher(settings) as fetcher:
        origins, origin = Origins(settings, fetcher, open_seal(settings)), Origin("media", server.url)

        async def image(tenant: str) -> bytes:
            async with asyncio.timeout(2), origins.open(tenant, origin, "logo.png", Want('"old"')) as found:
                return b"".join([chunk async for chunk in found.chunks]) if found else b""

        try:
            assert await image("acme") in (b"good", b"") or server.broken.own
            assert server.broken.good or server.broken.own
        except (StorageFailed, ObjectMissing, TimeoutError):
            assert not server.broken.good or "204" in name
        server.good = True
        assert await image("beta") == b"good"
        await asyncio.sleep(0.05)
        assert await image("acme") == b"good"


async def test_an_honest_server_that_sends_too_much_serves_every_image() -> None:
    """Its connections are closed one by one; no request pays for the one before."""
    for name in ("surplus bytes", "surplus bytes a little later", "surplus line ends"):
        async with misbehaving(TABLE[name]) as server, fetching() as fetcher:
            for _ in range(20):
                got = await ask(fetcher, server.url, "acme")
                assert isinstance(got, Fetched), (name, got)
                assert got.body == b"good"


async def test_tenants_share_no_connection_and_each_keeps_its_own() -> None:
    async with misbehaving(Broken(())) as server, fetching() as fetcher:
        server.good = True
        for _ in range(5):
            for tenant in ("acme", "beta"):
                await ask(fetcher, server.url, tenant)
        assert server.connections == 2
        for _ in range(3):
            await ask(fetcher, server.url, None)
        assert server.connections == 5


async def test_a_connection_that_is_answered_before_all_was_sent_is_not_kept() -> None:
    """Who answers a part of the request may answer the rest as well."""
    async with misbehaving(Broken(())) as server, fetching() as fetcher:
        server.good = True  # it answers the head, and reads the content as further requests
        got = await fetcher.request("POST", server.url, tenant="acme", content=b"x" * (16 << 20), seconds=5)
        assert got.body == b"good"
        assert (await fetcher.request("GET", server.url, tenant="acme")).body == b"good"
        assert server.connections == 2


async def test_a_request_that_may_not_be_repeated_is_sent_once() -> None:
    async with misbehaving(TABLE["nothing"]) as server, fetching() as fetcher:
        server.good = True
        await ask(fetcher, server.url, "acme", "POST")
        server.good = False
        got = await ask(fetcher, server.url, "acme", "POST")
        assert isinstance(got, FetchFailed)
        assert len(server.heads) == 2


async def test_one_tenants_slow_server_leaves_connections_to_the_others() -> None:
    async with (
        misbehaving(TABLE["silence"]) as slow, misbehaving(Broken(())) as quick,
        fetching(connections=4, seconds=5) as fetcher,
    ):  # fmt: skip
        quick.good = True
        stuck = [asyncio.create_task(ask(fetcher, slow.url, "acme")) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert slow.connections == 2
        start = time.monotonic()
        for tenant in ("beta", "gamma", "beta"):
            got = await ask(fetcher, quick.url, tenant)
            assert isinstance(got, Fetched)
        assert time.monotonic() - start < 1
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        got = await ask(fetcher, quick.url, "acme")
        assert isinstance(got, Fetched)


async def test_no_more_connections_are_open_than_the_setting_says() -> None:
    async with misbehaving(Broken(())) as server, fetching(connections=4) as fetcher:
        server.good = True
        tenants = [f"tenant-{number}" for number in range(40)]
        got = await asyncio.gather(*(ask(fetcher, server.url, tenant) for tenant in tenants))
        assert all(isinstance(one, Fetched) for one in got)
        assert len(fetcher._pool._idle) <= 4
        await asyncio.sleep(0.05)
        assert sum(not task.done() for task in server.tasks) <= 4


def test_evil_is_in_every_answer_that_must_not_be_believed() -> None:
    """The table itself: what has to fail would be noticed when it did not."""
    for name, broken in TABLE.items():
        if not broken.good and "byte" not in name and not {"flood", "slow"} & set(broken.script) and broken.script:
            assert EVIL in b"".join(step for step in broken.script if isinstance(step, bytes)) or "half" in name
