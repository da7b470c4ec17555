"""`brandproxy relay …`: where a tenant's mail goes on after the SMTP proxy, when not where all mail does."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from brandproxy.cli.common import Json, print_json, with_context
from brandproxy.errors import BadInput
from brandproxy.model import Relay

app = typer.Typer(no_args_is_help=True, help="Where a tenant's mail goes on after the SMTP proxy.")

Slug = Annotated[str, typer.Argument(help="The tenant's short name, e.g. acme.", show_default=False)]
_TLS = ("required", "opportunistic", "none")


@app.command("set")
def set_(
    slug: Slug,
    server: Annotated[str, typer.Argument(help="host:port of the tenant's own mail server.", show_default=False)],
    tls: Annotated[str, typer.Option(help="required (certificate checked), opportunistic or none")] = "required",
    user: Annotated[str, typer.Option(help="Log in there as; the password is read from standard input.")] = "",
) -> None:
    """Send a tenant's mail on to a server of its own. The password is kept sealed and never shown.

    Example: [bold]brandproxy relay set acme smtp.acme.com:587 --user mailer < password[/bold]
    """
    relay = _relay(server, tls, user, sys.stdin.readline().rstrip("\r\n") if user else "")
    with_context(
        lambda context: context.registry.change_tenant(
            slug, lambda tenant: replace(tenant, relay=relay), f"tenant.relay {relay.host}:{relay.port}"
        )
    )
    print(f"mail of tenant {slug} goes on to {relay.host}:{relay.port}")


@app.command()
def show(slug: Slug, json: Json = False) -> None:
    """Where a tenant's mail goes on. Example: [bold]brandproxy relay show acme[/bold]"""
    relay = with_context(lambda context: context.registry.tenant(slug)).relay
    if json:
        print_json(relay and {"host": relay.host, "port": relay.port, "tls": relay.tls, "user": relay.user})
    elif relay is None:
        print("where all mail does (mail.next_hop)")
    else:
        print(f"{relay.host}:{relay.port}, TLS {relay.tls}{f', as {relay.user}' if relay.user else ''}")


@app.command()
def remove(slug: Slug) -> None:
    """Send a tenant's mail where all mail goes. Example: [bold]brandproxy relay remove acme[/bold]"""
    with_context(
        lambda context: context.registry.change_tenant(
            slug, lambda tenant: replace(tenant, relay=None), "tenant.relay none"
        )
    )
    print(f"mail of tenant {slug} goes on to mail.next_hop")


def _relay(server: str, tls: str, user: str, password: str) -> Relay:
    """Raises BadInput; a password never travels where its reader is not certain (RFC 8314 §3)."""
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"{server!r} is not host:port", "Use e.g. smtp.acme.com:587.")
    if tls not in _TLS:
        raise BadInput(f"no TLS policy {tls!r}", f"Use one of: {', '.join(_TLS)}.")
    if user and tls != "required":
        raise BadInput("a password goes over checked TLS only", "Use --tls required.")
    if user and not password:
        raise BadInput("no password on standard input", "Give it as: … --user NAME < password-file")
    return Relay(host.strip("[]"), int(port), tls, user, password)
