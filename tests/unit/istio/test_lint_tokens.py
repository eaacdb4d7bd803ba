"""Demands for tokens and what would meet them, by namespace; rules that hide tokens from themselves."""

import io

import pytest

from extauthz.istio.lint import lint
from extauthz.istio.load import load

RULE = "{issuer: https://i.example, jwksUri: https://i.example/keys}"


def authentication(namespace, rules=RULE):
    return f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: a, namespace: {namespace}}}
spec: {{jwtRules: [{rules}]}}
---
"""


def policy(namespace, spec, name="p"):
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
---
"""


def codes(text, **options):
    return [problem.code for problem in lint(load(["-"], stdin=io.StringIO(text)).resources, **options)]


DEMAND = "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"


@pytest.mark.parametrize(
    ("of_policy", "of_authentication", "expected"),
    [
        ("a", "a", []),
        ("istio-system", "a", []),
        ("a", "istio-system", []),
        ("a", "b", ["no-authentication", "token-not-required"]),
    ],
)
def test_a_demand_and_its_tokens_belong_to_one_namespace_or_the_root(of_policy, of_authentication, expected):
    assert sorted(codes(authentication(of_authentication) + policy(of_policy, DEMAND))) == expected


def test_the_root_namespace_can_be_another():
    text = authentication("a") + policy("mesh", DEMAND)
    assert codes(text, root_namespace="mesh") == []
    assert sorted(codes(text)) == ["no-authentication", "token-not-required"]


@pytest.mark.parametrize(
    ("spec", "demands"),
    [
        ("action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]", True),
        ("action: DENY, rules: [{when: [{key: 'request.auth.claims[a]', notValues: [x]}]}]", True),
        ("action: DENY, rules: [{when: [{key: 'request.auth.claims[a]', values: [x]}]}]", False),
        ("rules: [{when: [{key: 'request.auth.claims[a]', values: [x]}]}]", True),
        ("rules: [{when: [{key: 'request.auth.claims[a]', notValues: [x]}]}]", False),
        ("rules: [{to: [{operation: {methods: [GET]}}]}]", False),
        ("action: AUDIT, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]", False),
    ],
)
def test_only_what_refuses_requests_without_a_token_demands_one(spec, demands):
    assert ("token-not-required" not in codes(authentication("ns") + policy("ns", spec))) is demands


@pytest.mark.parametrize(
    ("members", "hidden"),
    [
        ("outputPayloadToHeader: Authorization", True),
        ("fromHeaders: [{name: x-token}], outputPayloadToHeader: X-Token", True),
        ("fromCookies: [token], outputPayloadToHeader: authorization", False),
        ("fromHeaders: [{name: x-token}], outputClaimToHeaders: [{header: x-token, claim: sub}]", True),
        ("fromHeaders: [{name: x-token}], outputPayloadToHeader: x-payload", False),
    ],
)
def test_an_output_header_that_is_also_a_token_header_is_named(members, hidden):
    rule = RULE.replace("keys}", f"keys, {members}}}")
    assert ("output-hides-token" in codes(authentication("ns", rule) + policy("ns", DEMAND))) is hidden


def test_an_output_header_hides_the_tokens_of_other_rules_too():
    first = RULE.replace("keys}", "keys, fromHeaders: [{name: x-token}]}")
    second = RULE.replace("i.example", "j.example").replace("keys}", "keys, outputPayloadToHeader: x-token}")
    assert "output-hides-token" in codes(authentication("ns", f"{first}, {second}") + policy("ns", DEMAND))


@pytest.mark.parametrize("field", ["source: {principals: ['spiffe://td/ns/a/sa/b']}", "source: {principals: ['a/b']}"])
def test_a_principal_is_written_without_its_scheme(field):
    found = codes(policy("ns", f"rules: [{{from: [{{{field}}}]}}]"))
    assert found == (["never-matches"] if "spiffe" in field else [])
