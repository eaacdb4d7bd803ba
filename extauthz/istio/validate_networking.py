"""istiod's validation of ServiceEntries and DestinationRules, as far as a key set fetch follows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from extauthz.istio.checks import dns_name, ip_block, is_ip_address, port_number, shown
from extauthz.istio.resources import (
    ClientTls,
    DestinationRule,
    FieldPath,
    Resolution,
    ServiceEntry,
    TlsMode,
    WorkloadEntry,
)
from extauthz.istio.validate_authentication import Finding

_LOCATIONS = ("", "MESH_EXTERNAL", "MESH_INTERNAL")
_DNS = (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)
_PORT_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_PROTOCOLS = frozenset(
    (
        "", "http", "http_proxy", "https", "http2", "http3", "grpc", "grpc-web", "tcp", "tls", "udp", "mongo", "redis",
        "mysql", "hbone", "doublehbone",
    )
)  # fmt: skip
_UNIX = "unix://"


def service_entry(entry: ServiceEntry) -> Iterator[Finding]:
    """Everything that is wrong with a ServiceEntry."""
    for path, reason in (*_hosts(entry), *_addresses(entry), *_ports(entry), *_endpoints(entry)):
        yield ("spec", *path), "service-entry", reason


def _hosts(entry: ServiceEntry) -> Iterator[tuple[FieldPath, str]]:
    if not entry.hosts:
        yield ("hosts",), "name at least one host"
    for index, host in enumerate(entry.hosts):
        if host == "*":
            yield ("hosts", index), "`*` is not possible; write a domain, such as *.example.com"
        elif reason := dns_name(host, wildcard=True):
            yield ("hosts", index), reason
        elif entry.resolution is Resolution.DYNAMIC_DNS and not host.startswith("*"):
            yield ("hosts", index), "resolution DYNAMIC_DNS needs a wildcard host, such as *.example.com"
        elif entry.resolution in _DNS and not entry.endpoints and "*" in host:
            yield ("hosts", index), f"{shown(host)} cannot be looked up; give endpoints, or another resolution"
    if entry.location not in _LOCATIONS:
        yield ("location",), f"unknown value {shown(entry.location)}; one of {', '.join(_LOCATIONS[1:])}"


def _addresses(entry: ServiceEntry) -> Iterator[tuple[FieldPath, str]]:
    for index, address in enumerate(entry.addresses):
        if reason := ip_block(address):
            yield ("addresses", index), reason
        elif "/" in address and entry.resolution not in (Resolution.NONE, Resolution.STATIC):
            yield ("addresses", index), "a block is possible with resolution NONE and STATIC only"


def _ports(entry: ServiceEntry) -> Iterator[tuple[FieldPath, str]]:
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(entry.ports):
        path: FieldPath = ("ports", index)
        if reason := port_number(port.number):
            yield (*path, "number"), reason
        if port.target_port and (reason := port_number(port.target_port)):
            yield (*path, "targetPort"), reason
        if not _PORT_NAME.fullmatch(port.name):
            yield (*path, "name"), f"{shown(port.name)} is no port name: letters, digits and -, at most 63"
        if port.protocol.lower() not in _PROTOCOLS:
            yield (*path, "protocol"), f"unknown protocol {shown(port.protocol)}; write HTTP, HTTPS, TLS or TCP"
        if port.name in names or port.number in numbers:
            yield path, f"port {port.name} ({port.number}) is there already"
        names.add(port.name)
        numbers.add(port.number)


def _endpoints(entry: ServiceEntry) -> Iterator[tuple[FieldPath, str]]:
    if entry.endpoints and entry.selector is not None:
        yield ("workloadSelector",), "give a workloadSelector or endpoints, not both"
    if entry.endpoints and entry.resolution in (Resolution.NONE, Resolution.DYNAMIC_DNS):
        yield ("endpoints",), f"resolution {entry.resolution} has no endpoints; write STATIC or DNS"
    if len(entry.endpoints) > 1 and entry.resolution is Resolution.DNS_ROUND_ROBIN:
        yield ("endpoints",), "resolution DNS_ROUND_ROBIN has one endpoint; write DNS"
    names = {port.name for port in entry.ports}
    for index, endpoint in enumerate(entry.endpoints):
        path: FieldPath = ("endpoints", index)
        if reason := _address(endpoint, entry.resolution):
            yield (*path, "address"), reason
        for name, number in endpoint.ports.items():
            if reason := port_number(number):
                yield (*path, "ports", name), reason
            elif name not in names:
                known = f"its ports are {', '.join(sorted(names))}" if names else "it has none"
                yield (*path, "ports", name), f"the entry has no port of this name: {known}"


def _address(endpoint: WorkloadEntry, resolution: Resolution) -> str:
    address = endpoint.address
    if not address:
        return "" if endpoint.network else "an endpoint needs an address"
    if address.startswith(_UNIX):
        if resolution is not Resolution.STATIC or endpoint.ports:
            return "a Unix socket is possible with resolution STATIC and without ports"
        good = address[len(_UNIX) :].startswith(("/", "@")) and not address.endswith("/")
        return "" if good else f"{shown(address)}: write unix:///PATH or unix://@NAME"
    if is_ip_address(address):
        return ""
    if resolution is Resolution.STATIC:
        return f"{shown(address)} is no IP address, which resolution STATIC needs; write DNS for host names"
    return dns_name(address)


def destination_rule(rule: DestinationRule) -> Iterator[Finding]:
    """Everything that is wrong with the host and the TLS settings of a DestinationRule."""
    if reason := dns_name(rule.host, wildcard=True):
        yield ("spec", "host"), "destination-rule", reason
    policy: FieldPath = ("spec", "trafficPolicy")
    settings: list[tuple[FieldPath, ClientTls | None]] = [((*policy, "tls"), rule.tls)]
    for index, port in enumerate(rule.port_tls):
        path: FieldPath = (*policy, "portLevelSettings", index)
        if reason := port_number(port.port):
            yield (*path, "port", "number"), "destination-rule", reason
        settings.append(((*path, "tls"), port.tls))
    for path, tls in settings:
        if tls is not None:
            for place, reason in _tls(tls):
                yield (*path, *place), "destination-rule", reason


def _tls(tls: ClientTls) -> Iterator[tuple[FieldPath, str]]:
    if tls.mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL):
        return
    if tls.insecure_skip_verify:
        names = ("caCertificates", tls.ca_certificates), ("subjectAltNames", tls.subject_alt_names)
        for name, value in names:
            if value:
                yield (name,), "has no meaning when insecureSkipVerify is true; leave one of them out"
        if tls.credential_name and tls.mode is TlsMode.SIMPLE:
            yield ("credentialName",), "has no meaning when insecureSkipVerify is true; leave one of them out"
    files = (
        ("clientCertificate", tls.client_certificate),
        ("privateKey", tls.private_key),
        ("caCertificates", tls.ca_certificates),
        ("caCrl", tls.ca_crl),
    )
    if tls.credential_name:
        for name, value in files:
            if value:
                yield (name,), "give credentialName or files, not both"
    elif tls.mode is TlsMode.MUTUAL:
        for name, value in files[:2]:
            if not value:
                yield (name,), "mode MUTUAL needs it"
