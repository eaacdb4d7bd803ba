"""One value of a policy as a pattern, and many patterns as one matcher of texts.

The grammar of `*` stands here and nowhere else (Istio: `pilot/pkg/security/authz/matcher/string.go`). Patterns become
sets, tuples and sorted tables, never regular expressions, so that no value of a policy can make matching slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from extauthz.authz.prefix_table import PrefixTable, shortest_prefixes

TextMatcher = Callable[[str], bool]

FEW = 8
"""Up to so many prefixes `str.startswith` with a tuple is faster than a sorted table."""


class Kind(StrEnum):
    """How a pattern's text is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    NOT_EMPTY = "not empty"
    """The regular expression `.+`: not empty and without a line feed. Prefix and suffix cross line feeds."""
    ANY = "any"
    """Present, even if empty."""


class Pattern(NamedTuple):
    """One value of a policy; `text` is empty for NOT_EMPTY and ANY."""

    kind: Kind
    text: str = ""


def parse_pattern(value: str, *, star: Kind = Kind.NOT_EMPTY) -> Pattern:
    """`*`, `*suffix`, `prefix*` or an exact value; a `*` elsewhere is literal. `star` says what `*` alone means."""
    if value == "*":
        return Pattern(star)
    if value.startswith("*"):
        return Pattern(Kind.SUFFIX, value[1:])
    if value.endswith("*"):
        return Pattern(Kind.PREFIX, value[:-1])
    return Pattern(Kind.EXACT, value)


def not_empty(text: str) -> bool:
    """What `.+` matches."""
    return text != "" and "\n" not in text


def text_matcher(patterns: Iterable[Pattern]) -> TextMatcher:
    """A function that says whether a text matches any of the patterns."""
    texts: dict[Kind, list[str]] = {}
    for kind, text in patterns:
        texts.setdefault(kind, []).append(text)
    if Kind.ANY in texts:
        return _always
    return any_of([_MATCHERS[kind](of_kind) for kind, of_kind in texts.items()])


def any_of(matchers: Sequence[TextMatcher]) -> TextMatcher:
    """A function that says whether any of the matchers matches."""
    if not matchers:
        return _never
    if len(matchers) == 1:
        return matchers[0]
    if len(matchers) == 2:
        first, second = matchers
        return lambda text: first(text) or second(text)
    tried = tuple(matchers)

    def matches(text: str) -> bool:
        for matcher in tried:  # noqa: SIM110 - `any` with a generator takes twice the time
            if matcher(text):
                return True
        return False

    return matches


def any_string(values: Iterable[object], matches: TextMatcher) -> bool:
    """Whether any of the values is a string that matches."""
    for value in values:  # noqa: SIM110 - see `any_of`
        if isinstance(value, str) and matches(value):
            return True
    return False


def _exact(texts: Sequence[str]) -> TextMatcher:
    # Both are built-in methods: no Python frame is needed to compare.
    return texts[0].__eq__ if len(texts) == 1 else frozenset(texts).__contains__


def _prefix(texts: Sequence[str]) -> TextMatcher:
    prefixes = shortest_prefixes(texts)
    if len(prefixes) == 1:
        only = prefixes[0]
        return lambda text: text.startswith(only)
    if len(prefixes) <= FEW:
        few = tuple(prefixes)
        return lambda text: text.startswith(few)
    table = PrefixTable(dict.fromkeys(prefixes))
    return lambda text: table.longest(text) >= 0


def _suffix(texts: Sequence[str]) -> TextMatcher:
    prefixes = shortest_prefixes(text[::-1] for text in texts)
    if len(prefixes) <= FEW:
        few = tuple(text[::-1] for text in prefixes)
        return lambda text: text.endswith(few)
    table = PrefixTable(dict.fromkeys(prefixes))
    return lambda text: table.longest(text[::-1]) >= 0


def _not_empty(_: Sequence[str]) -> TextMatcher:
    return not_empty


_MATCHERS = {Kind.EXACT: _exact, Kind.PREFIX: _prefix, Kind.SUFFIX: _suffix, Kind.NOT_EMPTY: _not_empty}


def _always(_: str) -> bool:
    return True


def _never(_: str) -> bool:
    return False
