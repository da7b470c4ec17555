"""What those who bring mail may do with it, and how that is written: in settings, commands and the API.

A grant hangs on something authenticated: an API key, a login at the mail server, a listener, a network. Logins are
a namespace of their own, `user`, `user@domain` or `*@domain`: they are never compared with sender domains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

from brandproxy.setting_values import ListenAddress

ANY = "*"
MAX_LOGIN = 400  # bytes: a store's key holds it
UNIX = "unix"  # as a peer: who comes by a UNIX socket


@dataclass(frozen=True, slots=True)
class Grant:
    """`tenants`: whose mail it may be; `*`: any tenant's. `header`: X-Brandproxy-Tenant is believed, within these.

    `domains`: sender domains, each with what lies below it; `*`: all; empty: all but other tenants'.
    """

    tenants: tuple[str, ...]
    domains: tuple[str, ...] = ()
    header: bool = False

    @property
    def sole(self) -> str:
        """The one tenant it is about, or ""."""
        return self.tenants[0] if len(self.tenants) == 1 and self.tenants[0] != ANY else ""

    def covers(self, tenant: str) -> bool:
        return ANY in self.tenants or tenant in self.tenants


TRUSTED = Grant((ANY,), (ANY,), True)


def grant(value: object) -> Grant:
    """`"acme"`, `"*"` (a pipeline of one's own), a list of tenants, or a table. Raises ValueError."""
    if isinstance(value, Grant):
        return value
    if value == ANY:
        return TRUSTED
    table = value if isinstance(value, Mapping) else {"tenants": value}
    if unknown := table.keys() - {"tenants", "domains", "header"}:
        raise ValueError(f"{sorted(map(str, unknown))[0]!r} is none of tenants, domains, header")
    header = table.get("header", False)
    if not isinstance(header, bool):
        raise ValueError("header is true or false")
    tenants, domains = _texts(table.get("tenants", ())), _texts(table.get("domains", ()))
    if not tenants:
        raise ValueError("name the tenants it may send for, or `*` for any")
    return Grant(tenants, tuple(domain.lower().strip(".") for domain in domains), header)


def _texts(value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (None,)
    if not all(isinstance(text, str) and 0 < len(text) <= 253 and text.isprintable() for text in texts):
        raise ValueError("tenants and domains are names, or lists of names")
    return tuple(map(str, texts))


def login(pattern: str) -> str:
    """`user`, `user@domain` or `*@domain` as logins are compared. Raises ValueError."""
    user, _, domain = pattern.rpartition("@")
    if not domain or ("@" in pattern and not user) or ("*" in pattern and not (user == ANY and "*" not in domain)):
        raise ValueError(f"{pattern[:80]!r} is no login: write `user`, `user@domain` or `*@domain`")
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_LOGIN or not pattern.isprintable():
        raise ValueError("a login is at most 400 printable characters")
    return _lower(pattern)


def patterns(name: str) -> tuple[str, ...]:
    """The patterns that a login matches, the narrowest first."""
    name = _lower(name)
    user, _, domain = name.rpartition("@")
    return (name, f"*@{domain}") if user and domain else (name,)


def _lower(text: str) -> str:
    """ASCII only: that `K` (U+212A) and `k` are one is no mail server's opinion of two logins."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


Network = IPv4Network | IPv6Network


def network(text: str) -> Network | None:
    """A network, or None for `unix`. Raises ValueError."""
    return None if text == UNIX else ip_network(text)


Listed = TypeVar("Listed", bound=Iterable[str])


def peers(texts: Listed) -> Listed:
    """As they are. Raises ValueError naming the one that is no network."""
    for text in texts:
        network(text)
    return texts


def logins(entries: dict[str, Grant]) -> dict[str, Grant]:
    """By their logins as these are compared. Raises ValueError."""
    return {login(pattern): found for pattern, found in entries.items()}


def listeners(entries: dict[str, Grant]) -> dict[str, Grant]:
    """As they are. Raises ValueError."""
    for name in entries:
        _, where = listener(name)
        if where:
            ListenAddress(where)
    return entries


def listener(name: str) -> tuple[str, str]:
    """`smtp`, `smtps`, `lmtp`, `milter`, or the address of one more (`smtp:127.0.0.1:8101`). Raises ValueError."""
    kind, _, where = name.partition(":")
    if kind not in ("smtp", "lmtp", "milter") and name != "smtps":
        raise ValueError(
            f"{name!r} is not smtp, smtps, lmtp, milter, nor `smtp:`, `lmtp:`, `milter:` and an address"
        )
    return kind, where


def renamed(mail: dict[str, Any]) -> dict[str, Any]:
    """The settings of `mail` with those of former versions under their present names. Raises ValueError.

    `tenants` held logins and sender domains in one table, `tenant_header` was for everybody.
    """
    if "tenant_header" in mail:
        raise ValueError("tenant_header is gone: write `header = true` into the entries whose header is believed")
    if "tenants" not in mail:
        return mail
    rest = {name: value for name, value in mail.items() if name != "tenants"}
    old = mail["tenants"]
    old = json.loads(old) if isinstance(old, str) else old
    for name, tenant in old.items():
        if name == ANY or name.startswith("@") or ("." in name and "@" not in name):
            domain = name.strip("*@") or "acme.example"
            raise ValueError(
                f"tenants: {name!r} is no login, and a sender's domain proves nobody: write the logins into"
                f' [mail.logins], e.g. "*@{domain}" = "{tenant}"; or trust a listener of yours in [mail.listeners]'
            )
    return {**rest, "logins": {**old, **rest.get("logins", {})}}
