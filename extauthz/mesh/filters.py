"""HTTP filter chains: what Istio's control plane configures for a workload's policies, and `ext_authz` that asks us.

Built-in enforcement in its order: CUSTOM, authentication, then AUDIT, DENY and ALLOW.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    BackoffStrategy,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    RetryPolicy,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import MetadataMatcher, StringMatcher, ValueMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

from extauthz.istio.resources import Resources
from extauthz.mesh import matchers
from extauthz.mesh.jwt_filter import KeySets, jwt_authn_filter
from extauthz.mesh.rbac_filter import (
    CUSTOM_NAME_PREFIX,
    CUSTOM_STAT_PREFIX,
    RBAC_FILTER,
    custom_filters,
    enforcement_filters,
)
from extauthz.mesh.stand_in import made_up_key_sets

EXT_AUTHZ_FILTER = "envoy.filters.http.ext_authz"

RETRY_ON = "connect-failure,refused-stream,unavailable,reset,cancelled"
RETRIES = 30
RETRY_FIRST = timedelta(milliseconds=50)
RETRY_LAST = timedelta(milliseconds=250)
"""What makes Envoy ask another instance: everything that an instance which is going away may answer."""

_EFFECTIVE_POLICY = "shadow_effective_policy_id"


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What the mesh is told beside the policies. `provider` is the extension provider's name by which it knows us."""

    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    provider: str = ""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """All names of the mesh, the current one first."""
        return (self.trust_domain, *self.trust_domain_aliases)

    @property
    def providers(self) -> tuple[str, ...]:
        """The extension providers that the mesh knows."""
        return (self.provider,) if self.provider else ()


@dataclass(frozen=True, slots=True)
class ExtAuthzSettings:
    """How Envoy asks us.

    `timeout` is in seconds; `status_on_error` is what a client gets when we cannot be asked; with `shadow` our answer
    is recorded and nothing more.
    """

    cluster: str = "extauthz"
    timeout: float = 1.0
    status_on_error: int = 503
    shadow: bool = False


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """A filter of the chain."""
    return HttpFilter(name=name, typed_config=Any.pack(config))


def builtin_filters(
    resources: Resources, options: MeshOptions | None = None, key_sets: KeySets | None = None
) -> list[HttpFilter]:
    """The filters that enforce these resources without us; `resources` holds what applies to the workload, in order.

    `key_sets` gives what istiod fetched for rules without inline keys; by default nothing was fetched yet, and a
    made-up key stands in, as istiod has it. CUSTOM rules that name `options.provider` only leave their mark.
    """
    options = options or MeshOptions()
    policies, domains = resources.authorization_policies, options.trust_domains
    chain = [http_filter(RBAC_FILTER, custom.filter) for custom in custom_filters(policies, domains, options.providers)]
    authentication = jwt_authn_filter(resources.request_authentications, key_sets or made_up_key_sets())
    if authentication is not None:
        chain.append(http_filter(matchers.JWT_FILTER, authentication))
    chain.extend(http_filter(RBAC_FILTER, rbac) for rbac in enforcement_filters(policies, domains))
    return chain


def ext_authz_filters(
    resources: Resources, options: MeshOptions | None = None, settings: ExtAuthzSettings | None = None
) -> list[HttpFilter]:
    """The filters that have us decide: `ext_authz`, asked about every request.

    With CUSTOM policies of `options.provider` only about those that a rule matches, as in a mesh; a CUSTOM policy of
    another provider is decided by us like the rest.
    """
    options, settings = options or MeshOptions(), settings or ExtAuthzSettings()
    custom = custom_filters(resources.authorization_policies, options.trust_domains, options.providers)
    marking = [filter_ for filter_ in custom if filter_.asks]
    chain = [http_filter(RBAC_FILTER, filter_.filter) for filter_ in marking]
    condition = _matched_custom_rule(options.provider) if marking else None
    chain.append(http_filter(EXT_AUTHZ_FILTER, _ext_authz(resources, settings, condition)))
    return chain


def _matched_custom_rule(provider: str) -> MetadataMatcher:
    wanted = ValueMatcher(string_match=StringMatcher(prefix=f"{CUSTOM_NAME_PREFIX}-{provider}"))
    return matchers.metadata(RBAC_FILTER, [f"{CUSTOM_STAT_PREFIX}{_EFFECTIVE_POLICY}"], wanted)


def _ext_authz(resources: Resources, settings: ExtAuthzSettings, condition: MetadataMatcher | None) -> ExtAuthz:
    return ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=settings.cluster),
            timeout=timedelta(seconds=settings.timeout),
            # Here and not inside envoy_grpc, where it has no effect. Enough to bridge one instance's restart, which
            # takes about half a second; `timeout` ends it all the same.
            retry_policy=RetryPolicy(
                retry_on=RETRY_ON,
                num_retries=RETRIES,
                retry_back_off=BackoffStrategy(base_interval=RETRY_FIRST, max_interval=RETRY_LAST),
            ),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=HttpStatus(code=StatusCode(settings.status_on_error)),
        # Each header line with its exact bytes, as the built-in filters see them.
        encode_raw_headers=True,
        include_peer_certificate=True,
        include_tls_session=True,
        metadata_context_namespaces=sorted(metadata_namespaces(resources)),
        clear_route_cache=rewrites_path(resources),
        filter_enabled_metadata=condition,
        shadow_mode=settings.shadow,
        # In shadow mode the request has to stay as it is for the filters that enforce.
        decoder_header_mutation_rules=HeaderMutationRules(disallow_all=True) if settings.shadow else None,
    )


def metadata_namespaces(resources: Resources) -> set[str]:
    """The filters whose metadata the policies read (`experimental.envoy.filters.NAME[KEY]`): Envoy has to send it."""
    return {
        key.removeprefix("experimental.").partition("[")[0]
        for key in _condition_keys(resources)
        if key.startswith("experimental.envoy.filters.")
    }


def _condition_keys(resources: Resources) -> Iterable[str]:
    for policy in resources.authorization_policies:
        for rule in policy.rules:
            for condition in rule.when:
                yield condition.key


def rewrites_path(resources: Resources) -> bool:
    """Whether a good token may be cut out of the query, so that the route has to be chosen anew."""
    return any(
        not rule.forward_original_token and (rule.from_params or not (rule.from_headers or rule.from_cookies))
        for authentication in resources.request_authentications
        for rule in authentication.jwt_rules
    )
