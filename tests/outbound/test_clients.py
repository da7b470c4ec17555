"""The table of broken servers against each of our clients: webhooks, one-click unsubscribes, the look at HSTS, the
probe before an order, ClickHouse."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import trustme
import uvloop

from brandproxy.certs import preflight
from brandproxy.config import Settings
from brandproxy.edge import unsubscribe, worker
from brandproxy.engines.base import EngineUnavailable
from brandproxy.engines.clickhouse import ClickHouseEngine
from brandproxy.errors import FetchFailed
from brandproxy.fetch import open_fetcher
from brandproxy.spool import Spool, segments
from brandproxy.webhooks import delivery
from brandproxy.webhooks.book import Batch, Webhook
from brandproxy.webhooks.delivery import Delivery, Message
from tests.outbound.broken_servers import GOOD, TABLE, Broken, misbehaving

SETTINGS = Settings(outbound={"allow": "127.0.0.1", "seconds": 0.25})  # type: ignore[arg-type]
ENDLESS = {name for name, broken in TABLE.items() if {"flood", "slow"} & set(broken.script)}


class Told:
    """A lane, and a book, that have one thing to say."""

    name, kinds = "events", ("click",)

    def secret(self, hook: Webhook) -> str:
        return "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    async def message(self, hook: Webhook, batch: Batch) -> Message:
        return Message("click", "2026-11-29T00:00:00Z", {"tenant": hook.tenant})


@pytest.mark.parametrize("name", TABLE)
async def test_a_webhook_is_delivered_when_its_own_receiver_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SECONDS", 1.0)
    told = cast(Any, Told())
    async with misbehaving(TABLE[name]) as server, open_fetcher(SETTINGS) as fetcher:
        work = Delivery(told, [told], fetcher)

        async def send(tenant: str) -> str:
            hook = Webhook("h", tenant, server.url, ("click",), False, "", 0)
            return (await work._send(hook, told, Batch("b", cast(Any, 0), cast(Any, 1))))[0]

        error = await send("acme")
        assert (error == "") == server.broken.good or server.broken.own or "304" in name
        server.good = True
        assert await send("beta") == ""
        assert await send("acme") == ""


@pytest.mark.parametrize("name", sorted(set(TABLE) - ENDLESS - {"silence", "silence midway"}))
async def test_a_one_click_post_is_done_when_its_own_endpoint_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in (("_FIRST_RETRY", 0.1), ("_LAST_RETRY", 0.1), ("_POLL", 0.02)):
        monkeypatch.setattr(unsubscribe, constant, value)
    settings = SETTINGS.model_copy(update={"data": tmp_path})
    async with misbehaving(TABLE[name]) as server:
        spool = Spool(tmp_path / "unsubscribe", "w1")
        await spool.append(unsubscribe.encode(server.url, b"List-Unsubscribe=One-Click", "", 4e9))
        await spool.close()
        forwarding = asyncio.create_task(worker._forward(settings))
        async with asyncio.timeout(10):
            while len(server.heads) < (0 if server.broken.early else 1):
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.15)
            asked = len(server.heads)
            if not server.broken.good and not server.broken.own:
                assert segments(tmp_path / "unsubscribe")  # not done
            server.good = True
            while segments(tmp_path / "unsubscribe"):
                await asyncio.sleep(0.02)
        assert len(server.heads) >= asked
        assert all(head.startswith(b"POST / HTTP/1.1\r\n") for head in server.heads)
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)


@pytest.mark.parametrize("name", TABLE)
async def test_a_probe_is_never_answered_by_a_broken_server(name: str) -> None:
    once = httpx.Limits(max_keepalive_connections=0)
    async with misbehaving(TABLE[name]) as server, httpx.AsyncClient(timeout=1, limits=once) as client:
        preflight_timeout, preflight._TIMEOUT = preflight._TIMEOUT, 0.5
        try:
            assert await preflight._fault(client, server.url, "links.acme.example", "answer")
            server.good = True
            assert await preflight._fault(client, server.url, "links.acme.example", "good") is None
        finally:
            preflight._TIMEOUT = preflight_timeout


@pytest.mark.parametrize(
    "name", sorted(set(TABLE) - ENDLESS - {"silence", "silence midway", "a greeting of SMTP"})
)
async def test_figures_are_never_an_earlier_questions(name: str) -> None:
    async with misbehaving(TABLE[name]) as server:
        engine = ClickHouseEngine(f"clickhouse://127.0.0.1:{server.port}/x")
        with suppress(EngineUnavailable):
            await engine._send("SELECT 1", {})
        await asyncio.sleep(0.03)
        server.good = True
        assert await engine._send("SELECT 2", {}) == b"good"
        await engine.close()


@asynccontextmanager
async def encrypted(script: bytes, clean: bool) -> AsyncIterator[tuple[int, ssl.SSLContext, list[bool]]]:
    """(port, what to trust, whether each connection resumed a session) of a TLS server that says `script`."""
    ca = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(tls)
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    resumed: list[bool] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(bool(writer.get_extra_info("ssl_object").session_reused))
        with suppress(EOFError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(script)
                await writer.drain()
                if b"content-length" not in script:
                    await asyncio.sleep(0.05)
                    writer.close() if clean else writer.transport.abort()
                    return
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], trust, resumed
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("make", "clean"),
    [(asyncio.new_event_loop, True), (uvloop.new_event_loop, True), (uvloop.new_event_loop, False)],
)  # asyncio's own TLS does not tell a cut from an end
def test_a_body_cut_off_within_tls_is_no_whole_body(make: Any, clean: bool) -> None:
    async def work() -> None:
        async with (
            encrypted(b"HTTP/1.1 200 OK\r\n\r\nhalf", clean) as (port, trust, _),
            open_fetcher(SETTINGS, trust=trust) as fetcher,
        ):
            if clean:
                assert (await fetcher.request("GET", f"https://127.0.0.1:{port}/")).body == b"half"
            else:
                with pytest.raises(FetchFailed):
                    await fetcher.request("GET", f"https://127.0.0.1:{port}/")

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(work())


async def test_tenants_share_no_tls_session() -> None:
    async with encrypted(GOOD, True) as (port, trust, resumed), open_fetcher(SETTINGS, trust=trust) as fetcher:
        for tenant in ("acme", "beta", "acme", "beta"):
            answer = await fetcher.request("GET", f"https://127.0.0.1:{port}/", tenant=tenant)
            assert answer.body == b"good"
    assert resumed == [False, False]


async def test_cookies_of_one_answer_go_nowhere() -> None:
    async with misbehaving(
        Broken((b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 4\r\n\r\ngood",))
    ) as server:
        async with open_fetcher(SETTINGS) as fetcher:
            for tenant in ("acme", "acme", "beta"):
                await fetcher.request("GET", server.url, tenant=tenant)
        assert all(b"cookie" not in head.lower() for head in server.heads)
        assert len(server.heads) == 3
