"""The command line works on a bare data directory, without a server, and says what to do next."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_addresses


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run a brandproxy command on a data directory of its own."""

    def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
        env |= {"BRANDPROXY_DATA": str(tmp_path / "data"), "COLUMNS": "200", **environment}
        call = [sys.executable, "-m", "brandproxy", *words]
        return subprocess.run(call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return command


def test_a_tenant_its_host_and_its_key_are_made_from_nothing(run) -> None:  # type: ignore[no-untyped-def]
    assert run("tenant", "add", "acme", "--name", "Acme", "--home", "https://acme.com/").returncode == 0
    added = run("host", "add", "Links.Acme.com", "--tenant", "acme")
    assert "links.acme.com.  CNAME  " in added.stdout
    hosts = json.loads(run("host", "list", "--json").stdout)
    assert [(h["name"], h["tenant"], h["state"]) for h in hosts] == [("links.acme.com", "acme", "pending")]
    key = run("key", "create", "--tenant", "acme").stdout.strip()
    assert key.startswith("bp_")
    assert key.split("_", 2)[2] not in run("key", "list", "--json").stdout


def test_what_the_customer_has_to_create_is_said_at_once(run) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    zone = ("host", "add", "links.mail.acme.com", "--tenant", "acme", "--zone", "mail.acme.com")
    unset = run(*zone).stdout
    assert "BRANDPROXY_DNS_NAMESERVERS first" in unset
    assert "set BRANDPROXY_EDGE_DOMAIN" in unset
    run("host", "remove", "links.mail.acme.com", "--yes")
    ours = {"BRANDPROXY_DNS_NAMESERVERS": "ns1.esp.net,ns2.esp.net", "BRANDPROXY_EDGE_DOMAIN": "esp.net"}
    told = run(*zone, **ours).stdout
    assert "  mail.acme.com.  NS  ns1.esp.net.\n  mail.acme.com.  NS  ns2.esp.net.\n" in told
    assert "CNAME" not in told
    assert "first" not in told


def test_the_operator_vouches_for_a_name_with_a_reason_in_the_audit_trail(run) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    run("host", "add", "links.acme.localhost", "--tenant", "acme")
    assert run("host", "accept", "links.acme.localhost").returncode == 2  # no reason
    assert "no reason" in run("host", "accept", "links.acme.localhost", "--reason", " ").stderr
    accepted = run("host", "accept", "links.acme.localhost", "--reason", "our own machine", "--json")
    host = json.loads(accepted.stdout)
    assert (host["state"], host["accepted"]) == ("verified", "our own machine")
    run("host", "suspend", "links.acme.localhost")
    assert "suspended" in run("host", "accept", "links.acme.localhost", "--reason", "x").stderr
    resumed = json.loads(run("host", "resume", "links.acme.localhost", "--json").stdout)
    assert (resumed["state"], resumed["accepted"], resumed["proven_at"]) == ("pending", "", 0)


def test_what_is_printed_of_a_tenant_holds_no_secret(run) -> None:  # type: ignore[no-untyped-def]
    shown = json.loads(run("tenant", "add", "acme", "--json").stdout)
    assert shown["keys"] == [{"number": 0, "created_at": shown["created_at"], "revoked_at": None}]


def test_settings_change_only_what_is_named(run) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    run("tenant", "set", "acme", "--opens", "--private", "app.acme.com/login/*")
    changed = json.loads(run("tenant", "set", "acme", "--exclude", "a.com/*", "--json").stdout)
    assert changed["policy"]["opens"] is True
    assert changed["policy"]["private"] == ["app.acme.com/login/*"]
    assert changed["policy"]["exclude"] == ["a.com/*"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tenant", "show", "ghost"), "tenant add"),
        (("host", "add", "not a host", "--tenant", "x"), "links.example.com"),
        (("token", "show", "https://example.com/"), "https://HOST/c/TOKEN"),
        (("token", "show", "https://links.ghost.com/c/AAA"), "host list"),
        (("key", "revoke", "nope"), "key list"),
        (("block", "remove", "nope"), "block list"),
        (("origin", "add", "acme", "media", "s3://b/p", "--credentials", "nope.txt"), "KEY=VALUE"),
        (("smtp", "--listen", "127.0.0.1:0", "--next-hop", "a:b"), "host:port"),
    ],
)
def test_a_failure_is_one_line_and_the_next_step(run, words, says) -> None:  # type: ignore[no-untyped-def]
    failed = run(*words)
    assert failed.returncode in (1, os.EX_CONFIG)
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_data_directory_that_cannot_be_is_one_line_and_the_next_step(run) -> None:  # type: ignore[no-untyped-def]
    failed = run("tenant", "list", BRANDPROXY_DATA="/dev/null")
    assert failed.returncode == os.EX_CONFIG
    assert "/dev/null" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_address_that_is_taken_is_one_line_and_the_next_step(run) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = run("serve", "--role", "edge", BRANDPROXY_EDGE_HTTP=address)
    assert failed.returncode == os.EX_CONFIG
    assert "in use" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("role", ["edge", "all"])
def test_what_cannot_start_is_said_once_and_not_tried_for_ever(run, role) -> None:  # type: ignore[no-untyped-def]
    free = free_addresses("EDGE_HTTP", "EDGE_HTTPS", "CONTROL_LISTEN")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = run("serve", "--role", role, BRANDPROXY_METRICS_LISTEN=address, **free)
    assert failed.returncode == os.EX_CONFIG, failed.stderr
    assert "in use" in failed.stderr  # by `all` perhaps twice: its roles take ports that follow each other
    assert role == "all" or "Traceback" not in failed.stderr


