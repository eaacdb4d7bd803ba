"""The conditions of one rule: what an operator wrote under `from`, `to` and `when`, as predicates.

A condition is one field with its values. The decision and its explanation run the same predicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.authz.attributes import AnyAttribute, Predicate
from extauthz.authz.vocabulary import Field, Vocabulary
from extauthz.errors import Problem
from extauthz.identity import Identity
from extauthz.istio.resources import AuthorizationPolicy, FieldPath, Operation, Rule, Source
from extauthz.request import Request

CANNOT_EVALUATE = "cannot-evaluate"
"""`Problem.code` of a key or value that has no meaning that could be enforced."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A field's values, or a `when` entry's, that must match (`expected`) or must not.

    `name` is the field in the CRD (`notPaths`), or the key of a `when` entry. `values` are as the operator wrote them.
    """

    name: str
    values: tuple[str, ...]
    expected: bool
    attribute: AnyAttribute
    matches: Predicate

    def holds(self, request: Request, identity: Identity) -> bool:
        """Whether the condition is met."""
        return self.matches(request, identity) is self.expected


Conditions = tuple[Condition, ...]
"""All must hold."""


@dataclass(frozen=True, slots=True)
class RuleConditions:
    """A rule matches when any of `sources` holds (or there are none), any of `operations`, and all of `when`.

    The three have the places of `from[]`, `to[]` and `when[]`.
    """

    sources: tuple[Conditions, ...]
    operations: tuple[Conditions, ...]
    when: tuple[Conditions, ...]


class ConditionCompiler:
    """Makes the conditions of many policies; equal ones are made once. Problems are gathered, not raised."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._known: dict[tuple[AnyAttribute, str, tuple[str, ...], bool, str], Condition] = {}
        self.wanted: dict[Condition, Sequence[Any]] = {}
        """The parsed values of each condition, needed only to sort rules by them."""
        self.problems: list[Problem] = []

    def compile(self, policy: AuthorizationPolicy, index: int) -> RuleConditions:
        """The conditions of the rule at `spec.rules[index]`. What cannot be evaluated is added to `problems`."""
        rule: Rule = policy.rules[index]
        path: FieldPath = ("spec", "rules", index)
        return RuleConditions(
            tuple(
                self._fields(policy, source, self._vocabulary.source_fields, (*path, "from", place, "source"))
                for place, source in enumerate(rule.sources)
            ),
            tuple(
                self._fields(policy, operation, self._vocabulary.operation_fields, (*path, "to", place, "operation"))
                for place, operation in enumerate(rule.operations)
            ),
            tuple(tuple(self._when(policy, rule, place, (*path, "when", place))) for place in range(len(rule.when))),
        )

    def _fields(
        self, policy: AuthorizationPolicy, written: Source | Operation, fields: Iterable[Field], path: FieldPath
    ) -> Conditions:
        conditions = []
        for attribute_name, name, expected, attribute in fields:
            values: tuple[str, ...] = getattr(written, attribute_name)
            if values:
                conditions.append(self._condition(policy, attribute, name, values, expected, (*path, name)))
        return tuple(conditions)

    def _when(self, policy: AuthorizationPolicy, rule: Rule, place: int, path: FieldPath) -> Iterator[Condition]:
        entry = rule.when[place]
        try:
            attribute = self._vocabulary.attribute(entry.key)
        except ValueError as error:
            self.problems.append(policy.problem((*path, "key"), str(error), code=CANNOT_EVALUATE))
            return
        if entry.values:
            yield self._condition(policy, attribute, entry.key, entry.values, True, (*path, "values"))
        if entry.not_values:
            yield self._condition(policy, attribute, entry.key, entry.not_values, False, (*path, "notValues"))

    def _condition(
        self,
        policy: AuthorizationPolicy,
        attribute: AnyAttribute,
        name: str,
        values: tuple[str, ...],
        expected: bool,
        path: FieldPath,
    ) -> Condition:
        namespace = policy.metadata.namespace
        key = (attribute, name, values, expected, namespace)
        condition = self._known.get(key)
        if condition is None:
            wanted: list[Any] = []
            problems = []
            for place, value in enumerate(values):
                try:
                    wanted += attribute.parse(value, namespace)
                except ValueError as error:
                    problems.append(policy.problem((*path, place), str(error), code=CANNOT_EVALUATE))
            condition = Condition(name, values, expected, attribute, attribute.matcher(wanted))
            self.wanted[condition] = wanted
            if problems:
                self.problems += problems
            else:
                self._known[key] = condition
        return condition
