"""Assets through the edge's door from real storage: storms, cuts, failover, codings, variants."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from uvicorn import Config, Server

from brandproxy.config import Outbound, Settings
from brandproxy.core import tokens
from brandproxy.edge.assets import Assets
from brandproxy.model import Origin
from tests.conftest import free_port
from tests.edge.test_assets import Client, site
from tests.storage.servers import Nginx, nginx

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<rect/>" * 200 + b"</svg>"


def settings(data: Path, **assets: object) -> Settings:
    return Settings(data=data, outbound={"allow": "127.0.0.1", "seconds": 5}, assets=assets)  # type: ignore[arg-type]


@asynccontextmanager
async def client(data: Path, *origins: Origin, **assets: object) -> AsyncIterator[Client]:
    served = Assets(settings(data, **assets))
    await served.start()
    try:
        yield Client(served, site(*origins))
    finally:
        await served.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "logo.png").write_bytes(os.urandom(50_000))
    (tmp_path / "root" / "film.mp4").write_bytes(os.urandom(6_000_000))
    (tmp_path / "root" / "icon.svg").write_bytes(SVG)
    return tmp_path / "root"


async def test_a_cold_storm_of_a_thousand_is_one_request_to_storage(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        origin = Origin("media", server.url)
        async with client(tmp_path / "var", origin) as one, client(tmp_path / "var", origin) as two:
            answers = await asyncio.gather(*((one, two)[n % 2].ask("logo.png") for n in range(1000)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.content for answer in answers} == {(folder / "logo.png").read_bytes()}
        assert server.requests == ["GET /logo.png 200"]


async def test_an_object_that_storage_lacks_is_a_404_and_storage_that_is_down_a_502(
    tmp_path: Path, folder: Path
) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        async with client(tmp_path / "var", Origin("media", server.url)) as one:
            assert (await one.ask("nothing.png")).status_code == 404
            server.kill()
            answer = await one.ask("logo.png")
            assert (answer.status_code, answer.headers["cache-control"]) == (502, "no-store")


async def test_what_was_served_goes_on_being_served_with_storage_down(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        origin = Origin("media", server.url)
        async with client(tmp_path / "var", origin, fresh=0) as one:
            first = await one.ask("logo.png")
            server.kill()
            for _ in range(5):
                assert (await one.ask("logo.png")).content == first.content
        async with client(tmp_path / "var", origin, fresh=0) as again:
            assert (await again.ask("logo.png")).content == first.content


async def test_a_failing_origin_is_failed_over_and_left_in_peace(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as spare:
        origin = Origin("media", f"http://127.0.0.1:{free_port()}/", failover=spare.url)
        async with client(tmp_path / "var", origin) as one:
            for number in range(5):
                (folder / f"{number}.png").write_bytes(b"x" * number)
                assert (await one.ask(f"{number}.png")).content == b"x" * number
            (_, first), (_, second) = one.assets._origins.health("acme", origin)
            assert first.failures == 3  # then it paused: the last two were not even tried there
            assert second.failures == 0


async def test_text_is_passed_on_as_compressed_by_storage_to_those_who_take_it(
    tmp_path: Path, folder: Path
) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        async with client(tmp_path / "var", Origin("media", server.url)) as one:
            plain = await one.ask("icon.svg", accept_encoding="identity")
            small = await one.ask("icon.svg", accept_encoding="gzip, br;q=0")
            assert "content-encoding" not in plain.headers
            assert small.headers["content-encoding"] == "gzip"
            assert int(small.headers["content-length"]) < len(SVG) == int(plain.headers["content-length"])
            assert plain.content == small.content == SVG
            assert plain.headers["vary"] == small.headers["vary"] == "accept-encoding"
            assert plain.headers["etag"] != small.headers["etag"]
            image = await one.ask("logo.png", accept_encoding="gzip")
            assert "content-encoding" not in image.headers


async def test_private_addresses_are_never_asked(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        served = Assets(Settings(data=tmp_path / "var"))
        await served.start()
        one = Client(served, site(Origin("media", server.url)))
        assert (await one.ask("logo.png")).status_code == 502
        assert server.requests == []
        await served.close()


async def test_a_redirect_to_a_private_address_is_not_followed(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        async with client(tmp_path / "var", Origin("media", server.url)) as one:
            assert (await one.ask("moved/logo.png")).status_code == 502
        assert server.requests == ["GET /moved/logo.png 302"]
        inside = settings(tmp_path / "var2").model_copy(update={"outbound": Outbound(allow="127.0.0.0/8")})
        served = Assets(inside)
        await served.start()
        answer = await Client(served, site(Origin("media", server.url))).ask("moved/logo.png")
        assert answer.content == (folder / "logo.png").read_bytes()
        await served.close()


async def test_an_object_over_the_limit_does_not_take_its_origin_down(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        async with client(tmp_path / "var", Origin("media", server.url), max_bytes=1_000_000) as one:
            for number in range(5):
                assert (await one.ask(f"film.mp4?{number}")).status_code == 404
            assert (await one.ask("logo.png")).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [Origin("media", "gopher://x/"), Origin("media", ""), Origin("media", "s3://"), Origin("media", "http://[::1/"),
     Origin("media", "s3://bucket/x", sealed="not sealed by us"), Origin("media", "file:///nowhere/at/all/"),
     Origin("media", "https://not-listed.example/")],
)  # fmt: skip
async def test_an_origin_that_cannot_be_used_is_a_failure_and_no_crash(tmp_path: Path, origin: Origin) -> None:
    async with client(tmp_path / "var", origin, hosts="listed.example") as one:
        assert (await one.ask("logo.png")).status_code in (404, 502)


@asynccontextmanager
async def over_http(one: Client) -> AsyncIterator[str]:
    """The client's Assets behind a real HTTP server: what the wire looks like when things break."""

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        asset = tokens.Asset("media", scope["path"].lstrip("/"))
        await one.assets.serve(scope, receive, send, one.site, asset)

    port = free_port()
    server = Server(Config(app, port=port, lifespan="off", log_config=None, ws="none"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    await task


async def test_storage_killed_in_mid_transfer_is_a_broken_connection_and_never_half_an_object(
    tmp_path: Path, folder: Path
) -> None:
    server = Nginx(tmp_path / "nginx", folder, limit_rate=2_000_000)
    server.start()
    try:
        async with client(tmp_path / "var", Origin("media", server.url)) as one, over_http(one) as url:
            got: list[int] = []

            async def watch() -> None:
                async with http.stream("GET", url + "film.mp4") as answer:
                    async for chunk in answer.aiter_bytes():
                        got.append(len(chunk))
                        server.kill()

            async with httpx.AsyncClient() as http:
                with pytest.raises(httpx.RemoteProtocolError):
                    await watch()
                assert 0 < sum(got) < 6_000_000
                kept = [p for p in (tmp_path / "var" / "cache").rglob("*") if p.is_file() and p.name[0] != "."]
                assert kept == []
                server.start()
                await asyncio.sleep(1.1)  # the failure of a moment ago is remembered for a second
                whole = await http.get(url + "film.mp4", timeout=30)
            assert whole.content == (folder / "film.mp4").read_bytes()
    finally:
        server.kill()


async def test_a_film_is_streamed_in_bounded_memory_and_in_any_range(tmp_path: Path, folder: Path) -> None:
    with nginx(tmp_path / "nginx", folder) as server:
        async with client(tmp_path / "var", Origin("media", server.url)) as one:
            whole = (folder / "film.mp4").read_bytes()
            part = await one.ask("film.mp4", range="bytes=3000000-3000099")
            assert (part.status_code, part.content) == (206, whole[3_000_000:3_000_100])
            assert (
                (await one.ask("film.mp4", range="bytes=-10, 0-9")).headers["content-type"].startswith("multipart")
            )
            assert (await one.ask("film.mp4")).content == whole
            assert one.assets.cache.memory_bytes == 0
        assert server.requests == ["GET /film.mp4 200"]


async def test_a_client_that_goes_away_is_not_read_for(tmp_path: Path, folder: Path) -> None:
    async with client(tmp_path / "var", Origin("media", folder.as_uri() + "/")) as one:
        sent = 0
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))  # type: ignore[arg-type]
            if sent:
                gone.set()
                await asyncio.sleep(0.01)

        scope = {"type": "http", "method": "GET", "headers": []}
        await one.assets.serve(scope, receive, send, one.site, tokens.Asset("media", "film.mp4"))  # type: ignore[arg-type]
        assert 0 < sent < 1_500_000


async def test_a_crash_leaves_whole_objects_or_none(tmp_path: Path, folder: Path) -> None:
    """A process killed while it fetches: the next one starts clean and its lock is free."""
    with nginx(tmp_path / "nginx", folder, limit_rate=2_000_000) as server:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(_fetch_for_ever(tmp_path / "var", server.url))
            finally:
                os._exit(1)
        tmp = tmp_path / "var" / "cache" / ".tmp"
        deadline = time.monotonic() + 20
        while not (tmp.exists() and any(path.stat().st_size > 0 for path in tmp.iterdir())):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        async with client(tmp_path / "var", Origin("media", server.url)) as one:
            answer = await asyncio.wait_for(one.ask("film.mp4"), 20)
            assert answer.content == (folder / "film.mp4").read_bytes()


async def _fetch_for_ever(data: Path, url: str) -> None:
    async with client(data, Origin("media", url)) as one:
        await one.ask("film.mp4")
