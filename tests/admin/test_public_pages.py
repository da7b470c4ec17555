"""Customers' pages on a port of their own: publishing them publishes nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from brandproxy.admin import public
from brandproxy.cli.common import with_context
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.engines import open_engine
from brandproxy.errors import BadSettings
from brandproxy.guard import Guarded, Open
from brandproxy.onboarding import links, page_link
from brandproxy.roles import build_control
from tests.conftest import free_addresses
from tests.parts import end, wait_for_port

POLICY = {
    "referrer-policy": "no-referrer", "x-content-type-options": "nosniff", "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow", "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    settings = Settings(data=tmp_path, control={"public_listen": "127.0.0.1:1"}, edge={"domain": "edge.test"})
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        await context.registry.add_host("links.acme.example", "acme")
        yield context


async def test_the_customers_port_leads_nowhere_else(context: Context) -> None:
    engine = open_engine(context.settings)
    routes = build_control(context, engine).routes
    await engine.close()
    app = public.application(context)
    link = httpx.URL(await page_link(context, "links.acme.example")).path
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pages") as client:
        for path in (link, f"{link}/status", "/onboarding/static/page.css"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert POLICY.items() <= dict(answer.headers).items()
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        for route in routes:
            assert isinstance(route, Guarded | Open)
            for method in ("GET", "POST", "DELETE"):
                answer = await client.request(method, route.path.replace("{", "").replace("}", ""))
                assert (answer.status_code, answer.text) == (404, "There is nothing here.\n"), route.path
                assert POLICY.items() <= dict(answer.headers).items()
        assert (await client.post(link)).status_code == 405
        assert (await client.get(link, headers={"Authorization": "Bearer x"})).status_code == 200


async def test_the_pages_are_on_the_control_port_only_while_it_is_this_machines_own(tmp_path: Path) -> None:
    for number, (listen, pages, there) in enumerate((
        ("127.0.0.1:8090", "", True), ("[::1]:8090", "", True), ("localhost:8090", "", True),
        ("0.0.0.0:8090", "", False), ("[::]:8090", "", False), ("10.0.0.5:8090", "", False),
        ("127.0.0.1:8090", "127.0.0.1:8091", False),
    )):  # fmt: skip
        settings = Settings(data=tmp_path / str(number), control={"listen": listen, "public_listen": pages})
        async with open_context(settings) as context:
            engine = open_engine(settings)
            paths = {getattr(route, "path", "") for route in build_control(context, engine).routes}
            await engine.close()
        assert ("/onboarding/{link}" in paths) is there, listen
        assert "/caddy/ask" in paths


@pytest.mark.parametrize(
    ("control", "url"),
    [
        ({}, "http://127.0.0.1:8090"),
        ({"listen": "[::1]:8090"}, "http://[::1]:8090"),
        ({"public": "https://pages.example/"}, "https://pages.example"),
        ({"listen": "0.0.0.0:8090", "public_listen": "192.0.2.7:80"}, "http://192.0.2.7:80"),
        ({"listen": "0.0.0.0:8090", "public_listen": "0.0.0.0:80", "public": "https://p.example"}, "https://p.example"),
        ({"public_listen": "unix:/run/pages", "public": "https://p.example"}, "https://p.example"),
        ({"listen": "0.0.0.0:8090"}, "control.public_listen"),
        ({"listen": "10.0.0.5:8090", "public": "https://p.example"}, "control.public_listen"),
        ({"public_listen": "0.0.0.0:8091"}, "control.public "),
        ({"public_listen": "[::]:8091"}, "control.public "),
        ({"public_listen": ":8091"}, "control.public "),
        ({"public_listen": "unix:/run/pages"}, "control.public "),
    ],
)  # fmt: skip
def test_a_printed_link_can_be_opened_or_the_setting_is_named(control: dict[str, str], url: str) -> None:
    settings = Settings(control=control)
    if url.startswith("http"):
        assert links.url(settings, "x") == f"{url}/onboarding/x"
        return
    with pytest.raises(BadSettings) as caught:
        links.url(settings, "x")
    assert f"Set {url}" in caught.value.action


def test_a_public_url_is_a_url() -> None:
    with pytest.raises(ValueError, match="write https://HOST"):
        Settings(control={"public": "pages.example"})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    addresses = free_addresses("CONTROL_LISTEN", "CONTROL_PUBLIC_LISTEN") | {"BRANDPROXY_DATA": str(tmp_path)}
    for name, value in addresses.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "brandproxy", "serve", "--role", "control"]
    process = subprocess.Popen(command, env=os.environ, start_new_session=True)
    for name in ("CONTROL_LISTEN", "CONTROL_PUBLIC_LISTEN"):
        wait_for_port(int(addresses[f"BRANDPROXY_{name}"].rpartition(":")[2]), process)
    yield addresses
    end(process)


def test_both_ports_of_a_running_server(server: dict[str, str]) -> None:
    async def prepare(context: Context) -> str:
        await context.registry.add_tenant("acme")
        await context.registry.add_host("links.acme.example", "acme")
        return await page_link(context, "links.acme.example")

    link = with_context(prepare)
    control, pages = (f"http://{server[f'BRANDPROXY_CONTROL_{name}']}" for name in ("LISTEN", "PUBLIC_LISTEN"))
    assert link.startswith(f"{pages}/onboarding/")
    with httpx.Client(trust_env=False) as client:
        assert client.get(link).status_code == 200
        assert client.get(link.replace(pages, control)).status_code == 404
        assert client.get(f"{control}/openapi.json").status_code == 200
        assert client.get(f"{control}/login").status_code == 200
        for path in ("/openapi.json", "/login", "/", "/v1/tenants", "/static/app.css", "/caddy/ask"):
            assert client.get(pages + path).status_code == 404
