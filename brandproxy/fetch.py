"""Outbound HTTP that refuses addresses nobody on the internet should be able to make us ask.

Invariant: a connection is opened only to an address that was checked, and to that very address: names are
resolved here, every address of the answer is checked by `core.addresses`, and the socket goes to the checked
number, while SNI, certificate check and Host keep the name. Redirects and DNS rebinding pass through the same
gate, because it sits where sockets are opened. Proxies from the environment are not used.

    async with open_fetcher(settings) as fetcher:          # one per process, keeps connections alive
        got = await fetcher.request("POST", url, content=body, headers={…}, max_bytes=65536, seconds=10)
        got.status, got.headers, got.body                  # httpx.Headers; body as sent, never decompressed

        async with fetcher.stream("GET", url, headers={…}, redirects=3) as answer:
            answer.status, answer.headers, answer.url
            async for chunk in answer.chunks(max_bytes=10 << 20):
                …

Both raise `FetchRefused` (address or URL not allowed, too many redirects), `FetchTooLarge` and `FetchFailed`
(could not connect, timed out, connection broken before the announced end). A status is never an error here.
`redirects` is 0 unless given; a redirect is followed for GET and HEAD only, never from https to http, and its
target sees none of our `Authorization` or `Cookie` headers when it is another origin.

Operators let their own networks in with `outbound.allow = "10.1.0.0/16, 127.0.0.1"`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpcore
import httpx
from httpcore._backends.auto import AutoBackend  # the public name hides the class that picks the event loop

from brandproxy import __version__
from brandproxy.config import Settings
from brandproxy.core import addresses
from brandproxy.core.urls import refusal as url_refusal
from brandproxy.errors import FetchFailed, FetchRefused, FetchTooLarge

Resolve = Callable[[str, int], Awaitable[list[str]]]

_AGENT = f"brandproxy/{__version__}"
_RESOLVERS = 8
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer. `body` is as it came over the wire; `url` is where it came from after redirects."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


class Answer:
    """An answer whose body has not been read yet."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status: int = response.status_code
        self.headers: httpx.Headers = response.headers
        self.url = str(response.url)

    async def chunks(self, max_bytes: int, size: int = 65536) -> AsyncIterator[bytes]:
        """The body as sent. Raises FetchTooLarge behind `max_bytes`, FetchFailed when it ends too early."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise FetchTooLarge(f"{_short(self.url)} announces {announced} bytes; the limit is {max_bytes}")
        total = 0
        try:
            async for chunk in self._response.aiter_raw(size):
                total += len(chunk)
                if total > max_bytes:
                    raise FetchTooLarge(f"{_short(self.url)} sends more than {max_bytes} bytes")
                yield chunk
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise FetchFailed(f"{_short(self.url)}: {_words(error)}") from error


class Fetcher:
    """`resolve` (name, port) -> addresses is the system's resolver unless given."""

    def __init__(
        self, settings: Settings, resolve: Resolve | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        outbound = settings.outbound
        # Threads of our own: names that do not resolve must not hold up what else the process does in threads.
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")
        gate = _Gate(outbound.networks, resolve or partial(_resolve, self._threads))
        transport = httpx.AsyncHTTPTransport(verify=trust or True, trust_env=False)
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust or httpx.create_ssl_context(trust_env=False),
            max_connections=outbound.connections,
            max_keepalive_connections=outbound.connections // 2,
            keepalive_expiry=30,
            network_backend=gate,
        )
        self._timeout = httpx.Timeout(outbound.seconds, connect=min(5.0, outbound.seconds))
        self._seconds = outbound.seconds
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=self._timeout,
            trust_env=False,
            headers={"user-agent": _AGENT, "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._http.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 1 << 20,
        seconds: float = 0.0,
        redirects: int = 0,
    ) -> Fetched:
        """One request, its whole answer. `seconds` (0: the setting) bounds it from connect to last byte."""
        try:
            async with asyncio.timeout(seconds or self._seconds):
                opened = self.stream(method, url, content=content, headers=headers, redirects=redirects)
                async with opened as answer:
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
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        redirects: int = 0,
    ) -> AsyncIterator[Answer]:
        """An answer to read in chunks. Each read may take `outbound.seconds`; the caller bounds the whole."""
        sent = dict(headers or {})
        for left in range(redirects, -1, -1):
            response = await self._send(method, url, content, sent)
            try:
                target = _redirect(response, method) if redirects else None
                if target is None:
                    yield Answer(response)
                    return
                if not left:
                    break
                if httpx.URL(url).netloc != httpx.URL(target).netloc:
                    sent = {k: v for k, v in sent.items() if k.lower() not in ("authorization", "cookie")}
                url = target
            finally:
                await response.aclose()
        raise FetchRefused(f"{_short(url)}: more than {redirects} redirects")

    async def _send(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        reason = url_refusal(url)
        if reason is not None:
            raise FetchRefused(f"{_short(url)}: {reason}")
        try:
            request = self._http.build_request(method, url, content=content, headers=dict(headers))
            return await self._http.send(request, stream=True)
        except httpx.InvalidURL as error:
            raise FetchRefused(f"{_short(url)}: {error}") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise FetchFailed(f"{_short(url)}: {_words(error)}") from error


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


class _Gate(httpcore.AsyncNetworkBackend):
    """Opens sockets to checked addresses only."""

    def __init__(self, allowed: tuple[addresses.Network, ...], resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._sockets = AutoBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
                return await self._connect(host, found, port, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection to {host} in time") from error

    async def _connect(
        self,
        host: str,
        found: list[str],
        port: int,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        """The first address that answers. One refused address refuses the name: it is not an honest one."""
        for address in found:
            reason = addresses.refusal(address, self._allowed)
            if reason is not None:
                raise FetchRefused(f"{host}: {reason}")
        trouble: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in found:
            try:
                return await self._sockets.connect_tcp(address, port, socket_options=socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as error:
                trouble = error
        raise trouble

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise FetchRefused("no local sockets")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _resolve(threads: ThreadPoolExecutor, host: str, port: int) -> list[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} does not resolve") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _redirect(response: httpx.Response, method: str) -> str | None:
    """Where to go on, or None when this is the answer. Raises FetchRefused for a step down to http."""
    where = response.headers.get("location", "")
    if response.status_code not in _MOVED or not where or method not in ("GET", "HEAD"):
        return None
    try:
        target = str(response.url.join(where))
    except httpx.InvalidURL as error:
        raise FetchRefused(f"{_short(str(response.url))} redirects to an invalid URL") from error
    if response.url.scheme == "https" and urlsplit(target).scheme != "https":
        raise FetchRefused(f"{_short(str(response.url))} redirects from https to http")
    return target


def _short(url: str) -> str:
    """A URL for messages: without query and user-info, which may be secret."""
    return url.partition("?")[0].rpartition("@")[2][:120]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
