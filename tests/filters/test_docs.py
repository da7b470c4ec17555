"""What docs/filters.md and docs/library.md show of the library runs as it stands there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from brandproxy.filters import smtp
from tests.conftest import free_port
from tests.filters.conftest import HTML, installation, running
from tests.filters.mta import start_sink

DOCS = Path(__file__).parent.parent.parent / "docs"
SECRET = b"s" * 32
BRANDED = b"https://links.acme.com/c/"
PAGE = '<p><a href="https://acme.com/spring">Spring</a></p>'


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


SMTPLIB, DJANGO, FLASK = examples("filters.md")
LIBRARY, TEMPLATE = examples("library.md")


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "docs", "exec"), names)
    return names


async def test_the_smtplib_example_sends_the_tenants_links() -> None:
    names = run(SMTPLIB, secret=SECRET)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@acme.com", "you@example.org", "Spring"
    message.set_content("See https://acme.com/spring now\n")
    async with start_sink() as sink:

        def send() -> None:
            with names["BrandedSMTP"]("127.0.0.1", sink.port) as client:
                client.send_message(message)

        await asyncio.to_thread(send)
        assert BRANDED in sink.received[0].message


SHOP = """
from django.conf import settings
from django.core.mail import send_mail
settings.configure(EMAIL_BACKEND="shop.mail.Branded", EMAIL_HOST="127.0.0.1", EMAIL_PORT=int({port}))
send_mail("Spring", "See https://acme.com/spring", "news@acme.com", ["you@example.org"], html_message={html!r})
"""


async def test_the_django_example_sends_the_tenants_links(tmp_path: Path) -> None:
    """In a process of its own: Django's settings are the process's."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mail.py").write_text(f"secret = {SECRET!r}\n{SMTPLIB}\n\n{DJANGO}")
    async with start_sink() as sink:
        code = SHOP.format(port=sink.port, html=PAGE)
        call = [sys.executable, "-c", code]
        done = await asyncio.to_thread(
            subprocess.run, call, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert sink.received[0].message.count(BRANDED) == 2  # text and HTML
        assert b"https://acme.com/spring" not in sink.received[0].message


async def test_the_flask_example_sends_the_tenants_links_through_the_proxy(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink:
        settings = {"smtp": "", "listeners": {f"smtp:127.0.0.1:{port}": "*"}, "next_hop": f"127.0.0.1:{sink.port}"}
        async with installation(tmp_path, **settings) as context, running(smtp.run, context):
            send: Callable[..., None] = run(FLASK.replace("8026", str(port)))["send"]
            await asyncio.to_thread(send, "you@example.org", "Spring", PAGE)
        message = sink.received[0].message
        assert b"https://links.acme.example/c/" in message
        assert b"X-Brandproxy" not in message


def test_the_library_examples_give_messages_and_templates() -> None:
    sent: list[bytes] = []
    raw = HTML.replace(b"acme.example", b"acme.com")
    names = run(LIBRARY, secret=SECRET, raw_bytes=raw, send=sent.append)
    assert BRANDED in sent[0]
    assert names["brandproxy"].unrewrite(sent[0], names["result"].report) == raw
    people = [SimpleNamespace(n=1, opaque_id="r-1"), SimpleNamespace(n=2, opaque_id="r-2")]
    given = {"html": PAGE, "links_in_the_text_part": 1, "people": people, "sent_at": int(time.time())}
    body = run(TEMPLATE, **given, **{name: names[name] for name in ("brandproxy", "acme")})["body"]
    assert (BRANDED if isinstance(body, bytes) else BRANDED.decode()) in body
