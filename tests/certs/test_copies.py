"""The store's certificates on local disk."""

from __future__ import annotations

import asyncio
import ssl
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brandproxy.certs.copies import Folder, copy, mirror, pair
from brandproxy.certs.devca import DevCA
from brandproxy.certs.vault import Vault
from brandproxy.context import Context
from brandproxy.errors import NotFound
from brandproxy.store import keys

HOST = "links.acme.example"


async def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to hold in time")


def folder(context: Context) -> Folder:
    return Folder(context.settings.certs_directory, lambda host: None)


async def test_certificates_appear_change_and_vanish_as_in_the_store(context: Context, vault: Vault) -> None:
    ca, directory = DevCA(context.settings.data), context.settings.certs_directory
    await vault.put(ca.issue(HOST, time.time()))
    told: list[str] = []
    task = asyncio.create_task(mirror(context, told.append))
    try:
        await until(lambda: (directory / HOST / "privkey.pem").exists())
        first = (directory / HOST / "fullchain.pem").read_bytes()
        await vault.put(ca.issue(HOST, time.time()))
        await until(lambda: (directory / HOST / "fullchain.pem").read_bytes() != first)
        await vault.remove(HOST)
        await until(lambda: not (directory / HOST).exists())
        assert told == [HOST] * 3
        await until(lambda: not list((directory / ".versions").iterdir()))
    finally:
        task.cancel()


async def test_private_keys_are_readable_by_their_owner_only_and_sealed_in_the_store(
    context: Context, vault: Vault
) -> None:
    await vault.put(DevCA(context.settings.data).issue(HOST, time.time()))
    await copy(vault, folder(context))
    for path in pair(context.settings.certs_directory, HOST):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    entry = await context.store.get(keys.cert(HOST))
    assert entry is not None
    assert b"PRIVATE" not in entry.value
    assert stat.S_IMODE((context.settings.data / "dev-ca.key").stat().st_mode) == 0o600


async def test_a_reader_never_pairs_an_old_chain_with_a_new_key(context: Context) -> None:
    ca, directory, local = DevCA(context.settings.data), context.settings.certs_directory, folder(context)
    certificates = [ca.issue(HOST, time.time()) for _ in range(8)]
    local.write(certificates[0])
    stop, loads = threading.Event(), 0

    def write() -> None:
        while not stop.is_set():
            for certificate in certificates:
                local.write(certificate)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*pair(directory, HOST))
                loads += 1
            except FileNotFoundError:  # two versions went by meanwhile: gone, never mixed
                continue
    finally:
        stop.set()
        writer.join()
    assert loads > 50


async def test_a_full_copy_removes_what_the_store_no_longer_has(context: Context, vault: Vault) -> None:
    ca = DevCA(context.settings.data)
    for name in (HOST, "gone.acme.example"):
        await vault.put(ca.issue(name, time.time()))
    await copy(vault, folder(context))
    await vault.remove("gone.acme.example")
    await copy(vault, folder(context))
    assert [path.name for path in context.settings.certs_directory.iterdir() if path.is_symlink()] == [HOST]


async def test_a_folder_of_the_operators_own_is_left_alone(context: Context, vault: Vault) -> None:
    mine = context.settings.certs_directory / HOST
    mine.mkdir(parents=True)
    (mine / "fullchain.pem").write_text("mine")
    await vault.put(DevCA(context.settings.data).issue(HOST, time.time()))
    await copy(vault, folder(context))
    assert (mine / "fullchain.pem").read_text() == "mine"


async def test_an_unreadable_record_neither_stops_the_others_nor_leaves_the_folder(
    context: Context, vault: Vault, tmp_path: Path
) -> None:
    await context.store.put(keys.cert("a.acme.example"), b"\xff{")
    await context.store.put(keys.cert("../../escaped"), b'{"chain": "", "key": "", "ca": ""}')
    await vault.put(DevCA(context.settings.data).issue(HOST, time.time()))
    await copy(vault, folder(context))
    assert (context.settings.certs_directory / HOST / "privkey.pem").exists()
    assert not list(tmp_path.rglob("escaped"))


async def test_a_full_disk_keeps_the_old_certificate_and_heals(
    context: Context, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, directory = DevCA(context.settings.data), context.settings.certs_directory
    await vault.put(ca.issue(HOST, time.time()))
    await copy(vault, folder(context))
    old = (directory / HOST / "fullchain.pem").read_bytes()
    await vault.put(ca.issue(HOST, time.time()))

    def full(path: str, content: bytes, sync: bool) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("brandproxy.certs.copies._write", full)
        with pytest.raises(OSError, match="No space"):
            await copy(vault, folder(context))
    assert (directory / HOST / "fullchain.pem").read_bytes() == old
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*pair(directory, HOST))
    await copy(vault, folder(context))
    assert (directory / HOST / "fullchain.pem").read_bytes() != old


async def test_removing_what_is_not_there_says_so(vault: Vault) -> None:
    with pytest.raises(NotFound):
        await vault.remove(HOST)
