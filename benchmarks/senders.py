"""What rates our load tester holds, by sender: the target answers at once, so the limit is the tester's (or says so).

Sender and server have a core each.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from benchmarks.loadtester import figures, loadtest
from benchmarks.measure import SERVER_CORE, Findings, pinned, started
from benchmarks.servers import Running, process_tree, service, unix_socket
from benchmarks.transport import NATIVE, TCP
from extauthz.mesh.service import run_service

RATES: dict[str, tuple[int, ...]] = {
    "native, Check, Unix socket": (20_000, 60_000, 80_000),
    "native, Check, TCP": (20_000, 60_000),
    "grpcio, Check, Unix socket": (500, 1_000, 2_000),
    "native, HTTP/1.1": (5_000, 20_000),
    "epoll, HTTP/1.1": (2_000, 5_000),
}
NULL_HTTP = (sys.executable, "-m", "extauthz.loadtest.null_http")


def run(*, quick: bool) -> dict[str, Any]:
    """Rates asked and done, percentiles and validity of each sender at each rate."""
    seconds, rounds = (0.5, 1) if quick else (1.0, 3)
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory, ExitStack() as stack:
        null = partial(service, "null", *NATIVE, core=SERVER_CORE)
        servers: dict[str, Callable[[], AbstractContextManager[Running]]] = {
            "Check, Unix socket": partial(null, listen=unix_socket(directory, "null")),
            "Check, TCP": partial(null, listen=TCP),
            "HTTP/1.1": _null_http,
        }
        running = started(stack, servers, findings)
        for number in range(rounds):
            for name, rates in RATES.items():
                rates = rates[:1] if quick else rates
                sender, _, protocol = name.partition(", ")
                if protocol in running and name not in findings.failures:
                    try:
                        _round(findings, name, sender, running[protocol].addresses[0], rates, seconds)
                    except Exception as error:
                        findings.fail(name, error)
            print(f"  round {number + 1} of {rounds} done", flush=True)
    return {"figures": findings.summary(), "failures": findings.failures}


def _round(findings: Findings, name: str, sender: str, address: str, rates: tuple[int, ...], seconds: float) -> None:
    target = ("--url", f"http://{address}/") if name.endswith("HTTP/1.1") else ("--target", address)
    chosen = "native" if sender == "native" else "portable"
    for step in loadtest(*target, "--sender", chosen, rates=rates, seconds=seconds):
        findings.add(f"{name}, {step['rate']:g}", {"rate": step["rate"], **figures(step)})


@contextmanager
def _null_http() -> Iterator[Running]:
    with run_service([], prefix=pinned(SERVER_CORE, []), program=NULL_HTTP) as server:
        yield Running(server.addresses, process_tree(server.process.pid))
