"""What tests of a server behind the real Envoy share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extauthz.server import native


@pytest.fixture(params=["grpcio", "native"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; the native one is passed over where it was not built."""
    if request.param == "native" and not (availability := native.available())[0]:
        pytest.skip(f"the native transport is not available: {availability[1]}")
    return str(request.param)


@pytest.fixture(scope="session")
def asking_envoy() -> Callable[..., dict[str, Any]]:
    """Makes the bootstrap of an Envoy that asks a server."""
    return _asking_envoy


def _asking_envoy(authz: Path, timeout: str = "0.2s") -> dict[str, Any]:
    """An Envoy that asks the server at a Unix socket and allows what it allows. 0.2 s is Envoy's own default."""
    kind = "type.googleapis.com/envoy.extensions"
    cluster = {
        "name": "authz",
        "load_assignment": {
            "cluster_name": "authz",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(authz)}}}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    ext_authz = {
        "@type": f"{kind}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": timeout},
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"},
            },
        ],
    }
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    filters = [{"name": "hcm", "typed_config": manager}]
    listener = {"name": "in", "address": anywhere, "filter_chains": [{"filters": filters}]}
    return {"admin": {"address": anywhere}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}
