"""What a tenant wants done with one URL: `judge` for links, `asset` for images and other assets.

Patterns are `host/path` globs in which only `*` is special: `*.acme.com/account/*`, `login.acme.com`. Host and
path (query included) are compared in their canonical form, whatever the spelling; no path means every path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from urllib.parse import unquote

from brandproxy.core import urls
from brandproxy.core.canonical_url import DOT_SEGMENT, CanonicalURL, canonical, host_pattern, octets
from brandproxy.model import Origin, Policy

# Merge tags of the common template languages: {{x}} {%x%} *|x|* %%x%% [[x]] <%x%> <<x>> ${x} #{x} [% x %] «x»
PLACEHOLDER = re.compile(r"\{\{|\{%|\*\||%%|\[\[|<[%<]|\$\{|#\{|\[%|\{\$|«|%7[Bb]%7[Bb]")
_UNSUBSCRIBE = re.compile(r"un-?subscri|opt-?out|abmelde|desabonn|d[eé]sinscri|darse-de-baja", re.IGNORECASE)
_FRAGMENT = re.compile(r"[A-Za-z0-9_.-]*")


def judge(policy: Policy, url: str) -> str:
    """Why a link to `url` is left alone, as a stable word, or "" when it is to be rewritten. In order:

    1. a template placeholder somebody else fills in later
    2. what `urls.refusal` says
    3. the tenant's switches and patterns
    """
    reason = refusal(url)
    if reason:
        return reason
    if not policy.clicks:
        return "clicks off"
    if policy.exclude and matches(policy.exclude, url):
        return "excluded"
    if policy.include and not matches(policy.include, url):
        return "not included"
    return ""


def refusal(url: str) -> str:
    """Why nobody's policy lets `url` be rewritten, or ""."""
    return "template placeholder" if PLACEHOLDER.search(url) else urls.refusal(url) or ""


@lru_cache(256)
def judging(policy: Policy) -> Callable[[str], str]:
    """`judge` for one policy, which remembers: a campaign's links are the same in all its messages."""
    return lru_cache(512)(partial(judge, policy))


def unsubscribes(url: str) -> bool:
    """Whether `url` looks like an unsubscribe page."""
    return _UNSUBSCRIBE.search(url) is not None


def asset(policy: Policy, origins: Sequence[Origin], url: str) -> tuple[str, str, str] | str:
    """(origin name, path below it, fragment) of an asset, or the reason why it is left alone."""
    reason = refusal(url)
    if reason:
        return reason
    if not policy.assets:
        return "assets off"
    form, path, fragment = _written(url)
    if DOT_SEGMENT.search(path.partition("?")[0]) or not _FRAGMENT.fullmatch(fragment):
        return "not an origin"
    for origin in origins:
        for prefix in origin.public:
            site, base = _prefix(prefix)
            if site == form.site and form.path.startswith(base):
                # No segment was resolved away, so that as many lie above the object as written.
                inside = path.split("/", base.count("/"))[-1].removesuffix("?")
                if inside:
                    return origin.name, inside, fragment
    return "not an origin"


def matches(patterns: Sequence[str], url: str) -> bool:
    form = canonical(url)
    return form is not None and any(
        glob(host, form.site) and glob(where, form.target) for host, where in map(_pattern, patterns)
    )


def glob(pattern: str, text: str) -> bool:
    """Whether `text` matches `pattern`, in which `*` stands for any characters. Linear, unlike a regex."""
    first, *middle = pattern.split("*")
    if not middle:
        return text == pattern
    *middle, last = middle
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    here = len(first)
    for piece in middle:
        here = text.find(piece, here, len(text) - len(last))
        if here < 0:
            return False
        here += len(piece)
    return True


@lru_cache(1024)
def _pattern(pattern: str) -> tuple[str, str]:
    """A pattern as host glob and path glob."""
    host, slash, path = pattern.partition("://")[2].partition("/") if "://" in pattern else pattern.partition("/")
    for port in (":80", ":443"):  # the scheme's own, which canonical URLs are without
        host = host.removesuffix(port)
    path = "*".join(map(octets, path.removesuffix("?").split("*")))
    return host_pattern(host), f"/{path}" if slash else "*"


@lru_cache(1024)
def _written(url: str) -> tuple[CanonicalURL, str, str]:
    """The canonical form of a destination; then, as written, its path with the query, and its fragment."""
    parts, form = urls.split(url), canonical(url)
    assert parts is not None
    assert form is not None
    path, _, fragment = parts.rest.partition("#")
    return form, path if path.startswith("/") else f"/{path}", fragment


@lru_cache(1024)
def _prefix(prefix: str) -> tuple[str, str]:
    """Site and path of a public prefix, with its final slash: hosts match exactly, then whole segments."""
    form = canonical(prefix if "://" in prefix else f"https://{prefix}")
    return (form.site, form.path if form.path.endswith("/") else f"{form.path}/") if form else ("", "")


def file_name(path: str) -> str:
    """The last segment of an asset's path, for people and proxies that look at the extension."""
    last = unquote(path.partition("?")[0].rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-")[-80:] or "asset"
