"""The library: what pipelines call, with no store, no settings and no server."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brandproxy
from brandproxy.core.urls import host_of
from brandproxy.errors import BadInput
from brandproxy.model import Origin, References
from tests.core.mails import BASE, NOW, REFS, TENANT, mail, multipart, part, rewrite, with_policy

URL = "https://www.acme.test/shop?id=7&x=é"
HTML = (
    '<body><a href="https://www.acme.test/shop?id=7&amp;copy=1">Shop</a><a href="mailto:a@b">m</a>'
    '<a clicktracking="off" href="https://www.acme.test/x">x</a><img src="https://cdn.acme.test/mail/a.png">'
    '<a href="https://www.acme.test/two">Two</a><p style="background:url(https://cdn.acme.test/mail/b.png)">é</p></body>'
)
refs = st.builds(References, *[st.text(st.sampled_from("abc-_é1"), max_size=20)] * 3, st.just(NOW))


def test_the_library_loads_without_anything_that_serves() -> None:
    heavy = "{'pydantic', 'typer', 'rich', 'starlette', 'httpx', 'duckdb', 'cryptography', 'bs4', 'asyncio'}"
    code = f"import brandproxy, sys; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_a_tenant_for_pipelines_without_a_store() -> None:
    made = brandproxy.tenant("acme", b"s" * 32, origins={"media": "https://cdn.acme.test/mail/"})
    assert rewrite(mail(HTML), made).report.rewritten
    with pytest.raises(ValueError):
        brandproxy.tenant("acme", b"short")


@settings(deadline=None)
@given(refs, st.booleans())
def test_a_compiled_template_renders_what_the_plain_path_writes(references: References, opens: bool) -> None:
    tenant = with_policy(opens=opens, private=("*/two",))
    template = brandproxy.compile(HTML, tenant, BASE)
    plain = brandproxy.rewrite(mail(HTML, encoding="binary"), tenant, references, BASE, NOW).message
    assert template.render(references) == plain.partition(b"\r\n\r\n")[2].decode()


def test_a_compiled_template_of_a_real_mail_renders_what_the_plain_path_writes(corpus: Path) -> None:
    """Every HTML file of the corpus, for three recipients."""
    people = [replace(REFS, recipient=f"r-{number}", sent_at=NOW + number) for number in range(3)]
    links = 0
    for path in sorted(corpus.rglob("*.html")):
        html = path.read_text("utf-8", "replace")
        message = mail(html, encoding="binary")
        hosts = {host_of(link.url) for link in rewrite(message).report.links if link.verdict == "not an origin"}
        origins = tuple(Origin(host, f"https://{host}/", (f"https://{host}/",)) for host in sorted(hosts) if host)
        tenant = replace(with_policy(opens=True), origins=origins)
        template = brandproxy.compile(html, tenant, BASE)
        for person in people:
            result = brandproxy.rewrite(message, tenant, person, BASE, NOW)
            assert mail(template.render(person), encoding="binary") == result.message, path
            assert [link.verdict for link in template.links] == [link.verdict for link in result.report.links], (
                path
            )
        links += len(result.report.rewritten)
    assert links > 100


def test_a_template_keeps_placeholders_for_whoever_fills_them_and_its_links_are_restored() -> None:
    """Variables in the text are filled behind us; a link with one in it stays, its target being unknown."""
    html = HTML.replace("Shop", "Hi {{ name }}").replace(
        "</body>", '<a href="https://a.test/?to={{ id }}">x</a></body>'
    )
    for number in range(3):
        rendered = brandproxy.compile(html, TENANT, BASE).render(
            replace(REFS, recipient=f"r-{number}", sent_at=NOW)
        )
        assert rendered.count("{{ name }}") == rendered.count("https://a.test/?to={{ id }}") == 1
        filled = rendered.replace("{{ name }}", "Zoë").replace("{{ id }}", str(number))
        restored = brandproxy.restore(mail(filled), TENANT).decode()
        expected = html.replace("{{ name }}", "Zoë").replace("{{ id }}", str(number))
        assert restored.endswith(expected.replace(' clicktracking="off"', ""))


def test_a_template_numbers_its_links_after_the_parts_before_it() -> None:
    message = multipart(
        "alternative", part("https://a.test/1 https://a.test/2", "text/plain"), part(HTML, encoding="binary")
    )
    plain = brandproxy.rewrite(message, TENANT, replace(REFS, sent_at=NOW), BASE, NOW).message
    rendered = brandproxy.compile(HTML, TENANT, BASE, first_link=3).render(replace(REFS, sent_at=NOW))
    assert rendered.encode() in plain


def test_a_template_says_what_it_left_alone() -> None:
    template = brandproxy.compile(HTML, TENANT, BASE)
    assert [link.verdict for link in template.links] == [
        "rewritten", "not http(s)", "opted out", "rewritten", "rewritten", "rewritten",
    ]  # fmt: skip


def test_a_template_that_is_signed_in_its_text_renders_itself() -> None:
    html = f"<pre>\n-----BEGIN PGP SIGNED MESSAGE-----\n</pre>{HTML}"
    template = brandproxy.compile(html, with_policy(opens=True), BASE)
    assert template.render(REFS) == html
    assert {link.verdict for link in template.links} == {"inline PGP"}
    assert rewrite(mail(html), with_policy(opens=True)).message == mail(html)


def test_a_template_without_a_usable_host_renders_itself() -> None:
    assert brandproxy.compile(HTML, TENANT, None).render(REFS) == HTML


def test_a_template_refuses_references_that_cannot_be_signed() -> None:
    template = brandproxy.compile(HTML, TENANT, BASE)
    for bad in (References("c" * 300), References(message="a\nb"), References(recipient="a\x1fb")):
        with pytest.raises(BadInput):
            template.render(bad)


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    "kind", ["text/html; charset=utf-8", "text/plain; charset=utf-8", "text/html; charset=iso-8859-1"]
)
def test_the_keys_alone_bring_the_urls_back(kind: str, encoding: str) -> None:
    body = f'<a href="{URL.replace("&", "&amp;")}">ü</a><img src="https://cdn.acme.test/mail/a.png#x">'
    body = f"ü see {URL} there" if "plain" in kind else body
    charset = kind.rpartition("=")[2]
    head = "List-Unsubscribe: <https://acme.test/u?id=1&x=2>\r\n"
    original = mail(body.encode(charset), kind, encoding, head)
    result = rewrite(original)
    assert result.message != original
    restored = brandproxy.restore(result.message, TENANT)
    assert b"links.acme.test" not in restored
    assert b"List-Unsubscribe: <https://acme.test/u?id=1&x=2>" in restored
    urls = {link.url for link in brandproxy.rewrite(restored, TENANT, REFS, None, NOW).report.links}
    assert "https://acme.test/u?id=1&x=2" in urls
    assert URL in urls or URL.replace("é", "%C3%A9") in urls


def test_the_keys_of_another_tenant_bring_nothing_back() -> None:
    message = rewrite(mail(HTML)).message
    assert brandproxy.restore(message, brandproxy.tenant("other", b"o" * 32)) == message
