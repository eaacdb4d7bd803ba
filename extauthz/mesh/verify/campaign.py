"""Many probes over many sets of policies: loads Envoy in batches, compares, shrinks what differs, keeps the score."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from envoy_data_plane.envoy.config.listener.v3 import Listener

from extauthz.authorizer import Authorizer
from extauthz.errors import PolicyError, UsageError
from extauthz.mesh.stand_in import made_up_key_sets
from extauthz.mesh.verify.casefile import Case
from extauthz.mesh.verify.engine import Comparison, InProcess, PolicySet, Subject, compare, mesh_listener
from extauthz.mesh.verify.harness import Harness
from extauthz.mesh.verify.served import AT_A_TIME, Servers, ThroughEnvoy
from extauthz.mesh.verify.shrink import shrink

BATCH = 40
"""Sets of policies that one Envoy enforces at a time."""

AT_ONCE = 16
"""Probes under way at a time."""

KEPT_DIFFERENCES = 200
"""Differences beyond this many are counted, but not shrunk and shown."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A set of policies and what is to be put to it."""

    policies: PolicySet
    cases: Iterable[Case]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A set of policies that one side would not take, so that nothing could be compared."""

    policies: PolicySet
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A case whose expectation a side does not meet."""

    comparison: Comparison
    who: str
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What came of a campaign. `differences` holds one of each kind, shrunk; `differing` counts all of them.

    `limited` counts the answers that differ by one of the known limits only, by its name.
    """

    sets: int = 0
    compared: int = 0
    differing: int = 0
    limited: dict[str, int] = field(default_factory=dict)
    differences: list[Comparison] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def agreed(self) -> bool:
        """Whether both sides agreed about everything, and with every expectation."""
        return not (self.differing or self.failures or self.rejections)


Progress = Callable[[Report], None]


class Campaign:
    """Puts every case to both sides. With `servers` our side is running servers, else it is in this process."""

    def __init__(self, harness: Harness, servers: Servers | None = None, progress: Progress | None = None) -> None:
        self.report = Report()
        self._harness = harness
        self._servers = servers
        self._progress = progress or (lambda report: None)
        self._numbers = itertools.count()
        self._key_sets = made_up_key_sets()

    async def run(self, trials: Iterable[Trial]) -> Report:
        """Raises EnvoyError when Envoy ends or does not answer, ServiceError when a server does not start."""
        started = time.monotonic()
        for batch in _batches(trials, BATCH if self._servers is None else AT_A_TIME):
            await self._run_batch(batch)
        report = self.report
        report.seconds = time.monotonic() - started
        report.differences.sort(key=lambda comparison: len(comparison.probe.encode()))
        return report

    async def _run_batch(self, batch: Sequence[Trial]) -> None:
        ready: dict[str, tuple[Trial, Subject]] = {}
        listeners: list[Listener] = []
        served: list[PolicySet] = []
        for trial in batch:
            self.report.sets += 1
            name = f"set-{next(self._numbers)}"
            try:
                authorizer = Authorizer(trial.policies.resources, trial.policies.options)
                listeners.append(mesh_listener(self._harness, name, trial.policies, self._key_sets))
            except (PolicyError, UsageError) as error:
                self.report.rejections.append(Rejection(trial.policies, "extauthz", str(error)))
                continue
            subject: Subject = InProcess(authorizer)
            if self._servers is not None:
                ours = f"ours-{name}"
                listeners.append(self._servers.listener(ours, trial.policies, len(served), self._harness))
                subject = ThroughEnvoy(self._harness, ours)
                served.append(trial.policies)
            ready[name] = (trial, subject)
        with self._servers.run(served) if self._servers is not None else contextlib.nullcontext():
            for name, reason in (await self._harness.load(listeners)).items():
                if name in ready:
                    self.report.rejections.append(Rejection(ready.pop(name)[0].policies, "Envoy", reason))
            for name, (trial, subject) in ready.items():
                await _run_trial(self._harness, name, trial, subject, self.report, self._progress)


def _batches(trials: Iterable[Trial], size: int) -> Iterator[Sequence[Trial]]:
    iterator = iter(trials)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


async def _run_trial(
    harness: Harness, name: str, trial: Trial, subject: Subject, report: Report, progress: Progress
) -> None:
    differing: dict[tuple[str, ...], Comparison] = {}
    cases = iter(trial.cases)

    async def worker() -> None:
        for case in cases:
            comparison = await compare(harness, name, trial.policies, subject, case.probe)
            report.compared += 1
            _judge(case, comparison, report)
            for limit in comparison.limits:
                report.limited[limit] = report.limited.get(limit, 0) + 1
            if comparison.differences:
                report.differing += 1
                known = differing.get(comparison.kind)
                if known is None or len(case.probe.encode()) < len(known.probe.encode()):
                    differing[comparison.kind] = comparison
            progress(report)

    tasks = [asyncio.create_task(worker()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        # After an error the others must not go on asking while Envoy is taken down.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def again(comparison: Comparison) -> Comparison:
        return await compare(harness, name, trial.policies, subject, comparison.probe)

    for comparison in list(differing.values())[: max(0, KEPT_DIFFERENCES - len(report.differences))]:
        report.differences.append(await shrink(comparison, again))


def _judge(case: Case, comparison: Comparison, report: Report) -> None:
    if case.expectation is None:
        return
    for who, outcome in (("Envoy", comparison.mesh), ("extauthz", comparison.ours)):
        reasons = tuple(case.expectation.failures(outcome))
        if reasons:
            report.failures.append(Failure(comparison, who, reasons))
