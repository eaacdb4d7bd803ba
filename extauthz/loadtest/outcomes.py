"""How calls end, and the records that senders make of them.

A record is a row of a numpy array, written by whichever sender is at work and by the native engine directly
(`native/engine.h` has the same layout and numbers). Times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt

RECORD = np.dtype(
    [("due", "i8"), ("taken", "i8"), ("sent", "i8"), ("done", "i8"), ("outcome", "i4"), ("payload", "u4")]
)
"""One finished call: when it was due, taken up by the sender, written out (0: never), and ended; how; which payload."""

Records = npt.NDArray[np.void]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

GRPC_BASE = -100
"""Less the gRPC status: -114 is UNAVAILABLE."""

GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

_FIRST_HTTP_ERROR = 500


class Outcome(IntEnum):
    """How a call ended, as senders write it down; other positive numbers are HTTP statuses, others below are gRPC's.

    A Check call that was denied has the HTTP status of its `denied_response`.
    """

    ALLOWED = 0
    REFUSED = -1
    UNREACHABLE = -2
    RESET = -3
    TIMEOUT = -4
    PROTOCOL = -5
    REFUSED_STREAM = -6
    UNFINISHED = -7


class Protocol(StrEnum):
    """What is spoken to the target: Check calls over gRPC, or plain requests to a proxy."""

    CHECK = "check"
    HTTP1 = "http1"
    H2C = "h2c"


class Verdict(StrEnum):
    """What an outcome counts as. Only answers, allowed or denied, have a latency that is recorded."""

    ALLOWED = "allowed"
    DENIED = "denied"
    ERROR = "error"
    UNFINISHED = "unfinished"


def verdict(outcome: int, protocol: Protocol) -> Verdict:
    """What an outcome counts as. Behind a URL 401 and 403 are denials, 429 and what is above 499 errors."""
    if outcome == Outcome.UNFINISHED:
        return Verdict.UNFINISHED
    if outcome < 0:
        return Verdict.ERROR
    if protocol is Protocol.CHECK:
        return Verdict.ALLOWED if outcome == Outcome.ALLOWED else Verdict.DENIED
    if outcome in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Verdict.DENIED
    failed = outcome >= _FIRST_HTTP_ERROR or outcome == HTTPStatus.TOO_MANY_REQUESTS
    return Verdict.ERROR if failed else Verdict.ALLOWED


def answered(outcomes: Any, protocol: Protocol) -> Booleans:
    """Which of an array of outcomes are answers (allowed or denied): `verdict` for many at once."""
    found: Booleans = outcomes >= 0
    if protocol is not Protocol.CHECK:
        found &= (outcomes < _FIRST_HTTP_ERROR) & (outcomes != HTTPStatus.TOO_MANY_REQUESTS)
    return found


def name(outcome: int) -> str:
    """An outcome in words: `allowed`, `401`, `timeout`, `grpc UNAVAILABLE`."""
    if outcome <= GRPC_BASE:
        status = GRPC_BASE - outcome
        return f"grpc {GRPC_STATUSES[status] if status < len(GRPC_STATUSES) else status}"
    if outcome > 0:
        return str(outcome)
    return Outcome(outcome).name.lower().replace("_", " ")
