"""`brandproxy dkim …`: the public keys that customers' DKIM selectors lead to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Public DKIM keys in our zone; private ones stay with the signer.")

Whose = Annotated[str, typer.Argument(help="A sending domain, or a tenant: all of its.", show_default=False)]
Selector = Annotated[str, typer.Argument(help="One of dns.dkim_selectors.", show_default=False)]


@app.command("list")
def list_(whose: Whose, json: Json = False) -> None:
    """Show selectors and their keys. Example: [bold]brandproxy dkim list acme.com[/bold]"""
    from brandproxy.onboarding.dkim import PublicKeys

    found = with_context(lambda context: PublicKeys(context, whose).all())
    if json:
        print_json([asdict(key) for key in found])
        return
    rows = [
        (key.selector, key.name, key.fault or ("key" if key.record else "-"), "yes" if key.everywhere else "no")
        for key in found
    ]
    print_table(
        ("selector", "name", "record", "at all servers"),
        rows,
        "No DKIM keys: dns.dkim_domain is not set, or there is no sender (`brandproxy sender list`).",
    )


@app.command()
def publish(
    whose: Whose, selector: Selector, file: Annotated[Path, typer.Argument(help="PEM, or opendkim-genkey's .txt.")]
) -> None:
    """Put the signer's public key in DNS. Example: [bold]brandproxy dkim publish acme.com bp2 bp2.txt[/bold]

    Sign with it when `dkim list` says that all name servers have it.
    """
    from brandproxy.onboarding.dkim import PublicKeys

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the key: {error}") from error
    for key in with_context(lambda context: PublicKeys(context, whose).publish(selector, text)):
        print(f"{key.name} has the key" + ("" if key.everywhere else "; not all name servers have it yet"))


@app.command()
def withdraw(whose: Whose, selector: Selector) -> None:
    """Take an old key out of DNS, never the last one.

    Example: [bold]brandproxy dkim withdraw acme.com bp1[/bold]
    """
    from brandproxy.onboarding.dkim import PublicKeys

    with_context(lambda context: PublicKeys(context, whose).withdraw(selector))
    print(f"selector {selector} of {whose} has no key any more")


@app.command()
def waiting(json: Json = False) -> None:
    """Show what DNS has still, or not yet, as the primary could not be updated; it is tried again for ever.

    Example: [bold]brandproxy dkim waiting[/bold]
    """
    found = with_context(lambda context: context.registry.senders.publication.waiting())
    if json:
        print_json([asdict(record) for record in found])
        return
    rows = [(one.name, one.tenant, one.domain, "revoke" if one.revoked else "publish") for one in found]
    print_table(("name", "tenant", "sender", "to do"), rows, "All updates of DNS are made.")
