"""`brandproxy dns HOST`: the records a customer creates, what is seen of them, what is wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.context import Context
from brandproxy.errors import BadSettings

if TYPE_CHECKING:
    from brandproxy.core.alignment import Alignment
    from brandproxy.model import Host
    from brandproxy.onboarding import Report

app = typer.Typer()

MARKS = {
    "right": "[green]✓ found[/]",
    "missing": "[red]✗ missing[/]",
    "wrong": "[red]✗ wrong[/]",
    "unknown": "… ?",
}


@app.command()
def dns(
    name: Annotated[str, typer.Argument(help="The host name, e.g. links.acme.com.", show_default=False)],
    link: Annotated[
        bool, typer.Option("--link", help="Only print the private page to send the customer.")
    ] = False,
    zone_file: Annotated[bool, typer.Option("--zone-file", help="Print the records for a zone file.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose claim, when several tenants claim the name.")] = "",
    json: Json = False,
) -> None:
    """Show the DNS records wanted and seen, and what to do. It looks now and changes nothing.

    Example: [bold]brandproxy dns links.acme.com[/bold]
    """
    from brandproxy.onboarding import page_link

    if link:
        print(with_context(lambda context: page_link(context, name, tenant)))
        return
    host, report, (url, why), contested = with_context(lambda context: _look(context, name, tenant))
    if json:
        print_json({"host": {**asdict(host), "contested": contested}, "page": url, **asdict(report)})
    elif zone_file:
        for line in report.lines:
            if line.wanted.ours:  # not the customer's to create
                continue
            value = f'"{line.wanted.value}"' if line.wanted.type == "TXT" else f"{line.wanted.value}."
            print(f"{line.wanted.name}. IN {line.wanted.type} {value}")
    else:
        show(host, report)
        if contested:
            print("\ncontested: another tenant claims this name too; whose CNAME is seen first has it")
        print(f"\npage for the customer: {url or why}")


async def _look(context: Context, name: str, tenant: str) -> tuple[Host, Report, tuple[str, str], bool]:
    """The host, a look, the customer's page or why there is none, and whether others claim the name."""
    import time

    from brandproxy.core.watching import Watch
    from brandproxy.onboarding import Looker, page_link
    from brandproxy.senders import of_host

    await context.registry.bring_up()
    host = await context.registry.host(name, tenant)
    sending = await of_host(context.registry.senders, context.settings.dns, host)
    report, _ = await Looker(context.settings).report(host, Watch(), time.time(), sending)
    contested = await context.registry.contested(host)
    try:
        return host, report, (await page_link(context, name, host.tenant), ""), contested
    except BadSettings as error:
        return host, report, ("", f"none: {error}. {error.action}"), contested


def _modes(one: Alignment) -> str:
    return "strict and relaxed" if one.strict else "relaxed" if one.relaxed else "never"


def show(host: Host, report: Report) -> None:
    """The report for people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    console = Console()
    console.print(f"[bold]{host.name}[/] of tenant {host.tenant} is [bold]{host.state}[/] ({escape(host.reason)})")
    rows = [
        (
            Text.from_markup(MARKS[line.state]), line.wanted.type, line.wanted.name, line.wanted.value,
            " ".join(line.seen) or "-",
            "kept by us" if line.wanted.ours else "" if line.wanted.needed else "recommended",
        )
        for line in report.lines
    ]  # fmt: skip
    print_table(("", "type", "name", "value", "seen now", ""), rows, "no records are wanted")
    if report.alignment:
        aligned = [
            (
                Text.from_markup("[green]✓ passes[/]" if one.passes else "[red]✗ does not[/]"),
                one.sender, one.mechanism,
                one.identity, one.mode, _modes(one), one.by,
            )
            for one in report.alignment
        ]  # fmt: skip
        columns = ("DMARC", "mail from", "by", "identity", "policy", "would align", "records")
        print_table(columns, aligned, "")
    for finding in report.findings:
        colour = "red" if finding.fatal else "yellow"
        console.print(f"[{colour}]{finding.code}[/] {escape(finding.sentence)}\n  {escape(finding.fix)}")
