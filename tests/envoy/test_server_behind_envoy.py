"""The server behind a real Envoy: restarts, old and idle connections, large bodies, refusals and failures.

The Envoy asks about every request and answers allowed ones itself. Refused or failed Check calls become a 403 or 503,
so "nothing was lost" means that every request got 200.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extauthz.mesh import filters, pieces
from extauthz.mesh.envoy import Envoy, run_envoy
from extauthz.mesh.verify.certificates import Certificates
from extauthz.mesh.verify.probe import Peer
from extauthz.minting import SigningKey, key_set
from extauthz.server import transports
from extauthz.server.listeners import Address
from extauthz.server.transport import CHECK_METHOD, DEFAULT_LIMITS

pytestmark = pytest.mark.envoy

HEALTH_INTERVAL = "0.2s"
NOTICE = 3.0
"""Seconds in which a server that stops still answers: more than Envoy may need to notice on a busy machine."""
PATIENCE = 60.0
DRAIN = NOTICE / 0.6
ROUNDS = int(os.environ.get("RESTART_ROUNDS", "0"))
"""How often to restart, 0 for the few times of a test; `make restart-check` sets it."""

RETRIES = {  # as `envoy-config` writes them, but for their number: a busy machine takes longer to start a server
    "retry_on": filters.RETRY_ON,
    "num_retries": 10 * filters.RETRIES,
    "retry_back_off": {
        "base_interval": f"{filters.RETRY_FIRST.total_seconds()}s",
        "max_interval": f"{filters.RETRY_LAST.total_seconds()}s",
    },
}


def bootstrap(
    sockets: list[Path],
    *,
    retries: bool = False,
    ping_seconds: float = 0,
    tls: dict[str, Any] | None = None,
    **ext_authz: Any,
) -> dict[str, Any]:
    """An Envoy that asks the servers behind `sockets`, health-checks them, and allows what they allow.

    `tls` is its side of TLS with them (CommonTlsContext).
    """
    kind = "type.googleapis.com/envoy.extensions"
    options: dict[str, Any] = {}
    if ping_seconds:
        options["connection_keepalive"] = {"interval": f"{ping_seconds}s", "timeout": f"{PATIENCE}s"}
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "authz"}, "timeout": f"{PATIENCE}s"}
    if retries:
        service["retry_policy"] = RETRIES
    protocol = f"{kind}.upstreams.http.v3.HttpProtocolOptions"
    cluster = {
        "name": "authz",
        "type": "STATIC",
        "connect_timeout": f"{PATIENCE}s",
        # Without this, Envoy holds back for up to a second what its health checks have found out.
        "common_lb_config": {"update_merge_window": "0s"},
        "circuit_breakers": {"thresholds": [{"max_retries": pieces.MAX_RETRIES}]},
        "health_checks": [
            {
                "timeout": f"{PATIENCE}s",
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
    if tls is not None:
        context = {"@type": f"{kind}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": tls}
        cluster["transport_socket"] = {"name": "tls", "typed_config": context}
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

    def goes_on(self) -> None:
        """Wait until a hundred more requests were answered."""
        before = self.statuses.total()
        eventually(lambda: self.statuses.total() >= before + 100)

    def end(self) -> Counter[int]:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self.statuses

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=2 * PATIENCE)
        while not self._ended.wait(0.002):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            self.statuses[response.status] += 1
        connection.close()


class Server:
    """An `extauthz` process that listens on one Unix socket and can be started again."""

    def __init__(self, path: Path, transport: str, *arguments: str, command: str = "null") -> None:
        self.path = path
        self._command = [
            *(sys.executable, "-m", "extauthz", command, "--listen", f"unix:{path}"),
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
        assert self._process.wait(PATIENCE) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def until_healthy(envoy: Envoy, count: int) -> None:
    """Wait until Envoy finds so many servers healthy."""
    eventually(lambda: envoy.counter("cluster.authz.membership_healthy") == count)


@contextmanager
def running(servers: list[Server], **options: Any) -> Iterator[tuple[Envoy, Load]]:
    """The servers, an Envoy before them, and load on it."""
    with ExitStack() as stack:
        for server in servers:
            server.start()
            stack.callback(server.kill)
        envoy = stack.enter_context(run_envoy(bootstrap([server.path for server in servers], **options)))
        until_healthy(envoy, len(servers))
        load = Load(envoy)
        stack.callback(load.end)
        eventually(lambda: load.statuses.total() > 50)
        yield envoy, load


def report(restart: str, transport: str, statuses: Counter[int]) -> None:
    """A line of JSON for `make restart-check`."""
    if ROUNDS:
        failed = statuses.total() - statuses[200]
        result = {"restart": restart, "transport": transport, "rounds": ROUNDS}
        print(json.dumps({**result, "requests": statuses.total(), "failed": failed}))


def test_a_rolling_restart_loses_no_request(transport: str, tmp_path: Path) -> None:
    servers = [Server(tmp_path / name, transport) for name in ("a", "b")]
    with running(servers) as (envoy, load):
        for server in servers * (ROUNDS or 2):
            server.stop()
            # The other one answers alone.
            until_healthy(envoy, 1)
            load.goes_on()
            server.start()
            until_healthy(envoy, 2)
            load.goes_on()
        statuses = load.end()
    report("two in turn", transport, statuses)
    assert set(statuses) == {200}


def test_stopping_and_then_starting_loses_no_request_with_retries(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport)
    with running([server], retries=True) as (envoy, load):
        for _ in range(ROUNDS or 3):
            server.stop()
            server.start()
            until_healthy(envoy, 1)
            load.goes_on()
        statuses = load.end()
    report("stop, then start", transport, statuses)
    assert set(statuses) == {200}


def test_connections_that_are_ended_for_their_age_lose_no_request(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport, "--max-connection-age", "0.3")
    with running([server]) as (envoy, load):
        eventually(lambda: envoy.counter("cluster.authz.upstream_cx_close_notify") >= 5)
        statuses = load.end()
    assert set(statuses) == {200}


class Balancer:
    """Passes each new connection to the next replica, as a Service's address does; counts the bytes that each got."""

    def __init__(self, path: Path) -> None:
        self.replicas: list[Path] = []
        self.received: Counter[Path] = Counter()
        self._made = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                replica = self.replicas[self._made % len(self.replicas)]
                self._made += 1
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(replica))
                threading.Thread(target=self._pass, args=(client, server, replica), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, replica: Path | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if replica is not None:
                    self.received[replica] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("age", ["0.3", "0"], ids=["connections end", "connections stay"])
def test_load_moves_to_a_new_replica_when_connections_end_for_their_age(
    transport: str, age: str, tmp_path: Path
) -> None:
    old, new = (Server(tmp_path / name, transport, "--max-connection-age", age) for name in ("old", "new"))
    document = bootstrap([tmp_path / "service"])
    # Their connections move as well, and are not what is counted.
    del document["static_resources"]["clusters"][0]["health_checks"]
    with ExitStack() as stack:
        balancer = stack.enter_context(closing(Balancer(tmp_path / "service")))
        for server in (old, new):
            server.start()
            stack.callback(server.kill)
        balancer.replicas = [old.path]
        load = Load(stack.enter_context(run_envoy(document)), clients=1)
        stack.callback(load.end)
        eventually(lambda: load.statuses[200] > 10)
        balancer.replicas = [new.path, old.path]
        if age == "0":
            before = load.statuses[200]
            eventually(lambda: load.statuses[200] > before + 300)
            assert new.path not in balancer.received
        else:
            eventually(lambda: balancer.received[new.path] > 10_000)
        assert set(load.end()) == {200}


def test_pings_of_an_idle_envoy_are_not_answered_with_goaway(transport: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "a", transport)
    with running([server], ping_seconds=0.2) as (envoy, load):
        load.end()
        before = envoy.counter("cluster.authz.upstream_cx_total")
        time.sleep(2.5)
        Load(envoy).end()
        assert envoy.counter("cluster.authz.upstream_cx_close_notify") == 0
        assert envoy.counter("cluster.authz.upstream_cx_total") == before


STORY = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: istio-system}}
spec:
  jwtRules: [{{issuer: issuer, jwks: '{jwks}'}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: exclude, namespace: istio-system}}
