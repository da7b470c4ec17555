"""Outbound HTTP that refuses addresses nobody on the internet should be able to make us ask.

Invariants: a connection is opened only to an address that was checked, and to that very address: names are
resolved here, every address of the answer is checked by `core.addresses`, and the socket goes to the checked
number, while SNI, certificate check and Host keep the name. Redirects and DNS rebinding pass through the same
gate, because it sits where sockets are opened. Proxies from the environment are not used.
What a server sends is the answer to one request (`outbound.connection`) of one tenant (`outbound.pool`): tenants
share no connection, no TLS session and no cookie.

    async with open_fetcher(settings) as fetcher:          # one per process
        got = await fetcher.request("POST", url, tenant="acme", content=body, headers={…}, max_bytes=65536)
        got.status, got.headers, got.body                  # httpx.Headers; body as sent, never decompressed

        async with fetcher.stream("GET", url, tenant="acme", headers={…}, redirects=3) as answer:
            answer.status, answer.headers, answer.url
            async for chunk in answer.chunks(max_bytes=10 << 20):
                …

`tenant`: on whose behalf; the connection is kept for the tenant's next GET or HEAD. Without one it is used once.

Both raise `FetchRefused` (address or URL not allowed, too many redirects), `FetchTooLarge` and `FetchFailed`
(could not connect, timed out, an answer that is not HTTP/1.1, connection broken before the announced end). A
status is never an error here. `redirects` is 0 unless given; a redirect is followed for GET and HEAD only, never
from https to http, and its target sees none of our `Authorization` or `Cookie` headers when it is another origin.

Operators let their own networks in with `outbound.allow = "10.1.0.0/16, 127.0.0.1"`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import h11
import httpx

from brandproxy import __version__
from brandproxy.config import Settings
from brandproxy.core import addresses
from brandproxy.core.urls import refusal as url_refusal
from brandproxy.errors import FetchFailed, FetchRefused, FetchTooLarge
from brandproxy.outbound.connection import Connection
from brandproxy.outbound.pool import Lease, Place, Pool

Resolve = Callable[[str, int], Awaitable[list[str]]]

_AGENT = f"brandproxy/{__version__}"
_RESOLVERS = 8
_CONNECT = 5.0  # seconds
_MOVED = (301, 302, 303, 307, 308)
_REPEATABLE = ("GET", "HEAD")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer. `body` is as it came over the wire; `url` is where it came from after redirects."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


class Answer:
    """An answer whose body has not been read yet."""

    def __init__(self, url: str, response: h11.Response, connection: Connection, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self.status: int = response.status_code
        self.headers = httpx.Headers(list(response.headers))
        self.url = url

    async def chunks(self, max_bytes: int) -> AsyncIterator[bytes]:
        """The body as sent. Raises FetchTooLarge behind `max_bytes`, FetchFailed when it ends too early."""
        total = 0
        try:
            async for chunk in self._connection.body(self._seconds):
                total += len(chunk)
                if total > max_bytes:
                    raise FetchTooLarge(f"{_short(self.url)} sends more than {max_bytes} bytes")
                yield chunk
        except FetchFailed as error:
            raise FetchFailed(f"{_short(self.url)}: {error}") from error.__cause__


class Fetcher:
    """`resolve` (name, port) -> addresses is the system's resolver unless given."""

    def __init__(
        self, settings: Settings, resolve: Resolve | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        outbound = settings.outbound
        # Threads of our own: names that do not resolve must not hold up what else the process does in threads.
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")
        self._gate = _Gate(outbound.networks, resolve or partial(_resolve, self._threads), trust)
        self._seconds = outbound.seconds
        self._pool = Pool(outbound.connections, self._connect, outbound.seconds)

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0)  # the loop closes sockets in its next round
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def request(
        self,
        method: str,
        url: str,
        *,
        tenant: str | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 1 << 20,
        seconds: float = 0.0,
        redirects: int = 0,
    ) -> Fetched:
        """One request, its whole answer. `seconds` (0: the setting) bounds it from connect to last byte."""
        opened = self.stream(method, url, tenant=tenant, content=content, headers=headers, redirects=redirects)
        try:
            async with asyncio.timeout(seconds or self._seconds), opened as answer:
                body = b"".join([chunk async for chunk in answer.chunks(max_bytes)])
                return Fetched(answer.status, answer.headers, body, answer.url)
        except TimeoutError as error:
            raise FetchFailed(f"{_short(url)}: no whole answer in time") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        tenant: str | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        redirects: int = 0,
    ) -> AsyncIterator[Answer]:
        """An answer to read in chunks. Each read may take `outbound.seconds`; the caller bounds the whole."""
        sent = dict(headers or {})
        for left in range(redirects, -1, -1):
            async with self._exchange(method, url, tenant, content, sent) as answer:
                target = _redirect(answer, method) if redirects else None
                if target is None:
                    yield answer
                    return
                if not left:
                    break
                if httpx.URL(url).netloc != httpx.URL(target).netloc:
                    sent = {k: v for k, v in sent.items() if k.lower() not in ("authorization", "cookie")}
                url = target
        raise FetchRefused(f"{_short(url)}: more than {redirects} redirects")

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, tenant: str | None, content: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[Answer]:
        """One request, on a kept connection or a new one.

        A server may close a kept connection, or spoil it, while the request is on its way. What can be repeated is
        then asked once more on a new one (RFC 9112 §9.3.1); what cannot takes a new one from the start.
        """
        reason = url_refusal(url)
        if reason is not None:
            raise FetchRefused(f"{_short(url)}: {reason}")
        where = _parsed(url)
        place = Place(tenant, where.scheme, where.raw_host.decode("ascii"), where.port or _PORTS[where.scheme])
        for fresh in (False, True) if method in _REPEATABLE else (True,):
            async with self._pool.lease(place, fresh) as lease:
                response = await self._response(method, where, lease, content, headers)
                if response is not None:
                    yield Answer(url, response, lease.connection, self._seconds)
                    return

    async def _response(
        self, method: str, url: httpx.URL, lease: Lease, content: bytes | None, headers: Mapping[str, str]
    ) -> h11.Response | None:
        """The answer's head; None: the kept connection was of no use, take a new one."""
        lines = _head(method, url, content, headers)
        try:
            return await lease.connection.send(method, url.raw_path, lines, content or b"", self._seconds)
        except h11.LocalProtocolError as error:
            raise FetchRefused(f"{_short(str(url))}: {error}") from error
        except FetchFailed as error:
            slow = isinstance(error.__cause__, TimeoutError)
            if lease.used and not slow:
                return None
            raise FetchFailed(f"{_short(str(url))}: {error}") from error.__cause__

    async def _connect(self, place: Place) -> Connection:
        try:
            async with asyncio.timeout(min(_CONNECT, self._seconds)):
                return await self._gate.connect(place)
        except TimeoutError as error:
            raise FetchFailed(f"no connection to {place.host} in time") from error


