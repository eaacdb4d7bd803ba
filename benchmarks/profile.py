"""`python -m benchmarks.profile`: where the CPU time of a serving native process goes, under full load.

Linux's `perf` says in which libraries, py-spy (`--py-spy`, or the one on PATH) in which Python functions. Writes
`results/profile.json` and fills the documents. Not a part of `make bench`, since few machines have both tools.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import documents
from benchmarks.documents import RESULTS
from benchmarks.load import LoadFailed, h2load
from benchmarks.measure import LOAD_CORE, SEED, SERVER_CORE, machine
from benchmarks.servers import Running, service, unix_socket
from benchmarks.story import Measured
from benchmarks.transport import NATIVE
from extauthz.mesh.demo import WORKLOAD

SECONDS = 6

_SHARE = re.compile(r"^\s*([\d.]+)%\s+(\S+)", re.MULTILINE)
_FRAME = re.compile(r"(?P<function>\S+) \((?P<file>[^:)]+)")


def libraries(directory: Path, pid: int) -> list[str]:
    """perf's command: which library (or the kernel) the process is in, 1,000 times a second of its CPU time."""
    whom = ["-o", str(directory / "perf"), "-p", str(pid), "--", "sleep", str(SECONDS)]
    return ["perf", "record", "-q", "-F", "1000", *whom]


def library_shares(directory: Path) -> dict[str, float]:
    """What perf recorded: shares of the time by library."""
    command = ["perf", "report", "-i", str(directory / "perf"), "--no-children", "--sort", "dso", "--stdio", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: float(share) / 100 for share, name in _SHARE.findall(done.stdout)}


def functions(py_spy: str, directory: Path, pid: int) -> list[str]:
    """py-spy's command: in which Python function the thread is that runs, without stopping it."""
    where = ["--format", "raw", "-o", str(directory / "spy"), "-p", str(pid)]
    return [py_spy, "record", "--nonblocking", "--gil", "--rate", "500", "--duration", str(SECONDS), *where]


def function_shares(text: str) -> dict[str, float]:
    """What py-spy recorded (one stack and its count a line): shares of the time by the innermost function."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frame = _FRAME.search(stack.rpartition(";")[2])
        if frame is not None:
            counts[f"{frame['function']} ({frame['file']})"] += int(count)
    whole = counts.total()
    return {name: count / whole for name, count in counts.most_common()}


@contextmanager
def _under_load() -> Iterator[tuple[Running, bytes]]:
    story = Measured.make()
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory:
        file = Path(directory, "policies.yaml")
        file.write_text(story.policies)
        arguments = ("--policy", str(file), "--workload", WORKLOAD, *NATIVE)
        with service("serve", *arguments, listen=unix_socket(directory, "s"), core=SERVER_CORE) as running:
            yield running, story.message(story.token())


def _profiled(command: Sequence[str], running: Running, message: bytes) -> Mapping[str, float]:
    """Run a profiler beside the load; the load's figures."""
    profiler = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        load = h2load(running, message, core=LOAD_CORE, seconds=SECONDS + 1)
        said, _ = profiler.communicate(timeout=30)
    finally:
        profiler.kill()
        profiler.wait()
    if profiler.returncode:
        raise LoadFailed(f"{command[0]}: {said}")
    return load


def run(py_spy: str) -> dict[str, Any]:
    """Shares by library and by Python function, with the load's figures meanwhile; a tool that is missing is said."""
    figures: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place, _under_load() as (running, message):
        directory, pid = Path(place), running.pids[0]
        try:
            load = _profiled(libraries(directory, pid), running, message)
            figures["libraries"] = {"load": load, "shares": library_shares(directory)}
        except (OSError, LoadFailed, subprocess.SubprocessError) as error:
            failures["libraries"] = str(error)
        try:
            load = _profiled(functions(py_spy, directory, pid), running, message)
            figures["functions"] = {"load": load, "shares": function_shares((directory / "spy").read_text())}
        except (OSError, LoadFailed, subprocess.SubprocessError) as error:
            failures["functions"] = str(error)
    return {"figures": figures, "failures": failures}


def main() -> None:
    """Profile, keep what was found, and show it in the documents."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--py-spy", default=shutil.which("py-spy") or "py-spy", help="the py-spy program")
    found = run(parser.parse_args().py_spy)
    document = {"part": "profile", "quick": False, "seed": SEED, "machine": machine(), **found}
    (RESULTS / "profile.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, reason in found["failures"].items():
        print(f"FAILED {name}: {reason}")
    for file in documents.fill():
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
