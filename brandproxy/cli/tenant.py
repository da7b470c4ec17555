"""`brandproxy tenant …`: customers of the ESP, their policy and their signing keys."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.core import urls
from brandproxy.errors import BadInput
from brandproxy.model import AddressPrivacy, Signed, Tenant, UnsubscribeLinks

app = typer.Typer(no_args_is_help=True, help="Customers of the ESP: policy and signing keys.")

_HOME = "Give a full address such as https://acme.com/."

Slug = Annotated[str, typer.Argument(help="The tenant's short name, e.g. acme.", show_default=False)]
Patterns = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="host/path glob; repeatable.")]
Switch = Annotated[bool | None, typer.Option(show_default=False)]


@app.command()
def add(
    slug: Slug,
    name: Annotated[str, typer.Option(help="Name shown to people.")] = "",
    home: Annotated[str, typer.Option(help="Where the bare host name leads.")] = "",
    json: Json = False,
) -> None:
    """Add a tenant with a fresh signing key.

    Example: [bold]brandproxy tenant add acme --name "Acme Ltd" --home https://acme.com/[/bold]
    """

    if home and (reason := urls.refusal(home)):
        raise BadInput(f"--home {home!r}: {reason}", _HOME)

    async def work(context: Any) -> Tenant:
        tenant: Tenant = await context.registry.add_tenant(slug, name)
        if home:
            tenant = await context.registry.change_tenant(slug, lambda t: replace(t, home=home), "tenant.set")
        return tenant

    tenant = with_context(work)
    if json:
        print_json(view(tenant))
    else:
        print(f"added tenant {slug}\nnext: brandproxy host add links.example.com --tenant {slug}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List the tenants. Example: [bold]brandproxy tenant list --json[/bold]"""
    tenants = with_context(lambda context: context.registry.tenants())
    if json:
        print_json([view(tenant) for tenant in tenants])
        return
    rows = [(t.slug, t.name, utc(t.created_at), len(t.keys), len(t.origins)) for t in tenants]
    print_table(
        ("tenant", "name", "since", "keys", "origins"),
        rows,
        "No tenants yet. Add one: brandproxy tenant add acme",
    )


@app.command()
def show(slug: Slug, json: Json = False) -> None:
    """Show one tenant: policy, origins, keys (never their secrets).

    Example: [bold]brandproxy tenant show acme[/bold]
    """
    tenant = with_context(lambda context: context.registry.tenant(slug))
    if json:
        print_json(view(tenant))
        return
    rows: list[tuple[str, object]] = [("name", tenant.name), ("home", tenant.home or "a plain page")]
    rows += [(f"policy.{key}", value) for key, value in asdict(tenant.policy).items()]
    rows += [(f"origin.{o.name}", f"{o.url}  ({', '.join(o.public)})") for o in tenant.origins]
    rows += [(f"key {k.number}", "revoked" if k.revoked_at else utc(k.created_at)) for k in tenant.keys]
    print_table(("tenant", slug), rows, "")


@app.command("set")
def set_(
    slug: Slug,
    name: Annotated[str | None, typer.Option()] = None,
    home: Annotated[str | None, typer.Option()] = None,
    clicks: Switch = None,
    assets: Switch = None,
    opens: Switch = None,
    unsubscribe: Switch = None,
    http_when_verified: Switch = None,
    include: Patterns = None,
    exclude: Patterns = None,
    private: Patterns = None,
    leave_url_text: Annotated[bool | None, typer.Option(help="leave links whose text is a URL")] = None,
    unsubscribe_links: Annotated[UnsubscribeLinks | None, typer.Option(help="those in the body")] = None,
    signed: Annotated[Signed | None, typer.Option(help="mail that is DKIM-signed already")] = None,
    max_links: Annotated[int | None, typer.Option(min=0, help="links rewritten in one message at most")] = None,
    token_max_age: Annotated[int | None, typer.Option(min=0, help="seconds a link works; 0: for ever")] = None,
    address_privacy: Annotated[AddressPrivacy | None, typer.Option(help="what is kept of addresses")] = None,
    keep_days: Annotated[
        int | None, typer.Option(min=0, help="days that events are kept; 0: as the operator")
    ] = None,
    json: Json = False,
) -> None:
    """Change a tenant's settings; what is not named stays.

    Example: [bold]brandproxy tenant set acme --opens --private 'app.acme.com/login/*'[/bold]
    """
    policy = {
        "clicks": clicks, "assets": assets, "opens": opens, "unsubscribe": unsubscribe,
        "http_when_verified": http_when_verified, "address_privacy": address_privacy,
        "keep_days": keep_days, "leave_url_text": leave_url_text, "unsubscribe_links": unsubscribe_links,
        "signed": signed, "max_links": max_links, "token_max_age": token_max_age,
        "include": include and tuple(include), "exclude": exclude and tuple(exclude),
        "private": private and tuple(private),
    }  # fmt: skip
    fields = {"name": name, "home": home}
    if home and (reason := urls.refusal(home)):
        raise BadInput(f"--home {home!r}: {reason}", _HOME)

    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, policy=replace(tenant.policy, **_given(policy)), **_given(fields))

    tenant = with_context(lambda context: context.registry.change_tenant(slug, change, "tenant.set"))
    print_json(view(tenant)) if json else print(f"changed tenant {slug}")


@app.command("rotate-key")
def rotate_key(slug: Slug) -> None:
    """Sign new links with a fresh key; mailed links go on working.

    Example: [bold]brandproxy tenant rotate-key acme[/bold]
    """
    tenant = with_context(lambda context: context.registry.rotate_key(slug))
    print(f"tenant {slug} now signs with key {tenant.keys[0].number}; older keys still verify")


@app.command("revoke-key")
def revoke_key(
    slug: Slug, number: Annotated[int, typer.Argument(help="The key's number, from `tenant show`.")]
) -> None:
    """Refuse every link signed with a leaked key, on all edges.

    Example: [bold]brandproxy tenant revoke-key acme 0[/bold]
    """
    with_context(lambda context: context.registry.revoke_key(slug, number))
    print(f"key {number} of tenant {slug} is revoked: its links answer 410 from now on")


@app.command()
def remove(slug: Slug, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a tenant without hosts. Its mailed links die.

    Example: [bold]brandproxy tenant remove acme --yes[/bold]
    """
    if not yes:
        typer.confirm(f"Remove tenant {slug} and its signing keys? Links in its mails stop working", abort=True)
    with_context(lambda context: context.registry.remove_tenant(slug))
    print(f"removed tenant {slug}")


def view(tenant: Tenant) -> dict[str, object]:
    """A tenant for printing: without secrets."""
    data = asdict(tenant)
    data["keys"] = [
        {"number": k.number, "created_at": k.created_at, "revoked_at": k.revoked_at} for k in tenant.keys
    ]
    if data["relay"] is not None:
        del data["relay"]["password"]
    return data


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
