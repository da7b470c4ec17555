"""`brandproxy token show URL`: what a mailed link holds, for support."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
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
        shown = [(name, _moment(value) if name == "sent_at" else value) for name, value in payload.items()]
        print_table(("field", "value"), [("kind", kind), ("verified", "yes"), *shown], "")


async def _open(context: Context, url: str) -> tuple[str, dict[str, object]]:
    parts = urlsplit(url)
    pieces = parts.path.split("/")
    if len(pieces) < 3 or pieces[1] not in set(Kind):
        raise BadInput("that is no link of ours", "A link of ours is https://HOST/c/TOKEN (or /a/, /o/, /u/).")
    site = context.directory.claimed((parts.hostname or "").lower())
    if site is None:
        raise NotFound(f"no tenant owns {parts.hostname!r}", "See `brandproxy host list`.")
    try:
        payload = site.ring.open(pieces[1], pieces[2].removesuffix(".gif"))
    except BadToken as error:
        raise BadToken(error.reason) from None
    return Kind(pieces[1]).name.lower(), {"tenant": site.tenant.slug, **payload._asdict()}


def _moment(seconds: object) -> str:
    """A mail's time of sending; 0 when it was not told."""
    if not isinstance(seconds, int) or not seconds:
        return "-"
    try:
        return utc(seconds, "%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError):  # signed by whoever holds the key, sensible or not
        return str(seconds)
