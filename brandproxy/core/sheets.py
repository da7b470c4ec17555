"""A style sheet served as an asset: what it names, as seen from its new address. Pure.

`https://media.acme.com/css/mail.css` names the files beside it as `../img/a.png`; at `/a/{token}/mail.css` the
same words would name nothing. Each URL of a sheet, in order:
1. under one of the tenant's origins: that asset's address, relative to the sheet's own, so the same on every host
2. relative: the absolute URL it stood for, so that it loads from where it did
3. anything else stays as it is, as does every other byte
"""

from __future__ import annotations

import hashlib
import zlib
from urllib.parse import quote

from brandproxy.core import css, links, media, objects, places, policy, urls
from brandproxy.core.tokens import Asset, KeyRing
from brandproxy.errors import BadInput
from brandproxy.model import Tenant

MAX_SHEET = 1 << 20  # bytes; a larger one is served as it is
_UNQUOTED = "%/:?#[]@!$&*+,;=-._~"  # what stands in url() without quotes and in any string


def is_sheet(declared: str, path: str) -> bool:
    """Whether storage, or failing that the object's name, calls it a style sheet."""
    return media.essence(declared, path) == "text/css"


def form(tenant: Tenant) -> str:
    """What the addresses in a tenant's sheets depend on, as a short word: another word, another form."""
    seed = [tenant.policy.assets, [(key.number, key.revoked_at) for key in tenant.keys]]
    seed += [(origin.name, origin.public, origin.variant) for origin in tenant.origins]
    return "sheet-" + hashlib.sha256(repr(seed).encode()).hexdigest()[:16]


def resolved(data: bytes, encoding: str, tenant: Tenant, ring: KeyRing, sheet: Asset) -> bytes | None:
    """The bytes of `sheet` with its URLs as above, out of their content coding, or None: serve it as it is."""
    origin = next((origin for origin in tenant.origins if origin.name == sheet.origin), None)
    if origin is None or not origin.public or (plain := _decoded(data, encoding)) is None:
        return None
    public = origin.public[0] if "://" in origin.public[0] else f"https://{origin.public[0]}"
    base = f"{public.rstrip('/')}/{sheet.path}"
    text = plain.decode("utf-8", "surrogateescape")
    out: list[str] = []
    here = 0
    for start, end, url, _ in css.urls(text):
        new = _address(places.trim(url), base, tenant, ring)
        if new:
            out += [text[here:start], new]
            here = end
    return "".join([*out, text[here:]]).encode("utf-8", "surrogateescape")


def _address(url: str, base: str, tenant: Tenant, ring: KeyRing) -> str:
    """What stands for `url` in a sheet that lay at `base`, or "": the URL itself."""
    if not url or url.startswith("#"):
        return ""
    absolute = places.resolve(url, base)
    found = policy.asset(tenant.policy, tenant.origins, absolute)
    if not isinstance(found, str):
        name, path, fragment = found
        try:
            token = links.asset_token(ring, name, path, objects.minted(tenant.origins, name, path))
        except BadInput:
            pass  # it does not fit a token, or no key is left
        else:
            return f"../{token}/{policy.file_name(path)}" + (f"#{fragment}" if fragment else "")
    if absolute == url or urls.refusal(absolute):
        return ""
    return quote(urls.location(absolute), safe=_UNQUOTED)


def _decoded(data: bytes, encoding: str) -> bytes | None:
    if not encoding or encoding == "identity":
        return data
    if encoding not in ("gzip", "x-gzip"):
        return None
    unpack = zlib.decompressobj(31)
    try:
        plain = unpack.decompress(data, MAX_SHEET)
    except zlib.error:
        return None
    return plain if unpack.eof else None
