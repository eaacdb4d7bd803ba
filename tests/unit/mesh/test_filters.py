"""The filter chain for a workload's policies."""

from __future__ import annotations

import io
from typing import Any

import pytest

from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    Condition,
    JwtHeader,
    JwtRule,
    Metadata,
    Operation,
    RequestAuthentication,
    Resources,
    Rule,
    Source,
)
from extauthz.mesh.filters import (
    ExtAuthzSettings,
    MeshOptions,
    builtin_filters,
    ext_authz_filters,
    metadata_namespaces,
    rewrites_path,
)

METADATA = Metadata(name="p", namespace="foo")
NO_KEYS = '{"keys":[]}'


def chain(resources: Resources, options: MeshOptions | None = None) -> list[dict[str, Any]]:
    filters = builtin_filters(resources, options, lambda rule: NO_KEYS)
    return [filter_.to_dict()["typedConfig"] for filter_ in filters]


def policy(*rules: Rule, name: str = "p", action: Action = Action.ALLOW, **more: Any) -> AuthorizationPolicy:
    return AuthorizationPolicy(metadata=Metadata(name=name, namespace="foo"), action=action, rules=tuple(rules), **more)


def authentication(*rules: JwtRule) -> Resources:
    return Resources(request_authentications=(RequestAuthentication(metadata=METADATA, jwt_rules=tuple(rules)),))


def test_no_policies_need_no_filters() -> None:
    assert chain(Resources()) == []


def test_one_rule_asks_for_its_token_or_none() -> None:
    (jwt,) = chain(authentication(JwtRule(issuer="a")))
    assert jwt["rules"] == [
        {
            "match": {"prefix": "/"},
            "requires": {"requiresAny": {"requirements": [{"providerName": "origins-0"}, {"allowMissing": {}}]}},
        }
    ]
    assert jwt["bypassCorsPreflight"] is True


def test_providers_are_numbered_in_the_order_of_their_issuers() -> None:
    (jwt,) = chain(authentication(JwtRule(issuer="b"), JwtRule(issuer="a"), JwtRule(issuer="B")))
    assert [jwt["providers"][f"origins-{index}"]["issuer"] for index in range(3)] == ["B", "a", "b"]


def test_several_rules_are_any_of_them_or_all_of_them_with_missing_allowed() -> None:
    (jwt,) = chain(authentication(JwtRule(issuer="a"), JwtRule(issuer="b")))
    requirements = jwt["rules"][0]["requires"]["requiresAny"]["requirements"]
    assert requirements[:2] == [{"providerName": "origins-0"}, {"providerName": "origins-1"}]
    assert [entry["requiresAny"]["requirements"] for entry in requirements[2]["requiresAll"]["requirements"]] == [
        [{"providerName": "origins-0"}, {"allowMissing": {}}],
        [{"providerName": "origins-1"}, {"allowMissing": {}}],
    ]


def test_every_field_of_a_rule_reaches_its_provider() -> None:
    rule = JwtRule(
        issuer="a",
        audiences=("x",),
        jwks='{"keys":[1]}',
        from_headers=(JwtHeader(name="h", prefix="p "),),
        from_params=("q",),
        from_cookies=("c",),
        output_payload_to_header="x-pay",
        forward_original_token=True,
        space_delimited_claims=("roles", "scope"),
    )
    (jwt,) = chain(authentication(rule))
    assert jwt["providers"]["origins-0"] == {
        "issuer": "a",
        "audiences": ["x"],
        "localJwks": {"inlineString": '{"keys":[1]}'},
        "forward": True,
        "fromHeaders": [{"name": "h", "valuePrefix": "p "}],
        "fromParams": ["q"],
        "fromCookies": ["c"],
        "forwardPayloadHeader": "x-pay",
        "payloadInMetadata": "payload",
        "normalizePayloadInMetadata": {"spaceDelimitedClaims": ["permission", "roles", "scope"]},
    }


def test_a_rule_without_inline_keys_has_what_was_fetched_for_it() -> None:
    (jwt,) = chain(authentication(JwtRule(issuer="a", jwks_uri="https://a/keys")))
    assert jwt["providers"]["origins-0"]["localJwks"] == {"inlineString": NO_KEYS}


