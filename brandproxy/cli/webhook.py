"""`brandproxy webhook …`: where events are sent on to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.core.differences import difference

if TYPE_CHECKING:
    from brandproxy.context import Context
    from brandproxy.webhooks.book import Book, Webhook

app = typer.Typer(no_args_is_help=True, help="Webhooks: events sent on, signed as Standard Webhooks says.")

_KINDS = (
    "click, open, unsubscribe (these three when left out); host.live, host.broken, … or host for all of them; "
    "certificate.issued, .failing, .expiring or certificate; repeat for several."
)
Id = Annotated[str, typer.Argument(help="The webhook's id, from `webhook list`.")]


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where events are POSTed.")],
    tenant: Annotated[str, typer.Option(help="Only this tenant's events; without it those of all.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help=_KINDS)] = None,
    machines: Annotated[bool, typer.Option("--machines", help="Also what machines did.")] = False,
    json: Json = False,
) -> None:
    """Send events to a URL from now on; the signing secret is shown this once.

    Example: brandproxy webhook add --tenant acme https://hooks.acme.example/brandproxy --kind host --kind click
    """
    from brandproxy.analytics.webhooks.api import shown
    from brandproxy.webhooks.book import EVENTS, Book

    async def work(context: Context) -> tuple[Webhook, str]:
        if tenant:
            await context.registry.tenant(tenant)
        made = await Book(context).add(tenant, url, tuple(kind or EVENTS), machines)
        await context.registry.audit("webhook.add", made[0].id, tenant=tenant, **difference(None, made[0]))
        return made

    hook, secret = with_context(work)
    print_json(shown(hook) | {"secret": secret}) if json else print(f"{hook.id}  {secret}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List the webhooks. Example: brandproxy webhook list"""
    from brandproxy.analytics.webhooks.api import shown
    from brandproxy.webhooks.book import Book

    async def work(context: Context) -> list[tuple[Webhook, str]]:
        book = Book(context)
        return [(hook, await _state(book, hook)) for hook in await book.all()]

    found = with_context(work)
    if json:
        print_json([shown(hook) | {"state": state} for hook, state in found])
        return
    rows = [(h.id, h.tenant or "all", h.url, " ".join(h.kinds), state) for h, state in found]
    print_table(
        ("webhook", "tenant", "url", "kinds", "state"), rows, "No webhooks. Add one: brandproxy webhook add"
    )


async def _state(book: Book, hook: Webhook) -> str:
    batches = [(await book.whereabouts(hook, lane)).batch for lane in ("events", "changes")]
    dead, errors = len(await book.dead(hook.id)), [batch.error for batch in batches if batch and batch.attempts]
    if hook.disabled:
        return f"disabled: {hook.disabled}"
    trying = f"trying again, {errors[0]}" if errors else "up to date"
    return f"{trying}; {dead} batches given up" if dead else trying


@app.command()
def remove(hook_id: Id) -> None:
    """Send nothing more. Example: brandproxy webhook remove 3f9a0c21b7d4aa01"""
    from brandproxy.webhooks.book import Book

    async def work(context: Context) -> None:
        hook = await Book(context).get(hook_id)
        await Book(context).remove(hook_id)
        await context.registry.audit("webhook.remove", hook_id, tenant=hook.tenant, **difference(hook, None))

    with_context(work)
    print(f"removed webhook {hook_id}")


@app.command()
def dead(hook_id: Id, json: Json = False) -> None:
    """List the batches that were given up. Example: brandproxy webhook dead 3f9a0c21b7d4aa01"""
    from brandproxy.analytics.webhooks.api import buried
    from brandproxy.webhooks.book import Book

    async def work(context: Context) -> list[dict[str, Any]]:
        hook = await Book(context).get(hook_id)
        return [buried(batch) for batch in await Book(context).dead(hook.id)]

    found = with_context(work)
    if json:
        print_json(found)
        return
    print_table(
        ("batch", "lane", "from", "until", "error"), [list(b.values())[:5] for b in found], "Nothing was given up."
    )


@app.command()
def replay(hook_id: Id) -> None:
    """Send the batches given up once more. Example: brandproxy webhook replay 3f9a0c21b7d4aa01"""
    from brandproxy.webhooks.book import Book

    count = with_context(lambda context: Book(context).replay(hook_id))
    print(f"{count} batches will be sent again")
