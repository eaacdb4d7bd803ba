"""The report as tables for other programs: CSV, and the log format of HdrHistogram."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from extauthz.loadtest.report_json import percentile_name
from extauthz.loadtest.results import Latency, StepResult
from extauthz.loadtest.run import Report

_MICROSECOND = 1000.0

_COUNTS = ("asked", "allowed", "denied", "errors", "unfinished")
_CORRECTED = "latency"
_UNCORRECTED = "service"


def write_csv(report: Report, steps: Path, slices: Path) -> None:
    """One line for each rate, and one for each slice of time of each rate. Latencies are microseconds."""
    with steps.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(_row(report.steps[0])) if report.steps else ["rate"])
        writer.writeheader()
        writer.writerows(_row(step) for step in report.steps)
    with slices.open("w", newline="", encoding="utf-8") as file:
        rows = list(_slice_rows(report.steps))
        slice_writer = csv.DictWriter(file, list(rows[0]) if rows else ["rate"])
        slice_writer.writeheader()
        slice_writer.writerows(rows)


def _row(step: StepResult) -> dict[str, object]:
    counts = step.counts
    numbers = (counts.asked, counts.allowed, counts.denied, counts.failed, counts.unfinished)
    return {
        "rate": step.rate,
        "achieved": round(step.achieved, 3),
        "seconds": step.seconds,
        "valid": int(step.valid),
        **dict(zip(_COUNTS, numbers, strict=True)),
        **_columns(_CORRECTED, step.latency),
        **_columns(_UNCORRECTED, step.service),
        **_columns("generator_lag", step.lag),
    }


def _slice_rows(steps: Sequence[StepResult]) -> Iterator[dict[str, object]]:
    for step in steps:
        for part in step.slices:
            counts = part.counts
            numbers = (counts.asked, counts.allowed, counts.denied, counts.failed, counts.unfinished)
            yield {
                "rate": step.rate,
                "at_seconds": part.at,
                **dict(zip(_COUNTS, numbers, strict=True)),
                **_columns(_CORRECTED, part.latency),
            }


def _columns(name: str, latency: Latency) -> dict[str, float]:
    values = {
        "mean": latency.mean,
        **{percentile_name(percent): value for percent, value in latency.percentiles.items()},
        "max": latency.maximum,
    }
    return {f"{name}_{figure}_us": round(value / _MICROSECOND, 3) for figure, value in values.items()}


def write_hdr_log(report: Report, path: Path) -> None:
    """A histogram log (format 1.2), one line for each slice of time, tagged with its rate; values are nanoseconds."""
    started = report.started.timestamp()
    with path.open("w", encoding="ascii") as file:
        file.write("#[Histogram log format version 1.2]\n")
        file.write(f"#[StartTime: {started:.3f} (seconds since epoch), {report.started.isoformat()}]\n")
        file.write(f"#[BaseTime: {started:.3f} (seconds since epoch)]\n")
        file.write('"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n')
        for step in report.steps:
            for part in step.slices:
                at, length = step.began + part.at, step.slice_seconds
                largest = part.latency.maximum / 1e6
                file.write(f"Tag=rate-{step.rate:g},{at:.3f},{length:.3f},{largest:.3f},{part.histogram.encode()}\n")
