"""One Kubernetes document -> one typed resource: the shapes of the CRDs, and which kinds are read at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from extauthz.istio.fields import Fields
from extauthz.istio.resources import (
    Action,
    AnyResource,
    AuthorizationPolicy,
    ClaimToHeader,
    ClientTls,
    Condition,
    DestinationRule,
    Gateway,
    JwtHeader,
    JwtRule,
    Metadata,
    Operation,
    Origin,
    PortTls,
    RequestAuthentication,
    Resolution,
    Rule,
    Service,
    ServiceEntry,
    ServicePort,
    Source,
    TargetRef,
    TlsMode,
    WorkloadEntry,
)

DEFAULT_NAMESPACE = "default"
DRY_RUN = "istio.io/dry-run"
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""How Go reads a boolean (strconv.ParseBool)."""

_SOURCE = (
    "principals", "requestPrincipals", "namespaces", "ipBlocks", "remoteIpBlocks", "serviceAccounts", "trustDomains",
)  # fmt: skip
_OPERATION = ("hosts", "ports", "methods", "paths")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class _Kind:
    groups: frozenset[str]
    read: Callable[[Fields, Origin], AnyResource]


def reader(api_version: str, kind: str) -> Callable[[Fields, Origin], AnyResource] | None:
    """What reads documents of a kind; None for kinds that do not concern us."""
    found = _KINDS.get(kind)
    group = api_version.partition("/")[0] if "/" in api_version else ""
    return found.read if found is not None and group in found.groups else None


def near_miss(api_version: str, kind: str) -> str:
    """What is wrong with a document that looks like one of ours: a kind in another spelling or group. Empty if none."""
    by_spelling = {name.lower(): name for name in _POLICY_KINDS}
    meant = by_spelling.get(kind.lower().rstrip("s"))
    group = api_version.partition("/")[0]
    if meant is not None and meant != kind and (not group or group in _KINDS[meant].groups):
        return f"unknown kind {kind!r}; did you mean {meant}?"
    if kind in _POLICY_KINDS and reader(api_version, kind) is None:
        groups = " or ".join(f"{name}/v1" for name in sorted(_KINDS[kind].groups))
        return f"apiVersion {api_version!r} does not go with kind {kind}; write {groups}"
    return ""


# --- what every resource has ---


def _metadata(fields: Fields) -> Metadata:
    metadata = fields.mapping("metadata")
    name = metadata.text("name")
    if not name:
        metadata.report(("name",), metadata.line, "a resource needs a name", "no-name")
    return Metadata(
        name=name,
        namespace=metadata.text("namespace") or DEFAULT_NAMESPACE,
        labels=metadata.text_map("labels"),
        annotations=metadata.text_map("annotations"),
        creation_timestamp=metadata.text("creationTimestamp"),
    )


def _selector(spec: Fields, name: str = "selector", labels: str = "matchLabels") -> Mapping[str, str] | None:
    if not spec.has(name):
        return None
    selector = spec.mapping(name)
    found = selector.text_map(labels)
    selector.done()
    return found


def _target_ref(fields: Fields) -> TargetRef:
    reference = TargetRef(
        group=fields.text("group"),
        kind=fields.text("kind"),
        name=fields.text("name"),
        namespace=fields.text("namespace"),
    )
    fields.done()
    return reference


def _policy(fields: Fields, origin: Origin) -> tuple[dict[str, Any], Fields]:
    """The members that both security kinds share, and the spec. `status` and server-set fields do not matter."""
    spec = fields.mapping("spec")
    references = [_target_ref(spec.mapping("targetRef"))] if spec.has("targetRef") else []
    references += [_target_ref(entry) for entry in spec.mappings("targetRefs")]
    if spec.has("targetRef") and spec.has("targetRefs"):
        spec.report(("targetRefs",), spec.line, "give targetRef or targetRefs, not both", "target-ref")
    common = {
        "metadata": _metadata(fields),
        "selector": _selector(spec),
        "target_refs": tuple(references),
        "origin": origin,
    }
    _envelope(fields)
    return common, spec


def _envelope(fields: Fields) -> None:
    fields.ignore("apiVersion", "kind", "metadata", "status", "spec")
    fields.done()


def _choice(fields: Fields, name: str, values: type[E], default: E) -> E:
    text = fields.text(name)
    if not text:
        return default
    try:
        return values(text)
    except ValueError:
        known = ", ".join(values)
        fields.report((name,), fields.take(name)[1], f"unknown value {text!r}; one of {known}", "unknown-value")
        return default


