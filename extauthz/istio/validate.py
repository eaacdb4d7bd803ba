"""istiod's validation of one resource, and what passes istiod and then breaks Envoy (Istio: `pkg/config/validation`).

What all kinds share is here; the rest is in a module for each. Shapes are `fields` and `crd`'s affair, inline key sets
`authn`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.errors import Problem
from extauthz.istio.crd_security import BOOLEANS, DRY_RUN
from extauthz.istio.resources import (
    Action,
    AnyResource,
    AuthorizationPolicy,
    DestinationRule,
    RequestAuthentication,
    ServiceEntry,
    TargetRef,
)
from extauthz.istio.validate_authentication import Finding, request_authentication
from extauthz.istio.validate_authorization import authorization_policy
from extauthz.istio.validate_networking import destination_rule, service_entry

MAX_TARGET_REFS = 16
MAX_LABEL_VALUE = 63

_TARGETS = (
    ("", "Service"),
    ("core", "Service"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("networking.istio.io", "ServiceEntry"),
)
_ANNOTATION = ("metadata", "annotations", DRY_RUN)


def validate(resource: AnyResource) -> Iterator[Problem]:
    """Every problem of a resource."""
    for path, code, reason in _findings(resource):
        yield resource.problem(path, reason, code=code)


def _findings(resource: AnyResource) -> Iterator[Finding]:
    if isinstance(resource, AuthorizationPolicy):
        yield from _attachment(resource)
        yield from _dry_run(resource)
        yield from authorization_policy(resource)
    elif isinstance(resource, RequestAuthentication):
        yield from _attachment(resource)
        if DRY_RUN in resource.metadata.annotations:
            yield _ANNOTATION, "dry-run", "only an AuthorizationPolicy can be dry-run; remove the annotation"
        yield from request_authentication(resource)
    elif isinstance(resource, ServiceEntry):
        yield from service_entry(resource)
    elif isinstance(resource, DestinationRule):
        yield from destination_rule(resource)


def _dry_run(policy: AuthorizationPolicy) -> Iterator[Finding]:
    value = policy.metadata.annotations.get(DRY_RUN)
    if value is None:
        return
    if policy.action not in (Action.ALLOW, Action.DENY):
        yield _ANNOTATION, "dry-run", f"only ALLOW and DENY policies can be dry-run, this is {policy.action}"
    elif value not in BOOLEANS:
        yield _ANNOTATION, "dry-run", f"{value!r} is neither true nor false"


def _attachment(policy: RequestAuthentication | AuthorizationPolicy) -> Iterator[Finding]:
    if policy.selector is not None and policy.target_refs:
        yield ("spec", "selector"), "target-ref", "give a selector or targetRefs, not both"
    for key, value in (policy.selector or {}).items():
        path = ("spec", "selector", "matchLabels", key)
        if not key:
            yield path, "selector", "the key of a label must not be empty"
        if "*" in key or "*" in value:
            yield path, "selector", "labels are compared as they are: `*` is not possible"
        if len(value) > MAX_LABEL_VALUE:
            yield path, "selector", f"the value of a label has at most {MAX_LABEL_VALUE} characters"
    if len(policy.target_refs) > MAX_TARGET_REFS:
        yield ("spec", "targetRefs"), "target-ref", f"at most {MAX_TARGET_REFS} are possible"
    for index, reference in enumerate(policy.target_refs):
        for reason in _target_ref(reference):
            yield ("spec", "targetRefs", index), "target-ref", reason


def _target_ref(reference: TargetRef) -> Iterator[str]:
    if not reference.name:
        yield "a target needs a name"
    if reference.namespace:
        yield "a target is in the policy's own namespace: leave namespace out"
    if (reference.group, reference.kind) not in _TARGETS:
        known = ", ".join(f"{group or 'core'}/{kind}" for group, kind in _TARGETS[1:])
        yield f"{reference.group or 'core'}/{reference.kind} cannot be a target; one of {known}"
