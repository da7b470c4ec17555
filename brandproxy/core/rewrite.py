"""The rewriter: a message, a tenant and references in; the message with the tenant's links, and a report, out.

Invariant: the result differs from the message in the splices of its report and nowhere else.

Deciding about the message, in order:
1. a header that readers understand differently: left alone whole, control headers too
2. control headers (`X-Brandproxy-*`) are read and removed
3. no host to point at, no usable key, or a DKIM or ARC signature (unless `strip`): every URL is reported and left
4. `List-Unsubscribe`, then each leaf in the order of the message; links share one running number
5. with `strip`, signatures that the changes broke are removed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from brandproxy.core import encoding, headers, links, mime
from brandproxy.core.judging import Judge, judge_body
from brandproxy.core.report import GMAIL_CLIPS_AT, Link, PartReport, Report, Result
from brandproxy.core.splice import Layer, Splice, apply
from brandproxy.core.tokens import reference_fault
from brandproxy.errors import BadInput
from brandproxy.model import References, Tenant

_start = attrgetter("start")
# Parts that are left alone but whose URLs are still worth a line in the report.
_LISTED = {"signed part", "delivery report"}


def rewrite(
    message: bytes,
    tenant: Tenant,
    references: References,
    base_url: str | None,
    now: int,
    snapshots: Mapping[tuple[str, str], str] | None = None,
) -> Result:
    """Rewrite one message for one tenant.

    `base_url` is `https://links.acme.com` (None: no usable host). References given win over the message's
    control headers; `sent_at` 0 means `now`. `snapshots` are copies to mail instead of assets (`core.snapshot`),
    (origin, path) -> path. Raises BadInput for a reference that cannot stand in a token;
    nothing in `message` itself raises.
    """
    structure = mime.parse(message)
    if structure.reason:
        size = len(message)
        return Result(message, Report(tenant.slug, base_url or "", size, size, structure.reason))
    run = _Run(message, tenant, structure, base_url or "")
    run.prepare(references, now, snapshots)
    run.header()
    for leaf in structure.leaves:
        run.leaf(leaf)
    return run.result()


@dataclass(slots=True)
class _Run:
    """One message being rewritten: what is known of it, and what was decided so far."""

    message: bytes
    tenant: Tenant
    structure: mime.Structure
    base_url: str
    judge: Judge = field(init=False)
    found: list[Link] = field(default_factory=list)
    parts: list[PartReport] = field(default_factory=list)
    splices: list[Splice] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pixel: bool = False
    opened: bool = False  # a pixel of ours is in the message, old or new

    def prepare(
        self, references: References, now: int, snapshots: Mapping[tuple[str, str], str] | None = None
    ) -> None:
        control = headers.control(self.message, self.structure.fields)
        refs = self._references(references, control, now)
        ring = links.key_ring(self.tenant.keys)
        mint = links.Links(ring, self.base_url.rstrip("/"), refs, snapshots)
        self.judge = Judge(self.tenant, ring, mint, self._blanket())

    def header(self) -> None:
        """Control headers go; List-Unsubscribe goes through `/u/` (RFC 8058)."""
        fields = self.structure.fields
        self.splices += [
            headers.removal(self.message, item) for item in fields if item.name.startswith(headers.CONTROL)
        ]
        one_click = headers.one_click(fields)
        uris = headers.list_uris(self.message, fields)
        for uri in uris:
            verdict = self.judge.unsubscribe(uri.url, one_click)
            self.found.append(Link("header", "List-Unsubscribe", uri.url, verdict.reason, verdict.new))
            if verdict.new:
                before = self.message[uri.start : uri.end]
                self.splices.append(Splice("header", uri.start, before, verdict.new.encode("ascii")))
        self.judge.list_urls = frozenset(uri.url for uri in uris)

    def leaf(self, leaf: mime.Leaf) -> None:
        reason = leaf.reason
        if leaf.kind and (not reason or reason in _LISTED):
            try:
                self._read(leaf, encoding.read(self.message, leaf))
            except ValueError as error:
                reason = reason or str(error)
        size = leaf.end - leaf.start
        self.parts.append(PartReport(leaf.path, leaf.type, leaf.charset, leaf.encoding, size, reason))

    def _read(self, leaf: mime.Leaf, body: encoding.Body) -> None:
        """Judge the URLs of one body and make the splices of those that are rewritten."""
        wants_pixel = self.tenant.policy.opens and not self.opened and leaf.kind == "html" and not leaf.reason
        outcome = judge_body(self.judge, leaf, body.text, wants_pixel)
        if outcome.edits:
            splices, layer, refused = body.splice(outcome.edits)
            for index in refused:
                outcome.refuse(index, "line too long")
            self.splices += splices
            self.layers += [layer] if layer and splices else []
            self._grown(leaf, len(body.data), splices)
        self.pixel = self.pixel or outcome.pixel
        self.opened = self.opened or outcome.pixel or outcome.opened
        self.found += outcome.links

    def _grown(self, leaf: mime.Leaf, size: int, splices: list[Splice]) -> None:
        new_size = size + sum([len(after) - len(before) for _, _, before, after in splices])
        if leaf.kind == "html" and size <= GMAIL_CLIPS_AT < new_size:
            self.notes.append(
                f"part {leaf.path} grows from {size} to {new_size} bytes: Gmail clips HTML at about 102 KB"
            )

    def result(self) -> Result:
        if self.tenant.policy.signed == "strip" and any(s.part != "header" or s.after for s in self.splices):
            self.splices += [
                headers.removal(self.message, item) for item in self.structure.fields if headers.is_signature(item)
            ]
        self.splices.sort(key=_start)
        message = apply(self.message, self.splices, self.layers) if self.splices else self.message
        report = Report(
            self.tenant.slug, self.base_url, len(self.message), len(message), "", tuple(self.found),
            tuple(self.parts), tuple(self.splices), tuple(self.layers), self.pixel, tuple(self.notes),
        )  # fmt: skip
        return Result(message, report)

    def _blanket(self) -> str:
        """The reason that holds for every URL of the message, or ""."""
        signed = any(headers.is_signature(item) for item in self.structure.fields)
        if signed and self.tenant.policy.signed != "strip":
            return "already signed"
        if not self.base_url:
            return "no usable host"
        return "" if any(key.revoked_at is None for key in self.tenant.keys) else "no usable key"

    def _references(self, given: References, control: headers.Control, now: int) -> References:
        """The references given, else the message's own; a bad one of the message's own is ignored and noted."""
        refs = given if given.sent_at else replace(given, sent_at=now)
        for name in ("campaign", "message", "recipient"):
            value = getattr(given, name)
            fault = reference_fault(value)
            if fault:
                raise BadInput(f"{name} reference: {fault}")
            if not value and (value := getattr(control, name)):
                fault = reference_fault(value)
                if fault:
                    self.notes.append(f"X-Brandproxy-{name.title()} ignored: {fault}")
                else:
                    refs = replace(refs, **{name: value})
        return refs
