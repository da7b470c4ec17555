"""Image variants: smaller, never lost, and a hostile image harms nobody."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from brandproxy.config import Settings
from brandproxy.core.objects import Variant, variant
from brandproxy.edge.assets import Assets
from brandproxy.model import Origin
from tests.edge.test_assets import Client, site


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("w600", Variant(600)), ("webp", Variant(0, "webp")), ("w1200-avif", Variant(1200, "avif")),
     ("", None), ("w0", None), ("w9999999", None), ("w600webp", None), ("-webp", None), ("gif", None)],
)  # fmt: skip
def test_only_known_variants_are_variants(text: str, wanted: Variant | None) -> None:
    assert variant(text) == wanted


def picture(form: str = "PNG", size: tuple[int, int] = (800, 400), mode: str = "RGB") -> bytes:
    image = Image.radial_gradient("L").resize(size).convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 × 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(99999)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def animation() -> bytes:
    frames = [Image.new("RGB", (900, 50), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.fixture
async def client(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "root").mkdir()
    assets = Assets(Settings(data=tmp_path / "var"))
    await assets.start()
    yield Client(assets, site(Origin("media", (tmp_path / "root").as_uri() + "/")))
    await assets.close()


async def test_a_variant_is_smaller_and_says_its_type(client: Client, tmp_path: Path) -> None:
    original = picture()
    (tmp_path / "root" / "big.png").write_bytes(original)
    narrow = await client.ask("big.png", variant="w200")
    assert Image.open(io.BytesIO(narrow.content)).size == (200, 100)
    assert narrow.headers["content-type"] == "image/png"
    for form in ("webp", "avif"):
        small = await client.ask("big.png", variant=f"w400-{form}")
        assert small.headers["content-type"] == f"image/{form}"
        assert Image.open(io.BytesIO(small.content)).size == (400, 200)
        assert len(small.content) < len(original)
    assert (await client.ask("big.png")).content == original
    assert (await client.ask("big.png", variant="w200", if_none_match=narrow.headers["etag"])).status_code == 304


async def test_an_image_is_never_blown_up(client: Client, tmp_path: Path) -> None:
    (tmp_path / "root" / "big.jpg").write_bytes(picture("JPEG"))
    wide = await client.ask("big.jpg", variant="w4000-webp")
    assert Image.open(io.BytesIO(wide.content)).size == (800, 400)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("form", ["jpeg", "webp"])
async def test_every_kind_of_picture_keeps_its_looks_or_its_bytes(
    client: Client, tmp_path: Path, mode: str, form: str
) -> None:
    (tmp_path / "root" / "x.png").write_bytes(picture(mode=mode, size=(300, 100)))
    answer = await client.ask("x.png", variant=f"w100-{form}")
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size in ((100, 33), (300, 100))


@pytest.mark.parametrize(
    "data",
    [bomb(), animation(), b"not an image", b"", picture()[:200], b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
)
async def test_what_cannot_be_converted_is_served_as_it_is(client: Client, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "root" / "x.png").write_bytes(data)
    answer = await client.ask("x.png", variant="w100-webp")
    assert (answer.status_code, answer.content) == (200, data)


async def test_a_variant_we_do_not_know_is_the_original(client: Client, tmp_path: Path) -> None:
    (tmp_path / "root" / "x.png").write_bytes(picture())
    assert (await client.ask("x.png", variant="sepia")).content == picture()
    assert (await client.ask("nothing.png", variant="w100")).status_code == 404
