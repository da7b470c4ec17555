"""Other forms of objects: smaller images, as tokens name them (`core.objects.variant`).

A variant is an object of the cache like any other: made once, kept on disk, purged with its original. What cannot
be made smaller is served as it is: a variant never loses an image.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from brandproxy.core import objects
from brandproxy.core.delivery import Meta
from brandproxy.storage.base import Found, Want
from brandproxy.storage.bodies import Body
from brandproxy.storage.cache import Load

log = logging.getLogger(__name__)

MAX_ORIGINAL = 20 << 20  # bytes; larger images are served as they are
_SECONDS = 30.0
_MAX_SAID = 4096  # bytes on standard error
_MAX_MADE = 64 << 20  # bytes
_MEDIA = {b"png": "image/png", b"jpeg": "image/jpeg", b"webp": "image/webp", b"avif": "image/avif"}
_CONFINE, _PROGRAM = (str(Path(__file__).with_name(name)) for name in ("confine.py", "convert.py"))


Make = Callable[[bytes, Meta], Awaitable[tuple[bytes, Meta] | None]]


def derived(original: Callable[[], Awaitable[Body]], form: str, limit: int, make: Make) -> Load:
    """How the cache gets another form of an object: what `make` makes of it, or the object as it is when that is
    None or the object is larger than `limit`. It is made anew when the object's tag or `form` changes."""

    @asynccontextmanager
    async def load(want: Want) -> AsyncIterator[Found | None]:
        body = await original()
        meta = body.described.meta
        etag = _etag(meta, form)
        if etag == want.etag:
            yield None
            return
        if meta.size > limit:
            yield Found(meta, body.read(0, meta.size))
            return
        data = b"".join([chunk async for chunk in body.read(0, meta.size)])
        made = await make(data, meta)
        if made is not None:
            data, meta = made
        yield Found(replace(meta, size=len(data), etag=etag), _once(data))

    return load


class Variants:
    """At most `processes` images are converted at a time; others wait."""

    def __init__(self, processes: int) -> None:
        self._room = asyncio.Semaphore(processes)
        self._told = False

    def load(self, original: Callable[[], Awaitable[Body]], text: str) -> Load:
        """How the cache gets the variant `text` of the object that `original` gets."""

        async def make(data: bytes, meta: Meta) -> tuple[bytes, Meta] | None:
            made = await self._convert(data, text)
            return None if made is None else (made[0], replace(meta, content_type=made[1]))

        return derived(original, text, MAX_ORIGINAL, make)

    async def _convert(self, data: bytes, text: str) -> tuple[bytes, str] | None:
        """(image, media type), or None when it stays as it is."""
        wanted = objects.variant(text)
        if wanted is None:
            return None
        async with self._room:
            out, lacking = await confined(_PROGRAM, (str(wanted.width), wanted.format), data)
        if lacking and not self._told:
            self._told = True
            log.warning("images are converted with less confinement than wanted: %s", lacking)
        kind, _, image = (out or b"").partition(b"\n")
        return (image, _MEDIA[kind]) if kind in _MEDIA and image else None


async def confined(program: str, arguments: Sequence[str], data: bytes) -> tuple[bytes | None, str]:
    """(what a program makes of `data` within `confine`, or None when it failed; what confinement lacked)."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", _CONFINE, program, *arguments,
        stdin=pipe, stdout=pipe, stderr=pipe, env={}, cwd="/",
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_SECONDS):
            _, out, said = await asyncio.gather(
                _hand_over(process.stdin, data),
                _at_most(process.stdout, _MAX_MADE, process),
                _at_most(process.stderr, _MAX_SAID, process),
            )
            good = await process.wait() == 0
    except TimeoutError:
        log.warning("an image took longer than %.0f s to convert and stays as it is", _SECONDS)
        return None, ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # what is left in its pipes, so that they close
    return (out, ascii(said.decode("ascii", "replace").strip())[1:-1]) if good else (None, "")


async def _hand_over(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _at_most(stream: asyncio.StreamReader, most: int, process: asyncio.subprocess.Process) -> bytes:
    """All that a process writes; one that writes more than `most` bytes is killed."""
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65536):
        size += len(part)
        if size > most:
            parts.clear()
            with suppress(ProcessLookupError):
                process.kill()
        else:
            parts.append(part)
    return b"".join(parts)


def _etag(meta: Meta, text: str) -> str:
    seed = f"{meta.etag or meta.modified}\x1f{meta.size}\x1f{text}"
    return f'"{hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:24]}"'


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
