"""What a key set fetch follows (networking.istio.io), and what a workload may stand for, from YAML fields."""

from __future__ import annotations

from extauthz.istio.crd_parts import choice, envelope, metadata, selector
from extauthz.istio.fields import Fields
from extauthz.istio.resources import (
    ClientTls,
    DestinationRule,
    Gateway,
    Origin,
    PortTls,
    Resolution,
    Service,
    ServiceEntry,
    ServicePort,
    TlsMode,
    WorkloadEntry,
)

_OTHER_TRAFFIC_SETTINGS = (
    "loadBalancer", "connectionPool", "outlierDetection", "tunnel", "proxyProtocol", "retryBudget",
)  # fmt: skip


def service_entry(fields: Fields, origin: Origin) -> ServiceEntry:
    """The resource that a mapping is; what is wrong with it is reported to `fields`."""
    spec = fields.mapping("spec")
    entry = ServiceEntry(
        metadata=metadata(fields),
        selector=selector(spec, "workloadSelector", "labels"),
        origin=origin,
        hosts=spec.texts("hosts"),
        addresses=spec.texts("addresses"),
        ports=tuple([_port(port) for port in spec.mappings("ports")]),
        location=spec.text("location"),
        resolution=choice(spec, "resolution", Resolution, Resolution.NONE),
        endpoints=tuple([_endpoint(endpoint) for endpoint in spec.mappings("endpoints")]),
        export_to=spec.texts("exportTo"),
        subject_alt_names=spec.texts("subjectAltNames"),
    )
    spec.done()
    envelope(fields)
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


def destination_rule(fields: Fields, origin: Origin) -> DestinationRule:
    """The resource that a mapping is; subsets and settings other than TLS do not concern a key set fetch."""
    spec = fields.mapping("spec")
    policy = spec.mapping("trafficPolicy")
    ports = []
    for entry in policy.mappings("portLevelSettings"):
        port = entry.mapping("port")
        ports.append(PortTls(port=port.integer("number"), tls=_client_tls(entry)))
        port.done()
        entry.ignore(*_OTHER_TRAFFIC_SETTINGS)
        entry.done()
    rule = DestinationRule(
        metadata=metadata(fields),
        selector=selector(spec, "workloadSelector"),
        origin=origin,
        host=spec.text("host"),
        export_to=spec.texts("exportTo"),
        tls=_client_tls(policy),
        port_tls=tuple(ports),
    )
    policy.ignore(*_OTHER_TRAFFIC_SETTINGS)
    policy.done()
    spec.ignore("subsets")
    spec.done()
    envelope(fields)
    return rule


def _client_tls(fields: Fields) -> ClientTls | None:
    if not fields.has("tls"):
        return None
    tls = fields.mapping("tls")
    found = ClientTls(
        mode=choice(tls, "mode", TlsMode, TlsMode.DISABLE),
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


def gateway(fields: Fields, origin: Origin) -> Gateway:
    """A Gateway API Gateway: its listeners do not matter here."""
    spec = fields.mapping("spec")
    return Gateway(metadata=metadata(fields), origin=origin, gateway_class=spec.text("gatewayClassName"))


def service(fields: Fields, origin: Origin) -> Service:
    """A Kubernetes Service: its ports and the labels of its pods. `protocol` is the port's `appProtocol`."""
    spec = fields.mapping("spec")
    ports = [
        ServicePort(number=port.integer("port"), protocol=port.text("appProtocol"), name=port.text("name"))
        for port in spec.mappings("ports")
    ]
    labels = spec.text_map("selector") if spec.has("selector") else None
    return Service(metadata=metadata(fields), selector=labels, origin=origin, ports=tuple(ports))
