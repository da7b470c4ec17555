"""Mails a second through our milter and our SMTP proxy, and CPU a mail, beside ones that do nothing.

    milter   a real Postfix (mail discarded after the queue) takes 36 KB mails by SMTP and asks a milter;
             peer `empty`: the same milter code, all steps, that accepts everything
    smtp     our proxy on one core between smtp-source and smtp-sink, 10 KB mails;
             peer `empty`: a bare relay, aiosmtpd in and aiosmtplib out, and nothing between

Rounds are interleaved and the medians taken. Postfix's smtp-source and smtp-sink are the ends: they cost little.
`milter-all` is the CPU of all of Postfix and the milter together for a mail: where all cores are busy, it
says how many mails fit, and unlike mails a second it says so on a machine that others use too.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.report import Row, against, show
from tests.conftest import free_port, need_program
from tests.filters.conftest import installation
from tests.filters.mta import postfix, wait_for

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
COUNT = int(os.environ.get("BENCH_MAILS", "500"))
SESSIONS = 8

_LINK = (
    '<tr><td style="padding:8px;font:14px/20px Arial,sans-serif;color:#333333"><a href="https://www.acme.example'
    '/collections/spring/%d?utm_source=newsletter&amp;utm_medium=email&amp;utm_campaign=spring">Item number %d of'
    " the collection</a>\r\n"
)
_TEXT = (
    '<p style="margin:0 0 8px;padding:0;font-size:13px;line-height:18px">Linen, washed twice, in the colours of'
    " the season; sizes 34 to 48.</p>\r\n"
)
_ROW = _LINK + 8 * _TEXT + "</td></tr>\r\n"


def mail(size: int) -> bytes:
    """An HTML newsletter of about `size` bytes with a link every 1.5 KB."""
    head = "From: Acme <news@acme.example>\r\nTo: you@example.org\r\nSubject: Spring\r\nMIME-Version: 1.0\r\n"
    head += "Message-Id: <1@acme.example>\r\nDate: Mon, 1 Jun 2026 08:00:00 +0000\r\n"
    head += "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    rows = "".join(_ROW % (at, at) for at in range(max(1, size // len(_ROW))))
    return f"{head}<html><body><table>\r\n{rows}</table></body></html>\r\n".encode()


def main(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        asyncio.run(_furnish(data))
        rows = [*milter_rows(data), *smtp_rows(data)]
    show("pipeline", rows, argv)


def milter_rows(data: Path) -> list[Row]:
    with ExitStack() as stack:
        enter = stack.enter_context
        sources = {}
        for name in ("ours", "empty"):
            port = free_port()
            process = enter(_brandproxy(data, "milter", port) if name == "ours" else _empty("milter", port))
            main_cf = f"smtpd_milters = inet:127.0.0.1:{port}\ndefault_transport = discard:\nrelayhost =\n"
            mta = enter(postfix(free_port(), main=main_cf))
            master = psutil.Process(int((mta.home / "queue" / "pid" / "master.pid").read_text()))
            sources[name] = (mta.port, process, master)
        return _rows("milter", sources, mail(36_000))


def smtp_rows(data: Path) -> list[Row]:
    with ExitStack() as stack:
        enter = stack.enter_context
        sink = free_port()
        enter(_program([need_program("smtp-sink", "postfix"), "-u", "postfix", f"127.0.0.1:{sink}", "100"], sink))
        sources = {}
        for name in ("ours", "empty"):
            port = free_port()
            hop = f"127.0.0.1:{sink}"
            process = enter(
                _brandproxy(data, "smtp", port, "--next-hop", hop) if name == "ours" else _empty("smtp", port, hop)
            )
            process.cpu_affinity([0])
            sources[name] = (port, process, None)
        return _rows("smtp", sources, mail(10_000))


Source = tuple[int, psutil.Process, psutil.Process | None]  # port, the filter, the mail server around it


def _rows(case: str, sources: dict[str, Source], message: bytes) -> list[Row]:
    rates: dict[str, list[float]] = {name: [] for name in sources}
    micros: dict[str, list[float]] = {name: [] for name in sources}
    everything: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(ROUNDS + 1):
        for name, source in sources.items():
            figures = _measure(source, message, COUNT if turn else COUNT // 5)
            if turn:  # the first round warms up
                for kept, figure in zip((rates, micros, everything), figures, strict=True):
                    kept[name].append(figure)
    rows = [
        against(case, "mails/s", rates["ours"], "empty", rates["empty"]),
        Row(f"{case}-cpu", median(micros["ours"]), "us/mail", note=f"empty: {median(micros['empty']):,.0f}"),
    ]
    if case == "milter":
        rows.append(against("milter-all", "us/mail", everything["ours"], "empty", everything["empty"]))
    return rows


def _measure(source: Source, message: bytes, count: int) -> tuple[float, float, float]:
    """Mails a second as the client sees it, and CPU microseconds of the filter, and of all, for each."""
    port, process, server = source
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        file.write(message.replace(b"\r\n", b"\n"))  # smtp-source takes files with LF
        file.flush()
        program = need_program("smtp-source", "postfix")
        call = [program, "-d", "-s", str(SESSIONS), "-m", str(count), "-F", file.name]
        call += ["-f", "news@acme.example", "-t", "you@example.org", f"127.0.0.1:{port}"]
        own, others, started = _cpu(process), _cpu(server), time.perf_counter()
        subprocess.run(call, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        own, others = _cpu(process) - own, _cpu(server) - others
        return count / seconds, own * 1e6 / count, (own + others) * 1e6 / count


def _cpu(process: psutil.Process | None) -> float:
    """Seconds of a process and of its children, ended or not."""
    if process is None:
        return 0.0
    return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))


async def _furnish(data: Path) -> None:
    async with installation(data):
        pass


def _brandproxy(data: Path, command: str, port: int, *options: str) -> Any:
    call = [sys.executable, "-m", "brandproxy", command, "--listen", f"127.0.0.1:{port}", *options]
    trusted = {"BRANDPROXY_MAIL_LISTENERS": '{"smtp": "*", "milter": "*"}'}
    return _program(call, port, BRANDPROXY_DATA=str(data), **trusted)


def _empty(what: str, port: int, *options: str) -> Any:
    return _program([sys.executable, "-m", "bench.pipeline", f"--empty-{what}", str(port), *options], port)


@contextmanager
def _program(call: list[str], port: int, **environment: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(call, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, 30)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


async def _empty_milter(port: str) -> None:
    from brandproxy.core.milter import Session, Step

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session()
        while data := await reader.read(1 << 18):
            for step in session.feed(data):
                if step is Step.ENDED:
                    session.finish([])
                elif step is not Step.CLOSED:
                    session.go_on()
            if out := session.output():
                writer.write(out)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", int(port))
    await server.serve_forever()


async def _empty_smtp(port: str, hop: str) -> None:
    import aiosmtplib
    from aiosmtpd.smtp import SMTP

    host, _, hop_port = hop.partition(":")

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            onward = getattr(session, "onward", None)
            if onward is None:
                onward = session.onward = aiosmtplib.SMTP(hostname=host, port=int(hop_port), start_tls=False)
                await onward.connect()
            await onward.sendmail(envelope.mail_from, envelope.rcpt_tos, envelope.content)
            return "250 2.0.0 Ok"

    loop, handler = asyncio.get_running_loop(), Handler()
    server = await loop.create_server(lambda: SMTP(handler, loop=loop, hostname="empty"), "127.0.0.1", int(port))
    await server.serve_forever()


_EMPTY: dict[str, Callable[..., Any]] = {"--empty-milter": _empty_milter, "--empty-smtp": _empty_smtp}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in _EMPTY:
        asyncio.run(_EMPTY[sys.argv[1]](*sys.argv[2:]))
    else:
        main(sys.argv[1:])
