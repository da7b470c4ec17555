"""A tenant's origin as sources: the first choice, the failover, and how each has been doing.

Opening an object, in order:
1. the origin's own URL, unless it failed `_FAILURES` times in a row within its pause
2. the failover URL, when the first failed (never when it answered that the object is missing)
3. when all are pausing, the first is asked all the same: an answer late is better than none
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import obstore
from prometheus_client import Counter

from brandproxy.config import Settings
from brandproxy.core import names, objects
from brandproxy.core.names import host_matches
from brandproxy.core.urls import refusal as url_refusal
from brandproxy.errors import BadInput, BrandproxyError
from brandproxy.fetch import Fetcher
from brandproxy.model import Origin
from brandproxy.storage.base import Found, ObjectMissing, Source, StorageFailed, Want
from brandproxy.storage.local import FileSource, MemorySource
from brandproxy.storage.web import BUCKETS, BucketSource, WebSource
from brandproxy.store.seal import Seal

log = logging.getLogger(__name__)

ASKED = Counter("brandproxy_storage_requests", "What storage answered when it was asked", ["result"])
_ASKED = {result: ASKED.labels(result) for result in ("found", "unchanged", "missing", "failed")}

_FAILURES = 3
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0


@dataclass(slots=True)
class Health:
    """Failures in a row, and until when (monotonic seconds) storage is left in peace."""

    failures: int = 0
    until: float = 0.0
    last: str = ""

    def succeeded(self) -> None:
        self.failures, self.last = 0, ""

    def failed(self, why: str, now: float) -> None:
        self.failures, self.last = self.failures + 1, why
        if self.failures >= _FAILURES:
            self.until = now + min(_LAST_PAUSE, _FIRST_PAUSE * 2 ** (self.failures - _FAILURES))

    def pausing(self, now: float) -> bool:
        return self.failures >= _FAILURES and now < self.until


class Origins:
    """Opens objects of tenants' origins; keeps one Source and one Health for each tenant and URL.

    `tenant` is the slug of the tenant whose origin it is: tenants that name the same storage share nothing.
    """

    def __init__(
        self, settings: Settings, fetcher: Fetcher, seal: Seal, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings.assets
        self._fetcher = fetcher
        self._seal = seal
        self._now = now
        self._sources: dict[tuple[str, str, str], tuple[Source, Health]] = {}

    def near(self, tenant: str, origin: Origin) -> bool:
        """Whether the origin's storage is this machine's own."""
        return self._source(tenant, origin.url, origin.sealed)[0].near

    def health(self, tenant: str, origin: Origin) -> list[tuple[str, Health]]:
        """(URL, health) of the origin's own storage and of its failover."""
        return [(url, self._source(tenant, url, origin.sealed)[1]) for url in urls(origin)]

    @asynccontextmanager
    async def open(self, tenant: str, origin: Origin, path: str, want: Want) -> AsyncIterator[Found | None]:
        """See Source.open. A failure while the body is read is not failed over: its bytes are gone out."""
        choices = [self._source(tenant, url, origin.sealed) for url in urls(origin)]
        willing = [choice for choice in choices if not choice[1].pausing(self._now())] or choices[:1]
        for position, (source, health) in enumerate(willing):
            opened = False
            try:
                async with source.open(path, want) as found:
                    opened = True
                    yield found
                health.succeeded()
                _ASKED["found" if found else "unchanged"].inc()
                return
            except ObjectMissing:
                health.succeeded()
                _ASKED["missing"].inc()
                raise
            except StorageFailed as error:
                health.failed(str(error), self._now())
                _ASKED["failed"].inc()
                log.warning("origin %s of %s: %s", origin.name, tenant, error)
                if opened or position == len(willing) - 1:
                    raise

    async def put(self, tenant: str, origin: Origin, key: str, data: bytes, content_type: str) -> None:
        """Store an object in the origin's own storage. Raises StorageFailed."""
        await self._source(tenant, origin.url, origin.sealed)[0].put(key, data, content_type)

    def _source(self, tenant: str, url: str, sealed: str) -> tuple[Source, Health]:
        found = self._sources.get((tenant, url, sealed))
        if found is None:
            try:
                options = json.loads(self._seal.open(sealed.encode())) if sealed else {}
                found = (self._make(tenant, url, options), Health())
            except (BrandproxyError, obstore.exceptions.BaseError, ValueError, TypeError) as error:
                raise StorageFailed(f"{url[:80]} cannot be used: {str(error)[:200]}") from error
            self._sources[tenant, url, sealed] = found
        return found

    def _make(self, tenant: str, url: str, options: dict[str, str]) -> Source:
        check_url(url, self._settings.hosts)
        scheme, limit = urlsplit(url).scheme, self._settings.max_bytes
        if scheme == "file":
            return FileSource(url)
        if scheme == "memory":
            return MemorySource(url)
        if scheme in BUCKETS:
            return BucketSource(self._fetcher, tenant, url, options, limit)
        # Where hosts are listed, a redirect could lead to one that is not.
        return WebSource(self._fetcher, tenant, url, limit, redirects=0 if self._settings.hosts else 3)


def urls(origin: Origin) -> tuple[str, ...]:
    return (origin.url, origin.failover) if origin.failover else (origin.url,)


def check(origin: Origin, hosts: str) -> None:
    """Raises BadInput naming what is wrong with an origin."""
    names.slug(origin.name)
    for url in urls(origin):
        check_url(url, hosts)
    for prefix in origin.public:
        if url_refusal(prefix) is not None:
            raise BadInput(f"public prefix {prefix[:80]!r}: {url_refusal(prefix)}", "Use https://host/path/.")
    if origin.variant and objects.variant(origin.variant) is None:
        raise BadInput(f"no image variant {origin.variant[:40]!r}", "Use e.g. w1200, webp or w1200-webp.")


def check_url(url: str, hosts: str = "") -> None:
    """Raises BadInput when `url` cannot be an origin here. `hosts`: names web storage may have, or empty: any."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "file", "memory", *BUCKETS):
        raise BadInput(f"no storage under {url[:80]!r}", "Use https://, s3://, gs://, az:// or file:///.")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise BadInput(f"{url[:80]!r} has a query, fragment or user in it", "Give the plain prefix.")
    if parts.scheme in ("https", "http", "file") and not parts.path.endswith("/"):
        raise BadInput(f"{url[:80]!r} is not a folder", "End it with a slash.")
    if parts.scheme != "file" and not parts.netloc:
        raise BadInput(f"{url[:80]!r} names no host or bucket")
    if parts.scheme in ("https", "http") and hosts and not host_matches(parts.hostname or "", hosts):
        raise BadInput(f"host {parts.hostname} is not among `assets.hosts`", "Ask the operator to add it.")
