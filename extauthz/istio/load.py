"""Files -> resources, with every problem in all of them at once: documents, lists, kinds, duplicates, validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TypeVar

from extauthz.errors import PolicyError, Problem, Severity
from extauthz.istio.crd import near_miss, reader
from extauthz.istio.fields import Fields, kind_of
from extauthz.istio.files import SUFFIXES, contents, policy_files, shown
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

__all__ = ["SUFFIXES", "Loaded", "load", "load_policies"]

MAX_LIST_DEPTH = 4
"""Lists of lists are followed no deeper."""

R = TypeVar("R", bound=AnyResource)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: resources, warnings, how many documents of each kind were passed over, and the files."""

    resources: Resources
    warnings: tuple[Problem, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()


def load_policies(paths: Sequence[str]) -> Resources:
    """Istio resources from files and directories. Raises PolicyError with every problem of every file."""
    return load(paths).resources


def load(paths: Sequence[str], *, stdin: IO[str] | None = None, policies_required: bool = True) -> Loaded:
    """Read files, directories (searched for *.yaml, *.yml and *.json) and `-` (stdin).

    Multi-document files and lists are read; kinds that do not concern us are counted in `ignored`. Raises PolicyError
    with everything that is wrong in all of them: unreadable files, YAML, unknown fields, what istiod would refuse; and,
    unless `policies_required` is False, when there is neither a RequestAuthentication nor an AuthorizationPolicy.
    """
    loaded, problems = survey(paths, stdin=stdin, policies_required=policies_required)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise PolicyError(problems)
    return loaded


def survey(
    paths: Sequence[str], *, stdin: IO[str] | None = None, policies_required: bool = True
) -> tuple[Loaded, tuple[Problem, ...]]:
    """As `load`, but give the resources that are sound, and beside them every problem of the others."""
    reading = _Reading()
    files = policy_files(paths, reading.problems)
    for file in files:
        data = contents(file, stdin, reading.problems)
        if data is not None:
            reading.file(shown(file), data)
    reading.last.forget()
    resources = _by_kind(reading.resources)
    problems = reading.problems
    if not problems and not _sufficient(resources, policies_required):
        where = ", ".join(shown(path) for path in paths) or "no path given"
        what = "RequestAuthentication or AuthorizationPolicy" if policies_required else "resource of Istio"
        problems.append(Problem(where, 0, "", f"no {what} found; name files with policies", code="no-resources"))
    order = {shown(file): place for place, file in enumerate(files)}
    problems.sort(key=lambda problem: (order.get(problem.file, -1), problem.line))
    warnings = tuple([problem for problem in problems if problem.severity is Severity.WARNING])
    return Loaded(resources, warnings, dict(reading.ignored), tuple(files)), tuple(problems)


def _sufficient(resources: Resources, policies_required: bool) -> bool:
    if resources.request_authentications or resources.authorization_policies:
        return True
    return not policies_required and resources != Resources()


class _LastRead:
    """The documents that were read last, so that the lines of many fields of one document cost one reading."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[tuple[Document, Node | None], ...] = ()

    def node(self, document: Document) -> Node | None:
        """The document's root. Raises YamlError."""
        for known, node in self._last:
            if known is document:
                return node
        # Two, because the places of a duplicate are in two documents.
        self._last = ((document, document.read()), *self._last[:1])
        return self._last[0][1]

    def forget(self) -> None:
        """Free the memory."""
        self._last = ()


@dataclass(frozen=True, slots=True)
class DocumentOrigin:
    """A place in a document. Lines are looked up by reading it again: they are wanted for few resources."""

    file: str
    document: Document
    prefix: FieldPath
    last: _LastRead

    def line(self, path: FieldPath = ()) -> int:
        """The line of the field at `path`, or of the nearest field around it that is there."""
        node = self.last.node(self.document)
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


class _Reading:
    """What has been found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.resources: list[AnyResource] = []
        self.ignored: Counter[str] = Counter()
        self.last = _LastRead()
        self._places: dict[tuple[str, str, str], AnyResource] = {}

    def file(self, name: str, data: bytes) -> None:
        """Take in the documents of a file."""
        try:
            for document in documents(data):
                self._document(name, document)
        except YamlError as error:
            self.problems.append(Problem(name, error.line, "", error.reason, code="yaml"))

    def _document(self, name: str, document: Document) -> None:
        try:
            node = self.last.node(document)
        except YamlError as error:
            self.problems.append(Problem(name, error.line, "", error.reason, code="yaml"))
            return
        if node is None:
            return
        for origin, api_version, kind, item in self._items(DocumentOrigin(name, document, (), self.last), node):
            self._resource(origin, api_version, kind, item)

    def _items(
        self, origin: DocumentOrigin, node: Node, inherited: tuple[str, str] = ("", "")
    ) -> Iterator[tuple[DocumentOrigin, str, str, Node]]:
        """A document itself or, when it is a list, its items; in a typed list they may leave their kind out."""
        value, line = node
        if not isinstance(value, dict):
            reason = f"a Kubernetes resource is a mapping, found {kind_of(value)}"
            self.problems.append(Problem(origin.file, line, "", reason, code="wrong-type"))
            return
        api_version, kind = (
            value.get(member, (default or None, line))[0]
            for member, default in zip(("apiVersion", "kind"), inherited, strict=True)
        )
        if not isinstance(api_version, str) or not isinstance(kind, str):
            missing = "kind" if isinstance(api_version, str) else "apiVersion"
            reason = "a Kubernetes resource needs apiVersion and kind"
            self.problems.append(Problem(origin.file, line, missing, reason, code="no-kind"))
            return
        items, _ = value.get("items", (None, line))
        if not kind.endswith("List") or not isinstance(items, list | None):
            yield origin, api_version, kind, node
        elif len(origin.prefix) >= 2 * MAX_LIST_DEPTH:
            self.problems.append(Problem(origin.file, line, "", "too many lists inside each other", code="yaml"))
        else:
            of_items = (api_version, kind.removesuffix("List")) if kind != "List" else ("", "")
            for index, item in enumerate(items or ()):
                prefix: FieldPath = (*origin.prefix, "items", index)
                place = DocumentOrigin(origin.file, origin.document, prefix, origin.last)
                yield from self._items(place, item, of_items)

    def _resource(self, origin: DocumentOrigin, api_version: str, kind: str, node: Node) -> None:
        read = reader(api_version, kind)
        if read is None:
            if reason := near_miss(api_version, kind):
                line = node[0].get("kind", node)[1]
                self.problems.append(Problem(origin.file, line, "kind", reason, code="unknown-kind"))
            else:
                self.ignored[kind] += 1
            return
        before = len(self.problems)
        resource = read(Fields(origin.file, self.problems, node), origin)
        self._report_duplicate(kind, resource)
        if not self._errors_since(before):
            self.problems.extend(validate(resource))
        if not self._errors_since(before):
            self.resources.append(resource)

    def _errors_since(self, before: int) -> bool:
        return any(problem.severity is Severity.ERROR for problem in self.problems[before:])

    def _report_duplicate(self, kind: str, resource: AnyResource) -> None:
        metadata = resource.metadata
        first = self._places.setdefault((kind, metadata.namespace, metadata.name), resource)
        if first is not resource and metadata.name:
            place = f"{first.origin.file}:{first.origin.line(('metadata', 'name'))}"
            reason = f"{kind} {metadata.namespace}/{metadata.name} is already defined at {place}"
            self.problems.append(resource.problem(("metadata", "name"), reason, code="duplicate"))


def _by_kind(resources: Sequence[AnyResource]) -> Resources:
    def of(kind: type[R]) -> tuple[R, ...]:
        return tuple([resource for resource in resources if isinstance(resource, kind)])

    return Resources(
        of(RequestAuthentication),
        of(AuthorizationPolicy),
        of(ServiceEntry),
        of(DestinationRule),
        of(Gateway),
        of(Service),
    )
