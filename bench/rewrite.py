"""Messages a second, beside what people use today: `make bench-rewrite`.

The mails are the corpus' own HTML messages and templates of 8 to 150 KB (`BRANDPROXY_CORPUS`); placeholders that
stand for a link are filled in, as a pipeline does before our turn. Every peer gets the decoded HTML and signs
every link with the same `KeyRing`; we get the whole message and also read MIME, decide by policy, and report.
CPU time, interleaved, medians over rounds; process-wide caches are as warm for us as for the peers.

    plain     brandproxy.rewrite of a whole message    compiled   Template.render for one recipient
    sign      minting the message's links and nothing else

The note says what a peer keeps: mails whose bytes outside the new URLs are all still there, in order, and how
many of our links (Outlook comments, CSS, srcset …) it found.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import brandproxy
from bench.report import Row, against, show
from brandproxy.core import encoding, links, mime
from brandproxy.core.tokens import Click
from brandproxy.model import References, Tenant

BASE = "https://links.acme.example"
NOW = 1_764_000_000
REFS = References("spring-2026", "m-000123456", "r-9f8e7d6c5b4a", NOW)
CORPUS = Path(os.environ.get("BRANDPROXY_CORPUS", Path(__file__).parent.parent.parent / "shared" / "corpus"))
ROUNDS = int(os.environ.get("BRANDPROXY_BENCH_ROUNDS", "5"))
_EMPTY = re.compile(r"""(\shref=")(?:#|https?://|\{\{[^"]*\}\}|\[[^"]*\]|<%[^"]*%>)(")""")
_OURS = re.compile(re.escape(BASE) + r"/[ac]/[A-Za-z0-9_-]+(?:/[A-Za-z0-9._-]+)?")

Rewriter = Callable[[str], str]
Swap = Callable[[str, str, int], str]  # attribute, URL, link number → the new URL


@dataclass(frozen=True, slots=True)
class Mail:
    message: bytes
    html: str
    urls: tuple[str, ...]  # the links that the plain path rewrites
    template: brandproxy.Template


def main() -> None:
    tenant = _tenant()
    mails = _mails(tenant)
    if not mails:
        sys.exit(f"no mails at {CORPUS}: set BRANDPROXY_CORPUS to a folder of mails")
    size = sum(len(mail.message) for mail in mails) / len(mails) / 1000
    count = sum(len(mail.urls) for mail in mails) / len(mails)
    print(f"{len(mails)} mails, {size:.1f} KB and {count:.1f} signed links on average, {ROUNDS} rounds\n")
    peers = _peers(tenant)
    rates = _measure(mails, tenant, peers)
    show("rewrite", _rows(mails, rates, peers, size), sys.argv)


def _tenant() -> Tenant:
    origins = {"media": "https://cdn.acme.example/"}
    return brandproxy.tenant("acme", b"k" * 32, origins=origins, policy=brandproxy.Policy(unsubscribe=False))


def _mails(tenant: Tenant) -> list[Mail]:
    mails = []
    for path in sorted(CORPUS.rglob("*")):
        if path.suffix in (".eml", ".html") and 8_000 < path.stat().st_size < 150_000:
            html = _html(path)
            if html is None:
                continue
            head = b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            message = head + html.encode("utf-8", "replace")
            report = brandproxy.rewrite(message, tenant, REFS, BASE, NOW).report
            urls = tuple(link.url for link in report.rewritten if link.number)
            if len(urls) >= 5:
                mails.append(Mail(message, html, urls, brandproxy.compile(html, tenant, BASE)))
    return mails


def _html(path: Path) -> str | None:
    """The first HTML body of a file, with links where the template has placeholders for them."""
    raw = path.read_bytes()
    if path.suffix == ".html":
        text = raw.decode("utf-8", "replace")
    else:
        leaves = [leaf for leaf in mime.parse(raw).leaves if leaf.kind == "html" and not leaf.reason]
        try:
            text = encoding.read(raw, leaves[0]).text
        except (ValueError, IndexError):
            return None
    numbers = iter(range(10_000))
    query = "utm_source=newsletter&amp;utm_medium=email&amp;utm_campaign=spring"
    return _EMPTY.sub(lambda m: f"{m[1]}https://www.acme.example/p/{next(numbers)}?{query}{m[2]}", text)


def _measure(mails: list[Mail], tenant: Tenant, peers: dict[str, Rewriter]) -> dict[str, list[float]]:
    """Messages a second of CPU, by contender and round."""
    ring = links.key_ring(tenant.keys)

    def plain(mail: Mail) -> object:
        return brandproxy.rewrite(mail.message, tenant, REFS, BASE, NOW)

    def compiled(mail: Mail) -> object:
        return mail.template.render(REFS)

    def sign(mail: Mail) -> object:
        return [
            ring.mint(Click(url, REFS.campaign, REFS.message, REFS.recipient, number, NOW))
            for number, url in enumerate(mail.urls, 1)
        ]

    def peer(rewriter: Rewriter) -> Callable[[Mail], object]:
        return lambda mail: rewriter(mail.html)

    contenders: dict[str, Callable[[Mail], object]] = {"plain": plain, "compiled": compiled, "sign": sign}
    contenders |= {name: peer(rewriter) for name, rewriter in peers.items()}
    rates: dict[str, list[float]] = defaultdict(list)
    for round_ in range(ROUNDS + 1):
        for name, work in contenders.items():
            repeat = 20 if name in ("compiled", "sign") else 3 if name == "plain" else 1
            start = time.process_time()
            for _ in range(repeat):
                for mail in mails:
                    work(mail)
            if round_:  # the first warms up
                rates[name].append(repeat * len(mails) / (time.process_time() - start))
    return rates


