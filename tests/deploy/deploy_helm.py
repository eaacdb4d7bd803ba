"""Renders our Helm chart: a documented subset of Go templates, and the real helm where it is installed.

The subset, which is all that the chart may use: `if`, `else if`, `else`, `with`, `range` (one or two variables),
`define`, `include`, comments, trimming, `.path` and `$name.path`, strings, integers, `true` and `false`, pipelines,
parentheses, and the functions in `_FUNCTIONS`. Anything else is an error here, so that the chart stays this simple.
That both renderers give the same documents is tested where helm is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Values = dict[str, Any]
KUBERNETES = "1.32.0"

_TAG = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_WORD = re.compile(r"\"(?:[^\"\\]|\\.)*\"|:=|[|(),]|[^\s|(),]+")
_OPENING = ("if", "with", "range", "define")


def _truthy(value: Any) -> bool:
    return bool(value)


def _nindent(count: int, text: str) -> str:
    return "\n" + "\n".join(" " * count + line for line in text.split("\n"))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda *numbers: sum(numbers),
    "and": lambda *values: next((value for value in values if not _truthy(value)), values[-1]),
    "contains": lambda part, text: part in text,
    "default": lambda fallback, value: value if _truthy(value) else fallback,
    "dict": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "eq": lambda one, other: one == other,
    "join": lambda separator, values: separator.join(values),
    "kindIs": lambda kind, value: (
        kind == {str: "string", list: "slice", dict: "map", bool: "bool"}.get(type(value), "float64")
    ),
    "nindent": _nindent,
    "not": lambda value: not _truthy(value),
    "printf": lambda form, *values: form % values,
    "quote": lambda value: json.dumps(value if isinstance(value, str) else str(value)),
    "replace": lambda old, new, text: text.replace(old, new),
    "toJson": json.dumps,
    "toYaml": lambda value: yaml.safe_dump(value, sort_keys=True).rstrip("\n"),
    "upper": str.upper,
}


@dataclass(slots=True)
class Node:
    """A piece of a template: text, an expression, or a block with its branches (condition, body)."""

    kind: str
    text: str = ""
    branches: list[tuple[str, list[Node]]] = field(default_factory=list)


class _Files:
    """`.Files`."""

    def __init__(self, chart: Path) -> None:
        self.chart = chart


@dataclass(frozen=True, slots=True)
class Scope:
    """What a name means: the dot and the variables, `$` among them."""

    dot: Any
    variables: dict[str, Any]

    def inner(self, dot: Any, **variables: Any) -> Scope:
        return Scope(dot, {**self.variables, **variables})


class Chart:
    """A chart, ready to be rendered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = yaml.safe_load((path / "Chart.yaml").read_text())
        self.defaults: Values = yaml.safe_load((path / "values.yaml").read_text())
        self._defined: dict[str, list[Node]] = {}
        self._templates: dict[str, list[Node]] = {}
        for file in sorted((path / "templates").iterdir()):
            nodes = _parse(file.read_text())
            for node in nodes:
                if node.kind == "define":
                    self._defined[json.loads(node.branches[0][0])] = node.branches[0][1]
            self._templates[file.name] = [node for node in nodes if node.kind != "define"]

    def values(self, given: Values) -> Values:
        """The chart's values with `given` over them."""
        return _merged(self.defaults, given)

    def render(self, release: str, namespace: str, given: Values) -> dict[str, str]:
        """The text of every template by file name, those that only define left out."""
        root = {
            "Values": self.values(given),
            "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
            "Chart": {
                "Name": self.about["name"],
                "Version": self.about["version"],
                "AppVersion": self.about["appVersion"],
            },
            "Files": _Files(self.path),
        }
        scope = Scope(root, {"": root})
        return {
            name: "".join(self._run(nodes, scope))
            for name, nodes in self._templates.items()
            if not name.startswith("_")
        }

    def documents(self, release: str, namespace: str, given: Values) -> list[Values]:
        """The manifests."""
        texts = self.render(release, namespace, given)
        return [
            document
            for name, text in texts.items()
            if name != "NOTES.txt"
            for document in yaml.safe_load_all(text)
            if document
        ]

    def _run(self, nodes: list[Node], scope: Scope) -> Iterator[str]:
        for node in nodes:
            if node.kind == "text":
                yield node.text
            elif node.kind == "expression":
                value = self._evaluate(node.text, scope)
                yield value if isinstance(value, str) else json.dumps(value)
            elif node.kind == "range":
                yield from self._range(node, scope)
            else:
                yield from self._choose(node, scope)

    def _choose(self, node: Node, scope: Scope) -> Iterator[str]:
        for condition, body in node.branches:
            value = True if condition == "" else self._evaluate(condition, scope)
            if _truthy(value):
                yield from self._run(body, scope.inner(value) if node.kind == "with" else scope)
                return

    def _range(self, node: Node, scope: Scope) -> Iterator[str]:
        ((header, body),) = node.branches
        names, _, expression = header.rpartition(":=")
        value = self._evaluate(expression, scope)
        items = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value))
        variables = [name.strip().removeprefix("$") for name in names.split(",") if name.strip()]
        for key, item in items:
            bound = dict(zip(variables, (key, item) if len(variables) == 2 else (item,), strict=False))
            yield from self._run(body, scope.inner(item, **bound))

    def _evaluate(self, expression: str, scope: Scope) -> Any:
        words = _WORD.findall(expression)
        value, rest = self._pipeline(words, scope)
        assert not rest, f"{expression!r}: {rest} is left over"
        return value

    def _pipeline(self, words: list[str], scope: Scope) -> tuple[Any, list[str]]:
        last: list[Any] = []
        while True:
            value, words = self._command(words, scope, last)
            if words[:1] != ["|"]:
                return value, words
            last, words = [value], words[1:]

    def _command(self, words: list[str], scope: Scope, last: list[Any]) -> tuple[Any, list[str]]:
        head, arguments = words[0], list[Any]()
        is_function = head in _FUNCTIONS or head in ("include", ".Files.Get")
        rest = words[1:] if is_function else words
        while rest and rest[0] not in ("|", ")"):
            value, rest = self._operand(rest, scope)
            arguments.append(value)
        arguments += last
        if not is_function:
            assert len(arguments) == 1, f"{head} is not one of the functions that a chart may use here"
            return arguments[0], rest
        if head == "include":
            name, dot = arguments
            return "".join(self._run(self._defined[name], Scope(dot, {"": dot}))), rest
        if head == ".Files.Get":
            return (self.path / arguments[0]).read_text(), rest
        return _FUNCTIONS[head](*arguments), rest

    def _operand(self, words: list[str], scope: Scope) -> tuple[Any, list[str]]:
        word, rest = words[0], words[1:]
        if word == "(":
            value, rest = self._pipeline(rest, scope)
            assert rest[0] == ")"
            return value, rest[1:]
        if word.startswith('"') or word.isdigit() or word in ("true", "false"):
            return json.loads(word), rest
        assert word[0] in ".$", f"{word!r} is not part of the subset"
        name, _, path = word.removeprefix("$").partition(".")
        value = scope.variables[name] if word[0] == "$" else scope.dot
        for part in filter(None, path.split(".")):
            value = value.get(part)
        return value, rest


