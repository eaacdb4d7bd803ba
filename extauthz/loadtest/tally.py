"""What was seen during one step: counted in slices of time from the records of senders, and added up over workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from extauthz.loadtest.histogram import Histogram, merged
from extauthz.loadtest.outcomes import Protocol, Records, answered


@dataclass(frozen=True, slots=True)
class Window:
    """The measured time of a step (CLOCK_MONOTONIC ns): calls due from `start` to `end`; those before are warm-up."""

    start: int
    end: int
    slice_ns: int
    protocol: Protocol


@dataclass(slots=True)
class Slice:
    """The calls that were due in one slice of time: latencies of answers, and how all of them ended."""

    latency: Histogram = field(default_factory=Histogram)
    """From when a call was due to its answer: what a client sees (corrected for coordinated omission)."""
    service: Histogram = field(default_factory=Histogram)
    """From when a call was written out to its answer (uncorrected)."""
    outcomes: Counter[int] = field(default_factory=Counter)

    def add(self, other: Slice) -> None:
        """Add what another worker has seen."""
        self.latency.add(other.latency)
        self.service.add(other.service)
        self.outcomes.update(other.outcomes)


@dataclass(slots=True)
class Tally:
    """Everything that was seen of a step so far. `lag` is how late the sender took calls up: its own fault alone."""

    slices: dict[int, Slice] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)
    warmup: int = 0
    answered_in_time: int = 0

    def record(self, records: Records, window: Window) -> None:
        """Count the records of calls that have ended."""
        measured = records["due"] >= window.start
        self.warmup += len(records) - int(measured.sum())
        records = records[measured]
        if not len(records):
            return
        self.lag.record(records["taken"] - records["due"])
        answers = answered(records["outcome"], window.protocol)
        self.answered_in_time += int((answers & (records["done"] <= window.end)).sum())
        numbers = (records["due"] - window.start) // window.slice_ns
        for number in np.unique(numbers).tolist():
            inside = numbers == number
            self._slice(number, records[inside], answers[inside])

    def _slice(self, number: int, records: Records, answers: np.ndarray) -> None:
        into = self.slices.setdefault(number, Slice())
        outcomes, counts = np.unique(records["outcome"], return_counts=True)
        for outcome, count in zip(outcomes.tolist(), counts.tolist(), strict=True):
            into.outcomes[outcome] += count
        records = records[answers]
        into.latency.record(records["done"] - records["due"])
        written = records[records["sent"] > 0]
        into.service.record(written["done"] - written["sent"])

    def add(self, other: Tally) -> None:
        """Add what another worker has seen of the same step."""
        for number, part in other.slices.items():
            self.slices.setdefault(number, Slice()).add(part)
        self.lag.add(other.lag)
        self.warmup += other.warmup
        self.answered_in_time += other.answered_in_time

    def whole(self) -> Slice:
        """All slices as one."""
        total = Slice()
        for part in self.slices.values():
            total.outcomes.update(part.outcomes)
        total.latency = merged(part.latency for part in self.slices.values())
        total.service = merged(part.service for part in self.slices.values())
        return total
