"""Floor 2, ACME (RFC 8555) with ARI (RFC 9773) and profiles, off the event loop.

- `account`  one account at one CA: orders, challenges, certificates, renewal windows, revocation
- `network`  the `acme` library's network made patient, and its errors in our tree
"""

from brandproxy.acme.account import Account, Challenge, Order, RenewalInfo, ari_of, key_pem, new_key
from brandproxy.acme.network import AcmeAway, AcmeRefused

__all__ = [
    "Account", "AcmeAway", "AcmeRefused", "Challenge", "Order", "RenewalInfo", "ari_of", "key_pem", "new_key",
]  # fmt: skip
