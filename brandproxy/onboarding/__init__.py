"""Floor 3, onboarding: a customer adds one CNAME, and the host comes alive; what goes wrong is seen and explained.

- `looking`   one look at a host's DNS: every question, one Observation
- `watch`     looks for ever on a jittered schedule, shared by all control nodes; moves states
- `report`    what a look found, as kept in the store and shown by command line, API and page
"""

from brandproxy.onboarding.looking import Looker
from brandproxy.onboarding.report import Report
from brandproxy.onboarding.watch import Watcher, watch

__all__ = ["Looker", "Report", "Watcher", "watch"]
