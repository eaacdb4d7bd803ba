"""RequestAuthentication and AuthorizationPolicy (security.istio.io) from YAML fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields as members_of
from typing import Any

from extauthz.istio.crd_parts import choice, duration, envelope, metadata, selector, target_refs
from extauthz.istio.fields import Fields
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    ClaimToHeader,
    Condition,
    JwtHeader,
    JwtRule,
    Operation,
    Origin,
    RequestAuthentication,
    Rule,
    Source,
)

DRY_RUN = "istio.io/dry-run"
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""How Go reads a boolean (strconv.ParseBool)."""


def camel(name: str) -> str:
    """A member's name as the CRD has it."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


SOURCE_LISTS = {camel(member.name): member.name for member in members_of(Source)}
"""The fields of a source, by their names in the CRD."""

OPERATION_LISTS = {camel(member.name): member.name for member in members_of(Operation)}
"""The fields of an operation, by their names in the CRD."""

_CONDITION_LISTS = {"values": "values", "notValues": "not_values"}
_JWT_RULE_LISTS = {camel(name): name for name in ("audiences", "from_params", "from_cookies", "space_delimited_claims")}
_PLACES = {
    **dict.fromkeys(SOURCE_LISTS, "spec.rules[].from[].source"),
    **dict.fromkeys(OPERATION_LISTS, "spec.rules[].to[].operation"),
    **dict.fromkeys(("from", "to", "when"), "spec.rules[]"),
    **dict.fromkeys(("rules", "jwtRules", "selector", "action", "provider", "targetRefs"), "spec"),
    **dict.fromkeys(("issuer", "jwks", "jwksUri", "fromHeaders", "forwardOriginalToken"), "spec.jwtRules[]"),
    "matchLabels": "spec.selector",
}
"""Where fields belong that are often written one level too high or too deep."""


def request_authentication(fields: Fields, origin: Origin) -> RequestAuthentication:
    """The resource that a mapping is; what is wrong with it is reported to `fields`."""
    common, spec = _policy(fields, origin)
    rules = tuple([_jwt_rule(rule) for rule in spec.mappings("jwtRules")])
    spec.done(_PLACES)
    return RequestAuthentication(**common, jwt_rules=rules)


def authorization_policy(fields: Fields, origin: Origin) -> AuthorizationPolicy:
    """The resource that a mapping is; what is wrong with it is reported to `fields`."""
    common, spec = _policy(fields, origin)
    action = choice(spec, "action", Action, Action.ALLOW)
    rules = tuple([_rule(rule) for rule in spec.mappings("rules")])
    provider = _provider(spec, action) if spec.has("provider") else ""
    spec.done(_PLACES)
    dry_run = BOOLEANS.get(common["metadata"].annotations.get(DRY_RUN, "false"), False)
    return AuthorizationPolicy(**common, action=action, rules=rules, provider=provider, dry_run=dry_run)


def _policy(fields: Fields, origin: Origin) -> tuple[dict[str, Any], Fields]:
    """The members that both kinds share, and the spec."""
    spec = fields.mapping("spec")
    common = {
        "metadata": metadata(fields),
        "selector": selector(spec),
        "target_refs": target_refs(spec),
        "origin": origin,
    }
    envelope(fields, _PLACES)
    return common, spec


def _jwt_rule(fields: Fields) -> JwtRule:
    headers, outputs = [], []
    for entry in fields.mappings("fromHeaders"):
        headers.append(JwtHeader(name=entry.text("name"), prefix=entry.text("prefix")))
        entry.done()
    for entry in fields.mappings("outputClaimToHeaders"):
        outputs.append(ClaimToHeader(header=entry.text("header"), claim=entry.text("claim")))
        entry.done()
    if fields.has("jwks_uri") and fields.has("jwksUri"):
        fields.report(("jwks_uri",), fields.take("jwks_uri")[1], "the same as jwksUri: leave it out", "jwt-rule")
    rule = JwtRule(
        issuer=fields.text("issuer"),
        jwks_uri=fields.text("jwksUri") or fields.text("jwks_uri"),
        jwks=fields.text("jwks"),
        from_headers=tuple(headers),
        output_payload_to_header=fields.text("outputPayloadToHeader"),
        output_claim_to_headers=tuple(outputs),
        forward_original_token=fields.flag("forwardOriginalToken") or False,
        timeout=duration(fields, "timeout"),
        **fields.text_lists(_JWT_RULE_LISTS),
    )
    fields.ignore("presence")
    fields.done(_PLACES)
    return rule


def _provider(spec: Fields, action: Action) -> str:
    entry = spec.mapping("provider")
    name = entry.text("name")
    entry.done()
    if action is not Action.CUSTOM:
        reason = f"only a CUSTOM policy has a provider, this is {action}"
        spec.report(("provider",), spec.take("provider")[1], reason, "provider")
    return name


def _rule(fields: Fields) -> Rule:
    sources = tuple([Source(**lists) for lists in _wrapped(fields, "from", "source", SOURCE_LISTS)])
    operations = tuple([Operation(**lists) for lists in _wrapped(fields, "to", "operation", OPERATION_LISTS)])
    conditions = []
    for entry in fields.mappings("when"):
        conditions.append(Condition(key=entry.text("key"), **entry.text_lists(_CONDITION_LISTS)))
        entry.done(_PLACES)
    fields.done(_PLACES)
    return Rule(sources=sources, operations=operations, when=tuple(conditions))


def _wrapped(rule: Fields, name: str, wrapper: str, known: Mapping[str, str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """The lists of each `from[].source` or `to[].operation`. One without any field is refused, as istiod does: it is
    not said whether it means everything or nothing."""
    if rule.take(name)[0] == []:
        rule.report((name,), rule.take(name)[1], f"must not be empty; leave `{name}` out", "empty-entry")
    for entry in rule.mappings(name):
        inner = entry.mapping(wrapper)
        lists = inner.text_lists(known)
        before = len(rule.problems)
        inner.done(_PLACES)
        entry.done(_PLACES)
        if not any(lists.values()) and len(rule.problems) == before:
            entry.report((wrapper,), inner.line, f"must have at least one field ({', '.join(known)})", "empty-entry")
        yield lists
