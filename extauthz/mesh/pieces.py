"""Parts of an Envoy configuration that know nothing of policies: addresses, clusters, HTTP connections, listeners."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Pipe,
    SocketAddress,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.google.protobuf import Any

from extauthz.errors import UsageError

UPSTREAM_CLUSTER = "upstream"

MAX_RETRIES = 1000
"""Calls of one Envoy that may be in retry at a time: all that wait while the only instance is replaced. Its default of
3 overflows when an instance goes away."""

_HEALTH_INTERVAL = timedelta(seconds=1)
_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def address(text: str) -> Address:
    """`HOST:PORT`, `[V6]:PORT` or `unix:PATH` as Envoy writes it. Raises UsageError."""
    if text.startswith("unix:"):
        if not text.removeprefix("unix:"):
            raise UsageError(f"address {text!r}: write unix:/path/to/socket")
        return Address(pipe=Pipe(path=text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"address {text!r}: write HOST:PORT, [V6]:PORT or unix:/path")
    return Address(socket_address=SocketAddress(address=host.strip("[]"), port_value=int(port)))


def _needs_resolving(addresses: Sequence[Address]) -> bool:
    for one in addresses:
        if one.socket_address is not None:
            try:
                ipaddress.ip_address(one.socket_address.address)
            except ValueError:
                return True
    return False


def cluster(name: str, addresses: Sequence[str], *, grpc: bool) -> Cluster:
    """A cluster with an endpoint for each address.

    `grpc` is for servers of ours: HTTP/2, health-checked so that one which drains gets no new calls, and with room for
    retries. Others are spoken to in the protocol of the client.
    """
    found = [address(text) for text in addresses]
    endpoints = [LbEndpoint(endpoint=Endpoint(address=one)) for one in found]
    http2 = Http2ProtocolOptions()
    if grpc:
        protocol = HttpProtocolOptions(
            explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)
        )
    else:
        protocol = HttpProtocolOptions(
            use_downstream_protocol_config=HttpProtocolOptionsUseDownstreamHttpConfig(
                http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=http2
            )
        )
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if _needs_resolving(found) else ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
        typed_extension_protocol_options={_PROTOCOL_OPTIONS: Any.pack(protocol)},
        health_checks=[_health_check()] if grpc else [],
        circuit_breakers=CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=MAX_RETRIES)])
        if grpc
        else None,
        # Its default of 1 s keeps calls going to an instance whose health check has failed.
        common_lb_config=ClusterCommonLbConfig(update_merge_window=timedelta(0)) if grpc else None,
    )


def _health_check() -> HealthCheck:
    return HealthCheck(
        timeout=_HEALTH_INTERVAL,
        interval=_HEALTH_INTERVAL,
        # Its default of 60 s would hide a drain from an Envoy that has sent nothing yet.
        no_traffic_interval=_HEALTH_INTERVAL,
        unhealthy_threshold=1,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(),
    )


def connection_manager(
    filters: Sequence[HttpFilter], *, trusted_hops: int = 0, access_log: str = ""
) -> HttpConnectionManager:
    """An HTTP connection manager with Istio's settings (path normalisation BASE) that routes everything upstream.

    `access_log` is a format string; empty for no log.
    """
    everything = Route(
        match=RouteMatch(prefix="/"),
        route=RouteAction(cluster=UPSTREAM_CLUSTER, timeout=timedelta(0)),
    )
    # A request without a route is never asked about, while the built-in filters see it: hence the catch-all.
    routes = RouteConfiguration(name="all", virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=[everything])])
    return HttpConnectionManager(
        stat_prefix="http",
        normalize_path=True,
        xff_num_trusted_hops=trusted_hops,
        route_config=routes,
        http_filters=[*filters, HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router()))],
        access_log=[_stdout_log(access_log)] if access_log else [],
    )


def _stdout_log(line: str) -> AccessLog:
    log_format = SubstitutionFormatString(text_format_source=DataSource(inline_string=line))
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(StdoutAccessLog(log_format=log_format)))


def filter_chain(manager: HttpConnectionManager) -> FilterChain:
    """The filter chain of connections that speak HTTP in the clear."""
    return FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))]
    )


def listener(name: str, listen: str, chains: Sequence[FilterChain]) -> Listener:
    """A listener."""
    return Listener(name=name, address=address(listen), filter_chains=list(chains))
