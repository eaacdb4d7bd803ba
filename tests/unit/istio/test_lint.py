"""What loads and is odd."""

import io

import pytest

from extauthz.istio.lint import lint
from extauthz.istio.load import load
from extauthz.istio.workload import Workload

AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a, namespace: ns}
spec: {jwtRules: [{issuer: https://i.example, jwksUri: https://i.example/keys}]}
---
"""


def policy(spec):
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: pol, namespace: ns}}
spec: {{{spec}}}
"""


def warnings(text, workload=None):
    resources = load(["-"], stdin=io.StringIO(text)).resources
    found = lint(resources, workload=Workload.parse(workload) if workload else None)
    assert all(problem.line > 0 for problem in found)
    return [(problem.code, problem.field, problem.reason) for problem in found]


SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: ns}
spec: {ports: [{port: 8000, name: http}]}
---
"""

REQUIRED = policy("action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]")


def operation(members):
    return policy(f"rules: [{{to: [{{operation: {{{members}}}}}]}}]")


def condition(key, value):
    return policy(f"rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]")


def source(members):
    return AUTHENTICATION + policy(f"rules: [{{from: [{{source: {{{members}}}}}]}}]")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (operation("paths: ['/a*b']"), "literal-star"),
        (operation("paths: ['*a*']"), "literal-star"),
        (operation("paths: ['/a?b=c']"), "never-matches"),
        (operation("paths: ['/a#b']"), "never-matches"),
        (operation("paths: ['a']"), "never-matches"),
        (operation("paths: ['^/a']"), "regular-expression"),
        (operation("paths: ['/%61']"), "never-matches"),
        (operation("paths: ['/a/../b']"), "never-matches"),
        (operation("paths: ['/a\"b']"), "never-matches"),
        (operation("methods: [get]"), "never-matches"),
        (operation("hosts: [h.example], ports: ['8080']"), "host-without-port"),
        (SERVICE + operation("hosts: [web.ns]"), "host-without-port"),
        (operation("hosts: ['*.example.com:*']"), "literal-star"),
        (operation("hosts: ['http://h.example']"), "never-matches"),
        (operation("ports: ['0']"), "never-matches"),
        (condition("connection.sni", "H.example"), "never-matches"),
        (condition("request.headers[x-forwarded-for]", "10.0.0.0/8"), "cidr-as-text"),
        (condition("request.auth.claims[a]", "*x*"), "literal-star"),
        (source("requestPrincipals: ['https://a*']"), "never-matches"),
        (source("requestPrincipals: ['https://nobody.example/x']"), "unknown-issuer"),
        (source("requestPrincipals: ['https://i.example/a/b']"), "never-matches"),
        (policy("rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"), "no-authentication"),
        (policy("action: DENY, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"), "no-authentication"),
        (policy("action: ALLOW"), "allows-nothing"),
        (policy("rules: [{}, {to: [{operation: {methods: [GET]}}]}]"), "shadowing"),
        (
            policy("rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {methods: [GET]}}]}]"),
            "duplicate-rule",
        ),
        (policy("selector: {matchLabels: {}}"), "empty-selector"),
        (
            AUTHENTICATION
            + policy(
                "action: DENY, rules: [{from: [{source: {requestPrincipals: ['*']}}],"
                " to: [{operation: {notPaths: [/x]}}]}]"
            ),
            "double-negation",
        ),
        (source("notRequestPrincipals: ['*']"), "double-negation"),
        (
            AUTHENTICATION
            + policy(
                "action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}],"
                " to: [{operation: {notPaths: [/x/]}}]}]"
            ),
            "trailing-slash",
        ),
        (policy("action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]"), "deny-on-tcp"),
        (AUTHENTICATION, "token-not-required"),
        (AUTHENTICATION.replace("i.example,", "i.example/,") + REQUIRED, "issuer-slash"),
        (
            AUTHENTICATION.replace("keys}", "keys, outputClaimToHeaders: [{header: h, claim: a/b}]}") + REQUIRED,
            "claim-path",
        ),
        (
            AUTHENTICATION.replace(
                "keys}", "keys, outputClaimToHeaders: [{header: h, claim: a}, {header: H, claim: b}]}"
            )
            + REQUIRED,
            "beyond-ext-authz",
        ),
        (AUTHENTICATION.replace("keys}", "keys, fromHeaders: [{name: Host}]}") + REQUIRED, "beyond-ext-authz"),
        (condition("experimental.envoy.filters.x[y]", "z"), "needs-envoy-setting"),
        (condition("connection.sni", "h.example"), "needs-envoy-setting"),
        (
            AUTHENTICATION.replace(", jwksUri: https://i.example/keys", "").replace(
                "https://i.example", "http://i.example"
            )
            + REQUIRED,
            "discovery",
        ),
    ],
)
def test_what_does_not_do_what_it_looks_like_is_named(text, code):
    found = warnings(text)
    assert code in [one[0] for one in found], found


@pytest.mark.parametrize(
    "text",
    [
        AUTHENTICATION + REQUIRED,
        AUTHENTICATION.replace(", jwksUri: https://i.example/keys", "") + REQUIRED,
        AUTHENTICATION
        + policy(
            "action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}],"
            " to: [{operation: {notPaths: [/productpage]}}]}]"
        ),
        source("requestPrincipals: ['*']"),
        source("requestPrincipals: ['https://i.example/*', '*/u']"),
        operation("paths: [/info*, '*.jpg', '*', '/a/{*}/b/{**}', /data], methods: [GET, HEAD], ports: ['80']"),
        operation("hosts: ['*.example.com', 'h:8000', '*', 'h*', h.example]"),
        SERVICE + operation("hosts: [other.ns]"),
        condition("request.headers[user-agent]", "Mozilla/*"),
        condition("request.auth.claims[iss]", "https://accounts.google.com"),
        condition("source.ip", "10.0.0.0/8"),
        policy("action: DENY, rules: [{from: [{source: {notNamespaces: [foo]}}]}]"),
        policy("rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]}]"),
    ],
)
def test_what_people_mean_is_left_alone(text):
    assert warnings(text) == []


def test_policies_that_select_nothing_of_a_workload_are_named():
    assert [code for code, _, _ in warnings(REQUIRED, "elsewhere/app=x")] == ["selects-nothing"]
    assert warnings(REQUIRED, "ns/app=x") == []


def test_a_warning_says_what_to_write_instead():
    ((_, field, reason),) = warnings(operation("methods: [get]"))
    assert field == "spec.rules[0].to[0].operation.methods[0]"
    assert reason.endswith("write 'GET'")
