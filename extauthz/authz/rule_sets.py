"""The rules of all policies with one action, pooled and named as Istio does: one RBAC engine of Envoy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from extauthz.authz.conditions import ConditionCompiler, RuleConditions
from extauthz.authz.rule_index import FirstMatch, first_match, rule_candidate
from extauthz.istio.resources import AuthorizationPolicy

ALLOWED_REASON = "allowed"

NO_METADATA: Mapping[str, Any] = {}

_BLANKS = dict.fromkeys(map(ord, " \t\f\v\n\r"), "_")

RuleName = Callable[[AuthorizationPolicy, int], str]


class Verdict(NamedTuple):
    """What the policies say of a request.

    `policy` is the name of the rule that decided, `none` when no ALLOW rule matched, empty when no rule had a say.
    `reason` is Envoy's response code details for a denial, else `allowed` (or why the mesh would not have asked).
    `metadata` is what Envoy's RBAC filters would have left: filter name -> fields.
    """

    allowed: bool
    policy: str = ""
    reason: str = ALLOWED_REASON
    metadata: Mapping[str, Any] = NO_METADATA


def denial(policy: str) -> Verdict:
    """The verdict of a rule that denies, or of `none`. Envoy writes blanks in a name as underscores."""
    return Verdict(False, policy, f"rbac_access_denied_matched_policy[{policy.translate(_BLANKS)}]")


@dataclass(frozen=True, slots=True)
class NamedRule:
    """One rule: `index` is its place in `policy.rules`."""

    name: str
    policy: AuthorizationPolicy
    index: int
    conditions: RuleConditions


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in the order in which they are tried, and the function that finds the first that matches."""

    rules: tuple[NamedRule, ...]
    first: FirstMatch


def rule_name(policy: AuthorizationPolicy, index: int) -> str:
    """Istio's name of a rule."""
    return f"ns[{policy.metadata.namespace}]-policy[{policy.metadata.name}]-rule[{index}]"


def rule_set(
    policies: Iterable[AuthorizationPolicy], compiler: ConditionCompiler, name: RuleName = rule_name
) -> RuleSet:
    """All rules of the policies, in the byte order of their names (`rule[10]` before `rule[2]`)."""
    rules = [
        NamedRule(name(policy, index), policy, index, compiler.compile(policy, index))
        for policy in policies
        for index in range(len(policy.rules))
    ]
    rules.sort(key=lambda rule: rule.name)
    candidates = [rule_candidate(rule.conditions, compiler.wanted) for rule in rules]
    return RuleSet(tuple(rules), first_match(candidates, compiler.wanted))
