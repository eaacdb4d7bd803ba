"""Reading the fields of a YAML mapping: each is asked for by name and type, and what nobody asked for is unknown.

Problems are collected, not raised: one reading finds everything that is wrong. What a field means is `crd`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from extauthz.errors import Problem
from extauthz.istio.resources import FieldPath, field_text
from extauthz.istio.yaml_reader import Node
from extauthz.istio.yaml_scalars import Plain

_NO_MAPPING = "must be a mapping (lines of `name: value`), found {}"

NO_PLACES: Mapping[str, str] = MappingProxyType({})

MAX_NAME = 80
"""Names are compared with no more than this of what was written."""

MAX_HINTS = 200
"""After so many problems no more names are compared: it takes its time."""

MAX_LISTED = 12
"""Known names are listed when there are no more than this."""

MAX_QUOTED = 40
"""Longer text is not repeated in a problem."""


def kind_of(value: Any) -> str:
    """What a value is, in plain words."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= MAX_QUOTED else "a text"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return str(value)


def _example(value: Any) -> str:
    return value.text if isinstance(value, Plain) else repr(value) if len(value) <= MAX_QUOTED else "..."


def close_to(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant: the same but for case and underscores, else a similar one; or empty."""
    # An old spelling that is still read (jwks_uri) is not what to write.
    names = sorted(dict.fromkeys(known), key=lambda candidate: "_" in candidate)
    bare = name.replace("_", "").lower()
    for candidate in names:
        if candidate.replace("_", "").lower() == bare:
            return candidate
    from difflib import get_close_matches  # costs start-up time, and is wanted for mistakes only

    return next(iter(get_close_matches(name[:MAX_NAME], names, n=1)), "")


class Fields:
    """One mapping. A field that is absent or null gives the empty value of its type; so does one of a wrong type,
    which is reported."""

    def __init__(self, file: str, problems: list[Problem], node: Node, path: FieldPath = ()) -> None:
        self.file = file
        self.problems = problems
        self.path = path
        value, self.line = node
        self.members: dict[str, Node] = {}
        self.known: list[str] = []
        if isinstance(value, dict):
            self.members = value
        elif value is not None:
            self.report((), self.line, _NO_MAPPING.format(kind_of(value)), "wrong-type")

    def report(self, path: FieldPath, line: int, reason: str, code: str) -> None:
        """Note a problem with the field at `path` below this mapping."""
        self.problems.append(Problem(self.file, line, field_text((*self.path, *path)), reason, code=code))

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.take(name)[0] is not None

    def take(self, name: str) -> Node:
        """The node of a field, whatever it is; (None, line of the mapping) when absent."""
        self.known.append(name)
        return self.members.get(name, (None, self.line))

    def ignore(self, *names: str) -> None:
        """These fields are known and of no consequence here."""
        self.known.extend(names)

    def text(self, name: str) -> str:
        """A string."""
        value, line = self.take(name)
        return self._text(value, line, (name,))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return self._texts(name, *self.take(name))

    def text_lists(self, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """Those of several lists of strings that are there, under other names: `names` gives them."""
        self.known.extend(names)
        return {names[name]: self._texts(name, *node) for name, node in self.members.items() if name in names}

    def flag(self, name: str) -> bool | None:
        """A boolean, None when absent."""
        value, line = self.take(name)
        if value is None:
            return None
        if isinstance(value, Plain) and isinstance(value.value, bool):
            return value.value
        self.report((name,), line, f"must be true or false, found {kind_of(value)}", "wrong-type")
        return None

    def integer(self, name: str) -> int:
        """A whole number, 0 when absent."""
        value, line = self.take(name)
        return self._integer(value, line, (name,))

    def text_map(self, name: str) -> dict[str, str]:
        """A mapping of strings."""
        value, line = self.take(name)
        members = self._map(value, line, name)
        return {key: self._text(item, at, (name, key)) for key, (item, at) in members.items()}

    def integer_map(self, name: str) -> dict[str, int]:
        """A mapping of strings to whole numbers."""
        value, line = self.take(name)
        members = self._map(value, line, name)
        return {key: self._integer(item, at, (name, key)) for key, (item, at) in members.items()}

    def mapping(self, name: str) -> Fields:
        """A mapping with fields of its own; an empty one when absent."""
        return Fields(self.file, self.problems, self.take(name), (*self.path, name))

    def mappings(self, name: str) -> Iterator[Fields]:
        """A list of mappings. A null entry is reported: it means nothing, and Istio refuses it."""
        value, line = self.take(name)
        for index, node in self._list(value, line, name):
            if node[0] is None:
                self.report((name, index), node[1], "must not be empty; remove the entry", "empty-entry")
            else:
                yield Fields(self.file, self.problems, node, (*self.path, name, index))

    def done(self, places: Mapping[str, str] = NO_PLACES) -> None:
        """Report every field that was not asked for, with the name that was probably meant, or the place where a field
        of this name belongs."""
        for name, (_, line) in self.members.items():
            if name not in self.known:
                self.report((name,), line, f"unknown field{self._hint(name, places)}", "unknown-field")

    def _hint(self, name: str, places: Mapping[str, str]) -> str:
        if name in places:
            return f"; it belongs into {places[name]}"
        if len(self.problems) > MAX_HINTS:
            return ""
        if close := close_to(name, self.known):
            return f"; did you mean {close}?"
        if place := close_to(name, places):
            return f"; did you mean {place}, in {places[place]}?"
        names = list(dict.fromkeys(self.known))
        return f"; known are {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""

    def _texts(self, name: str, value: Any, line: int) -> tuple[str, ...]:
        return tuple(
            [
                item if type(item) is str else self._text(item, item_line, (name, index))
                for index, (item, item_line) in self._list(value, line, name)
            ]
        )

    def _text(self, value: Any, line: int, path: FieldPath) -> str:
        if isinstance(value, str):
            return value
        if value is None:
            if isinstance(path[-1], int):
                self.report(path, line, "must not be empty; remove the entry", "empty-entry")
            return ""
        quoted = f'; write "{value.text}" in quotes' if isinstance(value, Plain) else ""
        self.report(path, line, f"must be text, found {kind_of(value)}{quoted}", "wrong-type")
        return ""

    def _integer(self, value: Any, line: int, path: FieldPath) -> int:
        if value is None:
            return 0
        if isinstance(value, Plain) and isinstance(value.value, int) and not isinstance(value.value, bool):
            return value.value
        self.report(path, line, f"must be a whole number, found {kind_of(value)}", "wrong-type")
        return 0

    def _list(self, value: Any, line: int, name: str) -> Iterator[tuple[int, Node]]:
        if isinstance(value, list):
            return enumerate(value)
        if value is not None:
            instead = "begin each entry with `- `" if isinstance(value, dict) else f"write [{_example(value)}]"
            self.report((name,), line, f"must be a list, found {kind_of(value)}; {instead}", "wrong-type")
        return iter(())

    def _map(self, value: Any, line: int, name: str) -> dict[str, Node]:
        if isinstance(value, dict):
            return value
        if value is not None:
            self.report((name,), line, _NO_MAPPING.format(kind_of(value)), "wrong-type")
        return {}
