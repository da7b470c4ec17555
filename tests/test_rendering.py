"""In a real browser, a rewritten mail looks like the original, with its assets coming through a real edge.

The original is shown with its images where they were; for the rewritten one that place is closed, and Chromium
finds `links.acme.example` at an edge of ours, over TLS. Both pictures must be equal to the pixel.
"""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageChops, ImageDraw
from playwright.async_api import Browser, Page, Route, async_playwright

import brandproxy
from brandproxy.context import Context, open_context
from brandproxy.core.html import scan
from brandproxy.model import Origin, References, Tenant
from tests.conftest import need_program
from tests.edge.conftest import HOST, prepare

MAILS = sorted((Path(__file__).parent / "data" / "rendering").glob("*.html"))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run",
    "--disable-features=LocalNetworkAccessChecks",
    "--disable-partial-raster",  # what is drawn again in part, since a picture came late, has other edges
]  # fmt: skip
STYLE = b"body{background:#eef} .wrap{border:3px solid #a33;width:90%} h3{font:italic 20px serif}"


def picture(path: str) -> bytes:
    """A picture that no other path has; a style sheet for .css."""
    if path.endswith(".css"):
        return STYLE
    seed = zlib.crc32(path.encode())
    image = Image.new("RGB", (60 + seed % 41, 60 + seed // 41 % 41), f"#{seed & 0xFFFFFF:06x}")
    ImageDraw.Draw(image).ellipse((10, 10, 50, 40), fill=f"#{seed >> 8 & 0xFFFFFF:06x}")
    out = io.BytesIO()
    image.save(out, path.rpartition(".")[2].upper().replace("JPG", "JPEG"))
    return out.getvalue()


class Studio:
    """A tenant whose storage holds a picture for every asset, with an edge before it; and a browser."""

    def __init__(self, tenant: Tenant, browser: Browser) -> None:
        self.tenant, self.browser = tenant, browser

    def rewrite(self, html: str) -> tuple[str, int]:
        """The rewritten HTML and how many assets now come from the edge."""
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"], mail["Subject"] = "a@acme.example", "b@example.net", "x"
        mail.set_content(html, subtype="html", cte="quoted-printable")
        result = brandproxy.rewrite(bytes(mail), self.tenant, References("c", "m", "r"), f"https://{HOST}", 1)
        body = BytesParser(policy=SMTP).parsebytes(result.message).get_content()
        return body, sum(f"https://{HOST}/a/" in link.new for link in result.report.links)

    async def shoot(self, html: str, direct: bool) -> tuple[bytes, list[str]]:
        """A picture of the mail and the URLs that were loaded; `direct`: its own assets are reachable."""
        context = await self.browser.new_context(
            viewport={"width": 700, "height": 900}, java_script_enabled=False, ignore_https_errors=True
        )
        page = await context.new_page()
        loaded: list[str] = []
        page.on("response", lambda answer: loaded.append(answer.url) if answer.ok else None)
        await self._routes(page, html, direct)
        await page.goto("https://mail.test/", wait_until="networkidle")
        shown = await page.screenshot(full_page=True, animations="disabled")
        await context.close()
        return shown, loaded

    async def _routes(self, page: Page, html: str, direct: bool) -> None:
        sites = {urlsplit(prefix).netloc for origin in self.tenant.origins for prefix in origin.public}

        async def answer(route: Route) -> None:
            url = route.request.url
            if url == "https://mail.test/":
                await route.fulfill(body=html, content_type="text/html; charset=utf-8")
            elif urlsplit(url).hostname == HOST and not direct:
                await route.continue_()
            elif direct and urlsplit(url).netloc in sites:  # a browser turns http: into https: by itself
                kind = "text/css" if url.endswith(".css") else None
                await route.fulfill(body=picture(unquote(urlsplit(url).path)), content_type=kind)
            else:
                await route.abort()

        await page.route("**/*", answer)


def assets(html: str) -> list[str]:
    """URLs of the assets that plain storage can hold."""
    urls = [found.url for found in scan(html).found if found.role == "asset"]
    return [url for url in urls if url.startswith(("http://", "https://")) and storable(url)]


def storable(url: str) -> bool:
    path = urlsplit(url).path.lower()
    return not urlsplit(url).query and path.endswith((".png", ".jpg", ".jpeg", ".gif", ".css"))


def store(folder: Path, urls: list[str]) -> tuple[Origin, ...]:
    """A picture for each URL, in one origin for each site."""
    sites = sorted({url[: url.index("/", 8) + 1] for url in urls})
    for url in urls:
        path = unquote(urlsplit(url).path)
        file = folder / str(sites.index(url[: url.index("/", 8) + 1])) / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(path))
    return tuple(Origin(f"site{n}", f"file://{folder / str(n)}/", (site,)) for n, site in enumerate(sites))


@asynccontextmanager
async def studio(folder: Path, htmls: list[str]) -> AsyncIterator[Studio]:
    edge = await asyncio.to_thread(prepare, folder / "data")
    origins = store(folder / "storage", [url for html in htmls for url in assets(html)])

    async def furnish(context: Context) -> Tenant:
        return await context.registry.change_tenant("acme", lambda old: replace(old, origins=origins), "tests")

    async with open_context(edge.settings()) as context:
        tenant = await furnish(context)
    await asyncio.to_thread(edge.start)
    try:
        async with async_playwright() as play:
            resolve = f"--host-resolver-rules=MAP {HOST}:443 127.0.0.1:{edge.https}"
            program = need_program("chromium", "chromium")
            browser = await play.chromium.launch(executable_path=program, args=[*FLAGS, resolve])
            yield Studio(tenant, browser)
            await browser.close()
    finally:
        await asyncio.to_thread(edge.stop)


async def same_picture(at: Studio, name: str, html: str) -> None:
    rewritten, moved = at.rewrite(html)
    assert moved > 0, name
    (before, direct), (after, through_edge), (bare, _) = await asyncio.gather(
        at.shoot(html, direct=True), at.shoot(rewritten, direct=False), at.shoot(html, direct=False)
    )
    assert difference(after, before) is None, name
    assert difference(bare, before) is not None, f"{name} shows no asset, so it could not fail"
    assert len(through_edge) == len(direct), name
    assert all(urlsplit(url).hostname in (HOST, "mail.test") for url in through_edge), name


def difference(shot: bytes, other: bytes) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) outside which both are equal to the pixel; None when all is equal."""
    one, two = (Image.open(io.BytesIO(each)).convert("RGB") for each in (shot, other))
    if one.size != two.size:
        return 0, 0, max(one.width, two.width), max(one.height, two.height)
    return ImageChops.difference(one, two).getbbox()


async def test_rewritten_mails_look_like_their_originals(tmp_path: Path) -> None:
    mails = {path.stem: path.read_text("utf-8") for path in MAILS}
    assert len(mails) >= 5
    async with studio(tmp_path, list(mails.values())) as at:
        for name, html in mails.items():
            await same_picture(at, name, html)


async def test_real_mails_look_like_their_originals(corpus: Path, tmp_path: Path) -> None:
    mails = {str(path): path.read_text("utf-8", "replace") for path in sorted(corpus.rglob("*.html"))}
    most = sorted(mails, key=lambda name: -len(set(assets(mails[name]))))[:5]
    async with studio(tmp_path, [mails[name] for name in most]) as at:
        for name in most:
            await same_picture(at, name, mails[name])
