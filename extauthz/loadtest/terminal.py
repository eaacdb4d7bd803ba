"""What a load test says on a terminal: progress on stderr while it runs, tables on stdout at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from extauthz.loadtest import words
from extauthz.loadtest.compare import Comparison
from extauthz.loadtest.crew import StepSeen
from extauthz.loadtest.outcomes import Protocol
from extauthz.loadtest.results import Counts, StepResult
from extauthz.loadtest.run import Report
from extauthz.loadtest.slo import Judgement

_REFRESH_SECONDS = 0.5
_PLAIN_SECONDS = 2.0
_MINTED_AT_A_TIME = 100


class Progress:
    """An `Observer` that shows a line that changes on a terminal, and a line now and then elsewhere."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._what = ""
        self._seconds = 0.0
        self._shown = 0.0
        self._answered = 0
        self._elapsed = 0.0

    def begins(self, rate: float, seconds: float, *, floor: bool) -> None:
        self._what = f"{'floor at ' if floor else ''}{words.rate(rate)}"
        self._seconds = seconds
        self._shown = monotonic()
        self._answered, self._elapsed = 0, 0.0
        if self._console.is_terminal:
            self._live.start()

    def goes_on(self, rate: float, elapsed: float, seen: StepSeen) -> None:
        if not seen.tally.slices:
            self._elapsed = elapsed  # The rate counts from the end of the warm-up.
        pause = _REFRESH_SECONDS if self._console.is_terminal else _PLAIN_SECONDS
        if monotonic() - self._shown < pause:
            return
        self._shown = monotonic()
        line = self._line(elapsed, seen)
        if self._console.is_terminal:
            self._live.update(Text(line), refresh=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self, elapsed: float, seen: StepSeen) -> str:
        whole = seen.tally.whole()
        counts = Counts.of(whole.outcomes, self._protocol)
        rate = (counts.answered - self._answered) / max(elapsed - self._elapsed, 0.001)
        self._answered, self._elapsed = counts.answered, elapsed
        head = f"{self._what} [{min(100.0, 100 * elapsed / self._seconds):3.0f} %]"
        if not counts.asked:
            return f"{head} warming up"
        p50, p99 = (words.duration(value) for value in whole.latency.percentiles((50.0, 99.0)))
        return f"{head} answered {words.rate(rate)}  p50 {p50}  p99 {p99}  errors {words.errors(counts)}"

    def ends(self, result: StepResult, *, floor: bool) -> None:
        self._live.stop()
        latency = result.latency
        figures = [f"p{percent:g} {words.duration(latency.percentiles[percent])}" for percent in (50.0, 99.0, 99.9)]
        figures.append(f"max {words.duration(latency.maximum)}")
        if result.counts.failed:
            figures.append(f"errors {words.errors(result.counts)}")
        print(
            f"{self._what}: answered {words.rate(result.achieved)}  {'  '.join(figures)}", file=sys.stderr, flush=True
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()


def minting_progress(made: int, whole: int) -> None:
    """Shows on a terminal how many tokens are minted."""
    if sys.stderr.isatty() and (made % _MINTED_AT_A_TIME == 0 or made == whole):
        end = "\n" if made == whole else ""
        print(f"\rminted {made:,} of {whole:,} tokens", end=end, file=sys.stderr, flush=True)


def results_table(report: Report) -> Table:
    """The results, one row a rate, with the tool's own floor beside them."""
    table = Table(
        title=f"{report.plan.target.text}{' (interrupted)' if report.interrupted else ''}", title_justify="left"
    )
    for head in ("rate", "answered", "p50", "p90", "p99", "p99.9", "max", "allowed", "denied"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("errors")
    table.add_column("floor p50 / p99", justify="right", no_wrap=True)
    for step in report.steps:
        latency = step.latency
        floor = report.floor(step.rate)
        table.add_row(
            words.rate(step.rate) + ("" if step.valid else " !"),
            words.rate(step.achieved),
            *(words.duration(latency.percentiles[percent]) for percent in (50.0, 90.0, 99.0, 99.9)),
            words.duration(latency.maximum),
            f"{step.counts.allowed:,}",
            words.denied(step.counts),
            Text(words.errors(step.counts), style="red" if step.counts.failed else ""),
            "-" if floor is None else " / ".join(words.duration(floor.latency.percentiles[p]) for p in (50.0, 99.0)),
        )
    return table


def problem_lines(report: Report) -> list[str]:
    """What speaks against the results, floors included."""
    lines = [f"{words.rate(step.rate)}: NOT VALID: {problem}" for step in report.steps for problem in step.problems]
    lines += [f"floor at {words.rate(step.rate)}: {problem}" for step in report.floors for problem in step.problems]
    return lines


def comparison_table(comparison: Comparison) -> Table:
    """Differences with their 95 % confidence intervals."""
    table = Table(
        "rate", "figure", "before", "now", "change", "95 % confidence", "", title="compared", title_justify="left"
    )
    for one in comparison.differences:
        interval = "-"
        if one.low is not None and one.high is not None:
            interval = f"{_signed(one.low)} .. {_signed(one.high)}"
        verdict = ("slower" if one.change > 0 else "faster") if one.significant else "no clear difference"
        table.add_row(
            words.rate(one.rate),
            one.figure,
            words.duration(one.before),
            words.duration(one.now),
            _signed(one.change),
            interval,
            Text(verdict, style={"slower": "red", "faster": "green"}.get(verdict, "")),
        )
    return table


def judgement_lines(judgements: Sequence[Judgement]) -> list[str]:
    """One line for each objective and rate."""
    return [f"{'met    ' if one.met else 'MISSED '} {one.objective.text}  ({one.found})" for one in judgements]


def _signed(nanoseconds: float) -> str:
    return f"{'+' if nanoseconds >= 0 else '-'}{words.duration(abs(nanoseconds))}"
