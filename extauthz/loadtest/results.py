"""What a load test found, as it is reported: one result for each rate, with what speaks against believing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extauthz.loadtest import outcomes
from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.crew import StepSeen
from extauthz.loadtest.histogram import Histogram
from extauthz.loadtest.outcomes import Outcome, Protocol, Verdict
from extauthz.loadtest.tally import Slice, Window

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

LAG_ALLOWED_NS = 1_000_000
LAG_SHARE_ALLOWED = 0.1
"""The generator has kept up when 99 % of calls were taken up within a millisecond of when they were due, or within a
tenth of the 99th percentile of the latencies themselves: then its own delay is not what was measured."""

ASKED_SHARE_NEEDED = 0.99


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies in ns: how many, mean, smallest, largest, and percentiles (`PERCENTILES`)."""

    count: int
    mean: float
    minimum: int
    maximum: int
    percentiles: Mapping[float, int]

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        """What a histogram says; all 0 when it is empty."""
        values = histogram.percentiles(PERCENTILES)
        minimum = histogram.minimum if histogram.total else 0
        percentiles = dict(zip(PERCENTILES, values, strict=True))
        return cls(histogram.total, histogram.mean, minimum, histogram.maximum, percentiles)


@dataclass(frozen=True, slots=True)
class Counts:
    """How calls ended. `errors` and `denied_by` are by name; `asked` is the sum of everything."""

    allowed: int = 0
    denied: int = 0
    unfinished: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    denied_by: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, counted: Mapping[int, int], protocol: Protocol) -> Counts:
        """Sort outcomes by what they count as."""
        allowed = denied = 0
        errors: dict[str, int] = {}
        denied_by: dict[str, int] = {}
        for outcome, count in sorted(counted.items()):
            kind = outcomes.verdict(outcome, protocol)
            name = outcomes.name(outcome)
            if kind is Verdict.ALLOWED:
                allowed += count
            elif kind is Verdict.DENIED:
                denied += count
                denied_by[name] = count
            elif kind is Verdict.ERROR:
                errors[f"http {name}" if outcome > 0 else name] = count
        return cls(allowed, denied, counted.get(Outcome.UNFINISHED, 0), errors, denied_by)

    @property
    def answered(self) -> int:
        """Allowed and denied."""
        return self.allowed + self.denied

    @property
    def failed(self) -> int:
        """All errors."""
        return sum(self.errors.values())

    @property
    def asked(self) -> int:
        """All calls that were due."""
        return self.answered + self.failed + self.unfinished


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The calls due in one slice of a step's time, which begins `at` seconds after its measured time does."""

    at: float
    counts: Counts
    latency: Latency
    histogram: Histogram = field(repr=False)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One rate.

    `rate` was asked for, `began` is when its measured time did, in seconds from the start of the whole run, and
    `achieved` is answers per second that came while the step lasted. `latency` counts from when a
    call was due, `service` from when it was written out; both are of answers only. `lag` is how late the generator took
    calls up. `problems` says why the result is not to be believed; it is valid without any.
    """

    rate: float
    began: float
    seconds: float
    slice_seconds: float
    warmup_calls: int
    counts: Counts
    achieved: float
    latency: Latency
    service: Latency
    lag: Latency
    problems: tuple[str, ...]
    cpu_seconds: float
    peak_in_flight: int
    connections_opened: int
    slices: tuple[SliceResult, ...] = field(repr=False)
    latency_histogram: Histogram = field(repr=False)
    service_histogram: Histogram = field(repr=False)

    @property
    def valid(self) -> bool:
        """Whether the generator kept up, so that the figures are about the target."""
        return not self.problems


def step_result(rate: float, run_started: int, window: Window, seen: StepSeen) -> StepResult:
    """The result of a step from what was seen of it; the run started at `run_started` (CLOCK_MONOTONIC ns)."""
    end = window.end if seen.stopped_at is None else min(window.end, max(seen.stopped_at, window.start))
    seconds = (end - window.start) / NANOSECONDS
    whole = seen.tally.whole()
    counts = Counts.of(whole.outcomes, window.protocol)
    latency, lag = Latency.of(whole.latency), Latency.of(seen.tally.lag)
    return StepResult(
        rate=rate,
        began=(window.start - run_started) / NANOSECONDS,
        seconds=seconds,
        slice_seconds=window.slice_ns / NANOSECONDS,
        warmup_calls=seen.tally.warmup,
        counts=counts,
        achieved=seen.tally.answered_in_time / seconds if seconds else 0.0,
        latency=latency,
        service=Latency.of(whole.service),
        lag=lag,
        problems=problems(rate * seconds, counts, latency, lag),
        cpu_seconds=seen.cpu_seconds,
        peak_in_flight=seen.peak_in_flight,
        connections_opened=seen.connections_opened,
        slices=tuple(_slice_result(number, part, window) for number, part in sorted(seen.tally.slices.items())),
        latency_histogram=whole.latency,
        service_histogram=whole.service,
    )


def problems(wanted: float, counts: Counts, latency: Latency, lag: Latency) -> tuple[str, ...]:
    """What speaks against a result: `wanted` calls were to be made."""
    found = []
    late = lag.percentiles[99.0]
    allowed = max(LAG_ALLOWED_NS, LAG_SHARE_ALLOWED * latency.percentiles[99.0])
    if late > allowed:
        found.append(
            f"the generator could not keep up: 1 % of calls were taken up {late / 1e6:.2f} ms late or later "
            f"(at most {allowed / 1e6:.2f} ms would do); ask for less, or give it more --workers or a free core"
        )
    # A Poisson stream brings more or less than its rate by chance: three standard deviations are no fault.
    if counts.asked < ASKED_SHARE_NEEDED * wanted - 3 * wanted**0.5:
        found.append(f"the generator made {counts.asked} calls of about {wanted:.0f}")
    return tuple(found)


def _slice_result(number: int, part: Slice, window: Window) -> SliceResult:
    at = number * window.slice_ns / NANOSECONDS
    counts = Counts.of(part.outcomes, window.protocol)
    return SliceResult(at, counts, Latency.of(part.latency), part.latency)
