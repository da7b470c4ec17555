"""What a click costs the server: CPU microseconds, rate and p99, beside nginx `return 302` and Caddy `redir`.

One worker of each on core 0, the client on core 1, the same P-256 certificate, one server after the other in
each round, medians over the rounds: many short ones, because the machine's own speed drifts. The clients offer
their ciphers in the order of browsers, AES-128 first. Ours verifies the token and records durably; `private`
clicks, which by their nature leave no record, show what recording costs. CPU time is the steady figure on a noisy
machine.

    http-keepalive   wrk, 64 connections            new-tls      ab: a full TLS 1.3 handshake each
    https-keepalive  wrk, 64 connections            resumed-tls  wrk, `Connection: close`: resumes sessions
    behind-nginx     new-tls, nginx terminating in front of us as docs/edge.md says; CPU of both together
    two-workers      new-tls, clicks a second of two workers beside one's, all busy (`edge_workers`)
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import trustme

from bench.report import Row, against, show
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.tokens import Click, KeyRing
from brandproxy.model import Host, HostState
from brandproxy.store import keys
from tests.conftest import free_port

HOST = "localhost"  # the clients send the name they connect to as SNI, so it has to resolve
URL = "https://www.shop.example/collections/spring?utm_source=newsletter&utm_medium=email&utm_campaign=spring"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
BROWSER = """
openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = browser
[browser]
Ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
"""
SERVER_CORE, CLIENT_CORE = "0", str(min(1, (os.cpu_count() or 1) - 1))


@dataclass(frozen=True, slots=True)
class Server:
    """`processes` are those whose CPU time counts."""

    name: str
    http: int
    https: int
    path: str
    processes: list[psutil.Process]

    def cpu(self) -> float:
        """Seconds on a core, all threads, to the nanosecond (the scheduler's own count)."""
        return sum(map(seconds, self.processes))

    def shares(self) -> list[float]:
        """Seconds of each worker, its parent left out."""
        return [seconds(process) for process in self.processes[1:]]


def seconds(process: psutil.Process) -> float:
    return sum(int(t.read_text().split()[0]) for t in Path(f"/proc/{process.pid}/task").glob("*/schedstat")) / 1e9


@dataclass(frozen=True, slots=True)
class Sample:
    micros: float
    rate: float
    p99_ms: float


def main(argv: list[str]) -> None:
    if "--profile" in argv:
        from bench.edge_profile import profile

        show("edge-profile", profile(), argv)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate(folder / "certs" / HOST)
        tokens = prepare(folder)
        path = "/c/" + tokens[False]
        ours = stack.enter_context(brandproxy(folder, path))
        quiet = replace(ours, name="unrecorded", path="/c/" + tokens[True])
        inner = stack.enter_context(brandproxy(folder, path, socket=folder / "edge.sock"))
        nginx = stack.enter_context(nginx_server(folder, path, folder / "edge.sock"))
        front = replace(nginx, name="behind-nginx", path=path, processes=nginx.processes + inner.processes)
        caddy = stack.enter_context(caddy_server(folder))
        two = stack.enter_context(brandproxy(folder, path, workers=2))
        from bench import edge_workers

        show("bench-edge", run([ours, quiet, nginx, caddy], front) + edge_workers.rows(ours, two), argv)


def run(servers: list[Server], front: Server) -> list[Row]:
    cases: dict[str, tuple[Callable[[Server], Sample], list[Server]]] = {
        "http-keepalive": (lambda s: wrk(s, "http", keep=True), servers),
        "https-keepalive": (lambda s: wrk(s, "https", keep=True), servers),
        "new-tls": (ab, [*servers, front]),
        "resumed-tls": (lambda s: wrk(s, "https", keep=False), servers),
    }
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for _ in range(ROUNDS):
        for case, (measure, asked) in cases.items():
            for server in asked:
                samples[case, server.name].append(measure(server))
    return [row for case in cases for row in rows_of(case, samples)]


def rows_of(case: str, samples: dict[tuple[str, str], list[Sample]]) -> Iterator[Row]:
    ours = samples[case, "brandproxy"]
    micros = [s.micros for s in ours]
    for peer in ("nginx", "caddy"):
        theirs = samples[case, peer]
        row = against(case, "CPU us/click", micros, peer, [s.micros for s in theirs])
        yield Row(row.case, row.value, row.unit, peer, row.ratio, f"{peer}: {notes(theirs)}")
    unrecorded = samples[case, "unrecorded"]
    row = against(case, "CPU us/click", micros, "unrecorded", [s.micros for s in unrecorded])
    yield Row(row.case, row.value, row.unit, "unrecorded", row.ratio, f"ours: {notes(ours)}")
    if (case, "behind-nginx") in samples:
        both = [s.micros for s in samples[case, "behind-nginx"]]
        yield against("behind-nginx", "CPU us/click", both, "nginx", [s.micros for s in samples[case, "nginx"]])


def notes(samples: list[Sample]) -> str:
    middle = sorted(samples, key=lambda s: s.micros)[len(samples) // 2]
    return f"{middle.micros:.1f} us, {middle.rate:,.0f}/s, p99 {middle.p99_ms:.1f} ms"


def wrk(server: Server, scheme: str, keep: bool) -> Sample:
    port = server.http if scheme == "http" else server.https
    command = ["wrk", "-t1", "-c64", f"-d{max(1, round(SECONDS))}s", "--latency"]
    command += [] if keep else ["-H", "Connection: close"]
    before = server.cpu()
    out = client([*command, f"{scheme}://{HOST}:{port}{server.path}"])
    spent = server.cpu() - before
    count = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    assert "Non-2xx" not in out, out
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert p99 is not None, out
    assert rate is not None, out
    return Sample(spent / count * 1e6, float(rate[1]), float(p99[1]) * scale[p99[2]])


def ab(server: Server, count: int = int(SECONDS * 1500), at_once: int = 32, cores: str = CLIENT_CORE) -> Sample:
    """Full handshakes: ab does not resume."""
    before = server.cpu()
    url = f"https://{HOST}:{server.https}{server.path}"
    out = client(["ab", "-q", "-n", str(count), "-c", str(at_once), "-f", "TLS1.3", url], cores)
    spent = server.cpu() - before
    done, rate = re.search(r"Complete requests:\s+(\d+)", out), re.search(r"Requests per second:\s+([\d.]+)", out)
    p99 = re.search(r"99%\s+(\d+)", out)
    assert re.search(r"Failed requests:\s+0\b", out), out
    assert done is not None, out
    assert rate is not None, out
    assert p99 is not None, out
    return Sample(spent / int(done[1]) * 1e6, float(rate[1]), float(p99[1]))


def client(command: list[str], cores: str = CLIENT_CORE) -> str:
    pinned = ["taskset", "-c", cores, *command]
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as offer:
        offer.write(BROWSER)
        offer.flush()
        environment = os.environ | {"OPENSSL_CONF": offer.name}
        ran = subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return ran.stdout


def certificate(folder: Path) -> None:
    folder.mkdir(parents=True)
    leaf = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    leaf.private_key_pem.write_to_path(folder / "privkey.pem")
    (folder / "fullchain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


def prepare(folder: Path) -> dict[bool, str]:
    """A tenant and its host; the token of a click, and of one that leaves no record (key True)."""

    async def fill(context: Context) -> KeyRing:
        tenant = await context.registry.add_tenant("bench")
        host = Host(HOST, "bench", "x.edge.invalid", HostState.LIVE)  # one label, which `add_host` refuses
        await context.store.put(keys.host(HOST), context.registry.codec.dump(host))
        return KeyRing(tenant.keys)

    async def opened() -> KeyRing:
        async with open_context(Settings(data=folder)) as context:
            return await fill(context)

    ring = asyncio.run(opened())
    click = Click(URL, "spring", "m-20261123", "r-4711", 3, 1_790_000_000)
    return {private: ring.mint(click._replace(private=private)) for private in (False, True)}


@contextmanager
def process(
    command: list[str], port: int, environment: dict[str, str] | None = None, cores: str = SERVER_CORE
) -> Iterator[psutil.Process]:
    started = subprocess.Popen(
        ["taskset", "-c", cores, *command], env=os.environ | (environment or {}), stdout=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)


def wait_for(port: int) -> None:
    import socket

    for _ in range(200):
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


@contextmanager
def brandproxy(folder: Path, path: str, workers: int = 1, socket: Path | None = None) -> Iterator[Server]:
    http, https = free_port(), free_port()
    settings = {
        "BRANDPROXY_DATA": str(folder),
        "BRANDPROXY_EDGE_HTTP": f"unix:{socket}" if socket else f"127.0.0.1:{http}",
        "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{https}",
        "BRANDPROXY_EDGE_WORKERS": str(workers),
    }
    cores = SERVER_CORE if workers == 1 else f"{SERVER_CORE},{CLIENT_CORE}"
    code = "from brandproxy.config import load; from brandproxy.edge.workers import run; run(load())"
    with process([sys.executable, "-c", code], https, settings, cores) as parent:
        time.sleep(1)
        yield Server("brandproxy", http, https, path, [parent, *parent.children()])


@contextmanager
def nginx_server(folder: Path, path: str, edge: Path) -> Iterator[Server]:
    http, https = free_port(), free_port()
    pair = folder / "certs" / HOST
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2;
  fastcgi_temp_path {folder}/n3; uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  ssl_certificate {pair}/fullchain.pem; ssl_certificate_key {pair}/privkey.pem; ssl_protocols TLSv1.2 TLSv1.3;
  upstream edge {{ server unix:{edge}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl;
    location /r/ {{ return 302 {URL}; }}
    location /c/ {{ proxy_pass http://edge; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }}
  }}
}}""")
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"
    with process([program, "-c", str(folder / "nginx.conf"), "-e", "stderr"], http) as parent:
        yield Server("nginx", http, https, "/r" + path[2:], parent.children())


@contextmanager
def caddy_server(folder: Path) -> Iterator[Server]:
    http, https = free_port(), free_port()
    pair = folder / "certs" / HOST
    (folder / "Caddyfile").write_text(f"""
{{
  admin off
  auto_https off
}}
http://{HOST}:{http} {{
  redir {URL} 302
}}
https://{HOST}:{https} {{
  tls {pair}/fullchain.pem {pair}/privkey.pem
  redir {URL} 302
}}
""")
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {"GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with process(command, http, home) as parent:
        yield Server("caddy", http, https, "/", [parent])


if __name__ == "__main__":
    main(sys.argv[1:])
