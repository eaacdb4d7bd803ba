"""How values are written: exact, prefix, suffix, presence."""

from __future__ import annotations

import pytest

from extauthz.authz.patterns import Kind, Pattern, parse_pattern, text_matcher


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("*", Pattern(Kind.NOT_EMPTY)),
        ("*abc", Pattern(Kind.SUFFIX, "abc")),
        ("abc*", Pattern(Kind.PREFIX, "abc")),
        ("abc", Pattern(Kind.EXACT, "abc")),
        ("a*c", Pattern(Kind.EXACT, "a*c")),
        ("*a*", Pattern(Kind.SUFFIX, "a*")),
        ("**", Pattern(Kind.SUFFIX, "*")),
        ("", Pattern(Kind.EXACT, "")),
    ],
)
def test_a_star_counts_at_the_start_then_at_the_end_and_is_literal_elsewhere(value: str, pattern: Pattern) -> None:
    assert parse_pattern(value) == pattern


@pytest.mark.parametrize(
    ("values", "text", "matches"),
    [
        (["*"], "x", True),
        (["*"], "", False),
        (["*"], "a\nb", False),
        (["a*"], "a\nb", True),
        (["*b"], "a\nb", True),
        (["ab"], "AB", False),
        (["ab", "cd"], "cd", True),
        (["ab", "c*", "*d"], "xd", True),
        (["ab", "c*", "*d"], "cx", True),
        (["ab", "c*", "*d"], "ac", False),
        ([], "x", False),
    ],
)
def test_a_text_matches_when_any_value_does(values: list[str], text: str, matches: bool) -> None:
    assert text_matcher(map(parse_pattern, values))(text) is matches


def test_any_is_also_an_empty_text() -> None:
    assert text_matcher([parse_pattern("*", star=Kind.ANY)])("") is True


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
def test_many_prefixes_and_suffixes_match_as_few_do(count: int) -> None:
    prefixes = text_matcher(Pattern(Kind.PREFIX, f"/p{number:03}/") for number in range(count))
    suffixes = text_matcher(Pattern(Kind.SUFFIX, f".s{number:03}") for number in range(count))
    last = count - 1
    assert prefixes(f"/p{last:03}/x")
    assert not prefixes(f"/p{count:03}/x")
    assert not prefixes(f"/p{last:03}")
    assert suffixes(f"x.s{last:03}")
    assert not suffixes(f"x.s{count:03}")
