"""Warnings about policies that load and do not do what they look like: what istiod accepts without a word.

A warning is precise or it is not given: each names the field and says what to write instead. `code` is stable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from extauthz.errors import Problem, Severity
from extauthz.istio.lint_authentication import request_authentication
from extauthz.istio.lint_overlap import overlaps, shadowed_policies
from extauthz.istio.lint_tokens import missing_demands, unmet_demands
from extauthz.istio.lint_values import FIELDS, KEYS, header_value, stars
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    FieldPath,
    Resource,
    Resources,
    Rule,
    Service,
)
from extauthz.istio.validate_authentication import Finding
from extauthz.istio.validate_authorization import lists_of
from extauthz.istio.workload import Workload, select

ANYBODY = ("*",)

_SETTINGS = {
    "experimental.envoy.filters.": "metadata_context_namespaces",
    "connection.sni": "include_tls_session",
}
"""What the ext_authz filter has to be told for some keys, by their beginning."""


def lint(
    resources: Resources, *, workload: Workload | None = None, root_namespace: str = "istio-system"
) -> tuple[Problem, ...]:
    """Every warning about resources that `load` has let pass, those of a workload where one is given, in file order."""
    chosen = select(resources, workload, root_namespace)
    found = [
        *_selection(resources, chosen, workload),
        *(pair for policy in chosen.request_authentications for pair in _of(policy, request_authentication(policy))),
        *shadowed_policies(chosen.authorization_policies, root_namespace),
        *missing_demands(chosen, root_namespace),
    ]
    for policy in chosen.authorization_policies:
        found.extend(_of(policy, _authorization_policy(policy, chosen.services)))
        found.extend(_of(policy, overlaps(policy)))
        found.extend(_of(policy, unmet_demands(policy, chosen, root_namespace)))
    problems = [_warning(policy, *finding) for policy, finding in found]
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line)))


def _of(policy: Resource, findings: Iterable[Finding]) -> Iterator[tuple[Resource, Finding]]:
    return ((policy, finding) for finding in findings)


def _warning(resource: Resource, path: FieldPath, code: str, reason: str) -> Problem:
    return resource.problem(path, reason, code=code, severity=Severity.WARNING)


# --- whether anything applies ---


def _selection(
    resources: Resources, chosen: Resources, workload: Workload | None
) -> Iterator[tuple[Resource, Finding]]:
    policies = (*resources.request_authentications, *resources.authorization_policies)
    if workload is not None and policies and not (chosen.request_authentications or chosen.authorization_policies):
        reason = f"no policy applies to this workload (namespace {workload.namespace}, labels {dict(workload.labels)})"
        yield policies[0], ((), "selects-nothing", f"{reason}; compare namespaces and selectors with it")
    for policy in policies:
        if policy.selector == {}:
            reason = "an empty selector selects the whole namespace; leave it out, or give labels"
            yield policy, (("spec", "selector"), "empty-selector", reason)


# --- AuthorizationPolicy ---


def _authorization_policy(policy: AuthorizationPolicy, services: Iterable[Service]) -> Iterator[Finding]:
    if policy.action is Action.ALLOW and not policy.rules and not policy.dry_run:
        reason = "an ALLOW policy without rules denies every request; write `rules: [{}]` to allow every request"
        yield ("spec",), "allows-nothing", reason
    for index, rule in enumerate(policy.rules):
        for place, code, reason in (*_values(rule), *_shape(policy.action, rule), *_hosts(rule, services)):
            yield ("spec", "rules", index, *place), code, reason


def _values(rule: Rule) -> Iterator[tuple[FieldPath, str, str]]:
    for path, name, values in lists_of(rule):
        check = FIELDS.get(name.removeprefix("not_"))
        if check is not None:
            for index, value in enumerate(values):
                yield from (((*path, index), code, reason) for code, reason in check(value))
    for place, condition in enumerate(rule.when):
        setting = next((text for start, text in _SETTINGS.items() if condition.key.startswith(start)), "")
        if setting:
            reason = f"Envoy has to send this: set {setting} (Istio's extension provider has no field for it)"
            yield ("when", place, "key"), "needs-envoy-setting", reason
        check = KEYS.get(condition.key)
        if condition.key.startswith("request.headers["):
            check = header_value
        elif condition.key.startswith("request.auth.claims["):
            check = stars
        if check is None:
            continue
        for name, values in (("values", condition.values), ("notValues", condition.not_values)):
            for index, value in enumerate(values):
                yield from ((("when", place, name, index), code, reason) for code, reason in check(value))


def _shape(action: Action, rule: Rule) -> Iterator[tuple[FieldPath, str, str]]:
    """Rules whose negations do something else than they seem to."""
    for index, operation in enumerate(rule.operations):
        for place, value in enumerate(operation.not_paths):
            bare = value.rstrip("/")
            if (
                value.endswith("/")
                and bare
                and bare not in operation.not_paths
                and f"{bare}*" not in operation.not_paths
            ):
                where: FieldPath = ("to", index, "operation", "notPaths", place)
                yield where, "trailing-slash", f"{value!r} is excluded, {bare!r} is not: list both if both shall be"
    for index, source in enumerate(rule.sources):
        anybody, nobody = source.request_principals == ANYBODY, source.not_request_principals == ANYBODY
        excluded = [operation for operation in rule.operations if operation.not_paths and not operation.paths]
        if action is Action.DENY and anybody and excluded:
            reason = "this denies requests *with* a token; to demand one elsewhere write notRequestPrincipals"
            yield ("from", index, "source", "requestPrincipals"), "double-negation", reason
        if action is Action.ALLOW and nobody:
            reason = (
                "this allows requests *without* a token and says nothing of those with one; to demand a token write a "
                "DENY policy with notRequestPrincipals, or an ALLOW policy with requestPrincipals"
            )
            yield ("from", index, "source", "notRequestPrincipals"), "double-negation", reason
    http_only = bool(rule.operations) and all(
        operation.hosts or operation.methods or operation.paths or operation.not_hosts or operation.not_methods
        for operation in rule.operations
    )
    if (
        action is Action.DENY
        and http_only
        and not rule.sources
        and any(operation.ports for operation in rule.operations)
    ):
        reason = "on a TCP port Istio drops hosts, methods and paths from a DENY rule: it denies every connection there"
        yield ("to",), "deny-on-tcp", reason


def _hosts(rule: Rule, services: Iterable[Service]) -> Iterator[tuple[FieldPath, str, str]]:
    """Hosts without a port where clients send one: on any port but 80 and 443, `Host` names it."""
    for index, operation in enumerate(rule.operations):
        for place, host in enumerate(operation.hosts):
            if ":" in host or host.endswith("*"):
                continue
            ports = {int(port) for port in operation.ports if port.isdigit()} or _service_ports(host, services)
            unusual = sorted(ports - {80, 443})
            if unusual and not ports & {80, 443}:
                reason = f"{host!r} does not match `{host}:{unusual[0]}`, which clients of that port send; write it so"
                yield ("to", index, "operation", "hosts", place), "host-without-port", reason


def _service_ports(host: str, services: Iterable[Service]) -> set[int]:
    labels = host.split(".")
    for service in services:
        known = (service.metadata.name, service.metadata.namespace, "svc")
        if tuple(labels[:3]) == known[: len(labels[:3])]:
            return {port.number for port in service.ports}
    return set()
