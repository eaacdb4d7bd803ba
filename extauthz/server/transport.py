"""The seam between a server and the way its calls travel: what both transports take, offer and promise.

A transport moves bytes. It knows method paths, gRPC statuses and limits; it knows nothing of CheckRequests, policies,
metrics or signals. `grpcio` is the reference, `native` the fast one, and `choose` says which of them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from extauthz.errors import ExtAuthzError, UsageError
from extauthz.server.listeners import Address

Handler = Callable[[bytes], bytes]
"""Takes the message of one call and returns the message of its answer, or raises (see `Transport`)."""

CHECK_SERVICE = "envoy.service.auth.v3.Authorization"
CHECK_METHOD = f"/{CHECK_SERVICE}/Check"
HEALTH_SERVICE = "grpc.health.v1.Health"
HEALTH_CHECK_METHOD = f"/{HEALTH_SERVICE}/Check"
HEALTH_WATCH_METHOD = f"/{HEALTH_SERVICE}/Watch"

KNOWN_SERVICES = ("", CHECK_SERVICE)
"""What grpc.health.v1 is asked about: the server as a whole and its one service. Anything else is NOT_FOUND."""


class Status(IntEnum):
    """The gRPC status codes that a transport answers with (google.rpc.Code)."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallFailed(ExtAuthzError):
    """A handler ends its call with a gRPC status of its choice and a text that the caller may see."""

    def __init__(self, status: Status, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(f"{status.name}: {text}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may take. A transport that cannot enforce one of them says so where it is built.

    - `message_bytes`: the largest message of a call; bodies may be sent along. Larger: RESOURCE_EXHAUSTED.
    - `header_bytes`: all header fields of one call (SETTINGS_MAX_HEADER_LIST_SIZE).
    - `streams`: concurrent streams of one connection (SETTINGS_MAX_CONCURRENT_STREAMS). Envoy opens one connection for
      each of its workers and sends up to this many calls over it before it opens another.
    - `connections`: open at once; further ones are closed as soon as they are accepted.
    - `in_flight`: calls begun and not yet answered, 0 for the transport's own limit (`transports.IN_FLIGHT`); further
      ones end at once with RESOURCE_EXHAUSTED, which Envoy treats as an error of ours, never as an answer.
    - `preface_seconds`: from accept to a complete HTTP/2 preface. `idle_seconds`: without any frame (Envoy's pings
      count), 0 for no limit. `connection_age_seconds`: after which a connection is closed gracefully, give or take a
      tenth so that the connections of one start do not all end together; 0 for never.
    """

    message_bytes: int = 16 * 1024 * 1024
    header_bytes: int = 64 * 1024
    streams: int = 1024
    connections: int = 16 * 1024
    in_flight: int = 0
    preface_seconds: float = 10.0
    idle_seconds: float = 0.0
    connection_age_seconds: float = 0.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The server's certificate and what it asks of clients, all PEM files that are read again when they change.

    Without `client_ca` no client certificate is asked for; with it every client must show one that the CA signed, and,
    if `client_names` is not empty, one of whose SANs (or, without any, whose common name) is listed.
    """

    certificate: str
    key: str
    client_ca: str = ""
    client_names: tuple[str, ...] = ()


class Transport(Protocol):
    """One running server of calls. Built from addresses, handlers by method path, and limits; then, in this order:

    `bind` once, `start` once, `set_serving` any number of times, `drain` at most once, `stop` at least once. None is
    called from a handler. `statistics` may be called from any thread, and `stop` from another one while `drain` runs.

    A handler that raises MalformedCheckRequest ends its call with INVALID_ARGUMENT and the error's text; CallFailed
    ends it with its own status and text; any other exception ends it with INTERNAL and a text that reveals nothing. In
    each case the transport goes on. Handlers count and log their own failures (see `checks`); a transport logs none.
    """

    @property
    def name(self) -> str:
        """`grpcio` or `native`."""
        ...

    def bind(self) -> Sequence[Address]:
        """Listen on every address, answering nothing yet, and return them as bound (port 0 replaced).

        Raises UsageError, with nothing left listening, when one of them cannot be had.
        """
        ...

    def start(self) -> None:
        """Begin to answer, in threads of the transport's own; returns at once."""
        ...

    def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 says of KNOWN_SERVICES from now on: SERVING or NOT_SERVING. Starts as NOT_SERVING."""
        ...

    def drain(self, seconds: float) -> bool:
        """Accept what waits, close the listeners, send GOAWAY, answer all calls in flight, close the connections.

        Returns when nothing is left (True) or after `seconds` (False).
        """
        ...

    def stop(self) -> None:
        """End at once: close everything, calls in flight included, and give up the threads. May be called twice."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """Plain integers by name, as far as the transport knows them: `connections` and `in_flight` (now),
        `connections_total`, `calls_total`, `resets_total`, `received_bytes_total`, `sent_bytes_total`, and
        `refused_total:REASON` for each reason a connection or call was refused for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which transport runs, and the reason, in words for the log."""

    name: str
    reason: str


def choose(wanted: str, *, tls: bool, native: tuple[bool, str]) -> Choice:
    """Pick `grpcio` or `native` for `--transport auto|grpcio|native`.

    `native` is `extauthz.server.native.available()`: whether the extension can be loaded, and if not, why and what to
    install. Raises UsageError where what is wanted cannot be had.
    """
    available, explanation = native
    if wanted == "grpcio":
        return Choice("grpcio", "asked for")
    if wanted == "native":
        if tls:
            raise UsageError("--transport native does not speak TLS: use --transport grpcio, or leave --tls-cert out")
        if not available:
            raise UsageError(f"--transport native is not available: {explanation}")
        return Choice("native", "asked for")
    if wanted != "auto":
        raise UsageError(f"--transport {wanted!r}: use auto, grpcio or native")
    if tls:
        return Choice("grpcio", "TLS was asked for")
    if not available:
        return Choice("grpcio", f"native is not available: {explanation}")
    return Choice("native", "it is built, and no TLS was asked for")
