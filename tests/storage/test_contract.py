"""What every kind of storage promises, over a folder, memory, a real nginx and a real S3 service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from obstore.store import S3Store

from brandproxy.config import Settings
from brandproxy.fetch import open_fetcher
from brandproxy.storage.base import ObjectMissing, Source, StorageFailed, Want
from brandproxy.storage.local import FileSource, MemorySource, memory
from brandproxy.storage.web import BucketSource, WebSource
from tests.storage.servers import nginx, s3

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 700
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "aws_region": "us-east-1"}


@dataclass
class Storage:
    source: Source
    put: Callable[[str, bytes], Awaitable[None]]


def into_folder(folder: Path) -> Callable[[str, bytes], Awaitable[None]]:
    async def put(key: str, data: bytes) -> None:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)

    return put


@pytest.fixture(scope="module")
def web_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    place = tmp_path_factory.mktemp("nginx")
    (place / "root" / "public").mkdir(parents=True)
    (place / "root" / "secret.png").write_bytes(b"secret")
    with nginx(place, place / "root") as server:
        yield server.url + "public/", place / "root" / "public"


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture(params=["file", "memory", "web", "s3"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_fetcher(Settings(outbound={"allow": "127.0.0.1"})) as fetcher:  # type: ignore[arg-type]
        if request.param == "file":
            (tmp_path / "public").mkdir()
            (tmp_path / "secret.png").write_bytes(b"secret")
            url = (tmp_path / "public").as_uri() + "/"
            yield Storage(FileSource(url), into_folder(tmp_path / "public"))
        elif request.param == "memory":
            name = uuid4().hex

            async def put(key: str, data: bytes) -> None:
                await memory(name).put_async(key, data)

            yield Storage(MemorySource(f"memory://{name}/"), put)
        elif request.param == "web":
            url, folder = request.getfixturevalue("web_root")
            yield Storage(WebSource(fetcher, "acme", url, 1 << 20), into_folder(folder))
        else:
            endpoint = request.getfixturevalue("s3_endpoint")
            bucket = f"b{uuid4().hex}"
            options = KEYS | {"aws_endpoint": endpoint}
            url = f"{endpoint}/{bucket}"
            assert (await fetcher.request("PUT", url)).status == 200
            source = BucketSource(fetcher, "acme", f"s3://{bucket}/public", options, 1 << 20)
            plain = S3Store(bucket, client_options={"allow_http": True}, **options)
            await plain.put_async("secret.png", b"secret")

            async def put_s3(key: str, data: bytes) -> None:
                await source.put(key, data, "image/png" if key.endswith(".png") else "")

            yield Storage(source, put_s3)


async def whole(source: Source, path: str, want: Want | None = None) -> bytes | None:
    async with source.open(path, want or Want()) as found:
        return None if found is None else b"".join([chunk async for chunk in found.chunks])


async def test_an_object_comes_back_as_it_was_put(storage: Storage) -> None:
    await storage.put("deep/logo.png", PNG)
    async with storage.source.open("deep/logo.png", Want()) as found:
        assert found is not None
        assert found.meta.size == len(PNG)
        assert found.meta.etag.startswith('"')
        assert found.meta.modified > 1_600_000_000
        assert found.meta.content_type in ("image/png", "")
        assert b"".join([chunk async for chunk in found.chunks]) == PNG


async def test_an_empty_object_is_an_object(storage: Storage) -> None:
    await storage.put("empty.png", b"")
    assert await whole(storage.source, "empty.png") == b""


async def test_names_are_found_as_a_mail_spells_them(storage: Storage) -> None:
    for key in ("über uns.png", "a+b&c=d.png", "100%.png", "Ω/日本.png"):
        await storage.put(key, PNG)
        assert await whole(storage.source, quote(key)) == PNG


async def test_a_copy_that_is_still_right_is_not_sent_again(storage: Storage) -> None:
    await storage.put("logo.png", PNG)
    async with storage.source.open("logo.png", Want()) as found:
        assert found is not None
        want = Want(found.meta.etag, found.meta.modified)
    assert await whole(storage.source, "logo.png", want) is None
    await storage.put("logo.png", PNG + b"new")
    assert await whole(storage.source, "logo.png", want) == PNG + b"new"


async def test_what_is_not_there_is_missing_and_not_a_failure(storage: Storage) -> None:
    with pytest.raises(ObjectMissing):
        await whole(storage.source, "nothing.png")


ESCAPES = [
    "../secret.png", "a/../../secret.png", "%2e%2e/secret.png", "..%2fsecret.png", "..%5csecret.png",
    "..\\secret.png", "%252e%252e%252fsecret.png", ".%2e/secret.png", "./../secret.png", "/../secret.png",
    "a/%2e%2e/%2e%2e/secret.png", "", "/", "x\x00.png", "x%00.png", "http://127.0.0.1/secret.png/..",
    "?../secret.png", "a" * 5000, "\ud800.png",
]  # fmt: skip


async def test_no_path_leaves_the_origin(storage: Storage) -> None:
    for path in ESCAPES:
        with pytest.raises((ObjectMissing, StorageFailed)):
            await whole(storage.source, path)


async def test_many_readers_at_once_all_get_the_whole(storage: Storage) -> None:
    await storage.put("logo.png", PNG)
    bodies = await asyncio.gather(*(whole(storage.source, "logo.png") for _ in range(30)))
    assert bodies == [PNG] * 30
