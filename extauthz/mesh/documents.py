"""Policies as YAML again: the resources that decide about requests, written as an operator would write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    JwtRule,
    RequestAuthentication,
    Resource,
    Resources,
    Rule,
)
from extauthz.mesh.yaml_text import yaml_text

Document = dict[str, Any]

_API_VERSION = "security.istio.io/v1"


def as_yaml(resources: Resources) -> str:
    """The RequestAuthentications and AuthorizationPolicies of `resources`, one document each."""
    return yaml_text(
        *map(authentication_document, resources.request_authentications),
        *map(policy_document, resources.authorization_policies),
    )


def authentication_document(authentication: RequestAuthentication) -> Document:
    """A RequestAuthentication as its CRD has it."""
    rules = [_jwt_rule(rule) for rule in authentication.jwt_rules]
    return _document("RequestAuthentication", authentication, {"jwtRules": rules})


def policy_document(policy: AuthorizationPolicy) -> Document:
    """An AuthorizationPolicy as its CRD has it."""
    spec: Document = {}
    if policy.action is not Action.ALLOW:
        spec["action"] = str(policy.action)
    if policy.provider:
        spec["provider"] = {"name": policy.provider}
    if policy.rules:
        spec["rules"] = [_rule(rule) for rule in policy.rules]
    document = _document("AuthorizationPolicy", policy, spec)
    if policy.dry_run:
        document["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    return document


def _document(kind: str, resource: Resource, spec: Document) -> Document:
    metadata: Document = {"name": resource.metadata.name, "namespace": resource.metadata.namespace}
    if resource.metadata.creation_timestamp:
        metadata["creationTimestamp"] = resource.metadata.creation_timestamp
    if resource.selector is not None:
        spec = {"selector": {"matchLabels": dict(resource.selector)}, **spec}
    if resource.target_refs:
        spec = {"targetRefs": [_given(reference) for reference in resource.target_refs], **spec}
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _jwt_rule(rule: JwtRule) -> Document:
    given = _given(rule)
    for name in ("fromHeaders", "outputClaimToHeaders"):
        if name in given:
            given[name] = [_given(item) for item in given[name]]
    if rule.timeout is not None:
        given["timeout"] = f"{rule.timeout:g}s"
    return given


def _rule(rule: Rule) -> Document:
    document: Document = {}
    if rule.sources:
        document["from"] = [{"source": _given(source)} for source in rule.sources]
    if rule.operations:
        document["to"] = [{"operation": _given(operation)} for operation in rule.operations]
    if rule.when:
        document["when"] = [_given(condition) for condition in rule.when]
    return document


def _given(item: Any) -> Document:
    """The fields of a dataclass that are not empty, under the CRD's names."""
    values = ((_camel(field.name), getattr(item, field.name)) for field in fields(item))
    return {name: _plain(value) for name, value in values if value not in ("", (), None, False)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
