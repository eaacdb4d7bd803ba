"""AuthorizationPolicies -> Envoy's RBAC filters, one for each action, as istiod orders and names them.

The action CUSTOM comes before authentication, the others after it: see `filters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from envoy_data_plane.envoy.config.rbac.v3 import Policy, Rbac, RbacAction
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as RbacFilter

from extauthz.istio.resources import Action, AuthorizationPolicy
from extauthz.mesh.rbac_rules import Context, match_never, rbac_policy

RBAC_FILTER = "envoy.filters.http.rbac"

CUSTOM_STAT_PREFIX = "istio_ext_authz_"
"""Istio's prefix of the metadata in which CUSTOM rules record that they matched."""

CUSTOM_NAME_PREFIX = "istio-ext-authz"

_BAD_CUSTOM_SUFFIX = "-deny-due-to-bad-CUSTOM-action"
_DRY_RUN_PREFIXES = {Action.ALLOW: "istio_dry_run_allow_", Action.DENY: "istio_dry_run_deny_"}
_RBAC_ACTIONS = {Action.AUDIT: RbacAction.LOG, Action.DENY: RbacAction.DENY, Action.ALLOW: RbacAction.ALLOW}


@dataclass(frozen=True, slots=True)
class CustomFilter:
    """The filter of one CUSTOM provider. It denies by itself, or else (`asks`) only marks what the provider decides."""

    provider: str
    filter: RbacFilter
    asks: bool


def rule_name(policy: AuthorizationPolicy, index: int) -> str:
    """Istio's name of a rule, which a denial's response code details carry."""
    return f"ns[{policy.metadata.namespace}]-policy[{policy.metadata.name}]-rule[{index}]"


def enforcement_filters(
    policies: Sequence[AuthorizationPolicy], trust_domains: tuple[str, ...]
) -> Iterator[RbacFilter]:
    """The filters that follow authentication: AUDIT, DENY, ALLOW, each if a policy has that action.

    Policies in dry run become shadow rules; an action whose policies are all in dry run enforces nothing.
    """
    for action, rbac_action in _RBAC_ACTIONS.items():
        concerned = [policy for policy in policies if policy.action is action]
        enforced = [policy for policy in concerned if not policy.dry_run]
        tried = [policy for policy in concerned if policy.dry_run]
        if concerned:
            yield RbacFilter(
                rules=_rules(enforced, rbac_action, trust_domains) if enforced else None,
                shadow_rules=_rules(tried, rbac_action, trust_domains) if tried else None,
                shadow_rules_stat_prefix=_DRY_RUN_PREFIXES.get(action, "") if tried else "",
            )


def custom_filters(
    policies: Sequence[AuthorizationPolicy], trust_domains: tuple[str, ...], known_providers: Iterable[str]
) -> Iterator[CustomFilter]:
    """The filters of CUSTOM policies, which precede authentication, by provider.

    What a rule of a known provider matches is marked for the `ext_authz` filter that follows. A provider that the mesh
    does not know has whatever its rules match denied; and so have several providers on one workload.
    """
    by_provider: dict[str, list[AuthorizationPolicy]] = {}
    for policy in policies:
        if policy.action is Action.CUSTOM:
            by_provider.setdefault(policy.provider, []).append(policy)
    usable = set(known_providers) if len(by_provider) == 1 else set()
    for provider, concerned in sorted(by_provider.items()):
        prefix = f"{CUSTOM_NAME_PREFIX}-{provider}-" if provider else f"{CUSTOM_NAME_PREFIX}-"
        if provider in usable:
            rules = _rules(concerned, RbacAction.DENY, trust_domains, prefix=prefix)
            marking = RbacFilter(shadow_rules=rules, shadow_rules_stat_prefix=CUSTOM_STAT_PREFIX)
            yield CustomFilter(provider, marking, asks=True)
        else:
            rules = _rules(concerned, RbacAction.DENY, trust_domains, prefix=prefix, suffix=_BAD_CUSTOM_SUFFIX)
            yield CustomFilter(provider, RbacFilter(rules=rules), asks=False)


def _rules(
    policies: Iterable[AuthorizationPolicy],
    action: RbacAction,
    trust_domains: tuple[str, ...],
    *,
    prefix: str = "",
    suffix: str = "",
) -> Rbac:
    named: dict[str, Policy] = {}
    for policy in policies:
        context = Context(policy.metadata.namespace, trust_domains)
        for index, rule in enumerate(policy.rules):
            named[f"{prefix}{rule_name(policy, index)}{suffix}"] = rbac_policy(rule, context)
        if not policy.rules:
            named[f"{prefix}{rule_name(policy, 0)}{suffix}"] = match_never()
    return Rbac(action=action, policies=named)
