"""Latency histograms in the layout of HdrHistogram: three significant digits from 1 ns to an hour.

Recording is done here with numpy, a whole array of values at once; the hdrhistogram package writes and reads the
standard encoding. Counts, the smallest and largest value and the sum are exact, percentiles exact to three digits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

import numpy as np
from hdrh.histogram import HdrHistogram

from extauthz.loadtest.outcomes import Integers

SIGNIFICANT_DIGITS = 3
HIGHEST_NS = 3_600_000_000_000
"""An hour. Longer values count as this; `--timeout` keeps latencies far below."""

_SUB_BUCKET_BITS = 11  # 2 * 10**3 values need 2**11 sub-buckets
_HALF_BITS = _SUB_BUCKET_BITS - 1


def indexes(values: Integers) -> Integers:
    """The number of the counter for each value (ns, not negative)."""
    # An hour in ns is exact as a double, so its exponent is the number of bits.
    bits = np.frexp(values.astype(np.float64))[1]
    bucket = np.maximum(bits - _SUB_BUCKET_BITS, 0).astype(np.int64)
    index: Integers = (bucket << _HALF_BITS) + (values >> bucket)
    return index


def lowest(index: Integers) -> Integers:
    """The smallest value that each counter stands for."""
    bucket = np.maximum((index >> _HALF_BITS) - 1, 0)
    value: Integers = (index - (bucket << _HALF_BITS)) << bucket
    return value


def highest(index: Integers) -> Integers:
    """The largest value that each counter stands for."""
    bucket = np.maximum((index >> _HALF_BITS) - 1, 0)
    value: Integers = lowest(index) + (np.int64(1) << bucket) - 1
    return value


class Histogram:
    """How often each latency (ns) was seen. Histograms of several workers and slices of time add up exactly."""

    __slots__ = ("counts", "maximum", "minimum", "total", "total_ns")

    def __init__(self) -> None:
        self.counts: Integers = np.zeros(0, np.int64)
        self.total = 0
        self.total_ns = 0
        self.minimum = HIGHEST_NS
        self.maximum = 0

    def record(self, values: Integers) -> None:
        """Count values (ns); one below 0 counts as 0, one above an hour as an hour."""
        if not len(values):
            return
        values = np.clip(values, 0, HIGHEST_NS)
        self._add_counts(np.bincount(indexes(values)))
        self.total_ns += int(values.sum())
        self.minimum = min(self.minimum, int(values.min()))
        self.maximum = max(self.maximum, int(values.max()))

    def add(self, other: Histogram) -> None:
        """Count everything that `other` has counted."""
        self._add_counts(other.counts)
        self.total_ns += other.total_ns
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def _add_counts(self, counts: Integers) -> None:
        if len(counts) > len(self.counts):
            self.counts = np.concatenate([self.counts, np.zeros(len(counts) - len(self.counts), np.int64)])
        self.counts[: len(counts)] += counts
        self.total += int(counts.sum())

    @property
    def mean(self) -> float:
        """The mean in ns, exact; 0 when empty."""
        return self.total_ns / self.total if self.total else 0.0

    def percentile(self, percent: float) -> int:
        """The value (ns) that `percent` of all values do not exceed; 0 when empty."""
        return self.percentiles((percent,))[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """`percentile` for several at once."""
        if not self.total:
            return [0] * len(percents)
        ranks = [max(int(min(percent, 100.0) * self.total / 100 + 0.5), 1) for percent in percents]
        found = np.searchsorted(np.cumsum(self.counts), ranks)
        # The largest value is known exactly, so no percentile is above it.
        return [min(int(value), self.maximum) for value in highest(found)]

    def count_above(self, nanoseconds: int) -> int:
        """How many values are above this one, to three digits."""
        first = int(indexes(np.asarray([nanoseconds], np.int64))[0]) + 1
        return int(self.counts[first:].sum())

    def distribution(self) -> tuple[Integers, Integers]:
        """The values that were seen (ns, the largest of each counter, ascending) and how often."""
        index = np.nonzero(self.counts)[0]
        return np.minimum(highest(index), self.maximum), self.counts[index]

    def to_hdr(self) -> HdrHistogram:
        """The same histogram as an object of the hdrhistogram package."""
        hdr = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        np.frombuffer(hdr.counts, np.uint64)[: len(self.counts)] = self.counts
        hdr.total_count = self.total
        if self.total:
            hdr.min_value, hdr.max_value = self.minimum, self.maximum
        return hdr

    def encode(self) -> str:
        """The standard compressed encoding (HdrHistogram V2, base64)."""
        encoded: bytes = self.to_hdr().encode()
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """Read what `encode` wrote; minimum, maximum and mean are then exact to three digits only."""
        hdr = HdrHistogram.decode(text.encode("ascii"))
        counts = np.array((ctypes.c_ulonglong * hdr.counts_len).from_buffer(hdr.counts), np.int64)
        used = np.nonzero(counts)[0]
        histogram = cls()
        if len(used):
            histogram._add_counts(counts[: used[-1] + 1])
            values, seen = histogram._midpoints(used)
            histogram.total_ns = int((values * seen).sum())
            histogram.minimum, histogram.maximum = int(lowest(used[:1])[0]), int(highest(used[-1:])[0])
        return histogram

    def _midpoints(self, used: Integers) -> tuple[Integers, Integers]:
        return (lowest(used) + highest(used)) // 2, self.counts[used]


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of all."""
    whole = Histogram()
    for histogram in histograms:
        whole.add(histogram)
    return whole
