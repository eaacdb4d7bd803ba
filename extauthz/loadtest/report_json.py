"""The report as JSON: everything that was found, with histograms, so that other runs can be compared with it.

docs/loadtest.md describes the format. Times are nanoseconds unless a name says seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extauthz._version import __version__
from extauthz.errors import UsageError
from extauthz.loadtest.histogram import Histogram
from extauthz.loadtest.machine import describe
from extauthz.loadtest.results import Counts, Latency, SliceResult, StepResult
from extauthz.loadtest.run import Report

FORMAT = "extauthz-loadtest"
FORMAT_VERSION = 1


def percentile_name(percent: float) -> str:
    """`p50`, `p99.9`."""
    return f"p{percent:g}"


def as_document(report: Report) -> dict[str, Any]:
    """The report as plain dicts, lists, texts and numbers."""
    plan, options = report.plan, report.plan.options
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "extauthz": __version__,
        "started": report.started.isoformat(timespec="seconds"),
        "interrupted": report.interrupted,
        "target": {
            "address": plan.target.text,
            "protocol": plan.target.protocol.value,
            "tls": plan.target.tls is not None,
        },
        "sender": {
            "name": plan.choice.name,
            "reason": plan.choice.reason,
            "workers": options.workers,
            "connections": plan.wire.connections * options.workers,
        },
        "load": {
            "arrivals": plan.arrivals.value,
            "rates": list(plan.rates),
            "duration_seconds": options.seconds,
            "warmup_seconds": options.warmup,
            "timeout_seconds": options.timeout,
            "seed": options.seed,
            "payloads": len(plan.corpus.payloads),
            "tokens": dict(plan.token_kinds),
            "mix": options.tokens.mix,
            "zipf": options.tokens.zipf,
        },
        "machine": describe(),
        "floors": [_step(step) for step in report.floors],
        "steps": [_step(step) for step in report.steps],
    }


def _step(step: StepResult) -> dict[str, Any]:
    return {
        "rate": step.rate,
        "achieved": round(step.achieved, 3),
        "began_seconds": round(step.began, 6),
        "seconds": step.seconds,
        "valid": step.valid,
        "problems": list(step.problems),
        "calls": _counts(step.counts),
        "warmup_calls": step.warmup_calls,
        "latency": _latency(step.latency),
        "service": _latency(step.service),
        "generator_lag": _latency(step.lag),
        "generator_cpu_seconds": round(step.cpu_seconds, 3),
        "peak_in_flight": step.peak_in_flight,
        "connections_opened": step.connections_opened,
        "latency_histogram": step.latency_histogram.encode(),
        "service_histogram": step.service_histogram.encode(),
        "slice_seconds": step.slice_seconds,
        "slices": [_slice(part) for part in step.slices],
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "asked": counts.asked,
        "allowed": counts.allowed,
        "denied": counts.denied,
        "denied_by": dict(counts.denied_by),
        "errors": dict(counts.errors),
        "unfinished": counts.unfinished,
    }


def _latency(latency: Latency) -> dict[str, float]:
    percentiles = {percentile_name(percent): value for percent, value in latency.percentiles.items()}
    ends = {"count": latency.count, "mean": round(latency.mean), "min": latency.minimum}
    return {**ends, **percentiles, "max": latency.maximum}


def _slice(part: SliceResult) -> dict[str, Any]:
    return {
        "at": part.at,
        "calls": _counts(part.counts),
        "latency": _latency(part.latency),
        "histogram": part.histogram.encode(),
    }


@dataclass(frozen=True, slots=True)
class Sample:
    """One rate of a report, as far as comparing needs it: the latencies of each slice, and how many calls failed."""

    rate: float
    valid: bool
    asked: int
    failed: int
    slices: tuple[Histogram, ...]


def sample(step: StepResult) -> Sample:
    """A result of this run."""
    parts = tuple(part.histogram for part in step.slices)
    return Sample(step.rate, step.valid, step.counts.asked, step.counts.failed, parts)


def read_samples(path: Path) -> tuple[Sample, ...]:
    """The results of a report that was written before. Raises UsageError when the file is no such report."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare {path}: {error}") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise UsageError(f"--compare {path}: not a report of extauthz loadtest")
    if document.get("version") != FORMAT_VERSION:
        raise UsageError(f"--compare {path}: format version {document.get('version')}, this is {FORMAT_VERSION}")
    try:
        return tuple(_read_sample(step) for step in document["steps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--compare {path}: damaged: {type(error).__name__}: {error}") from None


def _read_sample(step: Mapping[str, Any]) -> Sample:
    calls = step["calls"]
    slices = tuple(Histogram.decode(part["histogram"]) for part in step["slices"])
    return Sample(step["rate"], step["valid"], calls["asked"], sum(calls["errors"].values()), slices)
