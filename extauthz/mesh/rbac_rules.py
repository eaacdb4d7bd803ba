"""A rule of an AuthorizationPolicy -> a policy of Envoy's RBAC: permissions (what is done), principals (by whom).

Every field and every `when` key has one entry in the tables at the end. Several values are any of them; the `not` form
is none of them; different fields must all hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    PermissionSet,
    Policy,
    Principal,
    PrincipalAuthenticated,
    PrincipalSet,
)
from envoy_data_plane.envoy.extensions.path.match.uri_template.v3 import UriTemplateMatchConfig
from envoy_data_plane.envoy.type.matcher.v3 import PathMatcher, StringMatcher, ValueMatcher
from envoy_data_plane.google.protobuf import Any

from extauthz.errors import UsageError
from extauthz.istio.resources import Operation, Rule, Source
from extauthz.mesh import matchers
from extauthz.mesh.trust_domains import expand_principals, expand_trust_domains

_CLAIM_PATH = re.compile(r"(?:\[[^\[\]]*\])+")
_CLAIM_NAME = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule's meaning depends on beside itself: its policy's namespace, the names of the mesh's trust domain."""

    namespace: str
    trust_domains: tuple[str, ...]


def match_never() -> Policy:
    """What stands for a policy without rules: a rule that never matches."""
    nothing, nobody = Permission(not_rule=Permission(any=True)), Principal(not_id=Principal(any=True))
    return Policy(permissions=[nothing], principals=[nobody])


def rbac_policy(rule: Rule, context: Context) -> Policy:
    """The RBAC policy of one rule. Raises UsageError for a key or value that has no meaning."""
    asked: list[Permission] = []
    known: list[Principal] = []
    for condition in rule.when:
        if (permits := _permit_of_key(condition.key)) is not None:
            asked.extend(_permissions(permits, condition.key, condition.values, condition.not_values, context))
        elif (identifies := _identify_of_key(condition.key)) is not None:
            known.extend(_principals(identifies, condition.key, condition.values, condition.not_values, context))
        else:
            raise UsageError(f"{condition.key!r} is no condition that Istio knows")
    permissions = [_all_permissions([*_operation(operation, context), *asked]) for operation in rule.operations]
    principals = [_all_principals([*_source(source, context), *known]) for source in rule.sources]
    return Policy(
        permissions=permissions or [_all_permissions(asked)], principals=principals or [_all_principals(known)]
    )


class _Permit(Protocol):
    def __call__(self, key: str, values: Sequence[str], context: Context) -> Permission: ...


class _Identify(Protocol):
    def __call__(self, key: str, values: Sequence[str], context: Context) -> Principal: ...


def _operation(operation: Operation, context: Context) -> Iterable[Permission]:
    for field, permit in _OPERATION_FIELDS.items():
        yield from _permissions(permit, field, getattr(operation, field), getattr(operation, f"not_{field}"), context)


def _source(source: Source, context: Context) -> Iterable[Principal]:
    for field, identify in _SOURCE_FIELDS.items():
        yield from _principals(identify, field, getattr(source, field), getattr(source, f"not_{field}"), context)


def _permissions(
    permit: _Permit, key: str, values: Sequence[str], not_values: Sequence[str], context: Context
) -> Iterable[Permission]:
    if values:
        yield permit(key, values, context)
    if not_values:
        yield Permission(not_rule=permit(key, not_values, context))


def _principals(
    identify: _Identify, key: str, values: Sequence[str], not_values: Sequence[str], context: Context
) -> Iterable[Principal]:
    if values:
        yield identify(key, values, context)
    if not_values:
        yield Principal(not_id=identify(key, not_values, context))


def _all_permissions(permissions: list[Permission]) -> Permission:
    return Permission(and_rules=PermissionSet(rules=permissions or [Permission(any=True)]))


def _all_principals(principals: list[Principal]) -> Principal:
    return Principal(and_ids=PrincipalSet(ids=principals or [Principal(any=True)]))


def _any_permission(permissions: Iterable[Permission]) -> Permission:
    return Permission(or_rules=PermissionSet(rules=list(permissions)))


