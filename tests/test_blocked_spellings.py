"""No spelling of a blocked destination passes the kill list; a browser's URL parser is the judge."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from brandproxy import blocks
from brandproxy.core import urls
from brandproxy.model import Block, BlockKind
from brandproxy.store import keys
from brandproxy.store.files import FileStore
from tests import whatwg

DOMAINS = [
    "malware.example",
    "bücher.example",
    "xn--n3h.example",
    "a_b.phish.example",
    "straße.example",
    "192.0.2.66",
]
URLS = ["https://shop.example/bad/page", "https://bücher.example.org/s%C3%BCß/x", "https://h.example/p?a=~1&b=c"]
HOSTS_BELOW = ["", "www.", "WWW.", "a.b.", "ｗww."]
DOTS = "..。．｡"
IGNORED = "\u00ad\u200b\u2060\ufe00"  # UTS #46 maps these to nothing
LETTERS = {
    letter: [chr(code) for code in range(0x80, 0x1F200) if unicodedata.normalize("NFKC", chr(code)) == letter]
    for letter in "abcdefghijklmnopqrstuvwxyz"
}
CONFUSING = ["\t", "\n", "\\", "user@", "%", " ", "／", "＠", "/", "?", "#", "\u202e"]


class Spelling:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def chance(self, part: float) -> bool:
        return self.draw.random() < part

    def host(self, name: str) -> str:
        if name[0].isdigit():
            return name
        draw, out = self.draw, []
        ascii_only = self.chance(0.3)
        if self.chance(0.2):
            name = name.encode("idna").decode() if "ß" not in name and name.isascii() is False else name
        for char in name:
            if char == "." and not ascii_only:
                char = draw.choice(DOTS)
            elif char in LETTERS and not ascii_only and self.chance(0.2):
                char = draw.choice(LETTERS[char])
            elif char == "ü" and self.chance(0.5):
                char = "u\u0308"
            out.append(char.upper() if char != "ß" and self.chance(0.3) else char)
            if not ascii_only and self.chance(0.05):
                out.append(draw.choice(IGNORED))
        if self.chance(0.02):
            out.insert(draw.randrange(len(out)), draw.choice(CONFUSING))
        return "".join(out) + ("." if self.chance(0.2) else "")

    def path(self, path: str) -> str:
        out = ""
        for char in path:
            if char == "/":
                out += "/" + "".join(
                    self.draw.choices(["", "./", "x/../", "%2e/", "a/b/%2E%2e/.%2e/"], (6, 1, 1, 1, 1))
                )
            elif self.chance(0.15) and (char.isalnum() or char in "-_~") and not out.endswith("%"):
                out += "".join(f"%{octet:02x}" if self.chance(0.5) else f"%{octet:02X}" for octet in char.encode())
            else:
                out += char
        return out

    def url(self, scheme: str, host: str, path: str) -> str:
        scheme = self.draw.choice([scheme, scheme.upper(), scheme.title()])
        port = self.draw.choice(["", "", ":", {"http": ":80", "https": ":443"}[scheme.lower()]])
        fragment = self.draw.choice(["", "", "#", "#top", "#/a?b"])
        return f"{scheme}://{self.host(host)}{port}{path}{fragment}"


def of_domains(spelling: Spelling) -> str:
    name = spelling.draw.choice(DOMAINS)
    below = "" if name[0].isdigit() else spelling.draw.choice(HOSTS_BELOW)
    path = spelling.draw.choice(["", "/", "/x?y=1", "?q", "/%61"])
    return spelling.url(spelling.draw.choice(["http", "https"]), below + name, path)


def of_urls(spelling: Spelling) -> str:
    scheme, _, rest = spelling.draw.choice(URLS).partition("://")
    host, _, path = rest.partition("/")
    path, question, query = path.partition("?")
    path = path.replace("%C3%BC", "ü") if spelling.chance(0.5) else path
    return spelling.url(scheme, host, spelling.path("/" + path) + question + query)


async def kill_list(store: FileStore) -> blocks.KillList:
    for name in DOMAINS:
        await blocks.add(store, BlockKind.DOMAIN, name)
    for url in URLS:
        await blocks.add(store, BlockKind.URL, url)
    listed = blocks.KillList()
    await listed.load(store)
    return listed


def reaches_blocked(found: whatwg.Read, domains: list[str], prefixes: list[whatwg.Read]) -> bool:
    if any(found.host == name or found.host.endswith("." + name) for name in domains):
        return True
    return any(
        (found.host, found.port) == (prefix.host, prefix.port)
        and (found.path == prefix.path if prefix.query else found.path.startswith(prefix.path))
        and found.query.startswith(prefix.query)
        for prefix in prefixes
    )


@pytest.mark.parametrize(("make", "share"), [(of_domains, 0.8), (of_urls, 0.8)], ids=["domains", "urls"])
async def test_no_spelling_of_a_blocked_destination_passes(tmp_path: Path, make: object, share: float) -> None:
    assert callable(make)
    spelling = Spelling(16)
    spelled = sorted({make(spelling) for _ in range(12_000)})[:10_000]
    assert len(spelled) > 4_500
    store = FileStore(tmp_path / "store.db")
    listed = await kill_list(store)
    await store.close()
    domains = [found.host for found in whatwg.read([f"http://{name}/" for name in DOMAINS]) if found]
    prefixes = [found for found in whatwg.read(URLS) if found]
    followed = [url for url in spelled if urls.refusal(url) is None]
    passed, reached = [], 0
    for url, sent in zip(followed, whatwg.read([urls.location(url) for url in followed]), strict=True):
        blocked = sent is not None and reaches_blocked(sent, domains, prefixes)
        reached += blocked
        if blocked != (listed.match("acme", url) is not None):
            passed.append(url)
    assert [ascii(url) for url in passed[:20]] == []
    assert reached > share * len(spelled)  # the generator makes what it says


@pytest.mark.parametrize(
    "url",
    [
        "https://notmalware.example/", "https://malware.example.com/", "https://shop.example/", "https://shop.example/bad",
        "https://shop.example/bad/../page", "https://shop.example:8443/bad/page", "https://h.example/p?a=1",
        "https://shop.example/bad%2Fpage", "https://192.0.2.6/",
    ],
)  # fmt: skip
async def test_another_destination_is_not_blocked(tmp_path: Path, url: str) -> None:
    store = FileStore(tmp_path / "store.db")
    assert (await kill_list(store)).match("acme", url) is None
    await store.close()


async def test_entries_of_an_earlier_version_stay_in_force_and_cover_every_spelling(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store.db")
    for number, value in enumerate(["https://OLD.example:443/%70ath", "https://phish-", "https://a.example/x#y"]):
        entry = Block(f"u{number}", BlockKind.URL, value)
        await store.put(keys.block(entry.id), blocks._BLOCK.dump_json(entry))
    listed = blocks.KillList()
    await listed.load(store)
    for url in ("https://old.example/path/x", "https://OLD.example:443/%70ath", "https://phish-1.example/",
                "http://a.example/x"):  # fmt: skip
        assert listed.match("acme", url) is not None, url
    assert listed.match("acme", "https://old.example/other") is None
    await store.close()


@pytest.mark.parametrize(
    "value", ["http://0x7f.1/", "https://user@a.example/", "ftp://a.example/", "https://a..b/"]
)
async def test_a_url_that_nobody_is_sent_to_is_not_taken(tmp_path: Path, value: str) -> None:
    store = FileStore(tmp_path / "store.db")
    with pytest.raises(blocks.BadInput, match="nobody is ever sent"):
        await blocks.add(store, BlockKind.URL, value)
    await store.close()
