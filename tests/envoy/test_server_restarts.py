"""The server behind a real Envoy while it is restarted, ages its connections, or is asked in ways that once broke it.

The Envoy asks about every request and answers allowed ones itself. Refused or failed Check calls become a 403 or 503,
so "nothing was lost" means that every request got 200.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from extauthz.mesh.envoy import Envoy, run_envoy
from extauthz.server import native

pytestmark = pytest.mark.envoy

HEALTH_INTERVAL = "0.2s"
NOTICE = 1.0
DRAIN = NOTICE / 0.6
RETRIES = {
    "retry_on": "connect-failure,refused-stream,unavailable,reset,cancelled",
    "num_retries": 30,
    "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.25s"},
}


@pytest.fixture(params=["grpcio", "native"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; the native one is passed over where it was not built."""
    if request.param == "native" and not (availability := native.available())[0]:
        pytest.skip(f"the native transport is not available: {availability[1]}")
    return str(request.param)


def bootstrap(
    sockets: list[Path], *, retries: bool = False, ping_seconds: float = 0, **ext_authz: Any
) -> dict[str, Any]:
    """An Envoy that asks the servers behind `sockets`, health-checks them, and allows what they allow."""
    kind = "type.googleapis.com/envoy.extensions"
    options: dict[str, Any] = {}
    if ping_seconds:
        options["connection_keepalive"] = {"interval": f"{ping_seconds}s", "timeout": "5s"}
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"}
    if retries:
        service["retry_policy"] = RETRIES
    protocol = f"{kind}.upstreams.http.v3.HttpProtocolOptions"
    cluster = {
        "name": "authz",
        "type": "STATIC",
        "connect_timeout": "1s",
        # Without this, Envoy holds back for up to a second what its health checks have found out.
        "common_lb_config": {"update_merge_window": "0s"},
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": HEALTH_INTERVAL,
                "no_traffic_interval": HEALTH_INTERVAL,
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": protocol,
                "explicit_http_config": {"http2_protocol_options": options},
            }
        },
        "load_assignment": {
            "cluster_name": "authz",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}} for path in sockets]}
            ],
        },
    }
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {
                    "@type": f"{kind}.filters.http.ext_authz.v3.ExtAuthz",
                    "transport_api_version": "V3",
                    "grpc_service": service,
                    **ext_authz,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"},
            },
        ],
    }
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listener = {
        "name": "in",
        "address": anywhere,
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    return {"admin": {"address": anywhere}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Load:
    """Steady requests over a few connections; counts what comes back."""

    def __init__(self, envoy: Envoy, clients: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self._address = envoy.listeners()["in"].addresses[0]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> Counter[int]:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self.statuses

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        while not self._ended.wait(0.002):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            self.statuses[response.status] += 1
        connection.close()


class Server:
    """An `extauthz` process that listens on one Unix socket and can be started again."""

    def __init__(self, path: Path, transport: str, *arguments: str) -> None:
        self.path = path
        self._command = [
            *(sys.executable, "-m", "extauthz", "null", "--listen", f"unix:{path}"),
            *("--transport", transport, "--drain", str(DRAIN), *arguments),
        ]
        self._process: subprocess.Popen[str]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if " ready on " in line:
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return
        pytest.fail("".join(said))

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def running(servers: list[Server], **options: Any) -> Iterator[tuple[Envoy, Load]]:
    """The servers, an Envoy before them, and load on it."""
    with ExitStack() as stack:
        for server in servers:
            server.start()
            stack.callback(server.kill)
        envoy = stack.enter_context(run_envoy(bootstrap([server.path for server in servers], **options)))
        load = Load(envoy)
        stack.callback(load.end)
        time.sleep(0.5)
        yield envoy, load


def test_a_rolling_restart_loses_no_request(transport: str, tmp_path: Path) -> None:
    servers = [Server(tmp_path / name, transport) for name in ("a", "b")]
    with running(servers) as (_, load):
        for server in servers * 2:
            server.stop()
            server.start()
            time.sleep(0.6)
        statuses = load.end()
    assert set(statuses) == {200}
    assert statuses[200] > 500


def test_stopping_and_then_starting_loses_no_request_with_retries(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport)
    with running([server], retries=True) as (_, load):
        for _ in range(3):
            server.stop()
            server.start()
            time.sleep(0.5)
        statuses = load.end()
    assert set(statuses) == {200}


def test_connections_that_are_ended_for_their_age_lose_no_request(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport, "--max-connection-age", "0.3")
    with running([server]) as (envoy, load):
        time.sleep(3)
        statuses = load.end()
        closed = envoy.counter("cluster.authz.upstream_cx_close_notify")
    assert set(statuses) == {200}
    assert closed >= 5


def test_pings_of_an_idle_envoy_are_not_answered_with_goaway(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport)
    with running([server], ping_seconds=0.2) as (envoy, load):
        load.end()
        before = envoy.counter("cluster.authz.upstream_cx_total")
        time.sleep(2.5)
        Load(envoy).end()
        assert envoy.counter("cluster.authz.upstream_cx_close_notify") == 0
        assert envoy.counter("cluster.authz.upstream_cx_total") == before
