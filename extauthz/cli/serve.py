"""`extauthz serve`: run the service."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, cast

from extauthz.authn.fetch.options import FetchOptions
from extauthz.authorizer import AuthorizerOptions
from extauthz.cli import options, serve_options
from extauthz.errors import UsageError
from extauthz.server.listeners import DEFAULT_LISTEN
from extauthz.server.options import DecisionLogOptions, ServeOptions, tls_options
from extauthz.server.transport import DEFAULT_LIMITS

_DEFAULTS = ServeOptions(policy=())
_FETCH = FetchOptions()
_AUTHORIZER = AuthorizerOptions()
_LOG = DecisionLogOptions(path="")


def command(
    policy: options.Policy = [],  # noqa: B006
    workload: options.WorkloadName = "",
    root_namespace: options.RootNamespace = _AUTHORIZER.root_namespace,
    trust_domain: options.TrustDomain = _AUTHORIZER.trust_domain,
    trust_domain_alias: options.TrustDomainAlias = [],  # noqa: B006
    jwt_algorithms: options.JwtAlgorithms = _AUTHORIZER.jwt_algorithms,
    trusted_hops: options.TrustedHops = _AUTHORIZER.trusted_hops,
    cluster_domain: options.ClusterDomain = _AUTHORIZER.cluster_domain,
    provider: options.Provider = _AUTHORIZER.provider,
    listen: serve_options.Listen = [DEFAULT_LISTEN],  # noqa: B006
    listen_mode: serve_options.ListenMode = _DEFAULTS.listen_mode,
    transport: serve_options.TransportName = _DEFAULTS.transport,
    workers: serve_options.Workers = _DEFAULTS.workers,
    max_message_bytes: serve_options.MaxMessageBytes = DEFAULT_LIMITS.message_bytes,
    max_in_flight: serve_options.MaxInFlight = DEFAULT_LIMITS.in_flight,
    max_concurrent_streams: serve_options.MaxConcurrentStreams = DEFAULT_LIMITS.streams,
    max_connection_age: serve_options.MaxConnectionAge = DEFAULT_LIMITS.connection_age_seconds,
    tls_cert: serve_options.TlsCert = "",
    tls_key: serve_options.TlsKey = "",
    tls_client_ca: serve_options.TlsClientCa = "",
    tls_client_name: serve_options.TlsClientName = [],  # noqa: B006
    jwks_refresh: serve_options.JwksRefresh = _FETCH.refresh,
    jwks_refresh_min: serve_options.JwksRefreshMin = _FETCH.refresh_min,
    jwks_max_stale: serve_options.JwksMaxStale = _FETCH.max_stale,
    jwks_wait: serve_options.JwksWait = _DEFAULTS.jwks_wait,
    jwks_ca: serve_options.JwksCa = _FETCH.ca_file,
    jwks_egress: serve_options.JwksEgress = _FETCH.egress,
    jwks_cache_dir: serve_options.JwksCacheDir = _FETCH.cache_dir,
    jwks_proxy: serve_options.JwksProxy = _FETCH.proxy,
    resolve: serve_options.Resolve = [],  # noqa: B006
    admin: serve_options.Admin = _DEFAULTS.admin,
    admin_reload: serve_options.AdminReload = False,
    decision_log: serve_options.DecisionLog = "",
    decision_log_sample: serve_options.DecisionLogSample = _LOG.sample,
    decision_log_max_bytes: serve_options.DecisionLogMaxBytes = _LOG.max_bytes,
    decision_log_keep: serve_options.DecisionLogKeep = _LOG.keep,
    decision_log_claim: serve_options.DecisionLogClaim = [],  # noqa: B006
    otel: serve_options.Otel = False,
    log_format: serve_options.LogFormat = _DEFAULTS.log_format,
    log_level: serve_options.LogLevel = _DEFAULTS.log_level,
    drain: serve_options.Drain = _DEFAULTS.drain,
) -> None:
    """Answer Envoy's Check calls by Istio policies, in the foreground.

    When it answers, one line on stderr says ready and where. SIGTERM drains and ends, SIGHUP reloads, and changed
    policy files reload by themselves. Unusable options or policies end it with status 2 before anything listens.
    """
    from extauthz.server.run import serve

    complaints: list[str] = []
    authorizer = _AUTHORIZER
    try:
        authorizer = options.authorizer_options(
            workload=workload,
            root_namespace=root_namespace,
            trust_domain=trust_domain,
            trust_domain_alias=trust_domain_alias,
            jwt_algorithms=jwt_algorithms,
            trusted_hops=trusted_hops,
            cluster_domain=cluster_domain,
            provider=provider,
        )
    except UsageError as error:
        # Listed together with what is wrong with the other options.
        complaints.append(str(error))
    given = ServeOptions(
        policy=tuple(policy),
        authorizer=authorizer,
        listen=tuple(listen),
        listen_mode=listen_mode,
        transport=transport,
        workers=workers,
        limits=replace(
            DEFAULT_LIMITS,
            message_bytes=max_message_bytes,
            in_flight=max_in_flight,
            streams=max_concurrent_streams,
            connection_age_seconds=max_connection_age,
        ),
        tls=tls_options(tls_cert, tls_key, tls_client_ca, tls_client_name),
        fetch=FetchOptions(
            refresh=jwks_refresh,
            refresh_min=jwks_refresh_min,
            max_stale=jwks_max_stale,
            ca_file=jwks_ca,
            egress=cast(Any, jwks_egress),
            cache_dir=jwks_cache_dir,
            resolve=tuple(resolve),
            cluster_domain=cluster_domain,
            root_namespace=root_namespace,
            proxy=jwks_proxy,
        ),
        jwks_wait=jwks_wait,
        admin=admin,
        admin_reload=admin_reload,
        decision_log=DecisionLogOptions(
            path=decision_log,
            sample=decision_log_sample,
            max_bytes=decision_log_max_bytes,
            keep=decision_log_keep,
            claims=tuple(decision_log_claim),
        )
        if decision_log
        else None,
        otel=otel,
        log_format=log_format,
        log_level=log_level,
        drain=drain,
    )
    sys.exit(serve(given, complaints))
