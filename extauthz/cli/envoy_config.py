"""`extauthz envoy-config`: print an Envoy configuration, or an Istio one, for these policies."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from extauthz.authorizer import AuthorizerOptions
from extauthz.cli import options
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.workload import select
from extauthz.mesh.bootstrap import Addresses, Mode, bootstrap, render
from extauthz.mesh.filters import ExtAuthzSettings, MeshOptions
from extauthz.mesh.istio_wiring import DEFAULT_PROVIDER, custom_policy, mesh_config, service_of
from extauthz.mesh.yaml_text import yaml_text

_DEFAULTS = AuthorizerOptions()
_ADDRESSES = Addresses()
_SETTINGS = ExtAuthzSettings()


def command(
    policy: options.Policy = [],  # noqa: B006
    workload: options.WorkloadName = "",
    root_namespace: options.RootNamespace = _DEFAULTS.root_namespace,
    trust_domain: options.TrustDomain = _DEFAULTS.trust_domain,
    trust_domain_alias: options.TrustDomainAlias = [],  # noqa: B006
    trusted_hops: options.TrustedHops = _DEFAULTS.trusted_hops,
    provider: options.Provider = _DEFAULTS.provider,
    mode: Annotated[
        Mode, typer.Option(help="Who enforces: Envoy's filters, this service, or Envoy with this service in shadow.")
    ] = Mode.EXT_AUTHZ,
    listen: Annotated[str, typer.Option(metavar="ADDR", help="Where Envoy listens.")] = _ADDRESSES.listen,
    upstream: Annotated[str, typer.Option(metavar="ADDR", help="Where requests go.")] = _ADDRESSES.upstream,
    authz_address: Annotated[
        list[str], typer.Option(metavar="ADDR", help="Where this service listens; one for each worker. Repeatable.")
    ] = list(_ADDRESSES.authz),  # noqa: B006
    envoy_admin: Annotated[str, typer.Option(metavar="ADDR", help="Envoy's admin port.")] = _ADDRESSES.admin,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long Envoy waits for a decision.")
    ] = _SETTINGS.timeout,
    status_on_error: Annotated[
        int, typer.Option(metavar="STATUS", help="What a client gets when there is no decision.")
    ] = _SETTINGS.status_on_error,
    form: Annotated[str, typer.Option("--format", metavar="yaml|json", help="The form of the output.")] = "yaml",
    istio: Annotated[
        bool, typer.Option("--istio", help="Print the MeshConfig and the CUSTOM policy for a mesh instead.")
    ] = False,
) -> None:
    """Print a runnable Envoy bootstrap for these policies."""
    if form not in ("yaml", "json"):
        raise UsageError(f"--format {form!r}: use yaml or json")
    authorizer_options = options.authorizer_options(
        workload=workload,
        root_namespace=root_namespace,
        trust_domain=trust_domain,
        trust_domain_alias=trust_domain_alias,
        jwt_algorithms="all",
        trusted_hops=trusted_hops,
        cluster_domain=_DEFAULTS.cluster_domain,
        provider=provider,
    )
    if istio:
        name, (host, port) = provider or DEFAULT_PROVIDER, service_of(authz_address[0])
        _print(
            [
                {"meshConfig": mesh_config(name, host, port, timeout)},
                custom_policy(name, authorizer_options.workload, root_namespace),
            ],
            form,
        )
        return
    if not policy:
        raise UsageError("--policy: name the Istio resources to enforce (a file, a directory, or -)")
    resources = select(load(policy).resources, authorizer_options.workload, root_namespace)
    sys.stdout.write(
        render(
            bootstrap(
                resources,
                mode,
                Addresses(listen=listen, upstream=upstream, authz=tuple(authz_address), admin=envoy_admin),
                options=MeshOptions(trust_domain, tuple(trust_domain_alias), provider),
                settings=ExtAuthzSettings(timeout=timeout, status_on_error=status_on_error),
                trusted_hops=trusted_hops,
            ),
            form,
        )
    )


def _print(documents: list[dict[str, object]], form: str) -> None:
    print(json.dumps(documents, indent=2) if form == "json" else yaml_text(*documents).rstrip())
