"""`brandproxy milter` and `brandproxy smtp`: the filters a mail server talks to, until SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from brandproxy.config import load
from brandproxy.context import Context

app = typer.Typer()


@app.command()
def milter(
    listen: Annotated[str, typer.Option(help="host:port or unix:PATH; default: mail.milter.")] = "",
) -> None:
    """Answer Postfix's or Sendmail's questions about each message.

    SIGTERM ends it gracefully: messages underway get their answer first.

    Example: [bold]brandproxy milter --listen 127.0.0.1:8891[/bold], and in Postfix's main.cf
    [bold]smtpd_milters = inet:127.0.0.1:8891[/bold]
    """
    from brandproxy.filters.milter import run

    serve(run, {"milter": listen})


@app.command()
def smtp(
    listen: Annotated[str, typer.Option(help="host:port or unix:PATH; default: mail.smtp.")] = "",
    lmtp: Annotated[str, typer.Option(help="also speak LMTP there; default: mail.lmtp.")] = "",
    next_hop: Annotated[str, typer.Option(help="host:port that gets the mail; default: mail.next_hop.")] = "",
) -> None:
    """Take mail by SMTP or LMTP, rewrite it, and hand it to the next server before answering.

    SIGTERM ends it gracefully: messages underway get their answer first.

    Example: [bold]brandproxy smtp --listen 127.0.0.1:8025 --next-hop 127.0.0.1:10026[/bold], and in Postfix
    [bold]content_filter = smtp:[127.0.0.1]:8025[/bold]
    """
    from brandproxy.filters.smtp import run

    serve(run, {"smtp": listen, "lmtp": lmtp, "next_hop": next_hop})


def serve(run: Callable[[Context], Awaitable[None]], mail: dict[str, str]) -> None:
    """Run a filter until SIGTERM or SIGINT; `mail` are options of the section that were given."""
    from brandproxy import roles

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    roles.mail(load(mail={name: value for name, value in mail.items() if value}), run)
