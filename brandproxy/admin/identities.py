"""`/v1/mail/identities`: which login at the mail server may send for which tenants. The operator's alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from brandproxy import access, grants, identities
from brandproxy.admin.operations import Call, Operation
from brandproxy.errors import BadInput
from brandproxy.grants import Grant

_PAGE = 1000
_Name = Annotated[str, Field(min_length=1, max_length=253)]


@dataclass(frozen=True, slots=True)
class Identity:
    """`login`: `user`, `user@domain` or `*@domain`. `domains`: all it sends from; none: all but other tenants'."""

    login: Annotated[str, Field(min_length=1, max_length=grants.MAX_LOGIN)]
    tenants: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=1000)]
    domains: Annotated[tuple[_Name, ...], Field(max_length=1000)] = ()
    header: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class Page:
    """`after`: ask for what is behind this login; empty: that was all."""

    identities: list[Identity]
    after: str


async def list_identities(call: Call) -> Page:
    after = call.query.get("after", "")
    found = await identities.everything(call.context.store)
    names = [name for name in sorted(found) if name > after]
    page = [_shown(name, found[name]) for name in names[:_PAGE]]
    return Page(page, page[-1].login if len(names) > _PAGE else "")


async def add_identity(call: Call) -> Identity:
    wanted: Identity = call.body
    try:
        grant = grants.grant({"tenants": wanted.tenants, "domains": wanted.domains, "header": wanted.header})
    except ValueError as error:
        raise BadInput(str(error)) from error
    for slug in grant.tenants:
        if slug != grants.ANY:
            await call.registry.tenant(slug)
    name = await identities.add(call.context.store, wanted.login, grant)
    await call.registry.audit("identity.add", name, tenants=list(grant.tenants))
    return _shown(name, grant)


async def remove_identity(call: Call) -> None:
    name = await identities.remove(call.context.store, call.query.get("login", ""))
    await call.registry.audit("identity.remove", name)


def _shown(name: str, grant: Grant) -> Identity:
    return Identity(name, grant.tenants, grant.domains, grant.header)


_PATH = "/v1/mail/identities"
_ADMIN = access.Scope.ADMIN
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET", _PATH, "Which login sends for whom", list_identities, Page,
        query=(("after", "the page behind this login"),), scope=_ADMIN, operator=True,
    ),
    Operation(
        "POST", _PATH, "Say what a login may send for", add_identity, Identity, Identity, 201,
        scope=_ADMIN, operator=True,
    ),
    Operation(
        "DELETE", _PATH, "Take a login off the map", remove_identity, query=(("login", "as it is listed"),),
        scope=_ADMIN, operator=True,
    ),
)  # fmt: skip
