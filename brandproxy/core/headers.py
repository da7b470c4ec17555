"""The headers we read or change: our control headers, List-Unsubscribe, and signatures that a change breaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from brandproxy.core.mime import Field, value
from brandproxy.core.splice import Splice

CONTROL = "x-brandproxy-"
_SIGNATURES = {"dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results"}
_URI = re.compile(rb"<[ \t\r\n]*([^<>]*?)[ \t\r\n]*>")
MAX_LIST_URIS = 20  # nobody has more than two; the rest is not looked at
_BLANKS = re.compile(rb"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class Control:
    """What the pipeline said in `X-Brandproxy-*` headers. `tenant` is empty when it did not say."""

    tenant: str = ""
    campaign: str = ""
    message: str = ""
    recipient: str = ""


_NOTHING = Control()


@dataclass(frozen=True, slots=True)
class ListUri:
    """A URI of a List-Unsubscribe header: bytes `start:end` between the angle brackets."""

    start: int
    end: int
    url: str


def control(message: bytes, fields: Sequence[Field]) -> Control:
    """The control headers; of one given twice the first counts."""
    found: dict[str, str] = {}
    for field in fields:
        if field.name.startswith(CONTROL):
            found.setdefault(field.name, value(message, field).decode("utf-8", "replace"))
    if not found:
        return _NOTHING
    return Control(*(found.get(CONTROL + name, "") for name in ("tenant", "campaign", "message", "recipient")))


def removal(message: bytes, field: Field) -> Splice:
    return Splice("header", field.start, message[field.start : field.end], b"")


def is_signature(field: Field) -> bool:
    """DKIM (RFC 6376) and ARC (RFC 8617) fields, which a changed body or header breaks."""
    return field.name in _SIGNATURES


def one_click(fields: Sequence[Field]) -> bool:
    """RFC 8058 §3.1: the message says that its List-Unsubscribe URI takes a POST."""
    return any(field.name == "list-unsubscribe-post" for field in fields)


def list_uris(message: bytes, fields: Sequence[Field]) -> list[ListUri]:
    """RFC 2369 §2: URIs in angle brackets; blanks and folds inside them do not count."""
    found: list[ListUri] = []
    for field in fields:
        if field.name == "list-unsubscribe":
            for match in islice(_URI.finditer(message, field.value, field.end), MAX_LIST_URIS - len(found)):
                url = _BLANKS.sub(b"", match[1]).decode("utf-8", "surrogateescape")
                found.append(ListUri(match.start(1), match.end(1), url))
    return found
