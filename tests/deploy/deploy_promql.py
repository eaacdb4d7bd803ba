"""What can be said about a PromQL expression without data: what it selects, and whether its sides can ever match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import promql_parser
from promql_parser import AggModifierType, LabelModifierType, MatchOp

_DROPPED = {"histogram_quantile": {"le"}}


@dataclass(frozen=True, slots=True)
class Vector:
    """The labels of every series of an instant vector, and those that have one known value."""

    labels: frozenset[str]
    fixed: Mapping[str, str] = field(default_factory=dict)

    def without(self, labels: set[str]) -> Vector:
        return self.only(set(self.labels) - labels)

    def only(self, labels: set[str]) -> Vector:
        kept = self.labels & labels
        return Vector(kept, {name: value for name, value in self.fixed.items() if name in kept})


def selectors(expression: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    """All vector selectors in an expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for part in ("lhs", "rhs", "expr", "vector_selector", "param"):
        child = getattr(expression, part, None)
        if isinstance(child, promql_parser.Expr):
            yield from selectors(child)
    for child in getattr(expression, "args", None) or ():
        yield from selectors(child)


def vector(expression: promql_parser.Expr, labels: Mapping[str, set[str]]) -> Vector | None:
    """What an expression gives, with the labels of each metric; None for a number.

    Asserts that the sides of each operator can match: Prometheus compares all labels, so that two sides with different
    ones, or with different values of one, silently give nothing.
    """
    match expression:
        case promql_parser.VectorSelector():
            matchers = expression.matchers.matchers
            fixed = {matcher.name: matcher.value for matcher in matchers if matcher.op == MatchOp.Equal}
            return Vector(frozenset(labels[expression.name]), fixed)
        case promql_parser.MatrixSelector():
            return vector(expression.vector_selector, labels)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            return vector(expression.expr, labels)
        case promql_parser.AggregateExpr():
            return _aggregate(expression, labels)
        case promql_parser.Call():
            vectors = [found for child in expression.args if (found := vector(child, labels)) is not None]
            if expression.func.name == "absent":
                return Vector(frozenset())
            return vectors[0].without(_DROPPED.get(expression.func.name, set())) if vectors else None
        case promql_parser.BinaryExpr():
            return _binary(expression, labels)
    return None


def _aggregate(expression: promql_parser.AggregateExpr, labels: Mapping[str, set[str]]) -> Vector | None:
    inner = vector(expression.expr, labels)
    assert inner is not None
    if "topk" in str(expression):
        return inner
    if expression.modifier is None:
        return Vector(frozenset())
    assert expression.modifier.type == AggModifierType.By
    missing = set(expression.modifier.labels) - inner.labels
    assert not missing, f"{expression}: grouped by {missing}, which its series do not have"
    return inner.only(set(expression.modifier.labels))


def _binary(expression: promql_parser.BinaryExpr, labels: Mapping[str, set[str]]) -> Vector | None:
    left, right = vector(expression.lhs, labels), vector(expression.rhs, labels)
    if left is None or right is None:
        return left or right
    one, other = left, right
    matching = expression.modifier.matching if expression.modifier else None
    if matching is not None and matching.type == LabelModifierType.Include:
        one, other = left.only(set(matching.labels)), right.only(set(matching.labels))
    elif matching is not None:
        one, other = left.without(set(matching.labels)), right.without(set(matching.labels))
    assert one.labels == other.labels, f"{expression}: matches {set(one.labels)} with {set(other.labels)}"
    for name in set(one.fixed) & set(other.fixed):
        assert one.fixed[name] == other.fixed[name], f"{expression}: {name} is never the same on both sides"
    return left
