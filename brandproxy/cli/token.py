"""`brandproxy token show URL`: what a mailed link holds, for support."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.context import Context
from brandproxy.errors import BadInput, BadToken, NotFound
from brandproxy.model import Kind

app = typer.Typer(no_args_is_help=True, help="Look into the links we mailed.")


@app.callback()
def _group() -> None:
    """Look into the links we mailed."""


@app.command()
def show(
    url: Annotated[str, typer.Argument(help="A link of ours, as it stands in a mail.")], json: Json = False
) -> None:
    """Decode and verify a link. Exit status 1 when the token is not genuine.

    Example: [bold]brandproxy token show https://links.acme.com/c/BA…[/bold]
    """
    kind, payload = with_context(lambda context: _open(context, url))
    if json:
        print_json({"kind": kind, "verified": True, **payload})
    else:
        print_table(("field", "value"), [("kind", kind), ("verified", "yes"), *payload.items()], "")


async def _open(context: Context, url: str) -> tuple[str, dict[str, object]]:
    parts = urlsplit(url)
    pieces = parts.path.split("/")
    if len(pieces) < 3 or pieces[1] not in set(Kind):
        raise BadInput("that is no link of ours", "A link of ours is https://HOST/c/TOKEN (or /a/, /o/, /u/).")
    site = context.directory.site((parts.hostname or "").lower())
    if site is None:
        raise NotFound(f"no tenant owns {parts.hostname!r}", "See `brandproxy host list`.")
    try:
        payload = site.ring.open(pieces[1], pieces[2].removesuffix(".gif"))
    except BadToken as error:
        raise BadToken(error.reason) from None
    return Kind(pieces[1]).name.lower(), {"tenant": site.tenant.slug, **payload._asdict()}
