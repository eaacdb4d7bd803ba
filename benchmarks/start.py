"""Time from exec to the ready line by number of policies, with bytecode as `pip install` leaves it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import SERVER_CORE, Findings, interleaved, pinned
from extauthz.mesh.demo import REQUEST_AUTHENTICATION
from extauthz.mesh.service import run_service
from extauthz.minting import SigningKey, key_set

MANY = 10_000

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
    """Milliseconds to ready for each transport, with ten policies and with many."""
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory:
        few, many = policies(Path(directory), 10), policies(Path(directory), MANY)
        start = partial(_start, bytecode=str(Path(directory) / "bytecode"))
        sides = {f"{transport}, 10 policies": partial(start, transport, few) for transport in ("native", "grpcio")}
        interleaved(sides, 1, Findings())  # Compiles the bytecode.
        interleaved(sides, 2 if quick else 9, findings)
        if not quick:
            interleaved({f"native, {MANY:,} policies": partial(start, "native", many)}, 3, findings)
    return {"figures": findings.summary(), "failures": findings.failures}


def policies(directory: Path, count: int) -> Path:
    """A file with a RequestAuthentication and so many policies of a path and a method each."""
    file = directory / f"{count}.yaml"
    jwks = json.dumps(key_set(SigningKey.generate("RS256", "bench")))
    text = REQUEST_AUTHENTICATION.format(jwks=jwks)
    file.write_text(text + "".join(POLICY.format(number=number) for number in range(count)))
    return file


def _start(transport: str, file: Path, *, bytecode: str) -> Mapping[str, float]:
    # A source tree may have no bytecode, and may be told to write none; what is installed has it.
    environment = ["env", "--unset=PYTHONDONTWRITEBYTECODE", f"PYTHONPYCACHEPREFIX={bytecode}"]
    arguments = ("serve", "--policy", str(file), "--transport", transport, "--listen", "127.0.0.1:0", "--admin", "off")
    start = time.perf_counter()
    with run_service([*arguments, "--drain", "0"], prefix=pinned(SERVER_CORE, environment)):
        return {"ready_ms": (time.perf_counter() - start) * 1e3}
