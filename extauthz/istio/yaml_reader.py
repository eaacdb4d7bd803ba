"""YAML and JSON text -> plain Python data with a line for every field.

Reads what Kubernetes reads (`sigs.k8s.io/yaml`) and refuses what cannot become JSON; what the data mean is not known
here. The parser is PyYAML's in C, but it is asked for one event at a time: composing a large document in one call would
hold the interpreter for as long as it takes, and requests are being answered while policies are reloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from extauthz.istio.yaml_scalars import MAY_NOT_BE_TEXT, NotAValue, Plain, resolve_plain

Node = tuple[Any, int]
"""A value and the line (from 1) of its key, or of itself in a list and at the root.

The value is None, str, `Plain` (a number or boolean), list[Node] or dict[str, Node].
"""

MAX_DEPTH = 100
"""Levels of lists and mappings: policies need twelve."""

MAX_ALIASED_NODES = 400_000
"""Values that aliases may stand for in one document, as Kubernetes bounds them; more is an attack, not a policy."""

_MERGE = "<<"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ESCAPE = re.compile(rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)
_TAGS = {
    None: object, "!": object, "tag:yaml.org,2002:str": str, "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float, "tag:yaml.org,2002:bool": bool, "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:map": dict, "tag:yaml.org,2002:seq": list,
}  # fmt: skip


class YamlError(Exception):
    """The text is not YAML that Kubernetes would read. `line` is in the file, `reason` says what to write instead."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Document:
    """One document of a file: its bytes and where they start. Reading it again gives the same nodes."""

    __slots__ = ("data", "first_line")

    def __init__(self, data: bytes, first_line: int) -> None:
        self.data = data
        self.first_line = first_line

    def read(self) -> Node | None:
        """The document's root, None when it is empty. Raises YamlError."""
        if _only_directives(self.data):
            return None
        try:
            root = _Composer(self.data, self.first_line).compose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = self.first_line + (mark.line if mark else 0)
            raise YamlError(line, _explain(error, self.data)) from None
        except yaml.reader.ReaderError as error:
            line = self.first_line + self.data.count(b"\n", 0, error.position)
            raise YamlError(line, f"not readable as YAML: {error.reason}") from None
        return root if root is not None and root[0] is not None else None


