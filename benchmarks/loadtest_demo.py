"""`python -m benchmarks.loadtest_demo DIRECTORY`: keep what `make loadtest-demo` found where documents show it from.

Writes `results/loadtest.json`, the figures without histograms, and `results/loadtest.png`, and fills the documents.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import documents
from benchmarks.documents import RESULTS
from benchmarks.loadtester import PERCENTILES
from benchmarks.measure import machine

WAYS = {
    "envoy-alone": "Envoy alone",
    "built-in-filters": "built-in filters",
    "extauthz-native": "extauthz, native",
    "extauthz-grpcio": "extauthz, grpcio",
}
"""The reports of the demo by their file's name."""


def summarized(directory: Path) -> dict[str, Any]:
    """The figures of each way to authorize, a step for each rate.

    Raises OSError when the demo did not write them, ValueError when they are not of one whole run.
    """
    figures = {}
    load: Mapping[str, Any] = {}
    for stem, name in WAYS.items():
        report = json.loads((directory / f"{stem}.json").read_text(encoding="utf-8"))
        if report["interrupted"] or load not in ({}, report["load"]):
            raise ValueError(f"{stem}.json is of an interrupted or another run")
        load = report["load"]
        figures[name] = [_step(step) for step in report["steps"]]
    return {"part": "loadtest", "quick": False, "machine": machine(), "load": load, "figures": figures}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    latency = {name: step["latency"][percent] / 1e3 for percent, name in PERCENTILES.items()}
    latency["p90_us"] = step["latency"]["p90"] / 1e3
    kept = {key: step[key] for key in ("rate", "achieved", "seconds", "valid", "problems", "calls")}
    return {**kept, **latency, "lag_p99_us": step["generator_lag"]["p99"] / 1e3}


def main(arguments: list[str]) -> None:
    """Summarize the reports in a directory."""
    directory = Path(arguments[0])
    try:
        document = summarized(directory)
    except (OSError, ValueError) as error:
        sys.exit(f"nothing is kept of {directory}: {error}")
    (RESULTS / "loadtest.json").write_text(json.dumps(document, indent=1) + "\n")
    shutil.copyfile(directory / "latency.png", RESULTS / "loadtest.png")
    changed = documents.fill()
    for file in (RESULTS / "loadtest.json", RESULTS / "loadtest.png", *changed):
        print(f"wrote {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
