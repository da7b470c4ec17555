"""`brandproxy relay`: the password goes in, is sealed, and never comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brandproxy.cli import relay
from brandproxy.errors import BadInput


def command(data: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
    env |= {"BRANDPROXY_DATA": str(data), "COLUMNS": "200"}
    call = [sys.executable, "-m", "brandproxy", *words]
    return subprocess.run(call, env=env, input=stdin, capture_output=True, text=True, timeout=60)


def test_a_relay_is_set_shown_and_removed_and_its_password_stays_inside(tmp_path: Path) -> None:
    command(tmp_path, "tenant", "add", "acme")
    made = command(tmp_path, "relay", "set", "acme", "smtp.acme.com:587", "--user", "mailer", stdin="s3cret\n")
    assert made.returncode == 0, made.stderr
    shown = [
        command(tmp_path, *words).stdout
        for words in (
            ("relay", "show", "acme", "--json"),
            ("tenant", "show", "acme", "--json"),
            ("tenant", "list"),
        )
    ]
    assert json.loads(shown[0]) == {"host": "smtp.acme.com", "port": 587, "tls": "required", "user": "mailer"}
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert "s3cret" not in "".join(shown)
    assert b"s3cret" not in kept
    assert command(tmp_path, "relay", "remove", "acme").returncode == 0
    assert "mail.next_hop" in command(tmp_path, "relay", "show", "acme").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("smtp.acme.com", "required", "", ""), "host:port"),
        (("smtp.acme.com:587", "perhaps", "", ""), "TLS policy"),
        (("smtp.acme.com:587", "opportunistic", "a", "secret"), "checked TLS"),
        (("smtp.acme.com:587", "required", "a", ""), "no password"),
    ],
)
def test_what_would_leak_or_not_work_is_refused(words: tuple[str, str, str, str], says: str) -> None:
    with pytest.raises(BadInput) as refused:
        relay._relay(*words)
    assert says in f"{refused.value} {refused.value.action}"
