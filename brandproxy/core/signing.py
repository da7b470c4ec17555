"""A tenant's signing keys: the next one, and one that leaked."""

from __future__ import annotations

from dataclasses import replace

from brandproxy.errors import Conflict, NotFound
from brandproxy.model import SigningKey, Tenant


def rotated(tenant: Tenant, secret: bytes, now: int) -> Tenant:
    """A new newest key; the old ones go on verifying. Raises Conflict when all numbers are in use."""
    used = {key.number for key in tenant.keys}
    number = next((n for n in range(64) if n not in used), None)
    if number is None:
        raise Conflict("all 64 key numbers are in use", "Remove a revoked key first.")
    return replace(tenant, keys=(SigningKey(number, secret, now), *tenant.keys))


def revoked(tenant: Tenant, number: int, now: int) -> Tenant:
    """Tokens of this key are refused from now on. Raises NotFound."""
    if number not in {key.number for key in tenant.keys}:
        raise NotFound(
            f"tenant {tenant.slug!r} has no key {number}", f"See `brandproxy tenant show {tenant.slug}`."
        )
    keys = tuple(replace(key, revoked_at=now) if key.number == number else key for key in tenant.keys)
    return replace(tenant, keys=keys)
