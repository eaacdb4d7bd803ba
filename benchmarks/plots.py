"""Result files -> PNG plots."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.results_files import Parts, median

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR = "#3b6ea5"
_DPI = 120


def transport(parts: Parts) -> bytes:
    """Check calls per second of each server on one core."""
    return _bars(parts["transport"]["figures"]["one core"], "calls_per_second", "Check calls per second, one core")


def through_envoy(parts: Parts) -> bytes:
    """Requests per second through Envoy."""
    return _bars(
        parts["through_envoy"]["figures"]["64"], "requests_per_second", "Requests per second, one Envoy worker"
    )


def latency(parts: Parts) -> bytes:
    """p50, p99 and p99.9 through Envoy at one connection."""
    figures = parts["through_envoy"]["figures"]["1"]
    names = list(figures)[::-1]
    figure, (axes,) = _figure(1, height=0.45 * len(names) + 1.4)
    for percentile, mark in (("p50_us", "|"), ("p99_us", "o"), ("p999_us", "x")):
        values = [median(figures[name][percentile]) for name in names]
        axes.plot(values, names, mark, markersize=9, label=percentile.replace("999", "99.9").removesuffix("_us"))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_number)
    axes.legend(fontsize="small")
    _dress(axes, "Latency through Envoy at one connection", "microseconds")
    return _png(figure)


def growth(parts: Parts) -> bytes:
    """Time of a decision by rules, by tokens, and by the share of tokens that were seen before."""
    figures = parts["decide"]["figures"]
    figure, (rules, tokens, rates) = _figure(3, height=3.6)
    counts = [int(count) for count in figures["rules"]]
    for answer in ("allowed", "denied"):
        values = [median(one[f"{answer}_us"]) for one in figures["rules"].values()]
        rules.plot(counts, values, marker="o", label=answer)
    rules.legend(fontsize="small")
    _line(tokens, [int(count) for count in figures["tokens"]], list(figures["tokens"].values()))
    _line(rates, [float(rate.split()[0]) for rate in figures["hit_rates"]], list(figures["hit_rates"].values()))
    for axes, title in ((rules, "path rules"), (tokens, "distinct tokens, all seen"), (rates, "% of tokens seen")):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        _dress(axes, "us per decision", title)
    rules.set_xscale("log")
    tokens.set_xscale("log")
    return _png(figure)


def first_seen(parts: Parts) -> bytes:
    """A token's first check: the signature, and what is above it."""
    figures = parts["decide"]["figures"]["first_seen"]
    names = list(figures)[::-1]
    bare = [median(figures[name]["signature_us"]) for name in names]
    above = [median(figures[name]["above_us"]) for name in names]
    figure, (axes,) = _figure(1, height=0.35 * len(names) + 1.2)
    axes.barh(names, bare, color="0.7", label="signature alone")
    axes.barh(names, above, left=bare, color=_COLOUR, label="everything else")
    axes.legend(fontsize="small")
    _dress(axes, "First check of a token", "microseconds")
    return _png(figure)


def open_loop(parts: Parts) -> bytes:
    """Latency percentiles against the share of the capacity."""
    figures = parts["open_loop"]["figures"]
    figure, panels = _figure(3, height=3.6, share_y=True)
    for axes, percentile in zip(panels, ("p50_us", "p99_us", "p999_us"), strict=True):
        for server in dict.fromkeys(name.rpartition(", ")[0] for name in figures):
            steps = {int(name.split()[-2]): one for name, one in figures.items() if name.startswith(f"{server}, ")}
            axes.plot(list(steps), [median(one[percentile]) / 1e3 for one in steps.values()], marker="o", label=server)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_number)
        _dress(axes, f"{percentile.replace('999', '99.9').removesuffix('_us')} (ms)", "% of the capacity")
    panels[0].legend(fontsize="small")
    return _png(figure)


def _line(axes: Axes, places: Sequence[float], sides: Sequence[Mapping[str, Any]]) -> None:
    axes.plot(places, [median(one["check_us"]) for one in sides], marker="o", color=_COLOUR)


def _bars(figures: Mapping[str, Any], name: str, title: str) -> bytes:
    sides = list(figures)[::-1]
    middle = [median(figures[side][name]) for side in sides]
    spread = [
        [median(figures[side][name]) - figures[side][name]["min"] for side in sides],
        [figures[side][name]["max"] - median(figures[side][name]) for side in sides],
    ]
    figure, (axes,) = _figure(1, height=0.45 * len(sides) + 1.2)
    axes.barh(sides, middle, xerr=spread, color=_COLOUR, ecolor="#222222", capsize=3)
    axes.xaxis.set_major_formatter(_number)
    _dress(axes, f"{title} (median; bars: lowest to highest round)", "")
    return _png(figure)


def _number(value: float, _: float) -> str:
    return f"{value:,g}"


def _figure(panels: int, *, height: float, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, height), dpi=_DPI, layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False, sharey=share_y)[0])


def _dress(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


PLOTS: Mapping[str, Callable[[Parts], bytes]] = {
    "transport": transport,
    "through_envoy": through_envoy,
    "latency": latency,
    "growth": growth,
    "first_seen": first_seen,
    "open_loop": open_loop,
}
