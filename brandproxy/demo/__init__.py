"""Floor 5, the demo: the whole path on one machine, every step checked.

- `tenant`   the demo's tenant, host and certificate, made when missing
- `mail`     its campaign mail and the pictures of its origin
- `pebble`   a real ACME CA, when Debian's pebble is installed
- `server`   a server of our own on free loopback ports
- `client`   a recipient: clicks through real TLS, trusting only the demo's CA
- `walk`     the steps in order, told to people
"""

from brandproxy.demo.tenant import ensure_demo_tenant
from brandproxy.demo.walk import run

__all__ = ["ensure_demo_tenant", "run"]
