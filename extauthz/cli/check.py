"""`extauthz check`: decide one request offline, and explain the answer."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated
from urllib.parse import urlsplit

import typer

from extauthz.authorizer import Authorizer, AuthorizerOptions
from extauthz.checkapi.build import Connection, check_request
from extauthz.checkapi.read import read_check_request
from extauthz.cli import options
from extauthz.cli.explanation import as_document, as_lines
from extauthz.cli.output import EXIT_NEGATIVE
from extauthz.errors import UsageError
from extauthz.explain import explain
from extauthz.istio.load import load
from extauthz.request import wire_text

_DEFAULTS = AuthorizerOptions()
DEFAULT_HOST = "localhost"


def command(
    url: Annotated[str, typer.Argument(metavar="URL-or-path", help="http://host:port/path?query, or /path.")],
    policy: options.Policy = [],  # noqa: B006
    workload: options.WorkloadName = "",
    method: Annotated[str, typer.Option("--method", "-X", help="HTTP method.")] = "GET",
    header: Annotated[
        list[str], typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header line. Repeatable.")
    ] = [],  # noqa: B006
    source_ip: Annotated[str, typer.Option(metavar="IP", help="Address of the direct peer.")] = "127.0.0.1",
    source_principal: Annotated[
        str, typer.Option(metavar="PRINCIPAL", help="The peer's identity (cluster.local/ns/NS/sa/SA).")
    ] = "",
    destination_port: Annotated[int, typer.Option(help="Port that the connection came to; the URL's by default.")] = 0,
    server_name: Annotated[str, typer.Option(metavar="SNI", help="Server name of the TLS session.")] = "",
    at: Annotated[float, typer.Option(metavar="UNIX-SECONDS", help="Decide as at this time; now by default.")] = 0.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
    show_token: Annotated[bool, typer.Option("--show-token", help="Print whole tokens, signatures included.")] = False,
    root_namespace: options.RootNamespace = _DEFAULTS.root_namespace,
    trust_domain: options.TrustDomain = _DEFAULTS.trust_domain,
    trust_domain_alias: options.TrustDomainAlias = [],  # noqa: B006
    jwt_algorithms: options.JwtAlgorithms = _DEFAULTS.jwt_algorithms,
    trusted_hops: options.TrustedHops = _DEFAULTS.trusted_hops,
    cluster_domain: options.ClusterDomain = _DEFAULTS.cluster_domain,
    provider: options.Provider = _DEFAULTS.provider,
) -> None:
    """Decide one request offline and explain the answer: exit 0 allowed, 1 denied, 2 usage or unusable policies.

    Keys of a jwksUri are not fetched: tokens that need them are refused, as the mesh does before its first fetch.
    """
    if not policy:
        raise UsageError("no policies: name files or directories with --policy")
    authorizer = Authorizer(
        load(policy).resources,
        options.authorizer_options(
            workload=workload,
            root_namespace=root_namespace,
            trust_domain=trust_domain,
            trust_domain_alias=trust_domain_alias,
            jwt_algorithms=jwt_algorithms,
            trusted_hops=trusted_hops,
            cluster_domain=cluster_domain,
            provider=provider,
        ),
    )
    host, target, tls = _target(url)
    headers = [_header(text) for text in header]
    host = next((value for name, value in headers if name.lower() == "host"), host)
    connection = Connection(
        source_address=source_ip,
        destination_port=destination_port or urlsplit(f"//{host}").port or (443 if tls else 80),
        principal=f"spiffe://{source_principal.removeprefix('spiffe://')}" if source_principal else "",
        server_name=server_name,
        tls=tls,
    )
    message = check_request(method, target, headers, host=host, connection=connection)
    if message is None:
        print("400: Envoy refuses this request target before any filter sees it")
        sys.exit(EXIT_NEGATIVE)
    explanation = explain(authorizer, read_check_request(message), at or time.time())
    if json_output:
        print(json.dumps(as_document(explanation, show_token=show_token), indent=2, ensure_ascii=False))
    else:
        print("\n".join(as_lines(explanation, show_token=show_token)))
    sys.exit(0 if explanation.decision.allowed else EXIT_NEGATIVE)


def _target(url: str) -> tuple[str, str, bool]:
    """Host, path with query, and whether it is https."""
    if url.startswith("/"):
        return DEFAULT_HOST, url, False
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        raise UsageError(f"{url!r}: write http://host/path, https://host/path or /path")
    end = next((place for place, character in enumerate(rest) if character in "/?"), len(rest))
    path = rest[end:]
    if not rest[:end]:
        raise UsageError(f"{url!r}: no host")
    return rest[:end], path if path.startswith("/") else f"/{path}", scheme == "https"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header {text!r}: write 'NAME: VALUE'")
    return name.strip(), wire_text(value.strip())
