"""docs/recipes/signing.md, run: who signs behind us signs the new links. Rewriting comes first, signing second."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import dkim
import pytest

from brandproxy.filters import milter
from tests.conftest import free_port
from tests.filters.conftest import HTML, installation, running
from tests.filters.mta import postfix, send, start_sink
from tests.filters.signers import Signer, opendkim, rspamd


@pytest.mark.parametrize("signer", [opendkim, rspamd])
async def test_who_signs_behind_us_signs_the_new_links(tmp_path: Path, signer: Signer) -> None:
    """`smtpd_milters` are asked in their order."""
    ours = free_port()
    with tempfile.TemporaryDirectory(prefix="brandproxy-signer-") as name, signer(Path(name)) as (port, txt):
        async with (
            start_sink() as sink,
            installation(tmp_path, milter=f"127.0.0.1:{ours}") as context,
            running(milter.run, context),
        ):
            with postfix(sink.port, main=f"smtpd_milters = inet:127.0.0.1:{ours}, inet:127.0.0.1:{port}") as mta:
                await asyncio.to_thread(send, mta.port, "news@acme.example", ["you@example.org"], HTML)
                (received,) = await sink.until(1, 20)
    assert b"https://links.acme.example/c/" in received.message
    assert dkim.verify(received.message, dnsfunc=lambda name, timeout=5: txt)
