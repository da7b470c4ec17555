"""The host of a URL in the one form that all readers agree on: A-labels, dotted IPv4, bracketed IPv6.

Invariant: a browser that is sent `to_ascii(host)` connects to `canonical(host)`, and so does every other parser
that takes it. What they would read differently is refused: short, octal and hexadecimal IPv4, A-labels that no
name leads to, characters that stand for `/`, `@` or `%`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv6Address

import idna

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PLAIN = re.compile(r"(?:(?!xn--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # WHATWG URL "ends in a number": the host is then read as IPv4
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
# What browsers of the same year read differently: U+1E9E is `ss` or `ß`, U+1806 a letter or nothing.
_DISPUTED = re.compile("[\u1806\u1e9e]")
_JOINERS = "\u200c\u200d"


def canonical(host: str) -> str | None:
    """`host` in lower case, as A-labels and without its final dot; None when readers would differ about it."""
    name = to_ascii(host)
    return name and name.removesuffix(".")


@lru_cache(4096)  # a mail names few hosts, and a campaign's clicks lead to few
def to_ascii(host: str) -> str | None:
    """As `canonical`, with the final dot that `host` has."""
    if _PLAIN.fullmatch(host) and len(host) <= 253:
        return host
    if host.startswith("["):
        return _ipv6(host)
    try:
        name = host.lower() if host.isascii() else _mapped(host)
        labels = name.removesuffix(".").split(".")
        if len(name.removesuffix(".")) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            return None
        if "xn--" in name:
            _check_alabels(labels)
    except (idna.IDNAError, ValueError):
        return None
    if _NUMBER.fullmatch(labels[-1]) and not (host.isascii() and _IPV4.fullmatch(name)):
        return None
    return name


def _ipv6(host: str) -> str | None:
    """RFC 5952 §4, but an embedded IPv4 address in hexadecimal, as browsers write it."""
    try:
        address = IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if not host.endswith("]") or address.scope_id is not None:
        return None
    mapped = address.ipv4_mapped
    return f"[::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}]" if mapped else f"[{address.compressed}]"


def _mapped(host: str) -> str:
    """UTS #46 §4 ToASCII, non-transitional, without STD3 rules, as browsers do. Raises IDNAError or
    ValueError."""
    if _DISPUTED.search(host):
        raise ValueError("a character that browsers read differently")
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in idna.uts46_remap(host, std3_rules=False).split(".")
    )


def _check_alabels(labels: list[str]) -> None:
    """Raises IDNAError or ValueError unless each A-label stands for a valid U-label (UTS #46 §4.1).

    Names that IDNA 2008 forbids and browsers follow (emoji) are valid here.
    """
    texts = [
        label.removeprefix("xn--").encode("ascii").decode("punycode") if label.startswith("xn--") else label
        for label in labels
    ]
    right_to_left = any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for text in texts for char in text)
    for label, text in zip(labels, texts, strict=True):
        if right_to_left:
            idna.check_bidi(text, check_ltr=True)
        if label.startswith("xn--"):
            _check_ulabel(label, text)


def _check_ulabel(label: str, text: str) -> None:
    if (
        text.isascii()
        or "." in text
        or text.startswith("xn--")
        or "xn--" + text.encode("punycode").decode("ascii") != label
    ):
        raise ValueError("an A-label that no name leads to")
    if _DISPUTED.search(text) or idna.uts46_remap(text, std3_rules=False) != text:
        raise ValueError("an A-label of characters that a name is never written with")
    if any(unicodedata.category(char) == "Cn" for char in text):
        raise ValueError("characters so new that readers differ about them")
    idna.check_initial_combiner(text)
    if any(char in _JOINERS and not idna.valid_contextj(text, pos) for pos, char in enumerate(text)):
        raise ValueError("a joiner that joins nothing")
