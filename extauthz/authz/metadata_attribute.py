"""`experimental.envoy.filters.F[key]`: metadata that other filters of the proxy left, where the proxy sends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from extauthz.authz.attributes import Lookup, Predicate, Reads, pattern_breadth
from extauthz.authz.patterns import Pattern, any_string, parse_pattern, text_matcher
from extauthz.authz.text_index import Numbers, TextIndex, merge
from extauthz.identity import Identity
from extauthz.request import Request


class MetadataPattern(NamedTuple):
    """A value in `[brackets]` is looked for among the members of a list, another one is compared with a string."""

    in_list: bool
    pattern: Pattern


class MetadataAttribute:
    """One key of one filter's metadata. Values of other types than string and list never match."""

    cost = 5

    def __init__(self, filter_name: str, key: str) -> None:
        """Raises ValueError for names on which Envoy rejects its configuration."""
        if not filter_name or not key:
            raise ValueError("the names of the filter and of its metadata must not be empty")
        self._filter_name = filter_name
        self._key = key
        self.reads = Reads(metadata=frozenset([filter_name]))

    def parse(self, value: str, namespace: str) -> Sequence[MetadataPattern]:
        if value.startswith("[") and value.endswith("]"):
            return (MetadataPattern(True, parse_pattern(value.strip("[]"))),)
        return (MetadataPattern(False, parse_pattern(value)),)

    def _value(self, request: Request) -> Any:
        metadata = request.metadata.get(self._filter_name)
        return metadata.get(self._key) if metadata is not None else None

    def matcher(self, wanted: Sequence[MetadataPattern]) -> Predicate:
        of_string = text_matcher(pattern for in_list, pattern in wanted if not in_list)
        of_member = text_matcher(pattern for in_list, pattern in wanted if in_list)

        def holds(request: Request, _: Identity) -> bool:
            value = self._value(request)
            if isinstance(value, str):
                return of_string(value)
            if isinstance(value, list):
                return any_string(value, of_member)
            return False

        return holds

    def index(self, entries: Sequence[tuple[MetadataPattern, int]]) -> Lookup:
        of_string = TextIndex((wanted.pattern, number) for wanted, number in entries if not wanted.in_list)
        of_member = TextIndex((wanted.pattern, number) for wanted, number in entries if wanted.in_list)

        def find(request: Request, _: Identity) -> Numbers:
            value = self._value(request)
            groups: list[Numbers] = []
            if isinstance(value, str):
                of_string.find(value, groups)
            elif isinstance(value, list):
                for member in value:
                    if isinstance(member, str):
                        of_member.find(member, groups)
            return merge(groups)

        return find

    def breadth(self, wanted: MetadataPattern) -> float:
        return pattern_breadth(wanted.pattern)

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        value = self._value(request)
        if value is None:
            return ()
        return tuple(str(member) for member in value) if isinstance(value, list) else (str(value),)
