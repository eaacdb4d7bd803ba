"""Requests drawn from the policies themselves: for every rule such as just match it and just do not, with tokens good
and bad, and then disturbed in the ways in which real and hostile clients disturb them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from extauthz.istio.resources import AuthorizationPolicy, JwtRule, Resources
from extauthz.mesh.verify import tokens
from extauthz.mesh.verify.conditions import aim
from extauthz.mesh.verify.disturbances import disturb
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.keyring import HeldRule
from extauthz.mesh.verify.probe import Probe

_PATHS = ("/", "/x", "/a/b", "/productpage", "/a%2Fb")


_KEPT_TOKENS = 40
"""Tokens that are used again: what was remembered about one must not answer differently from what was worked out."""


def _rule_title(policy: AuthorizationPolicy, index: int, *, spoiled: bool) -> str:
    verb = "just misses" if spoiled else "meets"
    return f"{verb} rule {index} of {policy.metadata.namespace}/{policy.metadata.name}"


class Fuzzer:
    """Draws requests for policies whose rules have the keys of `held`; the same ones for the same state of `rng`."""

    def __init__(self, resources: Resources, held: Sequence[HeldRule], rng: random.Random) -> None:
        self._policies = resources.authorization_policies
        self._rules = [rule for policy in self._policies for rule in policy.rules]
        self._held = held
        self._rng = rng
        self._tokens: list[tuple[JwtRule, str]] = []

    def probes(self, count: int) -> Iterator[Probe]:
        """Requests drawn at random, `count` of them."""
        for _ in range(count):
            yield self._probe()

    def suite(self) -> Iterator[Probe]:
        """Requests that go through the policies one by one: rules met and missed, good and bad tokens."""
        rng = self._rng
        for policy in self._policies:
            for index, rule in enumerate(policy.rules):
                for attempt in range(6):
                    spoiled = attempt % 2 == 1
                    draft = Draft(path=rng.choice(_PATHS))
                    aim(rng, draft, rule, spoil=spoiled)
                    self._give_token(draft, good=attempt < 4)
                    yield draft.probe().named(_rule_title(policy, index, spoiled=spoiled))
        for one in self._held:
            for _ in range(40):
                draft = Draft(path=rng.choice(_PATHS))
                self._add_token(draft, one, good=rng.random() < 0.3)
                yield draft.probe().named(f"a token of {one.rule.issuer or 'any issuer'}")
        yield from self.probes(200)

    def _probe(self) -> Probe:
        rng = self._rng
        draft = Draft(path=rng.choice(_PATHS))
        for rule in rng.sample(self._rules, k=min(len(self._rules), rng.choice((0, 1, 1, 1, 1, 2)))):
            aim(rng, draft, rule, spoil=rng.random() < 0.4)
        self._give_token(draft, good=rng.random() < 0.6)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            disturb(rng, draft)
        return draft.probe()

    def _give_token(self, draft: Draft, *, good: bool) -> None:
        rng = self._rng
        if not self._held or not (draft.needs_token or rng.random() < 0.6):
            return
        if self._tokens and not draft.needs_token and rng.random() < 0.5:
            draft.place_token(rng, *rng.choice(self._tokens))
            return
        issuer = draft.claims.get("iss")
        fitting = [one for one in self._held if one.rule.issuer == issuer] or list(self._held)
        self._add_token(draft, rng.choice(fitting), good=good)
        if rng.random() < 0.15:
            self._add_token(draft, rng.choice(self._held), good=rng.random() < 0.5)

    def _add_token(self, draft: Draft, one: HeldRule, *, good: bool) -> None:
        rng = self._rng
        claims = {**tokens.good_claims(rng, one), **draft.claims}
        for output in one.rule.output_claim_to_headers:
            if rng.random() < 0.5:
                _set_output(rng, claims, output.claim)
        for name in (*one.rule.space_delimited_claims, "scope"):
            if name not in claims and rng.random() < 0.2:
                claims[name] = rng.choice(("a b", " a  b ", "", "  ", ["a b"], "a\tb", 5))
        if rng.random() < 0.03:
            claims["padding"] = "x" * rng.choice((5_000, 20_000, 30_000))
        token = tokens.good_token(rng, one, claims) if good else tokens.bad_token(rng, one, claims, self._held)
        rule = one.rule if rng.random() < 0.9 else rng.choice(self._held).rule
        draft.place_token(rng, rule, token)
        self._tokens.append((rule, token))
        del self._tokens[:-_KEPT_TOKENS]


_OUTPUTS: tuple[Any, ...] = (
    "text", "Zo\u00eb", "a,b", "", " ", "a\nb", "a\tb", 5, -5, 0, -0.0, 1.5, 0.1, 1e21, 2**53 + 1, 2**63, 2**64, 1e-7,
    None, True, False, [], ["a", 1, None, 1.5, True, "<>&'\u2028\u007f\u00e9"], [[1], []], {}, {"k": ["v"]}, [{"k": 1}],
    [1e21, 1e-7, 123456789012345680, -0.5],
)  # fmt: skip


def _set_output(rng: random.Random, claims: tokens.Claims, name: str) -> None:
    if name in ("iss", "sub", "aud", "exp", "nbf", "iat", "jti"):
        return
    draft = Draft(claims=claims)
    draft.set_claim(name.split("."), rng.choice(_OUTPUTS))
