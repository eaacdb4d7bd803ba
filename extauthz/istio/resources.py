"""Istio resources as typed, immutable data: the fields of the CRDs that this service enforces or follows, no behaviour.

Names are the CRDs' in snake case. Absent lists are empty and absent strings blank, so that consumers need no None
checks; where absence means something (`selector`, `timeout`), None says so. Reading YAML is `load`, istiod's checks are
`validate`, which resources apply to whom is `workload`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, StrictBool, StrictInt, StrictStr
from pydantic.alias_generators import to_camel


class Origin(Protocol):
    """Where a resource was written: turns a field's path into a line of a file."""

    @property
    def file(self) -> str: ...

    def line(self, path: tuple[str | int, ...] = ()) -> int:
        """The line (from 1; 0 unknown) of the field at `path`: CRD names and indices from the resource's root."""
        ...


@dataclass(frozen=True, slots=True)
class Nowhere:
    """The origin of a resource that was built in code."""

    file: str = "<memory>"

    def line(self, path: tuple[str | int, ...] = ()) -> int:
        return 0


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


Text = Annotated[StrictStr, BeforeValidator(lambda value: "" if value is None else value)]
Flag = Annotated[StrictBool, BeforeValidator(lambda value: False if value is None else value)]
Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(lambda value: () if value is None else value)]


class Metadata(_Model):
    """The part of a Kubernetes object's metadata that matters here; server-set fields are read and dropped."""

    model_config = ConfigDict(extra="ignore")

    name: Text = ""
    namespace: Text = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: Text = ""


class TargetRef(_Model):
    """`targetRef(s)`: a policy attached to a Gateway, Service, ServiceEntry or GatewayClass of its namespace."""

    group: Text = ""
    kind: Text = ""
    name: Text = ""
    namespace: Text = ""


class Resource(_Model):
    """What every kind has. `selector` is None when absent; an empty dict when present without labels."""

    metadata: Metadata = Metadata()
    selector: dict[str, str] | None = None
    target_refs: tuple[TargetRef, ...] = ()

    _origin: Origin = PrivateAttr(default_factory=Nowhere)

    @property
    def origin(self) -> Origin:
        """Where it was written."""
        return self._origin


# --- RequestAuthentication (security.istio.io) ---


class JwtHeader(_Model):
    """`fromHeaders`: a header that may carry a token, and the text that precedes it."""

    name: Text = ""
    prefix: Text = ""


class ClaimToHeader(_Model):
    """`outputClaimToHeaders`: a claim (dots descend) that is copied to a request header."""

    header: Text = ""
    claim: Text = ""


class JwtRule(_Model):
    """`jwtRules[]`: one issuer, its keys, where its tokens are, what becomes of a good one. `timeout` in seconds."""

    issuer: Text = ""
    audiences: Texts = ()
    jwks_uri: Text = ""
    jwks: Text = ""
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: Texts = ()
    from_cookies: Texts = ()
    output_payload_to_header: Text = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    forward_original_token: Flag = False
    timeout: float | None = None
    space_delimited_claims: Texts = ()


class RequestAuthentication(Resource):
    jwt_rules: tuple[JwtRule, ...] = ()


# --- AuthorizationPolicy (security.istio.io) ---


class Action(StrEnum):
    """What a matching rule does."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


class Source(_Model):
    """`from[].source`: all fields that are given must hold."""

    principals: Texts = ()
    not_principals: Texts = ()
    request_principals: Texts = ()
    not_request_principals: Texts = ()
    namespaces: Texts = ()
    not_namespaces: Texts = ()
    ip_blocks: Texts = ()
    not_ip_blocks: Texts = ()
    remote_ip_blocks: Texts = ()
    not_remote_ip_blocks: Texts = ()
    service_accounts: Texts = ()
    not_service_accounts: Texts = ()
    trust_domains: Texts = ()
    not_trust_domains: Texts = ()


class Operation(_Model):
    """`to[].operation`: all fields that are given must hold."""

    hosts: Texts = ()
    not_hosts: Texts = ()
    ports: Texts = ()
    not_ports: Texts = ()
    methods: Texts = ()
    not_methods: Texts = ()
    paths: Texts = ()
    not_paths: Texts = ()


class Condition(_Model):
    """`when[]`: an attribute and the values that it must, or must not, have."""

    key: Text = ""
    values: Texts = ()
    not_values: Texts = ()


class Rule(_Model):
    """One rule: any of `sources` (or none given), any of `operations` (or none given), all of `when`.

    The CRD's `from[].source` and `to[].operation` wrappers are unwrapped: `sources[i]` stands at `from[i].source`.
    """

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    when: tuple[Condition, ...] = ()


class AuthorizationPolicy(Resource):
    """`dry_run` is the annotation `istio.io/dry-run`; `provider` is `provider.name` of a CUSTOM policy."""

    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    provider: Text = ""
    dry_run: bool = False


# --- ServiceEntry, DestinationRule (networking.istio.io) ---


class Resolution(StrEnum):
    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


class ServicePort(_Model):
    number: StrictInt
    protocol: Text = ""
    name: Text = ""
    target_port: StrictInt = 0


class WorkloadEntry(_Model):
    """An endpoint of a ServiceEntry: an address or host name, port numbers by port name, and a weight."""

    address: Text = ""
    ports: dict[str, StrictInt] = {}
    labels: dict[str, str] = {}
    network: Text = ""
    locality: Text = ""
    weight: StrictInt = 0
    service_account: Text = ""


class ServiceEntry(Resource):
    hosts: Texts = ()
    addresses: Texts = ()
    ports: tuple[ServicePort, ...] = ()
    location: Text = ""
    resolution: Resolution = Resolution.NONE
    endpoints: tuple[WorkloadEntry, ...] = ()
    export_to: Texts = ()
    subject_alt_names: Texts = ()


class TlsMode(StrEnum):
    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class ClientTls(_Model):
    """`trafficPolicy.tls`: how a client originates TLS."""

    mode: TlsMode = TlsMode.DISABLE
    client_certificate: Text = ""
    private_key: Text = ""
    ca_certificates: Text = ""
    ca_crl: Text = ""
    credential_name: Text = ""
    subject_alt_names: Texts = ()
    sni: Text = ""
    insecure_skip_verify: StrictBool | None = None


class PortTls(_Model):
    """One of `portLevelSettings`; settings other than TLS do not concern a key set fetch."""

    model_config = ConfigDict(extra="ignore")

    port: StrictInt = 0
    tls: ClientTls | None = None


class DestinationRule(Resource):
    """`tls` is `trafficPolicy.tls`, `port_tls` is `trafficPolicy.portLevelSettings`."""

    host: Text = ""
    export_to: Texts = ()
    tls: ClientTls | None = None
    port_tls: tuple[PortTls, ...] = ()


# --- What a workload may stand for, to resolve targetRefs ---


class Gateway(Resource):
    """A Gateway API Gateway; only its name, namespace and class matter."""

    gateway_class: Text = ""


class Service(Resource):
    """A Kubernetes Service; only its name and namespace matter."""


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
