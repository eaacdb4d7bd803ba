"""Latency of Check calls that come at fixed rates: 25, 50 and 75 % of what a server can do at most, open loop.

The capacity is h2load's rate in the same run. `extauthz null` gets the rates of our native transport: what the load
tester, the transport and the machine add by themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import h2load
from benchmarks.loadtester import figures, loadtest
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Findings, started
from benchmarks.servers import Running, service, unix_socket
from benchmarks.story import Measured
from benchmarks.transport import GRPCIO, NATIVE
from extauthz.mesh.demo import WORKLOAD

SHARES = (25, 50, 75)
TOKENS = 200
ZIPF = "1.1"


def run(*, quick: bool) -> dict[str, Any]:
    """Latency percentiles at each share of the capacity; all RS256 tokens have been seen before."""
    seconds, rounds = (0.5, 1) if quick else (1.5, 3)
    story = Measured.make()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory, ExitStack() as stack:
        file, tokens = Path(directory, "policies.yaml"), Path(directory, "tokens")
        file.write_text(story.policies)
        tokens.write_text("".join(story.token(f"user-{number}") + "\n" for number in range(TOKENS)))
        serve = partial(service, "serve", "--policy", str(file), "--workload", WORKLOAD, core=SERVER_CORE)
        servers = {
            "extauthz, native": partial(serve, *NATIVE, listen=unix_socket(directory, "native")),
            "null, native": partial(service, "null", *NATIVE, listen=unix_socket(directory, "null"), core=SERVER_CORE),
            "extauthz, grpcio": partial(serve, *GRPCIO, listen=unix_socket(directory, "grpcio")),
        }
        running = started(stack, servers, findings)
        message = story.message(story.token())
        capacity = _capacities(running, message, findings, seconds)
        for number in range(rounds):
            for name, server in running.items():
                if name not in findings.failures:
                    try:
                        _round(findings, name, server, capacity[name], tokens, seconds)
                    except Exception as error:
                        findings.fail(name, error)
            print(f"  round {number + 1} of {rounds} done", flush=True)
    return {"figures": findings.summary(), "capacity": capacity, "failures": findings.failures}


def _capacities(running: Mapping[str, Running], message: bytes, findings: Findings, seconds: float) -> dict[str, float]:
    capacity = {}
    for name, server in running.items():
        try:
            capacity[name] = h2load(server, message, core=LOAD_CORE, seconds=seconds)["calls_per_second"]
        except Exception as error:
            findings.fail(name, error)
    if "extauthz, native" in capacity:
        capacity["null, native"] = capacity["extauthz, native"]
    return capacity


def _round(findings: Findings, name: str, server: Running, capacity: float, tokens: Path, seconds: float) -> None:
    target = ("--target", server.addresses[0], "--path", "/api/v1/products/0")
    load = ("--tokens", str(tokens), "--zipf", ZIPF)
    steps = loadtest(*target, *load, rates=[round(capacity * share / 100) for share in SHARES], seconds=seconds)
    for share, step in zip(SHARES, steps, strict=True):
        findings.add(f"{name}, {share} %", {"rate": step["rate"], **figures(step)})
