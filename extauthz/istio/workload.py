"""Which resources apply to a workload, and in which order Istio looks at them.

Istio: `pilot/pkg/model/policyattachment.go`. Ordinary workloads are chosen by namespace and labels; gateways of the
Gateway API and waypoints by `targetRefs`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from extauthz.errors import UsageError
from extauthz.istio.resources import AuthorizationPolicy, RequestAuthentication, Resources, TargetRef

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
MANAGED_LABEL = "gateway.istio.io/managed"
WAYPOINT_MANAGED = "istio.io-mesh-controller"
WAYPOINT_CLASS = "istio-waypoint"

_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

P = TypeVar("P", RequestAuthentication, AuthorizationPolicy)


@dataclass(frozen=True, slots=True)
class Workload:
    """A proxy: its namespace and its labels."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Workload:
        """Read `NAMESPACE/key=value,key=value` or `NAMESPACE`. Raises UsageError that says how to write it."""
        namespace, slash, rest = text.partition("/")
        labels: dict[str, str] = {}
        pairs = rest.split(",") if slash else []
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value) or key in labels:
                raise UsageError(f"workload {text!r}: {pair!r} is no label; write NAMESPACE/key=value,key=value")
            labels[key] = value
        if not _NAMESPACE.fullmatch(namespace):
            raise UsageError(f"workload {text!r}: {namespace!r} is no namespace; write NAMESPACE/key=value,key=value")
        return cls(namespace, labels)

    @property
    def gateway_name(self) -> str:
        """The Gateway (Gateway API) that the workload implements, empty when it is none."""
        return self.labels.get(GATEWAY_LABEL, "")


def select(resources: Resources, workload: Workload | None, root_namespace: str = "istio-system") -> Resources:
    """The resources that apply to a workload; all of them when it is None.

    RequestAuthentications come in Istio's order: those of the workload's namespace, then the root namespace's, each
    by creation time and name. Other kinds stay whole: they are looked up by host, or say what the workload stands for.
    """
    applies: Callable[[RequestAuthentication | AuthorizationPolicy], bool]
    if workload is None:
        applies = _everything
    elif _is_waypoint(workload, resources):
        applies = _Waypoint(workload, root_namespace, resources).applies
    else:
        applies = _Proxy(workload, root_namespace).applies

    def chosen(policies: tuple[P, ...]) -> tuple[P, ...]:
        kept = [policy for policy in policies if applies(policy)]
        # A timestamp is RFC 3339 in UTC, so text order is time order; one that is not there counts as the oldest.
        kept.sort(key=lambda policy: (policy.metadata.creation_timestamp, policy.metadata.name))
        kept.sort(key=lambda policy: policy.metadata.namespace == root_namespace)
        return tuple(kept)

    return replace(
        resources,
        request_authentications=chosen(resources.request_authentications),
        authorization_policies=chosen(resources.authorization_policies),
    )


def _everything(policy: RequestAuthentication | AuthorizationPolicy) -> bool:
    return True


def _is_waypoint(workload: Workload, resources: Resources) -> bool:
    if workload.labels.get(MANAGED_LABEL) == WAYPOINT_MANAGED:
        return True
    return any(
        gateway.gateway_class == WAYPOINT_CLASS
        for gateway in resources.gateways
        if (gateway.metadata.namespace, gateway.metadata.name) == (workload.namespace, workload.gateway_name)
    )


@dataclass(frozen=True, slots=True)
class _Proxy:
    """A sidecar, an ingress gateway, or a gateway of the Gateway API."""

    workload: Workload
    root_namespace: str

    def applies(self, policy: RequestAuthentication | AuthorizationPolicy) -> bool:
        if policy.metadata.namespace not in (self.workload.namespace, self.root_namespace):
            return False
        if policy.target_refs:
            name = self.workload.gateway_name
            return bool(name) and any(
                _names_gateway(reference, name) and policy.metadata.namespace == self.workload.namespace
                for reference in policy.target_refs
            )
        labels = self.workload.labels
        return all(labels.get(key) == value for key, value in (policy.selector or {}).items())


@dataclass(frozen=True, slots=True)
class _Waypoint:
    """A waypoint: never by selector. `resources` hold the services that it stands for."""

    workload: Workload
    root_namespace: str
    resources: Resources

    def applies(self, policy: RequestAuthentication | AuthorizationPolicy) -> bool:
        return any(self._is_meant(policy.metadata.namespace, reference) for reference in policy.target_refs)

    def _is_meant(self, namespace: str, reference: TargetRef) -> bool:
        if _names_gateway(reference, self.workload.gateway_name):
            return namespace == self.workload.namespace
        if (reference.group, reference.kind) == ("gateway.networking.k8s.io", "GatewayClass"):
            return reference.name == WAYPOINT_CLASS and namespace == self.root_namespace
        if reference.kind == "Service" and reference.group in ("", "core"):
            services = {(one.metadata.namespace, one.metadata.name) for one in self.resources.services}
        elif (reference.group, reference.kind) == ("networking.istio.io", "ServiceEntry"):
            services = {(one.metadata.namespace, one.metadata.name) for one in self.resources.service_entries}
        else:
            return False
        return (namespace, reference.name) in services


def _names_gateway(reference: TargetRef, name: str) -> bool:
    return (reference.group, reference.kind, reference.name) == ("gateway.networking.k8s.io", "Gateway", name)
