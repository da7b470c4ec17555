"""The records we keep in zones delegated to us: link host, DKIM selectors, bounce host, by RFC 2136.

Only what a look found missing or wrong is written, so a zone at rest is never touched.
"""

from __future__ import annotations

from brandproxy.config import Settings
from brandproxy.core.records import Finding
from brandproxy.dnsupdate import UpdateAway, UpdateRefused, open_updater
from brandproxy.model import Host
from brandproxy.onboarding.report import Report


class Keeper:
    def __init__(self, settings: Settings) -> None:
        self._updater = open_updater(settings.dns)

    async def keep(self, host: Host, report: Report) -> tuple[bool, Finding | None]:
        """Whether something was published, and what is to be told of it."""
        due = [line.wanted for line in report.lines if line.wanted.ours and line.state in ("missing", "wrong")]
        if not due:
            return False, None
        if self._updater is None:
            return False, _failing("no primary is set that takes updates", "Set dns.update_server.")
        try:
            for record in due:
                await self._updater.replace(host.zone, record.name, record.type, f"{record.value}.")
        except (UpdateAway, UpdateRefused) as fault:
            return False, _failing(str(fault), fault.action)
        return True, None


def _failing(what: str, fix: str) -> Finding:
    sentence = f"Our records in the delegated zone cannot be published: {what}."
    return Finding("zone-update-failing", False, sentence, f"This is for the operator: {fix}")
