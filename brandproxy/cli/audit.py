"""`brandproxy audit`: what an ESP runs on its own archive before trusting us with its mail."""

from __future__ import annotations

import mailbox
import mimetypes
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brandproxy.cli.common import Json, print_json, print_table, with_context
from brandproxy.errors import NotFound

if TYPE_CHECKING:
    from brandproxy.cli.proof import Proof
    from brandproxy.model import Tenant

app = typer.Typer(no_args_is_help=True)

_BINARY = ("image", "audio", "video", "application", "font")


@app.command()
def audit(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Messages, HTML files, mboxes, folders.")],
    tenant: Annotated[str, typer.Option(help="Audit with this tenant's policy and origins.")] = "",
    json: Json = False,
) -> None:
    """Rewrite every message in a dry run and prove that nothing but URLs changes. Nothing is sent or written.

    Exit status 0 only when every message passes.

    Example: [bold]brandproxy audit ~/archive/2026-11[/bold]
    """
    owner = _tenant(tenant)
    sources = [source for path in paths for source in _sources(path)]
    proofs = list(_run(sources, owner, quiet=json))
    if json:
        print_json({"summary": _summary(proofs), "messages": [asdict(proof) for proof in proofs]})
    else:
        _print(proofs)
    raise SystemExit(1 if any(proof.faults for proof in proofs) or not proofs else 0)


def _tenant(slug: str) -> Tenant:
    """The named tenant, or one made up for the occasion with every feature on."""
    import brandproxy

    if not slug:
        return brandproxy.tenant("audit", b"a key for dry runs only", policy=brandproxy.Policy(opens=True))

    async def find(context: Any) -> Tenant:
        found: Tenant | None = context.directory.tenant(slug)
        if found is None:
            raise NotFound(f"no tenant {slug!r}")
        return found

    found = with_context(find)
    return replace(found, policy=replace(found.policy, token_max_age=0))


def _sources(path: Path) -> Iterator[Path]:
    """The files to audit, in order; pictures and archives are none."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _sources(child)
        return
    if not path.exists():
        raise NotFound(f"{path} does not exist", "Name files or folders with messages.")
    guessed = mimetypes.guess_type(path.name)[0] or ""
    if not guessed.startswith(_BINARY) or guessed == "application/mbox":
        yield path


def _messages(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file's messages by name: every message of an mbox, an HTML or text file as the body of one."""
    raw = path.read_bytes()
    if raw.startswith(b"From ") and (raw.count(b"\nFrom ") or path.suffix == ".mbox"):
        with closing(mailbox.mbox(path, create=False)) as box:
            for number, key in enumerate(box.keys(), 1):
                yield f"{path}#{number}", box.get_bytes(key)
        return
    yield str(path), as_message(raw, path.suffix.lower())


def as_message(raw: bytes, suffix: str) -> bytes:
    """HTML, and text that is no message, as the body of one."""
    from brandproxy.core import mime

    html = suffix in (".html", ".htm") or raw.lstrip()[:1] == b"<"
    if not html and (suffix != ".txt" or not mime.parse(raw).reason):
        return raw
    try:
        raw.decode("utf-8")
        charset = b"utf-8"
    except UnicodeDecodeError:
        charset = b"windows-1252"
    kind = b"html" if html else b"plain"
    head = b"Content-Type: text/%s; charset=%s\nContent-Transfer-Encoding: 8bit\n\n" % (kind, charset)
    return head + raw


def _run(sources: list[Path], owner: Tenant, quiet: bool) -> Iterator[Proof]:
    from rich.progress import Progress

    from brandproxy.cli.proof import prove

    with Progress(transient=True, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("auditing", total=len(sources))
        for source in sources:
            for name, message in _messages(source):
                yield prove(name, message, owner)
            progress.advance(task)


def _summary(proofs: list[Proof]) -> dict[str, Any]:
    seconds = sum(proof.seconds for proof in proofs)
    return {
        "messages": len(proofs),
        "passed": sum(not proof.faults for proof in proofs),
        "changed": sum(proof.rewritten > 0 for proof in proofs),
        "rewritten_urls": sum(proof.rewritten for proof in proofs),
        "skipped_urls": sum(proof.skipped for proof in proofs),
        "left_alone": dict(Counter(proof.reason for proof in proofs if proof.reason).most_common()),
        "verdicts": _added(proof.verdicts for proof in proofs),
        "parts_left_alone": _added(proof.parts for proof in proofs),
        "bytes": sum(proof.size for proof in proofs),
        "seconds": round(seconds, 3),
    }


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())


def _print(proofs: list[Proof]) -> None:
    from brandproxy.core import reasons
    from brandproxy.core.report import REWRITTEN

    rows = [(proof.name, fault) for proof in proofs for fault in proof.faults]
    if rows:
        print_table(("message", "fault"), rows, "")
    total = _summary(proofs)
    if not proofs:
        print("Nothing to audit: no message found there.")
        return
    print(
        f"{total['passed']} of {total['messages']} messages pass: restored byte for byte, trees equal by html5lib "
        f"and lexbor, nothing left behind.\n{total['changed']} were changed ({total['rewritten_urls']} URLs), "
        f"{total['skipped_urls']} URLs were left with a reason."
    )
    kinds = (("messages", "left_alone"), ("parts", "parts_left_alone"), ("URLs", "verdicts"))
    left = [
        (count, what, reason, reasons.meaning(reason))
        for what, kind in kinds
        for reason, count in total[kind].items()
        if reason != REWRITTEN
    ]
    if left:
        print_table(("count", "left alone", "reason", "meaning"), left, "")
    slowest = max(proofs, key=lambda proof: proof.seconds)
    mean = total["seconds"] * 1000 / len(proofs)
    print(f"{mean:.2f} ms a message; slowest {slowest.seconds * 1000:.1f} ms ({slowest.name})")
