"""The demo's walk, one step after the other; a step that does not hold names itself and ends the walk.

1. make the demo's tenant, host and key; start the server
2. the host comes alive: the customer's CNAME, then a certificate by ACME (Pebble) or by the demo's own CA
3. rewrite the mail; the original comes back byte for byte
4. click links through TLS: exactly the address that was mailed comes back
5. a forged link is refused
6. an image is served from the tenant's storage
7. the clicks are in analytics, each once
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape

import brandproxy
from brandproxy.config import load
from brandproxy.context import open_context
from brandproxy.core import urls
from brandproxy.core.report import Link, Report
from brandproxy.demo import mail, pebble
from brandproxy.demo.client import Analyst, Recipient
from brandproxy.demo.pebble import Pebble
from brandproxy.demo.server import DemoFailed, Ports, Server, choose_ports
from brandproxy.demo.tenant import HOST, SLUG, ensure_demo_tenant, make_demo_key, retire_certificate
from brandproxy.errors import BrandproxyError, told
from brandproxy.model import References, Tenant

_CLICKED = 3  # links the demo clicks at most
_ALIVE = 60.0  # seconds from the CNAME to a live host


@dataclass(frozen=True, slots=True)
class Stage:
    """What the steps share."""

    tenant: Tenant
    key: str
    target: str  # of the host's CNAME
    ports: Ports
    data: Path
    ca: Path  # what a recipient trusts
    references: References

    @property
    def base(self) -> str:
        return f"https://{HOST}:{self.ports.https}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.ports.control}"

    @property
    def recipient(self) -> Recipient:
        return Recipient(self.ca)

    @property
    def analyst(self) -> Analyst:
        return Analyst(self.control, self.key)


def run(once: bool, message: Path | None) -> int:
    """The demo; the exit status: 0 when every step held, 1 otherwise.

    It has a data directory of its own, removed at the end, and takes no setting from elsewhere: the operator's key
    that it makes opens nothing but the demo. After a failure the directory stays, for its logs.
    """
    console = Console(highlight=False, soft_wrap=True)
    data = _apart()
    try:
        original = message.read_bytes() if message else mail.campaign()
        _walk(console, once, original, own=message is None)
        shutil.rmtree(data, ignore_errors=True)
    except KeyboardInterrupt:
        console.print("\nstopped")
        shutil.rmtree(data, ignore_errors=True)
    except (BrandproxyError, OSError, httpx.HTTPError) as error:
        said = told(error)
        console.print(f"[red]✗[/red] {escape(str(said or error))}")
        if said:
            console.print(f"  {escape(said.action)}")
        return 1
    return 0


def _apart() -> Path:
    """A data directory of the demo's own; the environment says nothing but that."""
    store = os.environ.get("BRANDPROXY_DEMO_STORE", "files:")  # of drills on other homes of the store
    for name in [name for name in os.environ if name.upper().startswith("BRANDPROXY_")]:
        del os.environ[name]
    os.environ.pop("CREDENTIALS_DIRECTORY", None)
    data = Path(tempfile.mkdtemp(prefix="brandproxy-demo-"))
    os.environ["BRANDPROXY_DATA"], os.environ["BRANDPROXY_STORE"] = str(data), store
    os.environ["BRANDPROXY_CONFIG"] = str(data / "brandproxy.toml")
    return data


def _walk(console: Console, once: bool, original: bytes, own: bool) -> None:
    with ExitStack() as running:
        ports = choose_ports(known=not once)
        os.environ.update(ports.environment())
        ca = running.enter_context(Pebble(load().data, ports.http)) if pebble.installed() else None
        os.environ.update(ca.environment if ca else {"BRANDPROXY_CERTS_CA": "dev"})
        stage = asyncio.run(_prepare(ports, acme=ca is not None))
        _held(console, f"tenant [bold]{SLUG}[/bold] with the host {HOST}")
        server = running.enter_context(Server(stage.data, ports, os.environ))
        _held(console, f"edge on {stage.base}, control on {stage.control}")
        if ca:
            _come_alive(console, stage, ca)
        else:
            _held(
                console,
                "certificate by the demo's own CA (for real ACME: apt-get install pebble)",
            )
        stage.recipient.wait_for(stage.base)
        _mail(console, stage, original, own, once)
        if "Traceback" in server.log.read_text(errors="replace"):
            raise DemoFailed(f"the server met a fault; its log: {server.log}")


def _mail(console: Console, stage: Stage, original: bytes, own: bool, once: bool) -> None:
    result = _rewrite(stage, original)
    links = _show_links(console, result.report)
    if links:
        _click(console, stage, links)
        _forge(console, stage, links[0])
    _image(console, stage, result.report, own)
    _analytics(console, stage, links)
    if not once:
        _stay(console, stage, links)


async def _prepare(ports: Ports, acme: bool) -> Stage:
    settings = load()
    (settings.data / "demo").mkdir(parents=True, exist_ok=True, mode=0o700)
    async with open_context(settings, actor="demo") as context:
        tenant = await ensure_demo_tenant(context)
        target = await retire_certificate(context) if acme else ""
        key = await make_demo_key(context)
    now = int(time.time())
    references = References("autumn", f"demo-{now}-{os.getpid()}", "robin-7f3a", now)
    ca = settings.data / ("demo/pebble/root.pem" if acme else "dev-ca.pem")
    return Stage(tenant, key, target, ports, settings.data, ca, references)


