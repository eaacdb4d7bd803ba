"""Writes a report's files into a directory."""

from __future__ import annotations

import json
from pathlib import Path

from extauthz.errors import UsageError
from extauthz.loadtest import plots, report_files, report_html, report_json
from extauthz.loadtest.plots import Series
from extauthz.loadtest.run import Report


def check_directory(directory: Path) -> None:
    """Make the directory if need be, before the load is run. Raises UsageError when nothing can be written there."""
    probe = directory / ".extauthz-loadtest"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--report {directory}: {error.strerror}") from None


def write(report: Report, directory: Path) -> list[Path]:
    """Write JSON, CSV, HDR log, plots and the HTML page; gives their paths. Raises UsageError."""
    series = [Series("", report.steps, report.floors)]
    texts = {
        "report.json": json.dumps(report_json.as_document(report), indent=1) + "\n",
        "report.html": report_html.page(f"Load test of {report.plan.target.text}", [("", report)]),
    }
    images = {
        "percentiles.png": plots.latency_by_percentile(series),
        "over-time.png": plots.latency_over_time(series),
        "throughput.png": plots.throughput_by_rate(series),
    }
    steps, slices, log = directory / "rates.csv", directory / "slices.csv", directory / "latency.hlog"
    try:
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
        for name, image in images.items():
            (directory / name).write_bytes(image)
        report_files.write_csv(report, steps, slices)
        report_files.write_hdr_log(report, log)
    except OSError as error:
        raise UsageError(f"--report {directory}: {error.strerror}") from None
    return [*(directory / name for name in (*texts, *images)), steps, slices, log]
