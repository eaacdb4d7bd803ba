"""The report as one self-contained HTML page: what was measured, whether to believe it, tables and plots."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from extauthz._version import __version__
from extauthz.loadtest import plots, words
from extauthz.loadtest.machine import describe
from extauthz.loadtest.plots import Series
from extauthz.loadtest.results import StepResult
from extauthz.loadtest.run import Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; } th { font-weight: 600; }
td, th { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
td:first-child, th:first-child, td.text { text-align: left; } td.text { white-space: normal; }
img { max-width: 100%; } .bad { color: #b00020; } .note { color: #555; max-width: 50rem; }
"""

_HEADS = ("rate asked", "answered", "p50", "p90", "p99", "p99.9", "max", "allowed", "denied", "errors")
_SHOWN = (50.0, 90.0, 99.0, 99.9)


def page(title: str, reports: Sequence[tuple[str, Report]]) -> str:
    """The page of one report, or of several with a label each."""
    series = [Series(label, report.steps, report.floors) for label, report in reports]
    body = [f"<h1>{escape(title)}</h1>"]
    for label, report in reports:
        body.extend(_section(label, report))
    body.append("<h2>Plots</h2>")
    body.extend(_plots(series))
    body.append(_method())
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _plots(series: Sequence[Series]) -> Iterable[str]:
    """Of one target all rates in one plot; of several a plot for each rate, with the targets side by side."""
    yield _image("Throughput against rate", plots.throughput_by_rate(series))
    if len(series) == 1:
        yield _image("Latency by percentile", plots.latency_by_percentile(series))
        yield _image("Latency over time", plots.latency_over_time(series))
        return
    for rate in plots.common_rates(series):
        lines = [one.at(rate) for one in series]
        yield _image(f"Latency by percentile at {rate:g}/s", plots.latency_by_percentile(lines, f" at {rate:g}/s"))
        yield _image(f"Latency over time at {rate:g}/s", plots.latency_over_time(lines, f" at {rate:g}/s"))


def _section(label: str, report: Report) -> Iterable[str]:
    plan, options = report.plan, report.plan.options
    if label:
        yield f"<h2>{escape(label)}</h2>"
    facts = {
        "target": f"{plan.target.text} ({plan.target.protocol.value}{', TLS' if plan.target.tls else ''})",
        "started": report.started.isoformat(sep=" ", timespec="seconds")
        + (", interrupted before the end" if report.interrupted else ""),
        "arrivals": f"{plan.arrivals.value}, {options.seconds:g} s at each rate after {options.warmup:g} s of warm-up",
        "sender": f"{plan.choice.name} ({plan.choice.reason}); {options.workers} process(es), "
        f"{plan.wire.connections * options.workers} connection(s), timeout {options.timeout:g} s",
        "requests": f"{len(plan.corpus.payloads):,} different; tokens: {words.named(plan.token_kinds)}",
        "machine": ", ".join(f"{name} {value}" for name, value in describe().items()),
    }
    rows = "".join(f'<tr><td>{name}</td><td class="text">{escape(fact)}</td></tr>' for name, fact in facts.items())
    yield f"<table>{rows}</table>"
    yield _steps(report.steps)
    for step in report.steps:
        for problem in step.problems:
            yield f'<p class="bad">{words.rate(step.rate)}: NOT VALID: {escape(problem)}</p>'
    yield from _floors(report)


def _floors(report: Report) -> Iterable[str]:
    if not report.floors:
        yield '<p class="note">The tool\'s own floor was not measured (--calibration 0).</p>'
        return
    yield (
        '<p class="note">The tool\'s own floor: the same load on a server on this machine that answers at once. '
        "What the target's figures have above these is the target's (and the way to it).</p>"
    )
    yield _steps(report.floors)


def _steps(steps: Sequence[StepResult]) -> str:
    rows = "".join(f"<tr>{''.join(_cells(step))}</tr>" for step in steps)
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in _HEADS)}</tr>{rows}</table>"


def _cells(step: StepResult) -> Iterable[str]:
    yield f"<td>{words.rate(step.rate)}{'' if step.valid else ' <span class=bad>not valid</span>'}</td>"
    yield f"<td>{words.rate(step.achieved)}</td>"
    for percent in _SHOWN:
        yield f"<td>{words.duration(step.latency.percentiles[percent])}</td>"
    yield f"<td>{words.duration(step.latency.maximum)}</td>"
    yield f"<td>{step.counts.allowed:,}</td>"
    yield f"<td>{escape(words.denied(step.counts))}</td>"
    bad = ' class="bad"' if step.counts.failed else ""
    yield f"<td{bad}>{escape(words.errors(step.counts))}</td>"


def _image(title: str, png: bytes) -> str:
    return f'<p><img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"></p>'


def _method() -> str:
    return (
        '<p class="note">Open loop: calls are sent at times fixed beforehand, whether or not earlier ones were '
        "answered; latencies count from the time at which a call was due and are of answers only, allowed or denied. "
        "Errors and timeouts are counted apart. A result is not valid when the generator itself took calls up late. "
        f"extauthz {escape(__version__)}.</p>"
    )
