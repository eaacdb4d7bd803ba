"""What is kept of a decision once its answer is on its way, for those who tell of decisions: the log and the tracer.

On the way of a call only a few strings are taken out of the request, whose message may be megabytes large; everything
else happens in the threads of the observers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Protocol

from extauthz.decision import Decision
from extauthz.istio.resources import Resources
from extauthz.request import Request, without_query
from extauthz.server.token_finder import Token, TokenFinder

MAX_TEXT = 2_048
"""Characters of a text from the request that are kept."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One decision. Times are Unix nanoseconds, the end never before the beginning.

    Texts are wire text, empty where there is nothing.
    """

    began: int
    ended: int
    decision: Decision
    method: str = ""
    path: str = ""
    host: str = ""
    source_address: str = ""
    request_id: str = ""
    trace_parent: str = ""
    token: Token | None = None


class Observer(Protocol):
    """Is told of decisions; neither method ever waits."""

    def wants(self, decision: Decision) -> bool:
        """Whether to be told of this one; asked once for each."""
        ...

    def put(self, item: Observation) -> None:
        """Be told."""
        ...


class Observers:
    """Tells all observers of each decision (`checks.DecisionRecorder`)."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._tokens = TokenFinder()

    def follow(self, resources: Resources) -> None:
        """From now on tokens are where the rules of `resources` say."""
        self._tokens = TokenFinder(rule for policy in resources.request_authentications for rule in policy.jwt_rules)

    def record(self, request: Request | None, decision: Decision, began: int) -> None:
        """Tell of a decision that was begun at `began` and has just been made; `request` is None without one."""
        takers = [observer for observer in self._observers if observer.wants(decision)]
        if takers:
            observation = self._observation(request, decision, began)
            for taker in takers:
                taker.put(observation)

    def _observation(self, request: Request | None, decision: Decision, began: int) -> Observation:
        ended = max(began, time_ns())  # The wall clock may have been set back meanwhile.
        if request is None:
            return Observation(began, ended, decision)
        token = self._tokens.find(request)
        return Observation(
            began,
            ended,
            decision,
            request.method[:MAX_TEXT],
            without_query(request.path)[:MAX_TEXT],
            request.host[:MAX_TEXT],
            request.source_address,
            _first(request.lines("x-request-id")),
            _first(request.lines("traceparent")),
            Token.of(token) if token else None,
        )


def _first(lines: Sequence[str]) -> str:
    return lines[0][:MAX_TEXT] if lines else ""