def documents(data: bytes) -> Iterator[Document]:
    """The documents of a file (UTF-8, with or without a byte order mark), empty ones included. Raises YamlError."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise YamlError(line, f"not UTF-8 text (byte 0x{data[error.start]:02x})") from None
    line = 1
    start = 0
    # Split as kubectl does, so that an error in one document does not hide the next.
    for end in (*_separators(data), len(data)):
        if end > start:
            yield Document(_yaml_escapes(data[start:end]), line)
        line += data.count(b"\n", start, end)
        start = end


def _separators(data: bytes) -> Iterator[int]:
    """Where lines begin that are `---`, alone or before a blank."""
    position = 0 if data.startswith(b"---") else _next_dashes(data, 0)
    while position >= 0:
        if data[position + 3 : position + 4] in (b"", b" ", b"\t", b"\r", b"\n"):
            yield position
        position = _next_dashes(data, position + 3)


def _next_dashes(data: bytes, start: int) -> int:
    found = data.find(b"\n---", start)
    return found + 1 if found >= 0 else -1


def _yaml_escapes(document: bytes) -> bytes:
    """JSON writes a character beyond U+FFFF as two escapes, for which YAML has one of its own."""
    if (b"\\ud" in document or b"\\uD" in document) and document.lstrip(b"-\r\n\t ")[:1] == b"{":
        return _ESCAPE.sub(_yaml_escape, document)
    return document


def _yaml_escape(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        return match[0]
    high, low = int(match[1], 16), int(match[2], 16)
    return b"\\U%08X" % (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def _only_directives(data: bytes) -> bool:
    """Whether this is no document but the `%YAML` line before the first one."""
    if data[:1] != b"%" and b"\n%" not in data:
        return False
    return all(not line.strip() or line[:1] in (b"%", b"#") for line in data.splitlines())


class _Composer:
    """Turns the events of one document into nodes."""

    def __init__(self, data: bytes, first_line: int) -> None:
        self.next_event = _LOADER(data).get_event
        self.first_line = first_line
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        self.nodes = 0
        self.aliased = 0

    def compose(self) -> Node | None:
        """The loop is written out, without a call per event: a large set of policies is a million events."""
        next_event = self.next_event
        first_line = self.first_line
        scalar_event, mapping_start, sequence_start = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent
        ends = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
        stack: list[tuple[Any, str | None, int, str | None, int, int]] = []
        container: Any = None
        key: str | None = None
        key_line = 0
        root: Node | None = None
        value: Any
        while True:
            event = next_event()
            kind = type(event)
            if kind is scalar_event:
                if event.implicit[0] and event.anchor is None and event.tag is None:
                    value = event.value
                    if value[:1] in MAY_NOT_BE_TEXT or not value:
                        value = self.plain(event)
                elif event.tag is None and event.anchor is None:
                    value = event.value
                else:
                    value = self.tagged(event)
                line = first_line + event.start_mark.line
                if type(container) is dict and key is None:
                    key, key_line = self.key(container, value, event, line), line
                    continue
            elif kind is mapping_start or kind is sequence_start:
                value = {} if kind is mapping_start else []
                line = first_line + event.start_mark.line
                if type(container) is dict and key is None:
                    raise YamlError(line, "a key must be text, not a list or mapping")
                self.open(event, line, len(stack))
                stack.append((container, key, key_line, event.anchor, self.nodes, line))
                self.nodes += 1
                container, key = value, None
                continue
            elif kind in ends:
                value = self.merged(container) if kind is ends[0] and _MERGE in container else container
                container, key, key_line, anchor, before, line = stack.pop()
                if anchor is not None:
                    self.anchors[anchor] = (value, self.nodes - before)
            else:
                if kind is yaml.AliasEvent:
                    line = first_line + event.start_mark.line
                    value = self.alias(event, line)
                    if type(container) is dict and key is None:
                        key, key_line = self.key(container, value, event, line), line
                        continue
                elif kind is yaml.StreamEndEvent:
                    return root
                else:
                    if kind is yaml.DocumentStartEvent and root is not None:
                        raise YamlError(first_line + event.start_mark.line, "a document starts with a line of `---`")
                    continue
            self.nodes += 1
            if type(container) is dict:
                container[key] = (value, key_line)
                key = None
            elif container is not None:
                container.append((value, line))
            else:
                root = (value, line)

    def plain(self, event: Any) -> Any:
        """The value of a scalar without quotes."""
        try:
            return resolve_plain(event.value)
        except NotAValue as error:
            raise YamlError(self.first_line + event.start_mark.line, str(error)) from None

    def tagged(self, event: Any) -> Any:
        """The value of a scalar with a tag or an anchor."""
        line = self.first_line + event.start_mark.line
        wanted = self.tag(event.tag, line)
        value: Any = event.value
        if event.tag is None and event.implicit[0]:
            value = self.plain(event)
        elif event.tag not in (None, "!") and wanted is not str:
            value = self.plain(event)
            found = value.value if isinstance(value, Plain) else value
            if not isinstance(found, wanted) or (wanted is int and isinstance(found, bool)):
                raise YamlError(line, f"{event.value!r} is not what its tag {event.tag} says")
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        return value

    def tag(self, tag: str | None, line: int) -> Any:
        """The Python type that a tag stands for. Raises YamlError for tags that JSON has no form for."""
        if tag not in _TAGS:
            raise YamlError(line, f"the tag {tag[:40]} is not known; leave it out" if tag else "empty tag")
        return _TAGS[tag]

    def key(self, container: dict[str, Node], value: Any, event: Any, line: int) -> str:
        """A key as JSON has it: text. Raises YamlError when it is there already."""
        if isinstance(value, Plain):
            key = str(value.value).lower() if isinstance(value.value, bool) else str(value.value)
        elif isinstance(value, str):
            key = value
        else:
            raise YamlError(line, "a key must be text")
        if key in container:
            raise YamlError(line, f"the key {key!r} is given twice (first in line {container[key][1]})")
        return key

    def open(self, event: Any, line: int, depth: int) -> None:
        """A list or mapping begins."""
        if depth >= MAX_DEPTH:
            raise YamlError(line, f"nested more than {MAX_DEPTH} levels deep")
        wanted = self.tag(event.tag, line)
        if event.tag is not None and wanted is not (dict if isinstance(event, yaml.MappingStartEvent) else list):
            raise YamlError(line, f"this is not what its tag {event.tag} says")
        if event.anchor is not None:
            self.anchors[event.anchor] = None

    def alias(self, event: Any, line: int) -> Any:
        """What an alias stands for. Raises YamlError for an unknown one, one inside itself, or too many."""
        if event.anchor not in self.anchors:
            name = event.anchor
            raise YamlError(
                line, f'no anchor &{name} before this; text that begins with * must be in quotes: "*{name}"'
            )
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise YamlError(line, f"the alias *{event.anchor} stands inside what it stands for")
        value, nodes = anchored
        self.aliased += nodes
        if self.aliased > MAX_ALIASED_NODES:
            raise YamlError(line, "aliases stand for too many values")
        self.nodes += nodes
        return value

    def merged(self, mapping: dict[str, Node]) -> dict[str, Node]:
        """A mapping with what its merge key (`<<`) brings in; its own keys win."""
        value, line = mapping.pop(_MERGE)
        sources = [node[0] for node in value] if isinstance(value, list) else [value]
        for source in sources:
            if not isinstance(source, dict):
                raise YamlError(line, "only mappings can be merged with `<<`")
            for key, node in source.items():
                mapping.setdefault(key, node)
        return mapping


def _explain(error: yaml.MarkedYAMLError, data: bytes) -> str:
    """A parser's complaint, with what people have usually written when they hear it."""
    problem = str(error.problem or error.context or "unknown problem")
    mark = error.problem_mark
    lines = data.split(b"\n") if mark is not None else []
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else b""
    indentation = line[: len(line) - len(line.lstrip())]
    text = line.decode("utf-8", "replace")[mark.column :] if mark is not None else ""
    if b"\t" in indentation:
        return "a tab cannot indent; use blanks"
    if "cannot start any token" in problem and text:
        return f"text that begins with {text[0]} must be in quotes"
    if error.context == "while scanning an alias":
        return 'text that begins with * must be in quotes: "*"'
    if "mapping values are not allowed" in problem:
        return "a colon where no key can be: check the indentation; text with a colon and a blank in it needs quotes"
    context = f" {error.context}" if error.context else ""
    return f"not readable as YAML: {problem}{context}"
