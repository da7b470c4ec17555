"""A real Postfix in front of each way in: no mail is lost or doubled, and each restores to what was submitted.

How many mails go through is BRANDPROXY_MAILS (default 40; 1000 for the full drill), and of these through the
pipe, where each is a process, at most BRANDPROXY_PIPE_MAILS (default 6; 1000 take 18 minutes).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import dkim
import pytest

import brandproxy
from brandproxy.context import Context
from brandproxy.filters import milter, smtp
from brandproxy.filters.pipeline import Arrival, Outcome, Pipeline
from tests.conftest import free_port
from tests.filters.conftest import HTML, installation, running
from tests.filters.mails import mails, number, without_additions
from tests.filters.mta import Postfix, Received, need_python_for_all, postfix, send, start_sink
from tests.filters.recipes import RECIPES
from tests.filters.signers import opendkim

COUNT = int(os.environ.get("BRANDPROXY_MAILS", "40"))
PIPE_COUNT = int(os.environ.get("BRANDPROXY_PIPE_MAILS", "6"))
PATIENCE = 30 + COUNT / 5  # seconds
_SIGNER = re.compile(rb"\A(?:(?:DKIM-Signature|Authentication-Results):[^\n]*\n(?:[ \t][^\n]*\n)*)+", re.I)

pytestmark = pytest.mark.timeout(PATIENCE * 3)


class Ledger:
    """What the filter saw and what it made of it, by the mails' numbers: the reports to restore with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[int, tuple[bytes, Outcome]] = {}
        process = Pipeline.process

        async def noted(pipeline: Pipeline, arrival: Arrival) -> Outcome:
            outcome = await process(pipeline, arrival)
            self.seen[number(arrival.message)] = (arrival.message, outcome)
            return outcome

        monkeypatch.setattr(Pipeline, "process", noted)

    def check(self, submitted: dict[int, bytes], received: list[Received]) -> None:
        """Each once; each restores to what was submitted."""
        assert sorted(number(mail.message) for mail in received) == sorted(submitted)
        rewritten = 0
        for mail in received:
            message = without_additions(mail.message)
            before, outcome = self.seen[number(message)]
            assert without_additions(outcome.message) == message
            assert outcome.report is not None
            assert brandproxy.unrewrite(outcome.message, outcome.report) == before
            assert without_additions(before) == submitted[number(message)]
            rewritten += message != submitted[number(message)]
        assert rewritten > len(submitted) / 3  # the corpus has mails without a link, but not that many


def check_signed(received: list[Received], record: bytes) -> None:
    """OpenDKIM stood behind us: its signature is the topmost, and holds over what was received."""
    unsigned = [mail for mail in received if b"d=acme.example; s=s1;" not in mail.message[:2000]]
    assert len(unsigned) < len(received) / 20  # it signs nothing without a readable From
    for mail in received:
        assert mail in unsigned or dkim.verify(mail.message, dnsfunc=lambda name, timeout=5: record)


@contextmanager
def signer() -> Iterator[tuple[int, bytes]]:
    """OpenDKIM behind us: the port of its milter, and its key's record."""
    with tempfile.TemporaryDirectory(prefix="brandproxy-dkim-") as name, opendkim(Path(name)) as found:
        yield found


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    return Ledger(monkeypatch)


async def submit(mta: Postfix, submitted: dict[int, bytes], at_once: int = 10) -> None:
    """All of them, `at_once` at a time; whoever is told to come back does."""
    gate = asyncio.Semaphore(at_once)

    async def one(message: bytes) -> None:
        async with gate:
            await asyncio.to_thread(send, mta.port, "news@acme.example", ["you@example.org"], message)

    await asyncio.gather(*map(one, submitted.values()))


@asynccontextmanager
async def milter_way(tmp_path: Path) -> AsyncIterator[tuple[Context, str]]:
    """The installation, and the line in main.cf."""
    port = free_port()
    async with installation(tmp_path, milter=f"127.0.0.1:{port}") as context, running(milter.run, context):
        yield context, f"smtpd_milters = inet:127.0.0.1:{port}"


async def test_milter(tmp_path: Path, corpus: Path, ledger: Ledger) -> None:
    submitted = mails(corpus, COUNT)
    with signer() as (second, record):
        async with start_sink() as sink, milter_way(tmp_path) as (_, line):
            with postfix(sink.port, main=f"{line}, inet:127.0.0.1:{second}") as mta:
                await submit(mta, submitted)
                received = await sink.until(COUNT, PATIENCE)
                assert mta.queued() == 0
        ledger.check(submitted, received)
        check_signed(received, record)


async def test_content_filter(tmp_path: Path, corpus: Path, ledger: Ledger) -> None:
    """After the queue: Postfix, our SMTP proxy, Postfix again on another port, and out."""
    submitted = mails(corpus, COUNT)
    port, back = free_port(), free_port()
    with signer() as (second, record):
        async with (
            start_sink() as sink,
            installation(tmp_path, smtp=f"127.0.0.1:{port}", next_hop=f"127.0.0.1:{back}") as context,
            running(smtp.run, context),
        ):
            with postfix(sink.port, **content_filter(port, back, second)) as mta:
                await submit(mta, submitted)
                received = await sink.until(COUNT, PATIENCE)
                assert mta.queued() == 0
        ledger.check(submitted, received)
        check_signed(received, record)


