"""Renewal of a whole fleet over 400 days of an injected clock: does anything ever expire, is any limit tripped?

The rules are the product's own (`brandproxy.core.renewal`): instants, urgency, limits, back-off. The CA is down on
1 % of the days, among them two in a row. What happened is checked afterwards by counting the orders anew.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from collections import deque
from dataclasses import dataclass

from brandproxy.core.renewal import DAY, HOUR, Candidate, Limit, Window, backoff, for_new, renew_at, urgency

_DAYS, _TICK = 400, 900
_ORDERS = Limit(300, 3 * HOUR)  # Let's Encrypt, 2026-08


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    hosts: int
    lifetime: int
    ari: bool  # the CA suggests windows; renewals inside them are free of its limits


@dataclass(slots=True)
class Outcome:
    orders: int = 0
    counted: int = 0
    expired: int = 0
    least_left: float = float("inf")  # lifetime left at the latest renewal, as a share
    onboarded: int = 0  # seconds until every host had its first certificate
    most: int = 0  # counted orders in the fullest window


def simulate(case: Case, seed: int = 1) -> Outcome:
    luck = random.Random(seed)
    down = {luck.randrange(60, _DAYS) for _ in range(_DAYS // 100 - 2)} | {200, 201}
    outcome, stamps = Outcome(), []
    ends = dict.fromkeys(range(case.hosts), 0)
    failures = dict.fromkeys(range(case.hosts), 0)
    waiting = [(urgency(Candidate(str(host), 0, 0)), host) for host in range(case.hosts)]
    heapq.heapify(waiting)
    later: list[tuple[int, int]] = []
    recent: deque[int] = deque()
    for now in range(0, _DAYS * DAY, _TICK):
        while later and later[0][0] <= now:
            host = heapq.heappop(later)[1]
            heapq.heappush(waiting, (urgency(Candidate(str(host), ends[host], 0)), host))
        while recent and recent[0] <= now - _ORDERS.seconds:
            recent.popleft()
        while waiting:
            host = waiting[0][1]
            new = ends[host] == 0
            free = case.ari and not new
            if not free and len(recent) >= (for_new(_ORDERS) if new else _ORDERS).count:
                break
            heapq.heappop(waiting)
            outcome.orders += 1
            if not free:
                recent.append(now)
                stamps.append(now)
            if now // DAY in down:
                failures[host] += 1
                left = ends[host] - now if ends[host] else math.inf
                heapq.heappush(later, (now + backoff(failures[host], left), host))
                continue
            failures[host] = 0
            if new:
                outcome.onboarded = now
            else:
                outcome.expired += ends[host] <= now
                outcome.least_left = min(outcome.least_left, (ends[host] - now) / case.lifetime)
            ends[host] = now + case.lifetime
            at = renew_at(now, ends[host], suggested(case, now), luck.random())
            heapq.heappush(later, (at, host))
    outcome.expired += sum(0 < end <= _DAYS * DAY for end in ends.values())
    outcome.counted, outcome.most = len(stamps), fullest(stamps, _ORDERS.seconds)
    return outcome


def suggested(case: Case, now: int) -> Window | None:
    """As Let's Encrypt suggests: ±2 % around two thirds of the lifetime, a half for those under ten days."""
    ideal = now + (case.lifetime // 2 if case.lifetime < 10 * DAY else case.lifetime * 2 // 3)
    return Window(ideal - case.lifetime // 50, ideal + case.lifetime // 50) if case.ari else None


def fullest(stamps: list[int], seconds: int) -> int:
    """The most orders in any window, counted anew."""
    most = begin = 0
    for index, at in enumerate(stamps):
        while stamps[begin] <= at - seconds:
            begin += 1
        most = max(most, index - begin + 1)
    return most


def cases(hosts: int) -> list[Case]:
    return [
        Case("90 days, no ARI", hosts, 90 * DAY, False),
        Case("64 days, no ARI", hosts, 64 * DAY, False),
        Case("64 days, ARI", hosts, 64 * DAY, True),
        Case("45 days, ARI", hosts, 45 * DAY, True),
        Case("160 hours, ARI", max(1, hosts // 10), 160 * HOUR, True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [(case, simulate(case)) for case in cases(arguments.hosts)]
    print(f"{'certificates':<18}{'hosts':>8}{'orders':>11}{'counted':>10}{'in 3 h':>8}{'limit':>7}"
          f"{'onboarded':>12}{'least left':>12}{'expired':>9}")  # fmt: skip
    for case, o in found:
        print(f"{case.name:<18}{case.hosts:>8}{o.orders:>11}{o.counted:>10}{o.most:>8}{_ORDERS.count:>7}"
              f"{o.onboarded / DAY:>10.1f} d{o.least_left:>11.0%}{o.expired:>9}")  # fmt: skip
    if arguments.json:
        rows = [
            {"case": case.name, "value": o.expired, "unit": "expired", "peer": "", "ratio": None}
            for case, o in found
        ]
        print(json.dumps({"bench": "sim-renewal", "rows": rows}))
    if any(o.expired or o.most > _ORDERS.count for _, o in found):
        sys.exit("a certificate expired, or a limit was tripped")


if __name__ == "__main__":
    main()
