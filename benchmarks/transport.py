"""Check calls per second and CPU per call: our service and an empty one on both transports, beside what bounds them.

`one core`: the server has one core and the load the other. `both cores`: one or two workers and the load share both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import h2load
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Findings, interleaved, started
from benchmarks.servers import Running, empty_grpcio, free_ports, nghttpd, service, unix_socket
from benchmarks.story import Measured
from extauthz.mesh.demo import WORKLOAD

TCP = "127.0.0.1:0"
NGHTTPD = "nghttpd, a static file"
GET = "nghttpd, a static file, requests without a body"
NATIVE, GRPCIO = ("--transport", "native"), ("--transport", "grpcio")

Start = Callable[[], AbstractContextManager[Running]]


def run(*, quick: bool) -> dict[str, Any]:
    """Calls/s and CPU microseconds per call of each server, interleaved."""
    story = Measured.make()
    message = story.message(story.token())
    seconds, rounds = (0.5, 1) if quick else (1.0, 5)
    figures: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="extauthz-bench-") as directory:
        file = Path(directory, "policies.yaml")
        file.write_text(story.policies)
        policies = ("--policy", str(file), "--workload", WORKLOAD)
        arrangements = (
            ("one core", _on_one_core(policies, directory), LOAD_CORE),
            ("both cores", _on_both_cores(policies, directory), None),
        )
        for name, servers, core in arrangements:
            findings = Findings()
            with ExitStack() as stack:
                sides = {
                    side: partial(h2load, server, b"" if side == GET else message, core=core, seconds=seconds)
                    for side, server in started(stack, servers, findings).items()
                }
                interleaved(sides, rounds, findings)
            figures[name] = findings.summary()
            failures |= {f"{name}: {side}": reason for side, reason in findings.failures.items()}
    return {"figures": figures, "failures": failures}


def _on_one_core(policies: tuple[str, ...], directory: str) -> Mapping[str, Start]:
    serve = partial(service, "serve", *policies, core=SERVER_CORE)
    null = partial(service, "null", core=SERVER_CORE)
    socket = partial(unix_socket, directory)
    return {
        NGHTTPD: partial(nghttpd, core=SERVER_CORE),
        GET: partial(nghttpd, core=SERVER_CORE),
        "empty grpcio handler": partial(empty_grpcio, listen=TCP, core=SERVER_CORE),
        "empty grpcio handler, Unix socket": partial(empty_grpcio, listen=socket("empty"), core=SERVER_CORE),
        "null, native": partial(null, *NATIVE, listen=TCP),
        "null, native, Unix socket": partial(null, *NATIVE, listen=socket("null-native")),
        "null, grpcio": partial(null, *GRPCIO, listen=TCP),
        "null, grpcio, Unix socket": partial(null, *GRPCIO, listen=socket("null-grpcio")),
        "extauthz, native": partial(serve, *NATIVE, listen=TCP),
        "extauthz, native, Unix socket": partial(serve, *NATIVE, listen=socket("native")),
        "extauthz, grpcio": partial(serve, *GRPCIO, listen=TCP),
        "extauthz, grpcio, Unix socket": partial(serve, *GRPCIO, listen=socket("grpcio")),
    }


def _on_both_cores(policies: tuple[str, ...], directory: str) -> Mapping[str, Start]:
    serve = partial(service, "serve", *policies, core=None)
    socket = partial(unix_socket, directory)
    two = ("--workers", "2")
    return {
        "extauthz, native, Unix socket, 1 worker": partial(serve, *NATIVE, listen=socket("native-alone")),
        "extauthz, native, Unix socket, 2 workers": partial(serve, *NATIVE, *two, listen=socket("native-{worker}")),
        "extauthz, native, 1 worker": partial(serve, *NATIVE, listen=TCP),
        "extauthz, native, 2 workers": partial(serve, *NATIVE, *two, listen=free_ports(2)),
        "extauthz, grpcio, Unix socket, 1 worker": partial(serve, *GRPCIO, listen=socket("grpcio-alone")),
        "extauthz, grpcio, Unix socket, 2 workers": partial(serve, *GRPCIO, *two, listen=socket("grpcio-{worker}")),
    }
