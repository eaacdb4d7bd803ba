"""Which token a request carries and what it says of itself, for the decision log. Nothing is verified here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from extauthz.authn import base64url, struct_json
from extauthz.authn.live_request import LiveRequest
from extauthz.authn.locations import Locations
from extauthz.istio.resources import JwtRule
from extauthz.request import Request

MAX_KEPT = 8_192
"""Characters of a token that are kept until the log is written; of a longer one only the hash."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token until it is told of: its text, or of a long one its hash."""

    text: str = ""
    digest: str = ""

    @classmethod
    def of(cls, text: str) -> Token:
        """What is kept of a token."""
        return cls(text) if len(text) <= MAX_KEPT else cls(digest=_sha256(text))


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What may be told of a token: a hash, and what it says of itself, unverified. None where it says nothing."""

    sha256: str
    key_id: str | None = None
    issuer: str | None = None
    subject: str | None = None

    @classmethod
    def of(cls, token: Token) -> TokenFacts:
        """Read what a token says of itself; leniently, since nothing depends on it."""
        if token.digest:
            return cls(token.digest)
        header, payload = (_object(piece) for piece in (*token.text.split(".", 2), "", "")[:2])
        return cls(_sha256(token.text), _text(header.get("kid")), _text(payload.get("iss")), _text(payload.get("sub")))


class TokenFinder:
    """Finds the first token at any of the places that the rules name."""

    def __init__(self, rules: Iterable[JwtRule] = ()) -> None:
        self._places = tuple(dict.fromkeys(map(Locations.of, rules)))

    def find(self, request: Request) -> str:
        """The token's text (wire text), empty when there is none."""
        if not self._places:
            return ""
        live = LiveRequest(request)
        for places in self._places:
            found = places.find(live)
            if found:
                return found[0].text
        return ""


def _object(piece: str) -> Mapping[str, Any]:
    try:
        return struct_json.parse_object(base64url.decode(piece) or b"{}")
    except struct_json.InvalidJson:
        return {}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("latin-1")).hexdigest()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
