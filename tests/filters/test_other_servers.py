"""The recipes for Exim and OpenSMTPD, run: Debian's mail servers conflict as packages, so they are unpacked into a
folder and run in a mount namespace with the users and folders they want.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brandproxy.filters import smtp
from tests.conftest import free_port
from tests.filters.conftest import HTML, LINK, installation, running
from tests.filters.mta import foreground, need_python_for_all, send, start_sink
from tests.filters.recipes import lines

CACHE = Path(tempfile.gettempdir()) / "brandproxy-packages"
BRANDED = b"https://links.acme.example/c/"
COUNT = 5


def unpacked(*packages: str) -> Path:
    """A folder with the packages' files; kept between runs. Skips without root, network or namespaces."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("other mail servers need root and a mount namespace")
    CACHE.mkdir(exist_ok=True)
    CACHE.chmod(0o755)
    for package in packages:
        if (CACHE / f".{package}").exists():
            continue
        call = ["apt-get", "download", package]
        if subprocess.run(call, cwd=CACHE, capture_output=True, timeout=120).returncode:
            pytest.skip(f"{package} cannot be downloaded")
        (archive,) = CACHE.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, CACHE], check=True)
        (CACHE / f".{package}").touch()
    return CACHE


@contextmanager
def apart(home: Path, users: dict[str, int], script: str, port: int) -> Iterator[None]:
    """Run `script` (sh, it must stay in the foreground) where /etc/passwd knows `users`; until the block ends."""
    for name, entry in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
        added = "".join(entry.format(user, number) for user, number in users.items())
        (home / name).write_text(Path("/etc", name).read_text() + added)
    mounts = "".join(f"mount --bind {home}/{name} /etc/{name}\n" for name in ("passwd", "group"))
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", f"set -e\n{mounts}{script}"]
    with foreground([*command], home, port):
        yield


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="brandproxy-mta-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def mails(port: int) -> None:
    for number in range(COUNT):
        await asyncio.to_thread(send, port, "news@acme.example", [f"{number}@example.org"], HTML)


EXIM = """\
exim_path = {packages}/usr/sbin/exim4
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/exim.pid
primary_hostname = mta.example
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port} : {back}
tls_advertise_hosts =
keep_environment = BRANDPROXY_DATA
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
{router}
outbound:
  driver = manualroute
  transport = remote_smtp
  route_list = * 127.0.0.1
  self = send
begin transports
remote_smtp:
  driver = smtp
  port = {sink}
  allow_localhost
  max_rcpt = 1
{filter}
brandproxy:
  driver = smtp
  port = {proxy}
  allow_localhost
begin retry
* * F,1h,1s
{more}
"""

# docs/recipes/exim.md, "The proxy"
ROUTER = """\
brandproxy:
  driver = manualroute
  condition = ${{if !eq{{$received_port}}{{{back}}}}}
  transport = brandproxy
  route_list = * 127.0.0.1
  self = send
"""


@contextmanager
def exim(home: Path, data: Path, **settings: object) -> Iterator[int]:
    packages = unpacked("exim4-daemon-light", "exim4-base")
    values = {
        "port": free_port(),
        "back": free_port(),
        "proxy": 1,
        "router": "",
        "filter": "",
        "more": "",
        **settings,
    }
    values["router"] = values.get("whole_router") or str(values["router"]).format(**values)
    (home / "exim.conf").write_text(EXIM.format(home=home, packages=packages, **values))
    for part in ("spool", "log"):
        (home / part).mkdir()
    subprocess.run(["chown", "-R", "9971:9971", home / "spool", home / "log", data], check=True)
    script = f"export BRANDPROXY_DATA={data}\nexec {packages}/usr/sbin/exim4 -C {home}/exim.conf -bdf -q1s\n"
    with apart(home, {"Debian-exim": 9971}, script, int(str(values["port"]))):
        yield int(str(values["port"]))


async def test_exim_through_the_proxy() -> None:
    proxy, back = free_port(), free_port()
    settings = {"smtp": f"127.0.0.1:{proxy}", "next_hop": f"127.0.0.1:{back}"}
    with folder() as home:
        async with (
            start_sink() as sink,
            installation(home / "data", **settings) as context,
            running(smtp.run, context),
        ):
            with exim(home, home / "data", sink=sink.port, back=back, proxy=proxy, router=ROUTER) as port:
                await mails(port)
                received = await sink.until(COUNT, 40)
                assert sorted(mail.recipients[0] for mail in received) == [
                    f"{n}@example.org" for n in range(COUNT)
                ]
                assert all(BRANDED in mail.message and LINK not in mail.message for mail in received)


async def test_exim_transport_filter() -> None:
    program = Path(sys.executable).parent / "brandproxy"
    line = f"  transport_filter = {program} rewrite --tenant acme --message $message_exim_id"
    with folder() as home:
        async with start_sink() as sink, installation(home / "data"):
            with exim(home, home / "data", sink=sink.port, filter=line) as port:
                await asyncio.to_thread(send, port, "news@acme.example", ["b@example.org"], HTML)
                (received,) = await sink.until(1, 40)
                assert BRANDED in received.message
                assert LINK not in received.message


async def test_opensmtpd_through_the_proxy() -> None:
    need_python_for_all()
    packages = unpacked("opensmtpd")
    port, back, proxy = free_port(), free_port(), free_port()
    settings = {"smtp": f"127.0.0.1:{proxy}", "next_hop": f"127.0.0.1:{back}"}
    with folder() as home:
        async with (
            start_sink() as sink,
            installation(home / "data", **settings) as context,
            running(smtp.run, context),
        ):
            changes = {
                "port 25": f"port {port}", "10026": str(back), "8025": str(proxy),
                'action "outbound" relay\n': f'action "outbound" relay host smtp://127.0.0.1:{sink.port}\n',
            }  # fmt: skip
            (home / "smtpd.conf").write_text(lines("opensmtpd.md", "smtpd.conf", changes))
            script = (
                "for at in /var/spool /var/lib /run; do mount -t tmpfs none $at; done\n"
                "mkdir -p -m 711 /var/spool/smtpd\nmkdir -p -m 755 /var/lib/opensmtpd/empty\n"
                f"exec {packages}/usr/sbin/smtpd -d -f {home}/smtpd.conf\n"
            )
            users = {"opensmtpd": 9981, "opensmtpq": 9982}
            with apart(home, users, script, port):
                await mails(port)
                received = await sink.until(COUNT, 40)
                assert sorted(mail.recipients[0] for mail in received) == [
                    f"{n}@example.org" for n in range(COUNT)
                ]
                assert all(BRANDED in mail.message for mail in received)
