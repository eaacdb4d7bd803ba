"""How a URL is reached: ServiceEntry and DestinationRule as a sidecar would follow them for our fetch.

Which resources a client in a namespace sees, which of them covers a host and port, the endpoints to connect to and the
TLS to speak. Nothing here resolves a name or opens a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from extauthz.authn.fetch.names import cluster_names, how_specific, ip_address, ip_network, is_local, service_namespace
from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.fetch.tls import SYSTEM_CERTIFICATES, Tls
from extauthz.authn.fetch.url import Url
from extauthz.istio.resources import (
    ClientTls,
    DestinationRule,
    Resolution,
    Resource,
    Resources,
    ServiceEntry,
    ServicePort,
    TlsMode,
)

UNIX_SOCKET = "unix://"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place to connect to: the first of `names` (or addresses) that resolves, or a Unix socket's path."""

    names: tuple[str, ...]
    port: int
    weight: int = 1
    socket: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """How one URL is reached: over `tls` (None: plain text) to one of `endpoints`.

    `refusal` says why it is not reached at all, blank where it is. `via` names what decided, for people, and `hint`
    says why only these names are looked up. `proxied` says that `--jwks-proxy` applies where it is given.
    """

    endpoints: tuple[Endpoint, ...] = ()
    tls: Tls | None = None
    refusal: str = ""
    proxied: bool = False
    via: tuple[str, ...] = field(default=(), compare=False)
    hint: str = field(default="", compare=False)


class Routes:
    """The ServiceEntries and DestinationRules of one load."""

    def __init__(self, resources: Resources, options: FetchOptions) -> None:
        self._service_entries = sorted(resources.service_entries, key=_age)
        # A rule with a workloadSelector is for those workloads, and this service is none of them.
        rules = [rule for rule in resources.destination_rules if not rule.selector]
        self._destination_rules = sorted(rules, key=_age)
        self._options = options

    def scope(self, namespace: str) -> str:
        """`namespace` where it has resources of its own that could change a route, blank where it sees what all see.

        Two namespaces of one scope are reached alike by every URL, so that their rules can share a fetch.
        """
        resources: Iterable[ServiceEntry | DestinationRule] = (*self._service_entries, *self._destination_rules)
        own = (r for r in resources if _namespace(r) == namespace or namespace in r.export_to)
        return namespace if any(own) else ""

    def route(self, url: Url, namespace: str) -> Route:
        """How a client in `namespace` reaches `url`."""
        in_cluster = cluster_names(url.host, namespace, self._options.cluster_domain)
        # As a pod's resolver would: the cluster's own names first.
        names = tuple(dict.fromkeys((*in_cluster, url.host)))
        entry, port = self._service_entry(url, names, namespace)
        rule = self._destination_rule(names, entry, namespace)
        via = tuple(_title(resource) for resource in (entry, rule) if resource is not None)
        tls, refusal = self._tls(url, rule, entry)
        if refusal:
            return Route(refusal=refusal, via=via)
        if entry is not None and port is not None:
            endpoints = _endpoints(entry, port, names)
            return Route(endpoints, tls, refusal=_why_unreachable(entry, endpoints), via=via)
        if in_cluster and self._options.egress == "mesh":
            # A name of two labels may be one of the internet, and is then only reached through a ServiceEntry.
            hint = "" if names == in_cluster else "with --jwks-egress mesh a host outside needs a ServiceEntry"
            return Route((Endpoint(in_cluster, url.port),), tls, via=via, hint=hint)
        if in_cluster or is_local(url.host):
            return Route((Endpoint(names, url.port),), tls, via=via)
        if self._options.egress == "mesh":
            return Route(refusal=self._why_outside(url, names, namespace), via=via)
        return Route((Endpoint(names, url.port),), tls, proxied=True, via=via)

    def _why_outside(self, url: Url, names: tuple[str, ...], namespace: str) -> str:
        covering = [e for e in self._service_entries if _visible(e, namespace) and _covers(e, names, url.host)]
        reason = f"{_title(covering[0])} does not have port {url.port}" if covering else "no ServiceEntry has it"
        return f"{url.host}:{url.port} is outside the mesh and {reason} (--jwks-egress mesh)"

    def _service_entry(
        self, url: Url, names: tuple[str, ...], namespace: str
    ) -> tuple[ServiceEntry | None, ServicePort | None]:
        """The entry that covers host and port, own namespace and the most specific host first."""
        best: tuple[tuple[bool, int], ServiceEntry, ServicePort] | None = None
        for entry in self._service_entries:
            port = next((port for port in entry.ports if port.number == url.port), None)
            if port is None or not _visible(entry, namespace):
                continue
            specific = _covers(entry, names, url.host)
            rank = (_namespace(entry) == namespace, specific)
            if specific and (best is None or rank > best[0]):
                best = rank, entry, port
        return (best[1], best[2]) if best else (None, None)

    def _destination_rule(
        self, names: tuple[str, ...], entry: ServiceEntry | None, namespace: str
    ) -> DestinationRule | None:
        """The rule for a host: of the client's namespace, else of the service's, else of the root namespace.

        In the root namespace itself only private rules come first (Istio: `PushContext.destinationRule`).
        """
        root, domain = self._options.root_namespace, self._options.cluster_domain
        owner = _namespace(entry) if entry is not None else service_namespace(names[0], domain)
        own = [rule for rule in self._destination_rules if _namespace(rule) == namespace and "~" not in rule.export_to]
        if namespace == root:
            own = [rule for rule in own if "." in rule.export_to]
        steps: list[list[DestinationRule]] = [own]
        for other in (owner, root):
            exported = (rule for rule in self._destination_rules if _namespace(rule) == other)
            steps.append([rule for rule in exported if _visible(rule, namespace)])
        for rules in steps:
            best = _most_specific(rules, names, domain)
            if best is not None:
                return best
        return None

    @staticmethod
    def _tls(url: Url, rule: DestinationRule | None, entry: ServiceEntry | None) -> tuple[Tls | None, str]:
        """The TLS that scheme and rule ask for, and why it cannot be had."""
        wanted = rule.tls if rule is not None else None
        if rule is not None:
            # A port's settings replace the others as a whole: without tls in them there is none.
            wanted = next((port.tls for port in rule.port_tls if port.port == url.port), wanted)
        if rule is None or wanted is None or wanted.mode is TlsMode.DISABLE:
            return (Tls(url.host) if url.scheme == "https" else None), ""
        title = _title(rule)
        if wanted.mode is TlsMode.ISTIO_MUTUAL:
            return None, (
                f"{title} wants mode ISTIO_MUTUAL, whose certificates only a sidecar has: use MUTUAL with files, "
                "or run with a sidecar and leave this rule out of the policies given here"
            )
        if wanted.credential_name:
            return None, (
                f"{title} names the secret {wanted.credential_name!r}, which is not read here: "
                "mount it and name its files (caCertificates, clientCertificate, privateKey)"
            )
        if wanted.mode is TlsMode.MUTUAL and not (wanted.client_certificate and wanted.private_key):
            return None, f"{title} wants mode MUTUAL without clientCertificate and privateKey"
        return _client_tls(wanted, url.host, entry.subject_alt_names if entry is not None else ()), ""


