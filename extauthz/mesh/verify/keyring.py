"""Keys that verify holds, put into the key sets of the policies under examination: without them there is no good token.

The keys that an operator configured stay in their sets, so that what they do to the choice of a key still happens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


def with_fetched_keys(resources: Resources, texts: Mapping[str, str]) -> Resources:
    """The resources with other key sets in place, as if istiod had fetched them.

    `texts` holds them by `jwksUri`, for rules that have none (inline keys, discovery) by issuer.
    """

    def in_place(rule: JwtRule) -> JwtRule:
        text = texts.get(rule.jwks_uri or rule.issuer, "")
        return replace(rule, jwks=text, jwks_uri="") if text else rule

    return replace(
        resources,
        request_authentications=tuple(
            replace(authentication, jwt_rules=tuple(map(in_place, authentication.jwt_rules)))
            for authentication in resources.request_authentications
        ),
    )


def _extended(text: str, keys: Sequence[SigningKey], rng: random.Random) -> str:
    """A key set with our keys after its own; a set of another form (or none) is replaced by ours."""
    try:
        members = json.loads(text)["keys"]
        own = list(members)
    except (ValueError, KeyError, TypeError):
        own = []
    ours: list[Any] = [_member(key, rng) for key in keys]
    if rng.random() < 0.2:
        ours.insert(rng.randint(0, len(ours)), rng.choice(_USELESS))
    return json.dumps({"keys": [*own, *ours]})


_ODD_MEMBERS: tuple[Mapping[str, Any], ...] = (
    {"kid": None},
    {"kid": 5},
    {"kid": ""},
    {"alg": 7},
    {"use": "enc", "key_ops": ["encrypt"]},
    {"x5t": "x", "x5c": ["x"], "issuer": "x", "nothing": None},
)
"""Members that leave a key usable."""

_USELESS: tuple[Any, ...] = (
    5,
    None,
    "x",
    {},
    {"kty": "XYZ", "kid": "verify-ES256-0"},
    {"kty": "oct", "k": ""},
    {"kty": "RSA", "e": "AQAB"},
    {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"},
    {"kty": "OKP", "crv": "X25519", "x": "AA"},
    {"kty": "RSA", "n": "AQAB", "e": "AQ", "alg": "ES256"},
)
"""Members of a key set that both sides have to pass over."""


def _member(key: SigningKey, rng: random.Random) -> dict[str, Any]:
    odd = rng.choice(_ODD_MEMBERS) if rng.random() < 0.3 else {}
    return key.jwk(with_alg=rng.random() < 0.5, **odd)
