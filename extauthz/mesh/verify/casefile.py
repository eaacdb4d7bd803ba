"""Case files: policies, requests and expected answers that people write, read here into probes.

A conformance file is YAML, each document a `CaseSet` with its own policies (docs/verify.md describes the format). A
file of JSON lines holds requests alone, to be put to policies that come from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from extauthz.errors import UsageError
from extauthz.mesh.verify.expectation import Expectation
from extauthz.mesh.verify.probe import HOST, Peer, Probe
from extauthz.mesh.verify.vocabulary import Vocabulary, as_pairs

_INHERITED = ("policies", "keys", "keysets", "fetched", "claims")
"""Members that a document of a file has from the one before it when it leaves them out."""

SET_MEMBERS = {
    "title",
    "keys",
    "keysets",
    "fetched",
    "claims",
    "tokens",
    "policies",
    "policies-file",
    "options",
    "columns",
    "host",
    "requests",
}
OPTION_MEMBERS = {"trust-domain", "trust-domain-alias", "trusted-hops", "provider", "workload", "root-namespace"}
REQUEST_MEMBERS = {
    "name", "method", "target", "headers", "host", "body", "source", "destination", "port", "peer", "server-name",
    "metadata", "expect",
}  # fmt: skip
_PEER_MEMBERS = {"uris", "dns", "common-name", "organization"}


@dataclass(frozen=True, slots=True)
class Case:
    """A probe and what it must come to, if the file says so."""

    probe: Probe
    expectation: Expectation | None = None


@dataclass(frozen=True, slots=True)
class CaseSet:
    """Policies (Istio YAML, all placeholders filled), the options they run with, and the cases put to them.

    `fetched` are the key sets that rules have instead of their own, by `jwksUri`, or by issuer for rules without; those
    of other remote rules could not be fetched yet.
    """

    title: str
    policies: str
    options: Mapping[str, Any]
    cases: tuple[Case, ...]
    fetched: Mapping[str, str] = field(default_factory=dict)


def read_case_file(path: Path) -> list[CaseSet]:
    """The case sets of a YAML file; a document with columns gives one for each. Raises UsageError."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    sets: list[CaseSet] = []
    before: dict[str, Any] = {}
    for number, document in enumerate(documents):
        if document is None:
            continue
        try:
            _check_members(document, SET_MEMBERS, "the document")
            whole = before | document
            if "policies-file" in document:
                whole["policies"] = _policies_of(path.parent / str(document["policies-file"]))
            sets.extend(_read_document(whole, f"{path.stem}[{number}]"))
        except UsageError as error:
            raise UsageError(f"{path}: document {number + 1}: {error}") from None
        before = {member: whole[member] for member in _INHERITED if member in whole}
    return sets


def _policies_of(path: Path) -> str:
    """The policies of a file beside the cases, which operators use as it is: nothing is filled in there."""
    try:
        return path.read_text(encoding="utf-8").replace("${", "${$}{")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def read_requests(path: Path) -> tuple[Case, ...]:
    """The cases of a file with one JSON object a line. Raises UsageError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    cases: list[Case] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
            case = _case(given, Vocabulary({}), HOST, filling=False)
            expect = given.get("expect")
            cases.append(Case(case, None if expect is None else Expectation.read(expect)))
        except (ValueError, UsageError) as error:
            raise UsageError(f"{path}:{number}: {error}") from None
    return tuple(cases)


def _read_document(document: Mapping[str, Any], title: str) -> Iterable[CaseSet]:
    options = document.get("options") or {}
    _check_members(options, OPTION_MEMBERS, "options")
    words = Vocabulary(document)
    title = document.get("title") or title
    columns = document.get("columns") or [{}]
    fetched = {url: words.key_set(name) for url, name in (document.get("fetched") or {}).items()}
    policies, requests = document.get("policies"), document.get("requests") or []
    if not isinstance(policies, str):
        raise UsageError("policies: write the resources as one text (policies: |)")
    for index, column in enumerate(columns):
        variables = {name: str(value) for name, value in column.items()}
        name = f"{title} ({', '.join(variables.values())})" if variables else title
        cases = [_column_case(request, words, document, index, variables) for request in requests]
        yield CaseSet(name, words.fill(policies, variables), options, tuple(cases), fetched)


def _column_case(
    request: Any, words: Vocabulary, document: Mapping[str, Any], index: int, variables: Mapping[str, str]
) -> Case:
    probe = _case(request, words, document.get("host", HOST), variables=variables)
    expect = request.get("expect")
    if isinstance(expect, list):
        if len(expect) != len(document.get("columns") or [{}]):
            raise UsageError(f"request {probe.name!r}: expect has {len(expect)} entries, one is needed for each column")
        expect = expect[index]
    if expect is None:
        return Case(probe)
    return Case(probe, Expectation.read(expect, lambda text: words.fill(text, variables)))


def _case(
    given: Any,
    words: Vocabulary,
    host: str | None,
    *,
    variables: Mapping[str, str] | None = None,
    filling: bool = True,
) -> Probe:
    _check_members(given, REQUEST_MEMBERS, "a request")

    def text(value: Any) -> str:
        return words.fill(str(value), variables) if filling else str(value)

    target = text(given.get("target", "/"))
    probe = Probe(
        method=str(given.get("method", "GET")),
        target=target,
        headers=tuple((name, text(value)) for name, value in as_pairs(given.get("headers"))),
        host=None if given.get("host", host) is None else text(given.get("host", host)),
        body=text(given.get("body", "")),
        source=str(given.get("source", "127.0.0.1")),
        destination=str(given.get("destination", "127.0.0.1")),
        port=int(given.get("port", 8000)),
        peer=_peer(given.get("peer")),
        server_name=str(given.get("server-name", "")),
        metadata=tuple(_metadata(given.get("metadata") or {})),
        name=text(given.get("name", "")) or target,
    )
    try:
        probe.encode()
    except UnicodeEncodeError:
        raise UsageError(f"request {probe.name!r}: write bytes above 7F as \\xNN, UTF-8 as its bytes") from None
    return probe


def _metadata(given: Any) -> Iterator[tuple[str, str, str]]:
    for filter_name, members in given.items():
        _check_mapping(members, f"metadata of {filter_name}")
        for key, value in members.items():
            yield filter_name, key, json.dumps(value)


def _peer(given: Any) -> Peer | None:
    if given is None:
        return None
    _check_members(given, _PEER_MEMBERS, "peer")
    return Peer(
        uris=tuple(given.get("uris") or ()),
        dns_names=tuple(given.get("dns") or ()),
        common_name=given.get("common-name", ""),
        organization=given.get("organization", ""),
    )


def _check_members(given: Any, known: set[str], where: str) -> None:
    _check_mapping(given, where)
    unknown = given.keys() - known
    if unknown:
        raise UsageError(f"{where}: unknown member {', '.join(sorted(map(str, unknown)))}; known are {sorted(known)}")


def _check_mapping(given: Any, where: str) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{where}: write a mapping, not {given!r}")
