"""Clicks, opens and the human side of unsubscribing: what a signed link answers.

A link is decided in this order; only the last step leads anywhere:
1. a suspended host: 410
2. the token is opened with the keys of the tenant that owns the host: forged 404; revoked, expired 410
3. the kill list: 410
4. the destination is judged again by `core.urls`, as when it was signed: else 404
5. the answer, with the record to be on disk before it is sent; private links leave no record
"""

from __future__ import annotations

import random
import time
from functools import lru_cache

from brandproxy.blocks import KillList
from brandproxy.core import events, tokens, urls
from brandproxy.core.machines import DATA_CENTRE
from brandproxy.core.networks import Networks
from brandproxy.directory import Site
from brandproxy.edge import answers
from brandproxy.edge.answers import Answer, Visit
from brandproxy.edge.privacy import stored_address
from brandproxy.errors import BadToken
from brandproxy.model import HostState


class Links:
    """One per process, made after the fork: each process draws its own random event ids."""

    def __init__(self, kill: KillList, machines: Networks | None = None) -> None:
        self.kill = kill
        self._machines = machines
        self._draw = random.Random()  # noqa: S311  seeded by the system; ids must be unique, not secret

    def click(self, site: Site, token: str, visit: Visit) -> Answer:
        payload = self.open(site, "c", token)
        if isinstance(payload, Answer):
            return payload
        assert isinstance(payload, tokens.Click)
        location = _location(payload.url)
        if location is None:
            return answers.not_found(site.tenant.name)
        return answers.redirect(location, None if payload.private else self.record("c", site, token, visit))

    def pixel(self, site: Site, token: str, visit: Visit) -> Answer:
        """The picture comes whatever the token: a broken image in a mail helps nobody."""
        payload = self.open(site, "o", token)
        refused = isinstance(payload, Answer)
        headers = ((b"content-type", b"image/gif"), (b"cache-control", b"no-store, private, max-age=0"))
        record = None if refused else self.record("o", site, token, visit)
        return Answer(404 if refused else 200, headers, answers.GIF, record)

    def unsubscribe_page(self, site: Site, token: str) -> Answer:
        """GET never unsubscribes: scanners follow every link (RFC 8058 §3.1 leaves that to POST)."""
        payload = self.open(site, "u", token)
        if isinstance(payload, Answer):
            return payload
        assert isinstance(payload, tokens.Unsubscribe)
        if payload.page and self.kill and self.kill.match(site.tenant.slug, payload.page):
            return answers.gone(site.tenant.name)
        location = _location(payload.page or payload.url)
        return answers.not_found(site.tenant.name) if location is None else answers.redirect(location, None)

    def home(self, site: Site) -> Answer:
        """`/`: the tenant's own page, set by the operator, or a plain one."""
        home = site.tenant.home
        if home and self.kill and self.kill.match(site.tenant.slug, home):
            return answers.gone(site.tenant.name)
        location = _location(home) if home else None
        if location is not None:
            return answers.redirect(location, None)
        text = "Links in messages lead through this address."
        return answers.page(200, site.tenant.name or site.host.name, text)

    def open(self, site: Site, kind: str, token: str) -> tokens.Payload | Answer:
        """Steps 1 to 3."""
        brand = site.tenant.name
        if site.host.state is HostState.SUSPENDED:
            return answers.gone(brand)
        try:
            payload = site.ring.open(kind, token, int(time.time()))
        except BadToken as error:
            return answers.gone(brand) if error.reason in ("revoked", "expired") else answers.not_found(brand)
        blocked = self.kill and self.kill.match(
            site.tenant.slug,
            getattr(payload, "url", ""),
            token,
            getattr(payload, "campaign", ""),
            getattr(payload, "message", ""),
        )
        return answers.gone(brand) if blocked else payload

    def record(self, kind: str, site: Site, token: str, visit: Visit) -> bytes:
        hints = visit.hints
        if self._machines is not None and visit.address in self._machines:
            hints = f"{hints},{DATA_CENTRE}" if hints else DATA_CENTRE
        return events.stamp(
            kind,
            time.time_ns() // 1000,
            self._draw.getrandbits(80),
            site.tenant.slug,
            visit.host,
            visit.method,
            stored_address(visit.address, site.tenant),
            hints,
            token,
            visit.agent,
        )


@lru_cache(maxsize=2048)  # a campaign's few links are clicked by many
def _location(url: str) -> bytes | None:
    try:
        return urls.location(url).encode("ascii")
    except ValueError:
        return None
