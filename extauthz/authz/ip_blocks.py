"""IP addresses and CIDR blocks: how they are written, and which blocks an address is in.

IPv4 and IPv6 never meet: an IPv4-mapped address is an IPv6 address, `0.0.0.0/0` holds no IPv6 address (Envoy's
`CidrRange::isInRange`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_pton
from typing import Generic, NamedTuple, TypeVar

Payload = TypeVar("Payload")

_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_ZONE = re.compile(r"[0-9]{1,10}", re.ASCII)
_MAX_ZONE = 2**32 - 1


def parse_address(text: str) -> bytes | None:
    """The 4 or 16 bytes of a textual address, None when it is none. A numeric IPv6 zone is accepted and dropped.

    Envoy also accepts an interface's name as the zone of a link-local address where its host has that interface, which
    cannot be known here.
    """
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        if "%" in text:
            text, _, zone = text.partition("%")
            if not _ZONE.fullmatch(zone) or int(zone) > _MAX_ZONE:
                return None
        return inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return None


class Block(NamedTuple):
    """The leading bits that the addresses of a block share: `network` is the address without its `host_bits`."""

    version: int
    host_bits: int
    network: int


def parse_block(text: str) -> Block:
    """`address` or `address/length`; bits beyond the length are ignored. Raises ValueError."""
    address, slash, length = text.partition("/")
    packed = parse_address(address) if "%" not in address else None
    if packed is None:
        raise ValueError(
            f"{text!r} is no IP address or CIDR block: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
        )
    bits = len(packed) * 8
    if slash and (not _LENGTH.fullmatch(length) or int(length) > bits):
        raise ValueError(f"{text!r} is no CIDR block: the prefix length must be a number from 0 to {bits}")
    host_bits = bits - int(length) if slash else 0
    return Block(len(packed), host_bits, int.from_bytes(packed, "big") >> host_bits)


class BlockTable(Generic[Payload]):
    """Blocks with what belongs to each, by their length: one dictionary look-up for every length in use."""

    __slots__ = ("_lengths",)

    def __init__(self, entries: Iterable[tuple[Block, Payload]]) -> None:
        self._lengths: dict[int, dict[int, dict[int, list[Payload]]]] = {4: {}, 16: {}}
        for block, payload in entries:
            networks = self._lengths[block.version].setdefault(block.host_bits, {})
            networks.setdefault(block.network, []).append(payload)

    def find_all(self, address: bytes) -> list[Payload]:
        """What belongs to every block that holds the address."""
        number = int.from_bytes(address, "big")
        found: list[Payload] = []
        for host_bits, networks in self._lengths[len(address)].items():
            payloads = networks.get(number >> host_bits)
            if payloads is not None:
                found += payloads
        return found

    def matches(self, address: bytes) -> bool:
        """Whether any block holds the address."""
        number = int.from_bytes(address, "big")
        for host_bits, networks in self._lengths[len(address)].items():  # noqa: SIM110 - see `patterns.any_of`
            if number >> host_bits in networks:
                return True
        return False
