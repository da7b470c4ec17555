"""Where registration ends and a customer's own names begin, by the public suffix list (packaged data)."""

from __future__ import annotations

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

from brandproxy.core import names
from brandproxy.errors import BadInput


@cache
def _list() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=1 << 17)
def registered(name: str) -> str:
    """The registered domain of a host name (`acme.co.uk` of `links.acme.co.uk`); a public suffix is its own."""
    return str(_list().privatesuffix(name) or name)


def claimable(value: str) -> str:
    """A host name that one customer can own, as lower-case A-labels. Raises BadInput for a public suffix."""
    name = names.hostname(value)
    if _list().privatesuffix(name) is None:
        raise BadInput(
            f"{name} is a public suffix: names under it belong to many", "Use a name of the customer's own domain."
        )
    return name
