"""The proof of one message: rewritten in a dry run, restored, and compared by two parsers that are not ours.

A message passes when all hold:
1. rewriting does not raise, and a second pass changes nothing
2. the original comes back byte for byte from the result and its report
3. html5lib's tree and lexbor's serialisation of every HTML part are the same but for our URLs, the pixel and
   removed marks, and where a whole attribute was replaced the URL signed is the one the parser reads
4. nothing in html5lib's tree still points at an origin or an http(s) page unless the report says why, and no line
   of a text part names a page that the report does not
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import brandproxy
from brandproxy.core import encoding, mime, urls
from brandproxy.core.judging import PIXEL
from brandproxy.core.text import MAX_FOUND
from brandproxy.errors import BrandproxyError
from brandproxy.model import Origin, References, Tenant

BASE = "https://links.audit.example"
_REFS = References("audit", "audit-message", "audit-recipient", 1_800_000_000)
_OURS = re.compile(re.escape(BASE) + r"/[acou]/[A-Za-z0-9_-]+(?:\.gif|/[A-Za-z0-9._-]+)?(?:#[A-Za-z0-9_.-]+)?")
_PIXEL = re.compile(re.escape(PIXEL).replace(r"\{\}", re.escape(BASE) + r"/o/[^\"]*"))
_MARKS = re.compile(
    r"data-brandproxy|clicktracking|ses:no-track|data-msys-clicktrack|data-pm-no-track|"
    r"mautic:disable-tracking|data-skip-click"
)
_MARKED = re.compile(rf" (?:{_MARKS.pattern})=\"[^\"]*\"")
_BLANKS = re.compile(r"[\t\r\n]")
Node = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Proof:
    """`faults` is empty when the message passed; `reason` when it was left alone whole."""

    name: str
    size: int
    seconds: float = 0.0
    rewritten: int = 0
    skipped: int = 0
    reason: str = ""
    verdicts: dict[str, int] = field(default_factory=dict)  # of its URLs
    parts: dict[str, int] = field(default_factory=dict)  # left alone, by reason
    faults: list[str] = field(default_factory=list)


def prove(name: str, message: bytes, tenant: Tenant) -> Proof:
    """Rewrite `message` for `tenant` in a dry run and compare. Faults are sentences; nothing is raised."""
    proof = Proof(name, len(message))
    try:
        _prove(proof, message, _with_origins(message, tenant))
    except Exception as error:  # whatever it is, it is the finding
        proof.faults.append(f"crash: {type(error).__name__}: {error}")
    return proof


def _prove(proof: Proof, message: bytes, tenant: Tenant) -> None:
    began = time.perf_counter()
    result = brandproxy.rewrite(message, tenant, _REFS, BASE, _REFS.sent_at)
    proof.seconds = time.perf_counter() - began
    report = result.report
    proof.reason = report.reason or ("already signed" if "already signed" in report.verdicts else "")
    proof.verdicts = report.verdicts
    proof.parts = dict(Counter(part.reason for part in report.parts if part.reason))
    proof.rewritten, proof.skipped = len(report.rewritten), len(report.skipped)
    if _restored(result.message, report) != message:
        proof.faults.append("not restored byte for byte")
    again = brandproxy.rewrite(result.message, tenant, _REFS, BASE, _REFS.sent_at)
    if again.message != result.message:
        proof.faults.append("a second pass changes it again")
    known = [_plain(link.url) for link in report.skipped]
    for before, after in _bodies(message, result, "html", "amp"):
        proof.faults += compare(before, after, {link.new: link.url for link in report.rewritten})
        proof.faults += left_over(after, tenant, set(known))
    for _, after in _bodies(message, result, "plain") if len(known) < MAX_FOUND else ():
        proof.faults += left_in_text(after, known)


def _restored(message: bytes, report: brandproxy.Report) -> bytes:
    try:
        return brandproxy.unrewrite(message, report)
    except BrandproxyError:
        return b""


def _with_origins(message: bytes, tenant: Tenant) -> Tenant:
    """A tenant without origins gets the hosts of the message's own images, so that assets are tried too."""
    if tenant.origins:
        return tenant
    report = brandproxy.rewrite(message, tenant, _REFS, BASE, _REFS.sent_at).report
    hosts = {urls.host_of(link.url) for link in report.skipped if link.verdict == "not an origin"} - {""}
    prefixes = sorted(f"https://{host}/" for host in hosts)
    return replace(tenant, origins=tuple(Origin(f"o{i}", url, (url,)) for i, url in enumerate(prefixes)))


def _bodies(message: bytes, result: brandproxy.Result, *kinds: str) -> Iterator[tuple[str, str]]:
    """The texts, before and after, of the leaves of these kinds that were read."""
    before, after = mime.parse(message).leaves, mime.parse(result.message).leaves
    for old, new in zip(before, after, strict=True):
        if old.kind in kinds and not old.reason:
            try:
                yield encoding.read(message, old).text, encoding.read(result.message, new).text
            except ValueError:
                continue


