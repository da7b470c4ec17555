"""Hosts over HTTP: claiming a name, what DNS says of it, and what only the operator decides."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields

from brandproxy import limits, web
from brandproxy.access import Scope
from brandproxy.admin.operations import Call, Operation
from brandproxy.admin.views import Acceptance, DnsView, HostPage, HostView, NewHost, Reason, Transfer
from brandproxy.certs.status import CertStatus, status
from brandproxy.core import names
from brandproxy.errors import BadSettings
from brandproxy.model import Host, HostState
from brandproxy.onboarding import Report, Watcher, page_link

_PAGE = 500
_WHOSE = (("tenant", "whose record of the name, when not the holder's (operator)"),)


def _view(host: Host, contested: bool) -> HostView:
    return HostView(**{field.name: getattr(host, field.name) for field in fields(Host)}, contested=contested)


async def _shown(call: Call, host: Host) -> HostView:
    return _view(host, await call.registry.contested(host))


async def _host(call: Call) -> Host:
    """The asking tenant's own record of the name; the operator says whose, when not the holder's."""
    tenant = call.query.get("tenant", "") if call.who.tenant is None else call.who.tenant
    return await call.registry.host(call.path["name"], tenant)


async def show_host(call: Call) -> HostView:
    return await _shown(call, await _host(call))


async def list_hosts(call: Call) -> HostPage:
    """Hosts and the claims beside them: the page ends between two names."""
    tenant, after = call.query.get("tenant", ""), call.query.get("after", "")
    everything = await call.registry.everything()
    count = Counter(host.name for host in everything)
    hosts = [host for host in everything if call.who.sees(host.tenant)]
    hosts = [host for host in hosts if host.name > after and tenant in ("", host.tenant)]
    end = _PAGE
    while 0 < end < len(hosts) and hosts[end].name == hosts[end - 1].name:
        end += 1
    page = [_view(host, count[host.name] > 1) for host in hosts[:end]]
    return HostPage(page, page[-1].name if len(hosts) > end else "")


async def add_host(call: Call) -> HostView:
    web.require_tenant(call.who, names.slug(call.body.tenant))
    if call.body.zone:
        call.operator()  # names under a delegated zone are proven by its delegation alone

    async def count() -> int:
        return sum(host.tenant == call.who.tenant for host in await call.registry.everything())

    async with limits.room(call.context.settings, call.who, "hosts", count):
        host = await call.registry.add_host(call.body.name, call.body.tenant, zone=call.body.zone)
    return await _shown(call, host)


async def show_dns(call: Call) -> DnsView:
    """The last look; nothing is asked now."""
    host = await _host(call)
    holder = await call.registry.host(host.name)
    report = await Watcher(call.context).last(host.name, host.tenant if holder.tenant != host.tenant else "")
    return await _dns(call, host, report)


async def check_host(call: Call) -> DnsView:
    """Look now."""
    host = await _host(call)
    return await _dns(call, *await Watcher(call.context).check(host.name, host.tenant))


async def _dns(call: Call, host: Host, report: Report) -> DnsView:
    try:
        page = await page_link(call.context, host.name, host.tenant)
    except BadSettings:
        page = ""
    certificate = await status(call.context.store, host.name) if host.proven else CertStatus(host.name)
    watch = report.watch
    return DnsView(
        await _shown(call, host), page, watch.checked_at, watch.next_at, report.lines, report.findings,
        report.alignment, certificate,
    )  # fmt: skip


async def transfer_host(call: Call) -> HostView:
    return await _shown(
        call, await call.registry.transfer_host((await _host(call)).name, names.slug(call.body.tenant))
    )


async def accept_host(call: Call) -> HostView:
    """The operator vouches for the name."""
    host = await call.registry.host(call.path["name"])
    certified = (await status(call.context.store, host.name)).not_after > time.time()
    accepted = await call.registry.accept_host(host.name, call.body.reason, certified, call.body.tenant)
    return await _shown(call, accepted)


async def suspend_host(call: Call) -> HostView:
    host = await _host(call)
    return await _shown(
        call, await call.registry.set_host_state(host.name, HostState.SUSPENDED, call.body.reason[:500])
    )


async def resume_host(call: Call) -> HostView:
    """Only a suspended host starts over; any other stays as it is."""
    host = await _host(call)
    if host.state is HostState.SUSPENDED:
        host = await call.registry.set_host_state(host.name, HostState.PENDING, "resumed by the operator")
    return await _shown(call, host)


async def remove_host(call: Call) -> None:
    host = await _host(call)
    if host.state is HostState.SUSPENDED:
        call.operator()  # else removing and claiming again would lift it
    await call.registry.remove_host(host.name, host.tenant)


async def release_zone(call: Call) -> None:
    await call.registry.release_zone(call.path["zone"])


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET", "/v1/hosts", "List hosts", list_hosts, HostPage,
        query=(("tenant", "only this tenant's"), ("after", "the page behind this name")), scope=Scope.ONBOARD,
    ),
    Operation("POST", "/v1/hosts", "Claim a host name", add_host, HostView, NewHost, 201, scope=Scope.ONBOARD),
    Operation("GET", "/v1/hosts/{name}", "Show a host", show_host, HostView, query=_WHOSE, scope=Scope.ONBOARD),
    Operation(
        "GET", "/v1/hosts/{name}/dns", "Records wanted and seen, certificate", show_dns, DnsView,
        query=_WHOSE, scope=Scope.ONBOARD,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/check", "Look at the records now", check_host, DnsView,
        query=_WHOSE, scope=Scope.ONBOARD,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/transfer", "Give to another tenant", transfer_host, HostView, Transfer,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation("DELETE", "/v1/hosts/{name}", "Remove a host", remove_host, query=_WHOSE, scope=Scope.ADMIN),
    Operation(
        "POST", "/v1/hosts/{name}/accept", "Vouch for a name", accept_host, HostView, Acceptance,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/suspend", "Stop a host", suspend_host, HostView, Reason,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/resume", "Let a suspended host start over", resume_host, HostView,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "DELETE", "/v1/zones/{zone}", "Let another tenant have a delegated zone", release_zone,
        scope=Scope.ADMIN, operator=True,
    ),
)  # fmt: skip
