"""What istiod would refuse."""

import io

import pytest

from extauthz.errors import PolicyError
from extauthz.istio.load import load


def problems(text):
    try:
        load(["-"], stdin=io.StringIO(text), policies_required=False)
    except PolicyError as error:
        return [f"{problem.field}: {problem.reason}" for problem in error.problems]
    return []


def authentication(rule, spec="", annotations=""):
    return f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: a, namespace: ns{annotations}}}
spec: {{jwtRules: [{{{rule}}}]{spec}}}
"""


def policy(spec, annotations=""):
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: ns{annotations}}}
spec: {{{spec}}}
"""


GOOD = "issuer: https://i.example, jwksUri: https://i.example/keys"


@pytest.mark.parametrize(
    ("rule", "field", "said"),
    [
        (GOOD, "", ""),
        ("jwksUri: https://i.example/keys", "", ""),
        ("issuer: https://i.example", "", ""),
        (f"{GOOD}, presence: x", "", ""),
        (f"{GOOD}, timeout: 1ms", "", ""),
        ("audiences: [a]", "issuer", "without an issuer"),
        ("issuer: me", "issuer", "no keys can be had"),
        (f"{GOOD}, jwks: '{{}}'", "jwksUri", "not both"),
        ("issuer: i, jwksUri: ftp://x/y", "jwksUri", "http:// or https://"),
        ("issuer: i, jwksUri: 'https://x:port/y'", "jwksUri", "is no URL"),
        ("issuer: i, jwksUri: https:///y", "jwksUri", "names no host"),
        (f"issuer: i, jwksUri: https://x/{'y' * 2048}", "jwksUri", "at most 2048"),
        (f"{GOOD}, timeout: 0s", "timeout", "at least 1ms"),
        (f"{GOOD}, timeout: 1500us", "timeout", "whole milliseconds"),
        (f"{GOOD}, timeout: -1s", "timeout", "at least 1ms"),
        (f"{GOOD}, audiences: ['']", "audiences[0]", "must not be empty"),
        (f"{GOOD}, fromParams: [a, '']", "fromParams[1]", "must not be empty"),
        (f"{GOOD}, fromCookies: ['']", "fromCookies[0]", "must not be empty"),
        (f"{GOOD}, fromHeaders: [{{prefix: x}}]", "fromHeaders[0].name", "name a header"),
        (f"{GOOD}, spaceDelimitedClaims: [{', '.join('abcdefgh' * 9)}]", "spaceDelimitedClaims", "at most 64"),
        (
            f"{GOOD}, outputClaimToHeaders: [{{header: 'a b', claim: c}}]",
            "outputClaimToHeaders[0].header",
            "only letters",
        ),
        (f"{GOOD}, outputClaimToHeaders: [{{header: a}}]", "outputClaimToHeaders[0].claim", "name a claim"),
        (f"{GOOD}, outputPayloadToHeader: 'a b'", "outputPayloadToHeader", "no header name"),
    ],
)
def test_rules_of_a_request_authentication(rule, field, said):
    found = problems(authentication(rule))
    if not said:
        assert found == []
    else:
        (one,) = found
        assert one.startswith(f"spec.jwtRules[0].{field}: ")
        assert said in one


