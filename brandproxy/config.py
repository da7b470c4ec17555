"""Settings: one typed tree, read from defaults, `brandproxy.toml`, then `BRANDPROXY_*`.

Sections are one level deep: `[edge] http = …` in the file is `BRANDPROXY_EDGE_HTTP` in the environment. What a
value may be stands in `setting_values`, where it comes from in `setting_sources`. No file is needed.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from brandproxy import grants, setting_sources
from brandproxy import setting_values as values
from brandproxy.quotas import Limits
from brandproxy.setting_sources import settings_file as settings_file


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )


Peers = Annotated[tuple[str, ...], AfterValidator(grants.peers)]
Grants = dict[str, Annotated[grants.Grant, BeforeValidator(grants.grant)]]


class Edge(_Section):
    """Where recipients arrive."""

    http: values.ListenAddress = Field(
        values.ListenAddress("127.0.0.1:8080"),
        description="address for plain HTTP (links, challenges): host:port or unix:PATH",
    )
    https: values.ListenAddress = Field(
        values.ListenAddress("127.0.0.1:8443"), description="address for HTTPS: host:port or unix:PATH"
    )
    public_http_port: int = Field(80, ge=1, le=65535, description="port that recipients see for HTTP")
    public_https_port: int = Field(443, ge=1, le=65535, description="port that recipients see for HTTPS")
    domain: values.Domain = Field("edge.invalid", description="tenants' CNAME targets are made under this domain")
    fallback_host: values.OptionalDomain = Field(
        "", description="operator's shared host for tenants without a live one"
    )
    workers: int = Field(0, ge=0, le=1024, description="edge processes; 0: one per core")
    durability: Literal["fsync", "os"] = Field("fsync", description="when a click counts as written")
    spool_max_bytes: int = Field(
        4 << 30,
        ge=1 << 16,
        le=1 << 50,
        description="bound of the spool; beyond it events are lost, redirects go on",
    )
    max_connections: int = Field(
        10_000,
        ge=16,
        le=10_000_000,
        description="open connections of one worker; beyond it the idle ones are closed",
    )
    patience: float = Field(
        15.0, ge=0.1, le=3600, description="seconds a client has for a whole request, and between two"
    )
    max_connections_network: int = Field(
        1000,
        ge=1,
        le=10_000_000,
        description="of these from one network (/24, IPv6: /48); its own idle ones are closed first",
    )
    warm_certificates: int = Field(
        5000,
        ge=1,
        le=10_000_000,
        description="certificates one worker keeps in memory, 24 KiB each; others are read again",
    )
    trusted_proxies: values.NetworkList = Field(
        "", description="networks of load balancers whose word on the client's address is believed"
    )
    machine_networks: values.FilePath | None = Field(
        None, description="file of networks, one a line, whose visitors are machines (data centres); read at start"
    )
    proxy_protocol: bool = Field(
        False, description="every connection starts with a PROXY protocol v2 header (TCP load balancers)"
    )

    def worker_count(self) -> int:
        return self.workers or os.cpu_count() or 1

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return values.networks(self.trusted_proxies)

    @model_validator(mode="after")
    def _listens_apart(self) -> Edge:
        if self.http == self.https:
            raise ValueError("edge.http and edge.https are the same address: write one with another port")
        return self


class Control(_Section):
    """Where operators and analysts arrive."""

    listen: values.Tcp = Field(
        values.ListenAddress("127.0.0.1:8090"), description="address of the HTTP API and the dashboard"
    )
    public: values.OptionalUrl = Field(
        "", description="URL under which customers' browsers reach the pages made for them"
    )
    public_listen: values.OptionalListen = Field(
        "",
        description="address that serves customers' pages and nothing else; empty: they are on `listen` while that"
        " is this machine's own (loopback), and nowhere otherwise",
    )
    trusted_proxies: values.NetworkList = Field(
        "", description="networks of gateways whose word on the client's address and TLS is believed"
    )

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return values.networks(self.trusted_proxies)


class Metrics(_Section):
    """What a monitoring system scrapes; apart from all other ports, since recipients must not see it."""

    listen: values.MetricsListen = Field(
        "",
        description="address of /metrics, which answers once the process serves; empty: none. With `--role all`"
        " the edge answers here, control and collector on the next ports",
    )


class Mail(_Section):
    """The front ends a mail server talks to."""

    milter: values.ListenAddress = Field(
        values.ListenAddress("127.0.0.1:8891"), description="where Postfix or Sendmail ask: host:port or unix:PATH"
    )
    smtp: values.OptionalListen = Field("127.0.0.1:8025", description="address of the SMTP proxy; empty: none")
    smtps: values.OptionalListen = Field(
        "", description="address of the proxy with TLS from the start (port 465); empty: none"
    )
    lmtp: values.OptionalListen = Field(
        "", description="address of the LMTP proxy (host:port or unix:PATH); empty: none"
    )
    next_hop: values.ServerAddress = Field(
        values.ListenAddress("127.0.0.1:10026"),
        description="where the proxies hand mail on, unless the tenant has a relay",
    )
    next_hop_tls: Literal["none", "opportunistic", "required"] = Field(
        "opportunistic", description="STARTTLS to the next hop; `required` also checks its certificate"
    )
    networks: Peers = Field(
        ("127.0.0.0/8", "::1/128"),
        description="who may send through the proxies without logging in, and say XFORWARD",
    )
    milter_networks: Peers = Field(
        ("127.0.0.0/8", "::1/128"), description="mail servers that may use the milter port; they name the logins"
    )
    proxy_networks: Peers = Field(
        (),
        description="balancers in front of proxy and milter: each of their connections starts with a PROXY header",
    )
    xclient_networks: Peers = Field(
        (), description="mail servers that may say by XCLIENT who their client is; `unix` for UNIX sockets"
    )
    certificate: values.FilePath | None = Field(
        None, description="PEM chain and key for STARTTLS at the proxies; none: no TLS"
    )
    copies: Literal["shared", "recipient"] = Field(
        "shared", description="`recipient`: one copy each, with links of his own (LMTP, or SMTP one at a time)"
    )
    logins: Annotated[Grants, AfterValidator(grants.logins)] = Field(
        {}, description="login at the mail server (`user`, `user@domain`, `*@domain`) to what it may send for"
    )
    listeners: Annotated[Grants, AfterValidator(grants.listeners)] = Field(
        {},
        description="`smtp`, `lmtp`, `milter`, or one more address (`smtp:127.0.0.1:8101`), to what mail without"
        ' a login may be that comes there; `"*"`: it is my own pipeline and may name any tenant',
    )
    peers: Annotated[Grants, AfterValidator(grants.peers)] = Field(
        {}, description="client's network to what mail without a login may be that comes from there"
    )
    on_failure: Literal["tempfail", "pass"] = Field(
        "tempfail", description="what the pipeline gets while our infrastructure is away"
    )
    timeout: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="seconds for one message; far below the 300 s a mail server waits (RFC 5321 §4.5.3.2)",
    )
    max_running: int = Field(
        100, gt=0, le=100_000, description="messages worked on at once; more are asked to come later (4xx)"
    )
    max_message: int = Field(
        50 << 20, gt=0, le=1 << 31, description="bytes; what is larger passes the milter untouched"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, given: Any) -> Any:
        return grants.renamed(given) if isinstance(given, dict) else given


class Certs(_Section):
    """Where certificates come from."""

    ca: values.CaUrl = Field("none", description="`none`, `dev` (local test CA) or an ACME directory URL")
    directory: values.FilePath | None = Field(
        None, description="local copies, <host>/fullchain.pem; default: data/certs"
    )
    fallback: values.OptionalUrl = Field(
        "", description="a second ACME directory URL, asked when the first fails for a host"
    )
    acme_trust: values.FilePath | None = Field(
        None, description="CA file for the ACME directory's own TLS (private CAs)"
    )
    contact: values.MailAddress = Field("", description="mail address the CA may write to")
    eab_id: str = Field(
        "", pattern=r"^[!-~]{0,200}$", description="external account binding: key id given by the CA"
    )
    eab_key: values.HmacKey = Field(SecretStr(""), description="external account binding: HMAC key, base64url")
    profile: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="certificate profile asked of the CA, e.g. `shortlived`",
    )
    caa: values.Domains = Field("letsencrypt.org", description="the CA's names in CAA records, comma-separated")
    self_check: bool = Field(True, description="ask our own challenge URL from outside before each order")
    parallel: int = Field(8, ge=1, le=1000, description="orders one control node works on at once")
    # Let's Encrypt's published limits (2026-08); another CA's go here.
    orders_limit: int = Field(300, ge=1, le=10**9, description="new orders of an account in 3 hours")
    domain_limit: int = Field(50, ge=1, le=10**9, description="certificates of a registered domain in 7 days")
    set_limit: int = Field(5, ge=1, le=10**9, description="certificates of the very same names in 7 days")
    failure_limit: int = Field(5, ge=1, le=10**9, description="failed authorizations of a name in 1 hour")

    @property
    def caa_names(self) -> tuple[str, ...]:
        return values.words(self.caa)


class Dns(_Section):
    """How customers' records are looked at, and what we ask of them."""

    servers: values.DnsServers = Field(
        "", description="ask these address:port for all names, not the zones' own (split DNS)"
    )
    recursive: values.DnsServers = Field(
        "", description="resolvers address:port to find zones' servers; default: the system's"
    )
    pending_seconds: float = Field(
        15, ge=0.1, le=10**7, description="shortest time between looks at a host not yet right"
    )
    live_seconds: float = Field(3600, ge=0.1, le=10**7, description="time between looks at a host that is right")
    nameservers: values.Domains = Field(
        "", description="our name servers, for customers who delegate a zone to us"
    )
    update_server: values.DnsServer = Field(
        "", description="address:port of the primary that takes RFC 2136 updates"
    )
    update_key: values.TsigKey = Field(SecretStr(""), description="its TSIG key: name:algorithm:base64")
    dkim_domain: values.OptionalDomain = Field(
        "", description="where DKIM keys lie: <selector>.<label>.<this>; empty: not asked"
    )
    dkim_selectors: values.Selectors = Field(
        "bp1,bp2", description="DKIM selectors asked as CNAMEs; two, so that keys rotate"
    )
    bounce_host: values.OptionalDomain = Field(
        "", description="customers' bounce hosts lead to <label>.<this>; empty: not asked"
    )