def _parse(text: str) -> list[Node]:
    root: list[Node] = []
    open_blocks: list[Node] = []
    bodies = [root]
    position, trim = 0, False
    for tag in _TAG.finditer(text):
        before = text[position : tag.start()]
        before = before.lstrip() if trim else before
        bodies[-1].append(Node("text", before.rstrip() if tag[1] else before))
        position, trim = tag.end(), bool(tag[3])
        _take(tag[2].strip(), bodies, open_blocks)
    bodies[-1].append(Node("text", text[position:].lstrip() if trim else text[position:]))
    assert not open_blocks, "a block is not ended"
    return root


def _take(code: str, bodies: list[list[Node]], open_blocks: list[Node]) -> None:
    word, _, rest = code.partition(" ")
    if code.startswith("/*"):
        return
    if word in _OPENING:
        block = Node(word)
        bodies[-1].append(block)
        open_blocks.append(block)
    elif word == "else":
        bodies.pop()
        rest = rest.removeprefix("if ")
    elif word == "end":
        bodies.pop()
        open_blocks.pop()
        return
    else:
        bodies[-1].append(Node("expression", code))
        return
    body: list[Node] = []
    open_blocks[-1].branches.append((rest.strip(), body))
    bodies.append(body)


def _merged(base: Values, over: Values) -> Values:
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def helm() -> str | None:
    """The helm that is installed ($HELM or on the path)."""
    return os.environ.get("HELM") or shutil.which("helm")


def helm_template(chart: Path, release: str, namespace: str, values: Path) -> subprocess.CompletedProcess[str]:
    """What the real helm makes of the chart."""
    binary = helm()
    assert binary
    command = [binary, "template", release, str(chart), "--namespace", namespace, "--values", str(values)]
    return subprocess.run(
        [*command, "--kube-version", KUBERNETES], capture_output=True, text=True, timeout=60, check=False
    )
