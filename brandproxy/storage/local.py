"""Storage on this machine: file:// folders, and memory:// for tests and demonstrations.

Invariant: a file that is opened lies, by its real path, under the real path of its origin's folder.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from obstore.store import MemoryStore

from brandproxy.core import objects
from brandproxy.core.delivery import Meta
from brandproxy.storage.base import Found, ObjectMissing, StorageFailed, Want

_CHUNK = 1 << 18
_MEMORY: dict[str, MemoryStore] = {}


class FileSource:
    """Files under the folder a `file:///` URL names."""

    near = True

    def __init__(self, url: str) -> None:
        self.folder = Path(unquote(urlsplit(url).path))

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        try:
            file = await asyncio.to_thread(self._open, path)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise ObjectMissing("no such file") from error
        except OSError as error:
            raise StorageFailed(f"{self.folder}: {error.strerror}") from error
        try:
            meta = _file_meta(file)
            yield None if meta.etag == want.etag else Found(meta, _read(file, meta.size), file.fileno())
        finally:
            file.close()

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        try:
            await asyncio.to_thread(self._put, key, data)
        except OSError as error:
            raise StorageFailed(f"{self.folder}: {error.strerror}") from error

    def _put(self, key: str, data: bytes) -> None:
        """Readers see the whole file or none."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(data)
        os.replace(fresh, path)

    def _open(self, path: str) -> BinaryIO:
        key = objects.key(path)
        if key is None or len(key) > 1024:
            raise FileNotFoundError
        root = self.folder.resolve(strict=True)
        target = (root / key).resolve(strict=True)
        if not target.is_relative_to(root):
            raise FileNotFoundError
        # A named pipe must not block, and a link put there meanwhile must not be followed.
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError
        return os.fdopen(descriptor, "rb", buffering=0)


class MemorySource:
    """Objects in this process's memory, under the name in `memory://name/`."""

    near = True

    def __init__(self, url: str) -> None:
        self.store = memory(urlsplit(url).netloc)

    @asynccontextmanager
    async def open(self, path: str, want: Want) -> AsyncIterator[Found | None]:
        key = objects.key(path)
        if key is None:
            raise ObjectMissing("the path leaves its origin")
        try:
            result = await self.store.get_async(key)
        except FileNotFoundError as error:
            raise ObjectMissing("no such object") from error
        data, about, kinds = bytes(await result.bytes_async()), result.meta, result.attributes
        etag = f'"{about["e_tag"]}-{len(data):x}"'
        meta = Meta(
            len(data), etag, int(about["last_modified"].timestamp()), kinds.get("Content-Type", ""),
            kinds.get("Content-Encoding", ""), kinds.get("Cache-Control", ""),
        )  # fmt: skip
        yield None if etag == want.etag else Found(meta, _once(data))

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        kinds = {"Content-Type": content_type} if content_type else {}
        await self.store.put_async(key, data, attributes=kinds)


def memory(name: str) -> MemoryStore:
    """The store behind `memory://name/` in this process."""
    return _MEMORY.setdefault(name, MemoryStore())


def _file_meta(file: BinaryIO) -> Meta:
    found = os.fstat(file.fileno())
    return Meta(found.st_size, f'"{found.st_mtime_ns:x}-{found.st_size:x}"', int(found.st_mtime))


async def _read(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    left = size
    while left > 0:
        chunk = await asyncio.to_thread(file.read, min(_CHUNK, left))
        if not chunk:
            raise StorageFailed("the file shrank while it was read")
        left -= len(chunk)
        yield chunk


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
