"""Hosts come alive by themselves once verified."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from brandproxy.certs import Vault, maintain
from brandproxy.certs.copies import Folder, copy, pair
from brandproxy.certs.devca import DevCA
from brandproxy.certs.vault import certificate
from brandproxy.context import Context
from brandproxy.errors import BadInput
from brandproxy.model import HostState

HOST = "links.acme.example"


@asynccontextmanager
async def control(context: Context) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(context.directory.follow(context.store)),
        asyncio.create_task(maintain(context)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_verified_host_goes_live_with_a_certificate_a_strict_client_accepts(
    context: Context, vault: Vault
) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host(HOST, "acme", HostState.VERIFIED)
    async with control(context):
        async with asyncio.timeout(10):
            while (await context.registry.host(HOST)).state is not HostState.LIVE:
                await asyncio.sleep(0.05)
    await copy(vault, Folder(context.settings.certs_directory, lambda host: None))
    await handshake(context)


async def handshake(context: Context) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*pair(context.settings.certs_directory, HOST))
    trusting = ssl.create_default_context(cafile=context.settings.data / "dev-ca.pem")
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=HOST)
        writer.close()


async def test_a_pending_host_gets_no_certificate(context: Context, vault: Vault) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host(HOST, "acme")
    async with control(context):
        await asyncio.sleep(0.8)
    assert await vault.hosts() == []


def test_a_chain_with_another_key_is_refused(context: Context) -> None:
    ca = DevCA(context.settings.data)
    one, two = ca.issue(HOST, 1.8e9), ca.issue(HOST, 1.8e9)
    with pytest.raises(BadInput, match="do not belong together"):
        certificate(HOST, one.chain, two.key, "import")


def test_a_certificate_of_another_name_is_refused(context: Context) -> None:
    one = DevCA(context.settings.data).issue(HOST, 1.8e9)
    with pytest.raises(BadInput, match=r"not for other\.example"):
        certificate("other.example", one.chain, one.key, "import")


def test_a_private_key_never_shows_in_a_repr(context: Context) -> None:
    assert "PRIVATE" not in repr(DevCA(context.settings.data).issue(HOST, 1.8e9))
