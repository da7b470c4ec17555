"""Hosts over HTTP: claiming a name, what DNS says of it, and what only the operator decides."""

from __future__ import annotations

import time

from brandproxy import limits, web
from brandproxy.access import Scope
from brandproxy.admin.operations import Call, Operation
from brandproxy.admin.views import Acceptance, DnsView, HostPage, NewHost, Reason, Transfer
from brandproxy.certs.status import status
from brandproxy.core import names
from brandproxy.errors import BadSettings, NotFound
from brandproxy.model import Host, HostState
from brandproxy.onboarding import Report, Watcher, page_link

_PAGE = 500


async def _host(call: Call) -> Host:
    host = await call.registry.host(call.path["name"])
    if not call.who.sees(host.tenant):
        raise NotFound(f"no host {host.name}")
    return host


async def list_hosts(call: Call) -> HostPage:
    tenant, after = call.query.get("tenant", ""), call.query.get("after", "")
    hosts = [host for host in await call.registry.hosts() if call.who.sees(host.tenant)]
    hosts = [host for host in hosts if host.name > after and tenant in ("", host.tenant)]
    page = hosts[:_PAGE]
    return HostPage(page, page[-1].name if len(hosts) > _PAGE else "")


async def add_host(call: Call) -> Host:
    web.require_tenant(call.who, names.slug(call.body.tenant))
    if call.body.zone:
        call.operator()  # names under a delegated zone are proven by its delegation alone

    async def count() -> int:
        return sum(host.tenant == call.who.tenant for host in await call.registry.hosts())

    async with limits.room(call.context.settings, call.who, "hosts", count):
        return await call.registry.add_host(call.body.name, call.body.tenant, zone=call.body.zone)


async def show_dns(call: Call) -> DnsView:
    """The last look; nothing is asked now."""
    host = await _host(call)
    return await _dns(call, host, await Watcher(call.context).last(host.name))


async def check_host(call: Call) -> DnsView:
    """Look now."""
    host = await _host(call)
    return await _dns(call, *await Watcher(call.context).check(host.name))


async def _dns(call: Call, host: Host, report: Report) -> DnsView:
    try:
        page = await page_link(call.context, host.name)
    except BadSettings:
        page = ""
    certificate = await status(call.context.store, host.name)
    watch = report.watch
    return DnsView(
        host, page, watch.checked_at, watch.next_at, report.lines, report.findings, report.alignment, certificate
    )


async def transfer_host(call: Call) -> Host:
    return await call.registry.transfer_host((await _host(call)).name, names.slug(call.body.tenant))


async def accept_host(call: Call) -> Host:
    """The operator vouches for the name."""
    host = await _host(call)
    certified = (await status(call.context.store, host.name)).not_after > time.time()
    return await call.registry.accept_host(host.name, call.body.reason, certified)


async def suspend_host(call: Call) -> Host:
    host = await _host(call)
    return await call.registry.set_host_state(host.name, HostState.SUSPENDED, call.body.reason[:500])


async def resume_host(call: Call) -> Host:
    """Only a suspended host starts over; any other stays as it is."""
    host = await _host(call)
    if host.state is not HostState.SUSPENDED:
        return host
    return await call.registry.set_host_state(host.name, HostState.PENDING, "resumed by the operator")


async def remove_host(call: Call) -> None:
    host = await _host(call)
    await call.registry.remove_host(host.name)


async def release_zone(call: Call) -> None:
    await call.registry.release_zone(call.path["zone"])


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET", "/v1/hosts", "List hosts", list_hosts, HostPage,
        query=(("tenant", "only this tenant's"), ("after", "the page behind this name")), scope=Scope.ONBOARD,
    ),
    Operation("POST", "/v1/hosts", "Claim a host name", add_host, Host, NewHost, 201, scope=Scope.ONBOARD),
    Operation("GET", "/v1/hosts/{name}", "Show a host", _host, Host, scope=Scope.ONBOARD),
    Operation(
        "GET", "/v1/hosts/{name}/dns", "Records wanted and seen, certificate", show_dns, DnsView,
        scope=Scope.ONBOARD,
    ),
    Operation("POST", "/v1/hosts/{name}/check", "Look now", check_host, DnsView, scope=Scope.ONBOARD),
    Operation(
        "POST", "/v1/hosts/{name}/transfer", "Give to another tenant", transfer_host, Host, Transfer,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation("DELETE", "/v1/hosts/{name}", "Remove a host", remove_host, scope=Scope.ADMIN),
    Operation(
        "POST", "/v1/hosts/{name}/accept", "Vouch for a name", accept_host, Host, Acceptance,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/suspend", "Stop a host", suspend_host, Host, Reason,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/hosts/{name}/resume", "Let a suspended host start over", resume_host, Host,
        scope=Scope.ADMIN, operator=True,
    ),
    Operation(
        "DELETE", "/v1/zones/{zone}", "Let another tenant have a delegated zone", release_zone,
        scope=Scope.ADMIN, operator=True,
    ),
)  # fmt: skip
