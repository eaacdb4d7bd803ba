"""Ask a server for three times what it can answer, and tell what becomes of rate, latency and memory: a line of JSON.

`python tests/faults/overload.py TRANSPORT`, for each of several: the server gets a core of its own where there are two,
and works so long on each call (`--work`, microseconds, holding the interpreter as a decision does) that the load tester
can offer three times its capacity. The capacity is the most answers a second at any of ever higher rates, up to one
that is answered by less than seven tenths. Exit 1 when a limit below is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from extauthz.server import transports
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS

OVERLOAD = 3
LEAST_SHARE = 0.8
"""Of the capacity, that is still answered in overload."""
LONGEST_MS = 1000.0
"""For 99 of 100 answers: what `envoy-config` has Envoy wait."""
MOST_GROWTH_MIB = 8.0
"""From the end of the first overload to that of the second."""

FIRST_RATE = 700
FACTOR = 1.5
SATURATED = 0.7
"""Far enough below 1 that a busy machine does not end the search."""
HIGHEST_RATE = 200_000


def serve(transport: str, path: str, work: float, in_flight: int) -> None:
    """Allow every call after `work` seconds of work, until SIGTERM."""

    def handle(message: bytes) -> bytes:
        end = time.perf_counter() + work
        while time.perf_counter() < end:
            pass
        return b""

    limits = replace(DEFAULT_LIMITS, in_flight=in_flight)
    server, _ = transports.make(transport, [Address(path=path)], {CHECK_METHOD: handle}, limits)
    server.bind()
    server.start()
    server.set_serving(True)
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop()


def on_core(number: int) -> Callable[[], None] | None:
    """What keeps a new process to one of two cores or more."""
    cores = sorted(os.sched_getaffinity(0))
    return partial(os.sched_setaffinity, 0, {cores[number]}) if len(cores) > 1 else None


def measure(address: str, rate: float, seconds: float) -> dict[str, Any]:
    """What the load tester saw at `rate`; its exit status says no more than that calls failed, which some must."""
    with tempfile.TemporaryDirectory() as report:
        timing = ("--rate", str(int(rate)), "--duration", str(seconds), "--warmup", "1", "--calibration", "0")
        command = [sys.executable, "-m", "extauthz", "loadtest", "--target", address, *timing, "--report", report]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=False, preexec_fn=on_core(1), **quiet)  # type: ignore[call-overload]
        step: dict[str, Any] = json.loads((Path(report) / "report.json").read_text())["steps"][0]
    return step


def capacity(address: str, seconds: float) -> float:
    """The most answers a second, whatever was asked."""
    rate, most = float(FIRST_RATE), 0.0
    while rate < HIGHEST_RATE:
        answered = measure(address, rate, seconds)["achieved"]
        most = max(most, answered)
        if answered < SATURATED * rate:
            break
        rate *= FACTOR
    return most


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return round(int(match[1]) / 1024, 1)


def overload(pid: int, address: str, seconds: float) -> dict[str, Any]:
    """The capacity, and what two rounds of overload make of it."""
    most = capacity(address, seconds)
    memory, steps = [resident_mib(pid)], []
    for _ in range(2):
        steps.append(measure(address, OVERLOAD * most, seconds))
        memory.append(resident_mib(pid))
    answered = [round(step["achieved"]) for step in steps]
    p99 = [round(step["latency"]["p99"] / 1e6, 1) for step in steps]
    result = {
        "capacity": round(most),
        "asked": round(OVERLOAD * most),
        "answered": answered,
        "p99_ms": p99,
        "errors": [step["calls"]["errors"] for step in steps],
        "generator_kept_up": all(step["valid"] for step in steps),
        "resident_mib": memory,
    }
    broken = {
        "answered": min(answered) < LEAST_SHARE * most,
        "p99_ms": max(p99) > LONGEST_MS,
        "resident_mib": memory[2] - memory[1] > MOST_GROWTH_MIB,
    }
    return {**result, "broken": [name for name, wrong in broken.items() if wrong]}


def examine(transport: str, arguments: argparse.Namespace) -> bool:
    """Measure one transport and print; whether every limit was kept."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        options = ("--work", str(arguments.work), "--in-flight", str(arguments.in_flight))
        command = [sys.executable, __file__, transport, *options, "--serve", path]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(0))
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n", "it did not start"
            result = overload(server.pid, f"unix:{path}", arguments.seconds)
        finally:
            server.kill()
            server.wait()
    told = {"transport": transport, "work_us": arguments.work, "in_flight": arguments.in_flight}
    print(json.dumps({**told, **result}), flush=True)
    return not result["broken"]


def main(given: Sequence[str]) -> int:
    """Measure each transport; returns the exit status."""
    parser = argparse.ArgumentParser(description="Ask servers for three times their capacity.")
    parser.add_argument("transports", nargs="+", choices=["grpcio", "native"])
    parser.add_argument("--work", type=int, default=300, help="microseconds for each call")
    parser.add_argument("--in-flight", type=int, default=256, help="as serve --max-in-flight")
    parser.add_argument("--seconds", type=float, default=4.0, help="at each rate")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.serve:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        serve(arguments.transports[0], arguments.serve, arguments.work / 1e6, arguments.in_flight)
        return 0
    kept = [examine(transport, arguments) for transport in arguments.transports]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