# --- security.istio.io ---


def _request_authentication(fields: Fields, origin: Origin) -> RequestAuthentication:
    common, spec = _policy(fields, origin)
    rules = tuple(_jwt_rule(rule) for rule in spec.mappings("jwtRules"))
    spec.done()
    return RequestAuthentication(**common, jwt_rules=rules)


def _jwt_rule(fields: Fields) -> JwtRule:
    headers = []
    for entry in fields.mappings("fromHeaders"):
        headers.append(JwtHeader(name=entry.text("name"), prefix=entry.text("prefix")))
        entry.done()
    outputs = []
    for entry in fields.mappings("outputClaimToHeaders"):
        outputs.append(ClaimToHeader(header=entry.text("header"), claim=entry.text("claim")))
        entry.done()
    rule = JwtRule(
        issuer=fields.text("issuer"),
        audiences=fields.texts("audiences"),
        jwks_uri=fields.text("jwksUri") or fields.text("jwks_uri"),
        jwks=fields.text("jwks"),
        from_headers=tuple(headers),
        from_params=fields.texts("fromParams"),
        from_cookies=fields.texts("fromCookies"),
        output_payload_to_header=fields.text("outputPayloadToHeader"),
        output_claim_to_headers=tuple(outputs),
        forward_original_token=fields.flag("forwardOriginalToken") or False,
        timeout=_duration(fields, "timeout"),
        space_delimited_claims=fields.texts("spaceDelimitedClaims"),
    )
    fields.ignore("jwks_uri", "presence")
    fields.done()
    return rule


def _duration(fields: Fields, name: str) -> float | None:
    """Seconds of a Go duration (`5s`, `1m30s`, `500ms`)."""
    text = fields.text(name)
    if not text:
        return None
    negative, unsigned = text.startswith("-"), text.lstrip("+-")
    parts = _DURATION.findall(unsigned)
    if "".join(number + unit for number, unit in parts) != unsigned or not parts:
        line = fields.take(name)[1]
        fields.report((name,), line, f"{text!r} is no duration; write a number and a unit, like 5s", "duration")
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return -seconds if negative else seconds


def _authorization_policy(fields: Fields, origin: Origin) -> AuthorizationPolicy:
    common, spec = _policy(fields, origin)
    action = _choice(spec, "action", Action, Action.ALLOW)
    rules = tuple(_rule(rule) for rule in spec.mappings("rules"))
    provider = ""
    if spec.has("provider"):
        entry = spec.mapping("provider")
        provider = entry.text("name")
        entry.done()
        if action is not Action.CUSTOM:
            spec.report(("provider",), entry.line, f"only a CUSTOM policy has a provider, this is {action}", "provider")
    spec.done()
    dry_run = BOOLEANS.get(common["metadata"].annotations.get(DRY_RUN, "false"), False)
    return AuthorizationPolicy(**common, action=action, rules=rules, provider=provider, dry_run=dry_run)


def _rule(fields: Fields) -> Rule:
    sources = tuple(Source(**_wrapped(entry, "source", _SOURCE)) for entry in fields.mappings("from"))
    operations = tuple(Operation(**_wrapped(entry, "operation", _OPERATION)) for entry in fields.mappings("to"))
    conditions = []
    for entry in fields.mappings("when"):
        conditions.append(
            Condition(key=entry.text("key"), values=entry.texts("values"), not_values=entry.texts("notValues"))
        )
        entry.done()
    fields.done()
    return Rule(sources=sources, operations=operations, when=tuple(conditions))