def test_a_request_authentication_cannot_be_dry_run():
    (one,) = problems(authentication(GOOD, annotations=", annotations: {istio.io/dry-run: 'true'}"))
    assert "only an AuthorizationPolicy can be dry-run" in one


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ("", "", ""),
        ("action: ALLOW", "", ""),
        ("rules: [{}]", "", ""),
        ("action: DENY, rules: [{to: [{operation: {ports: ['0', '65535'], paths: ['/a/{*}/{**}']}}]}]", "", ""),
        ("rules: [{from: [{source: {serviceAccounts: [a, ns/b]}}]}]", "", ""),
        ("action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {hosts: [h]}}]}]", "", ""),
        ("action: DENY", "spec.rules", "does nothing"),
        ("action: CUSTOM, provider: {name: p}", "spec.rules", "does nothing"),
        ("action: CUSTOM, rules: [{}]", "spec.provider", "needs provider.name"),
        ("provider: {name: p}", "spec.provider", "only a CUSTOM policy has a provider"),
        ("rules: [{to: [{operation: {paths: ['']}}]}]", "spec.rules[0].to[0].operation.paths[0]", "must not be empty"),
        (
            "rules: [{from: [{source: {notNamespaces: [a, '']}}]}]",
            "spec.rules[0].from[0].source.notNamespaces[1]",
            "empty",
        ),
        ("rules: [{when: [{values: [a]}]}]", "spec.rules[0].when[0].key", "name a key"),
        ("rules: [{when: [{key: source.ip}]}]", "spec.rules[0].when[0]", "give values or notValues"),
        (
            "rules: [{when: [{key: source.ip, notValues: ['']}]}]",
            "spec.rules[0].when[0].notValues[0]",
            "must not be empty",
        ),
        (
            "rules: [{when: [{key: 'request.auth.claims[a][]', values: [x]}]}]",
            "spec.rules[0].when[0].key",
            "empty name",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]",
            "spec.rules[0].from[0].source",
            "beside",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]",
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            "`*` is not possible",
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]",
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            "ACCOUNT",
        ),
        (
            "action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {requestPrincipals: [a]}}]}]",
            "spec.rules[0].from[0].source.requestPrincipals",
            "before authentication",
        ),
        (
            "action: CUSTOM, provider: {name: p}, rules: [{when: [{key: request.auth.audiences, values: [a]}]}]",
            "spec.rules[0].when[0].key",
            "before authentication",
        ),
        ("selector: {matchLabels: {a: 'b*'}}", "spec.selector.matchLabels.a", "`*` is not possible"),
        (f"selector: {{matchLabels: {{a: {'b' * 64}}}}}", "spec.selector.matchLabels.a", "63 characters"),
        (
            "selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: s}]",
            "spec.selector",
            "not both",
        ),
        ("targetRef: {kind: Service, name: s}, targetRefs: [{kind: Service, name: s}]", "spec.targetRef", "not both"),
        ("targetRefs: [{kind: Deployment, group: apps, name: d}]", "spec.targetRefs[0]", "cannot be a target"),
        ("targetRefs: [{kind: Service, name: s, namespace: x}]", "spec.targetRefs[0]", "leave namespace out"),
        ("targetRefs: [{kind: Service}]", "spec.targetRefs[0]", "needs a name"),
        (f"targetRefs: [{', '.join(['{kind: Service, name: s}'] * 17)}]", "spec.targetRefs", "at most 16"),
    ],
)
def test_rules_of_an_authorization_policy(spec, field, said):
    found = problems(policy(spec))
    if not said:
        assert found == []
    else:
        (one,) = found
        assert one.startswith(f"{field}: ")
        assert said in one


@pytest.mark.parametrize(
    ("action", "value", "said"),
    [
        ("ALLOW", "true", ""),
        ("DENY", "F", ""),
        ("DENY", "yes", "neither true nor false"),
        ("AUDIT", "true", "only ALLOW and DENY"),
        ("AUDIT", "false", "only ALLOW and DENY"),
    ],
)
def test_the_dry_run_annotation(action, value, said):
    found = problems(policy(f"action: {action}, rules: [{{}}]", f", annotations: {{istio.io/dry-run: '{value}'}}"))
    assert [said in one for one in found] == ([True] if said else [])


NETWORKING = "apiVersion: networking.istio.io/v1\nmetadata: {name: e, namespace: ns}\n"


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("ServiceEntry", "hosts: [h], ports: [{number: 443, name: p, protocol: TLS}], resolution: DNS", ""),
        ("ServiceEntry", "ports: [{number: 443, name: p}]", "at least one host"),
        ("ServiceEntry", "hosts: [h], ports: [{number: 0, name: p}]", "0 is no port"),
        ("ServiceEntry", "hosts: [h], ports: [{number: 80, name: p, targetPort: 70000}]", "70000 is no port"),
        ("ServiceEntry", "hosts: [h], endpoints: [{address: 192.0.2.1}]", "resolution NONE has no endpoints"),
        ("ServiceEntry", "hosts: [h], resolution: STATIC, endpoints: [{ports: {}}]", "needs an address"),
        (
            "ServiceEntry",
            "hosts: [h], resolution: DNS, ports: [{number: 1, name: p}], endpoints: [{address: a, ports: {q: 1}}]",
            "no port of this name: its ports are p",
        ),
        ("DestinationRule", "host: h, trafficPolicy: {tls: {mode: SIMPLE}}", ""),
        ("DestinationRule", "trafficPolicy: {tls: {mode: SIMPLE}}", "a host name has"),
        ("DestinationRule", "host: h, trafficPolicy: {tls: {mode: MUTUAL, privateKey: k}}", "mode MUTUAL needs it"),
        ("DestinationRule", "host: h, trafficPolicy: {tls: {mode: TLS}}", "unknown value 'TLS'"),
    ],
)
def test_what_key_sets_are_fetched_through(kind, spec, said):
    found = problems(f"{NETWORKING}kind: {kind}\nspec: {{{spec}}}")
    assert [said in one for one in found] == ([True] if said else [])
