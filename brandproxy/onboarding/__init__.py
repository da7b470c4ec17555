"""Floor 3, onboarding: a customer adds one CNAME, and the host comes alive; what goes wrong is seen and explained.

- `looking`   one look at a host's DNS: every question, one Observation
- `watch`     looks for ever on a jittered schedule, shared by all control nodes; moves states
- `zones`     our own records in zones that are delegated to us
- `dkim`      the public DKIM keys that customers' selectors lead to
- `report`    what a look found, as kept in the store and shown by command line, API and page
- `links`     private links to the page that customers open without a login
"""

from brandproxy.onboarding.looking import Looker
from brandproxy.onboarding.report import Report
from brandproxy.onboarding.watch import Watcher, page_link, watch

__all__ = ["Looker", "Report", "Watcher", "page_link", "watch"]