@pytest.mark.parametrize(("role", "setting"), [("edge", "EDGE_MACHINE_NETWORKS"), ("control", "ANALYTICS_GEOIP")])
def test_a_file_that_is_not_there_ends_serve_with_one_line(run, role, setting) -> None:  # type: ignore[no-untyped-def]
    free = free_addresses("EDGE_HTTP", "EDGE_HTTPS", "CONTROL_LISTEN")
    wrong = {f"BRANDPROXY_{setting}": "/nowhere/file", "BRANDPROXY_EDGE_WORKERS": "3"}
    failed = run("serve", "--role", role, **free, **wrong)
    assert failed.returncode == os.EX_CONFIG, failed.stderr
    assert "/nowhere/file" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("EDGE_HTTPS", "foo", "host:port"),
        ("MAIL_NEXT_HOP", "mx.example", "host:port"),
        ("MAIL_NEXT_HOP", "unix:/run/mx", "host:port"),
        ("MAIL_NETWORKS", '["10.0.0.1/8"]', "10.0.0.1/8"),
        ("STORE", "foo://x", "redis://"),
        ("ANALYTICS_GEOIP", "nope.mmdb", "analytics.geoip"),
        ("ANALYTICS_ENGINE", "foo:", "clickhouse://"),
    ],
)
def test_config_check_finds_what_serve_would_stumble_over(run, setting, value, says) -> None:  # type: ignore[no-untyped-def]
    failed = run("config", "check", **{f"BRANDPROXY_{setting}": value})
    assert failed.returncode == os.EX_CONFIG
    assert says in failed.stderr


def test_an_id_stays_in_one_piece_on_a_narrow_screen(run) -> None:  # type: ignore[no-untyped-def]
    told = run("block", "add", "domain", "phish.example", "--reason", "a long report about it " * 5).stdout
    assert told.partition(":")[0] in run("block", "list", COLUMNS="60").stdout


def test_a_wrong_setting_names_its_place(run) -> None:  # type: ignore[no-untyped-def]
    failed = run("config", "check", BRANDPROXY_EDGE_WORKERS="many")
    assert failed.returncode == os.EX_CONFIG
    assert "edge.workers" in failed.stderr


def test_each_setting_is_shown_with_its_source(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "brandproxy.toml").write_text('[edge]\ndomain = "edge.example.net"\nhttp = "127.0.0.1:1"\n')
    shown = json.loads(run("config", "show", "--json", BRANDPROXY_EDGE_HTTP="127.0.0.1:2").stdout)
    assert shown["edge.domain"] == {"value": "edge.example.net", "source": "brandproxy.toml"}
    assert shown["edge.http"] == {"value": "127.0.0.1:2", "source": "BRANDPROXY_EDGE_HTTP"}
    assert shown["store"]["source"] == "default"


def test_the_master_key_is_never_printed(run) -> None:  # type: ignore[no-untyped-def]
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
    assert secret not in run("config", "show", BRANDPROXY_MASTER_KEY=secret).stdout


def test_every_command_teaches_with_an_example(run) -> None:  # type: ignore[no-untyped-def]
    from typer.main import get_command

    from brandproxy.cli import build

    def walk(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                walk(child, (*path, name))
        else:
            told = str(getattr(command, "help", ""))
            assert re.search(rf"Example: (\[bold\])?([A-Z_]+=\S+ )*{' '.join(path)}\b", told), path

    walk(get_command(build()), ("brandproxy",))


def test_a_sending_domain_is_claimed_vouched_for_and_moved(run) -> None:  # type: ignore[no-untyped-def]
    ours = {"BRANDPROXY_DNS_DKIM_DOMAIN": "dkim.esp.example", "BRANDPROXY_DNS_BOUNCE_HOST": "bounces.esp.example"}
    for slug in ("acme", "other"):
        run("tenant", "add", slug)
    added = run("sender", "add", "Acme.com", "--tenant", "acme", **ours).stdout
    claim = json.loads(run("sender", "show", "acme.com", "--json", **ours).stdout)["sender"]
    assert f"bp1._domainkey.acme.com.  CNAME  bp1.{claim['label']}.dkim.esp.example." in added
    assert f"bounce.acme.com.  CNAME  {claim['label']}.bounces.esp.example." in added
    assert (
        f"bp2.{claim['label']}.dkim.esp.example."
        in run("host", "add", "a.acme.com", "--tenant", "acme", **ours).stdout
    )
    assert run("sender", "accept", "acme.com", "--tenant", "acme", "--reason", "contract").returncode == 0
    told = run("sender", "add", "acme.com", "--tenant", "other", **ours).stdout
    assert "proven for another tenant" in told
    assert "CNAME" not in told
    assert claim["label"] not in run("sender", "transfer", "acme.com", "--tenant", "other", **ours).stdout
    listed = json.loads(run("sender", "list", "--json").stdout)
    assert [(one["domain"], one["tenant"], one["state"]) for one in listed] == [("acme.com", "other", "pending")]
    assert "never given out again" in run("sender", "remove", "acme.com", "--yes").stdout
    assert "No senders" in run("sender", "list").stdout
    assert "All updates" in run("dkim", "waiting").stdout
    run("host", "remove", "a.acme.com", "--yes")
    run("tenant", "remove", "acme", "--yes")
    again = run("tenant", "add", "acme")
    assert (again.returncode, "Take another" in again.stderr) == (1, True)
