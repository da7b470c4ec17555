"""Floor 3: a port of its own for metrics, which also tells that the process serves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server, values
from prometheus_client.multiprocess import MultiProcessCollector

from brandproxy.config import Settings
from brandproxy.errors import BadSettings
from brandproxy.setting_values import ListenAddress

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks
_process = "parent"


def share(settings: Settings, role: str) -> None:
    """Let an edge of several workers count as one; otherwise a scrape would see the worker that answers it only.

    Figures then lie in files of `<data>/metrics`, one set for each worker's place: a worker that is started again
    counts on where the one before it was killed, so no counter ever falls while the edge runs. Call it before
    anything that counts is imported.
    """
    if role != "edge" or not settings.metrics.listen or settings.edge.worker_count() < 2:
        return
    folder = settings.data / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: _process)  # type: ignore[no-untyped-call]


def name_process(name: str) -> None:
    """Say which of the processes that share their figures this is; no two at a time may have one name."""
    global _process
    _process = name


@contextmanager
def exposed(settings: Settings) -> Iterator[None]:
    """Answer scrapes while the block runs, in a thread of their own. Raises BadSettings when the address is taken.

    Enter it after the process is ready: orchestrators take an answer here as that.
    """
    if not settings.metrics.listen:
        yield
        return
    where = ListenAddress(settings.metrics.listen)
    registry = REGISTRY
    if _FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        server, thread = start_http_server(where.port, where.host, registry)
    except OSError as error:
        raise BadSettings(f"cannot listen at {settings.metrics.listen}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
