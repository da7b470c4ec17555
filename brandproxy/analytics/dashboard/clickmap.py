"""The click map: a campaign's mail with each link's share of the clicks where it stands.

Invariant: the mail is shown, never run or followed: its links lead nowhere, our own open pixel is not loaded (a
look at the map is no open), and it is served with a policy that forbids scripts and everything but images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pydantic import TypeAdapter

from brandproxy import limits
from brandproxy.access import Principal
from brandproxy.context import Context
from brandproxy.core import html, links
from brandproxy.core.tokens import Click, KeyRing, Open
from brandproxy.errors import BadInput
from brandproxy.store import keys
from brandproxy.store.base import MAX_VALUE
from brandproxy.store.records import readable

_INDEX = TypeAdapter(list[str])

MOST = MAX_VALUE - 1024  # bytes of a mail: what the store takes
POLICY = (
    "sandbox; default-src 'none'; img-src https: http: data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)

_STYLE = """<style>
.brandproxy-share { all: initial; position: absolute; z-index: 2147483647; margin: -9px 0 0 -6px; padding: 1px 7px;
  font: 600 12px/17px system-ui, sans-serif; border-radius: 9px; color: #fff; background: #0f766e;
  box-shadow: 0 1px 4px rgb(0 0 0 / .35); white-space: nowrap; }
.brandproxy-share.some { background: #b45309; } .brandproxy-share.few { background: #5d636b; }
</style>"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A link of the mail: where its content begins, and what it counts."""

    at: int
    number: int
    share: float
    events: int


async def keep(context: Context, tenant: str, campaign: str, content: bytes, who: Principal | None = None) -> None:
    """Keep a campaign's HTML. Raises BadInput when it is too long or no text, LimitReached for a tenant's key."""
    if not 0 < len(content) <= MOST:
        raise BadInput("the HTML is empty or longer than a megabyte", "Mail clients clip it at 102 KB anyway.")
    if b"\0" in content:
        raise BadInput("that is no HTML text")
    index, key = keys.mailing(tenant, "index"), _key(tenant, campaign)
    name = key.rpartition("/")[2]

    async def known() -> list[str]:
        """The campaigns that are kept, without reading them all."""
        entry = await context.store.get(index)
        return next(iter(readable([entry] if entry else [], lambda e: _INDEX.validate_json(e.value))), [])

    async def count() -> int:
        names = await known()
        return 0 if name in names else len(names)  # in the place of its older one

    async with limits.room(context.settings, who, "mailings", count):
        await context.store.put(index, json.dumps(sorted({*await known(), name})).encode())
        await context.store.put(key, content)


async def kept(context: Context, tenant: str, campaign: str) -> str | None:
    entry = await context.store.get(_key(tenant, campaign))
    return None if entry is None else entry.value.decode("utf-8", "replace")


def _key(tenant: str, campaign: str) -> str:
    return keys.mailing(tenant, hashlib.sha256(campaign.encode("utf-8", "replace")).hexdigest())


def draw(text: str, items: Sequence[dict[str, Any]], ring: KeyRing | None) -> str:
    """The mail with shares drawn in. `items` are the campaign's links as `queries.top` gives them."""
    found = html.scan(text).found
    most = max((item["share"] for item in items), default=0.0)
    pieces: list[tuple[int, int, str]] = []
    for one in found:
        if one.role == "link":
            pieces.append((one.start, one.end, "#"))
        elif ring is not None and isinstance(links.ours(ring, one.url), Open):
            pieces.append((one.start, one.end, "data:,"))
    pieces += [(p.at, p.at, _badge(p, most)) for p in _placed(found, items, ring)]
    out, at = [_STYLE], 0
    for start, end, new in sorted(pieces):
        if start >= at:
            out += [text[at:start], new]
            at = end
    return "".join([*out, text[at:]])


def _placed(found: Sequence[html.Found], items: Sequence[dict[str, Any]], ring: KeyRing | None) -> list[Placed]:
    """Which link of the mail is which of the figures, in this order:

    1. a link of ours says its number itself
    2. an original URL is the first figure of that URL that no link before it has taken
    """
    by_number = {item["link"]: item for item in items}
    waiting = sorted(items, key=lambda item: item["link"])
    placed = []
    for one in found:
        if one.role != "link" or one.content == (0, 0) or not one.url.lower().startswith(("http:", "https:")):
            continue
        payload = links.ours(ring, one.url) if ring is not None else None
        if isinstance(payload, Click):
            item = by_number.get(payload.link)
        else:
            item = next((i for i in waiting if i["label"] == one.url), None)
            waiting = [i for i in waiting if i is not item]
        if item is not None:
            placed.append(Placed(one.content[0], item["link"], item["share"], item["events"]))
    return placed


def _badge(p: Placed, most: float) -> str:
    heat = "" if p.share > most * 0.5 else " some" if p.share > most * 0.15 else " few"
    told = f"link {p.number}: {p.events:,} clicks"
    return f'<span class="brandproxy-share{heat}" title="{escape(told)}">{p.share * 100:.0f} %</span>'
