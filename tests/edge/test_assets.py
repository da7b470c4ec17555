"""Assets under a tenant's name: served safely, and only from the tenant's own storage."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from brandproxy.config import Settings
from brandproxy.core import tokens
from brandproxy.core.tokens import KeyRing
from brandproxy.directory import Site
from brandproxy.edge.assets import Assets
from brandproxy.model import Host, Origin, SigningKey, Tenant

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def site(*origins: Origin) -> Site:
    key = SigningKey(0, b"k" * 32, 0)
    return Site(Host("links.acme.test", "acme", "t.edge"), Tenant("acme", (key,), origins=origins), KeyRing([key]))


class Client:
    """Asks Assets for (origin, path) as the edge does once it opened the token."""

    def __init__(self, assets: Assets, site: Site) -> None:
        self.assets, self.site = assets, site

    async def ask(
        self, path: str, method: str = "GET", origin: str = "media", variant: str = "", **headers: str
    ) -> httpx.Response:
        async def app(scope, receive, send):  # type: ignore[no-untyped-def]
            await self.assets.serve(scope, receive, send, self.site, tokens.Asset(origin, path, variant))

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as http:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return await http.request(method, "/a/token/x", headers={"accept-encoding": "identity"} | names)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    (folder / "deep").mkdir(parents=True)
    (folder / "logo.png").write_bytes(PNG)
    (folder / "deep" / "über uns.svg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "page.html").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "leak.png").symlink_to(tmp_path / "secret.png")
    (folder / "alias.png").symlink_to("logo.png")
    return folder


@pytest.fixture
async def client(tmp_path: Path, storage: Path) -> AsyncIterator[Client]:
    assets = Assets(Settings(data=tmp_path / "var"))
    await assets.start()
    yield Client(assets, site(Origin("media", storage.as_uri() + "/")))
    await assets.close()


async def test_an_object_is_served_to_be_kept_for_ever(client: Client) -> None:
    answer = await client.ask("logo.png")
    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await client.ask("logo.png", if_none_match=answer.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")


async def test_a_head_has_the_headers_of_get_and_no_body(client: Client) -> None:
    head, get = await client.ask("logo.png", "HEAD"), await client.ask("logo.png")
    assert head.content == b""
    assert head.headers == get.headers


async def test_ranges_are_the_bytes_of_the_object(client: Client) -> None:
    answer = await client.ask("logo.png", range="bytes=100-299")
    assert (answer.status_code, answer.content) == (206, PNG[100:300])


async def test_names_in_any_script_are_found(client: Client) -> None:
    assert (await client.ask("deep/über uns.svg")).headers["content-type"] == "image/svg+xml"
    assert (await client.ask("/deep/%C3%BCber%20uns.svg?v=2")).status_code == 200


async def test_html_is_handed_over_but_never_shown(client: Client) -> None:
    answer = await client.ask("page.html")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "deep/../../secret.png", "/../secret.png", "%2e%2e/secret.png", "..%2fsecret.png",
     "%252e%252e/secret.png", "deep%2F%2e%2e%2F..%2Fsecret.png",
     "..\\secret.png", "deep/..%5c..%5csecret.png", "leak.png", "deep", "", "/", "logo.png/", "logo.png\x00.jpg",
     "logo.png%00", "//etc/passwd", "/etc/passwd", "file:///etc/passwd", "a" * 5000, "deep/" * 2000],
)  # fmt: skip
async def test_no_path_leaves_the_storage(client: Client, path: str) -> None:
    answer = await client.ask(path)
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"
    assert b"secret" not in answer.content


async def test_a_link_within_the_storage_is_followed(client: Client) -> None:
    assert (await client.ask("alias.png")).content == PNG


async def test_another_origin_name_finds_nothing(client: Client) -> None:
    assert (await client.ask("logo.png", origin="other")).status_code == 404


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_a_named_pipe_in_the_storage_does_not_hang_anyone(client: Client, storage: Path) -> None:
    os.mkfifo(storage / "pipe.png")
    assert (await client.ask("pipe.png")).status_code == 404


async def test_what_was_answered_how_is_counted(client: Client) -> None:
    def figures() -> list[float]:
        hows = [("brandproxy_asset_requests_total", {"how": how}) for how in ("memory", "storage", "missing")]
        found = [REGISTRY.get_sample_value(*name) for name in (*hows, ("brandproxy_asset_bytes_total", {}))]
        return [value or 0.0 for value in found]

    before = figures()
    for path in ("logo.png", "logo.png", "nothing.png"):
        await client.ask(path)
    assert [b - a for a, b in zip(before, figures(), strict=True)] == [1, 1, 1, 2 * len(PNG)]


async def test_only_get_and_head_are_answered(client: Client) -> None:
    assert (await client.ask("logo.png", "POST")).status_code == 405


async def test_a_style_sheet_is_sent_with_addresses_that_hold_and_a_tag_of_its_own(
    client: Client, storage: Path
) -> None:
    origin = Origin("media", storage.as_uri() + "/", ("https://media.acme.test/",))
    client.site = site(origin)
    (storage / "mail.css").write_text("p{background:url(logo.png)}")
    answer = await client.ask("mail.css", accept_encoding="br, gzip")
    token = client.site.ring.mint(tokens.Asset("media", "logo.png"))
    assert answer.text == f"p{{background:url(../{token}/logo.png)}}"
    assert answer.headers["content-type"] == "text/css"
    assert (await client.ask("mail.css", if_none_match=answer.headers["etag"])).status_code == 304
    assert (await client.ask("mail.css", range="bytes=0-1")).text == "p{"
    assert client.assets.at_once(client.site, tokens.Asset("media", "mail.css")) is None
    client.site = site(origin, Origin("more", "https://more.test/", ("https://more.test/",)))
    assert (await client.ask("mail.css")).headers["etag"] != answer.headers["etag"]
