"""Certificates brought by operators, and terminators of their own."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from brandproxy.certs.copies import Folder, copy, pair
from brandproxy.certs.devca import DevCA
from brandproxy.certs.exchange import bring, crt_list
from brandproxy.certs.vault import Vault
from brandproxy.context import Context
from brandproxy.errors import BadInput
from brandproxy.model import HostState
from tests.conftest import free_port, need_program

HOST = "links.acme.example"


async def test_an_imported_certificate_makes_a_verified_host_live(context: Context, vault: Vault) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host(HOST, "acme", HostState.VERIFIED)
    own = DevCA(context.settings.data).issue(HOST, time.time())
    await bring(context, HOST, own.chain, own.key)
    assert (await context.registry.host(HOST)).state is HostState.LIVE
    found = await vault.get(HOST)
    assert found is not None
    assert (found.serial, found.ca) == (own.serial, "import")
    with pytest.raises(BadInput):
        await bring(context, HOST, own.chain, b"no key")


async def test_haproxy_accepts_the_list(context: Context, vault: Vault, tmp_path: Path) -> None:
    haproxy = need_program("haproxy", "haproxy")
    await vault.put(DevCA(context.settings.data).issue(HOST, time.time()))
    await copy(vault, Folder(context.settings.certs_directory, lambda host: None))
    (tmp_path / "crt-list").write_text(crt_list(context.settings.certs_directory))
    (tmp_path / "haproxy.cfg").write_text(
        f"defaults\n  mode http\n  timeout client 5s\nfrontend tls\n"
        f"  bind 127.0.0.1:{free_port()} ssl crt-list {tmp_path}/crt-list\n"
    )
    done = subprocess.run([haproxy, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert pair(context.settings.certs_directory, HOST)[0].exists()
