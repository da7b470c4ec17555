"""A verdict for every URL of a body, and the edits of those that are rewritten.

Deciding about one URL, in order (the first that holds is its verdict):
1. the reason its whole message or part is left alone
2. `already ours`: it carries a valid token of this tenant
3. `opted out`: the sender marked it or an ancestor
4. what `policy.judge` or `policy.asset` says
5. `text names another host`, when the tenant leaves those alone
6. `over the link cap`
7. `rewritten`
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from html import unescape

from brandproxy.core import html, links, policy, text, urls
from brandproxy.core.mime import Leaf
from brandproxy.core.report import REWRITTEN, Link
from brandproxy.core.splice import Edit
from brandproxy.core.tokens import KeyRing
from brandproxy.errors import BadInput
from brandproxy.model import Tenant

MAX_CONTENT = 600  # characters of a link's content kept for its label
_TAG = re.compile(r"<[^<>]*>")
_URL_TEXT = re.compile(r"(?:https?://|www\.)[^\s/?#]+\S*|(?:[\w-]+\.)+[A-Za-z]{2,}(?:[/?#]\S*)?", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\s[A-Za-z:_-]{1,40}\s*=\s*[\"']\Z")
PIXEL = '<img src="{}" width="1" height="1" alt="" style="display:block;width:1px;height:1px;border:0">'


@dataclass(slots=True)
class Judge:
    """Decides for one message; counts its links."""

    tenant: Tenant
    ring: KeyRing
    mint: links.Links
    blanket: str
    list_urls: set[str] = field(default_factory=set)
    count: int = 0  # links rewritten so far

    def link(self, found: Link, blanket: str = "", off: str = "", amp: bool = False) -> Link:
        """`found` with its verdict: a link to a page."""
        blanket = blanket or self.blanket
        reason = blanket or self._left_alone(found, off)
        if amp and not reason and found.url[:6].lower() != "https:":
            reason = "AMP needs https"
        if reason:
            return replace(found, verdict=reason)
        private = found.private or policy.matches(self.tenant.policy.private, found.url)
        try:
            new = self.mint.click(found.url, self.count + 1, private)
        except BadInput:
            return replace(found, verdict="too long")
        self.count += 1
        return replace(found, verdict=REWRITTEN, new=new, number=self.count, private=private)

    def _left_alone(self, found: Link, off: str) -> str:
        wants = self.tenant.policy
        if links.ours(self.ring, found.url) is not None:
            return "already ours"
        reason = "opted out" if off else policy.judge(wants, found.url)
        if reason:
            return reason
        if found.text_host and wants.leave_url_text:
            return "text names another host"
        return "over the link cap" if self.count >= wants.max_links else ""

    def asset(self, found: Link, blanket: str = "", off: str = "") -> Link:
        """`found` with its verdict: an image or another asset."""
        reason = blanket or self.blanket
        if not reason and links.ours(self.ring, found.url) is not None:
            reason = "already ours"
        reason = reason or ("opted out" if off else "")
        where = reason or policy.asset(self.tenant.policy, self.tenant.origins, found.url)
        if isinstance(where, str):
            return replace(found, verdict=where)
        try:
            return replace(found, verdict=REWRITTEN, new=self.mint.asset(*where))
        except BadInput:
            return replace(found, verdict="too long")

    def unsubscribe(self, url: str, one_click: bool) -> Link:
        """The verdict on a URI of List-Unsubscribe. RFC 8058 §3.1: one-click needs https."""
        found = Link("header", "List-Unsubscribe", url, "")
        reason = self.blanket or ("already ours" if links.ours(self.ring, url) else urls.refusal(url) or "")
        if not reason and not self.tenant.policy.unsubscribe:
            reason = "unsubscribe off"
        if not reason and policy.matches(self.tenant.policy.exclude, url):
            reason = "excluded"
        if not reason and one_click and not self.mint.secure:
            reason = "one-click needs https"
        if reason:
            return replace(found, verdict=reason)
        try:
            return replace(found, verdict=REWRITTEN, new=self.mint.unsubscribe(url))
        except BadInput:
            return replace(found, verdict="too long")


@dataclass(slots=True)
class Outcome:
    """The URLs of one body with their verdicts, and the edits, in order; `_of` maps edits to links."""

    links: list[Link] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    pixel: bool = False
    _of: dict[int, int] = field(default_factory=dict)

    def add(self, link: Link, start: int, end: int, in_tag: bool = False) -> None:
        self.links.append(link)
        if link.verdict == REWRITTEN:
            self._of[len(self.edits)] = len(self.links) - 1
            self.edits.append(Edit(start, end, link.new, in_tag))

    def refuse(self, edit: int, reason: str) -> None:
        """An edit that the transfer encoding cannot hold."""
        if edit in self._of:
            index = self._of[edit]
            self.links[index] = replace(self.links[index], verdict=reason, new="", number=0)
        else:
            self.pixel = False


def body_candidates(judge: Judge, leaf: Leaf, body: str, wants_pixel: bool) -> Outcome:
    """Every URL of a decoded body. `wants_pixel`: end an HTML body with the open pixel, if it can be."""
    if leaf.kind == "plain":
        return _plain(judge, leaf, body)
    return _html(judge, leaf, body, wants_pixel)


def _plain(judge: Judge, leaf: Leaf, body: str) -> Outcome:
    outcome = Outcome()
    for found in text.find(body, leaf.flowed, leaf.delsp):
        blanket = leaf.reason or ("no scheme" if found.bare else "")
        link = judge.link(Link(leaf.path, "text", found.url, ""), blanket)
        outcome.add(link, found.start, found.end)
    return outcome


def _html(judge: Judge, leaf: Leaf, body: str, wants_pixel: bool) -> Outcome:
    outcome = Outcome()
    scan = html.scan(body)
    opened = False
    for found in scan.found:
        link = Link(leaf.path, found.place, found.url, "", private=found.private)
        if found.role == "asset":
            link = judge.asset(link, leaf.reason, found.off)
            opened = opened or (link.verdict == "already ours" and "/o/" in found.url)
        else:
            content = body[found.content[0] : min(found.content[1], found.content[0] + MAX_CONTENT)]
            link = replace(link, content=content, text_host=_names_another(content, found.url))
            link = judge.link(link, leaf.reason, found.off, leaf.kind == "amp")
        in_tag = bool(_ATTRIBUTE.search(body, max(0, found.start - 60), found.start))
        outcome.add(link, found.start, found.end, in_tag)
    if judge.blanket or leaf.reason:
        return outcome
    outcome.edits += [Edit(start, end, "") for start, end in scan.markers]
    if wants_pixel and scan.pixel_at is not None and not opened:
        outcome.edits.append(Edit(scan.pixel_at, scan.pixel_at, PIXEL.format(judge.mint.open())))
        outcome.pixel = True
    _sort(outcome)
    return outcome


def _sort(outcome: Outcome) -> None:
    """Edits in the order of their places; `_of` goes along."""
    order = sorted(range(len(outcome.edits)), key=lambda i: outcome.edits[i].start)
    outcome._of = {new: outcome._of[old] for new, old in enumerate(order) if old in outcome._of}
    outcome.edits = [outcome.edits[old] for old in order]


def _names_another(content: str, url: str) -> str:
    """The host that the visible text names, when it is a URL of another host than `url`."""
    if "." not in content:
        return ""
    shown = unescape(_TAG.sub("", content)).strip()
    if not _URL_TEXT.fullmatch(shown):
        return ""
    named = urls.host_of(shown if "://" in shown else f"http://{shown}").removeprefix("www.")
    return named if named and named != urls.host_of(url).removeprefix("www.") else ""
