"""The data directory is its owner's alone: it holds keys, addresses and the analytics database."""

from __future__ import annotations

import os
from pathlib import Path

from brandproxy.errors import BadSettings


def check(path: Path) -> bool:
    """Whether other users of this machine may look or write into it. Raises BadSettings when it cannot be used,
    or cannot be closed to others by us.

    A volume that belongs to another user is an orchestrator's business: nobody else is in that container.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadSettings(
            f"data directory {path}: {error.strerror}", "Set `data` to a directory of its own."
        ) from error
    if not path.is_dir():
        raise BadSettings(f"data directory {path} is not a directory", "Set `data` to a directory of its own.")
    open_to_others = bool(found.st_mode & 0o077)
    if open_to_others and os.geteuid() not in (0, found.st_uid) and not path.is_mount():
        raise BadSettings(
            f"data directory {path} is open to other users (mode {found.st_mode & 0o7777:04o})",
            f"Run `chmod 700 {path}` as its owner.",
        )
    return open_to_others and os.geteuid() in (0, found.st_uid)


def secure(path: Path) -> None:
    """Make the directory, or close it to others. Raises BadSettings as `check` does."""
    try:
        if check(path):
            path.chmod(0o700)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSettings(
            f"data directory {path}: {error.strerror}", "Set `data` to a directory of its own."
        ) from error
