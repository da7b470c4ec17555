"""A CA that misbehaves, and clocks that do: nothing is ordered twice, nothing waits for ever, nothing loops."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from brandproxy.acme import account as accounts
from brandproxy.certs import progress
from brandproxy.certs.ordering import Orders
from brandproxy.core.renewal import DAY, HOUR
from brandproxy.model import HostState
from brandproxy.store import keys
from brandproxy.store.base import LockLost
from tests.certs.fake_ca import FakeCA
from tests.certs.stage import HOST, Stage, stage

__all__ = ["stage"]

_ERROR = "urn:ietf:params:acme:error:"


def problem(status: int, kind: str, **head: str) -> tuple[int, Any, dict[str, str]]:
    return (
        status,
        {"type": _ERROR + kind, "detail": f"told: {kind}"},
        {k.replace("_", "-"): v for k, v in head.items()},
    )


async def due(stage: Stage) -> None:
    """The certificate at hand is due now."""
    stage.at = (await stage.known()).renew_at + 1
    stage.ca.orders.clear()
    stage.ca.paths.clear()


async def test_a_ca_that_calls_every_certificate_overdue_is_not_asked_in_a_loop(stage: Stage) -> None:
    stage.ca.windows["*"] = (1, 2, 60)
    stage.ca.orders.clear()
    for _ in range(48):
        stage.at += HOUR
        await stage.plan()
    assert 1 <= len(stage.ca.orders) <= 4


async def test_a_rate_limit_is_waited_for_as_long_as_the_ca_says(stage: Stage) -> None:
    await due(stage)
    stage.ca.trouble = lambda path, body: (
        problem(429, "rateLimited", Retry_After=str(20 * HOUR)) if path == "/newOrder" else None
    )
    first, begin = await stage.serial(), stage.at
    for _ in range(19):
        await stage.plan()
        stage.at += HOUR
    assert stage.ca.paths.count("/newOrder") == 1
    known = await stage.known()
    assert (known.code, known.next_at - begin >= 20 * HOUR) == ("rateLimited", True)
    stage.ca.trouble = lambda path, body: None
    stage.at = known.next_at + 1
    await stage.plan()
    assert await stage.serial() != first


async def test_a_storm_of_bad_nonces_ends_and_is_tried_again_later(stage: Stage) -> None:
    await due(stage)
    stage.ca.trouble = lambda path, body: problem(400, "badNonce") if path == "/newOrder" else None
    first = await stage.serial()
    await stage.plan()
    assert stage.ca.paths.count("/newOrder") <= 30
    assert (await stage.known()).code == "ca-away"
    stage.ca.trouble = lambda path, body: None
    stage.at = (await stage.known()).next_at + 1
    await stage.plan()
    assert await stage.serial() != first


async def test_an_order_stuck_in_processing_is_gone_on_with_and_polled_as_the_ca_says(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_DEADLINE", 3.0)
    await due(stage)
    chains: list[Any] = []

    def stuck(path: str, body: Any) -> tuple[int, Any, dict[str, str]] | None:
        if path.startswith("/finalize/") and not chains:
            stage.ca.trouble = lambda path, body: None
            chains.append(stage.ca.answer(path, body))
            stage.ca.trouble = stuck
        if path.startswith(("/finalize/", "/order/")) and chains:
            return 200, stage.ca.order("processing"), {"Retry-After": "1"}
        return None

    stage.ca.trouble = stuck
    first = await stage.serial()
    await stage.plan()
    known = await stage.known()
    assert (known.code, known.pending is not None) == ("ca-away", True)
    assert stage.ca.paths.count("/order/1") <= 4  # once a second
    stage.ca.trouble = lambda path, body: None
    stage.at = known.next_at + 1
    await stage.plan()
    assert await stage.serial() != first
    assert len(stage.ca.orders) == 1
    assert stage.ca.paths.count("/finalize/1") == 2  # once here, once by the test's own hand


async def test_back_off_survives_a_restart_but_not_a_clock_that_was_wrong(stage: Stage) -> None:
    await due(stage)
    stage.ca.trouble = lambda path, body: problem(403, "rejectedIdentifier") if path == "/newOrder" else None
    await stage.plan()
    assert stage.ca.paths.count("/newOrder") == 1
    stage.at += 30
    await stage.plan(restarted=True)
    assert stage.ca.paths.count("/newOrder") == 1
    now = stage.at
    stage.at += 365 * DAY  # a machine that woke up in another year
    await progress.write(
        stage.context.store, HOST, (await stage.known()).failed("clock", "clock", stage.at, float("inf"))
    )
    stage.at = now
    stage.ca.trouble = lambda path, body: None
    first = await stage.serial()
    await stage.plan()
    assert await stage.serial() != first


async def test_links_leave_a_host_whose_certificate_ended_and_come_back_with_the_next(stage: Stage) -> None:
    found = await stage.certificate()
    stage.ca.trouble = lambda path, body: problem(503, "serverInternal")
    stage.at = found.not_after + 1
    await stage.plan()
    host = await stage.context.registry.host(HOST)
    assert (host.state, host.reason) == (HostState.VERIFIED, "its certificate ended")
    await stage.context.directory.load(stage.context.store)
    assert stage.context.directory.base_url("acme") is None
    stage.ca.trouble = lambda path, body: None
    stage.at += 2 * DAY
    await stage.plan()
    assert (await stage.context.registry.host(HOST)).state is HostState.LIVE


async def test_a_revoked_certificate_is_not_served_as_live(stage: Stage) -> None:
    stage.ca.trouble = lambda path, body: problem(503, "serverInternal")
    await Orders(stage.context).vault.remove(HOST)
    await stage.plan()
    assert (await stage.context.registry.host(HOST)).state is HostState.VERIFIED


async def test_a_name_given_to_another_while_its_order_runs_gets_none_of_it(stage: Stage) -> None:
    await stage.context.registry.add_tenant("rival")
    await due(stage)
    loop = asyncio.get_running_loop()

    def meanwhile(path: str, body: Any) -> None:
        if path.startswith("/finalize/"):
            asyncio.run_coroutine_threadsafe(change(), loop).result(10)

    async def change() -> None:
        await stage.context.registry.remove_host(HOST)
        await stage.context.registry.add_host(HOST, "rival")

    stage.ca.trouble = meanwhile
    orders = Orders(stage.context, lambda: stage.at)
    assert await orders.obtain(stage.host, await stage.certificate()) is None
    assert await orders.vault.hosts() == []
    orders.accounts.close()


async def test_a_second_ca_need_not_wait_for_the_firsts_rate_limit(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with FakeCA(tmp_path / "second", 45 * DAY, lambda: stage.at) as second:
        both = tmp_path / "both.pem"
        both.write_text(stage.ca.trust.read_text() + second.trust.read_text())
        certs = stage.context.settings.certs.model_copy(update={"fallback": second.url, "acme_trust": both})
        settings = stage.context.settings.model_copy(update={"certs": certs})
        object.__setattr__(stage.context, "settings", settings)
        await due(stage)
        stage.ca.trouble = lambda path, body: (
            problem(429, "rateLimited", Retry_After=str(20 * HOUR)) if path == "/newOrder" else None
        )
        begin = stage.at
        await stage.plan(restarted=True)
        stage.at = (await stage.known()).next_at + 1
        assert stage.at - begin < HOUR
        await stage.plan()
        assert (await stage.certificate()).ca == second.url
        assert stage.ca.paths.count("/newOrder") == 1


async def test_a_lock_lost_while_the_ca_issues_leaves_the_order_to_the_next_node(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await due(stage)
    old, lock = await stage.certificate(), stage.context.store.lock

    @asynccontextmanager
    async def losing(name: str, ttl: float = 30.0) -> AsyncIterator[Any]:
        async with lock(name, ttl) as lease:
            task = asyncio.current_task()
            assert task is not None
            if name == f"acme/{HOST}":
                asyncio.get_running_loop().call_later(0.4, task.cancel)
            try:
                yield lease
            except asyncio.CancelledError:
                task.uncancel()
                raise LockLost("could not be kept") from None

    stage.ca.trouble = lambda path, body: time.sleep(1) if path.startswith("/finalize/") else None
    orders = Orders(stage.context, lambda: stage.at)
    with monkeypatch.context() as patch:
        patch.setattr(stage.context.store, "lock", losing)
        with pytest.raises(LockLost):
            await orders.obtain(stage.host, old)
    assert await stage.serial() == old.serial
    assert (await stage.known()).pending is not None
    await asyncio.sleep(1)
    stage.ca.trouble = lambda path, body: None
    fresh = await Orders(stage.context, lambda: stage.at).obtain(stage.host, old)
    assert fresh is not None
    assert len(stage.ca.orders) == 1
    orders.accounts.close()


async def test_failing_is_told_at_the_second_failure_and_once(stage: Stage) -> None:
    await due(stage)
    stage.ca.trouble = lambda path, body: problem(503, "serverInternal") if path == "/newOrder" else None
    told = []
    for _ in range(5):
        await stage.plan()
        notices = [json.loads(entry.value) for entry in await stage.context.store.list(keys.NOTICE)]
        told.append([notice["data"] for notice in notices if notice["kind"] == "certificate.failing"])
        stage.at = (await stage.known()).next_at + 1
    assert [len(one) for one in told] == [0, 1, 1, 1, 1]
    [data] = told[-1]
    assert (data["host"], data["code"], data["serial"]) == (HOST, "ca-away", await stage.serial())
    assert data["next_try_at"] > 0


async def test_a_ca_without_renewal_windows_is_not_told_what_an_order_replaces(stage: Stage) -> None:
    def without(path: str, body: Any) -> tuple[int, Any, dict[str, str]] | None:
        if path != "/dir":
            return None
        stage.ca.trouble = lambda path, body: None
        status, names, head = stage.ca.answer(path, body)
        stage.ca.trouble = without
        return status, {name: url for name, url in names.items() if name != "renewalInfo"}, head

    await due(stage)
    stage.ca.trouble = without
    first = await stage.serial()
    await stage.plan(restarted=True)
    assert await stage.serial() != first
    assert [("replaces" in order) for order in stage.ca.orders] == [False]
