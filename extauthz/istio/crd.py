"""Which kinds of Kubernetes documents are read, and by what: the shapes are in `crd_security` and `crd_networking`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from extauthz.istio import crd_networking, crd_security
from extauthz.istio.fields import Fields, close_to
from extauthz.istio.resources import AnyResource, Origin

Read = Callable[[Fields, Origin], AnyResource]


@dataclass(frozen=True, slots=True)
class _Kind:
    group: str
    versions: tuple[str, ...]
    read: Read


def reader(api_version: str, kind: str) -> Read | None:
    """What reads documents of a kind; None for kinds that do not concern us."""
    known = _KINDS.get(kind)
    if known is None:
        return None
    group, version = _group_and_version(api_version)
    return known.read if group == known.group and version in known.versions else None


def near_miss(api_version: str, kind: str) -> str:
    """What is wrong with a document that looks like one of Istio's and is not read: a kind in another spelling, a
    version or group that does not go with it. Empty when it is none: passing over a misspelt policy enforces nothing.
    """
    group, _ = _group_and_version(api_version)
    if kind in _ISTIO_KINDS:
        known = _KINDS[kind]
        if group == known.group or "istio" in group or "." not in group:
            return f"apiVersion {api_version!r} does not go with kind {kind}; write {known.group}/{known.versions[0]}"
        return ""
    if kind in _PASSED_OVER or not (group in (_SECURITY, _NETWORKING) or "." not in group):
        return ""
    if meant := close_to(kind.removesuffix("s"), _ISTIO_KINDS):
        return f"unknown kind {kind!r}; did you mean {meant}?"
    return f"unknown kind {kind!r} of {_SECURITY}" if group == _SECURITY else ""


def _group_and_version(api_version: str) -> tuple[str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version


_SECURITY = "security.istio.io"
_NETWORKING = "networking.istio.io"
_NETWORKING_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_ISTIO_KINDS = ("RequestAuthentication", "AuthorizationPolicy", "ServiceEntry", "DestinationRule")
_PASSED_OVER = frozenset(
    (
        "PeerAuthentication", "VirtualService", "Gateway", "Sidecar", "WorkloadEntry", "WorkloadGroup", "EnvoyFilter",
        "ProxyConfig", "Service", "ServiceAccount",
    )
)  # fmt: skip
"""Kinds that are not read although their names resemble others, or stand in the same groups."""

_KINDS = {
    "RequestAuthentication": _Kind(_SECURITY, ("v1", "v1beta1"), crd_security.request_authentication),
    "AuthorizationPolicy": _Kind(_SECURITY, ("v1", "v1beta1"), crd_security.authorization_policy),
    "ServiceEntry": _Kind(_NETWORKING, _NETWORKING_VERSIONS, crd_networking.service_entry),
    "DestinationRule": _Kind(_NETWORKING, _NETWORKING_VERSIONS, crd_networking.destination_rule),
    "Gateway": _Kind("gateway.networking.k8s.io", ("v1", "v1beta1", "v1alpha2"), crd_networking.gateway),
    "Service": _Kind("", ("v1",), crd_networking.service),
}
