"""`brandproxy rewrite` and `unrewrite`: one message through a pipe, byte for byte, exit codes of sysexits.h.

What the mail server is told (Postfix `pipe(8)` and its like read the exit code):
1. a message on standard output and 0, changed or not: content we cannot read passes as it is
2. 75 EX_TEMPFAIL: our store is away, or the tenant is not known here (yet); with `mail.on_failure = "pass"` the
   message passes as it is instead
3. with `--login`: what that login may not have rewritten passes unbranded, as at every way in
4. 64 EX_USAGE: nobody said whose message it is; 73 EX_CANTCREAT: the report cannot be written (checked first)
Nothing is written to standard output before it is certain that all of it can be.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from brandproxy.cli.common import print_table, with_context
from brandproxy.errors import BadInput, NotFound, Retryable, lines, told

if TYPE_CHECKING:
    from brandproxy.context import Context
    from brandproxy.core.report import Report, Result
    from brandproxy.model import References, Tenant

app = typer.Typer(no_args_is_help=True)

EX_OK, EX_USAGE, EX_DATAERR, EX_CANTCREAT, EX_TEMPFAIL = 0, 64, 65, 73, 75
DEMO = "demo"


@app.command()
def rewrite(
    tenant: Annotated[
        str, typer.Option(help="Whose mail it is; default: X-Brandproxy-Tenant, of a pipeline of your own.")
    ] = "",
    login: Annotated[
        str | None, typer.Option(help="Who logged in at the mail server (may be empty): decides whose mail it is.")
    ] = None,
    campaign: Annotated[str, typer.Option(help="Campaign reference; default: X-Brandproxy-Campaign.")] = "",
    message: Annotated[str, typer.Option(help="Message reference; default: X-Brandproxy-Message.")] = "",
    recipient: Annotated[str, typer.Option(help="Recipient reference; default: X-Brandproxy-Recipient.")] = "",
    host: Annotated[str, typer.Option(help="Use this host whatever its state.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the report (JSON) to this file.")] = None,
    snapshots: Annotated[
        Path | None, typer.Option(help="Mail these copies of images (see `origin snapshot`).")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Tell every URL's verdict on standard error.")] = False,
) -> None:
    """Rewrite one message from standard input to standard output.

    Example: [bold]brandproxy rewrite --tenant acme --campaign spring < in.eml > out.eml[/bold]
    """
    from brandproxy.model import References

    given = References(campaign, message, recipient)
    copies = _snapshots(snapshots)
    sink = _open_report(report)
    raw = sys.stdin.buffer.read()
    try:
        result = with_context(lambda context: _rewrite(context, raw, tenant, login, given, host, copies))
    except (Retryable, NotFound) as error:
        _give_up(raw, error)
    if sink is not None:
        with sink:
            json.dump(result.report.to_dict(), sink, ensure_ascii=False)
    if explain:
        _explain(result.report)
    _write(result.message)


@app.command()
def unrewrite(
    report: Annotated[Path, typer.Option(help="The report written when the message was rewritten.")],
) -> None:
    """Restore the original message, byte for byte, from a rewritten one and its report.

    Example: [bold]brandproxy unrewrite --report r.json < out.eml > in.eml[/bold]
    """
    import brandproxy

    try:
        data = json.loads(report.read_bytes())
        if not isinstance(data, dict):
            raise BadInput(f"{report} holds no report", "Give the file that `rewrite --report` wrote.")
        original = brandproxy.unrewrite(sys.stdin.buffer.read(), brandproxy.Report.from_dict(data))
    except (OSError, ValueError, BadInput) as error:
        _end(error, EX_DATAERR)
    _write(original)


async def _rewrite(
    context: Context,
    raw: bytes,
    slug: str,
    login: str | None,
    given: References,
    host: str,
    copies: dict[tuple[str, str], str],
) -> Result:
    import brandproxy

    if login is not None:
        slug, reason = await _owner(context, raw, login)
        if not slug:
            return _nobodys(raw, reason)
    slug = slug or brandproxy.control_headers(raw).tenant
    if not slug:
        print(
            "brandproxy: whose message is it?\n  Give --tenant or an X-Brandproxy-Tenant header.", file=sys.stderr
        )
        raise SystemExit(EX_USAGE)
    owner = await _tenant(context, slug)
    base_url = _base_url(context, owner.slug, host)
    return brandproxy.rewrite(raw, owner, given, base_url, int(time.time()), copies)


async def _owner(context: Context, raw: bytes, login: str) -> tuple[str, str]:
    """Whose message this login's is, or "" and why."""
    from brandproxy.filters import control
    from brandproxy.filters.lookup import Hints, Identity, Lookup
    from brandproxy.identities import Book

    said, book = control.read(raw), Book()
    await book.load_for(context.store, login)
    lookup = Lookup(context.directory, context.settings.mail, book)
    verdict = lookup.decide(Identity(login=login), Hints(said.control.tenant, "", said.authors))
    return verdict.tenant, verdict.reason


