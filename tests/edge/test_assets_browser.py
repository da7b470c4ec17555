"""A browser opens a mail with forty images: all render through the edge, and the second time none is fetched."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image
from playwright.async_api import Page, async_playwright

import brandproxy
from brandproxy.context import Context, open_context
from brandproxy.model import Origin, References, Tenant
from tests.conftest import need_program
from tests.edge.conftest import HOST, RunningEdge, prepare

COUNT = 40
FORMS = ("png", "jpg", "webp", "gif", "svg", "avif")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SEEN = """() => Promise.all([...document.images].map(
    image => image.decode().then(() => image.naturalWidth, () => 0)))"""
FETCHED = """() => performance.getEntriesByType('resource').map(entry => entry.transferSize)"""


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[RunningEdge]:
    running = prepare(tmp_path / "data", workers=2)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        form = FORMS[number % len(FORMS)]
        if form == "svg":
            head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{number + 20}' height='9'>"
            (folder / f"{number}.svg").write_text(head + "<style>rect{fill:red}</style><rect/></svg>")
        else:
            Image.new("RGB", (number + 20, 9), (number * 6, 99, 50)).save(folder / f"{number}.{form}")
    origin = Origin("media", folder.as_uri() + "/", ("https://media.acme.example/",))

    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, origins=(origin,))

    async def add(context: Context) -> None:
        await context.registry.change_tenant("acme", change, "test")

    running.change(add)
    running.start()
    yield running
    running.stop()


async def mail_page(edge: RunningEdge, place: Path) -> str:
    """The rewritten mail's HTML, as a mail reader shows it: from another origin than the images."""
    images = "".join(
        f'<img src="https://media.acme.example/{number}.{FORMS[number % len(FORMS)]}">' for number in range(COUNT)
    )
    mail = f"Content-Type: text/html\r\n\r\n<html><body>{images}</body></html>\r\n".encode()
    async with open_context(edge.settings()) as context:
        tenant = await context.registry.tenant("acme")
    result = brandproxy.rewrite(mail, tenant, References("spring"), f"https://{HOST}:{edge.https}", now=1)
    assert result.message.count(f"https://{HOST}:{edge.https}/a/".encode()) == COUNT
    (place / "mail.html").write_bytes(result.message.partition(b"\r\n\r\n")[2])
    return (place / "mail.html").as_uri()


def key_hash(edge: RunningEdge) -> str:
    """The certificate's key, which the browser is told to accept: one it merely ignores would not be cached."""
    leaf = x509.load_pem_x509_certificate((edge.settings().certs_directory / HOST / "fullchain.pem").read_bytes())
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


async def test_forty_images_render_and_the_second_load_fetches_none(edge: RunningEdge, tmp_path: Path) -> None:
    chromium = need_program("chromium", "chromium")
    url = await mail_page(edge, tmp_path)
    flags = [*FLAGS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    flags.append(f"--ignore-certificate-errors-spki-list={key_hash(edge)}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=chromium, args=flags
        )
        try:
            first, second = await load(await browser.new_page(), url), await load(await browser.new_page(), url)
        finally:
            await browser.close()
    widths = [number + 20 for number in range(COUNT)]
    assert first[0] == second[0] == widths
    assert all(size > 300 for size in first[1])
    assert second[1] == [0] * COUNT  # Resource Timing: nothing came over the network


SHEET = """/* ü */ @import "more/two.css"; p { width: 50px; height: 50px; background: url(18.png) }
@font-face { font-family: x; src: url("/gone.woff2") }"""
CSS_MAIL = """Content-Type: text/html\r\n\r\n<html><head><link rel=stylesheet href="https://media.acme.example/one.css">
</head><body><p></p><div></div></body></html>\r\n"""


async def test_a_style_sheet_finds_the_files_it_names_relatively(edge: RunningEdge, tmp_path: Path) -> None:
    chromium = need_program("chromium", "chromium")
    images = tmp_path / "images"
    (images / "more").mkdir()
    (images / "one.css").write_text(SHEET)
    (images / "more" / "two.css").write_text("div { width: 50px; height: 50px; background: url(../24.png) }")
    async with open_context(edge.settings()) as context:
        tenant = await context.registry.tenant("acme")
    base = f"https://{HOST}:{edge.https}"
    result = brandproxy.rewrite(CSS_MAIL.encode(), tenant, References(), base, now=1)
    (tmp_path / "mail.html").write_bytes(result.message.partition(b"\r\n\r\n")[2])
    flags = [*FLAGS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND"]
    flags.append(f"--ignore-certificate-errors-spki-list={key_hash(edge)}")
    answers: dict[str, int] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
        page = await browser.new_page()
        page.on("response", lambda answer: answers.update({answer.url.rpartition("/")[2]: answer.status}))
        await page.goto((tmp_path / "mail.html").as_uri(), wait_until="networkidle")
        picture = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
        await browser.close()
    assert [answers.get(name) for name in ("one.css", "two.css", "18.png", "24.png")] == [200] * 4
    seen = {colour: count for count, colour in picture.getcolors(1 << 24) or []}
    for number in (18, 24):
        assert seen.get((number * 6, 99, 50)) == 50 * 50


async def load(page: Page, url: str) -> tuple[list[int], list[int]]:
    """(width of each image once decoded, bytes each took from the network)."""
    await page.goto(url, wait_until="load")
    seen, fetched = await page.evaluate(SEEN), await page.evaluate(FETCHED)
    await page.close()
    return seen, fetched
