"""A campaign's report for people: what differs, each once, with the request, the policies and both answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from extauthz.mesh.documents import authentication_document, policy_document
from extauthz.mesh.verify.campaign import Report
from extauthz.mesh.verify.engine import Comparison
from extauthz.mesh.verify.outcome import Outcome
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.yaml_text import yaml_text

_POLICY_NAME = re.compile(r"ns\[(?P<namespace>[^\]]*)\]-policy\[(?P<name>[^\]]*)\]")
_SHOWN_OF_KEYS = 40
_PROXY = "http://127.0.0.1:10000"


def lines(report: Report) -> Iterator[str]:
    """The report as text, a difference after the other, smallest request first."""
    for rejection in report.rejections:
        yield f"{rejection.policies.title}: {rejection.who} refuses these policies: {rejection.reason}"
        yield ""
    for failure in report.failures:
        case = f"{failure.comparison.policies.title}: {failure.comparison.probe.name}"
        yield f"{case}: {failure.who} does not answer as expected"
        yield from (f"  {reason}" for reason in failure.reasons)
        yield ""
    for number, comparison in enumerate(report.differences, start=1):
        yield f"Difference {number}: {comparison.policies.title}"
        yield from _difference(comparison)
        yield ""
    yield summary(report)


def summary(report: Report) -> str:
    """What was done and how it came out, in one line."""
    rate = f"{report.compared / report.seconds:,.0f}/s" if report.seconds else "at once"
    text = f"{report.compared:,} requests to {report.sets:,} sets of policies in {report.seconds:.1f} s ({rate}): "
    parts = []
    if report.differing:
        parts.append(f"{report.differing:,} differ ({len(report.differences):,} kinds)")
    if report.failures:
        parts.append(f"{len(report.failures):,} answers are not as expected")
    if report.rejections:
        parts.append(f"{len(report.rejections):,} sets were refused")
    if report.limited:
        known = ", ".join(f"{count:,} {name}" for name, count in sorted(report.limited.items()))
        parts.append(f"known limits met: {known}")
    return text + "; ".join(["both sides agree" if report.agreed else parts.pop(0), *parts])


def _difference(comparison: Comparison) -> Iterator[str]:
    yield f"  request    {curl(comparison.probe)}"
    connection = _connection(comparison.probe)
    if connection:
        yield f"  connection {connection}"
    for difference in comparison.differences:
        yield f"  {difference.what}: mesh {_shown(difference.mesh)}, extauthz {_shown(difference.ours)}"
    yield f"  mesh       {_outcome(comparison.mesh)}"
    yield f"  extauthz   {_outcome(comparison.ours)}"
    yield "  policies"
    yield from (f"    {line}" for line in yaml_text(*_concerned(comparison)).splitlines())


def _outcome(outcome: Outcome) -> str:
    if outcome.upstream is not None:
        return f"{outcome.status}: {outcome.upstream.method} {_shown(outcome.upstream.path)} reaches the upstream"
    grpc = f", grpc-status {outcome.grpc_status} {outcome.grpc_message}" if outcome.grpc_status else ""
    return f"{outcome.status} {outcome.body}{grpc} [{outcome.details}]"


def _shown(text: str) -> str:
    """Text with what a terminal would not show written as escapes."""
    escaped = text.encode("latin-1", "backslashreplace").decode("latin-1")
    return "".join(c if c.isprintable() and ord(c) < 127 else f"\\x{ord(c):02x}" for c in escaped)


def curl(probe: Probe) -> str:
    """A curl command that sends the same request through a proxy on port 10000."""
    words = ["curl", "-i", "--http1.1"]
    if probe.method != "GET":
        words += ["-X", probe.method] if probe.method != "HEAD" else ["--head"]
    words += ["--request-target", probe.target]
    if probe.host is not None:
        words += ["-H", f"host: {probe.host}"] if probe.host else ["-H", "host;"]
    for name, value in probe.headers:
        words += ["-H", f"{name}: {value}" if value else f"{name};"]
    if probe.body:
        words += ["--data-binary", probe.body]
    return " ".join(map(_word, [*words, _PROXY]))


def _word(text: str) -> str:
    """A word for a shell; bytes that are no printable ASCII in the form `$'...'`."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    escaped = "".join(c if c.isascii() and c.isprintable() and c not in "'\\" else f"\\x{ord(c):02x}" for c in text)
    return f"$'{escaped}'"


def _connection(probe: Probe) -> str:
    parts = []
    if probe.peer is not None:
        names = [*probe.peer.uris, *probe.peer.dns_names, probe.peer.common_name]
        parts.append(f"client certificate {', '.join(filter(None, names))}")
    if probe.server_name:
        parts.append(f"SNI {probe.server_name}")
    parts.extend(f"metadata {filter_name}[{key}] = {value}" for filter_name, key, value in probe.metadata)
    for name, usual in (("source", "127.0.0.1"), ("destination", "127.0.0.1"), ("port", 8000)):
        if getattr(probe, name) != usual:
            parts.append(f"{name} {getattr(probe, name)}")
    return ", ".join(parts)


def _without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """A RequestAuthentication with its key sets cut short: they are long, and tell a reader nothing."""
    for rule in document["spec"]["jwtRules"]:
        if len(rule.get("jwks", "")) > _SHOWN_OF_KEYS:
            rule["jwks"] = f"{rule['jwks'][:_SHOWN_OF_KEYS]}..."
    return document


def _concerned(comparison: Comparison) -> list[dict[str, Any]]:
    """The policies that either side names as its reason; without such a name all that authenticate, and all others."""
    resources = comparison.policies.selected
    named = {
        (match["namespace"], match["name"])
        for outcome in (comparison.mesh, comparison.ours)
        for match in _POLICY_NAME.finditer(outcome.details)
    }
    chosen = [
        policy
        for policy in resources.authorization_policies
        if (policy.metadata.namespace, policy.metadata.name) in named
    ]
    authentication = [_without_keys(authentication_document(one)) for one in resources.request_authentications]
    return [*authentication, *map(policy_document, chosen or resources.authorization_policies)]
