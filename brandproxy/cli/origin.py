"""`brandproxy origin …`: where a tenant's images lie."""

from __future__ import annotations

import json as jsons
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Origin, Tenant

app = typer.Typer(no_args_is_help=True, help="Where a tenant's images lie.")

Slug = Annotated[str, typer.Argument(help="The tenant's short name, e.g. acme.", show_default=False)]
Name = Annotated[str, typer.Argument(help="The origin's name, e.g. media.", show_default=False)]


@app.command()
def add(
    slug: Slug,
    name: Name,
    url: Annotated[str, typer.Argument(help="https://…/, s3://bucket/prefix, gs://…, az://… or file:///…/")],
    public: Annotated[list[str] | None, typer.Option(help="URL prefix mails name it by; repeatable.")] = None,
    failover: Annotated[str, typer.Option(help="Storage of the same kind to read while the first fails.")] = "",
    variant: Annotated[str, typer.Option(help="Form of its images in mails, e.g. w1200-webp.")] = "",
    credentials: Annotated[str, typer.Option(help="File of KEY=VALUE lines, or - for standard input.")] = "",
    json: Json = False,
) -> None:
    """Add an origin, or replace it: mailed images then come from the new place.

    Credentials are sealed in the store. Without them buckets use AWS_*, GOOGLE_* or AZURE_* of the environment.

    Example: [bold]brandproxy origin add acme media https://media.acme.com/ --public https://media.acme.com/[/bold]
    """
    from brandproxy.storage.origins import check

    options = _options(credentials)
    prefixes = tuple(public or ([url] if url.startswith(("http://", "https://")) else []))

    async def work(context: Any) -> Tenant:
        seal = context.registry.codec.seal
        sealed = seal.seal(jsons.dumps(options).encode()).decode() if options else ""
        origin = Origin(name, url, prefixes, failover, sealed, variant)
        check(origin, context.settings.assets.hosts)

        def change(tenant: Tenant) -> Tenant:
            others = tuple(one for one in tenant.origins if one.name != name)
            return replace(tenant, origins=(*others, origin))

        changed: Tenant = await context.registry.change_tenant(slug, change, f"tenant.origin {name}")
        return changed

    tenant = with_context(work)
    if json:
        print_json([view(origin) for origin in tenant.origins])
        return
    print(f"tenant {slug} has origin {name}: {url}")
    if not prefixes:
        print("mails do not name it yet: add --public https://… (the prefix of the images' URLs in mails)")
    print(f"next: brandproxy origin check {slug} {name} PATH")


@app.command("list")
def list_(slug: Slug, json: Json = False) -> None:
    """List a tenant's origins. Example: [bold]brandproxy origin list acme --json[/bold]"""
    tenant = with_context(lambda context: context.registry.tenant(slug))
    if json:
        print_json([view(origin) for origin in tenant.origins])
        return
    rows = [(o.name, o.url, ", ".join(o.public), o.failover, o.variant) for o in tenant.origins]
    print_table(
        ("origin", "storage", "in mails", "failover", "variant"),
        rows,
        f"No origins yet. Add one: brandproxy origin add {slug} media https://media.example.com/",
    )


@app.command()
def check(
    slug: Slug,
    name: Name,
    path: Annotated[str, typer.Argument(help="An object's path; without it only reachability is tried.")] = "",
    json: Json = False,
) -> None:
    """Read an object (or one that cannot be there) from the origin and its failover, as the edge does.

    Example: [bold]brandproxy origin check acme media logo.png[/bold]
    """

    async def work(context: Any) -> list[tuple[str, str, bool]]:
        tenant = await context.registry.tenant(slug)
        origin = next((one for one in tenant.origins if one.name == name), None)
        if origin is None:
            raise NotFound(f"tenant {slug!r} has no origin {name!r}", f"See `brandproxy origin list {slug}`.")
        return await _try(context, slug, origin, path)

    results = with_context(work)
    if json:
        print_json([{"url": url, "result": text, "ok": good} for url, text, good in results])
    else:
        print_table(("storage", "answer"), [(url, text) for url, text, _ in results], "")
    raise typer.Exit(0 if all(good for _, _, good in results) else 1)


