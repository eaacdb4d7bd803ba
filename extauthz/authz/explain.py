"""Why the policies decided as they did: the rule, its conditions, what they wanted and what they saw.

Data for people and programs to print. Everything comes from the compiled rules that decide, so that explanation and
decision cannot differ. This is not the hot path: all rules may be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from extauthz.authz.conditions import Condition, Conditions
from extauthz.authz.policies import CompiledPolicies
from extauthz.authz.rule_index import NO_RULE
from extauthz.authz.rule_sets import NamedRule, RuleSet, Verdict
from extauthz.identity import Identity, anonymous
from extauthz.istio.resources import Action, FieldPath, field_text
from extauthz.request import Request


@dataclass(frozen=True, slots=True)
class ConditionReport:
    """One condition and how it came out.

    `field` is its place in the resource (`spec.rules[0].from[0].source.notRequestPrincipals`), `key` the key of a
    `when` entry. `wanted` are the operator's values: one of them has to match, or none when `negated`. `seen` is what
    the request has; empty when it has nothing.
    """

    field: str
    key: str
    wanted: tuple[str, ...]
    negated: bool
    seen: tuple[str, ...]
    holds: bool


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule and its conditions: all of `when`, and of `from` and `to` the alternative that came nearest."""

    name: str
    action: Action
    dry_run: bool
    file: str
    line: int
    matched: bool
    conditions: tuple[ConditionReport, ...]

    @property
    def failed(self) -> tuple[ConditionReport, ...]:
        """The conditions that did not hold."""
        return tuple(condition for condition in self.conditions if not condition.holds)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and its reasons.

    `decided` is the rule that matched and decided. When ALLOW policies apply and none of their rules matched, it is
    None and `nearest` is the rule with the fewest conditions that did not hold (None when they have no rules).
    `recorded` are matching AUDIT and dry-run rules, which decide nothing.
    """

    verdict: Verdict
    decided: RuleReport | None = None
    nearest: RuleReport | None = None
    recorded: tuple[RuleReport, ...] = ()


def explain(policies: CompiledPolicies, request: Request, identity: Identity) -> Explanation:
    """Why `policies.decide` answers this request as it does."""
    verdict = policies.decide(request, identity)
    recorded = tuple(_recorded(policies, request, identity))
    for rules in (policies.deny.enforced, policies.allow.enforced):
        rule = _first(rules, request, identity)
        if rule is not None:
            return Explanation(verdict, decided=_report(rule, request, identity), recorded=recorded)
    nearest = _nearest(policies.allow.enforced, request, identity) if not verdict.allowed else None
    return Explanation(verdict, nearest=nearest, recorded=recorded)


def explain_custom(policies: CompiledPolicies, request: Request) -> Explanation | None:
    """Why `policies.custom` answers this request as it does; None when it has nothing to say."""
    verdict = policies.custom(request)
    if verdict is None:
        return None
    nobody = anonymous()
    for rules in policies.bad_custom:
        rule = _first(rules, request, nobody)
        if rule is not None:
            return Explanation(verdict, decided=_report(rule, request, nobody))
    return Explanation(verdict, nearest=_nearest(policies.our_custom, request, nobody))


def _recorded(policies: CompiledPolicies, request: Request, identity: Identity) -> Iterator[RuleReport]:
    denied = _first(policies.deny.enforced, request, identity) is not None
    # A request that is denied does not reach the dry run of ALLOW.
    for rules in (policies.audit, policies.deny.shadow, None if denied else policies.allow.shadow):
        rule = _first(rules, request, identity)
        if rule is not None:
            yield _report(rule, request, identity)


def _first(rules: RuleSet | None, request: Request, identity: Identity) -> NamedRule | None:
    number = rules.first(request, identity) if rules is not None else NO_RULE
    return rules.rules[number] if rules is not None and number != NO_RULE else None


def _nearest(rules: RuleSet | None, request: Request, identity: Identity) -> RuleReport | None:
    """The rule with the fewest conditions that fail; of those the one with the most that hold."""
    best: NamedRule | None = None
    best_distance = (0, 0)
    for rule in rules.rules if rules is not None else ():
        results = [condition.holds(request, identity) for _, condition in _telling(rule, request, identity)]
        distance = (results.count(False), -results.count(True))
        if best is None or distance < best_distance:
            best, best_distance = rule, distance
    return _report(best, request, identity) if best is not None else None


def _report(rule: NamedRule, request: Request, identity: Identity) -> RuleReport:
    path: FieldPath = ("spec", "rules", rule.index)
    conditions = tuple(
        ConditionReport(
            field_text((*path, *place)),
            condition.name if place[0] == "when" else "",
            condition.values,
            not condition.expected,
            condition.attribute.seen(request, identity),
            condition.holds(request, identity),
        )
        for place, condition in _telling(rule, request, identity)
    )
    policy = rule.policy
    return RuleReport(
        rule.name,
        policy.action,
        policy.dry_run,
        policy.origin.file,
        policy.origin.line(path),
        all(condition.holds for condition in conditions),
        conditions,
    )


def _telling(rule: NamedRule, request: Request, identity: Identity) -> Iterator[tuple[FieldPath, Condition]]:
    """The conditions that tell why a rule matches or not, with their places in the rule."""
    for name, wrapper, side in (
        ("from", "source", rule.conditions.sources),
        ("to", "operation", rule.conditions.operations),
    ):
        if side:
            place = _nearest_alternative(side, request, identity)
            for condition in side[place]:
                yield (name, place, wrapper, condition.name), condition
    for place, conditions in enumerate(rule.conditions.when):
        for condition in conditions:
            yield ("when", place, "values" if condition.expected else "notValues"), condition


def _nearest_alternative(side: Sequence[Conditions], request: Request, identity: Identity) -> int:
    failures = [sum(not condition.holds(request, identity) for condition in conditions) for conditions in side]
    return failures.index(min(failures))
