"""The servers that are compared, each as a child process on one core, on TCP or a Unix socket."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import pinned
from extauthz.mesh.service import run_service

CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check"

EMPTY_GRPCIO = """
import sys, time
from concurrent import futures
import grpc
server = grpc.server(futures.ThreadPoolExecutor(4))
handler = grpc.unary_unary_rpc_method_handler(lambda message, context: b"")
service = "envoy.service.auth.v3.Authorization"
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Check": handler}),))
port = server.add_insecure_port(sys.argv[1])
server.start()
print(f"ready 127.0.0.1:{port}", file=sys.stderr, flush=True)
server.wait_for_termination()
"""
"""A server written with grpcio alone that answers every Check with an empty message."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server under measurement. `addresses` are `HOST:PORT` or `unix:PATH`."""

    addresses: tuple[str, ...]
    pids: tuple[int, ...]


def process_tree(pid: int) -> tuple[int, ...]:
    """A process and all its descendants."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (pid, *(grandchild for child in found for grandchild in process_tree(int(child))))


@contextmanager
def service(command: str, *arguments: str, listen: str, core: int | None) -> Iterator[Running]:
    """`extauthz COMMAND`, pinned to a core (None: on all). With `{worker}` or a port range, workers have addresses."""
    given = [
        command,
        "--listen",
        listen,
        "--drain",
        "0",
        *(["--admin", "off"] if command == "serve" else []),
        *arguments,
    ]
    with run_service(given, prefix=pinned(core, [])) as running:
        yield Running(running.addresses, process_tree(running.process.pid))


@contextmanager
def empty_grpcio(*, listen: str, core: int) -> Iterator[Running]:
    """The empty handler on grpcio."""
    with run_service([listen], prefix=pinned(core, []), program=[sys.executable, "-c", EMPTY_GRPCIO]) as running:
        addresses = (listen,) if listen.startswith("unix:") else running.addresses
        yield Running(addresses, (running.process.pid,))


@contextmanager
def nghttpd(*, core: int) -> Iterator[Running]:
    """nghttp2's own server with one small static file at the path of Check: the limit of HTTP/2 here."""
    with tempfile.TemporaryDirectory() as root:
        file = Path(root + CHECK_PATH)
        file.parent.mkdir()
        file.write_bytes(b"\0\0\0\0\0")
        port = free_port()
        process = subprocess.Popen(
            pinned(core, ["nghttpd", "--no-tls", "-d", root, str(port)]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_port(port)
            yield Running((f"127.0.0.1:{port}",), (process.pid,))
        finally:
            process.terminate()
            process.wait()


def free_ports(count: int) -> str:
    """`127.0.0.1:FIRST-LAST`, ports that were free a moment ago. Raises OSError when none are found."""
    for _ in range(100):
        first = free_port()
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return f"127.0.0.1:{first}-{first + count - 1}"
    raise OSError(f"no {count} free ports in a row")


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    """Return once something accepts on a local port. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


def unix_socket(directory: str, name: str) -> str:
    """The address of a Unix socket in a directory."""
    return f"unix:{directory}/{name}.sock"
