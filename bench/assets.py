"""A 50 KB image from storage: requests a CPU second, beside nginx `proxy_cache` and Caddy.

One worker of each on core 0, the client on core 1, the same storage (another nginx), the same P-256 certificate,
one server after the other in each round, medians over the rounds. CPU time of the server is the figure, since
wall time is noisy; rates by the clock are in the notes. Debian's Caddy has no cache: it serves the file from its
own disk when warm, and passes every request on when cold.

    warm    wrk over HTTPS keep-alive, 64 connections, the object in the cache
    cold    1,000 clients at once ask for an object nobody fetched yet; the note counts what storage was asked
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.edge import HOST, ROUNDS, Server, brandproxy, certificate, client, process, wrk
from bench.report import Row, against, show
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.tokens import Asset, KeyRing
from brandproxy.model import Host, HostState, Origin, Tenant
from brandproxy.store import keys
from tests.conftest import free_port

SIZE = 50_000
STORM = int(os.environ.get("BENCH_STORM", "1000"))


def main(argv: list[str]) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        images = ["warm.png", *(f"cold-{number}.png" for number in range(ROUNDS))]
        (folder / "images").mkdir()
        for name in images:
            (folder / "images" / name).write_bytes(os.urandom(SIZE))
        certificate(folder / "certs" / HOST)
        storage = stack.enter_context(storage_server(folder))
        paths = prepare(folder, storage, images)
        os.environ["BRANDPROXY_OUTBOUND_ALLOW"] = "127.0.0.1"
        ours = stack.enter_context(brandproxy(folder, ""))
        nginx = stack.enter_context(nginx_server(folder, storage))
        caddy = stack.enter_context(caddy_server(folder, storage))
        plain = {name: f"/{name}" for name in images}
        servers = [(ours, paths), (nginx, plain), (caddy, plain)]
        show("bench-assets", [*warm(servers), *cold(servers, folder)], argv)


Servers = list[tuple[Server, dict[str, str]]]


def warm(servers: Servers) -> Iterator[Row]:
    rates: dict[str, list[float]] = defaultdict(list)
    notes: dict[str, str] = {}
    for _ in range(ROUNDS):
        for server, paths in servers:
            sample = wrk(at(server, paths["warm.png"]), "https", keep=True)
            rates[server.name].append(1e6 / sample.micros)
            notes[server.name] = f"{sample.micros:.1f} us, {sample.rate:,.0f}/s, p99 {sample.p99_ms:.1f} ms"
    for peer in ("nginx", "caddy"):
        row = against("warm", "requests/CPU-s", rates["brandproxy"], peer, rates[peer])
        yield Row(row.case, row.value, row.unit, peer, row.ratio, f"{peer}: {notes[peer]}")
    yield Row("warm", median(rates["brandproxy"]), "requests/CPU-s", note=f"ours: {notes['brandproxy']}")


def cold(servers: Servers, folder: Path) -> Iterator[Row]:
    rates: dict[str, list[float]] = defaultdict(list)
    asked: dict[str, list[int]] = defaultdict(list)
    for number in range(ROUNDS):
        for server, paths in servers:
            before, cpu = storage_requests(folder), server.cpu()
            storm(server, paths[f"cold-{number}.png"])
            rates[server.name].append(STORM / (server.cpu() - cpu))
            asked[server.name].append(storage_requests(folder) - before)
    for peer in ("nginx", "caddy"):
        row = against("cold", "requests/CPU-s", rates["brandproxy"], peer, rates[peer])
        note = f"storage was asked {max(asked['brandproxy'])} x; by {peer} {max(asked[peer])} x"
        yield Row(row.case, row.value, row.unit, peer, row.ratio, note)


def at(server: Server, path: str) -> Server:
    return Server(server.name, server.http, server.https, path, server.processes)


def storm(server: Server, path: str) -> None:
    """Plain HTTP: a thousand handshakes would hide what the cache does."""
    count = str(STORM)
    out = client(["ab", "-q", "-n", count, "-c", count, f"http://{HOST}:{server.http}{path}"])
    assert re.search(r"Failed requests:\s+0\b", out), out
    assert "Non-2xx" not in out, out


def storage_requests(folder: Path) -> int:
    time.sleep(0.2)
    return len((folder / "storage.log").read_text().splitlines())


def prepare(folder: Path, storage: int, images: list[str]) -> dict[str, str]:
    """A tenant whose origin is the storage server; where its images are on the edge."""

    async def fill() -> KeyRing:
        async with open_context(Settings(data=folder)) as context:
            return await _tenant(context, f"http://127.0.0.1:{storage}/")

    ring = asyncio.run(fill())
    return {name: f"/a/{ring.mint(Asset('media', name))}/{name}" for name in images}


async def _tenant(context: Context, url: str) -> KeyRing:
    await context.registry.add_tenant("bench")
    origin = Origin("media", url, ("https://media.bench.example/",))

    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, origins=(origin,))

    tenant = await context.registry.change_tenant("bench", change, "bench")
    host = Host(HOST, "bench", "x.edge.invalid", HostState.LIVE)  # one label, which `add_host` refuses
    await context.store.put(keys.host(HOST), context.registry.codec.dump(host))
    return KeyRing(tenant.keys)


_NGINX = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr crit; user root;
events {{ worker_connections 8192; }}
http {{
  keepalive_requests 1000000000; types {{ image/png png; }} client_body_temp_path {folder}/{name}1;
  proxy_temp_path {folder}/{name}2; fastcgi_temp_path {folder}/{name}3; uwsgi_temp_path {folder}/{name}4;
  scgi_temp_path {folder}/{name}5; log_format line '$uri';
  {rest}
}}"""


