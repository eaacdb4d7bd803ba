"""Time of a decision by stage, and how it grows with rules and tokens; in one process, without a transport."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter, time
from typing import Any

from benchmarks.measure import Samples, per_call_us, resident_bytes
from benchmarks.story import Measured, options
from extauthz.authorizer import Authorizer
from extauthz.checkapi.read import check_request_reader, read_check_request
from extauthz.checkapi.write import write_decision
from extauthz.istio.load import load
from extauthz.istio.resources import Action, AuthorizationPolicy, Metadata, Operation, Resources, Rule
from extauthz.minting import ALGORITHMS

RULE_COUNTS = (10, 100, 1_000, 10_000)
TOKEN_COUNTS = (1, 1_000, 100_000)
HIT_RATES = (0, 50, 90, 100)


def run(*, quick: bool) -> dict[str, Any]:
    """All figures of this file, microseconds unless their name says otherwise."""
    seconds = 0.05 if quick else 0.3
    return {
        "stages": _stages(seconds),
        "first_seen": _first_seen(20 if quick else 200),
        "rules": _rules(seconds, RULE_COUNTS[:3] if quick else RULE_COUNTS),
        "tokens": _tokens(TOKEN_COUNTS[:2] if quick else TOKEN_COUNTS),
        "hit_rates": _hit_rates(500 if quick else 5_000),
    }


def authorizer(policies: str) -> Authorizer:
    """An Authorizer of policies given as YAML, for the story's workload."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "policies.yaml")
        file.write_text(policies)
        return Authorizer(load([str(file)]).resources, options())


def _stages(seconds: float) -> dict[str, Any]:
    story = Measured.make()
    subject = authorizer(story.policies)
    message = story.message(story.token())
    subject.check(message)
    request = read_check_request(message)
    now = time()
    identity = subject.authenticator.authenticate(request, now).identity
    decision = subject.decide(request, now)
    read = check_request_reader(subject.reads_headers)
    stages = {
        "read": lambda: read(message),
        "read, full codec": lambda: read_check_request(message),
        "authenticate, cached": lambda: subject.authenticator.authenticate(request, now),
        "authorize": lambda: subject.policies.decide(request, identity),
        "write, not cached": lambda: write_decision(decision),
        "check, cached token": lambda: subject.check(message),
    }
    for name, text in (("check, no token", story.message()), ("check, bad token", story.message("a.b.c"))):
        stages[name] = partial(subject.check, text)
    return {name: per_call_us(stage, seconds).summary() for name, stage in stages.items()}


def _first_seen(count: int) -> dict[str, Any]:
    """A token's first check by algorithm, beside the bare signature check of the same tokens."""
    figures = {}
    for algorithm in ALGORITHMS:
        story = Measured.make(algorithm)
        subject = authorizer(story.policies)
        tokens = [story.token(f"user-{number}") for number in range(count)]
        checks = _each(subject.check, ((story.message(token),) for token in tokens))
        key = subject.authenticator.providers[0].source.key_set.keys[0]
        signed = [token.rpartition(".")[0].encode() for token in tokens]
        signatures = [story.key.sign(text) for text in signed]
        bare = _each(key.verify, ((algorithm, *pair) for pair in zip(signed, signatures, strict=True)))
        figures[algorithm] = {"check": checks.summary(), "signature alone": bare.summary()}
    return figures


def _each(function: Callable[..., object], calls: Iterable[tuple[Any, ...]]) -> Samples:
    samples = []
    for arguments in list(calls):
        start = perf_counter()
        function(*arguments)
        samples.append((perf_counter() - start) * 1e6)
    return Samples(tuple(samples))


def _rules(seconds: float, counts: tuple[int, ...]) -> dict[str, Any]:
    """ALLOW policies of one path each: a request that the last one matches, and one that none does."""
    figures = {}
    story = Measured.make()
    for count in counts:
        policies = tuple(
            AuthorizationPolicy(
                metadata=Metadata(name=f"p{number}", namespace="istio-system"),
                action=Action.ALLOW,
                rules=(Rule(operations=(Operation(paths=(f"/api/{number}",)),)),),
            )
            for number in range(count)
        )
        before, start = resident_bytes(os.getpid()), perf_counter()
        subject = Authorizer(Resources((), policies))
        compiled = perf_counter() - start
        grown = resident_bytes(os.getpid()) - before
        allowed, denied = story.message(path=f"/api/{count - 1}"), story.message(path="/elsewhere")
        figures[str(count)] = {
            "allowed": per_call_us(partial(subject.check, allowed), seconds).summary(),
            "denied": per_call_us(partial(subject.check, denied), seconds).summary(),
            "compile_seconds": compiled,
            "bytes_per_rule": grown / count,
        }
    return figures


def _tokens(counts: tuple[int, ...]) -> dict[str, Any]:
    """Checks of many distinct cached tokens in random order, and the memory that their cache takes."""
    figures = {}
    for count in counts:
        story = Measured.make("HS256")
        subject = authorizer(story.policies)
        messages = [story.message(story.token(f"user-{number}")) for number in range(count)]
        before = resident_bytes(os.getpid())
        for message in messages:
            subject.check(message)
        grown = resident_bytes(os.getpid()) - before
        order = random.Random(1).choices(messages, k=20_000)
        start = perf_counter()
        for message in order:
            subject.check(message)
        figures[str(count)] = {
            "check_us": (perf_counter() - start) / len(order) * 1e6,
            "cache_bytes": grown,
            "hits": subject.authenticator.statistics.hits,
            "misses": subject.authenticator.statistics.misses,
        }
    return figures


def _hit_rates(count: int) -> dict[str, Any]:
    """RS256 tokens of which a share was seen before."""
    figures = {}
    story = Measured.make()
    subject = authorizer(story.policies)
    known = story.message(story.token())
    subject.check(known)
    for rate in HIT_RATES:
        fresh = iter([story.message(story.token(f"{rate}-{number}")) for number in range(count * (100 - rate) // 100)])
        choose = random.Random(rate)
        order = [known] * (count * rate // 100)
        order.extend(fresh)
        choose.shuffle(order)
        start = perf_counter()
        for message in order:
            subject.check(message)
        figures[str(rate)] = (perf_counter() - start) / len(order) * 1e6
    return figures
