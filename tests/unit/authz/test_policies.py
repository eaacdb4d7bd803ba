"""Policies together: order of actions, reasons, dry run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from extauthz.authz.policies import CompiledPolicies
from extauthz.errors import PolicyError
from extauthz.identity import Identity
from extauthz.istio.resources import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from extauthz.request import Request

MakePolicy = Callable[..., AuthorizationPolicy]
Compile = Callable[..., CompiledPolicies]

NOBODY = Identity({})
EVERYTHING = Rule()


def to(*paths: str) -> Rule:
    return Rule(operations=(Operation(paths=paths),))


def decide(policies: CompiledPolicies, path: str = "/", **claims: Any) -> tuple[bool, str]:
    verdict = policies.decide(Request(path=path), Identity(claims))
    return verdict.allowed, verdict.policy


def test_the_story_a_double_negation_excludes_one_path_from_needing_a_token(
    policy: MakePolicy, compiled: Compile
) -> None:
    rule = Rule(sources=(Source(not_request_principals=("*",)),), operations=(Operation(not_paths=("/productpage",)),))
    policies = compiled(policy(rule, action=Action.DENY, name="test-exclude", namespace="istio-system"))
    name = "ns[istio-system]-policy[test-exclude]-rule[0]"
    assert decide(policies, "/productpage") == (True, "")
    assert decide(policies, "/api/v1/products/0") == (False, name)
    assert decide(policies, "/api/v1/products/0", iss="i", sub="s") == (True, "")
    assert decide(policies, "/api/v1/products/0", iss="i") == (False, name)
    verdict = policies.decide(Request(path="/x"), NOBODY)
    assert verdict.reason == f"rbac_access_denied_matched_policy[{name}]"


def test_without_policies_everything_is_allowed(compiled: Compile) -> None:
    verdict = compiled().decide(Request(), NOBODY)
    assert (verdict.allowed, verdict.policy, verdict.reason, verdict.metadata) == (True, "", "allowed", {})


def test_an_allow_policy_shuts_out_what_no_rule_matches(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(policy(to("/a")))
    assert decide(policies, "/a") == (True, "ns[ns]-policy[p]-rule[0]")
    assert decide(policies, "/b") == (False, "none")
    assert policies.decide(Request(path="/b"), NOBODY).reason == "rbac_access_denied_matched_policy[none]"


def test_a_policy_without_rules_matches_nothing_and_an_empty_rule_everything(
    policy: MakePolicy, compiled: Compile
) -> None:
    assert decide(compiled(policy())) == (False, "none")
    assert decide(compiled(policy(action=Action.DENY))) == (True, "")
    assert decide(compiled(policy(EVERYTHING)))[0] is True
    assert decide(compiled(policy(EVERYTHING, action=Action.DENY)))[0] is False


def test_deny_comes_before_allow_and_policies_of_one_action_are_pooled(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(
        policy(to("/a"), name="a"),
        policy(to("/b"), name="b", namespace="root"),
        policy(to("/a/x", "/b"), name="d", action=Action.DENY),
    )
    assert decide(policies, "/a") == (True, "ns[ns]-policy[a]-rule[0]")
    assert decide(policies, "/b") == (False, "ns[ns]-policy[d]-rule[0]")
    assert decide(policies, "/c") == (False, "none")


def test_the_first_rule_in_byte_order_of_the_names_is_reported(policy: MakePolicy, compiled: Compile) -> None:
    many = policy(*[to("/a")] * 12, action=Action.DENY, name="p")
    assert decide(compiled(many), "/a")[1] == "ns[ns]-policy[p]-rule[0]"
    late = policy(*[to("/x")] * 2, *[to("/a")] * 10, action=Action.DENY, name="p")
    assert decide(compiled(late), "/a")[1] == "ns[ns]-policy[p]-rule[10]"
    dashed = [policy(EVERYTHING, action=Action.DENY, name=name, namespace=ns) for name, ns in
              [("a", "ns"), ("Z", "ns"), ("a", "ns-b")]]  # fmt: skip
    assert decide(compiled(*dashed))[1] == "ns[ns-b]-policy[a]-rule[0]"


def test_blanks_in_a_name_are_underscores_in_the_reason(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(policy(EVERYTHING, action=Action.DENY, name="a b\tc"))
    verdict = policies.decide(Request(), NOBODY)
    assert verdict.policy == "ns[ns]-policy[a b\tc]-rule[0]"
    assert verdict.reason == "rbac_access_denied_matched_policy[ns[ns]-policy[a_b_c]-rule[0]]"


def test_any_source_any_operation_and_all_conditions_make_a_rule(policy: MakePolicy, compiled: Compile) -> None:
    rule = Rule(
        sources=(Source(request_principals=("i/a",)), Source(request_principals=("i/b",), not_namespaces=("x",))),
        operations=(Operation(paths=("/a",), methods=("GET",)), Operation(paths=("/b",))),
        when=(
            Condition(key="request.headers[x-h]", values=("v", "w")),
            Condition(key="request.headers[x-n]", not_values=("n",)),
        ),
    )
    policies = compiled(policy(rule))

    def allowed(sub: str = "a", path: str = "/a", method: str = "GET", **headers: str) -> bool:
        lines = {"x-h": ("v",)} | {f"x-{name}": (value,) for name, value in headers.items()}
        request = Request(path=path, method=method, headers=lines, peer_principals=("spiffe://t/ns/x/sa/y",))
        return policies.decide(request, Identity({"iss": "i", "sub": sub})).allowed

    assert allowed()
    assert allowed(path="/b", method="POST", h="w", n="m")
    assert not allowed(sub="b")
    assert not allowed(sub="c")
    assert not allowed(method="POST")
    assert not allowed(path="/c")
    assert not allowed(h="u")
    assert not allowed(n="n")


def test_an_operation_without_fields_matches_all(policy: MakePolicy, compiled: Compile) -> None:
    rule = Rule(operations=(Operation(paths=("/a",)), Operation()))
    assert decide(compiled(policy(rule)), "/b")[0] is True


def test_dry_run_policies_are_recorded_and_enforce_nothing(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(
        policy(to("/a"), name="d", action=Action.DENY, dry_run=True), policy(to("/a", "/b"), name="a", dry_run=True)
    )
    seen = {path: policies.decide(Request(path=path), NOBODY) for path in ("/a", "/b", "/c")}
    assert all(verdict.allowed and verdict.reason == "allowed" for verdict in seen.values())
    assert [verdict.metadata["envoy.filters.http.rbac"] for verdict in seen.values()] == [
        {
            "istio_dry_run_deny_shadow_effective_policy_id": "ns[ns]-policy[d]-rule[0]",
            "istio_dry_run_deny_shadow_engine_result": "denied",
            "istio_dry_run_allow_shadow_effective_policy_id": "ns[ns]-policy[a]-rule[0]",
            "istio_dry_run_allow_shadow_engine_result": "allowed",
        },
        {
            "istio_dry_run_deny_shadow_engine_result": "allowed",
            "istio_dry_run_allow_shadow_effective_policy_id": "ns[ns]-policy[a]-rule[0]",
            "istio_dry_run_allow_shadow_engine_result": "allowed",
        },
        {
            "istio_dry_run_deny_shadow_engine_result": "allowed",
            "istio_dry_run_allow_shadow_engine_result": "denied",
        },
    ]


def test_a_denied_request_does_not_reach_the_dry_run_of_allow(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(policy(EVERYTHING, action=Action.DENY), policy(to("/a"), dry_run=True))
    verdict = policies.decide(Request(), NOBODY)
    assert not verdict.allowed
    assert verdict.metadata == {}


def test_audit_leaves_a_hint_on_each_request_and_decides_nothing(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(policy(to("/a"), action=Action.AUDIT), policy(to("/b"), name="d", action=Action.DENY))
    for path, allowed, hint in (("/a", True, True), ("/b", False, False), ("/c", True, False)):
        verdict = policies.decide(Request(path=path), NOBODY)
        assert verdict.allowed is allowed
        assert verdict.metadata == {"envoy.common": {"access_log_hint": hint}}


def custom(policy: MakePolicy, *rules: Rule, provider: str = "us", name: str = "c") -> AuthorizationPolicy:
    return policy(*rules, action=Action.CUSTOM, provider=provider, name=name)


def test_custom_rules_of_our_provider_decide_what_we_are_asked_about(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(custom(policy, to("/a")), policy(to("/b"), action=Action.DENY), provider="us")
    assert policies.has_custom
    assert policies.custom(Request(path="/a")) is None
    verdict = policies.custom(Request(path="/b"))
    assert verdict is not None
    assert verdict.allowed
    assert verdict.reason == "custom_rules_not_matched"


def test_custom_rules_of_a_provider_that_is_not_there_deny(policy: MakePolicy, compiled: Compile) -> None:
    for provider in ("", "other"):
        policies = compiled(custom(policy, to("/a")), provider=provider)
        assert policies.custom(Request(path="/b")) is None
        verdict = policies.custom(Request(path="/a"))
        assert verdict is not None
        assert not verdict.allowed
        assert verdict.policy == "istio-ext-authz-us-ns[ns]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action"


def test_several_custom_providers_all_deny(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(
        custom(policy, to("/a")), custom(policy, to("/a", "/b"), provider="other", name="o"), provider="us"
    )
    names = []
    for path in ("/a", "/b"):
        verdict = policies.custom(Request(path=path))
        assert verdict is not None
        names.append(verdict.policy)
    assert names == ["istio-ext-authz-other-ns[ns]-policy[o]-rule[0]-deny-due-to-bad-CUSTOM-action"] * 2
    assert policies.custom(Request(path="/c")) is None


def test_a_provider_whose_name_the_mesh_refuses_denies(policy: MakePolicy, compiled: Compile) -> None:
    verdict = compiled(custom(policy, EVERYTHING, provider="Us"), provider="Us").custom(Request())
    assert verdict is not None
    assert not verdict.allowed


def test_a_provider_that_no_policy_names_is_asked_about_everything(policy: MakePolicy, compiled: Compile) -> None:
    policies = compiled(policy(to("/a")), provider="us")
    assert not policies.has_custom
    assert policies.custom(Request()) is None


def test_everything_that_cannot_be_evaluated_is_reported_with_its_place(policy: MakePolicy, compiled: Compile) -> None:
    bad = policy(
        EVERYTHING,
        Rule(
            sources=(Source(ip_blocks=("10.0.0.0/8", "10.0.0.0/33")), Source(not_service_accounts=("a/b/c",))),
            operations=(Operation(ports=("80", "http")), Operation(not_paths=("/{*}/{x}",))),
            when=(
                Condition(key="request.auth.claims[]", values=("x",)),
                Condition(key="remote.ip", values=("1.2.3.4",), not_values=("x",)),
            ),
        ),
        name="bad",
    )
    late = custom(policy, EVERYTHING)
    with pytest.raises(PolicyError) as raised:
        compiled(bad, policy(EVERYTHING, action=Action.AUDIT, dry_run=True), late)
    assert {problem.field for problem in raised.value.problems} == {
        "spec.rules[1].from[0].source.ipBlocks[1]",
        "spec.rules[1].from[1].source.notServiceAccounts[0]",
        "spec.rules[1].to[0].operation.ports[1]",
        "spec.rules[1].to[1].operation.notPaths[0]",
        "spec.rules[1].when[0].key",
        "spec.rules[1].when[1].notValues[0]",
        "metadata.annotations[istio.io/dry-run]",
    }
    assert all(problem.reason and problem.code == "cannot-evaluate" for problem in raised.value.problems)


def test_the_same_bad_values_are_reported_wherever_they_stand(policy: MakePolicy, compiled: Compile) -> None:
    bad = Rule(operations=(Operation(ports=("http",)),))
    with pytest.raises(PolicyError) as raised:
        compiled(policy(bad, bad))
    assert [problem.field for problem in raised.value.problems] == [
        "spec.rules[0].to[0].operation.ports[0]",
        "spec.rules[1].to[0].operation.ports[0]",
    ]


def test_what_the_policies_read_is_known(policy: MakePolicy, compiled: Compile) -> None:
    def reads(*rules: Rule) -> CompiledPolicies:
        return compiled(policy(*rules))

    nothing = reads(EVERYTHING)
    assert (nothing.reads_headers, nothing.reads_metadata, nothing.reads_path) == (frozenset(), frozenset(), False)
    assert reads(to("/a")).reads_path
    assert reads(Rule(sources=(Source(not_namespaces=("a",)),))).reads_peer
    some = reads(
        Rule(sources=(Source(remote_ip_blocks=("10.0.0.0/8",)),)),
        Rule(when=(Condition(key="request.headers[X-A]", values=("a",)),)),
        Rule(when=(Condition(key="request.auth.audiences", values=("a",)),)),
        Rule(when=(Condition(key="experimental.envoy.filters.f[k]", values=("a",)),)),
    )
    assert some.reads_headers == {"x-forwarded-for", "x-a"}
    assert some.reads_metadata == {"envoy.filters.f"}
    assert not some.reads_path
    assert some.reads.source_address
    assert some.reads.identity
    assert reads(Rule(when=(Condition(key="request.headers[:path]", values=("a",)),))).reads_path
