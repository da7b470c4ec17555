"""`brandproxy key …`: API keys for the control port."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from brandproxy import access
from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.context import Context
from brandproxy.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="API keys: for the operator, or for one tenant.")

KeyId = Annotated[str, typer.Argument(help="The key's id, from `key list`.", show_default=False)]
_SCOPES = ", ".join(access.Scope)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="See only this tenant; without it the key is the operator's.")] = "",
    note: Annotated[str, typer.Option(help="What the key is for.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help=f"May do this ({_SCOPES}); default: all.")] = None,
    expires: Annotated[
        str, typer.Option(help="Ends then: a span like 90d or 12h, or a date; default: never.")
    ] = "",
    json: Json = False,
) -> None:
    """Make a key; it is shown this once.

    Example: [bold]brandproxy key create --tenant acme --scope rewrite --note mailer[/bold]
    """
    scopes = [name.strip() for given in scope or [*access.Scope] for name in given.split(",")]
    ends = _moment(expires) if expires else 0

    async def work(context: Context) -> tuple[access.AccessKey, str]:
        if tenant:
            await context.registry.tenant(tenant)
        made = await access.create_key(context.store, tenant or None, note, scopes, ends)
        await context.registry.audit("key.create", made[0].id, tenant=tenant, after=access.shown(made[0]))
        return made

    key, text = with_context(work)
    print_json(_made(key, text)) if json else print(text)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the keys, without their secrets. Example: [bold]brandproxy key list[/bold]"""

    async def work(context: Context) -> tuple[list[access.AccessKey], dict[str, int]]:
        return await access.list_keys(context.store), await access.last_uses(context.store)

    keys, uses = with_context(work)
    if json:
        print_json([_listed(key, uses) for key in keys])
        return
    rows = [
        (
            key.id, key.tenant or "operator", ", ".join(key.principal.scopes_named), key.note, utc(key.created_at),
            _when(uses.get(key.id, 0)), _when(key.expires_at),
        )
        for key in keys
    ]  # fmt: skip
    columns = ("key", "for", "may", "note", "since", "last used", "ends")
    print_table(columns, rows, "No keys yet. Make one: brandproxy key create")


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on: 24h, 30m, 7d, 0.")] = "24h",
    json: Json = False,
) -> None:
    """Make a key that may do the same; the old one ends after the overlap. The new one is shown this once.

    Example: [bold]brandproxy key rotate 3f9a0c21b7d4 --overlap 24h[/bold]
    """

    async def work(context: Context) -> tuple[access.AccessKey, access.AccessKey, str]:
        before = access.shown(await access.get_key(context.store, key_id))
        old, key, text = await access.rotate_key(context.store, key_id, _span(overlap))
        after = access.shown(old) | {"replaced_by": key.id}
        await context.registry.audit("key.rotate", old.id, tenant=old.tenant or "", before=before, after=after)
        return old, key, text

    old, key, text = with_context(work)
    print_json(_made(key, text) | {"replaces": old.id, "old_expires_at": old.expires_at}) if json else print(text)


@app.command()
def revoke(key_id: KeyId) -> None:
    """Stop a key at once, and what is open with it. Example: [bold]brandproxy key revoke 3f9a0c21b7d4[/bold]"""

    async def work(context: Context) -> None:
        key = await access.revoke_key(context.store, key_id)
        await context.registry.audit("key.revoke", key_id, tenant=key.tenant or "", before=access.shown(key))

    with_context(work)
    print(f"revoked key {key_id}")


def _made(key: access.AccessKey, text: str) -> dict[str, object]:
    scopes, ends = key.principal.scopes_named, key.expires_at or None
    return {"id": key.id, "tenant": key.tenant, "key": text, "scopes": scopes, "expires_at": ends}


def _listed(key: access.AccessKey, uses: dict[str, int]) -> dict[str, object]:
    return {
        "id": key.id, "tenant": key.tenant, "note": key.note, "created_at": key.created_at,
        "scopes": key.principal.scopes_named, "expires_at": key.expires_at or None,
        "last_used_at": uses.get(key.id), "replaces": key.replaces or None,
    }  # fmt: skip


def _when(seconds: int) -> str:
    return utc(seconds, "%Y-%m-%d %H:%M") if seconds else "never"


def _span(text: str) -> int:
    """Seconds of `24h`, `30m`, `7d`, `0`. Raises BadInput."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text.strip())
    if found is None or (not found[2] and int(found[1])):
        raise BadInput(f"{text[:40]!r} is no span of time", "Write 30m, 24h or 7d.")
    return int(found[1]) * _SECONDS.get(found[2], 0)


def _moment(text: str) -> int:
    """Seconds since 1970 of a span from now, or of a date or time (UTC when it names no zone). Raises BadInput."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return int(time.time()) + _span(text)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
