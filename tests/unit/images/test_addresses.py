"""Only what is certainly on the public internet is public."""

from __future__ import annotations

import ipaddress

import pytest

from caravan.images.addresses import is_public

# The first and the last address of every network that is not public.
EDGES = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
]


@pytest.mark.parametrize(("first", "last"), EDGES)
def test_networks_are_denied_from_edge_to_edge_and_no_further(first: str, last: str) -> None:
    assert not is_public(first)
    assert not is_public(last)
    for neighbour in (int(ipaddress.IPv4Address(first)) - 1, int(ipaddress.IPv4Address(last)) + 1):
        if 0 <= neighbour < 1 << 32:
            assert is_public(str(ipaddress.IPv4Address(neighbour)))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1",
        "100.128.0.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e",
        "2001:4860:4860::8888", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "3fff:1000::1",
        "2000::1", "3ffe::1",
    ],
)  # fmt: skip
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "::", "::1", "fc00::1", "fd00::1", "fdff:ffff::1", "fe80::1", "fe80::1%eth0", "febf::1",
        "fec0::1", "ff02::1", "ff0e::1", "100::1", "2001::1", "2001:0:4136:e378::1", "2001:1::1",
        "2001:10::1", "2001:20::1", "2001:1ff:ffff::1", "2001:db8::1", "2001:db8:ffff::1",
        "3fff::1", "3fff:fff::1", "4000::1", "5f00::1", "1fff::1", "8000::1", "64:ff9b:1::1",
        "64:ff9b:1::808:808", "::8.8.8.8", "::127.0.0.1", "::ffff:0:8.8.8.8",
    ],
)  # fmt: skip
def test_ipv6_outside_of_global_unicast(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254",
        "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_metadata_services(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "v6",
    ["::ffff:{v4}", "0:0:0:0:0:FFFF:{v4}", "64:ff9b::{v4}", "2002:{high:x}:{low:x}::1"],
)
@pytest.mark.parametrize(
    ("v4", "expected"),
    [
        ("8.8.8.8", True), ("93.184.216.34", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("192.168.0.1", False), ("0.0.0.0", False), ("255.255.255.255", False),
        ("224.0.0.1", False),
    ],
)  # fmt: skip
def test_an_ipv4_address_inside_decides(v6: str, v4: str, expected: bool) -> None:
    high, low = divmod(int(ipaddress.IPv4Address(v4)), 1 << 16)
    assert is_public(v6.format(v4=v4, high=high, low=low)) is expected


def test_a_scope_changes_nothing() -> None:
    assert is_public("2606:4700:4700::1111%eth0")
    assert not is_public("::1%eth0")
    assert not is_public("::ffff:127.0.0.1%2")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "localhost", "example.com", "8.8.8", "8.8.8.8.", " 8.8.8.8", "8.8.8.8 ",
        "8.8.8.8/32", "8.8.8.8:80", "08.8.8.8", "0x08.8.8.8", "010.8.8.8", "134744072",
        "0x8080808", "8.8.8.256", "[2606:4700::1111]", "2606:4700::g", "8.8.8.8%eth0",
        "\uff18.8.8.8", "8.8.8.8\n", "8.8.8.8\x00",
    ],
)  # fmt: skip
def test_what_is_no_plain_literal_is_not_public(text: str) -> None:
    assert not is_public(text)
