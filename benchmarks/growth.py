"""How a decision's time grows with rules, with distinct tokens, and with the share of tokens that are new."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter

from benchmarks.measure import SEED, Findings, calls_us, interleaved
from benchmarks.story import Measured
from extauthz.authorizer import Authorizer
from extauthz.istio.resources import Action, AuthorizationPolicy, Metadata, Operation, Resources, Rule

RULE_COUNTS = (10, 100, 1_000, 10_000)
TOKEN_COUNTS = (1, 100, 10_000, 100_000)
HIT_RATES = (0, 50, 90, 99, 100)


def rules(*, quick: bool) -> Findings:
    """ALLOW policies of one path each: a request that the last one matches, and one that none does."""
    findings = Findings()
    story = Measured.make()
    functions: dict[str, Callable[[], object]] = {}
    for count in RULE_COUNTS:
        policies = tuple(
            AuthorizationPolicy(
                metadata=Metadata(name=f"p{number}", namespace="istio-system"),
                action=Action.ALLOW,
                rules=(Rule(operations=(Operation(paths=(f"/api/{number}",)),)),),
            )
            for number in range(count)
        )
        start = perf_counter()
        subject = Authorizer(Resources((), policies))
        findings.add(f"{count}", {"compile_ms": (perf_counter() - start) * 1e3})
        functions[f"{count} allowed"] = partial(subject.check, story.message(path=f"/api/{count - 1}"))
        functions[f"{count} denied"] = partial(subject.check, story.message(path="/elsewhere"))
    times = calls_us(functions, 0.02 if quick else 0.15, 3 if quick else 7)
    for name, figures in times.sides.items():
        rule_count, _, answer = name.partition(" ")
        for value in figures["us"]:
            findings.add(rule_count, {f"{answer}_us": value})
    findings.failures |= times.failures
    return findings


def tokens(*, quick: bool) -> Findings:
    """Checks of so many distinct tokens, all seen before, drawn with equal chance: the worst for processor caches."""
    sides = {}
    for count in TOKEN_COUNTS[: 3 if quick else None]:
        story = Measured.make("HS256")
        subject = story.authorizer()
        messages = [story.message(story.token(f"user-{number}")) for number in range(count)]
        for message in messages:
            subject.check(message)
        order = random.Random(SEED).choices(messages, k=20_000)
        sides[str(count)] = partial(_checked, subject, order)
    return interleaved(sides, 3 if quick else 5)


def hit_rates(*, quick: bool) -> Findings:
    """RS256 tokens of which so many in a hundred were seen before, in random order."""
    story = Measured.make()
    subject = story.authorizer()
    known = story.message(story.token())
    subject.check(known)
    count, rounds = (200, 2) if quick else (1_000, 3)
    fresh = (story.message(story.token(f"fresh-{number}")) for number in range(2**31))
    return interleaved({f"{rate} %": partial(_mixed, subject, known, fresh, rate, count) for rate in HIT_RATES}, rounds)


def _mixed(subject: Authorizer, known: bytes, fresh: Iterator[bytes], rate: int, count: int) -> Mapping[str, float]:
    seen = count * rate // 100
    order = [known] * seen + [next(fresh) for _ in range(count - seen)]
    random.Random(SEED).shuffle(order)
    return _checked(subject, order)


def _checked(subject: Authorizer, order: list[bytes]) -> Mapping[str, float]:
    statistics = subject.authenticator.statistics
    hits, misses = statistics.hits, statistics.misses
    check = subject.check
    start = perf_counter()
    for message in order:
        check(message)
    return {
        "check_us": (perf_counter() - start) / len(order) * 1e6,
        "hits": statistics.hits - hits,
        "misses": statistics.misses - misses,
    }
