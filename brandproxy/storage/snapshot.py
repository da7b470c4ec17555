"""Copying a message's images within their origins (`core.snapshot` says which and why)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brandproxy.core import media, snapshot
from brandproxy.core.snapshot import Item
from brandproxy.model import Tenant
from brandproxy.storage.base import ObjectMissing, StorageFailed, Want
from brandproxy.storage.origins import Origins

MAX_BYTES = 20 << 20  # of one object; it is held in memory while it is copied


@dataclass(frozen=True, slots=True)
class Step:
    """One object done: `copy` is where its copy lies; `fault` why there is none. `written`: bytes uploaded."""

    item: Item
    copy: str = ""
    fault: str = ""
    written: int = 0


async def take(
    origins: Origins, tenant: Tenant, items: Sequence[Item], progress: Callable[[Step], None]
) -> dict[Item, str]:
    """Copy each object; (origin, path) -> path of its copy, for those that have one.

    Doing it again copies nothing twice. An object that cannot be copied keeps its own path: `progress` tells.
    """
    copies: dict[Item, str] = {}
    for item in items:
        try:
            step = await _copy(origins, tenant, item)
        except (ObjectMissing, StorageFailed) as error:
            step = Step(item, fault=str(error))
        if step.copy:
            copies[item] = step.copy
        progress(step)
    return copies


async def _copy(origins: Origins, tenant: Tenant, item: Item) -> Step:
    origin = next(one for one in tenant.origins if one.name == item[0])
    data = await _whole(origins, tenant, item)
    copy = snapshot.name(item[1], data)
    try:
        if await _whole(origins, tenant, (item[0], copy)) == data:
            return Step(item, copy)
    except ObjectMissing:
        pass
    await origins.put(tenant.slug, origin, copy, data, media.by_name(copy))
    return Step(item, copy, written=len(data))


async def _whole(origins: Origins, tenant: Tenant, item: Item) -> bytes:
    origin = next(one for one in tenant.origins if one.name == item[0])
    async with origins.open(tenant.slug, origin, item[1], Want()) as found:
        assert found is not None
        parts: list[bytes] = []
        size = 0
        async for chunk in found.chunks:
            size += len(chunk)
            if size > MAX_BYTES:
                raise StorageFailed(f"larger than {MAX_BYTES >> 20} MiB")
            parts.append(chunk)
        return b"".join(parts)
