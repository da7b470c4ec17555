"""brandproxy: links and images in outgoing mail under the customer's own name.

The map, in floors; imports run downward only (`tests/test_house.py` proves it):

    5  cli  serve  roles  demo     commands; supervisor; composition root
    4  filters  edge  analytics  admin      front ends; they never import each other
    3  tenants  directory  access  blocks  context  web  certs  onboarding
       shipping  intake  relay  leading  control  metrics      what the nouns do
    2  store  stream  spool  engines  acme  resolver  dnsupdate  fetch  storage  scheduling
                               the outside world, one module each
    1  core                        pure: bytes, values and `now` in; values out
    0  model  values  errors  config       the nouns, and what their values may be

This module is the library for mail pipelines; it needs floors 0 and 1 only:

    import brandproxy

    acme = brandproxy.tenant("acme", secret, origins={"media": "https://cdn.acme.com/mail/"})
    refs = brandproxy.References(campaign="spring", message="m-17", recipient="r-4711")
    result = brandproxy.rewrite(raw, acme, refs, "https://links.acme.com", now=int(time.time()))
    send(result.message)
    assert brandproxy.unrewrite(result.message, result.report) == raw

    template = brandproxy.compile(html, acme, "https://links.acme.com")
    body = template.render(refs)
"""

from brandproxy.core import mime as _mime
from brandproxy.core.headers import Control
from brandproxy.core.headers import control as _control
from brandproxy.core.report import Link, Report, Result
from brandproxy.core.restore import restore
from brandproxy.core.rewrite import rewrite
from brandproxy.core.splice import undo as _undo
from brandproxy.core.template import Template
from brandproxy.core.template import compile_html as compile
from brandproxy.model import Origin, Policy, References, SigningKey, Tenant
from brandproxy.values import faults as _faults

__version__ = "0.1.0"
__all__ = [
    "Control", "Link", "Origin", "Policy", "References", "Report", "Result", "SigningKey", "Template", "Tenant",
    "compile", "control_headers", "restore", "rewrite", "tenant", "unrewrite",
]  # fmt: skip


def tenant(
    slug: str,
    secret: bytes,
    *,
    origins: dict[str, str] | None = None,
    policy: Policy | None = None,
) -> Tenant:
    """A tenant for pipelines without a store: `secret` (32 random bytes) signs its links.

    `origins` maps names to the public URL prefixes of the tenant's images; what lies under them becomes an
    asset. The edge that answers the links must know the same slug, key and origins.

    Raises ValueError for a secret of less than 16 bytes, and for a policy or an origin out of its range or form.
    """
    if len(secret) < 16:
        raise ValueError("the secret needs at least 16 random bytes")
    stores = tuple(Origin(name, prefix, (prefix,)) for name, prefix in (origins or {}).items())
    made = Tenant(slug, (SigningKey(0, secret, 0),), slug, policy or Policy(), stores)
    if wrong := _faults(made):
        raise ValueError("; ".join(wrong))
    return made


def control_headers(message: bytes) -> Control:
    """The message's `X-Brandproxy-*` headers: which tenant, and the references. `rewrite` removes them."""
    return _control(message, _mime.parse_header(message))


def unrewrite(message: bytes, report: Report) -> bytes:
    """The original of a rewritten message, byte for byte. Raises BadInput when the two do not belong together."""
    return _undo(message, report.splices, report.layers)
