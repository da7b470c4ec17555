"""`brandproxy config …`: the settings in force and where each comes from."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from pydantic import BaseModel, SecretStr

from brandproxy.cli.common import Json, print_json, print_table
from brandproxy.config import Settings, load, settings_file
from brandproxy.errors import BadSettings

app = typer.Typer(no_args_is_help=True, help="The settings in force.")

Row = tuple[str, object, str, str]


@app.command()
def show(json: Json = False) -> None:
    """Print every setting, its value and its source. Example: [bold]brandproxy config show[/bold]"""
    rows = settings_rows()
    if json:
        print_json({name: {"value": value, "source": source} for name, value, source, _ in rows})
    else:
        print_table(("setting", "value", "source", "what it is"), rows, "")


@app.command()
def check() -> None:
    """Read the settings and say whether they hold. Example: [bold]brandproxy config check[/bold]"""
    from brandproxy.filters.peers import check as check_mail

    settings = load()
    check_mail(settings.mail)
    for name, value in _files(settings):
        if not value.is_file():
            raise BadSettings(f"{name}: no file {value}")
    file = settings_file()
    print(f"settings hold ({file} {'read' if file.exists() else 'is not there: defaults and environment'})")


def _files(settings: Settings) -> list[tuple[str, Path]]:
    """(name, path) of the settings that name a file which must be there."""
    named = {
        "edge.machine_networks": settings.edge.machine_networks,
        "mail.certificate": settings.mail.certificate,
        "certs.acme_trust": settings.certs.acme_trust,
        "analytics.geoip": settings.analytics.geoip,
    }
    return [(name, path) for name, path in named.items() if path is not None]


def settings_rows() -> list[Row]:
    """(name, value, source, description) of every setting."""
    import tomllib

    settings = load()
    file = settings_file()
    filed = tomllib.loads(file.read_text()) if file.exists() else {}
    return [_row(name, value, filed, about) for name, value, about in _walk(settings)]


def _walk(model: BaseModel, prefix: str = "") -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            rows += _walk(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value, field.description or ""))
    return rows


def _row(name: str, value: object, filed: dict[str, object], about: str) -> Row:
    variable = "BRANDPROXY_" + name.replace(".", "_").upper()
    section, _, key = name.rpartition(".")
    place = filed.get(section, {}) if section else filed
    if variable in {key.upper() for key in os.environ}:
        source = variable
    elif isinstance(place, dict) and key in place:
        source = str(settings_file())
    else:
        source = "default"
    shown = "(set)" if isinstance(value, SecretStr) and value.get_secret_value() else value
    return name, "" if isinstance(shown, SecretStr) else shown, source, about


@app.command()
def reseal() -> None:
    """Seal all secrets anew under the first master key. Example: [bold]brandproxy config reseal[/bold]

    To rotate: set BRANDPROXY_MASTER_KEY to `new,old` everywhere, run this, then leave the old key out.
    """
    from brandproxy.cli.common import with_context
    from brandproxy.store.seal import open_seal
    from brandproxy.store.seal import reseal as work

    print(f"{with_context(lambda context: work(context.store, open_seal(context.settings)))} values sealed anew")
