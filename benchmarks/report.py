"""Result files -> the table of the README and plots. Every figure that is shown anywhere comes through here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write(directory: Path) -> None:
    """Write `table.md` and, where matplotlib is installed, PNG plots, from the result files in a directory."""
    parts = {file.stem: json.loads(file.read_text()) for file in sorted(directory.glob("*.json"))}
    (directory / "table.md").write_text("\n".join(_table(parts)) + "\n")
    _plots(parts, directory)


def _table(parts: dict[str, Any]) -> Iterator[str]:
    for name, section in (("transport", _transport), ("through_envoy", _envoy), ("decide", _decide), ("start", _start)):
        if name in parts:
            yield from section(parts[name]["figures"])
            yield ""
            yield _machine(parts[name])
            yield ""


def _machine(part: dict[str, Any]) -> str:
    told = part["machine"]
    quick = "; a quick run, rough figures" if part["quick"] else ""
    system = f"Linux {told['kernel']}, Python {told['python']}"
    return f"({told['cpu']}, {told['cores']} cores, {system}, {told['date']}{quick})"


def _transport(figures: dict[str, Any]) -> Iterator[str]:
    limit = figures["nghttpd, a static file"]["calls_per_second"]["median"]
    grpcio = figures["extauthz, grpcio"]["calls_per_second"]["median"]
    yield "| Check calls, one core for the server | calls/s | CPU us per call | of nghttpd | times our grpcio |"
    yield "|---|---:|---:|---:|---:|"
    for name, figure in figures.items():
        rate, cpu = figure["calls_per_second"]["median"], figure["cpu_us_per_call"]["median"]
        yield f"| {name} | {rate:,.0f} | {cpu:.1f} | {rate / limit:.2f} | {rate / grpcio:.1f} |"


def _envoy(figures: dict[str, Any]) -> Iterator[str]:
    one, many = figures["1"], figures[max(figures, key=int)]
    nothing = one["no filter"]["p50_us"]["median"]
    builtin = many["built-in"]["requests_per_second"]["median"]
    null = many["null, native, Unix socket"]["requests_per_second"]["median"]
    yield "| through Envoy, one worker | requests/s | of built-in | of null | p50 added at one connection (us) | p99 |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, figure in many.items():
        rate = figure["requests_per_second"]["median"]
        added = one[name]["p50_us"]["median"] - nothing
        p99 = one[name]["p99_us"]["median"]
        yield f"| {name} | {rate:,.0f} | {rate / builtin:.2f} | {rate / null:.2f} | {added:.0f} | {p99:.0f} |"


def _decide(figures: dict[str, Any]) -> Iterator[str]:
    yield "| one decision, by stage | us |"
    yield "|---|---:|"
    for name, stage in figures["stages"].items():
        yield f"| {name} | {stage['median']:.2f} |"
    yield ""
    yield "| first check of a token | us | signature alone | above it |"
    yield "|---|---:|---:|---:|"
    for name, figure in figures["first_seen"].items():
        check, bare = figure["check"]["median"], figure["signature alone"]["median"]
        yield f"| {name} | {check:.1f} | {bare:.1f} | {check - bare:.1f} |"
    yield ""
    yield "| path rules | allowed by the last (us) | denied by all (us) | compile (s) | bytes per rule |"
    yield "|---:|---:|---:|---:|---:|"
    for count, figure in figures["rules"].items():
        times = f"{figure['allowed']['median']:.2f} | {figure['denied']['median']:.2f}"
        yield f"| {int(count):,} | {times} | {figure['compile_seconds']:.2f} | {figure['bytes_per_rule']:,.0f} |"
    yield ""
    yield "| distinct tokens, all seen | check (us) | memory of the cache (MB) |"
    yield "|---:|---:|---:|"
    for count, figure in figures["tokens"].items():
        yield f"| {int(count):,} | {figure['check_us']:.2f} | {figure['cache_bytes'] / 1e6:.1f} |"


def _start(figures: dict[str, Any]) -> Iterator[str]:
    yield "| start | exec to ready (ms) | resident (MiB) |"
    yield "|---|---:|---:|"
    for name, figure in figures.items():
        yield f"| {name} | {figure['ready_ms']['median']:.0f} | {figure['resident_mib']['median']:.0f} |"


def _plots(parts: dict[str, Any], directory: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    if "transport" in parts:
        figures = parts["transport"]["figures"]
        _bars(figures, "calls_per_second", "Check calls per second, server on one core", directory / "transport.png")
    if "through_envoy" in parts:
        figures = parts["through_envoy"]["figures"]
        many = figures[max(figures, key=int)]
        _bars(
            many, "requests_per_second", "Requests per second through one Envoy worker", directory / "through_envoy.png"
        )


def _bars(figures: dict[str, Any], figure: str, title: str, file: Path) -> None:
    from matplotlib import pyplot

    names = list(reversed(figures))
    middle = [figures[name][figure]["median"] for name in names]
    spread = [
        [figures[name][figure]["median"] - figures[name][figure]["min"] for name in names],
        [figures[name][figure]["max"] - figures[name][figure]["median"] for name in names],
    ]
    drawing, axes = pyplot.subplots(figsize=(9, 0.45 * len(names) + 1.2))
    axes.barh(names, middle, xerr=spread, color="#3b6ea5", ecolor="#222222", capsize=3)
    axes.set_title(f"{title} (median, bars: lowest to highest round)", fontsize=10)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    drawing.tight_layout()
    drawing.savefig(file, dpi=120)
    pyplot.close(drawing)
