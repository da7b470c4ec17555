"""Floor 5, the command line: one module per group of commands, each listed once in `_GROUPS`.

Commands import what they use when they run, and `brandproxy rewrite`, which a mail pipe starts for every message,
loads its own module only.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

import brandproxy
from brandproxy.errors import BadSettings, BrandproxyError, Retryable, lines, told

# module -> None: its commands stand at the top; a name: they form a group.
_GROUPS: tuple[tuple[str, str | None], ...] = (
    ("serve", None),
    ("rewrite", None),
    ("audit", None),
    ("tenant", "tenant"),
    ("host", "host"),
    ("origin", "origin"),
    ("cache", "cache"),
    ("dns", None),
    ("sender", "sender"),
    ("dkim", "dkim"),
    ("cert", "cert"),
    ("token", "token"),
    ("key", "key"),
    ("block", "block"),
    ("config", "config"),
    ("store", "store"),
    ("analytics", "analytics"),
    ("stats", None),
    ("events", "events"),
    ("webhook", "webhook"),
    ("mail", None),
    ("mailmap", "mail"),
    ("relay", "relay"),
)

EX_TEMPFAIL, EX_CONFIG, EX_DATAERR = 75, 78, 65  # sysexits.h


def build(first: str = "") -> typer.Typer:
    """The command tree, whole unless `first`, the first word of the call, is that of the mail pipe."""
    app = typer.Typer(
        name="brandproxy",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for module, group in (("rewrite", None),) if first == "rewrite" else _GROUPS:
        app.add_typer(import_module(f"brandproxy.cli.{module}").app, name=group)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(f"brandproxy {brandproxy.__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Links and images in outgoing mail under the customer's own name."""


def main() -> None:
    """Entry point. Errors are one line with what to do next; `_status` says how they exit."""
    os.umask(0o077)  # what we write holds keys and people's addresses; sockets are given their own modes
    try:
        build(*sys.argv[1:2])()
    except (BrandproxyError, OSError, BaseExceptionGroup) as caught:
        error = told(caught)
        if error is None:
            raise
        print(lines(error), file=sys.stderr)
        raise SystemExit(_status(error)) from caught


def _status(error: BrandproxyError) -> int:
    """EX_CONFIG tells a supervisor, ours or the system's, that starting again will not help."""
    if isinstance(error, Retryable):
        return EX_TEMPFAIL
    return EX_CONFIG if isinstance(error, BadSettings) else 1