def content_filter(port: int, back: int, second: int) -> dict[str, str]:
    """docs/recipes/postfix.md, the second way."""
    return {
        "main": f"content_filter = brandproxy:[127.0.0.1]:{port}\nbrandproxy_destination_recipient_limit = 1",
        "master": (
            "brandproxy unix - - n - 10 smtp\n"
            "  -o smtp_send_xforward_command=yes -o disable_mime_output_conversion=yes\n"
            f"127.0.0.1:{back} inet n - n - 10 smtpd\n"
            "  -o content_filter= -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks\n"
            "  -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o mynetworks=127.0.0.0/8\n"
            f"  -o smtpd_milters=inet:127.0.0.1:{second}\n"
        ),
    }


@pytest.mark.timeout(120 + 10 * PIPE_COUNT)
async def test_pipe(corpus: Path) -> None:
    """A process a mail: fewer mails here. The reports are written to files, named by the queue ids."""
    need_python_for_all()
    count = min(COUNT, PIPE_COUNT)
    submitted = mails(corpus, 249 + count)
    submitted = {at: submitted[at] for at in list(submitted)[:: len(submitted) // count][:count]}
    back = free_port()
    with tempfile.TemporaryDirectory(prefix="brandproxy-pipe-") as name, signer() as (second, record):
        home = Path(name)
        async with start_sink() as sink, installation(home / "data"):
            script = pipe_script(home, back)
            with postfix(sink.port, **pipe(script, back, second)) as mta:
                await submit(mta, submitted)
                received = await sink.until(count, 60 + 5 * count)
                assert sorted(number(mail.message) for mail in received) == sorted(submitted)
                assert {mail.sender for mail in received} == {"news@acme.example"}  # a bounce has none
                assert mta.queued() == 0
        for mail in received:
            check_piped(mail.message, submitted[number(mail.message)], home / "reports")
        check_signed(received, record)


async def test_a_bounce_through_the_pipe_stays_one() -> None:
    """The null sender goes back in as it came: a bounce with a sender could be bounced again."""
    need_python_for_all()
    back = free_port()
    with tempfile.TemporaryDirectory(prefix="brandproxy-pipe-") as name, signer() as (second, _):
        home = Path(name)
        async with start_sink() as sink, installation(home / "data"):
            with postfix(sink.port, **pipe(pipe_script(home, back), back, second)) as mta:
                await asyncio.to_thread(send, mta.port, "", ["you@example.org"], HTML)
                (received,) = await sink.until(1, 60)
    assert (received.sender, received.recipients) == ("<>", ["you@example.org"])


def pipe(script: Path, back: int, second: int) -> dict[str, str]:
    """docs/recipes/postfix.md, the third way."""
    return {
        "main": "content_filter = brandproxy:dummy",
        "master": (
            "brandproxy unix - n n - 2 pipe\n"
            f"  flags=q null_sender= user=nobody argv={script} ${{queue_id}} acme ${{sender}} ${{recipient}}\n"
            f"127.0.0.1:{back} inet n - n - 10 smtpd -o content_filter=\n"
            f"  -o smtpd_milters=inet:127.0.0.1:{second}\n"
        ),
    }


def pipe_script(home: Path, back: int) -> Path:
    """docs/recipes/brandproxy-pipe with this environment's program and, for sendmail, a client of our own:
    Debian's sendmail speaks only to the Postfix in /etc."""
    home.chmod(0o755)
    sendmail = home / "sendmail"
    sendmail.write_text(
        f"#!{sys.executable}\nimport smtplib, sys\nat = sys.argv.index('--')\n"
        "mail = sys.stdin.buffer.read().replace(b'\\n', b'\\r\\n')\n"
        f"with smtplib.SMTP('127.0.0.1', {back}) as client:\n"
        "    client.sendmail(sys.argv[at - 1], sys.argv[at + 1:], mail, ['BODY=8BITMIME'])\n"
    )
    script = home / "pipe"
    script.write_text(
        f"#!/bin/sh\nexport BRANDPROXY_DATA={home}/data TMPDIR={home}/tmp\n"
        f"export BRANDPROXY={Path(sys.executable).parent}/brandproxy\n"
        f'export SENDMAIL={sendmail} REPORT={home}/reports/$1\nshift\nexec {RECIPES}/brandproxy-pipe "$@"\n'
    )
    for part in ("reports", "tmp"):
        (home / part).mkdir()
    subprocess.run(["chmod", "755", script, sendmail], check=True)
    subprocess.run(["chown", "-R", "nobody", home], check=True)
    return script


def check_piped(received: bytes, submitted: bytes, reports: Path) -> None:
    """The pipe sees LF line ends and one Received; going back in adds another above, and what the signer adds."""
    lines = _SIGNER.sub(b"", received.replace(b"\r\n", b"\n"))
    trace = re.findall(rb"^Received:[^\n]*\n(?:[ \t][^\n]*\n)*", lines, re.M)
    queue_id = re.search(rb"SMTP[A-Z]* id (\w+)", trace[1])
    assert queue_id is not None
    report = brandproxy.Report.from_dict(json.loads((reports / queue_id[1].decode()).read_bytes()))
    before = brandproxy.unrewrite(lines.removeprefix(trace[0]), report)
    assert without_additions(before.replace(b"\n", b"\r\n")) == submitted
