"""A campaign's report as data, and what differs as a case file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from extauthz.errors import UsageError
from extauthz.istio.resources import JwtRule, Resources
from extauthz.mesh.documents import as_yaml
from extauthz.mesh.verify.campaign import Failure, Rejection, Report
from extauthz.mesh.verify.engine import Comparison, PolicySet
from extauthz.mesh.verify.expectation import expected_of
from extauthz.mesh.verify.outcome import Outcome
from extauthz.mesh.verify.probe import HOST, Probe
from extauthz.mesh.verify.report import curl
from extauthz.mesh.yaml_text import yaml_text


def document(report: Report) -> dict[str, Any]:
    """The report as JSON-like data."""
    return {
        "sets": report.sets,
        "compared": report.compared,
        "differing": report.differing,
        "limited": report.limited,
        "seconds": round(report.seconds, 3),
        "agreed": report.agreed,
        "differences": [_difference_document(comparison) for comparison in report.differences],
        "failures": [_failure_document(failure) for failure in report.failures],
        "rejections": [_rejection_document(rejection) for rejection in report.rejections],
    }


def _difference_document(comparison: Comparison) -> dict[str, Any]:
    return {
        "policies": comparison.policies.title,
        "request": request_document(comparison.probe),
        "curl": curl(comparison.probe),
        "differences": [
            {"what": difference.what, "mesh": difference.mesh, "extauthz": difference.ours}
            for difference in comparison.differences
        ],
        "mesh": _outcome_document(comparison.mesh),
        "extauthz": _outcome_document(comparison.ours),
        "resources": as_yaml(comparison.policies.selected),
    }


def _failure_document(failure: Failure) -> dict[str, Any]:
    return {
        "policies": failure.comparison.policies.title,
        "request": request_document(failure.comparison.probe),
        "who": failure.who,
        "reasons": list(failure.reasons),
    }


def _rejection_document(rejection: Rejection) -> dict[str, Any]:
    return {"policies": rejection.policies.title, "who": rejection.who, "reason": rejection.reason}


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    return {**expected_of(outcome).write(), "reason": outcome.details}


def request_document(probe: Probe) -> dict[str, Any]:
    """A request as case files have it."""
    request: dict[str, Any] = {"name": probe.name or probe.target, "method": probe.method, "target": probe.target}
    request["headers"] = [list(line) for line in probe.headers]
    if probe.host != HOST:
        request["host"] = probe.host
    for name, usual in (("body", ""), ("source", "127.0.0.1"), ("destination", "127.0.0.1"), ("port", 8000)):
        if getattr(probe, name) != usual:
            request[name] = getattr(probe, name)
    if probe.server_name:
        request["server-name"] = probe.server_name
    for filter_name, key, value in probe.metadata:
        request.setdefault("metadata", {}).setdefault(filter_name, {})[key] = json.loads(value)
    if probe.peer is not None:
        request["peer"] = {
            "uris": list(probe.peer.uris),
            "dns": list(probe.peer.dns_names),
            "common-name": probe.peer.common_name,
            "organization": probe.peer.organization,
        }
    return request


def save(report: Report, file: Path) -> None:
    """Write what differs as a conformance file that expects the mesh's answers. Raises UsageError."""
    documents = [_case_set(comparison, number) for number, comparison in enumerate(report.differences, start=1)]
    try:
        file.write_text(yaml_text(*documents), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--save {file}: {error.strerror}") from None


def _case_set(comparison: Comparison, number: int) -> dict[str, Any]:
    fetched: dict[str, str] = {}
    resources = _publishable(comparison.policies.selected, fetched)
    document: dict[str, Any] = {
        "title": f"{comparison.policies.title}, difference {number}",
        "options": _options(comparison.policies),
    }
    if fetched:
        document["keysets"] = {f"fetched-{index}": text for index, text in enumerate(fetched.values())}
        document["fetched"] = {url: f"keyset:fetched-{index}" for index, url in enumerate(fetched)}
    document["policies"] = _dollars(as_yaml(resources))
    document["requests"] = [_case(comparison)]
    return document


def _publishable(resources: Resources, fetched: dict[str, str]) -> Resources:
    """The resources as istiod would take them: keys that stand in for remote ones go to `fetched` again."""

    def remote(rule: JwtRule) -> JwtRule:
        if rule.issuer or not rule.jwks:
            return rule
        url = rule.jwks_uri or f"https://fetched.invalid/{len(fetched)}"
        fetched[url] = rule.jwks
        return replace(rule, jwks="", jwks_uri=url)

    return replace(
        resources,
        request_authentications=tuple(
            replace(authentication, jwt_rules=tuple(map(remote, authentication.jwt_rules)))
            for authentication in resources.request_authentications
        ),
    )


def _case(comparison: Comparison) -> dict[str, Any]:
    case: dict[str, Any] = _dollars_in(request_document(comparison.probe))
    case["expect"] = _dollars_in(expected_of(comparison.mesh).write())
    return case


def _options(policies: PolicySet) -> dict[str, Any]:
    options = policies.options
    given: dict[str, Any] = {"trust-domain": options.trust_domain, "trusted-hops": options.trusted_hops}
    if options.trust_domain_aliases:
        given["trust-domain-alias"] = list(options.trust_domain_aliases)
    if options.provider:
        given["provider"] = options.provider
    return given


def _dollars(text: str) -> str:
    """Text in which nothing is taken for a placeholder."""
    return text.replace("${", "${$}{")


def _dollars_in(value: Any) -> Any:
    if isinstance(value, str):
        return _dollars(value)
    if isinstance(value, dict):
        return {name: _dollars_in(member) for name, member in value.items()}
    return [_dollars_in(member) for member in value] if isinstance(value, list) else value
