"""Floor 3, certificates: one per host, issued and renewed by themselves, copied to every edge's disk.

- `upkeep`     plans for ever: issue on `verified`, renew in time; run by the control role
- `planning`   which hosts need what next, from facts in memory
- `ordering`   one host's certificate, from pre-flight to the store, under its lock
- `preflight`  would the CA succeed: records, CAA, our own challenge URL
- `budget`     the CA's limits, counted in the store
- `accounts`   ACME accounts, shared by all nodes
- `progress`   what is remembered of a host between orders
- `vault`      certificates in the store: chain in clear, private key sealed
- `copies`     store to `<certs>/<host>/fullchain.pem, privkey.pem`; run by every edge
- `devca`      a local test CA for `certs.ca = "dev"`
- `metrics`    alarm figures
- `alarms`     what webhooks are told of certificates
"""

from brandproxy.certs.copies import mirror, spare
from brandproxy.certs.upkeep import maintain
from brandproxy.certs.vault import Certificate, Vault

__all__ = ["Certificate", "Vault", "maintain", "mirror", "spare"]
