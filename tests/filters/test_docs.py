"""What docs/filters.md shows of the library runs as it stands there."""

from __future__ import annotations

import asyncio
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.filters.mta import start_sink

PAGE = Path(__file__).parent.parent.parent / "docs" / "filters.md"


async def test_the_smtplib_example_sends_the_tenants_links() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)[0]
    names: dict[str, Any] = {"secret": b"s" * 32}
    exec(compile(code, str(PAGE), "exec"), names)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@acme.com", "you@example.org", "Spring"
    message.set_content("See https://acme.com/spring now\n")

    async with start_sink() as sink:

        def send() -> None:
            with names["BrandedSMTP"]("127.0.0.1", sink.port) as client:
                client.send_message(message)

        await asyncio.to_thread(send)
        assert b"https://links.acme.com/c/" in sink.received[0].message
