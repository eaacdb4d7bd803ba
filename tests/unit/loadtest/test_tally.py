"""Counting records: warm-up, slices, answers and errors apart, and a stall as an open loop must see it."""

from __future__ import annotations

import numpy as np
import pytest

from extauthz.loadtest.crew import StepSeen
from extauthz.loadtest.outcomes import RECORD, Outcome, Protocol, Verdict, answered, name, verdict
from extauthz.loadtest.results import step_result
from extauthz.loadtest.tally import Tally, Window

MS = 1_000_000
SECOND = 1000 * MS


def records(due, latency, outcome=0, lag=0) -> np.ndarray:
    found = np.zeros(len(due), RECORD)
    found["due"] = due
    found["taken"] = found["due"] + lag
    found["sent"] = found["taken"] + 1000
    found["done"] = found["due"] + latency
    found["outcome"] = outcome
    return found


def test_warm_up_is_counted_apart_and_slices_by_when_a_call_was_due():
    window = Window(SECOND, 3 * SECOND, SECOND // 2, Protocol.CHECK)
    tally = Tally()
    tally.record(records(np.arange(0, 3 * SECOND, 10 * MS), 900 * MS), window)
    assert tally.warmup == 100
    assert sorted(tally.slices) == [0, 1, 2, 3]
    assert [part.latency.total for _, part in sorted(tally.slices.items())] == [50] * 4
    # Those due in the last 900 ms were answered after the end.
    assert tally.answered_in_time == 200 - 89


def test_errors_and_unfinished_calls_have_no_latency():
    window = Window(0, SECOND, SECOND, Protocol.CHECK)
    outcomes = [0, 401, 403, -1, -3, -4, -114, -7]
    tally = Tally()
    tally.record(records(np.arange(len(outcomes)) * MS, 5 * MS, outcomes), window)
    whole = tally.whole()
    assert whole.latency.total == whole.service.total == 3
    assert tally.lag.total == len(outcomes)
    result = step_result(8, 0, window, StepSeen(tally))
    counts = result.counts
    assert (counts.allowed, counts.denied, counts.unfinished, counts.asked) == (1, 2, 1, 8)
    assert dict(counts.denied_by) == {"401": 1, "403": 1}
    assert dict(counts.errors) == {"grpc UNAVAILABLE": 1, "timeout": 1, "reset": 1, "refused": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "allowed"), (404, "allowed"), (401, "denied"), (403, "denied"), (429, "error"), (503, "error")],
)
def test_behind_a_url_statuses_are_sorted(status, kind):
    assert verdict(status, Protocol.HTTP1) == kind
    assert bool(answered(np.array([status]), Protocol.HTTP1)[0]) is (kind != "error")


def test_every_outcome_has_a_name_and_a_verdict():
    for outcome in (*Outcome, 200, 403, 599, -101, -116, -150):
        for protocol in Protocol:
            assert name(outcome)
            assert (verdict(outcome, protocol) in (Verdict.ALLOWED, Verdict.DENIED)) == answered(
                np.array([outcome]), protocol
            )[0]
    assert name(-114) == "grpc UNAVAILABLE"


def test_a_stall_shows_with_every_call_that_was_due_in_it():
    window = Window(0, 4 * SECOND, SECOND, Protocol.CHECK)
    due = np.arange(0, 4 * SECOND, MS)
    stall_begins, stall_ends = 2 * SECOND, 2 * SECOND + 200 * MS
    done = np.where((due >= stall_begins) & (due < stall_ends), stall_ends, due) + 100_000
    tally = Tally()
    tally.record(records(due, done - due), window)
    latency = tally.whole().latency
    assert latency.total == 4000
    for limit in (50, 100, 150):
        assert abs(latency.count_above(limit * MS) - (200 - limit)) <= 1
    assert abs(latency.percentile(99) - 160 * MS) < 2 * MS
    assert abs(latency.maximum - 200 * MS) < MS


def test_tallies_of_workers_add_up():
    window = Window(0, 2 * SECOND, SECOND, Protocol.CHECK)
    due = np.arange(0, 2 * SECOND, MS)
    everything = records(due, due % (7 * MS) + 1)
    alone, together = Tally(), Tally()
    alone.record(everything, window)
    for part in (everything[::2], everything[1::2]):
        one = Tally()
        one.record(part, window)
        together.add(one)
    assert together.whole().outcomes == alone.whole().outcomes
    assert np.array_equal(together.whole().latency.counts, alone.whole().latency.counts)
    assert together.answered_in_time == alone.answered_in_time


def test_a_generator_that_is_late_makes_the_result_invalid():
    window = Window(0, SECOND, SECOND, Protocol.CHECK)
    due = np.arange(0, SECOND, MS)

    def result(latency, lag):
        tally = Tally()
        tally.record(records(due, latency, lag=lag), window)
        return step_result(1000, 0, window, StepSeen(tally))

    assert result(2 * MS, 100_000).valid
    late = result(6 * MS, 5 * MS)
    assert not late.valid
    assert "5.0" in late.problems[0]
    # A millisecond more does not matter where answers take a hundred.
    assert result(100 * MS, 5 * MS).valid


def test_calls_that_were_never_made_make_the_result_invalid():
    window = Window(0, SECOND, SECOND, Protocol.CHECK)
    tally = Tally()
    tally.record(records(np.arange(0, SECOND, 2 * MS), MS), window)
    result = step_result(1000, 0, window, StepSeen(tally))
    assert "made 500 calls of about 1000" in result.problems[0]


def test_a_step_that_was_cut_short_is_as_long_as_it_lasted():
    window = Window(0, 10 * SECOND, SECOND, Protocol.CHECK)
    tally = Tally()
    tally.record(records(np.arange(0, 2 * SECOND, MS), MS), window)
    result = step_result(1000, 0, window, StepSeen(tally, stopped_at=2 * SECOND))
    assert (result.seconds, round(result.achieved)) == (2, 1000)
    assert result.valid
