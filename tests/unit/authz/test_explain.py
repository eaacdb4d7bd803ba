"""Why a policy decided as it did."""

from __future__ import annotations

from collections.abc import Callable

from extauthz.authz.explain import ConditionReport, explain, explain_custom
from extauthz.authz.policies import CompiledPolicies
from extauthz.identity import Identity
from extauthz.istio.resources import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from extauthz.request import Request

MakePolicy = Callable[..., AuthorizationPolicy]
Compile = Callable[..., CompiledPolicies]


def test_a_denial_names_the_rule_and_the_conditions_that_held(policy: MakePolicy, compiled: Compile) -> None:
    rule = Rule(sources=(Source(not_request_principals=("*",)),), operations=(Operation(not_paths=("/productpage",)),))
    policies = compiled(policy(rule, action=Action.DENY, name="test-exclude"))
    explanation = explain(policies, Request(path="/x?q"), Identity({}))
    assert not explanation.verdict.allowed
    decided = explanation.decided
    assert decided is not None
    assert (decided.name, decided.action, decided.matched) == (explanation.verdict.policy, Action.DENY, True)
    assert (decided.file, decided.line) == ("<memory>", 0)
    rule_path = "spec.rules[0]"
    assert decided.conditions == (
        ConditionReport(f"{rule_path}.from[0].source.notRequestPrincipals", "", ("*",), True, (), True),
        ConditionReport(f"{rule_path}.to[0].operation.notPaths", "", ("/productpage",), True, ("/x",), True),
    )
    assert explanation.nearest is None


def test_an_allow_that_matched_nothing_shows_the_nearest_rule(policy: MakePolicy, compiled: Compile) -> None:
    far = Rule(sources=(Source(request_principals=("a/b",)),), operations=(Operation(paths=("/z",), methods=("PUT",)),))
    near = Rule(
        operations=(Operation(paths=("/z",)), Operation(paths=("/a", "/b"), methods=("GET",))),
        when=(
            Condition(key="request.auth.claims[groups]", values=("admin", "root")),
            Condition(key="request.headers[x-h]", not_values=("v",)),
        ),
    )
    policies = compiled(policy(far, near))
    identity = Identity({"iss": "i", "sub": "s", "groups": ["dev", 5.0]})
    explanation = explain(policies, Request(path="/a"), identity)
    assert explanation.verdict.policy == "none"
    assert explanation.decided is None
    nearest = explanation.nearest
    assert nearest is not None
    assert nearest.name == "ns[ns]-policy[p]-rule[1]"
    assert not nearest.matched
    assert [(report.field, report.key, report.wanted, report.seen) for report in nearest.failed] == [
        (
            "spec.rules[1].when[0].values",
            "request.auth.claims[groups]",
            ("admin", "root"),
            ("dev", "5.0 (not a string)"),
        )
    ]
    assert [report.field for report in nearest.conditions] == [
        "spec.rules[1].to[1].operation.methods",
        "spec.rules[1].to[1].operation.paths",
        "spec.rules[1].when[0].values",
        "spec.rules[1].when[1].notValues",
    ]


def test_an_allow_policy_without_rules_has_no_nearest_rule(policy: MakePolicy, compiled: Compile) -> None:
    explanation = explain(compiled(policy()), Request(), Identity({}))
    assert (explanation.verdict.policy, explanation.decided, explanation.nearest) == ("none", None, None)


def test_a_request_that_no_policy_concerns_has_no_rule(compiled: Compile) -> None:
    explanation = explain(compiled(), Request(), Identity({}))
    assert explanation.verdict.allowed
    assert (explanation.decided, explanation.nearest, explanation.recorded) == (None, None, ())


def test_audit_and_dry_run_rules_that_match_are_told_apart(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(
        policy(Rule(), action=Action.AUDIT, name="audit"),
        policy(Rule(), action=Action.DENY, name="try", dry_run=True),
        policy(Rule(), name="allow"),
    )
    explanation = explain(policies, Request(), Identity({}))
    assert explanation.decided is not None
    assert explanation.decided.name == "ns[ns]-policy[allow]-rule[0]"
    assert [(report.action, report.dry_run) for report in explanation.recorded] == [
        (Action.AUDIT, False),
        (Action.DENY, True),
    ]


def test_custom_policies_are_explained_too(policy: MakePolicy, compiled: Compile) -> None:
    rule = Rule(operations=(Operation(paths=("/a",)),))
    custom = policy(rule, action=Action.CUSTOM, provider="us")
    ours = compiled(custom, provider="us")
    assert explain_custom(ours, Request(path="/a")) is None
    not_asked = explain_custom(ours, Request(path="/b"))
    assert not_asked is not None
    assert not_asked.verdict.allowed
    assert not_asked.nearest is not None
    assert [report.wanted for report in not_asked.nearest.failed] == [("/a",)]
    theirs = explain_custom(compiled(custom), Request(path="/a"))
    assert theirs is not None
    assert theirs.decided is not None
    assert theirs.decided.name == theirs.verdict.policy


def test_what_is_seen_is_shown_for_every_attribute(policy: MakePolicy, compiled: Compile) -> None:
    request = Request(
        path="/p",
        host="H.example",
        headers={"x-h": ("1", "2"), "x-forwarded-for": ("192.0.2.7",)},
        source_address="10.0.0.1",
        destination_address="10.0.0.2",
        destination_port=8080,
        peer_principals=("spiffe://a", "CN=x"),
        server_name="s.example",
        metadata={"envoy.filters.f": {"k": ["m", 1.0]}},
    )
    keys = [
        "source.ip",
        "remote.ip",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "request.headers[x-h]",
        "request.headers[no]",
        "request.auth.claims[n]",
        "request.auth.audiences",
        "experimental.envoy.filters.f[k]",
    ]
    values = {"source.ip": "1.1.1.1", "remote.ip": "1.1.1.1", "destination.ip": "1.1.1.1", "destination.port": "1"}
    rule = Rule(
        sources=(Source(principals=("x",), request_principals=("x",)),),
        operations=(Operation(hosts=("x",), methods=("x",)),),
        when=tuple(Condition(key=key, values=(values.get(key, "x"),)) for key in keys),
    )
    identity = Identity({"iss": "i", "n": {"o": None}})
    nearest = explain(compiled(policy(rule)), request, identity).nearest
    assert nearest is not None
    assert {report.key or report.field.rpartition(".")[2]: report.seen for report in nearest.conditions} == {
        "principals": ("spiffe://a", "CN=x"),
        "requestPrincipals": ("i/",),
        "hosts": ("h.example",),
        "methods": ("GET",),
        "source.ip": ("10.0.0.1",),
        "remote.ip": ("192.0.2.7",),
        "destination.ip": ("10.0.0.2",),
        "destination.port": ("8080",),
        "connection.sni": ("s.example",),
        "request.headers[x-h]": ("1", "2"),
        "request.auth.claims[n]": ('{"o": null} (not a string)',),
        "request.auth.audiences": (),
        "experimental.envoy.filters.f[k]": ("m", "1.0"),
        "request.headers[no]": (),
    }
