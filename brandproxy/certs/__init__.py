"""Floor 3, certificates: one per host, issued and renewed by themselves, copied to every edge's disk.

- `vault`     certificates in the store: chain in clear, private key sealed
- `copies`    store to `<certs>/<host>/fullchain.pem, privkey.pem`; run by every edge
- `upkeep`    issue on `verified`, renew before expiry; run by the control role
- `devca`     a local test CA for `certs.ca = "dev"`
"""

from brandproxy.certs.copies import mirror
from brandproxy.certs.upkeep import maintain
from brandproxy.certs.vault import Certificate, Vault

__all__ = ["Certificate", "Vault", "maintain", "mirror"]