def compare(before: str, after: str, originals: dict[str, str]) -> list[str]:
    """Why two HTML texts are not the same but for our URLs, by each parser."""
    faults = []
    if before != after:
        old, new = list(nodes(before)), list(nodes(after))
        if len(old) != len(new):
            faults.append(f"html5lib: {len(old)} nodes became {len(new)}")
        fault = next((f for a, b in zip(old, new, strict=False) if (f := _differs(a, b, originals))), "")
        faults += [f"html5lib: {fault}"] if fault else []
        serial = _MARKED.sub("", lexbor(before)), _MARKED.sub("", _PIXEL.sub("", lexbor(after)))
        if not same(*serial):
            faults.append("lexbor: the trees differ")
    return faults


def left_over(after: str, tenant: Tenant, known: set[str]) -> list[str]:
    """URLs that an independent walk still finds at an origin or at a page, and that the report does not name."""
    prefixes = [prefix for origin in tenant.origins for prefix in origin.public]
    faults = []
    for kind, name, attributes in nodes(after):
        for key, value in attributes if kind == "StartTag" or kind == "EmptyTag" else ():
            link = name in ("a", "area") and key == "href"
            asset = (name, key) in _ASSETS or key == "background"
            url = _plain(value)
            points = (link and url.startswith(("http://", "https://"))) or (
                asset and any(url.startswith(prefix) for prefix in prefixes)
            )
            if points and not url.startswith(BASE) and url not in known:
                faults.append(f"left: <{name} {key}> {value[:100]}")
    return faults


def left_in_text(after: str, known: list[str]) -> list[str]:
    """Web addresses on a text's lines that neither are ours nor begin like one the report names."""
    found = (_plain(match[0]) for match in _IN_TEXT.finditer(after))
    others = (url for url in found if not url.startswith(BASE))
    return [
        f"left: {url[:100]}" for url in others if not any(url.startswith(k) or k.startswith(url) for k in known)
    ]


_IN_TEXT = re.compile(r"\bhttps?://(?:[a-z0-9-]+\.)+[a-z]{2,}(?=[/\s,;!)])/?[a-z0-9/_-]*", re.IGNORECASE)
_ASSETS = {("img", "src"), ("video", "poster"), ("source", "src"), ("audio", "src"), ("video", "src")}


def nodes(html: str) -> Iterator[Node]:
    """html5lib's tree as a flat list without our pixel, adjacent text joined."""
    import html5lib

    document = html5lib.parse(html, treebuilder="etree")
    text = ""
    for token in html5lib.getTreeWalker("etree")(document):
        kind = token["type"]
        if kind in ("Characters", "SpaceCharacters"):
            text += token["data"]
            continue
        node = kind, str(token.get("name") or ""), _attributes(token)
        if _is_pixel(node):
            continue
        if text:
            yield "Text", text, ()
            text = ""
        yield node
    if text:
        yield "Text", text, ()


def _attributes(token: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    data = token.get("data")
    if isinstance(data, dict):
        return tuple(sorted((str(name[1]), str(value)) for name, value in data.items()))
    return (("", str(data)),) if data else ()


def lexbor(html: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    return LexborHTMLParser(html).html or ""


def same(before: str, after: str) -> bool:
    """Whether `after` is `before` with some stretches replaced by our URLs: the rest stands there in order."""
    if before == after:
        return True
    first, *others = _OURS.split(after)
    if not others or not before.startswith(first):
        return False
    here = len(first)
    for piece in others[:-1]:
        here = before.find(piece, here)
        if here < 0:
            return False
        here += len(piece)
    return before.endswith(others[-1]) and len(before) - len(others[-1]) >= here


def _differs(old: Node, new: Node, originals: dict[str, str]) -> str:
    """Where two nodes differ by more than our URLs, or ""."""
    if old == new:
        return ""
    if old[0] != new[0] or (old[1] != new[1] and not (old[0] == "Text" and same(old[1], new[1]))):
        return f"{old[0]} {old[1][:60]!r} became {new[0]} {new[1][:60]!r}"
    mine = {key: value for key, value in old[2] if not _MARKS.fullmatch(key)}
    theirs = {key: value for key, value in new[2] if not _MARKS.fullmatch(key)}
    if mine.keys() != theirs.keys():
        return f"<{old[1]}> attributes {sorted(mine)} became {sorted(theirs)}"
    for key, value in theirs.items():
        if not _same_value(mine[key], value, originals):
            return f"<{old[1]} {key}> {mine[key][:80]!r} became {value[:80]!r}"
    return ""


def _same_value(old: str, new: str, originals: dict[str, str]) -> bool:
    """An attribute's value, or a comment's text."""
    if not same(old, new) and not same(_BLANKS.sub("", old), _BLANKS.sub("", new)):
        return False
    signed = originals.get(new)
    return signed is None or _plain(signed).endswith(_plain(old).lstrip("/.").replace("\\", "/")[-40:])


def _plain(url: str) -> str:
    """A URL as browsers compare it: no line ends inside, no blanks around, scheme and host in lower case."""
    url = _BLANKS.sub("", url).strip()
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()


def _is_pixel(node: Node) -> bool:
    return node[1] == "img" and any(key == "src" and value.startswith(f"{BASE}/o/") for key, value in node[2])
