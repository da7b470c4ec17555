"""The intake: what is derived from an event on its way into the engine."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest

from brandproxy.core import neighbours
from brandproxy.core.events import encode
from brandproxy.errors import BadSettings
from brandproxy.intake import Countries, Intake, reader
from brandproxy.model import Event
from tests.analytics.conftest import PHONE, event


def field(value: object) -> bytes:
    """A value in MaxMind DB format 2.0 (short ones only)."""
    match value:
        case str():
            return bytes([2 << 5 | len(value)]) + value.encode()
        case dict():
            return bytes([7 << 5 | len(value)]) + b"".join(field(k) + field(v) for k, v in value.items())
        case list():
            return bytes([len(value), 11 - 7]) + b"".join(map(field, value))
        case int() if value > 0xFFFF:  # uint64
            return bytes([8, 9 - 7]) + struct.pack(">Q", value)
        case int():  # uint16
            return bytes([5 << 5 | 2]) + struct.pack(">H", value)
        case bytes():  # uint32, ready made
            return bytes([6 << 5 | 4]) + value
    raise TypeError(value)


def database(path: Path, networks: dict[str, str]) -> Path:
    """A country database of IPv4 networks: a binary search tree, then the records, then the metadata."""
    nodes: list[list[object]] = [[None, None]]
    for network, country in networks.items():
        net = ipaddress.IPv4Network(network)
        bits = f"{int(net.network_address):032b}"[: net.prefixlen]
        at = 0
        for bit in map(int, bits[:-1]):
            if nodes[at][bit] is None:
                nodes[at][bit] = len(nodes)
                nodes.append([None, None])
            at = int(str(nodes[at][bit]))
        nodes[at][int(bits[-1])] = country
    records, offsets = b"", {}
    for country in networks.values():
        offsets[country] = len(records)
        records += field({"country": {"iso_code": country}})
    count, tree = len(nodes), b""
    for node in nodes:
        for side in node:
            value = count if side is None else side if isinstance(side, int) else count + 16 + offsets[str(side)]
            tree += int(str(value)).to_bytes(3, "big")
    metadata = {
        "node_count": struct.pack(">I", count), "record_size": 24, "ip_version": 4, "build_epoch": 1 << 40,
        "database_type": "Test-Country", "languages": ["en"],
        "binary_format_major_version": 2, "binary_format_minor_version": 0,
        "description": {"en": "test"},
    }  # fmt: skip
    path.write_bytes(tree + b"\0" * 16 + records + b"\xab\xcd\xefMaxMind.com" + field(metadata))
    return path


def test_countries_come_from_the_address_as_it_was_recorded(tmp_path: Path) -> None:
    countries = Countries(database(tmp_path / "c.mmdb", {"198.51.100.0/24": "DE", "203.0.113.0/24": "FR"}))
    assert [countries.of(a) for a in ("198.51.100.7", "198.51.100.0", "203.0.113.0")] == ["DE", "DE", "FR"]
    assert [countries.of(a) for a in ("192.0.2.1", "", "a hash", "2001:db8::")] == ["", "", "", ""]
    assert Countries(None).of("198.51.100.7") == ""


def test_a_broken_database_is_a_bad_setting(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"no database")
    for path in (broken, tmp_path / "absent.mmdb"):
        with pytest.raises(BadSettings, match="geoip"):
            Countries(path)


def test_rows_carry_what_the_event_tells(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "dead", database(tmp_path / "c.mmdb", {"198.51.100.0/24": "DE"}))
    happened = event(address="198.51.100.0", agent=PHONE, url="https://Shop.Example/x", recipient="r1")
    [row], changed = intake.rows([encode(happened)])
    assert (row.country, row.device, row.domain, row.person) == ("DE", "mobile", "shop.example", True)
    assert row.reader == reader("acme", "r1") > 0
    assert reader("acme", "") == 0
    assert reader("globex", "r1") != reader("acme", "r1")
    assert changed == []


def test_a_verdict_that_changes_reaches_rows_of_this_batch_and_events_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(e: Event, around: list[Event]) -> tuple[str, ...]:
        return ("burst",) if len({n.link for n in (e, *around)}) >= 3 else ()

    monkeypatch.setattr(neighbours, "judge", judge)
    intake = Intake(tmp_path / "dead")
    first, second, third = (event(1_000_000 + n, message="m", link=n) for n in range(3))
    [row], changed = intake.rows([encode(first)])
    assert row.person
    rows, changed = intake.rows([encode(second), encode(third)])
    assert [r.machine for r in rows] == [["burst"], ["burst"]]
    assert [(e.id, e.machine) for e in changed] == [(first.id, ("burst",))]
