"""Many prefixes in a sorted array: which of them does a text start with?

For suffixes, store and ask reversed texts. A look-up costs one bisection and one comparison per prefix found, whatever
the number of prefixes and however they nest.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

Payload = TypeVar("Payload")

NONE = -1


def shortest_prefixes(prefixes: Iterable[str]) -> list[str]:
    """The prefixes without those that start with another one: they match the same texts."""
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


class PrefixTable(Generic[Payload]):
    """Prefixes with what belongs to each.

    `_parents[i]` is the longest stored proper prefix of prefix i. The greatest stored prefix that is not greater than a
    text starts with every stored prefix of that text, so these are among its ancestors. `_jumps[i]` is an ancestor
    further up, chosen so that any ancestor is reached in a logarithmic number of steps (Myers' jump pointers): without
    it, prefixes that nest thousands deep would be tried one by one.
    """

    __slots__ = ("_jumps", "_parents", "_payloads", "_prefixes")

    def __init__(self, entries: Mapping[str, Payload]) -> None:
        self._prefixes = sorted(entries)
        self._payloads = [entries[prefix] for prefix in self._prefixes]
        self._parents = array("i")
        self._jumps = array("i")
        self._link()

    def _link(self) -> None:
        parents, jumps = self._parents, self._jumps
        depths: list[int] = []
        open_prefixes: list[int] = []
        for number, prefix in enumerate(self._prefixes):
            while open_prefixes and not prefix.startswith(self._prefixes[open_prefixes[-1]]):
                open_prefixes.pop()
            parent = open_prefixes[-1] if open_prefixes else NONE
            depths.append(len(open_prefixes))
            open_prefixes.append(number)
            jump = parent
            if parent != NONE and jumps[parent] != NONE:
                over = jumps[parent]
                if jumps[over] != NONE and depths[parent] - depths[over] == depths[over] - depths[jumps[over]]:
                    jump = jumps[over]
            parents.append(parent)
            jumps.append(jump)

    def longest(self, text: str) -> int:
        """The number of the longest prefix that the text starts with, or NONE."""
        prefixes = self._prefixes
        number = bisect_right(prefixes, text) - 1
        while number >= 0 and not text.startswith(prefixes[number]):
            jump = self._jumps[number]
            # The ancestors of a prefix of the text are prefixes of it, so a jump that lands on one may go too far.
            if jump != NONE and not text.startswith(prefixes[jump]):
                number = jump
            else:
                number = self._parents[number]
        return number

    def find_all(self, text: str) -> list[Payload]:
        """What belongs to every prefix of the text, longest first."""
        found = []
        number = self.longest(text)
        while number >= 0:
            found.append(self._payloads[number])
            number = self._parents[number]
        return found
