"""`brandproxy mail map …`: which login at the mail server may send for which tenants."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.errors import BadInput
from brandproxy.grants import ANY, Grant, grant

app = typer.Typer(no_args_is_help=True, help="Whose mail the logins at your mail server send.")
_map = typer.Typer(no_args_is_help=True, help="The map of logins; in force at all filters within 2 s.")
app.add_typer(_map, name="map")

Login = Annotated[str, typer.Argument(help="`user`, `user@domain` or `*@domain`.", show_default=False)]


@_map.command()
def add(
    login: Login,
    tenant: Annotated[list[str], typer.Option(help="It may send for this one; again for more; `*`: any.")],
    domain: Annotated[
        list[str] | None, typer.Option(help="It may send from this domain only; again for more.")
    ] = None,
    header: Annotated[bool, typer.Option(help="Believe its X-Brandproxy-Tenant, within its tenants.")] = False,
) -> None:
    """Say what a login may send for.

    Example: [bold]brandproxy mail map add shop-b@beta.example --tenant beta[/bold]
    """
    from brandproxy import identities

    try:
        given = grant({"tenants": tenant, "domains": domain or [], "header": header})
    except ValueError as error:
        raise BadInput(str(error)) from error

    async def work(context: Any) -> str:
        for slug in given.tenants:
            if slug != ANY:
                await context.registry.tenant(slug)
        name = await identities.add(context.store, login, given)
        await context.registry.audit("identity.add", name, tenants=list(given.tenants))
        return name

    print(f"{with_context(work)} sends for {', '.join(given.tenants)}")


@_map.command(name="list")
def list_(json: Json = False) -> None:
    """All logins on the map.

    Example: [bold]brandproxy mail map list[/bold]
    """
    from brandproxy import identities

    found: dict[str, Grant] = with_context(lambda context: identities.everything(context.store))
    if json:
        print_json([{"login": name, **asdict(given)} for name, given in found.items()])
        return
    rows = [
        (name, ", ".join(g.tenants), ", ".join(g.domains), "believed" if g.header else "")
        for name, g in found.items()
    ]
    print_table(("login", "tenants", "sends from", "header"), rows, "The map is empty.")


@_map.command()
def remove(login: Login) -> None:
    """Take a login off the map: its mail is nobody's.

    Example: [bold]brandproxy mail map remove shop-b@beta.example[/bold]
    """
    from brandproxy import identities

    async def work(context: Any) -> str:
        name = await identities.remove(context.store, login)
        await context.registry.audit("identity.remove", name)
        return name

    print(f"{with_context(work)} is no longer on the map")