def _wrapped(entry: Fields, wrapper: str, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The lists of a `source` or `operation`, by their names in snake case, with their `not` forms."""
    if not entry.has(wrapper):
        entry.report((wrapper,), entry.line, f"give a {wrapper} with at least one field", "empty-entry")
        entry.done()
        return {}
    inner = entry.mapping(wrapper)
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        snake = _snake(name)
        found[snake] = inner.texts(name)
        found[f"not_{snake}"] = inner.texts(f"not{name[0].upper()}{name[1:]}")
    if not any(found.values()) and not any(name not in inner.known for name in inner.members):
        entry.report((wrapper,), inner.line, f"give the {wrapper} at least one field", "empty-entry")
    inner.done()
    entry.done()
    return found


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda letter: f"_{letter[1].lower()}", name)


# --- networking.istio.io ---


def _service_entry(fields: Fields, origin: Origin) -> ServiceEntry:
    spec = fields.mapping("spec")
    entry = ServiceEntry(
        metadata=_metadata(fields),
        selector=_selector(spec, "workloadSelector", "labels"),
        origin=origin,
        hosts=spec.texts("hosts"),
        addresses=spec.texts("addresses"),
        ports=tuple(_port(port) for port in spec.mappings("ports")),
        location=spec.text("location"),
        resolution=_choice(spec, "resolution", Resolution, Resolution.NONE),
        endpoints=tuple(_endpoint(endpoint) for endpoint in spec.mappings("endpoints")),
        export_to=spec.texts("exportTo"),
        subject_alt_names=spec.texts("subjectAltNames"),
    )
    spec.done()
    _envelope(fields)
    return entry


def _port(fields: Fields) -> ServicePort:
    port = ServicePort(
        number=fields.integer("number"),
        protocol=fields.text("protocol"),
        name=fields.text("name"),
        target_port=fields.integer("targetPort"),
    )
    fields.done()
    return port


def _endpoint(fields: Fields) -> WorkloadEntry:
    endpoint = WorkloadEntry(
        address=fields.text("address"),
        ports=fields.integer_map("ports"),
        labels=fields.text_map("labels"),
        network=fields.text("network"),
        locality=fields.text("locality"),
        weight=fields.integer("weight"),
        service_account=fields.text("serviceAccount"),
    )
    fields.done()
    return endpoint


def _destination_rule(fields: Fields, origin: Origin) -> DestinationRule:
    spec = fields.mapping("spec")
    policy = spec.mapping("trafficPolicy")
    ports = []
    for entry in policy.mappings("portLevelSettings"):
        port = entry.mapping("port")
        ports.append(PortTls(port=port.integer("number"), tls=_client_tls(entry)))
        port.done()
        entry.ignore(*_TRAFFIC)
        entry.done()
    rule = DestinationRule(
        metadata=_metadata(fields),
        origin=origin,
        host=spec.text("host"),
        export_to=spec.texts("exportTo"),
        tls=_client_tls(policy),
        port_tls=tuple(ports),
    )
    policy.ignore(*_TRAFFIC)
    policy.done()
    spec.ignore("subsets", "workloadSelector")
    spec.done()
    _envelope(fields)
    return rule


_TRAFFIC = ("loadBalancer", "connectionPool", "outlierDetection", "tunnel", "proxyProtocol", "retryBudget")


def _client_tls(fields: Fields) -> ClientTls | None:
    if not fields.has("tls"):
        return None
    tls = fields.mapping("tls")
    found = ClientTls(
        mode=_choice(tls, "mode", TlsMode, TlsMode.DISABLE),
        client_certificate=tls.text("clientCertificate"),
        private_key=tls.text("privateKey"),
        ca_certificates=tls.text("caCertificates"),
        ca_crl=tls.text("caCrl"),
        credential_name=tls.text("credentialName"),
        subject_alt_names=tls.texts("subjectAltNames"),
        sni=tls.text("sni"),
        insecure_skip_verify=tls.flag("insecureSkipVerify"),
    )
    tls.done()
    return found


# --- what a workload may stand for; other fields of these do not concern us ---


def _gateway(fields: Fields, origin: Origin) -> Gateway:
    spec = fields.mapping("spec")
    return Gateway(metadata=_metadata(fields), origin=origin, gateway_class=spec.text("gatewayClassName"))


def _service(fields: Fields, origin: Origin) -> Service:
    ports = tuple(
        ServicePort(number=port.integer("port"), protocol=port.text("protocol"), name=port.text("name"))
        for port in fields.mapping("spec").mappings("ports")
    )
    return Service(metadata=_metadata(fields), origin=origin, ports=ports)


_SECURITY = frozenset(("security.istio.io",))
_NETWORKING = frozenset(("networking.istio.io",))
_POLICY_KINDS = ("RequestAuthentication", "AuthorizationPolicy", "ServiceEntry", "DestinationRule")
_KINDS = {
    "RequestAuthentication": _Kind(_SECURITY, _request_authentication),
    "AuthorizationPolicy": _Kind(_SECURITY, _authorization_policy),
    "ServiceEntry": _Kind(_NETWORKING, _service_entry),
    "DestinationRule": _Kind(_NETWORKING, _destination_rule),
    "Gateway": _Kind(frozenset(("gateway.networking.k8s.io",)), _gateway),
    "Service": _Kind(frozenset(("",)), _service),
}