spec:
  action: DENY
  rules:
  - from: [{{source: {{notRequestPrincipals: ["*"]}}}}]
    to: [{{operation: {{notPaths: ["/public"]}}}}]
"""


class Front:
    """An Envoy before a server that decides by the story's policies, and requests through it."""

    def __init__(self, envoy: Envoy, key: SigningKey) -> None:
        self._address = envoy.listeners()["in"].addresses[0]
        self.token = key.token({"iss": "issuer", "sub": "someone", "exp": int(time.time()) + 3600})

    def status(self, method: str, path: str, token: str = "", body: bytes | None = None, **headers: str) -> int:
        connection = http.client.HTTPConnection(*self._address, timeout=2 * PATIENCE)
        if token:
            headers["authorization"] = f"Bearer {token}"
        connection.request(method, path, body, headers)
        status = connection.getresponse().status
        connection.close()
        return status


@contextmanager
def story(transport: str, tmp_path: Path, *arguments: str, **ext_authz: Any) -> Iterator[Front]:
    key = SigningKey.generate("ES256")
    policies = tmp_path / "policies.yaml"
    policies.write_text(STORY.format(jwks=json.dumps(key_set(key))))
    server = Server(tmp_path / "s", transport, "--policy", str(policies), "--admin", "off", *arguments, command="serve")
    server.start()
    try:
        with run_envoy(bootstrap([server.path], **ext_authz)) as envoy:
            yield Front(envoy, key)
    finally:
        server.kill()


