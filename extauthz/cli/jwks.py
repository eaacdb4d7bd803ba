"""`extauthz jwks`: fetch key sets once and show what is in them, or why they do not come."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from extauthz.authn.fetch.fetcher import KeySetFetcher
from extauthz.authn.fetch.once import Report, fetch_once
from extauthz.authn.fetch.options import DEFAULT_TIMEOUT, FetchOptions
from extauthz.authn.fetch.source import RemoteKeySet
from extauthz.cli import options, serve_options
from extauthz.cli.output import EXIT_NEGATIVE
from extauthz.errors import UsageError
from extauthz.istio.load import load
from extauthz.istio.resources import JwtRule, Metadata, RequestAuthentication, Resources

_DEFAULTS = FetchOptions()
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def command(
    what: Annotated[list[str], typer.Argument(metavar="URL-or-policy...", help="Key set URLs, or policy files.")],
    discover: Annotated[bool, typer.Option("--discover", help="The URLs are issuers: use OpenID discovery.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for each URL given.")] = DEFAULT_TIMEOUT,
    jwks_ca: serve_options.JwksCa = _DEFAULTS.ca_file,
    jwks_egress: serve_options.JwksEgress = _DEFAULTS.egress,
    jwks_proxy: serve_options.JwksProxy = _DEFAULTS.proxy,
    resolve: serve_options.Resolve = [],  # noqa: B006
    cluster_domain: options.ClusterDomain = _DEFAULTS.cluster_domain,
    root_namespace: options.RootNamespace = _DEFAULTS.root_namespace,
    json_output: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Fetch key sets once and show keys, algorithms and lifetime, or in plain words why a fetch fails.

    Exit 0 when every key set came, 1 when one did not, 2 for wrong usage.
    """
    if jwks_egress not in ("open", "mesh"):
        raise UsageError(f"--jwks-egress {jwks_egress!r}: use open or mesh")
    given = FetchOptions(
        ca_file=jwks_ca,
        egress="mesh" if jwks_egress == "mesh" else "open",
        resolve=tuple(resolve),
        cluster_domain=cluster_domain,
        root_namespace=root_namespace,
        proxy=jwks_proxy,
    )
    reports = fetch_once(_sources(what, discover, timeout, given), given)
    if json_output:
        print(json.dumps([_document(report) for report in reports], indent=2))
    else:
        print("\n".join(_harmless(line) for report in reports for line in _lines(report)))
    sys.exit(EXIT_NEGATIVE if any(report.key_set is None for report in reports) else 0)


def _sources(what: Sequence[str], discover: bool, timeout: float, given: FetchOptions) -> list[RemoteKeySet]:
    """One source for each thing to fetch; the fetcher only makes them, and fetches nothing."""
    fetcher = KeySetFetcher(given)
    urls = [text for text in what if _URL.match(text)]
    files = [text for text in what if text not in urls]
    resources = load(files).resources if files else Resources()
    nobody = RequestAuthentication(metadata=Metadata(name="command-line"))
    wanted = [
        (JwtRule(issuer=url, timeout=timeout) if discover else JwtRule(jwks_uri=url, timeout=timeout), nobody)
        for url in urls
    ]
    wanted += [
        (rule, policy) for policy in resources.request_authentications for rule in policy.jwt_rules if not rule.jwks
    ]
    if not wanted:
        raise UsageError("nothing to fetch: no URL given, and no rule without inline keys in the policies")
    return list(dict.fromkeys(fetcher.plan_only(rule, policy, resources) for rule, policy in wanted))


def _lines(report: Report) -> Iterator[str]:
    yield report.uri + (f"  (issuer {', '.join(report.issuers)})" if report.issuers else "")
    yield from (f"  {step}" for step in report.steps)
    if report.key_set is None:
        yield f"  FAILED: {report.error}"
        return
    lifetime = "not said, refreshed by our own interval" if report.lifetime is None else f"{report.lifetime:.0f} s"
    yield f"  lifetime: {lifetime}"
    for key in report.key_set.keys:
        yield f"  key {key.kid or '(no kid)'}: {key.description}, alg {key.algorithm or 'any that fits'}"
    for skipped in report.key_set.skipped:
        yield f"  passed over: {skipped.kid or f'member {skipped.index}'}: {skipped.reason}"


def _harmless(text: str) -> str:
    """Text of a key server's, without what a terminal would act on."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _document(report: Report) -> dict[str, Any]:
    keys = report.key_set.keys if report.key_set is not None else ()
    skipped = report.key_set.skipped if report.key_set is not None else ()
    return {
        "uri": report.uri,
        "issuers": list(report.issuers),
        "steps": list(report.steps),
        "error": report.error,
        "cause": report.cause,
        "lifetime": report.lifetime,
        "content_type": report.content_type,
        "keys": [{"kid": key.kid, "kind": key.kind, "alg": key.algorithm, "size": key.description} for key in keys],
        "skipped": [{"index": one.index, "kid": one.kid, "reason": one.reason} for one in skipped],
    }
