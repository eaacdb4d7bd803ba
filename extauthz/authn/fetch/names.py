"""What a host name stands for: short names inside the cluster, Istio's host patterns, forbidden addresses."""

from __future__ import annotations

import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Instance metadata outside the link-local ranges: AWS over IPv6, Alibaba, Oracle, Azure's wire server.
_METADATA = frozenset(
    ipaddress.ip_address(address) for address in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_EXACT = 1000


def ip_address(text: str) -> IpAddress | None:
    """The IP address that `text` is, or None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def ip_network(text: str) -> IpNetwork | None:
    """The network (or single address) that `text` is, or None."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def why_forbidden(address: str) -> str:
    """Why no key set is ever fetched from this IP address (istiod refuses the same ones), blank where it may be.

    Whoever may write a RequestAuthentication chooses a URL, and must not reach with it what only this machine can.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.is_link_local:
        return "a link-local address"
    if ip in _METADATA:
        return "a cloud metadata address"
    if ip.is_unspecified or ip.is_multicast:
        return "no address of a server"
    return ""


def cluster_names(host: str, namespace: str, cluster_domain: str) -> tuple[str, ...]:
    """The full names inside the cluster that `host`, written in a policy of `namespace`, may stand for.

    As a pod's resolver would complete it (`search NS.svc.DOMAIN svc.DOMAIN`): one label is a service of the namespace,
    two are service and namespace. Empty for an address and for a name that is outside the cluster for certain.
    """
    if ip_address(host) is not None or host == "localhost":
        return ()
    labels = host.split(".")
    if len(labels) == 1:
        return (f"{host}.{namespace}.svc.{cluster_domain}",)
    if len(labels) == 2:
        return (f"{host}.svc.{cluster_domain}",)
    if len(labels) == 3 and labels[2] == "svc":
        return (f"{host}.{cluster_domain}",)
    return (host,) if host.endswith(f".{cluster_domain}") else ()


def is_local(host: str) -> bool:
    """Whether `host` is this machine: a sidecar leaves such traffic alone."""
    ip = ip_address(host)
    return host == "localhost" if ip is None else ip.is_loopback


def service_namespace(name: str, cluster_domain: str) -> str:
    """The namespace in the full name of a service in the cluster, blank for other names."""
    service, dot, _ = name.partition(f".svc.{cluster_domain}")
    return service.rpartition(".")[2] if dot else ""


def how_specific(pattern: str, hosts: tuple[str, ...]) -> int:
    """How specifically a host of a ServiceEntry or DestinationRule covers one of `hosts`; 0: not at all.

    An exact name beats every wildcard, a longer wildcard a shorter one (Istio: `MostSpecificHostMatch`).
    """
    pattern = pattern.lower().removesuffix(".")
    if pattern in hosts:
        return _EXACT + len(pattern)
    if pattern == "*":
        return 1
    if pattern.startswith("*") and any(host.endswith(pattern[1:]) and len(host) >= len(pattern) for host in hosts):
        return len(pattern)
    return 0
