"""The links we put into mails, and recognising them: `{base}/c/{token}`, `/a/{token}/{name}`, `/o/{token}.gif`,
`/u/{token}`. All are ASCII that needs no escaping in HTML, CSS, srcset, a header or quoted-printable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from brandproxy.core.policy import file_name
from brandproxy.core.tokens import (
    MAX_REFERENCE,
    Asset,
    Click,
    KeyRing,
    Open,
    Payload,
    Unsubscribe,
    click_fields,
    pack,
)
from brandproxy.errors import BadToken
from brandproxy.model import References, SigningKey

_OURS = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://[^/?#\s]++/([acouACOU])/([A-Za-z0-9_-]{24,8000}+)(?![A-Za-z0-9_-])")
_SHORT = 3000  # characters of a URL that fits a token with any references


@lru_cache(512)
def key_ring(keys: tuple[SigningKey, ...], max_age: int = 0) -> KeyRing:
    """Keys derived once for every message of a tenant."""
    return KeyRing(keys, max_age)


def ours(ring: KeyRing, url: str) -> Payload | None:
    """What a link of ours, on whatever host of the tenant, carries; None for any other URL."""
    match = _OURS.match(url)
    if match is None:
        return None
    try:
        return ring.open(match[1].lower(), match[2])
    except BadToken:
        return None


class Links:
    """Mints the links of one message. Each method raises BadInput when the fields do not fit a token."""

    def __init__(
        self,
        ring: KeyRing,
        base_url: str,
        references: References,
        snapshots: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._snapshots = snapshots or {}  # (origin, path) -> path of the copy that is mailed instead
        self._ring = ring
        self._base = base_url
        self._refs = references
        self._fields = (references.campaign, references.message, references.recipient)
        self._sent = f"{references.sent_at:x}"
        self._fit = "".join(self._fields).isprintable() and all(len(ref) <= MAX_REFERENCE for ref in self._fields)

    @property
    def secure(self) -> bool:
        return self._base.startswith("https:")

    def made(self, payload: Payload) -> bool:
        """Whether a link of ours was made for this very message: it carries the same references, not none."""
        refs = self._refs
        mine = (refs.campaign, refs.message, refs.recipient)
        return isinstance(payload, Click | Open) and any(mine) and mine == (
            payload.campaign, payload.message, payload.recipient
        )  # fmt: skip

    def click(self, url: str, number: int, private: bool) -> str:
        """`private`: neither recorded nor counted."""
        # The common case, which breaks no rule of a token.
        if len(url) < _SHORT and url.isprintable() and self._fit:
            fields = click_fields(url, self._fields, number, self._sent, private)
            return f"{self._base}/c/{self._ring.seal('c', pack(fields))}"
        refs = self._refs
        click = Click(url, refs.campaign, refs.message, refs.recipient, number, refs.sent_at, private)
        return f"{self._base}/c/{self._ring.mint(click)}"

    def asset(self, origin: str, path: str, fragment: str, variant: str = "") -> str:
        path = self._snapshots.get((origin, path), path)
        link = f"{self._base}/a/{asset_token(self._ring, origin, path, variant)}/{file_name(path)}"
        return f"{link}#{fragment}" if fragment else link

    def open(self) -> str:
        refs = self._refs
        payload = Open(refs.campaign, refs.message, refs.recipient, refs.sent_at)
        return f"{self._base}/o/{self._ring.mint(payload)}.gif"

    def unsubscribe(self, url: str) -> str:
        refs = self._refs
        payload = Unsubscribe(url, "", refs.campaign, refs.message, refs.recipient, refs.sent_at)
        return f"{self._base}/u/{self._ring.mint(payload)}"


@lru_cache(4096)
def asset_token(ring: KeyRing, origin: str, path: str, variant: str) -> str:
    """The same for all recipients, so minted once."""
    return ring.mint(Asset(origin, path, variant))
