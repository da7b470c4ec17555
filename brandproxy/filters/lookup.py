"""Whose message is it? Asked once per message, answered from memory.

The order, first hit wins:
1. what the way in already knows (the tenant of an HTTP key or of an SMTP login)
2. header `X-Brandproxy-Tenant`, unless `mail.tenant_header` is off
3. the authenticated user, in the mapping `mail.tenants`
4. the domain of the envelope sender, then of `From:`: in the mapping (the domain or a parent of it), else the
   one tenant that has hosts under that domain (proven ones; two tenants there: nobody's)
5. `*` in the mapping

Invariant: nobody signs links in another's name. Who logged in as a tenant (1) or is mapped to one by user name
(3) stays that tenant whatever the header says.
"""

from __future__ import annotations

from collections.abc import Callable

from brandproxy.directory import Directory
from brandproxy.model import HostState
from brandproxy.store import Change, keys


class Lookup:
    """`mapping`: user name, domain or `*` to tenant slug; names are compared without case."""

    def __init__(self, directory: Directory, mapping: dict[str, str], believe_header: bool = True) -> None:
        self._directory = directory
        self._mapping = {name.lower().removeprefix("@"): slug for name, slug in mapping.items()}
        self._believe_header = believe_header
        self._by_domain: dict[str, set[str]] | None = None
        directory.changed.append(self._changed)

    def tenant(
        self, *, known: str = "", header: str = "", user: str = "", sender: str = "",
        author: Callable[[], str] = str,
    ) -> str:  # fmt: skip
        """The slug, or "" when the message is nobody's; whether the tenant exists is not asked here.

        `sender` is the envelope's address, `author` gives that of `From:`; "" when there is none.
        """
        own = known or (self._mapping.get(user.lower(), "") if user else "")
        if own:
            return own
        if header and self._believe_header:
            return header
        return self._of_domain(sender) or self._of_domain(author()) or self._mapping.get("*", "")

    def _of_domain(self, address: str) -> str:
        domain = address.rpartition("@")[2].lower().removesuffix(".")
        for parent in _parents(domain):
            if parent in self._mapping:
                return self._mapping[parent]
        tenants = self._domains().get(domain, set())
        return next(iter(tenants)) if len(tenants) == 1 else ""

    def _domains(self) -> dict[str, set[str]]:
        """Every domain that has hosts under it, with whose they are; made anew after a host changed."""
        if self._by_domain is None:
            self._by_domain = {}
            proven = (host for host in self._directory.hosts() if host.state is not HostState.PENDING)
            for host in proven:
                for parent in _parents(host.name):
                    self._by_domain.setdefault(parent, set()).add(host.tenant)
        return self._by_domain

    def _changed(self, change: Change) -> None:
        if change.key.startswith(keys.HOST):
            self._by_domain = None


def _parents(domain: str) -> list[str]:
    """`a.b.example` and what it lies under, down to two labels: nobody owns a top-level domain."""
    labels = domain.split(".")
    return [".".join(labels[at:]) for at in range(len(labels) - 1)]
