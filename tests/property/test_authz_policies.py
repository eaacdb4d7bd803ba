"""Compiled, indexed policies against a plain evaluator: Istio's regular expressions, one rule after the other."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.authz.explain import explain
from extauthz.authz.policies import AuthorizationOptions, compile_policies
from extauthz.identity import Identity
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    Condition,
    Metadata,
    Operation,
    Rule,
    Source,
)
from extauthz.request import Request, without_query

# --- The plain evaluator ---


def wildcard(value: str, star: str = ".+") -> str:
    """A value as a regular expression; the text beside a star may hold line feeds."""
    if value == "*":
        return star
    if value.startswith("*"):
        return "(?s:.*)" + re.escape(value[1:])
    if value.endswith("*"):
        return re.escape(value[:-1]) + "(?s:.*)"
    return re.escape(value)


def path_expression(value: str) -> str:
    if "{*}" not in value and "{**}" not in value:
        return wildcard(value)
    variables = {"{*}": r"[^/\[\]]+", "{**}": r"[^\[\]]*"}
    return "".join(variables.get(part, re.escape(part)) for part in re.split(r"(\{\*\*?\})", value))


def principal_expression(value: str) -> str:
    if value == "*":
        return ".+"
    if value.startswith("*"):
        return "spiffe://.*" + re.escape(value[1:])
    return "spiffe://" + wildcard(value)


def trust_domain_expression(value: str) -> str:
    if value == "*":
        return "spiffe://(?s:.*)"
    if "*" in value:
        return "spiffe://" + "[^/]*".join(map(re.escape, value.split("*"))) + "/.*"
    return f"spiffe://{re.escape(value)}/(?s:.*)"


def service_account_expression(value: str, namespace: str) -> str:
    if "/" in value:
        namespace, _, value = value.partition("/")
    return f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(value)}(/.+)?"


def any_matches(expression: str, texts: Iterable[str]) -> bool:
    return any(re.fullmatch(expression, text) for text in texts)


def request_principal(value: str, identity: Identity) -> bool:
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        wanted = (".+", ".+")
    elif value.startswith("*"):
        wanted = (wildcard(issuer), re.escape(subject)) if slash else (".+", wildcard(value))
    elif value.endswith("*"):
        wanted = (re.escape(issuer), wildcard(subject)) if slash else (wildcard(value), ".+")
    else:
        wanted = (re.escape(issuer), re.escape(subject)) if slash else (re.escape(value), "")
    found = (identity.issuer, identity.subject)
    return all(text is not None and re.fullmatch(want, text) for want, text in zip(wanted, found, strict=True))


def claim_texts(identity: Identity, *path: str) -> list[str]:
    value: Any = identity.claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    members = value if isinstance(value, list) else [value]
    return [member for member in members if isinstance(member, str)]


def in_block(value: str, address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False)


Test = Callable[[str], bool]


def value_tests(request: Request, identity: Identity, namespace: str) -> dict[str, Test]:
    """For each field and key: does one value match?"""
    path, peers = without_query(request.path), request.peer_principals
    by_field: dict[str, Test] = {
        "paths": lambda value: any_matches(path_expression(value), [path]),
        "hosts": lambda value: any_matches(wildcard(value.lower(), "(?s:.*)"), [request.host.lower()]),
        "methods": lambda value: any_matches(wildcard(value, "(?s:.*)"), [request.method]),
        "ports": lambda value: int(value) == request.destination_port,
        "principals": lambda value: any_matches(principal_expression(value), peers),
        "namespaces": lambda value: any_matches(".*/ns/" + ".*".join(map(re.escape, value.split("*"))) + "/.*", peers),
        "service_accounts": lambda value: any_matches(service_account_expression(value, namespace), peers),
        "trust_domains": lambda value: any_matches(trust_domain_expression(value), peers),
        "request_principals": lambda value: request_principal(value, identity),
        "ip_blocks": lambda value: in_block(value, request.source_address),
        "remote_ip_blocks": lambda value: in_block(value, request.source_address),
    }
    return by_field | {
        "request.headers[X-H]": lambda value: any_matches(wildcard(value, "(?s:.*)"), request.lines("x-h")),
        "request.auth.claims[groups]": lambda value: any_matches(wildcard(value), claim_texts(identity, "groups")),
        "request.auth.claims[a][b]": lambda value: any_matches(wildcard(value), claim_texts(identity, "a", "b")),
        "request.auth.audiences": lambda value: any_matches(wildcard(value), claim_texts(identity, "aud")),
        "request.auth.principal": by_field["request_principals"],
        "source.principal": by_field["principals"],
        "source.namespace": by_field["namespaces"],
        "source.serviceAccount": by_field["service_accounts"],
        "source.trustDomain": by_field["trust_domains"],
        "source.ip": by_field["ip_blocks"],
        "destination.port": by_field["ports"],
    }


def all_hold(written: Source | Operation, test: dict[str, Test]) -> bool:
    fields = [name for name in written.__dataclass_fields__ if not name.startswith("not_")]
    return all(field_holds(test[name], getattr(written, name), getattr(written, f"not_{name}")) for name in fields)


def field_holds(test: Test, values: Sequence[str], not_values: Sequence[str]) -> bool:
    return (not values or any(map(test, values))) and not any(map(test, not_values))


def rule_matches(rule: Rule, test: dict[str, Test]) -> bool:
    return (
        (not rule.sources or any(all_hold(source, test) for source in rule.sources))
        and (not rule.operations or any(all_hold(operation, test) for operation in rule.operations))
        and all(field_holds(test[when.key], when.values, when.not_values) for when in rule.when)
    )


def first_match(
    policies: Sequence[AuthorizationPolicy], action: Action, dry_run: bool, request: Request, identity: Identity
) -> str | None:
    named = {
        f"ns[{policy.metadata.namespace}]-policy[{policy.metadata.name}]-rule[{index}]": (rule, policy)
        for policy in policies
        if policy.action is action and policy.dry_run is dry_run
        for index, rule in enumerate(policy.rules)
    }
    for name, (rule, policy) in sorted(named.items()):
        if rule_matches(rule, value_tests(request, identity, policy.metadata.namespace)):
            return name
    return None


def naive_verdict(policies: Sequence[AuthorizationPolicy], request: Request, identity: Identity) -> tuple[bool, str]:
    denied = first_match(policies, Action.DENY, False, request, identity)
    if denied is not None:
        return False, denied
    if not any(policy.action is Action.ALLOW and not policy.dry_run for policy in policies):
        return True, ""
    granted = first_match(policies, Action.ALLOW, False, request, identity)
    return granted is not None, granted or "none"


# --- Random policies, requests and identities that have a chance to meet ---

PATTERNS = ["a", "b", "ab", "a*", "*b", "*", "*a*", "ab*", "**"]
TEXTS = ["", "a", "b", "ab", "a\nb", "a*", "ba"]
PATHS = ["/", "/a", "/a/b", "/a/b/", "/b", "//a", "/a/[b", "/ab"]
PATH_VALUES = [*PATHS, "/a*", "*b", "*", "/{*}", "/{**}", "/a/{*}", "/{**}/b", "/a/{**}", "/{*}/{**}/"]
REQUEST_PRINCIPALS = ["*", "i/a", "i/*", "*/a", "*a", "i*", "i/", "i", "*i/a", "i/a*", "x/i/a", "*/*", "**", "/a"]
PRINCIPALS = ["*", "td/ns/n/sa/s", "td/*", "*s", "td/ns/n/*", "*/sa/s", "x"]
PEERS = [
    "spiffe://td/ns/n/sa/s", "spiffe://td2/ns/m/sa/s/x", "spiffe://td/x/ns/n/y/sa/s", "spiffe://td/ns/n//sa/s",
    "spiffe://td/ns/n/sa/", "spiffe://a\nb/ns/n/sa/s", "CN=s", "d.example", "spiffe://x",
]  # fmt: skip
BLOCKS = ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "::/0", "10.0.0.0/31", "::1", "192.0.2.0/24"]
VALUES: dict[str, list[str]] = {
    "paths": PATH_VALUES,
    "hosts": ["a", "A*", "*B", "*", "ab:80"],
    "methods": ["GET", "P*", "*T", "*", "get"],
    "ports": ["80", "8080", "443"],
    "principals": PRINCIPALS,
    "namespaces": ["n", "m", "*", "n*", "*/y", "x*n"],
    "service_accounts": ["s", "n/s", "m/s", "n/x"],
    "trust_domains": ["td", "td2", "*", "t*", "*2", "x"],
    "request_principals": REQUEST_PRINCIPALS,
    "ip_blocks": BLOCKS,
    "remote_ip_blocks": BLOCKS,
}
KEY_VALUES: dict[str, list[str]] = {
    "request.headers[X-H]": PATTERNS,
    "request.auth.claims[groups]": PATTERNS,
    "request.auth.claims[a][b]": PATTERNS,
    "request.auth.audiences": PATTERNS,
    "request.auth.principal": REQUEST_PRINCIPALS,
    "source.principal": PRINCIPALS,
    "source.namespace": VALUES["namespaces"],
    "source.serviceAccount": VALUES["service_accounts"],
    "source.trustDomain": VALUES["trust_domains"],
    "source.ip": BLOCKS,
    "destination.port": VALUES["ports"],
}


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)


@st.composite
def written(draw: st.DrawFn, kind: type[Source] | type[Operation]) -> Any:
    names = draw(st.lists(st.sampled_from(list(kind.__dataclass_fields__)), min_size=1, max_size=3, unique=True))
    return kind(**{name: draw(some(VALUES[name.removeprefix("not_")])) for name in names})


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    key = draw(st.sampled_from(list(KEY_VALUES)))
    values, not_values = draw(
        st.tuples(some(KEY_VALUES[key]), st.just(()))
        | st.tuples(st.just(()), some(KEY_VALUES[key]))
        | st.tuples(some(KEY_VALUES[key]), some(KEY_VALUES[key]))
    )
    return Condition(key=key, values=values, not_values=not_values)


rules = st.builds(
    Rule,
    sources=st.lists(written(Source), max_size=5).map(tuple),
    operations=st.lists(written(Operation), max_size=5).map(tuple),
    when=st.lists(conditions(), max_size=2).map(tuple),
)


@st.composite
def policy_sets(draw: st.DrawFn) -> list[AuthorizationPolicy]:
    return [
        AuthorizationPolicy(
            metadata=Metadata(name=f"p{number}", namespace=draw(st.sampled_from(["n", "m"]))),
            action=draw(st.sampled_from([Action.ALLOW, Action.DENY])),
            rules=tuple(draw(st.lists(rules, max_size=6))),
            dry_run=draw(st.sampled_from([False, False, True])),
        )
        for number in range(draw(st.integers(1, 3)))
    ]


claim_values = st.sampled_from(TEXTS) | st.lists(
    st.sampled_from([*TEXTS, None, 1.0, True, {"b": "a"}, ["a"]]), max_size=8
) | st.sampled_from([None, 1.0, {"b": "a"}, {"b": ["a", "b"]}])  # fmt: skip

requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.tuples(st.sampled_from(PATHS), st.sampled_from(["", "?a", "?a=/b", "#a"])).map("".join),
    host=st.sampled_from(["", "a", "AB:80", "xb"]),
    headers=st.fixed_dictionaries({}, optional={"x-h": st.lists(st.sampled_from(TEXTS), max_size=3).map(tuple)}),
    source_address=st.sampled_from(["", "10.0.0.1", "10.1.2.3", "192.0.2.7", "::1", "::ffff:10.0.0.1"]),
    destination_port=st.sampled_from([0, 80, 443]),
    peer_principals=st.lists(st.sampled_from(PEERS), max_size=2).map(tuple),
)

identities = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from(["i", "x/i", "", "a\nb", "*"]),
        "sub": st.sampled_from(["a", "", "ab", "a\nb", "i/a", "*"]),
        "aud": claim_values,
        "groups": claim_values,
        "a": claim_values,
    },
).map(Identity)

OPTIONS = AuthorizationOptions(trust_domain="mesh.example")


@settings(max_examples=60, deadline=None)
@given(policy_sets(), st.lists(st.tuples(requests, identities), min_size=1, max_size=8))
def test_compiled_policies_decide_as_one_rule_after_the_other_would(
    policies: list[AuthorizationPolicy], asked: list[tuple[Request, Identity]]
) -> None:
    compiled = compile_policies(policies, OPTIONS)
    for request, identity in asked:
        expected = naive_verdict(policies, request, identity)
        for _ in range(2):  # the second time with what is remembered of the identity
            verdict = compiled.decide(request, identity)
            assert (verdict.allowed, verdict.policy) == expected


@settings(max_examples=20, deadline=None)
@given(policy_sets(), requests, identities)
def test_an_explanation_agrees_with_the_decision(
    policies: list[AuthorizationPolicy], request: Request, identity: Identity
) -> None:
    compiled = compile_policies(policies, OPTIONS)
    explanation = explain(compiled, request, identity)
    verdict = compiled.decide(request, identity)
    assert explanation.verdict == verdict
    if explanation.decided is not None:
        assert explanation.decided.matched
        assert explanation.decided.name == verdict.policy
    if explanation.nearest is not None:
        assert verdict.policy == "none"
        assert explanation.nearest.failed
    assert all(report.matched for report in explanation.recorded)


@settings(max_examples=20, deadline=None)
@given(policy_sets(), requests, identities)
def test_dry_run_results_are_those_that_enforcement_would_have_given(
    policies: list[AuthorizationPolicy], request: Request, identity: Identity
) -> None:
    metadata = compile_policies(policies, OPTIONS).decide(request, identity).metadata
    shadow = metadata.get("envoy.filters.http.rbac", {})
    denied = first_match(policies, Action.DENY, False, request, identity) is not None
    for action, prefix in ((Action.DENY, "istio_dry_run_deny_"), (Action.ALLOW, "istio_dry_run_allow_")):
        tried = any(policy.action is action and policy.dry_run for policy in policies)
        if not tried or (action is Action.ALLOW and denied):
            assert not any(name.startswith(prefix) for name in shadow)
            continue
        matched = first_match(policies, action, True, request, identity)
        assert shadow.get(f"{prefix}shadow_effective_policy_id") == matched
        allowed = (matched is not None) is (action is Action.ALLOW)
        assert shadow[f"{prefix}shadow_engine_result"] == ("allowed" if allowed else "denied")
