"""Floor 3: a port of its own for metrics, which also tells that the process serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from brandproxy.config import Settings


@contextmanager
def exposed(settings: Settings) -> Iterator[None]:
    """Answer scrapes while the block runs, in a thread of their own. Raises OSError when the address is taken.

    Enter it after the process is ready: orchestrators take an answer here as that. An edge with several workers
    shows the first worker's figures; in a cluster, scale by nodes of one worker each.
    """
    host, _, port = settings.metrics.listen.rpartition(":")
    if not port:
        yield
        return
    server, thread = start_http_server(int(port), host.strip("[]"))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
