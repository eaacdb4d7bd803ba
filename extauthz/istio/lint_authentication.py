"""Warnings about one RequestAuthentication: what its rules do that nobody would expect of them."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.istio.resources import FieldPath, JwtRule, RequestAuthentication
from extauthz.istio.validate_authentication import Finding

DEFAULT_HEADER = "authorization"
"""Where a rule without locations looks for a token."""


def request_authentication(policy: RequestAuthentication) -> Iterator[Finding]:
    """Everything that is odd about the rules."""
    token_headers = {name for rule in policy.jwt_rules for name in _token_headers(rule)}
    for index, rule in enumerate(policy.jwt_rules):
        path: FieldPath = ("spec", "jwtRules", index)
        for place, code, reason in (*_rule(rule), *_beyond_an_answer(rule)):
            yield (*path, *place), code, reason
        for place, name in _outputs(rule):
            if name in token_headers:
                reason = f"{name!r} is removed from every request before tokens are looked for there; name another"
                yield (*path, *place), "output-hides-token", reason


def _token_headers(rule: JwtRule) -> Iterator[str]:
    yield from (header.name.lower() for header in rule.from_headers)
    if not (rule.from_headers or rule.from_params or rule.from_cookies):
        yield DEFAULT_HEADER


def _outputs(rule: JwtRule) -> Iterator[tuple[FieldPath, str]]:
    """The headers that a rule writes, with their fields."""
    if rule.output_payload_to_header:
        yield ("outputPayloadToHeader",), rule.output_payload_to_header.lower()
    for index, output in enumerate(rule.output_claim_to_headers):
        yield ("outputClaimToHeaders", index, "header"), output.header.lower()


def _rule(rule: JwtRule) -> Iterator[Finding]:
    if rule.issuer.endswith("/"):
        reason = f"the issuer ends in a slash: requestPrincipals have to be {rule.issuer + '/SUBJECT'!r} for it"
        yield ("issuer",), "issuer-slash", reason
    for index, output in enumerate(rule.output_claim_to_headers):
        if any(mark in output.claim for mark in "/:"):
            reason = f"claim {output.claim!r}: only dots descend; a top-level name with a dot cannot be output at all"
            yield ("outputClaimToHeaders", index, "claim"), "claim-path", reason
    if not rule.jwks and not rule.jwks_uri and rule.issuer.startswith("http://"):
        reason = "no jwks and no jwksUri: the issuer tells over plain HTTP where its keys are; use https"
        yield (), "discovery", reason


def _beyond_an_answer(rule: JwtRule) -> Iterator[Finding]:
    """What the mesh's own filters do to a request and an ext_authz answer cannot (docs/limits.md)."""
    names: set[str] = set()
    for path, name in _outputs(rule):
        if name in names:
            reason = f"{name!r} is written twice: the upstream gets one line joined with a comma, not two lines"
            yield path, "beyond-ext-authz", reason
        names.add(name)
    removed = {header.name.lower() for header in rule.from_headers} if not rule.forward_original_token else set()
    if "host" in names | removed:
        reason = "the mesh removes Host from requests by this rule; an ext_authz answer cannot: name another header"
        yield (), "beyond-ext-authz", reason
