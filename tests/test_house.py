"""The house: imports run downward, the core has no IO, files stay small."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "brandproxy"

FLOORS = {
    "model": 0, "values": 0, "quotas": 0, "errors": 0, "config": 0, "grants": 0,
    "setting_values": 0, "setting_sources": 0, "service_urls": 0, "data_directory": 0,
    "core": 1,
    "store": 2, "stream": 2, "spool": 2, "engines": 2, "acme": 2, "resolver": 2, "dnsupdate": 2, "fetch": 2,
    "outbound": 2,
    "storage": 2, "scheduling": 2,
    "audited": 3, "hosts": 3, "claims": 3,
    "tenants": 3, "directory": 3, "access": 3, "context": 3, "web": 3, "blocks": 3, "certs": 3, "onboarding": 3,
    "identities": 3,
    "shipping": 3, "relay": 3, "leading": 3, "control": 3, "intake": 3, "metrics": 3, "webhooks": 3,
    "children": 3, "senders": 3, "sockets": 3, "sessions": 3, "clients": 3, "guard": 3, "limits": 3, "bodies": 3,
    "http_server": 3,
    "filters": 4, "edge": 4, "analytics": 4, "admin": 4,
    "cli": 5, "serve": 5, "roles": 5, "demo": 5, "__main__": 5,
}  # fmt: skip

IO_MODULES = {
    "socket", "asyncio", "ssl", "logging", "time", "sqlite3", "subprocess", "threading", "httpx", "starlette",
    "uvicorn", "redis", "duckdb", "aiosmtpd", "acme", "obstore", "typer", "rich", "select", "selectors", "http",
}  # fmt: skip

FILES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The floor-plan name of a file: `store` for brandproxy/store/base.py, `` for the package itself."""
    part = path.relative_to(PACKAGE).parts[0]
    return "" if part == "__init__.py" else part.removesuffix(".py")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    here = unit(path)
    floor = FLOORS.get(here, 1)  # the package itself is the library: floors 0 and 1
    assert here == "" or here in FLOORS, f"{here} has no floor: give it one in FLOORS"
    for name in imports(path):
        if not name.startswith("brandproxy."):
            continue
        there = name.split(".")[1]
        if there == here or there not in FLOORS:
            continue
        allowed = FLOORS[there] < floor or (FLOORS[there] == floor and floor not in (4,))
        assert allowed, f"{path.name} on floor {floor} imports {name} on floor {FLOORS[there]}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_has_no_io(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & IO_MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines"


def test_every_module_says_what_it_is_for() -> None:
    for path in FILES:
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_bench_takes_from_us_is_there(path: Path) -> None:
    """Benches run rarely, and some only beside peers that are not installed here."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("brandproxy", "tests"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
