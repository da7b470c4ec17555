"""Sending domains over HTTP: /v1/senders. A tenant's key claims, reads and ends its own tenant's claims; giving
a domain to another and vouching are the operator's."""

from __future__ import annotations

from dataclasses import dataclass

from brandproxy import limits, web
from brandproxy.access import Scope
from brandproxy.admin.operations import Call, Operation
from brandproxy.core import names
from brandproxy.core.records import Wanted
from brandproxy.core.senders import mail_records
from brandproxy.errors import NotFound
from brandproxy.model import Approach, Sender
from brandproxy.senders import sending

_PAGE = 500


@dataclass(frozen=True)
class NewSender:
    domain: str
    tenant: str
    approach: Approach = "cnames"


@dataclass(frozen=True)
class Acceptance:
    """`reason`: how the operator knows that the domain is the tenant's."""

    tenant: str
    reason: str


@dataclass(frozen=True)
class SenderTransfer:
    """`before`: whose claim ends; empty: the proven one's, or the only one's."""

    tenant: str
    before: str = ""


@dataclass(frozen=True)
class SenderPage:
    """`next`: pass as `after` for the next page; empty: that was all."""

    items: list[Sender]
    next: str


@dataclass(frozen=True)
class SenderView:
    """A claim and the records it asks for. `contested`: the domain is proven for another tenant."""

    sender: Sender
    contested: bool
    records: list[Wanted]


async def list_senders(call: Call) -> SenderPage:
    tenant, after = call.query.get("tenant", ""), call.query.get("after", "")
    await call.registry.bring_up()
    found = [one for one in await call.registry.senders.all() if call.who.sees(one.tenant)]
    found = [one for one in found if f"{one.domain} {one.tenant}" > after and tenant in ("", one.tenant)]
    found.sort(key=lambda one: f"{one.domain} {one.tenant}")
    page = found[:_PAGE]
    return SenderPage(page, f"{page[-1].domain} {page[-1].tenant}" if len(found) > _PAGE else "")


async def add_sender(call: Call) -> SenderView:
    web.require_tenant(call.who, names.slug(call.body.tenant))
    await call.registry.bring_up()

    async def count() -> int:
        return sum(claim.tenant == call.who.tenant for claim in await call.registry.senders.all())

    async with limits.room(call.context.settings, call.who, "senders", count):
        claim = await call.registry.senders.add(call.body.domain, call.body.tenant, call.body.approach)
    return await _view(call, claim)


async def show_sender(call: Call) -> SenderView:
    return await _view(call, await _claim(call))


async def remove_sender(call: Call) -> None:
    claim = await _claim(call)
    await call.registry.senders.remove(claim.domain, claim.tenant)


async def transfer_sender(call: Call) -> SenderView:
    await call.registry.bring_up()
    given = await call.registry.senders.transfer(
        call.path["domain"], names.slug(call.body.tenant), call.body.before
    )
    return await _view(call, given)


async def accept_sender(call: Call) -> SenderView:
    await call.registry.bring_up()
    body = call.body
    return await _view(call, await call.registry.senders.accept(call.path["domain"], body.tenant, body.reason))


async def _claim(call: Call) -> Sender:
    """The claim that is meant: a tenant's key means its own; others' are not found, nor whether there are any."""
    await call.registry.bring_up()
    domain = names.hostname(call.path["domain"])
    tenant = call.query.get("tenant", "") or call.who.tenant or ""
    if not call.who.sees(tenant) and call.who.tenant is not None:
        raise NotFound(f"no sender {domain}")
    return await call.registry.senders.get(domain, tenant)


async def _view(call: Call, claim: Sender) -> SenderView:
    found = await sending(call.registry.senders, call.context.settings.dns, claim)
    return SenderView(claim, found.contested, mail_records(found))


_WHOSE = (("tenant", "this tenant's claim; left out: the proven one, or the only one"),)

_ONBOARD, _ADMIN = Scope.ONBOARD, Scope.ADMIN

OPERATIONS = (
    Operation(
        "GET", "/v1/senders", "List claims to sending domains", list_senders, SenderPage,
        query=(("tenant", "only this tenant's"), ("after", "the page behind this one")), scope=_ONBOARD,
    ),
    Operation(
        "POST", "/v1/senders", "Claim a sending domain", add_sender, SenderView, NewSender, 201, scope=_ONBOARD,
    ),
    Operation(
        "GET", "/v1/senders/{domain}", "Show a claim and its records", show_sender, SenderView, query=_WHOSE,
        scope=_ONBOARD,
    ),
    Operation(
        "DELETE", "/v1/senders/{domain}", "End a claim, revoke its keys", remove_sender, query=_WHOSE,
        scope=_ADMIN,
    ),
    Operation(
        "POST", "/v1/senders/{domain}/transfer", "Give to another tenant", transfer_sender, SenderView,
        SenderTransfer, scope=_ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/senders/{domain}/accept", "Vouch for a claim", accept_sender, SenderView, Acceptance,
        scope=_ADMIN, operator=True,
    ),
)  # fmt: skip
