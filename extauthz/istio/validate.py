"""istiod's validation of resources, and what passes istiod and then breaks Envoy (Istio: `pkg/config/validation`).

Shapes are `fields` and `crd`'s affair; values that only the compiled form can judge (IP blocks, ports, path templates,
keys of conditions) are refused by `authz` when policies are compiled, and key sets by `authn`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from urllib.parse import urlsplit

from extauthz.errors import Problem
from extauthz.istio.crd import BOOLEANS, DRY_RUN
from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    ClientTls,
    Condition,
    DestinationRule,
    FieldPath,
    JwtRule,
    Operation,
    RequestAuthentication,
    Resolution,
    Resources,
    Rule,
    ServiceEntry,
    Source,
    TargetRef,
    TlsMode,
)

MAX_URI_CHARACTERS = 2048
MAX_SPACE_DELIMITED_CLAIMS = 64
MAX_TARGET_REFS = 16
MAX_SERVICE_ACCOUNTS = 16
MAX_SERVICE_ACCOUNT_CHARACTERS = 320
MAX_LABEL_VALUE = 63

Policy = RequestAuthentication | AuthorizationPolicy

_HEADER_NAME = re.compile(r"[-_A-Za-z0-9]+")
_TARGETS = {
    ("", "Service"),
    ("core", "Service"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("networking.istio.io", "ServiceEntry"),
}
_IDENTITY_FIELDS = ("namespaces", "service_accounts", "trust_domains", "principals", "request_principals")
_IDENTITY_KEYS = (
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.",
)


def validate(resources: Resources) -> Iterator[Problem]:
    """Every problem of the resources."""
    for authentication in resources.request_authentications:
        yield from _attachment(authentication)
        yield from _request_authentication(authentication)
    for policy in resources.authorization_policies:
        yield from _attachment(policy)
        yield from _authorization_policy(policy)
    for entry in resources.service_entries:
        yield from _service_entry(entry)
    for rule in resources.destination_rules:
        yield from _destination_rule(rule)


def camel(name: str) -> str:
    """A field's name as the CRD has it."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


# --- selector and targetRefs ---


def _attachment(policy: Policy) -> Iterator[Problem]:
    if policy.selector is not None and policy.target_refs:
        yield policy.problem(("spec", "selector"), "give a selector or targetRefs, not both", code="target-ref")
    for key, value in (policy.selector or {}).items():
        path = ("spec", "selector", "matchLabels", key)
        if not key:
            yield policy.problem(path, "a label's key must not be empty", code="selector")
        if "*" in key or "*" in value:
            yield policy.problem(path, "labels are compared as they are: `*` is not possible", code="selector")
        if len(value) > MAX_LABEL_VALUE:
            yield policy.problem(path, f"a label's value has at most {MAX_LABEL_VALUE} characters", code="selector")
    if len(policy.target_refs) > MAX_TARGET_REFS:
        yield policy.problem(("spec", "targetRefs"), f"at most {MAX_TARGET_REFS} are possible", code="target-ref")
    for index, reference in enumerate(policy.target_refs):
        for reason in _target_ref(reference):
            yield policy.problem(("spec", "targetRefs", index), reason, code="target-ref")


def _target_ref(reference: TargetRef) -> Iterator[str]:
    if not reference.name:
        yield "a target needs a name"
    if reference.namespace:
        yield "a target is in the policy's own namespace: leave namespace out"
    if (reference.group, reference.kind) not in _TARGETS:
        known = ", ".join(sorted({f"{group or 'core'}/{kind}" for group, kind in _TARGETS}))
        yield f"{reference.group or 'core'}/{reference.kind} cannot be a target; one of {known}"


# --- RequestAuthentication ---


def _request_authentication(policy: RequestAuthentication) -> Iterator[Problem]:
    if DRY_RUN in policy.metadata.annotations:
        annotation = ("metadata", "annotations", DRY_RUN)
        reason = "only an AuthorizationPolicy can be dry-run; remove the annotation"
        yield policy.problem(annotation, reason, code="dry-run")
    for index, rule in enumerate(policy.jwt_rules):
        for path, reason in (*_keys_of(rule), *_places_of(rule), *_outputs_of(rule)):
            yield policy.problem(("spec", "jwtRules", index, *path), reason, code="jwt-rule")


