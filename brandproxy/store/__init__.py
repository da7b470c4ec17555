"""Floor 2, the store: keys to small values, shared by every process of an installation.

- `base`   the written contract every home keeps
- `homes`  `open_store`: which home a settings value names; `local_file`: what of it lies on this node
- `keys`   the names under which things are kept
- `lease`  holding a lock: renewal, and what happens when it is lost; the same for every home
- `files`  the home on one machine: a SQLite file in the data directory
- `redis`  the home of a fleet; `connect` its URLs, `scripts` what runs inside Redis
- `replica` a node's own copy of a fleet's store, to start and serve from while that is down
- `copying` moving an installation from one home to another
- `seal`   secrets at rest
"""

from brandproxy.store.base import Change, Entry, Lease, LockLost, Store
from brandproxy.store.homes import local_file, open_store

__all__ = ["Change", "Entry", "Lease", "LockLost", "Store", "local_file", "open_store"]
