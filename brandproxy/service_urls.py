"""URLs of the services behind us: Redis, ClickHouse, and the homes on this machine (`files:`, `duckdb:`).

Parsed here once for the settings and for the clients. Messages never repeat a URL: it may hold a password;
`redacted` is the form to show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_REDIS_QUERY = {"ca", "cert", "key", "sentinel_user", "sentinel_password", "replicas"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]")
_USER_INFO = re.compile(r"(?<=//)[^/?#]*@")
_SECRET = re.compile(r"([?&][^=&#]*(?:pass|secret|token|auth|credential)[^=&#]*=)[^&#]+", re.IGNORECASE)
_REDIS_FORMS = "redis://host:6379/0, redis+sentinel://host:26379/master/0 or redis+cluster://host:6379"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`hosts` in the order given."""

    kind: str  # "single" | "sentinel" | "cluster"
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None = field(repr=False)
    master: str
    db: int
    query: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClickHouseUrl:
    """`hosts` as `http(s)://host:port/`; `settings` are the server's."""

    hosts: tuple[str, ...]
    user: str
    password: str = field(repr=False)
    database: str
    cluster: str
    settings: dict[str, str] = field(repr=False)


def redacted(url: str) -> str:
    """A URL to show: without user and password, and without secrets in its query."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***@", url))


def store(text: str) -> None:
    """`files:` or a Redis URL. Raises ValueError."""
    if text != "files:":
        redis(text, f"`files:`, {_REDIS_FORMS}")


def engine(text: str) -> None:
    """`duckdb:`, `duckdb:PATH` or a ClickHouse URL. Raises ValueError."""
    if not text.startswith("duckdb:"):
        clickhouse(text)
    elif not text.isprintable():
        raise ValueError("write `duckdb:PATH` without control characters")


def redis(text: str, forms: str = _REDIS_FORMS) -> RedisUrl:
    """Raises ValueError."""
    parts, login, places, query = _split(text, f"this is not a Redis URL: write {forms}")
    base, _, kind = parts.scheme.partition("+")
    user, _, password = login.partition(":")
    path = parts.path.strip("/").split("/")
    fault = ""
    if base not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster") or not places:
        fault = "this is not a Redis URL"
    elif unknown := query.keys() - _REDIS_QUERY:
        fault = f"unknown {', '.join(sorted(unknown))[:80]}"
    if fault:
        raise ValueError(f"{fault}: write {forms}")
    hosts = tuple(_place(place, 26379 if kind == "sentinel" else 6379) for place in places.split(","))
    master = path.pop(0) if kind == "sentinel" else ""
    db = path[0] if path and path[0] else "0"
    if kind == "sentinel" and not master:
        fault = "the master's name is missing"
    elif not re.fullmatch("[0-9]{1,9}", db) or len(path) > 1:
        fault = "the database is a number"
    elif kind == "cluster" and int(db):
        fault = "a cluster has only database 0"
    elif not re.fullmatch("[0-9]{1,3}", query.get("replicas", "0")) or (kind == "cluster" and "replicas" in query):
        fault = "replicas is a number, and for single servers and Sentinel"
    if fault:
        raise ValueError(f"{fault}: write {forms}")
    login_texts = (unquote(user) or None, unquote(password) or None)
    return RedisUrl(kind or "single", base == "rediss", hosts, *login_texts, master, int(db), query)


def clickhouse(text: str) -> ClickHouseUrl:
    """Raises ValueError."""
    forms = "write `duckdb:` or clickhouse://user:password@host:8123/database"
    parts, login, places, settings = _split(text, forms)
    user, _, password = login.partition(":")
    scheme = "https" if settings.pop("tls", "") == "1" else "http"
    cluster, database = settings.pop("cluster", ""), parts.path.strip("/") or "brandproxy"
    if parts.scheme != "clickhouse" or not places:
        raise ValueError(f"this is not a ClickHouse URL: {forms}")
    if not _NAME.fullmatch(database) or not _NAME.fullmatch(cluster or "none"):
        raise ValueError(f"names of database and cluster are letters, digits and underscores: {forms}")
    if not all(map(_SETTING.fullmatch, settings)):
        raise ValueError(f"the query names no settings: {forms}")
    # Both travel in headers (RFC 9110 §5.5).
    login_texts = (unquote(user), unquote(password))
    if not all(part.isascii() and (part.isprintable()) and part == part.strip() for part in login_texts):
        raise ValueError("user and password are printable ASCII characters")
    found = [_place(place, 8123) for place in places.split(",")]
    hosts = tuple(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in found)
    return ClickHouseUrl(hosts, *login_texts, database, cluster, settings)


def _split(text: str, forms: str) -> tuple[SplitResult, str, str, dict[str, str]]:
    """The parts; user and password; hosts; the query."""
    try:
        if not text.isprintable():
            raise ValueError("not printable")
        parts = urlsplit(text)
        login, _, places = parts.netloc.rpartition("@")
        return parts, login, places, dict(parse_qsl(parts.query, max_num_fields=100))
    except ValueError:  # of urllib, whose message names the host with its password
        raise ValueError(forms) from None


def _place(text: str, default: int) -> tuple[str, int]:
    host, port = (text, "") if text.endswith("]") or ":" not in text else text.rpartition(":")[::2]
    if not _HOST.fullmatch(host):
        raise ValueError("a host is missing or not one")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 1 << 16):
        raise ValueError("a port is not from 1 to 65535")
    return host.strip("[]"), int(port or default)
