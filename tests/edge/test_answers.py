"""The table of answers, asked over real sockets of a real edge."""

from __future__ import annotations

import io
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from brandproxy.context import Context
from brandproxy.core.tokens import Click, Open, Unsubscribe
from brandproxy.edge.answers import GIF
from brandproxy.model import HostState
from brandproxy.store import keys
from tests.edge.conftest import HOST, OTHER, RunningEdge, eventually

URL = "https://shop.example/sale?a=1&b=%20#top"


@pytest.fixture
def ask(edge: RunningEdge):
    with httpx.Client(base_url=f"http://127.0.0.1:{edge.http}", trust_env=False) as client:

        def request(path: str, method: str = "GET", host: str = HOST, **headers: str) -> httpx.Response:
            return client.request(method, path, headers={"host": host, **headers})

        yield request


def test_a_click_redirects_to_the_signed_url_and_is_on_disk_when_answered(edge: RunningEdge, ask) -> None:
    click = Click(URL, "spring", "m-1", "r-1", 3, 1_700_000_000)
    before = len(edge.events())
    answer = ask("/c/" + edge.token(click), **{"user-agent": "Mozilla/5.0"})
    assert (answer.status_code, answer.headers["location"]) == (302, URL)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-robots-tag"] == "noindex"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "date" in answer.headers
    event = edge.events()[before:][-1]
    assert (event.kind, event.tenant, event.host, event.method) == ("click", "acme", HOST, "GET")
    assert (event.url, event.campaign, event.message, event.recipient, event.link) == (
        URL, "spring", "m-1", "r-1", 3,
    )  # fmt: skip
    assert event.address == "127.0.0.0"  # truncated is the default
    assert event.machine == ()


def test_head_gets_the_same_headers_and_counts_as_a_machine(edge: RunningEdge, ask) -> None:
    token = edge.token(Click(URL))
    get, head = ask("/c/" + token), ask("/c/" + token, "HEAD")
    assert (head.status_code, head.content) == (302, b"")
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in get.headers.items() if k != "date"
    }
    assert "head" in edge.events()[-1].machine


def test_other_methods_are_refused_with_405(edge: RunningEdge, ask) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        answer = ask("/c/" + edge.token(Click(URL)), method)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert "location" not in answer.headers


def test_an_open_is_a_one_pixel_gif_that_nobody_caches(edge: RunningEdge, ask) -> None:
    answer = ask(f"/o/{edge.token(Open('spring', 'm-1', 'r-1'))}.gif")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
    assert "no-store" in answer.headers["cache-control"]
    assert answer.content == GIF
    assert len(GIF) == 43
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.size, picture.convert("RGBA").getpixel((0, 0))[3]) == ((1, 1), 0)
    assert edge.events()[-1].kind == "open"


def test_get_on_unsubscribe_leads_to_the_page_and_records_nothing(edge: RunningEdge, ask) -> None:
    before = len(edge.events())
    token = edge.token(Unsubscribe("https://esp.example/one-click", "https://esp.example/page"))
    answer = ask("/u/" + token)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://esp.example/page")
    assert len(edge.events()) == before


def test_private_links_leave_no_record(edge: RunningEdge, ask) -> None:
    before = len(edge.events())
    assert ask("/c/" + edge.token(Click(URL, private=True))).status_code == 302
    assert len(edge.events()) == before


def test_tokens_of_another_tenant_or_kind_and_changed_ones_lead_nowhere(edge: RunningEdge, ask) -> None:
    click = edge.token(Click(URL))
    changed = click[:-1] + ("A" if click[-1] != "A" else "Q")
    for path, host in (
        ("/c/" + changed, HOST),
        ("/c/" + click, OTHER),
        ("/u/" + click, HOST),
        (f"/c/{edge.token(Open('spring'))}", HOST),
        ("/c/", HOST),
        (f"/c/{click}/", HOST),
        (f"/c/{click}/x", HOST),
        (f"/C/{click}", HOST),
    ):
        answer = ask(path, host=host)
        assert answer.status_code == 404, path
        assert "location" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"


