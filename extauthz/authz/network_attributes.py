"""Attributes of the connection: addresses and the port it came to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from extauthz.authz.attributes import Lookup, Predicate, Reads
from extauthz.authz.ip_blocks import Block, BlockTable, parse_address, parse_block
from extauthz.authz.remote_address import FORWARDED_FOR, remote_address
from extauthz.authz.text_index import NO_NUMBERS, Numbers, merge
from extauthz.identity import Identity
from extauthz.request import Request

MAX_PORT = 65535

PORT_BREADTH = 16
"""A workload listens on few ports, so rules are sorted by them last."""

_PORT = re.compile(r"0*([0-9]{1,5})", re.ASCII)


class AddressAttribute:
    """An IP address, compared with CIDR blocks. A connection without one (a Unix socket) is in no block."""

    cost = 6

    def __init__(self, address: Callable[[Request], str], reads: Reads) -> None:
        self._address = address
        self.reads = reads

    def parse(self, value: str, namespace: str) -> Sequence[Block]:
        return (parse_block(value),)

    def matcher(self, wanted: Sequence[Block]) -> Predicate:
        address, blocks = self._address, BlockTable((block, None) for block in wanted)

        def holds(request: Request, _: Identity) -> bool:
            packed = parse_address(address(request))
            return packed is not None and blocks.matches(packed)

        return holds

    def index(self, entries: Sequence[tuple[Block, int]]) -> Lookup:
        address, blocks = self._address, BlockTable((block, (number,)) for block, number in entries)

        def find(request: Request, _: Identity) -> Numbers:
            packed = parse_address(address(request))
            return merge(blocks.find_all(packed)) if packed is not None else NO_NUMBERS

        return find

    def breadth(self, wanted: Block) -> float:
        return 2 + wanted.host_bits

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        address = self._address(request)
        return (address,) if address else ()


def source_ip_attribute() -> AddressAttribute:
    """`ipBlocks`, `source.ip`: the direct peer."""
    return AddressAttribute(lambda request: request.source_address, Reads(source_address=True))


def destination_ip_attribute() -> AddressAttribute:
    """`destination.ip`: the local address that the connection came to."""
    return AddressAttribute(lambda request: request.destination_address, Reads(destination=True))


def remote_ip_attribute(trusted_hops: int) -> AddressAttribute:
    """`remoteIpBlocks`, `remote.ip`: the client behind the trusted proxies."""
    return AddressAttribute(
        lambda request: remote_address(request, trusted_hops),
        Reads(headers=frozenset([FORWARDED_FOR]), source_address=True),
    )


class PortAttribute:
    """`ports`, `destination.port`: the local port that the connection came to."""

    reads = Reads(destination=True)
    cost = 1

    def parse(self, value: str, namespace: str) -> Sequence[int]:
        digits = _PORT.fullmatch(value)
        port = int(digits[1]) if digits else -1
        if not 0 <= port <= MAX_PORT:
            raise ValueError(f"{value!r} is no port: write a number from 0 to {MAX_PORT}")
        return (port,)

    def matcher(self, wanted: Sequence[int]) -> Predicate:
        # No connection comes to port 0; here 0 stands for a port that is not known.
        ports = frozenset(wanted) - {0}
        return lambda request, _: request.destination_port in ports

    def index(self, entries: Sequence[tuple[int, int]]) -> Lookup:
        by_port: dict[int, list[int]] = {}
        for port, number in entries:
            by_port.setdefault(port, []).append(number)
        numbers = {port: sorted(set(numbers)) for port, numbers in by_port.items()}
        return lambda request, _: numbers.get(request.destination_port, NO_NUMBERS)

    def breadth(self, wanted: int) -> float:
        return PORT_BREADTH

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        return (str(request.destination_port),) if request.destination_port else ()
