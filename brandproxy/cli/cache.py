"""`brandproxy cache …`: what the edges keep of tenants' objects."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from brandproxy.cli.common import with_context

app = typer.Typer(no_args_is_help=True, help="What the edges keep of tenants' objects.")


@app.callback()
def group() -> None:
    """What the edges keep of tenants' objects."""


@app.command()
def purge(
    slug: Annotated[str, typer.Argument(help="The tenant's short name.", show_default=False)],
    url: Annotated[str, typer.Argument(help="One object, by its public URL; without it: all.")] = "",
) -> None:
    """Forget cached objects on every edge within 2 s.

    Example: [bold]brandproxy cache purge acme https://media.acme.com/logo.png[/bold]
    """
    from brandproxy.storage import purge as purges

    async def work(context: Any) -> None:
        tenant = await context.registry.tenant(slug)
        now = time.time()
        order = purges.of_url(tenant, url, now) if url else purges.Purge(slug, now)
        await purges.give(context.store, order)
        await context.registry.audit("asset.purge", url[:200] or slug, tenant=slug)

    with_context(work)
    print(f"every edge forgets {url or f'all objects of tenant {slug}'}; mail clients keep their own copies")