@contextmanager
def nginx(folder: Path, name: str, port: int, rest: str) -> Iterator[list[object]]:
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, rest=rest))
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"
    with process([program, "-c", str(config), "-e", "stderr"], port) as parent:
        yield list(parent.children())


@contextmanager
def storage_server(folder: Path) -> Iterator[int]:
    port = free_port()
    rest = f"""access_log {folder}/storage.log line;
      server {{ listen 127.0.0.1:{port} backlog=8192; root {folder}/images; }}"""
    with nginx(folder, "storage", port, rest):
        yield port


@contextmanager
def nginx_server(folder: Path, storage: int) -> Iterator[Server]:
    http, https, pair = free_port(), free_port(), folder / "certs" / HOST
    rest = f"""access_log off;
      ssl_certificate {pair}/fullchain.pem; ssl_certificate_key {pair}/privkey.pem; ssl_protocols TLSv1.2 TLSv1.3;
      proxy_cache_path {folder}/ngcache keys_zone=z:10m max_size=1g;
      server {{
        listen 127.0.0.1:{http} backlog=8192; listen 127.0.0.1:{https} ssl backlog=8192;
        location / {{ proxy_pass http://127.0.0.1:{storage}; proxy_cache z; proxy_cache_valid 200 1h;
          proxy_cache_lock on; }}
      }}"""
    with nginx(folder, "peer", http, rest) as processes:
        yield Server("nginx", http, https, "", processes)  # type: ignore[arg-type]


@contextmanager
def caddy_server(folder: Path, storage: int) -> Iterator[Server]:
    http, https, pair = free_port(), free_port(), folder / "certs" / HOST
    (folder / "Caddyfile").write_text(f"""
{{
  admin off
  auto_https off
  log {{
    output discard
  }}
}}
http://{HOST}:{http} {{
  reverse_proxy 127.0.0.1:{storage}
}}
https://{HOST}:{https} {{
  tls {pair}/fullchain.pem {pair}/privkey.pem
  root * {folder}/images
  file_server
}}
""")
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {"GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with process(command, http, home) as parent:
        yield Server("caddy", http, https, "", [parent])


if __name__ == "__main__":
    main(sys.argv[1:])
