"""RequestAuthentications -> Envoy's jwt_authn filter: a provider for each rule, and one requirement tree over them.

The tree asks that every token that is there is good, and asks for none: whether a request needs one is for
AuthorizationPolicies to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwtAuthentication,
    JwtClaimToHeader,
    JwtHeader,
    JwtProvider,
    JwtProviderNormalizePayload,
    JwtRequirement,
    JwtRequirementAndList,
    JwtRequirementOrList,
    RequirementRule,
)
from envoy_data_plane.google.protobuf import Empty

from extauthz.istio.resources import JwtRule, RequestAuthentication
from extauthz.mesh.matchers import JWT_PAYLOAD

KeySets = Callable[[JwtRule], str]
"""Gives the text of the key set that a rule without inline keys has: what istiod fetched for it."""

_ALWAYS_SPACE_DELIMITED = ("permission", "scope")


def jwt_authn_filter(
    authentications: Iterable[RequestAuthentication], key_sets: KeySets, *, clear_route_cache: bool = False
) -> JwtAuthentication | None:
    """The filter for these resources, which come in the order that Istio has them in; None when they have no rules."""
    rules = sorted(
        (rule for authentication in authentications for rule in authentication.jwt_rules),
        key=lambda rule: rule.issuer.encode(),
    )
    if not rules:
        return None
    providers = {f"origins-{index}": _provider(rule, key_sets, clear_route_cache) for index, rule in enumerate(rules)}
    whole = RequirementRule(match=RouteMatch(prefix="/"), requires=_requirement(tuple(providers)))
    return JwtAuthentication(providers=providers, rules=[whole], bypass_cors_preflight=True)


def _requirement(names: Sequence[str]) -> JwtRequirement:
    """Any one provider's token being good is enough; else each provider has to be content, a missing token contents.

    The first part is for providers that look for tokens in the same place: there each sees the others' tokens as bad.
    """
    required = [JwtRequirement(provider_name=name) for name in names]
    optional = [
        JwtRequirement(
            requires_any=JwtRequirementOrList(requirements=[provider, JwtRequirement(allow_missing=Empty())])
        )
        for provider in required
    ]
    if len(optional) == 1:
        return optional[0]
    every = JwtRequirement(requires_all=JwtRequirementAndList(requirements=optional))
    return JwtRequirement(requires_any=JwtRequirementOrList(requirements=[*required, every]))


def _provider(rule: JwtRule, key_sets: KeySets, clear_route_cache: bool) -> JwtProvider:
    return JwtProvider(
        issuer=rule.issuer,
        audiences=list(rule.audiences),
        local_jwks=DataSource(inline_string=rule.jwks or key_sets(rule)),
        forward=rule.forward_original_token,
        from_headers=[JwtHeader(name=header.name, value_prefix=header.prefix) for header in rule.from_headers],
        from_params=list(rule.from_params),
        from_cookies=list(rule.from_cookies),
        forward_payload_header=rule.output_payload_to_header,
        claim_to_headers=[
            JwtClaimToHeader(header_name=output.header, claim_name=output.claim)
            for output in rule.output_claim_to_headers
        ],
        payload_in_metadata=JWT_PAYLOAD,
        normalize_payload_in_metadata=JwtProviderNormalizePayload(
            space_delimited_claims=sorted({*_ALWAYS_SPACE_DELIMITED, *rule.space_delimited_claims})
        ),
        clear_route_cache=clear_route_cache,
    )