class Analytics(_Section):
    """Where events end up."""

    engine: values.EngineUrl = Field(
        "duckdb:", description="`duckdb:` (in the data directory) or `clickhouse://…`"
    )
    stream: values.StreamUrl = Field(
        "", description="Redis that carries events from edges to collectors; empty: the store's, if that is Redis"
    )
    memory: values.Size = Field(
        "512MB", description="most memory the embedded engine may use; the rest spills to disk"
    )
    geoip: values.FilePath | None = Field(
        None, description="MaxMind country database (.mmdb); none: countries stay empty"
    )
    keep_days: int = Field(
        0, ge=0, le=36_500, description="days that events are kept; 0: for ever; tenants may keep less"
    )


class Outbound(_Section):
    """HTTP that we start: storage, one-click unsubscribe, webhooks. Private addresses are refused."""

    allow: values.NetworkList = Field(
        "", description="networks let in all the same, e.g. `10.1.0.0/16, 127.0.0.1`"
    )
    connections: int = Field(
        100, ge=2, le=100_000, description="open connections of one process; bounds memory and sockets"
    )
    seconds: float = Field(20.0, ge=0.1, le=3600, description="longest wait for another server's next bytes")

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return values.networks(self.allow)


class Assets(_Section):
    """How stored images are fetched and kept."""

    hosts: values.HostPatterns = Field(
        "", description="hosts web storage may have, e.g. `*.cdn.example`; empty: any public one"
    )
    max_bytes: int = Field(
        100 << 20, gt=0, le=1 << 40, description="largest object; bounds what one request can cost"
    )
    max_seconds: float = Field(
        120.0, ge=0.1, le=86_400, description="longest time one object may take from storage"
    )
    fresh: int = Field(
        3600, ge=0, le=10**9, description="seconds a copy is used unasked when storage does not say"
    )
    stale: int = Field(
        30 * 86400, ge=0, le=10**9, description="seconds after that a copy is used while storage is asked or fails"
    )
    memory: int = Field(64 << 20, ge=0, le=1 << 40, description="bytes of objects in memory, of each edge process")
    memory_object: int = Field(1 << 20, ge=0, le=1 << 40, description="largest object held in memory")
    disk: int = Field(
        2 << 30, ge=0, le=1 << 50, description="bytes of objects on disk, shared by the edge processes"
    )
    image_processes: int = Field(
        1, ge=1, le=256, description="image variants made at a time by one edge process, a core each"
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BRANDPROXY_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    data: values.FilePath = Field(Path("var"), description="data directory of this machine")
    store: values.StoreUrl = Field("files:", description="`files:` or `redis://…`")
    master_key: values.MasterKeys = Field(SecretStr(""), description="operator's key that seals secrets at rest")
    edge: Edge = Edge()
    control: Control = Control()
    metrics: Metrics = Metrics()
    mail: Mail = Mail()
    certs: Certs = Certs()
    dns: Dns = Dns()
    analytics: Analytics = Analytics()
    outbound: Outbound = Outbound()
    assets: Assets = Assets()
    limits: Limits = Limits()

    @property
    def certs_directory(self) -> Path:
        return self.certs.directory or self.data / "certs"

    @property
    def event_stream(self) -> str:
        """The Redis URL that events travel over; empty: the collector reads this machine's spool."""
        return self.analytics.stream or (self.store if self.store.startswith("redis") else "")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, *setting_sources.of(settings_cls)


def load(**overrides: object) -> Settings:
    """The settings in force. Raises BadSettings, a sentence a fault: setting, source, what to write."""
    with setting_sources.told():
        return Settings(**overrides)  # type: ignore[arg-type]
