"""When calls are due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import UsageError
from extauthz.loadtest.arrivals import NANOSECONDS, ArrivalKind, Arrivals, Share, parse_rates


def everything(arrivals: Arrivals, step: float = 0.1) -> np.ndarray:
    """All arrivals, asked for in small steps."""
    found, at = [], 0.0
    while not arrivals.exhausted:
        at += step * NANOSECONDS
        found.append(arrivals.until(at))
    return np.concatenate(found)


def test_rates_are_values_lists_and_ramps():
    assert parse_rates("1000") == (1000,)
    assert parse_rates("500, 1000.5") == (500, 1000.5)
    assert parse_rates("500..8000/4") == (500, 3000, 5500, 8000)
    assert parse_rates("1..3/3,10") == (1, 2, 3, 10)
    assert parse_rates("8..2") == (8, 2)


@pytest.mark.parametrize("text", ["", "x", "0", "-5", "1..", "1..2/1", "1..2/x", "inf", "nan", "1,,2", "1..2/99999"])
def test_other_rates_are_refused_with_what_to_write(text):
    with pytest.raises(UsageError, match="--rate"):
        parse_rates(text)


def test_constant_arrivals_have_equal_gaps_and_the_right_number():
    found = everything(Arrivals(ArrivalKind.CONSTANT, 1000, 3.0))
    assert len(found) == 3000
    assert found[0] == 0
    assert set(np.diff(found)) == {1_000_000}


@given(
    rate=st.floats(0.5, 50_000),
    seconds=st.floats(0.1, 3),
    workers=st.integers(1, 5),
    step=st.floats(0.01, 1.5),
)
def test_constant_arrivals_of_all_workers_are_one_constant_stream(rate, seconds, workers, step):
    parts = [everything(Arrivals(ArrivalKind.CONSTANT, rate, seconds, Share(n, workers)), step) for n in range(workers)]
    alone = everything(Arrivals(ArrivalKind.CONSTANT, rate, seconds), seconds)
    assert np.array_equal(np.sort(np.concatenate(parts)), alone)
    assert abs(len(alone) - rate * seconds) <= 1
    assert np.all(alone < seconds * NANOSECONDS)


def test_poisson_arrivals_have_the_rate_and_exponential_gaps():
    parts = [everything(Arrivals(ArrivalKind.POISSON, 20_000, 5.0, Share(n, 3), seed=7)) for n in range(3)]
    found = np.sort(np.concatenate(parts))
    assert abs(len(found) - 100_000) < 4 * 100_000**0.5
    gaps = np.diff(found) * 20_000 / NANOSECONDS
    assert abs(gaps.mean() - 1) < 0.02
    assert abs(np.mean(gaps > 1) - np.exp(-1)) < 0.01
    assert abs(np.mean(gaps > 3) - np.exp(-3)) < 0.005


def test_poisson_arrivals_do_not_depend_on_the_steps_in_which_they_are_asked_for_and_repeat_with_the_seed():
    def stream(step: float, seed: int) -> np.ndarray:
        return everything(Arrivals(ArrivalKind.POISSON, 5000, 2.0, seed=seed), step)

    assert np.array_equal(stream(0.05, 1), stream(2.0, 1))
    assert not np.array_equal(stream(0.5, 1), stream(0.5, 2))
