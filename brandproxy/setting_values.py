"""Settings as values: each kind is parsed once, here, and normalised; what no role could use raises ValueError.

A message says what to write, and never repeats a value that may hold a password.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, SecretStr
from pydantic_core import core_schema

from brandproxy import service_urls

Network = IPv4Network | IPv6Network
Server = tuple[str, int]  # address and port

UNIX = "unix:"
_SOCKET_PATH = 107  # bytes of a UNIX socket's path (unix(7))
_NAME_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_NAME = 200  # characters; random labels and selectors are put before it, and 253 is the end (RFC 1035 §2.3.4)
_SIZE = re.compile(r"[1-9][0-9]{0,8}(?:\.[0-9]{1,3})? ?(?:[MGT]i?B)", re.IGNORECASE)
_TSIG = frozenset(f"hmac-{name}" for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"))


class ListenAddress(str):
    """`host:port`, `[::1]:port` or `unix:PATH`, where something listens; the text as written, with its parts."""

    __slots__ = ("host", "path", "port")
    host: str  # without brackets; empty for a UNIX socket
    port: int
    path: Path | None

    def __new__(cls, text: str) -> ListenAddress:
        text = text.strip()
        made = super().__new__(cls, text)
        made.host, made.port, made.path = "", 0, None
        if made.startswith(UNIX):
            made.path = _socket_path(made.removeprefix(UNIX))
        else:
            made.host, made.port = _host_and_port(made)
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    def above(self, number: int) -> ListenAddress:
        """The address `number` ports higher."""
        return ListenAddress(f"{self.rpartition(':')[0]}:{self.port + number}")


def _socket_path(text: str) -> Path:
    if not text or "\0" in text or len(text.encode("utf-8", "surrogateescape")) > _SOCKET_PATH:
        raise ValueError(f"write unix:PATH, with a path of 1 to {_SOCKET_PATH} bytes")
    return Path(text)


def _host_and_port(text: str) -> Server:
    host, _, port = text.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port, [::1]:port or unix:PATH")
    if not host:
        return "0.0.0.0", int(port)  # noqa: S104  that is what `:80` says
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        version = ip_address(bare).version
    except ValueError:
        return domain(host), int(port)
    if (version == 6) != (bare != host):
        raise ValueError(f"{text!r} is not host:port; write IPv6 addresses as [::1]:port")
    return bare, int(port)


def _tcp(address: ListenAddress) -> ListenAddress:
    if address.path is not None:
        raise ValueError("no UNIX socket can be used here: write host:port")
    return address


def _of_a_server(address: ListenAddress) -> ListenAddress:
    if _tcp(address).port == 0:
        raise ValueError("write the port, 1 to 65535")
    return address


def _with_room(address: ListenAddress) -> ListenAddress:
    if not 0 < _tcp(address).port <= 65533:
        raise ValueError("write a port from 1 to 65533: three processes answer at it and at the next two")
    return address


def domain(text: str) -> str:
    """A DNS name in lower-case A-labels without a final dot."""
    name = text.strip().removesuffix(".").lower()
    try:
        name = name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        name = ""
    labels = name.split(".")
    if not name or len(name) > _MAX_NAME or not all(map(_NAME_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(f"{text[:80]!r} is not a domain name: write one like links.example.com")
    return name


def words(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def networks(text: str) -> tuple[Network, ...]:
    """Networks and single addresses, comma-separated."""
    return tuple(ip_network(part) for part in words(text))


def servers(text: str) -> tuple[Server, ...]:
    """DNS servers, `address[:port], …`, IPv6 with a port in brackets."""
    found = []
    for part in words(text):
        host, _, port = part.rpartition(":") if part.count(":") == 1 or "]:" in part else (part, "", "53")
        try:
            host = str(ip_address(host.strip("[]")))
        except ValueError:
            host = ""
        if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{part!r} is not a DNS server: write address:port, e.g. 127.0.0.1:5353")
        found.append((host, int(port)))
    return tuple(found)


def _one_server(text: str) -> str:
    if len(servers(text)) > 1:
        raise ValueError("write one server")
    return text


def url(text: str) -> str:
    """An http(s) URL without user and password."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and text.isascii() and text.isprintable() and " " not in text and "@" not in parts.netloc
        if good:
            ListenAddress(f"{parts.netloc if parts.port else parts.netloc.removesuffix(':') + ':1'}")
    except ValueError:
        good = False
    if not good:
        raise ValueError("this is not a URL: write https://HOST or https://HOST/PATH, without user and password")
    return text


