"""The kill list: destinations, links, messages, campaigns and tenants whose links answer 410.

`add`, `remove` and `everything` keep it in the store; `KillList` is the edge's copy in memory (false while it is
empty), whose question is a few dictionary look-ups, fed with the changes the directory hands on.
"""

from __future__ import annotations

import logging
import secrets
import time

from pydantic import TypeAdapter, ValidationError

from brandproxy.core import url_host, urls
from brandproxy.core.canonical_url import canonical, names_above
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
        host = url_host.canonical(value.strip())
        if not host or "." not in host:
            raise BadInput(f"{value[:80]!r} is not a host name", "Use a name such as example.com, or an address.")
        return host
    if kind is BlockKind.URL:
        form = canonical(value)
        if form is None:
            raise BadInput(
                f"nobody is ever sent to {value[:80]!r}: {urls.refusal(value)}",
                "Start with http:// or https:// and a host; for a whole domain use kind `domain`.",
            )
        return str(form)
    return value


class KillList:
    """The list in memory. `load` once, then hand every Change of the feed to `apply`.

    Destinations are compared in their canonical form, so that no other spelling of one passes. `http:` and
    `https:` are the same here, since one commonly leads to the other.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._exact: dict[tuple[BlockKind, str], list[Block]] = {}
        self._prefixes: dict[str, list[tuple[str, Block]]] = {}  # by site: what the path and query start with
        self._verbatim: list[Block] = []

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
        """The entry that refuses this link, or None. `url` is the destination as signed; one that `urls.refusal`
        refuses leads nowhere and is not looked for."""
        asked = [(BlockKind.TENANT, tenant), (BlockKind.LINK, token), (BlockKind.CAMPAIGN, campaign)]
        asked += [(BlockKind.MESSAGE, message)]
        found = [block for key in asked if key[1] for block in self._exact.get(key, ())]
        form = canonical(url) if url else None
        if form is not None:
            for name in names_above(form.host):
                found += self._exact.get((BlockKind.DOMAIN, name), ())
            below = self._prefixes.get(form.site)
            if below:
                found += [block for prefix, block in below if form.target.startswith(prefix)]
            found += [block for block in self._verbatim if url.startswith(block.value)]
        return next((block for block in found if block.tenant in ("", tenant)), None)

    def _index(self) -> None:
        self._exact, self._prefixes, self._verbatim = {}, {}, []
        for block in self._blocks.values():
            if block.kind is BlockKind.URL:
                self._index_url(block)
            else:
                value = block.value
                if block.kind is BlockKind.DOMAIN:
                    value = url_host.canonical(value) or value
                self._exact.setdefault((block.kind, value), []).append(block)

    def _index_url(self, block: Block) -> None:
        form = canonical(block.value)
        if form is not None:
            self._prefixes.setdefault(form.site, []).append((form.target, block))
        if str(form) != block.value:  # of an earlier version: in force as it was then, too
            self._verbatim.append(block)
