"""Whole runs: worker processes, a stall seen as it was, failures apart, the floor, an early end."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe

import numpy as np
import pytest

from extauthz.checkapi.write import write_decision
from extauthz.decision import Decision
from extauthz.loadtest import sender_native
from extauthz.loadtest.arrivals import NANOSECONDS
from extauthz.loadtest.crew import Crew, StepSeen, WorkerLost
from extauthz.loadtest.outcomes import Outcome
from extauthz.loadtest.plan import LoadOptions, TokenOptions, make_plan
from extauthz.loadtest.results import StepResult, step_result
from extauthz.loadtest.run import Report, run

MS = 1_000_000
ALLOW = write_decision(Decision(True))
DENY = write_decision(Decision(False, 403, "no"))


class Quiet:
    """An observer that remembers what it was told, and does something once when so many calls have ended."""

    def __init__(self, after: int = 1, do: Callable[[], object] = lambda: None) -> None:
        self.told: list = []
        self.progress: list[tuple[int, int]] = []
        self._after = after
        self._do: Callable[[], object] | None = do

    def begins(self, rate, seconds, *, floor):
        self.told.append(("begins", rate, floor))

    def goes_on(self, rate, elapsed, seen):
        whole = seen.tally.whole()
        self.progress.append((time.monotonic_ns(), whole.latency.total))
        if self._do is not None and whole.outcomes.total() >= self._after:
            self._do()
            self._do = None

    def ends(self, result, *, floor):
        self.told.append(("ends", result.rate, floor))


def run_against(target: str, observer: Quiet | None = None, **options) -> Report:
    standard = LoadOptions(target=target, rate="500", seconds=0.5, warmup=0.1, calibration=0, timeout=60)
    return run(make_plan(replace(standard, **options)), observer or Quiet())


def interrupt() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_counts_every_call_and_each_once(lab):
    answers = threading.local()

    def handler(message: bytes) -> bytes:
        answers.count = getattr(answers, "count", 0) + 1
        return DENY if answers.count % 4 == 0 else ALLOW

    server = lab.serve_check(handler)
    report = run_against(server.target, rate="400,800", workers=2, seconds=1.0)
    assert [step.rate for step in report.steps] == [400, 800]
    for step in report.steps:
        counts = step.counts
        assert counts.asked == step.rate
        assert counts.failed == counts.unfinished == 0
        assert counts.denied == pytest.approx(step.rate / 4, abs=30)
        assert step.warmup_calls == step.rate / 10
        assert step.latency.count == step.service.count == step.lag.count == counts.asked
        assert sum(part.counts.asked for part in step.slices) == counts.asked
        assert len(step.slices) == 10
        assert step.connections_opened == 4
    assert not report.interrupted


@pytest.mark.parametrize("sender", ["native", "portable"])
def test_a_server_that_stalls_once_shows_with_the_right_counts(lab, sender, monkeypatch):
    """The server notes when it answered each call, the observer when it was told so: the latency lies between."""
    if sender == "native" and not sender_native.available()[0]:
        pytest.skip("the native sender is not available")
    rate, warmup, seconds = 500, 0.1, 2.5
    starts = []

    def kept(wanted, started, window, seen):
        starts.append(window.start)
        return step_result(wanted, started, window, seen)

    monkeypatch.setattr("extauthz.loadtest.run.step_result", kept)
    server, observer = StallingServer(at=rate // 2), Quiet()
    target = lab.serve_check(server.handle).target
    options = {"seconds": seconds, "warmup": warmup, "connections": 1, "sender": sender}
    (step,) = run_against(target, observer, rate=str(rate), **options).steps
    ended = time.monotonic_ns()
    due = starts[0] + np.arange(round(rate * seconds)) * (NANOSECONDS // rate)
    told_at, told = np.array([*observer.progress, (ended, len(due))]).T
    least = np.array(server.answered[round(rate * warmup) :]) - due
    most = told_at[np.searchsorted(told, np.arange(1, len(due) + 1))] - due
    check_stall(step, least, most)


def check_stall(step: StepResult, least: np.ndarray, most: np.ndarray) -> None:
    """The result of a step against bounds of its calls' latencies, among them a stall of a second."""
    assert step.counts.allowed == len(least) == len(most)
    # Histograms are exact to a thousandth; calls that were due together may be answered in another order.
    least, most = least * 0.998, most * 1.002
    for limit in (250, 500, 750):
        in_stall = np.count_nonzero(least > limit * MS)
        assert in_stall >= (1000 - limit) * step.rate / 1000 - 5
        assert in_stall - 5 <= step.latency_histogram.count_above(limit * MS)
        assert step.latency_histogram.count_above(limit * MS) <= np.count_nonzero(most > limit * MS) + 5
    for percent in (90.0, 95.0, 99.0, 99.9):
        found = step.latency.percentiles[percent]
        assert np.percentile(least, percent, method="lower") <= found + 10 * MS
        assert found - 10 * MS <= np.percentile(most, percent, method="higher")
    assert least.max() <= step.latency.maximum <= most.max()


