"""`brandproxy cert …`: certificates of the hosts."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brandproxy.cli.common import Json, print_json, print_table, utc, with_context
from brandproxy.context import Context
from brandproxy.errors import BadInput, Conflict, Locked, NotFound

if TYPE_CHECKING:
    from brandproxy.certs.status import CertStatus
    from brandproxy.certs.vault import Certificate

app = typer.Typer(no_args_is_help=True, help="Certificates: they are issued and renewed by themselves.")

Name = Annotated[str, typer.Argument(help="The host name, e.g. links.acme.com.", show_default=False)]


@app.command("list")
def list_(json: Json = False) -> None:
    """List all hosts' certificates, the next to end first. Example: [bold]brandproxy cert list[/bold]"""
    from brandproxy.certs.status import status

    async def work(context: Context) -> list[CertStatus]:
        return [await status(context.store, host.name) for host in await context.registry.hosts()]

    found = sorted(with_context(work), key=lambda one: (one.not_after, one.host))
    if json:
        print_json([asdict(one) for one in found])
        return
    rows = [(one.host, _day(one.not_after), _day(one.renew_at), one.ca or "-", one.error) for one in found]
    print_table(("host", "ends", "renews", "by", "trouble"), rows, "No hosts yet. Add one: brandproxy host add")


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show one host's certificate. Example: [bold]brandproxy cert show links.acme.com[/bold]"""
    from brandproxy.certs.status import status

    async def work(context: Context) -> CertStatus:
        return await status(context.store, (await context.registry.host(name)).name)

    found = with_context(work)
    if json:
        print_json(asdict(found))
        return
    times = ("not_before", "not_after", "renew_at", "next_try_at")
    rows = [(key, _time(value) if key in times else value) for key, value in asdict(found).items()]
    print_table(("certificate", ""), rows, "")


@app.command()
def issue(name: Name, json: Json = False) -> None:
    """Order a host's first certificate now. Example: [bold]brandproxy cert issue links.acme.com[/bold]"""
    _order(name, json, renew=False)


@app.command()
def renew(name: Name, json: Json = False) -> None:
    """Order a new certificate now, whatever the schedule says.

    Example: [bold]brandproxy cert renew links.acme.com[/bold]
    """
    _order(name, json, renew=True)


@app.command("import")
def import_(
    name: Name,
    chain: Annotated[Path, typer.Option(help="PEM file, leaf first.")],
    key: Annotated[Path, typer.Option(help="PEM file of the private key.")],
) -> None:
    """Use an existing certificate.

    Example: [bold]brandproxy cert import links.acme.com --chain f.pem --key k.pem[/bold]
    """
    from brandproxy.certs.exchange import bring

    try:
        texts = chain.read_text(), key.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the certificate: {error}") from error
    found = with_context(lambda context: bring(context, name, *texts))
    print(f"{found.host} has its certificate; it ends {_day(found.not_after)}")


@app.command()
def revoke(
    name: Name, reason: Annotated[int, typer.Option(help="RFC 5280 §5.3.1; 1: the key is compromised.")] = 4
) -> None:
    """Revoke a host's certificate at its CA and forget it; a live host gets a new one by itself.

    Example: [bold]brandproxy cert revoke links.acme.com --reason 1[/bold]
    """
    with_context(lambda context: _revoke(context, name, reason))
    print(f"revoked the certificate of {name}")


@app.command("rotate-account-key")
def rotate_account_key() -> None:
    """Give the ACME account a new key. Example: [bold]brandproxy cert rotate-account-key[/bold]"""

    async def work(context: Context) -> None:
        from brandproxy.certs.accounts import Accounts
        from brandproxy.store.seal import open_seal

        accounts = Accounts(context.store, open_seal(context.settings), context.settings.certs)
        try:
            await accounts.roll_over(_acme(context))
        finally:
            accounts.close()
        await context.registry.audit("acme.rotate-key", context.settings.certs.ca)

    with_context(work)
    print("the account has a new key")


@app.command()
def haproxy() -> None:
    """Print a crt-list for HAProxy in front of us. Example: [bold]brandproxy cert haproxy > crt-list[/bold]"""
    from brandproxy.certs.exchange import crt_list
    from brandproxy.config import load

    print(crt_list(load().certs_directory), end="")


def _order(name: str, json: bool, renew: bool) -> None:
    found = with_context(lambda context: _obtain(context, name, renew))
    shown = {"host": found.host, "serial": found.serial, "not_after": found.not_after, "ca": found.ca}
    print_json(shown) if json else print(f"{found.host} has a certificate until {_day(found.not_after)}")


async def _obtain(context: Context, name: str, renew: bool) -> Certificate:
    from brandproxy.certs import progress
    from brandproxy.certs.devca import DevCA
    from brandproxy.certs.ordering import Orders
    from brandproxy.model import HostState

    host = await context.registry.host(name)
    if not host.proven:
        raise Conflict(f"{host.name} is not proven for {host.tenant}", f"See `brandproxy dns {host.name}`.")
    orders = Orders(context)
    try:
        old = await orders.vault.get(host.name)
        if old is not None and not renew:
            return old
        if context.settings.certs.ca == "dev":
            fresh = DevCA(context.settings.data).issue(host.name, time.time())
            await orders.vault.put(fresh)
        else:
            _acme(context)
            try:
                obtained = await orders.obtain(host, old, force=True)
            except Locked as error:
                raise Locked(f"another process is ordering for {host.name} already") from error
            if obtained is None:
                raise BadInput((await progress.read(context.store, host.name)).error, "See `brandproxy dns HOST`.")
            fresh = obtained
        if host.state is HostState.VERIFIED:
            await context.registry.set_host_state(host.name, HostState.LIVE, "its certificate is there", seen=host)
        return fresh
    finally:
        orders.accounts.close()


async def _revoke(context: Context, name: str, reason: int) -> None:
    from brandproxy.certs.ordering import Orders

    host = await context.registry.host(name)
    orders = Orders(context)
    try:
        found = await orders.vault.get(host.name)
        if found is None:
            raise NotFound(f"{host.name} has no certificate", "See `brandproxy cert list`.")
        if not found.ca.startswith("https://"):
            raise BadInput(f"this certificate is by {found.ca!r}", "Revoke it where it came from.")
        account = await orders.accounts.open(found.ca)
        await account.revoke(found.chain, reason)
        await orders.vault.remove(host.name)
        await context.registry.audit("cert.revoke", host.name, tenant=host.tenant, reason=reason)
    finally:
        orders.accounts.close()


def _acme(context: Context) -> str:
    url = context.settings.certs.ca
    if not url.startswith("https://"):
        raise BadInput(f"certs.ca is {url!r}, not an ACME directory", "Set BRANDPROXY_CERTS_CA to its URL.")
    return url


def _day(seconds: int) -> str:
    return utc(seconds) if seconds else "-"


def _time(seconds: int) -> str:
    return utc(seconds, "%Y-%m-%d %H:%M UTC") if seconds else "-"
