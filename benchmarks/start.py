"""Time from exec to the ready line, and resident memory once ready, by number of policies."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import interleaved, resident_bytes
from benchmarks.servers import service
from extauthz.mesh.demo import REQUEST_AUTHENTICATION
from extauthz.minting import SigningKey, key_set

POLICY = """\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{number}, namespace: istio-system}}
spec:
  rules:
  - to:
    - operation: {{paths: ["/api/{number}"], methods: ["GET"]}}
"""


def run(*, quick: bool) -> dict[str, Any]:
    """Milliseconds to ready and resident MiB, for each transport with ten policies and with many."""
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory:
        sides = {
            f"{transport}, {count} policies": partial(_start, transport, _policies(Path(directory), count))
            for transport in ("native", "grpcio")
            for count in ((10,) if quick else (10, 10_000))
        }
        found = interleaved(sides, 2 if quick else 5)
    return {name: {figure: samples.summary() for figure, samples in side.items()} for name, side in found.items()}


def _policies(directory: Path, count: int) -> Path:
    file = directory / f"{count}.yaml"
    jwks = json.dumps(key_set(SigningKey.generate("RS256", "bench")))
    text = REQUEST_AUTHENTICATION.format(jwks=jwks)
    file.write_text(text + "".join(POLICY.format(number=number) for number in range(count)))
    return file


def _start(transport: str, policies: Path) -> Mapping[str, float]:
    start = time.perf_counter()
    with service("serve", "--policy", str(policies), "--transport", transport, listen="127.0.0.1:0", core=0) as running:
        ready = time.perf_counter() - start
        return {"ready_ms": ready * 1e3, "resident_mib": resident_bytes(running.pids[0]) / 2**20}
