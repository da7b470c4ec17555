"""`brandproxy key …`: API keys for the control port."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from brandproxy import access
from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.context import Context

app = typer.Typer(no_args_is_help=True, help="API keys: for the operator, or for one tenant.")


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="See only this tenant; without it the key is the operator's.")] = "",
    note: Annotated[str, typer.Option(help="What the key is for.")] = "",
    json: Json = False,
) -> None:
    """Make a key; it is shown this once. Example: [bold]brandproxy key create --tenant acme --note panel[/bold]"""

    async def work(context: Context) -> tuple[access.AccessKey, str]:
        if tenant:
            await context.registry.tenant(tenant)
        made = await access.create_key(context.store, tenant or None, note)
        await context.registry.audit("key.create", made[0].id, tenant=tenant)
        return made

    key, text = with_context(work)
    print_json({"id": key.id, "tenant": key.tenant, "key": text}) if json else print(text)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the keys, without their secrets. Example: [bold]brandproxy key list[/bold]"""
    keys = with_context(lambda context: access.list_keys(context.store))
    if json:
        print_json([{k: v for k, v in asdict(key).items() if k != "hash"} for key in keys])
        return
    rows = [(k.id, k.tenant or "operator", k.note, utc(k.created_at)) for k in keys]
    print_table(("key", "for", "note", "since"), rows, "No keys yet. Make one: brandproxy key create")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, from `key list`.")]) -> None:
    """Stop a key at once. Example: [bold]brandproxy key revoke 3f9a0c21b7d4[/bold]"""

    async def work(context: Context) -> None:
        await access.revoke_key(context.store, key_id)
        await context.registry.audit("key.revoke", key_id)

    with_context(work)
    print(f"revoked key {key_id}")
