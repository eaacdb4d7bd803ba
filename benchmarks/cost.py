"""What a server takes: resident memory empty, with many policies and with many cached tokens, and CPU by kind of call.

The tokens are HS256 ones (an RSA signature takes a millisecond to make) that a member of their header makes as long as
RS256 ones.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import numpy as np

from benchmarks.load import LoadFailed, h2load
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Findings, cpu_seconds, interleaved, resident_bytes
from benchmarks.servers import Running, free_port, service, unix_socket
from benchmarks.start import MANY, policies
from benchmarks.story import Measured
from benchmarks.transport import GRPCIO, NATIVE
from extauthz.loadtest.outcomes import Protocol, Verdict, verdict
from extauthz.loadtest.packing import check_fields, packed
from extauthz.loadtest.sender import Wire
from extauthz.loadtest.sender_native import NativeSender
from extauthz.mesh.demo import ISSUER, WORKLOAD

TOKENS = 100_000
PADDING = {"pad": "x" * 224}
"""What makes an HS256 token as long as an RS256 one (256 bytes of signature, not 32)."""

_SECONDS = 120.0


def run(*, quick: bool) -> dict[str, Any]:
    """Resident MB (10**6 bytes) and CPU microseconds per call."""
    findings = Findings()
    count = TOKENS // 10 if quick else TOKENS
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory:
        place = Path(directory)
        few, many, story = policies(place, 1), policies(place, MANY), Measured.make("HS256")
        (place / "story.yaml").write_text(story.policies)
        messages = distinct(story, count)
        sides: dict[str, Callable[[], Mapping[str, float]]] = {
            "native, 1 policy": partial(_memory, few, NATIVE),
            "grpcio, 1 policy": partial(_memory, few, GRPCIO),
            f"native, {count:,} cached tokens": partial(_tokens, place / "story.yaml", directory, messages),
        }
        interleaved(sides, 1 if quick else 2, findings)
        if not quick:
            interleaved({f"native, {MANY:,} policies": partial(_memory, many, NATIVE)}, 2, findings)
        rs256 = Measured.make()
        (place / "rs256.yaml").write_text(rs256.policies)
        calls = {
            "a cached RS256 token, allowed": rs256.message(rs256.token()),
            "no token, denied by policy": rs256.message(),
            "a refused token, seen before": rs256.message("a.b.c"),
        }
        seconds = 0.5 if quick else 1.0
        with _serving(place / "rs256.yaml", NATIVE, unix_socket(directory, "calls")) as (server, _):
            kinds = {
                f"CPU, native: {name}": partial(h2load, server, message, core=LOAD_CORE, seconds=seconds)
                for name, message in calls.items()
            }
            interleaved(kinds, 2 if quick else 3, findings)
    return {"figures": findings.summary(), "failures": findings.failures}


def distinct(story: Measured, count: int) -> list[bytes]:
    """Messages with so many different good tokens, each as long as an RS256 one."""
    tokens = [
        story.key.token({"iss": ISSUER, "sub": f"user-{number:07}", "exp": 4_102_444_800}, header=PADDING)
        for number in range(count)
    ]
    first = tokens[0].encode()
    template = story.message(tokens[0])
    assert all(len(token) == len(first) for token in tokens)
    return [template.replace(first, token.encode()) for token in tokens]


@contextmanager
def _serving(file: Path, transport: Sequence[str], listen: str) -> Iterator[tuple[Running, str]]:
    """The service with its admin port's address."""
    admin = f"127.0.0.1:{free_port()}"
    arguments = ("--policy", str(file), "--workload", WORKLOAD, "--admin", admin)
    with service("serve", *arguments, *transport, listen=listen, core=SERVER_CORE) as running:
        yield running, admin


def _memory(file: Path, transport: Sequence[str]) -> Mapping[str, float]:
    with service("serve", "--policy", str(file), *transport, listen="127.0.0.1:0", core=SERVER_CORE) as running:
        return {"resident_mb": resident_bytes(running.pids[0]) / 1e6}


def _tokens(file: Path, directory: str, messages: Sequence[bytes]) -> Mapping[str, float]:
    with _serving(file, NATIVE, unix_socket(directory, "tokens")) as (running, admin):
        before, used = resident_bytes(running.pids[0]), cpu_seconds(running.pids)
        call_each(running.addresses[0].removeprefix("unix:"), messages)
        used = cpu_seconds(running.pids) - used
        after = resident_bytes(running.pids[0])
        return {
            "resident_mb": after / 1e6,
            "bytes_per_token": (after - before) / len(messages),
            "cached": _cached(admin),
            "cpu_us_per_call": used / len(messages) * 1e6,
        }


def _cached(admin: str) -> float:
    with build_opener(ProxyHandler({})).open(f"http://{admin}/metrics", timeout=10) as page:
        found = re.search(r"^extauthz_token_cache_entries\S* (\S+)", page.read().decode(), re.MULTILINE)
    if found is None:
        raise LoadFailed("no extauthz_token_cache_entries in the metrics")
    return float(found[1])


def call_each(path: str, messages: Sequence[bytes]) -> None:
    """One Check call for each message, as fast as the server at a Unix socket answers. Raises LoadFailed."""
    wire = Wire(
        protocol=Protocol.CHECK,
        address=path,
        headers=packed(check_fields("localhost", _SECONDS)),
        authority="localhost",
        connections=4,
        timeout=_SECONDS,
    )
    sender = NativeSender(wire, tuple(messages))
    sender.open()
    try:
        order = np.arange(len(messages), dtype=np.uint32)
        offered = sender.offer(np.full(len(order), time.monotonic_ns(), np.int64), order)
        allowed, deadline = 0, time.monotonic() + _SECONDS
        while allowed < offered:
            for outcome in sender.collect()["outcome"].tolist():
                if verdict(outcome, Protocol.CHECK) is not Verdict.ALLOWED:
                    raise LoadFailed(f"a call ended with outcome {outcome}")
                allowed += 1
            if time.monotonic() > deadline:
                raise LoadFailed(f"{allowed} of {offered} calls were answered")
            time.sleep(0.02)
    finally:
        sender.close()
    if offered != len(messages):
        raise LoadFailed(f"only {offered} of {len(messages)} calls could be made")
