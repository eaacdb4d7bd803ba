"""What a case file says a request must come to, and how an outcome falls short of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from extauthz.errors import UsageError
from extauthz.mesh.verify.outcome import Outcome

MEMBERS = ("status", "body", "www-authenticate", "grpc-status", "grpc-message", "reason", "path", "headers")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected; only what is given is compared.

    `headers` are those that the upstream must have received, None for one that it must not.
    """

    status: int | None = None
    body: str | None = None
    www_authenticate: str | None = None
    grpc_status: str | None = None
    grpc_message: str | None = None
    reason: str | None = None
    path: str | None = None
    headers: Mapping[str, str | None] | None = None

    @classmethod
    def read(cls, given: Any, fill: Callable[[str], str] = str) -> Expectation:
        """From a case file: a status alone, or a mapping. `fill` replaces placeholders. Raises UsageError."""
        if isinstance(given, int):
            return cls(status=given)
        if not isinstance(given, Mapping) or given.keys() - set(MEMBERS):
            raise UsageError(f"expect {given!r}: write a status, or a mapping of {', '.join(MEMBERS)}")

        def text(name: str) -> str | None:
            return fill(str(given[name])) if given.get(name) is not None else None

        headers = given.get("headers")
        return cls(
            status=given.get("status"),
            body=text("body"),
            www_authenticate=text("www-authenticate"),
            grpc_status=text("grpc-status"),
            grpc_message=text("grpc-message"),
            reason=text("reason"),
            path=text("path"),
            headers=None
            if headers is None
            else {name.lower(): None if value is None else fill(str(value)) for name, value in headers.items()},
        )

    def write(self) -> dict[str, Any]:
        """The mapping that `read` takes."""
        members = {name: getattr(self, name.replace("-", "_")) for name in MEMBERS}
        return {name: value for name, value in members.items() if value is not None}

    def failures(self, outcome: Outcome) -> Iterator[str]:
        """Each thing that is not as expected, in words."""
        yield from _unless(self.status, outcome.status, "status")
        yield from _unless(self.body, outcome.body, "body")
        yield from _unless(self.www_authenticate, ", ".join(outcome.www_authenticate), "www-authenticate")
        yield from _unless(self.grpc_status, outcome.grpc_status, "grpc-status")
        yield from _unless(self.grpc_message, outcome.grpc_message, "grpc-message")
        if outcome.details:
            yield from _unless(self.reason, outcome.details, "reason")
        if self.path is None and self.headers is None:
            return
        if outcome.upstream is None:
            yield "the request did not reach the upstream"
            return
        yield from _unless(self.path, outcome.upstream.path, "path at the upstream")
        for name, value in (self.headers or {}).items():
            found = outcome.upstream.header(name)
            if found != value:
                yield f"header {name} at the upstream: {_shown(found)}, expected {_shown(value)}"


def _unless(expected: object, found: object, what: str) -> Iterator[str]:
    if expected is not None and expected != found:
        yield f"{what}: {_shown(found)}, expected {_shown(expected)}"


def _shown(value: object) -> str:
    return "absent" if value is None else repr(value)


def expected_of(outcome: Outcome) -> Expectation:
    """The expectation that an outcome fulfils exactly, as a new case has it."""
    if outcome.upstream is not None:
        return Expectation(
            status=outcome.status,
            path=outcome.upstream.path,
            headers={name: ",".join(lines) for name, lines in outcome.upstream.headers.items()},
        )
    return Expectation(
        status=outcome.status,
        body=outcome.body or None,
        www_authenticate=", ".join(outcome.www_authenticate) or None,
        grpc_status=outcome.grpc_status or None,
        grpc_message=outcome.grpc_message or None,
        reason=outcome.details or None,
    )
