"""The kill list: destinations, links, messages, campaigns and tenants whose links answer 410.

`add`, `remove` and `everything` keep it in the store; `KillList` is the edge's copy in memory (false while it is
empty), whose question is a few dictionary look-ups, fed with the changes the directory hands on.
"""

from __future__ import annotations

import logging
import secrets
import time
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from brandproxy.core import names
from brandproxy.errors import BadInput, NotFound
from brandproxy.model import Block, BlockKind
from brandproxy.store import Change, Entry, Store, keys
from brandproxy.store.records import Unreadable, readable

log = logging.getLogger(__name__)

_BLOCK = TypeAdapter(Block)
_MAX_VALUE = 4096


async def add(store: Store, kind: BlockKind, value: str, tenant: str = "", reason: str = "") -> Block:
    """Block something from now on; in force at all edges within 2 s. Raises BadInput."""
    block = Block(secrets.token_hex(8), kind, _value(kind, value), tenant, reason[:500], int(time.time()))
    await store.put(keys.block(block.id), _BLOCK.dump_json(block))
    return block


async def remove(store: Store, block_id: str) -> Block:
    """Take an entry off. Raises NotFound."""
    block = await get(store, block_id)
    await store.delete(keys.block(block_id))
    return block


async def get(store: Store, block_id: str) -> Block:
    entry = await store.get(keys.block(block_id)) if block_id.isascii() and block_id.isalnum() else None
    if entry is None:
        raise NotFound(f"no kill-list entry {block_id[:40]!r}", "See `brandproxy block list`.")
    return _load(entry)


async def everything(store: Store) -> list[Block]:
    """Those that can be read."""
    return readable(await store.list(keys.BLOCK), _load)


def _load(entry: Entry) -> Block:
    try:
        return _BLOCK.validate_json(entry.value)
    except ValidationError as error:
        raise Unreadable(f"{entry.key} cannot be read") from error


def _value(kind: BlockKind, value: str) -> str:
    if not value or len(value) > _MAX_VALUE or not value.isprintable():
        raise BadInput("a kill-list value is 1 to 4096 printable characters")
    if kind is BlockKind.DOMAIN:
        return names.hostname(value)
    if kind is BlockKind.URL and not value.startswith(("http://", "https://")):
        raise BadInput("a blocked URL starts with http:// or https://", "For a whole domain use kind `domain`.")
    return value


class KillList:
    """The list in memory. `load` once, then hand every Change of the feed to `apply`."""

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._exact: dict[tuple[BlockKind, str], list[Block]] = {}
        self._prefixes: list[Block] = []

    def __bool__(self) -> bool:
        return bool(self._blocks)

    async def load(self, store: Store) -> None:
        entries = await store.list(keys.BLOCK)
        self._blocks = {}
        for entry in entries:
            self._take(entry.key, entry.value)
        self._index()

    def apply(self, change: Change) -> None:
        if not change.key.startswith(keys.BLOCK):
            return
        self._blocks.pop(change.key.removeprefix(keys.BLOCK), None)
        if change.value is not None:
            self._take(change.key, change.value)
        self._index()

    def _take(self, key: str, value: bytes) -> None:
        """One unreadable entry, say of a newer version, keeps no edge from serving by the others."""
        try:
            block = _BLOCK.validate_json(value)
        except ValidationError:
            log.exception("kill list: unreadable entry %s", key)
        else:
            self._blocks[key.removeprefix(keys.BLOCK)] = block

    def match(
        self, tenant: str, url: str = "", token: str = "", campaign: str = "", message: str = ""
    ) -> Block | None:
        """The entry that refuses this link, or None. `url` is the destination as signed."""
        asked = [(BlockKind.TENANT, tenant), (BlockKind.LINK, token), (BlockKind.CAMPAIGN, campaign)]
        asked += [(BlockKind.MESSAGE, message)]
        asked += [(BlockKind.DOMAIN, name) for name in _domains(url)]
        found = [block for key in asked if key[1] for block in self._exact.get(key, ())]
        found += [block for block in self._prefixes if url.startswith(block.value)]
        return next((block for block in found if block.tenant in ("", tenant)), None)

    def _index(self) -> None:
        self._exact, self._prefixes = {}, []
        for block in self._blocks.values():
            if block.kind is BlockKind.URL:
                self._prefixes.append(block)
            else:
                self._exact.setdefault((block.kind, block.value), []).append(block)


def _domains(url: str) -> list[str]:
    """The destination's host and every name above it."""
    try:
        labels = (urlsplit(url).hostname or "").rstrip(".").split(".")
    except ValueError:
        return []
    return [".".join(labels[start:]) for start in range(len(labels))]
