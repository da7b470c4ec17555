"""The click map shows a mail's shares and does nothing else: no click, no open, no script."""

from __future__ import annotations

import re

from brandproxy.analytics.dashboard import clickmap, pages
from brandproxy.core.tokens import Click, KeyRing, Open

from .conftest import Port, event, put

MAIL = """<html><body><a href="https://shop.example/a">A</a> <a href="https://shop.example/b?x=1&amp;y=2">B</a>
<a href="https://shop.example/a">again</a> <a href="mailto:x@example.com">mail</a><img src="https://i.example/x.png">
<script>alert(1)</script></body></html>"""


def item(link: int, label: str, share: float) -> dict[str, object]:
    return {"link": link, "label": label, "share": share, "events": int(share * 100), "unique": 1}


def shares(drawn: str) -> list[str]:
    """What stands before each link's text."""
    return re.findall(r'(?:title="link (\d+):[^>]*>\d+ %</span>)?(?:A|B|again)</a>', drawn)


def test_original_links_find_their_figures_in_order() -> None:
    items = [item(3, "https://shop.example/a", 0.1), item(1, "https://shop.example/a", 0.6)]
    items += [item(2, "https://shop.example/b?x=1&y=2", 0.3)]
    drawn = clickmap.draw(MAIL, items, None)
    assert shares(drawn) == ["1", "2", "3"]
    assert 'href="https://' not in drawn
    assert "mailto:" not in drawn
    assert 'src="https://i.example/x.png"' in drawn


async def test_rewritten_links_say_their_number_and_the_pixel_is_not_loaded(port: Port) -> None:
    tenant = await port.context.registry.tenant("acme")
    ring = KeyRing(tenant.keys, 0)
    link = ring.mint(Click("https://shop.example/a", "spring", "m", "r", 7))
    pixel = ring.mint(Open("spring", "m", "r"))
    mail = f'<a href="https://l.acme.example/c/{link}">A</a><img src="https://l.acme.example/o/{pixel}.gif">'
    drawn = clickmap.draw(mail, [item(7, "x", 0.5), item(8, "https://shop.example/a", 0.5)], ring)
    assert shares(drawn) == ["7"]
    assert link not in drawn
    assert pixel not in drawn


async def test_a_campaigns_mail_is_kept_for_its_tenant_alone_and_cannot_run(port: Port) -> None:
    port.app.router.routes.extend(pages.routes(port.context, port.engine))
    await put(port.engine, [event(campaign="spring", link=1, url="https://shop.example/a") for _ in range(3)])
    where = {"campaign": "spring", "tenant": "acme"}
    client, own = port.client, {"Origin": "http://control"}
    await client.post("/login", data={"key": port.acme})
    assert (await client.get("/campaign/map", params=where)).status_code == 404
    files = {"mail": ("mail.html", MAIL.encode(), "text/html")}
    elsewhere = await client.post(
        "/campaign/map", params=where, files=files, headers={"Origin": "https://e.example"}
    )
    assert elsewhere.headers["location"] == "/login"
    assert (await client.post("/campaign/map", params=where, files=files, headers=own)).status_code == 303
    shown = await client.get("/campaign/map", params=where)
    assert "100 %" in shown.text
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("sandbox;")
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "/campaign/map" in (await client.get("/campaign", params=where)).text
    for bad in (b"", b"\0" * 10, b"x" * (2 << 20)):
        answer = await client.post("/campaign/map", params=where, files={"mail": ("m", bad)}, headers=own)
        assert answer.status_code == 400
    await client.post("/login", data={"key": port.globex})
    assert (await client.get("/campaign/map", params=where)).status_code == 404
    assert (await client.get("/campaign/map", params={"campaign": "spring"})).status_code == 404
