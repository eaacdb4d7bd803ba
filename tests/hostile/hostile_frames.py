"""Hostile HTTP/2 peers against a running server, on each transport; the attacks are those of tests/native.

An input is one write of an attacker: a frame, some hundred of them, or bytes that are none. In this family

- *wrongly allowed* counts, in the server, each CheckRequest that was let in and is not the steady client's good one;
- *crashes* counts exceptions of a decision, calls of the steady client that failed, and a server that ended;
- *hangs* is 1 when a call of the steady client took longer than `SLOWEST`: on the native transport 1 s; on grpcio,
  whose threads answer a flood on the processors that the client shares with them, 10 s;
- *growth* is the server's memory at the end, when all connections are gone, against that after a third of the time.

Under these floods grpcio lets calls of others fail (as errors, which never pass) and its core buffers what it likes; no
option of it bounds that. Both are shown for it, as `unanswered` and `MiB grown`, but not counted: SECURITY.md says so.

`idle_connections` stay open beside one call that must be answered: at most 20 KiB each, and no processor time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hostile_runner import Tally

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "native"))
import endurance
import hostile

SLOWEST = {"native": 1.0, "grpcio": 10.0}
IDLE_BYTES = 20 << 10
BUSY = 0.05
"""Seconds of processor time in a second of idle connections that are as good as none."""


def attack(transport: str, seconds: float, seed: int) -> Tally:
    """Attack a server for so long."""
    report = hostile.campaign(seconds, seed, transport)
    counted = report.statistics
    slow = report.slowest > SLOWEST[transport]
    growth = max(0, report.memory_end - report.memory_early)
    outcomes = {"steady calls": report.calls, "refused connections": counted.get("refused_protocol", 0)}
    failures = report.failures
    if transport == "grpcio":
        failures = [one for one in failures if not one.startswith("StatusCode.")]
        outcomes = {"steady calls": report.calls, "unanswered": len(report.failures) - len(failures)}
        outcomes["MiB grown"], growth = growth >> 20, 0
    return Tally(
        f"HTTP/2 frames, {transport}",
        report.volleys,
        outcomes,
        counted["wrongly_allowed"],
        counted["crashed"] + len(failures),
        int(slow),
        growth,
        report.slowest,
        seconds,
        [*report.failures, *([f"a steady call took {report.slowest:.1f} s"] if slow else [])],
    )


def idle(transport: str, connections: int) -> Tally:
    """Open connections that do nothing. Memory beyond the bound is counted as growth."""
    name = f"idle connections, {transport}"
    if not endurance.allow_files(connections + 200):
        return Tally(name, notes=[f"not run: {connections} connections need as many open files (ulimit -n)"], crashes=1)
    found = endurance.stay_idle(connections, transport)
    busy = found.cpu_of_a_second > BUSY
    return Tally(
        name,
        found.connections,
        {"MiB held": found.bytes_held >> 20},
        crashes=int(not found.answered) + int(busy),
        growth=max(0, found.bytes_held - connections * IDLE_BYTES),
        notes=[f"{found.cpu_of_a_second:.2f} s of processor time in a second"] if busy else [],
    )
