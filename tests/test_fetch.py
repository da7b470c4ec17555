"""Outbound HTTP: no request ever reaches an address outside the allow-list, whatever names and redirects say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import dns.message
import dns.rrset
import pytest
import trustme
from dns.asyncresolver import Resolver

from brandproxy.config import Settings
from brandproxy.errors import FetchFailed, FetchRefused, FetchTooLarge
from brandproxy.fetch import Fetcher, open_fetcher
from tests.conftest import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """An HTTP server that writes what a test says and counts who came."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        self.connections = 0
        self.replies: list[bytes] = []
        self.hang = False
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head)
                if self.hang:
                    await asyncio.sleep(30)
                reply = self.replies.pop(0) if self.replies else ok(b"hello")
                writer.write(reply)
                await writer.drain()
                if b"connection: close" in reply:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def ok(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def moved(where: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: %s\r\n\r\n" % where.encode()


@asynccontextmanager
async def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.handle, host, 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    await site.stop()


@asynccontextmanager
async def fetching(allow: str = "127.0.0.1", seconds: float = 5.0, **more: object) -> AsyncIterator[Fetcher]:
    settings = Settings(outbound={"allow": allow, "seconds": seconds})  # type: ignore[arg-type]
    async with open_fetcher(settings, **more) as fetcher:  # type: ignore[arg-type]
        yield fetcher


async def test_an_allowed_address_is_asked_and_its_answer_given_whole() -> None:
    async with serving() as site, fetching() as fetcher:
        got = await fetcher.request("POST", f"http://127.0.0.1:{site.port}/x", content=b"a=b")
        assert (got.status, got.body) == (200, b"hello")
        assert b"POST /x HTTP/1.1" in site.requests[0]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0.0.0.0", "[::1]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost.", "LOCALHOST", "127。0。0。1", "①②⑦.0.0.1"],
)  # fmt: skip
async def test_loopback_is_refused_however_it_is_spelled(host: str) -> None:
    async with serving("127.0.0.1") as site, fetching(allow="") as fetcher:
        with pytest.raises((FetchRefused, FetchFailed)):
            await fetcher.request("GET", f"http://{host}:{site.port}/")
        assert site.connections == 0


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "ftp://127.0.0.1/",
     "file:///etc/passwd", "http://user@127.0.0.1/", "http://a\r\nb/", "http://127.0.0.1\\@example.com/", "//x",
     "", "http://exa mple/", "gopher://127.0.0.1:6379/_FLUSHALL"],
)  # fmt: skip
async def test_private_addresses_and_other_schemes_are_refused(url: str) -> None:
    async with fetching(seconds=1) as fetcher:
        with pytest.raises(FetchRefused):
            await fetcher.request("GET", url)


async def test_a_redirect_passes_the_same_gate() -> None:
    async with serving() as outside, serving("127.0.0.2") as inside, fetching() as fetcher:
        outside.replies = [moved(f"http://127.0.0.2:{inside.port}/")] * 2
        with pytest.raises(FetchRefused):
            await fetcher.request("GET", f"http://127.0.0.1:{outside.port}/", redirects=3)
        assert inside.connections == 0


async def test_redirects_are_followed_as_far_as_allowed_and_without_our_secrets() -> None:
    async with serving() as first, serving() as second, fetching() as fetcher:
        url = f"http://127.0.0.1:{first.port}/"
        first.replies = [moved("/again"), moved(f"http://127.0.0.1:{second.port}/end")]
        got = await fetcher.request("GET", url, headers={"Authorization": "Bearer s"}, redirects=3)
        assert got.url.endswith(f":{second.port}/end")
        assert b"Bearer s" in first.requests[1]
        assert b"Bearer s" not in second.requests[0]
        first.replies = [moved("/loop")] * 4
        with pytest.raises(FetchRefused, match="redirects"):
            await fetcher.request("GET", url, redirects=2)
        first.replies = [moved("/elsewhere")]
        assert (await fetcher.request("GET", url)).status == 302


async def test_a_post_is_never_sent_on_to_another_place() -> None:
    async with serving() as site, fetching() as fetcher:
        site.replies = [moved("/else")]
        got = await fetcher.request("POST", f"http://127.0.0.1:{site.port}/", content=b"x", redirects=3)
        assert got.status == 302
        assert len(site.requests) == 1


