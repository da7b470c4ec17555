"""What every kind of storage does: open one object, perhaps only if it changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from brandproxy.core.delivery import Meta
from brandproxy.errors import Final, Retryable


class ObjectMissing(Final):
    """Storage answered: there is no such object, or it is not ours to read."""

    action = "Upload the object, or correct the origin's URL (`brandproxy origin check`)."


class StorageFailed(Retryable):
    """Storage could not be asked, or broke off in the middle. `slow`: it did not answer in time."""

    action = "See `brandproxy origin check TENANT NAME`."

    def __init__(self, message: str, slow: bool = False) -> None:
        super().__init__(message)
        self.slow = slow


@dataclass(frozen=True, slots=True)
class Want:
    """What the asker has and takes: validators of a copy it holds, one content coding."""

    etag: str = ""
    modified: int = 0
    coding: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """An object opened. `meta.size` is -1 when storage does not say; `chunks` ends early only by raising.

    `descriptor` is the open file when the object is one of this machine; it may be duplicated to read more.
    """

    meta: Meta
    chunks: AsyncIterator[bytes]
    descriptor: int | None = None


class Source(Protocol):
    near: bool  # reading is as cheap as reading our own disk: no copy is kept there

    def open(self, path: str, want: Want) -> AbstractAsyncContextManager[Found | None]:
        """The object, or None when the copy that `want` describes is still right.

        Raises ObjectMissing and StorageFailed, also while chunks are read.
        """

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store an object. Raises StorageFailed, also where this kind of storage cannot be written."""
