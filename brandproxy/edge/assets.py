"""`/a/{token}/{name}`: objects of a tenant's storage under the tenant's name.

An object is found by the signed (origin name, path) only; the file name behind the token is for people.
Answers follow `core.delivery`; what cannot be had is a small plain page that nobody caches.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from brandproxy.config import Settings
from brandproxy.core import tokens
from brandproxy.core.delivery import Meta, Plan, describe, plan
from brandproxy.directory import Site
from brandproxy.model import Origin

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CHUNK = 1 << 18
_ERRORS = {404: b"Not found\n", 405: b"Only GET and HEAD\n", 502: b"Storage failed\n", 504: b"Storage is slow\n"}


class Assets:
    """Serves the objects of every tenant. `start` before the first request, `close` behind the last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def serve(self, scope: Scope, receive: Receive, send: Send, site: Site, asset: tokens.Asset) -> None:
        """Answer one GET or HEAD for what the token names."""
        if scope["method"] not in ("GET", "HEAD"):
            await _error(send, 405)
            return
        origin = next((o for o in site.tenant.origins if o.name == asset.origin), None)
        file = await asyncio.to_thread(_open, origin, asset.path) if origin else None
        if file is None:
            await _error(send, 404)
            return
        with file:
            found = os.fstat(file.fileno())
            meta = Meta(found.st_size, f'"{found.st_mtime_ns:x}-{found.st_size:x}"', int(found.st_mtime))
            answer = plan(scope["method"], dict(scope["headers"]), describe(meta, asset.path))
            await _send(send, answer, file, scope["method"] == "HEAD")


def _open(origin: Origin, path: str) -> BinaryIO | None:
    """The file under a `file:` origin, or None. The real path stays inside the origin's real folder.

    `path` is URL text: it is decoded once, and a query is no part of a file's name.
    """
    parts = urlsplit(origin.url)
    name = unquote(path.partition("?")[0])
    if parts.scheme != "file" or "\x00" in name or name.endswith("/"):
        return None
    try:
        root = Path(unquote(parts.path)).resolve(strict=True)
        target = (root / name.lstrip("/")).resolve(strict=True)
        if not target.is_relative_to(root) or not target.is_file():
            return None
        return target.open("rb")
    except OSError:
        return None


async def _send(send: Send, answer: Plan, file: BinaryIO, head: bool) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    for piece in () if head else answer.slices:
        if piece.preamble:
            await send({"type": "http.response.body", "body": piece.preamble, "more_body": True})
        file.seek(piece.start)
        left = piece.stop - piece.start
        while left > 0:
            chunk = await asyncio.to_thread(file.read, min(_CHUNK, left))
            if not chunk:
                raise OSError("the file shrank while it was sent")  # the connection must end unclean
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if head else answer.trailer})


async def _error(send: Send, status: int) -> None:
    body = _ERRORS[status]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
