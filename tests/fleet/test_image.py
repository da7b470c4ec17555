"""The image of the Dockerfile, built offline and run: what it promises, on the thing itself.

make image-check
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.core.tokens import Click, KeyRing
from brandproxy.model import HostState
from brandproxy.spool import read, segments
from tests.conftest import need_program
from tests.fleet.image import ROOT, USER, Builder, Container
from tests.fleet.topology import HOST, TENANT
from tests.redis_servers import FULL

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FULL, reason="builds an image, three minutes: make image-check"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroots and mounts"),
]

SECRET = "hunter2-of-the-build-host"


@dataclass
class Image:
    tree: Path
    config: dict[str, Any]
    history: str


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    for program in ("buildah", "debootstrap"):
        need_program(program, program)
    folder = tmp_path_factory.mktemp("image")
    builder = Builder(folder)
    settings = folder / "pip.conf"
    settings.write_text(f"[global]\nextra-index-url = https://builder:{SECRET}@index.invalid/simple\n")
    try:
        name = builder.build(builder.base(), "--secret", f"id=pip.conf,src={settings}")
        found = builder.config(name)
        yield Image(builder.tree(name), found["config"], json.dumps(found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Container:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, USER, USER)
    return Container(image.tree, image.config, data)


def files(image: Image) -> list[Path]:
    return [path for path in image.tree.rglob("*") if path.is_file() and not path.is_symlink()]


def test_nothing_in_it_installs_compiles_or_raises_rights(image: Image) -> None:
    refused = re.compile(r"(pip|pip3.*|ensurepip|setuptools|gcc.*|g\+\+.*|cc|c\+\+|ld|make|rustc|git|curl|wget)")
    tools = [path for path in files(image) if os.access(path, os.X_OK) and refused.fullmatch(path.name)]
    modules = [path for path in image.tree.rglob("*-packages/*") if refused.fullmatch(path.name)]
    assert [*tools, *modules] == []
    assert not list(image.tree.rglob("ensurepip"))
    assert [path for path in files(image) if path.stat().st_mode & 0o6000] == []


def test_its_program_belongs_to_root_and_only_data_to_its_user(image: Image) -> None:
    program = [image.tree / "opt/brandproxy", *(image.tree / "opt/brandproxy").rglob("*")]
    assert {path.lstat().st_uid for path in program} == {0}
    assert [path for path in program if not path.is_symlink() and path.stat().st_mode & 0o022] == []
    owned = [path for path in image.tree.rglob("*") if path.lstat().st_uid == USER]
    assert owned == [image.tree / "data"]
    assert owned[0].stat().st_mode & 0o777 == 0o700


def test_no_secret_of_the_build_host_and_no_private_key_is_in_it(image: Image) -> None:
    assert SECRET not in image.history
    assert not [name for name in image.config["Env"] if name.startswith("PIP_")]
    assert not (image.tree / "etc/pip.conf").exists() or (image.tree / "etc/pip.conf").read_text() == ""
    secret = re.compile(SECRET.encode() + rb"|-----BEGIN (RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{60}")
    for path in files(image):
        content = path.read_bytes()
        assert not secret.search(content) or content.startswith(b"\x7fELF"), path  # libraries test themselves


def test_its_bill_of_materials_names_every_package(image: Image) -> None:
    bill = json.loads((image.tree / "opt/brandproxy/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {one["purl"] for one in bill["components"]}
    lock = (ROOT / "requirements-server.lock").read_text()
    locked = [Requirement(line) for line in re.findall(r"(?m)^([a-zA-Z0-9_.-]+==[^\\\n]+)", lock)]
    assert len(locked) > 50
    for one in locked:
        purl = f"pkg:pypi/{canonicalize_name(one.name)}@{str(one.specifier).removeprefix('==')}"
        wanted = one.name != "setuptools" and (one.marker is None or one.marker.evaluate())
        assert (purl in named) == wanted, purl
    installed = re.findall(r"(?m)^Package: (\S+)$", (image.tree / "var/lib/dpkg/status").read_text())
    assert len(installed) > 50
    assert set(re.findall(r"pkg:deb/debian/([^@]+)@", " ".join(named))) == set(installed)


def test_it_is_small(image: Image) -> None:
    size = sum(path.stat().st_size for path in files(image))
    program = sum(p.stat().st_size for p in files(image) if p.is_relative_to(image.tree / "opt"))
    print(f"\nimage: {size / 1e6:.0f} MB, of it the program and its libraries {program / 1e6:.0f} MB")
    assert size < 400e6


async def furnished(data: Path) -> KeyRing:
    async with open_context(Settings(data=data)) as context:
        await context.registry.add_tenant(TENANT)
        await context.registry.add_host(HOST, TENANT, HostState.LIVE)
        ring = KeyRing((await context.registry.tenant(TENANT)).keys)
    for path in data.rglob("*"):
        os.chown(path, USER, USER)
    return ring


def until_healthy(container: Container) -> float:
    started = time.monotonic()
    while not container.healthy():
        assert time.monotonic() - started < 60, container.log()
        assert container.shell is not None
        assert container.shell.poll() is None, container.log()
        time.sleep(0.1)
    return time.monotonic() - started


ASK = """
import http.client, sys
asked = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
asked.request("GET", sys.argv[1], headers={"Host": sys.argv[2], "User-Agent": "Mozilla/5.0"})
answer = asked.getresponse()
print(answer.status, answer.getheader("location"))
"""
WRITE = "open('/opt/brandproxy/x', 'w')"


def test_its_edge_answers_a_click_as_nobody_on_a_read_only_root_and_drains_on_its_stop_signal(
    container: Container,
) -> None:
    ring = asyncio.run(furnished(container.data))
    with container.running():
        up = until_healthy(container)
        lines = Path(f"/proc/{container.main.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert status["Uid"].split() == [str(USER)] * 4
        assert status["Groups"].strip() in ("", str(USER))
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        token = ring.mint(Click("https://shop.example/boots?size=42", "spring"))
        asked = container.inside("python", "-c", ASK, f"/c/{token}", HOST)
        assert asked.stdout.split() == ["302", "https://shop.example/boots?size=42"], asked.stderr
        refused = container.inside("python", "-c", WRITE)
        assert "Read-only file system" in refused.stderr
        began = time.monotonic()
        assert container.stop() == 0, container.log()
        print(f"\nhealthy after {up:.1f} s, drained in {time.monotonic() - began:.1f} s")
    assert sum(len(read(segment).records) for segment in segments(container.data / "spool")) == 1
    assert "Traceback" not in container.log()


@pytest.mark.parametrize("role", ["all", "control", "milter", "smtp"])
def test_every_role_runs_from_it(role: str, container: Container) -> None:
    asyncio.run(furnished(container.data))
    with container.running("serve", "--role", role):
        until_healthy(container)
        assert container.stop() in (0, 143), container.log()
    assert "Traceback" not in container.log()
