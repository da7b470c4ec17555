"""Events as spool records and back. A record is one UTF-8 JSON list; its first item is the format version.

Spooled records survive upgrades, so every version ever written stays readable here.
"""

from __future__ import annotations

import json

from brandproxy.model import Event

_VERSION = 1


def encode(event: Event) -> bytes:
    """One record, without a line end."""
    e = event
    fields = [
        _VERSION, e.id, e.kind, e.at_us, e.tenant, e.host, e.campaign, e.message, e.recipient, e.link,
        e.url, e.sent_at, e.address, e.agent, e.method, list(e.machine), e.rules,
    ]  # fmt: skip
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def decode(record: bytes) -> Event:
    """The event of a record. Raises ValueError when the record is none that we wrote."""
    fields = json.loads(record)
    if not isinstance(fields, list) or len(fields) != 17 or fields[0] != _VERSION:
        raise ValueError("not an event record of a known version")
    return Event(*fields[1:15], tuple(fields[15]), fields[16])  # type: ignore[call-arg]