class StallingServer:
    """Answers at once, but for one stall of a second, in which it answers nobody."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._lock = threading.Lock()
        self.answered: list[int] = []

    def handle(self, message: bytes) -> bytes:
        with self._lock:
            if len(self.answered) == self._at:
                time.sleep(1)
            self.answered.append(time.monotonic_ns())
            return ALLOW


def test_refused_calls_are_errors_and_no_latencies(closed_port):
    report = run_against(f"127.0.0.1:{closed_port}")
    (step,) = report.steps
    assert dict(step.counts.errors) == {"refused": 250}
    assert step.latency.count == 0
    assert step.achieved == 0


def test_a_server_that_dies_in_the_middle_leaves_both_kinds(lab):
    server = lab.serve_check(lambda message: ALLOW)

    class UntilRefused(Quiet):
        def goes_on(self, rate, elapsed, seen):
            super().goes_on(rate, elapsed, seen)
            if Outcome.REFUSED in seen.tally.whole().outcomes and not self.told[1:]:
                self.told.append("refused")
                interrupt()

    report = run_against(server.target, UntilRefused(50, server.transport.stop), rate="200", seconds=600.0)
    (step,) = report.steps
    assert step.counts.allowed >= 50
    assert step.counts.errors.get("refused", 0) > 0
    assert step.counts.allowed + step.counts.failed + step.counts.unfinished == step.counts.asked


def test_the_floor_is_measured_on_a_null_server_at_the_same_rates(lab):
    server = lab.serve_check(lambda message: DENY)
    timed = {"seconds": 0.3, "warmup": 0, "calibration": 0.3, "timeout": 60}
    plan = make_plan(LoadOptions(target=server.target, rate="200,400,200", **timed))
    observer = Quiet()
    report = run(plan, observer)
    assert [step.rate for step in report.floors] == [200, 400]
    assert [step.rate for step in report.steps] == [200, 400, 200]
    assert {step.counts.denied for step in report.floors} == {0}
    floor = report.floor(400)
    assert floor is not None
    assert floor.counts.allowed == 120
    assert report.floor(7) is None
    ends = [told[1:] for told in observer.told if told[0] == "ends"]
    assert ends == [(200, True), (400, True), (200, False), (400, False), (200, False)]


@pytest.mark.parametrize("http", ["1.1", "2"])
def test_a_url_has_its_floor_and_its_statuses(lab, http):
    if http == "2" and not sender_native.available()[0]:
        pytest.skip("the native sender is not available")
    server = lab.serve_http(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
    url = f"http://{server.target}/x" if http == "1.1" else f"http://{lab.serve_check(lambda message: ALLOW).target}/x"
    timed = {"seconds": 0.3, "warmup": 0, "calibration": 0.2, "timeout": 60}
    report = run(make_plan(LoadOptions(url=url, http=http, rate="200", **timed)), Quiet())
    assert report.floors[0].counts.allowed == 40
    counts = report.steps[0].counts
    assert (counts.denied if http == "1.1" else counts.allowed) == 60


def test_an_interrupt_gives_what_was_done(lab):
    server = lab.serve_check(lambda message: ALLOW)
    before = signal.getsignal(signal.SIGINT)
    interrupted = []

    def note_and_interrupt() -> None:
        interrupted.append(time.monotonic())
        interrupt()

    report = run_against(server.target, Quiet(100, note_and_interrupt), rate="300,600", seconds=600.0, warmup=0)
    ending = time.monotonic() - interrupted[0]
    assert ending < 60
    assert report.interrupted
    (step,) = report.steps
    assert 0 < step.seconds < 300
    # Until a worker is told, calls are due and made.
    assert 300 * step.seconds - 1 <= step.counts.asked <= 300 * (step.seconds + ending) + 1
    assert step.counts.allowed + step.counts.unfinished == step.counts.asked
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_leaves_calls_without_an_answer_unfinished(lab):
    released = threading.Event()
    handled = itertools.count()
    server = lab.serve_check(lambda message: (next(handled) < 5 or released.wait(30)) and ALLOW)
    report = run_against(server.target, Quiet(5, interrupt), rate="100", seconds=60.0, warmup=0, timeout=30.0)
    released.set()
    (step,) = report.steps
    assert step.counts.allowed == step.latency.count == 5
    assert step.counts.unfinished == step.counts.asked - 5 > 0


def test_a_worker_that_dies_is_told_of(lab, monkeypatch):
    server = lab.serve_check(lambda message: ALLOW)
    heard = Crew._hear

    def kill_first(pipe, seen):
        for process in crews[0]._processes:
            process.kill()
        return heard(pipe, seen)

    crews: list[Crew] = []
    entered = Crew.__enter__

    def enter(crew):
        crews.append(crew)
        entered(crew)
        monkeypatch.setattr(crew, "_hear", kill_first, raising=False)
        return crew

    monkeypatch.setattr(Crew, "__enter__", enter)
    with pytest.raises(WorkerLost, match="ended before its work was done"):
        run_against(server.target, seconds=30.0)


def test_a_worker_that_dies_within_a_message_is_told_of():
    ours, theirs = Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"the beginning")
    theirs.close()
    with ours, pytest.raises(WorkerLost, match="ended before its work was done"):
        Crew._hear(ours, StepSeen())


def test_minted_tokens_reach_the_server_in_their_shares(lab, tmp_path):
    seen = []
    server = lab.serve_check(lambda message: (seen.append(b"Bearer " in message), ALLOW)[1])
    tokens = TokenOptions(mint=5, algorithms="ES256", jwks_out=tmp_path / "jwks", mix="good=3,none=1", zipf=1.1)
    run_against(server.target, tokens=tokens, rate="1000", seconds=1.0)
    assert sum(seen) / len(seen) == pytest.approx(0.75, abs=0.06)
