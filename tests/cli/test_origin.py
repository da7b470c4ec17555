"""Origins from the command line: checked before they are kept, credentials never shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from brandproxy.cli import build
from brandproxy.errors import BrandproxyError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run a command in this process, on a data directory of its own; errors as `main` prints them."""
    monkeypatch.chdir(tmp_path)
    tree = build()

    def command(*words: str, stdin: bytes = b"", **environment: str) -> SimpleNamespace:
        env = {"BRANDPROXY_DATA": str(tmp_path / "data"), "COLUMNS": "200", **environment}
        result = CliRunner().invoke(tree, words, env=env, input=stdin)
        text = result.stderr
        if isinstance(result.exception, BrandproxyError):
            text = f"{result.exception}\n{result.exception.action}"
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return SimpleNamespace(returncode=result.exit_code, stdout=result.stdout, stderr=text)

    return command


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "logo.png").write_bytes(b"png")
    return folder


def test_an_origin_is_added_checked_and_removed(run, images: Path) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    public = "https://media.acme.com/"
    added = run("origin", "add", "acme", "media", images.as_uri() + "/", "--public", public)
    assert added.returncode == 0, added.stderr
    assert "3 bytes" in run("origin", "check", "acme", "media", "logo.png").stdout
    assert run("origin", "check", "acme", "media").returncode == 0
    assert run("origin", "check", "acme", "media", "nothing.png").returncode == 1
    (listed,) = json.loads(run("origin", "list", "acme", "--json").stdout)
    assert (listed["name"], listed["public"], listed["credentials"]) == ("media", [public], False)
    assert run("cache", "purge", "acme", public + "logo.png").returncode == 0
    assert run("cache", "purge", "acme").returncode == 0
    refused = run("cache", "purge", "acme", "https://elsewhere.com/x.png")
    assert refused.returncode == 1
    assert "not an origin" in refused.stderr
    assert run("origin", "remove", "acme", "media", "--yes").returncode == 0
    assert json.loads(run("origin", "list", "acme", "--json").stdout) == []


def test_credentials_are_sealed_and_never_printed(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    (tmp_path / "keys").write_text("# ours\naws_access_key_id=AKIAX\naws_secret_access_key=hush-hush\n")
    added = run("origin", "add", "acme", "media", "s3://bucket/mail", "--credentials", "keys", "--json")
    assert json.loads(added.stdout)[0]["credentials"] is True
    printed = "".join(
        run(*words).stdout
        for words in (
            ("origin", "list", "acme", "--json"), ("tenant", "show", "acme", "--json"), ("tenant", "show", "acme"),
        )
    )  # fmt: skip
    assert "hush-hush" not in printed + added.stdout
    assert "AKIAX" not in printed + added.stdout
    assert not any(b"hush-hush" in file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "words",
    [("media", "ftp://x/"), ("media", "https://u@x/"), ("media", "https://x/?a=b"), ("media", "https://x"),
     ("Media!", "https://x.com/"), ("media", "s3://"), ("media", "https://x.com/", "--variant", "w0"),
     ("media", "https://x.com/", "--public", "javascript:1"), ("media", "https://x.com/", "--failover", "x")],
)  # fmt: skip
def test_what_cannot_be_an_origin_is_refused_with_advice(run, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    refused = run("origin", "add", "acme", *words)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 2


def test_hosts_outside_the_operators_list_are_refused(run) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    allowed = {"BRANDPROXY_ASSETS_HOSTS": "media.acme.com, *.cdn.example"}
    assert run("origin", "add", "acme", "a", "https://x.cdn.example/", **allowed).returncode == 0
    assert run("origin", "add", "acme", "b", "https://cdn.example.evil.com/", **allowed).returncode == 1


def test_a_mail_is_rewritten_to_copies_of_its_images(run, images: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run("tenant", "add", "acme")
    run("origin", "add", "acme", "media", images.as_uri() + "/", "--public", "https://media.acme.com/")
    mail = b"Content-Type: text/html\r\n\r\n<img src=https://media.acme.com/logo.png>\r\n"
    copied = run("origin", "snapshot", "acme", stdin=mail)
    assert copied.returncode == 0
    copy = json.loads(copied.stdout)["media"]["logo.png"]
    assert (images / copy).read_bytes() == b"png"
    assert "1/1 media logo.png: 3 bytes copied" in copied.stderr
    (tmp_path / "copies.json").write_text(copied.stdout)
    words = ("rewrite", "--tenant", "acme", "--host", "links.acme.com", "--snapshots", "copies.json")
    mailed = run(*words, stdin=mail)
    assert mailed.returncode == 0, mailed.stderr
    assert copy.rpartition("/")[2] in mailed.stdout
    assert "logo.png" not in mailed.stdout
