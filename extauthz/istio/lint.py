"""Warnings about policies that load and do not do what they look like: what istiod accepts without a word.

A warning is precise or it is not given: each names the field and says what to write instead. `code` is stable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from extauthz.errors import Problem, Severity
from extauthz.istio.lint_values import FIELDS, KEYS, header_value, stars
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    FieldPath,
    JwtRule,
    Operation,
    RequestAuthentication,
    Resource,
    Resources,
    Rule,
    Service,
    Source,
)
from extauthz.istio.validate import camel
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
    """Every warning about the resources, those of a workload where one is given, in file order."""
    chosen = select(resources, workload, root_namespace)
    found = [
        *_selection(resources, chosen, workload),
        *(problem for policy in chosen.request_authentications for problem in _request_authentication(policy)),
        *(problem for policy in chosen.authorization_policies for problem in _authorization_policy(policy, chosen)),
        *_requirements(chosen),
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda problem: (problem.file, problem.line)))


def _warning(resource: Resource, path: FieldPath, code: str, reason: str) -> Problem:
    return resource.problem(path, reason, code=code, severity=Severity.WARNING)


# --- whether anything applies ---


def _selection(resources: Resources, chosen: Resources, workload: Workload | None) -> Iterator[Problem]:
    policies = (*resources.request_authentications, *resources.authorization_policies)
    if workload is not None and policies and not (chosen.request_authentications or chosen.authorization_policies):
        reason = f"no policy applies to this workload (namespace {workload.namespace}, labels {dict(workload.labels)})"
        yield _warning(policies[0], (), "selects-nothing", reason)
    for policy in policies:
        if policy.selector == {}:
            reason = "an empty selector selects the whole namespace; leave it out, or give labels"
            yield _warning(policy, ("spec", "selector"), "empty-selector", reason)


# --- RequestAuthentication ---


def _request_authentication(policy: RequestAuthentication) -> Iterator[Problem]:
    for index, rule in enumerate(policy.jwt_rules):
        path: FieldPath = ("spec", "jwtRules", index)
        if rule.issuer.endswith("/"):
            reason = f"the issuer ends in a slash: requestPrincipals have to be {rule.issuer + '/SUBJECT'!r} for it"
            yield _warning(policy, (*path, "issuer"), "issuer-slash", reason)
        for place, output in enumerate(rule.output_claim_to_headers):
            if any(mark in output.claim for mark in "/:"):
                reason = (
                    f"claim {output.claim!r}: only dots descend; a top-level name with a dot cannot be output at all"
                )
                where = (*path, "outputClaimToHeaders", place, "claim")
                yield _warning(policy, where, "claim-path", reason)
        yield from _beyond_an_answer(policy, path, rule)
        if not rule.jwks and not rule.jwks_uri:
            reason = "no jwks and no jwksUri: keys come from OpenID discovery at the issuer"
            yield _warning(policy, path, "discovery", reason)


def _beyond_an_answer(policy: RequestAuthentication, path: FieldPath, rule: JwtRule) -> Iterator[Problem]:
    """What the mesh's own filters do to a request and an ext_authz answer cannot (docs/limits.md)."""
    outputs = [output.header.lower() for output in rule.output_claim_to_headers]
    for place, name in enumerate(outputs):
        where = (*path, "outputClaimToHeaders", place, "header")
        if name in outputs[:place] or name == rule.output_payload_to_header.lower():
            reason = f"{name!r} is written twice: the upstream gets one line joined with a comma, not two lines"
            yield _warning(policy, where, "beyond-ext-authz", reason)
    sources = [header.name.lower() for header in rule.from_headers] if not rule.forward_original_token else []
    if "host" in (*outputs, rule.output_payload_to_header.lower(), *sources):
        reason = "the mesh removes Host from requests by this rule; an ext_authz answer cannot: name another header"
        yield _warning(policy, path, "beyond-ext-authz", reason)


# --- AuthorizationPolicy ---


