"""`brandproxy config …`: the settings in force and where each comes from."""

from __future__ import annotations

import typer
from pydantic import BaseModel, SecretStr

from brandproxy.cli.common import Json, print_json, print_table
from brandproxy.config import load, settings_file
from brandproxy.service_urls import redacted
from brandproxy.setting_sources import source

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
    """Say whether every role would start with these settings. Example: [bold]brandproxy config check[/bold]"""
    from brandproxy.cli.config_check import check as hold

    hold(load())
    file = settings_file()
    print(f"settings hold ({file} {'read' if file.exists() else 'is not there: defaults and environment'})")


def settings_rows() -> list[Row]:
    """(name, value, source, description) of every setting."""
    return [(name, _shown(value), source(name), about) for name, value, about in _walk(load())]


def _walk(model: BaseModel, prefix: str = "") -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            rows += _walk(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value, field.description or ""))
    return rows


def _shown(value: object) -> object:
    """A value as people and logs may see it."""
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    return redacted(value) if isinstance(value, str) and "://" in value else value


@app.command()
def reseal() -> None:
    """Seal all secrets anew under the first master key. Example: [bold]brandproxy config reseal[/bold]

    To rotate: set BRANDPROXY_MASTER_KEY to `new,old` everywhere, run this, then leave the old key out.
    """
    from brandproxy.cli.common import with_context
    from brandproxy.store.seal import open_seal
    from brandproxy.store.seal import reseal as work

    print(f"{with_context(lambda context: work(context.store, open_seal(context.settings)))} values sealed anew")
