"""Ask a server for three times what it can answer, and tell what becomes of rate, latency and memory: a line of JSON.

`python tests/faults/overload.py TRANSPORT RATES`: the capacity is the most that it answered without an error at one of
RATES (as `extauthz loadtest --rate` takes them), so they should reach beyond it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXTAUTHZ = (sys.executable, "-m", "extauthz")


def measure(address: str, rates: str, report: Path) -> list[dict[str, Any]]:
    """The load tester's steps; its own status says no more than that calls failed, which is what is looked for."""
    timing = ("--duration", "3", "--warmup", "1", "--calibration", "0")
    command = [*EXTAUTHZ, "loadtest", "--target", address, "--rate", rates, *timing, "--report", str(report)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    steps: list[dict[str, Any]] = json.loads((report / "report.json").read_text())["steps"]
    return steps


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return round(int(match[1]) / 1024, 1)


def main(transport: str, rates: str) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        address = f"unix:{directory}/s"
        command = [*EXTAUTHZ, "null", "--listen", address, "--transport", transport, "--drain", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            assert any(" ready on " in line for line in server.stderr), "it did not start"
            steps = measure(address, rates, Path(directory) / "capacity")
            capacity = max((step["achieved"] for step in steps if not step["calls"]["errors"]), default=0.0)
            if not capacity:
                sys.exit("no rate without errors: begin with a lower one")
            before = resident_mib(server.pid)
            (first, second) = (
                measure(address, str(int(3 * capacity)), Path(directory) / f"overload-{n}")[0] for n in (1, 2)
            )
            result = {
                "transport": transport,
                "capacity": capacity,
                "asked": second["rate"],
                "answered": [first["achieved"], second["achieved"]],
                "p99_ms": [round(step["latency"]["p99"] / 1e6, 1) for step in (first, second)],
                "errors": second["calls"]["errors"],
                "generator_kept_up": second["valid"],
                "resident_mib": [before, resident_mib(server.pid)],
            }
            print(json.dumps(result))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
