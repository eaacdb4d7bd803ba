"""A load test from plan to report: the floor first, then each rate in turn, until done or interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic_ns
from types import FrameType
from typing import Protocol as Interface

from extauthz.loadtest.arrivals import NANOSECONDS, Share
from extauthz.loadtest.crew import Crew, StepSeen
from extauthz.loadtest.floor import null_target
from extauthz.loadtest.orders import Job, Step
from extauthz.loadtest.plan import Plan, wire_for
from extauthz.loadtest.results import StepResult, step_result
from extauthz.loadtest.tally import Window
from extauthz.loadtest.target import Target

_FLOOR_WARMUP = 0.2
_FLOOR_SLICE = 1.0


class Observer(Interface):
    """Who is told how a test goes on."""

    def begins(self, rate: float, seconds: float, *, floor: bool) -> None:
        """A rate begins; with its warm-up it takes so many seconds. `floor`: it goes to the null server."""
        ...

    def goes_on(self, rate: float, elapsed: float, seen: StepSeen) -> None:
        """What was seen so far, so many seconds after the beginning."""
        ...

    def ends(self, result: StepResult, *, floor: bool) -> None:
        """A rate is done."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found. `floors` are results against a null server, at the same rates as `steps`."""

    plan: Plan
    started: datetime
    interrupted: bool
    floors: tuple[StepResult, ...]
    steps: tuple[StepResult, ...]

    def floor(self, rate: float) -> StepResult | None:
        """The floor at a rate; None when it was not measured."""
        return next((floor for floor in self.floors if floor.rate == rate), None)


def run(plan: Plan, observer: Observer) -> Report:
    """Run a plan. An interrupt (SIGINT, SIGTERM) ends it early with a report of what was done. Raises WorkerLost."""
    started = datetime.now(UTC)
    floors: list[StepResult] = []
    steps: list[StepResult] = []
    with _interrupts() as interrupted:
        options = plan.options
        if options.calibration:
            calibration = replace(options, seconds=options.calibration, warmup=_FLOOR_WARMUP)
            with null_target(plan.target) as target:
                floor_plan = replace(plan, options=calibration, slice_seconds=_FLOOR_SLICE)
                _Run(floor_plan, target, observer, interrupted, floor=True).rates(
                    tuple(dict.fromkeys(plan.rates)), floors
                )
        _Run(plan, plan.target, observer, interrupted, floor=False).rates(plan.rates, steps)
    return Report(plan, started, interrupted(), tuple(floors), tuple(steps))


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; the second one has its usual effect."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    usual = [signal.getsignal(number) for number in wanted]

    def restore() -> None:
        for number, handler in zip(wanted, usual, strict=True):
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        restore()

    for number in wanted:
        signal.signal(number, note)
    try:
        yield came.is_set
    finally:
        restore()


class _Run:
    """Several rates against one target."""

    def __init__(
        self, plan: Plan, target: Target, observer: Observer, stopped: Callable[[], bool], *, floor: bool
    ) -> None:
        self._plan = plan
        self._observer = observer
        self._stopped = stopped
        self._floor = floor
        self._started = monotonic_ns()
        options = plan.options
        wire = wire_for(target, options, plan.choice)
        self._jobs = [
            Job(wire, plan.choice, plan.corpus, plan.arrivals, Share(worker, options.workers), options.seed)
            for worker in range(options.workers)
        ]

    def rates(self, rates: tuple[float, ...], into: list[StepResult]) -> None:
        if self._stopped():
            return
        with Crew(self._jobs) as crew:
            for number, rate in enumerate(rates):
                result = self._step(crew, number, rate)
                if result is not None:
                    into.append(result)
                    self._observer.ends(result, floor=self._floor)
                if self._stopped():
                    return

    def _step(self, crew: Crew, number: int, rate: float) -> StepResult | None:
        """One rate; None when it was cut short before its measured time began."""
        options, slice_seconds = self._plan.options, self._plan.slice_seconds
        begins: list[int] = []

        def step(begin: int) -> Step:
            begins.append(begin)
            return Step(number, rate, options.warmup, options.seconds, slice_seconds, begin)

        def watch(seen: StepSeen, now: int) -> None:
            self._observer.goes_on(rate, (now - begins[0]) / NANOSECONDS, seen)

        self._observer.begins(rate, options.warmup + options.seconds, floor=self._floor)
        seen = crew.run(step, self._stopped, watch)
        start = begins[0] + round(options.warmup * NANOSECONDS)
        end = start + round(options.seconds * NANOSECONDS)
        if seen.stopped_at is not None and seen.stopped_at <= start:
            return None
        window = Window(start, end, round(slice_seconds * NANOSECONDS), self._plan.target.protocol)
        return step_result(rate, self._started, window, seen)
