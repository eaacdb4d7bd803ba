"""Two runs compared: the difference of each figure, with the interval in which it lies with 95 % confidence.

Calls that are near in time share their luck, so single latencies must not be drawn anew as if they were independent;
the slices of time are (a block bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extauthz.loadtest.histogram import Histogram, highest, merged
from extauthz.loadtest.outcomes import Integers
from extauthz.loadtest.report_json import Sample, percentile_name

COMPARED = (50.0, 90.0, 99.0, 99.9)
FEWEST_SLICES = 5
RESAMPLES = 1000
_CONFIDENCE = (2.5, 97.5)
_SEED = 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure at one rate, before and now, in ns. `low` and `high` enclose the difference; None with too few slices.

    `significant` says that the interval does not hold 0.
    """

    rate: float
    figure: str
    before: float
    now: float
    low: float | None
    high: float | None

    @property
    def change(self) -> float:
        """Now less before."""
        return self.now - self.before

    @property
    def significant(self) -> bool:
        """Whether chance alone is unlikely to explain the difference."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, and what was left out or speaks against comparing, in words."""

    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]


def compare(now: Sequence[Sample], before: Sequence[Sample]) -> Comparison:
    """Compare what both runs have: the rates that are the same."""
    known = {sample.rate: sample for sample in before}
    differences: list[Difference] = []
    remarks: list[str] = []
    for sample in now:
        other = known.get(sample.rate)
        if other is None:
            remarks.append(f"{sample.rate:g}/s: not in the other report")
            continue
        invalid = [name for name, run in (("this", sample), ("the other", other)) if not run.valid]
        if invalid:
            remarks.append(f"{sample.rate:g}/s: {' and '.join(invalid)} result is not valid")
        shares = [100 * run.failed / run.asked if run.asked else 0.0 for run in (other, sample)]
        if shares[0] != shares[1]:
            remarks.append(f"{sample.rate:g}/s: errors {shares[0]:.3g} % before, {shares[1]:.3g} % now")
        if min(len(sample.slices), len(other.slices)) < FEWEST_SLICES:
            remarks.append(f"{sample.rate:g}/s: fewer than {FEWEST_SLICES} slices of time: no confidence intervals")
        differences.extend(_differences(sample, other))
    return Comparison(tuple(differences), tuple(remarks))


def _differences(now: Sample, before: Sample) -> list[Difference]:
    whole_now, whole_before = merged(now.slices), merged(before.slices)
    enough = min(len(now.slices), len(before.slices)) >= FEWEST_SLICES
    rng = np.random.default_rng(_SEED)
    spreads = _resampled(now.slices, rng) - _resampled(before.slices, rng) if enough else None
    found = []
    for column, percent in enumerate(COMPARED):
        low = high = None
        if spreads is not None:
            low, high = (float(value) for value in np.percentile(spreads[:, column], _CONFIDENCE))
        figure = percentile_name(percent)
        values = (float(whole_before.percentile(percent)), float(whole_now.percentile(percent)))
        found.append(Difference(now.rate, figure, *values, low, high))
    return found


def _resampled(slices: Sequence[Histogram], rng: np.random.Generator) -> Integers:
    """Percentiles (columns) of `RESAMPLES` histograms (rows), each of as many slices drawn with putting back."""
    width = max(len(part.counts) for part in slices)
    counts = np.zeros((len(slices), width), np.int64)
    for row, part in enumerate(slices):
        counts[row, : len(part.counts)] = part.counts
    used = np.nonzero(counts.sum(axis=0))[0]
    draws = rng.multinomial(len(slices), [1 / len(slices)] * len(slices), size=RESAMPLES)
    # Exact in doubles, and matrix products of doubles are fast.
    running = np.cumsum(draws.astype(np.float64) @ counts[:, used].astype(np.float64), axis=1)
    values = highest(used)
    ranks = np.maximum(running[:, -1:] * np.array(COMPARED) / 100, 1)
    found = [values[(running >= ranks[:, column : column + 1]).argmax(axis=1)] for column in range(len(COMPARED))]
    return np.stack(found, axis=1)