def _host_pattern(text: str) -> str:
    return ("*." if text.startswith("*.") else "") + domain(text.removeprefix("*."))


def _selector(text: str) -> str:
    if "." in domain(text):
        raise ValueError(f"{text!r} is not a selector: write one label, e.g. bp1")
    return domain(text)


def _two(text: str) -> str:
    if len(set(words(text))) < 2:
        raise ValueError("name two selectors at least, so that keys can rotate, e.g. `bp1,bp2`")
    return text


def _each(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda text: ",".join(check(part) for part in words(text)))


def _unless_empty(check: Callable[[Any], Any]) -> AfterValidator:
    return AfterValidator(lambda value: check(value) if value.strip() else "")


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _ca(text: str) -> str:
    try:
        return text if text in ("none", "dev") else url(text)
    except ValueError:
        raise ValueError("write `none`, `dev` or an ACME directory's URL (https://…)") from None


def _size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        raise ValueError("write a size of 1 MB or more, e.g. 512MB or 2GB")
    return text


def _mail_address(text: str) -> str:
    if not re.fullmatch(r"[!-?A-~]{1,64}@[!-?A-~]{1,255}", text):
        raise ValueError("write a mail address, e.g. hostmaster@example.com")
    return text


def _path(path: Path) -> Path:
    if not str(path).isprintable():
        raise ValueError("write a path without control characters")
    return path


def _tsig_key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text:
        name, _, rest = text.partition(":")
        algorithm, _, key = rest.partition(":")
        try:
            good = bool(domain(name) and base64.b64decode(key, validate=True)) and algorithm.lower() in _TSIG
        except (ValueError, binascii.Error):
            good = False
        if not good:
            raise ValueError("write name:algorithm:base64, e.g. mykey:hmac-sha256:…")
    return secret


def _base64url(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", text) or len(text.rstrip("=")) % 4 == 1:
        raise ValueError("write the key as the CA gave it, in base64url")
    return secret


def _master_keys(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    for key in text.split(",") if text else ():
        try:
            size = len(base64.urlsafe_b64decode(key.strip()))
        except (ValueError, binascii.Error):
            size = 0
        if size != 32:
            raise ValueError(
                "write 32 bytes in base64url, as `cryptography.fernet.Fernet.generate_key()` makes them"
            )
    return secret


Tcp = Annotated[ListenAddress, AfterValidator(_tcp)]
ServerAddress = Annotated[ListenAddress, AfterValidator(_of_a_server)]
OptionalListen = Annotated[str, _unless_empty(ListenAddress)]
MetricsListen = Annotated[str, _unless_empty(lambda text: _with_room(ListenAddress(text)))]
Domain = Annotated[str, AfterValidator(domain)]
OptionalDomain = Annotated[str, _unless_empty(domain)]
Domains = Annotated[str, _each(domain)]
HostPatterns = Annotated[str, _each(_host_pattern)]
Selectors = Annotated[str, _each(_selector), AfterValidator(_two)]
NetworkList = Annotated[str, _checked(networks)]
DnsServers = Annotated[str, _checked(servers)]
DnsServer = Annotated[str, _checked(servers), AfterValidator(_one_server)]
OptionalUrl = Annotated[str, _unless_empty(url)]
CaUrl = Annotated[str, AfterValidator(_ca)]
StoreUrl = Annotated[str, _checked(service_urls.store)]
EngineUrl = Annotated[str, _checked(service_urls.engine)]
StreamUrl = Annotated[str, _unless_empty(lambda text: service_urls.redis(text) and text)]
Size = Annotated[str, AfterValidator(_size)]
MailAddress = Annotated[str, _unless_empty(_mail_address)]
FilePath = Annotated[Path, AfterValidator(_path)]
TsigKey = Annotated[SecretStr, AfterValidator(_tsig_key)]
HmacKey = Annotated[SecretStr, AfterValidator(_base64url)]
MasterKeys = Annotated[SecretStr, AfterValidator(_master_keys)]
