"""AuthorizationPolicies -> one verdict: CUSTOM, AUDIT, DENY, ALLOW and dry runs, in the mesh's order.

Compiled once, immutable afterwards. Istio: `pilot/pkg/security/authz/builder`; Envoy: the RBAC HTTP filter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from extauthz.authz.attributes import Reads
from extauthz.authz.conditions import CANNOT_EVALUATE, ConditionCompiler
from extauthz.authz.rule_index import NO_RULE
from extauthz.authz.rule_sets import RuleSet, Verdict, denial, rule_name, rule_set
from extauthz.authz.trust_domains import TrustDomains
from extauthz.authz.vocabulary import Vocabulary
from extauthz.errors import PolicyError, Problem
from extauthz.identity import Identity, anonymous
from extauthz.istio.resources import Action, AuthorizationPolicy
from extauthz.request import Request

__all__ = ["AuthorizationOptions", "CompiledPolicies", "Verdict", "compile_policies"]

NOT_ASKED_REASON = "custom_rules_not_matched"
"""`Verdict.reason` of a request about which the mesh would not have asked this provider."""

ALLOWED = Verdict(True)
DENIED = denial("none")
NOT_ASKED = Verdict(True, "", NOT_ASKED_REASON)

_PROVIDER_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class AuthorizationOptions:
    """What policies mean beyond their text.

    `trusted_hops` is Envoy's `xff_num_trusted_hops`; `provider` is the name under which the mesh's CUSTOM policies
    mean this service, empty when it is not called by such a policy.
    """

    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    root_namespace: str = "istio-system"
    trusted_hops: int = 0
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """The rules of one action: those that are enforced, and those of dry-run policies. None: no policy has them."""

    enforced: RuleSet | None
    shadow: RuleSet | None


class CompiledPolicies:
    """Policies ready to decide.

    - `decide(request, identity)` gives the verdict of AUDIT, DENY and ALLOW for a request as authentication left it.
    - `custom(request)`, before authentication: None when the CUSTOM policies have nothing to say, a denial when a rule
      of a provider that is not this service matches, and NOT_ASKED when the policies of `options.provider` match
      nothing: the mesh sends such a request on without asking, so it is allowed.
    - `reads` says what the policies look at; `reads_headers`, `reads_path`, `reads_metadata` and `reads_peer` are
      parts of it.
    """

    __slots__ = (
        "_anonymous",
        "allow",
        "audit",
        "bad_custom",
        "decide",
        "deny",
        "has_custom",
        "our_custom",
        "reads",
        "reads_headers",
        "reads_metadata",
        "reads_path",
        "reads_peer",
    )

    def __init__(
        self,
        *,
        bad_custom: Sequence[RuleSet],
        our_custom: RuleSet | None,
        audit: RuleSet | None,
        deny: Enforcement,
        allow: Enforcement,
        reads: Reads,
    ) -> None:
        self.bad_custom = tuple(bad_custom)
        self.our_custom = our_custom
        self.has_custom = bool(bad_custom) or our_custom is not None
        self.audit = audit
        self.deny = deny
        self.allow = allow
        self.reads = reads
        self.reads_headers = reads.headers
        self.reads_metadata = reads.metadata
        self.reads_path = reads.path
        self.reads_peer = reads.peer
        self.decide = _decide(audit, deny, allow)
        self._anonymous = anonymous()

    def custom(self, request: Request) -> Verdict | None:
        """The verdict of the CUSTOM policies on a request as it was received."""
        for rules in self.bad_custom:
            number = rules.first(request, self._anonymous)
            if number != NO_RULE:
                return denial(rules.rules[number].name)
        if self.our_custom is not None and self.our_custom.first(request, self._anonymous) == NO_RULE:
            return NOT_ASKED
        return None


Decide = Callable[[Request, Identity], Verdict]


def _decide(audit: RuleSet | None, deny: Enforcement, allow: Enforcement) -> Decide:
    enforced = _enforced(deny.enforced, allow.enforced)
    if audit is None and deny.shadow is None and allow.shadow is None:
        return enforced
    return _recording(enforced, audit, deny, allow)


def _enforced(deny: RuleSet | None, allow: RuleSet | None) -> Decide:
    """DENY and ALLOW without anything to record. Verdicts are made at load."""
    if deny is None:
        return _allow(allow)
    denials = [denial(rule.name) for rule in deny.rules]
    find, otherwise = deny.first, _allow(allow)
    if allow is None:

        def decide_deny(request: Request, identity: Identity) -> Verdict:
            number = find(request, identity)
            return ALLOWED if number == NO_RULE else denials[number]

        return decide_deny

    def decide(request: Request, identity: Identity) -> Verdict:
        number = find(request, identity)
        return otherwise(request, identity) if number == NO_RULE else denials[number]

    return decide


def _allow(allow: RuleSet | None) -> Decide:
    if allow is None:
        return lambda _, __: ALLOWED
    grants = [Verdict(True, rule.name) for rule in allow.rules]
    find = allow.first

    def decide(request: Request, identity: Identity) -> Verdict:
        number = find(request, identity)
        return DENIED if number == NO_RULE else grants[number]

    return decide


ACCESS_LOG_NAMESPACE = "envoy.common"
ACCESS_LOG_HINT = "access_log_hint"
RBAC_NAMESPACE = "envoy.filters.http.rbac"
SHADOW_PREFIXES = {Action.DENY: "istio_dry_run_deny_", Action.ALLOW: "istio_dry_run_allow_"}


def _recording(enforced: Decide, audit: RuleSet | None, deny: Enforcement, allow: Enforcement) -> Decide:
    """The same verdicts with what AUDIT and dry-run policies leave in metadata.

    The filters come in the order AUDIT, DENY, ALLOW, and each evaluates its shadow rules before it enforces: when DENY
    denies, the shadow rules of ALLOW are not reached.
    """
    denies = _enforced(deny.enforced, None)

    def decide(request: Request, identity: Identity) -> Verdict:
        metadata: dict[str, Any] = {}
        if audit is not None:
            metadata[ACCESS_LOG_NAMESPACE] = {ACCESS_LOG_HINT: audit.first(request, identity) != NO_RULE}
        shadow: dict[str, str] = {}
        if deny.shadow is not None:
            _record(Action.DENY, deny.shadow, request, identity, shadow)
        if allow.shadow is not None and denies(request, identity).allowed:
            _record(Action.ALLOW, allow.shadow, request, identity, shadow)
        if shadow:
            metadata[RBAC_NAMESPACE] = shadow
        return enforced(request, identity)._replace(metadata=metadata)

    return decide


def _record(action: Action, rules: RuleSet, request: Request, identity: Identity, metadata: dict[str, str]) -> None:
    """What Envoy's RBAC writes for shadow rules with Istio's `shadow_rules_stat_prefix`."""
    prefix = SHADOW_PREFIXES[action]
    number = rules.first(request, identity)
    if number != NO_RULE:
        metadata[f"{prefix}shadow_effective_policy_id"] = rules.rules[number].name
    allowed = (number != NO_RULE) is (action is Action.ALLOW)
    metadata[f"{prefix}shadow_engine_result"] = "allowed" if allowed else "denied"


def compile_policies(policies: Sequence[AuthorizationPolicy], options: AuthorizationOptions) -> CompiledPolicies:
    """The policies that apply to one workload, in any order.

    Raises PolicyError with every key and value that cannot be evaluated: Istio drops such a value, list or rule, and
    with it may widen what a policy denies or allows.
    """
    trust_domains = TrustDomains((options.trust_domain, *options.trust_domain_aliases))
    compiler = ConditionCompiler(Vocabulary(trust_domains, options.trusted_hops))
    by_action: dict[Action, list[AuthorizationPolicy]] = {action: [] for action in Action}
    for policy in policies:
        by_action[policy.action].append(policy)
    problems = _dry_run_problems(by_action[Action.AUDIT] + by_action[Action.CUSTOM])
    bad_custom, our_custom = _custom(by_action[Action.CUSTOM], options.provider, compiler)
    compiled = CompiledPolicies(
        bad_custom=bad_custom,
        our_custom=our_custom,
        audit=rule_set(by_action[Action.AUDIT], compiler) if by_action[Action.AUDIT] else None,
        deny=_enforcement(by_action[Action.DENY], compiler),
        allow=_enforcement(by_action[Action.ALLOW], compiler),
        reads=reduce(or_, {condition.attribute.reads for condition in compiler.wanted}, Reads()),
    )
    problems += compiler.problems
    if problems:
        raise PolicyError(sorted(problems, key=lambda problem: (problem.file, problem.line)))
    return compiled


def _enforcement(policies: Sequence[AuthorizationPolicy], compiler: ConditionCompiler) -> Enforcement:
    enforced = [policy for policy in policies if not policy.dry_run]
    shadow = [policy for policy in policies if policy.dry_run]
    return Enforcement(
        rule_set(enforced, compiler) if enforced else None,
        rule_set(shadow, compiler) if shadow else None,
    )


def _custom(
    policies: Sequence[AuthorizationPolicy], provider: str, compiler: ConditionCompiler
) -> tuple[list[RuleSet], RuleSet | None]:
    """CUSTOM policies by provider: those whose rules deny, in the order of the filters, and those of this service.

    A provider that the mesh does not know denies what its rules match, and so do all when a workload has several
    (unless Istio's PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS is on, which is not followed).
    """
    providers = sorted({policy.provider for policy in policies})
    if providers == [provider] and _PROVIDER_NAME.fullmatch(provider):
        return [], rule_set(policies, compiler, _custom_rule_name)
    return [
        rule_set([policy for policy in policies if policy.provider == name], compiler, _bad_custom_rule_name)
        for name in providers
    ], None


def _custom_rule_name(policy: AuthorizationPolicy, index: int) -> str:
    provider = f"{policy.provider}-" if policy.provider else ""
    return f"istio-ext-authz-{provider}{rule_name(policy, index)}"


def _bad_custom_rule_name(policy: AuthorizationPolicy, index: int) -> str:
    return f"{_custom_rule_name(policy, index)}-deny-due-to-bad-CUSTOM-action"


def _dry_run_problems(policies: Sequence[AuthorizationPolicy]) -> list[Problem]:
    return [
        policy.problem(
            ("metadata", "annotations", "istio.io/dry-run"),
            f"only ALLOW and DENY policies can be dry-run, this is {policy.action}",
            code=CANNOT_EVALUATE,
        )
        for policy in policies
        if policy.dry_run
    ]
