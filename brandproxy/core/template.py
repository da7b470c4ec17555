"""Compiled templates: everything about an HTML body that is the same for all recipients is done once.

Invariant: `render(references)` is what the plain path makes of the same HTML with the same references.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brandproxy.core import encoding, links
from brandproxy.core.judging import PIXEL, Judge, judge_body
from brandproxy.core.mime import Leaf
from brandproxy.core.report import REWRITTEN, Link
from brandproxy.core.tokens import Click, KeyRing, Open, reference_fault
from brandproxy.errors import BadInput
from brandproxy.model import References, Tenant

_PROBE = References("c" * 256, "m" * 256, "r" * 256, 1 << 40)  # as long as references may be


@dataclass(frozen=True, slots=True)
class Template:
    """`links` is the verdict on every URL, as in a Report. Thread-safe; keep one for each campaign."""

    links: tuple[Link, ...]
    _pieces: tuple[str, ...]  # fixed text; a slot lies between each two
    _slots: tuple[Callable[[References], str], ...]

    def render(self, references: References) -> str:
        """The HTML for one recipient. Raises BadInput for a reference that cannot stand in a token."""
        for value in (references.campaign, references.message, references.recipient):
            fault = reference_fault(value)
            if fault:
                raise BadInput(f"reference {value[:40]!r}: {fault}")
        out = [self._pieces[0]]
        for slot, piece in zip(self._slots, self._pieces[1:], strict=True):
            out += (slot(references), piece)
        return "".join(out)


def compile_html(html: str, tenant: Tenant, base_url: str | None, first_link: int = 1) -> Template:
    """`first_link` is the number of the first link, when parts before this one have links too."""
    ring = links.key_ring(tenant.keys)
    base = (base_url or "").rstrip("/")
    blanket = "" if base else "no usable host"
    judge = Judge(tenant, ring, links.Links(ring, base, _PROBE), blanket)
    judge.count = first_link - 1
    leaf = Leaf("1", "text/html", "html", "utf-8", "8bit", 0, 0, reason=encoding.sealed(html))
    outcome = judge_body(judge, leaf, html, tenant.policy.opens)
    by_new = {link.new: link for link in outcome.links if link.verdict == REWRITTEN}
    pieces, slots, here, fixed = [], [], 0, ""
    for edit in outcome.edits:
        fixed += html[here : edit.start]
        here = edit.end
        slot = _slot(ring, base, by_new.get(edit.new), edit.new)
        if slot is None:
            fixed += edit.new
            continue
        pieces.append(fixed)
        slots.append(slot)
        fixed = ""
    pieces.append(fixed + html[here:])
    shown = tuple(link._replace(new="") if link.number else link for link in outcome.links)
    return Template(shown, tuple(pieces), tuple(slots))


def _slot(ring: KeyRing, base: str, link: Link | None, new: str) -> Callable[[References], str] | None:
    """What makes the text of one place for a recipient; None when it is the same for all."""
    if link is not None and link.number:
        url, number, private = link.url, link.number, link.private

        def click(refs: References) -> str:
            payload = Click(url, refs.campaign, refs.message, refs.recipient, number, refs.sent_at, private)
            return f"{base}/c/{ring.mint(payload)}"

        return click
    if link is None and new:

        def opened(refs: References) -> str:
            token = ring.mint(Open(refs.campaign, refs.message, refs.recipient, refs.sent_at))
            return PIXEL.format(f"{base}/o/{token}.gif")

        return opened
    return None
