"""Attributes that are text of the request itself: path, host, method, server name, headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from extauthz.authz.attributes import Lookup, Predicate, Reads, pattern_breadth
from extauthz.authz.path_templates import PathTemplate, TemplateTree, is_path_template, parse_path_template
from extauthz.authz.patterns import Kind, Pattern, any_of, parse_pattern, text_matcher
from extauthz.authz.text_index import NO_NUMBERS, Numbers, TextIndex, merge
from extauthz.identity import Identity
from extauthz.request import NO_LINES, Request, wire_text, without_query

METHOD_BREADTH = 16
"""Requests share few methods, so rules are sorted by them last."""

_LINE_BREAKS = frozenset("\r\n\0")


def lower(text: str) -> str:
    """ASCII letters in lower case, other bytes of wire text as they are."""
    return text.lower() if text.isascii() else text.encode("latin-1").lower().decode("latin-1")


class TextAttribute:
    """One text that every request has, though it may be empty: method, host, server name."""

    def __init__(
        self,
        text: Callable[[Request], str],
        reads: Reads,
        *,
        star: Kind = Kind.ANY,
        spell: Callable[[str], str] = wire_text,
        breadth: float = 1,
    ) -> None:
        """`spell` brings a policy's value to the form of `text`; `star` is what `*` alone means."""
        self._text = text
        self._star = star
        self._spell = spell
        self._breadth = breadth
        self.reads = reads
        self.cost = 2

    def parse(self, value: str, namespace: str) -> Sequence[Pattern]:
        return (parse_pattern(self._spell(value), star=self._star),)

    def matcher(self, wanted: Sequence[Pattern]) -> Predicate:
        text, matches = self._text, text_matcher(wanted)
        return lambda request, _: matches(text(request))

    def index(self, entries: Sequence[tuple[Pattern, int]]) -> Lookup:
        text, index = self._text, TextIndex(entries)

        def find(request: Request, identity: Identity) -> Numbers:
            groups: list[Numbers] = []
            index.find(text(request), groups)
            return merge(groups)

        return find

    def breadth(self, wanted: Pattern) -> float:
        return self._breadth * pattern_breadth(wanted)

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        return (self._text(request),)


def method_attribute() -> TextAttribute:
    """`methods`: `:method`."""
    return TextAttribute(attrgetter("method"), Reads(method=True), breadth=METHOD_BREADTH)


def host_attribute() -> TextAttribute:
    """`hosts`: `:authority` as it is, port included, compared without regard to case."""
    return TextAttribute(
        lambda request: lower(request.host), Reads(host=True), spell=lambda value: lower(wire_text(value))
    )


def server_name_attribute() -> TextAttribute:
    """`connection.sni`: the requested server name, which Envoy has lower-cased; the policy's value is used as it is."""
    return TextAttribute(attrgetter("server_name"), Reads(server_name=True), star=Kind.NOT_EMPTY)


class PathAttribute:
    """`paths`: the path without query and fragment, by pattern or template."""

    reads = Reads(path=True)
    cost = 1

    def parse(self, value: str, namespace: str) -> Sequence[Pattern | PathTemplate]:
        text = wire_text(value)
        return (parse_path_template(text) if is_path_template(text) else parse_pattern(text),)

    def matcher(self, wanted: Sequence[Pattern | PathTemplate]) -> Predicate:
        patterns = [pattern for pattern in wanted if isinstance(pattern, Pattern)]
        templates = [(template, None) for template in wanted if isinstance(template, PathTemplate)]
        parts = [text_matcher(patterns)] if patterns else []
        if templates:
            parts.append(TemplateTree(templates).matches)
        matches = any_of(parts)

        def holds(request: Request, _: Identity) -> bool:
            path = request.path
            if "?" in path:
                path = path.partition("?")[0]
            if "#" in path:
                path = path.partition("#")[0]
            return matches(path)

        return holds

    def index(self, entries: Sequence[tuple[Pattern | PathTemplate, int]]) -> Lookup:
        index = TextIndex((pattern, number) for pattern, number in entries if isinstance(pattern, Pattern))
        templates = [(wanted, (number,)) for wanted, number in entries if isinstance(wanted, PathTemplate)]
        exact = index.only_exact
        if exact is not None and not templates:
            return lambda request, _: exact(without_query(request.path)) or NO_NUMBERS
        tree = TemplateTree(templates)

        def find(request: Request, _: Identity) -> Numbers:
            path = without_query(request.path)
            groups: list[Numbers] = []
            index.find(path, groups)
            groups += tree.find_all(path)
            return merge(groups)

        return find

    def breadth(self, wanted: Pattern | PathTemplate) -> float:
        return pattern_breadth(wanted) if isinstance(wanted, Pattern) else 4

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        return (without_query(request.path),)


class HeaderAttribute:
    """`request.headers[name]`: each line of one header by itself. The name may be a pseudo header or `host`."""

    cost = 3

    def __init__(self, name: str) -> None:
        """Raises ValueError for a name on which Envoy rejects its configuration."""
        if not name or not _LINE_BREAKS.isdisjoint(name):
            raise ValueError("the header's name must not be empty or hold line breaks")
        self._name = lower(wire_text(name))
        self._lines = _PSEUDO_HEADERS.get(self._name)
        self.reads = Reads(
            headers=frozenset([self._name]),
            path=self._name == ":path",
            host=self._name in (":authority", "host"),
            method=self._name == ":method",
            scheme=self._name == ":scheme",
        )

    def parse(self, value: str, namespace: str) -> Sequence[Pattern]:
        return (parse_pattern(wire_text(value), star=Kind.ANY),)

    def lines(self, request: Request) -> Sequence[str]:
        """The lines of the header, none when it is absent."""
        return request.lines(self._name) if self._lines is None else self._lines(request)

    def matcher(self, wanted: Sequence[Pattern]) -> Predicate:
        name, lines, matches = self._name, self.lines, text_matcher(wanted)
        if self._lines is None and len(wanted) == 1 and wanted[0].kind is Kind.EXACT:
            only = wanted[0].text
            return lambda request, _: only in request.lines(name)

        def holds(request: Request, _: Identity) -> bool:
            for line in lines(request):  # noqa: SIM110 - see `patterns.any_of`
                if matches(line):
                    return True
            return False

        return holds

    def index(self, entries: Sequence[tuple[Pattern, int]]) -> Lookup:
        lines, index = self.lines, TextIndex(entries)

        def find(request: Request, identity: Identity) -> Numbers:
            groups: list[Numbers] = []
            for line in lines(request):
                index.find(line, groups)
            return merge(groups)

        return find

    def breadth(self, wanted: Pattern) -> float:
        return pattern_breadth(wanted)

    def seen(self, request: Request, identity: Identity) -> tuple[str, ...]:
        return tuple(self.lines(request))


# An empty `Host:` is a header that is there; only a CONNECT request has no path.
_PSEUDO_HEADERS: dict[str, Callable[[Request], Sequence[str]]] = {
    ":authority": lambda request: (request.host,),
    "host": lambda request: (request.host,),
    ":method": lambda request: (request.method,),
    ":scheme": lambda request: (request.scheme,),
    ":path": lambda request: (request.path,) if request.path else NO_LINES,
}
