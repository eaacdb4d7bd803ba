"""Rules that another rule makes useless: what is said, what is left alone, and that the matcher agrees."""

import io
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.authz.policies import AuthorizationOptions, compile_policies
from extauthz.identity import anonymous
from extauthz.istio.lint import lint
from extauthz.istio.lint_overlap import overlaps
from extauthz.istio.load import load
from extauthz.istio.resources import Action, AuthorizationPolicy, Condition, Metadata, Operation, Rule, Source
from extauthz.request import Request


def found(*rules):
    """The codes and places of rules that are called useless."""
    findings = overlaps(AuthorizationPolicy(rules=rules))
    return [(code, path[2]) for path, code, _ in findings if code != "never-matches"]


def to(**lists):
    return Rule(operations=(Operation(**{name: tuple(values) for name, values in lists.items()}),))


def of(**lists):
    return Rule(sources=(Source(**{name: tuple(values) for name, values in lists.items()}),))


def when(key, values=(), not_values=()):
    return Rule(when=(Condition(key=key, values=tuple(values), not_values=tuple(not_values)),))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (Rule(), to(methods=["GET"])),
        (to(paths=["/a*"]), to(paths=["/ab"])),
        (to(paths=["/a*"]), to(paths=["/ab*", "/a"])),
        (to(paths=["*.jpg"]), to(paths=["/x.jpg"])),
        (to(paths=["*g"]), to(paths=["*.jpg"])),
        (to(paths=["*"]), to(paths=["/a*", "*a"])),
        (to(paths=["/a*"]), to(paths=["/a**"])),
        (to(paths=["/a*"]), to(paths=["/a/{*}"])),
        (to(paths=["*.jpg"]), to(paths=["/{*}/x.jpg"])),
        (to(hosts=["*.Example.com"]), to(hosts=["a.example.COM"])),
        (to(methods=["GET"]), to(methods=["GET"], paths=["/a"])),
        (to(not_paths=["/a"]), to(not_paths=["/a*"])),
        (of(ip_blocks=["10.0.0.0/8"]), of(ip_blocks=["10.1.2.3", "10.9.0.0/16"])),
        (of(not_ip_blocks=["10.1.2.3"]), of(not_ip_blocks=["10.0.0.0/8"])),
        (of(principals=["a", "b"]), of(principals=["b"])),
        (of(namespaces=["a"]), Rule(sources=(Source(namespaces=("a",)),), operations=(Operation(methods=("GET",)),))),
        (when("request.headers[a]", ["x", "y"]), when("request.headers[a]", ["x"])),
        (when("request.headers[a]", [], ["x"]), when("request.headers[a]", [], ["x", "y"])),
    ],
)
def test_a_rule_inside_another_is_named_wherever_it_stands(wide, narrow):
    assert found(wide, narrow) == [("shadowing", 1)]
    assert found(narrow, wide) == [("shadowing", 0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (to(paths=["/a*"]), to(paths=["/b"])),
        (to(paths=["/a"]), to(paths=["/A"])),
        (to(paths=["*a"]), to(paths=["a*"])),
        (to(paths=["/a*b"]), to(paths=["/axb"])),
        (to(paths=["/a/{*}"]), to(paths=["/a/b"])),
        (to(paths=["/a/b*"]), to(paths=["/a/{*}"])),
        (to(paths=["*b*"]), to(paths=["/ab*"])),
        (to(methods=["GET"]), to(paths=["/a"])),
        (to(methods=["GET"], not_paths=["/a"]), to(methods=["GET"], paths=["/b"])),
        (of(ip_blocks=["10.0.0.0/8"]), of(ip_blocks=["::ffff:10.0.0.1"])),
        (of(ip_blocks=["10.0.0.0/8"]), of(remote_ip_blocks=["10.0.0.1"])),
        (of(principals=["*"]), of(principals=["cluster.local/ns/a/sa/b"])),
        (of(request_principals=["*"]), of(request_principals=["https://i.example/*"])),
        (when("request.headers[a]", ["x"]), when("request.headers[b]", ["x"])),
        (when("request.headers[a]", ["x"]), when("request.headers[a]", [], ["x"])),
    ],
)
def test_rules_that_may_differ_are_left_alone(one, other):
    assert found(one, other) == []


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (to(paths=["/a"], not_paths=["/a"]), ("to", 0, "operation", "paths")),
        (to(methods=["GET", "HEAD"], not_methods=["*"]), ("to", 0, "operation", "methods")),
        (of(ip_blocks=["10.0.0.1"], not_ip_blocks=["10.0.0.0/8"]), ("from", 0, "source", "ipBlocks")),
        (of(service_accounts=["a"], not_service_accounts=["a"]), ("from", 0, "source", "serviceAccounts")),
        (when("source.ip", ["10.0.0.1"], ["10.0.0.1"]), ("when", 0, "values")),
    ],
)
def test_a_field_that_excludes_all_that_it_admits_is_named(rule, field):
    ((path, code, _),) = overlaps(AuthorizationPolicy(rules=(rule,)))
    assert (path, code) == (("spec", "rules", 0, *field), "never-matches")