@pytest.mark.parametrize(
    "form", [{}, {"pack_as_bytes": True}, {"allow_partial_message": True, "max_request_bytes": 100_000}]
)
def test_bodies_that_are_sent_along_change_no_answer(transport: str, tmp_path: Path, form: dict[str, Any]) -> None:
    limit = 8 * 1024 * 1024
    with story(transport, tmp_path, with_request_body={"max_request_bytes": limit, **form}) as front:
        # Of a larger body Envoy answers a part, and the client that still sends sees a closed connection.
        sizes = (0, 100, 50_000, 150_000) if "allow_partial_message" in form else (0, 100, 3 << 20, 5 << 20, limit - 1)
        for size in sizes:
            body = b"x" * size
            assert front.status("POST", "/public", body=body) == 200
            assert front.status("POST", "/private", body=body) == 403
            assert front.status("POST", "/private", front.token, body=body) == 200
            assert front.status("POST", "/public", "bad", body=body) == 401


def test_a_smaller_limit_makes_larger_bodies_an_error(transport: str, tmp_path: Path) -> None:
    limits = {"max_request_bytes": 4 << 20}
    with story(transport, tmp_path, "--max-message-bytes", str(1 << 20), with_request_body=limits) as front:
        assert front.status("POST", "/public", body=b"x" * (512 << 10)) == 200
        assert front.status("POST", "/public", body=b"x" * (2 << 20)) == 403


@pytest.mark.parametrize("name", ["spiffe://mesh/proxy", "spiffe://mesh/other", ""])
def test_envoy_asks_over_mutual_tls_and_needs_the_name_that_is_asked_for(tmp_path: Path, name: str) -> None:
    made = Certificates(tmp_path)
    (tmp_path / "ca").write_text(made.authority)
    for file, text in zip(("cert", "key"), made.issue(Peer(dns_names=("extauthz",))), strict=True):
        (tmp_path / file).write_text(text)
    arguments = [f"--tls-{option}={tmp_path / file}" for option, file in (("cert", "cert"), ("key", "key"))]
    arguments += [f"--tls-client-ca={tmp_path / 'ca'}", "--tls-client-name=spiffe://mesh/proxy"]
    trusted = {"trusted_ca": {"inline_string": made.authority}}
    names = [{"san_type": "DNS", "matcher": {"exact": "extauthz"}}]
    tls: dict[str, Any] = {"validation_context": {**trusted, "match_typed_subject_alt_names": names}}
    if name:
        chain, key = made.issue(Peer(uris=(name,)))
        own = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
        tls["tls_certificates"] = [own]
    with story("grpcio", tmp_path, *arguments, tls=tls) as front:
        admitted = name == "spiffe://mesh/proxy"
        assert front.status("GET", "/public") == (200 if admitted else 403)
        assert front.status("GET", "/private", front.token) == (200 if admitted else 403)
        assert front.status("GET", "/public", "bad") == (401 if admitted else 403)


