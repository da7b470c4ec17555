"""Which events machines made: pure rules over an event and its neighbours. No answer ever depends on them.

`judge` returns every reason that holds, in this order; none: taken for a person.

1. `head`         HEAD requests: no browser follows a link with one
2. `prefetch`     the request said so (`Sec-Purpose`, `Purpose`, `X-Moz`)           } only the request shows
3. `data-centre`  the client's network is on the operator's list                   } these two: kept for ever
4. `no-agent`     no User-Agent
5. `apple-mpp`    an open by Apple's Mail Privacy Protection: loads every picture, as `Mozilla/5.0`
6. `image-proxy`  an open by Gmail's or Yahoo's picture proxy: one fetch may stand for many looks, or for none
7. `agent`        a known crawler, scanner, mail gateway or library (the crawler-user-agents list, and ours)
8. `too-soon`     clicked within 5 s of sending, opened within 2: a mail has to arrive and be looked at first
9. `burst`        with its neighbours, three links of one mail within 2 s, or two within half a second
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from crawleruseragents import is_crawler

from brandproxy.model import Event

RULES = 2  # grows with every change of what the rules say

PREFETCH, DATA_CENTRE = "prefetch", "data-centre"
_SEEN_BY_EDGE = (PREFETCH, DATA_CENTRE)

_TOO_SOON_US = {"click": 5_000_000, "open": 2_000_000}
_BURST_US, _BURST_LINKS = 2_000_000, 3
_AT_ONCE_US = 500_000

_LIBRARIES = re.compile(r"^(?:curl|wget|python|go-http|java|okhttp|libwww|php|ruby|axios|node|http)\b", re.I)
# Mail security gateways that name themselves and are not on the list.
_GATEWAYS = re.compile(
    r"barracuda|proofpoint|mimecast|safelinks|forcepoint|trendmicro|ironport|fireeye|cloudmark|sophos|symantec"
    r"|bitdefender|messagelabs|mailscanner|spamassassin|zscaler",
    re.I,
)
_IMAGE_PROXIES = re.compile(r"GoogleImageProxy|YahooMailProxy|YahooCacheSystem")


def judge(event: Event, earlier: Sequence[Event]) -> tuple[str, ...]:
    """The reasons to take `event` for a machine's; `earlier` are other events of the same mail around its time."""
    reasons = ["head"] if event.method == "HEAD" else []
    reasons += [reason for reason in _SEEN_BY_EDGE if reason in event.machine]
    reasons += _by_agent(event.kind, event.agent)
    soon = _TOO_SOON_US.get(event.kind, 0)
    if event.sent_at and event.at_us - event.sent_at * 1_000_000 < soon:
        reasons.append("too-soon")
    if event.kind == "click" and _is_burst(event, earlier):
        reasons.append("burst")
    return tuple(reasons)


@lru_cache(maxsize=8192)
def _by_agent(kind: str, agent: str) -> tuple[str, ...]:
    if not agent.strip():
        return ("no-agent",)
    if kind == "open" and agent == "Mozilla/5.0":
        return ("apple-mpp",)
    if kind == "open" and _IMAGE_PROXIES.search(agent):
        return ("image-proxy",)
    return ("agent",) if _LIBRARIES.match(agent) or _GATEWAYS.search(agent) or is_crawler(agent) else ()


def _is_burst(event: Event, neighbours: Sequence[Event]) -> bool:
    """Distinct links only: a person may well click the same link twice."""
    apart = {n.link: abs(n.at_us - event.at_us) for n in neighbours if n.kind == "click" and n.link != event.link}
    near = [distance for distance in apart.values() if distance <= _BURST_US]
    return len(near) + 1 >= _BURST_LINKS or any(distance <= _AT_ONCE_US for distance in near)
