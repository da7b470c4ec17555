"""`brandproxy serve` and `brandproxy demo`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from brandproxy.config import load

app = typer.Typer()

ROLES = "all, edge, control, collector, milter or smtp"


@app.command()
def serve(role: Annotated[str, typer.Option(help=f"What this process does: {ROLES}.")] = "all") -> None:
    """Run the edge for recipients and the control port for operators and analysts.

    Listens on loopback unless told otherwise (edge.http, edge.https, control.listen; see `config show`).

    Example: [bold]BRANDPROXY_EDGE_HTTPS=0.0.0.0:443 BRANDPROXY_EDGE_HTTP=0.0.0.0:80 brandproxy serve[/bold]
    """
    from brandproxy import metrics

    settings = load()
    metrics.share(settings, role)
    from brandproxy.serve import run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "acme"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    run(settings, role)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Check every step, then stop; exit status tells.")] = False,
    message: Annotated[Path | None, typer.Option(help="Use this .eml instead of the demo's own mail.")] = None,
) -> None:
    """Show the whole path on this machine: a mail in, branded links out, a click recorded and counted.

    Example: [bold]brandproxy demo --once --message newsletter.eml[/bold]
    """
    from brandproxy.demo import run

    raise SystemExit(run(once, message))