def _come_alive(console: Console, stage: Stage, ca: Pebble) -> None:
    """The customer's CNAME appears; DNS watch, order, challenge and certificate follow by themselves."""
    began = time.monotonic()
    ca.publish(HOST, stage.target)
    while (host := stage.analyst.ask(f"/v1/hosts/{HOST}"))["state"] != "live":
        if time.monotonic() - began > _ALIVE:
            raise DemoFailed(
                f"{HOST} is {host['state']} after {_ALIVE:.0f} s: {host['reason']}; log: {stage.data}/demo"
            )
        time.sleep(0.1)
    ca.save_root(stage.ca)
    took = time.monotonic() - began
    _held(console, f"CNAME seen, certificate by ACME from Pebble in {took:.1f} s: {HOST} is live")


def _rewrite(stage: Stage, original: bytes) -> brandproxy.Result:
    result = brandproxy.rewrite(original, stage.tenant, stage.references, stage.base, now=int(time.time()))
    if brandproxy.unrewrite(result.message, result.report) != original:
        raise DemoFailed("the original mail did not come back byte for byte")
    return result


def _show_links(console: Console, report: Report) -> list[Link]:
    links = [link for link in report.rewritten if link.number]
    _held(console, f"mail rewritten, {len(links)} links; the original comes back byte for byte")
    if not links:
        reasons = sorted({link.verdict for link in report.skipped} | {report.reason} - {""})
        console.print(f"  no link here to rewrite ({', '.join(reasons) or 'the mail holds none'})")
    for link in links[:4]:
        console.print(f"  {escape(link.url)}\n    [green]→ {escape(_short(link.new))}[/green]")
    return links


def _click(console: Console, stage: Stage, links: list[Link]) -> None:
    recipient = stage.recipient
    for link in links[:_CLICKED]:
        answer = recipient.get(link.new)
        expected = urls.location(link.url)
        if answer.status_code != 302 or answer.headers.get("location") != expected:
            raise DemoFailed(f"click: {answer.status_code} {answer.headers.get('location')} instead of {expected}")
    _held(console, "clicked through TLS: 302 to exactly the address that was mailed")


def _forge(console: Console, stage: Stage, link: Link) -> None:
    at = len(link.new) - 30
    forged = link.new[:at] + ("A" if link.new[at] != "A" else "B") + link.new[at + 1 :]
    answer = stage.recipient.get(forged)
    if answer.status_code != 404 or "location" in answer.headers:
        raise DemoFailed(f"a forged link answered {answer.status_code}, Location {answer.headers.get('location')}")
    _held(console, "one character changed: 404, and no redirect")


def _image(console: Console, stage: Stage, report: Report, own: bool) -> None:
    images = [link for link in report.rewritten if "/a/" in link.new]
    if own and not images:
        raise DemoFailed("no image of the mail was rewritten")
    for image in images[:1]:
        answer = stage.recipient.get(image.new)
        if answer.status_code != 200 or not answer.headers["content-type"].startswith("image/"):
            raise DemoFailed(f"image {image.url}: {answer.status_code} {answer.headers.get('content-type')}")
        _held(console, f"image from the tenant's storage: {len(answer.content)} bytes of its own host")


def _analytics(console: Console, stage: Stage, links: list[Link]) -> None:
    counted = [link for link in links[:_CLICKED] if not link.private]
    if not counted:
        return
    events = stage.analyst.wait_for_events(stage.references.message, len(counted))
    if sorted(event["url"] for event in events) != sorted(link.url for link in counted):
        raise DemoFailed(f"analytics hold other clicks than were made: {events}")
    _held(console, f"{len(events)} clicks in analytics, each once")
    summary = stage.analyst.ask("/v1/analytics/summary", tenant=SLUG, message=stage.references.message)
    reasons = sorted({reason for event in events for reason in event["machine"]})
    console.print(
        f"  clicks {summary['clicks']}, recipients {summary['unique_clicks']}, by machines {summary['machines']}"
        + (f": this demo is found out ({', '.join(reasons)})" if reasons else "")
    )


def _stay(console: Console, stage: Stage, links: list[Link]) -> None:
    console.print("\n[bold]Now you[/bold] (Ctrl-C stops it):")
    if links:
        console.print(f"  click      curl --cacert {stage.ca} -i '{escape(links[0].new)}'")
    console.print(f"  dashboard  {stage.control}/   sign in with   {stage.key}")
    console.print(f"  API        curl -H 'Authorization: Bearer {stage.key}' {stage.control}/v1/analytics/summary")
    seen = {event["id"] for event in stage.analyst.ask("/v1/analytics/events")["events"]}
    while True:
        time.sleep(0.5)
        events = stage.analyst.ask("/v1/analytics/events")["events"]
        for event in reversed([event for event in events if event["id"] not in seen]):
            seen.add(event["id"])
            console.print(f"  [green]{event['kind']}[/green] {escape(event['url'])}")


def _held(console: Console, what: str) -> None:
    console.print(f"[green]✓[/green] {what}")


def _short(url: str) -> str:
    return url if len(url) <= 88 else url[:70] + "…" + url[-14:]
