"""Check calls per second and CPU per call: our service and an empty one on both transports, beside what bounds them.

The server has one core and the load the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import h2load
from benchmarks.measure import interleaved
from benchmarks.servers import Running, empty_grpcio, nghttpd, service, unix_socket
from benchmarks.story import Measured
from extauthz.mesh.demo import WORKLOAD

SERVER_CORE, LOAD_CORE = 0, 1
TCP = "127.0.0.1:0"

Start = Callable[[], AbstractContextManager[Running]]


def run(*, quick: bool) -> dict[str, Any]:
    """Calls/s and CPU microseconds per call of each server, interleaved, and their ratios within the run."""
    story = Measured.make()
    message = story.message(story.token())
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory, ExitStack() as stack:
        policies = Path(directory, "policies.yaml")
        policies.write_text(story.policies)
        sides = {
            name: partial(h2load, stack.enter_context(start()), message, core=LOAD_CORE, seconds=1 if quick else 3)
            for name, start in _servers(str(policies), directory, quick).items()
        }
        found = interleaved(sides, 2 if quick else 5)
    return {name: {figure: samples.summary() for figure, samples in side.items()} for name, side in found.items()}


def _servers(policies: str, directory: str, quick: bool) -> Mapping[str, Start]:
    serve = partial(service, "serve", "--policy", policies, "--workload", WORKLOAD, core=SERVER_CORE)
    null = partial(service, "null", core=SERVER_CORE)
    servers: dict[str, Start] = {
        "nghttpd, a static file": partial(nghttpd, core=SERVER_CORE),
        "empty grpcio handler": partial(empty_grpcio, listen=TCP, core=SERVER_CORE),
        "null, native": partial(null, "--transport", "native", listen=TCP),
        "null, grpcio": partial(null, "--transport", "grpcio", listen=TCP),
        "extauthz, native": partial(serve, "--transport", "native", listen=TCP),
        "extauthz, grpcio": partial(serve, "--transport", "grpcio", listen=TCP),
    }
    if not quick:
        socket = partial(unix_socket, directory)
        servers |= {
            "null, native, Unix socket": partial(null, "--transport", "native", listen=socket("null")),
            "extauthz, native, Unix socket": partial(serve, "--transport", "native", listen=socket("native")),
            "extauthz, grpcio, Unix socket": partial(serve, "--transport", "grpcio", listen=socket("grpcio")),
        }
    return servers
