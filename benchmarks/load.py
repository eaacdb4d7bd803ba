"""The load generators: h2load for Check calls, wrk for requests through Envoy. Their output as numbers."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.measure import cpu_seconds, pinned
from benchmarks.servers import CHECK_PATH, Running

WARM_UP_SECONDS = 0.5
CONNECTIONS, STREAMS = 4, 16
"""Of h2load together, whatever the number of addresses."""

_LONGEST_SECONDS = 60.0


class LoadFailed(Exception):
    """The generator did not run, or not every answer was a success."""


def h2load(server: Running, message: bytes, *, core: int | None, seconds: float) -> Mapping[str, float]:
    """Check calls for some seconds: calls/s, and CPU microseconds of the server for each call.

    Without a message the requests are GETs without a body. A server with several addresses gets a generator for each,
    which share the connections. Every answer must have HTTP status 200. Raises LoadFailed otherwise.
    """
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message if message else b"")
        body.flush()
        connections = max(1, CONNECTIONS // len(server.addresses))
        commands = [
            pinned(core, _h2load(address, body.name if message else "", connections, seconds))
            for address in server.addresses
        ]
        before = cpu_seconds(server.pids)
        texts = _run(*commands)
        used = cpu_seconds(server.pids) - before
    calls = sum(map(_calls_per_second, texts))
    # The warm-up's calls used CPU too, at the same rate.
    return {"calls_per_second": calls, "cpu_us_per_call": used / (calls * (seconds + WARM_UP_SECONDS)) * 1e6}


def _h2load(address: str, body: str, connections: int, seconds: float) -> list[str]:
    base = ["-B", address] if address.startswith("unix:") else []
    host = "localhost" if base else address
    times = ["-D", f"{round(seconds * 1e3)}ms", "--warm-up-time", f"{round(WARM_UP_SECONDS * 1e3)}ms"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    shape = [f"-c{connections}", f"-m{STREAMS}", "-t1"]
    sent = ["-d", body, *headers] if body else []
    return ["h2load", *shape, *times, *base, *sent, f"http://{host}{CHECK_PATH}"]


def _calls_per_second(text: str) -> float:
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", text)
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if rate is None or counts is None or not int(counts[1]) or any(int(count) for count in counts.groups()[1:]):
        raise LoadFailed(text)
    return float(rate[1])


_SCRIPT = """
wrk.headers["authorization"] = "%s"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%f %%f %%f %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), summary.errors.status))
end
"""


def wrk(
    url: str, authorization: str, *, core: int, seconds: int, connections: int, pids: Mapping[str, Sequence[int]]
) -> Mapping[str, float]:
    """Requests for some seconds: requests/s, latency percentiles and CPU time in microseconds.

    `pids` are groups of processes; the CPU time that each takes for a request is `cpu_us_NAME`. Every answer must be a
    success. Raises LoadFailed otherwise.
    """
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "load.lua")
        script.write_text(_SCRIPT % authorization)
        before = {name: cpu_seconds(group) for name, group in pids.items()}
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        (text,) = _run(pinned(core, command))
        used = {name: cpu_seconds(group) - before[name] for name, group in pids.items()}
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", text)
    if found is None or int(found[6]) or not int(found[1]):
        raise LoadFailed(text)
    requests, microseconds = int(found[1]), int(found[2])
    return {
        "requests_per_second": requests / microseconds * 1e6,
        "p50_us": float(found[3]),
        "p99_us": float(found[4]),
        "p999_us": float(found[5]),
        **{f"cpu_us_{name}": seconds / requests * 1e6 for name, seconds in used.items()},
    }


def _run(*commands: Sequence[str]) -> list[str]:
    """Run them side by side; what each printed."""
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    try:
        texts = [process.communicate(timeout=_LONGEST_SECONDS)[0] for process in running]
    finally:
        _end(running)
    for command, process, text in zip(commands, running, texts, strict=True):
        if process.returncode:
            raise LoadFailed(f"{' '.join(command)}: {text}")
    return texts


def _end(processes: Iterable[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
