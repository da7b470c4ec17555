"""The account's key rolls over while others use it, and whatever dies in the middle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.acme import Account, new_key
from brandproxy.certs.accounts import Accounts, digest
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.store import keys
from brandproxy.store.seal import open_seal
from tests.conftest import free_port
from tests.parts import Knot, Pebble


@pytest.fixture
async def installed(tmp_path: Path, knot: Knot) -> AsyncIterator[Context]:
    pebble = Pebble(tmp_path / "pebble", knot.server, free_port())
    pebble.start()
    settings = Settings(data=tmp_path / "data", certs={"ca": pebble.url, "acme_trust": pebble.trust})
    async with open_context(settings, actor="test") as context:
        yield context
    pebble.stop()


def process(context: Context) -> Accounts:
    return Accounts(context.store, open_seal(context.settings), context.settings.certs)


async def ordered(accounts: Accounts, url: str) -> str:
    """Who may order has the right key."""
    account = await accounts.open(url)
    await account.order(b"", ("links.acme.test",))
    return account.uri


async def test_a_key_rolled_over_by_another_process_is_taken_up_without_a_restart(installed: Context) -> None:
    url = installed.settings.certs.ca
    server, command = process(installed), process(installed)
    uri = await ordered(server, url)
    for _ in range(2):
        await command.roll_over(url)
        assert await ordered(server, url) == uri
    for one in (server, command):
        one.close()


@pytest.mark.parametrize("heard", [False, True], ids=["before the CA heard", "after the CA heard"])
async def test_a_roll_over_that_dies_in_the_middle_leaves_an_account_that_works(
    installed: Context, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = installed.settings.certs.ca
    server, command = process(installed), process(installed)
    uri = await ordered(server, url)
    roll_over = Account.roll_over

    async def dies(self: Account, key: object) -> None:
        if heard:
            await roll_over(self, key)  # type: ignore[arg-type]
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Account, "roll_over", dies)
        with pytest.raises(RuntimeError):
            await command.roll_over(url)
    assert await ordered(server, url) == uri
    fresh = process(installed)
    assert await ordered(fresh, url) == uri
    await fresh.roll_over(url)
    assert await ordered(server, url) == uri
    entry = await installed.store.get(keys.acme("account", digest(url)))
    assert entry is not None
    assert set(json.loads(entry.value)) == {"url", "key"}
    assert b"PRIVATE" not in entry.value
    for one in (server, command, fresh):
        one.close()


def test_an_account_key_never_shows_in_a_repr() -> None:
    assert "PRIVATE" not in repr(Account("https://ca.test/dir", new_key()))