def test_an_exclusion_that_leaves_something_is_left_alone():
    assert found(to(paths=["/a*"], not_paths=["/ab"])) == []


def test_equal_rules_are_called_duplicates_and_only_the_later_ones():
    assert found(to(methods=["GET"]), to(methods=["GET"]), to(methods=["GET"])) == [
        ("duplicate-rule", 1),
        ("duplicate-rule", 2),
    ]


def test_of_rules_that_match_the_same_only_the_later_is_useless():
    assert found(to(paths=["*"]), to(paths=["*", "/a"])) == [("shadowing", 1)]
    assert found(to(paths=["*", "/a"]), to(paths=["*"])) == [("shadowing", 1)]


def test_many_values_are_compared_with_the_rule_for_every_request_only():
    many = [to(paths=[f"/{number}"]) for number in range(2_000)]
    assert found(*many, to(paths=["/*"])) == []
    assert len(found(*many, Rule())) == len(many)


PATHS = ["/", "/a", "/ab", "/b", "/a/b", "/x.a"]
PATH_VALUES = ["/a", "/a*", "/ab", "*", "*a", "/*", "/a/{*}", "/a*b"]
HOSTS = ["a.example", "b.example", "a.example:80"]
HOST_VALUES = ["A.example", "*.example"]
METHOD_VALUES = ["GET", "*T"]


def lists(values):
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


RULES = st.builds(
    Rule,
    operations=st.lists(
        st.builds(
            Operation,
            paths=lists(PATH_VALUES),
            not_paths=lists(PATH_VALUES),
            hosts=lists(HOST_VALUES),
            not_hosts=lists(HOST_VALUES),
            methods=lists(METHOD_VALUES),
        ).filter(lambda operation: operation != Operation()),
        max_size=2,
    ).map(tuple),
)
REQUESTS = [
    Request(method=method, path=path, host=host) for method, path, host in product(["GET", "POST"], PATHS, HOSTS)
]


def matched(rule):
    """The requests that a rule matches, by the matcher that decides."""
    policy = AuthorizationPolicy(metadata=Metadata(name="p", namespace="ns"), action=Action.ALLOW, rules=(rule,))
    compiled = compile_policies([policy], AuthorizationOptions())
    return {place for place, request in enumerate(REQUESTS) if compiled.decide(request, anonymous()).allowed}


@settings(max_examples=300, deadline=None)
@given(st.lists(RULES, min_size=2, max_size=4))
def test_a_rule_that_is_called_useless_matches_nothing_that_the_others_do_not(rules):
    useless = {place for _, place in found(*rules)}
    useful = [matched(rule) for place, rule in enumerate(rules) if place not in useless]
    for place in useless:
        assert matched(rules[place]) <= set().union(*useful)


# --- policies beside each other ---


def document(index, namespace, spec, annotations=""):
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{index}, namespace: {namespace}{annotations}}}
spec: {{{spec}}}
---
"""


def shadowed(*specs):
    """The lines of the policies that are called useless; a document has five."""
    text = "".join(document(index, *spec) for index, spec in enumerate(specs))
    warnings = lint(load(["-"], stdin=io.StringIO(text)).resources)
    return [problem.line for problem in warnings if problem.code == "shadowing"]


NARROW = "rules: [{to: [{operation: {methods: [GET]}}]}]"
OPEN = "rules: [{}]"


def test_a_policy_beside_one_that_allows_everything_is_named():
    assert shadowed(("ns", OPEN), ("ns", NARROW)) == [9]
    assert shadowed(("istio-system", OPEN), ("ns", NARROW)) == [9]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (("other", OPEN), ("ns", NARROW)),
        (("ns", f"selector: {{matchLabels: {{a: b}}}}, {OPEN}"), ("ns", NARROW)),
        (("ns", OPEN), ("ns", f"action: DENY, {NARROW}")),
        (("ns", OPEN), ("ns", f"targetRefs: [{{kind: Service, name: s}}], {NARROW}")),
        (("ns", OPEN, ", annotations: {istio.io/dry-run: 'true'}"), ("ns", NARROW)),
    ],
)
def test_a_policy_that_the_open_one_may_not_meet_is_left_alone(wide, narrow):
    assert shadowed(wide, narrow) == []
