"""`brandproxy rewrite`, `unrewrite` and `audit`: a pipe loses no byte, and its exit code says what happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brandproxy.cli import audit, proof
from brandproxy.core import reasons
from tests.core.mails import TENANT, mail, multipart, part

HTML = '<p>Grüße</p><a href="https://www.acme.test/">x</a><img src="https://cdn.acme.test/mail/a.png">'
MESSAGE = multipart(
    "alternative", part("https://www.acme.test/ \xff", "text/plain"), part(HTML), head="Subject: a\r\n"
)


class Pipe:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
        env |= {"BRANDPROXY_DATA": str(self.folder / "data"), "COLUMNS": "200", **environment}
        call = [sys.executable, "-m", "brandproxy", *words]
        return subprocess.run(call, input=stdin, env=env, cwd=self.folder, capture_output=True, timeout=60)


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return Pipe(tmp_path)


@pytest.fixture
def acme(pipe: Pipe) -> Pipe:
    assert pipe("tenant", "add", "acme").returncode == 0
    return pipe


def test_a_message_is_rewritten_and_restored_byte_for_byte(acme: Pipe) -> None:
    out = acme("rewrite", "--tenant", "acme", "--host", "links.acme.test", "--report", "r.json", stdin=MESSAGE)
    assert out.returncode == 0
    assert out.stdout.count(b"https://links.acme.test/c/") == 2
    report = json.loads((acme.folder / "r.json").read_text())
    assert report["verdicts"] == {"rewritten": 2, "not an origin": 1}
    back = acme("unrewrite", "--report", "r.json", stdin=out.stdout)
    assert (back.returncode, back.stdout) == (0, MESSAGE)
    wrong = acme("unrewrite", "--report", "r.json", stdin=MESSAGE)
    assert (wrong.returncode, wrong.stdout) == (65, b"")


def test_the_tenant_may_be_named_by_the_message(acme: Pipe) -> None:
    message = b"X-Brandproxy-Tenant: acme\r\n" + MESSAGE
    out = acme("rewrite", "--host", "links.acme.test", "--explain", stdin=message)
    assert out.returncode == 0
    assert b"X-Brandproxy" not in out.stdout
    assert b"not an origin" in out.stderr
    assert acme("rewrite", stdin=MESSAGE).returncode == 64


def test_what_was_left_alone_is_explained_in_words(acme: Pipe) -> None:
    def explained(message: bytes) -> str:
        options = ("--tenant", "acme", "--host", "links.acme.test", "--explain")
        return acme("rewrite", *options, stdin=message).stderr.decode()

    first = MESSAGE.partition(b"\r\n")[2]
    told = explained(multipart("mixed", first, part("x", "text/plain; charset=x-klingon"), boundary="o"))
    assert "unknown charset: no mail client knows" in told
    assert "not an origin: an image that" in told
    assert "2 rewritten, 1 not an origin;" in told
    assert "Left alone: broken header (readers disagree" in explained(b"a b\n\nx")
    told = explained(mail("https://acme.test/a[0][/b] https://acme.test/[bold]", "text/plain"))
    assert "a[0][/b]" in told  # no markup of ours
    assert "/[bold]" in told
    told = explained(mail('<a href="https://acme.test/">https://bank.test/</a>'))
    assert "note: a link's text names bank.test, it leads to https://acme.test/" in told


def test_every_reason_of_the_docs_has_its_words_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rewriting.md").read_text()
    section = page.partition("## What is left alone")[2].partition("## Running twice")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    urls = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    parts = section.partition("A part: ")[2].partition(". Attachments")[0]
    assert urls - {"signed part", "delivery report"} == set(reasons.URL)
    assert set(re.findall(r"`([^`]+)`", parts.replace("\n", " "))) == set(reasons.PART)


def test_without_a_usable_host_the_message_passes_as_it_is(acme: Pipe) -> None:
    out = acme("rewrite", "--tenant", "acme", stdin=MESSAGE)
    assert (out.returncode, out.stdout) == (0, MESSAGE)


@pytest.mark.parametrize("message", [b"", b"\x00\xff\r\r\n", b"no header\r\n\r\nhttps://a.test", b"Subject: x"])
def test_what_cannot_be_read_passes_byte_for_byte(acme: Pipe, message: bytes) -> None:
    out = acme("rewrite", "--tenant", "acme", "--host", "links.acme.test", stdin=message)
    assert (out.returncode, out.stdout) == (0, message)


def test_an_unknown_tenant_defers_the_mail_or_passes_it_when_the_operator_says_so(pipe: Pipe) -> None:
    out = pipe("rewrite", "--tenant", "ghost", stdin=MESSAGE)
    assert (out.returncode, out.stdout) == (75, b"")
    out = pipe("rewrite", "--tenant", "ghost", stdin=MESSAGE, BRANDPROXY_MAIL_ON_FAILURE="pass")
    assert (out.returncode, out.stdout) == (0, MESSAGE)


def test_a_store_that_is_away_defers_the_mail(pipe: Pipe) -> None:
    out = pipe("rewrite", "--tenant", "acme", stdin=MESSAGE, BRANDPROXY_STORE="redis://127.0.0.1:1")
    assert (out.returncode, out.stdout) == (75, b"")


def test_a_report_that_cannot_be_written_is_noticed_before_the_mail_is_read(acme: Pipe) -> None:
    out = acme("rewrite", "--tenant", "acme", "--report", "no/such/folder/r.json", stdin=MESSAGE)
    assert (out.returncode, out.stdout) == (73, b"")


def test_an_archive_is_audited_file_by_file_and_message_by_message(pipe: Pipe) -> None:
    archive = pipe.folder / "archive"
    archive.mkdir()
    (archive / "a.eml").write_bytes(MESSAGE)
    (archive / "b.html").write_text(HTML)
    (archive / "c.txt").write_text("just text https://acme.test/")
    (archive / "d.png").write_bytes(b"\x89PNG")
    start = b"From a@b Mon Jan  1 00:00:00 2024\n"
    two = start + mail(HTML).replace(b"\r\n", b"\n") + b"\n\n" + start + b"Subject: two\n\nhttps://acme.test/\n"
    (archive / "e.mbox").write_bytes(two)
    out = pipe("audit", "archive", "--json")
    assert out.returncode == 0, out.stdout
    summary = json.loads(out.stdout)["summary"]
    assert (summary["messages"], summary["passed"], summary["changed"]) == (5, 5, 5)
    table = pipe("audit", "archive")
    assert b"5 of 5 messages pass" in table.stdout
    assert b"unknown charset" not in table.stdout
    (archive / "f.eml").write_bytes(mail("x", "text/plain; charset=x-klingon"))
    told = pipe("audit", "archive")
    assert b"parts" in told.stdout
    assert b"no mail client knows this charset" in told.stdout
    assert pipe("audit", "nowhere").returncode != 0


def test_the_audit_fails_when_something_else_than_a_url_changes() -> None:
    """A proof that cannot fail proves nothing: each check is shown a fault."""
    before = '<p>a</p><a href="https://a.test/">b</a>'
    link = f"{proof.BASE}/c/{'A' * 40}"
    good = before.replace("https://a.test/", link)
    assert proof.compare(before, good, {link: "https://a.test/"}) == []
    for bad in (
        good.replace("<p>a", "<p>A"),
        good.replace("<p>", "<p class=x>"),
        good.replace("</a>", "</a>c"),
        good + "<!-- -->",
        good.replace(link, "https://other.test/"),
    ):
        assert proof.compare(before, bad, {link: "https://a.test/"}), bad
    assert proof.compare(before, good, {link: "https://elsewhere.test/"})
    assert proof.left_over(before, TENANT, set()) == ["left: <a href> https://a.test/"]
    assert proof.left_over('<img src="https://cdn.acme.test/mail/a.png">', TENANT, set())
    assert proof.left_over(before, TENANT, {"https://a.test/"}) == []
    text = f"{link} and https://a.test/b/c, HTTP://A.test/x."
    assert proof.left_in_text(text, []) == ["left: https://a.test/b/c", "left: http://a.test/x"]
    assert proof.left_in_text(text, ["https://a.test/b", "http://a.test/x"]) == []


def test_every_message_and_html_file_of_the_corpus_passes(corpus: Path) -> None:
    """`brandproxy audit` over the corpus, in slices here (BRANDPROXY_AUDIT_EVERY=1 for all of it)."""
    every = int(os.environ.get("BRANDPROXY_AUDIT_EVERY", "8"))
    owner = audit._tenant("")
    seen: set[str] = set()
    for source in list(audit._sources(corpus))[::every]:
        for name, message in audit._messages(source):
            proven = proof.prove(name, message, owner)
            assert proven.faults == [], name
            seen |= proven.verdicts.keys() | proven.parts.keys() | {proven.reason}
    assert {reason for reason in seen if not reasons.meaning(reason)} == {"", "rewritten"}
