"""Conditions on the verified token: principal, audiences, presenter, claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from extauthz.authz.attributes import MAX_REMEMBERED
from extauthz.authz.policies import AuthorizationOptions, compile_policies
from extauthz.identity import Identity
from extauthz.istio.resources import AuthorizationPolicy, Condition, Rule
from extauthz.request import Request

Allows = Callable[..., bool]


@pytest.mark.parametrize(
    ("value", "issuer", "subject", "matches"),
    [
        ("*", "i", "s", True),
        ("*", "i", "", False),
        ("*", "", "s", False),
        ("*", "i", None, False),
        ("*", None, "s", False),
        ("*", "a\nb", "s", False),
        ("https://a/u", "https://a", "u", True),
        ("https://a/u", "https://a", "v", False),
        ("https://a/*", "https://a", "u", True),
        ("https://a/*", "https://a", "", False),
        ("https://a/*", "https://a", "a\nb", False),
        ("https://a/u*", "https://a", "ub\nc", True),
        ("https://a/u*", "https://b", "ub", False),
        ("*/s", "i", "s", True),
        ("*/s", "", "s", False),
        ("*x/s", "ix", "s", True),
        ("*x/s", "iy", "s", False),
        ("*/*", "i", "*", True),
        ("*/*", "i", "s", False),
        ("*x", "i", "ux", True),
        ("*x", "i", "u/x", True),
        ("*x", "a\nb", "ux", False),
        ("x*", "xi", "s", True),
        ("x*", "xi", "a\nb", False),
        ("x", "x", "", True),
        ("x", "x", "s", False),
        ("x/", "x", "", True),
        ("https://a*", "https://a", "s", False),
        ("a/u/v", "a", "u/v", False),
        ("a/u/v", "a/u", "v", True),
        ("/*", "", "s", True),
    ],
)
def test_a_request_principal_is_issuer_and_subject_cut_at_the_last_slash(
    allows: Allows, value: str, issuer: str | None, subject: str | None, matches: bool
) -> None:
    claims = {name: claim for name, claim in (("iss", issuer), ("sub", subject)) if claim is not None}
    assert allows(claims=claims, request_principals=[value]) is matches
    assert allows(claims=claims, not_request_principals=[value]) is not matches
    assert allows(claims=claims, key="request.auth.principal", values=[value]) is matches
    padding = [f"https://other/{number}" for number in range(20)]
    assert allows(claims=claims, request_principals=[*padding, value, "*z/z", "*zz", "zz*"]) is matches


CLAIMS: dict[str, Any] = {
    "iss": "i",
    "aud": ["x", "y"],
    "azp": "p",
    "realm_access": {"roles": ["offline_access", "admin"]},
    "resource_access": {"my-app": {"roles": ["viewer"]}, "account": {"roles": "single"}},
    "groups": [["g1"], "g2", None, 5.0, True, {"a": "b"}],
    "num": 1.0,
    "flag": True,
    "nul": None,
    "empty": "",
    "lst": [],
    "lst1": [""],
    "nl": "a\nb",
    "a.b": "dot",
    "https://x/y:z": "colon",
    "nest": {"k": "v"},
}


@pytest.mark.parametrize(
    ("key", "value", "matches"),
    [
        ("[realm_access][roles]", "admin", True),
        ("[realm_access][roles]", "*", True),
        ("[realm_access]", "*", False),
        ("[realm_access.roles]", "admin", False),
        ("[resource_access][my-app][roles]", "viewer", True),
        ("[resource_access][account][roles]", "sing*", True),
        ("[realm_access][roles][0]", "offline_access", False),
        ("[groups]", "g1", False),
        ("[groups]", "g2", True),
        ("[groups]", "5", False),
        ("[num]", "1", False),
        ("[flag]", "true", False),
        ("[nul]", "*", False),
        ("[empty]", "*", False),
        ("[lst]", "*", False),
        ("[lst1]", "*", False),
        ("[missing]", "*", False),
        ("[nl]", "*", False),
        ("[nl]", "a*", True),
        ("[a.b]", "dot", True),
        ("[https://x/y:z]", "colon", True),
        ("[nest.k]", "v", False),
        ("[nest]", "v", False),
    ],
)
def test_a_claim_is_a_string_or_any_string_in_a_list(allows: Allows, key: str, value: str, matches: bool) -> None:
    assert allows(claims=CLAIMS, key=f"request.auth.claims{key}", values=[value]) is matches
    assert allows(claims=CLAIMS, key=f"request.auth.claims{key}", not_values=[value]) is not matches


def test_audiences_and_presenter_are_the_claims_aud_and_azp(allows: Allows) -> None:
    assert allows(claims=CLAIMS, key="request.auth.audiences", values=["y"])
    assert allows(claims={"aud": "y"}, key="request.auth.audiences", values=["y"])
    assert not allows(claims=CLAIMS, key="request.auth.audiences", values=["z"])
    assert allows(claims=CLAIMS, key="request.auth.presenter", values=["p"])


def test_without_a_token_nothing_matches_and_every_not_form_holds(allows: Allows) -> None:
    assert not allows(request_principals=["*"])
    assert allows(not_request_principals=["*"])
    assert not allows(key="request.auth.claims[a][b]", values=["*"])
    assert allows(key="request.auth.claims[a][b]", not_values=["*"])


def claims_policy(*rules: tuple[str, str]) -> AuthorizationPolicy:
    return AuthorizationPolicy(
        rules=tuple(
            Rule(when=(Condition(key=f"request.auth.claims[{name}]", values=(value,)),)) for name, value in rules
        )
    )


def test_equal_values_of_different_claims_are_not_confused_when_results_are_remembered() -> None:
    policies = compile_policies([claims_policy(("roles", "admin"), ("groups", "admin"))], AuthorizationOptions())
    long = [f"g{number}" for number in range(50)]
    identity = Identity({"roles": long, "groups": [*long, "admin"]})
    for _ in range(2):
        assert policies.decide(Request(), identity).policy == "ns[]-policy[]-rule[1]"


def test_what_is_remembered_of_an_identity_is_bounded() -> None:
    rules = [(f"c{number}", "never") for number in range(10 * MAX_REMEMBERED)]
    policies = compile_policies([claims_policy(*rules)], AuthorizationOptions())
    identity = Identity({name: [f"v{number}" for number in range(20)] for name, _ in rules})
    assert not policies.decide(Request(), identity).allowed
    assert 0 < len(identity.memo) <= MAX_REMEMBERED