@app.command()
def remove(
    slug: Slug, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Remove an origin. Its images in mailed messages are gone.

    Example: [bold]brandproxy origin remove acme media --yes[/bold]
    """
    if not yes:
        typer.confirm(f"Remove origin {name} of {slug}? Its images in mails already sent stop showing", abort=True)

    def change(tenant: Tenant) -> Tenant:
        if name not in {one.name for one in tenant.origins}:
            raise NotFound(f"tenant {slug!r} has no origin {name!r}", f"See `brandproxy origin list {slug}`.")
        return replace(tenant, origins=tuple(one for one in tenant.origins if one.name != name))

    with_context(lambda context: context.registry.change_tenant(slug, change, f"tenant.origin-remove {name}"))
    print(f"tenant {slug} has no origin {name} any more")


@app.command()
def snapshot(slug: Slug) -> None:
    """Copy the images of the mail on standard input within their origins, named by content; print what to mail.

    Mailed copies cannot change or vanish with their originals. Progress goes to standard error.

    Example: [bold]brandproxy origin snapshot acme < in.eml > copies.json[/bold], then
    [bold]brandproxy rewrite --tenant acme --snapshots copies.json < in.eml[/bold]
    """
    from brandproxy.core import snapshot as plan

    message = sys.stdin.buffer.read()

    async def work(context: Any) -> tuple[dict[plan.Item, str], int]:
        from brandproxy.fetch import open_fetcher
        from brandproxy.storage.origins import Origins
        from brandproxy.storage.snapshot import Step, take

        tenant = await context.registry.tenant(slug)
        items = plan.wanted(message, tenant)
        done: list[Step] = []

        def progress(step: Step) -> None:
            done.append(step)
            what = step.fault or (f"{step.written} bytes copied" if step.written else "was copied before")
            print(f"{len(done)}/{len(items)} {step.item[0]} {step.item[1]}: {what}", file=sys.stderr)

        async with open_fetcher(context.settings) as fetcher:
            origins = Origins(context.settings, fetcher, context.registry.codec.seal)
            copies = await take(origins, tenant, items, progress)
        return copies, sum(1 for step in done if step.fault)

    copies, faults = with_context(work)
    print(plan.dump(copies))
    raise typer.Exit(1 if faults else 0)


def view(origin: Origin) -> dict[str, object]:
    """An origin for printing: whether it has credentials, not which."""
    data = asdict(origin)
    data["credentials"] = bool(data.pop("sealed"))
    return data


async def _try(context: Any, slug: str, origin: Origin, path: str) -> list[tuple[str, str, bool]]:
    """(URL, what it answered, whether that is right) of the origin's storage and its failover."""
    from brandproxy.fetch import open_fetcher
    from brandproxy.storage.base import ObjectMissing, StorageFailed, Want
    from brandproxy.storage.origins import Origins, urls

    found = []
    async with open_fetcher(context.settings) as fetcher:
        origins = Origins(context.settings, fetcher, context.registry.codec.seal)
        for url in urls(origin):
            start = time.monotonic()
            try:
                one = replace(origin, url=url, failover="")
                async with origins.open(slug, one, path or "brandproxy-check", Want()) as opened:
                    size = sum([len(chunk) async for chunk in opened.chunks]) if opened else 0
                text, good = f"{size} bytes in {(time.monotonic() - start) * 1000:.0f} ms", True
            except ObjectMissing as error:
                text, good = f"reachable; {error}", not path
            except (StorageFailed, Conflict, BadInput) as error:
                text, good = str(error), False
            found.append((url, text, good))
    return found


def _options(source: str) -> dict[str, str]:
    """KEY=VALUE lines: obstore's names, e.g. `aws_access_key_id=…`. Not from the command line: others see that."""
    if not source:
        return {}
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the credentials: {error}", "Give a file of KEY=VALUE lines, or - ."
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not all("=" in line for line in lines):
        raise BadInput("credentials are KEY=VALUE lines", "E.g. aws_access_key_id=…, one a line.")
    return {key.strip().lower(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
