"""The key that stands in for a key set which istiod could not fetch yet: made up, so that no token verifies with it."""

from __future__ import annotations

import json

from extauthz.istio.resources import JwtRule
from extauthz.mesh.jwt_filter import KeySets
from extauthz.minting import SigningKey, key_set


def made_up_key_sets() -> KeySets:
    """Key sets for rules without inline keys before a first fetch: one RSA key without id that nobody holds."""
    made: list[str] = []

    def stand_in(rule: JwtRule) -> str:
        if not made:
            made.append(json.dumps(key_set(SigningKey.generate("RS256", "").jwk(with_alg=False))))
        return made[0]

    return stand_in
