"""What policies demand of tokens against what authentication gives, for each namespace.

A proxy has the policies of its own namespace and of the root namespace: a demand and what would meet it belong
together only when one proxy can have both. Selectors are not compared: `--workload` does that.
"""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.istio.resources import (
    Action,
    AuthorizationPolicy,
    FieldPath,
    RequestAuthentication,
    Resource,
    Resources,
    Rule,
)
from extauthz.istio.validate_authentication import Finding

_TOKEN_KEYS = "request.auth."


def unmet_demands(policy: AuthorizationPolicy, chosen: Resources, root_namespace: str) -> Iterator[Finding]:
    """Request principals that no RequestAuthentication beside the policy can give."""
    demands = [
        (("spec", "rules", index, *place), values)
        for index, rule in enumerate(policy.rules)
        for place, values in _request_principals(rule)
    ]
    if not demands:
        return
    issuers = {
        rule.issuer
        for authentication in chosen.request_authentications
        if _together(policy, authentication, root_namespace)
        for rule in authentication.jwt_rules
    }
    for path, values in demands:
        if not issuers:
            reason = "no RequestAuthentication applies: no request ever has a request principal; add one"
            yield path, "no-authentication", reason
        for number, value in enumerate(values if issuers else ()):
            yield from (((*path, number), code, reason) for code, reason in _issuer(value, issuers))


def missing_demands(chosen: Resources, root_namespace: str) -> Iterator[tuple[RequestAuthentication, Finding]]:
    """RequestAuthentications that refuse bad tokens only, as no policy demands one: the commonest mistake of all."""
    demanding = [policy for policy in chosen.authorization_policies if not policy.dry_run and _demands_a_token(policy)]
    for authentication in chosen.request_authentications:
        met = any(_together(policy, authentication, root_namespace) for policy in demanding)
        if authentication.jwt_rules and not met:
            reason = (
                "requests without a token pass: this refuses bad tokens only. To demand one, add a DENY policy with "
                'notRequestPrincipals ["*"], or an ALLOW policy with requestPrincipals'
            )
            yield authentication, (("spec", "jwtRules"), "token-not-required", reason)


def _together(one: Resource, other: Resource, root_namespace: str) -> bool:
    """Whether a proxy can have both."""
    namespaces = {one.metadata.namespace, other.metadata.namespace}
    return len(namespaces) == 1 or root_namespace in namespaces


def _request_principals(rule: Rule) -> Iterator[tuple[FieldPath, tuple[str, ...]]]:
    for index, source in enumerate(rule.sources):
        if source.request_principals:
            yield ("from", index, "source", "requestPrincipals"), source.request_principals
    for index, condition in enumerate(rule.when):
        if condition.key == "request.auth.principal" and condition.values:
            yield ("when", index, "values"), condition.values


def _issuer(value: str, issuers: set[str]) -> Iterator[tuple[str, str]]:
    """What is odd about the issuer that a request principal names. A rule without an issuer accepts any."""
    issuer, slash, subject = value.rpartition("/")
    if not slash or issuer.startswith("*") or "" in issuers or issuer in issuers:
        return
    if any(value.startswith(f"{one}/") for one in issuers):
        reason = f"split at the last slash this is issuer {issuer!r}, subject {subject!r}: a subject with a slash "
        yield "never-matches", f"{reason}can only be matched as a suffix, {'*/' + subject!r}"
    elif not issuer.endswith(("http:/", "https:/")):
        accepted = ", ".join(sorted(issuers))
        reason = f"no RequestAuthentication accepts the issuer {issuer!r}; accepted are {accepted}"
        yield "unknown-issuer", reason


def _demands_a_token(policy: AuthorizationPolicy) -> bool:
    """Whether some request without a token is refused for the want of it."""
    if policy.action is Action.DENY:
        return any(
            any(source.not_request_principals for source in rule.sources)
            or any(condition.not_values and condition.key.startswith(_TOKEN_KEYS) for condition in rule.when)
            for rule in policy.rules
        )
    return policy.action is Action.ALLOW and any(
        any(source.request_principals for source in rule.sources)
        or any(condition.values and condition.key.startswith(_TOKEN_KEYS) for condition in rule.when)
        for rule in policy.rules
    )
