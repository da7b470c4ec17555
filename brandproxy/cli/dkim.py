"""`brandproxy dkim …`: the public keys that customers' DKIM selectors lead to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Public DKIM keys in our zone; private ones stay with the signer.")

Slug = Annotated[str, typer.Argument(help="The tenant.", show_default=False)]
Selector = Annotated[str, typer.Argument(help="One of dns.dkim_selectors.", show_default=False)]


@app.command("list")
def list_(tenant: Slug, json: Json = False) -> None:
    """Show a tenant's selectors and their keys. Example: [bold]brandproxy dkim list acme[/bold]"""
    from brandproxy.onboarding.dkim import PublicKeys

    found = with_context(lambda context: PublicKeys(context, tenant).all())
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
        "No DKIM keys are kept here: dns.dkim_domain is not set.",
    )


@app.command()
def publish(
    tenant: Slug, selector: Selector, file: Annotated[Path, typer.Argument(help="PEM, or opendkim-genkey's .txt.")]
) -> None:
    """Put the signer's public key in DNS. Example: [bold]brandproxy dkim publish acme bp2 bp2.txt[/bold]

    Sign with it when `dkim list` says that all name servers have it.
    """
    from brandproxy.onboarding.dkim import PublicKeys

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the key: {error}") from error
    key = with_context(lambda context: PublicKeys(context, tenant).publish(selector, text))
    print(f"{key.name} has the key" + ("" if key.everywhere else "; not all name servers have it yet"))


@app.command()
def withdraw(tenant: Slug, selector: Selector) -> None:
    """Take an old key out of DNS, never the last one. Example: [bold]brandproxy dkim withdraw acme bp1[/bold]"""
    from brandproxy.onboarding.dkim import PublicKeys

    with_context(lambda context: PublicKeys(context, tenant).withdraw(selector))
    print(f"selector {selector} of {tenant} has no key any more")
