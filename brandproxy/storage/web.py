"""https:// storage, and buckets (s3, gs, az).

Buckets are read and written through presigned URLs: obstore signs, `fetch` asks. So the address checks, size and
time caps, the streaming and the separation of tenants of `fetch` hold for every kind of storage.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Literal

import httpx
import obstore
from obstore.store import AzureStore, GCSStore, S3Store

from brandproxy.core import objects
from brandproxy.core.delivery import Meta
from brandproxy.errors import FetchFailed, FetchRefused, FetchTooLarge
from brandproxy.fetch import Answer, Fetcher
from brandproxy.storage.base import Found, ObjectMissing, StorageFailed, Want

BUCKETS: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_SIGNED_FOR = timedelta(minutes=10)
_WRITE_SECONDS = 120.0
# What says more about storage than about the object. (403 is what S3 says of an absent key to those who may not
# list the bucket.)
_FAILED = (401, 407, 408, 421, 425, 429)


class WebSource:
    """Objects under a URL prefix that ends in a slash."""

    near = False

    def __init__(self, fetcher: Fetcher, tenant: str, prefix: str, max_bytes: int, redirects: int = 3) -> None:
        self._fetcher, self._tenant = fetcher, tenant
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._redirects = redirects

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        relative = objects.web_path(path)
        if relative is None:
            raise ObjectMissing("the path leaves its origin")
        url = self._prefix + relative
        async with read(self._fetcher, self._tenant, url, want, self._max_bytes, self._redirects) as found:
            yield found

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        raise StorageFailed("web storage can only be read; use the bucket behind it (s3://, gs://, az://)")


class BucketSource:
    """Objects of a bucket. `options` are obstore's settings of that store (endpoint, region, credentials);
    what is not given comes from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`)."""

    near = False

    def __init__(self, fetcher: Fetcher, tenant: str, url: str, options: dict[str, str], max_bytes: int) -> None:
        self._fetcher, self._tenant = fetcher, tenant
        self._kind = url.partition(":")[0]
        self._max_bytes = max_bytes
        self.store: Any = BUCKETS[self._kind].from_url(url, client_options={"allow_http": True}, **options)

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        key = objects.key(path)
        if key is None:
            raise ObjectMissing("the path leaves its origin")
        url = await self._signed("GET", key)
        async with read(self._fetcher, self._tenant, url, want, self._max_bytes) as found:
            yield found

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        headers = {"content-type": content_type} if content_type else {}
        if self._kind == "az":
            headers["x-ms-blob-type"] = "BlockBlob"  # Azure's Put Blob wants it
        url = await self._signed("PUT", key)
        try:
            answer = await self._fetcher.request(
                "PUT", url, tenant=self._tenant, content=data, headers=headers, seconds=_WRITE_SECONDS
            )
        except (FetchRefused, FetchTooLarge, FetchFailed) as error:
            raise StorageFailed(f"cannot write: {error}") from error
        if not 200 <= answer.status < 300:
            raise StorageFailed(f"cannot write: storage answers {answer.status}")

    async def _signed(self, method: Literal["GET", "PUT"], key: str) -> str:
        try:
            url: str = await obstore.sign_async(self.store, method, key, _SIGNED_FOR)
            return url
        except (obstore.exceptions.BaseError, OSError) as error:
            raise StorageFailed(f"cannot sign: {str(error)[:200]}") from error


@asynccontextmanager
async def read(
    fetcher: Fetcher, tenant: str, url: str, want: Want, max_bytes: int, redirects: int = 0
) -> AsyncIterator[Found | None]:
    """One object over HTTP; None: not changed."""
    headers = {"accept-encoding": want.coding or "identity"}
    if want.etag:
        headers["if-none-match"] = want.etag
    elif want.modified:
        headers["if-modified-since"] = formatdate(want.modified, usegmt=True)
    try:
        async with fetcher.stream("GET", url, tenant=tenant, headers=headers, redirects=redirects) as answer:
            if answer.status == 304 and (want.etag or want.modified):
                yield None
            elif answer.status == 200:
                meta = _meta(answer.headers)
                if meta.size > max_bytes:
                    raise ObjectMissing(f"{meta.size} bytes are more than `assets.max_bytes`")
                yield Found(meta, _chunks(answer, max_bytes))
            elif 400 <= answer.status < 500 and answer.status not in _FAILED:
                raise ObjectMissing(f"storage answers {answer.status}")
            else:
                raise StorageFailed(f"storage answers {answer.status}")
    except FetchRefused as error:
        raise StorageFailed(str(error)) from error
    except FetchFailed as error:
        raise StorageFailed(str(error), slow="Timeout" in type(error.__cause__).__name__) from error


async def _chunks(answer: Answer, max_bytes: int) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.chunks(max_bytes):
            yield chunk
    except FetchTooLarge as error:
        raise ObjectMissing(str(error)) from error  # storage itself is well: it must not be taken for down
    except FetchFailed as error:
        raise StorageFailed(str(error)) from error


def _meta(headers: httpx.Headers) -> Meta:
    length = headers.get("content-length", "")
    etag = headers.get("etag", "")
    encoding = headers.get("content-encoding", "").strip().lower()
    return Meta(
        int(length) if length.isdecimal() else -1,
        etag if _ETAG.fullmatch(etag) else "",
        _date(headers.get("last-modified", "")),
        headers.get("content-type", "")[:200],
        "" if encoding == "identity" else _token(encoding),
        headers.get("cache-control", "")[:500],
    )


_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]{0,256}"')
_TOKEN = re.compile(r"[a-z0-9, -]{0,40}")


def _token(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else ""


def _date(value: str) -> int:
    try:
        return max(0, int(parsedate_to_datetime(value).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0
