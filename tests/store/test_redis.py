"""What is Redis's own: fail-over, full memory, users, TLS, a feed that was trimmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from brandproxy.errors import BadSettings, StoreUnavailable
from brandproxy.store import Store, open_store
from brandproxy.store.base import CursorLost
from brandproxy.store.connect import parse
from tests.conftest import free_port
from tests.redis_servers import Cluster, Sentinels, Server, until


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url, Path())
    try:
        yield store
    finally:
        await store.close()


async def after_trouble(store: Store, key: str) -> None:
    """Write until it is taken, as callers of Retryable do."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.put(key, b"")
                return
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_a_fail_over_is_survived_and_the_feed_resumes(tmp_path: Path) -> None:
    farm = Sentinels(tmp_path)
    try:
        async with opened(farm.url) as store:
            await store.put("host/a", b"")
            cursor = await store.cursor()
            await store.put("host/b", b"")
            async with store.lock("leader") as lease:
                fence = lease.fence
            await asyncio.sleep(0.2)  # replication is asynchronous
            farm.master.kill()
            await after_trouble(store, "host/c")
            assert [entry.key for entry in await store.list("")] == ["host/a", "host/b", "host/c"]
            seen = []
            async with asyncio.timeout(5):
                async for change in store.watch("", cursor):
                    seen.append(change.key)
                    if change.key == "host/c":
                        break
            assert seen == ["host/b", "host/c"]
            async with store.lock("leader") as lease:
                assert lease.fence > fence
    finally:
        farm.kill()


async def test_with_replicas_asked_for_no_acknowledged_change_is_lost_in_a_fail_over(tmp_path: Path) -> None:
    farm = Sentinels(tmp_path)
    try:
        async with opened(f"{farm.url}?replicas=1") as store:
            cursor = await store.cursor()
            for number in range(20):
                assert await store.create(f"tenant/{number:02}", b"key")
            farm.master.kill()
            async with asyncio.timeout(30):
                while farm.current() is farm.master:
                    await asyncio.sleep(0.1)
        async with opened(farm.url) as store:
            await eventually_up(store)
            assert len(await store.list("tenant/")) == 20
            assert (await anext(aiter(store.watch("", cursor)))).key == "tenant/00"
        async with opened(f"{farm.url}?replicas=1") as store:
            with pytest.raises(StoreUnavailable) as refused:  # the only replica is dead
                await store.put("a", b"1")
            assert "reached 0 of 1" in str(refused.value)
            assert await store.cursor()  # nodes go on reading
            assert not await store.replace("a", b"2", version=1)  # nothing was changed, so nothing can be lost
    finally:
        farm.kill()


async def eventually_up(store: Store) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await store.get("a")
                return
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_a_cursor_of_a_write_that_a_fail_over_lost_is_not_resumed_from(tmp_path: Path) -> None:
    master = Server(tmp_path / "a").start()
    replica = Server(tmp_path / "b", (f"replicaof 127.0.0.1 {master.port}",)).start()
    try:
        async with opened(master.url) as store:
            await store.put("host/a", b"")
            await asyncio.sleep(1.2)
            replica.client().replicaof("NO", "ONE")
            await store.put("host/lost", b"")
            cursor = await store.cursor()
        async with opened(replica.url) as store:
            await store.put("host/missed otherwise", b"")
            with pytest.raises(CursorLost):
                await anext(aiter(store.watch("", cursor)))
    finally:
        master.kill()
        replica.kill()


async def test_a_server_that_is_gone_is_a_retryable_error_and_its_return_needs_no_restart(tmp_path: Path) -> None:
    server = Server(tmp_path, ("appendonly yes", "appendfsync always")).start()
    try:
        async with opened(server.url) as store:
            await store.put("a", b"1")
            server.kill()
            for call in (store.get("a"), store.list(""), store.put("a", b""), store.cursor()):
                with pytest.raises(StoreUnavailable):
                    await call
            with pytest.raises(StoreUnavailable):
                await anext(aiter(store.watch("", "0-0")))
            server.start()
            entry = await store.get("a")
            assert entry is not None
            assert entry.value == b"1"
    finally:
        server.kill()


