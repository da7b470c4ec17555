"""What docs/recipes tells people to write, so that the tests run just that."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent.parent.parent / "docs" / "recipes"


def lines(page: str, name: str, changes: dict[str, str], at: int = 0) -> str:
    """The lines that page gives for the file of that name; `changes`: its ports and folders for the test's.

    `at`: of which place, when the page gives some more than once.
    """
    text = (RECIPES / page).read_text()
    # From the comment that names the file to the comment that names the next one, or the block's end.
    found = re.findall(rf"^(?:#|//) {re.escape(name)}(?![\w./-])[^\n]*\n(.*?\n)(?=\n#|```)", text, re.M | re.S)
    assert len(found) > at, f"{page} says nothing of {name}"
    given: str = found[at]
    for old, new in changes.items():
        given = given.replace(old, new)
    return given


def settings(page: str, at: int, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """What the page gives for the section `mail` of brandproxy.toml."""
    given = tomllib.loads(lines(page, "brandproxy.toml", changes or {}, at))
    mail: dict[str, Any] = given.get("mail", {})
    return {"listeners": {}} | mail
