"""Outbound HTTP reaches public addresses only, however an address is spelled or wrapped."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.addresses import refusal

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "64:ff9b::808:808"])
def test_public_addresses_are_reached(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:7f00:1::", "", "localhost", "0x7f000001", "127.1",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_in_every_wrapping(address: str) -> None:
    assert refusal(address) is not None


# The IANA special-purpose address registries (November 2026), an address of each block; and multicast, reserved
# and deprecated blocks, which have registries of their own.
SPECIAL_V4 = {
    "0.0.0.0/8": "0.1.2.3", "10.0.0.0/8": "10.255.0.1", "100.64.0.0/10": "100.127.255.254",
    "127.0.0.0/8": "127.9.9.9", "169.254.0.0/16": "169.254.1.1", "172.16.0.0/12": "172.31.255.254",
    "192.0.0.0/24": "192.0.0.1", "192.0.0.0/29": "192.0.0.7", "192.0.0.8/32": "192.0.0.8",
    "192.0.0.9/32": "192.0.0.9", "192.0.0.10/32": "192.0.0.10", "192.0.0.170/32": "192.0.0.170",
    "192.0.0.171/32": "192.0.0.171", "192.0.2.0/24": "192.0.2.1", "192.31.196.0/24": "192.31.196.1",
    "192.52.193.0/24": "192.52.193.1", "192.88.99.0/24": "192.88.99.1", "192.88.99.2/32": "192.88.99.2",
    "192.168.0.0/16": "192.168.255.1", "192.175.48.0/24": "192.175.48.6", "198.18.0.0/15": "198.19.255.1",
    "198.51.100.0/24": "198.51.100.7", "203.0.113.0/24": "203.0.113.7", "224.0.0.0/4": "239.255.255.250",
    "240.0.0.0/4": "250.1.1.1", "255.255.255.255/32": "255.255.255.255",
}  # fmt: skip
SPECIAL_V6 = {
    "::1/128": "::1", "::/128": "::", "::ffff:0:0/96": "::ffff:8.8.8.8", "::/96": "::8.8.8.8",
    "64:ff9b:1::/48": "64:ff9b:1::808:808", "100::/64": "100::1", "100:0:0:1::/64": "100:0:0:1::1",
    "2001::/23": "2001:1ff::1", "2001::/32": "2001:0:808:808::f7f7:f7f7", "2001:1::1/128": "2001:1::1",
    "2001:1::2/128": "2001:1::2", "2001:1::3/128": "2001:1::3", "2001:2::/48": "2001:2::1",
    "2001:3::/32": "2001:3::1", "2001:4:112::/48": "2001:4:112::1", "2001:10::/28": "2001:1f::1",
    "2001:20::/28": "2001:2f::1", "2001:30::/28": "2001:3f::1", "2001:db8::/32": "2001:db8:ffff::1",
    "2002::/16": "2002:808:808::1", "2620:4f:8000::/48": "2620:4f:8000::1", "3fff::/20": "3fff:fff::1",
    "5f00::/16": "5f00::1", "fc00::/7": "fdff::1", "fe80::/10": "febf::1", "fec0::/10": "feff::1",
    "ff00::/8": "ff0e::1", "4000::/3": "4000::1", "200::/7": "200::1", "e000::/4": "e000::1",
}  # fmt: skip


@pytest.mark.parametrize(("block", "address"), [*SPECIAL_V4.items(), *SPECIAL_V6.items()])
def test_special_purpose_blocks_are_refused_to_their_edges(block: str, address: str) -> None:
    network = ipaddress.ip_network(block)
    for one in (address, str(network[0]), str(network[-1]), ipaddress.ip_address(address).exploded):
        assert ipaddress.ip_address(one) in network
        assert refusal(one) is not None
        assert refusal(one, (network,)) is None


@pytest.mark.parametrize(
    "neighbour",
    ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
     "192.0.1.0", "192.88.98.255", "192.88.100.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
     "2001:200::1", "2001:db7::1", "2001:db9::1", "2003::1", "3fff:1000::1", "2a00:1450::1", "2620:4f:8001::1"],
)  # fmt: skip
def test_their_neighbours_are_public(neighbour: str) -> None:
    assert refusal(neighbour) is None


@pytest.mark.parametrize("prefix", ["::", "fe80::", "2606:2800:220:1:", "2001:4860:4860:0:"])
@pytest.mark.parametrize("identifier", ["0:5efe", "200:5efe"])
@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.88.99.1"])
def test_isatap_hides_no_private_address(prefix: str, identifier: str, inner: str) -> None:
    assert refusal(f"{prefix}{identifier}:{inner}") is not None


@pytest.mark.parametrize(
    "address", ["2606:2800:220:1::1%eth0", "2606:2800:220:1::1%", "8.8.8.8%1", "fe80::1%25eth0"]
)
def test_an_address_with_a_zone_is_none_of_the_internets(address: str) -> None:
    assert refusal(address) is not None


def test_all_embedded_addresses_have_to_be_allowed_and_not_only_one() -> None:
    server_allowed_client_not = "2001:0:7f00:1::f5ff:fffe"  # Teredo by way of 127.0.0.1 to 10.0.0.1
    assert refusal(server_allowed_client_not, LOOPBACK) is not None
    assert refusal("64:ff9b::7f00:1", LOOPBACK) is None


def test_operators_let_their_networks_in_and_nothing_else() -> None:
    assert refusal("127.0.0.1", LOOPBACK) is None
    assert refusal("::ffff:127.0.0.1", LOOPBACK) is None
    assert refusal("10.0.0.1", LOOPBACK) is not None
    assert refusal("::1", LOOPBACK) is not None


@given(st.ip_addresses(v=4))
def test_a_wrapped_address_is_never_freer_than_the_address(inner: ipaddress.IPv4Address) -> None:
    if refusal(str(inner)) is not None:
        for wrap in (f"::ffff:{inner}", f"64:ff9b::{inner}", f"::{inner}", f"2606:2800:220:1:200:5efe:{inner}"):
            assert refusal(wrap) is not None