@asynccontextmanager
async def open_fetcher(
    settings: Settings, resolve: Resolve | None = None, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Fetcher]:
    """A Fetcher that is closed at the end of the block."""
    fetcher = Fetcher(settings, resolve, trust)
    try:
        yield fetcher
    finally:
        await fetcher.close()


class _Gate:
    """Opens sockets to checked addresses only."""

    def __init__(
        self, allowed: tuple[addresses.Network, ...], resolve: Resolve, trust: ssl.SSLContext | None
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._tls = trust or httpx.create_ssl_context(trust_env=False)
        self._tls.set_alpn_protocols(["http/1.1"])

    async def connect(self, place: Place) -> Connection:
        """The first address that answers. One refused address refuses the name: it is not an honest one."""
        found = await self._resolve(place.host, place.port)
        for address in found:
            reason = addresses.refusal(address, self._allowed)
            if reason is not None:
                raise FetchRefused(f"{place.host}: {reason}")
        trouble: Exception | None = None
        for address in found:
            try:
                return await self._open(address, place)
            except OSError as error:
                trouble = error
        words = f"{place.host}: {trouble}" if trouble else f"{place.host} has no address"
        raise FetchFailed(words) from trouble

    async def _open(self, address: str, place: Place) -> Connection:
        loop = asyncio.get_running_loop()
        if place.scheme == "https":
            _, connection = await loop.create_connection(
                Connection, address, place.port, ssl=self._tls, server_hostname=place.host
            )
        else:
            _, connection = await loop.create_connection(Connection, address, place.port)
        return connection


async def _resolve(threads: ThreadPoolExecutor, host: str, port: int) -> list[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"{host} does not resolve") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _head(
    method: str, url: httpx.URL, content: bytes | None, headers: Mapping[str, str]
) -> list[tuple[bytes, bytes]]:
    given = {name.lower(): value for name, value in headers.items()}
    lines = {
        "host": url.netloc.decode("ascii"),
        "user-agent": _AGENT,
        "accept": "*/*",
        "accept-encoding": "identity",
    }
    if content is not None or method in ("POST", "PUT", "PATCH"):
        lines["content-length"] = str(len(content or b""))
    try:
        return [(name.encode("ascii"), value.encode("utf-8")) for name, value in (lines | given).items()]
    except UnicodeError as error:
        raise FetchRefused(f"{_short(str(url))}: a header cannot be sent") from error


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchRefused(f"{_short(url)}: {error}") from error


def _redirect(answer: Answer, method: str) -> str | None:
    """Where to go on, or None when this is the answer. Raises FetchRefused for a step down to http."""
    where = answer.headers.get("location", "")
    if answer.status not in _MOVED or not where or method not in ("GET", "HEAD"):
        return None
    try:
        here = httpx.URL(answer.url)
        target = str(here.join(where))
    except httpx.InvalidURL as error:
        raise FetchRefused(f"{_short(answer.url)} redirects to an invalid URL") from error
    if here.scheme == "https" and urlsplit(target).scheme != "https":
        raise FetchRefused(f"{_short(answer.url)} redirects from https to http")
    return target


def _short(url: str) -> str:
    """A URL for messages: without query and user-info, which may be secret."""
    return url.partition("?")[0].rpartition("@")[2][:120]
