"""What a request came to, in the terms in which both sides are compared: the client's answer, or what went upstream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extauthz.mesh.verify.harness import Observation
from extauthz.mesh.verify.http1 import Head, Response
from extauthz.mesh.verify.listeners import AUDIT_HEADER, DETAILS_HEADER, SHADOW_HEADER

NOT_COMPARED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "transfer-encoding",
        "x-request-id",
    }
)
"""Headers of the upstream's request that are not the policies' doing: framing, and an id that differs every time."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A request as the upstream received it. `headers` holds the lines of each, by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, tuple[str, ...]]

    def lines(self) -> list[tuple[str, str]]:
        """All header lines, with the pseudo headers that are compared."""
        lines = [(":method", self.method), (":path", self.path)]
        return lines + [(name, value) for name, values in self.headers.items() for value in values]

    def header(self, name: str) -> str | None:
        """A header's lines, joined with commas as they are compared; None when there is none."""
        lines = self.headers.get(name)
        return None if lines is None else ",".join(lines)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One side's answer. `upstream` is None when the request did not get there.

    `details` is Envoy's reason (`jwt_authn_access_denied{Jwt_is_expired}`), known for answers of filters only; `shadow`
    and `audit` are what policies in dry run and AUDIT policies recorded.
    """

    status: int
    body: str = ""
    content_type: str = ""
    www_authenticate: tuple[str, ...] = ()
    grpc_status: str = ""
    grpc_message: str = ""
    upstream: Upstream | None = None
    details: str = ""
    shadow: Mapping[str, str] = field(default_factory=dict)
    audit: str = ""


CLOSED = Outcome(status=0, details="the connection was closed without an answer")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the two sides differ: its name, and both values as text."""

    what: str
    mesh: str
    ours: str


def by_name(lines: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Header lines by name, less those that are not compared."""
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in lines:
        if name not in NOT_COMPARED:
            headers[name] = (*headers.get(name, ()), value)
    return headers


def observed(observation: Observation) -> Outcome:
    """The outcome that was seen from outside Envoy."""
    response = observation.response
    if response is None:
        return CLOSED
    head = response.head
    refused = observation.received is None
    return Outcome(
        status=response.status,
        body=response.body if refused else "",
        content_type=head.first("content-type") if refused else "",
        www_authenticate=tuple(head.lines("www-authenticate")),
        grpc_status=head.first("grpc-status"),
        grpc_message=head.first("grpc-message"),
        upstream=None if observation.received is None else _upstream(observation.received),
        details=head.first(DETAILS_HEADER),
        shadow=_shadow(response),
        audit=head.first(AUDIT_HEADER),
    )


def _upstream(head: Head) -> Upstream:
    return Upstream(method=head.start[0], path=head.start[1], headers=by_name(head.headers))


def _shadow(response: Response) -> Mapping[str, str]:
    """The results of shadow rules; RBAC's record of its enforced rules is in the details already."""
    text = response.head.first(SHADOW_HEADER)
    recorded: dict[str, Any] = json.loads(text) if text else {}
    return {key: str(value) for key, value in recorded.items() if not key.startswith("enforced_")}


def differences(mesh: Outcome, ours: Outcome) -> tuple[Difference, ...]:
    """Everything in which two outcomes differ; empty when they agree."""
    found: list[Difference] = []
    for name in ("status", "body", "content_type", "www_authenticate", "grpc_status", "grpc_message", "audit"):
        _compare(found, name.replace("_", "-"), getattr(mesh, name), getattr(ours, name))
    if mesh.details and ours.details:
        _compare(found, "reason", mesh.details, ours.details)
    # A filter that refuses records its shadow results after its answer, in whose headers they are told here.
    recorded = mesh.shadow.keys() if mesh.upstream is None else mesh.shadow.keys() | ours.shadow.keys()
    for key in sorted(recorded):
        _compare(found, f"metadata {key}", mesh.shadow.get(key), ours.shadow.get(key))
    if mesh.upstream is None or ours.upstream is None:
        _compare(found, "reaches the upstream", mesh.upstream is not None, ours.upstream is not None)
    else:
        _compare(found, "method", mesh.upstream.method, ours.upstream.method)
        _compare(found, "path", mesh.upstream.path, ours.upstream.path)
        for name in sorted(mesh.upstream.headers.keys() | ours.upstream.headers.keys()):
            _compare(found, f"header {name}", mesh.upstream.header(name), ours.upstream.header(name))
    return tuple(found)


def _compare(found: list[Difference], what: str, mesh: object, ours: object) -> None:
    if mesh != ours:
        found.append(Difference(what, _text(mesh), _text(ours)))


def _text(value: object) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