def test_no_refusal_passes_when_errors_are_let_pass(transport: str, tmp_path: Path) -> None:
    with story(transport, tmp_path, failure_mode_allow=True) as front:
        assert front.status("GET", "/private") == 403
        assert front.status("GET", "/public", "a.b.c") == 401
        assert front.status("GET", "/private", front.token[:-5]) == 401
        assert front.status("GET", "/private", front.token) == 200


def test_a_decision_is_logged_under_the_ids_that_envoy_sends_along(transport: str, tmp_path: Path) -> None:
    log = tmp_path / "decisions"
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with story(transport, tmp_path, "--decision-log", str(log)) as front:
        assert front.status("GET", "/private?secret=1", front.token, traceparent=f"00-{trace}-{parent}-01") == 200
        assert front.status("GET", "/private") == 403
        eventually(lambda: log.exists() and log.read_text().count("\n") >= 2)
    allowed, denied = map(json.loads, log.read_text().splitlines())
    assert (allowed["extauthz.decision"], denied["extauthz.decision"]) == ("allow", "deny")
    assert (allowed["trace_id"], allowed["span_id"]) == (trace, parent)
    ids = [line["http.request.header.x-request-id"] for line in (allowed, denied)]  # Envoy makes them
    assert all(ids)
    assert ids[0] != ids[1]
    assert allowed["jwt.verified"] is True
    assert "secret" not in log.read_text()
    assert front.token.rpartition(".")[2] not in log.read_text()


@pytest.mark.parametrize(("let_pass", "status"), [(False, 403), (True, 200)])
def test_a_failure_of_ours_is_for_envoy_to_judge(transport: str, tmp_path: Path, let_pass: bool, status: int) -> None:
    def fail(message: bytes) -> bytes:
        raise ZeroDivisionError

    server, _ = transports.make(transport, [Address(path=str(tmp_path / "s"))], {CHECK_METHOD: fail}, DEFAULT_LIMITS)
    server.bind()
    server.start()
    server.set_serving(True)
    try:
        with run_envoy(bootstrap([tmp_path / "s"], failure_mode_allow=let_pass)) as envoy:
            front = Front(envoy, SigningKey.generate("ES256"))
            assert [front.status("GET", "/") for _ in range(3)] == [status] * 3
            assert envoy.counter("http.in.ext_authz.error") == 3
    finally:
        server.stop()


@pytest.mark.parametrize("retries", [False, True])
def test_calls_shed_under_overload_are_errors_and_never_pass(transport: str, tmp_path: Path, retries: bool) -> None:
    def slow(message: bytes) -> bytes:
        time.sleep(0.05)
        return b""  # allowed

    limits = replace(DEFAULT_LIMITS, in_flight=2)
    server, _ = transports.make(transport, [Address(path=str(tmp_path / "s"))], {CHECK_METHOD: slow}, limits)
    server.bind()
    server.start()
    server.set_serving(True)
    try:
        with run_envoy(bootstrap([tmp_path / "s"], retries=retries)) as envoy:
            load = Load(envoy, clients=24)
            eventually(
                lambda: (
                    load.statuses[200] >= 20
                    and load.statuses[403] >= 20
                    and server.statistics()["refused_total:in_flight"] > 0
                )
            )
            statuses = load.end()
            allowed, errors = (envoy.counter(f"http.in.ext_authz.{name}") for name in ("ok", "error"))
            # Errors are Envoy's to judge, and it refuses; what passed was answered by the handler.
            assert set(statuses) == {200, 403}
            assert (statuses[200], statuses[403]) == (allowed, errors)
            assert envoy.counter("http.in.ext_authz.denied") == 0
            # gRPC's core sheds some by itself and does not tell; the native transport counts each.
            shed = server.statistics()["refused_total:in_flight"]
            retried = envoy.counter("cluster.authz.upstream_rq_retry")
            if transport == "native":
                assert (shed, retried) == (errors, 0)  # nothing that it sheds is asked again
            else:
                assert 0 < shed <= errors + retried
            front = Front(envoy, SigningKey.generate("ES256"))
            assert front.status("GET", "/") == 200  # the load has gone
    finally:
        server.stop()
