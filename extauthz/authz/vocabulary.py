"""The fields and keys that an AuthorizationPolicy may name, and the attribute each of them compares.

Istio: `pilot/pkg/security/authz/model/model.go`. A key or name that cannot be compared is a ValueError.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from extauthz.authz.attributes import AnyAttribute
from extauthz.authz.metadata_attribute import MetadataAttribute
from extauthz.authz.network_attributes import (
    PortAttribute,
    destination_ip_attribute,
    remote_ip_attribute,
    source_ip_attribute,
)
from extauthz.authz.peer_attributes import (
    NamespaceAttribute,
    PrincipalAttribute,
    ServiceAccountAttribute,
    TrustDomainAttribute,
)
from extauthz.authz.text_attributes import (
    HeaderAttribute,
    PathAttribute,
    host_attribute,
    method_attribute,
    server_name_attribute,
)
from extauthz.authz.token_attributes import ClaimAttribute, RequestPrincipalAttribute
from extauthz.authz.trust_domains import TrustDomains

HEADERS = "request.headers"
CLAIMS = "request.auth.claims"
METADATA = "experimental.envoy.filters."

_NESTED_NAMES = re.compile(r"(?:\[[^\[\]]*\])+", re.DOTALL)
_NAME = re.compile(r"\[([^\[\]]*)\]", re.DOTALL)


class Field(NamedTuple):
    """A field of a source or operation: its name in the typed resource and in the CRD, and what its values mean."""

    attribute_name: str
    name: str
    expected: bool
    attribute: AnyAttribute


def _fields(name: str, attribute: AnyAttribute) -> tuple[Field, Field]:
    """A field and its `not` form."""
    first, *others = name.split("_")
    camel_case = first + "".join(part.capitalize() for part in others)
    return (
        Field(name, camel_case, True, attribute),
        Field(f"not_{name}", f"not{camel_case[0].upper()}{camel_case[1:]}", False, attribute),
    )


class Vocabulary:
    """Names to attributes. One name always gives the same attribute, so that rules can be sorted by it."""

    def __init__(self, trust_domains: TrustDomains, trusted_hops: int) -> None:
        source_ip, remote_ip = source_ip_attribute(), remote_ip_attribute(trusted_hops)
        principal, namespace = PrincipalAttribute(trust_domains), NamespaceAttribute()
        account, trust_domain = ServiceAccountAttribute(), TrustDomainAttribute(trust_domains)
        request_principal, port = RequestPrincipalAttribute(), PortAttribute()
        self.source_fields = (
            *_fields("principals", principal),
            *_fields("request_principals", request_principal),
            *_fields("namespaces", namespace),
            *_fields("ip_blocks", source_ip),
            *_fields("remote_ip_blocks", remote_ip),
            *_fields("service_accounts", account),
            *_fields("trust_domains", trust_domain),
        )
        self.operation_fields = (
            *_fields("hosts", host_attribute()),
            *_fields("ports", port),
            *_fields("methods", method_attribute()),
            *_fields("paths", PathAttribute()),
        )
        self._keys: dict[str, AnyAttribute] = {
            "source.ip": source_ip,
            "remote.ip": remote_ip,
            "source.principal": principal,
            "source.namespace": namespace,
            "source.serviceAccount": account,
            "source.trustDomain": trust_domain,
            "request.auth.principal": request_principal,
            "request.auth.audiences": ClaimAttribute(["aud"]),
            "request.auth.presenter": ClaimAttribute(["azp"]),
            "destination.ip": destination_ip_attribute(),
            "destination.port": port,
            "connection.sni": server_name_attribute(),
        }

    def attribute(self, key: str) -> AnyAttribute:
        """The attribute of a `when` key. Raises ValueError with what to write instead."""
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = _bracketed(key)
        return known


def _bracketed(key: str) -> AnyAttribute:
    if key.startswith(METADATA):
        filter_name, bracket, name = key.removeprefix("experimental.").removesuffix("]").partition("[")
        if not bracket or not key.endswith("]"):
            raise ValueError(f"{key!r} must have the form {METADATA}FILTER[NAME]")
        return MetadataAttribute(filter_name, name)
    if key.startswith(HEADERS):
        return HeaderAttribute(_in_brackets(key, HEADERS))
    if key.startswith(CLAIMS):
        names = key.removeprefix(CLAIMS)
        if _NESTED_NAMES.fullmatch(names):
            return ClaimAttribute(_NAME.findall(names))
        return ClaimAttribute([_in_brackets(key, CLAIMS)])
    raise ValueError(f"unknown key {key!r}")


def _in_brackets(key: str, prefix: str) -> str:
    text = key.removeprefix(prefix)
    if not text.startswith("[") or not text.endswith("]") or len(text) < len("[]"):
        raise ValueError(f"{key!r} must have the form {prefix}[NAME]")
    return text[1:-1]
