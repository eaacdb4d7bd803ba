"""Attributes of the peer's certificate: principals, namespaces, service accounts, trust domains.

Each compares with every URI SAN, every DNS SAN and the subject; any of them may match. Without a client certificate
there is nothing to compare and nothing matches. Istio generates regular expressions for most of these; here their
meaning is spelt out, line feeds included (`.` does not match one). A value with a line feed is refused: no name in
use has one, and its expression would have to be run as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple

from extauthz.authz.attributes import Lookup, Predicate, Reads, pattern_breadth
from extauthz.authz.patterns import Kind, Pattern, TextMatcher, any_of, parse_pattern, text_matcher
from extauthz.authz.text_index import Numbers, TextIndex, group, merge
from extauthz.authz.trust_domains import TrustDomains
from extauthz.identity import Identity
from extauthz.request import Request, wire_text

SCHEME = "spiffe://"

_PEER = Reads(peer=True)
_COST = 5


def _any_principal(matches: TextMatcher) -> Predicate:
    """A predicate: does any of the peer's principals match?"""

    def holds(request: Request, _: Identity) -> bool:
        for principal in request.peer_principals:  # noqa: SIM110 - see `patterns.any_of`
            if matches(principal):
                return True
        return False

    return holds


def _every_principal(find: Callable[[str, list[Numbers]], None]) -> Lookup:
    """A look-up by each of the peer's principals."""

    def find_all(request: Request, _: Identity) -> Numbers:
        groups: list[Numbers] = []
        for principal in request.peer_principals:
            find(principal, groups)
        return merge(groups)

    return find_all


class _PeerAttribute:
    reads = _PEER
    cost = _COST

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        return tuple(request.peer_principals)


def _text(value: str) -> str:
    if "\n" in value:
        raise ValueError("a line feed cannot be part of this value")
    return wire_text(value)


class PrincipalAttribute(_PeerAttribute):
    """`principals`, `source.principal`: `spiffe://` and the value; `*` is any principal that is not empty.

    A SUFFIX pattern here is `spiffe://.*suffix`.
    """

    def __init__(self, trust_domains: TrustDomains) -> None:
        self._trust_domains = trust_domains

    def parse(self, value: str, namespace: str) -> Sequence[Pattern]:
        return tuple(self._parse(principal) for principal in self._trust_domains.principals(_text(value)))

    @staticmethod
    def _parse(principal: str) -> Pattern:
        pattern = parse_pattern(principal)
        if pattern.kind in (Kind.EXACT, Kind.PREFIX):
            return Pattern(pattern.kind, SCHEME + pattern.text)
        return pattern

    def matcher(self, wanted: Sequence[Pattern]) -> Predicate:
        parts = [text_matcher(pattern for pattern in wanted if pattern.kind is not Kind.SUFFIX)]
        suffixes = [pattern for pattern in wanted if pattern.kind is Kind.SUFFIX]
        if suffixes:
            ends = text_matcher(suffixes)
            start = len(SCHEME)
            parts.append(lambda text: text.startswith(SCHEME) and "\n" not in text and ends(text[start:]))
        return _any_principal(any_of(parts))

    def index(self, entries: Sequence[tuple[Pattern, int]]) -> Lookup:
        return _every_principal(TextIndex(entries).find)

    def breadth(self, wanted: Pattern) -> float:
        return pattern_breadth(wanted)


class NamespaceAttribute(_PeerAttribute):
    """`namespaces`, `source.namespace`: the regular expression `.*/ns/NAMESPACE/.*`, a `*` in it as `.*`."""

    def parse(self, value: str, namespace: str) -> Sequence[str]:
        return (_text(value),)

    def matcher(self, wanted: Sequence[str]) -> Predicate:
        exact = [f"/ns/{namespace}/" for namespace in wanted if "*" not in namespace]
        globs = [f"/ns/{namespace}/".split("*") for namespace in wanted if "*" in namespace]

        def matches(principal: str) -> bool:
            if "\n" in principal:
                return False
            return any(part in principal for part in exact) or any(_in_order(parts, principal) for parts in globs)

        segments = frozenset(namespace for namespace in wanted if "*" not in namespace and "/" not in namespace)
        if len(segments) != len(wanted):
            return _any_principal(matches)
        return _any_principal(lambda principal: not segments.isdisjoint(_namespaces(principal)))

    def index(self, entries: Sequence[tuple[str, int]]) -> Lookup:
        by_segment = group((name, number) for name, number in entries if "*" not in name and "/" not in name)
        others = merge([(number,) for name, number in entries if "*" in name or "/" in name])

        def find(principal: str, groups: list[Numbers]) -> None:
            for namespace in _namespaces(principal):
                if (numbers := by_segment.get(namespace)) is not None:
                    groups.append(numbers)
            if others:
                groups.append(others)

        return _every_principal(find)

    def breadth(self, wanted: str) -> float:
        return inf if "*" in wanted or "/" in wanted else 4


def _in_order(parts: Sequence[str], text: str) -> bool:
    """Whether the parts are found one after the other: `.*part.*part.*`."""
    position = 0
    for part in parts:
        position = text.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


def _namespaces(principal: str) -> Iterator[str]:
    """What stands in NAMESPACE wherever the principal is read as `.*/ns/NAMESPACE/.*`."""
    if "\n" in principal:
        return
    segments = principal.split("/")
    for index in range(1, len(segments) - 2):
        if segments[index] == "ns":
            yield segments[index + 1]


class ServiceAccount(NamedTuple):
    """A service account and its namespace."""

    namespace: str
    name: str


