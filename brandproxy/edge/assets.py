"""`/a/{token}/{name}`: objects of a tenant's storage under the tenant's name.

An object is found by the signed (origin name, path, variant) only; the file name behind the token is for people.
Answers follow `core.delivery`. What cannot be had is a small plain answer that nobody caches; what breaks off in
the middle ends the connection, so that no client takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Any

from prometheus_client import Counter

from brandproxy.config import Settings
from brandproxy.core import objects, sheets, tokens
from brandproxy.core.delivery import Meta, Plan, plan
from brandproxy.core.media import compressible
from brandproxy.directory import Site
from brandproxy.fetch import Fetcher
from brandproxy.model import Origin
from brandproxy.storage import purge
from brandproxy.storage.base import ObjectMissing, StorageFailed
from brandproxy.storage.bodies import Body, Key
from brandproxy.storage.cache import Cache
from brandproxy.storage.disk import Disk
from brandproxy.storage.origins import Origins
from brandproxy.storage.variants import Variants, derived
from brandproxy.store import Change, Store
from brandproxy.store.seal import open_seal

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REQUESTS = Counter("brandproxy_asset_requests", "Asset requests by how they were answered", ["how"])
BYTES = Counter("brandproxy_asset_bytes", "Bytes of objects sent to clients")
_HOW = {how: REQUESTS.labels(how) for how in ("memory", "disk", "storage", "stale", "missing", "failed", "slow")}

_SWEEP_EVERY, _LOOK_EVERY = 300.0, 5.0
_PIECE = 1 << 18  # bytes of an object in memory that are handed to a connection at once, uncopied
_ERRORS = {404: b"Not found\n", 405: b"Only GET and HEAD\n", 502: b"Storage failed\n", 504: b"Storage is slow\n"}


class Assets:
    """Serves the objects of every tenant. `start` before the first request, `close` behind the last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.assets
        self._fetcher = Fetcher(settings)
        self._origins = Origins(settings, self._fetcher, open_seal(settings))
        self._disk = Disk(settings.data / "cache")
        self.cache = Cache(settings.assets, self._disk)
        self._variants = Variants(settings.assets.image_processes)
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.cache.start()
        self._sweeping = asyncio.create_task(self._sweep())

    async def load(self, store: Store) -> None:
        """Obey what was purged while nobody listened. Hand every later Change of the feed to `apply`."""
        await purge.obey_all(store, self.cache, self._disk)

    def apply(self, change: Change) -> None:
        purge.apply(change, self.cache, self._disk)

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self.cache.close()
        await self._fetcher.close()

    async def serve(self, scope: Scope, receive: Receive, send: Send, site: Site, asset: tokens.Asset) -> None:
        """Answer one GET or HEAD for what the token names."""
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await _error(send, 405)
            return
        request = dict(scope["headers"])
        try:
            body = await self._body(site, asset, request)
        except ObjectMissing:
            _HOW["missing"].inc()
            await _error(send, 404)
            return
        except StorageFailed as error:
            _HOW["slow" if error.slow else "failed"].inc()
            await _error(send, 504 if error.slow else 502)
            return
        answer = plan(method, request, body.described)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if method == "HEAD" or not answer.slices:
            await send({"type": "http.response.body", "body": b""})
            return
        BYTES.inc(sum(piece.stop - piece.start for piece in answer.slices))
        if body.data is not None and len(body.data) <= _PIECE and len(answer.slices) == 1:
            (piece,) = answer.slices
            whole = piece.stop - piece.start == len(body.data)
            data = body.data if whole else body.data[piece.start : piece.stop]
            await send({"type": "http.response.body", "body": data})
            return
        await _stream(receive, send, answer, body)

    def at_once(self, site: Site, asset: tokens.Asset) -> tuple[bytes, bytes] | None:
        """(head without its last line, body) of the whole object, when it lies in memory and nothing of the
        request but its target matters; else None."""
        if compressible(asset.path):
            return None
        for origin in site.tenant.origins:
            if origin.name == asset.origin:
                break
        else:
            return None
        body = self.cache.peek(Key(site.tenant.slug, origin.name, asset.path, origin.url, asset.variant))
        if body is None or body.data is None or len(body.data) > _PIECE:
            return None
        if body.head is None:
            if sheets.is_sheet(body.described.meta.content_type, asset.path):
                return None
            whole = plan("GET", {}, body.described)
            lines = [b"%b: %b\r\n" % header for header in whole.headers]
            body.head = b"".join([b"HTTP/1.1 200 OK\r\n", *lines])
        _HOW["memory"].inc()
        BYTES.inc(len(body.data))
        return body.head, body.data

    async def _body(self, site: Site, asset: tokens.Asset, request: dict[bytes, bytes]) -> Body:
        origin = _origin(site, asset.origin)
        coding = ""
        if compressible(asset.path) and not sheets.is_sheet("", asset.path):
            coding = objects.coding(request.get(b"accept-encoding", b"").decode("latin-1"))
        key = Key(site.tenant.slug, origin.name, asset.path, origin.url, asset.variant, coding)
        body, how = self.cache.peek(key), "memory"
        if body is None:
            body, how = await self._get(origin, key)
        if sheets.is_sheet(body.described.meta.content_type, asset.path):
            body, how = await self._sheet(site, asset, key, body)
        _HOW[how].inc()
        return body

    async def _sheet(self, site: Site, asset: tokens.Asset, key: Key, original: Body) -> tuple[Body, str]:
        """A style sheet whose URLs hold at the sheet's new address."""

        async def get() -> Body:
            return original

        async def make(data: bytes, meta: Meta) -> tuple[bytes, Meta] | None:
            made = await asyncio.to_thread(sheets.resolved, data, meta.encoding, site.tenant, site.ring, asset)
            return None if made is None else (made, replace(meta, encoding=""))

        form = sheets.form(site.tenant)
        load = derived(get, form, sheets.MAX_SHEET, make)
        return await self.cache.get(replace(key, variant=form), load)

    async def _get(self, origin: Origin, key: Key) -> tuple[Body, str]:
        if not key.variant:
            load = partial(self._origins.open, key.tenant, origin, key.path)
            return await self.cache.get(key, load, self._origins.near(key.tenant, origin))

        async def original() -> Body:
            return (await self._get(origin, replace(key, variant="")))[0]

        return await self.cache.get(key, self._variants.load(original, key.variant))

    async def _sweep(self) -> None:
        """Keep the disk within its bounds: now and then, and soon after much was added. One worker does it."""
        keep = self._settings.fresh + self._settings.stale
        waited = _SWEEP_EVERY
        while True:
            urgent = self._disk.added > self._settings.disk // 20
            if urgent or waited >= _SWEEP_EVERY:
                waited = 0.0
                try:
                    await asyncio.to_thread(self._disk.sweep, self._settings.disk, keep, urgent)
                except OSError as error:
                    log.warning("asset cache: cannot sweep: %s", error)
            await asyncio.sleep(_LOOK_EVERY)
            waited += _LOOK_EVERY


def _origin(site: Site, name: str) -> Origin:
    for origin in site.tenant.origins:
        if origin.name == name:
            return origin
    raise ObjectMissing("the tenant has no such origin")


async def _stream(receive: Receive, send: Send, answer: Plan, body: Body) -> None:
    """Piece by piece, no faster than the client takes it, and no longer than it is there."""
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        for piece in answer.slices:
            if piece.preamble:
                await send({"type": "http.response.body", "body": piece.preamble, "more_body": True})
            async for chunk in body.read(piece.start, piece.stop):
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": answer.trailer})
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
