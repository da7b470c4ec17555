"""Alarm figures, for Prometheus: days left, and renewals that fail, long before anything ends."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from brandproxy.certs.progress import Progress
from brandproxy.certs.vault import Facts

ORDERS = Counter("brandproxy_certificate_orders", "Certificates obtained", ["kind"])
_LEAST = Gauge("brandproxy_certificate_days_left_least", "Days left of the certificate that ends first")
_LEAST.set(math.nan)  # until it is known: 0 would raise the alarm, in processes that never know it for ever
_FAILING = Gauge("brandproxy_certificates_failing", "Hosts whose last order failed")
# Only hosts that are late have a line of their own: a fleet may have a hundred thousand.
_LATE = Gauge("brandproxy_certificate_days_left", "Days left, of hosts whose renewal is overdue", ["host"])


def publish(facts: Mapping[str, Facts], progress: Mapping[str, Progress], now: float) -> None:
    _LEAST.set(min((fact.not_after - now for fact in facts.values()), default=math.nan) / 86400)
    _FAILING.set(sum(1 for known in progress.values() if known.failures))
    _LATE.clear()
    for host, fact in facts.items():
        known = progress.get(host)
        if known is not None and known.failures and known.renew_at <= now:
            _LATE.labels(host).set((fact.not_after - now) / 86400)
