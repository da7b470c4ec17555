"""The dashboard as people use it: in a browser, with and without scripts, by eye and by screen reader."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright, expect

from brandproxy import access, sessions
from brandproxy.analytics.dashboard import pages, view
from brandproxy.model import HostState
from brandproxy.store import keys
from brandproxy.web import Budget
from tests.conftest import free_port, need_program, npm_packages

from .conftest import Port, event, put, some_events

CHROMIUM_ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SESSION = "brandproxy_session"
UI = Path(__file__).parent / "ui"
PAGES = (
    "/", "/?tenant=acme&period=7d&machines=include", "/?tenant=nobody", "/campaign?campaign=spring&tenant=acme",
    "/message?message=m3", "/recipient?recipient=r3&tenant=acme", "/hosts", "/live",
)  # fmt: skip


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility checker's source, installed from its lock file when it is not there yet."""
    return (npm_packages(UI) / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
async def served(port: Port) -> AsyncIterator[tuple[Port, str]]:
    """The control port on a real socket, with the dashboard."""
    number = free_port()
    port.app.router.routes.extend(pages.routes(port.context, port.engine))
    await port.context.registry.add_host("links.acme.example", "acme")
    await port.context.registry.set_host_state("links.acme.example", HostState.BROKEN, "CNAME is gone")
    await port.context.registry.add_host("go.globex.example", "globex")
    server = uvicorn.Server(uvicorn.Config(port.app, port=number, log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    yield port, f"http://127.0.0.1:{number}"
    server.should_exit = True
    await task


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or need_program("chromium", "chromium")
    async with async_playwright() as play:
        opened = await play.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield opened
        await opened.close()


async def signed_in(chromium: Browser, base: str, key: str, **options: Any) -> tuple[Page, list[str]]:
    """A page at the overview, and the list that faults of the console go to."""
    context = await chromium.new_context(**options)
    page = await context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    await page.goto(base)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(base + "/")
    return page, faults


async def test_a_day_with_the_dashboard(served: tuple[Port, str]) -> None:
    port, base = served
    await put(port.engine, some_events(300, days=20))
    async with browser() as chromium:
        page, faults = await signed_in(chromium, base, port.acme, timezone_id="Europe/Berlin")
        await expect(page.get_by_role("heading", level=1)).to_have_text("acme")
        figure = page.locator(".figure.clicks .big")
        before = int(await figure.inner_text())
        await expect(page.locator(".plot canvas")).to_be_visible()
        await asyncio.sleep(1)  # the live feed is connected
        for number in range(3):
            await put(
                port.engine, [event(campaign="today", recipient=f"new{number}", link=number)], f"now{number}"
            )
        await expect(figure).to_have_text(str(before + 3), timeout=4000)

        await page.get_by_role("link", name="today").first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("today")
        rows = page.locator("section:has(#links-in-order) tbody tr")
        assert [(await rows.nth(n).inner_text()).split()[0] for n in range(await rows.count())] == ["0", "1", "2"]
        await page.get_by_role("link", name="Live", exact=True).click()
        await expect(page.locator("[data-feed] tbody tr").first).to_contain_text("today")
        await expect(page.locator("[data-pulse]")).to_be_visible()
        await put(port.engine, [event(campaign="just-now", recipient="r9")], "later")
        await expect(page.locator("[data-feed] tbody tr").first).to_contain_text("just-now", timeout=4000)

        await page.get_by_role("link", name="Hosts").click()
        await expect(page.locator("table.hosts")).to_contain_text("The CNAME record is gone")
        assert "globex" not in await page.content()
        await page.get_by_role("button", name="Sign out").click()
        await page.goto(base + "/hosts")
        assert page.url == base + "/login"
        assert faults == []


async def test_no_page_is_wider_than_a_phone(served: tuple[Port, str]) -> None:
    port, base = served
    await put(port.engine, some_events(30, days=20))
    async with browser() as chromium:
        page, _ = await signed_in(chromium, base, port.operator, viewport={"width": 360, "height": 700})
        for path in ("/", "/campaign?tenant=acme&campaign=spring", "/hosts", "/live"):
            await page.goto(base + path)
            assert await page.evaluate("document.documentElement.scrollWidth") == 360, path


async def test_tables_are_read_without_scripts(served: tuple[Port, str]) -> None:
    port, base = served
    await put(port.engine, some_events(300, days=20))
    async with browser() as chromium:
        page, _ = await signed_in(chromium, base, port.operator, java_script_enabled=False)
        await page.get_by_text("Show as table").click()
        await expect(page.locator("table[data-chart] tbody tr")).to_have_count(30)
        await page.get_by_label("Tenant", exact=True).select_option("globex")
        await page.get_by_role("button", name="Show", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("globex")
        await expect(page.locator("section:has(#list-link) tbody tr").first).to_be_visible()


async def test_no_page_has_a_serious_accessibility_fault(served: tuple[Port, str], axe: str) -> None:
    port, base = served
    await put(port.engine, some_events(300, days=20))
    found = []
    async with browser() as chromium:
        for scheme in ("light", "dark"):
            page, faults = await signed_in(chromium, base, port.operator, color_scheme=scheme)
            for path in (*PAGES, "/login", "/campaign") if scheme == "light" else ("/", "/live"):
                await page.goto(base + path)
                await page.evaluate(axe)
                result = await page.evaluate("axe.run()")
                for fault in result["violations"]:
                    if fault["impact"] in ("serious", "critical"):
                        found.append((scheme, path, fault["id"], fault["nodes"][0]["html"][:200]))
            await page.context.close()
            assert [fault for fault in faults if "400 (Bad Request)" not in fault] == []
    assert found == []


async def sign_in(port: Port, key: str) -> httpx.Response:
    return await port.client.post("/login", data={"key": key})


@pytest.fixture
def pages_only(port: Port) -> Port:
    port.app.router.routes.extend(pages.routes(port.context, port.engine))
    return port


@pytest.mark.parametrize("path", PAGES)
async def test_a_tenants_session_shows_no_other_tenant(pages_only: Port, path: str) -> None:
    port = pages_only
    await put(port.engine, some_events(300, days=20))
    assert (await port.client.get(path)).headers["location"] == "/login"
    assert (await sign_in(port, port.globex)).status_code == 303
    answer = await port.client.get(path)
    assert answer.status_code == (404 if "tenant=acme" in path or "nobody" in path else 200)
    assert "initech" not in answer.text
    assert "acme.example" not in re.sub(r"(links|go)\.acme\.example", "", answer.text)


async def test_every_answer_has_the_strict_headers(pages_only: Port) -> None:
    port = pages_only
    await put(port.engine, some_events(50, days=20))
    await sign_in(port, port.operator)
    for path in (*PAGES, "/login", "/static/app.js", "/static/nothing", "/campaign"):
        policy = (await port.client.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    body = (await port.client.get("/")).text
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", body)


async def test_hostile_values_are_text_on_every_page(pages_only: Port) -> None:
    port = pages_only
    evil = "\"><script>alert(1)</script>{{7*7}}'"
    await put(
        port.engine,
        [event(campaign=evil, message=evil, recipient=evil, url=f"https://x.example/{evil}", agent=evil)],
    )
    await sign_in(port, port.operator)
    for path in ("/", "/live", "/campaign", "/message", "/recipient"):
        answer = await port.client.get(path, params={path[1:] or "x": evil} if path != "/live" else {})
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;" in answer.text


async def test_a_wrong_key_is_told_kindly_and_guessing_is_slowed(pages_only: Port) -> None:
    pages_only.app.state.tries = Budget(rate=0.001, burst=3)
    answers = [await sign_in(pages_only, "bp_000000000000_wrong") for _ in range(4)]
    assert [a.status_code for a in answers] == [401, 401, 401, 429]
    assert "not valid" in answers[0].text


async def test_a_session_ends_with_its_key_its_time_or_a_changed_cookie(
    pages_only: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = pages_only
    cookie = (await sign_in(port, port.acme)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert port.acme not in cookie
    assert (await port.client.get("/")).status_code == 200
    assert (await port.client.get("/v1/analytics/summary")).status_code == 200
    later = time.time() + sessions.SECONDS + 1
    with monkeypatch.context() as patch:
        patch.setattr(sessions.time, "time", lambda: later)
        assert (await port.client.get("/")).status_code == 303
    value = port.client.cookies[SESSION]
    port.client.cookies.clear()
    for wrong in (value[:-3] + "AAA", "", "x" * 5000):
        assert (await port.client.get("/", headers={"Cookie": f"{SESSION}={wrong}"})).status_code == 303
    assert (await port.client.get("/", headers={"Cookie": f"{SESSION}={value}"})).status_code == 200
    await access.revoke_key(port.context.store, port.acme.split("_")[1])
    assert (await port.client.get("/", headers={"Cookie": f"{SESSION}={value}"})).status_code == 303


async def test_a_session_changes_things_from_our_own_pages_only(pages_only: Port) -> None:
    port = pages_only
    await sign_in(port, port.acme)
    for headers in (
        {},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://control", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://control", "Sec-Fetch-Site": "same-site"},
    ):
        answer = await port.client.delete("/v1/analytics/recipients/r1", headers=headers)
        assert answer.status_code == 401, headers
        assert (await port.client.post("/logout", headers=headers)).headers["location"] == "/login"
    assert (await port.client.get("/")).status_code == 200, "nobody else signed us out"
    own = await port.client.delete("/v1/analytics/recipients/r1", headers={"Origin": "http://control"})
    assert own.status_code == 200
    forced = await port.client.post("/login", data={"key": port.globex}, headers={"Origin": "https://x.example"})
    assert forced.status_code == 401, "nobody signs a visitor in as somebody else"


async def test_signing_out_ends_the_session_everywhere_and_the_store_holds_no_key(pages_only: Port) -> None:
    port = pages_only
    await sign_in(port, port.acme)
    value = port.client.cookies[SESSION]
    stored = await port.context.store.list(keys.SESSION)
    assert len(stored) == 1
    for secret in (value, port.acme, port.acme.split("_", 2)[2]):
        assert secret.encode() not in stored[0].value
        assert secret not in stored[0].key
    gone = await port.client.post("/logout", headers={"Origin": "http://control"})
    assert f"{SESSION}=" in gone.headers["set-cookie"]
    port.client.cookies.clear()
    copied = await port.client.get("/", headers={"Cookie": f"{SESSION}={value}"})
    assert copied.headers["location"] == "/login"
    assert await port.context.store.list(keys.SESSION) == []


async def test_a_written_or_copied_session_record_lets_nobody_in(pages_only: Port) -> None:
    """Who can write the store, but not seal, makes no session; a record under another name is none."""
    port = pages_only
    await sign_in(port, port.operator)
    [record] = await port.context.store.list(keys.SESSION)
    port.client.cookies.clear()
    digest = hashlib.sha256(b"mine").hexdigest()
    plain = json.dumps([digest, port.operator.split("_")[1], int(time.time()) + 9999]).encode()
    for value in (record.value, plain):
        await port.context.store.put(keys.session(digest), value)
        answer = await port.client.get("/", headers={"Cookie": f"{SESSION}=mine"})
        assert answer.headers["location"] == "/login"


async def test_old_sessions_are_cleared_away(pages_only: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    port = pages_only
    for _ in range(3):
        await sign_in(port, port.acme)
    later = time.time() + sessions.SECONDS + 1
    monkeypatch.setattr(sessions.time, "time", lambda: later)
    await sign_in(port, port.acme)
    assert len(await port.context.store.list(keys.SESSION)) == 1


@pytest.mark.parametrize(
    ("scopes", "sees"),
    [
        (["analytics:read"], {"/", "/live"}),
        (["onboard"], {"/hosts"}),
        (["admin"], {"/hosts"}),
        (["rewrite"], set()),
        (["analytics:read", "onboard"], {"/", "/live", "/hosts"}),
    ],
)
async def test_a_key_of_any_scope_signs_in_and_sees_only_what_it_may(
    pages_only: Port, scopes: list[str], sees: set[str]
) -> None:
    port = pages_only
    _, key = await access.create_key(port.context.store, "acme", scopes=scopes)
    assert (await sign_in(port, key)).headers["location"] == "/"
    home = await port.client.get("/", follow_redirects=True)
    assert home.status_code == 200
    nav = home.text.partition("<nav")[2].partition("</nav>")[0]
    assert set(re.findall(r'href="([^"]*)"', nav)) == sees
    for path in ("/live", "/hosts", "/campaign?campaign=x", "/message?message=x"):
        wanted = path in sees or (path not in ("/live", "/hosts") and "/live" in sees)
        assert (await port.client.get(path)).status_code == (200 if wanted else 403), path


@pytest.mark.parametrize(
    ("settings", "headers", "secure"),
    [
        ({}, {}, False),
        ({}, {"X-Forwarded-Proto": "https"}, False),
        ({"trusted_proxies": "127.0.0.0/8"}, {"X-Forwarded-Proto": "https"}, True),
        ({"trusted_proxies": "127.0.0.0/8"}, {"X-Forwarded-Proto": "https, http"}, False),
        ({"trusted_proxies": "127.0.0.0/8"}, {"X-Forwarded-Proto": "http"}, False),
        ({"trusted_proxies": "10.0.0.0/8"}, {"X-Forwarded-Proto": "https"}, False),
        ({"public": "https://pages.example"}, {}, True),
        ({"public": "http://pages.example"}, {}, False),
    ],
)
async def test_the_cookie_is_secure_behind_a_gateway_that_speaks_tls(
    pages_only: Port, settings: dict[str, str], headers: dict[str, str], secure: bool
) -> None:
    port = with_control(pages_only, **settings)
    answer = await port.client.post("/login", data={"key": port.acme}, headers=headers)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == ("__Host-brandproxy_session" if secure else SESSION)
    assert ("Secure" in rest) is secure
    assert "Path=/" in rest
    assert "Domain" not in rest
    cookie = {"Cookie": f"{name}={rest.partition(';')[0]}"}
    port.client.cookies.clear()
    assert (await port.client.get("/", headers=cookie | headers)).status_code == 200
    if secure:  # a plain cookie, which any host of the domain can set, counts for nothing there
        planted = {"Cookie": f"{SESSION}={rest.partition(';')[0]}"}
        assert (await port.client.get("/", headers=planted | headers)).status_code == 303


def with_control(port: Port, **settings: str) -> Port:
    control = port.context.settings.control.model_copy(update=settings)
    context = replace(port.context, settings=port.context.settings.model_copy(update={"control": control}))
    del port.app.router.routes[:]
    port.app.router.routes.extend(pages.routes(context, port.engine))
    port.app.state.context = context
    return port


async def test_guessing_is_slowed_for_the_guesser_alone(pages_only: Port) -> None:
    """Behind a gateway by the last address it wrote; what the client claims before that is nothing."""
    pages_only.app.state.tries = Budget(rate=0.001, burst=3)
    port = with_control(pages_only, trusted_proxies="127.0.0.0/8, 10.0.0.0/8")

    async def tries(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        return (await port.client.post("/login", data={"key": "bp_0_wrong"}, headers=headers)).status_code

    for number in range(3):
        assert await tries(f"198.51.100.{number}, 203.0.113.9, 10.0.0.2") == 401
    assert await tries("192.0.2.77, 203.0.113.9") == 429
    assert await tries("203.0.113.9, 203.0.113.10") == 401, "another client is not locked out"
    for number in range(3):
        assert await tries(f"2001:db8:1:1::{number}") == 401
    assert await tries("2001:db8:1:1:ffff::1") == 429, "a /64 is one customer"
    far = with_control(port)
    assert [await tries(f"203.0.113.{n}") for n in range(5)][-1] == 429, "nobody is believed who is not trusted"
    assert far is port


async def test_a_sign_in_reads_nothing_long(pages_only: Port) -> None:
    answer = await pages_only.client.post("/login", content=b"key=" + b"x" * 1_000_000)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (987, "987"), (9_999, "9,999"), (12_345, "12.3k"), (4_560_000, "4.56M"), (7_000_000_000, "7G")],
)
def test_numbers_are_short(value: int, told: str) -> None:
    assert view.short(value) == told


async def test_a_page_of_hosts_has_an_end_and_begins_with_what_needs_attention(
    pages_only: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brandproxy.analytics.dashboard import hosts

    port, registry = pages_only, pages_only.context.registry
    for name in ("a", "b", "c"):
        await registry.add_host(f"{name}.acme.example", "acme")
    await registry.set_host_state("b.acme.example", HostState.BROKEN, "gone")
    await registry.set_host_state("a.acme.example", HostState.LIVE, "served")
    monkeypatch.setattr(hosts, "MOST", 2)
    await sign_in(port, port.operator)
    body = (await port.client.get("/hosts")).text
    assert body.index("b.acme.example") < body.index("c.acme.example")
    assert "a.acme.example" not in body
    assert "1 more hosts" in body
