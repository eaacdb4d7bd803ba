"""istiod's validation of an AuthorizationPolicy, and what passes istiod and breaks Envoy, or widens a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from extauthz.istio import checks
from extauthz.istio.crd_security import OPERATION_LISTS, SOURCE_LISTS
from extauthz.istio.resources import Action, AuthorizationPolicy, Condition, FieldPath, Rule
from extauthz.istio.validate_authentication import Finding

MAX_SERVICE_ACCOUNTS = 16

Check = Callable[[str], str]

_FIELD_CHECKS: Mapping[str, Check] = {
    name: check
    for base, check in (
        ("ip_blocks", checks.ip_block),
        ("remote_ip_blocks", checks.ip_block),
        ("service_accounts", checks.service_account),
        ("trust_domains", checks.trust_domain),
        ("ports", checks.port_text),
        ("paths", checks.path),
        ("namespaces", checks.one_line),
    )
    for name in (base, f"not_{base}")
}
_KEY_CHECKS: Mapping[str, Check] = {
    "source.ip": checks.ip_block,
    "remote.ip": checks.ip_block,
    "destination.ip": checks.ip_block,
    "destination.port": checks.port_text,
    "source.serviceAccount": checks.service_account,
    "source.trustDomain": checks.one_star,
    "source.namespace": checks.one_line,
}
_CUSTOM_CANNOT = (
    "namespaces", "not_namespaces", "service_accounts", "not_service_accounts", "trust_domains", "not_trust_domains",
    "principals", "not_principals", "request_principals", "not_request_principals",
)  # fmt: skip
_CUSTOM_CANNOT_KEYS = ("source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal")
_SOURCE_NAMES = tuple((member, name) for name, member in SOURCE_LISTS.items())
_OPERATION_NAMES = tuple((member, name) for name, member in OPERATION_LISTS.items())


def authorization_policy(policy: AuthorizationPolicy) -> Iterator[Finding]:
    """Everything that is wrong with the action and the rules."""
    if policy.action in (Action.DENY, Action.CUSTOM) and not policy.rules:
        reason = f"a {policy.action} policy without rules does nothing; add `- {{}}` if it is for every request"
        yield ("spec", "rules"), "no-rules", reason
    if policy.action is Action.CUSTOM and not policy.provider:
        yield ("spec", "provider"), "provider", "a CUSTOM policy needs provider.name"
    for index, rule in enumerate(policy.rules):
        path: FieldPath = ("spec", "rules", index)
        for place, code, reason in _rule(rule, policy.action):
            yield (*path, *place), code, reason


def lists_of(rule: Rule) -> Iterator[tuple[FieldPath, str, tuple[str, ...]]]:
    """Every list that the sources and operations of a rule give: its path, its name in `resources`, its values."""
    for index, source in enumerate(rule.sources):
        for member, name in _SOURCE_NAMES:
            if values := getattr(source, member):
                yield ("from", index, "source", name), member, values
    for index, operation in enumerate(rule.operations):
        for member, name in _OPERATION_NAMES:
            if values := getattr(operation, member):
                yield ("to", index, "operation", name), member, values


def _rule(rule: Rule, action: Action) -> Iterator[Finding]:
    for path, member, values in lists_of(rule):
        yield from _values(path, values, _FIELD_CHECKS.get(member), member.removeprefix("not_"))
        if action is Action.CUSTOM and member in _CUSTOM_CANNOT:
            yield path, "custom", _CUSTOM_REASON
    for index, source in enumerate(rule.sources):
        accounts = source.service_accounts or source.not_service_accounts
        if accounts and (source.principals or source.not_principals or source.namespaces or source.not_namespaces):
            reason = "serviceAccounts cannot stand beside principals or namespaces; write another `- source` for those"
            yield ("from", index, "source"), "service-accounts", reason
    for index, condition in enumerate(rule.when):
        for path, code, reason in _condition(condition, action):
            yield ("when", index, *path), code, reason


_CUSTOM_REASON = "a CUSTOM policy is asked before authentication and cannot look at who sends a request"


def _values(path: FieldPath, values: tuple[str, ...], check: Check | None, kind: str) -> Iterator[Finding]:
    if kind in ("service_accounts", "source.serviceAccount") and len(values) > MAX_SERVICE_ACCOUNTS:
        yield path, "too-many", f"at most {MAX_SERVICE_ACCOUNTS} are possible, not {len(values)}"
    for index, value in enumerate(values):
        if not value:
            yield (*path, index), "empty-value", "must not be empty; remove the entry"
        elif check is not None and (reason := check(value)):
            yield (*path, index), "value", reason


def _condition(condition: Condition, action: Action) -> Iterator[Finding]:
    key = condition.key
    if reason := checks.condition_key(key):
        yield ("key",), "condition-key", reason
    if not condition.values and not condition.not_values:
        yield (), "no-values", "give values or notValues"
    if action is Action.CUSTOM and (key in _CUSTOM_CANNOT_KEYS or key.startswith("request.auth.")):
        yield ("key",), "custom", _CUSTOM_REASON
    for name, values in (("values", condition.values), ("notValues", condition.not_values)):
        yield from _values((name,), values, _KEY_CHECKS.get(key), key)