def _any_principal(principals: Iterable[Principal]) -> Principal:
    return Principal(or_ids=PrincipalSet(ids=list(principals)))


# --- What is done: permissions ---


def _host(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(
        Permission(header=matchers.header(":authority", value, ignore_case=True)) for value in values
    )


def _method(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(Permission(header=matchers.header(":method", value)) for value in values)


def _path(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(_one_path(value) for value in values)


def _one_path(value: str) -> Permission:
    if "{*}" in value or "{**}" in value:
        template = UriTemplateMatchConfig(path_template=value.replace("{*}", "*").replace("{**}", "**"))
        return Permission(uri_template=TypedExtensionConfig(name="uri-template", typed_config=Any.pack(template)))
    return Permission(url_path=PathMatcher(path=matchers.text(value)))


def _destination_port(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(Permission(destination_port=_port(value)) for value in values)


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 65535:
        raise UsageError(f"{value!r} is no port number")
    return int(value)


def _destination_ip(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(Permission(destination_ip=matchers.address_range(value)) for value in values)


def _server_name(key: str, values: Sequence[str], context: Context) -> Permission:
    return _any_permission(Permission(requested_server_name=matchers.text(value)) for value in values)


def _filter_metadata(key: str, values: Sequence[str], context: Context) -> Permission:
    filter_name, bracket, name = key.removeprefix("experimental.").removesuffix("]").partition("[")
    if not bracket:
        raise UsageError(f"{key!r}: write experimental.envoy.filters.FILTER[KEY]")
    wanted = [_filter_value(value) for value in values]
    return Permission(metadata=matchers.metadata(filter_name, [name], matchers.any_value(wanted)))


def _filter_value(value: str) -> ValueMatcher:
    if value.startswith("[") and value.endswith("]"):
        return matchers.member(ValueMatcher(string_match=matchers.text(value.strip("[]"))))
    return ValueMatcher(string_match=matchers.text(value))


# --- By whom: principals ---


def _authenticated(name: StringMatcher) -> Principal:
    return Principal(authenticated=PrincipalAuthenticated(principal_name=name))


def _principal(key: str, values: Sequence[str], context: Context) -> Principal:
    expanded = expand_principals(values, context.trust_domains)
    return _any_principal(_authenticated(matchers.spiffe(value)) for value in expanded)


def _namespace(key: str, values: Sequence[str], context: Context) -> Principal:
    patterns = (".*".join(map(matchers.quoted, value.split("*"))) for value in values)
    return _any_principal(_authenticated(matchers.regex(f".*/ns/{pattern}/.*")) for pattern in patterns)


def _service_account(key: str, values: Sequence[str], context: Context) -> Principal:
    return _any_principal(
        _authenticated(matchers.regex(_service_account_regex(value, context.namespace))) for value in values
    )


def _service_account_regex(value: str, own_namespace: str) -> str:
    namespace, slash, name = value.partition("/")
    if not slash:
        namespace, name = own_namespace, value
    return f"spiffe://.+/ns/{matchers.quoted(namespace)}/(.+/|)sa/{matchers.quoted(name)}(/.+)?"


def _trust_domain(key: str, values: Sequence[str], context: Context) -> Principal:
    expanded = expand_trust_domains(values, context.trust_domains)
    return _any_principal(_authenticated(_trust_domain_matcher(value)) for value in expanded)


def _trust_domain_matcher(value: str) -> StringMatcher:
    if value == "*":
        return StringMatcher(prefix="spiffe://")
    before, star, after = value.partition("*")
    if not star:
        return StringMatcher(prefix=f"spiffe://{value}/")
    return matchers.regex(f"spiffe://{matchers.quoted(before)}[^/]*{matchers.quoted(after)}/.*")


def _source_ip(key: str, values: Sequence[str], context: Context) -> Principal:
    return _any_principal(Principal(direct_remote_ip=matchers.address_range(value)) for value in values)


def _remote_ip(key: str, values: Sequence[str], context: Context) -> Principal:
    return _any_principal(Principal(remote_ip=matchers.address_range(value)) for value in values)


def _request_principal(key: str, values: Sequence[str], context: Context) -> Principal:
    return _any_principal(_one_request_principal(value) for value in values)


def _one_request_principal(value: str) -> Principal:
    issuer, subject = _issuer_and_subject(value)
    return _all_principals(
        [
            Principal(metadata=matchers.claim_text("iss", issuer)),
            Principal(metadata=matchers.claim_text("sub", subject)),
        ]
    )


def _issuer_and_subject(value: str) -> tuple[StringMatcher, StringMatcher]:
    """The two halves of ISSUER/SUBJECT, split at the last slash; a star is understood at the ends of the whole."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return matchers.not_empty(), matchers.not_empty()
    if value.startswith("*"):
        if not slash:
            return matchers.not_empty(), StringMatcher(suffix=value[1:])
        whole = matchers.not_empty() if issuer == "*" else StringMatcher(suffix=issuer[1:])
        return whole, StringMatcher(exact=subject)
    if value.endswith("*"):
        if not slash:
            return StringMatcher(prefix=value[:-1]), matchers.not_empty()
        whole = matchers.not_empty() if subject == "*" else StringMatcher(prefix=subject[:-1])
        return StringMatcher(exact=issuer), whole
    if not slash:
        return StringMatcher(exact=value), StringMatcher(exact="")
    return StringMatcher(exact=issuer), StringMatcher(exact=subject)


def _audiences(key: str, values: Sequence[str], context: Context) -> Principal:
    return Principal(metadata=matchers.claim(["aud"], values))


def _presenter(key: str, values: Sequence[str], context: Context) -> Principal:
    return Principal(metadata=matchers.claim(["azp"], values))


def _claims(key: str, values: Sequence[str], context: Context) -> Principal:
    brackets = key.removeprefix("request.auth.claims")
    # Not a row of bracketed names: then everything between the outermost brackets is one name.
    path = _CLAIM_NAME.findall(brackets) if _CLAIM_PATH.fullmatch(brackets) else [_name_in_brackets(brackets)]
    return Principal(metadata=matchers.claim(path, values))


def _headers(key: str, values: Sequence[str], context: Context) -> Principal:
    name = _name_in_brackets(key.removeprefix("request.headers"))
    return _any_principal(Principal(header=matchers.header(name, value)) for value in values)


def _name_in_brackets(brackets: str) -> str:
    if not brackets.startswith("[") or not brackets.endswith("]") or len(brackets) < 2:
        raise UsageError(f"{brackets!r}: write [NAME]")
    return brackets[1:-1]


# --- Which field or key is which ---


_OPERATION_FIELDS: dict[str, _Permit] = {
    "hosts": _host,
    "methods": _method,
    "paths": _path,
    "ports": _destination_port,
}

_SOURCE_FIELDS: dict[str, _Identify] = {
    "principals": _principal,
    "request_principals": _request_principal,
    "namespaces": _namespace,
    "service_accounts": _service_account,
    "trust_domains": _trust_domain,
    "ip_blocks": _source_ip,
    "remote_ip_blocks": _remote_ip,
}


def _permit_of_key(key: str) -> _Permit | None:
    exact: dict[str, _Permit] = {
        "destination.ip": _destination_ip,
        "destination.port": _destination_port,
        "connection.sni": _server_name,
    }
    return _filter_metadata if key.startswith("experimental.envoy.filters.") else exact.get(key)


def _identify_of_key(key: str) -> _Identify | None:
    exact: dict[str, _Identify] = {
        "source.ip": _source_ip,
        "remote.ip": _remote_ip,
        "source.namespace": _namespace,
        "source.serviceAccount": _service_account,
        "source.trustDomain": _trust_domain,
        "source.principal": _principal,
        "request.auth.principal": _request_principal,
        "request.auth.audiences": _audiences,
        "request.auth.presenter": _presenter,
    }
    prefixes: tuple[tuple[str, _Identify], ...] = (("request.headers", _headers), ("request.auth.claims", _claims))
    return exact.get(key) or next((identify for prefix, identify in prefixes if key.startswith(prefix)), None)
