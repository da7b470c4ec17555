"""A private Postfix on loopback and a sink that keeps what it is given."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.conftest import free_port, need_program

_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/log/mail.log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mta.example
mydestination =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
local_header_rewrite_clients =
alias_maps =
alias_database =
smtp_dns_support_level = disabled
smtp_line_length_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_peername_lookup = no
smtpd_delay_reject = no
message_size_limit = 60000000
header_size_limit = 1000000
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
default_destination_concurrency_failed_cohort_limit = 0
in_flow_delay = 0
milter_default_action = tempfail
milter_protocol = 6
{more}
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - {processes} smtpd{smtpd}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
{more}
"""


@dataclass
class Postfix:
    home: Path
    port: int

    def log(self) -> str:
        path = self.home / "log" / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def queued(self) -> int:
        """Messages the server still holds."""
        return sum(
            1 for name in ("incoming", "active", "deferred", "hold", "maildrop")
            for path in (self.home / "queue" / name).rglob("*") if path.is_file()
        )  # fmt: skip

    def flush(self) -> None:
        subprocess.run(["postqueue", "-c", self.home / "etc", "-f"], check=True, capture_output=True)


@contextmanager
def postfix(
    sink: int, main: str = "", master: str = "", smtpd: str = "", processes: int = 20
) -> Iterator[Postfix]:
    """`main` and `master` are lines added to the two files, `smtpd` options of the listening server."""
    program = need_program("postfix", "postfix")
    if os.geteuid() != 0:
        pytest.skip("a private Postfix needs root")
    with tempfile.TemporaryDirectory(prefix="brandproxy-postfix-") as name:
        home, port = Path(name), free_port()
        home.chmod(0o755)
        for part in ("etc", "queue", "data", "log"):
            (home / part).mkdir()
        subprocess.run(["chown", "postfix", home / "data"], check=True)
        (home / "etc" / "main.cf").write_text(_MAIN.format(home=home, sink=sink, more=main))
        (home / "etc" / "master.cf").write_text(
            _MASTER.format(port=port, smtpd=smtpd, more=master, processes=processes)
        )
        server = Postfix(home, port)
        subprocess.run([program, "-c", home / "etc", "start"], check=True, capture_output=True, timeout=30)
        try:
            wait_for(port)
            yield server
        except BaseException:
            print(server.log()[-2000:])
            raise
        finally:
            subprocess.run([program, "-c", home / "etc", "abort"], capture_output=True, timeout=30)


def wait_for(port: int, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            # No greeting is read: with a milter in this very event loop, it would wait for us.
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def foreground(command: list[str | Path], home: Path, *ports: int, seconds: float = 10) -> Iterator[None]:
    """A server that stays in the foreground, until the block ends; what it said is printed when that fails."""
    with open(home / "output", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        for port in ports:
            wait_for(port, seconds)
        yield
    except BaseException:
        print((home / "output").read_text(errors="replace")[-3000:])
        raise
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its children: Exim leaves the runner of its queue behind
        process.wait(10)


@dataclass
class Received:
    sender: str
    recipients: list[str]
    message: bytes
    options: list[str]
    at: float  # time.monotonic() when it was taken


@dataclass
class Sink:
    """An SMTP server at the end of the line. `refuse` answers the next messages instead of taking them."""

    port: int
    received: list[Received] = field(default_factory=list)
    refuse: list[str] = field(default_factory=list)
    delay: float = 0.0
    before_data: asyncio.Event | None = None  # when set: wait for it before the answer to DATA
    halfway: int = 0  # how often DATA was asked for
    unknown: set[str] = field(default_factory=set)
    smtputf8: bool = True
    connections: int = 0

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [line for line in lines if self.smtputf8 or "SMTPUTF8" not in line]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 5.1.1 unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.refuse:
            return self.refuse.pop(0)
        content = envelope.original_content
        assert content is not None
        self.received.append(
            Received(
                envelope.mail_from or "",
                list(envelope.rcpt_tos),
                content,
                list(envelope.mail_options),
                time.monotonic(),
            )
        )
        return "250 2.0.0 kept"

    async def until(self, count: int, seconds: float = 60, mta: Postfix | None = None) -> list[Received]:
        """What came, once there are `count`; `mta` is told to try again meanwhile what it put off."""
        async with asyncio.timeout(seconds):
            for turn in itertools.count(1):
                if len(self.received) >= count:
                    break
                await asyncio.sleep(0.05)
                if mta is not None and turn % 40 == 0:
                    await asyncio.to_thread(mta.flush)
        await asyncio.sleep(0.2)  # one more than asked for would be a doubled mail
        return self.received

    async def settled(self, mta: Postfix, count: int, seconds: float = 60) -> None:
        """At least `count` came, and the server holds nothing more."""
        await self.until(count, seconds, mta)
        async with asyncio.timeout(seconds):
            while mta.queued():
                await asyncio.to_thread(mta.flush)
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.2)


class _Roomy(SMTP):
    line_length_limit = 1 << 22

    async def smtp_DATA(self, arg: str) -> None:
        sink: Sink = self.event_handler
        sink.halfway += 1
        if sink.before_data is not None:
            await sink.before_data.wait()
        await super().smtp_DATA(arg)


@asynccontextmanager
async def start_sink(port: int = 0, **options: Any) -> AsyncIterator[Sink]:
    """`options` are aiosmtpd's."""
    sink = Sink(port or free_port())
    loop = asyncio.get_running_loop()
    given = {"data_size_limit": 60_000_000, "enable_SMTPUTF8": True, "hostname": "sink.example", "loop": loop}

    def connect() -> SMTP:
        sink.connections += 1
        return _Roomy(sink, **given, **options)

    server = await loop.create_server(connect, "127.0.0.1", sink.port)
    try:
        yield sink
    finally:
        server.close()
        await server.wait_closed()


def send(port: int, sender: str, recipients: list[str], message: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.sendmail(sender, recipients, message, mail_options=["BODY=8BITMIME"])


def need_python_for_all() -> None:
    """Skips where the mail server's user may not run this Python (one in somebody's home folder)."""
    call = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", ""]
    if subprocess.run(call, capture_output=True).returncode:
        pytest.skip(f"the mail server's user may not run {sys.executable}: make .venv with Debian's Python")
