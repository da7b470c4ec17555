"""May a CA issue for a name? CAA records (RFC 8659) with their account and method parameters (RFC 8657)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PARAMETER = re.compile(r"\s*([a-z0-9]+)\s*=\s*([\x21-\x3a\x3c-\x7e]*)\s*", re.I)
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.I)


@dataclass(frozen=True, slots=True)
class Caa:
    """One record: flags (128: critical), tag, value as published."""

    flags: int
    tag: str
    value: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who wants to issue: the CA's CAA names, the account's URL (empty: unknown yet), the challenge type."""

    identities: tuple[str, ...]
    account: str = ""
    method: str = "http-01"


def climb(name: str) -> list[str]:
    """The names whose CAA set is looked for, first non-empty one wins (RFC 8659 §3)."""
    labels = name.removeprefix("*.").split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def allows(records: Iterable[Caa], issuer: Issuer, wildcard: bool = False) -> bool:
    """Whether the relevant set lets this issuer issue. An empty set allows everybody.

    1. an unknown critical property forbids (RFC 8659 §4.1)
    2. for a wildcard, `issuewild` properties count alone where there are any (§4.3)
    3. a set without a relevant property says nothing about issuing (§4.2)
    4. one property that fits is enough; a value that cannot be read fits nobody
    """
    records = [Caa(record.flags, record.tag.lower(), record.value) for record in records]
    known = {"issue", "issuewild", "iodef", "issuemail", "contactemail", "contactphone"}
    if any(record.flags & 128 and record.tag not in known for record in records):
        return False
    wild = [record for record in records if record.tag == "issuewild"]
    relevant = wild if wildcard and wild else [record for record in records if record.tag == "issue"]
    return not relevant or any(_fits(record.value, issuer) for record in relevant)


def _fits(value: str, issuer: Issuer) -> bool:
    domain, _, rest = value.partition(";")
    if not _DOMAIN.fullmatch(domain.strip()) or domain.strip().lower() not in issuer.identities:
        return False
    for text in filter(str.strip, rest.split(";")):
        parameter = _PARAMETER.fullmatch(text)
        if parameter is None:
            return False
        name, given = parameter[1].lower(), parameter[2]
        if name == "accounturi" and issuer.account and given != issuer.account:  # RFC 8657 §3
            return False
        methods = [method.strip().lower() for method in given.split(",")]
        if name == "validationmethods" and issuer.method not in methods:  # RFC 8657 §4
            return False
    return True
