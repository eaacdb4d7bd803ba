"""Answers Check calls by the policies in force, and counts what an operator wants to know of them.

This is the handler that transports call, one call at a time. What it counts are plain integers; what it does beside
the decision costs a fraction of a microsecond. Replacing the policies is one assignment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter_ns, time_ns
from typing import Protocol

from extauthz.decision import Decision
from extauthz.errors import MalformedCheckRequest
from extauthz.request import Request
from extauthz.server.logs import StackThrottle
from extauthz.server.metrics import (
    ALLOWED_REASON,
    CacheCounts,
    CacheStatistics,
    ReasonCounts,
    Snapshot,
    duration_values,
)
from extauthz.server.transport import CallFailed, Status

_log = logging.getLogger(__name__)

CheckFunction = Callable[[bytes], bytes]


class Cached(Protocol):
    """The part of an `Authenticator` that tells of its cache."""

    @property
    def statistics(self) -> CacheStatistics: ...


class Decider(Protocol):
    """The part of an `Authorizer` that answers calls."""

    reasons: dict[str, int]

    @property
    def authenticator(self) -> Cached: ...

    def check(self, message: bytes) -> bytes: ...

    def check_logged(self, message: bytes) -> tuple[bytes, Request | None, Decision]: ...


class DecisionRecorder(Protocol):
    """Takes each decision, the request it was made about, and when it was begun (Unix nanoseconds); never waits."""

    def record(self, request: Request | None, decision: Decision, began: int) -> None: ...


class Checks:
    """Holds the policies in force (`install`) and answers calls by them (`handle`)."""

    __slots__ = (
        "_check",
        "_recorder",
        "_throttle",
        "_tokens",
        "buckets",
        "elapsed_ns",
        "internal_errors",
        "malformed",
        "reasons",
    )

    def __init__(self, recorder: DecisionRecorder | None = None) -> None:
        self.buckets = [0] * 65
        """`buckets[b]` counts calls that took a number of nanoseconds with b bits."""
        self.elapsed_ns = 0
        self.malformed = 0
        self.internal_errors = 0
        self.reasons = ReasonCounts()
        self._tokens = CacheCounts()
        self._recorder = recorder
        self._throttle = StackThrottle()
        self._check: CheckFunction = _without_policies

    def install(self, decider: Decider) -> None:
        """Answer by `decider` from the next call on."""
        self.reasons.follow(decider.reasons)
        self._tokens.follow(decider.authenticator.statistics)
        if self._recorder is None:
            self._check = decider.check
        else:
            self._check = _recording(decider, self._recorder)

    def handle(self, message: bytes) -> bytes:
        """Answer one call. Raises what the decision raised, after counting it."""
        began = perf_counter_ns()
        try:
            answer = self._check(message)
        except MalformedCheckRequest:
            self.malformed += 1
            raise
        except CallFailed:
            raise
        except Exception:
            self._failed()
            raise
        elapsed = perf_counter_ns() - began
        self.buckets[elapsed.bit_length()] += 1
        self.elapsed_ns += elapsed
        return answer

    def snapshot(self) -> Snapshot:
        """The counts so far."""
        return {
            "decisions": {
                ("allow" if reason == ALLOWED_REASON else "deny", reason): count
                for reason, count in self.reasons.total().items()
            },
            "check_duration_seconds": duration_values(self.buckets, self.elapsed_ns),
            "check_errors": {
                (Status.INVALID_ARGUMENT.name,): self.malformed,
                (Status.INTERNAL.name,): self.internal_errors,
            },
            **self._tokens.snapshot(),
        }

    def _failed(self) -> None:
        self.internal_errors += 1
        held_back = self._throttle.admit()
        if held_back is not None:
            more = f" ({held_back} more since the last report)" if held_back else ""
            _log.error("a Check call could not be evaluated and ended with INTERNAL%s", more, exc_info=True)


def _recording(decider: Decider, recorder: DecisionRecorder) -> CheckFunction:
    check_logged, record = decider.check_logged, recorder.record

    def check(message: bytes) -> bytes:
        began = time_ns()
        answer, request, decision = check_logged(message)
        record(request, decision, began)
        return answer

    return check


def _without_policies(message: bytes) -> bytes:
    raise CallFailed(Status.UNAVAILABLE, "no policies are loaded yet")