def test_actions_come_in_the_order_audit_deny_allow() -> None:
    resources = Resources(
        authorization_policies=(policy(Rule()), policy(Rule(), action=Action.DENY), policy(action=Action.AUDIT))
    )
    # ALLOW is the default value of the field and not written.
    assert [rbac["rules"].get("action", "ALLOW") for rbac in chain(resources)] == ["LOG", "DENY", "ALLOW"]


def test_rules_have_istios_names_and_a_policy_without_rules_one_that_never_matches() -> None:
    resources = Resources(authorization_policies=(policy(Rule(), Rule(), name="a"), policy(name="b")))
    (rbac,) = chain(resources)
    assert sorted(rbac["rules"]["policies"]) == [
        "ns[foo]-policy[a]-rule[0]",
        "ns[foo]-policy[a]-rule[1]",
        "ns[foo]-policy[b]-rule[0]",
    ]
    assert rbac["rules"]["policies"]["ns[foo]-policy[b]-rule[0]"] == {
        "permissions": [{"notRule": {"any": True}}],
        "principals": [{"notId": {"any": True}}],
    }


def test_dry_run_policies_are_shadow_rules_and_enforce_nothing() -> None:
    (rbac,) = chain(Resources(authorization_policies=(policy(Rule(), action=Action.DENY, dry_run=True),)))
    assert "rules" not in rbac
    assert rbac["shadowRulesStatPrefix"] == "istio_dry_run_deny_"
    assert list(rbac["shadowRules"]["policies"]) == ["ns[foo]-policy[p]-rule[0]"]


def test_custom_of_an_unknown_provider_denies_before_authentication() -> None:
    resources = Resources(
        request_authentications=(RequestAuthentication(jwt_rules=(JwtRule(issuer="a"),)),),
        authorization_policies=(policy(Rule(), action=Action.CUSTOM, provider="x"),),
    )
    custom, jwt = chain(resources)
    assert custom["rules"]["action"] == "DENY"
    assert list(custom["rules"]["policies"]) == [
        "istio-ext-authz-x-ns[foo]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action"
    ]
    assert "providers" in jwt


def test_custom_of_our_provider_only_leaves_a_mark() -> None:
    resources = Resources(authorization_policies=(policy(Rule(), action=Action.CUSTOM, provider="us"),))
    (custom,) = chain(resources, MeshOptions(provider="us"))
    assert "rules" not in custom
    assert custom["shadowRulesStatPrefix"] == "istio_ext_authz_"


def test_several_custom_providers_all_deny() -> None:
    resources = Resources(
        authorization_policies=(
            policy(Rule(), action=Action.CUSTOM, provider="us"),
            policy(Rule(), name="q", action=Action.CUSTOM, provider="x"),
        )
    )
    assert all("rules" in custom for custom in chain(resources, MeshOptions(provider="us")))


def test_sources_operations_and_conditions_meet_in_every_alternative() -> None:
    rule = Rule(
        sources=(Source(ip_blocks=("10.0.0.1",)), Source(not_namespaces=("a",))),
        operations=(Operation(methods=("GET",)), Operation(not_ports=("80",))),
        when=(Condition(key="connection.sni", values=("x",)), Condition(key="source.principal", not_values=("*",))),
    )
    (rbac,) = chain(Resources(authorization_policies=(policy(rule),)))
    written = rbac["rules"]["policies"]["ns[foo]-policy[p]-rule[0]"]
    server_name = {"orRules": {"rules": [{"requestedServerName": {"exact": "x"}}]}}
    no_principal = {"notId": {"orIds": {"ids": [{"authenticated": {"principalName": {"safeRegex": {"regex": ".+"}}}}]}}}
    for permission in written["permissions"]:
        assert server_name in permission["andRules"]["rules"]
        assert len(permission["andRules"]["rules"]) == 2
    for principal in written["principals"]:
        assert no_principal in principal["andIds"]["ids"]
        assert len(principal["andIds"]["ids"]) == 2


