"""The page a customer opens by a private link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.async_api import Page, async_playwright, expect
from pydantic import SecretStr
from starlette.applications import Starlette

from brandproxy.admin import public
from brandproxy.certs import maintain
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.model import HostState
from brandproxy.onboarding import Watcher, page_link, watch
from tests.conftest import free_port, need_program
from tests.parts import KEY, Knot

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
async def context(tmp_path: Path, knot: Knot) -> AsyncIterator[Context]:
    settings = Settings(
        data=tmp_path,
        edge={"domain": "edge.test"},
        control={"listen": f"127.0.0.1:{free_port()}"},
        dns={
            "servers": knot.server,
            "pending_seconds": 1,
            "dkim_domain": "dkim.test",
            "bounce_host": "bounces.test",
            "nameservers": "ns.mail.acme.test",
            "update_server": knot.server,
            "update_key": SecretStr(KEY),
        },
        certs={"ca": "dev"},
    )
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        yield context


@pytest.fixture
async def site(context: Context) -> AsyncIterator[None]:
    """The control port with the page; DNS watch and certificates beside it."""
    app = Starlette(routes=[*public.pages(context), *public.questions(context)])
    port = int(context.settings.control.listen.rpartition(":")[2])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    work = (server.serve(), context.directory.follow(context.store), watch(context), maintain(context))
    tasks = [asyncio.create_task(one) for one in work]
    while not server.started:
        await asyncio.sleep(0.02)
    yield
    server.should_exit = True
    await tasks[0]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        program = need_program("chromium", "chromium")
        chromium = await playwright.chromium.launch(executable_path=program, args=_FLAGS)
        page = await chromium.new_page()
        yield page
        await chromium.close()


async def test_red_records_turn_green_after_the_dns_change_without_reload(
    context: Context, site: None, knot: Knot
) -> None:
    host = await context.registry.add_host("links.acme.test", "acme")
    complaints: list[str] = []
    async with browser() as page:
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(await page_link(context, host.name))
        await page.evaluate("window.same = true")
        needed = page.locator("tbody tr").first
        records = page.locator("table:not(.dmarc) tbody tr")
        await expect(needed).to_have_class("missing")
        await expect(needed).to_contain_text(host.target)
        await expect(page.locator("[data-code=cname-missing]")).to_be_visible()
        await expect(records).to_have_count(4)  # and two DKIM selectors, and the bounce host
        label = (await context.registry.senders.get("acme.test", "acme")).label
        await knot.put(host.name, "CNAME", f"{host.target}.")
        await knot.put("bp1._domainkey.acme.test", "CNAME", f"bp1.{label}.dkim.test.")
        await expect(needed).to_have_class("right", timeout=15_000)
        await expect(page.locator("table:not(.dmarc) tr.right")).to_have_count(2, timeout=15_000)
        await expect(page.locator("[data-state=live]")).to_be_visible(timeout=15_000)
        await expect(page.get_by_role("status")).to_contain_text("All done")
        assert await page.evaluate("window.same")  # never reloaded
    assert complaints == []
    await knot.put(host.name, "CNAME")


async def test_a_link_that_was_not_made_by_us_leads_nowhere(context: Context, site: None) -> None:
    host = await context.registry.add_host("private.acme.test", "acme")
    url = await page_link(context, host.name)
    async with httpx.AsyncClient() as client:
        good = await client.get(url)
        assert good.status_code == 200
        assert "script-src 'self'" in good.headers["content-security-policy"]
        cut = url[:60] + ("A" if url[60] != "A" else "B") + url[61:]
        for bad in (cut, url.rpartition("/")[0] + "/x", url.rpartition("/")[0] + "/%ff%00"):
            assert (await client.get(bad)).status_code == 404
        await context.registry.remove_host(host.name)
        await context.registry.add_host(host.name, "acme")
        assert (await client.get(url)).status_code == 404


async def test_caddy_may_issue_for_proven_hosts_only(context: Context, site: None) -> None:
    await context.registry.add_host("yes.acme.test", "acme", HostState.VERIFIED)
    await context.registry.add_host("not-yet.acme.test", "acme")
    await context.directory.load(context.store)
    ask = f"http://{context.settings.control.listen}/caddy/ask"
    async with httpx.AsyncClient() as client:
        for domain, status in (("yes.acme.test", 200), ("not-yet.acme.test", 404), ("evil.test", 404), ("", 404)):
            assert (await client.get(ask, params={"domain": domain})).status_code == status


async def test_the_page_of_a_delegated_zone_shows_what_is_the_customers_and_what_is_ours(
    context: Context, site: None
) -> None:
    host = await context.registry.add_host("links.mail.acme.test", "acme", zone="mail.acme.test")
    for _ in range(2):
        await Watcher(context).check(host.name)
    async with httpx.AsyncClient() as client:
        page = (await client.get(await page_link(context, host.name))).text
    assert page.count("(kept by us)") == 4
    assert page.count('<tr class="right">\n<td class="mark">✓ found') == 5
    assert page.count('data-alignment="DKIM"') == 2  # mail from the zone, and from the domain above it
    assert "relaxed only" in page
