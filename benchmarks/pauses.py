"""What holds calls up inside the interpreter, with and without `extauthz/server/interference.py`.

`new tokens`: collections while each call brings a token that was not seen before, so that the cache fills.
`reload`: lateness of calls that are due every millisecond while a thread loads policies again and again.

Each run is a process of its own: `python -m benchmarks.pauses with|without SCENARIO SECONDS POLICIES TOKENS`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cost import distinct
from benchmarks.load import LoadFailed
from benchmarks.measure import SERVER_CORE, Findings, interleaved, pinned
from benchmarks.start import policies
from benchmarks.story import Measured
from extauthz.authorizer import Authorizer
from extauthz.istio.load import load
from extauthz.server.interference import keep_collections_short, loading

NEW_TOKENS, RELOAD = SCENARIOS = ("new tokens", "reload")
MODES = ("with", "without")
DUE_SECONDS = 0.001


def run(*, quick: bool) -> dict[str, Any]:
    """Milliseconds: the collector's pauses, and how late calls were."""
    seconds, rounds = (1.0, 1) if quick else (2.0, 3)
    size = (1_000, 5_000) if quick else (5_000, 20_000)
    sides = {
        f"{scenario}, {mode}": partial(_child, mode, scenario, seconds, *size)
        for scenario in SCENARIOS
        for mode in MODES
    }
    findings = interleaved(sides, rounds, Findings())
    sizes = {"policies": size[0], "tokens": size[1]}
    return {"figures": findings.summary(), "sizes": sizes, "failures": findings.failures}


def _child(mode: str, scenario: str, seconds: float, *size: int) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.pauses", mode, scenario, str(seconds), *map(str, size)]
    done = subprocess.run(pinned(SERVER_CORE, command), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise LoadFailed(done.stderr)
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


class Collections:
    """Notes the collector's pauses from when it is made."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.full = 0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, information: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.pauses.append(time.perf_counter() - self._began)
            self.full += information["generation"] == 2

    def figures(self, seconds: float) -> dict[str, float]:
        """How many, the longest, and their share of the time."""
        return {
            "collections": len(self.pauses),
            "full_collections": self.full,
            "longest_pause_ms": max(self.pauses, default=0.0) * 1e3,
            "share": sum(self.pauses) / seconds,
        }


def main(arguments: Sequence[str]) -> None:
    """One run; prints its figures as JSON."""
    mode, scenario, seconds, count, tokens = arguments[0], arguments[1], float(arguments[2]), *map(int, arguments[3:5])
    story = Measured.make("HS256")
    with tempfile.TemporaryDirectory() as directory:
        file = policies(Path(directory), count)
        file.write_text(file.read_text().partition("---\n")[2] + "---\n" + story.policies)
        alone: Callable[[], AbstractContextManager[None]] = loading if mode == "with" else contextlib.nullcontext
        with alone():
            subject = Authorizer(load([str(file)]).resources)
        messages = distinct(story, tokens)
        if scenario == RELOAD:
            for message in messages:
                subject.check(message)
        if mode == "with":
            keep_collections_short()
        noted = Collections()
        start = time.perf_counter()
        if scenario == RELOAD:
            found = _reload(subject, file, messages, seconds, alone)
        else:
            found = _new_tokens(subject, messages)
        found |= noted.figures(time.perf_counter() - start)
    print(json.dumps(found))


def _new_tokens(subject: Authorizer, messages: Sequence[bytes]) -> dict[str, float]:
    times = []
    for message in messages:
        start = time.perf_counter()
        subject.check(message)
        times.append(time.perf_counter() - start)
    return _percentiles("call", times)


def _reload(
    subject: Authorizer,
    file: Path,
    known: Sequence[bytes],
    seconds: float,
    alone: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    reloads = []
    ended = threading.Event()

    def reload() -> None:
        while not ended.is_set():
            start = time.perf_counter()
            with alone():
                Authorizer(load([str(file)]).resources)
            reloads.append(time.perf_counter() - start)

    thread = threading.Thread(target=reload)
    thread.start()
    late = []
    began = time.perf_counter()
    for number in range(round(seconds / DUE_SECONDS)):
        due = began + number * DUE_SECONDS
        if (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        subject.check(known[number % len(known)])
        late.append(time.perf_counter() - due)
    ended.set()
    thread.join()
    return {**_percentiles("late", late), "reload_ms": max(reloads) * 1e3, "reloads": len(reloads)}


def _percentiles(name: str, times: list[float]) -> dict[str, float]:
    times.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {
        f"{name}_{key}_ms": times[min(int(share * len(times)), len(times) - 1)] * 1e3 for key, share in shares.items()
    }


if __name__ == "__main__":
    main(sys.argv[1:])
