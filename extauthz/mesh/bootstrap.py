"""Complete Envoy bootstraps for a workload's policies: Envoy enforces them, or we do, or Envoy does and asks us too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from extauthz.istio.resources import Resources
from extauthz.mesh.filters import ExtAuthzSettings, MeshOptions, builtin_filters, ext_authz_filters
from extauthz.mesh.jwt_filter import KeySets
from extauthz.mesh.pieces import UPSTREAM_CLUSTER, address, cluster, connection_manager, filter_chain, listener
from extauthz.mesh.yaml_text import yaml_text

_LOG = '[%START_TIME%] "%REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%" %RESPONSE_CODE% '
_LOG_LINE = _LOG + "%RESPONSE_CODE_DETAILS%\n"
_SHADOW_LOG_LINE = (
    _LOG + "builtin=%RESPONSE_CODE_DETAILS% extauthz=%FILTER_STATE(envoy.filters.http.ext_authz.shadow)%\n"
)


class Mode(StrEnum):
    """Who enforces: Envoy's built-in filters, this service, or the built-in ones while this service is asked too."""

    BUILTIN = "builtin"
    EXT_AUTHZ = "ext-authz"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a bootstrap listens and whom it talks to: `HOST:PORT` or `unix:PATH`; one of `authz` for each worker."""

    listen: str = "127.0.0.1:10000"
    upstream: str = "127.0.0.1:8080"
    authz: tuple[str, ...] = ("127.0.0.1:9191",)
    admin: str = "127.0.0.1:9901"


def bootstrap(
    resources: Resources,
    mode: Mode,
    addresses: Addresses | None = None,
    *,
    options: MeshOptions | None = None,
    settings: ExtAuthzSettings | None = None,
    trusted_hops: int = 0,
    key_sets: KeySets | None = None,
) -> Bootstrap:
    """A bootstrap for the policies that apply to a workload. Raises UsageError for an address that cannot be read."""
    addresses, settings = addresses or Addresses(), settings or ExtAuthzSettings()
    filters: list[HttpFilter] = []
    clusters = [cluster(UPSTREAM_CLUSTER, [addresses.upstream], grpc=False)]
    if mode is not Mode.BUILTIN:
        if mode is Mode.BOTH:
            settings = ExtAuthzSettings(settings.cluster, settings.timeout, settings.status_on_error, shadow=True)
        filters.extend(ext_authz_filters(resources, options, settings))
        clusters.append(cluster(settings.cluster, addresses.authz, grpc=True))
    if mode is not Mode.EXT_AUTHZ:
        filters.extend(builtin_filters(resources, options, key_sets))
    log = _SHADOW_LOG_LINE if mode is Mode.BOTH else _LOG_LINE
    manager = connection_manager(filters, trusted_hops=trusted_hops, access_log=log)
    return Bootstrap(
        admin=Admin(address=address(addresses.admin)),
        static_resources=BootstrapStaticResources(
            listeners=[listener("inbound", addresses.listen, [filter_chain(manager)])], clusters=clusters
        ),
    )


def as_document(message: betterproto2.Message) -> dict[str, Any]:
    """A configuration message as the JSON-like document that Envoy reads, with the field names of its documentation."""
    document: dict[str, Any] = message.to_dict(casing=betterproto2.Casing.SNAKE)
    return document


def render(message: betterproto2.Message, form: str) -> str:
    """A configuration message as text: `yaml` or `json`."""
    document = as_document(message)
    return json.dumps(document, indent=2) + "\n" if form == "json" else yaml_text(document)
