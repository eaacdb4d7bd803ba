"""Which token a request carries and what it says of itself, for the decision log: nothing is verified here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from extauthz.authn import base64url, struct_json
from extauthz.authn.live_request import LiveRequest
from extauthz.authn.locations import Locations
from extauthz.istio.resources import JwtRule
from extauthz.request import Request

MAX_KEPT = 4_096
"""Characters of a token's header and payload that are kept for the log."""


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


def without_signature(token: str) -> str:
    """The first two pieces of a token, `header.payload`; empty when there are none, or they are too long to keep."""
    end = token.rfind(".")
    return token[:end] if 0 < end <= MAX_KEPT else ""


def parse(text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and payload as `without_signature` left them; empty where they cannot be read."""
    header, _, payload = text.partition(".")
    return _object(header), _object(payload)


def _object(piece: str) -> Mapping[str, Any]:
    try:
        return struct_json.parse_object(base64url.decode(piece) or b"{}")
    except struct_json.InvalidJson:
        return {}