def _keys_of(rule: JwtRule) -> Iterator[tuple[FieldPath, str]]:
    if not rule.issuer and not rule.jwks_uri:
        yield ("issuer",), "give an issuer; only a rule with a jwksUri can do without"
    if rule.jwks and rule.jwks_uri:
        yield ("jwksUri",), "give jwks or jwksUri, not both"
    if rule.jwks_uri:
        reason = _uri_problem(rule.jwks_uri)
        if reason:
            yield ("jwksUri",), reason
    elif rule.issuer and not rule.jwks and urlsplit(rule.issuer).scheme not in ("http", "https"):
        yield ("issuer",), "no keys can be had: give jwks or jwksUri, as OpenID discovery needs an http or https issuer"
    if rule.timeout is not None and (rule.timeout < 0.001 or round(rule.timeout * 1000, 6) % 1):
        yield ("timeout",), f"{rule.timeout:g} s: it must be at least 1ms, in whole milliseconds"


def _uri_problem(uri: str) -> str:
    if len(uri) > MAX_URI_CHARACTERS:
        return f"a URI has at most {MAX_URI_CHARACTERS} characters"
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        return f"{uri!r} is no URL: {error}"
    if parts.scheme not in ("http", "https"):
        return f"scheme {parts.scheme!r} is not possible: write http:// or https://"
    if not parts.hostname or port == 0:
        return f"{uri!r} has no usable host and port"
    return ""


def _places_of(rule: JwtRule) -> Iterator[tuple[FieldPath, str]]:
    for index, header in enumerate(rule.from_headers):
        if not header.name:
            yield ("fromHeaders", index, "name"), "a header needs a name"
    for name, values in (
        ("audiences", rule.audiences),
        ("fromParams", rule.from_params),
        ("fromCookies", rule.from_cookies),
        ("spaceDelimitedClaims", rule.space_delimited_claims),
    ):
        for index, value in enumerate(values):
            if not value:
                yield (name, index), "must not be empty; remove the entry"
    if len(rule.space_delimited_claims) > MAX_SPACE_DELIMITED_CLAIMS:
        yield ("spaceDelimitedClaims",), f"at most {MAX_SPACE_DELIMITED_CLAIMS} are possible"


def _outputs_of(rule: JwtRule) -> Iterator[tuple[FieldPath, str]]:
    for index, output in enumerate(rule.output_claim_to_headers):
        if not _HEADER_NAME.fullmatch(output.header):
            text = f"{output.header!r} cannot be a header here: only letters, digits, - and _ are possible"
            yield ("outputClaimToHeaders", index, "header"), text
        if not output.claim:
            yield ("outputClaimToHeaders", index, "claim"), "name a claim"
    payload = rule.output_payload_to_header
    # istiod lets any text pass; Envoy then refuses the whole filter.
    if payload and re.search(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]", payload):
        yield ("outputPayloadToHeader",), f"{payload!r} is no header name"


# --- AuthorizationPolicy ---


def _authorization_policy(policy: AuthorizationPolicy) -> Iterator[Problem]:
    dry_run = policy.metadata.annotations.get(DRY_RUN)
    path = ("metadata", "annotations", DRY_RUN)
    if dry_run is not None and dry_run not in BOOLEANS:
        yield policy.problem(path, f"{dry_run!r} is neither true nor false", code="dry-run")
    if policy.dry_run and policy.action not in (Action.ALLOW, Action.DENY):
        yield policy.problem(
            path, f"only ALLOW and DENY policies can be dry-run, this is {policy.action}", code="dry-run"
        )
    if policy.action in (Action.DENY, Action.CUSTOM) and not policy.rules:
        reason = f"a {policy.action} policy without rules matches nothing; add rules, `- {{}}` for every request"
        yield policy.problem(("spec", "rules"), reason, code="no-rules")
    if policy.action is Action.CUSTOM and not policy.provider:
        yield policy.problem(("spec", "provider"), "a CUSTOM policy needs provider.name", code="provider")
    for index, rule in enumerate(policy.rules):
        for place, reason in (*_empty_values(rule), *_accounts(rule), *_conditions(rule)):
            yield policy.problem(("spec", "rules", index, *place), reason, code="rule")
        if policy.action is Action.CUSTOM:
            for place in _identity_of(rule):
                reason = "a CUSTOM policy is asked before authentication and cannot look at identities"
                yield policy.problem(("spec", "rules", index, *place), reason, code="custom")


def _lists(rule: Rule) -> Iterator[tuple[FieldPath, str, tuple[str, ...]]]:
    """Every list of a rule's sources and operations: its path, its name here, its values."""
    parts: Iterable[tuple[FieldPath, Source | Operation]] = (
        *((("from", index, "source"), source) for index, source in enumerate(rule.sources)),
        *((("to", index, "operation"), operation) for index, operation in enumerate(rule.operations)),
    )
    for path, part in parts:
        for one in fields(part):
            values = getattr(part, one.name)
            if values:
                yield (*path, camel(one.name)), one.name, values


