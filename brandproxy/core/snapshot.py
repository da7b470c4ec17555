"""Copies of mailed images that do not change any more: what to copy, and under which name. Pure.

Opt-in at rewrite time. An object's copy is named by its content, so the same image is copied once however many
mails name it, and a mail's image can never be another one than what was mailed. The steps:

    items = wanted(message, tenant)                 the objects a message shows
    snapshots = await storage.snapshot.take(…)      copies them, (origin, path) -> path of the copy
    rewrite(message, tenant, …, snapshots=snapshots)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from brandproxy.core import policy
from brandproxy.core.media import by_name
from brandproxy.core.rewrite import rewrite
from brandproxy.errors import BadInput
from brandproxy.model import References, Tenant

FOLDER = "snapshot"
_NOWHERE = "https://host.invalid"
Item = tuple[str, str]  # origin name, path
Snapshots = Mapping[Item, str]

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}$")


def wanted(message: bytes, tenant: Tenant) -> tuple[Item, ...]:
    """The objects of the tenant's origins that a message shows, each once, in the message's order.

    Left out: those that are copies already, and style sheets, which name files beside them.
    """
    report = rewrite(message, tenant, References(), _NOWHERE, 0).report
    shown = [link.url for link in report.links if link.new.startswith(f"{_NOWHERE}/a/")]
    found = [policy.asset(tenant.policy, tenant.origins, url) for url in shown]
    items = [item[:2] for item in found if not isinstance(item, str)]
    return tuple(dict.fromkeys(item for item in items if not _stays(item[1])))


def _stays(path: str) -> bool:
    return path.startswith(f"{FOLDER}/") or by_name(path) == "text/css"


def name(path: str, data: bytes) -> str:
    """The path of the copy of `data`, which lay under `path`: its content's hash and the old extension."""
    extension = _EXTENSION.search(path.partition("?")[0])
    return f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:40]}{extension[0].lower() if extension else ''}"


def dump(snapshots: Snapshots) -> str:
    """As JSON: {origin: {path: path of the copy}}."""
    tree: dict[str, dict[str, str]] = {}
    for (origin, path), copy in snapshots.items():
        tree.setdefault(origin, {})[path] = copy
    return json.dumps(tree, ensure_ascii=False, indent=2)


def parse(text: str) -> dict[Item, str]:
    """What `dump` made. Raises BadInput."""
    try:
        return {(o, path): str(copy) for o, paths in json.loads(text).items() for path, copy in paths.items()}
    except (ValueError, AttributeError) as error:
        raise BadInput("not a file of snapshots", "Make one: brandproxy origin snapshot TENANT < MAIL") from error
