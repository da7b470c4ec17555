"""https:// storage, and buckets (s3, gs, az).

Buckets are read through presigned URLs: obstore signs, `fetch` reads. So the address checks, size and time
caps and the streaming of `fetch` hold for every kind of storage, and there is one reader to keep.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

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
# What says more about storage than about the object. (403 is what S3 says of an absent key to those who may not
# list the bucket.)
_FAILED = (401, 407, 408, 421, 425, 429)


class WebSource:
    """Objects under a URL prefix that ends in a slash."""

    near = False

    def __init__(self, fetcher: Fetcher, prefix: str, max_bytes: int, redirects: int = 3) -> None:
        self._fetcher = fetcher
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._redirects = redirects

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        relative = objects.web_path(path)
        if relative is None:
            raise ObjectMissing("the path leaves its origin")
        url = self._prefix + relative
        async with read(self._fetcher, url, want, self._max_bytes, self._redirects) as found:
            yield found

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        raise StorageFailed("web storage can only be read; use the bucket behind it (s3://, gs://, az://)")


class BucketSource:
    """Objects of a bucket. `options` are obstore's settings of that store (endpoint, region, credentials);
    what is not given comes from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`)."""

    near = False

    def __init__(self, fetcher: Fetcher, url: str, options: dict[str, str], max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self.store: Any = BUCKETS[url.partition(":")[0]].from_url(
            url, client_options={"allow_http": True}, **options
        )

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        key = objects.key(path)
        if key is None:
            raise ObjectMissing("the path leaves its origin")
        try:
            url = await obstore.sign_async(self.store, "GET", key, _SIGNED_FOR)
        except obstore.exceptions.BaseError as error:
            raise StorageFailed(f"cannot sign: {str(error)[:200]}") from error
        async with read(self._fetcher, url, want, self._max_bytes) as found:
            yield found

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        kinds = {"Content-Type": content_type} if content_type else {}
        try:
            await obstore.put_async(self.store, key, data, attributes=kinds)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise StorageFailed(f"cannot write: {str(error)[:200]}") from error


@asynccontextmanager
async def read(
    fetcher: Fetcher, url: str, want: Want, max_bytes: int, redirects: int = 0
) -> AsyncIterator[Found | None]:
    """One object over HTTP; None: not changed."""
    headers = {"accept-encoding": want.coding or "identity"}
    if want.etag:
        headers["if-none-match"] = want.etag
    elif want.modified:
        headers["if-modified-since"] = formatdate(want.modified, usegmt=True)
    try:
        async with fetcher.stream("GET", url, headers=headers, redirects=redirects) as answer:
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
