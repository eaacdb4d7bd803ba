"""Requests drawn from the policies themselves: for every rule such as just match it and just do not, with tokens good
and bad, and then disturbed in the ways in which real and hostile clients disturb them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from extauthz.istio.resources import AuthorizationPolicy, Resources, Rule
from extauthz.mesh.verify import tokens
from extauthz.mesh.verify.conditions import aim
from extauthz.mesh.verify.disturbances import disturb
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.keyring import HeldRule
from extauthz.mesh.verify.probe import Probe

_PATHS = ("/", "/x", "/a/b", "/productpage", "/a%2Fb")


def probes(resources: Resources, held: Sequence[HeldRule], rng: random.Random, count: int) -> Iterator[Probe]:
    """`count` requests for policies whose rules have the keys of `held`. The same for the same state of `rng`."""
    rules = [rule for policy in resources.authorization_policies for rule in policy.rules]
    for _ in range(count):
        yield _probe(rng, rules, held)


def suite(resources: Resources, held: Sequence[HeldRule], rng: random.Random) -> Iterator[Probe]:
    """Requests that go through the policies one by one: rules met and missed, tokens good and bad of each issuer."""
    for policy in resources.authorization_policies:
        for index, rule in enumerate(policy.rules):
            for attempt in range(6):
                draft = Draft(path=rng.choice(_PATHS))
                aim(rng, draft, rule, spoil=attempt % 2 == 1)
                _give_token(rng, draft, held, good=attempt < 4)
                yield draft.probe().named(_rule_title(policy, index, spoiled=attempt % 2 == 1))
    for one in held:
        for _ in range(40):
            draft = Draft(path=rng.choice(_PATHS))
            _add_token(rng, draft, one, held, good=rng.random() < 0.3)
            yield draft.probe().named(f"a token of {one.rule.issuer or 'any issuer'}")
    yield from probes(resources, held, rng, 200)


def _rule_title(policy: AuthorizationPolicy, index: int, *, spoiled: bool) -> str:
    verb = "just misses" if spoiled else "meets"
    return f"{verb} rule {index} of {policy.metadata.namespace}/{policy.metadata.name}"


def _probe(rng: random.Random, rules: Sequence[Rule], held: Sequence[HeldRule]) -> Probe:
    draft = Draft(path=rng.choice(_PATHS))
    for rule in rng.sample(rules, k=min(len(rules), rng.choice((0, 1, 1, 1, 1, 2)))):
        aim(rng, draft, rule, spoil=rng.random() < 0.4)
    _give_token(rng, draft, held, good=rng.random() < 0.6)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        disturb(rng, draft)
    return draft.probe()


def _give_token(rng: random.Random, draft: Draft, held: Sequence[HeldRule], *, good: bool) -> None:
    if not held or not (draft.needs_token or rng.random() < 0.6):
        return
    issuer = draft.claims.get("iss")
    fitting = [one for one in held if one.rule.issuer == issuer] or list(held)
    _add_token(rng, draft, rng.choice(fitting), held, good=good)
    if rng.random() < 0.15:
        _add_token(rng, draft, rng.choice(held), held, good=rng.random() < 0.5)


def _add_token(rng: random.Random, draft: Draft, one: HeldRule, held: Sequence[HeldRule], *, good: bool) -> None:
    claims = {**tokens.good_claims(rng, one), **draft.claims}
    for output in one.rule.output_claim_to_headers:
        if rng.random() < 0.5:
            _set_output(rng, claims, output.claim)
    for name in (*one.rule.space_delimited_claims, "scope"):
        if name not in claims and rng.random() < 0.2:
            claims[name] = rng.choice(("a b", " a  b ", "", "  ", ["a b"], "a\tb", 5))
    token = tokens.good_token(rng, one, claims) if good else tokens.bad_token(rng, one, claims, held)
    draft.place_token(rng, one.rule if rng.random() < 0.9 else rng.choice(held).rule, token)


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
