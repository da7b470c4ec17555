"""The supervisor: `serve --role all` starts one process a role, starts a fallen one again, and ends with them.

Invariant: no child outlives the supervisor, even after kill -9 (the kernel kills it with its parent), so a
restart never meets an old process on its ports or files.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import IO

from brandproxy import data_directory
from brandproxy.children import end_with
from brandproxy.config import Settings
from brandproxy.engines import embedded
from brandproxy.errors import BadSettings, Conflict
from brandproxy.roles import ROLES
from brandproxy.setting_values import ListenAddress

log = logging.getLogger(__name__)

_DRAIN = 15.0  # seconds a child has to end after SIGTERM


def run(settings: Settings, role: str) -> None:
    """Run a role until SIGTERM or SIGINT. Raises BadSettings for an unknown role."""
    _die_with_parent()
    data_directory.secure(settings.data)
    if role == "all":
        with _only_server(settings):
            _supervise(settings, ["edge", "control", *([] if embedded(settings) else ["collector"])])
        return
    if role not in ROLES:
        raise BadSettings(f"no role {role!r}", f"Use one of: all, {', '.join(ROLES)}.")
    ROLES[role](settings)


def _supervise(settings: Settings, roles: list[str]) -> None:
    """Keep one process a role running until a signal says stop. Raises BadSettings when one cannot even start."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: stopping.append(number))
    places = {role: _metrics(settings, number) for number, role in enumerate(roles)}
    children = {role: _start(role, places[role]) for role in roles}
    started = dict.fromkeys(roles, time.monotonic())
    again: set[str] = set()  # roles that were started more than once
    while not stopping:
        time.sleep(0.1)
        for role, child in children.items():
            if child.poll() is None or stopping:
                continue
            if child.returncode == os.EX_CONFIG and role not in again:  # later ones may be an edit underway
                _stop(list(children.values()))
                raise BadSettings(f"{role} cannot start with these settings", "Correct what it says above.")
            again.add(role)
            if time.monotonic() - started[role] < 3:
                time.sleep(1)  # falls at once: do not spin
            log.error("%s ended with %s, starting it again", role, child.returncode)
            children[role], started[role] = _start(role, places[role]), time.monotonic()
    _stop(list(children.values()))


def _metrics(settings: Settings, number: int) -> str:
    """Every role answers scrapes on a port of its own: the one set, and those above it."""
    listen = settings.metrics.listen
    return ListenAddress(listen).above(number) if listen else ""


def _start(role: str, metrics: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"BRANDPROXY_PARENT": str(os.getpid()), "BRANDPROXY_METRICS_LISTEN": metrics}
    return subprocess.Popen(
        [sys.executable, "-m", "brandproxy", "serve", "--role", role], env=environment, start_new_session=True
    )


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(_DRAIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _die_with_parent() -> None:
    parent = os.environ.get("BRANDPROXY_PARENT")
    if parent is not None and not end_with(int(parent), signal.SIGKILL):
        raise SystemExit("the supervisor is gone")


def _only_server(settings: Settings) -> IO[str]:
    """Hold the data directory: two servers on it would fight over the analytics file. Raises Conflict."""
    file = open(settings.data / "serve.lock", "a+")  # noqa: SIM115 - held open for the life of the process
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Conflict(
            f"another brandproxy serves {settings.data}", "Stop it, or set BRANDPROXY_DATA to another directory."
        ) from error
    return file
