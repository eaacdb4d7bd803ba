"""istiod's validation of a RequestAuthentication, and what passes istiod and breaks Envoy.

Whether inline keys can be read is `authn`'s affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from extauthz.istio.checks import http_url, shown
from extauthz.istio.resources import FieldPath, JwtRule, RequestAuthentication

MAX_SPACE_DELIMITED_CLAIMS = 64
MIN_TIMEOUT_SECONDS = 0.001

Finding = tuple[FieldPath, str, str]
"""A field, the code of what is wrong with it, and the reason."""

_OUTPUT_HEADER = re.compile(r"[-_A-Za-z0-9]+")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAK = re.compile(r"[\0\r\n]")


def request_authentication(policy: RequestAuthentication) -> Iterator[Finding]:
    """Everything that is wrong with the rules."""
    for index, rule in enumerate(policy.jwt_rules):
        for path, code, reason in (*_issuer_and_keys(rule), *_locations(rule), *_outputs(rule)):
            yield ("spec", "jwtRules", index, *path), code, reason


def _issuer_and_keys(rule: JwtRule) -> Iterator[Finding]:
    if not rule.issuer and not rule.jwks_uri:
        yield ("issuer",), "no-issuer", "must not be empty; only a rule with a jwksUri can do without an issuer"
    if rule.jwks and rule.jwks_uri:
        yield ("jwksUri",), "jwks-twice", "give jwks or jwksUri, not both"
    if rule.jwks_uri:
        if reason := http_url(rule.jwks_uri):
            yield ("jwksUri",), "jwks-uri", reason
    elif rule.issuer and not rule.jwks and http_url(rule.issuer):
        reason = "no keys can be had: give jwks or jwksUri, since OpenID discovery needs an issuer that is a URL"
        yield ("issuer",), "no-keys", reason
    if rule.timeout is not None:
        milliseconds = round(rule.timeout * 1000, 6)
        if rule.timeout < MIN_TIMEOUT_SECONDS:
            yield ("timeout",), "timeout", "must be at least 1ms"
        elif milliseconds % 1:
            yield ("timeout",), "timeout", "must be in whole milliseconds"
    for index, audience in enumerate(rule.audiences):
        if not audience:
            yield ("audiences", index), "empty-value", "must not be empty; remove the entry"


def _locations(rule: JwtRule) -> Iterator[Finding]:
    for index, header in enumerate(rule.from_headers):
        path: FieldPath = ("fromHeaders", index)
        if not header.name:
            yield (*path, "name"), "empty-value", "must not be empty: name a header"
        for name, text in (("name", header.name), ("prefix", header.prefix)):
            # istiod lets it pass, Envoy refuses the whole filter.
            if _LINE_BREAK.search(text):
                yield (*path, name), "header-name", f"{shown(text)} has a character that no header can have"
    for name, values in (("fromParams", rule.from_params), ("fromCookies", rule.from_cookies)):
        for index, value in enumerate(values):
            if not value:
                yield (name, index), "empty-value", "must not be empty; remove the entry"


def _outputs(rule: JwtRule) -> Iterator[Finding]:
    if rule.output_payload_to_header and not _HEADER.fullmatch(rule.output_payload_to_header):
        # istiod lets any text pass; Envoy refuses line breaks, and answers 503 to every good token for the rest.
        yield ("outputPayloadToHeader",), "header-name", f"{shown(rule.output_payload_to_header)} is no header name"
    for index, output in enumerate(rule.output_claim_to_headers):
        path: FieldPath = ("outputClaimToHeaders", index)
        if not output.header:
            yield (*path, "header"), "empty-value", "must not be empty: name a header"
        elif not _OUTPUT_HEADER.fullmatch(output.header):
            reason = f"{shown(output.header)} cannot be a header here: only letters, digits, - and _ are possible"
            yield (*path, "header"), "header-name", reason
        if not output.claim:
            yield (*path, "claim"), "empty-value", "must not be empty: name a claim"
    claims = rule.space_delimited_claims
    if len(claims) > MAX_SPACE_DELIMITED_CLAIMS:
        reason = f"at most {MAX_SPACE_DELIMITED_CLAIMS} are possible, not {len(claims)}"
        yield ("spaceDelimitedClaims",), "too-many", reason
    for index, claim in enumerate(claims):
        if not claim:
            yield ("spaceDelimitedClaims", index), "empty-value", "must not be empty; remove the entry"
