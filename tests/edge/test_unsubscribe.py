"""One-click: answered in place, forwarded as it came, and never lost."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from brandproxy.core.tokens import Click, Unsubscribe
from brandproxy.edge import unsubscribe
from brandproxy.edge.unsubscribe import Forwarder, Recent
from brandproxy.errors import FetchFailed, FetchRefused
from brandproxy.spool import Commit, Spool, segments
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare

BODY = b"List-Unsubscribe=One-Click"


class Endpoint:
    """An ESP's one-click endpoint; `status` is what it answers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, dict[str, str]]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                outer.seen.append((self.path, body, {k.lower(): v for k, v in self.headers.items()}))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/unsubscribe?id=7&sig=a%2Bb"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.close()


@pytest.fixture(scope="module")
def reaching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that may reach endpoints on loopback."""
    running = prepare(tmp_path_factory.mktemp("one-click"), BRANDPROXY_OUTBOUND_ALLOW="127.0.0.1")
    running.start()
    yield running
    running.stop()


def post(edge: RunningEdge, token: str, content: bytes = BODY, kind: str = "application/x-www-form-urlencoded"):
    return httpx.post(
        f"http://127.0.0.1:{edge.http}/u/{token}",
        content=content,
        headers={"host": HOST, "content-type": kind},
        trust_env=False,
    )


MULTIPART = b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("body", "kind"),
    [(BODY, "application/x-www-form-urlencoded"), (MULTIPART, "multipart/form-data; boundary=x")],
)
def test_the_post_is_answered_in_place_and_forwarded_exactly(
    reaching: RunningEdge, endpoint: Endpoint, body: bytes, kind: str
) -> None:
    token = reaching.token(Unsubscribe(endpoint.url, "https://esp.example/page", "spring", "m-1", "r-1"))
    answer = post(reaching, token, body, kind)
    assert answer.status_code == 202
    assert "location" not in answer.headers
    assert eventually(lambda: len(endpoint.seen) == 1)
    path, seen, headers = endpoint.seen[0]
    assert (path, seen, headers["content-type"]) == ("/unsubscribe?id=7&sig=a%2Bb", body, kind)
    assert "cookie" not in headers
    event = reaching.events()[-1]
    assert (event.kind, event.recipient) == ("unsubscribe", "r-1")


def test_who_repeats_a_wish_is_answered_and_fills_no_queue(reaching: RunningEdge, endpoint: Endpoint) -> None:
    token = reaching.token(Unsubscribe(endpoint.url, "", "spring", "m-1", "r-2"))
    assert [post(reaching, token).status_code for _ in range(20)] == [202] * 20
    assert eventually(lambda: bool(endpoint.seen))
    assert not eventually(lambda: len(endpoint.seen) > 1, 1.2)
    assert sum(event.recipient == "r-2" for event in reaching.events()) == 1


def test_many_connections_at_once_with_one_wish_queue_it_once(reaching: RunningEdge, endpoint: Endpoint) -> None:
    token = reaching.token(Unsubscribe(endpoint.url, "", "spring", "m-1", "r-3"))
    request = (
        f"POST /u/{token} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    )
    with ExitStack() as stack:
        address = ("127.0.0.1", reaching.http)
        socks = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(30)]
        for sock in socks:
            sock.sendall(request.encode() + BODY)
        assert {sock.recv(12) for sock in socks} == {b"HTTP/1.1 202"}
    assert eventually(lambda: bool(endpoint.seen))
    assert not eventually(lambda: len(endpoint.seen) > 1, 1.2)
    assert sum(event.recipient == "r-3" for event in reaching.events()) == 1


def test_the_same_token_may_be_a_new_wish_later() -> None:
    recent, wish = Recent(), Commit()
    recent.add("token", wish, 100.0)
    assert recent.get("token", 109.9) is wish
    assert recent.get("token", 110.1) is None
    for number in range(30_000):
        recent.add(str(number), wish, 100.0)
    assert len(recent._queued) <= 10_000


def test_a_wish_that_could_not_be_queued_may_come_again_at_once(tmp_path: Path, endpoint: Endpoint) -> None:
    running = prepare(tmp_path, BRANDPROXY_OUTBOUND_ALLOW="127.0.0.1")
    running.start()
    try:
        token = running.token(Unsubscribe(endpoint.url))
        (tmp_path / "unsubscribe").rename(tmp_path / "away")
        (tmp_path / "unsubscribe").touch()  # where a folder is wanted
        assert [post(running, token).status_code for _ in range(2)] == [503, 503]
        (tmp_path / "unsubscribe").unlink()
        (tmp_path / "away").rename(tmp_path / "unsubscribe")
        assert post(running, token).status_code == 202
        assert eventually(lambda: len(endpoint.seen) == 1)
    finally:
        running.stop()


def test_a_scanners_get_or_empty_post_unsubscribes_nobody(reaching: RunningEdge, endpoint: Endpoint) -> None:
    token = reaching.token(Unsubscribe(endpoint.url))
    for method in ("GET", "HEAD"):
        httpx.request(
            method, f"http://127.0.0.1:{reaching.http}/u/{token}", headers={"host": HOST}, trust_env=False
        )
    assert post(reaching, token, b"").status_code == 400
    assert post(reaching, token, b"x" * 100_000).status_code in (400, 413)
    assert not eventually(lambda: bool(endpoint.seen), 1.2)


def test_a_token_of_another_kind_is_no_unsubscribe(reaching: RunningEdge, endpoint: Endpoint) -> None:
    assert post(reaching, reaching.token(Click(endpoint.url))).status_code == 404


async def queue(directory: Path, *urls: str, at: float = 1000.0) -> None:
    spool = Spool(directory, "w1")
    for url in urls:
        await spool.append(unsubscribe.encode(url, BODY, "text/plain", at))
    await spool.close()


async def turns(forwarder: Forwarder, count: int = 4) -> None:
    for _ in range(count):
        await forwarder.turn()
        await asyncio.sleep(0.01)


async def test_an_endpoint_that_is_down_gets_the_wish_when_it_is_back(tmp_path: Path) -> None:
    await queue(tmp_path, "https://a.example/1", "https://b.example/2")
    clock, answers, sent = [1000.0], {"https://a.example/1": 503, "https://b.example/2": 200}, []

    async def send(url: str, body: bytes, kind: str) -> int:
        sent.append(url)
        if answers[url] == 503:
            raise FetchFailed("down")
        return answers[url]

    forwarder = Forwarder(tmp_path, send, lambda: clock[0])
    await turns(forwarder)
    assert sorted(sent) == ["https://a.example/1", "https://b.example/2"]
    clock[0] += 5
    await turns(forwarder)
    assert sent.count("https://a.example/1") == 2
    answers["https://a.example/1"] = 200
    clock[0] += 10
    await turns(forwarder)
    assert (sent.count("https://a.example/1"), sent.count("https://b.example/2")) == (3, 1)
    assert segments(tmp_path) == []


async def test_a_restart_repeats_nothing_that_arrived(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    sent: list[str] = []

    async def send(url: str, body: bytes, kind: str) -> int:
        sent.append(url)
        return 200 if "ok" in url else 500

    for url in ("https://ok.example/1", "https://bad.example/2"):
        await spool.append(unsubscribe.encode(url, BODY, "", 1000.0))
    await turns(Forwarder(tmp_path, send, lambda: 1000.0))  # the segment is still being written
    sent.clear()
    await turns(Forwarder(tmp_path, send, lambda: 1000.0))
    assert sent == ["https://bad.example/2"]
    await spool.close()


@pytest.mark.parametrize("outcome", [404, FetchRefused("private"), 500])
async def test_what_can_never_arrive_is_set_aside_for_the_operator(
    tmp_path: Path, outcome: int | Exception
) -> None:
    await queue(tmp_path, "https://a.example/1")

    async def send(url: str, body: bytes, kind: str) -> int:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    await turns(Forwarder(tmp_path, send, lambda: 1000.0 + (4 * 86400 if outcome == 500 else 0)))
    (failed,) = (tmp_path / "failed").iterdir()
    assert json.loads(failed.read_text())[2] == "https://a.example/1"
    assert segments(tmp_path) == []


async def test_a_slow_endpoint_does_not_hold_up_the_others(tmp_path: Path) -> None:
    await queue(tmp_path, *[f"https://slow.example/{n}" for n in range(10)], "https://fast.example/")
    sent: list[str] = []

    async def send(url: str, body: bytes, kind: str) -> int:
        sent.append(url)
        if "slow" in url:
            await asyncio.sleep(30)
        return 200

    forwarder = Forwarder(tmp_path, send, lambda: 1000.0)
    await forwarder.turn()
    assert "https://fast.example/" in sent
    assert sum("slow" in url for url in sent) == 2
    for task in list(forwarder._flying):
        task.cancel()
    await asyncio.gather(*forwarder._flying, return_exceptions=True)


async def test_damage_in_the_queue_costs_the_damaged_wish_only(tmp_path: Path) -> None:
    await queue(tmp_path, *[f"https://a{n}.example/" for n in range(5)])
    (segment,) = segments(tmp_path)
    data = bytearray(segment.path.read_bytes())
    data[data.index(b"https://a2.example/")] ^= 0xFF
    segment.path.write_bytes(data)
    sent: list[str] = []

    async def send(url: str, body: bytes, kind: str) -> int:
        sent.append(url)
        return 200

    await turns(Forwarder(tmp_path, send, lambda: 1000.0))
    assert sorted(sent) == [f"https://a{n}.example/" for n in (0, 1, 3, 4)]
    assert segments(tmp_path) == []


async def test_a_full_disk_and_a_segment_of_a_newer_version_hold_up_no_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither may end the forwarder, which would take its worker with it."""
    (tmp_path / "0000-newer.seg").write_bytes(b"bpspool\x63 and what that version writes")
    await queue(tmp_path, "https://a.example/1", "https://bad.example/2")
    sent: list[str] = []
    full = True
    save = unsubscribe._save

    async def send(url: str, body: bytes, kind: str) -> int:
        sent.append(url)
        return 404 if "bad" in url else 200

    def saving(path: Path, progress: dict[str, int]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        save(path, progress)

    monkeypatch.setattr(unsubscribe, "_save", saving)
    monkeypatch.setattr(unsubscribe, "_FIRST_RETRY", 0.05)
    monkeypatch.setattr(unsubscribe, "_LAST_RETRY", 0.05)
    monkeypatch.setattr(unsubscribe, "_POLL", 0.02)
    (tmp_path / "failed").write_text("in the way")  # as good as a full disk
    task = asyncio.create_task(Forwarder(tmp_path, send).run())
    await asyncio.sleep(0.5)
    assert "https://a.example/1" in sent
    full = False
    (tmp_path / "failed").unlink()
    async with asyncio.timeout(5):
        while len(segments(tmp_path)) > 1:
            await asyncio.sleep(0.02)
    (failed,) = (tmp_path / "failed").iterdir()
    assert json.loads(failed.read_text())[2] == "https://bad.example/2"
    assert sent.count("https://a.example/1") == 1
    assert [segment.id for segment in segments(tmp_path)] == ["0000-newer"]
    task.cancel()
