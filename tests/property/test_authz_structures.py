"""The look-up structures of authorization against the obvious way to do the same."""

from __future__ import annotations

import contextlib
import ipaddress
import re

from hypothesis import given
from hypothesis import strategies as st

from extauthz.authz.ip_blocks import BlockTable, parse_address, parse_block
from extauthz.authz.path_templates import TemplateTree, parse_path_template
from extauthz.authz.patterns import Kind, Pattern, parse_pattern, text_matcher
from extauthz.authz.prefix_table import PrefixTable, shortest_prefixes
from extauthz.authz.text_index import Numbers, TextIndex, merge

texts = st.text("ab/\n", max_size=6)
values = st.text("ab/*", max_size=6)


def naive(pattern: Pattern, text: str) -> bool:
    match pattern.kind:
        case Kind.EXACT:
            return text == pattern.text
        case Kind.PREFIX:
            return text.startswith(pattern.text)
        case Kind.SUFFIX:
            return text.endswith(pattern.text)
        case Kind.NOT_EMPTY:
            return re.fullmatch(".+", text) is not None
        case Kind.ANY:
            return True


@given(st.lists(texts, max_size=30), texts)
def test_a_prefix_table_finds_every_prefix_longest_first(prefixes: list[str], text: str) -> None:
    expected = sorted({prefix for prefix in prefixes if text.startswith(prefix)}, key=len, reverse=True)
    assert PrefixTable({prefix: prefix for prefix in prefixes}).find_all(text) == expected
    assert any(map(text.startswith, shortest_prefixes(prefixes))) is bool(expected)


@given(st.lists(values, max_size=30), texts)
def test_many_patterns_match_what_one_of_them_matches(wanted: list[str], text: str) -> None:
    patterns = [parse_pattern(value) for value in wanted]
    assert text_matcher(patterns)(text) is any(naive(pattern, text) for pattern in patterns)


@given(st.lists(st.tuples(values, st.sampled_from([Kind.ANY, Kind.NOT_EMPTY])), max_size=30), texts)
def test_a_text_index_finds_the_numbers_of_all_patterns_that_match(wanted: list[tuple[str, Kind]], text: str) -> None:
    patterns = [parse_pattern(value, star=star) for value, star in wanted]
    groups: list[Numbers] = []
    TextIndex((pattern, number) for number, pattern in enumerate(patterns)).find(text, groups)
    assert list(merge(groups)) == [number for number, pattern in enumerate(patterns) if naive(pattern, text)]


segments = st.sampled_from(["a", "b", "a.b", "{*}"])


@st.composite
def templates(draw: st.DrawFn) -> str:
    parts = draw(st.lists(segments, max_size=4))
    if draw(st.booleans()):
        parts += ["{**}", *draw(st.lists(st.sampled_from(["a", "b"]), max_size=2))]
    if not parts or draw(st.booleans()):
        parts.append("")
    return "/" + "/".join(parts)


@given(
    st.lists(templates(), max_size=12),
    st.lists(st.sampled_from(["a", "b", "a.b", "axb", "", "[", "a]", "c=d"]), max_size=6).map(
        lambda p: "/" + "/".join(p)
    ),
)
def test_a_template_tree_finds_what_the_templates_regular_expressions_match(wanted: list[str], path: str) -> None:
    def expression(template: str) -> str:
        variables = {"{*}": r"[^/\[\]]+", "{**}": r"[^\[\]]*"}
        return "".join(variables.get(part, re.escape(part)) for part in re.split(r"(\{\*\*?\})", template))

    tree = TemplateTree((parse_path_template(template), number) for number, template in enumerate(wanted))
    expected = [number for number, template in enumerate(wanted) if re.fullmatch(expression(template), path)]
    assert sorted(tree.find_all(path)) == expected
    assert tree.matches(path) is bool(expected)


addresses = st.ip_addresses() | st.integers(0, 2**16).map(lambda low: ipaddress.ip_address(0x0A000000 + low))


@st.composite
def blocks(draw: st.DrawFn) -> str:
    address = draw(addresses)
    return f"{address}/{draw(st.integers(0, address.max_prefixlen))}" if draw(st.booleans()) else str(address)


@given(st.lists(blocks(), max_size=20), addresses)
def test_a_block_table_finds_the_blocks_that_hold_an_address(
    wanted: list[str], address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    packed = parse_address(str(address))
    assert packed == address.packed
    table = BlockTable((parse_block(block), number) for number, block in enumerate(wanted))
    expected = [number for number, block in enumerate(wanted) if address in ipaddress.ip_network(block, strict=False)]
    assert sorted(table.find_all(packed)) == expected
    assert table.matches(packed) is bool(expected)


@given(st.text(max_size=20) | st.text("0123456789abcdef:.%/", max_size=40))
def test_parsing_an_address_or_block_never_fails_otherwise_than_announced(text: str) -> None:
    packed = parse_address(text)
    assert packed is None or len(packed) in (4, 16)
    if packed is not None and "%" not in text:
        assert parse_block(text).host_bits == 0
        return
    with contextlib.suppress(ValueError):
        assert parse_block(text).version in (4, 16)
