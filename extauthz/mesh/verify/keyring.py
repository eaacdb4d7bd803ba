"""Keys that verify holds, put into the key sets of the policies under examination: without them there is no good token.

The keys that an operator configured stay in their sets, so that what they do to the choice of a key still happens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from extauthz.istio.resources import JwtRule, RequestAuthentication, Resources
from extauthz.minting import SigningKey

_FAMILY = ("RS256", "ES256", "ES384", "EdDSA", "HS256", "PS256")


@dataclass(frozen=True, slots=True)
class HeldRule:
    """A rule whose key set holds keys of ours."""

    rule: JwtRule
    keys: tuple[SigningKey, ...]


class KeyPool:
    """Keys made once for a whole run, since RSA keys take long to make."""

    def __init__(self, copies: int = 3) -> None:
        self._keys = {
            algorithm: [SigningKey.generate(algorithm, f"verify-{algorithm}-{copy}") for copy in range(copies)]
            for algorithm in _FAMILY
        }

    def draw(self, rng: random.Random) -> tuple[SigningKey, ...]:
        """Keys for one rule: cheap ones to verify with more often than costly ones."""
        algorithms = rng.sample(_FAMILY, k=rng.choice((1, 2, 3)))
        return tuple(rng.choice(self._keys[algorithm]) for algorithm in algorithms)


def with_held_keys(resources: Resources, pool: KeyPool, rng: random.Random) -> tuple[Resources, Sequence[HeldRule]]:
    """The resources with keys of the pool added to every key set, remote ones included, and the rules so changed."""
    held: list[HeldRule] = []
    changed: list[RequestAuthentication] = []
    for authentication in resources.request_authentications:
        rules: list[JwtRule] = []
        for rule in authentication.jwt_rules:
            keys = pool.draw(rng)
            rule = replace(rule, jwks=_extended(rule.jwks, keys, rng), jwks_uri="")
            rules.append(rule)
            held.append(HeldRule(rule, keys))
        changed.append(replace(authentication, jwt_rules=tuple(rules)))
    return replace(resources, request_authentications=tuple(changed)), held


def _extended(text: str, keys: Sequence[SigningKey], rng: random.Random) -> str:
    """A key set with our keys after its own; a set of another form (or none) is replaced by ours."""
    try:
        members = json.loads(text)["keys"]
        own = list(members)
    except (ValueError, KeyError, TypeError):
        own = []
    return json.dumps({"keys": [*own, *(key.jwk(with_alg=rng.random() < 0.5) for key in keys)]})