def _rows(mails: list[Mail], rates: dict[str, list[float]], peers: dict[str, Rewriter], size: float) -> list[Row]:
    unit = "messages/s"
    rows = [against("plain", unit, rates["plain"], name, rates[name]) for name in peers]
    rows = [Row(r.case, r.value, r.unit, r.peer, r.ratio, _kept(mails, peers[r.peer])) for r in rows]
    rows += [against("compiled", unit, rates["compiled"], name, rates[name]) for name in ("plain", "sign", *peers)]
    rows += [against("sign", unit, rates["sign"], "plain", rates["plain"])]
    each = sum(len(mail.urls) for mail in mails) / len(mails)
    fifty = 50 / (each * rows[-1].value) * 1000
    rows.append(Row("sign-50-links", fifty, "ms", note="of a typical mail; the promise is 0.5"))
    rows.append(Row("plain-throughput", rows[0].value * size / 1000, "MB/s"))
    return rows


def _kept(mails: list[Mail], rewriter: Rewriter) -> str:
    whole = found = total = 0
    for mail in mails:
        ours = len(_OURS.findall(brandproxy.rewrite(mail.message, _tenant(), REFS, BASE, NOW).message.decode()))
        out = rewriter(mail.html)
        total, found = total + ours, found + min(ours, len(re.findall(r"https://links\.acme\.example/", out)))
        here = 0
        for piece in re.split(r"https://links\.acme\.example/[^\"'\s)<>]*", out):
            here = mail.html.find(piece, here)
            if here < 0:
                break
            here += len(piece)
        whole += here >= 0
    return f"keeps {whole}/{len(mails)} mails whole, rewrites {found}/{total} URLs"


def _peers(tenant: Tenant) -> dict[str, Rewriter]:
    mint = links.Links(links.key_ring(tenant.keys), BASE, REFS)
    prefix = tenant.origins[0].public[0]

    def swap(attribute: str, url: str, number: int) -> str:
        """The same work for each: a signed link for a page, an asset link for an image of the origin."""
        if attribute == "href" and url.startswith(("http://", "https://")):
            return mint.click(url, number, False)
        return mint.asset("media", url.removeprefix(prefix), "") if url.startswith(prefix) else url

    return {
        "beautifulsoup": _soup("html.parser", swap),
        "beautifulsoup-lxml": _soup("lxml", swap),
        "lxml": _lxml(swap),
        "pytracking": _pytracking(),
        "lolhtml": _lolhtml(swap),
    }


def _soup(parser: str, swap: Swap) -> Rewriter:
    from bs4 import BeautifulSoup

    def run(html: str) -> str:
        tree = BeautifulSoup(html, parser)
        for number, tag in enumerate(tree.find_all(["a", "area", "img"]), 1):
            attribute = "src" if tag.name == "img" else "href"
            if tag.get(attribute):
                tag[attribute] = swap(attribute, str(tag[attribute]), number)
        return str(tree)

    return run


def _lxml(swap: Swap) -> Rewriter:
    from lxml import html as lxml_html

    def run(html: str) -> str:
        tree = lxml_html.fromstring(html.encode())
        for number, (tag, attribute, url, _) in enumerate(list(tree.iterlinks()), 1):
            if tag.tag in ("a", "area", "img") and attribute in ("href", "src"):
                tag.set(attribute, swap(attribute, url, number))
        return str(lxml_html.tostring(tree, encoding="unicode"))

    return run


def _pytracking() -> Rewriter:
    import pytracking.html

    settings = {"base_click_tracking_url": f"{BASE}/c/", "base_open_tracking_url": f"{BASE}/o/"}
    refs = {"campaign": REFS.campaign, "message": REFS.message, "recipient": REFS.recipient}
    return lambda html: str(pytracking.html.adapt_html(html.encode(), refs, open_tracking=False, **settings))


def _lolhtml(swap: Swap) -> Rewriter:
    from lolhtml import HTMLRewriter

    class Handler:
        number = 0

        def element(self, element: object) -> None:
            attribute = "src" if element.tag_name == "img" else "href"  # type: ignore[attr-defined]
            self.number += 1
            url = element.get_attribute(attribute)  # type: ignore[attr-defined]
            if url:
                element.set_attribute(attribute, swap(attribute, url, self.number))  # type: ignore[attr-defined]

    def run(html: str) -> str:
        out: list[bytes] = []
        rewriter = HTMLRewriter(lambda chunk: out.append(bytes(chunk)))
        rewriter.on("a[href], area[href], img[src]", Handler())
        rewriter.write(html.encode())
        rewriter.end()
        return b"".join(out).decode("utf-8", "replace")

    return run


if __name__ == "__main__":
    main()
