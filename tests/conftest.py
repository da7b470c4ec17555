"""Fixtures every part of the suite shares."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parts import Knot


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if len({item.nodeid for item in items}) != len(items):
        raise pytest.UsageError("tests share a node id: xdist would run one of them and leave out the others")


CORPUS = Path(__file__).parent.parent.parent / "shared" / "corpus"


def _own_ports() -> Iterator[int]:
    """Ports beneath those the kernel gives to outgoing connections; each worker of the run has its own."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = (32768 - 10240) // workers
    first = 10240 + size * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    return itertools.islice(itertools.cycle(range(first, first + size)), random.randrange(size), None)


_PORTS = _own_ports()


def free_port(behind: int = 0) -> int:
    """A loopback port nobody has, with the `behind` after it; neither a second call nor a connection gets it."""
    for port in _PORTS:
        wanted = range(port, port + 1 + behind)
        if all(map(_is_free, wanted)):
            for _ in range(behind):
                next(_PORTS)
            return port
    raise AssertionError("every port is taken")


def free_addresses(*names: str) -> dict[str, str]:
    """The environment that gives each of these settings (`EDGE_HTTP`, …) an address of its own."""
    return {f"BRANDPROXY_{name}": f"127.0.0.1:{free_port()}" for name in names}


def _is_free(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        try:
            stream.bind(("", port))
            datagram.bind(("", port))
        except OSError:
            return False
    return True


def need_program(name: str, package: str) -> str:
    """The path of a real part; in CI a missing one fails the run, on a laptop the test skips."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        message = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def npm_packages(folder: Path) -> Path:
    """`node_modules` of the package in `folder`, from its lock file; nothing of the packages is run on the way."""
    installed = folder / "node_modules"
    if not (installed / ".package-lock.json").exists():  # npm writes it last
        npm = need_program("npm", "npm")
        call = [npm, "ci", "--silent", "--ignore-scripts", "--omit=optional", "--prefix", str(folder)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300)
        if done.returncode:
            message = f"npm ci --prefix {folder} failed: {done.stderr[-1000:]}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
    return installed


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    """A real DNS server; `mail.acme.test` is a zone of its own, as if delegated, `esp.test` the operator's."""
    from tests.parts import Knot

    knot = Knot(tmp_path_factory.mktemp("dns") / "knot", ("test", "mail.acme.test", "esp.test"))
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real mails beside the checkout (its own README says whose); skipped when absent."""
    folder = Path(os.environ.get("BRANDPROXY_CORPUS", CORPUS))
    if not folder.is_dir():
        pytest.skip(f"no corpus at {folder}: set BRANDPROXY_CORPUS to a folder of mails")
    return folder
