"""The load generators: h2load for Check calls, wrk for requests through Envoy. Their output as numbers."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measure import cpu_seconds, pinned
from benchmarks.servers import CHECK_PATH, Running

WARM_UP_SECONDS = 1


class LoadFailed(Exception):
    """The generator did not run, or not every answer was a success."""


def h2load(
    server: Running, message: bytes, *, core: int, seconds: int, connections: int = 4, streams: int = 16
) -> Mapping[str, float]:
    """Check calls for some seconds: calls/s, and CPU microseconds of the server for each call.

    Every answer must have HTTP status 200. Raises LoadFailed otherwise.
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()
        address = server.addresses[0]
        base = ["-B", address] if address.startswith("unix:") else []
        host = "localhost" if base else address
        command = ["h2load", f"-c{connections}", f"-m{streams}", "-t1", "-D", str(seconds), *base, "-d", body.name]
        command += ["--warm-up-time", str(WARM_UP_SECONDS), "-H", "content-type: application/grpc"]
        command += ["-H", "te: trailers", f"http://{host}{CHECK_PATH}"]
        before = cpu_seconds(server.pids)
        text = _run(pinned(core, command))
        used = cpu_seconds(server.pids) - before
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", text)
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if rate is None or counts is None or any(int(count) for count in counts.groups()[1:]):
        raise LoadFailed(text)
    calls = float(rate[1])
    # The warm-up's calls used CPU too, at the same rate.
    return {"calls_per_second": calls, "cpu_us_per_call": used / (calls * (seconds + WARM_UP_SECONDS)) * 1e6}


_SCRIPT = """
wrk.headers["authorization"] = "%s"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%f %%f %%f %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), summary.errors.status))
end
"""


def wrk(url: str, authorization: str, *, core: int, seconds: int, connections: int) -> Mapping[str, float]:
    """Requests for some seconds: requests/s and latency percentiles in microseconds. Every answer must be a success."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "load.lua")
        script.write_text(_SCRIPT % authorization)
        text = _run(pinned(core, ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]))
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", text)
    if found is None or int(found[6]):
        raise LoadFailed(text)
    requests, microseconds = int(found[1]), int(found[2])
    return {
        "requests_per_second": requests / microseconds * 1e6,
        "p50_us": float(found[3]),
        "p99_us": float(found[4]),
        "p999_us": float(found[5]),
    }


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise LoadFailed(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout
