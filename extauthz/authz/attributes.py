"""What a condition compares: the seam between what an operator may write and how it is decided.

An attribute knows one thing about a request (its path, one header, one claim). It reads a policy's values, makes the
predicate of a condition from them, and can sort many rules by the values they want.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Protocol, TypeVar

from extauthz.authz.patterns import Kind, Pattern
from extauthz.authz.text_index import Numbers
from extauthz.identity import Identity
from extauthz.request import Request

Predicate = Callable[[Request, Identity], bool]
"""Returns True or False themselves: results are compared by identity."""

Lookup = Callable[[Request, Identity], Numbers]
"""Numbers of the rules that may match the request: all that do, and perhaps others."""

MAX_REMEMBERED = 64
"""Entries that the policies of one set keep in an identity's memo."""

MAX_REMEMBERED_NUMBERS = 256
"""A longer answer of a look-up is not kept: working it out is cheap against trying all those rules."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What has to be known about a request. `headers` are lower-case names, `metadata` names of filters."""

    headers: frozenset[str] = frozenset()
    metadata: frozenset[str] = frozenset()
    path: bool = False
    host: bool = False
    method: bool = False
    scheme: bool = False
    peer: bool = False
    server_name: bool = False
    source_address: bool = False
    destination: bool = False
    identity: bool = False

    def __or__(self, other: Reads) -> Reads:
        return Reads(*(getattr(self, field.name) | getattr(other, field.name) for field in fields(Reads)))


Wanted = TypeVar("Wanted")


class Attribute(Protocol[Wanted]):
    """One comparable thing. `Wanted` is the compiled form of a policy's value."""

    @property
    def reads(self) -> Reads:
        """What the predicates look at."""
        ...

    @property
    def cost(self) -> int:
        """How much a predicate costs against others; a rule's cheap conditions are tried first."""
        ...

    def parse(self, value: str, namespace: str) -> Sequence[Wanted]:
        """What one value of a policy in `namespace` stands for. Raises ValueError with a reason for the operator."""
        ...

    def matcher(self, wanted: Sequence[Wanted]) -> Predicate:
        """A predicate: does the attribute have any of the values? Absent is no value."""
        ...

    def index(self, entries: Sequence[tuple[Wanted, int]]) -> Lookup:
        """A look-up of the rules (by number) that want what the attribute has."""
        ...

    def breadth(self, wanted: Wanted) -> float:
        """How many requests a value is likely to match, for choosing what to sort rules by; infinite for `*`."""
        ...

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        """What the attribute has, for people; empty when it is absent."""
        ...


AnyAttribute = Attribute[Any]


def pattern_breadth(pattern: Pattern) -> float:
    """`Attribute.breadth` of a text pattern."""
    if pattern.kind is Kind.EXACT:
        return 1
    return 2 + 8 / len(pattern.text) if pattern.text else inf


Result = TypeVar("Result", bool, Numbers)


def remember(identity: Identity, key: object, result: Result) -> Result:
    """Keep a result that depends on the identity alone under `key` in its memo, if there is room; gives the result.

    An `Identity` lives no longer than the policies it was made under. Keys are objects made for the purpose: functions
    of equal values may be equal.
    """
    memo = identity.memo
    if len(memo) < MAX_REMEMBERED and (isinstance(result, bool) or len(result) <= MAX_REMEMBERED_NUMBERS):
        memo[key] = result
    return result
