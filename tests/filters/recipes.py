"""What docs/recipes tells people to write, so that the tests run just that."""

from __future__ import annotations

import re
from pathlib import Path

RECIPES = Path(__file__).parent.parent.parent / "docs" / "recipes"


def lines(page: str, name: str, changes: dict[str, str]) -> str:
    """The lines that page gives for the file of that name; `changes`: its ports and folders for the test's."""
    text = (RECIPES / page).read_text()
    # From the comment that names the file to the comment that names the next one, or the block's end.
    found = re.search(rf"^(?:#|//) {re.escape(name)}\b[^\n]*\n(.*?\n)(?=\n#|```)", text, re.M | re.S)
    assert found is not None, f"{page} says nothing of {name}"
    given = found[1]
    for old, new in changes.items():
        given = given.replace(old, new)
    return given
