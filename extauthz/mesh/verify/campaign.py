"""Many probes over many sets of policies: loads Envoy in batches, compares, shrinks what differs, keeps the score."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from extauthz.authorizer import Authorizer
from extauthz.errors import PolicyError, UsageError
from extauthz.mesh.stand_in import made_up_key_sets
from extauthz.mesh.verify.casefile import Case
from extauthz.mesh.verify.engine import Comparison, InProcess, PolicySet, Subject, compare, mesh_listener
from extauthz.mesh.verify.harness import Harness
from extauthz.mesh.verify.shrink import shrink

BATCH = 40
"""Sets of policies that one Envoy enforces at a time."""

AT_ONCE = 16
"""Probes under way at a time."""

KEPT_DIFFERENCES = 200
"""Differences beyond this many are counted, but not shrunk and shown."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A set of policies and what is to be put to it. `subject` None: the Authorizer in this process."""

    policies: PolicySet
    cases: Iterable[Case]
    subject: Subject | None = None


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


async def run(harness: Harness, trials: Iterable[Trial], progress: Progress = lambda report: None) -> Report:
    """Put every case to both sides. Raises EnvoyError when Envoy ends or does not answer."""
    report, started = Report(), time.monotonic()
    numbers = itertools.count()
    key_sets = made_up_key_sets()
    for batch in _batches(trials, BATCH):
        ready: dict[str, tuple[Trial, Subject]] = {}
        listeners = []
        for trial in batch:
            report.sets += 1
            name = f"set-{next(numbers)}"
            try:
                subject = trial.subject or InProcess(Authorizer(trial.policies.resources, trial.policies.options))
                listeners.append(mesh_listener(harness, name, trial.policies, key_sets))
            except (PolicyError, UsageError) as error:
                report.rejections.append(Rejection(trial.policies, "extauthz", str(error)))
                continue
            ready[name] = (trial, subject)
        for name, reason in (await harness.load(listeners)).items():
            trial, _ = ready.pop(name)
            report.rejections.append(Rejection(trial.policies, "Envoy", reason))
        for name, (trial, subject) in ready.items():
            await _run_trial(harness, name, trial, subject, report, progress)
    report.seconds = time.monotonic() - started
    report.differences.sort(key=lambda comparison: len(comparison.probe.encode()))
    return report


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

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())

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