def _empty_values(rule: Rule) -> Iterator[tuple[FieldPath, str]]:
    for path, _, values in _lists(rule):
        for index, value in enumerate(values):
            if not value:
                yield (*path, index), "must not be empty; remove the entry"


def _accounts(rule: Rule) -> Iterator[tuple[FieldPath, str]]:
    for index, source in enumerate(rule.sources):
        accounts = bool(source.service_accounts or source.not_service_accounts)
        others = source.principals or source.not_principals or source.namespaces or source.not_namespaces
        if accounts and others:
            yield ("from", index, "source"), "serviceAccounts cannot stand beside principals or namespaces"
    for path, name, values in _lists(rule):
        if not name.endswith("service_accounts"):
            continue
        if len(values) > MAX_SERVICE_ACCOUNTS:
            yield path, f"at most {MAX_SERVICE_ACCOUNTS} are possible"
        for index, value in enumerate(values):
            if len(value) > MAX_SERVICE_ACCOUNT_CHARACTERS or "*" in value or value.count("/") > 1:
                yield (*path, index), f"{value!r}: write ACCOUNT or NAMESPACE/ACCOUNT, without `*`"


def _conditions(rule: Rule) -> Iterator[tuple[FieldPath, str]]:
    for index, condition in enumerate(rule.when):
        if not condition.key:
            yield ("when", index, "key"), "name a key"
        if not condition.values and not condition.not_values:
            yield ("when", index), "give values or notValues"
        if any(not name for name in _nested_names(condition)):
            yield ("when", index, "key"), f"{condition.key!r} has an empty name in brackets"
        for name, values in (("values", condition.values), ("notValues", condition.not_values)):
            for place, value in enumerate(values):
                if not value:
                    yield ("when", index, name, place), "must not be empty; remove the entry"


def _nested_names(condition: Condition) -> list[str]:
    if not condition.key.startswith(("request.auth.claims[", "request.headers[")):
        return []
    return re.findall(r"\[([^\[\]]*)\]", condition.key)


def _identity_of(rule: Rule) -> Iterator[FieldPath]:
    for path, name, _ in _lists(rule):
        if name.removeprefix("not_") in _IDENTITY_FIELDS:
            yield path
    for index, condition in enumerate(rule.when):
        if condition.key.startswith(_IDENTITY_KEYS):
            yield ("when", index, "key")


# --- ServiceEntry, DestinationRule: what a key set fetch follows ---


def _service_entry(entry: ServiceEntry) -> Iterator[Problem]:
    if not entry.hosts or not all(entry.hosts):
        yield entry.problem(("spec", "hosts"), "name at least one host", code="service-entry")
    for index, port in enumerate(entry.ports):
        for name, number in (("number", port.number), ("targetPort", port.target_port)):
            if not (0 if name == "targetPort" else 1) <= number <= 65535:
                reason = f"{number} is no port: 1 to 65535"
                yield entry.problem(("spec", "ports", index, name), reason, code="service-entry")
    names = {port.name for port in entry.ports}
    for index, endpoint in enumerate(entry.endpoints):
        path = ("spec", "endpoints", index)
        if not endpoint.address:
            yield entry.problem((*path, "address"), "an endpoint needs an address", code="service-entry")
        if entry.resolution is Resolution.NONE:
            yield entry.problem(path, "resolution NONE has no endpoints; write STATIC or DNS", code="service-entry")
        for name, number in endpoint.ports.items():
            if name not in names or not 1 <= number <= 65535:
                reason = f"{name}: {number} is not one of the entry's ports by name, with a number of 1 to 65535"
                yield entry.problem((*path, "ports", name), reason, code="service-entry")


def _destination_rule(rule: DestinationRule) -> Iterator[Problem]:
    if not rule.host:
        yield rule.problem(("spec", "host"), "name a host", code="destination-rule")
    settings: list[tuple[FieldPath, ClientTls | None]] = [(("spec", "trafficPolicy", "tls"), rule.tls)]
    settings += [
        (("spec", "trafficPolicy", "portLevelSettings", index, "tls"), port.tls)
        for index, port in enumerate(rule.port_tls)
    ]
    for path, tls in settings:
        if tls is None or tls.mode is not TlsMode.MUTUAL or tls.credential_name:
            continue
        for name, value in (("clientCertificate", tls.client_certificate), ("privateKey", tls.private_key)):
            if not value:
                yield rule.problem((*path, name), "mode MUTUAL needs it", code="destination-rule")
