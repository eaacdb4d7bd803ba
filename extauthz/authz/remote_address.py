"""The client's address behind proxies: X-Forwarded-For read as Envoy's connection manager reads it.

Envoy works it out before any filter runs, so what authentication does to the header later changes nothing.
"""

from __future__ import annotations

from extauthz.authz.ip_blocks import parse_address
from extauthz.request import Request

FORWARDED_FOR = "x-forwarded-for"

_BLANKS = " \t\f\v\n\r"


def remote_address(request: Request, trusted_hops: int) -> str:
    """Textual address of the client: entry `trusted_hops` + 1 from the right of X-Forwarded-For, else the direct peer.

    The peer is meant as well when that entry is missing or is not a bare address (with port, in brackets, empty). A
    gateway's Envoy has appended the peer to the header, so that 0 hops give the peer there too.
    """
    lines = request.received_lines(FORWARDED_FOR)
    if not lines:
        return request.source_address
    entries = lines[0] if len(lines) == 1 else ",".join(filter(None, lines))
    for _ in range(trusted_hops):
        entries, comma, _ = entries.rpartition(",")
        if not comma:
            return request.source_address
    # After a last comma with nothing behind it Envoy looks at the whole text, which then is no address.
    entry = entries.rpartition(",")[2].strip(_BLANKS)
    return entry if parse_address(entry) is not None else request.source_address
