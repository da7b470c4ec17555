"""Which events machines made: pure rules over an event and its neighbours. No answer ever depends on them.

`judge` returns every reason that holds, in this order; none: taken for a person.

1. `head`       HEAD requests: no browser follows a link with one
2. `prefetch`   the request said so (`Sec-Purpose`, `Purpose`, `X-Moz`); seen by the edge only, kept for ever
3. `no-agent`   no User-Agent
4. `agent`      a known crawler, scanner or library (the crawler-user-agents list)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from crawleruseragents import is_crawler

from brandproxy.model import Event

RULES = 1  # grows with every change of what the rules say

PREFETCH = "prefetch"
_LIBRARIES = re.compile(r"^(?:curl|wget|python|go-http|java|okhttp|libwww|php|ruby|axios|node|http)\b", re.I)


def judge(event: Event, earlier: Sequence[Event]) -> tuple[str, ...]:
    """The reasons to take `event` for a machine's; `earlier` are events of the same message before it."""
    reasons = []
    if event.method == "HEAD":
        reasons.append("head")
    if PREFETCH in event.machine:
        reasons.append(PREFETCH)
    if not event.agent:
        reasons.append("no-agent")
    elif _known_agent(event.agent):
        reasons.append("agent")
    return tuple(reasons)


@lru_cache(maxsize=8192)
def _known_agent(agent: str) -> bool:
    return bool(_LIBRARIES.match(agent)) or is_crawler(agent)
