"""The table that finds the prefixes of a text."""

from __future__ import annotations

from extauthz.authz.prefix_table import PrefixTable, shortest_prefixes


def test_every_stored_prefix_of_a_text_is_found_longest_first() -> None:
    table = PrefixTable({prefix: prefix for prefix in ["/", "/a", "/a/b", "/a/c", "/b", "x"]})
    assert table.find_all("/a/b/c") == ["/a/b", "/a", "/"]
    assert table.find_all("/a/bb") == ["/a/b", "/a", "/"]
    assert table.find_all("/c") == ["/"]
    assert table.find_all("") == []
    assert table.find_all("y") == []


def test_the_empty_prefix_is_a_prefix_of_every_text() -> None:
    assert PrefixTable({"": 1, "a": 2}).find_all("b") == [1]


def test_prefixes_that_nest_deeply_are_found_from_below_in_few_steps() -> None:
    class Counting(str):
        asked = 0

        def startswith(self, *arguments: object) -> bool:
            Counting.asked += 1
            return super().startswith(*arguments)  # type: ignore[arg-type]

    depth = 10_000
    table = PrefixTable({"a" * length: length for length in range(1, depth + 1)})
    assert table.longest(Counting("aab")) == 1
    assert Counting.asked < 100
    assert table.find_all("a" * 5 + "b") == [5, 4, 3, 2, 1]


def test_a_prefix_behind_a_shorter_one_is_left_out() -> None:
    assert shortest_prefixes(["/a/b", "/a", "/ab", "/b", "/a"]) == ["/a", "/b"]