@pytest.mark.parametrize(
    ("value", "issuer", "subject"),
    [
        ("*", {"safeRegex": {"regex": ".+"}}, {"safeRegex": {"regex": ".+"}}),
        ("https://a/u", {"exact": "https://a"}, {"exact": "u"}),
        ("https://a/*", {"exact": "https://a"}, {"safeRegex": {"regex": ".+"}}),
        ("https://a/u*", {"exact": "https://a"}, {"prefix": "u"}),
        ("*/u", {"safeRegex": {"regex": ".+"}}, {"exact": "u"}),
        ("*a/u", {"suffix": "a"}, {"exact": "u"}),
        ("*u", {"safeRegex": {"regex": ".+"}}, {"suffix": "u"}),
        ("a*", {"prefix": "a"}, {"safeRegex": {"regex": ".+"}}),
        ("https://a*", {"exact": "https:/"}, {"prefix": "a"}),
        ("a", {"exact": "a"}, {"exact": ""}),
    ],
)
def test_request_principals_split_at_the_last_slash(
    value: str, issuer: dict[str, Any], subject: dict[str, Any]
) -> None:
    (rbac,) = chain(Resources(authorization_policies=(policy(Rule(sources=(Source(request_principals=(value,)),))),)))
    principals = rbac["rules"]["policies"]["ns[foo]-policy[p]-rule[0]"]["principals"]
    matched = principals[0]["andIds"]["ids"][0]["orIds"]["ids"][0]["andIds"]["ids"]
    assert [entry["metadata"]["value"]["stringMatch"] for entry in matched] == [issuer, subject]


@pytest.mark.parametrize(
    "condition",
    [
        Condition(key="no.such.key", values=("x",)),
        Condition(key="destination.port", values=("http",)),
        Condition(key="source.ip", values=("x",)),
        Condition(key="request.headers", values=("x",)),
        Condition(key="request.auth.claims[a]b", values=("x",)),
        Condition(key="experimental.envoy.filters.x", values=("y",)),
    ],
)
def test_a_condition_without_meaning_is_refused(condition: Condition) -> None:
    with pytest.raises(UsageError):
        chain(Resources(authorization_policies=(policy(Rule(when=(condition,))),)))


def test_ext_authz_sends_everything_that_policies_may_look_at() -> None:
    text = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a, namespace: foo}
spec: {jwtRules: [{issuer: a, jwksUri: "https://a/keys"}]}
"""
    condition = Condition(key="experimental.envoy.filters.http.x[k]", values=("v",))
    loaded = load(["-"], stdin=io.StringIO(text)).resources
    resources = Resources(loaded.request_authentications, (policy(Rule(when=(condition,))),))
    (ext_authz,) = [filter_.to_dict()["typedConfig"] for filter_ in ext_authz_filters(resources)]
    assert ext_authz["encodeRawHeaders"] is True
    assert ext_authz["includePeerCertificate"] is True
    assert ext_authz["includeTlsSession"] is True
    assert ext_authz["clearRouteCache"] is True
    assert ext_authz["metadataContextNamespaces"] == ["envoy.filters.http.x"]
    assert ext_authz["grpcService"]["timeout"] == "1s"
    assert "cancelled" in ext_authz["grpcService"]["retryPolicy"]["retryOn"]
    assert "failureModeAllow" not in ext_authz
    assert "decoderHeaderMutationRules" not in ext_authz


def test_in_shadow_nothing_about_the_request_changes() -> None:
    (ext_authz,) = ext_authz_filters(Resources(), settings=ExtAuthzSettings(shadow=True))
    config = ext_authz.to_dict()["typedConfig"]
    assert config["shadowMode"] is True
    assert config["decoderHeaderMutationRules"] == {"disallowAll": True}


def test_as_a_custom_provider_we_are_asked_about_what_its_rules_match() -> None:
    resources = Resources(authorization_policies=(policy(Rule(), action=Action.CUSTOM, provider="us"),))
    marking, asking = [f.to_dict()["typedConfig"] for f in ext_authz_filters(resources, MeshOptions(provider="us"))]
    assert "shadowRules" in marking
    assert asking["filterEnabledMetadata"]["value"] == {"stringMatch": {"prefix": "istio-ext-authz-us"}}


def test_only_tokens_cut_out_of_the_query_rewrite_the_path() -> None:
    assert rewrites_path(authentication(JwtRule(issuer="a")))
    assert rewrites_path(authentication(JwtRule(issuer="a", from_params=("t",))))
    assert not rewrites_path(authentication(JwtRule(issuer="a", forward_original_token=True)))
    assert not rewrites_path(authentication(JwtRule(issuer="a", from_headers=(JwtHeader(name="h"),))))


def test_metadata_that_no_policy_reads_is_not_asked_for() -> None:
    assert metadata_namespaces(Resources(authorization_policies=(policy(Rule()),))) == set()
