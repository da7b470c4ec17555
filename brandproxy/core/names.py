"""Names that operators and tenants type: checked once, here, before they become keys, labels or paths."""

from __future__ import annotations

import re

import idna

from brandproxy.core import url_host
from brandproxy.core.canonical_url import host_pattern
from brandproxy.errors import BadInput

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def slug(value: str) -> str:
    """A tenant's slug or an origin's name, as given. Raises BadInput."""
    if not _SLUG.fullmatch(value):
        raise BadInput(
            f"{value[:80]!r} is not a valid name", "Use 1–63 lower-case letters, digits and inner hyphens."
        )
    return value


def hostname(value: str) -> str:
    """A host name as lower-case A-labels (RFC 5890 §2.3.2.1), without a final dot. Raises BadInput."""
    text = value.strip().removesuffix(".").lower()
    try:
        name = text if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise BadInput(f"{value[:80]!r} is not a host name: {error}") from error
    labels = name.split(".")
    for label in labels:
        if label.startswith("xn--"):  # an A-label that no name leads to is nobody's name
            _checked_label(label, value)
    if len(name) > 253 or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadInput(f"{value[:80]!r} is not a host name", "Use a full name such as links.example.com.")
    if labels[-1].isdigit():
        raise BadInput(f"{value[:80]!r} is an address, not a host name")
    return name


def _checked_label(label: str, value: str) -> None:
    try:
        idna.ulabel(label)
    except (idna.IDNAError, UnicodeError) as error:
        raise BadInput(f"{value[:80]!r} is not a host name: {error}") from error


def host_matches(name: str, patterns: str) -> bool:
    """Whether a host name is among `media.example.com, *.cdn.example` (`*.` stands for any labels before)."""
    name = url_host.canonical(name) or ""
    wanted = [host_pattern(pattern.strip()) for pattern in patterns.split(",")]
    return any(
        name and (name == one or (one.startswith("*.") and name.endswith(one[1:]))) for one in wanted if one
    )
