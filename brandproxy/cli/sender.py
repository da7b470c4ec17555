"""`brandproxy sender …`: the domains that tenants' mail is sent from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.context import Context
from brandproxy.errors import BadInput
from brandproxy.model import Approach, Sender

if TYPE_CHECKING:
    from brandproxy.core.senders import Sending

app = typer.Typer(no_args_is_help=True, help="The domains that tenants' mail is sent from.")

Domain = Annotated[str, typer.Argument(help="The domain in From, e.g. acme.com.", show_default=False)]
Whose = Annotated[str, typer.Option("--tenant", help="Whose claim, where several tenants have one.")]


@app.command()
def add(
    domain: Domain,
    tenant: Annotated[str, typer.Option(help="The tenant who sends from it.")],
    approach: Annotated[str, typer.Option(help="cnames, zone, relay or manual")] = "cnames",
    json: Json = False,
) -> None:
    """Claim a sending domain for a tenant and say which records to create.

    Example: [bold]brandproxy sender add acme.com --tenant acme[/bold]
    """

    async def work(context: Context) -> Sending:
        await context.registry.bring_up()
        return await _sending(context, await context.registry.senders.add(domain, tenant, _approach(approach)))

    _show(with_context(work), json)


@app.command("list")
def list_(tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "", json: Json = False) -> None:
    """List all claims and their states. Example: [bold]brandproxy sender list --tenant acme[/bold]"""

    async def work(context: Context) -> list[Sender]:
        await context.registry.bring_up()
        return [one for one in await context.registry.senders.all() if tenant in ("", one.tenant)]

    found = with_context(work)
    if json:
        print_json([asdict(one) for one in found])
        return
    rows = [(s.domain, s.tenant, s.state, utc(s.since, "%Y-%m-%d %H:%M"), s.label, s.reason) for s in found]
    print_table(
        ("sender", "tenant", "state", "since", "label", "reason"),
        rows,
        "No senders yet. Add one: brandproxy sender add example.com --tenant acme",
    )


@app.command()
def show(domain: Domain, tenant: Whose = "", json: Json = False) -> None:
    """Show a claim and the records it asks for. Example: [bold]brandproxy sender show acme.com[/bold]"""

    async def work(context: Context) -> Sending:
        await context.registry.bring_up()
        return await _sending(context, await context.registry.senders.get(domain, tenant))

    _show(with_context(work), json)


@app.command()
def remove(
    domain: Domain,
    tenant: Whose = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End a claim: its keys in DNS are revoked, so mail signed with them stops verifying.

    Example: [bold]brandproxy sender remove acme.com --yes[/bold]
    """
    if not yes:
        typer.confirm(f"Remove sender {domain}? Mail signed with its keys stops verifying", abort=True)

    async def work(context: Context) -> int:
        await context.registry.bring_up()
        await context.registry.senders.remove(domain, tenant)
        return len(await context.registry.senders.publication.waiting())

    left = with_context(work)
    print(f"removed sender {domain}; its label is never given out again")
    if left:
        print("DNS could not be updated yet: `brandproxy dkim waiting`; the control process goes on trying")


@app.command()
def transfer(
    domain: Domain,
    tenant: Annotated[str, typer.Option(help="The new owner.")],
    before: Annotated[str, typer.Option(help="Whose claim ends, where several tenants have one.")] = "",
    json: Json = False,
) -> None:
    """Give a domain to another tenant: new records, so a new proof; the old keys are revoked.

    Example: [bold]brandproxy sender transfer acme.com --tenant other[/bold]
    """

    async def work(context: Context) -> Sending:
        await context.registry.bring_up()
        return await _sending(context, await context.registry.senders.transfer(domain, tenant, before))

    _show(with_context(work), json)


@app.command()
def accept(
    domain: Domain,
    tenant: Annotated[str, typer.Option(help="Whose claim is true.")],
    reason: Annotated[str, typer.Option(help="How you know; kept in the audit trail.")],
    json: Json = False,
) -> None:
    """Vouch for a claim: it is proven by your word.

    Example: [bold]brandproxy sender accept acme.com --tenant acme --reason "contract 4711"[/bold]
    """

    async def work(context: Context) -> Sending:
        await context.registry.bring_up()
        return await _sending(context, await context.registry.senders.accept(domain, tenant, reason))

    _show(with_context(work), json)


async def _sending(context: Context, claim: Sender) -> Sending:
    from brandproxy.senders import sending

    return await sending(context.registry.senders, context.settings.dns, claim)


def _show(found: Sending, json: bool) -> None:
    from brandproxy.core.senders import mail_records

    claim, records = found.sender, mail_records(found)
    if json:
        data = {"sender": asdict(claim), "contested": found.contested}
        print_json({**data, "records": [asdict(record) for record in records]})
        return
    print(f"{claim.domain} of tenant {claim.tenant} is {claim.state} ({claim.reason})")
    if found.contested:
        print("it is proven for another tenant: move it with `brandproxy sender transfer`")
    elif not records:
        print("no records are asked for: set dns.dkim_domain and dns.bounce_host")
    else:
        print("the customer creates:\n")
    for record in records:
        print(f"  {record.name}.  {record.type}  {record.value}.")


def _approach(text: str) -> Approach:
    match text:
        case "cnames" | "zone" | "relay" | "manual":
            return text
    raise BadInput(f"no approach {text!r}", "Use cnames, zone, relay or manual.")
