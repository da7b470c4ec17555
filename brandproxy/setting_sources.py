"""Where a setting may come from, the first that has it wins:

1. the environment: `BRANDPROXY_EDGE_HTTP`
2. a file that the environment names: `BRANDPROXY_MASTER_KEY_FILE=/run/secrets/key` (its text, without line ends)
3. systemd's credentials: a file `master_key` or `dns.update_key` in `$CREDENTIALS_DIRECTORY` (systemd.exec(5))
4. `brandproxy.toml`
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

from brandproxy.errors import BadSettings

_PREFIX = "brandproxy_"
_FILE = "_file"
_LARGEST = 1 << 16  # characters of a secret's file


def settings_file() -> Path:
    """The configuration file: `BRANDPROXY_CONFIG`, else `brandproxy.toml` here; it need not exist."""
    return Path(os.environ.get("BRANDPROXY_CONFIG", "brandproxy.toml"))


def of(settings: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
    """The sources by their precedence. Raises OSError and ValueError for files that cannot be read."""
    return _Environment(settings), TomlConfigSettingsSource(settings, settings_file())


def source(name: str) -> str:
    """Where the setting `section.field` comes from, for people."""
    variable = _PREFIX + name.replace(".", "_").lower()
    given = {key.lower(): key for key in os.environ}
    for key in (variable, variable + _FILE):
        if key in given:
            return given[key]
    if variable in (credentials := _credentials()):
        return str(credentials[variable])
    section, _, field = name.partition(".")
    try:
        filed = tomllib.loads(settings_file().read_text()) if settings_file().exists() else {}
    except (OSError, ValueError):
        filed = {}
    place = filed.get(section, {}) if field else filed
    inside = isinstance(place, dict) and (field.partition(".")[0] or section) in place
    # A table of the environment, `BRANDPROXY_MAIL_LOGINS`, is one variable whatever is wrong in it.
    table = _PREFIX + "_".join(name.split(".")[:2])
    return given.get(table) or (str(settings_file()) if inside else "default")


@contextmanager
def told() -> Iterator[None]:
    """Say what is wrong with the settings that are read inside. Raises BadSettings, a sentence a fault."""
    try:
        yield
    except ValidationError as error:
        faults = [_sentence(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        raise BadSettings("; ".join(faults)) from None  # pydantic's own words would show values
    except SettingsError as error:
        wrong = getattr(error.__cause__, "doc", None)  # of a JSONDecodeError
        names = [name for name, value in os.environ.items() if value == wrong and name.lower().startswith(_PREFIX)]
        raise BadSettings(
            f'{" or ".join(names) or "a setting"}: write JSON, e.g. ["10.0.0.0/8"] or {{"name": "value"}}'
        ) from None
    except (ValueError, OSError) as error:
        raise BadSettings(f"{settings_file()}: {error}") from error


def _sentence(name: str, message: str) -> str:
    return f"{name or 'settings'} ({source(name)}): {message.removeprefix('Value error, ')}"


class _Environment(EnvSettingsSource):
    """The environment, the files that it names, and credentials, as if all were variables."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        names = _variables(self.settings_cls)
        found: dict[str, str | None] = {}
        for variable, file in _credentials().items():
            if variable in names:
                found[variable] = _text(file)
        given = dict(super()._load_env_vars())
        for variable in names:
            named = given.pop(variable + _FILE, None)
            if named is not None and variable in given:
                raise BadSettings(f"{variable.upper()} and {(variable + _FILE).upper()} are both set", "Keep one.")
            if named is not None:
                found[variable] = _text(Path(named))
        return found | given


def _variables(settings: type[BaseModel], prefix: str = _PREFIX) -> set[str]:
    found = set()
    for name, field in settings.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= _variables(inner, f"{prefix}{name}_")
        else:
            found.add(prefix + name)
    return found


def _credentials() -> dict[str, Path]:
    """By the variables they stand for; `brandproxy.` before the setting's name is welcome."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder or not Path(folder).is_dir():
        return {}
    paths = {
        path.name.lower().replace(".", "_").replace("-", "_"): path for path in sorted(Path(folder).iterdir())
    }
    return {_PREFIX + name.removeprefix(_PREFIX): path for name, path in paths.items()}


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise BadSettings(f"the setting's file {path} cannot be read: {error}") from error
    if len(text) > _LARGEST:
        raise BadSettings(f"{path} is too large for a setting", f"Keep it within {_LARGEST} characters.")
    return text.rstrip("\r\n")
