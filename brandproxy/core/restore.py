"""The way back without a report: with the tenant's keys alone, every link of ours becomes the URL it stands for.

For support ("what did this link point to?"): the URLs are right, the bytes around them are as they were, but
what the rewriter added (pixel, soft breaks) stays. Byte for byte is `splice.undo` with the report.
"""

from __future__ import annotations

import re
from html import escape

from brandproxy.core import encoding, headers, html, links, mime, text, urls
from brandproxy.core.splice import Edit, Layer, Splice, apply
from brandproxy.core.tokens import Asset, Click, KeyRing, Unsubscribe
from brandproxy.model import Tenant

_ENTITY_FREE = re.compile(r"@import|css|style|url\(\)")


def restore(message: bytes, tenant: Tenant) -> bytes:
    """`message` with the original URLs. What cannot be read stays as it is; never raises."""
    structure = mime.parse(message)
    ring = links.key_ring(tenant.keys)
    splices: list[Splice] = []
    layers: list[Layer] = []
    for uri in headers.list_uris(message, structure.fields):
        url = original(tenant, ring, uri.url)
        if url:
            splices.append(Splice("header", uri.start, message[uri.start : uri.end], urls.location(url).encode()))
    for leaf in structure.leaves:
        if leaf.kind and not leaf.reason:
            try:
                body = encoding.read(message, leaf)
            except ValueError:
                continue
            edits = _edits(tenant, ring, leaf, body.text)
            more, layer, _ = body.splice(edits) if edits else ([], None, [])
            splices += more
            layers += [layer] if layer else []
    return apply(message, sorted(splices, key=lambda splice: splice.start), layers) if splices else message


def original(tenant: Tenant, ring: KeyRing, url: str) -> str:
    """The URL that a link of ours stands for, or "" when it is none of ours or stands for no URL."""
    match links.ours(ring, url):
        case Click(target) | Unsubscribe(target):
            return target if urls.refusal(target) is None else ""
        case Asset(origin, path):
            prefix = next((o.public[0] for o in tenant.origins if o.name == origin and o.public), "")
            return (
                f"{prefix.rstrip('/')}/{path}{'#' if '#' in url else ''}{url.partition('#')[2]}" if prefix else ""
            )
    return ""


def _edits(tenant: Tenant, ring: KeyRing, leaf: mime.Leaf, body: str) -> list[Edit]:
    if leaf.kind == "plain":
        found = [(f.start, f.end, original(tenant, ring, f.url)) for f in text.find(body, leaf.flowed, leaf.delsp)]
        return [Edit(start, end, url) for start, end, url in found if url]
    edits = []
    for item in html.scan(body).found:
        url = original(tenant, ring, item.url)
        if url:
            url = urls.location(url)  # ASCII without blanks, quotes or angle brackets: CSS and srcset stay whole
            edits.append(Edit(item.start, item.end, url if _ENTITY_FREE.search(item.place) else escape(url)))
    return edits
