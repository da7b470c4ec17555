"""Settings are values: what a role could not start with is refused by `config check`, in one sentence."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from brandproxy.acme.network import Network
from brandproxy.cli import config_check
from brandproxy.config import Settings, load
from brandproxy.context import open_context
from brandproxy.dnsupdate import open_updater
from brandproxy.engines import open_engine
from brandproxy.errors import BadSettings
from brandproxy.fetch import open_fetcher
from brandproxy.onboarding.looking import Looker
from brandproxy.service_urls import redacted
from brandproxy.setting_values import ListenAddress
from brandproxy.store.seal import open_seal
from tests.conftest import free_port

BAD = {
    "control.listen": ["unix:/run/x", "", "127.0.0.1", "127.0.0.1:99999", "a b:80", "::1:80", "127.0.0.1:٨٠"],
    "edge.http": ["", "foo", "unix:", "unix:" + "x" * 108, "-a:80", "203.0.113.9:8080", "unix:/no/such/folder/s"],
    "edge.https": ["127.0.0.1:8080"],  # where edge.http listens
    "edge.workers": ["-3", "many", "1.5", "1000000"],
    "edge.domain": ["not a domain", "", "a..b", "1.2.3.4", "*.example.com", "x" * 64 + ".com", "a.b/c", "é" * 64],
    "edge.fallback_host": ["https://links.example.com", "a b", "links.example.com:8443"],
    "edge.public_https_port": ["0", "65536", "-1"],
    "edge.patience": ["0", "nan", "inf", "-1"],
    "edge.trusted_proxies": ["10.0.0.1/8", "proxy.example"],
    "edge.machine_networks": ["/no/such/file", "{tmp}", "{text}"],
    "edge.htpp": ["127.0.0.1:80"],
    "metrics.listen": ["127.0.0.1:0", "127.0.0.1:65535", "unix:/run/m"],
    "mail.next_hop": ["mx.example", "unix:/run/mx", "mx.example:0", ":25"[:0]],
    "mail.milter": [""],
    "mail.logins": ["foo", "[1]", '{"a@b": 5}'],
    "mail.networks": ["10.0.0.0/8", '["10.0.0.1/8"]'],
    "mail.certificate": ["{text}", "/no/such/file"],
    "certs.ca": ["letsencrypt", "", "ftp://ca.example/", "https://", "https://user:geheim@ca.example/dir"],
    "certs.fallback": ["letsencrypt"],
    "certs.acme_trust": ["{text}"],
    "certs.contact": ["nobody", "a@b@c", "a b@c.example"],
    "certs.caa": ["lets encrypt", "https://letsencrypt.org"],
    "certs.eab_key": ["gehe!m", "a"],
    "certs.orders_limit": ["0"],
    "dns.servers": ["1.2.3.4:99999", "ns1.example:53", "1.2.3.4:", "1.2.3.4:0"],
    "dns.recursive": ["resolver"],
    "dns.update_server": ["1.2.3.4,5.6.7.8", "primary.example"],
    "dns.update_key": ["geheim", "name:hmac-sha256:gehe!m", "name:rot13:Z2VoZWlt"],
    "dns.nameservers": ["ns1 example"],
    "dns.dkim_domain": ["dkim example", ".", ".."],
    "dns.dkim_selectors": ["bp1", "bp1,bp1", "a.b,c", "bp 1,bp2"],
    "dns.bounce_host": ["bounces@example.com"],
    "dns.live_seconds": ["0", "1e300"],
    "analytics.engine": ["foo:", "clickhouse://", "clickhouse://u:geheim@h:0/d", "clickhouse://u:geheim@h/a-b"],
    "analytics.stream": ["files:", "redis://u:geheim@h/x"],
    "analytics.memory": ["lots", "512", "0MB", "-1GB", ""],
    "analytics.geoip": ["{text}"],
    "analytics.keep_days": ["-1", "100000"],
    "outbound.allow": ["localhost"],
    "outbound.seconds": ["0", "nan"],
    "assets.hosts": ["*", "cdn.*.example", "https://cdn.example"],
    "store": ["foo://x", "redis:", "redis://u:geheim@h:99999", "redis://u:geheim@[::1", "redisx://h", "files:/x"],
    "master_key": ["geheim", "geheim,geheim"],
    "data": ["/dev/null", "{text}"],
}  # fmt: skip
CASES = [(name, value) for name, values in BAD.items() for value in values]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("BRANDPROXY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BRANDPROXY_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def variable(name: str) -> str:
    return "BRANDPROXY_" + name.replace(".", "_").upper()


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}={value[:24]!a}" for name, value in CASES])
def test_what_no_role_could_start_with_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no network, no key\n")
    monkeypatch.setenv(
        variable(name), value.format(tmp=tmp_path, text=tmp_path / "text") if "{t" in value else value
    )
    with pytest.raises(BadSettings) as refused:
        config_check.check(load())
    said = str(refused.value)
    if name != "data":
        assert name in said or variable(name) in said
        assert variable(name) in said or name == "edge.https"
    assert "geheim" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("dns.dkim_domain", "DKIM.example.com.", "dkim.example.com"),
        ("edge.domain", " Edge.BÜCHER.example. ", "edge.xn--bcher-kva.example"),
        ("edge.fallback_host", "Links.example.com.", "links.example.com"),
        ("dns.nameservers", "NS1.example.net., ns2.example.net", "ns1.example.net,ns2.example.net"),
        ("certs.caa", "LetsEncrypt.org ,pki.goog", "letsencrypt.org,pki.goog"),
        ("edge.http", "unix:edge.sock", "unix:edge.sock"),
        ("control.listen", "[::1]:8090", "[::1]:8090"),
    ],
)
def test_other_spellings_of_a_value_are_one_value(
    name: str, value: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), value)
    section, _, field = name.partition(".")
    assert getattr(getattr(load(), section), field) == kept


def test_a_listen_address_knows_its_parts() -> None:
    assert (ListenAddress("[::1]:80").host, ListenAddress("[::1]:80").port) == ("::1", 80)
    assert ListenAddress("unix:/run/x").path == Path("/run/x")
    assert ListenAddress("127.0.0.1:9090").above(2) == "127.0.0.1:9092"


# --- secrets -----------------------------------------------------------------------------------------------

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="


def test_a_secret_comes_from_a_file_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "tsig").write_text("n:hmac-sha256:Z2VoZWlt")
    monkeypatch.setenv("BRANDPROXY_MASTER_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("BRANDPROXY_DNS_UPDATE_KEY_FILE", str(tmp_path / "tsig"))
    assert load().master_key.get_secret_value() == KEY
    assert load().dns.update_key.get_secret_value() == "n:hmac-sha256:Z2VoZWlt"
    monkeypatch.setenv("BRANDPROXY_MASTER_KEY", KEY)
    with pytest.raises(BadSettings, match="both set"):
        load()
    monkeypatch.delenv("BRANDPROXY_MASTER_KEY")
    monkeypatch.setenv("BRANDPROXY_MASTER_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(BadSettings, match="none"):
        load()


@pytest.mark.parametrize("file", ["master_key", "brandproxy.master_key", "BRANDPROXY_MASTER_KEY"])
def test_a_secret_comes_from_systemds_credentials(
    file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / file).write_text(KEY + "\n")
    (folder / "dns.update_key").write_text("n:hmac-sha256:Z2VoZWlt")
    (folder / "of-another-program").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert load().master_key.get_secret_value() == KEY
    assert load().dns.update_key.get_secret_value() == "n:hmac-sha256:Z2VoZWlt"


def test_no_password_is_shown(tmp_path: Path) -> None:
    environment = os.environ | {
        "BRANDPROXY_STORE": "redis+sentinel://u:geheim@a,b/main?sentinel_password=geheim",
        "BRANDPROXY_ANALYTICS_STREAM": "redis://:geheim@a/1",
        "BRANDPROXY_ANALYTICS_ENGINE": "clickhouse://u:geheim@h/db?password=geheim&insert_quorum=2",
        "BRANDPROXY_DNS_UPDATE_KEY": "n:hmac-sha256:Z2VoZWlt",
        "BRANDPROXY_CERTS_EAB_KEY": "Z2VoZWlt",
        "BRANDPROXY_MASTER_KEY": KEY,
    }
    for words in (("config", "show"), ("config", "show", "--json")):
        call = [sys.executable, "-m", "brandproxy", *words]
        shown = subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout
        for secret in ("geheim", "Z2VoZWlt", KEY):
            assert secret not in shown
    values = {name: entry["value"] for name, entry in json.loads(shown).items()}
    assert values["analytics.engine"] == "clickhouse://***@h/db?password=***&insert_quorum=2"
    assert values["store"] == "redis+sentinel://***@a,b/main?sentinel_password=***"


@given(st.text("ab@:/?&=#%", max_size=20))
def test_whatever_the_password_it_is_not_shown(password: str) -> None:
    assert "SECRET" not in redacted(
        f"redis://user:SECRET{password.translate(str.maketrans('', '', '/?#'))}@host/0"
    )


# --- any text ----------------------------------------------------------------------------------------------


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        section = isinstance(inner, type) and issubclass(inner, BaseModel)
        found += fields(inner, f"{name}.") if section else [prefix + name]  # type: ignore[arg-type]
    return found


async def start(settings: Settings) -> None:
    """What the roles make of their settings when they start, but for listening and asking other machines."""
    from ipaddress import ip_address

    open_seal(settings)
    async with open_context(settings) as context, open_fetcher(settings):
        looker = Looker(settings)
        assert all(ip_address(host) and port for host, port in (*looker.resolver._fixed, *looker.resolver._given))
        open_updater(settings.dns)
        await context.registry.add_tenant("acme")
        await context.registry.add_host("links.acme.example", "acme")
        if settings.analytics.engine == "duckdb:":
            await open_engine(settings).close()
    if settings.certs.ca not in ("none", "dev"):
        Network  # noqa: B018  its URL was parsed


WORDS = [
    "127.0.0.1:0", "[::1]:1", ":80", "unix:x", "example.com.", "https://a.example/", "redis://", "files:",
    "duckdb:", "clickhouse://h", "0", "-1", "1e9", "10.0.0.0/8", "*", ",", "{}", "[]", "null", "true", "é", " ",
]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([name for name in fields(Settings) if name not in ("data", "store", "analytics.stream")]),
    st.one_of(
        st.sampled_from(WORDS),
        st.lists(st.sampled_from(WORDS), min_size=2, max_size=3).map("".join),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        st.integers().map(str),
    ),
)
def test_any_text_in_any_setting_is_refused_or_starts(tmp_path: Path, name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable(name), value)
        patch.setenv("BRANDPROXY_DATA", str(tmp_path / f"data-{time.monotonic_ns()}"))
        with suppress(BadSettings):
            found = load()
            config_check.check(found)
            asyncio.run(start(found))


def test_a_server_answers_with_values_in_all_their_other_spellings(tmp_path: Path) -> None:
    http, control = free_port(), free_port()
    environment = os.environ | {
        "BRANDPROXY_EDGE_HTTP": f"[::1]:{http}",
        "BRANDPROXY_EDGE_HTTPS": f"unix:{tmp_path}/https.sock",
        "BRANDPROXY_EDGE_WORKERS": "2",
        "BRANDPROXY_EDGE_DOMAIN": "Edge.BÜCHER.example.",
        "BRANDPROXY_EDGE_TRUSTED_PROXIES": "::1, 10.0.0.0/8,",
        "BRANDPROXY_CONTROL_LISTEN": f"localhost:{control}",
        "BRANDPROXY_DNS_SERVERS": "[::1]:5353, 127.0.0.1",
        "BRANDPROXY_DNS_DKIM_DOMAIN": "dkim.example.",
        "BRANDPROXY_ANALYTICS_MEMORY": "64MiB",
        "BRANDPROXY_CERTS_CA": "dev",
    }
    server = subprocess.Popen([sys.executable, "-m", "brandproxy", "serve"], env=environment)
    try:
        for url in (
            f"http://[::1]:{http}/.well-known/acme-challenge/x",
            f"http://127.0.0.1:{control}/openapi.json",
        ):
            until = time.monotonic() + 40
            while True:
                assert server.poll() is None
                assert time.monotonic() < until
                try:
                    urlopen(url, timeout=2).close()
                except OSError as error:
                    if getattr(error, "code", 0) not in (404, 401):
                        time.sleep(0.2)
                        continue
                break
    finally:
        server.terminate()
        server.wait(30)


# --- the data directory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_data_directory_that_others_could_read_is_closed_to_them(mode: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    call = [sys.executable, "-m", "brandproxy", "tenant", "add", "acme"]
    subprocess.run(call, umask=0, check=True, capture_output=True)
    assert data.stat().st_mode & 0o777 == 0o700
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_one_that_belongs_to_somebody_else_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        data.chmod(0o755)
        code = (
            "import os, sys; from pathlib import Path; from brandproxy.data_directory import secure;"
            " os.setuid(65534); secure(Path(sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True)
    assert "is open to other users (mode 0755)" in done.stderr
