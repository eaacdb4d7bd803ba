"""Bounds on what a client, an issuer or a key server can make this package do or keep.

Those on requests lie beyond what Envoy lets through (60 KiB and 100 lines of headers unless raised), so that answers
are the mesh's; what exceeds one is refused. JSON depth is protobuf's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_TOKEN_CHARACTERS: Final = 1024 * 1024
"""A longer token is not read: `Status.FORM`."""

MAX_TOKENS: Final = 256
"""Tokens that one rule looks at in one request; with more, none of them is read: `Status.FORM`."""

MAX_JSON_DEPTH: Final = 100
"""Levels of nesting in JSON (protobuf's default; one more is invalid)."""

MAX_KEY_SET_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 1000

MAX_KNOWN_HEADERS: Final = 64
"""Header sections of verified tokens that a rule remembers, and the longest that it does."""
MAX_KNOWN_HEADER_CHARACTERS: Final = 1024

CLOCK_SKEW: Final = 60
"""Seconds that `nbf` and `exp` are stretched by (Envoy's default, which Istio leaves alone)."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How much the authenticator remembers. Refused tokens are kept apart, so that a flood of them evicts no good one.

    Bytes are an estimate of what entries hold, not of what the allocator takes.
    """

    verified_entries: int = 100_000
    verified_bytes: int = 256 * 1024 * 1024
    refused_entries: int = 10_000
    refused_bytes: int = 16 * 1024 * 1024
