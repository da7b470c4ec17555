"""docs/security.md: every promise names a test, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
TEST = re.compile(r"`(tests/[a-z_/0-9]+\.py)::(test_[a-z_0-9]+)`")


def defined(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}


def test_every_attack_has_a_test_that_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 5][2:]
    rows = [row for row in rows if not set(row) <= set("|- ")]
    assert len(rows) > 25
    for row in rows:
        found = TEST.search(row)
        assert found, f"no test in: {row}"
        assert found[2] in defined(ROOT / found[1]), f"{found[0]} is gone"
