"""Files -> resources: which files, which documents, and every problem in all of them at once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from extauthz.errors import PolicyError, Problem, Severity
from extauthz.istio.crd import near_miss, reader
from extauthz.istio.fields import Fields, kind_of
from extauthz.istio.resources import (
    AnyResource,
    AuthorizationPolicy,
    DestinationRule,
    FieldPath,
    Gateway,
    RequestAuthentication,
    Resources,
    Service,
    ServiceEntry,
)
from extauthz.istio.validate import validate
from extauthz.istio.yaml_reader import Document, Node, YamlError, documents

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_LIST_DEPTH = 4
STDIN = "-"

R = TypeVar("R", bound=AnyResource)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: resources, warnings, how many documents of each kind were passed over, and the files."""

    resources: Resources
    warnings: tuple[Problem, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentOrigin:
    """A place in a document. Lines are looked up by reading it again: they are wanted for few resources."""

    file: str
    document: Document
    prefix: FieldPath = ()

    def line(self, path: FieldPath = ()) -> int:
        """The line of the field at `path`, or of the nearest field around it that is there."""
        node = self.document.read()
        line = node[1] if node is not None else self.document.first_line
        for step in (*self.prefix, *path):
            value = node[0] if node is not None else None
            if isinstance(value, dict) and step in value:
                node = value[str(step)]
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                node = value[step]
            else:
                break
            line = node[1]
        return line


def load_policies(paths: Sequence[str]) -> Resources:
    """Istio resources from files and directories. Raises PolicyError with every problem of every file."""
    return load(paths).resources


def load(paths: Sequence[str], *, stdin: IO[str] | None = None) -> Loaded:
    """Read files, directories (searched for *.yaml, *.yml and *.json) and `-` (stdin).

    Multi-document files and lists are read; kinds that do not concern us are counted in `ignored`. Raises PolicyError
    with everything that is wrong in all of them: unreadable files, YAML, unknown fields, what istiod would refuse.
    """
    problems: list[Problem] = []
    ignored: Counter[str] = Counter()
    found: list[AnyResource] = []
    files = _files(paths, problems)
    for file in files:
        for document, node in _read(file, stdin, problems):
            found.extend(_resources(file, document, node, (), problems, ignored))
    _report_duplicates(found, problems)
    resources = _by_kind(found)
    if not problems:
        problems.extend(validate(resources))
    if not found and not problems:
        where = ", ".join(paths) or "no path given"
        problems.append(
            Problem(where, 0, "", "no Istio resources found; name files with policies", code="no-resources")
        )
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise PolicyError(sorted(problems, key=lambda problem: (problem.file, problem.line)))
    return Loaded(resources, tuple(problems), dict(ignored), tuple(files))


def _files(paths: Sequence[str], problems: list[Problem]) -> list[str]:
    """The files that paths stand for, each once (a ConfigMap's directory shows each of them by several paths)."""
    files: dict[str, str] = {}
    for path in paths:
        if path == STDIN:
            files.setdefault(STDIN, STDIN)
            continue
        place = Path(path)
        if place.is_dir():
            names = sorted(_search(place, problems))
            if not names:
                kinds = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
                problems.append(Problem(path, 0, "", f"no policy files in this directory ({kinds})", code="no-files"))
        else:
            names = [path]
        for name in names:
            files.setdefault(os.path.realpath(name), name)
    return list(files.values())


def _search(directory: Path, problems: list[Problem]) -> Iterator[str]:
    """Policy files below a directory. Hidden directories are left out: the files in a ConfigMap's `..data` are linked
    to from beside it."""

    def report(error: OSError) -> None:
        name = str(error.filename or directory)
        problems.append(Problem(name, 0, "", f"cannot be read: {error.strerror}", code="unreadable"))

    for place, subdirectories, names in os.walk(directory, onerror=report):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        yield from (os.path.join(place, name) for name in names if name.endswith(SUFFIXES) and not name.startswith("."))


def _read(file: str, stdin: IO[str] | None, problems: list[Problem]) -> Iterator[tuple[Document, Node]]:
    name = "<stdin>" if file == STDIN else file
    try:
        if file == STDIN:
            source = sys.stdin if stdin is None else stdin
            data = source.read(MAX_FILE_BYTES + 1).encode("utf-8", "surrogateescape")
        else:
            with open(file, "rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.append(Problem(name, 0, "", f"cannot be read: {error.strerror}", code="unreadable"))
        return
    if len(data) > MAX_FILE_BYTES:
        problems.append(Problem(name, 0, "", f"larger than {MAX_FILE_BYTES} bytes", code="too-large"))
        return
    try:
        for document in documents(data):
            try:
                node = document.read()
            except YamlError as error:
                problems.append(Problem(name, error.line, "", error.reason, code="yaml"))
                continue
            if node is not None and node[0] is not None:
                yield document, node
    except YamlError as error:
        problems.append(Problem(name, error.line, "", error.reason, code="yaml"))


def _resources(
    file: str, document: Document, node: Node, path: FieldPath, problems: list[Problem], ignored: Counter[str]
) -> Iterator[AnyResource]:
    """The resource that a node is, or those of the list that it is."""
    name = "<stdin>" if file == STDIN else file
    value, line = node
    if not isinstance(value, dict):
        reason = f"a Kubernetes resource is a mapping, found {kind_of(value)}"
        problems.append(Problem(name, line, "", reason, code="wrong-type"))
        return
    api_version, kind = (value.get(member, (None, line))[0] for member in ("apiVersion", "kind"))
    if not isinstance(api_version, str) or not isinstance(kind, str):
        missing = "kind" if isinstance(api_version, str) else "apiVersion"
        problems.append(Problem(name, line, missing, "a Kubernetes resource needs apiVersion and kind", code="no-kind"))
        return
    items, _ = value.get("items", (None, line))
    if kind.endswith("List") and isinstance(items, list):
        if len(path) >= 2 * MAX_LIST_DEPTH:
            problems.append(Problem(name, line, "", "lists of lists are nested too deeply", code="yaml"))
            return
        for index, item in enumerate(items):
            yield from _resources(file, document, item, (*path, "items", index), problems, ignored)
        return
    read = reader(api_version, kind)
    if read is not None:
        yield read(Fields(name, problems, node), DocumentOrigin(name, document, path))
    elif reason := near_miss(api_version, kind):
        problems.append(Problem(name, value["kind"][1], "kind", reason, code="unknown-kind"))
    else:
        ignored[kind] += 1


def _report_duplicates(resources: Iterable[AnyResource], problems: list[Problem]) -> None:
    seen: dict[tuple[str, str, str], AnyResource] = {}
    for resource in resources:
        metadata = resource.metadata
        kind = type(resource).__name__
        first = seen.setdefault((kind, metadata.namespace, metadata.name), resource)
        if first is not resource and metadata.name:
            place = f"{first.origin.file}:{first.origin.line(('metadata', 'name'))}"
            reason = f"{kind} {metadata.namespace}/{metadata.name} is already defined at {place}"
            problems.append(resource.problem(("metadata", "name"), reason, code="duplicate"))


def _by_kind(resources: Sequence[AnyResource]) -> Resources:
    def of(kind: type[R]) -> tuple[R, ...]:
        return tuple(resource for resource in resources if isinstance(resource, kind))

    return Resources(
        of(RequestAuthentication),
        of(AuthorizationPolicy),
        of(ServiceEntry),
        of(DestinationRule),
        of(Gateway),
        of(Service),
    )
