"""Six-day certificates: profile, renewal at half their life, windows, what the new order replaces."""

from __future__ import annotations

import time
from pathlib import Path

from brandproxy.acme import ari_of
from brandproxy.certs.ordering import Orders, _leaf
from brandproxy.certs.upkeep import Upkeep
from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.core.renewal import DAY, HOUR
from brandproxy.model import HostState
from tests.certs.acme_fixtures import challenge
from tests.certs.stage import HOST, Stage, stage
from tests.parts import ChallengeServer, Knot, Pebble

__all__ = ["stage"]

LIFE = 160 * HOUR


async def short_lived(stage: Stage) -> None:
    """The next order asks for the profile, and the CA has it."""
    stage.ca.profiles = {"classic": 90 * DAY, "shortlived": LIFE}
    stage.ca.orders.clear()
    certs = stage.context.settings.certs.model_copy(update={"profile": "shortlived"})
    settings = stage.context.settings.model_copy(update={"certs": certs})
    object.__setattr__(stage.context, "settings", settings)
    await Orders(stage.context).vault.remove(HOST)
    await stage.plan(restarted=True)
    assert (await stage.certificate()).lifetime == LIFE


async def test_a_fortnight_of_six_day_certificates_is_renewed_at_half_their_life_each_naming_the_last(
    stage: Stage,
) -> None:
    await short_lived(stage)
    begin, ages, replaced = stage.at, [], []
    while stage.at < begin + 15 * DAY:
        before = await stage.certificate()
        assert before.not_after - stage.at > LIFE * 0.45
        stage.at += 4 * HOUR
        await stage.plan()
        if (await stage.serial()) != before.serial:
            ages.append((stage.at - before.not_before) / LIFE)
            replaced.append(ari_of(_leaf(before)))
    assert all(0.44 <= age <= 0.54 for age in ages), ages
    assert len(ages) == 4
    assert [order["profile"] for order in stage.ca.orders] == ["shortlived"] * (len(ages) + 1)
    assert [order.get("replaces") for order in stage.ca.orders[1:]] == replaced
    assert (await stage.context.registry.host(HOST)).state is HostState.LIVE


async def test_a_window_in_a_six_day_life_is_kept(stage: Stage) -> None:
    await short_lived(stage)
    first = await stage.certificate()
    start = first.not_before + 30 * HOUR
    stage.ca.windows[ari_of(_leaf(first))] = (start, start + 4 * HOUR, 2 * HOUR)
    stage.at += 7 * HOUR
    await stage.plan()
    known = await stage.known()
    assert start <= known.renew_at <= start + 4 * HOUR
    stage.at = known.renew_at + 1
    await stage.plan()
    assert await stage.serial() != first.serial
    assert stage.ca.orders[-1]["replaces"] == ari_of(_leaf(first))


async def test_a_ca_that_is_away_is_tried_often_enough_for_six_days(stage: Stage) -> None:
    await short_lived(stage)
    first, tries = await stage.certificate(), 0
    stage.at = first.not_before + LIFE // 2
    stage.ca.trouble = lambda path, body: (500, {"type": "urn:ietf:params:acme:error:serverInternal"}, {})
    while stage.at < first.not_after - HOUR:
        await stage.plan()
        tries += 1
        stage.at = (await stage.known()).next_at + 1
    assert tries >= 30  # within three days, though the ladder ends at one a day
    assert await stage.serial() == first.serial
    stage.ca.trouble = lambda path, body: None
    await stage.plan()
    assert await stage.serial() != first.serial


async def test_a_profile_the_ca_has_not_is_told_and_costs_no_order(stage: Stage) -> None:
    await short_lived(stage)
    stage.ca.profiles = {"classic": 90 * DAY}
    stage.ca.orders.clear()
    await Orders(stage.context).vault.remove(HOST)
    await stage.plan(restarted=True)
    known = await stage.known()
    assert (known.code, stage.ca.orders) == ("invalidProfile", [])
    assert "classic" in known.error


async def test_a_ca_without_profiles_is_not_asked_for_one(stage: Stage) -> None:
    await short_lived(stage)
    stage.ca.profiles = {}
    await Orders(stage.context).vault.remove(HOST)
    await stage.plan(restarted=True)
    assert "profile" not in stage.ca.orders[-1]


async def test_a_real_ca_with_six_day_certificates_is_renewed_at_half_of_them(tmp_path: Path, knot: Knot) -> None:
    async def answer(token: str) -> bytes | None:
        return await challenge(context, token)

    server = ChallengeServer(answer)
    pebble = Pebble(tmp_path / "pebble", knot.server, server.port, lifetime=LIFE)
    settings = Settings(
        data=tmp_path / "data",
        edge={"domain": "edge.test", "public_http_port": server.port},
        dns={"servers": knot.server},
        certs={"ca": pebble.url, "acme_trust": pebble.trust, "caa": "pebble.test", "profile": "shortlived"},
    )
    pebble.start()
    try:
        async with server, open_context(settings, actor="test") as context:
            await context.registry.add_tenant("acme")
            host = await context.registry.add_host("six.acme.test", "acme", HostState.VERIFIED)
            await knot.put(host.name, "CNAME", f"{host.target}.")
            leaves = []
            for later in (0.0, 0.4 * LIFE, 0.51 * LIFE):
                upkeep = Upkeep(context, lambda later=later: time.time() + later)  # type: ignore[misc]
                await upkeep.load()
                for _ in range(3):
                    await context.directory.load(context.store)
                    for due, step in await upkeep.plan():
                        await upkeep.work(due, step)
                found = await upkeep.orders.vault.get(host.name)
                assert found is not None
                assert abs(found.lifetime - LIFE) <= HOUR
                leaves.append(found.serial)
                upkeep.orders.accounts.close()
            assert leaves[0] == leaves[1] != leaves[2]
    finally:
        pebble.stop()
        await knot.put("six.acme.test", "CNAME")
