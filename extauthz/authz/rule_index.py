"""The first of many rules that matches, without trying them all.

Every rule is entered under one condition that it cannot match without (paths, hosts, principals, claims...), chosen so
that few rules share a value. A request then gives the numbers of the rules that can match, and these are tried in
order. A rule that has no such condition is tried every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from extauthz.authz.attributes import AnyAttribute, Lookup, Predicate
from extauthz.authz.conditions import Condition, Conditions, RuleConditions
from extauthz.authz.text_index import Numbers, merge
from extauthz.identity import Identity
from extauthz.request import Request

NO_RULE = -1

FEW = 3
"""So many rules are tried one after the other: faster than looking them up."""

FirstMatch = Callable[[Request, Identity], int]
"""The number of the first rule that matches, or NO_RULE."""

Wanted = Mapping[Condition, Sequence[Any]]
"""The parsed values of conditions."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that matches or not: a rule, or one of a rule's alternatives.

    `sides` are independent requirements. Each is a list of alternatives, one of which must hold in full.
    """

    holds: Predicate
    sides: Sequence[Sequence[Conditions]]


def rule_candidate(rule: RuleConditions, wanted: Wanted) -> Candidate:
    """A rule, ready to be tried and to be looked up."""
    sides: list[Sequence[Conditions]] = [(conditions,) for conditions in rule.when]
    sides += [side for side in (rule.sources, rule.operations) if side]
    together: list[Condition] = []
    apart: list[Predicate] = []
    for side in sides:
        if len(side) == 1:
            together += side[0]
        elif all(side):
            apart.append(_any_alternative(side, wanted))
    return Candidate(_conjunction(together, apart), sides)


def _any_alternative(side: Sequence[Conditions], wanted: Wanted) -> Predicate:
    first = first_match([Candidate(_conjunction(conditions, ()), [[conditions]]) for conditions in side], wanted)
    return lambda request, identity: first(request, identity) != NO_RULE


def _conjunction(conditions: Sequence[Condition], predicates: Sequence[Predicate]) -> Predicate:
    """A predicate: do all conditions hold, cheap ones first, and then all predicates?"""
    ordered = sorted(conditions, key=lambda condition: condition.attribute.cost)
    steps = [(condition.matches, condition.expected) for condition in ordered]
    steps += [(predicate, True) for predicate in predicates]
    if not steps:
        return lambda _, __: True
    if len(steps) == 1:
        matches, expected = steps[0]
        return matches if expected else lambda request, identity: not matches(request, identity)
    if len(steps) == 2:
        (first, first_expected), (second, second_expected) = steps
        return lambda request, identity: (
            first(request, identity) is first_expected and second(request, identity) is second_expected
        )
    tried = tuple(steps)

    def holds(request: Request, identity: Identity) -> bool:
        for matches, expected in tried:  # noqa: SIM110 - see `patterns.any_of`
            if matches(request, identity) is not expected:
                return False
        return True

    return holds


def first_match(candidates: Sequence[Candidate], wanted: Wanted) -> FirstMatch:
    """A function that finds the first candidate, by its place, that matches."""
    predicates = [candidate.holds for candidate in candidates]
    if len(candidates) <= FEW:
        return _one_by_one(predicates)
    lookups, always = _sort(candidates, wanted)
    if len(lookups) == 1 and not always:
        return _by_one_lookup(predicates, lookups[0])
    return _by_lookups(predicates, lookups, always)


def _one_by_one(predicates: Sequence[Predicate]) -> FirstMatch:
    if len(predicates) == 1:
        only = predicates[0]
        return lambda request, identity: 0 if only(request, identity) else NO_RULE
    numbered = tuple(enumerate(predicates))

    def find(request: Request, identity: Identity) -> int:
        for number, holds in numbered:
            if holds(request, identity):
                return number
        return NO_RULE

    return find


def _by_one_lookup(predicates: Sequence[Predicate], lookup: Lookup) -> FirstMatch:
    def find(request: Request, identity: Identity) -> int:
        for number in lookup(request, identity):
            if predicates[number](request, identity):
                return number
        return NO_RULE

    return find


def _by_lookups(predicates: Sequence[Predicate], lookups: Sequence[Lookup], always: Numbers) -> FirstMatch:
    def find(request: Request, identity: Identity) -> int:
        groups = [always] if always else []
        for lookup in lookups:
            numbers = lookup(request, identity)
            if numbers:
                groups.append(numbers)
        for number in merge(groups):
            if predicates[number](request, identity):
                return number
        return NO_RULE

    return find


def _sort(candidates: Sequence[Candidate], wanted: Wanted) -> tuple[Sequence[Lookup], Numbers]:
    """Look-ups that together give every candidate that can match, and the numbers of those to be tried always."""
    shared = Counter(
        (condition.attribute, value)
        for candidate in candidates
        for side in candidate.sides
        for conditions in side
        for condition in conditions
        if condition.expected
        for value in wanted[condition]
    )

    def breadth(condition: Condition) -> float:
        attribute = condition.attribute
        return sum(shared[attribute, value] * attribute.breadth(value) for value in wanted[condition])

    entries: dict[AnyAttribute, list[tuple[Any, int]]] = {}
    always = []
    for number, candidate in enumerate(candidates):
        chosen = _narrowest_side(candidate, breadth)
        if chosen is None:
            always.append(number)
            continue
        for condition in chosen:
            entered = entries.setdefault(condition.attribute, [])
            entered += [(value, number) for value in wanted[condition]]
    return [attribute.index(entered) for attribute, entered in entries.items()], always


def _narrowest_side(candidate: Candidate, breadth: Callable[[Condition], float]) -> Sequence[Condition] | None:
    """Conditions, one for each alternative of one side, that match the fewest requests; None if no side has them."""
    best: Sequence[Condition] | None = None
    best_breadth = inf
    for side in candidate.sides:
        chosen = []
        total = 0.0
        for conditions in side:
            positive = [(breadth(condition), condition) for condition in conditions if condition.expected]
            narrowest = min(positive, key=lambda pair: pair[0], default=(inf, None))
            total += narrowest[0]
            if narrowest[1] is None or total >= best_breadth:
                break
            chosen.append(narrowest[1])
        else:
            best, best_breadth = chosen, total
    return best
