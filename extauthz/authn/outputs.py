"""What a verified payload becomes: header values (`outputClaimToHeaders`) and the claims that policies read.

Values are written as Envoy writes them. The order of members within an object claim is the token's here; Envoy's is
that of a hash map, so nobody can rely on either.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, Final

from extauthz.request import wire_text

Claims = Mapping[str, Any]

ALWAYS_SPACE_DELIMITED: Final = ("permission", "scope")
"""Claims that Istio has split whatever a rule says (`normalize_payload_in_metadata`)."""

_BEYOND_UINT64: Final = 2.0**64

_ESCAPED_BY_PROTOBUF: Final = re.compile(
    "[<>\x7f-\x9f\xad\u0600-\u0603\u06dd\u070f\u17b4\u17b5\u200b-\u200f\u2028-\u202e\u2060-\u2064\u206a-\u206f"
    "\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""What protobuf's JSON writer escapes beyond RFC 8259."""


def claim_value(claims: Claims, path: Iterable[str]) -> Any:
    """The claim at a path of member names, None when there is none. A path cannot go through a list."""
    value: Any = claims
    for name in path:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


def header_value(value: Any) -> str:
    """A claim as a header value in wire text; empty when Envoy writes no header (null, absent, an empty string)."""
    if type(value) is str:
        return wire_text(value)
    if type(value) is float:
        return _plain_number(value)
    if type(value) is bool:
        return "true" if value else "false"
    if value is None:
        return ""
    return b64encode(_json(value).encode()).decode("ascii")


def split_claims(claims: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The claims with the top-level strings `names` split at blanks; empty pieces are dropped, all-blank ones stay."""
    split: dict[str, Any] | None = None
    for name in names:
        value = claims.get(name)
        if type(value) is not str:
            continue
        pieces = [piece for piece in value.split(" ") if piece]
        if pieces:
            if split is None:
                split = dict(claims)
            split[name] = pieces
    return claims if split is None else split


def _plain_number(value: float) -> str:
    """Whole numbers of 64 bits without sign as such, others with six decimals (C++'s `std::to_string`)."""
    if 0 <= value < _BEYOND_UINT64 and value == int(value):
        return str(int(value))
    return f"{value:f}"


def _json(value: Any) -> str:
    """protobuf's JSON of a Value: no blanks, numbers with 15 digits or, where that loses something, 17."""
    if type(value) is str:
        text: str = encode_basestring(value)
        return _ESCAPED_BY_PROTOBUF.sub(_escape, text)
    if type(value) is float:
        text = f"{value:.15g}"
        return text if float(text) == value else f"{value:.17g}"
    if type(value) is list:
        return f"[{','.join(map(_json, value))}]"
    if type(value) is dict:
        return f"{{{','.join(f'{_json(name)}:{_json(member)}' for name, member in value.items())}}}"
    return "null" if value is None else "true" if value else "false"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