def _nobodys(raw: bytes, reason: str) -> Result:
    """The message without our control headers."""
    from brandproxy.core.report import Report, Result
    from brandproxy.filters import control

    print(f"brandproxy: nobody's mail: {reason}", file=sys.stderr)
    message = control.strip(raw)
    return Result(message, Report("", "", len(raw), len(message), reason="nobody's"))


async def _tenant(context: Context, slug: str) -> Tenant:
    found = context.directory.tenant(slug)
    if found is None and slug == DEMO:
        from brandproxy import demo

        ensure: Any = getattr(demo, "ensure_demo_tenant", None)
        if ensure is not None:
            await ensure(context)
            await context.directory.load(context.store)
            found = context.directory.tenant(slug)
    if found is None:
        raise NotFound(f"no tenant {slug!r}", "See `brandproxy tenant list`, or add it: `brandproxy tenant add`.")
    return found


def _base_url(context: Context, slug: str, host: str) -> str | None:
    """`--host` whatever its state, else where the tenant's links point now. Raises BadInput for another's host."""
    from brandproxy.core import names
    from brandproxy.directory import https_url

    if not host:
        return context.directory.base_url(slug)
    name = names.hostname(host)
    site = context.directory.claimed(name)
    if site is None:
        print(f"brandproxy: {name} is not a host here; links to it lead nowhere yet", file=sys.stderr)
    elif site.tenant.slug != slug:
        raise BadInput(f"host {name} belongs to another tenant than {slug!r}", "See `brandproxy host list`.")
    return https_url(name, context.settings.edge.public_https_port)


def _give_up(raw: bytes, error: Retryable | NotFound) -> None:
    """Defer the message, or pass it on as it is when the operator prefers that."""
    from brandproxy.config import load

    print(lines(error), file=sys.stderr)
    if load().mail.on_failure != "pass":
        raise SystemExit(EX_TEMPFAIL) from error
    _write(raw)
    raise SystemExit(EX_OK)


def _snapshots(path: Path | None) -> dict[tuple[str, str], str]:
    from brandproxy.core import snapshot

    try:
        return {} if path is None else snapshot.parse(path.read_text())
    except OSError as error:
        raise (told(error) or BadInput(str(error))) from error


def _open_report(path: Path | None) -> Any:
    """The report's file, open for writing before the message is read."""
    if path is None:
        return None
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        _end(error, EX_CANTCREAT)


def _write(message: bytes) -> None:
    try:
        sys.stdout.buffer.write(message)
        sys.stdout.buffer.flush()
    except OSError as error:  # the reader went away: the mail server still has the message
        _end(error, EX_TEMPFAIL)


def _end(error: Exception, status: int) -> NoReturn:
    print(lines(error), file=sys.stderr)
    raise SystemExit(status) from error


def _explain(report: Report) -> None:
    """Every URL, and every part that was left alone, for people, on standard error."""
    from brandproxy.core import reasons

    if report.reason:
        say = f"Left alone: {report.reason} ({reasons.meaning(report.reason)})."
        print(say, file=sys.stderr)
    else:
        rows = [(link.part, link.place, link.verdict, link.url, link.label) for link in report.links]
        print_table(("part", "place", "verdict", "url", "text"), rows, "No URL found.", stderr=True)
        left = [(part.path, part.type, part.reason) for part in report.parts if part.reason]
        if left:
            print_table(("part", "type", "left alone"), left, "", stderr=True)
        for reason in dict.fromkeys([*report.verdicts, *(reason for _, _, reason in left)]):
            if words := reasons.meaning(reason):
                print(f"{reason}: {words}", file=sys.stderr)
    shown = [
        f"a link's text names {link.text_host}, it leads to {link.url}" for link in report.links if link.text_host
    ]
    for note in [*shown, *report.notes]:
        print(f"note: {note}", file=sys.stderr)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.verdicts.items()) or "no URL"
    pixel = "; an open pixel was added" if report.pixel else ""
    print(f"{counts}{pixel}; {report.size} bytes in, {report.new_size} bytes out", file=sys.stderr)
