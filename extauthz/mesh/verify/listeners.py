"""The listener on which the real Envoy enforces one set of policies while everything about a request is recorded.

The chain is: an `ext_authz` filter that asks the recorder and changes nothing, then the filters under examination.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    RuntimeUInt32,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.listener.v3 import (
    AdditionalAddress,
    FilterChain,
    FilterChainMatch,
    Listener,
    ListenerFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.listener.proxy_protocol.v3 import ProxyProtocol
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.google.protobuf import Any

from extauthz.mesh.filters import http_filter
from extauthz.mesh.pieces import connection_manager, filter_chain, listener
from extauthz.mesh.verify.metadata import Place, taking_filters

RECORDER_CLUSTER = "recorder"

DETAILS_HEADER = "x-extauthz-details"
"""Header of Envoy's own answers: the response code details, which name the filter's reason."""

SHADOW_HEADER = "x-extauthz-shadow"
"""Header of the answers: what RBAC wrote as its metadata (results of shadow rules), as JSON."""

AUDIT_HEADER = "x-extauthz-audit"
"""Header of the answers: the hint that AUDIT policies leave for access logs, true or false."""

_RECORDER_TIMEOUT = timedelta(seconds=60)


def recording_listener(
    name: str,
    filters: Sequence[HttpFilter],
    *,
    metadata: Collection[Place] = (),
    trusted_hops: int = 0,
    tls: TransportSocket | None = None,
) -> Listener:
    """The listener of the mesh's side. `metadata` of other filters is taken from probes and goes into CheckRequests."""
    recording = _recording(sorted({filter_name for filter_name, _ in metadata}))
    manager = connection_manager([*taking_filters(metadata), recording, *filters], trusted_hops=trusted_hops)
    _tell_reasons(manager)
    return _listener(name, manager, tls)


def served_listener(
    name: str,
    filters: Sequence[HttpFilter],
    *,
    metadata: Collection[Place] = (),
    trusted_hops: int = 0,
    tls: TransportSocket | None = None,
) -> Listener:
    """The listener of our side, when a running server decides."""
    return _listener(name, connection_manager([*taking_filters(metadata), *filters], trusted_hops=trusted_hops), tls)


def _listener(name: str, manager: HttpConnectionManager, tls: TransportSocket | None) -> Listener:
    """A listener on free ports of both loopback addresses that takes the PROXY protocol, and TLS when it is given."""
    plain = filter_chain(manager)
    inspecting = [ListenerFilter("envoy.filters.listener.proxy_protocol", typed_config=Any.pack(ProxyProtocol()))]
    chains = [plain]
    if tls is not None:
        inspecting.append(ListenerFilter("envoy.filters.listener.tls_inspector", typed_config=Any.pack(TlsInspector())))
        match = FilterChainMatch(transport_protocol="tls")
        chains.append(FilterChain(filter_chain_match=match, filters=plain.filters, transport_socket=tls))
    made = listener(name, "127.0.0.1:0", chains)
    loopback6 = Address(socket_address=SocketAddress(address="::1", port_value=0))
    made.additional_addresses = [AdditionalAddress(address=loopback6)]
    made.listener_filters = inspecting
    return made


def _recording(namespaces: Sequence[str]) -> HttpFilter:
    ext_authz = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=RECORDER_CLUSTER), timeout=_RECORDER_TIMEOUT
        ),
        encode_raw_headers=True,
        include_peer_certificate=True,
        include_tls_session=True,
        metadata_context_namespaces=list(namespaces),
    )
    return http_filter("envoy.filters.http.ext_authz", ext_authz)


def _tell_reasons(manager: HttpConnectionManager) -> None:
    """Have Envoy tell in headers of the answer what it otherwise tells in its access log."""
    always = AccessLogFilter(
        status_code_filter=StatusCodeFilter(
            comparison=ComparisonFilter(
                op=ComparisonFilterOp.GE, value=RuntimeUInt32(default_value=0, runtime_key="unused")
            )
        )
    )
    details = _header(DETAILS_HEADER, "%RESPONSE_CODE_DETAILS%")
    metadata = [
        _header(SHADOW_HEADER, "%DYNAMIC_METADATA(envoy.filters.http.rbac)%"),
        _header(AUDIT_HEADER, "%DYNAMIC_METADATA(envoy.common:access_log_hint)%"),
    ]
    mapper = ResponseMapper(filter=always, headers_to_add=[details])
    manager.local_reply_config = LocalReplyConfig(mappers=[mapper])
    assert manager.route_config is not None
    manager.route_config.response_headers_to_add = metadata


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, value=value))
