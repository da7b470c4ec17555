"""How commands on this machine find the running control process.

`control.json` in the data directory, 0600, holds its address and a key that lives as long as the process: who
can read the data directory is the operator. Commands ask it what they cannot read themselves (the embedded
analytics file belongs to that process).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brandproxy.config import Settings


@dataclass(frozen=True, slots=True)
class Control:
    url: str  # without a final slash
    key: str
    pid: int


@contextmanager
def announce(settings: Settings, address: str) -> Iterator[Control]:
    """Say that the control port answers at `address` (host:port) while the block runs.

    The caller puts `.key` where `web.principal` looks: `app.state.control_key`.
    """
    control = Control(f"http://{address}", new_key(), os.getpid())
    path = _path(settings)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"url": control.url, "key": control.key, "pid": control.pid}, file)
    os.replace(fresh, path)
    try:
        yield control
    finally:
        found = find(settings)
        if found is not None and found.pid == control.pid:
            path.unlink(missing_ok=True)


def new_key() -> str:
    return f"bp_control_{secrets.token_urlsafe(32)}"


def find(settings: Settings) -> Control | None:
    """The control process of this data directory, or None when none runs."""
    try:
        control = Control(**json.loads(_path(settings).read_text()))
        os.kill(control.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # runs, as another user
    except (OSError, ValueError, TypeError):
        return None
    return control


def _path(settings: Settings) -> Path:
    return settings.data / "control.json"
