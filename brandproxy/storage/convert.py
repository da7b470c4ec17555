"""The image converter: a program of its own, one process an image, so that a hostile image harms nobody else.

    python -I confine.py convert.py WIDTH FORMAT < image > "FORMAT\\n" + image

Exit code 3: the image is better left as it is (animated, not one we read, or it would grow). `confine`
takes everything but computing away before the image is read; pixels are counted before any is decoded. It imports
nothing of ours.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000
_LEAVE = 3
_READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_SAVE: dict[str, dict[str, object]] = {
    "webp": {"quality": 80, "method": 4},
    "avif": {"quality": 60, "speed": 7, "max_threads": 1},
    "jpeg": {"quality": 82, "optimize": True, "progressive": True},
    "png": {"optimize": True},
}


def convert(data: bytes, width: int, form: str) -> tuple[str, bytes] | None:
    """(format, image), or None to leave it as it is. Raises whatever Pillow raises."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=_READ)
    before = (image.format or "").lower()
    if image.width * image.height > MAX_PIXELS or getattr(image, "n_frames", 1) > 1:
        return None
    form = form or (before if before in _SAVE else "png")
    image = ImageOps.exif_transpose(image)
    if width and image.width > width:
        image = _with_colours(image)
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    image = _fit(image, form)
    out = io.BytesIO()
    image.save(out, form, **_SAVE[form], icc_profile=image.info.get("icc_profile"))
    return None if form == before and out.tell() >= len(data) else (form, out.getvalue())


def _with_colours(image: Image.Image) -> Image.Image:
    """Palettes cannot be averaged."""
    if image.mode in ("P", "PA", "1") or "transparency" in image.info:
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    return image


def _fit(image: Image.Image, form: str) -> Image.Image:
    """A mode the format can hold; JPEG gets a white ground, as mail clients show it."""
    image = _with_colours(image) if form != "png" else image
    if form == "jpeg" and image.mode in ("RGBA", "LA"):
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    if form != "png" and image.mode not in ("RGB", "RGBA", "L"):
        return image.convert("RGBA" if "A" in image.mode else "RGB")
    return image


def prepare() -> None:
    """Load every codec and whatever Pillow imports late: later no file can be opened."""
    Image.init()
    for form in _SAVE:
        for mode in ("RGB", "RGBA", "P"):
            sample = io.BytesIO()
            Image.new(mode, (4, 4)).save(sample, "png")
            convert(sample.getvalue(), 2, form)


def main(arguments: Sequence[str]) -> int:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        made = convert(sys.stdin.buffer.read(), int(arguments[0]), arguments[1] if len(arguments) > 1 else "")
    except (OSError, ValueError, SyntaxError, MemoryError, OverflowError, Image.DecompressionBombError):
        return _LEAVE
    if made is None:
        return _LEAVE
    sys.stdout.buffer.write(made[0].encode() + b"\n" + made[1])
    sys.stdout.buffer.flush()
    return 0
