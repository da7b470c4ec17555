"""A verdict for every URL of a body, and the edits of those that are rewritten.

Deciding about one URL, in order (the first that holds is its verdict):
1. the reason its whole message or part is left alone; an HTML body that holds a link made for this message was
   `already processed`: marks in it are gone, so its other URLs stay as they are
2. `already ours`: it carries a valid token of this tenant
3. `opted out`: the sender marked it or an ancestor
4. what `policy.judge` or `policy.asset` says
5. `text names another host`, when the tenant leaves those alone
6. `over the link cap`
7. `rewritten`
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import NamedTuple

from brandproxy.core import html, links, objects, policy, text, urls
from brandproxy.core.mime import Leaf
from brandproxy.core.report import REWRITTEN, Link
from brandproxy.core.splice import Edit
from brandproxy.core.tokens import KeyRing, Open
from brandproxy.errors import BadInput
from brandproxy.model import Tenant

MAX_CONTENT = 600  # characters of a link's content kept for its label
_TAG = re.compile(r"<[^<>]*>")
_URL_TEXT = re.compile(r"(?:https?://|www\.)[^\s/?#]+\S*|(?:[\w-]+\.)+[A-Za-z]{2,}(?:[/?#]\S*)?", re.IGNORECASE)
PIXEL = '<img src="{}" width="1" height="1" alt="" style="display:block;width:1px;height:1px;border:0">'


class Verdict(NamedTuple):
    reason: str  # `rewritten`, or why the URL is left alone
    new: str = ""
    number: int = 0
    private: bool = False


@dataclass(slots=True)
class Judge:
    """Decides for one message; counts its links. `blanket` is the reason that holds for all of it."""

    tenant: Tenant
    ring: KeyRing
    mint: links.Links
    blanket: str
    list_urls: frozenset[str] = frozenset()  # what List-Unsubscribe names
    count: int = 0  # links rewritten so far
    refusal: Callable[[str], str] = field(init=False)  # why the tenant's policy leaves a link alone, or ""

    def __post_init__(self) -> None:
        self.refusal = policy.judging(self.tenant.policy)

    def link(self, url: str, ours: bool, private: bool, off: str, text_host: str) -> Verdict:
        """A link to a page. `ours`: it carries a valid token of this tenant."""
        wants = self.tenant.policy
        if ours and not self.blanket:
            self.count += 1  # it counts towards the cap on every pass
            return Verdict("already ours")
        reason = self.blanket or ("opted out" if off else self.refusal(url))
        if not reason and text_host and wants.leave_url_text:
            reason = "text names another host"
        if not reason and wants.unsubscribe_links != "click" and self._unsubscribes(url):
            reason, private = "unsubscribe link" if wants.unsubscribe_links == "leave" else "", True
        if not reason and self.count >= wants.max_links:
            reason = "over the link cap"
        if reason:
            return Verdict(reason)
        private = private or bool(wants.private and policy.matches(wants.private, url))
        try:
            new = self.mint.click(url, self.count + 1, private)
        except BadInput:
            return Verdict("too long")
        self.count += 1
        return Verdict(REWRITTEN, new, self.count, private)

    def asset(self, url: str, ours: bool, off: str) -> Verdict:
        """An image or another asset."""
        reason = self.blanket or ("already ours" if ours else "")
        reason = reason or ("opted out" if off else "")
        where = reason or policy.asset(self.tenant.policy, self.tenant.origins, url)
        if isinstance(where, str):
            return Verdict(where)
        try:
            return Verdict(REWRITTEN, self.mint.asset(*where, objects.minted(self.tenant.origins, *where[:2])))
        except BadInput:
            return Verdict("too long")

    def unsubscribe(self, url: str, one_click: bool) -> Verdict:
        """A URI of List-Unsubscribe. RFC 8058 §3.1: one-click needs https."""
        wants = self.tenant.policy
        reason = self.blanket or ("already ours" if links.ours(self.ring, url) else policy.refusal(url))
        if not reason and not wants.unsubscribe:
            reason = "unsubscribe off"
        if not reason and wants.exclude and policy.matches(wants.exclude, url):
            reason = "excluded"
        if not reason and one_click and not self.mint.secure:
            reason = "one-click needs https"
        if reason:
            return Verdict(reason)
        try:
            return Verdict(REWRITTEN, self.mint.unsubscribe(url))
        except BadInput:
            return Verdict("too long")

    def part(self, reason: str, ours: bool) -> Verdict:
        """A URL in a part that is left alone for `reason`."""
        return Verdict("already ours" if ours else reason)

    def _unsubscribes(self, url: str) -> bool:
        return url in self.list_urls or policy.unsubscribes(url)


@dataclass(slots=True)
class Outcome:
    """The URLs of one body with their verdicts, and the edits, in order; `of` maps edits to links."""

    links: list[Link] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    pixel: bool = False  # one of the edits is the pixel
    opened: bool = False  # a pixel of ours was there already
    of: dict[int, int] = field(default_factory=dict)

    def add(self, link: Link, start: int, end: int) -> None:
        self.links.append(link)
        if link.verdict == REWRITTEN:
            self.of[len(self.edits)] = len(self.links) - 1
            self.edits.append(Edit(start, end, link.new))

    def refuse(self, edit: int, reason: str) -> None:
        """An edit that the transfer encoding cannot hold."""
        if edit in self.of:
            index = self.of[edit]
            self.links[index] = self.links[index]._replace(verdict=reason, new="", number=0)
        elif self.edits[edit].new:
            self.pixel = False

    def sort(self) -> None:
        """Edits in the order of their places; `of` goes along."""
        order = sorted(range(len(self.edits)), key=lambda i: self.edits[i].start)
        self.of = {new: self.of[old] for new, old in enumerate(order) if old in self.of}
        self.edits = [self.edits[old] for old in order]


def judge_body(judge: Judge, leaf: Leaf, body: str, wants_pixel: bool) -> Outcome:
    """Every URL of a decoded body. `wants_pixel`: end an HTML body with the open pixel, if it can be."""
    if leaf.kind == "plain":
        return _plain(judge, leaf, body)
    return _html(judge, leaf, body, html.scan(body), wants_pixel)


def _plain(judge: Judge, leaf: Leaf, body: str) -> Outcome:
    outcome = Outcome()
    for found in text.find(body, leaf.flowed, leaf.delsp):
        reason = leaf.reason or found.fault
        ours = links.ours(judge.ring, found.url) is not None
        verdict = Verdict(reason) if reason else judge.link(found.url, ours, False, "", "")
        link = Link(leaf.path, "text", found.url, verdict.reason, verdict.new, verdict.number, verdict.private)
        outcome.add(link, found.start, found.end)
    return outcome


def _html(judge: Judge, leaf: Leaf, body: str, scan: html.Scan, wants_pixel: bool) -> Outcome:
    outcome = Outcome()
    carried = [links.ours(judge.ring, found.url) for found in scan.found]
    reason = leaf.reason
    if not reason and any(judge.mint.made(payload) for payload in carried if payload):
        reason = "already processed"  # opt-out marks are gone then
    for found, payload in zip(scan.found, carried, strict=True):
        decide = _asset if found.role == "asset" else _link
        outcome.add(decide(judge, leaf, reason, found, payload is not None, body), found.start, found.end)
        if isinstance(payload, Open):
            outcome.opened = True
    if judge.blanket or reason:
        return outcome
    outcome.edits += [Edit(start, end, "") for start, end in scan.markers]
    if wants_pixel and scan.pixel_at is not None and not outcome.opened and not body.isspace() and body:
        outcome.edits.append(Edit(scan.pixel_at, scan.pixel_at, PIXEL.format(judge.mint.open())))
        outcome.pixel = True
    if scan.markers or outcome.pixel:
        outcome.sort()
    return outcome


def _asset(judge: Judge, leaf: Leaf, reason: str, found: html.Found, ours: bool, body: str) -> Link:
    verdict = judge.part(reason, ours) if reason else judge.asset(found.url, ours, found.off)
    return Link(leaf.path, found.place, found.url, verdict.reason, verdict.new)


def _link(judge: Judge, leaf: Leaf, reason: str, found: html.Found, ours: bool, body: str) -> Link:
    _, _, url, place, _, off, private, (start, end) = found
    content = body[start : min(end, start + MAX_CONTENT)]
    named = _names_another(content, url) if "." in content else ""
    if leaf.kind == "amp" and not reason and url[:5].lower() == "http:":
        reason = "AMP needs https"
    if place in html.FORMS:
        reason = reason or "form fields would be lost"  # they replace the query; no query reaches a Location
    verdict = judge.part(reason, ours) if reason else judge.link(url, ours, private, off, named)
    return Link(
        leaf.path, place, url, verdict.reason, verdict.new, verdict.number, verdict.private or private, named,
        content,
    )  # fmt: skip


def _names_another(content: str, url: str) -> str:
    """The host that the visible text names, when it is a URL of another host than `url`."""
    shown = content.strip()
    if "<" in shown or "&" in shown:
        shown = unescape(_TAG.sub("", shown)).strip()
    if not _URL_TEXT.fullmatch(shown):
        return ""
    named = urls.host_of(shown if "://" in shown else f"http://{shown}").removeprefix("www.")
    return named if named and named != urls.host_of(url).removeprefix("www.") else ""