def _client_tls(wanted: ClientTls, host: str, entry_names: tuple[str, ...]) -> Tls:
    mutual = wanted.mode is TlsMode.MUTUAL
    return Tls(
        server_name=wanted.sni or host,
        names=wanted.subject_alt_names or entry_names,
        ca_file="" if wanted.ca_certificates == SYSTEM_CERTIFICATES else wanted.ca_certificates,
        crl_file=wanted.ca_crl,
        certificate_file=wanted.client_certificate if mutual else "",
        key_file=wanted.private_key if mutual else "",
        verify=not wanted.insecure_skip_verify,
    )


def _endpoints(entry: ServiceEntry, port: ServicePort, names: tuple[str, ...]) -> tuple[Endpoint, ...]:
    # Without resolution a connection goes to the port it was opened to.
    number = port.number if entry.resolution is Resolution.NONE else port.target_port or port.number
    if entry.endpoints and entry.resolution not in (Resolution.NONE, Resolution.DYNAMIC_DNS):
        return tuple(
            Endpoint((), 0, max(endpoint.weight, 1), endpoint.address.removeprefix(UNIX_SOCKET))
            if endpoint.address.startswith(UNIX_SOCKET)
            else Endpoint((endpoint.address,), endpoint.ports.get(port.name) or number, max(endpoint.weight, 1))
            for endpoint in entry.endpoints
        )
    if entry.resolution in (Resolution.NONE, Resolution.STATIC):
        # Where the mesh captures DNS, a host of such an entry resolves to the entry's addresses.
        addresses = [address for address in entry.addresses if ip_address(address) is not None]
        if addresses and ip_address(names[0]) is None:
            return tuple(Endpoint((address,), number) for address in addresses)
        if entry.resolution is Resolution.STATIC:
            return ()
    return (Endpoint(names, number),)


def _why_unreachable(entry: ServiceEntry, endpoints: Sequence[Endpoint]) -> str:
    if endpoints:
        return ""
    if entry.selector:
        return f"{_title(entry)} has a workloadSelector: the workloads that it selects are not known here"
    return f"{_title(entry)} has resolution STATIC and no endpoints: there is nowhere to connect to"


def _covers(entry: ServiceEntry, names: tuple[str, ...], host: str) -> int:
    specific = max((how_specific(pattern, names) for pattern in entry.hosts), default=0)
    ip = ip_address(host)
    if specific or ip is None:
        return specific
    networks = (ip_network(address) for address in entry.addresses)
    return max((1 + network.prefixlen for network in networks if network is not None and ip in network), default=0)


def _most_specific(rules: Iterable[DestinationRule], names: tuple[str, ...], domain: str) -> DestinationRule | None:
    best: DestinationRule | None = None
    best_specific = 0
    for rule in rules:
        host = rule.host
        if host and "." not in host and "*" not in host and ":" not in host:
            host = f"{host}.{_namespace(rule)}.svc.{domain}"
        specific = how_specific(host, names)
        if specific > best_specific:
            best, best_specific = rule, specific
    return best


def _visible(resource: ServiceEntry | DestinationRule, namespace: str) -> bool:
    """`exportTo`: `*` or nothing is everyone, `.` the own namespace, `~` nobody."""
    exported = resource.export_to
    if not exported or "*" in exported or namespace in exported:
        return True
    return "." in exported and _namespace(resource) == namespace


def _namespace(resource: Resource) -> str:
    return resource.metadata.namespace or "default"


def _title(resource: Resource) -> str:
    return f"{type(resource).__name__} {_namespace(resource)}/{resource.metadata.name}"


def _age(resource: Resource) -> tuple[bool, str]:
    created = resource.metadata.creation_timestamp
    return not created, created