class ServiceAccountAttribute(_PeerAttribute):
    """`serviceAccounts`, `source.serviceAccount`: `NAMESPACE/NAME`, or `NAME` in the policy's namespace.

    The regular expression `spiffe://.+/ns/NAMESPACE/(.+/|)sa/NAME(/.+)?`.
    """

    def parse(self, value: str, namespace: str) -> Sequence[ServiceAccount]:
        first, slash, name = _text(value).partition("/")
        account = ServiceAccount(first, name) if slash else ServiceAccount(wire_text(namespace), first)
        if "/" in account.name or not all(account):
            raise ValueError(f"{value!r} is no service account: write NAME or NAMESPACE/NAME")
        return (account,)

    def matcher(self, wanted: Sequence[ServiceAccount]) -> Predicate:
        names = _by_namespace((account, 0) for account in wanted)
        return _any_principal(lambda principal: next(_service_accounts(principal, names), None) is not None)

    def index(self, entries: Sequence[tuple[ServiceAccount, int]]) -> Lookup:
        names = _by_namespace(entries)

        def find(principal: str, groups: list[Numbers]) -> None:
            groups.extend(_service_accounts(principal, names))

        return _every_principal(find)

    def breadth(self, wanted: ServiceAccount) -> float:
        return 1


_Names = dict[str, dict[str, tuple[int, ...]]]


def _by_namespace(entries: Iterable[tuple[ServiceAccount, int]]) -> _Names:
    names: dict[str, list[tuple[str, int]]] = {}
    for account, number in entries:
        names.setdefault(account.namespace, []).append((account.name, number))
    return {namespace: group(accounts) for namespace, accounts in names.items()}


def _service_accounts(principal: str, names: _Names) -> Iterator[tuple[int, ...]]:
    """The numbers of each service account of `names` that the principal is."""
    if not principal.startswith(SCHEME) or "\n" in principal:
        return
    segments = principal[len(SCHEME) :].split("/")
    last = len(segments) - 1
    done: set[str] = set()
    for at in range(1, last - 2):
        # At least one character must precede `/ns/`.
        if segments[at] != "ns" or (at == 1 and not segments[0]):
            continue
        # The first `/ns/NAMESPACE/` leaves the most text to find `sa/NAME` in; a later one adds nothing.
        accounts = names.get(segments[at + 1])
        if accounts is None or segments[at + 1] in done:
            continue
        done.add(segments[at + 1])
        for sa in range(at + 2, last):
            # `(.+/|)`: directly behind, or with at least one character and a slash between.
            if segments[sa] != "sa" or (sa == at + 3 and not segments[at + 2]):
                continue
            # `(/.+)?`: the end, or a slash and at least one character.
            if sa + 2 == last and not segments[last]:
                continue
            if (numbers := accounts.get(segments[sa + 1])) is not None:
                yield numbers


class DomainPattern(NamedTuple):
    """A trust domain. Without a `*` beside other text, `pattern` is the start of a principal, else of the domain."""

    has_star: bool
    pattern: Pattern


class TrustDomainAttribute(_PeerAttribute):
    """`trustDomains`, `source.trustDomain`: what follows `spiffe://` up to a slash; a `*` does not cross slashes."""

    def __init__(self, trust_domains: TrustDomains) -> None:
        self._trust_domains = trust_domains

    def parse(self, value: str, namespace: str) -> Sequence[DomainPattern]:
        text = _text(value)
        if text.count("*") > 1 or "*" in text[1:-1]:
            raise ValueError("a trust domain may have one `*`, at its start or end")
        return tuple(self._parse(domain) for domain in self._trust_domains.trust_domains(text))

    @staticmethod
    def _parse(domain: str) -> DomainPattern:
        if domain == "*":
            return DomainPattern(False, Pattern(Kind.PREFIX, SCHEME))
        pattern = parse_pattern(domain)
        if pattern.kind is Kind.EXACT:
            return DomainPattern(False, Pattern(Kind.PREFIX, f"{SCHEME}{domain}/"))
        return DomainPattern(True, pattern)

    def matcher(self, wanted: Sequence[DomainPattern]) -> Predicate:
        parts = [text_matcher(domain.pattern for domain in wanted if not domain.has_star)]
        parts += [_domain_matcher(domain.pattern) for domain in wanted if domain.has_star]
        return _any_principal(any_of(parts))

    def index(self, entries: Sequence[tuple[DomainPattern, int]]) -> Lookup:
        whole = TextIndex((domain.pattern, number) for domain, number in entries if not domain.has_star)
        others = merge([(number,) for domain, number in entries if domain.has_star])

        def find(principal: str, groups: list[Numbers]) -> None:
            whole.find(principal, groups)
            if others:
                groups.append(others)

        return _every_principal(find)

    def breadth(self, wanted: DomainPattern) -> float:
        return inf if wanted.has_star else 16


def _domain_matcher(pattern: Pattern) -> TextMatcher:
    """`spiffe://HEAD[^/]*/.*` or `spiffe://[^/]*TAIL/.*`. A value of `source.trustDomain` may hold slashes itself."""
    if pattern.kind is Kind.PREFIX:
        start, before, after = SCHEME + pattern.text, "", "/"
    else:
        before, slash, more = pattern.text.partition("/")
        start, after = SCHEME, f"{slash}{more}/" if slash else "/"

    def matches(principal: str) -> bool:
        if not principal.startswith(start):
            return False
        end = principal.find("/", len(start))
        return (
            end >= 0
            and principal[len(start) : end].endswith(before)
            and principal.startswith(after, end)
            and "\n" not in principal[end + len(after) :]
        )

    return matches
