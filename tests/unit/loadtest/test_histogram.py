"""Our recording against the hdrhistogram package's own, value by value."""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from extauthz.loadtest.histogram import HIGHEST_NS, Histogram, highest, indexes, lowest, merged

values = st.lists(
    st.integers(0, HIGHEST_NS) | st.integers(0, 5000) | st.sampled_from([2**n for n in range(42)]), max_size=60
)


def recorded(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record(np.array(numbers, np.int64))
    return histogram


@given(values)
def test_counts_and_percentiles_are_those_of_the_package(numbers):
    ours = recorded(numbers)
    theirs = HdrHistogram(1, HIGHEST_NS, 3)
    for number in np.clip(numbers, 0, HIGHEST_NS):
        assert theirs.record_value(int(number))
    assert ours.total == theirs.get_total_count()
    assert list(ours.counts) == list(theirs.counts)[: len(ours.counts)]
    for percent in (0.001, 10, 50, 90, 99, 99.9, 100):
        assert ours.percentile(percent) == min(theirs.get_value_at_percentile(percent), ours.maximum)


@given(st.integers(0, HIGHEST_NS))
def test_a_value_lies_in_its_counter_which_is_narrow(number):
    index = indexes(np.array([number], np.int64))
    low, high = int(lowest(index)[0]), int(highest(index)[0])
    assert low <= number <= high
    assert high - low <= max(number / 1000, 0)


@given(values, values)
def test_merging_is_recording_everything_in_one(first, second):
    both, together = merged([recorded(first), recorded(second)]), recorded(first + second)
    assert np.array_equal(both.counts, together.counts)
    for name in ("total", "total_ns", "minimum", "maximum", "mean"):
        assert getattr(both, name) == getattr(together, name)


@given(values)
def test_encoding_keeps_every_count(numbers):
    ours = recorded(numbers)
    again = Histogram.decode(ours.encode())
    assert again.total == ours.total
    assert np.array_equal(again.counts, ours.counts)
    if numbers:
        assert abs(again.mean - ours.mean) <= ours.mean / 1000 + 1


def test_out_of_range_values_are_counted_at_the_ends():
    histogram = recorded([-5, HIGHEST_NS * 10])
    assert (histogram.total, histogram.minimum, histogram.maximum) == (2, 0, HIGHEST_NS)


def test_an_empty_histogram_says_zero():
    empty = Histogram()
    assert (empty.mean, empty.percentile(99), empty.count_above(5)) == (0, 0, 0)
    assert empty.distribution()[0].size == 0


def test_values_above_a_limit_are_counted():
    histogram = recorded([100, 1000, 10_000, 100_000, 1_000_000])
    assert histogram.count_above(9_000) == 3
    assert histogram.count_above(2_000_000) == 0


def test_the_distribution_gives_values_and_counts_in_order():
    found, counts = recorded([7, 7, 5_000_123]).distribution()
    assert list(found) == [7, 5_000_123]
    assert list(counts) == [2, 1]
