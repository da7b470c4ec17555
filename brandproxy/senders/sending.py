"""A claim beside what its records are judged by, as looks and pages need it."""

from __future__ import annotations

from brandproxy.config import Dns
from brandproxy.core.senders import MailNames, Sending, claim_of, holder, mail_domain
from brandproxy.model import Host, Sender
from brandproxy.senders.claims import Senders
from brandproxy.senders.publication import BOUNCE


def mail_names(dns: Dns) -> MailNames:
    selectors = tuple(part.strip().lower() for part in dns.dkim_selectors.split(",") if part.strip())
    return MailNames(_plain(dns.dkim_domain), selectors, _plain(dns.bounce_host))


def _plain(name: str) -> str:
    return name.strip().rstrip(".").lower()  # as DNS answers are compared


async def of_host(senders: Senders, dns: Dns, host: Host) -> Sending | None:
    """The sender that comes with a host; None when the tenant has it no more."""
    claim = claim_of(await senders.claims(mail_domain(host)), host.tenant)
    return None if claim is None else await sending(senders, dns, claim)


async def sending(senders: Senders, dns: Dns, claim: Sender) -> Sending:
    has = holder(await senders.claims(claim.domain))
    records = await senders.publication.of(claim.label)
    published = {one: record.record for one, record in records.items() if record.record and one != BOUNCE}
    return Sending(claim, mail_names(dns), published, has is not None and has.label != claim.label)
