"""Our own load tester as a child process on the load's core, and its results as figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load import LoadFailed
from benchmarks.measure import LOAD_CORE, SEED, pinned

PERCENTILES = {"p50": "p50_us", "p99": "p99_us", "p99.9": "p999_us", "max": "max_us"}


def loadtest(
    *arguments: str, rates: Sequence[float], seconds: float, warmup: float = 0.5, core: int | None = LOAD_CORE
) -> list[Mapping[str, Any]]:
    """Run `extauthz loadtest ARGUMENTS` at these rates; the steps of its report. Raises LoadFailed.

    Its own calibration is left out: it would put the null server on the load's core.
    """
    command = [sys.executable, "-m", "extauthz", "loadtest", *arguments, "--json", "--calibration", "0"]
    command += ["--rate", ",".join(f"{rate:g}" for rate in rates), "--duration", f"{seconds:g}"]
    command += ["--warmup", f"{warmup:g}", "--seed", str(SEED)]
    done = subprocess.run(
        [*_urgent(), *pinned(core, command)],
        capture_output=True,
        text=True,
        timeout=60 + 10 * seconds * len(rates),
        check=False,
    )
    try:
        steps: list[Mapping[str, Any]] = json.loads(done.stdout)["steps"]
    except (ValueError, KeyError):
        raise LoadFailed(done.stderr or done.stdout) from None
    return steps


def _urgent() -> list[str]:
    """Before other work, where this is allowed: the sender's own delays are none of the server's."""
    return ["nice", "-n", "-15"] if os.geteuid() == 0 else []


def figures(step: Mapping[str, Any]) -> dict[str, float]:
    """Rates, latencies from when calls were due and from when they were sent, and whether the result is valid."""
    calls = step["calls"]
    return {
        "asked_per_second": calls["asked"] / step["seconds"],
        "done_per_second": step["achieved"],
        "valid": float(step["valid"]),
        "not_allowed": calls["asked"] - calls["allowed"],
        "lag_p99_us": step["generator_lag"]["p99"] / 1e3,
        **{name: step["latency"][percent] / 1e3 for percent, name in PERCENTILES.items()},
        **{f"service_{name}": step["service"][percent] / 1e3 for percent, name in PERCENTILES.items()},
    }
