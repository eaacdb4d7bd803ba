"""Attributes of the verified token: the request principal and claims. Claims are ordinary text, not wire text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from extauthz.authz.attributes import Lookup, Predicate, Reads, pattern_breadth, remember
from extauthz.authz.patterns import Kind, Pattern, TextMatcher, any_string, not_empty, parse_pattern, text_matcher
from extauthz.authz.text_index import NO_NUMBERS, Numbers, TextIndex, merge
from extauthz.identity import Identity
from extauthz.request import Request

_TOKEN = Reads(identity=True)
_NOT_EMPTY = Pattern(Kind.NOT_EMPTY)

LONG_LIST = 4
"""A claim with more members than this is compared once per identity and condition, and the result remembered."""


class PrincipalPattern(NamedTuple):
    """What `iss` and `sub` must be, both strings."""

    issuer: Pattern
    subject: Pattern


ANY_PRINCIPAL = PrincipalPattern(_NOT_EMPTY, _NOT_EMPTY)


def parse_request_principal(value: str) -> PrincipalPattern:
    """One value of `requestPrincipals`: `issuer/subject`, cut at the last slash, with `*` at one end.

    Istio: `requestPrincipalGenerator` in `pilot/pkg/security/authz/model/generator.go`.
    """
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return ANY_PRINCIPAL
    if value.startswith("*"):
        if not slash:
            return PrincipalPattern(_NOT_EMPTY, Pattern(Kind.SUFFIX, value[1:]))
        return PrincipalPattern(_ending(issuer), Pattern(Kind.EXACT, subject))
    if value.endswith("*"):
        if not slash:
            return PrincipalPattern(Pattern(Kind.PREFIX, value[:-1]), _NOT_EMPTY)
        return PrincipalPattern(Pattern(Kind.EXACT, issuer), _beginning(subject))
    if not slash:
        issuer, subject = value, ""
    return PrincipalPattern(Pattern(Kind.EXACT, issuer), Pattern(Kind.EXACT, subject))


def _ending(issuer: str) -> Pattern:
    return _NOT_EMPTY if issuer == "*" else Pattern(Kind.SUFFIX, issuer[1:])


def _beginning(subject: str) -> Pattern:
    return _NOT_EMPTY if subject == "*" else Pattern(Kind.PREFIX, subject[:-1])


class RequestPrincipalAttribute:
    """`requestPrincipals`, `request.auth.principal`: `iss` and `sub` of the token."""

    reads = _TOKEN
    cost = 0

    def parse(self, value: str, namespace: str) -> Sequence[PrincipalPattern]:
        return (parse_request_principal(value),)

    def matcher(self, wanted: Sequence[PrincipalPattern]) -> Predicate:
        if all(principal == ANY_PRINCIPAL for principal in wanted):
            return _has_principal
        if len(wanted) == 1 and wanted[0].issuer.kind is wanted[0].subject.kind is Kind.EXACT:
            return _is_principal(wanted[0].issuer.text, wanted[0].subject.text)
        found = _sort((principal, 0) for principal in wanted)
        by_issuer = {issuer: _matcher(entries) for issuer, entries in found.by_issuer.items()}
        by_subject = {subject: _matcher(entries) for subject, entries in found.by_subject.items()}
        of_subject, of_issuer = _matcher(found.subjects), _matcher(found.issuers)

        def holds(_: Request, identity: Identity) -> bool:
            issuer, subject = identity.issuer, identity.subject
            if issuer is None or subject is None:
                return False
            matches = by_issuer.get(issuer)
            if matches is not None and matches(subject):
                return True
            matches = by_subject.get(subject)
            if matches is not None and matches(issuer):
                return True
            return (of_subject(subject) and not_empty(issuer)) or (of_issuer(issuer) and not_empty(subject))

        return holds

    def index(self, entries: Sequence[tuple[PrincipalPattern, int]]) -> Lookup:
        found = _sort(entries)
        by_issuer = {issuer: TextIndex(entries) for issuer, entries in found.by_issuer.items()}
        by_subject = {subject: TextIndex(entries) for subject, entries in found.by_subject.items()}
        of_subject, of_issuer = TextIndex(found.subjects), TextIndex(found.issuers)

        def find(identity: Identity) -> Numbers:
            issuer, subject = identity.issuer, identity.subject
            groups: list[Numbers] = []
            if issuer is None or subject is None:
                return NO_NUMBERS
            if (index := by_issuer.get(issuer)) is not None:
                index.find(subject, groups)
            if (index := by_subject.get(subject)) is not None:
                index.find(issuer, groups)
            of_subject.find(subject, groups)
            of_issuer.find(issuer, groups)
            return merge(groups)

        return _once(find)

    def breadth(self, wanted: PrincipalPattern) -> float:
        issuer, subject = pattern_breadth(wanted.issuer), pattern_breadth(wanted.subject)
        if subject != inf:
            return subject
        return inf if issuer == inf else 16 * issuer

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        if identity.issuer is None and identity.subject is None:
            return ()
        return (f"{identity.issuer or ''}/{identity.subject or ''}",)


def _has_principal(_: Request, identity: Identity) -> bool:
    issuer, subject = identity.issuer, identity.subject
    return (
        issuer is not None
        and subject is not None
        and issuer != ""
        and subject != ""
        and "\n" not in issuer
        and "\n" not in subject
    )


def _is_principal(issuer: str, subject: str) -> Predicate:
    return lambda _, identity: identity.issuer == issuer and identity.subject == subject


_Entries = list[tuple[Pattern, int]]


class _Sorted(NamedTuple):
    """Principal patterns by the part that is exact: what the other part must be. Every pattern is in one place."""

    by_issuer: dict[str, _Entries]
    by_subject: dict[str, _Entries]
    subjects: _Entries
    """What the subject must be, with any issuer."""
    issuers: _Entries
    """What the issuer must be, with any subject."""


def _sort(entries: Iterable[tuple[PrincipalPattern, int]]) -> _Sorted:
    found = _Sorted({}, {}, [], [])
    for (issuer, subject), number in entries:
        if issuer.kind is Kind.EXACT:
            found.by_issuer.setdefault(issuer.text, []).append((subject, number))
        elif subject.kind is Kind.EXACT:
            found.by_subject.setdefault(subject.text, []).append((issuer, number))
        elif issuer.kind is Kind.NOT_EMPTY:
            found.subjects.append((subject, number))
        else:
            found.issuers.append((issuer, number))
    return found


def _matcher(entries: _Entries) -> TextMatcher:
    return text_matcher(pattern for pattern, _ in entries)


def _once(find: Callable[[Identity], Numbers]) -> Lookup:
    """A look-up that is worked out once for each identity."""
    key = object()

    def lookup(_: Request, identity: Identity) -> Numbers:
        known: Numbers | None = identity.memo.get(key)
        return remember(identity, key, find(identity)) if known is None else known

    return lookup


class ClaimAttribute:
    """`request.auth.claims[a][b]`: a string, or any string in a list; members of other types are passed over.

    `request.auth.audiences` and `request.auth.presenter` are the claims `aud` and `azp`.
    """

    reads = _TOKEN
    cost = 4

    def __init__(self, path: Sequence[str]) -> None:
        """Raises ValueError for a path on which Envoy rejects its configuration."""
        if not path or not all(path):
            raise ValueError("a claim's name must not be empty")
        self._value = _claim(tuple(path))

    def parse(self, value: str, namespace: str) -> Sequence[Pattern]:
        return (parse_pattern(value),)

    def matcher(self, wanted: Sequence[Pattern]) -> Predicate:
        value_of, matches, key = self._value, text_matcher(wanted), object()

        def holds(_: Request, identity: Identity) -> bool:
            value = value_of(identity.claims)
            if isinstance(value, str):
                return matches(value)
            if not isinstance(value, list):
                return False
            if len(value) <= LONG_LIST:
                return any_string(value, matches)
            known: bool | None = identity.memo.get(key)
            if known is None:
                known = remember(identity, key, any_string(value, matches))
            return known

        return holds

    def index(self, entries: Sequence[tuple[Pattern, int]]) -> Lookup:
        value_of, index = self._value, TextIndex(entries)

        def find(identity: Identity) -> Numbers:
            groups: list[Numbers] = []
            for text in _strings(value_of(identity.claims)):
                index.find(text, groups)
            return merge(groups)

        return _once(find)

    def breadth(self, wanted: Pattern) -> float:
        return pattern_breadth(wanted)

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        value = self._value(identity.claims)
        if value is None:
            return ()
        members = value if isinstance(value, list) else [value]
        return tuple(member if isinstance(member, str) else _not_a_string(member) for member in members)


def _claim(path: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    """A function that finds a claim; None when it is absent."""
    if len(path) == 1:
        name = path[0]
        return lambda claims: claims.get(name)

    def find(claims: Mapping[str, Any]) -> Any:
        value: Any = claims
        for name in path:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return find


def _strings(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    return [member for member in value if isinstance(member, str)] if isinstance(value, list) else ()


def _not_a_string(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False)} (not a string)"
