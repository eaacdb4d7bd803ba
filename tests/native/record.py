"""Records what real clients send, as seeds for the fuzzers: `python tests/native/record.py`, from the project's root.

A recorder between the client and the native transport writes the client's bytes of each connection to
`tests/native/recorded/`. Run it again when a new Envoy or grpcio frames its calls differently.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from extauthz.mesh.envoy import run_envoy
from extauthz.server import native
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, HEALTH_CHECK_METHOD

RECORDED = Path(__file__).parent / "recorded"
LONGEST = 64 * 1024


class Recorder:
    """Passes bytes on between its clients and a server, and keeps what the clients send."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                sent = bytearray()
                self.connections.append(sent)
                threading.Thread(target=self._pass, args=(client, server, sent), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def save(self, name: str) -> None:
        """Write what each connection sent so far, and forget it."""
        self._listener.close()
        for number, sent in enumerate(self.connections):
            if sent:
                (RECORDED / f"{name}-{number}").write_bytes(sent[:LONGEST])


@contextmanager
def recorder(name: str) -> Iterator[int]:
    """The port of a recorder before a server that allows everything; what was sent is saved at the end."""
    transport = native.NativeTransport([Address(host="127.0.0.1")], {CHECK_METHOD: lambda message: b"\n\0"})
    (address,) = transport.bind()
    transport.start()
    transport.set_serving(True)
    recording = Recorder((address.host, address.port))
    try:
        yield recording.port
        time.sleep(0.5)
    finally:
        recording.save(name)
        transport.stop()


def envoy(port: int) -> dict[str, Any]:
    """An Envoy that asks at `port`, bodies included, and answers what is allowed itself."""
    kind = "type.googleapis.com/envoy.extensions"
    options = {
        "@type": f"{kind}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "0.2s", "timeout": "1s"}}
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    cluster = {
        "name": "authz",
        "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.3s",
                "no_traffic_interval": "0.3s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
    }
    ext_authz = {
        "@type": f"{kind}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"},
        "with_request_body": {"max_request_bytes": 65536, "allow_partial_message": True},
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"}},
        ],
    }
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    chain = {"filters": [{"name": "hcm", "typed_config": manager}]}
    listener = {"name": "in", "address": anywhere, "filter_chains": [chain]}
    return {"admin": {"address": anywhere}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


def record_envoy() -> None:
    """Requests without and with bodies, a client that leaves, health checks and keepalive pings."""
    with recorder("envoy") as port, run_envoy(envoy(port)) as front:
        host, listening = front.listeners()["in"].addresses[0]
        for number in range(4):
            connection = http.client.HTTPConnection(host, listening, timeout=10)
            connection.request("GET", f"/api/v1/products/{number}", headers={"authorization": "Bearer a.b.c"})
            connection.getresponse().read()
            connection.request("POST", "/upload", body=b"body" * 500)
            connection.getresponse().read()
            connection.close()
        leaving = socket.create_connection((host, listening))
        leaving.sendall(b"POST /slow HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf")
        leaving.close()
        time.sleep(1.0)


def record_grpcio() -> None:
    """grpcio's own framing: several calls, a message in many frames, metadata, a deadline, a cancelled call."""
    with recorder("grpcio") as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary(CHECK_METHOD)
        for size in (0, 10, 1000, 20_000):
            check(bytes(size), timeout=5, wait_for_ready=True, metadata=(("x-request-id", str(size)),))
        channel.unary_unary(HEALTH_CHECK_METHOD)(b"", timeout=5)
        check.future(bytes(1000), timeout=5).cancel()


def record_h2load() -> None:
    """Many calls at once on one connection."""
    if shutil.which("h2load") is None:
        return
    with recorder("h2load") as port, tempfile.NamedTemporaryFile() as body:
        body.write(b"\0\0\0\0\x64" + bytes(100))
        body.flush()
        headers = ("-H", "te: trailers", "-H", "content-type: application/grpc")
        url = f"http://127.0.0.1:{port}{CHECK_METHOD}"
        command = ("h2load", "-n", "40", "-c", "1", "-m", "20", *headers, "-d", body.name, url)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    record_envoy()
    record_grpcio()
    record_h2load()
