"""Counting, adding up over processes and reloads, and the text that Prometheus reads."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.decision import Decision
from extauthz.errors import MalformedCheckRequest
from extauthz.request import Request
from extauthz.server import logs, metrics
from extauthz.server.checks import Checks
from extauthz.server.exposition import exposition
from extauthz.server.metrics import (
    FAMILIES,
    NO_LABELS,
    CacheCounts,
    Family,
    Kind,
    ReasonCounts,
    duration_values,
    merge,
    only_counters,
)


def test_durations_are_cumulative_from_1_us_to_1_s() -> None:
    buckets = [0] * 65
    buckets[5] = 1  # below a microsecond
    buckets[14] = 2  # up to 16 us
    buckets[40] = 4  # above a second
    values = duration_values(buckets, 3_000_000_000)
    assert values[("1.024e-06",)] == 1
    assert values[("8.192e-06",)] == 1
    assert values[("1.6384e-05",)] == 3
    assert values[("1.073741824",)] == 3
    assert values[("+Inf",)] == 7
    assert values[("sum",)] == 3.0


def test_counts_add_up_over_processes_and_ages_are_the_oldest() -> None:
    first = {"decisions": {("deny", "a"): 1}, "jwks_age_seconds": {("u",): 5.0}, "jwks_keys": {("u",): 2}}
    second = {"decisions": {("deny", "a"): 2, ("allow", "allowed"): 7}, "jwks_age_seconds": {("u",): 9.0}}
    assert merge([first, second]) == {
        "decisions": {("deny", "a"): 3, ("allow", "allowed"): 7},
        "jwks_age_seconds": {("u",): 9.0},
        "jwks_keys": {("u",): 2},
    }


def test_of_a_process_that_has_ended_its_counters_are_kept() -> None:
    snapshot = {
        "decisions": {("allow", "allowed"): 7},
        "grpc_in_flight": {NO_LABELS: 3},
        "check_duration_seconds": duration_values([0] * 65, 0),
    }
    assert set(only_counters(snapshot)) == {"decisions", "check_duration_seconds"}


def test_reasons_are_counted_over_reloads_and_late_calls_are_not_lost() -> None:
    counts = ReasonCounts()
    first: dict[str, int] = {"allowed": 5, "a": 1}
    counts.follow(first)
    second: dict[str, int] = {}
    counts.follow(second)
    first["a"] += 1  # a call that began before the reload
    second["b"] = 1
    assert counts.total() == {"allowed": 5, "a": 2, "b": 1}
    counts.follow({"b": 3})
    assert counts.total() == {"allowed": 5, "a": 2, "b": 4}


def test_the_number_of_reasons_is_bounded_whatever_policies_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_REASONS", 10)
    counts = ReasonCounts()
    for generation in range(100):
        counts.follow({f"policy-{generation}": 1, "allowed": 1})
    total = counts.total()
    assert len(total) <= 11
    assert total["allowed"] == 100
    assert sum(total.values()) == 200


def test_the_token_cache_is_counted_over_reloads_and_measured_as_it_is() -> None:
    counts = CacheCounts()
    first, second, third = Statistics(), Statistics(), Statistics()
    counts.follow(first)
    counts.follow(second)
    first.hits += 1  # a call that began before the reload
    counts.follow(third)
    snapshot = counts.snapshot()
    assert snapshot["token_cache_hits"] == {NO_LABELS: 16}
    assert snapshot["token_cache_misses"] == {NO_LABELS: 6}
    assert snapshot["token_cache_entries"] == {NO_LABELS: 10}


class Statistics:
    """Of a token cache."""

    hits, misses, evictions, entries, bytes = 5, 2, 1, 10, 1000


class Authenticator:
    """With a token cache."""

    def __init__(self) -> None:
        self.statistics = Statistics()


class Decider:
    """Decides by the message."""

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}
        self.authenticator = Authenticator()

    def check(self, message: bytes) -> bytes:
        if message == b"malformed":
            raise MalformedCheckRequest("no")
        if message == b"bug":
            raise ZeroDivisionError
        reason = "allowed" if message == b"good" else f"because of {message.decode()}"
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        return message

    def check_logged(self, message: bytes) -> tuple[bytes, Request | None, Decision]:
        return self.check(message), None, Decision(message == b"good")


def test_calls_are_counted_by_outcome(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "monotonic", lambda: 100.0)
    checks = Checks()
    checks.install(Decider())
    for message in (b"good", b"good", b"bad"):
        assert checks.handle(message) == message
    with pytest.raises(MalformedCheckRequest):
        checks.handle(b"malformed")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            checks.handle(b"bug")
    snapshot = checks.snapshot()
    assert snapshot["decisions"] == {("allow", "allowed"): 2, ("deny", "because of bad"): 1}
    assert snapshot["check_errors"] == {("INVALID_ARGUMENT",): 1, ("INTERNAL",): 3}
    assert snapshot["check_duration_seconds"][("+Inf",)] == 3
    # A bug that every call meets is reported with its stack, but not every time.
    assert caplog.text.count("Traceback") == 1


def test_decisions_are_recorded_where_a_recorder_is_given() -> None:
    recorded: list[bool] = []

    class Recorder:
        def record(self, request: Request | None, decision: Decision, began: int) -> None:
            recorded.append(decision.allowed)

    checks = Checks(Recorder())
    checks.install(Decider())
    checks.handle(b"good")
    checks.handle(b"bad")
    assert recorded == [True, False]


def test_the_text_is_what_prometheus_reads() -> None:
    checks = Checks()
    checks.install(Decider())
    for message in (b"good", b'quote " and \\ backslash'):
        checks.handle(message)
    text = exposition({**checks.snapshot(), "process_cpu_seconds": {NO_LABELS: 1.5}}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["process_cpu_seconds"].type == "counter"
    decisions = families["extauthz_decisions"]
    assert decisions.type == "counter"
    assert {(sample.name, sample.labels["decision"], sample.labels["reason"]) for sample in decisions.samples} == {
        ("extauthz_decisions_total", "allow", "allowed"),
        ("extauthz_decisions_total", "deny", 'because of quote " and \\ backslash'),
    }
    duration = families["extauthz_check_duration_seconds"]
    assert duration.type == "histogram"
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in duration.samples}
    assert samples["extauthz_check_duration_seconds_count", None] == 2
    assert samples["extauthz_check_duration_seconds_bucket", "+Inf"] == 2
    assert samples["extauthz_check_duration_seconds_sum", None] > 0


def test_every_family_can_be_written_and_has_a_conventional_name() -> None:
    snapshot = {
        family.name: (
            duration_values([0] * 65, 0) if family.kind is Kind.HISTOGRAM else {tuple("x" for _ in family.labels): 1.0}
        )
        for family in FAMILIES
    }
    names = {family.name for family in text_string_to_metric_families(exposition(snapshot).decode())}
    assert names == {family.name if family.standard else f"extauthz_{family.name}" for family in FAMILIES}
    assert not any(family.name.endswith("_total") for family in FAMILIES)


def test_names_units_and_help_follow_the_conventions() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in family.labels)
        assert family.help.endswith(".")
        # Base units only: seconds and bytes.
        assert not re.search(r"_(ms|us|ns|milliseconds|minutes|kb|mb|kilobytes)(_|$)", family.name)
        assert family.kind is Kind.HISTOGRAM or "le" not in family.labels
    text = exposition({family.name: _sample(family) for family in FAMILIES}).decode()
    kinds = {"counter": "_total", "gauge": "", "histogram": ""}
    for family in FAMILIES:
        name = (family.name if family.standard else f"extauthz_{family.name}") + kinds[family.kind.value]
        assert f"# HELP {name} {family.help}\n# TYPE {name} {family.kind.value}\n" in text
    # What such servers are asked for: requests, durations, denials and token errors by reason, ages of key sets.
    wanted = {"decisions": ("decision", "reason"), "check_errors": ("status",), "jwks_age_seconds": ("uri",)}
    assert wanted.items() <= {family.name: family.labels for family in FAMILIES}.items()


def _sample(family: Family) -> dict[tuple[str, ...], float]:
    if family.kind is Kind.HISTOGRAM:
        return duration_values([0] * 65, 0)
    return {tuple("x" for _ in family.labels): 1.0}
