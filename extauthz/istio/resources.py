"""Istio resources as typed, immutable data: the fields of the CRDs that this service enforces or follows, no behaviour.

Names are the CRDs' in snake case. Absent lists are empty and absent strings blank, so that consumers need no None
checks; where absence means something (`selector`, `timeout`), None says so. `crd` reads these from YAML, istiod's
checks are `validate`, which resources apply to whom is `workload`.

Plain dataclasses on purpose: models of a validation library would more than double the time that a sidecar takes from
exec to ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from extauthz.errors import Problem, Severity

FieldPath = tuple[str | int, ...]
"""A field inside a resource, from its root, in the CRD's names: `("spec", "rules", 0, "to", 0, "operation")`."""


def field_text(path: FieldPath) -> str:
    """A path as istiod prints it: `spec.rules[0].to[0].operation.paths[1]`."""
    text = ""
    for step in path:
        if isinstance(step, int) or "." in step or "/" in step or "[" in step:
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


class Origin(Protocol):
    """Where a resource was written: turns a field's path into a line of a file."""

    @property
    def file(self) -> str: ...

    def line(self, path: FieldPath = ()) -> int:
        """The line (from 1; 0 unknown) of the field at `path`, or of the nearest field around it that is there."""
        ...


@dataclass(frozen=True, slots=True)
class Nowhere:
    """The origin of a resource that was built in code."""

    file: str = "<memory>"

    def line(self, path: FieldPath = ()) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The part of a Kubernetes object's metadata that matters here; server-set fields are read and dropped."""

    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    creation_timestamp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRef:
    """`targetRef(s)`: a policy attached to a Gateway, Service, ServiceEntry or GatewayClass of its namespace."""

    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What every kind has. `selector` is None when absent; an empty dict when present without labels."""

    metadata: Metadata = field(default_factory=Metadata)
    selector: Mapping[str, str] | None = None
    target_refs: tuple[TargetRef, ...] = ()
    origin: Origin = field(default=Nowhere(), compare=False, repr=False)

    def problem(self, path: FieldPath, reason: str, *, code: str = "", severity: Severity = Severity.ERROR) -> Problem:
        """What is wrong with the field at `path`, with the file and line where it stands."""
        return Problem(self.origin.file, self.origin.line(path), field_text(path), reason, severity, code)


# --- RequestAuthentication (security.istio.io) ---


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtHeader:
    """`fromHeaders`: a header that may carry a token, and the text that precedes it."""

    name: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimToHeader:
    """`outputClaimToHeaders`: a claim (dots descend) that is copied to a request header."""

    header: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """`jwtRules[]`: one issuer, its keys, where its tokens are, what becomes of a good one. `timeout` in seconds."""

    issuer: str = ""
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    jwks: str = ""
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    forward_original_token: bool = False
    timeout: float | None = None
    space_delimited_claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication(Resource):
    """Which tokens are taken for a workload (security.istio.io RequestAuthentication)."""

    jwt_rules: tuple[JwtRule, ...] = ()


# --- AuthorizationPolicy (security.istio.io) ---


class Action(StrEnum):
    """What a matching rule does."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`from[].source`: all fields that are given must hold."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`to[].operation`: all fields that are given must hold."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`when[]`: an attribute and the values that it must, or must not, have."""

    key: str = ""
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: any of `sources` (or none given), any of `operations` (or none given), all of `when`.

    The CRD's `from[].source` and `to[].operation` wrappers are unwrapped: `sources[i]` stands at `from[i].source`.
    """

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy(Resource):
    """`dry_run` is the annotation `istio.io/dry-run`; `provider` is `provider.name` of a CUSTOM policy."""

    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    provider: str = ""
    dry_run: bool = False


# --- ServiceEntry, DestinationRule (networking.istio.io) ---


class Resolution(StrEnum):
    """How the endpoints of a ServiceEntry are found."""

    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a ServiceEntry or a Kubernetes Service. `target_port` is 0 when it is `number` (or a name)."""

    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadEntry:
    """An endpoint of a ServiceEntry: an address or host name, port numbers by port name, and a weight."""

    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    locality: str = ""
    weight: int = 0
    service_account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry(Resource):
    """`selector` is `workloadSelector.labels`."""

    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    location: str = ""
    resolution: Resolution = Resolution.NONE
    endpoints: tuple[WorkloadEntry, ...] = ()
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class TlsMode(StrEnum):
    """Whether and how a client originates TLS."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """`trafficPolicy.tls`: how a client originates TLS."""

    mode: TlsMode = TlsMode.DISABLE
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortTls:
    """One of `portLevelSettings`; settings other than TLS do not concern a key set fetch."""

    port: int = 0
    tls: ClientTls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRule(Resource):
    """`tls` is `trafficPolicy.tls`, `port_tls` is `trafficPolicy.portLevelSettings`."""

    host: str = ""
    export_to: tuple[str, ...] = ()
    tls: ClientTls | None = None
    port_tls: tuple[PortTls, ...] = ()


# --- What a workload may stand for, to resolve targetRefs ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway(Resource):
    """A Gateway API Gateway; only its name, namespace and class matter."""

    gateway_class: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Resource):
    """A Kubernetes Service: what a waypoint may stand for, and what says which ports clients use."""

    ports: tuple[ServicePort, ...] = ()


AnyResource = RequestAuthentication | AuthorizationPolicy | ServiceEntry | DestinationRule | Gateway | Service


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that was loaded, by kind, in the order read."""

    request_authentications: tuple[RequestAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    service_entries: tuple[ServiceEntry, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    services: tuple[Service, ...] = ()
