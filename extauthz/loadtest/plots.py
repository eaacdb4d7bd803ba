"""Plots of one or several runs, as PNG. Needs matplotlib; draws on figures of its own, without global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from extauthz.loadtest.results import StepResult

_SIZE = (9.0, 5.0)
_DPI = 110
_MILLISECOND = 1e6
_NINES = (0.0, 90.0, 99.0, 99.9, 99.99, 99.999)


@dataclass(frozen=True, slots=True)
class Series:
    """The rates of one target, under the name that the plot shows (empty when there is only one)."""

    label: str
    steps: tuple[StepResult, ...]
    floors: tuple[StepResult, ...] = ()

    def name(self, step: StepResult) -> str:
        """What a line for one rate is called."""
        return self.label if self.label and len(self.steps) == 1 else f"{self.label} {step.rate:g}/s".strip()

    def at(self, rate: float) -> Series:
        """One rate alone, without floors."""
        return Series(self.label, tuple(step for step in self.steps if step.rate == rate))


def common_rates(series: Sequence[Series]) -> list[float]:
    """The rates that every target was put under."""
    if not series:
        return []
    rates = [{step.rate for step in one.steps} for one in series]
    return sorted(set.intersection(*rates))


def latency_by_percentile(series: Sequence[Series], title: str = "") -> bytes:
    """Latency against percentile, each further nine as wide as the one before; dashed: the tool's own floor.

    `title` is added to the plot's.
    """
    figure, axes = _figure(f"Latency by percentile{title}", "percentile", "latency (ms)")
    for number, (line, step) in enumerate(_lines(series)):
        colour = f"C{number % 10}"
        _draw_percentiles(axes, step, line, colour, "-")
    for one in series:
        for step in one.floors[-1:]:
            _draw_percentiles(axes, step, f"floor {step.rate:g}/s".strip(), "0.5", "--")
    _percentile_axes(axes)
    return _png(figure, axes)


def latency_at_rates(series: Sequence[Series]) -> bytes:
    """Latency against percentile of every target, side by side for each rate that all of them were put under."""
    rates = common_rates(series)
    figure = Figure(figsize=(4.2 * max(1, len(rates)), _SIZE[1] * 0.8), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, max(1, len(rates)), sharey=True, squeeze=False)[0]
    for axes, rate in zip(panels, rates, strict=False):
        for number, (line, step) in enumerate(_lines([one.at(rate) for one in series])):
            _draw_percentiles(axes, step, line, f"C{number % 10}", "-")
        _dress(axes, f"{rate:g} requests/s", "percentile", "latency (ms)" if axes is panels[0] else "")
        _percentile_axes(axes)
        axes.tick_params(axis="x", labelsize="x-small")
    if panels[0].lines:
        panels[0].legend(fontsize="small")
    return _save(figure)


def latency_over_time(series: Sequence[Series], title: str = "") -> bytes:
    """p50 (thin) and p99 (bold) of each slice of time, for each rate from its own beginning. `title` is added."""
    figure, axes = _figure(f"Latency over time{title}", "seconds from the beginning of each rate", "latency (ms)")
    for number, (line, step) in enumerate(_lines(series)):
        colour = f"C{number % 10}"
        parts = [part for part in step.slices if part.latency.count]
        at = [part.at + step.slice_seconds / 2 for part in parts]
        for percent, width, label in ((50.0, 0.8, f"{line} p50"), (99.0, 1.8, f"{line} p99")):
            values = [part.latency.percentiles[percent] / _MILLISECOND for part in parts]
            axes.plot(at, values, color=colour, linewidth=width, label=label, marker=".", markersize=3)
    _log_milliseconds(axes)
    return _png(figure, axes)


def throughput_by_rate(series: Sequence[Series]) -> bytes:
    """Answers per second against the rate asked, and below it p99; hollow points: results that are not valid."""
    figure = Figure(figsize=(_SIZE[0], _SIZE[1] * 1.3), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    highest = max((step.rate for one in series for step in one.steps), default=1.0)
    above.plot([0, highest], [0, highest], color="0.7", linestyle=":", label="asked")
    for number, one in enumerate(series):
        colour = f"C{number % 10}"
        rates = [step.rate for step in one.steps]
        achieved = [step.achieved for step in one.steps]
        tails = [step.latency.percentiles[99.0] / _MILLISECOND for step in one.steps]
        above.plot(rates, achieved, color=colour, label=one.label or "answered")
        below.plot(rates, tails, color=colour, label=f"{one.label} p99".strip())
        for step, y, tail in zip(one.steps, achieved, tails, strict=True):
            face = colour if step.valid else "none"
            above.plot([step.rate], [y], "o", color=colour, markerfacecolor=face)
            below.plot([step.rate], [tail], "o", color=colour, markerfacecolor=face)
    _dress(above, "Throughput and p99 against the rate asked", "", "answers per second")
    _dress(below, "", "calls per second asked", "latency (ms)")
    _log_milliseconds(below)
    above.legend(fontsize="small")
    below.legend(fontsize="small")
    return _save(figure)


def _lines(series: Sequence[Series]) -> list[tuple[str, StepResult]]:
    return [(one.name(step), step) for one in series for step in one.steps if step.latency.count]


def _draw_percentiles(axes: Axes, step: StepResult, label: str, colour: str, style: str) -> None:
    values, counts = step.latency_histogram.distribution()
    if not len(values):
        return
    below = np.cumsum(counts)
    total = int(below[-1])
    # The share of values up to here as 1 / (1 - share): every nine more is a step of the same width.
    inverse = total / np.maximum(total - below, 1)
    axes.plot(
        np.concatenate([[1.0], inverse]),
        np.concatenate([values[:1], values]) / _MILLISECOND,
        color=colour,
        linestyle=style,
        label=label,
        drawstyle="steps-pre",
    )


def _percentile_axes(axes: Axes) -> None:
    axes.set_xscale("log")
    _log_milliseconds(axes)
    axes.xaxis.set_major_locator(FixedLocator([1 / (1 - nine / 100) for nine in _NINES]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, position: f"{100 - 100 / x:.6g} %"))


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _dress(axes, title, x, y)
    return figure, axes


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", color="0.9")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _log_milliseconds(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, position: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    # Within one decade the marks between its ends are all there is to read.
    axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())


def _png(figure: Figure, axes: Axes) -> bytes:
    if axes.lines:
        axes.legend(fontsize="small")
    return _save(figure)


def _save(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Without a date and a version in it, equal plots are equal bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