def test_a_query_string_changes_nothing_about_where_a_click_leads(edge: RunningEdge, ask) -> None:
    answer = ask(f"/c/{edge.token(Click(URL))}?url=https://evil.example/&u=//evil.example")
    assert answer.headers["location"] == URL


def test_pages_name_the_tenant_and_have_no_links(edge: RunningEdge, ask) -> None:
    answer = ask("/c/nonsense")
    assert "Acme" in answer.text
    assert "href" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_robots_are_kept_away_and_the_root_is_a_plain_page(ask) -> None:
    assert ask("/robots.txt").text == "User-agent: *\nDisallow: /\n"
    assert ask("/").status_code == 200


def test_an_unknown_host_is_not_found_and_two_hosts_are_bad(edge: RunningEdge, ask) -> None:
    assert ask("/", host="nobody.example").status_code == 404
    assert ask("/", host=f"{HOST.upper()}.:8080").status_code == 200


def test_changes_act_on_all_workers_within_two_seconds(edge: RunningEdge, ask) -> None:
    token = edge.token(Click(URL), "globex")

    async def suspend(context: Context) -> None:
        await context.registry.set_host_state(OTHER, HostState.SUSPENDED, "abuse")

    async def resume(context: Context) -> None:
        await context.registry.set_host_state(OTHER, HostState.LIVE, "cleared")

    def status() -> set[int]:
        return {
            httpx.get(
                f"http://127.0.0.1:{edge.http}/c/{token}", headers={"host": OTHER}, trust_env=False
            ).status_code
            for _ in range(10)
        }

    assert status() == {302}
    edge.change(suspend)
    assert eventually(lambda: status() == {410}, 2.0)
    edge.change(resume)
    assert eventually(lambda: status() == {302}, 2.0)


def test_app_links_and_home_are_the_tenants_own(edge: RunningEdge, ask) -> None:
    async def set_up(context: Context) -> None:
        await context.registry.change_tenant(
            "acme",
            lambda tenant: replace(tenant, home="https://acme.example/", assetlinks="[]"),
            "tenant.change",
        )

    edge.change(set_up)
    assert eventually(lambda: ask("/").headers.get("location") == "https://acme.example/", 2.0)
    answer = ask("/.well-known/assetlinks.json")
    assert (answer.text, answer.headers["content-type"]) == ("[]", "application/json")
    assert ask("/.well-known/apple-app-site-association").status_code == 404


def test_challenges_are_answered_on_any_worker_for_the_host_that_was_ordered_for(edge: RunningEdge, ask) -> None:
    async def put(context: Context) -> None:
        await context.store.put(keys.challenge(HOST, "tok-1"), b"tok-1.thumb")

    edge.change(put)
    for _ in range(6):
        answer = ask("/.well-known/acme-challenge/tok-1")
        assert (answer.status_code, answer.text) == (200, "tok-1.thumb")
        assert ask("/.well-known/acme-challenge/tok-1", host=OTHER).status_code == 404
    assert ask("/.well-known/acme-challenge/none").status_code == 404
    assert ask("/.well-known/acme-challenge/..%2f..%2ftenant").status_code == 404


def test_the_commonest_click_needs_no_parser() -> None:
    """The short cut of `connection` is taken: without this, only the bench would notice."""
    from brandproxy.edge.connection import _RECORDED, _headers

    token = b"A" * 40
    browser = (
        b"User-Agent: Mozilla/5.0\r\nAccept: */*\r\nUpgrade-Insecure-Requests: 1\r\nConnection: keep-alive\r\n\r\n"
    )
    wanted = {b"host": b"links.acme.example", b"user-agent": b"Mozilla/5.0", b"connection": b"keep-alive"}
    for kind, path in (("click", b"/c/" + token), ("open", b"/o/" + token + b".gif")):
        match = _RECORDED.fullmatch(b"GET " + path + b" HTTP/1.1\r\nHost: links.acme.example\r\n" + browser)
        assert match is not None
        assert match[kind] == token
        assert _headers(match["headers"]) == wanted
