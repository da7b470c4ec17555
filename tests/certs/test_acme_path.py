"""From `host add` to a certificate by a real CA, and what happens when something is wrong."""

from __future__ import annotations

import base64
import logging
import time

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from brandproxy.certs import Vault
from brandproxy.model import HostState
from brandproxy.store import keys
from brandproxy.store.seal import open_seal
from tests.certs.acme_fixtures import World, control, world
from tests.parts import EAB_KEY, KEY, until_state

__all__ = ["world"]


async def test_a_host_comes_alive_by_its_records_alone(world: World) -> None:
    async with world.context() as context, control(context):
        host = await world.host(context, "links.acme.test")
        began = time.monotonic()
        await until_state(context, host.name, HostState.LIVE)
        print(f"live after {time.monotonic() - began:.1f} s")
        found = await Vault(context.store, open_seal(context.settings)).get(host.name)
        assert found is not None
        assert found.names == (host.name,)
        assert found.ca == world.pebble.url
        assert await context.store.list(keys.CHALLENGE) == []
        await world.knot.put(host.name, "CNAME")


async def test_a_delegated_zone_gets_one_wildcard_for_all_its_hosts_and_no_log_has_a_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with world.context(eab_id="kid-1", eab_key=EAB_KEY) as context, control(context):
        first = await world.host(context, "links.mail.acme.test", zone="mail.acme.test")
        await until_state(context, first.name, HostState.LIVE)
        second = await world.host(context, "news.mail.acme.test", zone="mail.acme.test")
        await until_state(context, second.name, HostState.LIVE)
        vault = Vault(context.store, open_seal(context.settings))
        one, two = await vault.get(first.name), await vault.get(second.name)
        assert one is not None
        assert two is not None
        assert set(one.names) == {"mail.acme.test", "*.mail.acme.test"}
        assert one.serial == two.serial
        deep = await world.host(context, "links.eu.mail.acme.test", zone="mail.acme.test")
        await until_state(context, deep.name, HostState.LIVE)
        three = await vault.get(deep.name)
        assert three is not None
        assert set(three.names) == {"eu.mail.acme.test", "*.eu.mail.acme.test"}
        der = load_pem_private_key(one.key, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert "newOrder" in caplog.text or "new-order" in caplog.text or "order-plz" in caplog.text  # it is wordy
        for secret in ("PRIVATE KEY", base64.b64encode(der).decode()[40:80], EAB_KEY, KEY.rpartition(":")[2]):
            assert secret not in caplog.text
        assert (await world.knot.look("_acme-challenge.mail.acme.test", "TXT")) == ()
        assert (await world.knot.look(first.name, "CNAME")) == (first.target,)
