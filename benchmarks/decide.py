"""Time of a decision by stage, and of a token's first check beside the bare signature; in one process, no transport."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter, time
from typing import Any

from benchmarks.growth import hit_rates, rules, tokens
from benchmarks.measure import Findings, calls_us
from benchmarks.signatures import signature_check
from benchmarks.story import Measured
from extauthz.checkapi.read import check_request_reader, read_check_request
from extauthz.checkapi.write import write_decision
from extauthz.minting import ALGORITHMS

ROUNDS = 5
TOKENS_PER_ROUND = 60


def run(*, quick: bool) -> dict[str, Any]:
    """All figures of decisions, microseconds unless their name says otherwise."""
    findings = {
        "stages": _stages(0.02 if quick else 0.2, 3 if quick else ROUNDS),
        "first_seen": _first_seen(20 if quick else TOKENS_PER_ROUND, 2 if quick else ROUNDS),
        "rules": rules(quick=quick),
        "tokens": tokens(quick=quick),
        "hit_rates": hit_rates(quick=quick),
    }
    return {
        "figures": {name: found.summary() for name, found in findings.items()},
        "failures": {
            f"{name}: {side}": reason for name, found in findings.items() for side, reason in found.failures.items()
        },
    }


def _stages(seconds: float, rounds: int) -> Findings:
    story = Measured.make()
    subject = story.authorizer()
    message = story.message(story.token())
    bad, none = story.message("a.b.c"), story.message()
    elsewhere = story.message(path="/productpage")
    now = time()
    findings = Findings()
    made: dict[str, Callable[[], Callable[[], object]]] = {
        "parse": lambda: partial(check_request_reader(subject.reads_headers), message),
        "parse, by protobuf alone": lambda: partial(read_check_request, message),
        "token, seen before": lambda: partial(subject.authenticator.authenticate, read_check_request(message), now),
        "policy": lambda: partial(
            subject.policies.decide,
            read_check_request(message),
            subject.authenticator.authenticate(read_check_request(message), now).identity,
        ),
        "response, made anew": lambda: partial(write_decision, subject.decide(read_check_request(message), now)),
        "check: token seen before, allowed": lambda: partial(subject.check, message),
        "check: no token, denied by policy": lambda: partial(subject.check, none),
        "check: no token, allowed": lambda: partial(subject.check, elsewhere),
        "check: bad token seen before, refused": lambda: partial(subject.check, bad),
    }
    subject.check(message)
    functions = {}
    for name, make in made.items():
        try:
            functions[name] = make()
        except Exception as error:
            findings.fail(name, error)
    return calls_us(functions, seconds, rounds, findings)


def _first_seen(count: int, rounds: int) -> Findings:
    """A token's first check by algorithm, and in the same loop the bare signature check of the same token.

    A round's figure is the median of its tokens, so that an interruption of one of them does not show.
    """
    findings = Findings()
    sides = {}
    for algorithm in ALGORITHMS:
        try:
            sides[algorithm] = _FirstSeen(algorithm, count * rounds)
        except Exception as error:
            findings.fail(algorithm, error)
    for _ in range(rounds):
        for algorithm, side in sides.items():
            if algorithm not in findings.failures:
                try:
                    findings.add(algorithm, side.round(count))
                except Exception as error:
                    findings.fail(algorithm, error)
    return findings


class _FirstSeen:
    """Tokens of one algorithm that its authorizer has not seen."""

    def __init__(self, algorithm: str, count: int) -> None:
        story = Measured.make(algorithm)
        self._check = story.authorizer().check
        tokens = [story.token(f"user-{number}") for number in range(count)]
        self._calls = [(story.message(token), signature_check(story.key, token)) for token in tokens]
        self._check(story.message(story.token("warm-up")))

    def round(self, count: int) -> Mapping[str, float]:
        """Medians of so many tokens."""
        check = self._check
        checks: list[float] = []
        bare: list[float] = []
        for number in range(count):
            message, verify = self._calls.pop()
            calls: list[tuple[list[float], Callable[[], object]]] = [(bare, verify), (checks, partial(check, message))]
            # Who comes second finds the processor's caches warm: that has to be each of them in turn.
            for times, call in calls if number % 2 else reversed(calls):
                start = perf_counter()
                call()
                times.append((perf_counter() - start) * 1e6)
        above = [whole - part for whole, part in zip(checks, bare, strict=True)]
        return {
            "check_us": statistics.median(checks),
            "signature_us": statistics.median(bare),
            "above_us": statistics.median(above),
        }
