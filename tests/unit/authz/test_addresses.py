"""Conditions on addresses and ports."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extauthz.authz.ip_blocks import BlockTable, parse_address, parse_block
from extauthz.authz.remote_address import remote_address
from extauthz.request import ChangedRequest, Changes, Request


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.2.3", "1.2.3.256", "01.2.3.4", "192.000.002.007", "1.2.3.4:80", "[::1]", "::g", "1::2::3", "1.2.3.4 ",
     "1.2.3.4%1", "fe80::1%", "fe80::1%+1", "fe80::1%4294967296", "fe80::1%1%2", "::1\0", "\xe9"],
)  # fmt: skip
def test_what_is_no_bare_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_a_numeric_zone_of_an_address_is_dropped() -> None:
    assert parse_address("fe80::1%01") == parse_address("fe80::1")


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.99/24", "192.0.2.1", "192.0.3.1"),
        ("0.0.0.0/0", "255.1.2.3", "::1"),
        ("::/0", "::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
        ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
        ("::1/128", "::1", "::2"),
    ],
)
def test_a_block_holds_the_addresses_that_share_its_bits(block: str, inside: str, outside: str) -> None:
    table = BlockTable([(parse_block(block), block)])
    for address, expected in ((inside, True), (outside, False)):
        packed = parse_address(address)
        assert packed is not None
        assert table.matches(packed) is expected
        assert table.find_all(packed) == [block] * expected


@pytest.mark.parametrize(
    "text",
    ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "::/129", "fe80::1%eth0",
     "fe80::1%1", "fe80::%1/64", "192.0.2.1,10.0.0.0/8", "10.0.0.0/8/8", "10.0.0.0/9999999999999999999"],
)  # fmt: skip
def test_what_is_no_block_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match="CIDR"):
        parse_block(text)


PEER = "127.0.0.1"


# Seen on Envoy 1.40 with 0, 1 and 2 trusted hops.
@pytest.mark.parametrize(
    ("forwarded", "hops", "address"),
    [
        ("192.0.2.7", 0, "192.0.2.7"),
        ("192.0.2.7, 198.51.100.9", 0, "198.51.100.9"),
        ("192.0.2.7, 198.51.100.9", 1, "192.0.2.7"),
        ("192.0.2.7", 1, PEER),
        ("192.0.2.7,", 0, PEER),
        ("192.0.2.7,", 1, "192.0.2.7"),
        ("192.0.2.7,,198.51.100.9", 1, PEER),
        (",192.0.2.7", 0, "192.0.2.7"),
        ("192.0.2.7, ,198.51.100.9", 1, PEER),
        (" 192.0.2.7\t ,198.51.100.9", 1, "192.0.2.7"),
        ("192.0.2.7:1234", 0, PEER),
        ("[2001:db8::1]", 0, PEER),
        ("2001:db8::1", 0, "2001:db8::1"),
        ("192.0.2.7, junk", 0, PEER),
        ("junk, 192.0.2.7", 0, "192.0.2.7"),
        ("192.000.002.007", 0, PEER),
        ("fe80::1%1", 0, "fe80::1%1"),
        ("", 0, PEER),
    ],
)
def test_the_client_is_the_entry_that_the_trusted_hops_leave(forwarded: str, hops: int, address: str) -> None:
    request = Request(headers={"x-forwarded-for": (forwarded,)}, source_address=PEER)
    assert remote_address(request, hops) == address


def test_several_lines_are_one_list_without_the_empty_ones() -> None:
    lines = ("192.0.2.1", "192.0.2.2", "")
    assert remote_address(Request(headers={"x-forwarded-for": lines}, source_address=PEER), 0) == "192.0.2.2"
    assert remote_address(Request(headers={"x-forwarded-for": lines}, source_address=PEER), 1) == "192.0.2.1"
    assert remote_address(Request(source_address=PEER), 0) == PEER


def test_what_authentication_does_to_the_header_does_not_change_the_client() -> None:
    received = Request(headers={"x-forwarded-for": ("192.0.2.7",)}, source_address=PEER)
    changed = ChangedRequest(received, Changes({"x-forwarded-for": ("203.0.113.1",)}))
    assert remote_address(changed, 0) == "192.0.2.7"


def test_source_remote_and_destination_are_compared_apart(allows: Callable[..., bool]) -> None:
    request = Request(
        headers={"x-forwarded-for": ("192.0.2.7",)},
        source_address="127.0.0.1",
        destination_address="10.0.0.1",
        destination_port=8080,
    )
    assert allows(request, ip_blocks=["127.0.0.0/8"])
    assert not allows(request, ip_blocks=["192.0.2.7"])
    assert allows(request, remote_ip_blocks=["192.0.2.7"])
    assert not allows(request, remote_ip_blocks=["192.0.2.7"], options={"trusted_hops": 1})
    assert not allows(request, not_remote_ip_blocks=["192.0.2.0/24"])
    assert allows(request, key="source.ip", values=["127.0.0.1"])
    assert allows(request, key="remote.ip", values=["192.0.2.7"])
    assert allows(request, key="destination.ip", values=["10.0.0.1"])
    assert allows(request, ports=["8080", "80"])
    assert allows(request, key="destination.port", not_values=["80"])
    assert not allows(request, key="destination.port", not_values=["08080"])


def test_a_connection_without_addresses_is_in_no_block_and_came_to_no_port(allows: Callable[..., bool]) -> None:
    assert not allows(ip_blocks=["0.0.0.0/0", "::/0"])
    assert allows(not_ip_blocks=["0.0.0.0/0", "::/0"])
    assert not allows(ports=["0"])
    assert allows(not_ports=["0"])
