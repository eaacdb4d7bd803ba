"""Path templates (`/users/{*}/files/{**}`): grammar, and a tree of segments that finds the templates of a path.

Envoy's `uri_template` matcher, with Istio's spelling of the variables. Nothing is compiled to a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from extauthz.authz.prefix_table import PrefixTable

Payload = TypeVar("Payload")

ONE_SEGMENT = "{*}"
"""One segment, not empty. Its characters are any but `/`, `[` and `]`."""

REST = "{**}"
"""Any text, also empty or with slashes, but without `[` and `]`. The last variable; literal segments may follow."""

_LITERAL = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")


class PathTemplate(NamedTuple):
    """A template cut at its slashes. `tail` is what must follow the `{**}`; None without one."""

    head: tuple[str, ...]
    tail: tuple[str, ...] | None


def is_path_template(value: str) -> bool:
    """Whether a value of `paths` is matched as a template."""
    return ONE_SEGMENT in value or REST in value


def parse_path_template(value: str) -> PathTemplate:
    """Raises ValueError for what istiod refuses and for the forms on which Envoy fails when it loads them."""
    if not value.startswith("/"):
        raise ValueError("a path template must start with `/`")
    segments = value[1:].split("/")
    rest = len(segments)
    for index, segment in enumerate(segments):
        if segment in (ONE_SEGMENT, REST):
            if rest < index:
                raise ValueError("`{**}` must be the last variable of a path template")
            if segment == REST:
                rest = index
        elif segment == "":
            if index != len(segments) - 1:
                raise ValueError("a path template must not have empty segments (`//`)")
        elif "{" in segment or "}" in segment:
            raise ValueError("`{*}` and `{**}` must stand alone between slashes, and no other braces are possible")
        elif not _LITERAL.fullmatch(segment):
            raise ValueError(f"a path template cannot have the segment {segment!r}: only letters, digits and "
                             "-._~%!$&'()+,;:@= can stand beside variables")  # fmt: skip
    if rest == len(segments):
        return PathTemplate(tuple(segments), None)
    return PathTemplate(tuple(segments[:rest]), tuple(segments[rest + 1 :]))


class _Node(Generic[Payload]):
    """What may follow one segment. `ends` and `rests`: what belongs to templates that end here, or with `{**}` here."""

    __slots__ = ("any_segment", "ends", "literals", "rests", "tails")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[Payload]] = {}
        self.any_segment: _Node[Payload] | None = None
        self.ends: list[Payload] = []
        self.rests: list[Payload] = []
        self.tails: PrefixTable[list[Payload]] | None = None
        """Templates with a `{**}` here and literal segments after it, by their reversed tail, slash included."""


class TemplateTree(Generic[Payload]):
    """Templates with what belongs to each. A look-up walks the path's segments once, along every branch that fits."""

    __slots__ = ("_root",)

    def __init__(self, entries: Iterable[tuple[PathTemplate, Payload]]) -> None:
        self._root: _Node[Payload] = _Node()
        tails: dict[int, tuple[_Node[Payload], dict[str, list[Payload]]]] = {}
        for template, payload in entries:
            node = self._reach(template.head)
            if template.tail is None:
                node.ends.append(payload)
            elif not template.tail:
                node.rests.append(payload)
            else:
                _, by_text = tails.setdefault(id(node), (node, {}))
                by_text.setdefault(("/" + "/".join(template.tail))[::-1], []).append(payload)
        for node, by_text in tails.values():
            node.tails = PrefixTable(by_text)

    def _reach(self, segments: Iterable[str]) -> _Node[Payload]:
        node = self._root
        for segment in segments:
            if segment == ONE_SEGMENT:
                if node.any_segment is None:
                    node.any_segment = _Node()
                node = node.any_segment
            else:
                node = node.literals.setdefault(segment, _Node())
        return node

    def find_all(self, path: str) -> list[Payload]:
        """What belongs to every template that matches the path (without query)."""
        if not path.startswith("/") or "[" in path or "]" in path:
            return []
        found: list[Payload] = []
        nodes = [self._root]
        start = 1
        for segment in path[1:].split("/"):
            reached = []
            for node in nodes:
                if node.rests:
                    found += node.rests
                if node.tails is not None:
                    for payloads in node.tails.find_all(path[: start - 1 : -1]):
                        found += payloads
                if (literal := node.literals.get(segment)) is not None:
                    reached.append(literal)
                if segment and node.any_segment is not None:
                    reached.append(node.any_segment)
            if not reached:
                return found
            nodes = reached
            start += len(segment) + 1
        for node in nodes:
            found += node.ends
        return found

    def matches(self, path: str) -> bool:
        """Whether any template matches the path (without query)."""
        return bool(self.find_all(path))