class RebindingDns(asyncio.DatagramProtocol):
    """A name server that answers with an allowed address first and a forbidden one ever after."""

    def __init__(self, answers: list[str]) -> None:
        self.answers, self.asked = answers, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        address = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "A", *address.split()))
        self.transport.sendto(reply.to_wire(), addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def rebinding(
    *answers: str,
) -> AsyncIterator[tuple[RebindingDns, Callable[[str, int], Awaitable[list[str]]]]]:
    port = free_port()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: RebindingDns(list(answers)), local_addr=("127.0.0.1", port)
    )
    resolver = Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], port

    async def resolve(host: str, _: int) -> list[str]:
        return [str(record) for record in await resolver.resolve(host, "A")]

    yield protocol, resolve
    transport.close()


async def test_a_rebinding_name_server_is_asked_once_a_connection_and_its_word_is_checked() -> None:
    async with (
        serving("127.0.0.1") as allowed, serving("127.0.0.2") as forbidden,
        rebinding("127.0.0.1", "127.0.0.2") as (dns_, resolve), fetching(resolve=resolve) as fetcher,
    ):  # fmt: skip
        allowed.replies = [ok(b"first", b"connection: close")]
        got = await fetcher.request("GET", f"http://rebind.test:{allowed.port}/")
        assert (got.body, dns_.asked) == (b"first", 1)
        assert b"host: rebind.test" in allowed.requests[0].lower()
        for port in (allowed.port, forbidden.port):
            with pytest.raises(FetchRefused):
                await fetcher.request("GET", f"http://rebind.test:{port}/")
        assert forbidden.connections == 0
        assert allowed.connections == 1


async def test_one_forbidden_address_among_good_ones_refuses_the_name() -> None:
    async with (
        serving("127.0.0.1") as site, rebinding("127.0.0.1 169.254.169.254") as (_, resolve),
        fetching(resolve=resolve) as fetcher,
    ):  # fmt: skip
        with pytest.raises(FetchRefused):
            await fetcher.request("GET", f"http://mixed.test:{site.port}/")
        assert site.connections == 0


async def test_the_certificate_is_checked_for_the_name_and_not_for_the_address() -> None:
    ca = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("media.acme.test").configure_cert(tls)
    names: list[str] = []
    tls.sni_callback = lambda _s, name, _c: names.append(name)  # type: ignore[assignment]
    trust = ssl.create_default_context()
    ca.configure_trust(trust)

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    async with serving(tls=tls) as site, fetching(resolve=resolve, trust=trust) as fetcher:
        assert (await fetcher.request("GET", f"https://media.acme.test:{site.port}/")).status == 200
        with pytest.raises(FetchFailed, match="certificate"):
            await fetcher.request("GET", f"https://other.acme.test:{site.port}/")
        site.replies = [moved(f"http://127.0.0.1:{site.port}/")]
        with pytest.raises(FetchRefused, match="https to http"):
            await fetcher.request("GET", f"https://media.acme.test:{site.port}/", redirects=1)
    assert names == ["media.acme.test", "other.acme.test", "media.acme.test"]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy, serving() as site:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with fetching() as fetcher:
            await fetcher.request("GET", f"http://127.0.0.1:{site.port}/")
        assert (proxy.connections, site.connections) == (0, 1)


async def test_size_is_capped_whether_announced_or_not() -> None:
    async with serving() as site, fetching() as fetcher:
        url = f"http://127.0.0.1:{site.port}/"
        site.replies = [ok(b"x" * 1000)]
        with pytest.raises(FetchTooLarge):
            await fetcher.request("GET", url, max_bytes=999)
        chunked = (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
        )
        site.replies = [chunked]
        with pytest.raises(FetchTooLarge):
            await fetcher.request("GET", url, max_bytes=999)


async def test_a_compressed_body_is_never_unpacked() -> None:
    async with serving() as site, fetching() as fetcher:
        site.replies = [ok(b"\x1f\x8b-not-even-gzip", b"content-encoding: gzip")]
        assert (await fetcher.request("GET", f"http://127.0.0.1:{site.port}/")).body == b"\x1f\x8b-not-even-gzip"
        assert b"accept-encoding: identity" in site.requests[0].lower()


async def test_a_broken_or_silent_server_is_a_failure_that_may_pass() -> None:
    async with serving() as site, fetching() as fetcher:
        url = f"http://127.0.0.1:{site.port}/"
        site.replies = [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort"]
        with pytest.raises(FetchFailed):
            await fetcher.request("GET", url)
        site.replies = [b"this is not HTTP\r\n\r\nconnection: close"]
        with pytest.raises(FetchFailed):
            await fetcher.request("GET", url)
        site.hang = True
        with pytest.raises(FetchFailed, match="in time"):
            await fetcher.request("GET", url, seconds=0.2)
    async with fetching() as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.request("GET", f"http://127.0.0.1:{free_port()}/")