async def test_a_cluster_that_is_wholly_gone_is_a_retryable_error_at_the_start_too(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        async with opened(cluster.url) as store, opened(cluster.url) as late:
            await store.put("a", b"1")
            cluster.kill()
            for each in (store, late, late):
                with pytest.raises(StoreUnavailable):
                    await each.get("a")
            for node in cluster.nodes:
                node.start()
            await asyncio.to_thread(until, cluster._agreed, "the cluster to come back")
            for each in (store, late):
                await each.put("a", b"2")
    finally:
        cluster.kill()


async def test_a_refusal_is_told_with_what_to_do_about_it(redis_server: Server, tmp_path: Path) -> None:
    place = f"127.0.0.1:{redis_server.port}"
    redis_server.client().execute_command("ACL SETUSER poor on >secret ~nothing +@connection")
    for url, advice in (
        (f"redis://fleet:wrong@{place}", "Check user and password"),
        (f"redis://poor:secret@{place}", "Give the user the rights"),
    ):
        async with opened(url) as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.get("a")
        assert advice in refused.value.action
        assert "wrong" not in str(refused.value)


async def test_with_memory_full_nothing_is_half_written_and_deleting_is_allowed(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    try:
        async with opened(server.url) as store:
            await store.put("a", b"1")
            async with store.lock("leader", ttl=0.9):
                server.client().config_set("maxmemory", "1mb")
                cursor = await store.cursor()
                for call in (store.put("b", b"2"), store.create("b", b"2"), store.put("a", b"2")):
                    with pytest.raises(StoreUnavailable):
                        await call
                await asyncio.sleep(1.2)  # the lease is renewed all the same
            assert await store.cursor() == cursor
            assert [(entry.key, entry.value) for entry in await store.list("")] == [("a", b"1")]
            assert await store.delete("a")
            server.client().config_set("maxmemory", "0")
            assert await store.create("b", b"2")
    finally:
        server.kill()


async def test_a_user_with_just_the_documented_rights_is_enough(redis_server: Server) -> None:
    client = redis_server.client()
    client.flushall()
    rights = "~{brandproxy}:* +@read +@write +@scripting +@connection +time"
    client.execute_command("ACL", "SETUSER", "fleet", "on", ">p@ss:w/rd", *rights.split())
    url = redis_server.url.replace("redis://", "redis://fleet:p%40ss%3Aw%2Frd@")
    async with opened(url) as store, store.lock("leader"):
        cursor = await store.cursor()
        assert await store.create("a", b"1")
        assert [entry.key for entry in await store.list("")] == ["a"]
        async for change in store.watch("", cursor):
            assert change.key == "a"
            break
    async with opened(redis_server.url.replace("redis://", "redis://fleet:wrong@")) as store:
        with pytest.raises(StoreUnavailable):
            await store.get("a")


async def test_tls_trusts_the_given_authority_only(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    chain = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    chain.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    chain.private_key_pem.write_to_path(tmp_path / "key.pem")
    port = free_port()
    files = (f"tls-cert-file {tmp_path}/cert.pem", f"tls-key-file {tmp_path}/key.pem")
    server = Server(tmp_path / "redis", (f"tls-port {port}", "tls-auth-clients no", *files)).start()
    try:
        async with opened(f"rediss://127.0.0.1:{port}/0?ca={tmp_path}/ca.pem") as store:
            assert await store.create("a", b"1")
        async with opened(f"rediss://127.0.0.1:{port}/0?ca={tmp_path}/other.pem") as store:
            with pytest.raises(StoreUnavailable):
                await store.get("a")
    finally:
        server.kill()


async def test_a_store_of_a_newer_format_is_left_alone(redis_server: Server) -> None:
    redis_server.client().flushall()
    redis_server.client().set("{brandproxy}:format", "2")
    async with opened(redis_server.url) as store:
        with pytest.raises(BadSettings):
            await store.put("a", b"1")
    redis_server.client().flushall()


async def test_a_server_that_would_throw_entries_away_is_refused(redis_server: Server) -> None:
    redis_server.client().config_set("maxmemory-policy", "allkeys-lru")
    try:
        async with opened(redis_server.url) as store:
            with pytest.raises(BadSettings, match="throws entries away"):
                await store.put("a", b"1")
    finally:
        redis_server.client().config_set("maxmemory-policy", "noeviction")


def test_urls_name_every_kind_of_server() -> None:
    to = parse("redis+sentinel://u:p%40@a:1,b/main/3?sentinel_password=x")
    assert (to.kind, to.hosts, to.user, to.password, to.master, to.db) == (
        "sentinel",
        (("a", 1), ("b", 26379)),
        "u",
        "p@",
        "main",
        3,
    )
    assert parse("redis://:secret@[::1]:7/2").hosts == (("::1", 7),)
    assert parse("rediss+cluster://a,b:7").tls


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://host:port", "redis+sentinel://user:hunter2@a:1", "redis+cluster://a/1", "redis+x://a",
        "redis://a/x", "redis://a?retry=1", "redis://user:hunter2@a:99999",
    ],
)  # fmt: skip
def test_a_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        parse(url)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
