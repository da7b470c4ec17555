"""Who guesses keys is slowed over all his connections, and fills neither the log nor the memory."""

from __future__ import annotations

import logging
import smtplib
from base64 import b64encode
from ipaddress import ip_address
from pathlib import Path

import pytest

from brandproxy.filters import guesses
from brandproxy.filters.guesses import FREE, LOGINS, Guesses
from tests.filters.mta import start_sink
from tests.filters.test_smtp import client, encrypt, say
from tests.filters.test_smtp_hostile import with_tls

HERE = ip_address("192.0.2.1")


def test_each_wrong_login_doubles_the_wait_and_silence_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = 0.0
    found = Guesses(lambda: clock)
    waits = []
    with caplog.at_level(logging.WARNING):
        for _ in range(FREE + 12):
            found.wrong(HERE)
            waits.append(found.wait(HERE))
            clock += waits[-1]
    assert waits == [0] * (FREE - 1) + [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert found.wait(ip_address("192.0.2.2")) == 0
    assert found.wait(ip_address("::ffff:192.0.2.1")) == 0 < len(caplog.records) <= 3
    clock += 3601
    found.wrong(HERE)
    assert found.wait(HERE) == 0


def test_a_clients_whole_network_waits_and_memory_is_bounded() -> None:
    found = Guesses(lambda: 0.0)
    for number in range(FREE):
        found.wrong(ip_address(f"2001:db8::{number + 1}"))
    assert found.wait(ip_address("2001:db8::ffff")) > 0
    assert found.wait(ip_address("2001:db8:0:1::1")) == 0
    for number in range(guesses._MOST + 500):
        found.wrong(ip_address(number))
    assert len(found._records) == guesses._MOST


async def test_who_guesses_is_put_off_over_connections_also_with_the_right_key(tmp_path: Path) -> None:
    before = LOGINS.labels("wrong")._value.get()
    async with start_sink() as sink, with_tls(tmp_path, sink, networks=()) as (port, trust):
        wrong = b64encode(b"\0acme\0bp_x_wrong").decode()

        def work(connection: smtplib.SMTP) -> list[int]:
            encrypt(connection, trust)
            return say(connection, f"AUTH PLAIN {wrong}")

        codes = [await client(port, work) for _ in range(FREE + 2)]
        assert codes == [[535]] * FREE + [[454]] * 2
    assert LOGINS.labels("wrong")._value.get() - before == FREE
