"""`brandproxy host …`: the names tenants CNAME to us."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.context import Context
from brandproxy.model import Host, HostState

if TYPE_CHECKING:
    from brandproxy.core.records import Wanted

app = typer.Typer(no_args_is_help=True, help="The host names tenants CNAME to us.")

Whose = Annotated[
    str, typer.Option("--tenant", help="Whose claim, when several tenants claim the name.", show_default=False)
]
Name = Annotated[str, typer.Argument(help="The host name, e.g. links.acme.com.", show_default=False)]


@app.command()
def add(
    name: Name,
    tenant: Annotated[str, typer.Option(help="The tenant who owns the name.")],
    zone: Annotated[str, typer.Option(help="The customer delegates this zone to us: no CNAME, but NS.")] = "",
    json: Json = False,
) -> None:
    """Claim a host name for a tenant and say which CNAME to create.

    Example: [bold]brandproxy host add links.acme.com --tenant acme[/bold]
    """
    host, records = with_context(lambda context: _add(context, name, tenant, zone))
    if json:
        print_json(asdict(host))
        return
    print(f"added {host.name} for tenant {tenant}; the customer creates:\n")
    for record in records:
        print(f"  {record.name}.  {record.type}  {record.value}.")
    if zone and not records:
        print("  nothing yet: dns.nameservers is not set; name them in BRANDPROXY_DNS_NAMESERVERS first")
    if host.target.endswith(".invalid"):
        print("\nedge.domain is not set, so this target leads nowhere yet: set BRANDPROXY_EDGE_DOMAIN first")
    print(f"\nthen: brandproxy dns {host.name}")


async def _add(context: Context, name: str, tenant: str, zone: str) -> tuple[Host, list[Wanted]]:
    """The host, and what its customer has to create."""
    from brandproxy.onboarding import Looker
    from brandproxy.senders import of_host

    host = await context.registry.add_host(name, tenant, zone=zone)
    sending = await of_host(context.registry.senders, context.settings.dns, host)
    records = Looker(context.settings).wanted(host, sending)
    return host, [record for record in records if not record.ours]


@app.command("list")
def list_(tenant: Annotated[str, typer.Option(help="Only this tenant's hosts.")] = "", json: Json = False) -> None:
    """List the hosts and their states. Example: [bold]brandproxy host list --tenant acme[/bold]"""
    hosts = with_context(lambda context: context.registry.everything())
    contested = Counter(host.name for host in hosts)
    hosts = [host for host in hosts if not tenant or host.tenant == tenant]
    if json:
        print_json([{**asdict(host), "contested": contested[host.name] > 1} for host in hosts])
        return
    rows = [
        (
            h.name, h.tenant, h.state, "contested" if contested[h.name] > 1 else "",
            utc(h.since, "%Y-%m-%d %H:%M"), h.reason,
        )
        for h in hosts
    ]  # fmt: skip
    print_table(
        ("host", "tenant", "state", "", "since", "reason"),
        rows,
        "No hosts yet. Add one: brandproxy host add links.example.com --tenant acme",
    )


@app.command()
def show(name: Name, tenant: Whose = "", json: Json = False) -> None:
    """Show one host. Example: [bold]brandproxy host show links.acme.com[/bold]"""
    shown = with_context(lambda context: _shown(context, name, tenant))
    print_json(shown) if json else print_table(("host", name), shown.items(), "")


async def _shown(context: Context, name: str, tenant: str) -> dict[str, object]:
    host = await context.registry.host(name, tenant)
    return {**asdict(host), "contested": await context.registry.contested(host)}


@app.command()
def check(name: Name, tenant: Whose = "", json: Json = False) -> None:
    """Look at a host's records now. Example: [bold]brandproxy host check links.acme.com[/bold]

    Its state moves after two looks that agree on good news, three on bad.
    """
    from brandproxy.cli.dns import show as show_report
    from brandproxy.onboarding import Watcher

    host, report = with_context(lambda context: Watcher(context).check(name, tenant))
    print_json({"host": asdict(host), **asdict(report)}) if json else show_report(host, report)


@app.command()
def transfer(name: Name, tenant: Annotated[str, typer.Option(help="The new owner.")], json: Json = False) -> None:
    """Give a host to another tenant. Example: [bold]brandproxy host transfer links.acme.com --tenant other[/bold]

    It gets a new CNAME target, so a new proof; links mailed for the tenant before stop working.
    """
    host = with_context(lambda context: context.registry.transfer_host(name, tenant))
    print_json(asdict(host)) if json else print(
        f"{host.name} belongs to {tenant}; it waits for CNAME {host.target}."
    )


@app.command()
def accept(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.", show_default=False)],
    tenant: Whose = "",
    json: Json = False,
) -> None:
    """Vouch for a name whose records cannot be seen: it is served as if they had been.

    Example: [bold]brandproxy host accept links.acme.com --reason "internal DNS; ticket 4711"[/bold]
    """
    host = with_context(lambda context: _accept(context, name, reason, tenant))
    print_json(asdict(host)) if json else print(f"{host.name} is {host.state} for {host.tenant}, on your word")


async def _accept(context: Context, name: str, reason: str, tenant: str) -> Host:
    import time

    from brandproxy.certs.status import status

    host = await context.registry.host(name)
    certified = (await status(context.store, host.name)).not_after > time.time()
    return await context.registry.accept_host(host.name, reason, certified, tenant)


@app.command()
def suspend(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "by the operator",
    json: Json = False,
) -> None:
    """Stop a host: its links answer with the safe page.

    Example: [bold]brandproxy host suspend links.acme.com[/bold]
    """
    _move(name, HostState.SUSPENDED, reason, json)


@app.command()
def resume(name: Name, json: Json = False) -> None:
    """Let a suspended host start over as pending. Example: [bold]brandproxy host resume links.acme.com[/bold]"""
    _move(name, HostState.PENDING, "resumed by the operator", json)


@app.command()
def remove(
    name: Name, tenant: Whose = "", yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Remove a host, or a tenant's claim. Links mailed under it stop working.

    Example: [bold]brandproxy host remove links.acme.com --yes[/bold]
    """
    if not yes:
        typer.confirm(f"Remove {name}? Links already mailed under it stop working", abort=True)
    with_context(lambda context: context.registry.remove_host(name, tenant))
    print(f"removed {name}; its CNAME target is never given out again")


@app.command("release-zone")
def release_zone(zone: Annotated[str, typer.Argument(help="A delegated zone without hosts.")]) -> None:
    """Let another tenant have a delegated zone. Example: [bold]brandproxy host release-zone mail.acme.com[/bold]

    First see to it that the old owner's NS records for it are gone: they would prove it for the next one.
    """
    with_context(lambda context: context.registry.release_zone(zone))
    print(f"zone {zone} can be delegated for any tenant")


def _move(name: str, state: HostState, reason: str, json: bool) -> None:
    host: Host = with_context(lambda context: context.registry.set_host_state(name, state, reason))
    print_json(asdict(host)) if json else print(f"{host.name} is {host.state}")
