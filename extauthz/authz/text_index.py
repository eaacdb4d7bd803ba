"""Numbers of rules by the texts they want: which rules can match, found without looking at the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from extauthz.authz.patterns import Kind, Pattern, not_empty
from extauthz.authz.prefix_table import PrefixTable

Numbers = Sequence[int]
"""Rule numbers, ascending, each once."""

NO_NUMBERS: Numbers = ()


def merge(groups: Sequence[Numbers]) -> Numbers:
    """All numbers of the groups."""
    if len(groups) == 1:
        return groups[0]
    return sorted(set().union(*groups)) if groups else NO_NUMBERS


def group(entries: Iterable[tuple[str, int]]) -> dict[str, tuple[int, ...]]:
    """Numbers by text."""
    lists: dict[str, list[int]] = {}
    for text, number in entries:
        lists.setdefault(text, []).append(number)
    return {text: tuple(sorted(set(numbers))) for text, numbers in lists.items()}


class TextIndex:
    """Patterns with the number of the rule that wants each."""

    __slots__ = ("_any", "_exact", "_not_empty", "_prefixes", "_suffixes")

    def __init__(self, entries: Iterable[tuple[Pattern, int]]) -> None:
        by_kind: dict[Kind, list[tuple[str, int]]] = {kind: [] for kind in Kind}
        for (kind, text), number in entries:
            by_kind[kind].append((text, number))
        self._exact = group(by_kind[Kind.EXACT])
        self._prefixes = _table(group(by_kind[Kind.PREFIX]))
        self._suffixes = _table(group((text[::-1], number) for text, number in by_kind[Kind.SUFFIX]))
        self._not_empty = group(by_kind[Kind.NOT_EMPTY]).get("")
        self._any = group(by_kind[Kind.ANY]).get("")

    @property
    def only_exact(self) -> Callable[[str], Numbers | None] | None:
        """The look-up of an index that holds nothing but exact texts, else None."""
        if self._prefixes or self._suffixes or self._not_empty or self._any:
            return None
        return self._exact.get

    def find(self, text: str, groups: list[Numbers]) -> None:
        """Add the numbers of every rule that wants the text to `groups`."""
        exact = self._exact.get(text)
        if exact is not None:
            groups.append(exact)
        if self._prefixes is not None:
            groups += self._prefixes.find_all(text)
        if self._suffixes is not None:
            groups += self._suffixes.find_all(text[::-1])
        if self._not_empty is not None and not_empty(text):
            groups.append(self._not_empty)
        if self._any is not None:
            groups.append(self._any)


def _table(grouped: Mapping[str, tuple[int, ...]]) -> PrefixTable[tuple[int, ...]] | None:
    return PrefixTable(grouped) if grouped else None
