"""Options that several commands share, each with its environment variable `EXTAUTHZ_<OPTION>`."""

from __future__ import annotations

from typing import Annotated

import typer

from extauthz.authorizer import AuthorizerOptions
from extauthz.errors import UsageError
from extauthz.istio.workload import Workload

_PANEL = "Policies"

Policy = Annotated[
    list[str],
    typer.Option(
        "--policy",
        "-p",
        envvar="EXTAUTHZ_POLICY",
        metavar="PATH",
        help="Istio resources: a file, a directory searched for *.yaml, *.yml and *.json, or - for stdin. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
WorkloadName = Annotated[
    str,
    typer.Option(
        "--workload",
        "-w",
        envvar="EXTAUTHZ_WORKLOAD",
        metavar="NAMESPACE/LABELS",
        help="The workload whose policies apply (shop/app=web,version=v1). Without it every policy applies.",
        rich_help_panel=_PANEL,
    ),
]
RootNamespace = Annotated[
    str,
    typer.Option(
        "--root-namespace", envvar="EXTAUTHZ_ROOT_NAMESPACE", help="The mesh's root namespace.", rich_help_panel=_PANEL
    ),
]
TrustDomain = Annotated[
    str,
    typer.Option(
        "--trust-domain", envvar="EXTAUTHZ_TRUST_DOMAIN", help="The mesh's trust domain.", rich_help_panel=_PANEL
    ),
]
TrustDomainAlias = Annotated[
    list[str],
    typer.Option(
        "--trust-domain-alias",
        envvar="EXTAUTHZ_TRUST_DOMAIN_ALIAS",
        help="A former trust domain that stands for the current one in policies. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
JwtAlgorithms = Annotated[
    str,
    typer.Option(
        "--jwt-algorithms",
        envvar="EXTAUTHZ_JWT_ALGORITHMS",
        metavar="all|rsa",
        help="Signature algorithms: all, or rsa for RS256, RS384 and RS512 only (ASM before 1.13).",
        rich_help_panel=_PANEL,
    ),
]
TrustedHops = Annotated[
    int,
    typer.Option(
        "--trusted-hops",
        envvar="EXTAUTHZ_TRUSTED_HOPS",
        min=0,
        help="How many X-Forwarded-For entries, counted from the right, were added by trusted proxies.",
        rich_help_panel=_PANEL,
    ),
]
ClusterDomain = Annotated[
    str,
    typer.Option(
        "--cluster-domain", envvar="EXTAUTHZ_CLUSTER_DOMAIN", help="The cluster's DNS domain.", rich_help_panel=_PANEL
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        envvar="EXTAUTHZ_PROVIDER",
        metavar="NAME",
        help="The extension provider that this service is: CUSTOM policies that name it say which requests it decides.",
        rich_help_panel=_PANEL,
    ),
]


def authorizer_options(
    *,
    workload: str,
    root_namespace: str,
    trust_domain: str,
    trust_domain_alias: list[str],
    jwt_algorithms: str,
    trusted_hops: int,
    cluster_domain: str,
    provider: str,
) -> AuthorizerOptions:
    """The options of an `Authorizer` from those of the command line. Raises UsageError for an unusable value."""
    if jwt_algorithms not in ("all", "rsa"):
        raise UsageError(f"--jwt-algorithms {jwt_algorithms!r}: use all or rsa")
    return AuthorizerOptions(
        workload=Workload.parse(workload) if workload else None,
        root_namespace=root_namespace,
        trust_domain=trust_domain,
        trust_domain_aliases=tuple(trust_domain_alias),
        jwt_algorithms="rsa" if jwt_algorithms == "rsa" else "all",
        trusted_hops=trusted_hops,
        cluster_domain=cluster_domain,
        provider=provider,
    )