def _authorization_policy(policy: AuthorizationPolicy, chosen: Resources) -> Iterator[Problem]:
    if policy.action is Action.ALLOW and not policy.rules and not policy.dry_run:
        reason = "an ALLOW policy without rules denies every request; write `rules: [{}]` to allow every request"
        yield _warning(policy, ("spec",), "allows-nothing", reason)
    seen: dict[Rule, int] = {}
    for index, rule in enumerate(policy.rules):
        path: FieldPath = ("spec", "rules", index)
        for place, code, reason in (*_values(rule), *_shape(policy.action, rule), *_hosts(rule, chosen.services)):
            yield _warning(policy, (*path, *place), code, reason)
        if rule == Rule() and len(policy.rules) > 1:
            yield _warning(
                policy, path, "shadowing", "this empty rule matches every request: the other rules have no effect"
            )
        first = seen.setdefault(rule, index)
        if first != index:
            yield _warning(policy, path, "duplicate-rule", f"the same as rules[{first}]")
        yield from _issuers(policy, path, rule, chosen)


def _lists(rule: Rule) -> Iterator[tuple[FieldPath, str, tuple[str, ...]]]:
    parts: Iterable[tuple[FieldPath, Source | Operation]] = (
        *((("from", index, "source"), source) for index, source in enumerate(rule.sources)),
        *((("to", index, "operation"), operation) for index, operation in enumerate(rule.operations)),
    )
    for path, part in parts:
        for one in fields(part):
            if values := getattr(part, one.name):
                yield (*path, camel(one.name)), one.name, values


def _values(rule: Rule) -> Iterator[tuple[FieldPath, str, str]]:
    for path, name, values in _lists(rule):
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


# --- what policies demand and what authentication gives ---


def _request_principals(rule: Rule) -> Iterator[tuple[FieldPath, tuple[str, ...]]]:
    for path, name, values in _lists(rule):
        if name == "request_principals":
            yield path, values
    for index, condition in enumerate(rule.when):
        if condition.key == "request.auth.principal" and condition.values:
            yield ("when", index, "values"), condition.values


def _issuers(policy: AuthorizationPolicy, path: FieldPath, rule: Rule, chosen: Resources) -> Iterator[Problem]:
    rules = [one for resource in chosen.request_authentications for one in resource.jwt_rules]
    issuers = {one.issuer for one in rules}
    for place, values in _request_principals(rule):
        if not rules:
            reason = "no RequestAuthentication applies: no request ever has a request principal"
            yield _warning(policy, (*path, *place), "no-authentication", reason)
            continue
        for index, value in enumerate(values):
            issuer, slash, subject = value.rpartition("/")
            if not slash or issuer.startswith("*") or "" in issuers or issuer in issuers:
                continue
            known = next((one for one in issuers if value.startswith(f"{one}/")), None)
            where = (*path, *place, index)
            if known is not None:
                reason = (
                    f"split at the last slash this is issuer {issuer!r}, subject {subject!r}: a subject with a slash "
                )
                yield _warning(
                    policy, where, "never-matches", reason + f"can only be matched as a suffix, {'*/' + subject!r}"
                )
            elif not issuer.endswith(("http:/", "https:/")):
                reason = (
                    f"no RequestAuthentication accepts the issuer {issuer!r}; accepted are {', '.join(sorted(issuers))}"
                )
                yield _warning(policy, where, "unknown-issuer", reason)


def _requirements(chosen: Resources) -> Iterator[Problem]:
    """RequestAuthentications that refuse bad tokens only, as no policy demands one: the commonest mistake of all."""
    if any(_demands_a_token(policy) for policy in chosen.authorization_policies if not policy.dry_run):
        return
    for authentication in chosen.request_authentications:
        if authentication.jwt_rules:
            reason = (
                "requests without a token pass: this refuses bad tokens only. To demand one, add a DENY policy with "
                'notRequestPrincipals ["*"], or an ALLOW policy with requestPrincipals'
            )
            yield _warning(authentication, ("spec", "jwtRules"), "token-not-required", reason)


def _demands_a_token(policy: AuthorizationPolicy) -> bool:
    for rule in policy.rules:
        about_tokens = any(
            source.not_request_principals if policy.action is Action.DENY else source.request_principals
            for source in rule.sources
        ) or any(condition.key.startswith("request.auth.") for condition in rule.when)
        if about_tokens and policy.action in (Action.ALLOW, Action.DENY):
            return True
    return False
