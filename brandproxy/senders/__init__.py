"""Floor 3, sending domains: who claims one, what stands in DNS behind each claim, and what goes when a claim ends.

- `claims`       the claims in the store, each write audited: add, remove, transfer, accept
- `publication`  the records behind a claim's label, kept in DNS; an update that cannot be made waits in the store
- `watch`        looks for ever where the selectors lead, and proves claims by it
- `departure`    what goes with a tenant, so that a namesake inherits nothing; older installations brought up
- `sending`      a claim beside what it is judged by
"""

from brandproxy.senders.claims import Senders
from brandproxy.senders.sending import mail_names, of_host, sending

__all__ = ["Senders", "mail_names", "of_host", "sending"]
