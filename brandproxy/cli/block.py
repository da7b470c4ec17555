"""`brandproxy block …`: the kill list. What it names answers 410 at every edge within two seconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.model import Block, BlockKind

app = typer.Typer(
    no_args_is_help=True, help="Turn links off everywhere: destinations, messages, campaigns, tenants."
)


@app.command()
def add(
    kind: Annotated[BlockKind, typer.Argument(help="What VALUE names.", show_default=False)],
    value: Annotated[str, typer.Argument(help="A domain, URL prefix, token, or reference.", show_default=False)],
    tenant: Annotated[str, typer.Option(help="Only this tenant's links; none: everybody's.")] = "",
    reason: Annotated[str, typer.Option(help="For the audit trail; recipients do not see it.")] = "",
    json: Json = False,
) -> None:
    """Block something from now on.

    A leaked signing key is revoked instead: brandproxy tenant revoke-key.

    Example: [bold]brandproxy block add domain phish.example --reason "abuse report 4711"[/bold]
    """
    from brandproxy import blocks
    from brandproxy.core.differences import difference

    async def work(context: Any) -> Block:
        block = await blocks.add(context.store, kind, value, tenant, reason)
        about = {"tenant": tenant, "id": block.id, **difference(None, block)}
        await context.registry.audit("block.add", block.value[:200], **about)
        return block

    block = with_context(work)
    print_json(asdict(block)) if json else print(f"{block.id}: {kind} {block.value} answers 410 from now on")


@app.command(name="list")
def list_(json: Json = False) -> None:
    """What is blocked.

    Example: [bold]brandproxy block list[/bold]
    """
    from brandproxy import blocks

    found = with_context(lambda context: blocks.everything(context.store))
    if json:
        print_json([asdict(block) for block in found])
        return
    rows = [
        (b.id, b.kind, b.value, b.tenant or "all", utc(b.created_at, "%Y-%m-%d %H:%M"), b.reason)
        for b in sorted(found, key=lambda b: b.created_at)
    ]
    print_table(("id", "kind", "value", "tenant", "since (UTC)", "reason"), rows, "Nothing is blocked.")


@app.command()
def remove(
    block_id: Annotated[str, typer.Argument(help="As `block list` shows it.", show_default=False)],
) -> None:
    """Take an entry off the list.

    Example: [bold]brandproxy block remove 3f0c9a1be27d4410[/bold]
    """
    from brandproxy import blocks
    from brandproxy.core.differences import difference

    async def work(context: Any) -> Block:
        block = await blocks.remove(context.store, block_id)
        about = {"tenant": block.tenant, "id": block.id, **difference(block, None)}
        await context.registry.audit("block.remove", block.value[:200], **about)
        return block

    block = with_context(work)
    print(f"{block.kind} {block.value} is no longer blocked")
