"""Events as spool records and back. Spooled records survive upgrades: every version ever written stays readable.

Version 1: a UTF-8 JSON list, first item 1 (`encode`). Version 2, what the edge writes while a recipient waits
(`stamp`): lines of text, first line `2`, with the token as it stood in the link. The token says campaign,
message, recipient and URL; unpacking it again is the collector's work, not the recipient's wait. The edge
verified its signature before it wrote; `decode` only reads it.
"""

from __future__ import annotations

import json
from dataclasses import replace

from brandproxy.core import machines, tokens
from brandproxy.core.ids import uuid7
from brandproxy.errors import BadToken
from brandproxy.model import Event

_VERSION = 1
_KINDS = {"c": "click", "o": "open", "u": "unsubscribe"}


def encode(event: Event) -> bytes:
    """One record, without a line end."""
    e = event
    fields = [
        _VERSION, e.id, e.kind, e.at_us, e.tenant, e.host, e.campaign, e.message, e.recipient, e.link,
        e.url, e.sent_at, e.address, e.agent, e.method, list(e.machine), e.rules,
    ]  # fmt: skip
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def stamp(
    kind: str, at_us: int, random: int, tenant: str, host: str, method: str, address: str, hints: str,
    token: str, agent: str,
) -> bytes:  # fmt: skip
    """A version 2 record. `random` is 80 fresh bits; `hints` comma-joined machine reasons only the request shows.

    No value may hold a line feed; a header value cannot (RFC 9110 §5.5).
    """
    return (
        f"2\n{kind}\n{at_us}\n{random}\n{tenant}\n{host}\n{method}\n{address}\n{hints}\n{token}\n{agent}"
    ).encode("utf-8", "replace")


def decode(record: bytes) -> Event:
    """The event of a record. Raises ValueError when the record is none that we wrote."""
    return _decode_stamp(record) if record.startswith(b"2\n") else _decode_json(record)


def _decode_json(record: bytes) -> Event:
    fields = json.loads(record)
    if not isinstance(fields, list) or len(fields) != 17 or fields[0] != _VERSION:
        raise ValueError("not an event record of a known version")
    return Event(*fields[1:15], tuple(fields[15]), fields[16])  # type: ignore[call-arg]


def _decode_stamp(record: bytes) -> Event:
    lines = record.decode("utf-8").split("\n", 10)
    if len(lines) != 11 or lines[1] not in _KINDS:
        raise ValueError("not an event record of a known version")
    _, kind, at, random, tenant, host, method, address, hints, token, agent = lines
    at_us = int(at)
    try:
        payload = tokens.peek(kind, token)
    except BadToken as error:
        raise ValueError("an event record with an unreadable token") from error
    event = Event(
        id=uuid7(at_us // 1000, int(random).to_bytes(10, "big")),
        kind=_KINDS[kind],
        at_us=at_us,
        tenant=tenant,
        host=host,
        campaign=getattr(payload, "campaign", ""),
        message=getattr(payload, "message", ""),
        recipient=getattr(payload, "recipient", ""),
        link=getattr(payload, "link", 0),
        url=payload.url if isinstance(payload, tokens.Click) else "",
        sent_at=getattr(payload, "sent_at", 0),
        address=address,
        agent=agent,
        method=method,
        machine=tuple(hints.split(",")) if hints else (),
    )
    return replace(event, machine=machines.judge(event, ()), rules=machines.RULES)
