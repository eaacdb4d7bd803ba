"""Objectives that a result must meet: `p99<2ms@2000` and the like, written on the command line, checked at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from extauthz.errors import UsageError
from extauthz.loadtest.results import StepResult

_FORM = re.compile(
    r"\s*(?P<figure>p\d+(?:\.\d+)?|mean|max|errors|denied|achieved)\s*(?P<sign><=?|>=?)\s*"
    r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|%|)\s*(?:@\s*(?P<rate>\d+(?:\.\d+)?))?\s*"
)
_UNITS = {"us": 1e3, "ms": 1e6, "s": 1e9}
_HELP = (
    "write FIGURE<VALUE[@RATE], as in p99<2ms@2000, errors<0.1%, achieved>=1990@2000; figures: pN, mean, max (us, ms "
    "or s), errors, denied (%), achieved (calls per second)"
)


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective: a figure below or above a limit (ns, percent, or calls per second), at one rate or at all."""

    text: str
    figure: str
    sign: str
    limit: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """An objective at a rate: whether it was met, and the figure that was found, in words."""

    objective: Objective
    met: bool
    found: str


def parse_objective(text: str) -> Objective:
    """Read one `--slo`. Raises UsageError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--slo {text!r}: {_HELP}")
    figure, unit = match["figure"], match["unit"]
    wanted = {"errors": ("%",), "denied": ("%",), "achieved": ("",)}.get(figure, tuple(_UNITS))
    if unit not in wanted or (figure[1:].replace(".", "").isdigit() and not 0 < float(figure[1:]) <= 100):
        raise UsageError(f"--slo {text!r}: {_HELP}")
    limit = float(match["value"]) * _UNITS.get(unit, 1.0)
    return Objective(text.strip(), figure, match["sign"], limit, float(match["rate"]) if match["rate"] else None)


def judge(objectives: Sequence[Objective], steps: Sequence[StepResult]) -> tuple[Judgement, ...]:
    """Every objective at every rate that it is about. One whose rate was not run, or whose result is not valid, is not
    met: nothing shows that it holds.
    """
    judgements = []
    for objective in objectives:
        about = [step for step in steps if objective.rate in (None, step.rate)]
        if not about:
            judgements.append(Judgement(objective, False, "this rate was not run"))
        judgements.extend(_judge(objective, step) for step in about)
    return tuple(judgements)


def _judge(objective: Objective, step: StepResult) -> Judgement:
    value = _figure(objective.figure, step)
    if value is None:
        return Judgement(objective, False, f"{step.rate:g}/s: no answer at all")
    holds = {
        "<": value < objective.limit,
        "<=": value <= objective.limit,
        ">": value > objective.limit,
        ">=": value >= objective.limit,
    }[objective.sign]
    words = f"{step.rate:g}/s: {objective.figure} {_in_words(objective.figure, value)}"
    if not step.valid:
        return Judgement(objective, False, f"{words}, but the result is not valid")
    return Judgement(objective, holds, words)


def _figure(figure: str, step: StepResult) -> float | None:
    counts = step.counts
    if figure == "achieved":
        return step.achieved
    if figure == "errors":
        return 100 * counts.failed / counts.asked if counts.asked else None
    if not counts.answered:
        return None
    if figure == "denied":
        return 100 * counts.denied / counts.answered
    if figure == "mean":
        return step.latency.mean
    if figure == "max":
        return float(step.latency.maximum)
    return float(step.latency_histogram.percentile(float(figure[1:])))


def _in_words(figure: str, value: float) -> str:
    if figure == "achieved":
        return f"{value:.1f}/s"
    if figure in ("errors", "denied"):
        return f"{value:.3g} %"
    return f"{value / 1e6:.3f} ms"
